//! 200 000 packets with something wrong in them, the same ones each time: none makes the codec panic, and
//! what it accepts is what mqttbytes reads too, where mqttbytes is right.

use bytes::BytesMut;
use mqttbytes::{v4, v5};

use super::super::*;
use super::{LIMIT, VERSIONS, body, decoder, frame, samples};

const ROUNDS: usize = 200_000;

/// xorshift64*: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % sides
    }

    /// A byte of the kind that makes trouble, or any.
    fn byte(&mut self) -> u8 {
        const TROUBLE: [u8; 12] = [0, 1, 2, 3, 4, 0x0B, 0x23, 0x26, 0x7F, 0x80, 0xFE, 0xFF];
        if self.roll(2) == 0 { TROUBLE[self.roll(TROUBLE.len())] } else { self.roll(256) as u8 }
    }
}

#[test]
fn mutations() {
    let mut dice = Dice(0x5EED_0001);
    let seeds: Vec<_> = VERSIONS
        .into_iter()
        .flat_map(|version| samples(version).into_iter().map(move |(from, bytes)| (version, from, bytes)))
        .collect();
    let mut accepted = 0;
    let mut compared = 0;
    for round in 0..ROUNDS {
        let (version, from, seed) = &seeds[dice.roll(seeds.len())];
        let bytes = mutated(seed, &mut dice);
        let mut decoder = decoder(*from, *version, &bytes);
        let Ok(Some((packet, len))) = decoder.decode(&bytes) else { continue };
        accepted += 1;
        let version = decoder.version().unwrap();
        compared += usize::from(agrees(&packet, version, &bytes[..len], round));
    }
    // Enough of both, or the test tests nothing.
    assert!(accepted > ROUNDS / 20, "{accepted}");
    assert!(compared > accepted / 2, "{compared} of {accepted}");
}

/// One to three changes; in most cases the length is put right again, so that the body is looked at.
fn mutated(seed: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut content = body(seed).to_vec();
    let mut first = seed[0];
    for _ in 0..=dice.roll(3) {
        let at = dice.roll(content.len().max(1));
        match dice.roll(8) {
            0 => first ^= 1 << dice.roll(8),
            1 if at < content.len() => drop(content.remove(at)),
            2 => content.truncate(at),
            3 => content.insert(at, dice.byte()),
            4 => content.extend_from_slice(&[dice.byte(), dice.byte()]),
            5 if at < content.len() => {
                let copy = content[at..(at + dice.roll(8)).min(content.len())].to_vec();
                content.splice(at..at, copy);
            }
            _ if at < content.len() => content[at] = dice.byte(),
            _ => {}
        }
    }
    let mut bytes = frame(first, &[&content]);
    if dice.roll(8) == 0 {
        let at = dice.roll(bytes.len());
        bytes[at] = dice.byte();
    }
    bytes
}

/// Compares with mqttbytes; `false` where its answer is known to be wrong, or noise.
fn agrees(packet: &Packet<'_>, version: Version, bytes: &[u8], round: usize) -> bool {
    if is_not_for_mqttbytes(packet, version) {
        return false;
    }
    let context = format!("round {round}, {version:?}, {bytes:02x?}, {packet:?}");
    let mut buffer = BytesMut::from(bytes);
    if version == Version::V5 {
        match v5::read(&mut buffer, LIMIT as usize) {
            Ok(other) => assert!(is_same_v5(packet, &other), "{context}, {other:?}"),
            Err(error) => panic!("{context}, {error:?}"),
        }
    } else {
        match v4::read(&mut buffer, LIMIT as usize) {
            Ok(other) => assert!(is_same_v4(packet, &other), "{context}, {other:?}"),
            Err(error) => panic!("{context}, {error:?}"),
        }
    }
    true
}

/// What mqttbytes 0.6.0 gets wrong.
fn is_not_for_mqttbytes(packet: &Packet<'_>, version: Version) -> bool {
    match packet {
        // It has no AUTH, no MQTT 3.1, and takes passwords for text.
        Packet::Auth(_) => true,
        Packet::Connect(connect) => {
            version == Version::V31
                || connect.password.is_some_and(|bytes| std::str::from_utf8(bytes).is_err())
        }
        // It counts each subscription identifier twice, and then takes properties for payload.
        Packet::Publish(publish) => publish.properties.subscription_identifiers().next().is_some(),
        // It refuses the short forms.
        Packet::Disconnect(_) => version == Version::V5,
        // It writes to standard error.
        Packet::Unsubscribe(_) => version == Version::V5,
        _ => false,
    }
}

fn is_same_v4(packet: &Packet<'_>, other: &v4::Packet) -> bool {
    match (packet, other) {
        (Packet::Connect(a), v4::Packet::Connect(b)) => {
            let will = b.last_will.as_ref().map(|will| (will.topic.as_str(), &will.message[..], will.retain));
            (a.client_id, a.keep_alive, a.clean_start)
                == (b.client_id.as_str(), b.keep_alive, b.clean_session)
                && a.will.as_ref().map(|will| (will.topic, will.payload, will.retain)) == will
        }
        (Packet::Connack(a), v4::Packet::ConnAck(b)) => {
            (a.session_present, a.reason.connack_v3()) == (b.session_present, Some(b.code as u8))
        }
        (Packet::Publish(a), v4::Packet::Publish(b)) => {
            let id = a.packet_id.map_or(0, PacketId::get);
            (a.topic, a.payload, id) == (b.topic.as_str(), &b.payload[..], b.pkid)
                && (a.dup, a.retain, a.qos as u8) == (b.dup, b.retain, b.qos as u8)
        }
        (Packet::Puback(a), v4::Packet::PubAck(b)) => a.packet_id.get() == b.pkid,
        (Packet::Pubrec(a), v4::Packet::PubRec(b)) => a.packet_id.get() == b.pkid,
        (Packet::Pubrel(a), v4::Packet::PubRel(b)) => a.packet_id.get() == b.pkid,
        (Packet::Pubcomp(a), v4::Packet::PubComp(b)) => a.packet_id.get() == b.pkid,
        (Packet::Subscribe(a), v4::Packet::Subscribe(b)) => {
            let entries = |entry: &v4::SubscribeFilter| (entry.path.clone(), entry.qos as u8);
            let ours = a.filters.iter().map(|entry| (entry.filter.clone(), entry.options.qos as u8));
            a.packet_id.get() == b.pkid && ours.eq(b.filters.iter().map(entries))
        }
        (Packet::Suback(a), v4::Packet::SubAck(b)) => {
            a.packet_id.get() == b.pkid && a.reasons.len() == b.return_codes.len()
        }
        (Packet::Unsubscribe(a), v4::Packet::Unsubscribe(b)) => {
            (a.packet_id.get(), &a.filters) == (b.pkid, &b.topics)
        }
        (Packet::Unsuback(a), v4::Packet::UnsubAck(b)) => a.packet_id.get() == b.pkid && a.reasons.is_empty(),
        (Packet::Pingreq, v4::Packet::PingReq) | (Packet::Pingresp, v4::Packet::PingResp) => true,
        (Packet::Disconnect(_), v4::Packet::Disconnect) => true,
        _ => false,
    }
}

fn is_same_v5(packet: &Packet<'_>, other: &v5::Packet) -> bool {
    let is_ack = |ack: &Ack, id: u16, code: u8| (ack.packet_id.get(), ack.reason as u8) == (id, code);
    match (packet, other) {
        (Packet::Connect(a), v5::Packet::Connect(b)) => is_same_connect(a, b),
        (Packet::Connack(a), v5::Packet::ConnAck(b)) => is_same_connack(a, b),
        (Packet::Publish(a), v5::Packet::Publish(b)) => is_same_publish(a, b),
        (Packet::Puback(a), v5::Packet::PubAck(b)) => is_ack(a, b.pkid, b.reason as u8),
        (Packet::Pubrec(a), v5::Packet::PubRec(b)) => is_ack(a, b.pkid, b.reason as u8),
        (Packet::Pubrel(a), v5::Packet::PubRel(b)) => is_ack(a, b.pkid, b.reason as u8),
        (Packet::Pubcomp(a), v5::Packet::PubComp(b)) => is_ack(a, b.pkid, b.reason as u8),
        (Packet::Subscribe(a), v5::Packet::Subscribe(b)) => {
            let id = b.properties.as_ref().and_then(|properties| properties.id);
            let ours = a.filters.iter().map(|entry| (&entry.filter, entry.options.no_local));
            a.packet_id.get() == b.pkid
                && a.subscription_id.map(|id| id as usize) == id
                && ours.eq(b.filters.iter().map(|entry| (&entry.path, entry.nolocal)))
        }
        (Packet::Suback(a), v5::Packet::SubAck(b)) => {
            let codes = b.return_codes.iter().map(|code| *code as u8);
            a.packet_id.get() == b.pkid && a.reasons.iter().map(|code| *code as u8).eq(codes)
        }
        (Packet::Unsuback(a), v5::Packet::UnsubAck(b)) => {
            let codes = b.reasons.iter().map(|code| *code as u8);
            a.packet_id.get() == b.pkid && a.reasons.iter().map(|code| *code as u8).eq(codes)
        }
        (Packet::Pingreq, v5::Packet::PingReq) | (Packet::Pingresp, v5::Packet::PingResp) => true,
        _ => false,
    }
}

fn is_same_connect(a: &Connect<'_>, b: &v5::Connect) -> bool {
    let properties = b.properties.as_ref();
    let will = b.last_will.as_ref().map(|will| (will.topic.as_str(), &will.message[..], will.retain));
    let delay = b.last_will.as_ref().and_then(|will| will.properties.as_ref()?.delay_interval);
    (a.client_id, a.keep_alive, a.clean_start) == (b.client_id.as_str(), b.keep_alive, b.clean_session)
        && a.will.as_ref().map(|will| (will.topic, will.payload, will.retain)) == will
        && a.will.as_ref().map_or(0, |will| will.delay) == delay.unwrap_or(0)
        && a.session_expiry == properties.and_then(|properties| properties.session_expiry_interval)
        && a.maximum_packet_size == properties.and_then(|properties| properties.max_packet_size)
}

fn is_same_connack(a: &Connack, b: &v5::ConnAck) -> bool {
    let (ours, theirs) = (&a.properties, b.properties.as_ref());
    a.session_present == b.session_present
        && ours.session_expiry == theirs.and_then(|theirs| theirs.session_expiry_interval)
        && ours.assigned_client_id == theirs.and_then(|theirs| theirs.assigned_client_identifier.clone())
        && ours.reason_string == theirs.and_then(|theirs| theirs.reason_string.clone())
        && ours.user_properties == theirs.map_or(Vec::new(), |theirs| theirs.user_properties.clone())
}

fn is_same_publish(a: &Publish<'_>, b: &v5::Publish) -> bool {
    let (ours, theirs) = (&a.properties, b.properties.as_ref());
    let users = ours.user_properties().map(|(name, value)| (name.to_owned(), value.to_owned()));
    (a.topic, a.payload, a.packet_id.map_or(0, PacketId::get)) == (b.topic.as_str(), &b.payload[..], b.pkid)
        && (a.dup, a.retain, a.qos as u8) == (b.dup, b.retain, b.qos as u8)
        && ours.topic_alias.map(|alias| alias.get()) == theirs.and_then(|theirs| theirs.topic_alias)
        && ours.message_expiry == theirs.and_then(|theirs| theirs.message_expiry_interval)
        && ours.response_topic() == theirs.and_then(|theirs| theirs.response_topic.as_deref())
        && ours.content_type() == theirs.and_then(|theirs| theirs.content_type.as_deref())
        && users.eq(theirs.map_or(Vec::new(), |theirs| theirs.user_properties.clone()))
}
