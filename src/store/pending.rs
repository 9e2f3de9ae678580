//! The numbers a recipient is still owed, and the running count of what they occupy.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Watch;
use super::runs::PendingList;
use crate::record::Lsn;

/// What one recipient (a durable session, a shared group, a route) is owed: numbers only, the messages are
/// on disk. The writer adds and removes; whoever delivers reads by `Store::read_after`.
///
/// Invariant: together with the index on disk it holds exactly the open legs of the records the writer has
/// applied. Numbers above the watermark may be in it, so readers name the watermark they have seen.
#[derive(Debug, Default)]
pub struct Backlog {
    numbers: Mutex<Numbers>,
    count: AtomicU64,
    bytes: AtomicU64,
    watch: OnceLock<Box<Watch>>,
}

#[derive(Debug, Default)]
struct Numbers {
    /// What is owed up to this number is in the index; zero when nothing is.
    indexed_to: Lsn,
    /// What is owed above it.
    recent: PendingList,
}

impl Backlog {
    /// Messages owed.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Bytes on disk that are kept for this recipient (a message for several counts for each).
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether something may be owed after `cursor` and not above `durable`. What the index holds is not
    /// looked up for that: then only reading tells.
    pub fn may_have(&self, cursor: Lsn, durable: Lsn) -> bool {
        let numbers = self.numbers.lock();
        cursor < numbers.indexed_to || numbers.recent.range(cursor, durable).next().is_some()
    }

    /// Has somebody told when it grows, from now on. The first watch stays.
    pub fn watch(&self, watch: Watch) {
        self.watch.get_or_init(|| Box::new(watch)).grown(self.count(), self.bytes());
    }

    /// The watch, when there is one.
    pub fn watched(&self) -> Option<&Watch> {
        self.watch.get().map(|watch| &**watch)
    }

    /// Whether a number may be owed. One that would be in the index is not looked up.
    pub fn may_owe(&self, lsn: Lsn) -> bool {
        let numbers = self.numbers.lock();
        lsn <= numbers.indexed_to || numbers.recent.contains(lsn)
    }

    /// What a reader has to know: up to which number the index tells, and the numbers above that after
    /// `cursor`, not above `durable`, `max` at most, without those to `skip`.
    pub(super) fn look(
        &self,
        cursor: Lsn,
        durable: Lsn,
        max: usize,
        skip: impl Fn(Lsn) -> bool,
    ) -> (Lsn, Vec<Lsn>) {
        let numbers = self.numbers.lock();
        let recent = numbers.recent.range(cursor, durable).filter(|lsn| !skip(*lsn)).take(max);
        (numbers.indexed_to, recent.collect())
    }

    /// Whether a number is owed that is not in the index.
    pub(super) fn has_recent(&self, lsn: Lsn) -> bool {
        self.numbers.lock().recent.contains(lsn)
    }

    /// The numbers that are not in the index.
    pub(super) fn recent(&self) -> PendingList {
        self.numbers.lock().recent.clone()
    }

    /// The nearest recent numbers below and above one that is not owed.
    pub(super) fn around(&self, lsn: Lsn) -> (Option<Lsn>, Option<Lsn>) {
        self.numbers.lock().recent.around(lsn)
    }

    pub(super) fn add(&self, lsn: Lsn, bytes: u64) {
        self.numbers.lock().recent.push(lsn);
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(watch) = self.watch.get() {
            watch.grown(count, bytes);
        }
    }

    /// Strikes out a number that is not in the index; false when it was not owed.
    pub(super) fn remove_recent(&self, lsn: Lsn) -> bool {
        let removed = self.numbers.lock().recent.remove(lsn);
        if removed {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        removed
    }

    /// A number was struck out of the index.
    pub(super) fn removed_indexed(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn freed(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What a start finds in the index.
    pub(super) fn restore(&self, indexed_to: Lsn, count: u64, bytes: u64) {
        self.numbers.lock().indexed_to = indexed_to;
        self.count.fetch_add(count, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What was owed up to this number is in the index, and that is durable: memory need not know it.
    pub(super) fn indexed(&self, to: Lsn) {
        let mut numbers = self.numbers.lock();
        numbers.indexed_to = to;
        numbers.recent.forget_to(to);
    }

    /// Nothing is in the index any more.
    pub(super) fn index_is_empty(&self) {
        self.numbers.lock().indexed_to = Lsn::ZERO;
    }
}
