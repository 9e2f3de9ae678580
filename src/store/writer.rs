//! The writer: one thread that owns the database's write transactions and commits in groups.
//!
//! It takes whatever waits, applies it in one transaction, commits with an fsync, moves the watermark and
//! rings for those who wait. There is no linger by default: the sync in flight is the linger.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::{Database, WriteTransaction};
use smallvec::SmallVec;

use super::queue::{Batch, Entry};
use super::state::State;
use super::tables::{Tables, key};
use super::{Shared, StoreError};
use crate::record::{Leg, Lsn};

/// Record numbers are reserved on disk this many at a time. Each start begins a new block, so that a number
/// is never used twice, whatever a crash has forgotten.
pub(super) const NUMBERS_RESERVED: u64 = 1 << 24;

/// What the writer thread works with.
pub(super) struct Writer {
    pub(super) database: Arc<Database>,
    pub(super) shared: Arc<Shared>,
    pub(super) state: State,
    pub(super) reserved: Lsn,
    pub(super) commit_interval: Duration,
    pub(super) batch_bytes_max: usize,
}

/// A record as it was taken: what is left of it.
struct Taken<'a> {
    entry: &'a Entry,
    legs: SmallVec<[Leg; 1]>,
}

impl Writer {
    /// Writes until the queue is closed and empty, or until something fails.
    pub(super) fn run(mut self) {
        let mut last_commit = Instant::now();
        loop {
            if !self.commit_interval.is_zero() {
                self.shared.queue.linger(last_commit + self.commit_interval);
            }
            let sweeping = !self.state.sweeps.is_empty();
            let Some(batch) = self.shared.queue.take(self.batch_bytes_max, sweeping) else { return };
            last_commit = Instant::now();
            match self.write(&batch) {
                Ok(()) => self.shared.watermark.advance(batch.last.max(self.shared.watermark.get())),
                Err(error) => return self.shared.fail(&error),
            }
        }
    }

    fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let taken: Vec<_> = batch
            .entries
            .iter()
            .map(|entry| Taken { entry, legs: entry.take() })
            .filter(Taken::has_something_left)
            .collect();
        let skipped = batch.entries.len() - taken.len();
        self.shared.metrics.skipped.increment(skipped as u64);
        if taken.is_empty() && self.state.sweeps.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let mut txn = self.database.begin_write()?;
        txn.set_quick_repair(true);
        let reserved = self.fill(&txn, &taken, batch.last)?;
        txn.commit()?;
        // Not before the commit: a number that is given out is reserved for ever.
        if let Some(reserved) = reserved {
            self.shared.queue.reserve(reserved);
            self.reserved = reserved;
        }
        self.shared.metrics.committed(taken.len(), started.elapsed());
        Ok(())
    }

    /// Fills the transaction; gives the end of the next block of numbers when it reserves one.
    fn fill(
        &mut self,
        txn: &WriteTransaction,
        taken: &[Taken<'_>],
        last: Lsn,
    ) -> Result<Option<Lsn>, StoreError> {
        let mut tables = Tables::open(txn)?;
        for Taken { entry, legs } in taken {
            let record = (entry.lsn, entry.record());
            self.state.apply(&mut tables, &self.shared.registry, record, legs.clone())?;
        }
        self.state.sweep(&mut tables)?;
        self.state.write_progress(&mut tables)?;
        if last.0 + NUMBERS_RESERVED / 2 <= self.reserved.0 {
            return Ok(None);
        }
        let reserved = Lsn(last.0 + NUMBERS_RESERVED);
        tables.set_meta_number(key::RESERVED, reserved.0)?;
        Ok(Some(reserved))
    }
}

impl Taken<'_> {
    /// A record is skipped only when it holds no open leg, no retained change, no inbound identifier and no
    /// other change.
    fn has_something_left(&self) -> bool {
        let record = self.entry.record();
        let held = record.publication.as_ref().is_some_and(|p| p.retain || p.inbound.is_some());
        held || !self.legs.is_empty() || !record.changes.is_empty()
    }
}
