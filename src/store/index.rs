//! The index: what is owed, on disk, so that neither memory nor a start grows with it.
//!
//! Each recipient has chunks of numbers, as runs, and a row that counts them. A chunk holds exactly what is
//! owed as of its commit: whoever reads chunks and messages from one snapshot finds each message of each
//! number. When the recent numbers go in here is told in `indexing`.

use std::collections::BTreeMap;

use redb::ReadableTable;

use super::StoreError;
use super::rows::{self, Indexed};
use super::runs::PendingList;
use super::tables::Tables;
use crate::record::{Lsn, RecipientNo};

/// Runs in one chunk: small enough to be written anew with each batch that settles some of it.
const RUNS_MAX: usize = 256;

/// Where the row stands that counts: below every number of a message.
const COUNTS: u64 = 0;

/// A chunk in memory.
#[derive(Debug)]
pub(super) struct Chunk {
    /// What it is found by: the first number it had.
    key: u64,
    list: PendingList,
    is_changed: bool,
}

/// The chunks that a batch works with: one for each recipient.
#[derive(Debug, Default)]
pub(super) struct OpenChunks {
    chunks: BTreeMap<RecipientNo, Chunk>,
    row: Vec<u8>,
}

/// The row of the chunk that a number would be in.
fn row_at<T>(table: &T, recipient: RecipientNo, Lsn(lsn): Lsn) -> Result<Option<Chunk>, StoreError>
where
    T: ReadableTable<(u64, u64), &'static [u8]>,
{
    let keys = (recipient.0, COUNTS + 1)..=(recipient.0, lsn);
    let Some(row) = table.range(keys)?.next_back() else { return Ok(None) };
    let (key, row) = row?;
    Ok(Some(Chunk { key: key.value().1, list: rows::chunk(row.value())?, is_changed: false }))
}

/// Whether a number is in the index.
pub(super) fn contains<T>(table: &T, recipient: RecipientNo, lsn: Lsn) -> Result<bool, StoreError>
where
    T: ReadableTable<(u64, u64), &'static [u8]>,
{
    Ok(row_at(table, recipient, lsn)?.is_some_and(|chunk| chunk.list.contains(lsn)))
}

/// Hands each number after `cursor` that is owed, in order, to `take` until that has enough and says false.
pub(super) fn each_after<T>(
    table: &T,
    recipient: RecipientNo,
    cursor: Lsn,
    mut take: impl FnMut(Lsn) -> bool,
) -> Result<(), StoreError>
where
    T: ReadableTable<(u64, u64), &'static [u8]>,
{
    let from = row_at(table, recipient, cursor)?.map_or(COUNTS + 1, |chunk| chunk.key);
    for row in table.range((recipient.0, from)..=(recipient.0, u64::MAX))? {
        let list = rows::chunk(row?.1.value())?;
        if !list.range(cursor, Lsn(u64::MAX)).all(&mut take) {
            break;
        }
    }
    Ok(())
}

/// The first number that is owed.
pub(super) fn first<T>(table: &T, recipient: RecipientNo) -> Result<Option<Lsn>, StoreError>
where
    T: ReadableTable<(u64, u64), &'static [u8]>,
{
    let mut first = None;
    each_after(table, recipient, Lsn::ZERO, |lsn| {
        first = Some(lsn);
        false
    })?;
    Ok(first)
}

/// Each recipient that has something in the index, and how much.
pub(super) fn recipients<T>(table: &T) -> Result<Vec<(RecipientNo, Indexed)>, StoreError>
where
    T: ReadableTable<(u64, u64), &'static [u8]>,
{
    let (mut all, mut next) = (Vec::new(), Some(0));
    while let Some(from) = next {
        let Some(row) = table.range((from, COUNTS)..)?.next() else { break };
        let (key, row) = row?;
        let (number, place) = key.value();
        if place != COUNTS {
            return Err(StoreError::Damaged(format!("nothing counts the index of recipient {number}")));
        }
        all.push((RecipientNo(number), rows::indexed(row.value())?));
        next = number.checked_add(1);
    }
    Ok(all)
}

impl OpenChunks {
    /// Strikes a number out; false when it was not in there.
    pub(super) fn strike(
        &mut self,
        tables: &mut Tables<'_>,
        recipient: RecipientNo,
        lsn: Lsn,
    ) -> Result<bool, StoreError> {
        let Some(chunk) = self.open(tables, recipient, lsn)? else { return Ok(false) };
        let struck = chunk.list.remove(lsn);
        chunk.is_changed |= struck;
        Ok(struck)
    }

    /// Whether a number is in there.
    pub(super) fn has(
        &mut self,
        tables: &mut Tables<'_>,
        recipient: RecipientNo,
        lsn: Lsn,
    ) -> Result<bool, StoreError> {
        Ok(self.open(tables, recipient, lsn)?.is_some_and(|chunk| chunk.list.contains(lsn)))
    }

    /// The chunk that a number would be in.
    fn open(
        &mut self,
        tables: &mut Tables<'_>,
        recipient: RecipientNo,
        lsn: Lsn,
    ) -> Result<Option<&mut Chunk>, StoreError> {
        if !self.chunks.get(&recipient).is_some_and(|chunk| chunk.spans(lsn)) {
            self.close(tables, recipient)?;
            let Some(chunk) = row_at(&tables.index, recipient, lsn)? else { return Ok(None) };
            self.chunks.insert(recipient, chunk);
        }
        Ok(self.chunks.get_mut(&recipient))
    }

    /// Appends numbers that are above all that are there. Gives how many runs they are.
    pub(super) fn append(
        &mut self,
        tables: &mut Tables<'_>,
        recipient: RecipientNo,
        numbers: &PendingList,
    ) -> Result<usize, StoreError> {
        self.close(tables, recipient)?;
        let Some(first) = numbers.first() else { return Ok(0) };
        let mut last = row_at(&tables.index, recipient, first)?.unwrap_or_else(|| Chunk::new(first));
        for run in numbers.runs() {
            if last.list.runs().len() >= RUNS_MAX {
                last.write(tables, recipient, &mut self.row)?;
                last = Chunk::new(Lsn(run.first));
            }
            last.list.push_run(run);
            last.is_changed = true;
        }
        last.write(tables, recipient, &mut self.row)?;
        Ok(numbers.runs().len())
    }

    /// Takes up to `max` numbers of somebody who is gone out of the index.
    pub(super) fn drain(
        &mut self,
        tables: &mut Tables<'_>,
        recipient: RecipientNo,
        max: usize,
    ) -> Result<Vec<Lsn>, StoreError> {
        self.close(tables, recipient)?;
        let mut taken = Vec::new();
        each_after(&tables.index, recipient, Lsn::ZERO, |lsn| {
            taken.push(lsn);
            taken.len() < max
        })?;
        for lsn in &taken {
            self.strike(tables, recipient, *lsn)?;
        }
        Ok(taken)
    }

    /// Writes what the batch has changed of a recipient's chunk.
    pub(super) fn close(
        &mut self,
        tables: &mut Tables<'_>,
        recipient: RecipientNo,
    ) -> Result<(), StoreError> {
        match self.chunks.remove(&recipient) {
            Some(chunk) => chunk.write(tables, recipient, &mut self.row),
            None => Ok(()),
        }
    }

    /// Writes what the batch has changed of all chunks.
    pub(super) fn close_all(&mut self, tables: &mut Tables<'_>) -> Result<(), StoreError> {
        for (recipient, chunk) in std::mem::take(&mut self.chunks) {
            chunk.write(tables, recipient, &mut self.row)?;
        }
        Ok(())
    }

    /// Writes how much of what a recipient is owed is in the index.
    pub(super) fn write_counts(
        &mut self,
        tables: &mut Tables<'_>,
        recipient: RecipientNo,
        indexed: Indexed,
    ) -> Result<(), StoreError> {
        let key = (recipient.0, COUNTS);
        if indexed.count == 0 {
            tables.index.remove(key)?;
            return Ok(());
        }
        self.row.clear();
        rows::put_indexed(&mut self.row, indexed);
        tables.index.insert(key, self.row.as_slice())?;
        Ok(())
    }
}

impl Chunk {
    fn new(first: Lsn) -> Self {
        Self { key: first.0, list: PendingList::default(), is_changed: false }
    }

    fn spans(&self, lsn: Lsn) -> bool {
        self.key <= lsn.0 && self.list.last().is_some_and(|last| lsn <= last)
    }

    fn write(
        &self,
        tables: &mut Tables<'_>,
        recipient: RecipientNo,
        row: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let key = (recipient.0, self.key);
        if self.is_changed && self.list.is_empty() {
            tables.index.remove(key)?;
        } else if self.is_changed {
            row.clear();
            rows::put_chunk(row, &self.list);
            tables.index.insert(key, row.as_slice())?;
        }
        Ok(())
    }
}
