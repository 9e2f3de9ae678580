//! How many requests a target is sent over time: a bucket of tokens, one for each request.
//!
//! A target that throttles makes the rate smaller, and time brings it back. The bucket is that of `governor`, driven
//! by the time that is handed in.
//!
//! Invariant: over any time no more goes through than fits into the bucket and came into it in that time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::config::RateConfig;
use crate::record::UnixMillis;

/// What throttling leaves of the rate.
const THROTTLED: f64 = 0.5;
/// The least part of the rate that is left.
const LEAST: f64 = 1.0 / 64.0;
/// So much of the whole rate comes back ...
const RECOVERED: f64 = 0.05;
/// ... in this time.
const RECOVERY: Duration = Duration::from_secs(1);

/// The bucket of one target.
pub struct Rate {
    config: RateConfig,
    clock: Given,
    bucket: RateLimiter<NotKeyed, InMemoryState, Given, NoOpMiddleware<Nanos>>,
    /// The part of the rate that the target takes.
    part: f64,
    changed_at: UnixMillis,
}

/// A clock that shows what it was told.
#[derive(Clone, Default)]
struct Given(Arc<AtomicU64>);

impl Rate {
    /// A full bucket.
    pub fn new(config: RateConfig, now: UnixMillis) -> Self {
        let clock = Given::default();
        clock.set(now);
        let bucket = RateLimiter::direct_with_clock(quota(config, 1.0), clock.clone());
        Self { config, clock, bucket, part: 1.0, changed_at: now }
    }

    /// Takes a token, or gives the time at which there may be one.
    pub fn take(&mut self, now: UnixMillis) -> Result<(), UnixMillis> {
        self.clock.set(now);
        // Before more of the rate comes back, which empties the bucket: this one was waited for.
        let taken = self.bucket.check().is_ok();
        self.recover(now);
        if taken {
            return Ok(());
        }
        self.bucket.check().map_err(|none| {
            let wait = none.wait_time_from(self.clock.now());
            // A millisecond too late rather than too early, when there would be none again.
            now.plus(wait + Duration::from_micros(999)).max(now.plus(Duration::from_millis(1)))
        })
    }

    /// The target throttles. Of many answers that say so at once, one counts.
    pub fn throttled(&mut self, now: UnixMillis) {
        if self.part < 1.0 && now.since(self.changed_at) < RECOVERY {
            return;
        }
        self.change((self.part * THROTTLED).max(LEAST), now);
    }

    /// The part of the configured rate that goes through now.
    pub fn part(&self) -> f64 {
        self.part
    }

    fn recover(&mut self, now: UnixMillis) {
        let steps = now.since(self.changed_at).as_secs() / RECOVERY.as_secs();
        if self.part < 1.0 && steps > 0 {
            self.change((self.part + RECOVERED * steps as f64).min(1.0), now);
        }
    }

    /// Goes on with an empty bucket: nobody is to profit from a change.
    fn change(&mut self, part: f64, now: UnixMillis) {
        self.clock.set(now);
        (self.part, self.changed_at) = (part, now);
        self.bucket = RateLimiter::direct_with_clock(quota(self.config, part), self.clock.clone());
        // A full bucket has as many tokens as fit in.
        let _ = self.bucket.check_n(self.config.burst);
    }
}

impl Given {
    /// Also when it goes back: the bucket takes a time before its start for the start.
    fn set(&self, now: UnixMillis) {
        self.0.store(now.0.saturating_mul(1_000_000), Ordering::Relaxed);
    }
}

impl Clock for Given {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(self.0.load(Ordering::Relaxed))
    }
}

fn quota(config: RateConfig, part: f64) -> Quota {
    let period = (config.per / config.requests.get()).div_f64(part).max(Duration::from_nanos(1));
    Quota::with_period(period).unwrap_or(Quota::per_second(config.requests)).allow_burst(config.burst)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const START: u64 = 1_800_000_000_000;

    fn rate(requests: u32, seconds: u64, burst: u32) -> Rate {
        let [requests, burst] = [requests, burst].map(|number| NonZeroU32::new(number).unwrap());
        let config = RateConfig { requests, per: Duration::from_secs(seconds), burst };
        Rate::new(config, UnixMillis(START))
    }

    /// How many go through until this millisecond, for one who comes again when told to.
    fn taken(rate: &mut Rate, from: &mut u64, until: u64) -> u32 {
        let mut taken = 0;
        while *from < until {
            match rate.take(UnixMillis(START + *from)) {
                Ok(()) => taken += 1,
                Err(at) => {
                    assert!(at.0 > START + *from, "a wait that is none");
                    *from = at.0 - START;
                }
            }
        }
        taken
    }

    #[test]
    fn at_first_what_fits_into_the_bucket_then_the_rate() {
        let (mut bucket, mut now) = (rate(100, 1, 10), 0);
        assert_eq!(taken(&mut bucket, &mut now, 1), 10);
        assert_eq!(taken(&mut bucket, &mut now, 1001), 100);
        assert_eq!(taken(&mut bucket, &mut now, 11_001), 1000);
        now += 60_000;
        let at = now;
        assert_eq!(taken(&mut bucket, &mut now, at + 1), 10, "no more is saved than fits in");
    }

    #[test]
    fn a_fast_rate_and_a_slow_one() {
        let (mut fast, mut now) = (rate(50_000, 1, 50_000), 0);
        assert_eq!(taken(&mut fast, &mut now, 1), 50_000);
        let second = taken(&mut fast, &mut now, 1001);
        assert!((49_950..=50_050).contains(&second), "{second}");
        let (mut slow, mut now) = (rate(6, 3600, 1), 0);
        assert_eq!(taken(&mut slow, &mut now, 3_600_000), 6);
    }

    #[test]
    fn throttling_halves_it_and_time_brings_it_back() {
        let (mut bucket, mut now) = (rate(100, 1, 100), 0);
        for _ in 0..50 {
            bucket.throttled(UnixMillis(START));
        }
        assert_eq!(bucket.part(), 0.5, "of many at once one counts");
        let halved = taken(&mut bucket, &mut now, 1000);
        assert!((48..=50).contains(&halved), "{halved}: half of the rate, and nothing saved");
        taken(&mut bucket, &mut now, 20_000);
        assert_eq!(bucket.part(), 1.0);
        let whole = taken(&mut bucket, &mut now, 30_000);
        assert!((990..=1001).contains(&whole), "{whole}");
    }

    /// What comes back while a token is waited for does not take that token away.
    #[test]
    fn a_slow_rate_that_is_throttled_waits_for_one_token() {
        let (mut bucket, mut now) = (rate(1, 2, 1), 0);
        assert_eq!(taken(&mut bucket, &mut now, 1), 1);
        bucket.throttled(UnixMillis(START + now));
        let at = now;
        assert_eq!(taken(&mut bucket, &mut now, at + 4001), 1);
        taken(&mut bucket, &mut now, at + 60_000);
        assert_eq!(bucket.part(), 1.0);
    }

    #[test]
    fn something_is_always_left() {
        let mut bucket = rate(100, 1, 1);
        for second in 0..100 {
            bucket.throttled(UnixMillis(START + second * 1000));
        }
        assert_eq!(bucket.part(), LEAST);
        assert!(bucket.take(UnixMillis(START + 99_000)).unwrap_err().0 <= START + 100_000);
    }
}
