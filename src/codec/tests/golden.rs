//! Packets written out byte by byte, and what they are.

use std::num::NonZeroU16;

use super::super::*;
use super::{From, VERSIONS, decode, field, frame, refused};

const MALFORMED: ReasonCode = ReasonCode::MalformedPacket;
const PROTOCOL: ReasonCode = ReasonCode::ProtocolError;

fn decode_connect(bytes: &[u8]) -> Connect<'_> {
    match decode(From::Client, Version::V5, bytes) {
        Ok(Packet::Connect(connect)) => *connect,
        other => panic!("{other:?}"),
    }
}

#[test]
fn connect_of_each_version_says_which_it_is() {
    for version in VERSIONS {
        let bytes = super::connect(version);
        let mut decoder = Decoder::server(100);
        assert_eq!(decoder.version(), None);
        let (packet, len) = decoder.decode(&bytes).unwrap().unwrap();
        assert_eq!(len, bytes.len());
        assert_eq!(decoder.version(), Some(version));
        let Packet::Connect(connect) = packet else { panic!("{packet:?}") };
        assert_eq!((connect.version, connect.client_id, connect.keep_alive), (version, "c", 9));
        assert!(connect.clean_start && connect.request_problem_information);
    }
}

#[test]
fn connect_with_everything() {
    let samples = super::client_samples(Version::V5);
    let connect = decode_connect(&samples[1].1);
    assert_eq!(connect.session_expiry, Some(9));
    assert_eq!(connect.receive_maximum, NonZeroU16::new(7));
    assert_eq!(connect.maximum_packet_size, Some(1024));
    assert_eq!(connect.topic_alias_maximum, 3);
    assert!(connect.request_response_information && !connect.request_problem_information);
    assert_eq!(connect.authentication_method, Some("m"));
    assert_eq!(connect.authentication_data, Some(&[0xFF, 0][..]));
    assert_eq!((connect.user_name, connect.password), (Some("user"), Some(&[0xFE, 0][..])));
    let will = connect.will.unwrap();
    assert_eq!((will.qos, will.retain, will.delay), (Qos::AtLeastOnce, true, 5));
    assert_eq!((will.topic, will.payload), ("w/t", &[0, 0xFF][..]));
    assert_eq!(will.properties.message_expiry, Some(7));
    assert_eq!(will.properties.content_type(), Some("text/plain"));
}

#[test]
fn protocol_name_and_level_that_are_not_served() {
    let cases: [(&str, u8, Option<Version>); 10] = [
        ("MQTT", 6, Some(Version::V5)),
        ("MQTT", 255, Some(Version::V5)),
        ("MQTT", 3, Some(Version::V311)),
        ("MQTT", 0, Some(Version::V311)),
        ("MQIsdp", 4, Some(Version::V311)),
        ("MQIsdp", 0x83, Some(Version::V311)),
        ("MQTT", 0x84, Some(Version::V311)),
        ("MQTTX", 5, Some(Version::V5)),
        ("MQTTX", 4, None),
        ("mqtt", 4, None),
    ];
    for (name, level, answer_in) in cases {
        let bytes = frame(0x10, &[&field(name), &[level, 2, 0, 0, 0], &field("c")]);
        let mut decoder = Decoder::server(100);
        let error = decoder.decode(&bytes).unwrap_err();
        assert_eq!(error.reason, ReasonCode::UnsupportedProtocolVersion, "{name} {level}");
        assert_eq!(decoder.version(), answer_in, "{name} {level}");
    }
}

#[test]
fn connect_flags() {
    let body = |level, flags| {
        let mut parts = field("MQTT");
        parts.extend_from_slice(&[level, flags, 0, 0]);
        if level == 5 {
            parts.push(0);
        }
        parts.extend_from_slice(&field("c"));
        parts
    };
    let password_only = [&body(5, 0x40)[..], &field("secret")].concat();
    assert_eq!(decode_connect(&frame(0x10, &[&password_only])).password, Some(&b"secret"[..]));
    let password_only = [&body(4, 0x40)[..], &field("secret")].concat();
    refused(From::Client, Version::V311, &frame(0x10, &[&password_only]), MALFORMED);
    for level in [4, 5] {
        for flags in [0x01, 0x08, 0x10, 0x20, 0x1C] {
            refused(From::Client, Version::V311, &frame(0x10, &[&body(level, flags)]), MALFORMED);
        }
    }
}

#[test]
fn empty_user_name_is_a_user_name() {
    let bytes = frame(0x10, &[&field("MQTT"), &[4, 0x82, 0, 0], &field(""), &field("")]);
    let connect = decode_connect(&bytes);
    assert_eq!((connect.client_id, connect.user_name, connect.password), ("", Some(""), None));
}

#[test]
fn mqtt_31_may_leave_out_a_user_name_that_it_announces() {
    let bytes = frame(0x10, &[&field("MQIsdp"), &[3, 0xC2, 0, 0], &field("c")]);
    let connect = decode_connect(&bytes);
    assert_eq!((connect.user_name, connect.password), (None, None));
    let bytes = frame(0x10, &[&field("MQTT"), &[4, 0xC2, 0, 0], &field("c")]);
    refused(From::Client, Version::V311, &bytes, MALFORMED);
}

#[test]
fn authentication_data_needs_a_method() {
    let bytes = frame(0x10, &[&field("MQTT"), &[5, 2, 0, 0, 4, 0x16, 0, 1, 7], &field("c")]);
    refused(From::Client, Version::V5, &bytes, PROTOCOL);
}

#[test]
fn a_will_topic_is_a_topic_name() {
    for topic in ["", "a/#", "+"] {
        let bytes = frame(0x10, &[&field("MQTT"), &[4, 0x06, 0, 0], &field("c"), &field(topic), &field("x")]);
        refused(From::Client, Version::V311, &bytes, MALFORMED);
    }
}

#[test]
fn publish_borrows_its_parts() {
    let bytes = [0x3D, 13, 0, 3, b'a', b'/', b'b', 0, 7, 3, 0x23, 0, 3, b'h', b'i'];
    let Ok(Packet::Publish(publish)) = decode(From::Client, Version::V5, &bytes) else { panic!() };
    assert!(publish.dup && publish.retain);
    assert_eq!(publish.qos, Qos::ExactlyOnce);
    assert_eq!(publish.packet_id, PacketId::new(7));
    assert_eq!((publish.topic, publish.payload), ("a/b", &b"hi"[..]));
    assert_eq!(publish.properties.topic_alias, NonZeroU16::new(3));
    assert_eq!(publish.properties.forwarded_len, 0);
    let range = bytes.as_ptr_range();
    assert!(range.contains(&publish.topic.as_ptr()) && range.contains(&publish.payload.as_ptr()));
}

#[test]
fn publish_topics() {
    for version in VERSIONS {
        let none: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        let empty = if version == Version::V5 { PROTOCOL } else { MALFORMED };
        refused(From::Client, version, &frame(0x30, &[&field(""), none]), empty);
        for topic in ["#", "a/+/b", "a+", "a\0b"] {
            refused(From::Client, version, &frame(0x30, &[&field(topic), none]), MALFORMED);
        }
    }
    let with_alias = frame(0x30, &[&field(""), &[3, 0x23, 0, 9], b"x"]);
    assert!(decode(From::Client, Version::V5, &with_alias).is_ok());
}

#[test]
fn packet_identifier_zero_is_refused_everywhere() {
    for version in VERSIONS {
        let none: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        let zero = |first, rest: &[u8]| frame(first, &[&[0, 0], none, rest]);
        refused(From::Client, version, &frame(0x32, &[&field("a"), &[0, 0], none]), PROTOCOL);
        refused(From::Client, version, &zero(0x82, &[0, 1, b'a', 0]), PROTOCOL);
        refused(From::Client, version, &zero(0xA2, &[0, 1, b'a']), PROTOCOL);
        refused(From::Server, version, &zero(0x90, &[0]), PROTOCOL);
        refused(From::Server, version, &zero(0xB0, &[0]), PROTOCOL);
        for first in [0x40, 0x50, 0x62, 0x70] {
            refused(From::Client, version, &frame(first, &[&[0, 0]]), PROTOCOL);
        }
    }
}

#[test]
fn disconnect_short_forms() {
    let reason = |bytes: &[u8]| match decode(From::Client, Version::V5, bytes) {
        Ok(Packet::Disconnect(disconnect)) => disconnect.reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(&[0xE0, 0]), ReasonCode::Success);
    assert_eq!(reason(&[0xE0, 1, 0]), ReasonCode::Success);
    assert_eq!(reason(&[0xE0, 1, 4]), ReasonCode::DisconnectWithWill);
    assert_eq!(reason(&[0xE0, 2, 0, 0]), ReasonCode::Success);
    refused(From::Client, Version::V5, &[0xE0, 1, 5], PROTOCOL);
    refused(From::Client, Version::V311, &[0xE0, 1, 0], MALFORMED);
    refused(From::Server, Version::V311, &[0xE0, 0], PROTOCOL);
}

#[test]
fn acknowledgement_forms() {
    for first in [0x40, 0x50, 0x62, 0x70] {
        for (bytes, code) in [(&[0, 9][..], 0), (&[0, 9, 0], 0), (&[0, 9, 0, 0], 0)] {
            let frame = frame(first, &[bytes]);
            let packet = decode(From::Client, Version::V5, &frame).unwrap();
            let (Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubrel(ack) | Packet::Pubcomp(ack)) =
                packet
            else {
                panic!("{packet:?}")
            };
            assert_eq!((ack.packet_id.get(), ack.reason as u8), (9, code));
        }
        refused(From::Client, Version::V311, &frame(first, &[&[0, 9, 0]]), MALFORMED);
        refused(From::Client, Version::V5, &frame(first, &[&[0, 9, 1]]), PROTOCOL);
    }
}

#[test]
fn subscribe_is_read_in_full() {
    let bytes = super::client_samples(Version::V5)[2].1.clone();
    let Ok(Packet::Subscribe(subscribe)) = decode(From::Client, Version::V5, &bytes) else { panic!() };
    assert_eq!(subscribe.subscription_id, Some(128));
    assert_eq!(subscribe.filters[0].filter, "a/+");
    let options = SubscribeOptions {
        qos: Qos::ExactlyOnce,
        no_local: true,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
    };
    assert_eq!(subscribe.filters[0].options, options);
    assert_eq!(subscribe.filters[1].options, SubscribeOptions::default());
}

#[test]
fn subscribe_options() {
    let one = |version, options| {
        let none: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        frame(0x82, &[&[0, 1], none, &field("a"), &[options]])
    };
    for version in VERSIONS {
        refused(From::Client, version, &one(version, 3), PROTOCOL);
        refused(From::Client, version, &one(version, 0x80), MALFORMED);
    }
    refused(From::Client, Version::V5, &one(Version::V5, 0x30), PROTOCOL);
    refused(From::Client, Version::V5, &one(Version::V5, 0x40), MALFORMED);
    refused(From::Client, Version::V311, &one(Version::V311, 0x04), MALFORMED);
}

#[test]
fn lists_are_not_empty() {
    for version in VERSIONS {
        let none: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        refused(From::Client, version, &frame(0x82, &[&[0, 1], none]), PROTOCOL);
        refused(From::Client, version, &frame(0xA2, &[&[0, 1], none]), PROTOCOL);
        refused(From::Server, version, &frame(0x90, &[&[0, 1], none]), PROTOCOL);
        refused(From::Client, version, &frame(0x82, &[&[0, 1], none, &[0, 0, 0]]), MALFORMED);
        refused(From::Client, version, &frame(0xA2, &[&[0, 1], none, &[0, 0]]), MALFORMED);
    }
    refused(From::Server, Version::V5, &[0xB0, 3, 0, 1, 0], PROTOCOL);
}

#[test]
fn auth_needs_a_method_unless_it_is_a_bare_success() {
    let decode = |bytes| decode(From::Client, Version::V5, bytes);
    let success = Auth { reason: ReasonCode::Success, method: String::new(), data: None };
    assert_eq!(decode(&[0xF0, 0]), Ok(Packet::Auth(success.clone())));
    assert_eq!(decode(&[0xF0, 2, 0, 0]), Ok(Packet::Auth(success)));
    refused(From::Client, Version::V5, &[0xF0, 2, 0x18, 0], PROTOCOL);
    refused(From::Client, Version::V5, &[0xF0, 6, 0, 4, 0x1F, 0, 1, b'x'], PROTOCOL);
    refused(From::Client, Version::V5, &[0xF0, 1, 0x18], MALFORMED);
    refused(From::Client, Version::V5, &[0xF0, 6, 0x18, 4, 0x16, 0, 1, 7], PROTOCOL);
    refused(From::Client, Version::V311, &[0xF0, 0], MALFORMED);
}

#[test]
fn connack_of_each_version() {
    for version in [Version::V31, Version::V311] {
        let codes = [
            ReasonCode::Success,
            ReasonCode::UnsupportedProtocolVersion,
            ReasonCode::ClientIdentifierNotValid,
            ReasonCode::ServerUnavailable,
            ReasonCode::BadUserNameOrPassword,
            ReasonCode::NotAuthorized,
        ];
        for (code, reason) in codes.into_iter().enumerate() {
            let bytes = [0x20, 2, 0, code as u8];
            let Ok(Packet::Connack(connack)) = decode(From::Server, version, &bytes) else { panic!() };
            assert_eq!(connack.reason, reason);
        }
        refused(From::Server, version, &[0x20, 2, 0, 6], PROTOCOL);
        refused(From::Server, version, &[0x20, 2, 1, 5], PROTOCOL);
    }
    refused(From::Server, Version::V5, &[0x20, 3, 2, 0, 0], MALFORMED);
    refused(From::Server, Version::V5, &[0x20, 3, 1, 0x87, 0], PROTOCOL);
    refused(From::Server, Version::V5, &[0x20, 3, 0, 1, 0], PROTOCOL);
    refused(From::Server, Version::V5, &[0x20, 2, 0, 0], MALFORMED);
}

#[test]
fn forwarded_leaves_out_what_the_broker_acts_on() {
    let all = super::shared_samples(Version::V5, From::Server)[1].clone();
    let Ok(Packet::Publish(publish)) = decode(From::Server, Version::V5, &all) else { panic!() };
    let properties = publish.properties;
    let mut kept = Vec::new();
    properties.forwarded(|run| kept.extend_from_slice(run));
    assert_eq!(kept.len(), properties.forwarded_len);
    assert_eq!(properties.subscription_identifiers().collect::<Vec<_>>(), [128, 5]);

    let forwarded = PublishProperties::from_forwarded(&kept);
    for properties in [properties, forwarded] {
        assert!(properties.payload_format_is_utf8());
        assert_eq!(properties.content_type(), Some("text/plain"));
        assert_eq!(properties.response_topic(), Some("re/ply"));
        assert_eq!(properties.correlation_data(), Some(&[0, 0xFF][..]));
        assert_eq!(properties.user_properties().collect::<Vec<_>>(), [("name", "value"); 2]);
    }
    assert_eq!(forwarded.subscription_identifiers().count(), 0);
    let mut runs = 0;
    forwarded.forwarded(|run| {
        runs += 1;
        assert_eq!(run, kept);
    });
    assert_eq!(runs, 1);
}
