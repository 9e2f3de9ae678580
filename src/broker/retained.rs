//! Retained messages: what a new subscription is given first.

use std::sync::Arc;

use super::slot::{Pushed, Touched};
use super::{Broker, PublishContext, Slot, Subscription};
use crate::auth::Rights;
use crate::codec::{Qos, RetainHandling};
use crate::record::{Change, Leg, Lsn, Message, Publication, Record, UnixMillis};
use crate::session::{Claim, Delivery};
use crate::store::SubmitError;
use crate::topic::{SubscriptionFilter, TopicFilter, TopicName};

/// Retained messages that are handed over under one look at the tree.
const CHUNK: usize = 64;

/// How much the retained messages are, all together. Its lock also keeps tree and store in one order.
#[derive(Debug, Default)]
pub(super) struct RetainedTotals {
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

/// A retained message and who put it there.
#[derive(Clone, Debug)]
pub(super) struct Retained {
    pub(super) message: Message,
    /// The user name of its author, beside the client id that is in the message.
    pub(super) author: Option<Arc<str>>,
}

/// Answers whether authors may still publish what they have, and remembers the last one's rights: retained
/// messages that lie side by side are often by the same client.
struct Authors<'a> {
    broker: &'a Broker,
    last: Option<(Retained, Option<Rights>)>,
}

/// A subscription that is still to be given retained messages.
#[derive(Debug)]
pub struct RetainedScan {
    filter: TopicFilter,
    subscription: Subscription,
    cursor: Option<String>,
}

impl RetainedScan {
    /// What is subscribed to. Another one for it takes its place [MQTT-3.8.4-3].
    pub fn filter(&self) -> &TopicFilter {
        &self.filter
    }

    /// What a SUBSCRIBE starts, if anything: shared subscriptions get nothing, and the client may not want
    /// any [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11].
    pub(super) fn for_subscription(
        filter: &SubscriptionFilter,
        subscription: Subscription,
        is_new: bool,
    ) -> Option<Self> {
        let wanted = match subscription.options.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::DoNotSend => false,
        };
        let scan = Self { filter: filter.filter.clone(), subscription, cursor: None };
        Some(scan).filter(|_| wanted && !filter.is_shared())
    }

    /// Whether what it finds is stored for this slot before it is delivered.
    pub fn is_stored_for(&self, slot: &Slot) -> bool {
        slot.durable().is_some() && self.subscription.options.qos > Qos::AtMostOnce
    }
}

impl Retained {
    /// What becomes durable beside the message.
    pub(super) fn changes(&self) -> Vec<Change> {
        let author = self.author.as_ref().filter(|_| !self.message.payload().is_empty());
        author
            .map(|name| Change::RetainedBy(self.message.topic().into(), Arc::clone(name)))
            .into_iter()
            .collect()
    }
}

impl Broker {
    /// Bytes of all retained messages.
    pub fn retained_bytes(&self) -> u64 {
        self.retained_totals.lock().bytes
    }

    /// Changes the tree for a retained message: an empty payload removes [MQTT-3.3.1-6]. False when there
    /// is no room for it.
    pub(super) fn retain(
        &self,
        totals: &mut RetainedTotals,
        topic: &TopicName<'_>,
        retained: &Retained,
    ) -> bool {
        let message = &retained.message;
        let old = if message.payload().is_empty() {
            self.retained.remove(topic)
        } else {
            let size = message.size() as u64;
            let replaced = self.retained.get(topic).map_or(0, |old| old.message.size() as u64);
            let messages = totals.messages + u64::from(replaced == 0);
            let bytes = totals.bytes - replaced + size;
            if messages > self.limits.retained_messages || bytes > self.limits.retained_bytes {
                return false;
            }
            totals.messages += 1;
            totals.bytes += size;
            self.retained.put(topic, retained.clone())
        };
        if let Some(old) = old {
            totals.messages -= 1;
            totals.bytes -= old.message.size() as u64;
        }
        self.metrics.retained(totals.messages, totals.bytes);
        true
    }

    /// Undoes [`Broker::retain`] when the publish was refused after all.
    pub(super) fn put_back_retained(
        &self,
        totals: &mut RetainedTotals,
        topic: &TopicName<'_>,
        before: Option<Retained>,
    ) {
        if let Some(before) = before {
            self.retain(totals, topic, &before);
        } else if let Some(refused) = self.retained.remove(topic) {
            totals.messages -= 1;
            totals.bytes -= refused.message.size() as u64;
            self.metrics.retained(totals.messages, totals.bytes);
        }
    }

    /// Hands over the next retained messages, a chunk at a time. `None` when that was all; otherwise the
    /// scan to go on with, once the outbox has room again.
    ///
    /// The messages are put into the outbox under the tree's lock: a publish changes the tree before it
    /// looks for subscribers, so that nothing newer can be in front of them.
    ///
    /// # Errors
    /// When the store has failed.
    pub fn send_retained(
        &self,
        slot: &Slot,
        mut scan: RetainedScan,
        now: UnixMillis,
        may_receive: impl Fn(&TopicName<'_>) -> bool,
        context: &mut PublishContext,
    ) -> Result<Option<RetainedScan>, SubmitError> {
        let touched = &mut context.touched;
        let (mut outcome, mut expired) = (Ok(()), Vec::new());
        let bytes_max = self.limits.outbox_bytes;
        let mut authors = Authors { broker: self, last: None };
        // What does not fit is visited again, behind the topic before it.
        let (mut before, mut waits) = (scan.cursor.clone().unwrap_or_default(), false);
        let cursor = self.retained.scan(&scan.filter, scan.cursor.as_deref(), CHUNK, |topic, retained| {
            let message = &retained.message;
            let allowed = TopicName::parse(topic, u16::MAX)
                .is_ok_and(|topic| may_receive(&topic) && authors.may_publish(&topic, retained));
            if self.is_expired(message, now) {
                expired.push(topic.to_owned());
            } else if allowed {
                waits = !slot.has_room_for(message, scan.subscription.options.qos, bytes_max);
                if waits {
                    return false;
                }
                match self.push_retained(
                    slot,
                    &self.store.timeline().current(message.clone()),
                    &scan.subscription,
                    touched,
                ) {
                    Ok(pushed) => self.count_pushed(pushed),
                    Err(error) => outcome = Err(error),
                }
            }
            before.clear();
            before.push_str(topic);
            outcome.is_ok() && slot.has_room_for_retained(bytes_max)
        });
        outcome?;
        self.remove_expired(&expired, now)?;
        if waits {
            scan.cursor = Some(before).filter(|topic| !topic.is_empty());
            return Ok(Some(scan));
        }
        scan.cursor = cursor;
        Ok(Some(scan).filter(|scan| scan.cursor.is_some()))
    }

    fn is_expired(&self, message: &Message, now: UnixMillis) -> bool {
        let head = message.head();
        head.expires_at <= self.store.timeline().now_for(head.published_at, now)
    }

    /// Removes retained messages that a scan has found expired, unless they were replaced since.
    fn remove_expired(&self, topics: &[String], now: UnixMillis) -> Result<(), SubmitError> {
        for topic in topics {
            let Ok(name) = TopicName::parse(topic, u16::MAX) else { continue };
            let mut totals = self.retained_totals.lock();
            if self.retained.get(&name).is_none_or(|known| !self.is_expired(&known.message, now)) {
                continue;
            }
            if let Some(old) = self.retained.remove(&name) {
                totals.messages -= 1;
                totals.bytes -= old.message.size() as u64;
                self.metrics.retained(totals.messages, totals.bytes);
            }
            self.store.submit(Record::of([Change::RetainedRemoved(topic.as_str().into())]))?;
        }
        Ok(())
    }

    /// A retained message for a durable session is owed to it like any other, under a number of its own.
    fn push_retained(
        &self,
        slot: &Slot,
        message: &Message,
        subscription: &Subscription,
        touched: &mut Touched,
    ) -> Result<Pushed, SubmitError> {
        let qos = message.head().qos.min(subscription.options.qos);
        let mut delivery = Delivery {
            message: message.clone(),
            qos,
            retain: true,
            subscription_ids: subscription.id.into_iter().collect(),
            not_before: Lsn::ZERO,
            claim: None,
        };
        if let Some(durable) = slot.durable().filter(|_| qos > Qos::AtMostOnce) {
            let leg = Leg {
                recipient: durable.recipient,
                qos,
                retain: true,
                subscription_ids: delivery.subscription_ids.clone(),
            };
            let publication = Publication {
                message: message.clone(),
                legs: [leg].into(),
                inbound: None,
                retain: false,
                origin: None,
            };
            let entry = self.store.submit(Record { publication: Some(publication), changes: Vec::new() })?;
            delivery.claim = Some(Claim { lsn: entry.lsn, owner: durable.recipient, entry: Some(entry) });
        }
        Ok(slot.push(delivery, self.limits.outbox_bytes, touched))
    }
}

impl Authors<'_> {
    /// Whether a message is by somebody who may still publish it. What the broker says itself always is.
    fn may_publish(&mut self, topic: &TopicName<'_>, retained: &Retained) -> bool {
        if !self.broker.limits.checks_retained_source || topic.is_system() {
            return true;
        }
        let is_by_same = |(last, _): &&(Retained, Option<Rights>)| {
            last.author == retained.author && last.message.publisher() == retained.message.publisher()
        };
        if self.last.as_ref().filter(is_by_same).is_none() {
            let user_name = retained.author.as_deref();
            let rights = self.broker.auth.rights_of_absent(user_name, retained.message.publisher());
            self.last = Some((retained.clone(), rights.ok()));
        }
        let rights = self.last.as_ref().and_then(|(_, rights)| rights.as_ref());
        let may_publish = rights.is_some_and(|rights| rights.may_publish(topic));
        if !may_publish {
            self.broker.metrics.dropped.not_authorized.increment(1);
        }
        may_publish
    }
}
