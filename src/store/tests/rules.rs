//! The rules that keep the promise, as far as the store can show them. Names in brackets are the design's.

use std::sync::Barrier;

use super::disk::Disk;
use super::model::held_by;
use super::*;
use crate::codec::PacketId;
use crate::record::{InboundExchange, SessionDelta};

/// Gathers records until [`flush`]: nothing is written before.
const GATHERING: StoreSettings =
    StoreSettings { commit_interval: Duration::from_secs(3_600), batch_bytes_max: 64 * 1024, ..SETTINGS };

/// A store that gathers, with a session in it.
fn gathering(disk: &Disk) -> (Store, RecipientNo) {
    let (store, _) = open_on(disk, &GATHERING).unwrap();
    let (number, _) = store.new_recipient();
    submit(&store, Record::of([opened(number, 1)]));
    flush(&store);
    (store, number)
}

/// Writes what was gathered, by a record that makes the batch large enough and is itself skipped.
fn flush(store: &Store) {
    write(store, publication(&vec![0; GATHERING.batch_bytes_max], &[]));
}

fn settled(recipient: RecipientNo, numbers: &[Lsn]) -> Record {
    Record::of([Change::Settled(recipient, numbers.to_vec())])
}

/// [cursor_never_passes_undelivered]
#[test]
fn cursor_never_passes_undelivered() {
    let directory = tempfile::tempdir().unwrap();
    // Nothing goes into the index: that has no cursor.
    let open = || Store::open(directory.path(), &StoreSettings { recent_max: u64::MAX, ..SETTINGS }).unwrap();
    let (store, _) = open();
    let (one, other) = (session(&store), session(&store));
    let numbers: Vec<_> = (0..100).map(|n| submit(&store, publication(&[n], &[one, other]))).collect();
    let (oldest, newer) = numbers.split_first().unwrap();
    for lsn in newer.iter().rev() {
        submit(&store, settled(one, &[*lsn]));
    }
    let last = submit(&store, settled(one, &[]));
    wait(&store, last);
    let progress = store.progress(one).unwrap();
    assert!(progress.cursor < *oldest);
    assert_eq!(progress.settled.len(), 1, "one range, however much is settled beyond the oldest");
    store.close();
    drop(store);

    let (store, _) = open();
    assert_eq!(owed(&store, one), [*oldest]);
    assert_eq!(owed(&store, other), numbers);
    write(&store, settled(one, &[*oldest]));
    assert!(store.progress(one).unwrap().settled.is_empty());
    store.close();
    drop(store);
    let (store, _) = open();
    assert_eq!(owed(&store, one), []);
    assert_eq!(owed(&store, other), numbers);
    store.close();
}

/// [numbers_unique_over_crash] The disk forgets what it has not synced, where a block of numbers ends.
#[test]
fn numbers_unique_over_crash() {
    let disk = Disk::default();
    let (mut opened, registry) = load(database(&disk).unwrap()).unwrap();
    opened.reserved = Lsn(opened.first.0 + 10);
    let txn = opened.database.begin_write().unwrap();
    tables::Tables::open(&txn).unwrap().set_meta_number(tables::key::RESERVED, opened.reserved.0).unwrap();
    txn.commit().unwrap();
    let store_id = opened.ids.current;
    let (store, _) = Store::start(opened, registry, &SETTINGS).unwrap();
    disk.hold_syncs();
    let mut given = vec![store.submit(publication(b"", &[])).unwrap()];
    // The writer reserves the next block.
    disk.wait_until_held();
    given.extend((0..20).map_while(|_| store.submit(publication(b"", &[])).ok()));
    assert_eq!(given.len(), 10, "more than are reserved on disk");
    let crashed = disk.after_power_loss();
    disk.release_syncs();
    store.close();

    // Two starts that write nothing else, one after the other.
    let mut newest = given.last().unwrap().lsn;
    for _ in 0..2 {
        let (opened, _) = load(database(&crashed).unwrap()).unwrap();
        assert!(opened.first > newest, "{:?} is given a second time", opened.first);
        assert_eq!(opened.ids.current, store_id);
        newest = opened.first;
    }
}

/// A block ends while every record is skipped.
#[test]
fn a_block_of_numbers_is_renewed_though_nothing_else_is_written() {
    let disk = Disk::default();
    let (mut opened, registry) = load(database(&disk).unwrap()).unwrap();
    opened.reserved = Lsn(opened.first.0 + 10);
    let (store, _) = Store::start(opened, registry, &SETTINGS).unwrap();
    let mut last = Lsn::ZERO;
    for _ in 0..100 {
        last = write(&store, publication(b"", &[]));
    }
    store.close();
    drop(store);
    assert!(load(database(&disk).unwrap()).unwrap().0.first > last);
}

/// [watermark_order]
#[test]
fn watermark_order() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_in(directory.path());
    let number = session(&store);
    let before = store.watermark().0;
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            std::thread::spawn(move || {
                let numbers: Vec<_> =
                    (0..200).map(|_| submit(&store, publication(b"x", &[number]))).collect();
                for lsn in numbers.iter().step_by(20) {
                    wait(&store, *lsn);
                    assert_eq!(
                        store.read(number, &[*lsn]).unwrap().messages.len(),
                        1,
                        "durable, and not there"
                    );
                }
                assert!(numbers.is_sorted());
                numbers
            })
        })
        .collect();
    let mut all: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all, (before + 1..=before + 1_600).map(Lsn).collect::<Vec<_>>(), "without a gap");
    wait(&store, Lsn(before + 1_600));
    assert_eq!(owed(&store, number), all);
    store.close();
}

/// [skip_keeps_id_and_retained]
#[test]
fn skip_keeps_id_and_retained() {
    let (store, number) = gathering(&Disk::default());
    let held: [fn(&mut Publication, RecipientNo); 2] = [
        |publication, _| publication.retain = true,
        |publication, recipient| {
            let (epoch, packet_id) = (Epoch(1), PacketId::new(7).unwrap());
            publication.inbound = Some(InboundExchange { recipient, epoch, packet_id });
        },
    ];
    for hold in held {
        let mut record = publication(b"kept", &[number]);
        hold(record.publication.as_mut().unwrap(), number);
        let entry = store.submit(record).unwrap();
        assert!(entry.strike(number).is_struck());
        flush(&store);
    }
    assert_eq!(owed(&store, number), []);
    assert!(message_rows(&store).is_empty());
    assert!(store.progress(number).unwrap().inbound.contains(&7));
    assert!(format!("{:?}", held_by(&store)).contains("a/b"), "the retained message");
    store.close();
}

#[test]
fn a_record_that_is_skipped_writes_nothing() {
    let disk = Disk::default();
    let (store, number) = gathering(&disk);
    let before = disk.count();
    let entry = store.submit(publication(b"fast", &[number])).unwrap();
    assert!(store.watermark() < entry.lsn);
    assert!(entry.strike(number).is_struck());
    flush(&store);
    assert!(store.watermark() >= entry.lsn);
    assert_eq!(disk.count(), before, "no write and no sync");
    store.close();
}

#[test]
fn one_leg_of_two_can_be_struck_out() {
    let (store, one) = gathering(&Disk::default());
    let (two, _) = store.new_recipient();
    submit(&store, Record::of([opened(two, 1)]));
    let entry = store.submit(publication(b"x", &[one, two])).unwrap();
    assert!(entry.strike(one).is_struck());
    flush(&store);
    assert_eq!((owed(&store, one), owed(&store, two)), (vec![], vec![entry.lsn]));
    assert!(!entry.strike(two).is_struck(), "too late: this takes a record of its own");
    store.close();
}

/// [leg_leaves_while_taken] A leg that is acknowledged while its record is on its way to the disk is settled by a
/// record of its own. All orders of the two are played in `interleavings`.
#[test]
fn leg_leaves_while_taken() {
    let disk = Disk::default();
    let (store, _) = open_on(&disk, &SETTINGS).unwrap();
    let number = session(&store);
    disk.hold_syncs();
    let entry = store.submit(publication(b"x", &[number])).unwrap();
    disk.wait_until_held();
    assert!(!entry.strike(number).is_struck());
    disk.release_syncs();
    wait(&store, entry.lsn);
    assert_eq!(owed(&store, number), [entry.lsn], "whoever reads now is owed it");
    write(&store, settled(number, &[entry.lsn]));
    assert_eq!((owed(&store, number), message_rows(&store)), (vec![], vec![]));
    store.close();
}

/// The same, and before, wherever the writer happens to be.
#[test]
fn whoever_wins_a_leg_is_written_or_struck() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_in(directory.path());
    let number = session(&store);
    let barrier = Barrier::new(2);
    let (entries, results) = (Mutex::new(None::<Arc<Entry>>), Mutex::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..300 {
                barrier.wait();
                let entry = entries.lock().take().unwrap();
                *results.lock() = entry.strike(number).is_struck();
                barrier.wait();
            }
        });
        for _ in 0..300 {
            let entry = store.submit(publication(b"x", &[number])).unwrap();
            *entries.lock() = Some(Arc::clone(&entry));
            barrier.wait();
            wait(&store, entry.lsn);
            barrier.wait();
            assert_eq!(owed(&store, number).contains(&entry.lsn), !*results.lock());
        }
    });
    store.close();
}

/// [void_record] Nothing is read beyond the watermark, and a record whose commit fails was never there: its
/// numbers need not be taken back from the pending lists, because no reader has come to them (ADR 1).
#[test]
fn void_record() {
    let disk = Disk::default();
    let (store, _) = open_on(&disk, &SETTINGS).unwrap();
    let number = session(&store);
    disk.hold_syncs();
    let entry = store.submit(publication(b"x", &[number])).unwrap();
    disk.wait_until_held();
    assert_eq!(owed(&store, number), [], "it was applied, and is not committed");
    disk.crash_at_sync(1);
    disk.release_syncs();
    assert_eq!(block_on(store.durable(entry.lsn)), Err(SubmitError::Failed));
    assert!(store.watermark() < entry.lsn);
    assert_eq!(owed(&store, number), []);
    assert_eq!(store.submit(publication(b"late", &[number])).unwrap_err(), SubmitError::Failed);
    store.close();
    let (store, _) = open_on(&disk.after_power_loss(), &SETTINGS).unwrap();
    assert_eq!((owed(&store, number), message_rows(&store)), (vec![], vec![]));
    store.close();
}

/// [void_record] A number that is owed and nowhere is an error, counted and never skipped; what is not owed any more is left out.
#[test]
fn a_missing_message_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let (store, _) = ::metrics::with_local_recorder(&recorder, || open_in(directory.path()));
    let number = session(&store);
    let [first, second, third] =
        [b"1", b"2", b"3"].map(|payload| write(&store, publication(payload, &[number])));
    write(&store, settled(number, &[first]));
    let read: Vec<_> = store.read(number, &[first, second]).unwrap().messages.iter().map(|s| s.lsn).collect();
    assert_eq!(read, [second]);
    let txn = store.database.begin_write().unwrap();
    txn.open_table(tables::MESSAGES).unwrap().remove(third.0).unwrap();
    txn.commit().unwrap();
    let error = store.read(number, &[second, third]).unwrap_err();
    assert!(matches!(error, StoreError::Damaged(_)), "{error}");
    let counted = recorder.handle().render();
    assert!(counted.contains("causeway_store_messages_missing_total 1\n"), "{counted}");
    write(&store, Record::of([Change::Discarded(number)]));
    assert!(store.read(number, &[second, third]).unwrap().messages.is_empty());
    store.close();
}

/// What a connection says after a newer one has taken the session is void; so are a repeated settlement
/// and one of somebody who is not owed.
#[test]
fn an_older_epoch_has_no_say() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_in(directory.path());
    let (number, stranger) = (session(&store), session(&store));
    write(&store, Record::of([opened(number, 2)]));
    let lsn = write(&store, publication(b"x", &[number]));
    let delta = |epoch| SessionDelta {
        recipient: number,
        epoch: Epoch(epoch),
        settled: vec![lsn, lsn],
        next_packet_id: 9,
        ..SessionDelta::default()
    };
    let closed = Change::SessionClosed {
        recipient: number,
        epoch: Epoch(1),
        at: UnixMillis(5),
        expiry: 0,
        keep_will: false,
        torn: false,
    };
    write(&store, Record::of([Change::Progress(Box::new(delta(1))), closed, opened(number, 1)]));
    write(&store, settled(stranger, &[lsn]));
    assert_eq!(owed(&store, number), [lsn]);
    assert_eq!(store.progress(number).unwrap(), Progress::default());
    write(&store, Record::of([Change::Progress(Box::new(delta(2)))]));
    assert_eq!(owed(&store, number), []);
    assert_eq!(store.progress(number).unwrap().next_packet_id, 9);
    store.close();
}

/// The next connection may not come to what the torn one has sent: the one after it has to know, too.
#[test]
fn what_a_torn_connection_left_in_doubt_stays_so() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_in(directory.path());
    let number = session(&store);
    let closed = |epoch, at, torn| Change::SessionClosed {
        recipient: number,
        epoch: Epoch(epoch),
        at: UnixMillis(at),
        expiry: 9,
        keep_will: true,
        torn,
    };
    let doubtful_before = |store: &Store| store.progress(number).unwrap().doubtful_before;
    let torn = write(&store, Record::of([opened(number, 2), closed(2, 5, true)]));
    assert_eq!(doubtful_before(&store), torn);
    write(&store, Record::of([opened(number, 3), closed(3, 7, false)]));
    assert_eq!(doubtful_before(&store), torn);
    store.close();
    drop(store);

    let (store, recovered) = open_in(directory.path());
    assert_eq!(doubtful_before(&store), torn);
    let row = &recovered.sessions[0].0;
    assert_eq!((row.closed_at, row.torn), (Some(UnixMillis(7)), false));
    let torn = write(&store, Record::of([opened(number, 4), closed(4, 8, true)]));
    assert_eq!(doubtful_before(&store), torn);
    store.close();
}

/// Each commit lets go of some thousand.
fn swept(store: &Store) {
    (0..3).for_each(|_| {
        write(store, Record::of([opened(RecipientNo(99), 1)]));
    });
}

/// A large backlog is let go piece by piece, also when a restart comes between.
#[test]
fn what_a_discarded_session_was_owed_goes() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_in(directory.path());
    let (one, other) = (session(&store), session(&store));
    (0..10_000).for_each(|_| {
        submit(&store, publication(b"x", &[one]));
    });
    let shared = write(&store, publication(b"x", &[one, other]));
    let backlog = store.backlog(one);
    submit(&store, Record::of([Change::Discarded(one)]));
    store.close();
    drop(store);
    assert!(backlog.count() > 0, "swept in one piece");

    let (store, recovered) = open_in(directory.path());
    assert!(recovered.messages > 1, "it goes on");
    swept(&store);
    assert_eq!(message_rows(&store), [shared.0]);
    assert_eq!((owed(&store, one), owed(&store, other)), (vec![], vec![shared]));
    (0..5_000).for_each(|_| {
        submit(&store, publication(b"x", &[other]));
    });
    write(&store, publication(b"x", &[other]));
    let backlog = store.backlog(other);
    write(&store, Record::of([Change::Discarded(other)]));
    swept(&store);
    assert!(message_rows(&store).is_empty());
    assert_eq!((backlog.count(), backlog.bytes()), (0, 0));
    assert!(!store.shared.registry.backlogs.contains_key(&other), "nothing is kept of it in memory");
    store.close();
}

/// Rule 20. The row goes with its last open leg: the writer counts them, in place of a sweeper that looks for rows
/// without one. Settlements as ranges are asked for in `cursor_never_passes_undelivered`; how far a target looks
/// past its oldest is a test of the bridge's window.
#[test]
fn a_settled_row_goes_with_its_last_leg() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_in(directory.path());
    let all = [(); 3].map(|()| session(&store));
    let [first, second] = [b"1", b"2"].map(|payload| write(&store, publication(payload, &all)));
    write(&store, settled(all[2], &[second]));
    write(&store, settled(all[0], &[second, first]));
    assert_eq!(message_rows(&store), [first.0, second.0]);
    store.close();
    drop(store);

    let (store, _) = open_in(directory.path());
    assert_eq!(message_rows(&store), [first.0, second.0]);
    write(&store, settled(all[1], &[second]));
    // One that it has settled before is none the less for it.
    write(&store, settled(all[2], &[second, second, first]));
    assert_eq!(message_rows(&store), [first.0]);
    assert_eq!(owed(&store, all[1]), [first]);
    write(&store, settled(all[1], &[first]));
    assert_eq!((message_rows(&store), store.messages()), (vec![], (0, 0)));
    store.close();
}

#[test]
fn what_waits_is_counted_down_to_nothing() {
    let (store, number) = gathering(&Disk::default());
    for _ in 0..3 {
        (0..500).for_each(|_| {
            submit(&store, publication(&[1; 400], &[number; 1]));
        });
        flush(&store);
        assert_eq!(store.shared.queue.bytes(), 0, "batches were cut, and all was taken");
    }
    store.close();
}

/// [disk_full_recovers] is shown with clients; this is the store's part.
#[test]
fn full_is_not_failed() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_in(directory.path());
    let number = session(&store);
    let lsn = write(&store, publication(b"x", &[number]));
    store.set_disk_full(true);
    assert_eq!(store.admits_publish(), Err(SubmitError::Full));
    write(&store, settled(number, &[lsn]));
    assert_eq!(owed(&store, number), []);
    store.set_disk_full(false);
    assert_eq!(store.admits_publish(), Ok(()));
    store.close();
}

#[test]
fn closing_writes_what_waits_and_refuses_the_rest() {
    let disk = Disk::default();
    let (store, number) = gathering(&disk);
    let entry = store.submit(publication(b"x", &[number])).unwrap();
    store.close();
    assert!(store.watermark() >= entry.lsn);
    assert_eq!(store.submit(publication(b"late", &[number])).unwrap_err(), SubmitError::Failed);
}

#[test]
fn dead_letters_are_read_in_pages() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_in(directory.path());
    let letter: Arc<[u8]> = vec![7; 100 * 1024].into();
    let numbers: Vec<_> =
        (0..5).map(|_| write(&store, Record::of([Change::DeadLetter(Arc::clone(&letter))]))).collect();
    let (mut cursor, mut read) = (Lsn::ZERO, Vec::new());
    while let Some(last) = store.read_dead_letters(cursor, 100).unwrap().last() {
        let page = store.read_dead_letters(cursor, 100).unwrap();
        assert!(page.len() <= 2, "a page has its bytes");
        read.extend(page.iter().map(|letter| letter.id));
        cursor = last.id;
    }
    assert_eq!(read, numbers);
    assert!(store.read_dead_letters(Lsn(u64::MAX), 9).unwrap().is_empty());
    assert_eq!(store.dead_letters(), (5, 500 * 1024));
    store.close();
}
