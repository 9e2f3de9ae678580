//! Messages to the client: the send window, what is open in it, and what has to be repeated.
//!
//! Invariant: no more exchanges are open towards the client than it allows, counted from PUBLISH (or, after
//! a resume, from its repeat) to PUBACK or PUBCOMP; what it was not sent yet it cannot acknowledge.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::aliases::{AliasUse, OutboundAliases};
use super::packet_ids::PacketIds;
use super::{Outgoing, Session, Terms};
use crate::codec::{PacketId, PublishFrame, Qos};
use crate::record::{Exchange, ExchangeState, Lsn, Message, RecipientNo, SubscriptionIds, UnixMillis};
use crate::store::{Entry, Progress};

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
        Self::size_of(&self.message)
    }

    /// As [`Delivery::size`], for a message that is to become one.
    pub fn size_of(message: &Message) -> usize {
        size_of::<Self>() + message.size()
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
    /// Nothing was done: the caller did not look at [`Session::has_window`]. What is durable is still owed.
    NoWindow,
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
    pub(super) ids: PacketIds,
    /// Exchanges that take a place in the window.
    used: u16,
    window: u16,
    /// QoS 2 messages that wait for their packet identifier to be durable.
    held: VecDeque<Held>,
    /// Exchanges an earlier connection began and this one has to repeat.
    resends: VecDeque<Exchange>,
    /// Messages with lower numbers may have been sent by a connection that did not end in order.
    doubtful_before: Lsn,
    aliases: OutboundAliases,
    /// PUBRELs that released nothing, and whose PUBCOMP has not come.
    pub(super) extra_releases: u16,
    /// Claims that were settled and are still to be told.
    pub(super) settled: Vec<Claim>,
    /// What was dropped last, until its claim is told.
    pub(super) dropped: Option<Box<Delivery>>,
}

/// An exchange that is open.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) state: ExchangeState,
    pub(super) place: Place,
    /// Whether the store knows of the exchange, or is about to. Then its end and the settling of its message
    /// belong into one report: the claim has no entry any more that its leg could be struck from.
    pub(super) saved: bool,
    pub(super) claim: Option<Claim>,
}

/// Where an exchange is in relation to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The client knows nothing of it yet.
    Held,
    /// Begun by an earlier connection, and not repeated yet: it takes no place in the window.
    Waiting,
    /// In the client's hands.
    Sent,
}

#[derive(Debug)]
struct Held {
    packet_id: PacketId,
    delivery: Delivery,
    /// The report that holds the identifier; `None` before it was submitted.
    report: Option<Lsn>,
}

impl Outbound {
    pub(super) fn new(terms: &Terms) -> Self {
        Self {
            in_flight: HashMap::default(),
            ids: PacketIds::new(),
            used: 0,
            window: terms.send_window,
            held: VecDeque::new(),
            resends: VecDeque::new(),
            doubtful_before: Lsn::ZERO,
            aliases: OutboundAliases::new(terms.topic_alias_out),
            extra_releases: 0,
            settled: Vec::new(),
            dropped: None,
        }
    }

    /// Takes up the exchanges of an earlier connection; gives those for which PUBREL is owed.
    pub(super) fn resume(&mut self, progress: &Progress, torn: bool) -> Vec<PacketId> {
        let mut released = Vec::new();
        for exchange in progress.exchanges_in_order() {
            let claim = Some(Claim { lsn: exchange.lsn, owner: exchange.owner, entry: None });
            let mut in_flight = InFlight { state: exchange.state, place: Place::Waiting, saved: true, claim };
            if exchange.state == ExchangeState::AwaitingPubcomp {
                // [MQTT-4.3.3-6] No PUBLISH again once PUBREC has come.
                released.push(exchange.packet_id);
                in_flight.place = Place::Sent;
                self.used = self.used.saturating_add(1);
            } else {
                self.resends.push_back(exchange);
            }
            self.in_flight.insert(exchange.packet_id.get(), in_flight);
        }
        self.ids.resume(progress.next_packet_id, torn);
        self.doubtful_before = progress.doubtful_before;
        released
    }

    fn has_window(&self) -> bool {
        self.used < self.window
    }

    fn begin(&mut self, packet_id: PacketId, in_flight: InFlight) {
        self.used = self.used.saturating_add(1);
        self.in_flight.insert(packet_id.get(), in_flight);
    }

    /// The exchange with this identifier, if the client can know of it.
    pub(super) fn known(&mut self, packet_id: PacketId) -> Option<&mut InFlight> {
        self.in_flight.get_mut(&packet_id.get()).filter(|in_flight| in_flight.place != Place::Held)
    }

    /// Puts an exchange into the client's hands: from now on it takes a place in the window.
    pub(super) fn hand_over(&mut self, packet_id: PacketId) {
        if let Some(in_flight) = self.in_flight.get_mut(&packet_id.get()) {
            if in_flight.place == Place::Waiting {
                self.used = self.used.saturating_add(1);
            }
            in_flight.place = Place::Sent;
        }
    }

    /// Takes an exchange out; its place in the window is free.
    pub(super) fn end(&mut self, packet_id: PacketId) -> Option<InFlight> {
        let ended = self.in_flight.remove(&packet_id.get())?;
        match ended.place {
            Place::Waiting => return Some(ended),
            Place::Held => self.held.retain(|held| held.packet_id != packet_id),
            Place::Sent => {}
        }
        self.used = self.used.saturating_sub(1);
        Some(ended)
    }

    /// Whether the store knows of the exchange, or is about to.
    pub(super) fn is_saved(&self, packet_id: PacketId) -> bool {
        self.in_flight.get(&packet_id.get()).is_some_and(|in_flight| in_flight.saved)
    }

    /// Adds the QoS 1 exchanges of the session's own messages that are open and not saved yet. Those of a
    /// shared group are not kept for the client: when it leaves, they go to another member.
    pub(super) fn save(&mut self, own: RecipientNo, exchanges: &mut Vec<Exchange>) {
        for (packet_id, in_flight) in &mut self.in_flight {
            let (false, Some(packet_id)) = (in_flight.saved, PacketId::new(*packet_id)) else { continue };
            let Some(claim) = in_flight.claim.as_mut().filter(|claim| claim.owner == own) else { continue };
            claim.entry = None;
            in_flight.saved = true;
            exchanges.push(Exchange { packet_id, lsn: claim.lsn, owner: own, state: in_flight.state });
        }
        if self.in_flight.is_empty() {
            // A session that rests gives back what a burst has taken.
            self.in_flight = HashMap::default();
        }
    }

    pub(super) fn reported(&mut self, lsn: Lsn) {
        self.ids.told(lsn);
        self.held.iter_mut().rev().take_while(|held| held.report.is_none()).for_each(|held| {
            held.report = Some(lsn);
        });
    }

    /// A message that was read back may have been sent by a connection that did not end in order.
    fn is_doubtful(&self, delivery: &Delivery) -> bool {
        let read_back = delivery.claim.as_ref().filter(|claim| claim.entry.is_none());
        read_back.is_some_and(|claim| claim.lsn < self.doubtful_before)
    }
}

impl Session {
    /// Whether a QoS 1 or 2 message may be sent now [MQTT-3.3.4-9].
    pub fn has_window(&self) -> bool {
        self.outbound.has_window() && self.outbound.ids.is_usable()
    }

    /// How many messages are open in the window.
    pub fn unacknowledged(&self) -> usize {
        self.outbound.used.into()
    }

    /// How many more may be opened in it.
    pub fn window_left(&self) -> usize {
        self.outbound.window.saturating_sub(self.outbound.used).into()
    }

    /// Sends a message. The caller has seen that the watermark has reached [`Delivery::not_before`], and for
    /// QoS 1 and 2 that [`Session::has_window`].
    pub fn deliver(&mut self, now: UnixMillis, delivery: Delivery, out: &mut Outgoing) -> Outcome {
        if is_expired(&delivery.message, now) {
            return self.drop_because(Dropped::Expired, delivery);
        }
        let mut packet_id = None;
        if delivery.qos != Qos::AtMostOnce {
            packet_id = self.give_out();
            if packet_id.is_none() {
                return Outcome::NoWindow;
            }
        }
        if !self.fits(now, &delivery, packet_id) {
            return self.drop_because(Dropped::TooLarge, delivery);
        }
        match packet_id {
            Some(packet_id) => self.begin(now, packet_id, delivery, out),
            None => {
                self.send(now, &delivery, None, false, out);
                self.outbound.settled.extend(delivery.claim);
            }
        }
        Outcome::Taken
    }

    /// Sends the QoS 2 messages whose identifiers are durable. Gives those that have expired instead: they are settled
    /// by the session's report.
    pub fn write_held(
        &mut self,
        now: UnixMillis,
        watermark: Lsn,
        out: &mut Outgoing,
    ) -> Vec<(Message, Option<Claim>)> {
        self.outbound.ids.advance(watermark);
        let mut expired = Vec::new();
        while let Some(held) = self.outbound.held.pop_front_if(|h| h.report.is_some_and(|at| at <= watermark))
        {
            if is_expired(&held.delivery.message, now) {
                let claim = self.end_exchange(held.packet_id);
                self.outbound.settled.extend(claim.clone());
                expired.push((held.delivery.message, claim));
                continue;
            }
            self.outbound.hand_over(held.packet_id);
            self.send(now, &held.delivery, Some(held.packet_id), false, out);
        }
        if self.outbound.held.is_empty() && self.outbound.held.capacity() > 64 {
            self.outbound.held = VecDeque::new();
        }
        expired
    }

    /// The number that has to be durable before [`Session::write_held`] has something to do.
    pub fn held_waits_for(&self) -> Option<Lsn> {
        let held = self.outbound.held.front().and_then(|held| held.report);
        [held, self.outbound.ids.waits_for()].into_iter().flatten().min()
    }

    /// The next exchange of an earlier connection that is to be repeated: read its message, and give it to
    /// [`Session::redeliver`] before the next one is taken, or [`Session::abandon`] it.
    pub fn take_resend(&mut self) -> Option<Exchange> {
        while self.outbound.has_window() {
            let exchange = self.outbound.resends.pop_front()?;
            // The client may have acknowledged it without a repeat.
            let is_waiting = |known: &mut InFlight| known.place == Place::Waiting;
            if self.outbound.known(exchange.packet_id).is_some_and(is_waiting) {
                self.outbound.hand_over(exchange.packet_id);
                return Some(exchange);
            }
        }
        None
    }

    /// Whether exchanges of an earlier connection are still to be repeated.
    pub fn has_resends(&self) -> bool {
        !self.outbound.resends.is_empty()
    }

    /// Repeats the PUBLISH of an exchange, with its identifier, QoS and DUP [MQTT-4.4.0-1]. Nothing is done
    /// when the client has acknowledged it meanwhile.
    pub fn redeliver(
        &mut self,
        now: UnixMillis,
        packet_id: PacketId,
        mut delivery: Delivery,
        out: &mut Outgoing,
    ) -> Outcome {
        delivery.qos = match self.outbound.known(packet_id).map(|known| known.state) {
            Some(ExchangeState::AwaitingPuback) => Qos::AtLeastOnce,
            Some(ExchangeState::AwaitingPubrec) => Qos::ExactlyOnce,
            Some(ExchangeState::AwaitingPubcomp) | None => return Outcome::Taken,
        };
        if !self.fits(now, &delivery, Some(packet_id)) {
            delivery.claim = self.end_exchange(packet_id);
            return self.drop_because(Dropped::TooLarge, delivery);
        }
        self.send(now, &delivery, Some(packet_id), true, out);
        Outcome::Taken
    }

    /// What [`Outcome::Dropped`] was said of last. Its leg is settled with the next [`Session::take_settled`]: by
    /// the session's report, if its entry is taken out of the claim here.
    pub fn dropped(&mut self) -> Option<&mut Delivery> {
        self.outbound.dropped.as_deref_mut()
    }

    fn drop_because(&mut self, why: Dropped, delivery: Delivery) -> Outcome {
        let before = self.outbound.dropped.replace(Box::new(delivery));
        self.outbound.settled.extend(before.and_then(|before| before.claim));
        Outcome::Dropped(why)
    }

    /// Settles a message that the client does not get.
    pub fn drop_unsent(&mut self, delivery: Delivery) {
        self.outbound.settled.extend(delivery.claim);
    }

    /// The messages that have an exchange open. When the connection ends they are still owed: those of the
    /// session are repeated when it is resumed, those of a shared group are the group's again.
    pub fn in_flight(&self) -> impl Iterator<Item = &Claim> {
        self.outbound.in_flight.values().filter_map(|in_flight| in_flight.claim.as_ref())
    }

    /// Messages of a shared group whose QoS 2 exchange has begun: they stay with this session
    /// [MQTT-4.8.2-4].
    pub fn begun_exactly_once(&self, group: RecipientNo) -> Vec<Lsn> {
        let begun = self.outbound.in_flight.values().filter(|known| is_qos_2(known.state));
        begun.filter_map(|known| known.claim.as_ref()).filter(|c| c.owner == group).map(|c| c.lsn).collect()
    }

    /// An identifier for a message that the window allows.
    fn give_out(&mut self) -> Option<PacketId> {
        if !self.has_window() {
            return None;
        }
        let Outbound { ids, in_flight, .. } = &mut self.outbound;
        ids.give_out(|id| in_flight.contains_key(&id.get()))
    }

    /// Begins an exchange. One of QoS 2 is told to the store first, when the message is durable and so is
    /// the session; one of QoS 1 with the next report, if it is still open then.
    fn begin(&mut self, now: UnixMillis, packet_id: PacketId, mut delivery: Delivery, out: &mut Outgoing) {
        let is_qos_2 = delivery.qos == Qos::ExactlyOnce;
        let state = if is_qos_2 { ExchangeState::AwaitingPubrec } else { ExchangeState::AwaitingPuback };
        let dup = !is_qos_2 && self.outbound.is_doubtful(&delivery);
        let claim = delivery.claim.take();
        let mut in_flight = InFlight { state, place: Place::Sent, saved: false, claim };
        match (self.durable, &mut in_flight.claim) {
            (Some(_), Some(claim)) if is_qos_2 => {
                claim.entry = None;
                in_flight.place = Place::Held;
                in_flight.saved = true;
                let exchange = Exchange { packet_id, lsn: claim.lsn, owner: claim.owner, state };
                self.report.exchange_first(exchange);
                self.outbound.begin(packet_id, in_flight);
                self.outbound.held.push_back(Held { packet_id, delivery, report: None });
                return;
            }
            (Some(durable), Some(claim)) if claim.owner == durable.recipient => self.report.gave_out(now),
            _ => {}
        }
        self.outbound.begin(packet_id, in_flight);
        self.send(now, &delivery, Some(packet_id), dup, out);
    }

    /// Whether the client takes a packet of this size. One that fits without an alias always does; one that
    /// does not may with the alias alone.
    fn fits(&self, now: UnixMillis, delivery: &Delivery, packet_id: Option<PacketId>) -> bool {
        let mut frame = frame(now, delivery, packet_id);
        if self.frame_fits(&frame) {
            return true;
        }
        let AliasUse::Known(alias) = self.outbound.aliases.choose(delivery.message.topic()) else {
            return false;
        };
        (frame.topic, frame.alias) = (&[], Some(alias));
        self.frame_fits(&frame)
    }

    fn frame_fits(&self, frame: &PublishFrame<'_>) -> bool {
        frame.encoded_len(self.version) <= self.max_packet_size as usize
    }

    /// Writes a PUBLISH that [`Session::fits`].
    fn send(
        &mut self,
        now: UnixMillis,
        delivery: &Delivery,
        packet_id: Option<PacketId>,
        dup: bool,
        out: &mut Outgoing,
    ) {
        let message = &delivery.message;
        let mut frame = frame(now, delivery, packet_id);
        frame.dup = dup;
        match self.outbound.aliases.choose(message.topic()) {
            AliasUse::Without => {}
            AliasUse::Known(alias) => {
                // The alias takes three bytes, a topic perhaps less [MQTT-3.1.2-24].
                let by_alias = PublishFrame { topic: &[], alias: Some(alias), ..frame };
                if self.frame_fits(&by_alias) {
                    frame = by_alias;
                }
            }
            AliasUse::New(alias) => {
                frame.alias = Some(alias);
                if self.frame_fits(&frame) {
                    self.outbound.aliases.told(message.topic(), alias);
                } else {
                    frame.alias = None;
                }
            }
        }
        out.publish(self.version, &frame, message);
    }
}

/// The PUBLISH of a delivery, without an alias.
fn frame(now: UnixMillis, delivery: &Delivery, packet_id: Option<PacketId>) -> PublishFrame<'_> {
    let message = &delivery.message;
    PublishFrame {
        // [MQTT-3.3.1-3] Never that of the publisher.
        dup: false,
        qos: delivery.qos,
        retain: delivery.retain,
        packet_id,
        topic: message.topic_bytes(),
        alias: None,
        expiry: seconds_left(message, now),
        subscription_ids: &delivery.subscription_ids,
        properties: message.properties(),
        payload_len: message.payload().len(),
    }
}

fn is_qos_2(state: ExchangeState) -> bool {
    state != ExchangeState::AwaitingPuback
}

fn is_expired(message: &Message, now: UnixMillis) -> bool {
    message.head().expires_at <= now
}

/// What is left of the Message Expiry Interval, in seconds; never 0 for a message that is sent
/// [MQTT-3.3.2-6]. A connection may have looked at the clock just before the message was published: there is not
/// more left than there was.
fn seconds_left(message: &Message, now: UnixMillis) -> Option<u32> {
    let head = message.head();
    if head.expires_at == UnixMillis::NEVER {
        return None;
    }
    let seconds = head.expires_at.since(now.max(head.published_at)).as_millis().div_ceil(1000);
    Some(u32::try_from(seconds).unwrap_or(u32::MAX).max(1))
}
