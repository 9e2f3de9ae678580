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
use tokio::sync::{AcquireError, watch};
use tokio::task::{Id, JoinError, JoinSet, spawn_blocking};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::monitor::Monitor;
use super::outcome::broken;
use super::reading::{Judged, Read, Reading, Sorter};
use super::settlement::Settlement;
use super::slots::Slot;
use super::target::Target;
use super::window::{Window, Work};
use crate::bridge::client::AttemptResult;
use crate::bridge::filter::Filter;
use crate::bridge::policy::breaker::Permit;
use crate::bridge::policy::retry::give_up;
use crate::bridge::request::Shape;
use crate::broker::{Broker, Excess, Route};
use crate::config::{Overflow, RouteConfig};
use crate::record::{DeadLetterReason, Lsn, Message, UnixMillis};
use crate::store::SubmitError;

/// How long a route rests after its backlog could not be read, or when nothing more can be given up.
const REST: Duration = Duration::from_secs(5);

/// Set to the time at which attempts in flight are broken off.
pub(in crate::bridge) type Stop = watch::Receiver<Option<Instant>>;

type WaitForSlot = Pin<Box<dyn Future<Output = Result<Slot, AcquireError>> + Send>>;

/// What a worker carries, whereto, and how.
pub(in crate::bridge) struct Job {
    pub(in crate::bridge) route: Arc<Route>,
    pub(in crate::bridge) config: Arc<RouteConfig>,
    pub(in crate::bridge) target: Arc<Target>,
    pub(in crate::bridge) shape: Shape,
    pub(in crate::bridge) monitor: Arc<Monitor>,
}

/// The task's state.
pub(in crate::bridge) struct Worker {
    pub(super) broker: Arc<Broker>,
    pub(super) route: Arc<Route>,
    pub(super) config: Arc<RouteConfig>,
    pub(super) sorter: Arc<Sorter>,
    pub(super) target: Arc<Target>,
    pub(super) shape: Shape,
    pub(super) monitor: Arc<Monitor>,
    stop: Stop,
    pub(super) window: Window,
    pub(super) settlement: Settlement,
    /// What is still to be given up, of too much that was found in the queue.
    pub(super) excess: Excess,
    /// The last record that settles something, when the queue was found too long.
    shed_at: Lsn,
    /// The QoS 0 messages that start next.
    pub(super) unstored: Vec<Message>,
    /// The last request that was started was of stored messages.
    pub(super) stored_last: bool,
    pub(super) attempts: JoinSet<AttemptResult>,
    pub(super) in_flight: HashMap<Id, InFlight, RandomState>,
    reading: Option<Reading>,
    /// Nothing is read before this time; zero unless the last reading failed.
    rests_until: UnixMillis,
    pub(super) slot: Option<Slot>,
    pub(super) wait_for_slot: Option<WaitForSlot>,
    /// The target has let nothing through when it was last asked.
    pub(super) is_held_up: bool,
    /// Set to this time, unless it has passed.
    timer: Pin<Box<Sleep>>,
    wakes_at: UnixMillis,
    /// The number whose commit rings the bell.
    asked: Lsn,
}

/// An attempt under way.
pub(super) struct InFlight {
    pub(super) carried: Carried,
    pub(super) started_at: UnixMillis,
    pub(super) permit: Permit,
    pub(super) _slot: Slot,
}

/// What an attempt carries: one message at least.
pub(super) enum Carried {
    Stored(Vec<Work>),
    /// QoS 0: one try.
    Unstored(Vec<Message>),
}

/// What the task was woken for.
enum Event {
    Ended(Result<(Id, AttemptResult), JoinError>),
    Read(Read),
    Slot(Result<Slot, AcquireError>),
    /// The bell, the time, or the order to stop.
    Look,
    /// The time to finish in is over.
    BreakOff,
}

impl Worker {
    pub(in crate::bridge) fn new(broker: &Arc<Broker>, job: Job, stop: Stop) -> Self {
        let Job { route, config, target, shape, monitor } = job;
        Self {
            window: Window::new(&config, &target.config),
            excess: Excess::default(),
            shed_at: Lsn::ZERO,
            settlement: Settlement::new(route.recipient),
            broker: Arc::clone(broker),
            route,
            sorter: Arc::new(Sorter { filter: Filter::new(&config), config: Arc::clone(&config) }),
            config,
            target,
            shape,
            monitor,
            stop,
            unstored: Vec::new(),
            stored_last: false,
            attempts: JoinSet::new(),
            in_flight: HashMap::default(),
            reading: None,
            rests_until: UnixMillis(0),
            slot: None,
            wait_for_slot: None,
            is_held_up: false,
            timer: Box::pin(sleep(Duration::ZERO)),
            wakes_at: UnixMillis(0),
            asked: Lsn::ZERO,
        }
    }

    /// Carries messages until told to stop, or until the store fails: then nothing can be settled any more.
    pub(in crate::bridge) async fn run(mut self) {
        self.recall_tries().await;
        // An error says that the store has failed, which the whole process ends for.
        let _ = self.carry().await;
        self.attempts.shutdown().await;
        for (_, InFlight { permit, .. }) in self.in_flight.drain() {
            self.target.give_back(permit);
            self.target.metrics.in_flight.decrement(1.0);
        }
        // For the task that comes after this one, if there is one.
        self.route.put_back_unstored(std::mem::take(&mut self.unstored));
        if let Some(reading) = self.reading.take() {
            // Nobody wants the page: this only lets the reading end before the store is closed.
            let _ = reading.read.await;
        }
        // Refused only when the store has failed: then what was settled is posted again after the restart.
        let _ = self.settlement.submit(&self.broker.store);
    }

    /// What was tried before this start goes on counting.
    async fn recall_tries(&mut self) {
        let (store, recipient) = (self.broker.store.clone(), self.route.recipient);
        match spawn_blocking(move || store.tries(recipient)).await {
            Ok(Ok(tries)) => self.window.recall(tries),
            Ok(Err(error)) => {
                tracing::error!(route = &*self.route.name, %error, "tries begin to count anew: they cannot be read");
            }
            // The process ends.
            Err(_) => {}
        }
    }

    async fn carry(&mut self) -> Result<(), SubmitError> {
        loop {
            let now = self.broker.clock.now();
            let wake_at = if self.is_stopping() { UnixMillis::NEVER } else { self.look(now)? };
            if self.is_stopping() && self.in_flight.is_empty() {
                return Ok(());
            }
            match self.next_event(wake_at).await {
                Event::Ended(ended) => {
                    self.take_ended(ended)?;
                    // Together, so that one look starts as many again.
                    while let Some(ended) = self.attempts.try_join_next_with_id() {
                        self.take_ended(ended)?;
                    }
                }
                Event::Read(read) => self.take_page(read)?,
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
        self.monitor.waiting(self.window.held(), self.window.waiting());
        // What is overdue by now, or too much, waits for room among the dead letters.
        let waits = !self.excess.is_none() || self.window.held_until() <= now;
        let overdue_at = if waits { now.plus(REST) } else { self.window.held_until() };
        Ok(wake_at.min(overdue_at).min(self.settlement.due()))
    }

    /// Gives up the oldest messages that are not being tried, when the queue is too long and that is what it does
    /// then. What is settled and not on disk counts in the queue until it is: that is waited for.
    fn shed(&mut self, now: UnixMillis) -> Result<(), SubmitError> {
        let route = Arc::clone(&self.route);
        if route.queue.overflow != Overflow::DropOldest {
            return Ok(());
        }
        if self.excess.is_none() {
            if Excess::of(&route.backlog, &route.queue).is_none() {
                return Ok(());
            }
            self.settlement.submit(&self.broker.store)?;
            self.look_when_settled();
            if self.shed_at > self.broker.store.watermark() {
                return Ok(());
            }
            self.excess = Excess::of(&route.backlog, &route.queue);
        }
        while !self.excess.is_none() && self.broker.takes_dead_letters() {
            // The newest stays, however many before it are being tried.
            let has_more = |cursor| route.backlog.may_have(cursor, Lsn(u64::MAX));
            let Some(work) = self.window.shed(has_more) else { break };
            let reason = self.excess.take(work.stored.bytes).unwrap_or(DeadLetterReason::QueueFull);
            self.file(work, reason, now)?;
        }
        self.look_when_settled();
        Ok(())
    }

    /// Has the queue looked at again when everything that is settled is on disk.
    fn look_when_settled(&mut self) {
        if self.settlement.last() > self.shed_at {
            self.shed_at = self.settlement.last();
            self.broker.store.ring_at(self.shed_at, &self.route.bell);
        }
    }

    /// Files what is too old to be tried. With too many dead letters there are, it may still be delivered.
    pub(super) fn file_overdue(&mut self, now: UnixMillis) -> Result<(), SubmitError> {
        if now >= self.window.held_until() && !self.broker.takes_dead_letters() {
            return Ok(());
        }
        for work in self.window.overdue(now) {
            let head = work.stored.message.head();
            let answers = work.history.as_ref().map_or(0, |history| history.tries.answers);
            let reason = give_up(answers, &self.target.config.retry, head, now);
            // The age of the queue, when it is neither that of the target nor its own.
            self.file(work, reason.unwrap_or(DeadLetterReason::QueueAge), now)?;
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
        // While nothing is let through, one full request in hand is enough.
        let has_enough = self.is_held_up && self.window.has_batch();
        let may_have = |cursor| !has_enough && backlog.may_have(cursor, durable);
        let Some(wanted) = self.window.wanted(now, may_have) else { return };
        let route = (self.route.recipient, &self.sorter);
        self.reading = Some(Reading::begin(&self.broker.store, route, wanted, durable));
    }

    async fn next_event(&mut self, wake_at: UnixMillis) -> Event {
        let is_set = self.wakes_at == wake_at && !self.timer.is_elapsed();
        if !is_set && wake_at != UnixMillis::NEVER {
            self.timer.as_mut().reset(Instant::now() + wake_at.since(self.broker.clock.now()));
            self.wakes_at = wake_at;
        }
        let timer = self.timer.as_mut();
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
            () = timer, if wake_at != UnixMillis::NEVER => Event::Look,
            _ = self.stop.changed(), if stop_at.is_none() => Event::Look,
            () = sleep_until(stop_at.unwrap_or_else(Instant::now)), if stop_at.is_some() => Event::BreakOff,
        }
    }

    fn take_page(&mut self, read: Read) -> Result<(), SubmitError> {
        let Some(Reading { wanted, .. }) = self.reading.take() else { return Ok(()) };
        let now = self.broker.clock.now();
        let error = match read {
            Ok(Ok(Judged { arrived, dropped, unclear })) => {
                self.rests_until = UnixMillis(0);
                self.window.arrived(now, wanted, arrived);
                dropped.into_iter().for_each(|lsn| self.settlement.add(lsn, now));
                for (stored, why) in unclear {
                    let work = Work { stored, lane: None, history: None };
                    self.file_because(work, (DeadLetterReason::FilterError, Some(why)), now)?;
                }
                return Ok(());
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
        Ok(())
    }

    fn take_ended(&mut self, ended: Result<(Id, AttemptResult), JoinError>) -> Result<(), SubmitError> {
        let (id, result) = ended.unwrap_or_else(|error| (error.id(), broken(&error)));
        match self.in_flight.remove(&id) {
            Some(in_flight) => self.attempt_ended(in_flight, &result),
            None => Ok(()),
        }
    }
}

impl Carried {
    /// Messages.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Stored(batch) => batch.len(),
            Self::Unstored(messages) => messages.len(),
        }
    }

    pub(super) fn first(&self) -> Option<&Message> {
        match self {
            Self::Stored(batch) => batch.first().map(|work| &work.stored.message),
            Self::Unstored(messages) => messages.first(),
        }
    }
}
