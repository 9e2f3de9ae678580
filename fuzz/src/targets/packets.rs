//! Packets as the codec targets see them: whose decoder, and back to bytes.

use causeway::codec::{
    Decoder, EncodeError, MAX_PACKET_SIZE, Packet, PacketId, Publish, PublishFrame, PublishProperties,
    Version, encode,
};

use super::Input;

/// Whose packets are decoded, from the first byte of an input.
#[derive(Clone, Copy, Debug)]
pub enum Peer {
    /// A client that has not sent its CONNECT yet.
    New,
    /// A client that has.
    Client(Version),
    /// A server.
    Server(Version),
}

impl Peer {
    pub fn choose(input: &mut Input<'_>) -> Self {
        use Version::{V5, V31, V311};
        input.pick(&[
            Self::New,
            Self::Client(V31),
            Self::Client(V311),
            Self::Client(V5),
            Self::Server(V31),
            Self::Server(V311),
            Self::Server(V5),
        ])
    }

    /// A decoder in the state in which the packets come. The limit has to leave room for a CONNECT.
    pub fn decoder(self, max_packet_size: u32) -> Decoder {
        match self {
            Self::New => Decoder::server(max_packet_size),
            Self::Server(version) => Decoder::client(version, max_packet_size),
            Self::Client(version) => {
                let mut decoder = Decoder::server(max_packet_size);
                let connect: &[u8] = match version {
                    Version::V31 => b"\x10\x0F\0\x06MQIsdp\x03\x02\0\0\0\x01c",
                    Version::V311 => b"\x10\x0D\0\x04MQTT\x04\x02\0\0\0\x01c",
                    Version::V5 => b"\x10\x0E\0\x04MQTT\x05\x02\0\0\0\0\x01c",
                };
                assert!(matches!(decoder.decode(connect), Ok(Some((Packet::Connect(_), _)))));
                decoder
            }
        }
    }
}

/// The packet as this codec writes it.
pub fn encoded(version: Version, packet: &Packet<'_>) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::new();
    let (max, out) = (MAX_PACKET_SIZE, &mut bytes);
    match packet {
        Packet::Connect(connect) => {
            // What the decoder says of a will's properties is about the bytes they came in.
            let mut connect = connect.clone();
            let mut kept = Vec::new();
            if let Some(will) = &mut connect.will {
                kept = forwarded(&will.properties);
                let message_expiry = will.properties.message_expiry;
                will.properties =
                    PublishProperties { message_expiry, ..PublishProperties::from_forwarded(&kept) };
                encode::connect(&connect, out)
            } else {
                encode::connect(&connect, out)
            }?;
            drop(kept);
        }
        Packet::Connack(connack) => encode::connack(version, connack, max, out)?,
        Packet::Publish(publish) => encode_publish(version, publish, out)?,
        Packet::Puback(ack) => encode::puback(version, ack.packet_id, ack.reason, None, max, out)?,
        Packet::Pubrec(ack) => encode::pubrec(version, ack.packet_id, ack.reason, None, max, out)?,
        Packet::Pubrel(ack) => encode::pubrel(version, ack.packet_id, ack.reason, None, max, out)?,
        Packet::Pubcomp(ack) => encode::pubcomp(version, ack.packet_id, ack.reason, None, max, out)?,
        Packet::Subscribe(subscribe) => encode::subscribe(version, subscribe, out)?,
        Packet::Suback(ack) => encode::suback(version, ack.packet_id, &ack.reasons, None, max, out)?,
        Packet::Unsubscribe(unsubscribe) => encode::unsubscribe(version, unsubscribe, out)?,
        Packet::Unsuback(ack) => encode::unsuback(version, ack.packet_id, &ack.reasons, None, max, out)?,
        Packet::Pingreq => encode::pingreq(out)?,
        Packet::Pingresp => encode::pingresp(out)?,
        Packet::Disconnect(disconnect) => encode::disconnect(version, disconnect, max, out)?,
        Packet::Auth(auth) => encode::auth(auth, None, max, out)?,
    }
    Ok(bytes)
}

/// As a broker hands a message on: what it acts on apart, the other properties as they came.
fn encode_publish(version: Version, publish: &Publish<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let properties = &publish.properties;
    let frame = PublishFrame {
        dup: publish.dup,
        qos: publish.qos,
        retain: publish.retain,
        packet_id: publish.packet_id,
        topic: publish.topic.as_bytes(),
        alias: properties.topic_alias.map(std::num::NonZeroU16::get),
        expiry: properties.message_expiry,
        subscription_ids: &properties.subscription_identifiers().collect::<Vec<_>>(),
        properties: &forwarded(properties),
        payload_len: 0,
    };
    encode::publish(version, &frame, publish.payload, MAX_PACKET_SIZE, out)?;
    assert_eq!(PublishFrame { payload_len: publish.payload.len(), ..frame }.encoded_len(version), out.len());
    Ok(())
}

/// The property bytes that are forwarded, in one piece.
pub fn forwarded(properties: &PublishProperties<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    properties.forwarded(|run| bytes.extend_from_slice(run));
    assert_eq!(bytes.len(), properties.forwarded_len, "{properties:?}");
    bytes
}

/// What can be said of any packet that came out of a decoder.
pub fn check(version: Version, packet: &Packet<'_>) {
    match packet {
        Packet::Publish(publish) => {
            assert_eq!(publish.packet_id.is_some(), publish.qos as u8 > 0);
            assert!(!publish.dup || publish.qos as u8 > 0);
            assert!(!publish.topic.contains(['\0', '+', '#']));
            assert!(!publish.topic.is_empty() || publish.properties.topic_alias.is_some());
            check_properties(version, &publish.properties);
        }
        Packet::Connect(connect) => {
            if let Some(will) = &connect.will {
                assert!(!will.topic.is_empty() && !will.topic.contains(['\0', '+', '#']));
                assert_eq!(will.properties.topic_alias, None);
                check_properties(version, &will.properties);
            }
            assert!(!connect.client_id.contains('\0'));
        }
        Packet::Subscribe(subscribe) => assert!(!subscribe.filters.is_empty()),
        Packet::Unsubscribe(unsubscribe) => assert!(!unsubscribe.filters.is_empty()),
        _ => {}
    }
}

/// Every accessor, on the properties as they came and as they are kept.
fn check_properties(version: Version, properties: &PublishProperties<'_>) {
    assert!(version == Version::V5 || properties.raw.is_empty());
    let kept = forwarded(properties);
    let kept = PublishProperties::from_forwarded(&kept);
    assert!(properties.user_properties().eq(kept.user_properties()));
    assert_eq!(properties.response_topic(), kept.response_topic());
    assert_eq!(properties.content_type(), kept.content_type());
    assert_eq!(properties.correlation_data(), kept.correlation_data());
    assert_eq!(properties.payload_format_is_utf8(), kept.payload_format_is_utf8());
    assert!(kept.subscription_identifiers().next().is_none());
    if let Some(topic) = properties.response_topic() {
        assert!(!topic.contains(['\0', '+', '#']));
    }
}

/// The packet without what depends on the order in which properties came, and without the Session Present
/// that MQTT 3.1 does not have: its byte is reserved, read and not written.
pub fn in_order(version: Version, mut packet: Packet<'_>) -> (Packet<'_>, Vec<u8>, Vec<u32>) {
    let properties = match &mut packet {
        Packet::Connack(connack) if version == Version::V31 => {
            connack.session_present = false;
            return (packet, Vec::new(), Vec::new());
        }
        Packet::Publish(publish) => &mut publish.properties,
        Packet::Connect(connect) => match &mut connect.will {
            Some(will) => &mut will.properties,
            None => return (packet, Vec::new(), Vec::new()),
        },
        _ => return (packet, Vec::new(), Vec::new()),
    };
    let (kept, ids) = (forwarded(properties), properties.subscription_identifiers().collect());
    properties.raw = &[];
    (packet, kept, ids)
}

/// The identifier that a reply to the packet names.
pub fn packet_id(packet: &Packet<'_>) -> Option<PacketId> {
    match packet {
        Packet::Publish(publish) => publish.packet_id,
        Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubrel(ack) | Packet::Pubcomp(ack) => {
            Some(ack.packet_id)
        }
        Packet::Subscribe(subscribe) => Some(subscribe.packet_id),
        Packet::Unsubscribe(unsubscribe) => Some(unsubscribe.packet_id),
        Packet::Suback(ack) | Packet::Unsuback(ack) => Some(ack.packet_id),
        _ => None,
    }
}
