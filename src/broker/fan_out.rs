//! One message to everyone it matches: the record first, then the outboxes.

use std::sync::Arc;

use smallvec::SmallVec;

use super::groups::{Group, SharedDelivery};
use super::matching::{Matches, SessionMatch};
use super::publish::{Routed, refused};
use super::slot::{Pushed, Touched};
use super::{Broker, DurableSlot};
use crate::codec::{Qos, ReasonCode};
use crate::record::{
    Addressee, DeadLetterReason, Leg, Lsn, Message, Publication, RecipientNo, Record, SubscriptionIds,
};
use crate::session::{Claim, Delivery, Receipt};
use crate::store::Entry;

/// Recipients whose queue is full, and how: their leg becomes a dead letter.
pub(super) type Full = SmallVec<[(RecipientNo, Addressee, DeadLetterReason); 1]>;

/// A number that is never given out.
const NOBODY: RecipientNo = RecipientNo(0);

/// Whom a message is owed to, before it has a number.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) legs: SmallVec<[Leg; 1]>,
    pub(super) full: Full,
    /// Messages that are older have to go for it.
    pub(super) gives_up: bool,
    /// A queue that refuses what it has no room for.
    pub(super) refused: Option<DeadLetterReason>,
    /// The queue that each of the groups had, if the message is for queues: one that gets its queue meanwhile
    /// has no leg.
    groups: SmallVec<[Option<RecipientNo>; 1]>,
}

impl Broker {
    /// Submits what has to be durable, then puts the message into the outboxes. Nothing is delivered when
    /// the record is refused.
    ///
    /// A further copy for a session is a message of its own, because one message is owed to a session once. How
    /// many there are is the subscribers' choice, so none is made for which the writer's queue has no room: the
    /// first copy is what is promised.
    pub(super) fn route(&self, matches: &Matches, routed: Routed, touched: &mut Touched) -> Receipt {
        if matches.again.is_empty() {
            return self.route_once(matches, routed, touched);
        }
        let message = routed.message.clone();
        let mut receipt = self.route_once(matches, routed, touched);
        for again in &matches.again {
            if matches!(receipt, Receipt::Refused(_)) || self.store.is_congested() {
                break;
            }
            let copy = Routed { goes_through: true, ..Routed::of(message.clone()) };
            receipt = match self.route_once(again, copy, touched) {
                Receipt::Safe(_) => receipt,
                // Not as soon as this copy is complete: the others may not be.
                Receipt::SafeWith(entry, reason) => Receipt::SafeAt(entry.lsn, reason),
                other => other,
            };
        }
        receipt
    }

    fn route_once(&self, matches: &Matches, routed: Routed, touched: &mut Touched) -> Receipt {
        let qos = routed.message.head().qos;
        let plan = self.plan(matches, &routed.message);
        let reason = if matches.is_empty() { ReasonCode::NoMatchingSubscribers } else { ReasonCode::Success };
        let message = routed.message.clone();
        let needs_disk = routed.inbound.is_some() || !plan.legs.is_empty() || !plan.full.is_empty();
        let is_refusable = (needs_disk || routed.retain) && !routed.goes_through;
        if is_refusable && let Err(error) = self.store.admits_publish() {
            return refused(error);
        }
        if !routed.goes_through && self.refuses(&plan) {
            return Receipt::Refused(ReasonCode::QuotaExceeded);
        }
        let mut routed = routed;
        match self.letters_of_full(&message, &plan.full) {
            Ok(letters) => routed.changes.extend(letters),
            Err(error) => return refused(error),
        }
        let mut entry = None;
        if needs_disk || routed.retain || !routed.changes.is_empty() {
            match self.submit(routed, plan.legs) {
                Ok(submitted) => entry = Some(submitted),
                Err(error) => return refused(error),
            }
        }
        self.push_all(matches, (&message, &entry), &plan.full, touched);
        let owners = plan.groups.iter().copied().chain(std::iter::repeat(None));
        let groups = matches.groups.iter().zip(owners);
        let groups = groups.filter(|(_, owner)| owner.is_none_or(|owner| !is_full(&plan.full, owner)));
        self.push_to_groups(groups, (&message, &entry), touched);
        let announced = match self.announce_full(&message, &plan.full, touched) {
            Ok(announced) => announced,
            Err(error) => return refused(error),
        };
        match (entry, announced) {
            // What a QoS 0 publish makes durable, nobody waits for.
            _ if qos == Qos::AtMostOnce => Receipt::Safe(reason),
            (_, Some(lsn)) => Receipt::SafeAt(lsn, reason),
            (Some(entry), None) => Receipt::SafeWith(entry, reason),
            (None, None) => Receipt::Safe(reason),
        }
    }

    pub(super) fn submit(
        &self,
        routed: Routed,
        legs: SmallVec<[Leg; 1]>,
    ) -> Result<Arc<Entry>, crate::store::SubmitError> {
        let Routed { message, inbound, retain, changes, origin, goes_through: _ } = routed;
        let publication = Publication { message, legs, inbound, retain, origin };
        self.store.submit(Record { publication: Some(publication), changes })
    }

    /// Whether a message of this topic becomes a dead letter when it matches nobody.
    pub(super) fn keeps_unroutable(&self, topic: &str) -> bool {
        self.limits.letters.keeps(DeadLetterReason::Unroutable, topic)
    }

    /// Finds the durable legs, and looks at the limits of all of them before anything is done.
    pub(super) fn plan(&self, matches: &Matches, message: &Message) -> Plan {
        let mut plan = Plan::default();
        let qos = message.head().qos;
        if qos == Qos::AtMostOnce {
            return plan;
        }
        // One that is retained has come to where it belongs.
        if matches.is_empty() && !message.head().retain && self.keeps_unroutable(message.topic()) {
            plan.full.push((NOBODY, Addressee::Nobody, DeadLetterReason::Unroutable));
        }
        for session in &matches.sessions {
            let Some(durable) = session.slot.durable() else { continue };
            let qos = qos.min(session.qos);
            if qos > Qos::AtMostOnce {
                let (retain, ids) = (session.retains(message), session.ids.clone());
                let leg = leg(durable.recipient, qos, retain, ids);
                self.owe(&mut plan, (&durable.backlog, &self.limits.queue), leg, || session.slot.addressee());
            }
        }
        for route in &matches.routes {
            let retain = message.head().retain;
            let leg = leg(route.recipient, qos, retain, SubscriptionIds::new());
            self.owe(&mut plan, (&route.backlog, &route.queue), leg, || route.addressee());
        }
        for group in &matches.groups {
            let durable = group.durable();
            plan.groups.push(durable.map(|durable| durable.recipient));
            if let Some(DurableSlot { recipient, backlog }) = durable {
                let leg = leg(*recipient, qos, false, SubscriptionIds::new());
                self.owe(&mut plan, (backlog, &self.limits.queue), leg, || group.addressee());
            }
        }
        plan
    }

    fn push_all(
        &self,
        matches: &Matches,
        (message, entry): (&Message, &Option<Arc<Entry>>),
        full: &Full,
        touched: &mut Touched,
    ) {
        for session in &matches.sessions {
            let qos = message.head().qos.min(session.qos);
            let durable = session.slot.durable().filter(|_| qos > Qos::AtMostOnce);
            if durable.is_some_and(|durable| is_full(full, durable.recipient)) {
                continue;
            }
            let owner = durable.map(|durable| durable.recipient);
            let delivery = Delivery {
                message: message.clone(),
                qos,
                retain: session.retains(message),
                subscription_ids: session.ids.clone(),
                not_before: not_before(message, entry),
                claim: claim(entry, owner),
            };
            let pushed = session.slot.push(delivery, self.limits.outbox_bytes, touched);
            if pushed == Pushed::Crowded {
                touched.crowded = Some(Arc::clone(&session.slot));
            }
            self.count_pushed(pushed);
        }
        for route in &matches.routes {
            match entry {
                Some(entry) if message.head().qos > Qos::AtMostOnce => route.push(entry.lsn),
                _ => {
                    if !route.push_unstored(message, self.limits.outbox_bytes) {
                        self.metrics.dropped.route_full.increment(1);
                    }
                }
            }
        }
    }

    fn push_to_groups<'a>(
        &self,
        groups: impl Iterator<Item = (&'a Arc<Group>, Option<RecipientNo>)>,
        (message, entry): (&Message, &Option<Arc<Entry>>),
        touched: &mut Touched,
    ) {
        for (group, owner) in groups {
            let claim = claim(entry, owner);
            let shared = SharedDelivery { message, not_before: not_before(message, entry), claim };
            self.count_pushed(group.push(shared, self.limits.outbox_bytes, touched));
        }
    }

    pub(super) fn count_pushed(&self, pushed: Pushed) {
        match pushed {
            Pushed::Kept | Pushed::Crowded => {}
            Pushed::Dropped => self.metrics.dropped.outbox_full.increment(1),
            Pushed::Overflow => self.metrics.dropped.slow_client.increment(1),
        }
    }
}

impl SessionMatch {
    /// [MQTT-3.3.1-12] [MQTT-3.3.1-13]
    fn retains(&self, message: &Message) -> bool {
        message.head().retain && self.retain_as_published
    }
}

fn is_full(full: &Full, recipient: RecipientNo) -> bool {
    full.iter().any(|(known, ..)| *known == recipient)
}

pub(super) fn leg(recipient: RecipientNo, qos: Qos, retain: bool, subscription_ids: SubscriptionIds) -> Leg {
    Leg { recipient, qos, retain, subscription_ids }
}

fn claim(entry: &Option<Arc<Entry>>, owner: Option<RecipientNo>) -> Option<Claim> {
    let entry = entry.as_ref()?;
    Some(Claim { lsn: entry.lsn, owner: owner?, entry: Some(Arc::clone(entry)) })
}

/// A QoS 2 message that has a record is delivered to nobody before that is durable.
fn not_before(message: &Message, entry: &Option<Arc<Entry>>) -> Lsn {
    match entry {
        Some(entry) if message.head().qos == Qos::ExactlyOnce => entry.lsn,
        _ => Lsn::ZERO,
    }
}
