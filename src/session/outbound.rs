//! Messages to the client: packet identifiers, the send window, and the sending side of QoS 1 and 2.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::replies::{ReplyPacket, Wait};
use super::report::is_told_first;
use super::{Close, Outgoing, Session, Terms};
use crate::codec::{Ack, MAX_PACKET_SIZE, PacketId, PublishFrame, Qos, ReasonCode};
use crate::record::{Exchange, ExchangeState, Lsn, Message, RecipientNo, SubscriptionIds, UnixMillis};
use crate::store::{Entry, Progress};

/// How far ahead a resumed session continues with its packet identifiers when its last ones are not known.
/// Half of them: a client that sends a late PUBACK for one of the old settles nothing new.
const IDS_SKIPPED: u16 = 1 << 15;

/// A message on its way to one client.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// The lower of published and granted QoS.
    pub qos: Qos,
    /// The RETAIN flag of this delivery.
    pub retain: bool,
    /// Identifiers of the subscriptions that matched.
    pub subscription_ids: SubscriptionIds,
    /// Not sent before the watermark has reached this number: a QoS 2 message is delivered to nobody before
    /// it is committed. Zero for all others.
    pub not_before: Lsn,
    /// The durable leg that this delivery settles; `None` when the session ends with its connection.
    pub claim: Option<Claim>,
}

impl Delivery {
    /// Bytes that the delivery occupies while it waits, its share of the message included.
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.message.size()
    }
}

/// A durable leg, in the hands of the one who delivers it.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The message's number.
    pub lsn: Lsn,
    /// Who is owed the message: the session itself, or a shared group it acts for.
    pub owner: RecipientNo,
    /// The record, while it may still be waiting for the writer; `None` when the message was read back.
    pub entry: Option<Arc<Entry>>,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Written, or waiting for its packet identifier to be durable.
    Taken,
    /// Not sent, and settled.
    Dropped(Dropped),
}

/// Why a message was not sent although it could have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Its Message Expiry Interval has passed [MQTT-3.3.2-5].
    Expired,
    /// It exceeds the client's Maximum Packet Size [MQTT-3.1.2-25].
    TooLarge,
}

/// The sending side.
#[derive(Debug)]
pub(super) struct Outbound {
    in_flight: HashMap<u16, InFlight, RandomState>,
    next_id: u16,
    moved: bool,
    /// QoS 1 and 2 messages that may still be sent before one is acknowledged.
    quota: u16,
    window: u16,
    durable: bool,
    /// QoS 2 messages that wait for their packet identifier to be durable.
    held: VecDeque<Held>,
    /// Exchanges an earlier connection began and this one has to repeat.
    resends: VecDeque<Exchange>,
    /// So many messages from the backlog may have been sent before the broker ended without order.
    doubtful: u16,
    aliases: HashMap<Box<str>, u16, RandomState>,
    aliases_max: u16,
    /// Claims that were settled and are still to be told.
    pub(super) settled: Vec<Claim>,
}

#[derive(Debug)]
struct InFlight {
    state: ExchangeState,
    claim: Option<Claim>,
    /// Whether the store knows of the exchange, or is about to.
    saved: bool,
}

/// The alias of a topic.
#[derive(Clone, Copy, Debug)]
enum Alias {
    /// The client has it: the topic stays away.
    Known(u16),
    /// The client gets it now, together with the topic.
    New(u16),
}

#[derive(Debug)]
struct Held {
    packet_id: PacketId,
    delivery: Delivery,
    /// The report that holds the identifier; `None` before it was submitted.
    report: Option<Lsn>,
}

impl Outbound {
    pub(super) fn new(terms: &Terms, durable: bool) -> Self {
        Self {
            in_flight: HashMap::default(),
            next_id: 1,
            moved: false,
            quota: terms.send_window,
            window: terms.send_window,
            durable,
            held: VecDeque::new(),
            resends: VecDeque::new(),
            doubtful: 0,
            aliases: HashMap::default(),
            aliases_max: terms.topic_alias_out,
            settled: Vec::new(),
        }
    }

    /// Takes up the exchanges of an earlier connection; gives those for which PUBREL is owed.
    pub(super) fn resume(&mut self, progress: &Progress, torn: bool) -> Vec<PacketId> {
        let mut released = Vec::new();
        for exchange in progress.exchanges_in_order() {
            let claim = Claim { lsn: exchange.lsn, owner: exchange.owner, entry: None };
            let in_flight = InFlight { state: exchange.state, claim: Some(claim), saved: true };
            self.in_flight.insert(exchange.packet_id.get(), in_flight);
            match exchange.state {
                // [MQTT-4.3.3-6] No PUBLISH again once PUBREC has come.
                ExchangeState::AwaitingPubcomp => released.push(exchange.packet_id),
                _ => self.resends.push_back(exchange),
            }
        }
        self.next_id = progress.next_packet_id.max(1);
        if torn {
            self.next_id = self.next_id.wrapping_add(IDS_SKIPPED).max(1);
            self.doubtful = self.window;
        }
        released
    }

    pub(super) fn next_packet_id(&self) -> u16 {
        if self.moved { self.next_id } else { 0 }
    }

    /// The exchange of a QoS 1 identifier that was given out, if it is still open and not saved yet.
    pub(super) fn save(&mut self, packet_id: PacketId) -> Option<Exchange> {
        let in_flight = self.in_flight.get_mut(&packet_id.get()).filter(|known| !known.saved)?;
        let claim = in_flight.claim.as_ref()?;
        in_flight.saved = true;
        Some(Exchange { packet_id, lsn: claim.lsn, owner: claim.owner, state: in_flight.state })
    }

    pub(super) fn reported(&mut self, lsn: Lsn) {
        self.held.iter_mut().rev().take_while(|held| held.report.is_none()).for_each(|held| {
            held.report = Some(lsn);
        });
    }

    /// An identifier that no exchange has [MQTT-2.2.1-4]. The window is smaller than their number, so that
    /// there always is one.
    fn give_out(&mut self) -> Option<PacketId> {
        for _ in 0..=u16::MAX {
            let id = PacketId::new(self.next_id);
            self.next_id = self.next_id.wrapping_add(1).max(1);
            if let Some(id) = id.filter(|id| !self.in_flight.contains_key(&id.get())) {
                self.moved = true;
                return Some(id);
            }
        }
        None
    }

    /// Ends an exchange: its place in the window is free, and its claim settled.
    fn end(&mut self, packet_id: PacketId) -> bool {
        let Some(ended) = self.in_flight.remove(&packet_id.get()) else { return false };
        self.quota = self.quota.saturating_add(1).min(self.window);
        self.settled.extend(ended.claim);
        ended.saved
    }

    /// The alias to send for a topic, if there is one left for it.
    fn alias(&self, topic: &str) -> Option<Alias> {
        if self.aliases_max == 0 {
            return None;
        }
        if let Some(alias) = self.aliases.get(topic) {
            return Some(Alias::Known(*alias));
        }
        let next = self.aliases.len() as u16 + 1;
        Some(Alias::New(next)).filter(|_| next <= self.aliases_max)
    }
}

impl Session {
    /// Whether a QoS 1 or 2 message may be sent now [MQTT-3.3.4-9].
    pub fn has_window(&self) -> bool {
        self.outbound.quota > 0
    }

    /// Sends a message. For QoS 1 and 2 the caller has seen [`Session::has_window`].
    pub fn deliver(&mut self, now: UnixMillis, delivery: Delivery, out: &mut Outgoing) -> Outcome {
        if delivery.message.head().expires_at <= now {
            return self.drop_delivery(delivery, Dropped::Expired);
        }
        if delivery.qos == Qos::AtMostOnce {
            return self.send(now, (delivery, None), false, out);
        }
        let Some(packet_id) = self.outbound.give_out() else {
            return self.drop_delivery(delivery, Dropped::TooLarge);
        };
        let state = match delivery.qos {
            Qos::ExactlyOnce => ExchangeState::AwaitingPubrec,
            _ => ExchangeState::AwaitingPuback,
        };
        self.begin(now, packet_id, &delivery, state);
        if delivery.claim.is_some() && self.outbound.durable && is_told_first(state) {
            self.outbound.held.push_back(Held { packet_id, delivery, report: None });
            return Outcome::Taken;
        }
        let dup = self.is_doubtful(&delivery);
        self.send(now, (delivery, Some(packet_id)), dup, out)
    }

    /// Sends the QoS 2 messages whose identifiers are durable.
    pub fn write_held(&mut self, now: UnixMillis, watermark: Lsn, out: &mut Outgoing) {
        while let Some(held) = self.outbound.held.pop_front_if(|h| h.report.is_some_and(|at| at <= watermark))
        {
            self.send(now, (held.delivery, Some(held.packet_id)), false, out);
        }
    }

    /// The number that the first held message waits for.
    pub fn held_waits_for(&self) -> Option<Lsn> {
        self.outbound.held.front()?.report
    }

    /// The next exchange of an earlier connection that is to be repeated: read its message, and give it to
    /// [`Session::redeliver`] before the next one is taken.
    pub fn take_resend(&mut self) -> Option<Exchange> {
        if self.outbound.quota == 0 {
            return None;
        }
        self.outbound.resends.pop_front()
    }

    /// Whether exchanges of an earlier connection are still to be repeated.
    pub fn has_resends(&self) -> bool {
        !self.outbound.resends.is_empty()
    }

    /// Repeats the PUBLISH of an exchange, with its identifier and DUP [MQTT-4.4.0-1].
    pub fn redeliver(
        &mut self,
        now: UnixMillis,
        packet_id: PacketId,
        delivery: Delivery,
        out: &mut Outgoing,
    ) {
        self.outbound.quota = self.outbound.quota.saturating_sub(1);
        self.send(now, (delivery, Some(packet_id)), true, out);
    }

    /// Settles a message that the client may not have.
    pub fn drop_unsent(&mut self, delivery: Delivery) {
        self.outbound.settled.extend(delivery.claim);
    }

    /// The messages that have an exchange open.
    pub fn in_flight(&self) -> impl Iterator<Item = &Claim> {
        self.outbound.in_flight.values().filter_map(|in_flight| in_flight.claim.as_ref())
    }

    /// Messages of a shared group whose QoS 2 exchange this durable session has begun: they stay with it
    /// [MQTT-4.8.2-4].
    pub fn begun_exactly_once(&self, group: RecipientNo) -> Vec<Lsn> {
        let begun =
            self.outbound.in_flight.values().filter(|known| known.saved && is_told_first(known.state));
        begun.filter_map(|known| known.claim.as_ref()).filter(|c| c.owner == group).map(|c| c.lsn).collect()
    }

    /// Handles a PUBACK.
    ///
    /// # Errors
    /// When the identifier belongs to a QoS 2 exchange.
    pub fn handle_puback(&mut self, ack: Ack) -> Result<(), Close> {
        match self.state(ack.packet_id) {
            Some(ExchangeState::AwaitingPuback) => self.finish(ack.packet_id),
            Some(_) => return Err(Close::protocol_error("PUBACK for a QoS 2 message")),
            None => {}
        }
        Ok(())
    }

    /// Handles a PUBREC: PUBREL follows once that is durable [MQTT-4.3.3-4].
    ///
    /// # Errors
    /// When the identifier belongs to a QoS 1 message.
    pub fn handle_pubrec(&mut self, ack: Ack) -> Result<(), Close> {
        let packet_id = ack.packet_id;
        let pubrel = ReplyPacket::Pubrel(packet_id, ReasonCode::Success);
        match self.state(packet_id) {
            // [MQTT-4.4.0-2]
            Some(ExchangeState::AwaitingPubrec) if ack.reason.is_error() => self.finish(packet_id),
            Some(ExchangeState::AwaitingPubrec) => self.release(packet_id, pubrel),
            Some(ExchangeState::AwaitingPubcomp) => self.replies.push_now(pubrel),
            Some(ExchangeState::AwaitingPuback) => {
                return Err(Close::protocol_error("PUBREC for a QoS 1 message"));
            }
            None => {
                let reason = ReasonCode::PacketIdentifierNotFound;
                self.replies.push_now(ReplyPacket::Pubrel(packet_id, reason));
            }
        }
        Ok(())
    }

    /// Handles a PUBCOMP.
    ///
    /// # Errors
    /// When the exchange has not come to it yet, or never will.
    pub fn handle_pubcomp(&mut self, ack: Ack) -> Result<(), Close> {
        match self.state(ack.packet_id) {
            Some(ExchangeState::AwaitingPubcomp) => self.finish(ack.packet_id),
            Some(_) => return Err(Close::protocol_error("PUBCOMP without a PUBREL")),
            None => {}
        }
        Ok(())
    }

    /// [MQTT-3.1.2-24]
    fn fits(&self, frame: &PublishFrame<'_>) -> bool {
        self.max_packet_size >= MAX_PACKET_SIZE
            || frame.encoded_len(self.version) <= self.max_packet_size as usize
    }

    fn state(&self, packet_id: PacketId) -> Option<ExchangeState> {
        self.outbound.in_flight.get(&packet_id.get()).map(|in_flight| in_flight.state)
    }

    fn begin(&mut self, now: UnixMillis, packet_id: PacketId, delivery: &Delivery, state: ExchangeState) {
        let outbound = &mut self.outbound;
        outbound.quota = outbound.quota.saturating_sub(1);
        let told_first = outbound.durable && is_told_first(state);
        let claim = delivery.claim.clone();
        if outbound.durable
            && let Some(claim) = &claim
        {
            if told_first {
                let exchange = Exchange { packet_id, lsn: claim.lsn, owner: claim.owner, state };
                self.report.exchange_first(exchange);
            } else {
                self.report.gave_out(packet_id, now);
            }
        }
        outbound.in_flight.insert(packet_id.get(), InFlight { state, saved: told_first, claim });
    }

    fn release(&mut self, packet_id: PacketId, pubrel: ReplyPacket) {
        let Some(in_flight) = self.outbound.in_flight.get_mut(&packet_id.get()) else { return };
        in_flight.state = ExchangeState::AwaitingPubcomp;
        match &in_flight.claim {
            Some(claim) if self.outbound.durable => {
                let (lsn, owner) = (claim.lsn, claim.owner);
                let exchange = Exchange { packet_id, lsn, owner, state: ExchangeState::AwaitingPubcomp };
                self.report.exchange_first(exchange);
                self.replies.push(Wait::Report, pubrel);
            }
            _ => self.replies.push_now(pubrel),
        }
    }

    fn finish(&mut self, packet_id: PacketId) {
        if self.outbound.end(packet_id) {
            self.report.ended(packet_id);
        }
    }

    fn drop_delivery(&mut self, delivery: Delivery, why: Dropped) -> Outcome {
        self.outbound.settled.extend(delivery.claim);
        Outcome::Dropped(why)
    }

    /// A QoS 1 message that was read back may have been sent by the broker that crashed.
    fn is_doubtful(&mut self, delivery: &Delivery) -> bool {
        let read_back = delivery.claim.as_ref().is_some_and(|claim| claim.entry.is_none());
        let doubtful = read_back && self.outbound.doubtful > 0;
        self.outbound.doubtful -= u16::from(doubtful);
        doubtful
    }

    fn send(
        &mut self,
        now: UnixMillis,
        (delivery, packet_id): (Delivery, Option<PacketId>),
        dup: bool,
        out: &mut Outgoing,
    ) -> Outcome {
        let message = &delivery.message;
        let mut alias = self.outbound.alias(message.topic());
        let mut frame = PublishFrame {
            dup,
            qos: delivery.qos,
            retain: delivery.retain,
            packet_id,
            topic: if let Some(Alias::Known(_)) = alias { &[] } else { message.topic_bytes() },
            alias: alias.map(|(Alias::Known(alias) | Alias::New(alias))| alias),
            expiry: seconds_left(message, now),
            subscription_ids: &delivery.subscription_ids,
            properties: message.properties(),
            payload_len: message.payload().len(),
        };
        if let Some(Alias::New(_)) = alias
            && !self.fits(&frame)
        {
            // The alias itself is what may be too much.
            (alias, frame.alias) = (None, None);
        }
        if !self.fits(&frame) {
            match packet_id {
                Some(packet_id) => self.finish(packet_id),
                None => self.outbound.settled.extend(delivery.claim),
            }
            return Outcome::Dropped(Dropped::TooLarge);
        }
        out.publish(self.version, &frame, message);
        if let Some(Alias::New(alias)) = alias {
            // Only now: what was not sent has taught the client no alias.
            self.outbound.aliases.insert(message.topic().into(), alias);
        }
        if packet_id.is_none() {
            self.outbound.settled.extend(delivery.claim);
        }
        Outcome::Taken
    }
}

/// What is left of the Message Expiry Interval, in seconds; never 0 for a message that is sent
/// [MQTT-3.3.2-6].
fn seconds_left(message: &Message, now: UnixMillis) -> Option<u32> {
    let expires_at = message.head().expires_at;
    if expires_at == UnixMillis::NEVER {
        return None;
    }
    let seconds = expires_at.since(now).as_millis().div_ceil(1000);
    Some(u32::try_from(seconds).unwrap_or(u32::MAX).max(1))
}
