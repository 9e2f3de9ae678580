//! Tests of the session: by hand rule by rule, cut at every byte, and at random against a model.

mod inbound;
mod model;
mod outbound;
mod outgoing;
mod reports;
mod resume;
mod store;
mod terms;

use super::*;
use crate::codec::{
    Ack, Connect, Decoder, MAX_PACKET_SIZE, Packet, PacketId, Publish, PublishProperties, Qos,
};
use crate::record::{Exchange, ExchangeState, Lsn, Message, MessageParts, SessionDelta, SubscriptionIds};

const NOW: UnixMillis = UnixMillis(1_000_000);
const OWN: RecipientNo = RecipientNo(7);
const GROUP: RecipientNo = RecipientNo(8);

fn limits() -> SessionLimits {
    SessionLimits {
        receive_maximum: 10,
        inflight: 20,
        topic_alias_maximum: 3,
        topic_levels: 8,
        packet_size: 1000,
        keep_alive_max: 0,
        session_expiry: 3600,
        offer: Offer::EVERYTHING,
        response_information: None,
    }
}

fn connect(version: Version) -> Connect<'static> {
    Connect::new(version, "c")
}

fn terms(version: Version, change: impl FnOnce(&mut Connect<'static>, &mut SessionLimits)) -> Terms {
    let (mut connect, mut limits) = (connect(version), limits());
    change(&mut connect, &mut limits);
    Terms::agree(&connect, &limits, || "assigned".into()).unwrap()
}

fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

fn ack(number: u16) -> Ack {
    Ack { packet_id: id(number), reason: ReasonCode::Success }
}

fn refusal(number: u16) -> Ack {
    Ack { packet_id: id(number), reason: ReasonCode::UnspecifiedError }
}

fn publish(qos: Qos, number: u16, payload: &str) -> Publish<'_> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic: "t",
        packet_id: (qos > Qos::AtMostOnce).then(|| id(number)),
        properties: PublishProperties::default(),
        payload: payload.as_bytes(),
    }
}

fn message(topic: &str, payload: &[u8], expires_at: UnixMillis) -> Message {
    let parts = MessageParts {
        qos: Qos::ExactlyOnce,
        retain: false,
        published_at: NOW,
        expires_at,
        topic,
        properties: &[],
        payload,
        publisher: "p",
    };
    Message::new(&parts, &mut Vec::new())
}

/// A message without a claim.
fn passing(qos: Qos, payload: &str) -> Delivery {
    Delivery {
        message: message("t", payload.as_bytes(), UnixMillis::NEVER),
        qos,
        retain: false,
        subscription_ids: SubscriptionIds::new(),
        not_before: Lsn::ZERO,
        claim: None,
    }
}

/// A message that the store owes to `owner`.
fn owed(qos: Qos, owner: RecipientNo, lsn: u64) -> Delivery {
    let claim = Some(Claim { lsn: Lsn(lsn), owner, entry: None });
    Delivery { claim, ..passing(qos, &lsn.to_string()) }
}

/// What the client was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Publish { id: u16, qos: Qos, dup: bool, topic: String, alias: u16, expiry: Option<u32>, payload: String },
    Puback(u16, ReasonCode),
    Pubrec(u16, ReasonCode),
    Pubrel(u16, ReasonCode),
    Pubcomp(u16, ReasonCode),
    Other,
}

impl Seen {
    fn from_packet(packet: &Packet<'_>) -> Self {
        match packet {
            Packet::Publish(publish) => Self::Publish {
                id: publish.packet_id.map_or(0, PacketId::get),
                qos: publish.qos,
                dup: publish.dup,
                topic: publish.topic.into(),
                alias: publish.properties.topic_alias.map_or(0, std::num::NonZeroU16::get),
                expiry: publish.properties.message_expiry,
                payload: String::from_utf8_lossy(publish.payload).into(),
            },
            Packet::Puback(ack) => Self::Puback(ack.packet_id.get(), ack.reason),
            Packet::Pubrec(ack) => Self::Pubrec(ack.packet_id.get(), ack.reason),
            Packet::Pubrel(ack) => Self::Pubrel(ack.packet_id.get(), ack.reason),
            Packet::Pubcomp(ack) => Self::Pubcomp(ack.packet_id.get(), ack.reason),
            _ => Self::Other,
        }
    }

    fn publish(id: u16, qos: Qos, dup: bool, payload: &str) -> Self {
        let payload = payload.into();
        Self::Publish { id, qos, dup, topic: "t".into(), alias: 0, expiry: None, payload }
    }
}

fn flat(out: &mut Outgoing) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !out.is_empty() {
        let written = out.with_slices(|slices| {
            slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
            slices.iter().map(|slice| slice.len()).sum()
        });
        out.advance(written);
    }
    bytes
}

fn decode(version: Version, bytes: &[u8]) -> Vec<Seen> {
    let (mut decoder, mut seen, mut at) = (Decoder::client(version, MAX_PACKET_SIZE), Vec::new(), 0);
    while let Some((packet, len)) = decoder.decode(&bytes[at..]).unwrap() {
        seen.push(Seen::from_packet(&packet));
        at += len;
    }
    assert_eq!(at, bytes.len(), "whole packets only");
    seen
}

/// A session, and the buffer it writes into.
struct Peer {
    session: Session,
    out: Outgoing,
    watermark: Lsn,
}

impl Peer {
    fn new(terms: &Terms, durable: bool) -> Self {
        Self::resumed(terms, durable, None, false)
    }

    fn durable() -> Self {
        Self::new(&terms(Version::V5, |connect, _| connect.session_expiry = Some(100)), true)
    }

    fn passing() -> Self {
        Self::new(&terms(Version::V5, |_, _| ()), false)
    }

    fn resumed(terms: &Terms, durable: bool, progress: Option<&Progress>, torn: bool) -> Self {
        let durable = durable.then_some(Durable { recipient: OWN, epoch: Epoch(1) });
        let session = Session::new(terms, durable, progress, torn, NOW);
        Self { session, out: Outgoing::default(), watermark: Lsn(100) }
    }

    fn deliver(&mut self, delivery: Delivery) -> Outcome {
        self.session.deliver(NOW, delivery, &mut self.out)
    }

    /// A PUBLISH that needs no disk, or is safe at `lsn`.
    fn route(&mut self, publish: &Publish<'_>, lsn: u64) -> bool {
        match self.session.handle_publish(publish).unwrap() {
            Incoming::Nothing => false,
            Incoming::Route(_) => {
                let receipt = match lsn {
                    0 => Receipt::Safe(ReasonCode::Success),
                    lsn => Receipt::SafeAt(Lsn(lsn), ReasonCode::Success),
                };
                self.session.published(publish, receipt).unwrap();
                true
            }
        }
    }

    /// Writes what may be written, and decodes it.
    fn seen(&mut self) -> Vec<Seen> {
        self.session.write_replies(self.watermark, &mut self.out).unwrap();
        self.session.write_held(NOW, self.watermark, &mut self.out);
        decode(self.session.version(), &flat(&mut self.out))
    }

    /// Tells what was settled, and takes the report, which becomes the record `lsn`.
    fn report(&mut self, lsn: u64) -> Option<SessionDelta> {
        let delta = self.unnumbered_report();
        if delta.is_some() {
            self.session.reported(Lsn(lsn));
        }
        delta
    }

    fn unnumbered_report(&mut self) -> Option<SessionDelta> {
        for claim in self.session.take_settled() {
            self.session.settle_by_report(&claim, NOW);
        }
        self.session.take_report()
    }

    fn settled(&mut self) -> Vec<Lsn> {
        self.session.take_settled().map(|claim| claim.lsn).collect()
    }
}

#[test]
fn an_idle_session_is_small() {
    // Ten thousand idle clients have 3 KB each, for everything.
    assert!(size_of::<Session>() <= 512, "{} bytes", size_of::<Session>());
}

#[test]
fn keep_alive_allows_one_and_a_half_times() {
    let mut session =
        Session::new(&terms(Version::V311, |connect, _| connect.keep_alive = 10), None, None, false, NOW);
    assert_eq!(session.deadline(), Some(UnixMillis(NOW.0 + 15_000)));
    assert!(session.handle_time(UnixMillis(NOW.0 + 14_999)).is_ok());
    let close = session.handle_time(UnixMillis(NOW.0 + 15_000)).unwrap_err();
    assert_eq!(close.reason, ReasonCode::KeepAliveTimeout);
    session.heard(UnixMillis(NOW.0 + 15_000));
    assert!(session.handle_time(UnixMillis(NOW.0 + 15_000)).is_ok());
    // A clock at its end does not wrap.
    session.heard(UnixMillis(u64::MAX - 1));
    assert_eq!(session.deadline(), Some(UnixMillis::NEVER));
    let off = Session::new(&terms(Version::V311, |_, _| ()), None, None, false, NOW);
    assert_eq!(off.deadline(), None);
}

#[test]
fn pings_are_answered_with_a_full_window_too() {
    let mut peer = Peer::new(&terms(Version::V311, |_, limits| limits.inflight = 1), false);
    assert_eq!(peer.deliver(passing(Qos::AtLeastOnce, "a")), Outcome::Taken);
    assert_eq!(peer.deliver(passing(Qos::AtLeastOnce, "b")), Outcome::NoWindow);
    peer.session.handle_pingreq();
    peer.session.handle_pingreq();
    let seen = peer.seen();
    assert_eq!(seen[1..], [Seen::Other, Seen::Other], "{seen:?}");
}

#[test]
fn disconnect_does_not_raise_the_expiry_from_zero() {
    let expiring = Peer::durable();
    assert_eq!(expiring.session.expiry_at_disconnect(Some(5)), Ok(Some(5)));
    assert_eq!(expiring.session.expiry_at_disconnect(Some(4000)), Ok(Some(3600)));
    assert_eq!(expiring.session.expiry_at_disconnect(Some(0)), Ok(Some(0)));
    assert_eq!(expiring.session.expiry_at_disconnect(None), Ok(None));
    // Also when the session it resumed had one: the CONNECT counts [MQTT-3.14.2-2].
    let ending = Peer::new(&terms(Version::V5, |_, _| ()), true);
    assert_eq!(ending.session.expiry_at_disconnect(Some(0)), Ok(Some(0)));
    assert_eq!(ending.session.expiry_at_disconnect(Some(5)).unwrap_err().reason, ReasonCode::ProtocolError);
}
