//! The writer's queue: records that wait for the disk.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use smallvec::SmallVec;

use super::SubmitError;
use crate::record::{Leg, Lsn, RecipientNo, Record};

/// A record in the queue. Whoever delivers one of its legs keeps hold of it: a leg that is completed before
/// the writer takes the record is struck out and never written.
#[derive(Debug)]
pub struct Entry {
    /// The number of the record.
    pub lsn: Lsn,
    record: Record,
    legs: Mutex<Legs>,
}

#[derive(Debug)]
struct Legs {
    taken: bool,
    open: SmallVec<[Leg; 1]>,
}

impl Entry {
    fn new(lsn: Lsn, mut record: Record) -> Self {
        let open = record.publication.as_mut().map(|p| std::mem::take(&mut p.legs)).unwrap_or_default();
        Self { lsn, record, legs: Mutex::new(Legs { taken: false, open }) }
    }

    /// Strikes out the leg of a recipient that has completed it. False when the writer has taken the record
    /// already: then the settlement has to become a record of its own.
    pub fn complete(&self, recipient: RecipientNo) -> bool {
        let mut legs = self.legs.lock();
        if !legs.taken {
            legs.open.retain(|leg| leg.recipient != recipient);
        }
        !legs.taken
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// Takes the record for writing: sets `taken` and gives the legs that are open, in one step.
    pub(super) fn take(&self) -> SmallVec<[Leg; 1]> {
        let mut legs = self.legs.lock();
        legs.taken = true;
        std::mem::take(&mut legs.open)
    }
}

/// What the writer finds when it looks.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<Arc<Entry>>,
    /// Every number up to this one is in this batch or an earlier one. Zero when the batch is empty.
    pub(super) last: Lsn,
}

impl Inner {
    fn take_entries(&mut self, bytes_max: usize) -> Vec<Arc<Entry>> {
        if self.bytes <= bytes_max {
            self.bytes = 0;
            return std::mem::take(&mut self.entries);
        }
        let mut taken_bytes = 0;
        let mut fits = |entry: &Arc<Entry>| {
            taken_bytes += entry.record.size();
            taken_bytes <= bytes_max
        };
        let count = self.entries.iter().take_while(|entry| fits(entry)).count().max(1);
        let rest = self.entries.split_off(count);
        let taken = std::mem::replace(&mut self.entries, rest);
        self.bytes -= taken.iter().map(|entry| entry.record.size()).sum::<usize>().min(self.bytes);
        taken
    }
}

/// The queue. Number and place are given under one lock, so that the numbers in it rise without a gap and
/// the watermark can be a single number.
#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    arrived: Condvar,
}

#[derive(Debug)]
struct Inner {
    next: u64,
    /// Numbers from here on are not reserved on disk yet and must not be given out.
    reserved: u64,
    entries: Vec<Arc<Entry>>,
    bytes: usize,
    writer_waits: bool,
    closed: bool,
    failed: bool,
}

impl Queue {
    pub(super) fn new(next: Lsn, reserved: Lsn) -> Self {
        let inner = Inner {
            next: next.0,
            reserved: reserved.0,
            entries: Vec::new(),
            bytes: 0,
            writer_waits: false,
            closed: false,
            failed: false,
        };
        Self { inner: Mutex::new(inner), arrived: Condvar::new() }
    }

    pub(super) fn submit(&self, record: Record) -> Result<Arc<Entry>, SubmitError> {
        let size = record.size();
        let mut inner = self.inner.lock();
        if inner.failed || inner.next >= inner.reserved {
            return Err(SubmitError::Failed);
        }
        let entry = Arc::new(Entry::new(Lsn(inner.next), record));
        inner.next += 1;
        inner.bytes += size;
        inner.entries.push(Arc::clone(&entry));
        if std::mem::take(&mut inner.writer_waits) {
            self.arrived.notify_one();
        }
        Ok(entry)
    }

    /// Bytes that wait for the writer.
    pub(super) fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }

    /// Waits until there is something to write, and takes it in order up to `bytes_max` (one record at
    /// least). `None` after [`Queue::close`] when everything was taken; an empty batch at once when the
    /// writer has `other_work` and nothing waits.
    pub(super) fn take(&self, bytes_max: usize, other_work: bool) -> Option<Batch> {
        let mut inner = self.inner.lock();
        while inner.entries.is_empty() && !inner.closed && !other_work {
            inner.writer_waits = true;
            self.arrived.wait(&mut inner);
        }
        if inner.entries.is_empty() {
            return if inner.closed { None } else { Some(Batch::default()) };
        }
        let entries = inner.take_entries(bytes_max);
        let last = entries.last().map_or(Lsn::ZERO, |entry| entry.lsn);
        Some(Batch { entries, last })
    }

    /// Lets records gather until `deadline`, or until the queue is closed.
    pub(super) fn linger(&self, deadline: Instant) {
        let mut inner = self.inner.lock();
        while !inner.closed && !self.arrived.wait_until(&mut inner, deadline).timed_out() {}
    }

    /// Numbers below `reserved` may be given out.
    pub(super) fn reserve(&self, reserved: Lsn) {
        self.inner.lock().reserved = reserved.0;
    }

    /// Refuses everything from now on: the store has failed.
    pub(super) fn fail(&self) {
        self.inner.lock().failed = true;
    }

    /// Lets the writer end once it has written what is there.
    pub(super) fn close(&self) {
        self.inner.lock().closed = true;
        self.arrived.notify_one();
    }
}
