//! A target as its routes share it: one client, one breaker, one limit of requests in flight.
//!
//! Invariant: every attempt that the breaker let through is recorded, whatever became of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::bridge::client::{AttemptResult, Client, ClientError};
use crate::bridge::excerpt::excerpt;
use crate::bridge::metrics::TargetMetrics;
use crate::bridge::policy::breaker::{Admit, Breaker, Permit, State};
use crate::bridge::policy::status::{Class, Outcome};
use crate::bridge::policy::tries::Verdict;
use crate::config::TargetConfig;
use crate::record::UnixMillis;
use crate::store::Bell;

/// Bytes of an answer that an error shows.
const ANSWER_SHOWN_MAX: usize = 200;
/// A target that answers well now and then and badly in between is not complained of more often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// A target.
pub(in crate::bridge) struct Target {
    /// The name in the configuration.
    pub(in crate::bridge) name: Box<str>,
    /// Its rules.
    pub(in crate::bridge) config: TargetConfig,
    /// One permit for each request that may be in flight.
    pub(in crate::bridge) slots: Arc<Semaphore>,
    pub(in crate::bridge) metrics: TargetMetrics,
    client: Client,
    condition: Mutex<Condition>,
    /// Of the tasks of its routes: they wait for the breaker.
    bells: Mutex<Vec<Arc<Bell>>>,
}

/// How the target is.
struct Condition {
    breaker: Breaker,
    /// The last attempt that said something did not say "taken".
    failing: bool,
    complained_at: Option<UnixMillis>,
}

impl Target {
    /// Reads certificate authorities from disk, so it blocks.
    pub(in crate::bridge) fn new(name: &str, config: &TargetConfig) -> Result<Self, ClientError> {
        Ok(Self {
            name: name.into(),
            slots: Arc::new(Semaphore::new(usize::try_from(config.concurrency).unwrap_or(1).max(1))),
            metrics: TargetMetrics::new(name),
            client: Client::new(config)?,
            condition: Mutex::new(Condition {
                breaker: Breaker::new(config.breaker.clone()),
                failing: false,
                complained_at: None,
            }),
            bells: Mutex::default(),
            config: config.clone(),
        })
    }

    /// Has this bell rung whenever the breaker changes.
    pub(in crate::bridge) fn tell(&self, bell: &Arc<Bell>) {
        let mut bells = self.bells.lock();
        // A bell that nobody else has is of a route that is gone.
        bells.retain(|known| Arc::strong_count(known) > 1 && !Arc::ptr_eq(known, bell));
        bells.push(Arc::clone(bell));
    }

    /// Whether an attempt may start. Whoever is let through owes a [`Target::ended`].
    pub(in crate::bridge) fn admit(&self, now: UnixMillis) -> Admit {
        self.condition.lock().breaker.admit(now)
    }

    /// Gives back what was let through and not used.
    pub(in crate::bridge) fn give_back(&self, permit: Permit) {
        self.condition.lock().breaker.give_back(permit);
    }

    /// What the breaker is doing.
    pub(in crate::bridge) fn state(&self) -> State {
        self.condition.lock().breaker.state()
    }

    /// One attempt. With `reply_max` so many bytes of the answer are kept.
    pub(in crate::bridge) async fn post(
        &self,
        request: Request<Full<Bytes>>,
        reply_max: Option<usize>,
    ) -> AttemptResult {
        self.client.post(request, reply_max).await
    }

    /// Records how an attempt ended. Gives what the breaker is doing from now on, and what to say of the
    /// attempt when it did not succeed.
    pub(in crate::bridge) fn ended(
        &self,
        now: UnixMillis,
        permit: Permit,
        result: &AttemptResult,
        verdict: &Verdict,
    ) -> (State, Option<String>) {
        self.metrics.ended(verdict.class).increment(1);
        self.metrics.seconds.record(result.latency.as_secs_f64());
        let error = (!matches!(verdict.class, Class::Complete | Class::Drop)).then(|| describe(result));
        let mut condition = self.condition.lock();
        let before = condition.breaker.state();
        condition.breaker.record(now, permit, verdict.health);
        let after = condition.breaker.state();
        let complains = condition.complains(error.is_some(), now);
        drop(condition);
        self.report(before, after, error.as_deref().filter(|_| complains));
        if before != after {
            self.bells.lock().iter().for_each(|bell| bell.ring());
        }
        (after, error)
    }

    fn report(&self, before: State, after: State, complaint: Option<&str>) {
        let target = &*self.name;
        if let Some(error) = complaint {
            tracing::warn!(target, error, "a target does not take what it is sent");
        }
        match (before, after) {
            (State::Closed, State::Open | State::HalfOpen) => {
                self.metrics.breaker_open.set(1.0);
                tracing::warn!(target, "the target is down: messages wait, and one probe at a time is sent");
            }
            (State::Open | State::HalfOpen, State::Closed) => {
                self.metrics.breaker_open.set(0.0);
                tracing::info!(target, "the target answers again: what has waited is sent");
            }
            _ => {}
        }
    }
}

impl Condition {
    /// Whether this attempt is the first of its kind for a while.
    fn complains(&mut self, failed: bool, now: UnixMillis) -> bool {
        let was_failing = std::mem::replace(&mut self.failing, failed);
        let first = failed && !was_failing;
        let lately = self.complained_at.is_some_and(|at| now.since(at) < COMPLAINT_INTERVAL);
        if first && !lately {
            self.complained_at = Some(now);
        }
        first && !lately
    }
}

/// An attempt that did not succeed, in one line.
fn describe(result: &AttemptResult) -> String {
    match &result.outcome {
        Outcome::Failed(failure) => failure.to_string(),
        Outcome::Status(status) if result.excerpt.is_empty() => format!("answered {status}"),
        Outcome::Status(status) => {
            format!("answered {status}: {}", excerpt(result.excerpt.as_bytes(), ANSWER_SHOWN_MAX))
        }
    }
}
