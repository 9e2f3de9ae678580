//! Shared subscriptions: one queue, several members, each message to one of them.
//!
//! A group with a durable member owns its messages in the store, as a session does: with no member online
//! they wait, and what a member leaves unacknowledged goes to another. A group whose members all end with
//! their connections keeps nothing.
//!
//! Invariant: a number is in the hands of one member at most.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use foldhash::fast::RandomState;
use parking_lot::Mutex;

use super::slot::Pushed;
use super::{Broker, DurableSlot, Link, PublishContext, Slot, Subscription};
use crate::codec::Qos;
use crate::record::{Addressee, Change, Lsn, Message, RecipientNo, Record};
use crate::session::{Claim, Delivery, Session};

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

#[derive(Debug, Default)]
struct Members {
    list: Vec<Member>,
    /// Whose turn it is.
    next: usize,
    /// Numbers of the group's queue that are not to be fetched, and why.
    in_hand: HashMap<Lsn, Hand, RandomState>,
    /// Those of them that are settled.
    settled: Vec<Lsn>,
    /// Something in the queue is in nobody's hand: members fetch it, and nothing overtakes it.
    behind: bool,
    last_pushed: Lsn,
    /// Up to here everything was fetched: what is put here later with such a number was seen.
    floor: Lsn,
}

/// Where a number of the queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hand {
    /// With the member that has this slot.
    Member(u64),
    /// Settled, but the queue does not know: the settlement is on its way to the disk.
    Settled,
}

/// Settled numbers that are kept before those the queue knows of are looked for.
const SETTLED_MIN: usize = 64;

#[derive(Debug)]
struct Member {
    slot: Arc<Slot>,
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
    pub(super) fn new(name: &str, id: u64) -> Self {
        Self { name: name.into(), id, durable: OnceLock::new(), members: Mutex::default() }
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

    /// Adds a member, or replaces its subscription. True when it is new.
    pub(super) fn join(&self, slot: &Arc<Slot>, subscription: Subscription) -> bool {
        let mut members = self.members.lock();
        if let Some(member) = members.list.iter_mut().find(|member| member.slot.id == slot.id) {
            member.subscription = subscription;
            return false;
        }
        members.list.push(Member { slot: Arc::clone(slot), subscription });
        true
    }

    /// Takes a member out. True when nobody is left.
    pub(super) fn leave(&self, slot: &Slot) -> bool {
        let mut members = self.members.lock();
        members.list.retain(|member| member.slot.id != slot.id);
        members.list.is_empty()
    }

    /// Gives a message to the next member that is online and has room. Without one it stays in the group's
    /// queue; a group without a queue drops it.
    pub(super) fn push(
        &self,
        delivery: SharedDelivery<'_>,
        bytes_max: usize,
        touched: &mut Vec<Arc<Link>>,
    ) -> Pushed {
        let mut members = self.members.lock();
        if let Some(claim) = &delivery.claim {
            if claim.lsn <= members.floor {
                return Pushed::Kept;
            }
            members.last_pushed = members.last_pushed.max(claim.lsn);
            if members.behind {
                members.ring_one(touched);
                return Pushed::Kept;
            }
        }
        for _ in 0..members.list.len() {
            let Some((slot, subscription)) = members.turn() else { break };
            if !slot.has_room(bytes_max) {
                continue;
            }
            let pushed = slot.push(delivery.to(&subscription), bytes_max, touched);
            if pushed == Pushed::Kept {
                if let Some(claim) = &delivery.claim {
                    members.in_hand.insert(claim.lsn, Hand::Member(slot.id));
                }
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

    /// Puts up to `max` durable numbers that nobody has in hand into the hand of `slot`, oldest first. When
    /// there are none the group is no longer behind, unless something is still on its way to the disk: then
    /// its number is given.
    pub fn fetch(&self, slot: &Slot, durable: Lsn, max: usize, page: &mut Vec<Lsn>) -> Option<Lsn> {
        let queue = self.durable.get()?;
        let mut members = self.members.lock();
        if !members.behind {
            return None;
        }
        members.forget_settled(queue, durable);
        let mut candidates = Vec::new();
        queue.backlog.after(Lsn::ZERO, durable, members.in_hand.len() + max, &mut candidates);
        for lsn in candidates {
            if page.len() < max && !members.in_hand.contains_key(&lsn) {
                members.in_hand.insert(lsn, Hand::Member(slot.id));
                page.push(lsn);
            }
        }
        if !page.is_empty() {
            return None;
        }
        if members.last_pushed > durable {
            return Some(members.last_pushed);
        }
        members.behind = false;
        members.floor = durable;
        None
    }

    /// The QoS and identifier that a member asked for.
    pub fn subscription_of(&self, slot: &Slot) -> Option<Subscription> {
        let members = self.members.lock();
        members.list.iter().find(|member| member.slot.id == slot.id).map(|member| member.subscription)
    }

    /// A number is settled. Unless it was `struck` from its record in time it stays in the queue until the
    /// settlement is on disk, and must not be fetched once more.
    fn settled(&self, lsn: Lsn, struck: bool, durable: Lsn) {
        let mut members = self.members.lock();
        if struck {
            members.in_hand.remove(&lsn);
            return;
        }
        members.in_hand.insert(lsn, Hand::Settled);
        members.settled.push(lsn);
        // Each time as many are looked at as have come since.
        if members.settled.len() >= SETTLED_MIN
            && members.settled.len().is_power_of_two()
            && let Some(queue) = self.durable.get()
        {
            members.forget_settled(queue, durable);
        }
    }

    /// A member has gone: what it had in hand goes to the others, but for what `keeps` says stays with it,
    /// which is QoS 2 that has begun [MQTT-4.8.2-4].
    pub(super) fn let_go(&self, slot: &Slot, keeps: &[Lsn], touched: &mut Vec<Arc<Link>>) {
        let mut members = self.members.lock();
        let before = members.in_hand.len();
        members.in_hand.retain(|lsn, hand| *hand != Hand::Member(slot.id) || keeps.contains(lsn));
        if members.in_hand.len() < before {
            members.behind = true;
            members.ring_one(touched);
        }
    }

    /// Notes that a session has a number in hand since before the start.
    pub(super) fn holds(&self, slot: &Slot, lsn: Lsn) {
        self.members.lock().in_hand.insert(lsn, Hand::Member(slot.id));
    }
}

impl Members {
    /// Forgets the settled numbers that have left the queue. One above `durable` may be still to enter it.
    fn forget_settled(&mut self, queue: &DurableSlot, durable: Lsn) {
        let Self { in_hand, settled, .. } = self;
        settled.retain(|lsn| {
            let is_kept = *lsn > durable || queue.backlog.contains(*lsn);
            if !is_kept {
                in_hand.remove(lsn);
            }
            is_kept
        });
    }

    fn turn(&mut self) -> Option<(Arc<Slot>, Subscription)> {
        if self.list.is_empty() {
            return None;
        }
        let turn = self.next % self.list.len();
        self.next = turn + 1;
        self.list.get(turn).map(|member| (Arc::clone(&member.slot), member.subscription))
    }

    /// Wakes a member that is online, so that it fetches.
    fn ring_one(&mut self, touched: &mut Vec<Arc<Link>>) {
        for _ in 0..self.list.len() {
            if let Some(link) = self.turn().and_then(|(slot, _)| slot.link()) {
                return touched.push(link);
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

impl Broker {
    /// The group of this name, which is made when there is none.
    pub(super) fn group(&self, name: &str) -> Arc<Group> {
        let entry = self.groups.entry(name.into());
        Arc::clone(entry.or_insert_with(|| Arc::new(Group::new(name, self.new_id()))).value())
    }

    /// A durable session joins: the group gets a queue of its own. Gives the number to wait for.
    pub(super) fn make_durable(&self, group: &Group) -> Result<Option<Lsn>, crate::store::SubmitError> {
        if group.durable().is_some() {
            return Ok(None);
        }
        let (recipient, _) = self.store.new_recipient();
        let opened = Change::GroupOpened(recipient, group.name.clone());
        let entry = self.store.submit(Record::of([opened]))?;
        group.set_durable(recipient, self);
        Ok(Some(entry.lsn))
    }

    /// Nobody is left: the group and what it was owed go.
    pub(super) fn close_group(&self, group: &Group) {
        self.groups.remove_if(&*group.name, |_, known| known.id == group.id);
        if let Some(durable) = group.durable() {
            // Refused only when the store has failed, and then nothing matters any more.
            let _ = self.store.submit(Record::of([Change::Discarded(durable.recipient)]));
        }
    }

    /// A member has settled a message of a group; `struck` when its leg was struck from the record in time.
    pub fn shared_settled(&self, slot: &Slot, claim: &Claim, struck: bool) {
        let own = slot.durable().map(|durable| durable.recipient);
        if own == Some(claim.owner) {
            return;
        }
        let is_owner =
            |group: &&Arc<Group>| group.durable().is_some_and(|queue| queue.recipient == claim.owner);
        // A member that has left settles what it had begun all the same.
        let member_of = slot.lock().groups.iter().find(is_owner).cloned();
        if let Some(group) = member_of.or_else(|| self.group_by_number(claim.owner)) {
            group.settled(claim.lsn, struck, self.store.watermark());
        }
    }

    /// A connection has ended: what it had in hand of its groups goes to other members, but for QoS 2 that a
    /// durable session has begun.
    pub fn release_shared(&self, slot: &Slot, session: &Session, touched: &mut PublishContext) {
        let groups = slot.lock().groups.clone();
        for group in groups {
            let Some(owner) = group.durable().map(|durable| durable.recipient) else { continue };
            let keeps = session.begun_exactly_once(owner);
            group.let_go(slot, &keeps, &mut touched.touched);
        }
    }

    /// The group with this number, among those a session belongs to.
    pub fn group_by_number(&self, recipient: RecipientNo) -> Option<Arc<Group>> {
        let found = self
            .groups
            .iter()
            .find(|group| group.durable().is_some_and(|durable| durable.recipient == recipient));
        found.map(|group| Arc::clone(group.value()))
    }
}
