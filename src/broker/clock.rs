//! The one clock: wall time at the start plus elapsed time, so that it never jumps.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

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
        Self { started_at: wall_time(), started: Instant::now() }
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

/// What the machine's wall clock says.
fn wall_time() -> UnixMillis {
    #[cfg(test)]
    if let Some(simulated) = simulated::WALL_TIME.get() {
        return simulated;
    }
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
pub(crate) mod simulated {
    //! The wall clock of a simulated machine; each thread has its own.

    use std::cell::Cell;

    use crate::record::UnixMillis;

    thread_local! {
        pub(crate) static WALL_TIME: Cell<Option<UnixMillis>> = const { Cell::new(None) };
    }
}
