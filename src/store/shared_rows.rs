//! How many still have a claim to a message for several: the recent ones in memory, the others in a table.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use redb::{ReadableTable as _, ReadableTableMetadata as _};

use super::StoreError;
use super::tables::Tables;
use crate::record::Lsn;

/// A message that is kept until the last of several recipients has settled it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SharedRow {
    pub(super) open: u32,
    pub(super) bytes: u32,
}

/// Messages with more than one open leg, or that had. A message that is not in here has one.
#[derive(Debug, Default)]
pub(super) struct SharedRows {
    recent: BTreeMap<Lsn, SharedRow>,
    /// Those that the batch took from the table and has changed.
    changed: BTreeMap<Lsn, SharedRow>,
    /// Rows in the table: with none there is nothing to look for.
    stored: u64,
}

impl SharedRows {
    /// What a start finds in the table.
    pub(super) fn restore(&mut self, tables: &Tables<'_>) -> Result<(), StoreError> {
        self.stored = tables.shared.len()?;
        Ok(())
    }

    pub(super) fn insert(&mut self, lsn: Lsn, row: SharedRow) {
        self.recent.insert(lsn, row);
    }

    /// Whether a message that is not in the index is one for several.
    pub(super) fn has_recent(&self, lsn: Lsn) -> bool {
        self.recent.contains_key(&lsn)
    }

    /// One leg less; `None` when the message was for one.
    pub(super) fn release(&mut self, tables: &Tables<'_>, lsn: Lsn) -> Result<Option<SharedRow>, StoreError> {
        if let Some(row) = self.recent.get_mut(&lsn) {
            row.open = row.open.saturating_sub(1);
            let row = *row;
            if row.open == 0 {
                self.recent.remove(&lsn);
            }
            return Ok(Some(row));
        }
        if self.stored == 0 {
            return Ok(None);
        }
        let row = match self.changed.entry(lsn) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => match tables.shared.get(lsn.0)? {
                Some(packed) => place.insert(SharedRow::unpack(packed.value())),
                None => return Ok(None),
            },
        };
        row.open = row.open.saturating_sub(1);
        Ok(Some(*row))
    }

    /// Writes what the batch has changed of the rows in the table.
    pub(super) fn write(&mut self, tables: &mut Tables<'_>) -> Result<(), StoreError> {
        for (lsn, row) in std::mem::take(&mut self.changed) {
            if row.open == 0 {
                tables.shared.remove(lsn.0)?;
                self.stored -= 1;
            } else {
                tables.shared.insert(lsn.0, row.pack())?;
            }
        }
        Ok(())
    }

    /// Moves up to `max` rows that are not above `to` from memory to the table. Gives how many.
    pub(super) fn index(
        &mut self,
        tables: &mut Tables<'_>,
        to: Lsn,
        max: usize,
    ) -> Result<usize, StoreError> {
        let mut moved = 0;
        while moved < max
            && let Some(first) = self.recent.first_entry().filter(|first| *first.key() <= to)
        {
            let (lsn, row) = first.remove_entry();
            tables.shared.insert(lsn.0, row.pack())?;
            moved += 1;
        }
        self.stored += moved as u64;
        Ok(moved)
    }
}

impl SharedRow {
    fn pack(self) -> u64 {
        u64::from(self.open) << 32 | u64::from(self.bytes)
    }

    pub(super) fn unpack(packed: u64) -> Self {
        Self { open: (packed >> 32) as u32, bytes: packed as u32 }
    }
}
