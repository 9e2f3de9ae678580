//! What the task of a route starts, and when: a message in hand, a slot of the target, and leave of its breaker.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use smallvec::SmallVec;

use super::slots::Slot;
use super::window::Start;
use super::worker::{Carried, InFlight, Worker};
use crate::bridge::filter::Judgement;
use crate::bridge::policy::breaker::{Admit, Permit};
use crate::bridge::reply::{HOPS_MAX, hops};
use crate::bridge::request::{Delivery, Item};
use crate::record::{DeadLetterReason, Message, UnixMillis};
use crate::store::SubmitError;

/// What may start next.
enum Choice {
    Stored,
    Unstored,
    /// Nothing before this time.
    At(UnixMillis),
}

impl Worker {
    /// Starts what may start. Gives the time at which more may.
    pub(super) fn start_all(&mut self, now: UnixMillis) -> Result<UnixMillis, SubmitError> {
        self.is_held_up = false;
        loop {
            self.file_overdue(now)?;
            let choice = self.choose(now);
            if let Choice::At(at) = choice {
                (self.slot, self.wait_for_slot) = (None, None);
                return Ok(at);
            }
            let Some(slot) = self.take_slot() else { return Ok(UnixMillis::NEVER) };
            let admit = self.target.admit(now);
            self.is_held_up = matches!(admit, Admit::WaitUntil(_));
            let permit = match admit {
                Admit::WaitUntil(at) => return Ok(at),
                Admit::Go(permit) => permit,
            };
            match choice {
                Choice::Stored => self.start_stored((slot, permit), now)?,
                _ => self.start_unstored((slot, permit), now),
            }
        }
    }

    /// Whether stored messages or those of QoS 0 start next: both in turn, while there are both.
    fn choose(&mut self, now: UnixMillis) -> Choice {
        self.gather_unstored(now);
        match self.window.next_start(now) {
            Start::Now if self.unstored.is_empty() || !self.stored_last => Choice::Stored,
            _ if !self.unstored.is_empty() => Choice::Unstored,
            Start::Now => Choice::Stored,
            Start::At(at) => Choice::At(at),
            Start::Never => Choice::At(UnixMillis::NEVER),
        }
    }

    /// Takes messages of QoS 0 for the next request, unless there are some.
    fn gather_unstored(&mut self, now: UnixMillis) {
        let before = self.unstored.len();
        self.unstored.retain(|message| message.head().expires_at > now);
        self.broker.metrics.dropped.expired.increment((before - self.unstored.len()) as u64);
        if !self.unstored.is_empty() {
            return;
        }
        let (count_max, bytes_max) =
            self.config.batch.as_ref().map_or((1, 0), |batch| (batch.count as usize, batch.bytes));
        let mut bytes = 0;
        while self.unstored.len() < count_max
            && let Some(message) = self.route.take_unstored()
        {
            if message.head().expires_at <= now {
                self.broker.metrics.dropped.expired.increment(1);
                continue;
            }
            bytes += message.size() as u64;
            if bytes > bytes_max && !self.unstored.is_empty() {
                self.route.put_back_unstored(vec![message]);
                break;
            }
            match self.sorter.filter.judge(&message) {
                Judgement::Pass => self.unstored.push(message),
                Judgement::Drop => bytes -= message.size() as u64,
                Judgement::Error(why) => self.unstored_fails(now, why),
            }
        }
    }

    /// A slot of the target; `None` when there is none, and then the task is woken when there is one.
    fn take_slot(&mut self) -> Option<Slot> {
        if self.slot.is_some() {
            return self.slot.take();
        }
        if let Some(wait) = &mut self.wait_for_slot {
            // Whoever waits is polled again by the task, with a waker.
            let Poll::Ready(slot) = wait.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
                return None;
            };
            self.wait_for_slot = None;
            return slot.ok();
        }
        let slot = Arc::clone(&self.target.slots).try_acquire_owned().ok();
        if slot.is_none() {
            self.wait_for_slot = Some(Box::pin(Arc::clone(&self.target.slots).acquire_owned()));
        }
        slot
    }

    fn start_stored(&mut self, admitted: (Slot, Permit), now: UnixMillis) -> Result<(), SubmitError> {
        self.stored_last = true;
        let mut batch = self.window.start();
        if let Some(at) = batch.iter().position(|work| self.has_looped(&work.stored.message)) {
            let work = batch.remove(at);
            let why = format!("it has come back as a reply {HOPS_MAX} times");
            self.file_because(work, (DeadLetterReason::Loop, Some(why)), now)?;
        }
        while !batch.is_empty() {
            let store = &self.broker.store;
            let items: SmallVec<[Item<'_>; 1]> = batch
                .iter()
                .map(|work| {
                    let number = work.stored.origin.unwrap_or(work.stored.lsn);
                    let attempt = work.tries(now).count.saturating_add(1);
                    let delivery = Delivery { store_id: store.id_of(number), number: Some(number), attempt };
                    Item { message: &work.stored.message, delivery }
                })
                .collect();
            let built = self.shape.build(&items, now);
            drop(items);
            match built {
                Ok(request) => {
                    self.launch(Carried::Stored(batch), request, admitted, now);
                    return Ok(());
                }
                Err(unfit) => {
                    let work = batch.remove(unfit.index.min(batch.len() - 1));
                    self.monitor.failed(now, unfit.why.clone());
                    self.file_because(work, (DeadLetterReason::Unrenderable, Some(unfit.why)), now)?;
                }
            }
        }
        self.target.give_back(admitted.1);
        Ok(())
    }

    fn start_unstored(&mut self, admitted: (Slot, Permit), now: UnixMillis) {
        self.stored_last = false;
        let mut messages = std::mem::take(&mut self.unstored);
        messages.retain(|message| !self.has_looped(message));
        while !messages.is_empty() {
            let delivery = Delivery { store_id: 0, number: None, attempt: 1 };
            let items: SmallVec<[Item<'_>; 1]> =
                messages.iter().map(|message| Item { message, delivery }).collect();
            let built = self.shape.build(&items, now);
            drop(items);
            match built {
                Ok(request) => return self.launch(Carried::Unstored(messages), request, admitted, now),
                Err(unfit) => {
                    messages.remove(unfit.index.min(messages.len() - 1));
                    self.unstored_fails(now, unfit.why);
                }
            }
        }
        self.target.give_back(admitted.1);
    }

    /// Whether a message has been a reply too often to get another one. There is one at most in a batch: a route
    /// that replies has none larger.
    fn has_looped(&self, message: &Message) -> bool {
        let has_looped = self.config.reply_max.is_some() && hops(message) >= HOPS_MAX;
        if has_looped {
            self.monitor.metrics.reply_loop.increment(1);
        }
        has_looped
    }

    /// A message of QoS 0 ends here: it has no record that a dead letter could be made of.
    fn unstored_fails(&self, now: UnixMillis, why: String) {
        self.monitor.failed(now, why);
        self.broker.metrics.dropped.target_failed.increment(1);
    }

    fn launch(
        &mut self,
        carried: Carried,
        request: Request<Full<Bytes>>,
        (slot, permit): (Slot, Permit),
        now: UnixMillis,
    ) {
        let target = Arc::clone(&self.target);
        let reply_max = self.config.reply_max;
        let task = self.attempts.spawn(async move { target.post(request, reply_max).await });
        self.in_flight.insert(task.id(), InFlight { carried, started_at: now, permit, _slot: slot });
        self.target.metrics.in_flight.increment(1.0);
        self.monitor.in_flight(self.in_flight.len());
    }
}
