//! A crash at any write of a compaction: everything is there after it.

use super::disk::{Disk, Fault, Unsynced};
use super::model::held_by;
use super::*;
use crate::store::compact;

/// A database with gaps: most of what was in it has gone, and the last of it stays.
fn with_gaps() -> Disk {
    let disk = Disk::default();
    let (store, _) = open_on(&disk, &SETTINGS).unwrap();
    let (goes, stays) = (session(&store), session(&store));
    let payload = [7; 20_000];
    let numbers: Vec<_> = (0..60).map(|_| write(&store, publication(&payload, &[goes]))).collect();
    write(&store, publication(&payload, &[stays]));
    write(&store, Record::of([Change::Settled(goes, numbers)]));
    store.close();
    disk
}

/// Compacts what is on the disk; whether it got to the end.
fn compacted(disk: &Disk) -> bool {
    database(disk).and_then(|mut database| compact::run(&mut database)).is_ok()
}

#[test]
fn a_crash_while_it_is_compacted_loses_nothing() {
    let mut dice = Dice(9);
    let image = with_gaps().after_crash(Unsynced::Kept, &mut dice);
    let (store, _) = open_on(&Disk::with(image.clone()), &SETTINGS).unwrap();
    let held = held_by(&store);
    store.close();
    let whole = Disk::with(image.clone());
    assert!(compacted(&whole));
    let smaller = whole.after_crash(Unsynced::Kept, &mut dice);
    assert!(smaller.len() * 4 < image.len(), "{} of {}", smaller.len(), image.len());
    for at in 1..=whole.count() {
        let disk = Disk::with(image.clone());
        disk.fail_at(at, Fault::Crash);
        // The last writes are those of the close, whose errors nobody hears of.
        compacted(&disk);
        for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn] {
            let left = Disk::with(disk.after_crash(unsynced, &mut dice));
            let (store, _) = open_on(&left, &SETTINGS).unwrap();
            assert_eq!(held_by(&store), held, "crash at {at}, {unsynced:?}");
            store.close();
        }
    }
    eprintln!("{} writes and syncs", whole.count());
}
