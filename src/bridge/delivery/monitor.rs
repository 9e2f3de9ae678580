//! What a route tells of itself to whoever looks, without being asked for it by message.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::bridge::metrics::RouteMetrics;
use crate::bridge::policy::breaker::State;
use crate::broker::Route;
use crate::config::QueueView;
use crate::record::UnixMillis;

/// The two times that a rate is told over, in seconds.
const TEN_SECONDS: usize = 10;
const MINUTE: usize = 60;

/// Written by the route's task, read by the admin.
pub(in crate::bridge) struct Monitor {
    pub(in crate::bridge) metrics: RouteMetrics,
    in_flight: AtomicUsize,
    ready: AtomicUsize,
    waiting: AtomicUsize,
    attempts: Meter,
    completed: Meter,
    told: Mutex<Told>,
}

#[derive(Clone, Default)]
struct Told {
    last_error: Option<LastError>,
    last_taken_at: Option<UnixMillis>,
}

/// How an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// In one line, safe to print.
    pub error: String,
    /// Milliseconds since 1970.
    pub at: u64,
}

/// What a route is doing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteState {
    /// Its name.
    pub name: String,
    /// The name of its target; empty when the route was gone before the start.
    pub target: String,
    /// Its topic filters.
    pub topics: Vec<String>,
    /// Topic filters of what it does not take after all.
    pub exclude: Vec<String>,
    /// The expression that a message has to fulfill, if there is one.
    pub filter: Option<String>,
    /// Whether it carries messages.
    pub status: RouteStatus,
    /// Why its target is paused, if it is.
    pub paused: Option<String>,
    /// Where messages are posted, without the query.
    pub url: String,
    /// Messages on disk that it is owed.
    pub queued_messages: u64,
    /// Bytes on disk that are kept for it.
    pub queued_bytes: u64,
    /// How much that may be; `null` when the route is not configured.
    pub queue: Option<QueueView>,
    /// The number of the oldest of them.
    pub oldest: Option<u64>,
    /// Attempts under way.
    pub in_flight: usize,
    /// Messages that were read and wait for their turn at the target.
    pub waiting_for_target: usize,
    /// Messages that were answered badly and wait for another try.
    pub waiting_for_retry: usize,
    /// Attempts that have ended.
    pub attempts: Rate,
    /// Messages that the target has taken.
    pub completed: Rate,
    /// Whether the target is down.
    pub breaker: BreakerState,
    /// Messages that became dead letters since the start.
    pub dead_letters: u64,
    /// How the last attempt that was not taken ended.
    pub last_error: Option<LastError>,
    /// When the target last took a message of this route, in milliseconds since 1970.
    pub last_taken_at: Option<u64>,
}

/// Whether a route carries messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteStatus {
    /// It does.
    #[default]
    Active,
    /// Somebody, or an answer, has paused its target: messages wait.
    Paused,
    /// It is not configured any more: what it is owed waits to be settled by hand.
    Removed,
    /// As removed, and what it is owed is made dead letters.
    DeadLettering,
    /// As removed, and what it is owed is deleted.
    Discarding,
}

/// What the breaker of a target does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// Messages flow.
    #[default]
    Closed,
    /// The target is down.
    Open,
    /// A probe is under way.
    HalfOpen,
}

/// How often something happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Since the broker started.
    pub total: u64,
    /// In a second, over the last ten.
    pub per_second: f64,
    /// In a second, over the last minute.
    pub per_second_1m: f64,
}

impl From<State> for BreakerState {
    fn from(state: State) -> Self {
        match state {
            State::Closed => Self::Closed,
            State::Open => Self::Open,
            State::HalfOpen => Self::HalfOpen,
        }
    }
}

impl Monitor {
    pub(in crate::bridge) fn new(route: &str) -> Self {
        Self {
            metrics: RouteMetrics::new(route),
            in_flight: AtomicUsize::new(0),
            ready: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            attempts: Meter::default(),
            completed: Meter::default(),
            told: Mutex::default(),
        }
    }

    pub(in crate::bridge) fn in_flight(&self, count: usize) {
        self.in_flight.store(count, Ordering::Relaxed);
    }

    pub(in crate::bridge) fn waiting(&self, ready: usize, waiting: usize) {
        self.ready.store(ready, Ordering::Relaxed);
        self.waiting.store(waiting, Ordering::Relaxed);
    }

    /// An attempt has ended.
    pub(in crate::bridge) fn attempted(&self) {
        self.attempts.count(1);
    }

    /// Something went wrong.
    pub(in crate::bridge) fn failed(&self, now: UnixMillis, error: String) {
        self.told.lock().last_error = Some(LastError { error, at: now.0 });
    }

    /// The target has taken so many messages.
    pub(in crate::bridge) fn taken(&self, now: UnixMillis, messages: u64) {
        self.completed.count(messages);
        self.told.lock().last_taken_at = Some(now);
    }

    /// Sets the gauges, and notes what was counted: once a second.
    pub(in crate::bridge) fn measure(&self, route: &Route) {
        let (metrics, backlog) = (&self.metrics, &route.backlog);
        metrics.outbox_messages.set(backlog.count() as f64);
        metrics.outbox_bytes.set(backlog.bytes() as f64);
        metrics.retry_scheduled.set(self.waiting.load(Ordering::Relaxed) as f64);
        metrics.dead_letters.absolute(route.dead_letters());
        self.attempts.sample();
        self.completed.sample();
    }

    /// Adds what is known here to a state.
    pub(in crate::bridge) fn fill(&self, state: RouteState) -> RouteState {
        let Told { last_error, last_taken_at } = self.told.lock().clone();
        RouteState {
            in_flight: self.in_flight.load(Ordering::Relaxed),
            waiting_for_target: self.ready.load(Ordering::Relaxed),
            waiting_for_retry: self.waiting.load(Ordering::Relaxed),
            attempts: self.attempts.rate(),
            completed: self.completed.rate(),
            last_error,
            last_taken_at: last_taken_at.map(|at| at.0),
            ..state
        }
    }
}

/// Counts, and remembers the count of each second of the last minute.
#[derive(Debug, Default)]
struct Meter {
    total: AtomicU64,
    /// The newest last.
    samples: Mutex<VecDeque<u64>>,
}

impl Meter {
    fn count(&self, times: u64) {
        self.total.fetch_add(times, Ordering::Relaxed);
    }

    fn sample(&self) {
        let mut samples = self.samples.lock();
        if samples.len() > MINUTE {
            samples.pop_front();
        }
        samples.push_back(self.total.load(Ordering::Relaxed));
    }

    /// Between samples, what was counted up to the last one.
    fn rate(&self) -> Rate {
        let samples = self.samples.lock();
        let over = |seconds: usize| {
            let newest = samples.len().saturating_sub(1);
            let first = newest.saturating_sub(seconds);
            let (Some(before), Some(now)) = (samples.get(first), samples.back()) else { return 0.0 };
            (now - before) as f64 / (newest - first).max(1) as f64
        };
        Rate {
            total: self.total.load(Ordering::Relaxed),
            per_second: over(TEN_SECONDS),
            per_second_1m: over(MINUTE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let meter = Meter::default();
        assert_eq!(meter.rate(), Rate::default());
        for second in 0..=100 {
            meter.sample();
            meter.count(if second < 90 { 6 } else { 60 });
        }
        let rate = meter.rate();
        assert_eq!(rate.per_second, 60.0);
        assert_eq!(rate.per_second_1m, (50.0 * 6.0 + 10.0 * 60.0) / 60.0);
        assert_eq!(rate.total, 90 * 6 + 11 * 60);
        assert_eq!(meter.samples.lock().len(), 61);
    }
}
