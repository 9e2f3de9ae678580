//! The circuit breaker of one target: while the target fails, one probe at a time finds out when it is
//! back, and the messages wait in their queue without spending attempts.
//!
//! Closed lets everything through. After `failures` target failures in a row (0 counts as 1) it opens
//! and lets nothing through until a probe is due. Half open is one probe under way. An answer closes it;
//! a failed probe opens it again, for twice as long.
//!
//! Invariant: never two probes at once, and nothing is let through before a time that the target named.

use std::time::Duration;

use super::retry::backoff;
use crate::config::BreakerConfig;
use crate::record::UnixMillis;

/// Whether an attempt may start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Yes. Its outcome has to be recorded with the same permit.
    Go(Permit),
    /// Not before this time; [`UnixMillis::NEVER`] is "not before the outcome of the probe is recorded".
    WaitUntil(UnixMillis),
}

/// What kind of attempt was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// One of many.
    Regular,
    /// The one attempt that decides whether the breaker closes.
    Probe,
}

/// What an attempt says about the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answered, whatever it thought of the message.
    Answered,
    /// It failed, and asked for this much time if it did.
    Failed {
        /// The Retry-After, already within the target's limits.
        retry_after: Option<Duration>,
    },
}

/// What the breaker shows of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Attempts go through.
    Closed,
    /// Nothing goes through until the next probe is due.
    Open,
    /// A probe is under way.
    HalfOpen,
}

/// The breaker. The routes of a target share it.
#[derive(Clone, Debug)]
pub struct Breaker {
    config: BreakerConfig,
    phase: Phase,
    /// Whether a probe is under way. A late answer can close the breaker in the meantime.
    probing: bool,
    /// The latest time a Retry-After named. An answer to an earlier request does not take it back.
    not_before: UnixMillis,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed {
        /// In a row.
        failures: u32,
    },
    Open {
        /// The opening and the failed probes since the target last answered.
        trips: u32,
        probe_at: UnixMillis,
    },
}

impl Breaker {
    /// A closed breaker.
    pub fn new(config: BreakerConfig) -> Self {
        let phase = Phase::Closed { failures: 0 };
        Self { config, phase, probing: false, not_before: UnixMillis(0) }
    }

    /// Asks to start an attempt. Ask with a message in hand: whoever is let through owes a
    /// [`record`](Self::record), and until a probe has paid no other attempt starts.
    pub fn admit(&mut self, now: UnixMillis) -> Admit {
        match self.phase {
            _ if now < self.not_before => Admit::WaitUntil(self.not_before),
            Phase::Closed { .. } => Admit::Go(Permit::Regular),
            Phase::Open { .. } if self.probing => Admit::WaitUntil(UnixMillis::NEVER),
            Phase::Open { probe_at, .. } if now < probe_at => Admit::WaitUntil(probe_at),
            Phase::Open { .. } => {
                self.probing = true;
                Admit::Go(Permit::Probe)
            }
        }
    }

    /// Takes back a permit that no attempt was made with.
    pub fn give_back(&mut self, permit: Permit) {
        if permit == Permit::Probe {
            self.probing = false;
        }
    }

    /// Records what an attempt that was admitted found out.
    pub fn record(&mut self, now: UnixMillis, permit: Permit, health: Health) {
        if permit == Permit::Probe {
            self.probing = false;
        }
        if let Health::Failed { retry_after: Some(wait) } = health {
            self.not_before = self.not_before.max(now.plus(wait));
        }
        self.phase = match (health, self.phase, permit) {
            (Health::Answered, _, _) => Phase::Closed { failures: 0 },
            (Health::Failed { .. }, Phase::Closed { failures }, _) => self.count(now, failures + 1),
            (Health::Failed { .. }, Phase::Open { trips, .. }, Permit::Probe) => {
                self.open(now, trips.saturating_add(1))
            }
            // Attempts from before the opening fail late and many at a time. They are no news, and
            // must not stretch the wait for the next probe.
            (Health::Failed { .. }, open, Permit::Regular) => open,
        };
    }

    /// What the breaker is doing.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { .. } if self.probing => State::HalfOpen,
            Phase::Open { .. } => State::Open,
        }
    }

    fn count(&self, now: UnixMillis, failures: u32) -> Phase {
        if failures >= self.config.failures { self.open(now, 1) } else { Phase::Closed { failures } }
    }

    fn open(&self, now: UnixMillis, trips: u32) -> Phase {
        let wait = backoff(trips, self.config.probe_interval, self.config.probe_interval_max);
        Phase::Open { trips, probe_at: now.plus(wait) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FAILED: Health = Health::Failed { retry_after: None };

    fn config() -> BreakerConfig {
        BreakerConfig {
            failures: 3,
            probe_interval: Duration::from_millis(100),
            probe_interval_max: Duration::from_millis(400),
        }
    }

    /// A breaker that three failures have opened at time 0.
    fn opened() -> Breaker {
        let mut breaker = Breaker::new(config());
        for _ in 0..3 {
            assert_eq!(breaker.admit(UnixMillis(0)), Admit::Go(Permit::Regular));
            breaker.record(UnixMillis(0), Permit::Regular, FAILED);
        }
        breaker
    }

    fn wait(at: u64) -> Admit {
        Admit::WaitUntil(UnixMillis(at))
    }

    #[test]
    fn it_opens_after_failures_in_a_row_only() {
        let mut breaker = Breaker::new(config());
        for health in [FAILED, FAILED, Health::Answered, FAILED, FAILED] {
            breaker.record(UnixMillis(0), Permit::Regular, health);
            assert_eq!(breaker.state(), State::Closed);
        }
        breaker.record(UnixMillis(0), Permit::Regular, FAILED);
        assert_eq!(breaker.state(), State::Open);
    }

    #[test]
    fn a_threshold_of_zero_opens_at_the_first_failure() {
        let mut breaker = Breaker::new(BreakerConfig { failures: 0, ..config() });
        breaker.record(UnixMillis(0), Permit::Regular, FAILED);
        assert_eq!(breaker.state(), State::Open);
    }

    #[test]
    fn one_probe_at_a_time() {
        let mut breaker = opened();
        assert_eq!(breaker.admit(UnixMillis(99)), wait(100));
        assert_eq!(breaker.admit(UnixMillis(100)), Admit::Go(Permit::Probe));
        assert_eq!(breaker.state(), State::HalfOpen);
        assert_eq!(breaker.admit(UnixMillis(5000)), Admit::WaitUntil(UnixMillis::NEVER));
        breaker.record(UnixMillis(5000), Permit::Probe, Health::Answered);
        assert_eq!(breaker.admit(UnixMillis(5000)), Admit::Go(Permit::Regular));
    }

    #[test]
    fn each_failed_probe_doubles_the_wait_up_to_the_maximum() {
        let mut breaker = opened();
        let mut now = 100;
        for next in [200, 400, 400, 400] {
            assert_eq!(breaker.admit(UnixMillis(now)), Admit::Go(Permit::Probe));
            breaker.record(UnixMillis(now), Permit::Probe, FAILED);
            assert_eq!(breaker.admit(UnixMillis(now)), wait(now + next));
            now += next;
        }
    }

    #[test]
    fn an_answer_starts_the_waits_from_the_beginning() {
        let mut breaker = opened();
        breaker.admit(UnixMillis(100));
        breaker.record(UnixMillis(100), Permit::Probe, FAILED);
        breaker.admit(UnixMillis(300));
        breaker.record(UnixMillis(300), Permit::Probe, Health::Answered);
        for _ in 0..3 {
            breaker.record(UnixMillis(300), Permit::Regular, FAILED);
        }
        assert_eq!(breaker.admit(UnixMillis(300)), wait(400));
    }

    #[test]
    fn late_failures_of_earlier_attempts_do_not_stretch_the_wait() {
        let mut breaker = opened();
        for at in 1..50 {
            breaker.record(UnixMillis(at), Permit::Regular, FAILED);
        }
        assert_eq!(breaker.admit(UnixMillis(50)), wait(100));
        assert_eq!(breaker.admit(UnixMillis(100)), Admit::Go(Permit::Probe));
        breaker.record(UnixMillis(101), Permit::Regular, FAILED);
        assert_eq!(breaker.state(), State::HalfOpen, "the probe is still under way");
    }

    #[test]
    fn a_late_answer_of_an_earlier_attempt_closes_it() {
        let mut breaker = opened();
        breaker.record(UnixMillis(1), Permit::Regular, Health::Answered);
        assert_eq!(breaker.admit(UnixMillis(1)), Admit::Go(Permit::Regular));
    }

    #[test]
    fn retry_after_holds_the_whole_target() {
        let mut breaker = Breaker::new(config());
        let asked = Health::Failed { retry_after: Some(Duration::from_millis(50)) };
        breaker.record(UnixMillis(10), Permit::Regular, asked);
        assert_eq!(breaker.state(), State::Closed);
        assert_eq!(breaker.admit(UnixMillis(59)), wait(60));
        breaker.record(UnixMillis(20), Permit::Regular, Health::Answered);
        assert_eq!(breaker.admit(UnixMillis(59)), wait(60), "an answer to another request changes nothing");
        assert_eq!(breaker.admit(UnixMillis(60)), Admit::Go(Permit::Regular));
    }

    #[test]
    fn retry_after_delays_a_probe_but_never_hastens_it() {
        for (asked, due) in [(1, 100), (700, 700)] {
            let mut breaker = opened();
            let health = Health::Failed { retry_after: Some(Duration::from_millis(asked)) };
            breaker.record(UnixMillis(0), Permit::Regular, health);
            assert!(matches!(breaker.admit(UnixMillis(due - 1)), Admit::WaitUntil(_)));
            assert_eq!(breaker.admit(UnixMillis(due)), Admit::Go(Permit::Probe));
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Pass(u64),
        Admit,
        Finish { which: usize, health: Health },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let retry_after = proptest::option::of((0u64..600).prop_map(Duration::from_millis));
        let health = prop_oneof![
            1 => Just(Health::Answered),
            3 => retry_after.prop_map(|retry_after| Health::Failed { retry_after }),
        ];
        let step = prop_oneof![
            1 => (0u64..300).prop_map(Step::Pass),
            3 => Just(Step::Admit),
            2 => (any::<usize>(), health).prop_map(|(which, health)| Step::Finish { which, health }),
        ];
        proptest::collection::vec(step, 0..200)
    }

    proptest! {
        /// Against a model that knows only the promises, not the phases.
        #[test]
        fn the_promises_hold_over_any_history(steps in steps()) {
            let mut breaker = Breaker::new(config());
            let mut now = UnixMillis(1000);
            let mut under_way: Vec<Permit> = Vec::new();
            let mut asked_until = UnixMillis(0);
            let mut failures_in_a_row = 0;
            for step in steps {
                match step {
                    Step::Pass(millis) => now = now.plus(Duration::from_millis(millis)),
                    Step::Finish { which, health } => {
                        if under_way.is_empty() { continue; }
                        let permit = under_way.swap_remove(which % under_way.len());
                        breaker.record(now, permit, health);
                        match health {
                            Health::Answered => failures_in_a_row = 0,
                            Health::Failed { retry_after } => {
                                failures_in_a_row += 1;
                                asked_until = asked_until.max(now.plus(retry_after.unwrap_or_default()));
                            }
                        }
                        prop_assert_eq!(breaker.state() == State::Closed, failures_in_a_row < 3);
                    }
                    Step::Admit => match breaker.admit(now) {
                        Admit::Go(permit) => {
                            prop_assert!(now >= asked_until);
                            prop_assert_eq!(permit == Permit::Probe, failures_in_a_row >= 3);
                            prop_assert!(permit == Permit::Regular || !under_way.contains(&Permit::Probe));
                            under_way.push(permit);
                        }
                        Admit::WaitUntil(at) if at == UnixMillis::NEVER => {
                            prop_assert!(under_way.contains(&Permit::Probe), "a wait that nobody ends");
                        }
                        Admit::WaitUntil(at) => {
                            prop_assert!(at > now);
                            let longest = config().probe_interval_max.max(Duration::from_millis(600));
                            prop_assert!(at.since(now) <= longest, "a wait longer than any limit");
                        }
                    },
                }
            }
        }
    }
}
