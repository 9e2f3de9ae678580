//! The writer's queue: records that wait for the disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::sync::{AtomicU64, AtomicUsize, Condvar, Mutex, Ordering};
use super::{Bell, SubmitError};
use crate::record::{Leg, Lsn, RecipientNo, Record};

/// More than ever waits: nobody is to be woken.
const NOBODY: usize = usize::MAX;

/// A record in the queue. Whoever delivers one of its legs keeps hold of it: a leg that is completed before
/// the writer takes the record is struck out and never written. When no leg is left, and nothing else was to
/// be written, nobody has to wait for the disk any more.
#[derive(Debug)]
pub struct Entry {
    /// The number of the record.
    pub lsn: Lsn,
    record: Record,
    /// As counted when it entered the queue: without its legs the record is smaller.
    size: usize,
    legs: Mutex<Legs>,
}

#[derive(Debug)]
struct Legs {
    taken: bool,
    open: SmallVec<[Leg; 1]>,
    /// Every leg was struck out, and there is nothing in the record but legs.
    complete: bool,
    /// Who waits for that.
    bell: Option<Arc<Bell>>,
}

/// What became of an attempt to strike out a leg.
#[derive(Debug)]
pub enum Strike {
    /// It is out. If the record is complete by that, somebody may have to be rung for.
    Struck(Option<Arc<Bell>>),
    /// The writer has taken the record already: the settlement has to become a record of its own.
    TooLate,
}

impl Strike {
    /// Whether the leg is out.
    pub fn is_struck(&self) -> bool {
        matches!(self, Self::Struck(_))
    }
}

impl Entry {
    fn new(mut record: Record) -> Self {
        let size = record.size();
        let open = record.publication.as_mut().map(|p| std::mem::take(&mut p.legs)).unwrap_or_default();
        Self {
            lsn: Lsn::ZERO,
            record,
            size,
            legs: Mutex::new(Legs { taken: false, open, complete: false, bell: None }),
        }
    }

    /// Strikes out the leg of a recipient that has completed it.
    pub fn strike(&self, recipient: RecipientNo) -> Strike {
        let mut legs = self.legs.lock();
        if legs.taken {
            return Strike::TooLate;
        }
        legs.open.retain(|leg| leg.recipient != recipient);
        legs.complete = legs.open.is_empty() && !self.record.holds_more_than_legs();
        Strike::Struck(if legs.complete { legs.bell.take() } else { None })
    }

    /// Whether nothing of the record is left to be written.
    pub fn is_complete(&self) -> bool {
        self.legs.lock().complete
    }

    /// Rings when the last leg is struck out, at once when it is. One waits: who published the message.
    pub fn ring_when_complete(&self, bell: &Arc<Bell>) {
        let mut legs = self.legs.lock();
        if !legs.complete && !legs.taken && legs.bell.is_none() {
            legs.bell = Some(Arc::clone(bell));
        }
        let is_complete = legs.complete;
        drop(legs);
        if is_complete {
            bell.ring();
        }
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// Takes the record for writing: sets `taken` and gives the legs that are open, in one step.
    pub(super) fn take(&self) -> SmallVec<[Leg; 1]> {
        let mut legs = self.legs.lock();
        legs.taken = true;
        legs.bell = None;
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

/// The queue. Number and place are given under one lock, so that the numbers in it rise, no number between them
/// comes later, and the watermark can be a single number.
#[derive(Debug)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    /// A copy of the bytes in there, for those who only look: every connection does, before each read.
    bytes: AtomicUsize,
    /// Bytes of all records that ever entered, for the same.
    bytes_ever: AtomicU64,
    arrived: Condvar,
}

#[derive(Debug)]
struct Inner {
    next: u64,
    /// Numbers from here on are not reserved on disk yet and must not be given out.
    reserved: u64,
    entries: Vec<Arc<Entry>>,
    bytes: usize,
    /// As soon as so many bytes are here the writer is woken; [`NOBODY`] while it does not wait.
    wake_at: usize,
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
            wake_at: NOBODY,
            closed: false,
            failed: false,
        };
        Self {
            inner: Mutex::new(inner),
            bytes: AtomicUsize::new(0),
            bytes_ever: AtomicU64::new(0),
            arrived: Condvar::new(),
        }
    }

    pub(super) fn submit(&self, record: Record) -> Result<Arc<Entry>, SubmitError> {
        // Before the lock, which every publisher takes for every message.
        let mut entry = Arc::new(Entry::new(record));
        let further_letters = entry.record.letters().saturating_sub(1);
        let mut inner = self.inner.lock();
        let number = inner.next.saturating_add(further_letters);
        if inner.failed || inner.closed || number >= inner.reserved {
            return Err(SubmitError::Failed);
        }
        // Nobody else has it yet.
        if let Some(entry) = Arc::get_mut(&mut entry) {
            entry.lsn = Lsn(number);
        }
        inner.next = number + 1;
        inner.bytes += entry.size;
        self.bytes.store(inner.bytes, Ordering::Relaxed);
        self.bytes_ever.fetch_add(entry.size as u64, Ordering::Relaxed);
        inner.entries.push(Arc::clone(&entry));
        if inner.bytes >= inner.wake_at {
            inner.wake_at = NOBODY;
            self.arrived.notify_one();
        }
        Ok(entry)
    }

    /// The number that was given out last.
    pub(super) fn last(&self) -> Lsn {
        Lsn(self.inner.lock().next.saturating_sub(1))
    }

    /// Bytes that wait for the writer.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of records that entered since the start.
    pub(super) fn bytes_ever(&self) -> u64 {
        self.bytes_ever.load(Ordering::Relaxed)
    }

    /// Waits until there is something to write, and takes it in order up to `bytes_max` (one record at
    /// least) and `last`. `None` after [`Queue::close`] when everything was taken; an empty batch at once
    /// when the writer has `other_work` and nothing waits.
    pub(super) fn take(&self, bytes_max: usize, last: Lsn, other_work: bool) -> Option<Batch> {
        let mut inner = self.inner.lock();
        while inner.entries.is_empty() && !inner.closed && !other_work {
            inner.wake_at = 0;
            self.arrived.wait(&mut inner);
        }
        if inner.entries.is_empty() {
            return if inner.closed { None } else { Some(Batch::default()) };
        }
        let entries = inner.take_entries(bytes_max, last);
        self.bytes.store(inner.bytes, Ordering::Relaxed);
        let last = entries.last().map_or(Lsn::ZERO, |entry| entry.lsn);
        Some(Batch { entries, last })
    }

    /// Waits until there is something to write, and then a little: who is connected may strike it out. Gives
    /// the last number that was there before, so that nothing newer is taken without having been waited for.
    pub(super) fn patience(&self, time: Duration) -> Lsn {
        let mut inner = self.inner.lock();
        while inner.entries.is_empty() && !inner.closed {
            inner.wake_at = 0;
            self.arrived.wait(&mut inner);
        }
        let last = inner.entries.last().map_or(Lsn::ZERO, |entry| entry.lsn);
        inner.wake_at = NOBODY;
        let deadline = Instant::now() + time;
        while !inner.closed && !self.arrived.wait_until(&mut inner, deadline).timed_out() {}
        last
    }

    /// Lets records gather until `deadline`, until there are enough for a commit, or until the queue is
    /// closed.
    pub(super) fn linger(&self, deadline: Instant, bytes_max: usize) {
        let mut inner = self.inner.lock();
        while !inner.closed && inner.bytes < bytes_max {
            inner.wake_at = bytes_max;
            if self.arrived.wait_until(&mut inner, deadline).timed_out() {
                break;
            }
        }
        inner.wake_at = NOBODY;
    }

    /// Numbers below `reserved` may be given out.
    pub(super) fn reserve(&self, reserved: Lsn) {
        self.inner.lock().reserved = reserved.0;
    }

    /// Refuses everything from now on: the store has failed.
    pub(super) fn fail(&self) {
        self.inner.lock().failed = true;
    }

    /// Lets the writer end once it has written what is there. Nothing enters any more.
    pub(super) fn close(&self) {
        self.inner.lock().closed = true;
        self.arrived.notify_one();
    }
}

impl Inner {
    /// Takes entries in order up to `last` and `bytes_max`, one at least.
    fn take_entries(&mut self, bytes_max: usize, last: Lsn) -> Vec<Arc<Entry>> {
        let wants_all = self.entries.last().is_some_and(|entry| entry.lsn <= last);
        if wants_all && self.bytes <= bytes_max {
            self.bytes = 0;
            return std::mem::take(&mut self.entries);
        }
        let mut taken_bytes = 0;
        let mut fits = |entry: &Arc<Entry>| {
            taken_bytes += entry.size;
            taken_bytes <= bytes_max && entry.lsn <= last
        };
        let count = self.entries.iter().take_while(|entry| fits(entry)).count().max(1);
        let rest = self.entries.split_off(count);
        let taken = std::mem::replace(&mut self.entries, rest);
        self.bytes -= taken.iter().map(|entry| entry.size).sum::<usize>();
        taken
    }
}
