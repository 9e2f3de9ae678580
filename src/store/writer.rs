//! The writer: one thread that owns the database's write transactions and commits in groups.
//!
//! It takes whatever waits, applies it in one transaction, commits with an fsync, moves the watermark and
//! rings for those who wait. There is no linger by default: the sync in flight is the linger. Only while most
//! records are struck out before they are taken is there a little patience, which saves whole commits.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redb::{Database, WriteTransaction};
use smallvec::SmallVec;

use super::patience::{PATIENCE, Patience};
use super::queue::{Batch, Entry};
use super::state::State;
use super::tables::{Tables, key};
use super::{Shared, StoreError};
use crate::record::{Leg, Lsn};

/// Record numbers are reserved on disk this many at a time. Each start begins a new block, so that a number
/// is never used twice, whatever a crash has forgotten.
pub(super) const NUMBERS_RESERVED: u64 = 1 << 24;

/// Above every number.
const LAST: Lsn = Lsn(u64::MAX);

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

/// A commit in the making.
pub(super) struct Commit {
    /// `None` when there is nothing to write.
    txn: Option<WriteTransaction>,
    last: Lsn,
    records: usize,
    skipped: usize,
    /// The end of the block of numbers that is reserved with it.
    reserve: Option<Lsn>,
    started: Instant,
}

/// What is on disk.
pub(super) struct Committed {
    /// Every number up to this one. Zero when there was nothing but other work.
    last: Lsn,
    /// Records of which nothing was left to write.
    skipped: usize,
}

impl Writer {
    /// Writes until the queue is closed and empty, or until something fails.
    pub(super) fn run(mut self) {
        let _guard = PanicGuard(Arc::clone(&self.shared));
        let mut last_commit = Instant::now();
        let mut patience = Patience::default();
        // Up to here records were waited for.
        let mut waited = Lsn::ZERO;
        loop {
            let bytes_max = self.batch_bytes_max.min(self.shared.room.batch_bytes_max());
            if !self.commit_interval.is_zero() {
                self.shared.queue.linger(last_commit + self.commit_interval, bytes_max);
            }
            let has_work = self.state.has_work();
            let is_waiting = patience.is_on() && !has_work;
            if is_waiting && waited <= self.shared.watermark.get() {
                waited = self.shared.queue.patience(PATIENCE);
            }
            let last = if is_waiting { waited } else { LAST };
            let Some(batch) = self.shared.queue.take(bytes_max, last, has_work) else { return };
            last_commit = Instant::now();
            match self.begin(&batch).and_then(|commit| self.finish(commit)) {
                Ok(committed) => {
                    patience.judge(batch.entries.len(), committed.skipped, self.state.take_settled());
                    self.announce(&committed);
                }
                Err(error) => return self.shared.fail(&error),
            }
        }
    }

    /// Takes what is left of the batch, and applies it in a transaction. Nothing of it is durable yet.
    pub(super) fn begin(&mut self, batch: &Batch) -> Result<Commit, StoreError> {
        let taken: Vec<_> = batch
            .entries
            .iter()
            .map(|entry| Taken { entry, legs: entry.take() })
            .filter(Taken::has_something_left)
            .collect();
        let skipped = batch.entries.len() - taken.len();
        self.shared.metrics.skipped.increment(skipped as u64);
        // Skipped records use up numbers, too.
        let reserve = self.next_reservation(batch.last);
        let (last, records, started) = (batch.last, taken.len(), Instant::now());
        if taken.is_empty() && !self.state.has_work() && reserve.is_none() {
            return Ok(Commit { txn: None, last, records, skipped, reserve, started });
        }
        let mut txn = self.database.begin_write()?;
        txn.set_quick_repair(true);
        self.fill(&txn, taken, last.max(self.shared.watermark.get()), reserve)?;
        Ok(Commit { txn: Some(txn), last, records, skipped, reserve, started })
    }

    /// Makes it durable.
    pub(super) fn finish(&mut self, commit: Commit) -> Result<Committed, StoreError> {
        let Commit { txn, last, records, skipped, reserve, started } = commit;
        if let Some(txn) = txn {
            txn.commit()?;
            self.state.indexing.committed();
            // Not before the commit: a number that is given out is reserved for ever.
            if let Some(reserved) = reserve {
                self.shared.queue.reserve(reserved);
                self.reserved = reserved;
            }
            self.shared.metrics.committed(records, started.elapsed());
        }
        Ok(Committed { last, skipped })
    }

    /// Moves the watermark, and rings for those who wait for it.
    pub(super) fn announce(&self, committed: &Committed) {
        self.shared.watermark.advance(committed.last.max(self.shared.watermark.get()));
    }

    /// The end of the next block of numbers, when half of this one is used.
    fn next_reservation(&self, last: Lsn) -> Option<Lsn> {
        let due = last.0 + NUMBERS_RESERVED / 2 > self.reserved.0;
        due.then_some(Lsn(last.0 + NUMBERS_RESERVED))
    }

    fn fill(
        &mut self,
        txn: &WriteTransaction,
        taken: Vec<Taken<'_>>,
        last: Lsn,
        reserve: Option<Lsn>,
    ) -> Result<(), StoreError> {
        let mut tables = Tables::open(txn)?;
        for Taken { entry, legs } in taken {
            self.shared.timeline.saw(entry.record());
            self.state.apply(&mut tables, &self.shared.registry, entry.lsn, entry.record(), legs)?;
        }
        self.state.finish(&mut tables, &self.shared.registry, last)?;
        if let Some(row) = self.shared.timeline.due_row() {
            tables.meta.insert(key::CLOCK, row.as_slice())?;
        }
        if let Some(reserved) = reserve {
            tables.set_meta_number(key::RESERVED, reserved.0)?;
        }
        Ok(())
    }
}

/// A writer that panics is a store that has failed: nobody may wait for it for ever.
struct PanicGuard(Arc<Shared>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(&StoreError::Failed("the writer has panicked".into()));
        }
    }
}

impl Taken<'_> {
    /// A record is skipped only when it holds no open leg, no retained change, no inbound identifier and no
    /// other change.
    fn has_something_left(&self) -> bool {
        !self.legs.is_empty() || self.entry.record().holds_more_than_legs()
    }
}
