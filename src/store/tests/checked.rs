//! A look at a database finds nothing in one that the store has written, and what somebody else has put in.

use redb::ReadableDatabase as _;

use super::model::{Model, random_record};
use super::*;
use crate::store::check_rows::check_rows;
use crate::store::tables::{
    AUTHORS, DEAD_LETTERS, GROUPS, INDEX, MESSAGES, META, PROGRESS, SESSIONS, SHARED, key,
};

fn problems(database: &redb::Database) -> Vec<String> {
    check_rows(&database.begin_read().unwrap(), Path::new("test")).unwrap().problems
}

/// Dead letters and exchanges of the model are anything.
fn but_for_nonsense(mut problems: Vec<String>) -> Vec<String> {
    problems.retain(|problem| !problem.starts_with("dead letter ") && !problem.contains("names message"));
    problems
}

#[test]
fn nothing_is_wrong_with_what_the_store_writes() {
    for seed in 0..4 {
        let directory = tempfile::tempdir().unwrap();
        let (mut dice, mut model, mut entries) = (Dice(seed), Model::default(), Vec::<Arc<Entry>>::new());
        for _ in 0..4 {
            let (store, _) = open_in(directory.path());
            for round in 0..120 {
                let record = random_record(&mut dice, &model, &store);
                let entry = store.submit(record.clone()).unwrap();
                model.apply(entry.lsn, &record);
                entries.push(entry);
                if let Some(entry) = dice.pick(&entries).filter(|_| round % 2 == 0) {
                    let recipient = RecipientNo(1 + dice.roll(12) as u64);
                    if entry.strike(recipient).is_struck() {
                        model.strike(recipient, entry.lsn);
                    }
                }
                if round % 10 == 0 {
                    wait(&store, entries[entries.len() - 1].lsn);
                    assert_eq!(but_for_nonsense(problems(&store.database)), [""; 0], "seed {seed}");
                }
            }
            wait(&store, entries[entries.len() - 1].lsn);
            store.close();
            assert_eq!(but_for_nonsense(problems(&store.database)), [""; 0], "seed {seed}, closed");
            entries.clear();
        }
    }
}

/// What is done to a database in which a session has number 1, a group number 2, and message 3 is for both.
type Harm = fn(&redb::WriteTransaction);

fn put<K: redb::Key, V: redb::Value>(
    txn: &redb::WriteTransaction,
    table: redb::TableDefinition<'static, K, V>,
    key: K::SelfType<'_>,
    value: V::SelfType<'_>,
) {
    txn.open_table(table).unwrap().insert(key, value).unwrap();
}

fn number(value: u64) -> [u8; 8] {
    value.to_be_bytes()
}

const HARMS: [(Harm, &str); 19] = [
    (|txn| put(txn, SESSIONS, 1, b"\x01".as_slice()), "session 1: a row of kind"),
    (|txn| put(txn, SESSIONS, 99, session_row(99).as_slice()), "has number 99, which was never given out"),
    (
        |txn| put(txn, SESSIONS, 2, session_row(7).as_slice()),
        "number 2 belongs to \"client-7\" and to another",
    ),
    (|txn| put(txn, SESSIONS, 3, session_row(1).as_slice()), "two sessions have the client id \"client-1\""),
    (|txn| put(txn, GROUPS, "g", 1), "number 1 belongs to \"client-1\" and to another"),
    (
        |txn| put(txn, PROGRESS, 7, empty_progress().as_slice()),
        "is there, but neither session nor group nor route",
    ),
    (|txn| put(txn, PROGRESS, 1, b"".as_slice()), "progress of recipient 1: a row of kind"),
    (
        |txn| put(txn, tables::SUBSCRIPTIONS, (1, "a/#/b"), b"\x01\0".as_slice()),
        "subscription \"a/#/b\" of session 1: ",
    ),
    (|txn| put(txn, tables::SUBSCRIPTIONS, (2, "a"), b"\x01\0".as_slice()), "is there, but no such session"),
    (|txn| put(txn, MESSAGES, 4, b"\x01".as_slice()), "message 4: a row of kind"),
    (
        |txn| put(txn, MESSAGES, u64::MAX, message_row(&[1]).as_slice()),
        "has a number that was never given out",
    ),
    (|txn| put(txn, MESSAGES, 4, message_row(&[]).as_slice()), "the recipients of message 4 are none"),
    (
        |txn| put(txn, MESSAGES, 4, message_row(&[99]).as_slice()),
        "message 4 is owed to 99, a number that was",
    ),
    (|txn| put(txn, tables::RETAINED, "other", message_row(&[]).as_slice()), "has another topic in itself"),
    (|txn| put(txn, AUTHORS, "a", "ada"), "an author is there for \"a\", but no retained message"),
    (|txn| put(txn, DEAD_LETTERS, 4, b"\x09".as_slice()), "dead letter 4: dead letter has format 9"),
    (
        |txn| put(txn, META, "paused/shore", b"\x01\x09why".as_slice()),
        "the pause of target shore: a row of kind",
    ),
    (|txn| put(txn, META, key::SECRET, b"short".as_slice()), "\"secret\" in meta is not there, or is cut"),
    (
        |txn| put(txn, META, key::DEAD_LETTER_BYTES, number(5).as_slice()),
        "the dead letters are said to have 5 bytes",
    ),
];

/// As above, where all of it is in the index.
const INDEX_HARMS: [(Harm, &str); 6] = [
    (
        |txn| drop(txn.open_table(MESSAGES).unwrap().remove(3).unwrap()),
        "is owed message 3, which is not there",
    ),
    (
        |txn| drop(txn.open_table(SHARED).unwrap().remove(3).unwrap()),
        "and nothing counts to how many it is owed",
    ),
    (|txn| put(txn, SHARED, 3, 7 << 32), "message 3 is owed to 2, and is said to be to 7"),
    (|txn| put(txn, SHARED, 2, 7 << 32), "1 messages are counted that are not there"),
    (|txn| put(txn, INDEX, (1, 0), b"\x05\x05".as_slice()), "recipient 1 is said to be owed"),
    (|txn| put(txn, META, key::INDEXED_BYTES, number(5).as_slice()), "the index is said to be of 5 bytes"),
];

fn session_row(client: u64) -> Vec<u8> {
    let Change::SessionOpened(opened) = opened(RecipientNo(client), 1) else { unreachable!() };
    let mut row = Vec::new();
    rows::put_session(&mut row, &SessionRow::of(*opened));
    row
}

fn empty_progress() -> Vec<u8> {
    let mut row = Vec::new();
    rows::put_progress(&mut row, &Progress::default());
    row
}

fn message_row(recipients: &[u64]) -> Vec<u8> {
    let legs: Vec<_> = recipients.iter().map(|number| leg(RecipientNo(*number))).collect();
    let mut row = Vec::new();
    rows::put_message(&mut row, &message("a/b", b"x"), &legs, None);
    row
}

fn assert_found(recent_max: u64, harm: Harm, expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    let settings = StoreSettings { recent_max, ..SETTINGS };
    let (store, _) = Store::open(directory.path(), &settings).unwrap();
    let session = session(&store);
    let (group, _) = store.new_recipient();
    write(&store, Record::of([Change::GroupOpened(group, "$share/g/t".into())]));
    assert_eq!(write(&store, publication(b"payload", &[session, group])), Lsn(3));
    // Each commit does a part of a pass.
    (0..9).for_each(|_| {
        write(&store, Record::of([Change::RetainedRemoved("none".into())]));
    });
    store.close();
    assert_eq!(problems(&store.database), [""; 0]);
    let txn = store.database.begin_write().unwrap();
    harm(&txn);
    txn.commit().unwrap();
    let found = problems(&store.database);
    assert!(found.iter().any(|problem| problem.contains(expected)), "{expected}: {found:?}");
}

#[test]
fn what_does_not_fit_together_is_told() {
    HARMS.iter().for_each(|(harm, expected)| assert_found(1 << 20, *harm, expected));
    INDEX_HARMS.iter().for_each(|(harm, expected)| assert_found(1, *harm, expected));
}

/// What is written down of somebody who is gone is right also while the sweep is busy with another: a backup that
/// is made then has to be one that can be restored.
#[test]
fn counts_are_right_while_what_the_gone_were_owed_is_let_go() {
    let settings = StoreSettings { commit_interval: Duration::from_hours(1), ..SETTINGS };
    // Commits when it comes.
    let filler = || publication(&vec![0; settings.batch_bytes_max], &[]);
    let (store, _) = open_on(&Disk::default(), &settings).unwrap();
    let (one, other) = (store.new_recipient().0, store.new_recipient().0);
    submit(&store, Record::of([opened(one, 1), opened(other, 1)]));
    let first = submit(&store, publication(b"x", &[one, other]));
    (0..9_000).for_each(|_| {
        submit(&store, publication(b"x", &[one, other]));
    });
    (0..8).for_each(|_| {
        write(&store, filler());
    });
    assert_eq!(problems(&store.database), [""; 0]);
    let settled = Change::Settled(other, vec![first]);
    submit(&store, Record::of([settled, Change::Discarded(one), Change::Discarded(other)]));
    for _ in 0..8 {
        write(&store, filler());
        assert_eq!(problems(&store.database), [""; 0]);
    }
    assert_eq!(store.messages(), (0, 0));
    store.close();
}
