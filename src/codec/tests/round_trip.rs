//! What is encoded decodes to the same, for every packet and version.

use std::num::NonZeroU16;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::super::*;
use super::encoding::ACKS;
use super::{From, VERSIONS, decode};

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

fn codes(codes: &[u8]) -> Vec<ReasonCode> {
    codes.iter().map(|&code| ReasonCode::from_u8(code).unwrap()).collect()
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
        (clean_start, keep_alive, client_id) in (any::<bool>(), any::<u16>(), text()),
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
        let unsized_frame = PublishFrame { payload_len: 0, ..frame };
        encode::publish(version, &unsized_frame, &payload, MAX_PACKET_SIZE, &mut whole).unwrap();
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
    fn acknowledgements(
        version in version(),
        packet_id in packet_id(),
        reason_string in of(text()),
        code in any::<u8>(),
    ) {
        let Some(reason) = ReasonCode::from_u8(code) else { return Ok(()) };
        let read = if version == Version::V5 { reason } else { ReasonCode::Success };
        let ack = Ack { packet_id, reason: read };
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
        let filters = filters.into_iter().map(|(filter, qos, (no_local, retain_as_published), handling)| {
            let handlings = [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend];
            let retain_handling = handlings[usize::from(handling)];
            let all = SubscribeOptions { qos, no_local, retain_as_published, retain_handling };
            let options = if v5 { all } else { SubscribeOptions { qos, ..Default::default() } };
            SubscribeFilter { filter, options }
        });
        let filters = filters.collect();
        let sent = Subscribe { packet_id, subscription_id: subscription_id.filter(|_| v5), filters };
        let mut out = Vec::new();
        encode::subscribe(version, &sent, &mut out).unwrap();
        prop_assert_eq!(decode(From::Client, version, &out), Ok(Packet::Subscribe(sent.clone())));

        let filters = sent.filters.into_iter().map(|entry| entry.filter).collect();
        let sent = Unsubscribe { packet_id, filters };
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
        let text = reason_string.as_deref();
        let mut reasons = codes(&subscribed);
        let mut out = Vec::new();
        encode::suback(version, packet_id, &reasons, text, MAX_PACKET_SIZE, &mut out).unwrap();
        if version != Version::V5 {
            for reason in reasons.iter_mut().filter(|reason| reason.is_error()) {
                *reason = ReasonCode::UnspecifiedError;
            }
        }
        let expected = Suback { packet_id, reasons };
        prop_assert_eq!(decode(From::Server, version, &out), Ok(Packet::Suback(expected)));

        let mut reasons = codes(&unsubscribed);
        out.clear();
        encode::unsuback(version, packet_id, &reasons, text, MAX_PACKET_SIZE, &mut out).unwrap();
        if version != Version::V5 {
            reasons.clear();
        }
        let expected = Suback { packet_id, reasons };
        prop_assert_eq!(decode(From::Server, version, &out), Ok(Packet::Unsuback(expected)));
    }

    #[test]
    fn connack(
        session_present in any::<bool>(),
        (session_expiry, receive_maximum, maximum_packet_size)
            in any::<(Option<u32>, Option<NonZeroU16>, Option<NonZeroU16>)>(),
        (topic_alias_maximum, server_keep_alive) in any::<(Option<u16>, Option<u16>)>(),
        flags in any::<[Option<bool>; 5]>(),
        texts in vec(of(text()), 5),
        user_properties in vec((text(), text()), 0..3),
        authentication in of((text(), of(bytes()))),
    ) {
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
        let text = reason_string.clone();
        let sent = Disconnect { reason, session_expiry, reason_string: text, server_reference };
        let mut out = Vec::new();
        encode::disconnect(Version::V5, &sent, MAX_PACKET_SIZE, &mut out).unwrap();
        prop_assert_eq!(decode(From::Client, Version::V5, &out), Ok(Packet::Disconnect(sent)));

        let sent = Auth { reason: ReasonCode::ContinueAuthentication, method, data };
        out.clear();
        encode::auth(&sent, reason_string.as_deref(), MAX_PACKET_SIZE, &mut out).unwrap();
        prop_assert_eq!(decode(From::Client, Version::V5, &out), Ok(Packet::Auth(sent)));
    }
}
