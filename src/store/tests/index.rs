//! The index of what is owed: what goes in there, what a start and the memory no longer hold, and crashes
//! in the middle of a pass.

use redb::{ReadableDatabase as _, ReadableTableMetadata as _};

use super::disk::{Disk, Fault, Unsynced};
use super::model::{Model, held_by};
use super::*;
use crate::store::tables::{INDEX, SHARED};

/// Numbers in memory, of all recipients.
fn recent(store: &Store) -> usize {
    store.shared.registry.backlogs.iter().map(|backlog| backlog.recent().runs().len()).sum()
}

/// Each message goes to some of the sessions, so that nobody's numbers are consecutive.
fn scatter(store: &Store, sessions: &[RecipientNo], count: usize) -> Lsn {
    let mut dice = Dice(7);
    let mut last = Lsn::ZERO;
    for n in 0..count {
        let some: Vec<_> = sessions.iter().copied().filter(|_| dice.one_in(5)).collect();
        last = submit(store, publication(&n.to_be_bytes(), &some));
    }
    last
}

fn assert_nothing_is_left(store: &Store) {
    assert_eq!(message_rows(store), [0; 0], "every leg was counted once");
    assert_eq!(store.messages(), (0, 0));
    let txn = store.database.begin_read().unwrap();
    assert!(txn.open_table(INDEX).unwrap().is_empty().unwrap());
    assert!(txn.open_table(SHARED).unwrap().is_empty().unwrap());
}

/// Writes nothing of importance until no pass is under way.
fn settle_down(store: &Store) {
    (0..200).for_each(|_| {
        write(store, Record::of([opened(RecipientNo(99), 1)]));
    });
}

#[test]
fn neither_memory_nor_a_start_grows_with_the_backlog() {
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings { recent_max: 500, ..SETTINGS };
    let (store, _) = Store::open(directory.path(), &settings).unwrap();
    let sessions: Vec<_> = (0..40).map(|_| session(&store)).collect();
    wait(&store, scatter(&store, &sessions, 4_000));
    settle_down(&store);
    let owed_in_all: u64 = sessions.iter().map(|number| store.backlog(*number).count()).sum();
    assert!(owed_in_all > 30_000);
    assert!(recent(&store) <= 500, "{} runs in memory", recent(&store));
    let before = held_by(&store);
    store.close();
    drop(store);

    let (store, _) = Store::open(directory.path(), &settings).unwrap();
    assert!(recent(&store) <= 500, "{} runs in memory after a start", recent(&store));
    assert_eq!(held_by(&store), before);
    write(&store, before.settle_all());
    assert_eq!(held_by(&store).owed().len(), 0);
    assert_nothing_is_left(&store);
    store.close();
}

/// What is settled on both sides of the end of the index, in whatever order, is settled once.
#[test]
fn a_backlog_is_read_over_the_end_of_the_index() {
    let (store, _) = open_on(&Disk::default(), &StoreSettings { recent_max: 30, ..SETTINGS }).unwrap();
    let number = session(&store);
    let numbers: Vec<_> = (0..100).map(|n| write(&store, publication(&[n], &[number]))).collect();
    let in_memory = store.backlog(number).recent();
    assert!(in_memory.contains(numbers[99]) && !in_memory.contains(numbers[0]), "{in_memory:?}");
    assert_eq!(owed(&store, number), numbers);
    let skipped = numbers[50];
    let page = store.read_after(number, (numbers[9], numbers[60]), 99, |lsn| lsn == skipped).unwrap();
    let expected = numbers[10..=60].iter().filter(|lsn| **lsn != skipped);
    assert!(page.messages.iter().map(|stored| &stored.lsn).eq(expected));
    assert!(page.is_whole && page.cursor == numbers[60], "{:?}", page.cursor);
    let odd: Vec<_> = numbers.iter().copied().skip(1).step_by(2).rev().collect();
    write(&store, Record::of([Change::Settled(number, odd.clone()), Change::Settled(number, odd)]));
    let even: Vec<_> = numbers.iter().copied().step_by(2).collect();
    assert_eq!((owed(&store, number), store.backlog(number).count()), (even, 50));
    store.close();
}

/// A run that ends at a crash with a pass under way, for each place where it can.
#[test]
fn a_pass_that_a_crash_cuts_short_is_begun_anew() {
    let settings = StoreSettings { recent_max: 20, ..SETTINGS };
    let mut cut = 0;
    for at in (0..60).step_by(2) {
        let disk = Disk::default();
        let (store, _) = open_on(&disk, &settings).unwrap();
        let sessions: Vec<_> = (0..12).map(|_| session(&store)).collect();
        wait(&store, scatter(&store, &sessions, 60));
        disk.fail_at(1 + 2 * at, Fault::Crash);
        let mut model = Model::default();
        for number in &sessions {
            let some = owed(&store, *number).into_iter().step_by(3).collect();
            let Ok(entry) = store.submit(Record::of([Change::Settled(*number, some)])) else { break };
            if block_on(store.durable(entry.lsn)).is_err() {
                break;
            }
            model = held_by(&store);
        }
        store.close();
        let image = disk.after_crash(Unsynced::Lost, &mut Dice(at));
        let (store, _) = open_on(&Disk::with(image), &settings).unwrap();
        let held = held_by(&store);
        // The last record was acknowledged and is there, or it was not and may be.
        assert!(model.owed().is_superset(&held.owed()) || model.owed().is_empty());
        let txn = store.database.begin_read().unwrap();
        cut += usize::from(!txn.open_table(INDEX).unwrap().is_empty().unwrap());
        drop(txn);
        write(&store, held.settle_all());
        assert_nothing_is_left(&store);
        store.close();
    }
    assert!(cut > 5, "{cut} crashes met an index");
}

/// What somebody was owed who is gone is in no index. A pass that ended before it was swept would leave it on
/// disk for ever, when the process ends just then.
#[test]
fn a_pass_does_not_end_before_what_the_gone_were_owed_is_swept() {
    let settings = StoreSettings { commit_interval: Duration::from_hours(1), recent_max: 10_500, ..SETTINGS };
    let filler = || publication(&vec![0; settings.batch_bytes_max], &[]);
    let disk = Disk::default();
    let (store, _) = open_on(&disk, &settings).unwrap();
    let (gone, other) = (store.new_recipient().0, store.new_recipient().0);
    submit(&store, Record::of([opened(gone, 1), opened(other, 1)]));
    (0..10_000).for_each(|_| {
        submit(&store, publication(b"x", &[gone]));
    });
    write(&store, filler());
    submit(&store, Record::of([Change::Discarded(gone)]));
    (0..600).for_each(|_| {
        submit(&store, publication(b"x", &[other]));
    });
    disk.count_syncs_only();
    disk.fail_at(3, Fault::Crash);
    submit(&store, filler());
    block_on(store.failure());
    store.close();
    let image = disk.after_crash(Unsynced::Lost, &mut Dice(1));
    let (store, recovered) = open_on(&Disk::with(image), &SETTINGS).unwrap();
    assert!(recovered.messages >= 600, "{} messages", recovered.messages);
    settle_down(&store);
    write(&store, held_by(&store).settle_all());
    assert_nothing_is_left(&store);
    store.close();
}
