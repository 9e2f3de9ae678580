//! What a route tells of itself to whoever looks, without being asked for it by message.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

use crate::bridge::metrics::RouteMetrics;
use crate::config::QueueView;
use crate::record::UnixMillis;
use crate::store::Backlog;

/// Written by the route's task, read by the admin.
pub(in crate::bridge) struct Monitor {
    metrics: RouteMetrics,
    in_flight: AtomicUsize,
    ready: AtomicUsize,
    waiting: AtomicUsize,
    told: Mutex<Told>,
}

#[derive(Clone, Default)]
struct Told {
    last_error: Option<LastError>,
    last_taken_at: Option<UnixMillis>,
}

/// How an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LastError {
    /// In one line, safe to print.
    pub error: String,
    /// Milliseconds since 1970.
    pub at: u64,
}

/// What a route is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteState {
    /// Its name.
    pub name: String,
    /// The name of its target.
    pub target: String,
    /// Where messages are posted, without the query.
    pub url: String,
    /// Messages on disk that it is owed.
    pub queued_messages: u64,
    /// Bytes on disk that are kept for it.
    pub queued_bytes: u64,
    /// How much that may be.
    pub queue: QueueView,
    /// The number of the oldest of them.
    pub oldest: Option<u64>,
    /// Attempts under way.
    pub in_flight: usize,
    /// Messages that were read and wait for their turn at the target.
    pub waiting_for_target: usize,
    /// Messages that were answered badly and wait for another try.
    pub waiting_for_retry: usize,
    /// `closed` when messages flow, `open` when the target is down, `half_open` while a probe is under way.
    pub breaker: &'static str,
    /// How the last attempt that was not taken ended.
    pub last_error: Option<LastError>,
    /// When the target last took a message of this route, in milliseconds since 1970.
    pub last_taken_at: Option<u64>,
}

impl Monitor {
    pub(in crate::bridge) fn new(route: &str) -> Self {
        Self {
            metrics: RouteMetrics::new(route),
            in_flight: AtomicUsize::new(0),
            ready: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
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

    pub(in crate::bridge) fn failed(&self, now: UnixMillis, error: String) {
        self.told.lock().last_error = Some(LastError { error, at: now.0 });
    }

    pub(in crate::bridge) fn taken(&self, now: UnixMillis) {
        self.told.lock().last_taken_at = Some(now);
    }

    /// Sets the gauges.
    pub(in crate::bridge) fn measure(&self, backlog: &Backlog) {
        self.metrics.backlog_messages.set(backlog.count() as f64);
        self.metrics.backlog_bytes.set(backlog.bytes() as f64);
    }

    /// Adds what is known here to a state.
    pub(in crate::bridge) fn fill(&self, state: RouteState) -> RouteState {
        let Told { last_error, last_taken_at } = self.told.lock().clone();
        RouteState {
            in_flight: self.in_flight.load(Ordering::Relaxed),
            waiting_for_target: self.ready.load(Ordering::Relaxed),
            waiting_for_retry: self.waiting.load(Ordering::Relaxed),
            last_error,
            last_taken_at: last_taken_at.map(|at| at.0),
            ..state
        }
    }
}
