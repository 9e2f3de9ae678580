//! Which targets are paused: rows of `meta`, one for each, that outlive a restart. There are few, and they change by
//! hand.

use redb::ReadableDatabase as _;

use super::bytes::{RowReader, put_bytes, put_varint};
use super::tables::{META, Tables, key};
use super::{Store, StoreError};
use crate::record::{Change, Pause, UnixMillis};

impl Store {
    /// Why a target of this name is paused, if it is, as of the last commit. Blocks on the disk.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn pause_of(&self, target: &str) -> Result<Option<Pause>, StoreError> {
        let table = self.database.begin_read()?.open_table(META)?;
        let row = table.get(&*key_of(target))?;
        row.map(|row| read(row.value())).transpose()
    }
}

/// Writes what a change says of a pause; another change says nothing of one.
pub(super) fn apply(tables: &mut Tables<'_>, change: &Change) -> Result<(), StoreError> {
    match change {
        Change::TargetPaused(target, pause) => {
            let mut row = Vec::new();
            put_varint(&mut row, pause.since.0);
            put_bytes(&mut row, pause.why.as_bytes());
            tables.meta.insert(&*key_of(target), row.as_slice())?;
        }
        Change::TargetResumed(target) => {
            tables.meta.remove(&*key_of(target))?;
        }
        _ => {}
    }
    Ok(())
}

/// Reads a row whose key begins with [`key::PAUSED`].
pub(super) fn read(bytes: &[u8]) -> Result<Pause, StoreError> {
    let mut row = RowReader::new("pause", bytes);
    let pause = Pause { since: UnixMillis(row.varint()?), why: row.str()?.into() };
    row.finish()?;
    Ok(pause)
}

fn key_of(target: &str) -> String {
    format!("{}{target}", key::PAUSED)
}
