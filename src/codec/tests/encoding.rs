//! What encoders write byte by byte, what they leave out, and what they refuse.

use super::super::*;
use super::{From, LIMIT, VERSIONS, decode};

pub(super) type EncodeAck =
    fn(Version, PacketId, ReasonCode, Option<&str>, u32, &mut Vec<u8>) -> Result<(), EncodeError>;
pub(super) type WrapAck = fn(Ack) -> Packet<'static>;

pub(super) const ACKS: [(EncodeAck, WrapAck); 4] = [
    (encode::puback, Packet::Puback),
    (encode::pubrec, Packet::Pubrec),
    (encode::pubrel, Packet::Pubrel),
    (encode::pubcomp, Packet::Pubcomp),
];

fn encoded(encode: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out).unwrap();
    out
}

#[test]
fn packets_without_choices() {
    let id = PacketId::new(0x0102).unwrap();
    for version in VERSIONS {
        let ack = encoded(|out| encode::pubrel(version, id, ReasonCode::Success, None, 4, out));
        assert_eq!(ack, [0x62, 2, 1, 2]);
        let bye = Disconnect::default();
        assert_eq!(encoded(|out| encode::disconnect(version, &bye, 2, out)), [0xE0, 0]);
    }
    assert_eq!(encoded(encode::pingreq), [0xC0, 0]);
    assert_eq!(encoded(encode::pingresp), [0xD0, 0]);
    let success = Auth { reason: ReasonCode::Success, method: String::new(), data: None };
    assert_eq!(encoded(|out| encode::auth(&success, None, 2, out)), [0xF0, 0]);
    let full = Disconnect { reason: ReasonCode::QuotaExceeded, ..Disconnect::default() };
    assert_eq!(encoded(|out| encode::disconnect(Version::V5, &full, 3, out)), [0xE0, 1, 0x97]);
}

#[test]
fn connack_before_5_0() {
    let connack =
        |reason| Connack { session_present: true, reason, properties: ConnackProperties::default() };
    let encode = |version, reason| encoded(|out| encode::connack(version, &connack(reason), 4, out));
    assert_eq!(encode(Version::V311, ReasonCode::Success), [0x20, 2, 1, 0]);
    assert_eq!(encode(Version::V31, ReasonCode::Success), [0x20, 2, 0, 0]);
    assert_eq!(encode(Version::V311, ReasonCode::NotAuthorized), [0x20, 2, 0, 5]);
    assert_eq!(encode(Version::V311, ReasonCode::UnsupportedProtocolVersion), [0x20, 2, 0, 1]);
    let mut out = Vec::new();
    let error = encode::connack(Version::V311, &connack(ReasonCode::MalformedPacket), 4, &mut out);
    assert_eq!(error, Err(EncodeError::NoReturnCode(ReasonCode::MalformedPacket)));
    let refusal = encoded(|out| encode::connack(Version::V5, &connack(ReasonCode::Banned), 5, out));
    assert_eq!(refusal, [0x20, 3, 0, 0x8A, 0]);
}

/// [MQTT-3.4.2-2] and its like: what only explains is left out, what is left must fit.
#[test]
fn diagnostics_give_way_to_the_receivers_limit() {
    let id = PacketId::new(1).unwrap();
    let why = Some("a long explanation");
    for (encode, _) in ACKS {
        let whole = encoded(|out| encode(Version::V5, id, ReasonCode::Success, why, 28, out));
        assert_eq!(whole.len(), 27);
        let short = encoded(|out| encode(Version::V5, id, ReasonCode::Success, why, 26, out));
        assert_eq!(short.len(), 4);
    }
    let codes = [ReasonCode::Success];
    let whole = encoded(|out| encode::suback(Version::V5, id, &codes, why, 27, out));
    assert_eq!(whole.len(), 27);
    let short = encoded(|out| encode::suback(Version::V5, id, &codes, why, 26, out));
    assert_eq!(short, [0x90, 4, 0, 1, 0, 0]);
    let short = encoded(|out| encode::unsuback(Version::V5, id, &codes, why, 26, out));
    assert_eq!(short, [0xB0, 4, 0, 1, 0, 0]);

    let mut out = b"before".to_vec();
    let error = encode::suback(Version::V5, id, &codes, why, 5, &mut out);
    assert_eq!(error, Err(EncodeError::PacketTooLarge { len: 6, max: 5 }));
    assert_eq!(out, b"before");

    let disconnect = Disconnect {
        reason: ReasonCode::ServerMoved,
        reason_string: why.map(str::to_owned),
        server_reference: Some("b".to_owned()),
        ..Disconnect::default()
    };
    let whole = encoded(|out| encode::disconnect(Version::V5, &disconnect, 29, out));
    assert_eq!(whole.len(), 29);
    let short = encoded(|out| encode::disconnect(Version::V5, &disconnect, 28, out));
    assert_eq!(short, [0xE0, 1, 0x9D]);

    let properties = ConnackProperties {
        server_keep_alive: Some(9),
        response_information: Some("r".to_owned()),
        server_reference: Some("b".to_owned()),
        reason_string: why.map(str::to_owned),
        user_properties: vec![("name".to_owned(), "value".to_owned())],
        ..ConnackProperties::default()
    };
    let connack = Connack { session_present: false, reason: ReasonCode::Success, properties };
    let short = encoded(|out| encode::connack(Version::V5, &connack, 30, out));
    assert_eq!(short, [0x20, 6, 0, 0, 3, 0x13, 0, 9]);
}

#[test]
fn strings_longer_than_their_prefix_are_not_written() {
    let long = "x".repeat(65_536);
    let id = PacketId::new(1).unwrap();
    let too_long = Err(EncodeError::FieldTooLong(65_536));
    let mut out = b"before".to_vec();
    for version in [Version::V311, Version::V5] {
        let filters = vec![SubscribeFilter { filter: long.clone(), options: SubscribeOptions::default() }];
        let subscribe = Subscribe { packet_id: id, subscription_id: None, filters };
        assert_eq!(encode::subscribe(version, &subscribe, &mut out), too_long);
        let unsubscribe = Unsubscribe { packet_id: id, filters: vec![long.clone()] };
        assert_eq!(encode::unsubscribe(version, &unsubscribe, &mut out), too_long);
    }
    let code = ReasonCode::UnspecifiedError;
    for (encode, _) in [ACKS[0], ACKS[1]] {
        assert_eq!(encode(Version::V5, id, code, Some(&long), MAX_PACKET_SIZE, &mut out), too_long);
    }
    let suback = encode::suback(Version::V5, id, &[code], Some(&long), MAX_PACKET_SIZE, &mut out);
    assert_eq!(suback, too_long);
    let auth = Auth { reason: ReasonCode::ContinueAuthentication, method: long, data: None };
    assert_eq!(encode::auth(&auth, None, MAX_PACKET_SIZE, &mut out), too_long);
    assert_eq!(out, b"before");
}

#[test]
fn publish_is_refused_when_it_is_too_large_for_its_receiver() {
    let frame = PublishFrame {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        packet_id: None,
        topic: b"abc",
        alias: None,
        expiry: None,
        subscription_ids: &[],
        properties: &[],
        payload_len: 0,
    };
    let mut out = Vec::new();
    assert_eq!(encode::publish(Version::V5, &frame, b"payload", 15, &mut out), Ok(()));
    assert_eq!(out.len(), 15);
    out.clear();
    let error = encode::publish(Version::V5, &frame, b"payload", 14, &mut out);
    assert_eq!(error, Err(EncodeError::PacketTooLarge { len: 15, max: 14 }));
    let long = [b'x'; 65_536];
    let error = encode::publish(Version::V5, &PublishFrame { topic: &long, ..frame }, b"", LIMIT, &mut out);
    assert_eq!(error, Err(EncodeError::FieldTooLong(65_536)));
    assert!(out.is_empty());
}

#[test]
fn lists_that_are_empty_are_not_written() {
    let id = PacketId::new(1).unwrap();
    let mut out = Vec::new();
    let subscribe = Subscribe { packet_id: id, subscription_id: None, filters: Vec::new() };
    assert_eq!(encode::subscribe(Version::V5, &subscribe, &mut out), Err(EncodeError::EmptyList));
    let unsubscribe = Unsubscribe { packet_id: id, filters: Vec::new() };
    assert_eq!(encode::unsubscribe(Version::V311, &unsubscribe, &mut out), Err(EncodeError::EmptyList));
    assert_eq!(encode::suback(Version::V5, id, &[], None, 100, &mut out), Err(EncodeError::EmptyList));
    assert!(out.is_empty());
}

#[test]
fn long_packets_have_long_lengths() {
    for (filters, header) in [(1, 3), (400, 4)] {
        let entry = SubscribeFilter { filter: "f".repeat(300), options: SubscribeOptions::default() };
        let packet_id = PacketId::new(1).unwrap();
        let sent = Subscribe { packet_id, subscription_id: None, filters: vec![entry; filters] };
        let names = sent.filters.iter().map(|entry| entry.filter.clone()).collect();
        let out = encoded(|out| encode::subscribe(Version::V5, &sent, out));
        assert_eq!(out.len(), header + 3 + filters * 303);
        assert_eq!(decode(From::Client, Version::V5, &out), Ok(Packet::Subscribe(sent)));
        let sent = Unsubscribe { packet_id, filters: names };
        let out = encoded(|out| encode::unsubscribe(Version::V5, &sent, out));
        assert_eq!(out.len(), header + 3 + filters * 302);
        assert_eq!(decode(From::Client, Version::V5, &out), Ok(Packet::Unsubscribe(sent)));
    }
}

#[test]
fn lengths_at_the_edges_of_a_variable_byte_integer() {
    for value in [0, 0x7F, 0x80, 0x3FFF, 0x4000, 0x1F_FFFF, 0x20_0000, 268_435_455] {
        let mut out = Vec::new();
        write::varint(&mut out, value);
        assert_eq!(out.len(), write::varint_len(value));
        assert_eq!(reader::varint(&out), Ok(Some((value as u32, out.len()))));
        if value < 0x40_0000 {
            let block = encoded(|out| {
                write::with_length(out, |block| {
                    block.resize(value, 0);
                    Ok(())
                })
            });
            assert_eq!((&block[..out.len()], block.len()), (&out[..], out.len() + value));
        }
    }
}
