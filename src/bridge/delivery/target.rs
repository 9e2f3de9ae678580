//! A target as its routes share it: one client, one breaker, one limit of requests in flight, one rate.
//!
//! Invariant: every attempt that was let through is recorded, whatever became of it; and while the target is paused
//! none is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::BreakerState;
use super::slots::Slots;
use crate::bridge::client::{AttemptResult, Client, ClientError, Failure, files_hash};
use crate::bridge::excerpt::excerpt;
use crate::bridge::metrics::TargetMetrics;
use crate::bridge::policy::breaker::{Admit, Breaker, Cause, Permit, State};
use crate::bridge::policy::concurrency::{Limit, Pace};
use crate::bridge::policy::rate::Rate;
use crate::bridge::policy::status::{Class, Outcome, refuses_us, throttles};
use crate::bridge::policy::tries::Verdict;
use crate::broker::{Broker, Clock};
use crate::config::{StatusRules, TargetConfig};
use crate::record::{Change, Lsn, Pause, Record, UnixMillis};
use crate::store::{Bell, Store, StoreError, SubmitError};

/// Bytes of an answer that an error shows.
const ANSWER_SHOWN_MAX: usize = 200;
/// Bytes of a reason for a pause that are kept.
const WHY_MAX: usize = 200;
/// A target that answers well now and then and badly in between is not complained of more often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// A target.
pub(in crate::bridge) struct Target {
    /// The name in the configuration.
    pub(in crate::bridge) name: Box<str>,
    /// Its rules.
    pub(in crate::bridge) config: TargetConfig,
    /// One for each request that may be in flight.
    pub(in crate::bridge) slots: Arc<Slots>,
    pub(in crate::bridge) metrics: TargetMetrics,
    /// Of the files that its client was made with.
    files_hash: u64,
    client: Client,
    clock: Clock,
    store: Store,
    condition: Mutex<Condition>,
    /// Why nothing is sent. A target of this name that follows on this one when the configuration changes has it
    /// in common with it.
    paused: Arc<Mutex<Option<Pause>>>,
    /// Of the tasks of its routes: they wait for the breaker, or for the end of a pause.
    bells: Mutex<Vec<Arc<Bell>>>,
}

/// What a target is doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetState {
    /// Its name.
    pub name: String,
    /// Where it is, without path and query.
    pub url: String,
    /// Whether messages flow.
    pub breaker: BreakerState,
    /// Why the breaker is not closed: `failures`, `failure_rate`, `slow_calls` or `misconfigured`.
    pub cause: Option<String>,
    /// Why it is paused, if it is.
    pub paused: Option<String>,
    /// When the breaker opened or closed, or a pause began or ended, the last time, in milliseconds since 1970.
    pub changed_at: u64,
    /// Attempts under way.
    pub in_flight: u32,
    /// Most of them, now.
    pub concurrency: u32,
    /// The part of its rate that goes through now: less than 1 after it has throttled. `null` without a rate.
    pub rate_part: Option<f64>,
}

/// How the target is.
struct Condition {
    breaker: Breaker,
    changed_at: UnixMillis,
    limit: Limit,
    rate: Option<Rate>,
    /// Attempts that were let through and have not ended.
    in_flight: u32,
    /// The last attempt that said something did not say "taken".
    failing: bool,
    complained_at: Option<UnixMillis>,
}

impl Target {
    /// Reads certificate authorities from disk, so it blocks.
    pub(in crate::bridge) fn new(
        name: &str,
        config: &TargetConfig,
        broker: &Broker,
    ) -> Result<Self, ClientError> {
        let limit = match config.concurrency_min {
            Some(min) => Limit::adaptive(min, config.concurrency),
            None => Limit::fixed(config.concurrency),
        };
        let now = broker.clock.now();
        let metrics = TargetMetrics::new(name);
        metrics.concurrency.set(limit.get());
        Ok(Self {
            name: name.into(),
            slots: Slots::new(limit.get()),
            metrics,
            // Before they are read: a change in between is found at the next reload.
            files_hash: files_hash(&config.tls),
            client: Client::new(config)?,
            clock: broker.clock,
            store: broker.store.clone(),
            condition: Mutex::new(Condition {
                breaker: Breaker::new(config.breaker.clone()),
                changed_at: now,
                limit,
                rate: config.rate.map(|rate| Rate::new(rate, now)),
                in_flight: 0,
                failing: false,
                complained_at: None,
            }),
            paused: Arc::default(),
            bells: Mutex::default(),
            config: config.clone(),
        })
    }

    /// Whether it is as a configuration asks for, files included. Blocks on the disk.
    pub(in crate::bridge) fn is_as(&self, config: &TargetConfig) -> bool {
        self.config == *config && self.files_hash == files_hash(&config.tls)
    }

    /// Is paused again if it was when the broker ended. Blocks on the disk.
    pub(in crate::bridge) fn remain_paused(&self) -> Result<(), StoreError> {
        if let Some(pause) = self.store.pause_of(&self.name)? {
            tracing::warn!(target = &*self.name, why = &*pause.why, "the target is still paused");
            self.metrics.paused.set(1.0);
            *self.paused.lock() = Some(pause);
        }
        Ok(())
    }

    /// Is paused as long as this one is, which it takes the place of.
    pub(in crate::bridge) fn share_pause(&mut self, before: &Self) {
        self.paused = Arc::clone(&before.paused);
    }

    /// Has this bell rung whenever the breaker changes, or a pause ends.
    pub(in crate::bridge) fn tell(&self, bell: &Arc<Bell>) {
        let mut bells = self.bells.lock();
        // A bell that nobody else has is of a route that is gone.
        bells.retain(|known| Arc::strong_count(known) > 1 && !Arc::ptr_eq(known, bell));
        bells.push(Arc::clone(bell));
    }

    /// Whether an attempt may start. Whoever is let through owes a [`Target::ended`] or a
    /// [`Target::give_back`].
    pub(in crate::bridge) fn admit(&self, now: UnixMillis) -> Admit {
        if self.paused.lock().is_some() {
            return Admit::WaitUntil(UnixMillis::NEVER);
        }
        let mut condition = self.condition.lock();
        // First, so that no token goes for what the breaker holds back.
        if let Some(at) = condition.breaker.wait(now) {
            return Admit::WaitUntil(at);
        }
        if let Some(Err(at)) = condition.rate.as_mut().map(|rate| rate.take(now)) {
            self.metrics.rate_limited.increment(1);
            return Admit::WaitUntil(at);
        }
        condition.in_flight += 1;
        condition.breaker.admit(now)
    }

    /// Gives back what was let through, and not used or broken off.
    pub(in crate::bridge) fn give_back(&self, permit: Permit) {
        let mut condition = self.condition.lock();
        condition.in_flight = condition.in_flight.saturating_sub(1);
        condition.breaker.give_back(permit);
        drop(condition);
        if permit == Permit::Probe {
            self.ring();
        }
    }

    /// What the breaker is doing.
    pub(in crate::bridge) fn state(&self) -> State {
        self.condition.lock().breaker.state()
    }

    /// What an operator sees of it.
    pub(in crate::bridge) fn view(&self) -> TargetState {
        let paused = self.paused.lock().clone();
        let condition = self.condition.lock();
        let changed_at = paused.as_ref().map_or(condition.changed_at, |pause| pause.since);
        TargetState {
            name: self.name.to_string(),
            url: format!(
                "{}://{}",
                self.config.url.scheme_str().unwrap_or("http"),
                self.config.url.authority().map_or("", |authority| authority.as_str())
            ),
            breaker: condition.breaker.state().into(),
            cause: condition.breaker.cause().map(|cause| cause.as_str().to_owned()),
            paused: paused.map(|pause| pause.why.into()),
            changed_at: changed_at.0,
            in_flight: condition.in_flight,
            concurrency: condition.limit.get(),
            rate_part: condition.rate.as_ref().map(Rate::part),
        }
    }

    /// Starts no attempt any more, also after a restart, until it is [resumed](Target::resume). Gives the record
    /// that says so; when the target is paused already, its reason stays and there is nothing to wait for.
    pub(in crate::bridge) fn pause(&self, why: &str) -> Result<Lsn, SubmitError> {
        let since = self.clock.now();
        let mut paused = self.paused.lock();
        if paused.is_some() {
            return Ok(Lsn::ZERO);
        }
        let pause = Pause { why: excerpt(why.as_bytes(), WHY_MAX).into(), since };
        // Under the lock, so that the disk has pauses and their ends in this order.
        let change = Change::TargetPaused(self.name.clone(), Box::new(pause.clone()));
        let record = self.store.submit(Record::of([change]))?.lsn;
        tracing::warn!(target = &*self.name, why = &*pause.why, "the target is paused: its messages wait");
        self.metrics.paused.set(1.0);
        *paused = Some(pause);
        Ok(record)
    }

    /// Ends a pause. Gives the record that says so; without a pause there is nothing to wait for.
    pub(in crate::bridge) fn resume(&self) -> Result<Lsn, SubmitError> {
        let mut paused = self.paused.lock();
        if paused.is_none() {
            return Ok(Lsn::ZERO);
        }
        let record = self.store.submit(Record::of([Change::TargetResumed(self.name.clone())]))?.lsn;
        tracing::info!(target = &*self.name, "the target is no longer paused: what has waited is sent");
        self.metrics.paused.set(0.0);
        *paused = None;
        drop(paused);
        self.condition.lock().changed_at = self.clock.now();
        self.ring();
        Ok(record)
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
        self.metrics.ended(verdict.class, &result.outcome);
        self.metrics.seconds.record(result.latency.as_secs_f64());
        let error = (!matches!(verdict.class, Class::Complete | Class::Drop)).then(|| describe(result));
        let mut condition = self.condition.lock();
        let before = condition.breaker.state();
        condition.breaker.record(now, permit, verdict.health, result.latency);
        let (after, cause) = (condition.breaker.state(), condition.breaker.cause());
        if (before == State::Closed) != (after == State::Closed) {
            condition.changed_at = now;
        }
        condition.in_flight = condition.in_flight.saturating_sub(1);
        // A probe asks whether the target is there, and not how much it can take.
        if permit == Permit::Regular {
            condition.adapt(now, result, verdict.class, self);
        }
        let complains = condition.complains(error.is_some(), now);
        drop(condition);
        let complaint = error.as_deref().filter(|_| complains);
        self.report((before, after), cause, &result.outcome, complaint);
        self.pause_if_told(&result.outcome);
        // A probe may be followed by another one, of whichever route.
        if before != after || permit == Permit::Probe {
            self.ring();
        }
        (after, error)
    }

    fn ring(&self) {
        self.bells.lock().iter().for_each(|bell| bell.ring());
    }

    /// Pauses after a status that says so.
    fn pause_if_told(&self, outcome: &Outcome) {
        if let Outcome::Status(status) = outcome
            && self.config.status.pauses(*status)
        {
            // Refused only when the store has failed, which ends everything.
            let _ = self.pause(&format!("it answered {status}"));
        }
    }

    /// Says what has changed, in one line.
    fn report(
        &self,
        (before, after): (State, State),
        cause: Option<Cause>,
        outcome: &Outcome,
        complaint: Option<&str>,
    ) {
        let target = &*self.name;
        if let Some(error) = complaint {
            tracing::warn!(target, error, "a target does not take what it is sent");
        }
        if before != after {
            self.metrics.circuit(after);
        }
        match (before, after) {
            (State::Closed, State::Open | State::HalfOpen) => {
                tracing::warn!(
                    target,
                    "{}: messages wait, and one probe at a time is sent",
                    trouble(cause, outcome, &self.config.status)
                );
            }
            (State::Open | State::HalfOpen, State::Closed) => {
                tracing::info!(target, "the target answers again: what has waited is sent");
            }
            _ => {}
        }
    }
}

impl Condition {
    /// Changes the number of requests in flight and the rate, as the end of this attempt asks for.
    fn adapt(&mut self, now: UnixMillis, result: &AttemptResult, class: Class, target: &Target) {
        let throttles = class == Class::TargetFailure && throttles(&result.outcome);
        if let (true, Some(rate)) = (throttles, self.rate.as_mut()) {
            rate.throttled(now);
        }
        let pace = match &result.outcome {
            _ if throttles => Pace::Throttled,
            Outcome::Failed(Failure::Timeout(_)) => Pace::Throttled,
            Outcome::Failed(_) => Pace::Unknown,
            Outcome::Status(_) => Pace::Answered(result.latency),
        };
        let before = self.limit.get();
        self.limit.ended(pace, self.in_flight + 1);
        let after = self.limit.get();
        if before != after {
            target.slots.change(before, after);
            target.metrics.concurrency.set(after);
        }
    }

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

/// Why nothing is sent for a while, as somebody would say it who can do something about it.
fn trouble(cause: Option<Cause>, outcome: &Outcome, rules: &StatusRules) -> &'static str {
    match (cause, outcome) {
        (Some(Cause::Misconfigured), Outcome::Failed(Failure::Refused(_))) => {
            "the target is where no connection may be made to (see addresses)"
        }
        (Some(Cause::Misconfigured), _) => {
            "the TLS certificate of the target is not accepted, or ours not there (see tls.ca_file, and its own)"
        }
        (Some(Cause::FailureRate), _) => "the target fails too often",
        (Some(Cause::SlowCalls), _) => "the target is too slow",
        _ if refuses_us(outcome, rules) => {
            "the target does not let us in: its credentials have to be looked at"
        }
        _ => "the target is down",
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
