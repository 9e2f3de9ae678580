//! The circuit breaker of one target: while the target fails, one probe at a time finds out when it is
//! back, and the messages wait in their queue without spending attempts.
//!
//! Closed lets everything through. It opens after `failures` target failures in a row (0 counts as 1), or when too
//! many of the last attempts failed or were slow, and lets nothing through until a probe is due. Half open is one
//! probe under way. As many answers as it takes `probes` close it; a failed probe opens it again, for twice as long.
//!
//! Invariant: never two probes at once, and nothing is let through before a time that the target named.

use std::time::Duration;

use super::calls::Calls;
use super::retry::backoff;
use crate::config::BreakerConfig;
use crate::record::UnixMillis;

/// Whether an attempt may start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Yes. Its outcome has to be recorded with the same permit.
    Go(Permit),
    /// Not before this time; [`UnixMillis::NEVER`] is "not before a bell rings": that of a probe that ended, say.
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
    /// It is not who it should be, or where it may be: nobody answers until somebody has set that right.
    Misconfigured,
}

/// What the breaker shows of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Attempts go through.
    Closed,
    /// Nothing goes through until the next probe is due.
    Open,
    /// A probe is under way, or the next one at once.
    HalfOpen,
}

/// Why the breaker has opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Too many failures in a row.
    Failures,
    /// Too large a share of failures.
    FailureRate,
    /// Too large a share of slow attempts.
    SlowCalls,
    /// [`Health::Misconfigured`].
    Misconfigured,
}

impl Cause {
    /// In a word, for machines.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failures => "failures",
            Self::FailureRate => "failure_rate",
            Self::SlowCalls => "slow_calls",
            Self::Misconfigured => "misconfigured",
        }
    }
}

/// The breaker. The routes of a target share it.
#[derive(Clone, Debug)]
pub struct Breaker {
    config: BreakerConfig,
    phase: Phase,
    /// Since it closed.
    calls: Calls,
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
        cause: Cause,
        /// The opening and the failed probes since the target last answered.
        trips: u32,
        /// Probes that were answered since the last one that failed.
        answered: u32,
        probe_at: UnixMillis,
    },
}

impl Breaker {
    /// A closed breaker.
    pub fn new(config: BreakerConfig) -> Self {
        let calls = Calls::new(config.window);
        let phase = Phase::Closed { failures: 0 };
        Self { config, phase, calls, probing: false, not_before: UnixMillis(0) }
    }

    /// Asks to start an attempt. Ask with a message in hand: whoever is let through owes a
    /// [`record`](Self::record), and until a probe has paid no other attempt starts.
    pub fn admit(&mut self, now: UnixMillis) -> Admit {
        match (self.wait(now), self.phase) {
            (Some(at), _) => Admit::WaitUntil(at),
            (None, Phase::Closed { .. }) => Admit::Go(Permit::Regular),
            (None, Phase::Open { .. }) => {
                self.probing = true;
                Admit::Go(Permit::Probe)
            }
        }
    }

    /// Until when no attempt may start; `None` when one may.
    pub fn wait(&self, now: UnixMillis) -> Option<UnixMillis> {
        match self.phase {
            _ if now < self.not_before => Some(self.not_before),
            Phase::Open { .. } if self.probing => Some(UnixMillis::NEVER),
            Phase::Open { probe_at, .. } if now < probe_at => Some(probe_at),
            _ => None,
        }
    }

    /// Records what an attempt that was admitted found out, and how long it took.
    pub fn record(&mut self, now: UnixMillis, permit: Permit, health: Health, latency: Duration) {
        if permit == Permit::Probe {
            self.probing = false;
        }
        if let Health::Failed { retry_after: Some(wait) } = health {
            self.not_before = self.not_before.max(now.plus(wait));
        }
        let is_slow = self.config.slow_call.is_some_and(|slow| latency > slow);
        self.phase = match (self.phase, permit, health) {
            (Phase::Closed { failures }, _, _) => self.count(now, failures, (health, is_slow)),
            (_, Permit::Probe, _) => self.probed(now, health, is_slow),
            // It answers after all. A share of answers is no news to one that opened for the rest of them.
            (Phase::Open { cause: Cause::Failures, .. }, _, Health::Answered) => self.close(),
            // Attempts from before the opening fail late and many at a time. They are no news, and
            // must not stretch the wait for the next probe.
            (open, Permit::Regular, _) => open,
        };
    }

    /// Takes back a permit of which no outcome will be known.
    pub fn give_back(&mut self, permit: Permit) {
        if permit == Permit::Probe {
            self.probing = false;
        }
    }

    /// What the breaker is doing.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Closed { .. } => State::Closed,
            Phase::Open { answered, .. } if self.probing || answered > 0 => State::HalfOpen,
            Phase::Open { .. } => State::Open,
        }
    }

    /// Why it is not closed, if it is not.
    pub fn cause(&self) -> Option<Cause> {
        match self.phase {
            Phase::Closed { .. } => None,
            Phase::Open { cause, .. } => Some(cause),
        }
    }

    /// What follows from one more attempt while closed.
    fn count(&mut self, now: UnixMillis, failures: u32, (health, is_slow): (Health, bool)) -> Phase {
        let failed = health != Health::Answered;
        self.calls.record(now, failed, is_slow);
        let failures = if failed { failures.saturating_add(1) } else { 0 };
        let last = self.calls.last(now);
        let is_share = |part: u32, share: f64| {
            last.all >= self.config.minimum_calls && f64::from(part) >= share * f64::from(last.all)
        };
        if health == Health::Misconfigured {
            self.open(now, Cause::Misconfigured, u32::MAX)
        } else if failed && failures >= self.config.failures {
            self.open(now, Cause::Failures, 1)
        } else if failed && is_share(last.failed, self.config.failure_rate) {
            self.open(now, Cause::FailureRate, 1)
        } else if is_slow && is_share(last.slow, self.config.slow_call_rate) {
            self.open(now, Cause::SlowCalls, 1)
        } else {
            Phase::Closed { failures }
        }
    }

    /// What follows from a probe.
    fn probed(&mut self, now: UnixMillis, health: Health, is_slow: bool) -> Phase {
        let Phase::Open { cause, trips, answered, .. } = self.phase else { return self.phase };
        match health {
            Health::Answered if cause == Cause::SlowCalls && is_slow => {
                self.open(now, cause, trips.saturating_add(1))
            }
            Health::Answered if answered.saturating_add(1) >= self.config.probes => self.close(),
            Health::Answered => Phase::Open { cause, trips, answered: answered + 1, probe_at: now },
            Health::Failed { .. } if cause == Cause::Misconfigured => self.open(now, Cause::Failures, 1),
            Health::Failed { .. } => self.open(now, cause, trips.saturating_add(1)),
            Health::Misconfigured => self.open(now, Cause::Misconfigured, u32::MAX),
        }
    }

    fn close(&mut self) -> Phase {
        self.calls = Calls::new(self.config.window);
        Phase::Closed { failures: 0 }
    }

    fn open(&self, now: UnixMillis, cause: Cause, trips: u32) -> Phase {
        let wait = backoff(trips, self.config.probe_interval, self.config.probe_interval_max);
        Phase::Open { cause, trips, answered: 0, probe_at: now.plus(wait) }
    }
}

#[cfg(test)]
mod tests;
