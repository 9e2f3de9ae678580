//! Crashes at every write and sync, failing disks, and what is left after them.

use super::disk::{Disk, Fault, Unsynced};
use super::model::{Model, assert_recovered, held_by, random_record};
use super::*;

/// Records of one run. Most commits write about ten times.
const RECORDS: usize = 24;

/// What a run knows when its disk is gone.
struct Run {
    /// The number of each record and what the store holds with it.
    states: Vec<(Lsn, Model)>,
    /// What was acknowledged; `None` when not even the database was made, which then has no name yet.
    watermark: Option<Lsn>,
}

fn start(disk: &Disk) -> Result<(Store, Recovered), StoreError> {
    open_on(disk, &SETTINGS)
}

/// Works on the disk until it fails or the records end.
fn run(disk: &Disk, seed: u64) -> Run {
    let mut run = Run { states: vec![(Lsn::ZERO, Model::default())], watermark: None };
    let Ok(database) = database(disk) else { return run };
    run.watermark = Some(Lsn::ZERO);
    let Ok((opened, registry)) = load(database) else { return run };
    let (store, _) = Store::start(opened, registry, &SETTINGS).unwrap();
    let (mut dice, mut model) = (Dice(seed), Model::default());
    for _ in 0..RECORDS {
        let record = random_record(&mut dice, &model, &store);
        let Ok(entry) = store.submit(record.clone()) else { break };
        model.apply(entry.lsn, &record);
        run.states.push((entry.lsn, model.clone()));
        if dice.one_in(2) && block_on(store.durable(entry.lsn)).is_err() {
            break;
        }
    }
    if let Some((last, _)) = run.states.last() {
        let _ = block_on(store.durable(*last));
    }
    run.watermark = Some(store.watermark());
    // The power goes before the store is closed: nothing is tidied up.
    disk.fail_at(1, Fault::Crash);
    store.close();
    run
}

/// Everything acknowledged is there, nothing is there in part, and no number comes twice.
fn assert_kept(run: &Run, image: Vec<u8>) {
    let Some(watermark) = run.watermark else { return };
    let (store, recovered) = start(&Disk::with(image)).unwrap();
    let held = held_by(&store);
    assert_recovered(&recovered, &held);
    let possible = run.states.iter().rposition(|(lsn, _)| *lsn <= watermark).unwrap_or_default();
    let possible = run.states.get(possible..).unwrap_or_default();
    assert!(possible.iter().any(|(_, model)| *model == held), "after {:?}: {held:#?}", watermark);
    let again = write(&store, publication(b"after", &[]));
    assert!(run.states.iter().all(|(lsn, _)| *lsn < again), "a number for two");
    store.close();
}

/// [numbers_unique_over_crash] is part of what is asked after each crash.
#[test]
fn a_crash_at_any_write_keeps_what_was_acknowledged() {
    let whole = Disk::default();
    run(&whole, 1);
    for at in (1..whole.count()).step_by(3) {
        let disk = Disk::default();
        disk.fail_at(at, Fault::Crash);
        let run = run(&disk, 1 + at % 4);
        let mut dice = Dice(at);
        for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn] {
            assert_kept(&run, disk.after_crash(unsynced, &mut dice));
        }
    }
}

#[test]
fn a_crash_while_a_crash_is_mended_loses_nothing() {
    for seed in 0..40 {
        let (disk, mut dice) = (Disk::default(), Dice(seed));
        disk.fail_at(60 + 9 * seed, Fault::Crash);
        let run = run(&disk, seed);
        let mut image = disk.after_crash(Unsynced::Torn, &mut dice);
        for _ in 0..3 {
            let disk = Disk::with(image);
            disk.fail_at(1 + dice.roll(12) as u64, Fault::Crash);
            if let Ok((store, _)) = start(&disk) {
                store.close();
            }
            image = disk.after_crash(Unsynced::Torn, &mut dice);
        }
        assert_kept(&run, image);
    }
}

/// A store with a session, and a disk that fails once at the n-th operation from then on.
fn poisoned_at(n: u64, syncs_only: bool) {
    let disk = Disk::default();
    let (store, _) = start(&disk).unwrap();
    let number = session(&store);
    let before = store.watermark();
    if syncs_only {
        disk.count_syncs_only();
    }
    disk.fail_at(n, Fault::Once);
    let failing = submit(&store, publication(b"lost?", &[number]));
    if block_on(store.durable(failing)).is_ok() {
        assert!(!store.has_failed() && n > 3, "operation {n} has failed and was acknowledged");
        return store.close();
    }
    assert_eq!(store.watermark(), before);
    assert_eq!(store.submit(publication(b"late", &[number])).unwrap_err(), SubmitError::Failed);
    assert_eq!(store.admits_publish(), Err(SubmitError::Failed));
    assert_eq!(block_on(store.durable(failing)), Err(SubmitError::Failed));
    let reason = block_on(async { tokio::join!(store.failure(), store.failure()) });
    assert!(reason.0.contains("injected") && reason.0 == reason.1, "{reason:?}");
    assert!(!owed(&store, number).contains(&failing), "no read beyond the watermark");
    store.close();
    assert_eq!(store.watermark(), before, "not even at the end");
}

#[test]
fn a_write_that_fails_poisons_the_store() {
    (1..30).for_each(|n| poisoned_at(n, false));
}

#[test]
fn a_sync_that_fails_poisons_the_store() {
    (1..=2).for_each(|n| poisoned_at(n, true));
}

#[test]
fn whoever_waits_hears_of_the_failure() {
    let disk = Disk::default();
    let (store, _) = start(&disk).unwrap();
    let number = session(&store);
    disk.fail_at(1, Fault::Crash);
    let waiting: Vec<_> = (0..4)
        .filter_map(|_| store.submit(publication(b"x", &[number])).ok())
        .map(|entry| {
            let store = store.clone();
            std::thread::spawn(move || block_on(store.durable(entry.lsn)))
        })
        .collect();
    assert!(!waiting.is_empty());
    for thread in waiting {
        assert_eq!(thread.join().unwrap(), Err(SubmitError::Failed));
    }
    store.close();
}

#[test]
fn a_writer_that_panics_is_a_store_that_has_failed() {
    let disk = Disk::default();
    let (store, _) = start(&disk).unwrap();
    let number = session(&store);
    disk.fail_at(2, Fault::Panic);
    let lsn = submit(&store, publication(b"x", &[number]));
    assert_eq!(block_on(store.durable(lsn)), Err(SubmitError::Failed));
    assert!(block_on(store.failure()).contains("panicked"));
    store.close();
    // A database that was left in the middle of a write cannot be dropped without a second panic.
    std::mem::forget(store);
}

/// [dlq_atomic] Wherever the power goes: a message is owed to its route, or it is a dead letter and what is published of
/// that is owed to whoever wants it.
#[test]
fn dlq_atomic() {
    let give_up = |disk: &Disk, crash_at: Option<u64>| {
        let (store, _) = start(disk).unwrap();
        let [route, reader] = [0; 2].map(|_| store.new_recipient().0);
        let opened = [(route, "route"), (reader, "reader")];
        let opened = opened.map(|(number, name)| Change::RouteOpened(number, name.into()));
        write(&store, Record::of(opened));
        let lsn = write(&store, publication(b"m", &[route]));
        let begun = disk.count();
        if let Some(at) = crash_at {
            disk.fail_at(at, Fault::Crash);
        }
        let changes = vec![Change::Settled(route, vec![lsn]), Change::DeadLetter(Arc::from(&b"letter"[..]))];
        let record = Record { changes, ..publication(b"told", &[reader]) };
        if let Ok(entry) = store.submit(record) {
            let _ = block_on(store.durable(entry.lsn));
        }
        let ended = disk.count();
        disk.fail_at(1, Fault::Crash);
        store.close();
        (route, reader, ended - begun)
    };
    let (.., operations) = give_up(&Disk::default(), None);
    assert!(operations > 3, "{operations}");
    let mut seen = [false; 2];
    for at in 1..=operations + 1 {
        let (disk, mut dice) = (Disk::default(), Dice(at));
        let (route, reader, _) = give_up(&disk, Some(at));
        for unsynced in [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn] {
            let (store, _) = start(&Disk::with(disk.after_crash(unsynced, &mut dice))).unwrap();
            let letters = store.read_dead_letters(Lsn::ZERO, 10).unwrap().len();
            let found = (owed(&store, route).len(), letters, owed(&store, reader).len());
            assert!([(1, 0, 0), (0, 1, 1)].contains(&found), "crash at {at}, {unsynced:?}: {found:?}");
            seen[letters] = true;
            store.close();
        }
    }
    assert_eq!(seen, [true; 2], "both have happened");
}
