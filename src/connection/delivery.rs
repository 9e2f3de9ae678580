//! Messages out of the outbox, the store and the retained tree, as far as window and buffer allow.

use std::task::Context;

use super::drive::store_failed;
use super::output::WRITE_MAX;
use super::{Connection, End};
use crate::codec::Qos;
use crate::record::{DeadLetterReason, Exchange, Message, UnixMillis};
use crate::session::{Claim, Close, Delivery, Dropped, Outcome, Outgoing};
use crate::topic::TopicName;

impl Connection {
    /// Encodes messages until a write's worth is there. True when something has moved that leaves no bytes.
    pub(super) fn fill(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Outgoing,
        now: UnixMillis,
    ) -> Result<bool, End> {
        let expired = self.session.write_held(now, self.watermark, out);
        self.context.broker.metrics.dropped.expired.increment(expired.len() as u64);
        for (message, claim) in expired {
            if let Some(claim) = claim {
                self.file_unsent(&message, &claim, Dropped::Expired);
            }
        }
        let mut moved = false;
        while out.len() < WRITE_MAX {
            if self.deliver_frames(out, now)? {
                continue;
            }
            if !self.frames.is_empty() {
                break;
            }
            let mode = self.slot.take_frames(&mut self.frames, self.session.unacknowledged());
            if !self.frames.is_empty() {
                continue;
            }
            moved |= self.send_retained(now)?;
            let progress = self.poll_backlog(cx, mode, out, now)?;
            moved |= progress;
            if !progress {
                break;
            }
        }
        Ok(moved)
    }

    /// Whether the connection would take a message from its outbox if there were one.
    pub(super) fn takes_frames(&self) -> bool {
        self.frames.is_empty() && self.unsent.is_none()
    }

    /// Delivers the first of what was taken from the outbox. False when there is nothing, or it has to wait:
    /// for the window, or for its commit.
    fn deliver_frames(&mut self, out: &mut Outgoing, now: UnixMillis) -> Result<bool, End> {
        let mut delivered = false;
        while out.len() < WRITE_MAX {
            let Some(first) = self.frames.front() else { break };
            if first.not_before > self.watermark || !self.has_window_for(first.qos) {
                break;
            }
            let Some(delivery) = self.frames.pop_front() else { break };
            self.deliver(delivery, out, now)?;
            delivered = true;
        }
        if self.frames.is_empty() && self.frames.capacity() > 1024 {
            self.frames = Default::default();
        }
        Ok(delivered)
    }

    /// Whether a message of this QoS may be sent now.
    fn has_window_for(&self, qos: Qos) -> bool {
        qos == Qos::AtMostOnce || self.session.has_window()
    }

    fn deliver(&mut self, delivery: Delivery, out: &mut Outgoing, now: UnixMillis) -> Result<(), Close> {
        if !self.may_receive(&delivery)? {
            self.session.drop_unsent(delivery);
            return Ok(());
        }
        let (qos, payload) = (delivery.qos, delivery.message.payload().len());
        let outcome = self.session.deliver(now, delivery, out);
        self.count_delivery(qos, payload, outcome);
        Ok(())
    }

    /// Repeats the PUBLISH of an exchange that an earlier connection began.
    pub(super) fn redeliver(
        &mut self,
        exchange: Exchange,
        delivery: Delivery,
        out: &mut Outgoing,
        now: UnixMillis,
    ) -> Result<(), Close> {
        if !self.may_receive(&delivery)? {
            self.session.abandon(exchange.packet_id);
            self.session.drop_unsent(delivery);
            return Ok(());
        }
        let (qos, payload) = (delivery.qos, delivery.message.payload().len());
        let outcome = self.session.redeliver(now, exchange.packet_id, delivery, out);
        self.count_delivery(qos, payload, outcome);
        Ok(())
    }

    /// A right that was taken away counts for what was queued before, too.
    fn may_receive(&mut self, delivery: &Delivery) -> Result<bool, Close> {
        self.refresh_rights()?;
        if self.rights.unrestricted() {
            return Ok(true);
        }
        let topic = TopicName::parse(delivery.message.topic(), u16::MAX);
        let allowed = topic.is_ok_and(|topic| self.rights.may_receive(&topic));
        if !allowed {
            self.context.broker.metrics.dropped.not_authorized.increment(1);
        }
        Ok(allowed)
    }

    /// Keeps a message that this client does not get, if the operator wants that. Gives whether it is kept: then its
    /// leg is settled by the report, with which the dead letter goes to disk.
    fn file_unsent(&mut self, message: &Message, claim: &Claim, why: Dropped) -> bool {
        let broker = &self.context.broker;
        let Some(addressee) = broker.addressee_of(&self.slot, claim) else { return false };
        let why = match why {
            Dropped::Expired => (DeadLetterReason::Expired, None),
            Dropped::TooLarge => {
                let limit = self.session.max_packet_size();
                let detail = format!("the client takes packets of up to {limit} bytes (Maximum Packet Size)");
                (DeadLetterReason::Oversize, Some(detail))
            }
        };
        let letter = broker.letter_of_unsent(message, addressee, why, claim.lsn);
        let is_kept = letter.is_some();
        self.letters.extend(letter);
        is_kept
    }

    fn dropped(&mut self, why: Dropped) {
        let dropped = self.session.dropped().map(|dropped| (dropped.message.clone(), dropped.claim.clone()));
        if let Some((message, Some(claim))) = dropped
            && self.file_unsent(&message, &claim, why)
            && let Some(claim) = self.session.dropped().and_then(|dropped| dropped.claim.as_mut())
        {
            claim.entry = None;
        }
    }

    fn count_delivery(&mut self, qos: Qos, payload: usize, outcome: Outcome) {
        if let Outcome::Dropped(why) = outcome {
            self.dropped(why);
        }
        let dropped = &self.context.broker.metrics.dropped;
        match outcome {
            Outcome::Taken => {
                self.outbound.packets += 1;
                self.outbound.message(qos, payload);
            }
            // Not reached: the window was looked at before the message was taken.
            Outcome::NoWindow => dropped.outbox_full.increment(1),
            Outcome::Dropped(Dropped::Expired) => dropped.expired.increment(1),
            Outcome::Dropped(Dropped::TooLarge) => dropped.too_large.increment(1),
        }
    }

    /// What a durable session is sent of retained messages becomes durable for it: while the disk is full that
    /// waits, however many clients subscribe.
    pub(super) fn scan_waits_for_disk(&self) -> bool {
        let is_stored = self.scans.front().is_some_and(|(_, scan)| scan.is_stored_for(&self.slot));
        is_stored && self.context.broker.store.is_disk_full()
    }

    /// Hands over the next retained messages of a new subscription, once its SUBACK may have left.
    fn send_retained(&mut self, now: UnixMillis) -> Result<bool, End> {
        let broker = &self.context.broker;
        let outbox_bytes = broker.limits().outbox_bytes;
        let ready = self.scans.front().is_some_and(|(safe_at, _)| *safe_at <= self.watermark);
        if !ready || !self.slot.has_room_for_retained(outbox_bytes) || self.scan_waits_for_disk() {
            return Ok(false);
        }
        let Some((safe_at, scan)) = self.scans.pop_front() else { return Ok(false) };
        let may_receive = |topic: &TopicName<'_>| self.rights.may_receive(topic);
        let rest = broker
            .send_retained(&self.slot, scan, now, may_receive, &mut self.publishing)
            .map_err(|_| store_failed())?;
        if let Some(scan) = rest {
            self.scans.push_front((safe_at, scan));
        }
        Ok(true)
    }
}
