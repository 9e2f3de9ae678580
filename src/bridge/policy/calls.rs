//! The attempts of the last while at one target: how many there were, and how many of them failed or were slow.
//!
//! The time is cut into slices, so that the oldest tenth of it is forgotten at once.

use std::time::Duration;

use crate::record::UnixMillis;

const SLICES: usize = 10;

/// Counts by slice of time.
#[derive(Clone, Debug)]
pub struct Calls {
    slice_ms: u64,
    slices: [Slice; SLICES],
}

/// How many attempts there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All of them.
    pub all: u32,
    /// That failed.
    pub failed: u32,
    /// That were slow.
    pub slow: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    /// Which slice of time it is, counted from 1970.
    number: u64,
    counts: Counts,
}

impl Calls {
    /// None yet. `window` is the while that is looked back over.
    pub fn new(window: Duration) -> Self {
        let slice = window.as_millis() / SLICES as u128;
        Self { slice_ms: u64::try_from(slice).unwrap_or(u64::MAX).max(1), slices: Default::default() }
    }

    /// One more.
    pub fn record(&mut self, now: UnixMillis, failed: bool, is_slow: bool) {
        let number = now.0 / self.slice_ms;
        let Some(slice) = self.slices.get_mut((number % SLICES as u64) as usize) else { return };
        if slice.number != number {
            *slice = Slice { number, counts: Counts::default() };
        }
        slice.counts.all = slice.counts.all.saturating_add(1);
        slice.counts.failed = slice.counts.failed.saturating_add(u32::from(failed));
        slice.counts.slow = slice.counts.slow.saturating_add(u32::from(is_slow));
    }

    /// Those of the last while.
    pub fn last(&self, now: UnixMillis) -> Counts {
        let number = now.0 / self.slice_ms;
        let recent = self.slices.iter().filter(|slice| slice.number + SLICES as u64 > number);
        recent.fold(Counts::default(), |sum, Slice { counts, .. }| Counts {
            all: sum.all.saturating_add(counts.all),
            failed: sum.failed.saturating_add(counts.failed),
            slow: sum.slow.saturating_add(counts.slow),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let mut calls = Calls::new(Duration::from_secs(10));
        for second in 0..30 {
            calls.record(UnixMillis(second * 1000), second % 2 == 0, second % 5 == 0);
        }
        assert_eq!(calls.last(UnixMillis(29_999)), Counts { all: 10, failed: 5, slow: 2 });
        assert_eq!(calls.last(UnixMillis(35_000)), Counts { all: 4, failed: 2, slow: 0 });
        assert_eq!(calls.last(UnixMillis(60_000)), Counts::default());
    }
}
