//! Keeps the database within `store.size_max`, so that publishes are refused before it is larger.
//!
//! What the file occupies is known at any time, what is in use of it is not: redb counts that by going through
//! all of it. But a file only grows when nothing in it is free: then all that it occupies is in use, and how much
//! that is for each byte stored holds until it grows again.
//!
//! Invariant: the store is told of every change, and the log has one line for each.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use metrics::{Gauge, describe_gauge, gauge};
use tokio::time::MissedTickBehavior;

use crate::broker::Broker;
use crate::store::FILE;
use crate::telemetry::occupied;

/// Bytes that are taken to be written in a millisecond at most: what is written between two looks then has room in
/// the tenth that is left.
const BYTES_PER_MILLI: u64 = 200_000;
/// Milliseconds between two looks.
const INTERVAL: RangeInclusive<u64> = 5..=200;
/// Bytes in use for each byte stored, at most: pages that are partly filled, and payloads that take twice the
/// space because pages come in powers of two.
const RATIO_MAX: f64 = 2.5;
/// What an empty database occupies, and the little that is not counted.
const BASE: u64 = 4 << 20;

/// Tells the store for as long as it is polled whether the database in `folder` may grow.
pub async fn watch(broker: Arc<Broker>, folder: PathBuf, size_max: u64) {
    let file: Arc<std::path::Path> = folder.join(FILE).into();
    let mut budget = Budget { size_max, ratio: RATIO_MAX, occupied: None, is_used_up: false };
    let handles = Handles::new();
    let pause = (size_max / 10 / BYTES_PER_MILLI).clamp(*INTERVAL.start(), *INTERVAL.end());
    let mut interval = tokio::time::interval(Duration::from_millis(pause));
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let looked_at = Arc::clone(&file);
        // A network filesystem that has gone would block a worker thread.
        let found = tokio::task::spawn_blocking(move || std::fs::metadata(&looked_at)).await;
        let Ok(Ok(found)) = found else { continue };
        let stored = broker.store.messages().1 + broker.store.dead_letters().1 + broker.retained_bytes();
        let was_used_up = budget.is_used_up;
        let used = budget.judge(occupied(&found), stored);
        handles.used.set(used as f64);
        if budget.is_used_up != was_used_up {
            broker.store.set_over_budget(budget.is_used_up);
            handles.used_up.set(f64::from(u8::from(budget.is_used_up)));
            tell(budget.is_used_up, used, size_max);
        }
    }
}

/// What was seen last.
#[derive(Debug)]
struct Budget {
    size_max: u64,
    /// Bytes in use for each byte stored.
    ratio: f64,
    occupied: Option<u64>,
    is_used_up: bool,
}

impl Budget {
    /// Gives what is in use, and decides by it: used up from nine tenths on, until it is less than eight.
    fn judge(&mut self, occupied: u64, stored: u64) -> u64 {
        let measured = occupied as f64 / stored.max(1) as f64;
        let has_grown = self.occupied.is_some_and(|before| occupied > before);
        let ratio = if has_grown { measured } else { self.ratio.min(measured) };
        self.ratio = ratio.clamp(1.0, RATIO_MAX);
        self.occupied = Some(occupied);
        let used = occupied.min((stored as f64 * self.ratio) as u64 + BASE);
        let tenths = if self.is_used_up { 8 } else { 9 };
        self.is_used_up = used >= self.size_max / 10 * tenths;
        used
    }
}

struct Handles {
    used: Gauge,
    used_up: Gauge,
}

impl Handles {
    fn new() -> Self {
        describe_gauge!("causeway_store_used_bytes", "Bytes in use of the database, as far as that is known");
        describe_gauge!(
            "causeway_store_over_budget",
            "1 while publishes are refused because of store.size_max"
        );
        let handles =
            Self { used: gauge!("causeway_store_used_bytes"), used_up: gauge!("causeway_store_over_budget") };
        handles.used_up.set(0.0);
        handles
    }
}

fn tell(is_used_up: bool, used: u64, size_max: u64) {
    let shown = |bytes| ByteSize(bytes).display().iec();
    let (used, size_max) = (shown(used), shown(size_max));
    if is_used_up {
        tracing::error!(
            "the database has {used} in use, nine tenths of store.size_max ({size_max}). Publishes that need the \
             disk are refused until it is less than eight tenths; deliveries go on. `causeway sessions list` and \
             `causeway dead-letters list` show what is kept for whom"
        );
    } else {
        tracing::info!(
            "the database has room: {used} of store.size_max ({size_max}) are in use; publishes are taken"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn budget() -> Budget {
        Budget { size_max: 100 * MIB, ratio: RATIO_MAX, occupied: None, is_used_up: false }
    }

    #[test]
    fn it_is_used_up_at_nine_tenths_and_not_below_eight() {
        let mut budget = budget();
        let mut judged = |occupied, stored| {
            budget.judge(occupied * MIB, stored * MIB);
            budget.is_used_up
        };
        assert!(!judged(60, 40));
        assert!(!judged(89, 60));
        assert!(judged(90, 60));
        // The file stays as it is while its content goes: two thirds of what is in use are stored.
        assert!(judged(90, 52));
        assert!(!judged(90, 50));
        assert!(!judged(90, 56));
        assert!(judged(90, 58));
    }

    #[test]
    fn a_file_that_is_large_for_other_reasons_is_not_held_against_publishers() {
        let mut budget = budget();
        budget.judge(20 * MIB, 10 * MIB);
        // A backup keeps the broker from using free pages again.
        assert_eq!(budget.judge(99 * MIB, 10 * MIB), 29 * MIB);
        assert!(!budget.is_used_up);
        // After it they serve again: by and by more is known of them.
        budget.judge(99 * MIB, 60 * MIB);
        assert!(budget.is_used_up && budget.ratio < 1.7);
    }

    #[test]
    fn nothing_stored_is_no_ratio() {
        let mut budget = budget();
        assert_eq!(budget.judge(90 * MIB, 0), BASE);
        assert!(!budget.is_used_up);
    }
}
