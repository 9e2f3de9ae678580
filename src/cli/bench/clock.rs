//! The one clock of a load run.
//!
//! Wall time at the start plus elapsed monotonic time: it never jumps within a process, and two processes
//! on one machine agree about it closely enough to measure a latency between them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Gives nanoseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin_ns: u64,
    started: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self { origin_ns: nanos(wall), started: Instant::now() }
    }

    /// Nanoseconds since 1970.
    pub fn now_ns(&self) -> u64 {
        self.origin_ns.saturating_add(nanos(self.started.elapsed()))
    }
}

/// A duration in nanoseconds; what does not fit is held at the end of the range.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
