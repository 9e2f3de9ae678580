//! How much memory buffered messages may occupy in all.
//!
//! What a client is entitled to anyway (its first 64 KiB) is not counted, so that nothing is counted where
//! messages pass quickly; above that each buffer is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of one buffer that are not counted, and the steps in which the rest is.
const STEP: usize = 64 * 1024;

/// The budget that all buffers share.
#[derive(Debug)]
pub struct Memory {
    used: AtomicUsize,
    max: usize,
}

/// What one buffer has taken of the budget. It goes back when this is dropped.
#[derive(Debug)]
pub struct MemoryShare {
    memory: Arc<Memory>,
    taken: usize,
}

impl Memory {
    /// A budget of `max` bytes.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), max })
    }

    /// Bytes that are taken.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether nothing is left.
    pub fn is_exhausted(&self) -> bool {
        self.used() >= self.max
    }
}

impl MemoryShare {
    /// A share of nothing.
    pub fn of(memory: &Arc<Memory>) -> Self {
        Self { memory: Arc::clone(memory), taken: 0 }
    }

    /// Takes what a buffer of this size needs beyond what it has. False, and nothing taken, when the budget
    /// has no room.
    pub fn grow(&mut self, bytes: usize) -> bool {
        let more = (bytes / STEP * STEP).saturating_sub(self.taken);
        if more == 0 {
            return true;
        }
        let fits = self.memory.used.fetch_add(more, Ordering::Relaxed) + more <= self.memory.max;
        if fits {
            self.taken += more;
        } else {
            self.memory.used.fetch_sub(more, Ordering::Relaxed);
        }
        fits
    }

    /// Gives back what a buffer of this size does not need any more.
    pub fn shrink(&mut self, bytes: usize) {
        let less = self.taken.saturating_sub(bytes / STEP * STEP);
        if less > 0 {
            self.memory.used.fetch_sub(less, Ordering::Relaxed);
            self.taken -= less;
        }
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_buffers_are_free_and_large_ones_share_the_budget() {
        let memory = Memory::new(3 * STEP);
        let (mut one, mut two) = (MemoryShare::of(&memory), MemoryShare::of(&memory));
        assert!(one.grow(STEP - 1));
        assert_eq!(memory.used(), 0);
        assert!(one.grow(2 * STEP + 5));
        assert!(!two.grow(2 * STEP), "only one step is left");
        assert!(two.grow(STEP));
        assert!(memory.is_exhausted());
        one.shrink(10);
        assert_eq!(memory.used(), STEP);
        drop(two);
        assert_eq!(memory.used(), 0);
    }
}
