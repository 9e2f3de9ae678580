//! What the specification, and the promises of the session's documentation, say that comes next.

use std::collections::{BTreeMap, VecDeque};

use causeway::codec::{
    Ack, Packet, PacketId, Publish, PublishFrame, Qos, ReasonCode, Suback, Version, encode,
};
use causeway::codec::{MAX_PACKET_SIZE, PublishProperties};
use causeway::record::{Exchange, ExchangeState, Lsn, RecipientNo, UnixMillis};
use causeway::session::{Receipt, ReplyPacket, Terms};
use causeway::store::Progress;

use super::super::topics;
use super::store::Item;

/// What a reply waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    For(Lsn),
    /// The next report.
    Report,
}

/// An exchange towards the client.
#[derive(Clone, Debug)]
pub struct Open {
    pub state: ExchangeState,
    pub number: u64,
    pub owner: Option<RecipientNo>,
}

/// A QoS 2 message that waits for its identifier to be durable.
#[derive(Debug)]
pub struct Held {
    pub item: Item,
    pub report: Option<Lsn>,
}

/// What is to happen with a PUBLISH.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Route(String),
    Nothing,
    Close(ReasonCode),
}

/// The state of one connection.
pub struct Model {
    terms: Terms,
    durable: bool,
    aliases: BTreeMap<u16, String>,
    /// QoS 1 and 2 messages of the client that are not fully acknowledged.
    open: u16,
    /// QoS 2 identifiers of the client, and what made them safe.
    exchanges: BTreeMap<u16, Lsn>,
    pub replies: VecDeque<(Wait, ReplyPacket)>,
    pub pings: usize,
    /// In the client's hands.
    pub sent: BTreeMap<u16, Open>,
    /// Begun by an earlier connection and not repeated yet, in the order of the messages.
    pub waiting: Vec<(u16, Open)>,
    pub held: VecDeque<Held>,
    /// PUBRELs whose PUBCOMP ends nothing.
    extra_releases: usize,
    /// Messages that were settled and not told yet.
    pub settled: Vec<Lsn>,
    /// What the client has learned that our aliases stand for.
    pub learned: BTreeMap<u16, String>,
}

impl Model {
    pub fn new(terms: &Terms, durable: bool, progress: &Progress) -> Self {
        let (replies, sent, waiting, held, learned) = Default::default();
        let exchanges = progress.inbound.iter().map(|id| (*id, Lsn::ZERO)).collect();
        let (aliases, settled) = Default::default();
        let mut model = Self {
            terms: terms.clone(),
            durable,
            aliases,
            open: 0,
            exchanges,
            replies,
            pings: 0,
            sent,
            waiting,
            held,
            extra_releases: 0,
            settled,
            learned,
        };
        for Exchange { packet_id, lsn, owner, state } in progress.exchanges_in_order() {
            let open = Open { state, number: lsn.0, owner: Some(owner) };
            if state == ExchangeState::AwaitingPubcomp {
                // [MQTT-4.3.3-6] PUBREL again, never PUBLISH.
                model.push_now(ReplyPacket::Pubrel(packet_id, ReasonCode::Success));
                model.sent.insert(packet_id.get(), open);
            } else {
                model.waiting.push((packet_id.get(), open));
            }
        }
        model
    }

    pub fn used(&self) -> usize {
        self.sent.len() + self.held.len()
    }

    /// Judges a PUBLISH of the client.
    pub fn handle_publish(&mut self, publish: &Publish<'_>) -> Verdict {
        let offer = &self.terms.offer;
        if publish.qos > offer.maximum_qos {
            return Verdict::Close(ReasonCode::QosNotSupported);
        }
        if publish.retain && !offer.retain {
            return Verdict::Close(ReasonCode::RetainNotSupported);
        }
        let topic = match self.resolve(publish) {
            Ok(topic) => topic,
            Err(reason) => return Verdict::Close(reason),
        };
        if !topics::is_name(&topic) || topic.split('/').count() > usize::from(self.terms.topic_levels) {
            return Verdict::Close(ReasonCode::MalformedPacket);
        }
        if let Some(id) = publish.packet_id {
            if let (Qos::ExactlyOnce, Some(lsn)) = (publish.qos, self.exchanges.get(&id.get()).copied()) {
                // [MQTT-4.3.3-10]
                self.replies.push_back((Wait::For(lsn), ReplyPacket::Pubrec(id, ReasonCode::Success)));
                return Verdict::Nothing;
            }
            let max = self.terms.receive_maximum;
            let kept_max = 2 * usize::from(max);
            if self.terms.version == Version::V5 && (self.open >= max || self.exchanges.len() >= kept_max) {
                return Verdict::Close(ReasonCode::ReceiveMaximumExceeded);
            }
            self.open = self.open.saturating_add(1);
        }
        if topic.starts_with('$') {
            self.published(publish, Receipt::Safe(ReasonCode::Success));
            return Verdict::Nothing;
        }
        Verdict::Route(topic)
    }

    fn resolve(&mut self, publish: &Publish<'_>) -> Result<String, ReasonCode> {
        let Some(alias) = publish.properties.topic_alias.map(u16::from) else {
            return Ok(publish.topic.into());
        };
        if alias > self.terms.topic_alias_in {
            return Err(ReasonCode::TopicAliasInvalid);
        }
        if !publish.topic.is_empty() {
            self.aliases.insert(alias, publish.topic.into());
        }
        self.aliases.get(&alias).cloned().ok_or(ReasonCode::ProtocolError)
    }

    /// A message was routed or refused. False when the connection has to end for it.
    pub fn published(&mut self, publish: &Publish<'_>, receipt: Receipt) -> bool {
        let (safe_at, reason) = match receipt {
            Receipt::Safe(reason) => (Lsn::ZERO, reason),
            Receipt::SafeAt(lsn, reason) => (lsn, reason),
            Receipt::SafeWith(entry, reason) => (entry.lsn, reason),
            Receipt::Refused(reason) => {
                // Before 5.0 only a missing right can be acknowledged, and without saying so [MQTT-3.3.5-2].
                let can_be_told = self.terms.version == Version::V5 || reason == ReasonCode::NotAuthorized;
                if publish.qos > Qos::AtMostOnce && !can_be_told {
                    return false;
                }
                (Lsn::ZERO, reason)
            }
        };
        let Some(id) = publish.packet_id else { return true };
        if publish.qos == Qos::AtLeastOnce {
            self.replies.push_back((Wait::For(safe_at), ReplyPacket::Puback(id, reason)));
            return true;
        }
        if !reason.is_error() {
            self.exchanges.insert(id.get(), safe_at);
        }
        self.replies.push_back((Wait::For(safe_at), ReplyPacket::Pubrec(id, reason)));
        true
    }

    pub fn handle_pubrel(&mut self, id: PacketId) {
        if self.exchanges.remove(&id.get()).is_none() {
            return self.push_now(ReplyPacket::Pubcomp(id, ReasonCode::PacketIdentifierNotFound));
        }
        // [MQTT-4.3.3-11]
        let wait = if self.durable { Wait::Report } else { Wait::For(Lsn::ZERO) };
        self.replies.push_back((wait, ReplyPacket::Pubcomp(id, ReasonCode::Success)));
    }

    /// False when the client broke the protocol.
    pub fn handle_puback(&mut self, id: PacketId) -> bool {
        match self.state(id) {
            Some(ExchangeState::AwaitingPuback) => self.finish(id),
            Some(_) => return false,
            None => {}
        }
        true
    }

    /// False when the client broke the protocol.
    pub fn handle_pubrec(&mut self, ack: Ack) -> bool {
        let pubrel = ReplyPacket::Pubrel(ack.packet_id, ReasonCode::Success);
        match self.state(ack.packet_id) {
            Some(ExchangeState::AwaitingPuback) => return false,
            Some(ExchangeState::AwaitingPubrec) if ack.reason.is_error() => self.finish(ack.packet_id),
            Some(ExchangeState::AwaitingPubrec) => {
                let Some(mut open) = self.take(ack.packet_id) else { return true };
                open.state = ExchangeState::AwaitingPubcomp;
                let is_stored = self.durable && open.owner.is_some();
                let wait = if is_stored { Wait::Report } else { Wait::For(Lsn::ZERO) };
                self.sent.insert(ack.packet_id.get(), open);
                self.replies.push_back((wait, pubrel));
            }
            Some(ExchangeState::AwaitingPubcomp) => self.release_again(pubrel),
            None if ack.reason.is_error() => {}
            None => {
                let reason = ReasonCode::PacketIdentifierNotFound;
                self.release_again(ReplyPacket::Pubrel(ack.packet_id, reason));
            }
        }
        true
    }

    /// False when the client broke the protocol.
    pub fn handle_pubcomp(&mut self, id: PacketId) -> bool {
        let state = self.state(id);
        if state == Some(ExchangeState::AwaitingPubcomp) {
            self.finish(id);
        } else if self.extra_releases > 0 {
            self.extra_releases -= 1;
        } else {
            return state.is_none();
        }
        true
    }

    /// A PUBREL that ends nothing is answered like any other.
    fn release_again(&mut self, pubrel: ReplyPacket) {
        self.extra_releases += 1;
        self.push_now(pubrel);
    }

    /// The exchange is over and its message is settled.
    pub fn finish(&mut self, id: PacketId) {
        if let Some(open) = self.take(id) {
            self.settle(open.number, open.owner);
        }
    }

    pub fn settle(&mut self, number: u64, owner: Option<RecipientNo>) {
        self.settled.extend(owner.map(|_| Lsn(number)));
    }

    /// Takes an exchange out that the client can know of.
    pub fn take(&mut self, id: PacketId) -> Option<Open> {
        if let Some(at) = self.waiting.iter().position(|(waiting, _)| *waiting == id.get()) {
            return Some(self.waiting.remove(at).1);
        }
        self.sent.remove(&id.get())
    }

    fn state(&self, id: PacketId) -> Option<ExchangeState> {
        let waiting = self.waiting.iter().find(|(waiting, _)| *waiting == id.get()).map(|(_, open)| open);
        waiting.or_else(|| self.sent.get(&id.get())).map(|open| open.state)
    }

    /// The report became this record.
    pub fn reported(&mut self, lsn: Lsn) {
        for (wait, _) in &mut self.replies {
            if *wait == Wait::Report {
                *wait = Wait::For(lsn);
            }
        }
        for held in &mut self.held {
            held.report.get_or_insert(lsn);
        }
    }

    /// Whether something waits for the next report.
    pub fn waits_for_report(&self) -> bool {
        self.replies.iter().any(|(wait, _)| *wait == Wait::Report)
            || self.held.iter().any(|held| held.report.is_none())
    }

    /// The replies that may be written, in order; false behind the one that does not fit the client.
    pub fn written(&mut self, watermark: Lsn) -> (Vec<Packet<'static>>, bool) {
        let mut packets = vec![Packet::Pingresp; std::mem::take(&mut self.pings)];
        while let Some((Wait::For(lsn), reply)) = self.replies.front() {
            if *lsn > watermark {
                break;
            }
            let closes = match reply {
                ReplyPacket::Puback(..) | ReplyPacket::Pubcomp(..) => true,
                ReplyPacket::Pubrec(_, reason) => reason.is_error(),
                _ => false,
            };
            if closes {
                self.open = self.open.saturating_sub(1);
            }
            if reply_len(self.terms.version, reply) > self.terms.max_packet_size as usize {
                return (packets, false);
            }
            packets.push(packet(self.terms.version, reply));
            self.replies.pop_front();
        }
        (packets, true)
    }

    /// Whether the client takes the PUBLISH of this message.
    pub fn fits(&self, item: &Item, now: UnixMillis) -> bool {
        let payload = item.payload();
        let knows = self.learned.iter().find(|(_, topic)| *topic == item.topic);
        let len = |topic: &str, alias| {
            let frame = PublishFrame {
                dup: false,
                qos: item.qos,
                retain: item.retain,
                packet_id: PacketId::new(1).filter(|_| item.qos > Qos::AtMostOnce),
                topic: topic.as_bytes(),
                alias,
                expiry: expiry(item, now),
                subscription_ids: &item.subscription_ids,
                properties: &[],
                payload_len: payload.len(),
            };
            frame.encoded_len(self.terms.version)
        };
        let max = self.terms.max_packet_size as usize;
        len(item.topic, None) <= max || knows.is_some_and(|(alias, _)| len("", Some(*alias)) <= max)
    }

    /// Checks a PUBLISH that the client got, but for its identifier.
    pub fn check_publish(&mut self, publish: &Publish<'_>, item: &Item, dup: bool, now: UnixMillis) {
        let Publish { qos, retain, topic, properties, payload, .. } = publish;
        assert_eq!((*qos, *retain, publish.dup), (item.qos, item.retain, dup), "{publish:?} for {item:?}");
        assert_eq!(*payload, item.payload());
        let mut topic = (*topic).to_owned();
        if let Some(alias) = properties.topic_alias.map(u16::from) {
            assert!(alias <= self.terms.topic_alias_out, "[MQTT-3.3.2-9] {publish:?}");
            if topic.is_empty() {
                topic = self.learned.get(&alias).expect("an alias that the client was not told").clone();
            } else {
                self.learned.insert(alias, topic.clone());
            }
        }
        assert_eq!(topic, item.topic);
        let is_v5 = self.terms.version == Version::V5;
        assert_eq!(properties.message_expiry, expiry(item, now).filter(|_| is_v5));
        let ids: Vec<_> = properties.subscription_identifiers().collect();
        assert_eq!(ids, if is_v5 { &item.subscription_ids[..] } else { &[] });
    }

    fn push_now(&mut self, reply: ReplyPacket) {
        self.replies.push_back((Wait::For(Lsn::ZERO), reply));
    }
}

/// Seconds that are left, rounded up.
fn expiry(item: &Item, now: UnixMillis) -> Option<u32> {
    let never = item.expires_at == UnixMillis::NEVER;
    (!never).then(|| (item.expires_at.since(now).as_millis().div_ceil(1000) as u32).max(1))
}

fn reply_len(version: Version, reply: &ReplyPacket) -> usize {
    let mut out = Vec::new();
    let (max, out_ref) = (MAX_PACKET_SIZE, &mut out);
    match reply {
        ReplyPacket::Puback(id, reason) => encode::puback(version, *id, *reason, None, max, out_ref),
        ReplyPacket::Pubrec(id, reason) => encode::pubrec(version, *id, *reason, None, max, out_ref),
        ReplyPacket::Pubrel(id, reason) => encode::pubrel(version, *id, *reason, None, max, out_ref),
        ReplyPacket::Pubcomp(id, reason) => encode::pubcomp(version, *id, *reason, None, max, out_ref),
        ReplyPacket::Auth(auth) => encode::auth(auth, None, max, out_ref),
        ReplyPacket::Suback(ack) => encode::suback(version, ack.packet_id, &ack.reasons, None, max, out_ref),
        ReplyPacket::Unsuback(ack) => {
            encode::unsuback(version, ack.packet_id, &ack.reasons, None, max, out_ref)
        }
    }
    .unwrap();
    out.len()
}

/// What a client of this version reads.
fn packet(version: Version, reply: &ReplyPacket) -> Packet<'static> {
    let is_v5 = version == Version::V5;
    let ack = |packet_id: &PacketId, reason: &ReasonCode| Ack {
        packet_id: *packet_id,
        reason: if is_v5 { *reason } else { ReasonCode::Success },
    };
    match reply {
        ReplyPacket::Puback(id, reason) => Packet::Puback(ack(id, reason)),
        ReplyPacket::Pubrec(id, reason) => Packet::Pubrec(ack(id, reason)),
        ReplyPacket::Pubrel(id, reason) => Packet::Pubrel(ack(id, reason)),
        ReplyPacket::Pubcomp(id, reason) => Packet::Pubcomp(ack(id, reason)),
        ReplyPacket::Auth(auth) => Packet::Auth((**auth).clone()),
        ReplyPacket::Suback(suback) => {
            let old =
                |reason: &ReasonCode| if reason.is_error() { ReasonCode::UnspecifiedError } else { *reason };
            let reasons = suback.reasons.iter().map(|reason| if is_v5 { *reason } else { old(reason) });
            Packet::Suback(Suback { packet_id: suback.packet_id, reasons: reasons.collect() })
        }
        ReplyPacket::Unsuback(unsuback) => {
            let reasons = if is_v5 { unsuback.reasons.clone() } else { Vec::new() };
            Packet::Unsuback(Suback { packet_id: unsuback.packet_id, reasons })
        }
    }
}

/// A PUBLISH without properties.
pub fn publish<'a>(qos: Qos, id: u16, topic: &'a str, payload: &'a str) -> Publish<'a> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: PacketId::new(id).filter(|_| qos > Qos::AtMostOnce),
        properties: PublishProperties::default(),
        payload: payload.as_bytes(),
    }
}
