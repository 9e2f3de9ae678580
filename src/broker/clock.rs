//! The one clock: wall time at the start plus elapsed time, so that it never jumps.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::record::UnixMillis;

/// Gives the time, as it is stored and compared everywhere.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started_at: UnixMillis,
    started: Instant,
}

impl Clock {
    /// Starts the clock at the wall time of now.
    pub fn start() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        Self { started_at: UnixMillis(millis), started: Instant::now() }
    }

    /// How long it has run.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The time now.
    pub fn now(&self) -> UnixMillis {
        self.started_at.plus(self.started.elapsed())
    }
}
