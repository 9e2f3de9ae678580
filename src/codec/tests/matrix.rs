//! Tables: flags by packet type, properties by packet, strings by field, reason codes by packet.

use super::super::*;
use super::{From, VERSIONS, block, decode, decoder, field, frame, refused};

const MALFORMED: ReasonCode = ReasonCode::MalformedPacket;
const PROTOCOL: ReasonCode = ReasonCode::ProtocolError;
const SIDES: [From; 2] = [From::Client, From::Server];

#[test]
fn flags_matrix() {
    for version in VERSIONS {
        for from in SIDES {
            for first in 0..=255u8 {
                let (packet_type, flags) = (first >> 4, first & 15);
                let input = [first];
                let judged = decoder(from, version, &input).decode(&input).map_err(|error| error.reason);
                let expected = expected_flags(version, from, packet_type, flags);
                assert_eq!(judged, expected.map(|()| None), "{version:?} {from:?} {first:02x}");
            }
        }
    }
}

fn expected_flags(version: Version, from: From, packet_type: u8, flags: u8) -> Result<(), ReasonCode> {
    let v5 = version == Version::V5;
    let may_send = match packet_type {
        0 => return Err(MALFORMED),
        15 if !v5 => return Err(MALFORMED),
        1 | 8 | 10 | 12 => from == From::Client,
        2 | 9 | 11 | 13 => from == From::Server,
        14 => v5 || from == From::Client,
        _ => true,
    };
    if !may_send {
        return Err(PROTOCOL);
    }
    let right = match packet_type {
        3 => ![6, 7, 8, 9, 14, 15].contains(&flags),
        6 | 8 | 10 => flags == 2 || (version == Version::V31 && flags == 10),
        _ => flags == 0,
    };
    if right { Ok(()) } else { Err(MALFORMED) }
}

/// The packets that have properties, each with the name the table below uses.
const PLACES: [(&str, From); 16] = [
    ("CONNECT", From::Client),
    ("WILL", From::Client),
    ("CONNACK", From::Server),
    ("PUBLISH>", From::Client),
    ("PUBLISH<", From::Server),
    ("PUBACK", From::Client),
    ("PUBREC", From::Server),
    ("PUBREL", From::Client),
    ("PUBCOMP", From::Server),
    ("SUBSCRIBE", From::Client),
    ("SUBACK", From::Server),
    ("UNSUBSCRIBE", From::Client),
    ("UNSUBACK", From::Server),
    ("DISCONNECT>", From::Client),
    ("DISCONNECT<", From::Server),
    ("AUTH", From::Client),
];

/// Each property with a value that is right, and where it may stand.
const PROPERTIES: [(&[u8], &str); 27] = [
    (&[0x01, 1], "PUBLISH> PUBLISH< WILL"),
    (&[0x02, 0, 0, 0, 0], "PUBLISH> PUBLISH< WILL"),
    (&[0x03, 0, 1, b'x'], "PUBLISH> PUBLISH< WILL"),
    (&[0x08, 0, 1, b'x'], "PUBLISH> PUBLISH< WILL"),
    (&[0x09, 0, 1, 0xFF], "PUBLISH> PUBLISH< WILL"),
    (&[0x0B, 0x80, 1], "SUBSCRIBE PUBLISH<"),
    (&[0x11, 0, 0, 0, 0], "CONNECT CONNACK DISCONNECT>"),
    (&[0x12, 0, 1, b'x'], "CONNACK"),
    (&[0x13, 0, 0], "CONNACK"),
    (&[0x15, 0, 1, b'x'], "CONNECT CONNACK AUTH"),
    (&[0x16, 0, 1, 0xFF], "CONNECT CONNACK AUTH"),
    (&[0x17, 0], "CONNECT"),
    (&[0x18, 0, 0, 0, 1], "WILL"),
    (&[0x19, 1], "CONNECT"),
    (&[0x1A, 0, 1, b'x'], "CONNACK"),
    (&[0x1C, 0, 1, b'x'], "CONNACK DISCONNECT> DISCONNECT<"),
    (
        &[0x1F, 0, 1, b'x'],
        "CONNACK PUBACK PUBREC PUBREL PUBCOMP SUBACK UNSUBACK DISCONNECT> DISCONNECT< AUTH",
    ),
    (&[0x21, 0, 1], "CONNECT CONNACK"),
    (&[0x22, 0, 0], "CONNECT CONNACK"),
    (&[0x23, 0, 1], "PUBLISH> PUBLISH<"),
    (&[0x24, 0], "CONNACK"),
    (&[0x25, 1], "CONNACK"),
    (
        &[0x26, 0, 1, b'n', 0, 1, b'v'],
        "CONNECT WILL CONNACK PUBLISH> PUBLISH< PUBACK PUBREC PUBREL PUBCOMP SUBSCRIBE SUBACK UNSUBSCRIBE \
         UNSUBACK DISCONNECT> DISCONNECT< AUTH",
    ),
    (&[0x27, 0, 0, 0, 1], "CONNECT CONNACK"),
    (&[0x28, 0], "CONNACK"),
    (&[0x29, 1], "CONNACK"),
    (&[0x2A, 0], "CONNACK"),
];

/// A packet of that kind with these properties, and what else they need.
fn packet_with(place: &str, properties: &[u8]) -> Vec<u8> {
    let needs_method =
        properties.first() == Some(&0x16) || place == "AUTH" && properties.first() != Some(&0x15);
    let method: &[u8] = if needs_method { &[0x15, 0, 1, b'm'] } else { &[] };
    let properties = block(&[properties, method]);
    let tail: &[u8] = match place {
        "SUBSCRIBE" => &[0, 1, b'f', 0],
        "UNSUBSCRIBE" => &[0, 1, b'f'],
        "SUBACK" | "UNSUBACK" => &[0],
        _ => &[],
    };
    let topic: &[u8] = &[0, 1, b't'];
    match place {
        "CONNECT" => frame(0x10, &[&field("MQTT"), &[5, 2, 0, 0], &properties, &field("c")]),
        "WILL" => frame(
            0x10,
            &[&field("MQTT"), &[5, 6, 0, 0, 0], &field("c"), &properties, topic, &field("payload")],
        ),
        "CONNACK" => frame(0x20, &[&[0, 0], &properties]),
        "PUBLISH>" | "PUBLISH<" => frame(0x30, &[topic, &properties]),
        "PUBACK" => frame(0x40, &[&[0, 1, 0], &properties]),
        "PUBREC" => frame(0x50, &[&[0, 1, 0], &properties]),
        "PUBREL" => frame(0x62, &[&[0, 1, 0], &properties]),
        "PUBCOMP" => frame(0x70, &[&[0, 1, 0], &properties]),
        "SUBSCRIBE" => frame(0x82, &[&[0, 1], &properties, tail]),
        "SUBACK" => frame(0x90, &[&[0, 1], &properties, tail]),
        "UNSUBSCRIBE" => frame(0xA2, &[&[0, 1], &properties, tail]),
        "UNSUBACK" => frame(0xB0, &[&[0, 1], &properties, tail]),
        "DISCONNECT>" | "DISCONNECT<" => frame(0xE0, &[&[0], &properties]),
        "AUTH" => frame(0xF0, &[&[0x18], &properties]),
        other => panic!("{other}"),
    }
}

#[test]
fn property_matrix() {
    for (place, from) in PLACES {
        for (property, legal) in PROPERTIES {
            let once = packet_with(place, property);
            if !legal.split(' ').any(|name| name == place) {
                refused(from, Version::V5, &once, MALFORMED);
                continue;
            }
            let accepted = decode(from, Version::V5, &once);
            assert!(accepted.is_ok(), "{place} {property:02x?}: {accepted:?}");
            let twice = packet_with(place, &property.repeat(2));
            if property[0] == 0x26 || (property[0] == 0x0B && place == "PUBLISH<") {
                assert!(decode(from, Version::V5, &twice).is_ok());
            } else {
                refused(from, Version::V5, &twice, PROTOCOL);
            }
        }
        for unknown in [0x00, 0x04, 0x0A, 0x10, 0x1B, 0x2B, 0x7F, 0x80, 0xFF] {
            refused(from, Version::V5, &packet_with(place, &[unknown, 0]), MALFORMED);
        }
    }
}

#[test]
fn property_cut_by_one() {
    for (property, legal) in PROPERTIES {
        for (place, from) in
            PLACES.into_iter().filter(|(place, _)| legal.split(' ').any(|name| name == *place))
        {
            for cut in 1..property.len() {
                if matches!(place, "AUTH") || property[0] == 0x16 {
                    continue; // what follows the property here would complete it
                }
                refused(from, Version::V5, &packet_with(place, &property[..cut]), MALFORMED);
            }
        }
    }
}

#[test]
fn property_values_out_of_range() {
    let cases: [(&str, &[u8], ReasonCode); 20] = [
        ("PUBLISH>", &[0x01, 2], PROTOCOL),
        ("WILL", &[0x01, 255], PROTOCOL),
        ("PUBLISH>", &[0x23, 0, 0], ReasonCode::TopicAliasInvalid),
        ("PUBLISH>", &[0x08, 0, 3, b'a', b'/', b'#'], MALFORMED),
        ("PUBLISH>", &[0x08, 0, 1, b'+'], MALFORMED),
        ("WILL", &[0x08, 0, 0], MALFORMED),
        ("PUBLISH<", &[0x0B, 0], PROTOCOL),
        ("SUBSCRIBE", &[0x0B, 0], PROTOCOL),
        ("CONNECT", &[0x17, 2], PROTOCOL),
        ("CONNECT", &[0x19, 2], PROTOCOL),
        ("CONNECT", &[0x21, 0, 0], PROTOCOL),
        ("CONNECT", &[0x27, 0, 0, 0, 0], PROTOCOL),
        ("CONNACK", &[0x21, 0, 0], PROTOCOL),
        ("CONNACK", &[0x27, 0, 0, 0, 0], PROTOCOL),
        ("CONNACK", &[0x24, 2], PROTOCOL),
        ("CONNACK", &[0x25, 2], PROTOCOL),
        ("CONNACK", &[0x28, 2], PROTOCOL),
        ("CONNACK", &[0x29, 2], PROTOCOL),
        ("CONNACK", &[0x2A, 2], PROTOCOL),
        ("PUBLISH>", &[0x26, 0, 1, 0, 0, 1, b'v'], MALFORMED),
    ];
    for (place, property, reason) in cases {
        let (_, from) = PLACES.into_iter().find(|(name, _)| *name == place).unwrap();
        refused(from, Version::V5, &packet_with(place, property), reason);
    }
}

/// A packet with this string in one of its fields.
type WithString = (From, fn(&[u8]) -> Vec<u8>);

const STRING_FIELDS: [WithString; 13] = [
    (From::Client, |s| frame(0x10, &[&field("MQTT"), &[5, 2, 0, 0, 0], &field(s)])),
    (From::Client, |s| {
        frame(0x10, &[&field("MQTT"), &[5, 6, 0, 0, 0], &field("c"), &[0], &field(s), &field("")])
    }),
    (From::Client, |s| frame(0x10, &[&field("MQTT"), &[5, 0x82, 0, 0, 0], &field("c"), &field(s)])),
    (From::Client, |s| frame(0x30, &[&field(s), &[0]])),
    (From::Client, |s| frame(0x82, &[&[0, 1, 0], &field(s), &[0]])),
    (From::Client, |s| frame(0xA2, &[&[0, 1, 0], &field(s)])),
    (From::Client, |s| packet_with("PUBLISH>", &[&[0x26][..], &field(s), &field("")].concat())),
    (From::Client, |s| packet_with("SUBSCRIBE", &[&[0x26][..], &field(""), &field(s)].concat())),
    (From::Client, |s| packet_with("PUBLISH>", &[&[0x03][..], &field(s)].concat())),
    (From::Client, |s| packet_with("WILL", &[&[0x08][..], &field(s)].concat())),
    (From::Client, |s| packet_with("AUTH", &[&[0x15][..], &field(s)].concat())),
    (From::Client, |s| packet_with("PUBACK", &[&[0x1F][..], &field(s)].concat())),
    (From::Server, |s| packet_with("CONNACK", &[&[0x12][..], &field(s)].concat())),
];

#[test]
fn utf8_matrix() {
    let wrong: [&[u8]; 9] = [
        b"a\0b",
        &[0xC0, 0x80],
        &[0xE0, 0x80, 0x80],
        &[0xED, 0xA0, 0x80],
        &[0xED, 0xBF, 0xBF],
        &[0xF4, 0x90, 0x80, 0x80],
        &[b'a', 0xC3],
        &[0x80],
        &[0xFF],
    ];
    let right: [&[u8]; 5] =
        [b"a", &[0xEF, 0xBB, 0xBF], &[0xF4, 0x8F, 0xBF, 0xBF], &[0xEF, 0xBF, 0xBE], &[0x01, 0x7F]];
    for (from, with) in STRING_FIELDS {
        for string in wrong {
            refused(from, Version::V5, &with(string), MALFORMED);
        }
        for string in right {
            let bytes = with(string);
            assert!(decode(from, Version::V5, &bytes).is_ok(), "{bytes:02x?}");
        }
    }
    // A BOM is a character like any other [MQTT-1.5.4-3].
    let bytes = frame(0x30, &[&field("\u{feff}a"), &[0]]);
    let Ok(Packet::Publish(publish)) = decode(From::Client, Version::V5, &bytes) else { panic!() };
    assert_eq!(publish.topic, "\u{feff}a");
}

#[test]
fn reason_codes_by_packet() {
    const PUBLISHED: &[u8] = &[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    const RELEASED: &[u8] = &[0, 0x92];
    const CONNACK: &[u8] = &[
        0, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99,
        0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
    ];
    const SUBACK: &[u8] = &[0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2];
    const UNSUBACK: &[u8] = &[0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
    const DISCONNECT: &[u8] = &[
        0, 4, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96,
        0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
    ];
    type WithCode = fn(u8) -> Vec<u8>;
    let cases: [(&[u8], WithCode); 9] = [
        (CONNACK, |code| frame(0x20, &[&[0, code, 0]])),
        (PUBLISHED, |code| frame(0x40, &[&[0, 1, code]])),
        (PUBLISHED, |code| frame(0x50, &[&[0, 1, code, 0]])),
        (RELEASED, |code| frame(0x62, &[&[0, 1, code]])),
        (RELEASED, |code| frame(0x70, &[&[0, 1, code, 0]])),
        (SUBACK, |code| frame(0x90, &[&[0, 1, 0, 0, code]])),
        (UNSUBACK, |code| frame(0xB0, &[&[0, 1, 0, code]])),
        (DISCONNECT, |code| frame(0xE0, &[&[code]])),
        (&[0, 0x18, 0x19], |code| frame(0xF0, &[&[code, 4, 0x15, 0, 1, b'm']])),
    ];
    for (legal, with) in cases {
        for code in 0..=255 {
            let bytes = with(code);
            if legal.contains(&code) {
                assert!(decode(From::Server, Version::V5, &bytes).is_ok(), "{bytes:02x?}");
            } else {
                refused(From::Server, Version::V5, &bytes, PROTOCOL);
            }
        }
    }
    for code in 0..=255 {
        let known = [0, 1, 2, 0x80].contains(&code);
        assert_eq!(decode(From::Server, Version::V311, &[0x90, 3, 0, 1, code]).is_ok(), known);
    }
}
