//! A message comes in: from a client, or from the broker itself.

use std::sync::Arc;

use super::matching::{MatchMemory, Matches};
use super::retained::Retained;
use super::slot::Touched;
use super::{Broker, Slot};
use crate::auth::Rights;
use crate::codec::{Publish, Qos, ReasonCode};
use crate::record::{Change, InboundExchange, Lsn, Message, Publisher, UnixMillis};
use crate::session::{Durable, Receipt};
use crate::store::SubmitError;
use crate::topic::TopicName;

/// What a publishing connection keeps from one message to the next.
#[derive(Debug, Default)]
pub struct PublishContext {
    memory: MatchMemory,
    pub(super) touched: Touched,
    scratch: Vec<u8>,
}

/// Who publishes.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The publisher's own slot: No Local asks for it.
    pub slot: &'a Slot,
    /// The publisher's session, when it is durable.
    pub durable: Option<Durable>,
    /// What it may do.
    pub rights: &'a Rights,
    /// Its user name, if somebody has checked it.
    pub user_name: Option<&'a str>,
}

/// A message that is about to be routed, with everything that becomes durable with it.
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) message: Message,
    pub(super) inbound: Option<InboundExchange>,
    pub(super) retain: bool,
    pub(super) changes: Vec<Change>,
    /// The number that a message which is replayed had before.
    pub(super) origin: Option<Lsn>,
    /// Not even a disk that is nearly full refuses it: with it goes a change that was made in memory already.
    pub(super) goes_through: bool,
}

impl Routed {
    /// A message that is refused like any other, and nothing that goes with it.
    pub(super) fn of(message: Message) -> Self {
        Self { message, inbound: None, retain: false, changes: Vec::new(), origin: None, goes_through: false }
    }
}

impl<'a> Source<'a> {
    /// Who publishes, as a message for these says: only routes ask for the user name, and nobody else
    /// should carry it.
    fn publisher(&self, matches: &Matches) -> Publisher<'a> {
        let user_name = self.user_name.filter(|_| !matches.routes.is_empty());
        Publisher { client_id: &self.slot.client_id, user_name }
    }

    /// Whether another connection has taken the publisher's session over while this one was on its way with a QoS 2
    /// message. Its identifier would be void by its epoch, and the message routed again when the client repeats it
    /// there. It is not acknowledged: the connection ends.
    fn is_overtaken(&self, publish: &Publish<'_>) -> bool {
        let epoch = self.durable.filter(|_| publish.qos == Qos::ExactlyOnce).map(|durable| durable.epoch);
        epoch.is_some_and(|epoch| self.slot.lock().seat_epoch != epoch)
    }
}

impl PublishContext {
    /// A session that ends with its connection and whose outbox is more than half full, if the last batch has
    /// met one: the publisher should give it a little time.
    pub fn take_crowded(&mut self) -> Option<Arc<Slot>> {
        self.touched.crowded.take()
    }

    /// Rings for everyone who got something since the last call. Owed after each batch.
    pub fn wake(&mut self) {
        self.touched.ring();
        self.memory.forget_large();
    }
}

impl Broker {
    /// Routes a client's PUBLISH: to the store first, then into the outboxes of everyone it matches.
    pub fn publish(
        &self,
        context: &mut PublishContext,
        source: &Source<'_>,
        publish: &Publish<'_>,
        topic: &TopicName<'_>,
        now: UnixMillis,
    ) -> Receipt {
        if publish.retain {
            return self.publish_retained(context, source, publish, topic, now);
        }
        let PublishContext { memory, touched, scratch } = context;
        let (matches, allowed) = memory.look_up(self, source, topic);
        if !allowed {
            return self.not_authorized();
        }
        let inbound = inbound(source, publish);
        let is_for_nobody = matches.is_empty() && inbound.is_none();
        if is_for_nobody && (publish.qos == Qos::AtMostOnce || !self.keeps_unroutable(topic.as_str())) {
            return Receipt::Safe(ReasonCode::NoMatchingSubscribers);
        }
        if source.is_overtaken(publish) {
            return Receipt::Refused(ReasonCode::SessionTakenOver);
        }
        let publisher = source.publisher(matches);
        let message = Message::from_publish(publish, topic.as_str(), publisher, now, scratch);
        self.route(matches, Routed { inbound, ..Routed::of(message) }, touched)
    }

    /// A retained PUBLISH changes the tree before it matches, so that a subscriber who scans the tree after
    /// it has subscribed misses neither. The lock keeps tree and store in the same order.
    fn publish_retained(
        &self,
        context: &mut PublishContext,
        source: &Source<'_>,
        publish: &Publish<'_>,
        topic: &TopicName<'_>,
        now: UnixMillis,
    ) -> Receipt {
        if !source.rights.may_publish(topic) {
            return self.not_authorized();
        }
        if let Err(error) = self.store.admits_publish() {
            return refused(error);
        }
        let PublishContext { memory, touched, scratch } = context;
        // Whoever is matched below may differ; only routes ask for the user name, and lack it for one message then.
        let publisher = source.publisher(memory.look_up(self, source, topic).0);
        let message = Message::from_publish(publish, topic.as_str(), publisher, now, scratch);
        let mut totals = self.retained_totals.lock();
        let before = self.retained.get(topic);
        let retained = Retained { message, author: source.user_name.map(Into::into) };
        if !self.retain(&mut totals, topic, &retained) {
            self.metrics.dropped.retained_full.increment(1);
            return Receipt::Refused(ReasonCode::QuotaExceeded);
        }
        let (matches, _) = memory.look_up(self, source, topic);
        let (inbound, changes) = (inbound(source, publish), retained.changes());
        let routed = Routed { inbound, retain: true, changes, ..Routed::of(retained.message) };
        let receipt = match source.is_overtaken(publish) {
            true => Receipt::Refused(ReasonCode::SessionTakenOver),
            false => self.route(matches, routed, touched),
        };
        if matches!(receipt, Receipt::Refused(_)) {
            self.put_back_retained(&mut totals, topic, before);
        }
        receipt
    }

    /// Routes a will. False when the store has failed; there is nobody to wait for its commit.
    pub(super) fn route_will(
        &self,
        message: Message,
        author: Option<Arc<str>>,
        mut changes: Vec<Change>,
        touched: &mut Touched,
    ) -> bool {
        let topic = message.topic().to_owned();
        let Ok(topic) = TopicName::parse(&topic, u16::MAX) else { return false };
        // One that was left when retained messages were still offered is a message like any other.
        let retain = message.head().retain && self.limits.session.offer.retain;
        let mut totals = retain.then(|| self.retained_totals.lock());
        let retained = Retained { message, author };
        let retain = totals.as_mut().is_some_and(|totals| self.retain(totals, &topic, &retained));
        if retain {
            changes.extend(retained.changes());
        }
        let Retained { mut message, author } = retained;
        let mut matches = Matches::default();
        matches.find(self, &topic, None);
        if let Some(user_name) = author.filter(|_| !matches.routes.is_empty()) {
            message = message.published_by(&user_name);
        }
        let routed = Routed { retain, changes, goes_through: true, ..Routed::of(message) };
        !matches!(self.route(&matches, routed, touched), Receipt::Refused(_))
    }

    /// Whether the one who published a request may publish this reply to it, which goes by the same name.
    pub fn may_reply(&self, reply: &Message) -> bool {
        let rights = self.auth.rights_of_absent(reply.user_name(), reply.publisher());
        let topic = TopicName::parse(reply.topic(), u16::MAX);
        rights.is_ok_and(|rights| topic.is_ok_and(|topic| rights.may_publish(&topic)))
    }

    /// Routes the answer to a request, in one record with what else becomes durable with it: the settlement of
    /// the request. Like that, it goes through also when the disk is nearly full.
    ///
    /// # Errors
    /// When the store has failed.
    pub fn publish_reply(&self, reply: Message, changes: Vec<Change>) -> Result<(), SubmitError> {
        let topic = reply.topic().to_owned();
        let mut matches = Matches::default();
        if let Ok(topic) = TopicName::parse(&topic, u16::MAX) {
            matches.find(self, &topic, None);
        }
        let mut touched = Touched::default();
        let routed = Routed { changes, goes_through: true, ..Routed::of(reply) };
        let receipt = self.route(&matches, routed, &mut touched);
        touched.ring();
        match receipt {
            Receipt::Refused(_) => Err(SubmitError::Failed),
            _ => Ok(()),
        }
    }

    fn not_authorized(&self) -> Receipt {
        self.metrics.dropped.not_authorized.increment(1);
        Receipt::Refused(ReasonCode::NotAuthorized)
    }
}

/// The QoS 2 exchange that has to become durable with the message.
fn inbound(source: &Source<'_>, publish: &Publish<'_>) -> Option<InboundExchange> {
    let durable = source.durable.filter(|_| publish.qos == Qos::ExactlyOnce)?;
    let Durable { recipient, epoch } = durable;
    Some(InboundExchange { recipient, epoch, packet_id: publish.packet_id? })
}

/// What a publisher is told when the store does not take its message.
pub(super) fn refused(error: SubmitError) -> Receipt {
    match error {
        SubmitError::Full | SubmitError::OverBudget => Receipt::Refused(ReasonCode::QuotaExceeded),
        SubmitError::Failed => Receipt::Refused(ReasonCode::ServerUnavailable),
    }
}
