//! Opening: who may, and what is refused.

use super::*;
use crate::store::tables::{META, SCHEMA, key};

fn file(directory: &Path) -> std::path::PathBuf {
    directory.join("causeway.redb")
}

#[test]
fn a_directory_has_one_store_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_in(directory.path());
    let second = Store::open(directory.path(), &SETTINGS).unwrap_err();
    assert!(matches!(&second, StoreError::InUse(path) if *path == file(directory.path())), "{second}");
    let id = store.id_of(Lsn(1));
    store.close();
    drop(store);
    let (store, _) = open_in(directory.path());
    assert_eq!(store.id_of(Lsn(1)), id, "the id is drawn once");
    store.close();
}

#[test]
fn a_later_version_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_in(directory.path());
    store.close();
    drop(store);
    let set_schema = |version: u64| {
        let database = redb::Database::open(file(directory.path())).unwrap();
        let txn = database.begin_write().unwrap();
        let bytes = version.to_be_bytes();
        txn.open_table(META).unwrap().insert(key::SCHEMA, bytes.as_slice()).unwrap();
        txn.commit().unwrap();
    };
    set_schema(7);
    for _ in 0..2 {
        let refused = Store::open(directory.path(), &SETTINGS).unwrap_err();
        assert!(matches!(refused, StoreError::Newer { found: 7, known: SCHEMA, .. }), "{refused}");
        assert!(refused.to_string().contains("schema version 7, this program knows up to 3"));
    }
    // One of version 1 is read as it is.
    set_schema(1);
    open_in(directory.path()).0.close();
    open_in(directory.path()).0.close();
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for content in [&b"not a database"[..], &[0xA5; 8192]] {
        std::fs::write(file(directory.path()), content).unwrap();
        let refused = Store::open(directory.path(), &SETTINGS).unwrap_err();
        assert!(matches!(refused, StoreError::Damaged(_)), "{refused:?}");
        assert_eq!(std::fs::read(file(directory.path())).unwrap(), content, "nothing was changed");
    }
}

#[test]
fn a_damaged_row_is_refused_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_in(directory.path());
    let number = session(&store);
    let lsn = write(&store, publication(b"payload", &[number]));
    store.close();
    drop(store);
    let database = redb::Database::open(file(directory.path())).unwrap();
    let txn = database.begin_write().unwrap();
    txn.open_table(tables::MESSAGES).unwrap().insert(lsn.0, b"\x01\x80".as_slice()).unwrap();
    txn.commit().unwrap();
    drop(database);
    let refused = Store::open(directory.path(), &SETTINGS).unwrap_err();
    assert!(refused.to_string().contains("\"message\""), "{refused}");
}

/// Bytes that somebody else has changed: an error, or they were not needed for the start; never a panic.
#[test]
fn a_database_with_flipped_bytes_is_refused_or_opened() {
    let directory = tempfile::tempdir().unwrap();
    let (store, _) = open_in(directory.path());
    let number = session(&store);
    (0..40).for_each(|_| {
        submit(&store, publication(&[7; 200], &[number]));
    });
    store.close();
    drop(store);
    let whole = std::fs::read(file(directory.path())).unwrap();
    let used: Vec<_> = whole.chunks(512).enumerate().filter(|(_, s)| s.iter().any(|b| *b != 0)).collect();
    let mut dice = Dice(5);
    let mut refused = 0;
    for round in 0..150 {
        let mut damaged = whole.clone();
        let sector = dice.pick(&used).unwrap().0 * 512;
        (0..1 + round % 9).for_each(|_| damaged[sector + dice.roll(512)] ^= 1 << dice.roll(8));
        std::fs::write(file(directory.path()), &damaged).unwrap();
        match Store::open(directory.path(), &SETTINGS) {
            Ok((store, _)) => store.close(),
            Err(error) => refused += usize::from(matches!(error, StoreError::Damaged(_))),
        }
    }
    assert!(refused > 0);
}

/// The power went while the database was made the first time.
#[test]
fn a_database_that_was_only_begun_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("causeway.redb.new"), [0; 4096]).unwrap();
    open_in(directory.path()).0.close();
    assert!(!directory.path().join("causeway.redb.new").exists());
    let refused = Store::open(&directory.path().join("absent"), &SETTINGS).unwrap_err();
    assert!(matches!(refused, StoreError::Failed(_)), "{refused:?}");
}
