//! What has to leave a queue: the oldest messages when there are too many, and those that have waited too long.
//!
//! One task does it for all sessions and shared groups, and reads the messages on a thread of its own; the task
//! of a route does it for the route. What a client has in hand is not given up: its exchange goes on.
//!
//! Invariant: the dead letter and the settlement of a message are one record, and that is submitted under the
//! lock that says nobody has the message in hand.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use dashmap::DashMap;
use foldhash::fast::RandomState;

use super::overflow::Excess;
use super::slot::Untouched;
use super::{Broker, DurableSlot, Group, Slot};
use crate::config::{Overflow, QueueConfig};
use crate::record::{Addressee, Change, DeadLetter, DeadLetterReason, Lsn, RecipientNo, Record, UnixMillis};
use crate::store::{Notices, Page, StoreError, Stored, SubmitError, Watch};

/// Messages of one queue that are read at once.
const PAGE: usize = 1024;
/// Pages of one queue that are given up before the disk is waited for.
const PAGES_MAX: usize = 16;
/// Queues that are looked at before the disk is waited for.
const ROUND_MAX: usize = 1024;
/// How long the task sleeps at most.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// How long a queue is left alone of which nothing can be given up now.
const REST: Duration = Duration::from_secs(1);

/// The queues that are looked after, by the number of who owns them.
#[derive(Debug, Default)]
pub(super) struct Watched {
    owners: DashMap<RecipientNo, Weak<dyn Queue>, RandomState>,
    notices: Arc<Notices>,
}

/// A session or a shared group, as the one who owns a queue.
pub(super) trait Queue: std::fmt::Debug + Send + Sync {
    /// The queue.
    fn queue(&self) -> Option<&DurableSlot>;

    /// Whom a dead letter is for.
    fn addressee(&self) -> Addressee;

    /// The oldest durable messages after a number that nobody has in hand: a page of them. `None` when that
    /// cannot be said yet.
    fn untouched(&self, broker: &Broker, after: Lsn) -> Result<Option<(Untouched, Page)>, StoreError>;

    /// Gives up those that are still in nobody's hand. `submit` makes it durable; its error ends it.
    fn give_up(
        &self,
        seen: &Untouched,
        given_up: Vec<GivenUp>,
        submit: &mut dyn FnMut(GivenUp) -> Result<Lsn, SubmitError>,
    ) -> Result<(), SubmitError>;

    /// Nothing of what was read is given up from here on.
    fn end_look(&self) {}
}

/// A message that leaves its queue.
#[derive(Debug)]
pub(super) struct GivenUp {
    /// Its number.
    pub(super) lsn: Lsn,
    /// `None` when its own expiry has come: then it is dropped as it would be at its delivery.
    reason: Option<DeadLetterReason>,
    changes: Vec<Change>,
}

/// What of a page goes.
struct Chosen {
    given_up: Vec<GivenUp>,
    /// When the first that stays is too old.
    next: Option<UnixMillis>,
    /// Whether some of what comes after may have to go, too.
    goes_on: bool,
}

/// When which queue is looked at again.
#[derive(Debug, Default)]
struct Agenda {
    due: BTreeSet<(UnixMillis, RecipientNo)>,
    times: HashMap<RecipientNo, UnixMillis, RandomState>,
}

impl Broker {
    /// Gives up what has to leave the queues of sessions and shared groups. Runs for as long as the broker, if
    /// there is a policy that asks for it.
    pub async fn run_give_up(self: Arc<Self>) {
        if !is_watched(&self.limits.queue) {
            return;
        }
        let mut agenda = Agenda::default();
        loop {
            let mut round = agenda.take_due(self.clock.now(), ROUND_MAX);
            round.extend(self.watched.notices.take(ROUND_MAX));
            if round.is_empty() {
                let until = agenda.first().map_or(SLEEP_MAX, |at| at.since(self.clock.now()).min(SLEEP_MAX));
                let _ = tokio::time::timeout(until, self.watched.notices.bell.heard()).await;
                continue;
            }
            // What was told of is applied, and perhaps not committed.
            if self.store.durable(self.store.last_submitted()).await.is_err() {
                return;
            }
            let broker = Arc::clone(&self);
            let look = move || round.into_iter().map(|number| (number, broker.look_at(number))).collect();
            let looked: Result<Vec<_>, _> = tokio::task::spawn_blocking(look).await;
            let Ok(looked) = looked else { return };
            looked.into_iter().for_each(|(number, at)| agenda.set(number, at));
            // Until then what was given up is still counted.
            if self.store.durable(self.store.last_submitted()).await.is_err() {
                return;
            }
        }
    }

    /// From now on what is too much or too old in this queue is given up.
    pub(super) fn watch(&self, owner: &Arc<impl Queue + 'static>) {
        let limits = &self.limits.queue;
        let Some(queue) =
            owner.queue().filter(|queue| is_watched(limits) && queue.backlog.watched().is_none())
        else {
            return;
        };
        let owner: Weak<dyn Queue> = Arc::downgrade(owner) as Weak<dyn Queue>;
        self.watched.owners.insert(queue.recipient, owner);
        let drops_oldest = limits.overflow == Overflow::DropOldest;
        let mut watch = Watch::new(queue.recipient, &self.watched.notices);
        if drops_oldest {
            (watch.messages_max, watch.bytes_max) = (limits.messages, limits.bytes);
        }
        watch.any = limits.age.is_some();
        queue.backlog.watch(watch);
    }

    /// The queue is gone.
    pub(super) fn forget_watched(&self, recipient: RecipientNo) {
        self.watched.owners.remove(&recipient);
    }

    /// Looks at a queue, and says when to look again without being told of anything.
    pub(super) fn look_at(&self, recipient: RecipientNo) -> Option<UnixMillis> {
        let owner = self.watched.owners.get(&recipient)?.upgrade()?;
        let watch = owner.queue()?.backlog.watched()?;
        watch.looked();
        let now = self.clock.now();
        if self.store.is_congested() {
            // What is given up waits in memory for the writer, too.
            return Some(now);
        }
        let next = self.shed(&*owner, now);
        owner.end_look();
        let next = next.unwrap_or_else(|error| {
            tracing::error!(%error, "a queue cannot be read, to give up what is too much or too old in it");
            Some(now.plus(SLEEP_MAX))
        });
        if next.is_some() {
            watch.awaits();
        }
        next
    }

    /// Gives up what is too much or too old, some pages of it.
    fn shed(&self, owner: &dyn Queue, now: UnixMillis) -> Result<Option<UnixMillis>, StoreError> {
        let limits = &self.limits.queue;
        let Some(queue) = owner.queue().filter(|queue| queue.backlog.count() > 0) else { return Ok(None) };
        let drops_oldest = limits.overflow == Overflow::DropOldest;
        let mut excess = if drops_oldest { Excess::of(&queue.backlog, limits) } else { Excess::default() };
        if excess.is_none() && limits.age.is_none() {
            return Ok(None);
        }
        let mut after = Lsn::ZERO;
        for pages in 0..PAGES_MAX {
            let Some((seen, page)) = owner.untouched(self, after)? else { break };
            after = page.cursor;
            let Chosen { given_up, next, goes_on } = self.choose(owner, page, &mut excess, now);
            if given_up.is_empty() && pages == 0 {
                // With everything in somebody's hands the age of what comes later counts.
                return Ok(next.or(limits.age.map(|age| now.plus(age.clamp(REST, SLEEP_MAX)))));
            }
            if !self.takes_dead_letters() {
                self.warn_of_limit();
                return Ok(Some(now.plus(REST)));
            }
            let mut submit = |given_up| self.submit_given_up(given_up);
            // Refused only when the store has failed, which the task is told of.
            if owner.give_up(&seen, given_up, &mut submit).is_err() || !goes_on || self.store.is_congested() {
                break;
            }
        }
        Ok(Some(now))
    }

    /// Those at the head of a page that go.
    fn choose(&self, owner: &dyn Queue, page: Page, excess: &mut Excess, now: UnixMillis) -> Chosen {
        let mut given_up = Vec::new();
        let newest = page.messages.last().filter(|_| page.is_last).map(|stored| stored.lsn);
        for stored in page.messages {
            let head = stored.message.head();
            let too_old_at = self.limits.queue.age.map(|age| head.published_at.plus(age));
            let is_too_old = too_old_at.is_some_and(|at| at <= now);
            // The newest stays, however many before it are in somebody's hands.
            let excess = Some(&mut *excess).filter(|_| newest != Some(stored.lsn));
            let reason = excess
                .and_then(|excess| excess.take(stored.bytes))
                .or(is_too_old.then_some(DeadLetterReason::QueueAge));
            let Some(reason) = reason else {
                return Chosen { given_up, next: too_old_at, goes_on: false };
            };
            let reason = Some(reason).filter(|_| head.expires_at > now).or_else(|| {
                let expired = DeadLetterReason::Expired;
                self.limits.letters.keeps(expired, stored.message.topic()).then_some(expired)
            });
            given_up.push(GivenUp::new(stored, reason, owner.addressee(), now));
        }
        Chosen { given_up, next: None, goes_on: !page.is_last }
    }

    fn submit_given_up(&self, given_up: GivenUp) -> Result<Lsn, SubmitError> {
        match given_up.reason {
            Some(reason) => self.metrics.dead_letter(reason),
            None => self.metrics.dropped.expired.increment(1),
        }
        self.warn_of_limit();
        Ok(self.store.submit(Record::of(given_up.changes))?.lsn)
    }
}

impl GivenUp {
    fn new(stored: Stored, reason: Option<DeadLetterReason>, addressee: Addressee, now: UnixMillis) -> Self {
        let lsn = stored.lsn;
        let mut changes = vec![Change::Settled(stored.leg.recipient, vec![lsn])];
        if let Some(reason) = reason {
            let message_no = stored.origin.unwrap_or(lsn);
            let letter = DeadLetter { message_no, ..DeadLetter::new(reason, addressee, stored.message, now) };
            let mut encoded = Vec::new();
            letter.encode(&mut encoded);
            changes.push(Change::DeadLetter(encoded.into()));
        }
        Self { lsn, reason, changes }
    }
}

impl Queue for Slot {
    fn queue(&self) -> Option<&DurableSlot> {
        self.durable()
    }

    fn addressee(&self) -> Addressee {
        Self::addressee(self)
    }

    /// An exchange that an earlier connection has begun goes on with the next.
    fn untouched(&self, broker: &Broker, after: Lsn) -> Result<Option<(Untouched, Page)>, StoreError> {
        let durable = broker.store.watermark();
        let (Some(queue), Some(seen)) = (self.durable(), self.untouched(durable)) else {
            return Ok(None);
        };
        let progress = broker.store.progress(queue.recipient)?;
        let begun: BTreeSet<_> = progress.exchanges.values().map(|exchange| exchange.lsn).collect();
        let is_begun = |lsn| begun.contains(&lsn);
        let after = seen.above.max(after);
        let page = broker.store.read_after(queue.recipient, (after, durable), PAGE, is_begun)?;
        Ok(Some((seen, page)))
    }

    fn give_up(
        &self,
        seen: &Untouched,
        given_up: Vec<GivenUp>,
        submit: &mut dyn FnMut(GivenUp) -> Result<Lsn, SubmitError>,
    ) -> Result<(), SubmitError> {
        let Some(last) = given_up.last().map(|last| last.lsn) else { return Ok(()) };
        let submit_all = |above| {
            let mut untouched = given_up.into_iter().filter(|given_up| given_up.lsn > above);
            untouched.try_fold(Lsn::ZERO, |_, given_up| submit(given_up))
        };
        self.let_go_above(seen, last, submit_all).unwrap_or(Ok(()))
    }
}

impl Queue for Group {
    fn queue(&self) -> Option<&DurableSlot> {
        self.durable()
    }

    fn addressee(&self) -> Addressee {
        Self::addressee(self)
    }

    fn untouched(&self, broker: &Broker, after: Lsn) -> Result<Option<(Untouched, Page)>, StoreError> {
        let Some(queue) = self.durable() else { return Ok(None) };
        let durable = broker.store.watermark();
        let in_hand = self.begin_look(durable);
        let is_in_hand = |lsn| in_hand.contains(&lsn);
        let page = broker.store.read_after(queue.recipient, (after, durable), PAGE, is_in_hand)?;
        Ok(Some((Untouched::default(), page)))
    }

    fn give_up(
        &self,
        _seen: &Untouched,
        given_up: Vec<GivenUp>,
        submit: &mut dyn FnMut(GivenUp) -> Result<Lsn, SubmitError>,
    ) -> Result<(), SubmitError> {
        self.let_go_of(given_up, |given_up| given_up.lsn, submit)
    }

    fn end_look(&self) {
        Self::end_look(self);
    }
}

impl Agenda {
    fn set(&mut self, recipient: RecipientNo, at: Option<UnixMillis>) {
        if let Some(before) = self.times.remove(&recipient) {
            self.due.remove(&(before, recipient));
        }
        if let Some(at) = at {
            self.times.insert(recipient, at);
            self.due.insert((at, recipient));
        }
    }

    fn take_due(&mut self, now: UnixMillis, max: usize) -> BTreeSet<RecipientNo> {
        let due = self.due.iter().take_while(|(at, _)| *at <= now).take(max);
        let due: BTreeSet<_> = due.map(|(_, recipient)| *recipient).collect();
        due.iter().for_each(|recipient| self.set(*recipient, None));
        due
    }

    fn first(&self) -> Option<UnixMillis> {
        self.due.first().map(|(at, _)| *at)
    }
}

/// Whether something leaves a queue with these limits other than by delivery.
fn is_watched(queue: &QueueConfig) -> bool {
    queue.overflow == Overflow::DropOldest || queue.age.is_some()
}
