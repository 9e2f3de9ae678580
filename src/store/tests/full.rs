//! A disk that is full in the middle of a commit.

use super::disk::{Disk, Fault, Unsynced};
use super::*;

/// The session, and the numbers it is owed after the database was opened again.
fn owed_after(image: Vec<u8>, number: RecipientNo) -> Vec<Lsn> {
    let (store, _) = open_on(&Disk::with(image), &SETTINGS).unwrap();
    let owed = owed(&store, number);
    store.close();
    owed
}

/// The disk is full at the n-th write from some moment on. False when no write failed.
fn full_at(n: u64) -> bool {
    let disk = Disk::default();
    let (store, _) = open_on(&disk, &SETTINGS).unwrap();
    let number = session(&store);
    let mut acknowledged: Vec<_> =
        (0..3).map(|_| write(&store, publication(&[1; 3000], &[number]))).collect();
    disk.fail_at(n, Fault::Full);
    let mut refused = None;
    for _ in 0..20 {
        let lsn = match store.submit(publication(&[2; 9000], &[number])) {
            Ok(entry) => entry.lsn,
            Err(error) => {
                refused = Some(error);
                break;
            }
        };
        if block_on(store.durable(lsn)).is_ok() {
            assert!(!store.has_failed(), "nothing is acknowledged after it");
            acknowledged.push(lsn);
        }
    }
    let failed = store.has_failed();
    assert_eq!(refused, failed.then_some(SubmitError::Failed));
    if failed {
        let reason = block_on(store.failure());
        assert!(reason.contains("no storage space"), "{reason}");
        assert_eq!(store.watermark(), *acknowledged.last().unwrap());
    }
    store.close();
    for unsynced in [Unsynced::Kept, Unsynced::Lost, Unsynced::Torn] {
        let found = owed_after(disk.after_crash(unsynced, &mut Dice(n)), number);
        // What was under way may be there, too.
        let rest = found.strip_prefix(acknowledged.as_slice());
        assert!(rest.is_some_and(|rest| rest.len() <= 1), "{acknowledged:?} {found:?}");
    }
    failed
}

#[test]
fn a_disk_that_is_full_at_any_write_of_a_commit_loses_nothing_acknowledged() {
    let failed = (1..=120).filter(|n| full_at(*n)).count();
    assert_eq!(failed, 120);
}

#[test]
fn a_start_on_a_full_disk_damages_nothing() {
    let disk = Disk::default();
    let (store, _) = open_on(&disk, &SETTINGS).unwrap();
    let number = session(&store);
    let acknowledged: Vec<_> = (0..3).map(|_| write(&store, publication(&[1; 3000], &[number]))).collect();
    store.close();
    let mut image = disk.after_crash(Unsynced::Kept, &mut Dice(0));
    for n in 1..12 {
        let disk = Disk::with(image);
        disk.fail_at(n, Fault::Full);
        if let Err(error) = open_on(&disk, &SETTINGS).map(|(store, _)| store.close()) {
            assert!(matches!(error, StoreError::Failed(_)), "{error}");
        }
        image = disk.after_crash(Unsynced::Kept, &mut Dice(n));
    }
    assert_eq!(owed_after(image, number), acknowledged);
}
