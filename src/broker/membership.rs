//! Sessions come to shared groups and leave them, and what a member leaves behind finds its way.
//!
//! What a group is, and who gets its next message, is in `groups`.

use std::sync::Arc;

use super::fan_out::leg;
use super::groups::{Group, SharedDelivery};
use super::publish::Routed;
use super::slot::Touched;
use super::unstored::{self, Held};
use super::{Broker, Link, Mode, PublishContext, Slot, Subscription};
use crate::record::{Change, ExchangeState, Lsn, Message, RecipientNo, SubscriptionIds};
use crate::session::{Claim, Session};
use crate::store::{Progress, SubmitError};

impl Broker {
    /// The group of this name, which is made when there is none.
    pub(super) fn group(&self, name: &str) -> Arc<Group> {
        let make = || {
            let share_name = name.split('/').nth(1).unwrap_or_default();
            let strategy = self.limits.shared.strategy_of(share_name);
            Arc::new(Group::new(name, strategy, self.new_id(), &self.memory))
        };
        Arc::clone(self.groups.entry(name.into()).or_insert_with(make).value())
    }

    /// A session joins the group of this name. Gives the number to wait for.
    pub(super) fn join_group(
        &self,
        name: &str,
        slot: &Arc<Slot>,
        subscription: Subscription,
    ) -> Result<(Arc<Group>, Lsn), SubmitError> {
        loop {
            let group = self.group(name);
            let Some(safe_at) = group.join(self, slot, subscription)? else {
                // Its last member is about to take it away.
                self.groups.remove_if(name, |_, known| known.id == group.id);
                continue;
            };
            self.watch(&group);
            let mut inner = slot.lock();
            if !inner.groups.iter().any(|known| Arc::ptr_eq(known, &group)) {
                inner.groups.push(Arc::clone(&group));
            }
            drop(inner);
            return Ok((group, safe_at));
        }
    }

    /// Nobody is left: the group and what it was owed go.
    pub(super) fn close_group(&self, group: &Group) {
        self.groups.remove_if(&*group.name, |_, known| known.id == group.id);
        if let Some(durable) = group.durable() {
            self.forget_watched(durable.recipient);
            self.submit_unawaited(vec![Change::Discarded(durable.recipient)]);
        }
    }

    /// The group that a claim belongs to; `None` when it is the session's own.
    pub fn group_of(&self, slot: &Slot, claim: &Claim) -> Option<Arc<Group>> {
        if slot.durable().is_some_and(|durable| durable.recipient == claim.owner) {
            return None;
        }
        let is_owner = |group: &&Arc<Group>| group.is_owner(claim.owner);
        // A member that has left settles what it had begun all the same.
        let member_of = slot.lock().groups.iter().find(is_owner).cloned();
        member_of.or_else(|| self.group_by_number(claim.owner))
    }

    /// A connection is about to give its seat back, and nothing comes to its hand any more: what it had in hand
    /// of `groups` goes to other members, but for QoS 2 that has begun. When another connection has taken the seat
    /// from it, what the slot has in hand is that one's to release.
    pub fn release_shared(
        &self,
        slot: &Slot,
        link: &Link,
        groups: &[Arc<Group>],
        session: &Session,
        context: &mut PublishContext,
    ) {
        if link.is_unseated() && slot.is_online() {
            return;
        }
        for group in groups {
            self.hand_on(group, group.take_unstored(slot, session), &mut context.touched);
            if let Some(owner) = group.durable().map(|durable| durable.recipient) {
                let keeps = session.begun_exactly_once(owner);
                group.let_go(slot, &keeps, &mut context.touched);
            }
        }
        for group in groups {
            if group.subscription_of(slot).is_none() && !group.has_in_hand(slot) {
                slot.lock().groups.retain(|known| !Arc::ptr_eq(known, group));
            }
        }
    }

    /// A connection has taken a session up, and has nothing in hand yet. One before it that was too slow to leave
    /// has given nothing back: what the session has in hand of its groups goes to other members, but for QoS 2 that
    /// has begun and goes on with `progress`.
    pub(super) fn release_left_behind(&self, slot: &Slot, progress: &Progress) {
        let mut touched = Touched::default();
        for group in slot.groups() {
            let Some(owner) = group.durable().map(|durable| durable.recipient) else { continue };
            let begun = progress.exchanges.values().filter(|exchange| exchange.owner == owner);
            let begun = begun.filter(|exchange| exchange.state != ExchangeState::AwaitingPuback);
            let keeps: Vec<_> = begun.map(|exchange| exchange.lsn).collect();
            if group.has_left_behind(slot, &keeps) {
                group.let_go(slot, &keeps, &mut touched);
            }
        }
        touched.ring();
    }

    /// A connection has given its seat back. QoS 2 that it had begun stays with a session that goes on, and goes
    /// nowhere when it has ended [MQTT-4.8.2-5].
    pub fn settle_ended(&self, slot: &Slot, groups: &[Arc<Group>]) {
        if slot.lock().mode == Mode::Ended {
            self.settle_hands(slot, groups, |changes| self.submit_unawaited(changes));
        }
    }

    /// Settles what a session that has ended still has in hand of `groups`, by changes that `submit` submits:
    /// until these are durable nobody else fetches it.
    pub(super) fn settle_hands(&self, slot: &Slot, groups: &[Arc<Group>], submit: impl FnOnce(Vec<Change>)) {
        let hands: Vec<_> = groups.iter().map(|group| (group, group.settle_hand(slot))).collect();
        let settled = |(group, numbers): &(&Arc<Group>, Vec<Lsn>)| {
            let owner = group.durable().filter(|_| !numbers.is_empty())?.recipient;
            Some(Change::Settled(owner, numbers.clone()))
        };
        submit(hands.iter().filter_map(settled).collect());
        let (submitted, durable) = (self.store.last_submitted(), self.store.watermark());
        for (group, numbers) in hands {
            numbers.into_iter().for_each(|lsn| group.settled_by(submitted, lsn, durable));
        }
    }

    /// Gives to others what a member had that is in no queue. A group that has one by now stores it first.
    fn hand_on(&self, group: &Group, left: Vec<Held>, touched: &mut Touched) {
        for Held { message, not_before, .. } in left {
            let claim = group.durable().and_then(|durable| self.store_for(durable.recipient, &message));
            let shared = SharedDelivery { message: &message, not_before, claim };
            self.count_pushed(group.push(shared, self.limits.outbox_bytes, touched));
        }
    }

    /// Stores a message for a group; `None` when the store has failed.
    fn store_for(&self, group: RecipientNo, message: &Message) -> Option<Claim> {
        let leg = leg(group, message.head().qos, false, SubscriptionIds::new());
        let entry = self.submit(Routed::of(message.clone()), [leg].into()).ok()?;
        Some(Claim { lsn: entry.lsn, owner: group, entry: Some(entry) })
    }

    /// Settles a claim that is on no disk. False when it is another's.
    pub fn settle_unstored(&self, slot: &Slot, claim: &Claim) -> bool {
        let is_unstored = unstored::is_owner(claim.owner);
        if is_unstored && let Some(group) = self.group_of(slot, claim) {
            group.settle_unstored(claim.lsn);
        }
        is_unstored
    }

    /// A session leaves a group. What it has in hand it may still settle; the rest is released when its
    /// connection ends.
    pub(super) fn leave_group(&self, slot: &Slot, group: &Group) -> bool {
        let is_empty = group.leave(slot);
        if !group.has_in_hand(slot) {
            slot.lock().groups.retain(|known| known.id != group.id);
        }
        is_empty
    }

    /// The group with this number in the store. Looks through all groups: for those who have left theirs.
    pub(super) fn group_by_number(&self, recipient: RecipientNo) -> Option<Arc<Group>> {
        let found = self.groups.iter().find(|group| group.is_owner(recipient));
        found.map(|group| Arc::clone(group.value()))
    }
}
