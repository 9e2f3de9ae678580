//! Shared subscriptions: one queue, several members, each message to one of them.
//!
//! A group with a durable member owns its messages in the store, as a session does: with no member online
//! they wait, and what a member leaves unacknowledged goes to another. A group whose members all end with
//! their connections keeps in memory what they have in hand, and nothing when nobody is left.
//!
//! Invariant: a number is in the hands of one member at most.

mod fetch;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, OnceLock};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::slot::{Pushed, Touched};
use super::turn::{self, Room, Turn};
use super::unstored::{self, Held, Unstored};
use super::{Broker, DurableSlot, Memory, Slot, Subscription};
use crate::codec::Qos;
use crate::config::ShareStrategy;
use crate::record::{Addressee, Change, Lsn, Message, RecipientNo, Record};
use crate::session::{Claim, Delivery, Session};
use crate::store::{Backlog, SubmitError};

pub use fetch::Fetch;

/// Stands in for the holder of a number that was settled: slots are numbered from 1.
const SETTLED: u64 = 0;

/// How often a member is chosen for one message: it may leave between the look at it and the push.
const CHOICES_MAX: usize = 3;

/// A share name and a filter, and who takes part.
#[derive(Debug)]
pub struct Group {
    /// `$share/<name>/<filter>`.
    pub name: Box<str>,
    pub(super) id: u64,
    /// The group's own queue, from the moment it has a durable member.
    durable: OnceLock<DurableSlot>,
    members: Mutex<Members>,
}

#[derive(Debug)]
struct Members {
    list: Vec<Member>,
    turn: Turn,
    /// Who is woken next when something is to be fetched.
    rung: usize,
    /// What members have in hand that is not in a queue.
    unstored: Unstored,
    /// Numbers of the group's queue that a member has in hand, and the slot it has: [`SETTLED`] once it has
    /// settled them and the disk does not know yet.
    in_hand: HashMap<Lsn, u64, RandomState>,
    /// Numbers that are settled by a report, in the order of the reports: the report, and the number.
    settling: VecDeque<(Lsn, Lsn)>,
    /// Something in the queue is in nobody's hand: members fetch it, and nothing overtakes it.
    behind: bool,
    /// What the queue has up to this number is in somebody's hand.
    fetched_to: Lsn,
    /// The lowest number that was given back while one of them reads: what is read does not have it.
    given_back: Option<Lsn>,
    /// The slot of the member that reads what comes after it: one at a time.
    fetcher: Option<u64>,
    /// That member cannot take anything for now: another one may read instead.
    fetcher_yields: bool,
    /// Those who came to read meanwhile: slots.
    turned_away: Vec<u64>,
    last_pushed: Lsn,
    /// Up to here everything was fetched: what is pushed later with such a number was seen.
    floor: Lsn,
    /// Up to here what was in nobody's hand was given up.
    gone: Lsn,
    /// The queue is being read, to give up what is too much.
    is_looked_at: bool,
    /// The last member has left: whoever comes now makes a new group.
    closed: bool,
}

#[derive(Debug)]
struct Member {
    slot: Arc<Slot>,
    /// Of the client id.
    hash: u64,
    subscription: Subscription,
}

/// A message for one member of a group.
pub(super) struct SharedDelivery<'a> {
    pub(super) message: &'a Message,
    pub(super) not_before: Lsn,
    /// The group's claim, when the group is durable.
    pub(super) claim: Option<Claim>,
}

impl Group {
    pub(super) fn new(name: &str, strategy: ShareStrategy, id: u64, memory: &Arc<Memory>) -> Self {
        let members = Members {
            list: Vec::new(),
            turn: Turn::new(strategy),
            rung: 0,
            unstored: Unstored::new(id, memory),
            in_hand: HashMap::default(),
            settling: VecDeque::new(),
            behind: false,
            fetched_to: Lsn::ZERO,
            given_back: None,
            fetcher: None,
            fetcher_yields: false,
            turned_away: Vec::new(),
            last_pushed: Lsn::ZERO,
            floor: Lsn::ZERO,
            gone: Lsn::ZERO,
            is_looked_at: false,
            closed: false,
        };
        Self { name: name.into(), id, durable: OnceLock::new(), members: Mutex::new(members) }
    }

    /// The group's own queue, if it has one.
    pub fn durable(&self) -> Option<&DurableSlot> {
        self.durable.get()
    }

    pub(super) fn addressee(&self) -> Addressee {
        Addressee::Session { client_id: self.name.to_string() }
    }

    /// Makes the group durable.
    pub(super) fn set_durable(&self, recipient: RecipientNo, broker: &Broker) {
        let backlog = broker.store.backlog(recipient);
        let behind = backlog.count() > 0;
        // Set once: the group's number stays as long as the group.
        if self.durable.set(DurableSlot { recipient, backlog }).is_ok() {
            self.members.lock().behind |= behind;
        }
    }

    /// Adds a member, or replaces its subscription. The first durable one makes the group durable. Gives the
    /// number to wait for; `None` when the group is closed.
    pub(super) fn join(
        &self,
        broker: &Broker,
        slot: &Arc<Slot>,
        subscription: Subscription,
    ) -> Result<Option<Lsn>, SubmitError> {
        let mut members = self.members.lock();
        if members.closed {
            return Ok(None);
        }
        // Under the lock: a group has one number, in memory and on disk.
        let mut safe_at = Lsn::ZERO;
        if slot.durable().is_some() && self.durable().is_none() {
            let (recipient, backlog) = broker.store.new_recipient();
            let opened = Change::GroupOpened(recipient, self.name.clone());
            safe_at = broker.store.submit(Record::of([opened]))?.lsn;
            // Nobody else has set it meanwhile: every member joins under the lock.
            let _ = self.durable.set(DurableSlot { recipient, backlog });
        }
        match members.list.iter_mut().find(|member| member.slot.id == slot.id) {
            Some(member) => member.subscription = subscription,
            None => {
                let hash = turn::hash(slot.client_id.as_bytes());
                members.list.push(Member { slot: Arc::clone(slot), hash, subscription });
            }
        }
        Ok(Some(safe_at))
    }

    /// Takes a member out. True when nobody is left, which closes the group.
    pub(super) fn leave(&self, slot: &Slot) -> bool {
        let (mut members, mut touched) = (self.members.lock(), Touched::default());
        if let Some(place) = members.list.iter().position(|member| member.slot.id == slot.id) {
            members.list.remove(place);
            members.turn.removed(place);
        }
        if members.fetcher.take_if(|fetcher| *fetcher == slot.id).is_some() {
            members.ring_all(&mut touched);
        }
        members.closed = members.list.is_empty();
        let is_closed = members.closed;
        drop(members);
        touched.ring();
        is_closed
    }

    /// Gives a message to a member that is online and has room. Without one it stays in the group's queue; a
    /// group without a queue drops it.
    pub(super) fn push(
        &self,
        delivery: SharedDelivery<'_>,
        bytes_max: usize,
        touched: &mut Touched,
    ) -> Pushed {
        let mut members = self.members.lock();
        if let Some(claim) = &delivery.claim {
            members.last_pushed = members.last_pushed.max(claim.lsn);
            if members.behind {
                members.ring_one(touched);
                return Pushed::Kept;
            }
            if claim.lsn <= members.floor.max(members.gone) {
                return Pushed::Kept;
            }
        }
        for _ in 0..CHOICES_MAX {
            let Some(chosen) = members.choose(&delivery, bytes_max) else { break };
            if members.give(chosen, &delivery, bytes_max, touched) {
                return Pushed::Kept;
            }
        }
        match delivery.claim {
            Some(_) => {
                members.behind = true;
                Pushed::Kept
            }
            None => Pushed::Dropped,
        }
    }

    /// The numbers that somebody has in hand, for whoever reads the rest to give it up. What is settled is not
    /// forgotten until [`Group::end_look`].
    pub(super) fn begin_look(&self, durable: Lsn) -> HashSet<Lsn, RandomState> {
        let mut members = self.members.lock();
        if let Some(queue) = self.durable.get() {
            members.forget_settled(&queue.backlog, durable);
        }
        members.is_looked_at = true;
        members.in_hand.keys().copied().collect()
    }

    pub(super) fn end_look(&self) {
        self.members.lock().is_looked_at = false;
    }

    /// Lets go of what is still in nobody's hand, by records that `submit` submits: until these are durable
    /// nobody fetches it.
    pub(super) fn let_go_of<T>(
        &self,
        given_up: Vec<T>,
        number_of: impl Fn(&T) -> Lsn,
        mut submit: impl FnMut(T) -> Result<Lsn, SubmitError>,
    ) -> Result<(), SubmitError> {
        let mut members = self.members.lock();
        for given_up in given_up {
            let lsn = number_of(&given_up);
            if !members.closed && !members.in_hand.contains_key(&lsn) {
                let record = submit(given_up)?;
                members.in_hand.insert(lsn, SETTLED);
                members.settling.push_back((record, lsn));
                members.gone = members.gone.max(lsn);
            }
        }
        Ok(())
    }

    /// The QoS and identifier that a member asked for.
    pub fn subscription_of(&self, slot: &Slot) -> Option<Subscription> {
        let members = self.members.lock();
        members.list.iter().find(|member| member.slot.id == slot.id).map(|member| member.subscription)
    }

    /// A number was struck from its record: it will never be in the queue.
    pub fn struck(&self, lsn: Lsn) {
        self.members.lock().in_hand.remove(&lsn);
    }

    /// A member has settled a number that stays in the queue until its report is durable: nobody fetches it
    /// again until then.
    pub fn settling(&self, lsn: Lsn) {
        self.members.lock().in_hand.insert(lsn, SETTLED);
    }

    /// The report that settles a number.
    pub fn settled_by(&self, report: Lsn, lsn: Lsn, durable: Lsn) {
        let mut members = self.members.lock();
        members.settling.push_back((report, lsn));
        if let Some(queue) = self.durable.get() {
            members.forget_settled(&queue.backlog, durable);
        }
    }

    /// A member has gone: what it had in hand goes to the others, but for what `keeps` says stays with it,
    /// which is QoS 2 that has begun [MQTT-4.8.2-4].
    pub(super) fn let_go(&self, slot: &Slot, keeps: &[Lsn], touched: &mut Touched) {
        let mut members = self.members.lock();
        members.fetcher.take_if(|fetcher| *fetcher == slot.id);
        let gone = members.in_hand.extract_if(|lsn, holder| *holder == slot.id && !keeps.contains(lsn));
        if let Some(first) = gone.map(|(lsn, _)| lsn).min() {
            members.behind = true;
            members.fetched_to = members.fetched_to.min(Lsn(first.0 - 1));
            members.given_back = Some(members.given_back.map_or(first, |known| known.min(first)));
        }
        if members.behind {
            members.ring_all(touched);
        }
    }

    /// Takes what a session that has ended still has in hand as settled. Whoever has submitted that says so by
    /// [`Group::settled_by`].
    pub(super) fn settle_hand(&self, slot: &Slot) -> Vec<Lsn> {
        let mut members = self.members.lock();
        let mut numbers = Vec::new();
        for (lsn, holder) in members.in_hand.iter_mut().filter(|(_, holder)| **holder == slot.id) {
            *holder = SETTLED;
            numbers.push(*lsn);
        }
        numbers
    }

    pub(super) fn has_in_hand(&self, slot: &Slot) -> bool {
        let members = self.members.lock();
        members.unstored.has(slot.id) || members.in_hand.values().any(|holder| *holder == slot.id)
    }

    /// Whether there is something to let go of.
    pub(super) fn has_left_behind(&self, slot: &Slot, keeps: &[Lsn]) -> bool {
        let members = self.members.lock();
        let mut in_hand = members.in_hand.iter();
        let is_left = |(lsn, holder): (&Lsn, &u64)| *holder == slot.id && !keeps.contains(lsn);
        members.fetcher == Some(slot.id) || in_hand.any(is_left)
    }

    pub(super) fn is_owner(&self, owner: RecipientNo) -> bool {
        match self.durable.get() {
            Some(durable) if durable.recipient == owner => true,
            _ => owner == unstored::owner(self.id),
        }
    }

    /// Takes out what a connection that ends had in hand beside the queue, but for QoS 2 that has begun.
    pub(super) fn take_unstored(&self, slot: &Slot, session: &Session) -> Vec<Held> {
        let mut members = self.members.lock();
        let begun = session.begun_exactly_once(members.unstored.owner());
        members.unstored.take(slot.id, &begun)
    }

    /// Settles what a member has in hand beside the queue.
    pub(super) fn settle_unstored(&self, lsn: Lsn) {
        self.members.lock().unstored.settle(lsn);
    }

    /// Who takes part, and with what subscription.
    pub(super) fn members(&self) -> Vec<(Arc<Slot>, Subscription)> {
        let members = self.members.lock();
        members.list.iter().map(|member| (Arc::clone(&member.slot), member.subscription)).collect()
    }

    /// How many members there are.
    pub(super) fn member_count(&self) -> usize {
        self.members.lock().list.len()
    }

    /// Notes that a session has a number in hand since before the start.
    pub(super) fn holds(&self, slot: &Slot, lsn: Lsn) {
        self.members.lock().in_hand.insert(lsn, slot.id);
    }
}

impl Members {
    fn has(&self, slot: &Slot) -> bool {
        self.list.iter().any(|member| member.slot.id == slot.id)
    }

    /// What is settled on disk is not in the queue any more.
    fn forget_settled(&mut self, backlog: &Backlog, durable: Lsn) {
        // What is being read may be older than that.
        if self.fetcher.is_some() || self.is_looked_at {
            return;
        }
        while let Some((_, lsn)) = self.settling.pop_front_if(|(report, _)| *report <= durable) {
            if self.in_hand.get(&lsn) == Some(&SETTLED) {
                self.in_hand.remove(&lsn);
                // It is, if the report was void: that of a connection which had lost its session.
                if backlog.may_owe(lsn) {
                    self.fetched_to = self.fetched_to.min(Lsn(lsn.0 - 1));
                    self.behind = true;
                }
            }
        }
    }

    /// The place of the member that the message goes to. What is stored waits on disk rather than in an outbox
    /// that is filling; what is not fills it to the end.
    fn choose(&mut self, delivery: &SharedDelivery<'_>, bytes_max: usize) -> Option<usize> {
        let Self { list, turn, .. } = self;
        let size = size_of::<Delivery>() + delivery.message.size();
        let qos = delivery.message.head().qos;
        let is_stored = delivery.claim.is_some();
        let waits = !is_stored && qos > Qos::AtMostOnce;
        let room_of = |index: usize| {
            let member = list.get(index)?;
            let room = member.slot.room(size, bytes_max, is_stored).filter(|room| waits || !room.crowded)?;
            let takes_window = qos.min(member.subscription.options.qos) > Qos::AtMostOnce;
            Some(if takes_window { room } else { Room { window: usize::MAX, ..room } })
        };
        let hash_of = |index: usize| list.get(index).map_or(0, |member| member.hash);
        turn.choose(list.len(), delivery.message, hash_of, room_of)
    }

    /// Puts the message into the outbox of a member. False when it was not taken.
    fn give(
        &mut self,
        index: usize,
        delivery: &SharedDelivery<'_>,
        bytes_max: usize,
        touched: &mut Touched,
    ) -> bool {
        let Some(member) = self.list.get(index) else { return false };
        let mut given = delivery.to(&member.subscription);
        let is_unstored = given.claim.is_none() && given.qos > Qos::AtMostOnce;
        if is_unstored {
            given.claim = self.unstored.hold(member.slot.id, delivery.message, given.not_before);
            if given.claim.is_none() {
                return false;
            }
        }
        let number = given.claim.as_ref().map(|claim| claim.lsn);
        let pushed = member.slot.push(given, bytes_max, touched);
        let is_taken = matches!(pushed, Pushed::Kept | Pushed::Crowded);
        match number {
            Some(lsn) if is_unstored && !is_taken => self.unstored.settle(lsn),
            Some(lsn) if !is_unstored && is_taken => drop(self.in_hand.insert(lsn, member.slot.id)),
            _ => {}
        }
        if is_unstored && pushed == Pushed::Crowded {
            touched.crowded = Some(Arc::clone(&member.slot));
        }
        is_taken
    }

    /// Wakes everyone who is online: one that is woken alone may be one that cannot take anything.
    fn ring_all(&self, touched: &mut Touched) {
        touched.links.extend(self.list.iter().filter_map(|member| member.slot.link()));
    }

    /// Wakes a member that is online, so that it fetches.
    fn ring_one(&mut self, touched: &mut Touched) {
        let len = self.list.len();
        for turn in 0..len {
            let member = self.list.get((self.rung + turn) % len);
            if let Some(link) = member.and_then(|member| member.slot.link()) {
                self.rung = (self.rung + turn + 1) % len;
                return touched.links.push(link);
            }
        }
    }
}

impl SharedDelivery<'_> {
    fn to(&self, subscription: &Subscription) -> Delivery {
        let head = self.message.head();
        let qos = head.qos.min(subscription.options.qos);
        Delivery {
            message: self.message.clone(),
            qos,
            retain: head.retain && subscription.options.retain_as_published,
            subscription_ids: subscription.id.into_iter().collect(),
            not_before: if qos == Qos::AtMostOnce && self.claim.is_none() {
                Lsn::ZERO
            } else {
                self.not_before
            },
            claim: self.claim.clone(),
        }
    }
}
