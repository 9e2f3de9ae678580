//! What becomes of the messages of a request when it has ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;

use super::window::{History, Work};
use super::worker::{Carried, InFlight, Worker};
use crate::bridge::client::{AttemptResult, Failure};
use crate::bridge::policy::breaker::State;
use crate::bridge::policy::status::{Class, Outcome};
use crate::bridge::policy::tries::{Next, Tries, Verdict};
use crate::bridge::reply::{Publication, publication};
use crate::record::{DeadLetter, DeadLetterReason, Message, MessageHead, SavedTries, UnixMillis};
use crate::store::SubmitError;

/// Answers by which a target refuses a request for what is in it: Bad Request, Content Too Large, Unprocessable
/// Content. Of a batch one message may be to blame.
const REFUSES_CONTENT: [u16; 3] = [400, 413, 422];

impl Worker {
    /// Decides about everything that an attempt carried.
    pub(super) fn attempt_ended(
        &mut self,
        in_flight: InFlight,
        result: &AttemptResult,
    ) -> Result<(), SubmitError> {
        let InFlight { carried, started_at, permit, _slot } = in_flight;
        let now = self.broker.clock.now();
        // The same for all, so that they stay together.
        let random = rand::random();
        let target = Arc::clone(&self.target);
        let judge =
            |tries: &mut Tries, head: &MessageHead| tries.judge(result, head, &target.config, now, random);
        let Some(first) = carried.first() else { return Ok(()) };
        let verdict = judge(&mut Tries::begin(started_at), first.head());
        let (state, error) = self.target.ended(now, permit, result, &verdict);
        self.target.metrics.in_flight.decrement(1.0);
        self.monitor.in_flight(self.in_flight.len());
        self.monitor.attempted();
        match error {
            Some(error) => self.monitor.failed(now, error),
            None => self.monitor.taken(now, carried.len() as u64),
        }
        match carried {
            Carried::Stored(batch) => {
                let judged = batch.into_iter().map(|work| {
                    let mut tries = work.tries(started_at);
                    let verdict = judge(&mut tries, work.stored.message.head());
                    // What is settled needs no history, and most messages are.
                    let is_settled = verdict.next == Next::Settle;
                    (if is_settled { work } else { work.tried(tries, result, now) }, verdict)
                });
                self.batch_ended(judged.collect(), result, state, now)
            }
            Carried::Unstored(messages) => {
                if let [message] = &*messages {
                    self.reply(message, result, now)?;
                }
                if verdict.class != Class::Complete {
                    self.broker.metrics.dropped.target_failed.increment(messages.len() as u64);
                }
                Ok(())
            }
        }
    }

    fn batch_ended(
        &mut self,
        mut batch: Vec<(Work, Verdict)>,
        result: &AttemptResult,
        state: State,
        now: UnixMillis,
    ) -> Result<(), SubmitError> {
        let count = batch.len();
        let refused = |status: u16| REFUSES_CONTENT.contains(&status);
        let is_refused = matches!(result.outcome, Outcome::Status(status) if refused(status))
            && batch.iter().all(|(_, verdict)| verdict.class == Class::DeadLetter);
        if count > 1 && is_refused {
            // In halves, until the one that is to blame stands alone.
            let halved = batch.into_iter().map(|(work, _)| work.with_batch_max(count.div_ceil(2)));
            self.window.put_back(halved.collect(), now);
            return Ok(());
        }
        let mut held = Vec::new();
        for (work, verdict) in batch.drain(..) {
            match verdict.next {
                Next::Settle => {
                    if verdict.class == Class::Complete {
                        let published = work.stored.message.head().published_at;
                        self.target.metrics.delivery_seconds.record(now.since(published).as_secs_f64());
                    }
                    self.settle(&work, result, now)?;
                }
                Next::DeadLetter(reason) => self.give_up(work, (reason, result), now)?,
                // The breaker says when, not the backoff: a probe needs a message to be made with.
                Next::RetryAt(_) if verdict.class == Class::TargetFailure && state != State::Closed => {
                    self.keep_tries(&work, now);
                    held.push(work);
                }
                Next::RetryAt(at) => self.try_again(work, (&verdict, count, result), at, now)?,
            }
        }
        if !held.is_empty() {
            self.window.put_back(held, now);
        }
        Ok(())
    }

    fn settle(&mut self, work: &Work, result: &AttemptResult, now: UnixMillis) -> Result<(), SubmitError> {
        self.window.settled(work.stored.lsn);
        self.settlement.add(work.stored.lsn, now);
        // One less of what is too much.
        let _ = self.excess.take(work.stored.bytes);
        self.reply(&work.stored.message, result, now)
    }

    /// Files a message as a dead letter. Whoever waits for an answer to it gets the last one.
    fn give_up(
        &mut self,
        work: Work,
        (reason, result): (DeadLetterReason, &AttemptResult),
        now: UnixMillis,
    ) -> Result<(), SubmitError> {
        let _ = self.excess.take(work.stored.bytes);
        self.reply(&work.stored.message, result, now)?;
        self.file(work, reason, now)
    }

    /// Publishes the answer to a message, if there is one and somebody has asked for it, in one record with what
    /// is settled.
    fn reply(
        &mut self,
        message: &Message,
        result: &AttemptResult,
        now: UnixMillis,
    ) -> Result<(), SubmitError> {
        let Outcome::Status(status) = result.outcome else { return Ok(()) };
        if self.config.reply_max.is_none() {
            return Ok(());
        }
        let metrics = &self.monitor.metrics;
        let (reply, is_cut) = match publication(message, status, result.reply.as_ref(), now) {
            Publication::NotAsked => return Ok(()),
            Publication::NoTopic => {
                metrics.reply_no_topic.increment(1);
                return Ok(());
            }
            Publication::Of { message, is_cut } => (message, is_cut),
        };
        if !self.broker.may_reply(&reply) {
            metrics.reply_not_authorized.increment(1);
            return Ok(());
        }
        if is_cut { &metrics.reply_cut } else { &metrics.replied }.increment(1);
        let settled = self.settlement.take().into_iter().collect();
        self.broker.publish_reply(reply, settled)?;
        self.settlement.went_with(self.broker.store.last_submitted());
        Ok(())
    }

    /// Has a message wait for its next try, unless it has kept others waiting for too long.
    fn try_again(
        &mut self,
        mut work: Work,
        (verdict, batch_len, result): (&Verdict, usize, &AttemptResult),
        at: UnixMillis,
        now: UnixMillis,
    ) -> Result<(), SubmitError> {
        let blocks_others = self.window.blocks_others(&work);
        let Some(history) = &mut work.history else { return Ok(()) };
        let mut at = at.min(self.window.deadline(work.stored.message.head()));
        if verdict.class == Class::RetryMessage {
            // An answer of which one message is the cause may be that it makes the target fail.
            if history.tries.answers > 1 {
                history.batch_max = batch_len.div_ceil(2);
            }
            let until = history.blocks_since.get_or_insert(now).plus(self.config.block_max);
            if blocks_others && until <= now {
                return self.give_up(work, (DeadLetterReason::Blocked, result), now);
            }
            // Who is in no lane keeps nobody waiting, now or later.
            if now < until && work.lane.is_some() {
                at = at.min(until);
            }
        } else {
            history.blocks_since = None;
        }
        self.keep_tries(&work, now);
        if let Some(history) = work.history {
            self.window.wait(work.stored.lsn, history, at);
        }
        Ok(())
    }

    /// Has what was tried with a message written down, so that a restart goes on counting.
    fn keep_tries(&mut self, work: &Work, now: UnixMillis) {
        if let Some(History { tries, attempts, .. }) = work.history.as_deref() {
            let Tries { count, answers, first_at, .. } = *tries;
            let saved = SavedTries { count, answers, first_at, last_at: attempts.last_at };
            self.settlement.tried(work.stored.lsn, saved, now);
        }
    }

    /// Files a message that was started or taken out as a dead letter, which settles it.
    pub(super) fn file(
        &mut self,
        work: Work,
        reason: DeadLetterReason,
        now: UnixMillis,
    ) -> Result<(), SubmitError> {
        self.file_because(work, (reason, None), now)
    }

    /// As [`Worker::file`], and says in a line what exactly was wrong.
    pub(super) fn file_because(
        &mut self,
        work: Work,
        (reason, detail): (DeadLetterReason, Option<String>),
        now: UnixMillis,
    ) -> Result<(), SubmitError> {
        let Work { stored, history, .. } = work;
        let letter = DeadLetter {
            message_no: stored.origin.unwrap_or(stored.lsn),
            detail,
            attempts: history.map(|history| history.attempts),
            ..DeadLetter::new(reason, self.route.addressee(), stored.message, now)
        };
        self.window.settled(stored.lsn);
        self.settlement.add(stored.lsn, now);
        let settled = self.settlement.take();
        let filed = self.broker.file_dead_letter(&letter, settled)?;
        self.settlement.went_with(filed);
        Ok(())
    }
}

impl Work {
    /// What was tried with it, when an attempt that is not counted yet began at this time.
    pub(super) fn tries(&self, started_at: UnixMillis) -> Tries {
        let history = self.history.as_ref();
        history.map_or_else(|| Tries::begin(started_at), |history| history.tries.clone())
    }

    /// With an attempt more.
    fn tried(self, tries: Tries, result: &AttemptResult, now: UnixMillis) -> Self {
        let (before, blocks_since, batch_max) = match self.history {
            Some(history) => (Some(history.attempts), history.blocks_since, history.batch_max),
            None => (None, None, usize::MAX),
        };
        let attempts = tries.attempts(before, result, now);
        Self { history: Some(Box::new(History { tries, attempts, blocks_since, batch_max })), ..self }
    }

    fn with_batch_max(mut self, batch_max: usize) -> Self {
        if let Some(history) = &mut self.history {
            history.batch_max = batch_max;
        }
        self
    }
}

/// An attempt whose task has panicked: nobody knows what came of it.
pub(super) fn broken(error: &JoinError) -> AttemptResult {
    AttemptResult::failed(Failure::Broken(error.to_string()), Duration::ZERO)
}
