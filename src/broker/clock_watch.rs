//! Looks at the wall clock beside the one clock: whether it becomes plausible after a start in doubt, and by how
//! much the one clock is behind, which later runs have to know.
//!
//! Invariant: whatever the wall clock does, the one clock of this run goes on as it did.

use std::time::Duration;

use super::Broker;
use super::clock::{Beginning, Doubt, doubt, wall_time};
use crate::record::{Change, UnixMillis};

/// How often.
const INTERVAL: Duration = Duration::from_secs(1);

/// Smaller differences between the two clocks are not noted.
const NOTED_FROM: Duration = Duration::from_secs(60);

/// How often the time is stored when nothing else is: a start after a long silence is none in doubt.
const STORED_EVERY: Duration = Duration::from_hours(1);

/// What is known of the time.
#[derive(Debug)]
pub(super) struct ClockWatch {
    doubt: Option<Doubt>,
    /// The end of the grace period, as long as it lasts.
    grace_until: Option<UnixMillis>,
    grace: Duration,
    noted: Duration,
    stored_at: UnixMillis,
}

/// What follows from a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// The wall clock can be right: this clock is behind it by so much.
    Plausible(Duration),
    /// It says the same as ever, and is believed.
    Believed(Duration),
    /// It is still before the newest stored time: time goes on from there.
    StillPast,
    /// It has become one that may be wrong.
    Doubtful(Doubt),
    /// The difference is another one: later runs have to know.
    Behind(Duration),
}

impl ClockWatch {
    pub(super) fn new(beginning: &Beginning, grace: Duration) -> Self {
        let grace_until = beginning.doubt.map(|_| beginning.at.plus(grace));
        let (doubt, noted) = (beginning.doubt, beginning.behind);
        Self { doubt, grace_until, grace, noted, stored_at: beginning.at }
    }

    /// Looks once: the one clock says `now`, and the wall clock `wall`.
    fn look(&mut self, now: UnixMillis, wall: UnixMillis) -> Option<Finding> {
        let behind = wall.since(now);
        if self.doubt.is_some() {
            return self.look_in_doubt(now, wall, behind);
        }
        if behind.abs_diff(self.noted) < NOTED_FROM {
            return None;
        }
        self.noted = behind;
        Some(Finding::Behind(behind))
    }

    fn look_in_doubt(&mut self, now: UnixMillis, wall: UnixMillis, behind: Duration) -> Option<Finding> {
        let still = doubt(now, wall);
        if still.is_none() {
            (self.doubt, self.grace_until, self.noted) = (None, None, behind);
            return Some(Finding::Plausible(behind));
        }
        if still != self.doubt {
            (self.doubt, self.grace_until) = (still, Some(now.plus(self.grace)));
            return still.map(Finding::Doubtful);
        }
        self.grace_until.take_if(|until| *until <= now)?;
        if still == Some(Doubt::Past) {
            return Some(Finding::StillPast);
        }
        (self.doubt, self.noted) = (None, behind);
        Some(Finding::Believed(behind))
    }

    /// Whether the time has to be stored for its own sake.
    fn must_store(&mut self, now: UnixMillis) -> bool {
        let is_due = now.since(self.stored_at) >= STORED_EVERY;
        if is_due {
            self.stored_at = now;
        }
        is_due
    }
}

impl Broker {
    /// Looks at the wall clock every second, for as long as it is polled.
    pub async fn run_clock(&self) {
        let mut watch = ClockWatch::new(&self.beginning, self.limits.clock_grace);
        loop {
            let now = self.clock.now();
            if let Some(finding) = watch.look(now, wall_time()) {
                self.follow(finding);
            }
            if watch.must_store(now) {
                self.store_time();
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Stores what time it is.
    pub fn store_time(&self) {
        self.submit_unawaited(vec![Change::TimePassed(self.clock.now())]);
    }

    fn follow(&self, finding: Finding) {
        let timeline = self.store.timeline();
        let settle = |behind| {
            timeline.hold(Duration::ZERO);
            timeline.settle(behind);
            timeline.note_behind(behind);
        };
        match finding {
            Finding::Plausible(behind) => {
                tracing::warn!(
                    "the clock of the machine is plausible now: the broker was gone for {}, and what expired \
                     meanwhile goes",
                    humantime::format_duration(whole_seconds(behind))
                );
                settle(behind);
            }
            Finding::Believed(behind) => {
                tracing::warn!(
                    "the clock of the machine has not changed: it is believed, and what is expired goes"
                );
                settle(behind);
            }
            Finding::StillPast => {
                tracing::warn!(
                    "the clock of the machine is still before the newest stored time: time goes on from there, \
                     until the clock is right"
                );
                timeline.hold(Duration::ZERO);
            }
            Finding::Doubtful(doubt) => self.hold(doubt),
            Finding::Behind(behind) => return timeline.note_behind(behind),
        }
        self.reschedule_all();
    }

    /// What was stored before does not expire for now.
    pub(super) fn hold(&self, doubt: Doubt) {
        let wall = wall_time();
        let how = match doubt {
            Doubt::Past => "before",
            Doubt::Future => "far after",
        };
        tracing::warn!(
            "the clock of the machine says {}, which is {how} the newest stored time, {}: what was stored before \
             this start does not expire for {} (store.clock_grace), or until the clock is right",
            shown(wall),
            shown(self.clock.now()),
            humantime::format_duration(self.limits.clock_grace),
        );
        self.store.timeline().hold(self.limits.clock_grace);
        self.reschedule_all();
    }
}

/// A time for people.
fn shown(at: UnixMillis) -> String {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(at.0).unwrap_or(i64::MAX));
    at.map_or_else(
        |_| "a time that no calendar has".into(),
        |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    )
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}

#[cfg(test)]
mod tests {
    use super::super::clock::FAR;
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const NONE: Duration = Duration::ZERO;
    const START: UnixMillis = UnixMillis(1_800_000_000_000);

    fn watch(doubt: Option<Doubt>) -> ClockWatch {
        let beginning = Beginning { at: START, last_behind: NONE, behind: NONE, doubt };
        ClockWatch::new(&beginning, HOUR)
    }

    fn minute(minute: u64) -> UnixMillis {
        START.plus(Duration::from_mins(minute))
    }

    #[test]
    fn an_hour_forth_and_back_is_noted_for_later_runs_and_nothing_else() {
        let mut watch = watch(None);
        assert_eq!(watch.look(minute(1), minute(1)), None);
        assert_eq!(watch.look(minute(2), minute(62)), Some(Finding::Behind(HOUR)));
        assert_eq!(watch.look(minute(3), minute(63)), None);
        assert_eq!(watch.look(minute(4), minute(4)), Some(Finding::Behind(NONE)));
        assert_eq!(watch.look(minute(90), minute(30)), None, "a clock that is set back makes nothing older");
        assert_eq!(
            watch.look(minute(91), minute(100_000)),
            Some(Finding::Behind(Duration::from_mins(99_909)))
        );
    }

    #[test]
    fn a_clock_that_wakes_in_1970_is_right_when_ntp_has_set_it() {
        let mut watch = watch(Some(Doubt::Past));
        assert_eq!(watch.look(minute(1), UnixMillis(60_000)), None);
        assert_eq!(watch.look(minute(2), minute(602)), Some(Finding::Plausible(10 * HOUR)));
        assert_eq!(watch.look(minute(3), minute(603)), None);
    }

    #[test]
    fn time_goes_on_after_the_grace_period_and_the_clock_may_still_become_right() {
        let mut watch = watch(Some(Doubt::Past));
        assert_eq!(watch.look(minute(60), UnixMillis(3_600_000)), Some(Finding::StillPast));
        assert_eq!(watch.look(minute(61), UnixMillis(3_660_000)), None);
        assert_eq!(watch.look(minute(62), minute(662)), Some(Finding::Plausible(10 * HOUR)));
    }

    #[test]
    fn a_clock_that_is_far_ahead_is_believed_after_the_grace_period() {
        let mut watch = watch(Some(Doubt::Future));
        let far = FAR + HOUR;
        assert_eq!(watch.look(minute(59), minute(59).plus(far)), None);
        assert_eq!(watch.look(minute(60), minute(60).plus(far)), Some(Finding::Believed(far)));
        assert_eq!(watch.look(minute(61), minute(61).plus(far)), None);
    }

    #[test]
    fn a_clock_that_goes_from_1970_to_far_ahead_has_a_grace_period_anew() {
        let mut watch = watch(Some(Doubt::Past));
        let far = FAR + HOUR;
        watch.look(minute(60), UnixMillis(0));
        assert_eq!(watch.look(minute(70), minute(70).plus(far)), Some(Finding::Doubtful(Doubt::Future)));
        assert_eq!(watch.look(minute(129), minute(129).plus(far)), None);
        assert_eq!(watch.look(minute(130), minute(130).plus(far)), Some(Finding::Believed(far)));
    }

    #[test]
    fn the_time_is_stored_once_an_hour() {
        let mut watch = watch(None);
        let stored: Vec<_> = (0..200).filter(|minutes| watch.must_store(minute(*minutes))).collect();
        assert_eq!(stored, [60, 120, 180]);
    }
}
