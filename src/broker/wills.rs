//! Wills: published when their connection is gone and their delay has passed, and at most once.

use std::sync::Arc;

use super::slot::{SlotWill, Touched};
use super::{Broker, DurableSlot, Slot};
use crate::record::{Change, Message, MessageParts, WillRecord, expiry};
use crate::topic::TopicName;

impl Broker {
    /// Publishes a will that was taken out of its slot. In one record with it: the will leaves the session,
    /// or the session itself ends.
    pub(super) fn publish_will(&self, slot: &Arc<Slot>, will: SlotWill, mut changes: Vec<Change>) {
        if changes.is_empty() {
            let removed = |durable: &DurableSlot| Change::WillRemoved(durable.recipient, will.epoch);
            changes.extend(slot.durable().map(removed));
        }
        if !self.may_publish_will(slot, &will) {
            tracing::warn!(client_id = %slot.client_id, "a will was not published: its client has lost the right");
            self.metrics.dropped.not_authorized.increment(1);
            return self.submit_unawaited(changes);
        }
        let mut touched = Touched::default();
        let message = self.will_message(&will.record);
        if !self.route_will(message, will.user_name, changes, &mut touched) {
            tracing::error!(client_id = %slot.client_id, "a will could not be stored");
        }
        touched.ring();
    }

    /// Rights are asked for when the will is published, not only when it was left: a client that was locked
    /// out since has nothing to say.
    fn may_publish_will(&self, slot: &Slot, will: &SlotWill) -> bool {
        let message = &will.record.message;
        let Ok(topic) = TopicName::parse(message.topic(), u16::MAX) else { return false };
        let rights = self.auth.rights_of_absent(will.user_name.as_deref(), &slot.client_id);
        rights.is_ok_and(|rights| rights.may_publish(&topic))
    }

    /// The will as a message of now: its expiry counts from its publication.
    fn will_message(&self, will: &WillRecord) -> Message {
        let now = self.clock.now();
        let stored = &will.message;
        let parts = MessageParts {
            qos: stored.head().qos,
            retain: stored.head().retain,
            published_at: now,
            expires_at: expiry(now, will.message_expiry),
            topic: stored.topic(),
            properties: stored.properties(),
            payload: stored.payload(),
            publisher: stored.publisher(),
        };
        Message::new(&parts, &mut Vec::new())
    }
}
