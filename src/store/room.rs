//! How much may still be written before publishes are refused.
//!
//! Somebody else looks at the disk, every now and then, and says what is left. What is taken in between is
//! counted here, so that no burst of publishes between two looks fills the disk.
//!
//! Invariant: once refused, publishes stay refused until whoever looks says that there is room.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::Bell;

/// Bytes that a byte of a record may cost on disk: its row, half-empty pages, and those of before, which are free
/// only after the next commit. What a commit costs however small it is, is below what is always kept free.
const COST: u64 = 2;

/// Bytes of pages that a commit may copy for a byte of its records: a settlement of eight bytes copies a page of
/// 4 KiB, and the page of before is free only after the next commit, or when those who read at the time are done.
const COPIES: u64 = 4096;

/// Bytes of records that go into one commit, however little room there is.
const BATCH_MIN: usize = 1024;

/// The room there is.
#[derive(Debug)]
pub(super) struct Room {
    full: AtomicBool,
    /// Bytes of all records ever submitted with which the room that was seen last is used up.
    limit: AtomicU64,
    /// As many with which half of it is: time to look again.
    half: AtomicU64,
    /// Bytes of records that one commit may hold.
    batch: AtomicUsize,
    /// Rung then.
    pub(super) bell: Bell,
}

impl Default for Room {
    fn default() -> Self {
        let (limit, half) = (AtomicU64::new(u64::MAX), AtomicU64::new(u64::MAX));
        let batch = AtomicUsize::new(usize::MAX);
        Self { full: AtomicBool::new(false), limit, half, batch, bell: Bell::default() }
    }
}

impl Room {
    /// Whether there is room, when so many bytes of records were submitted in all.
    pub(super) fn is_left(&self, submitted: u64) -> bool {
        if self.full.load(Ordering::Relaxed) {
            return false;
        }
        if submitted >= self.half.load(Ordering::Relaxed) {
            // Once for each look.
            self.half.store(u64::MAX, Ordering::Relaxed);
            self.bell.ring();
        }
        let left = submitted < self.limit.load(Ordering::Relaxed);
        if !left {
            self.full.store(true, Ordering::Relaxed);
        }
        left
    }

    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    pub(super) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Bytes of records that one commit may hold, so that the pages it copies have room.
    pub(super) fn batch_bytes_max(&self) -> usize {
        self.batch.load(Ordering::Relaxed)
    }

    /// There is room for so many bytes in all, what is kept free for commits included.
    pub(super) fn set_for_commits(&self, bytes: u64) {
        let batch = usize::try_from(bytes / COPIES).unwrap_or(usize::MAX);
        self.batch.store(batch.max(BATCH_MIN), Ordering::Relaxed);
    }

    /// So many bytes may be written to the disk; of the records submitted, `submitted` bytes in all, those that
    /// are `waiting` have not been.
    pub(super) fn set_left(&self, left: u64, submitted: u64, waiting: u64) {
        let written = submitted.saturating_sub(waiting);
        self.limit.store(written.saturating_add(left / COST), Ordering::Relaxed);
        self.half.store(submitted.saturating_add(left / COST / 2), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_between_two_looks_counts_twice() {
        let room = Room::default();
        assert!(room.is_left(u64::MAX - 1), "nobody has looked yet");
        room.set_left(400, 1000, 30);
        assert!(room.is_left(1169), "what waits is still to be written");
        assert!(!room.is_left(1170));
        assert!(room.is_full());
    }

    #[test]
    fn full_is_full_until_somebody_has_looked() {
        let room = Room::default();
        room.set_left(40, 0, 0);
        assert!(room.is_left(19) && !room.is_left(20));
        room.set_left(4000, 20, 0);
        assert!(!room.is_left(20), "room alone does not end it");
        room.set_full(false);
        assert!(room.is_left(20));
    }
}
