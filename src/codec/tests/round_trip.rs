//! What is encoded decodes to the same, for every packet and version; and what encoders refuse.

use std::num::NonZeroU16;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::super::*;
use super::{From, LIMIT, VERSIONS, decode};

fn version() -> impl Strategy<Value = Version> {
    proptest::sample::select(&VERSIONS[..])
}

fn text() -> impl Strategy<Value = String> {
    "[a-zé\u{feff}/ +#]{0,12}"
}

fn topic() -> impl Strategy<Value = String> {
    "[a-zé/]{1,200}"
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(|id| PacketId::new(id).unwrap())
}

fn qos() -> impl Strategy<Value = Qos> {
    (0..3u8).prop_map(|qos| Qos::from_u8(qos).unwrap())
}

/// Properties that are forwarded, in wire form.
fn wire_properties() -> impl Strategy<Value = Vec<u8>> {
    (any::<bool>(), of(text()), of(topic()), of(bytes()), vec((text(), text()), 0..4)).prop_map(
        |(utf8, content_type, response_topic, correlation, users)| {
            let mut wire = Vec::new();
            write::property_flag(&mut wire, properties::PropertyId::PayloadFormatIndicator, utf8);
            for (name, value) in users {
                wire.push(0x26);
                write::text(&mut wire, &name).unwrap();
                write::text(&mut wire, &value).unwrap();
            }
            for (id, field) in [
                (properties::PropertyId::ContentType, content_type.map(String::into_bytes)),
                (properties::PropertyId::ResponseTopic, response_topic.map(String::into_bytes)),
                (properties::PropertyId::CorrelationData, correlation),
            ] {
                write::property_bytes(&mut wire, id, field.as_deref()).unwrap();
            }
            wire
        },
    )
}

#[derive(Clone, Debug)]
struct OwnedWill {
    qos: Qos,
    retain: bool,
    topic: String,
    payload: Vec<u8>,
    delay: u32,
    expiry: Option<u32>,
    properties: Vec<u8>,
}

fn will() -> impl Strategy<Value = OwnedWill> {
    (qos(), any::<bool>(), topic(), bytes(), any::<u32>(), any::<Option<u32>>(), wire_properties()).prop_map(
        |(qos, retain, topic, payload, delay, expiry, properties)| OwnedWill {
            qos,
            retain,
            topic,
            payload,
            delay,
            expiry,
            properties,
        },
    )
}

/// The will without what is not on the wire of this version. `raw` is left to the test: on the wire it
/// also holds what the fields hold.
fn borrowed_will(will: &OwnedWill, version: Version) -> Will<'_> {
    let v5 = version == Version::V5;
    let mut properties = PublishProperties::from_forwarded(if v5 { &will.properties } else { &[] });
    properties.message_expiry = will.expiry.filter(|_| v5);
    Will {
        qos: will.qos,
        retain: will.retain,
        topic: &will.topic,
        payload: &will.payload,
        delay: if v5 { will.delay } else { 0 },
        properties,
    }
}

fn forwarded(properties: &PublishProperties<'_>) -> Vec<u8> {
    let mut wire = Vec::new();
    properties.forwarded(|run| wire.extend_from_slice(run));
    assert_eq!(wire.len(), properties.forwarded_len);
    wire
}

proptest! {
    #[test]
    fn connect(
        version in version(),
        (clean_start, keep_alive, client_id) in any::<(bool, u16)>().prop_flat_map(|(c, k)| (Just(c), Just(k), text())),
        will in of(will()),
        (user_name, password) in (of(text()), of(bytes())),
        (session_expiry, receive_maximum, maximum_packet_size, topic_alias_maximum, response, problem)
            in any::<(Option<u32>, Option<NonZeroU16>, Option<NonZeroU16>, u16, bool, bool)>(),
        auth in of((text(), of(bytes()))),
    ) {
        let v5 = version == Version::V5;
        let auth = auth.filter(|_| v5);
        let sent = Connect {
            version,
            clean_start,
            keep_alive,
            client_id: &client_id,
            will: will.as_ref().map(|will| borrowed_will(will, version)),
            user_name: user_name.as_deref(),
            password: password.as_deref().filter(|_| v5 || user_name.is_some()),
            session_expiry: session_expiry.filter(|_| v5),
            receive_maximum: receive_maximum.filter(|_| v5),
            maximum_packet_size: maximum_packet_size.filter(|_| v5).map(|n| n.get().into()),
            topic_alias_maximum: if v5 { topic_alias_maximum } else { 0 },
            request_response_information: v5 && response,
            request_problem_information: !v5 || problem,
            authentication_method: auth.as_ref().map(|(method, _)| method.as_str()),
            authentication_data: auth.as_ref().and_then(|(_, data)| data.as_deref()),
        };
        let mut out = b"before".to_vec();
        encode::connect(&sent, &mut out).unwrap();
        let Ok(Packet::Connect(mut read)) = decode(From::Client, version, &out[6..]) else { panic!() };
        if let (Some(sent), Some(read)) = (&sent.will, &mut read.will) {
            prop_assert_eq!(forwarded(&read.properties), sent.properties.raw);
            read.properties.raw = sent.properties.raw;
        }
        prop_assert_eq!(*read, sent);
    }

    #[test]
    fn publish(
        version in version(),
        flags in any::<(bool, bool)>(),
        qos in qos(),
        id in packet_id(),
        topic in topic(),
        payload in vec(any::<u8>(), 0..300),
        (alias, expiry) in (of(1..=u16::MAX), any::<Option<u32>>()),
        subscription_ids in vec(1..=268_435_455u32, 0..4),
        properties in wire_properties(),
    ) {
        let has_id = qos != Qos::AtMostOnce;
        let frame = PublishFrame {
            dup: flags.0 && has_id,
            qos,
            retain: flags.1,
            packet_id: has_id.then_some(id),
            topic: topic.as_bytes(),
            alias,
            expiry,
            subscription_ids: &subscription_ids,
            properties: &properties,
            payload_len: payload.len(),
        };
        let mut out = b"before".to_vec();
        frame.encode_head(version, &mut out);
        out.extend_from_slice(&payload);
        prop_assert_eq!(out.len() - 6, frame.encoded_len(version));
        let mut whole = Vec::new();
        encode::publish(version, &PublishFrame { payload_len: 0, ..frame }, &payload, MAX_PACKET_SIZE, &mut whole)
            .unwrap();
        prop_assert_eq!(&whole[..], &out[6..]);
        let Ok(Packet::Publish(read)) = decode(From::Server, version, &out[6..]) else { panic!() };
        prop_assert_eq!((read.dup, read.qos, read.retain), (frame.dup, qos, flags.1));
        prop_assert_eq!((read.packet_id, read.topic, read.payload), (frame.packet_id, &*topic, &*payload));
        if version != Version::V5 {
            prop_assert_eq!(read.properties, PublishProperties::default());
            return Ok(());
        }
        prop_assert_eq!(read.properties.topic_alias.map(NonZeroU16::get), alias);
        prop_assert_eq!(read.properties.message_expiry, expiry);
        prop_assert_eq!(read.properties.subscription_identifiers().collect::<Vec<_>>(), subscription_ids);
        prop_assert_eq!(forwarded(&read.properties), properties);
    }

    #[test]
    fn acknowledgements(version in version(), packet_id in packet_id(), reason_string in of(text()), code in any::<u8>()) {
        let Some(reason) = ReasonCode::from_u8(code) else { return Ok(()) };
        let ack = Ack { packet_id, reason: if version == Version::V5 { reason } else { ReasonCode::Success } };
        let text = reason_string.as_deref();
        for (encode, wrap) in ACKS {
            let mut out = Vec::new();
            match encode(version, packet_id, reason, text, MAX_PACKET_SIZE, &mut out) {
                Ok(()) => prop_assert_eq!(decode(From::Client, version, &out), Ok(wrap(ack))),
                Err(error) => {
                    prop_assert_eq!(error, EncodeError::ReasonNotInPacket(reason));
                    prop_assert!(out.is_empty() && version == Version::V5);
                }
            }
        }
    }

    #[test]
    fn subscribe(
        version in version(),
        packet_id in packet_id(),
        subscription_id in of(1..=268_435_455u32),
        filters in vec((topic(), qos(), any::<(bool, bool)>(), 0..3u8), 1..5),
    ) {
        let v5 = version == Version::V5;
        let filters: Vec<_> = filters.into_iter().map(|(filter, qos, (no_local, retain_as_published), handling)| {
            let retain_handling =
                [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend][handling as usize];
            let options = SubscribeOptions { qos, no_local, retain_as_published, retain_handling };
            SubscribeFilter { filter, options: if v5 { options } else { SubscribeOptions { qos, ..Default::default() } } }
        }).collect();
        let sent = Subscribe { packet_id, subscription_id: subscription_id.filter(|_| v5), filters };
        let mut out = Vec::new();
        encode::subscribe(version, &sent, &mut out).unwrap();
        prop_assert_eq!(decode(From::Client, version, &out), Ok(Packet::Subscribe(sent.clone())));

        let sent = Unsubscribe { packet_id, filters: sent.filters.into_iter().map(|entry| entry.filter).collect() };
        out.clear();
        encode::unsubscribe(version, &sent, &mut out).unwrap();
        prop_assert_eq!(decode(From::Client, version, &out), Ok(Packet::Unsubscribe(sent)));
    }

    #[test]
    fn suback_and_unsuback(
        version in version(),
        packet_id in packet_id(),
        subscribed in vec(proptest::sample::select(&[0u8, 1, 2, 0x80, 0x87, 0xA2][..]), 1..5),
        unsubscribed in vec(proptest::sample::select(&[0u8, 0x11, 0x8F][..]), 1..5),
        reason_string in of(text()),
    ) {
        let codes = |codes: &[u8]| codes.iter().map(|&code| ReasonCode::from_u8(code).unwrap()).collect::<Vec<_>>();
        let mut reasons = codes(&subscribed);
        let mut out = Vec::new();
        encode::suback(version, packet_id, &reasons, reason_string.as_deref(), MAX_PACKET_SIZE, &mut out).unwrap();
        if version != Version::V5 {
            for reason in reasons.iter_mut().filter(|reason| reason.is_error()) {
                *reason = ReasonCode::UnspecifiedError;
            }
        }
        let expected = Suback { packet_id, reasons };
        prop_assert_eq!(decode(From::Server, version, &out), Ok(Packet::Suback(expected)));

        let mut reasons = codes(&unsubscribed);
        out.clear();
        encode::unsuback(version, packet_id, &reasons, reason_string.as_deref(), MAX_PACKET_SIZE, &mut out).unwrap();
        if version != Version::V5 {
            reasons.clear();
        }
        let expected = Suback { packet_id, reasons };
        prop_assert_eq!(decode(From::Server, version, &out), Ok(Packet::Unsuback(expected)));
    }

    #[test]
    fn connack(
        session_present in any::<bool>(),
        numbers in any::<(Option<u32>, Option<NonZeroU16>, Option<NonZeroU16>, Option<u16>, Option<u16>)>(),
        flags in any::<[Option<bool>; 5]>(),
        texts in vec(of(text()), 5),
        user_properties in vec((text(), text()), 0..3),
        authentication in of((text(), of(bytes()))),
    ) {
        let (session_expiry, receive_maximum, maximum_packet_size, topic_alias_maximum, server_keep_alive) = numbers;
        let properties = ConnackProperties {
            session_expiry,
            receive_maximum: receive_maximum.map(NonZeroU16::get),
            maximum_qos: flags[0].map(u8::from),
            retain_available: flags[1],
            maximum_packet_size: maximum_packet_size.map(|size| size.get().into()),
            assigned_client_id: texts[0].clone(),
            topic_alias_maximum,
            reason_string: texts[1].clone(),
            user_properties,
            wildcard_subscription_available: flags[2],
            subscription_identifiers_available: flags[3],
            shared_subscription_available: flags[4],
            server_keep_alive,
            response_information: texts[2].clone(),
            server_reference: texts[3].clone(),
            authentication_method: authentication.as_ref().map(|(method, _)| method.clone()),
            authentication_data: authentication.and_then(|(_, data)| data),
        };
        let sent = Connack { session_present, reason: ReasonCode::Success, properties };
        let mut out = Vec::new();
        encode::connack(Version::V5, &sent, MAX_PACKET_SIZE, &mut out).unwrap();
        prop_assert_eq!(decode(From::Server, Version::V5, &out), Ok(Packet::Connack(Box::new(sent))));
    }

    #[test]
    fn disconnect_and_auth(
        session_expiry in any::<Option<u32>>(),
        (reason_string, server_reference, method) in (of(text()), of(text()), text()),
        data in of(bytes()),
        normal in any::<bool>(),
    ) {
        let reason = if normal { ReasonCode::Success } else { ReasonCode::DisconnectWithWill };
        let sent = Disconnect { reason, session_expiry, reason_string: reason_string.clone(), server_reference };
        let mut out = Vec::new();
        encode::disconnect(Version::V5, &sent, MAX_PACKET_SIZE, &mut out).unwrap();
        prop_assert_eq!(decode(From::Client, Version::V5, &out), Ok(Packet::Disconnect(sent)));

        let sent = Auth { reason: ReasonCode::ContinueAuthentication, method, data };
        out.clear();
        encode::auth(&sent, reason_string.as_deref(), MAX_PACKET_SIZE, &mut out).unwrap();
        prop_assert_eq!(decode(From::Client, Version::V5, &out), Ok(Packet::Auth(sent)));
    }
}

type EncodeAck =
    fn(Version, PacketId, ReasonCode, Option<&str>, u32, &mut Vec<u8>) -> Result<(), EncodeError>;
type WrapAck = fn(Ack) -> Packet<'static>;

const ACKS: [(EncodeAck, WrapAck); 4] = [
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
    let short = encoded(|out| encode::disconnect(Version::V5, &disconnect, 20, out));
    assert_eq!(short, [0xE0, 6, 0x9D, 4, 0x1C, 0, 1, b'b']);

    let properties = ConnackProperties {
        server_keep_alive: Some(9),
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
