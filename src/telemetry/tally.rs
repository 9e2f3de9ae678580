//! Numbers that the metrics page shows and that the broker reads itself, for `$SYS`.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Gauge};

/// A number that only rises.
#[derive(Debug)]
pub struct Tally {
    shown: Counter,
    count: AtomicU64,
}

/// A number that rises and falls.
#[derive(Debug)]
pub struct Level {
    shown: Gauge,
    level: AtomicU64,
}

impl Tally {
    pub(super) fn of(shown: Counter) -> Self {
        Self { shown, count: AtomicU64::new(0) }
    }

    /// Adds to it.
    pub fn increment(&self, more: u64) {
        self.shown.increment(more);
        self.count.fetch_add(more, Ordering::Relaxed);
    }

    /// What it is since the start.
    pub fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Level {
    pub(super) fn of(shown: Gauge) -> Self {
        Self { shown, level: AtomicU64::new(0) }
    }

    /// Raises it.
    pub fn increment(&self, more: u64) {
        self.shown.increment(more as f64);
        self.level.fetch_add(more, Ordering::Relaxed);
    }

    /// Lowers it.
    pub fn decrement(&self, less: u64) {
        self.shown.decrement(less as f64);
        self.level.fetch_sub(less, Ordering::Relaxed);
    }

    /// What it is now.
    pub fn get(&self) -> u64 {
        self.level.load(Ordering::Relaxed)
    }
}
