//! The one clock: it begins with the wall time of the start and goes on with elapsed time, so that it never
//! jumps. And the judgement whether that wall time can be right.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::record::UnixMillis;

/// A wall clock that is so little before the newest stored time, or behind the one clock, is not wrong.
const TOLERANCE: Duration = Duration::from_secs(60);

/// A wall clock that is so far after the newest stored time may be wrong: or else the broker was not running
/// for as long.
pub(super) const FAR: Duration = Duration::from_hours(30 * 24);

/// In doubt the clock begins so much after the newest time on disk: times are not written at once.
const UNWRITTEN: Duration = Duration::from_secs(10);

/// Gives the time, as it is stored and compared everywhere.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started_at: UnixMillis,
    started: Instant,
}

impl Clock {
    /// Starts the clock at this time.
    pub fn starting_at(started_at: UnixMillis) -> Self {
        Self { started_at, started: Instant::now() }
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
pub fn wall_time() -> UnixMillis {
    #[cfg(test)]
    if let Some(simulated) = simulated::WALL_TIME.get() {
        return simulated;
    }
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
}

/// Why the wall clock is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubt {
    /// It is before a time that has been.
    Past,
    /// It is far after the newest time that is stored.
    Future,
}

/// Whether the one clock can be right, when the wall clock is at `wall`.
pub(super) fn doubt(clock: UnixMillis, wall: UnixMillis) -> Option<Doubt> {
    if wall.plus(TOLERANCE) < clock {
        Some(Doubt::Past)
    } else if wall.since(clock) > FAR {
        Some(Doubt::Future)
    } else {
        None
    }
}

/// How a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Beginning {
    /// Where the clock begins.
    pub(super) at: UnixMillis,
    /// By how much the clock of the last run was behind, and this one is.
    pub(super) last_behind: Duration,
    pub(super) behind: Duration,
    pub(super) doubt: Option<Doubt>,
}

impl Beginning {
    /// The clock begins with the wall time, but never before the newest time that was stored (with a clock that
    /// was behind by so much). In doubt it goes on from there, as if the broker had not been gone.
    pub(super) fn of(stored: Option<(UnixMillis, Duration)>, wall: UnixMillis) -> Self {
        let Some((newest, behind)) = stored else {
            return Self { at: wall, last_behind: Duration::ZERO, behind: Duration::ZERO, doubt: None };
        };
        match doubt(newest, wall)
            .filter(|doubt| *doubt == Doubt::Past || wall.since(newest.plus(behind)) > FAR)
        {
            // Less time has passed since than it was said to be behind: that was wrong.
            None => Self {
                at: wall.max(newest),
                last_behind: behind.min(wall.since(newest)),
                behind: Duration::ZERO,
                doubt: None,
            },
            doubt => Self { at: newest.plus(UNWRITTEN), last_behind: behind, behind, doubt },
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
    const NONE: Duration = Duration::ZERO;
    const HOUR: Duration = Duration::from_hours(1);

    fn beginning(behind: Duration, wall: u64) -> (u64, Duration, Option<Doubt>) {
        let beginning = Beginning::of(Some((NOW, behind)), UnixMillis(wall));
        (beginning.at.0.wrapping_sub(NOW.0), beginning.last_behind, beginning.doubt)
    }

    #[test]
    fn a_new_database_believes_the_wall_clock() {
        assert_eq!(Beginning::of(None, UnixMillis(5)).at, UnixMillis(5));
    }

    #[test]
    fn a_wall_clock_somewhat_later_is_right() {
        let month = FAR.as_millis() as u64;
        for later in [0, 1, 3_600_000, month] {
            assert_eq!(beginning(NONE, NOW.0 + later), (later, NONE, None));
        }
        assert_eq!(beginning(NONE, NOW.0 + month + 1), (10_000, NONE, Some(Doubt::Future)));
    }

    #[test]
    fn time_does_not_go_back() {
        assert_eq!(beginning(NONE, NOW.0 - 60_000), (0, NONE, None));
        assert_eq!(beginning(NONE, NOW.0 - 60_001), (10_000, NONE, Some(Doubt::Past)));
        assert_eq!(beginning(NONE, 20_000), (10_000, NONE, Some(Doubt::Past)));
    }

    #[test]
    fn what_the_last_clock_was_behind_is_no_time_away() {
        let month = FAR.as_millis() as u64;
        assert_eq!(beginning(HOUR, NOW.0 + month + 3_600_000), (month + 3_600_000, HOUR, None));
        assert_eq!(beginning(HOUR, NOW.0 + 1000), (1000, Duration::from_secs(1), None), "it was not, then");
        assert_eq!(beginning(HOUR, 20_000), (10_000, HOUR, Some(Doubt::Past)));
    }
}
