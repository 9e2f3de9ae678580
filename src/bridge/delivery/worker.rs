//! The task of one route: it reads what the route is owed, has it posted, and settles it.
//!
//! It sleeps until something happens: a message is stored, an attempt ends, a page is read, a slot of the
//! target is free, the breaker changes, or a time comes.
//!
//! Invariant: a message is started only after its commit, and is settled only by an answer, by a record
//! that files its dead letter, or by a rule of the operator.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, watch};
use tokio::task::{Id, JoinError, JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until};

use super::monitor::Monitor;
use super::settlement::Settlement;
use super::target::Target;
use super::window::{History, Wanted, Window, Work};
use crate::bridge::client::{AttemptResult, Failure};
use crate::bridge::policy::breaker::{Admit, Permit, State};
use crate::bridge::policy::retry::give_up;
use crate::bridge::policy::status::{Class, Outcome};
use crate::bridge::policy::tries::{Next, Tries, Verdict};
use crate::bridge::request::{Delivery, Item, Shape};
use crate::broker::{Broker, Excess, Route};
use crate::config::Overflow;
use crate::record::{DeadLetter, DeadLetterReason, Lsn, Message, UnixMillis};
use crate::store::{Page, StoreError, SubmitError};

/// How long a route rests after its backlog could not be read, or when nothing more can be given up.
const REST: Duration = Duration::from_secs(5);

/// Set to the time at which attempts in flight are broken off.
pub(in crate::bridge) type Stop = watch::Receiver<Option<Instant>>;

type WaitForSlot = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// The task's state.
pub(in crate::bridge) struct Worker {
    broker: Arc<Broker>,
    route: Arc<Route>,
    target: Arc<Target>,
    shape: Shape,
    monitor: Arc<Monitor>,
    stop: Stop,
    window: Window,
    settlement: Settlement,
    /// What is still to be given up, of too much that was found in the queue.
    excess: Excess,
    /// The last record that settles something, when the queue was found too long.
    shed_at: Lsn,
    /// The QoS 0 message that starts next.
    unstored: Option<Message>,
    /// The last message that was started was a stored one.
    stored_last: bool,
    attempts: JoinSet<AttemptResult>,
    in_flight: HashMap<Id, InFlight, RandomState>,
    reading: Option<Reading>,
    /// Nothing is read before this time; zero unless the last reading failed.
    rests_until: UnixMillis,
    slot: Option<OwnedSemaphorePermit>,
    wait_for_slot: Option<WaitForSlot>,
    /// The number whose commit rings the bell.
    asked: Lsn,
}

/// An attempt under way.
struct InFlight {
    carried: Carried,
    tries: Tries,
    permit: Permit,
    _slot: OwnedSemaphorePermit,
}

/// What an attempt carries.
enum Carried {
    Stored(Work),
    /// QoS 0: one try.
    Unstored(Message),
}

struct Reading {
    wanted: Wanted,
    read: JoinHandle<Result<Page, StoreError>>,
}

/// What the task was woken for.
enum Event {
    Ended(Result<(Id, AttemptResult), JoinError>),
    Read(Result<Result<Page, StoreError>, JoinError>),
    Slot(Result<OwnedSemaphorePermit, AcquireError>),
    /// The bell, the time, or the order to stop.
    Look,
    /// The time to finish in is over.
    BreakOff,
}

impl Worker {
    pub(in crate::bridge) fn new(
        broker: &Arc<Broker>,
        route: &Arc<Route>,
        (target, shape): (&Arc<Target>, Shape),
        monitor: &Arc<Monitor>,
        stop: Stop,
    ) -> Self {
        Self {
            window: Window::new(&target.config, route.queue.age),
            excess: Excess::default(),
            shed_at: Lsn::ZERO,
            settlement: Settlement::new(route.recipient),
            broker: Arc::clone(broker),
            route: Arc::clone(route),
            target: Arc::clone(target),
            shape,
            monitor: Arc::clone(monitor),
            stop,
            unstored: None,
            stored_last: false,
            attempts: JoinSet::new(),
            in_flight: HashMap::default(),
            reading: None,
            rests_until: UnixMillis(0),
            slot: None,
            wait_for_slot: None,
            asked: Lsn::ZERO,
        }
    }

    /// Carries messages until told to stop, or until the store fails: then nothing can be settled any more.
    pub(in crate::bridge) async fn run(mut self) {
        // An error says that the store has failed, which the whole process ends for.
        let _ = self.carry().await;
        self.attempts.shutdown().await;
        if let Some(reading) = self.reading.take() {
            // Nobody wants the page: this only lets the reading end before the store is closed.
            let _ = reading.read.await;
        }
        // Refused only when the store has failed: then what was settled is posted again after the restart.
        let _ = self.settlement.submit(&self.broker.store);
    }

    async fn carry(&mut self) -> Result<(), SubmitError> {
        loop {
            let now = self.broker.clock.now();
            let wake_at = if self.is_stopping() { UnixMillis::NEVER } else { self.look(now)? };
            if self.is_stopping() && self.in_flight.is_empty() {
                return Ok(());
            }
            match self.next_event(wake_at).await {
                Event::Ended(ended) => self.take_ended(ended)?,
                Event::Read(read) => self.take_page(read),
                Event::Slot(slot) => {
                    self.wait_for_slot = None;
                    self.slot = slot.ok();
                }
                Event::Look => {}
                Event::BreakOff => return Ok(()),
            }
        }
    }

    fn is_stopping(&self) -> bool {
        self.stop.borrow().is_some()
    }

    /// Does everything that can be done now, and gives the time to look again.
    fn look(&mut self, now: UnixMillis) -> Result<UnixMillis, SubmitError> {
        let (queue, backlog) = (&self.route.queue, &self.route.backlog);
        if queue.is_filling(backlog.count(), backlog.bytes()) {
            // What is settled must not count there for long.
            self.settlement.submit(&self.broker.store)?;
        }
        self.settlement.submit_if_due(now, &self.broker.store)?;
        self.shed(now)?;
        let mut wake_at = self.start_all(now)?;
        self.read(now);
        if self.reading.is_none() {
            wake_at = wake_at.min(if now < self.rests_until { self.rests_until } else { self.window.due() });
        }
        self.monitor.waiting(self.window.ready(), self.window.waiting());
        // What is overdue by now, or too much, waits for room among the dead letters.
        let waits = !self.excess.is_none() || self.window.ready_until() <= now;
        let overdue_at = if waits { now.plus(REST) } else { self.window.ready_until() };
        Ok(wake_at.min(overdue_at).min(self.settlement.due()))
    }

    /// Starts what may start. Gives the time at which the breaker may let more through.
    fn start_all(&mut self, now: UnixMillis) -> Result<UnixMillis, SubmitError> {
        loop {
            self.file_overdue(now)?;
            let Some(stored) = self.choose() else {
                (self.slot, self.wait_for_slot) = (None, None);
                return Ok(UnixMillis::NEVER);
            };
            let Some(slot) = self.take_slot() else { return Ok(UnixMillis::NEVER) };
            match self.target.admit(now) {
                Admit::WaitUntil(at) => return Ok(at),
                Admit::Go(permit) => self.start(stored, slot, permit, now),
            }
        }
    }

    /// Whether a stored message or one of QoS 0 starts next: both in turn, while there are both.
    fn choose(&mut self) -> Option<bool> {
        if self.unstored.is_none() {
            self.unstored = self.route.take_unstored();
        }
        match (self.window.peek().is_some(), self.unstored.is_some()) {
            (true, true) => Some(!self.stored_last),
            (false, false) => None,
            (stored, _) => Some(stored),
        }
    }

    /// A slot of the target; `None` when there is none, and then the task is woken when there is one.
    fn take_slot(&mut self) -> Option<OwnedSemaphorePermit> {
        if self.slot.is_some() || self.wait_for_slot.is_some() {
            return self.slot.take();
        }
        let slot = Arc::clone(&self.target.slots).try_acquire_owned().ok();
        if slot.is_none() {
            self.wait_for_slot = Some(Box::pin(Arc::clone(&self.target.slots).acquire_owned()));
        }
        slot
    }

    fn start(&mut self, stored: bool, slot: OwnedSemaphorePermit, permit: Permit, now: UnixMillis) {
        self.stored_last = stored;
        let work = if stored { self.window.start().map(Carried::Stored) } else { None };
        let Some(carried) = work.or_else(|| self.unstored.take().map(Carried::Unstored)) else { return };
        let history = match &carried {
            Carried::Stored(work) => work.history.as_ref(),
            Carried::Unstored(_) => None,
        };
        let tries = history.map_or_else(|| Tries::begin(now), |history| history.tries.clone());
        let number = carried.number();
        let delivery = Delivery {
            store_id: self.broker.store.id_of(number.unwrap_or_default()),
            number,
            attempt: tries.count.saturating_add(1),
        };
        let Ok(request) = self.shape.build(&[Item { message: carried.message(), delivery }], now) else {
            return;
        };
        let target = Arc::clone(&self.target);
        let task = self.attempts.spawn(async move { target.post(request).await });
        self.in_flight.insert(task.id(), InFlight { carried, tries, permit, _slot: slot });
        self.target.metrics.in_flight.increment(1.0);
        self.monitor.in_flight(self.in_flight.len());
    }

    /// Gives up the oldest messages that are not being tried, when the queue is too long and that is what it does
    /// then. What is settled and not on disk counts in the queue until it is: that is waited for.
    fn shed(&mut self, now: UnixMillis) -> Result<(), SubmitError> {
        let queue = &self.route.queue;
        if queue.overflow != Overflow::DropOldest {
            return Ok(());
        }
        if self.excess.is_none() {
            let excess = Excess::of(&self.route.backlog, queue);
            if excess.is_none() {
                return Ok(());
            }
            self.settlement.submit(&self.broker.store)?;
            if self.settlement.last() > self.shed_at {
                self.look_after(self.settlement.last());
            }
            if self.shed_at > self.broker.store.watermark() {
                return Ok(());
            }
            self.excess = excess;
        }
        let mut last = None;
        while !self.excess.is_none() && self.broker.takes_dead_letters() {
            // The newest stays, however many before it are being tried.
            let has_more = |cursor| self.route.backlog.may_have(cursor, Lsn(u64::MAX));
            let Some(work) = self.window.shed(has_more) else { break };
            let reason = self.excess.take(work.stored.bytes).unwrap_or(DeadLetterReason::QueueFull);
            last = Some(self.file(work, reason, now)?);
        }
        last.into_iter().for_each(|record| self.look_after(record));
        Ok(())
    }

    /// Has the queue looked at again when this record is durable.
    fn look_after(&mut self, record: Lsn) {
        self.shed_at = record;
        self.broker.store.ring_at(record, &self.route.bell);
    }

    /// Files what is too old to be tried. With too many dead letters there are, it may still be delivered.
    fn file_overdue(&mut self, now: UnixMillis) -> Result<(), SubmitError> {
        if now >= self.window.ready_until() && !self.broker.takes_dead_letters() {
            return Ok(());
        }
        for work in self.window.overdue(now) {
            let head = work.stored.message.head();
            let answers = work.history.as_ref().map_or(0, |history| history.tries.answers);
            let reason = give_up(answers, &self.target.config.retry, head, now);
            // The age of the queue, when it is neither that of the target nor its own.
            self.file(work, reason.unwrap_or(DeadLetterReason::QueueAge), now)?;
        }
        if self.unstored.as_ref().is_some_and(|message| message.head().expires_at <= now) {
            self.unstored = None;
            self.broker.metrics.dropped.expired.increment(1);
        }
        Ok(())
    }

    /// Begins to read what is to be read.
    fn read(&mut self, now: UnixMillis) {
        // Before the backlog: every number up to the watermark is in it.
        let durable = self.broker.store.watermark();
        let pushed = self.route.last_pushed();
        if pushed > durable && self.asked <= durable {
            self.asked = pushed;
            self.broker.store.ring_at(pushed, &self.route.bell);
        }
        if self.reading.is_some() || now < self.rests_until {
            return;
        }
        let backlog = &self.route.backlog;
        let Some(wanted) = self.window.wanted(now, |cursor| backlog.may_have(cursor, durable)) else {
            return;
        };
        let (store, recipient) = (self.broker.store.clone(), self.route.recipient);
        let read = match &wanted {
            Wanted::New { after, max } => {
                let (after, max) = (*after, *max);
                spawn_blocking(move || store.read_after(recipient, (after, durable), max, |_| false))
            }
            Wanted::Again(retries) => {
                let numbers = retries.numbers.clone();
                spawn_blocking(move || store.read(recipient, &numbers))
            }
        };
        self.reading = Some(Reading { wanted, read });
    }

    async fn next_event(&mut self, wake_at: UnixMillis) -> Event {
        let pause = wake_at.since(self.broker.clock.now());
        let stop_at = *self.stop.borrow();
        let (reading, wait_for_slot) = (&mut self.reading, &mut self.wait_for_slot);
        tokio::select! {
            Some(ended) = self.attempts.join_next_with_id() => Event::Ended(ended),
            read = async {
                match reading {
                    Some(reading) => (&mut reading.read).await,
                    None => std::future::pending().await,
                }
            } => Event::Read(read),
            slot = async {
                match wait_for_slot {
                    Some(wait) => wait.await,
                    None => std::future::pending().await,
                }
            } => Event::Slot(slot),
            () = self.route.bell.heard(), if stop_at.is_none() => Event::Look,
            () = sleep(pause), if wake_at != UnixMillis::NEVER => Event::Look,
            _ = self.stop.changed(), if stop_at.is_none() => Event::Look,
            () = sleep_until(stop_at.unwrap_or_else(Instant::now)), if stop_at.is_some() => Event::BreakOff,
        }
    }

    fn take_page(&mut self, read: Result<Result<Page, StoreError>, JoinError>) {
        let Some(Reading { wanted, .. }) = self.reading.take() else { return };
        let now = self.broker.clock.now();
        let error = match read {
            Ok(Ok(page)) => {
                self.rests_until = UnixMillis(0);
                return self.window.arrived(now, wanted, page);
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        self.window.not_arrived(now, wanted);
        if self.rests_until == UnixMillis(0) {
            tracing::error!(route = &*self.route.name, error, "the backlog of a route cannot be read");
        }
        self.rests_until = now.plus(REST);
        self.monitor.failed(now, error);
    }

    fn take_ended(&mut self, ended: Result<(Id, AttemptResult), JoinError>) -> Result<(), SubmitError> {
        let (id, result) = ended.unwrap_or_else(|error| (error.id(), broken(&error)));
        let Some(InFlight { carried, mut tries, permit, _slot }) = self.in_flight.remove(&id) else {
            return Ok(());
        };
        let now = self.broker.clock.now();
        let head = carried.message().head();
        let verdict = tries.judge(&result, head, &self.target.config, now, rand::random());
        let (state, error) = self.target.ended(now, permit, &result, &verdict);
        self.target.metrics.in_flight.decrement(1.0);
        self.monitor.in_flight(self.in_flight.len());
        match error {
            Some(error) => self.monitor.failed(now, error),
            None => self.monitor.taken(now),
        }
        match carried {
            Carried::Stored(work) => {
                let attempts = tries.attempts(&result, now);
                let work = Work { history: Some(Box::new(History { tries, attempts })), ..work };
                self.conclude(work, &verdict, state, now)
            }
            Carried::Unstored(_) => {
                if verdict.class != Class::Complete {
                    self.broker.metrics.dropped.target_failed.increment(1);
                }
                Ok(())
            }
        }
    }

    fn conclude(
        &mut self,
        work: Work,
        verdict: &Verdict,
        state: State,
        now: UnixMillis,
    ) -> Result<(), SubmitError> {
        let lsn = work.stored.lsn;
        match verdict.next {
            Next::Settle => {
                self.window.settled(lsn);
                self.settlement.add(lsn, now);
                // One less of what is too much.
                let _ = self.excess.take(work.stored.bytes);
            }
            Next::DeadLetter(reason) => {
                let _ = self.excess.take(work.stored.bytes);
                self.file(work, reason, now)?;
            }
            // The breaker says when, not the backoff: a probe needs a message to be made with.
            Next::RetryAt(_) if verdict.class == Class::TargetFailure && state != State::Closed => {
                self.window.hold(work);
            }
            Next::RetryAt(at) => {
                if let Some(history) = work.history {
                    self.window.wait(lsn, history, at);
                }
            }
        }
        Ok(())
    }

    /// Files a message that was started or taken out as a dead letter, which settles it.
    fn file(&mut self, work: Work, reason: DeadLetterReason, now: UnixMillis) -> Result<Lsn, SubmitError> {
        let Work { stored, history } = work;
        let letter = DeadLetter {
            message_no: stored.origin.unwrap_or(stored.lsn),
            reason,
            addressee: self.route.addressee(),
            message: stored.message,
            attempts: history.map(|history| history.attempts),
            created_at: now,
        };
        self.window.settled(stored.lsn);
        self.settlement.add(stored.lsn, now);
        let settled = self.settlement.take().into_iter().collect();
        self.broker.file_dead_letter(&letter, settled)
    }
}

impl Carried {
    fn message(&self) -> &Message {
        match self {
            Self::Stored(work) => &work.stored.message,
            Self::Unstored(message) => message,
        }
    }

    /// The number that the target knows the message by.
    fn number(&self) -> Option<Lsn> {
        match self {
            Self::Stored(work) => Some(work.stored.origin.unwrap_or(work.stored.lsn)),
            Self::Unstored(_) => None,
        }
    }
}

/// An attempt whose task has panicked: nobody knows what came of it.
fn broken(error: &JoinError) -> AttemptResult {
    AttemptResult {
        outcome: Outcome::Failed(Failure::Broken(error.to_string())),
        retry_after: None,
        excerpt: String::new(),
        latency: Duration::ZERO,
    }
}
