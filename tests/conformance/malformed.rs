//! Bytes that are no MQTT, and packets that clients do not send.

use crate::harness::{
    Connect, Publish, Version, broker, disconnect, packet, string, suback, subscribe, unique,
};

/// Sends bytes on a fresh connection of 5.0, and checks the reason of the end.
fn ends(bytes: &[u8], reason: u8) {
    let mut client = broker().connect(&Connect::v5(&unique("malformed")));
    client.send(bytes);
    client.expect_end(reason);
    let mut client = broker().connect(&Connect::v311(&unique("malformed")));
    client.send(bytes);
    client.expect_closed();
}

#[test]
fn server_only_packets() {
    proves!("5.0 MQTT-4.13.1-1");
    for bytes in [&[0x20, 2, 0, 0][..], &[0x90, 3, 0, 1, 0], &[0xB0, 2, 0, 1], &[0xD0, 0]] {
        ends(bytes, 0x82);
    }
}

#[test]
fn reserved_packet_type() {
    ends(&[0x00, 0], 0x81);
}

#[test]
fn flags_matrix() {
    proves!(
        "5.0 MQTT-2.1.3-1",
        "5.0 MQTT-3.14.1-1",
        "5.0 MQTT-3.6.1-1",
        "U-2.1.3-a",
        "3.1.1 MQTT-2.2.2-1",
        "3.1.1 MQTT-2.2.2-2",
        "3.1.1 MQTT-3.6.1-1",
        "3.1.1 MQTT-3.14.1-1"
    );
    for first in 0x40..=0xFF_u8 {
        let right = match first >> 4 {
            6 | 8 | 10 => 2,
            // That a server's packet comes from a client is worse than its flags.
            9 | 11 | 13 => continue,
            _ => 0,
        };
        // Nothing else is wrong with the packet.
        let body: &[u8] = match first >> 4 {
            8 => &[0, 1, 0, 0, 1, b'a', 0],
            10 => &[0, 1, 0, 0, 1, b'a'],
            12 | 14 | 15 => &[],
            _ => &[0, 1],
        };
        if first & 0x0F != right {
            ends(&packet(first, body), 0x81);
        }
    }
    // Before 5.0 there is no AUTH.
    let mut client = broker().connect(&Connect::v311(&unique("malformed")));
    client.send(&[0xF0, 0]);
    client.expect_closed();
}

#[test]
fn publish_flags() {
    proves!("5.0 MQTT-3.3.1-4", "U-3.3.1-a", "5.0 MQTT-3.3.1-2", "3.1.1 MQTT-3.3.1-4", "3.1.1 MQTT-3.3.1-2");
    for first in [0x36, 0x37, 0x3E, 0x3F, 0x38, 0x39] {
        ends(&packet(first, &[0, 1, b'a', 0, 1, 0]), 0x81);
    }
}

#[test]
fn lengths() {
    proves!("U-2.1.4-a", "5.0 MQTT-1.5.5-1", "5.0 MQTT-4.13.1-1");
    for bytes in [
        &[0x30, 0xFF, 0xFF, 0xFF, 0xFF][..],
        &[0x30, 0x80, 0x80, 0x80, 0x80, 1],
        &[0xC0, 1, 0],
        &[0x40, 1, 0],
        &[0x30, 1, 0],
        &[0x30, 3, 0, 2, b'a'],
        &[0x62, 0],
    ] {
        ends(bytes, 0x81);
    }
    // A length of more bytes than it needs.
    ends(&[0xC0, 0x80, 0], 0x81);
}

#[test]
fn utf8_matrix() {
    proves!(
        "5.0 MQTT-1.5.4-1",
        "5.0 MQTT-1.5.4-2",
        "5.0 MQTT-1.5.7-1",
        "U-1.5.4-a",
        "5.0 MQTT-4.7.3-2",
        "5.0 MQTT-3.3.2-13",
        "5.0 MQTT-3.3.2-19",
        "5.0 MQTT-3.8.3-1",
        "5.0 MQTT-3.10.3-1",
        "3.1.1 MQTT-3.8.3-1",
        "3.1.1 MQTT-3.10.3-1",
        "3.1.1 MQTT-1.5.3-1",
        "3.1.1 MQTT-1.5.3-2",
        "3.1.1 MQTT-4.7.3-2",
        "5.0 MQTT-3.3.2-1",
        "3.1.1 MQTT-3.3.2-1"
    );
    for text in no_text() {
        ends(&packet(0x30, &[&text[..], &[0]].concat()), 0x81);
        for version in Version::BOTH {
            let head: &[u8] = if version == Version::V5 { &[0, 1, 0] } else { &[0, 1] };
            for (first, tail) in [(0x82, &[0][..]), (0xA2, &[])] {
                let mut client = broker().connect(&Connect::new(version, &unique("text")));
                client.send(&packet(first, &[head, &text, tail].concat()));
                client.expect_end(0x81);
            }
        }
        let pairs = [[string("k"), text.clone()].concat(), [text.clone(), string("v")].concat()];
        for (id, value) in [(0x03, &text), (0x08, &text), (0x26, &pairs[0]), (0x26, &pairs[1])] {
            let mut client = broker().connect(&Connect::v5(&unique("text")));
            client.send(&Publish::new("a", "").property(id, value).v5());
            client.expect_end(0x81);
        }
    }
    // All that is UTF-8 is kept as it came: BOM, non-characters, the last code point, control characters.
    for text in ["\u{feff}", "\u{fffe}\u{ffff}", "\u{10ffff}", "\u{1}\u{7f}\u{85}", "\u{d7ff}\u{e000}"] {
        let topic = unique(text);
        let mut client = broker().connect(&Connect::v5(&topic));
        client.ask(&subscribe(1, &[(&topic, 0)]), &suback(0x90, 1, &[0]));
        let publish = Publish::new(&topic, text).property(0x03, &string(text)).property(0x08, &string(text));
        let publish = publish.property(0x26, &[string(text), string(text)].concat()).v5();
        client.ask(&publish, &publish);
    }
}

/// Strings with their length that are no text.
fn no_text() -> [Vec<u8>; 7] {
    let bad: [&[u8]; 7] = [
        b"a\0b",
        &[0xC0, 0x80],
        &[0xED, 0xA0, 0x80],
        &[0xED, 0xBF, 0xBF],
        &[0xF4, 0x90, 0x80, 0x80],
        &[0xE2, 0x82],
        &[0xFF],
    ];
    bad.map(|text| [&(text.len() as u16).to_be_bytes()[..], text].concat())
}

#[test]
fn text_of_connect_that_is_no_text() {
    proves!(
        "5.0 MQTT-3.1.3-4",
        "5.0 MQTT-3.1.3-8",
        "5.0 MQTT-3.1.3-11",
        "5.0 MQTT-3.1.3-12",
        "3.1.1 MQTT-3.1.3-4",
        "3.1.1 MQTT-3.1.3-10",
        "3.1.1 MQTT-3.1.3-11"
    );
    for version in Version::BOTH {
        let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        let id = || string(&unique("text"));
        for text in no_text() {
            let user = [id(), text.clone()].concat();
            let will = [&id()[..], properties, &text, &string("payload")].concat();
            for (flags, payload) in [(2, text), (0x82, user), (0x06, will)] {
                let mut client = broker().open();
                let head = [&string("MQTT")[..], &[version as u8, flags, 0, 0], properties].concat();
                client.send(&packet(0x10, &[head, payload].concat()));
                if version == Version::V5 {
                    client.expect(&[0x20, 3, 0, 0x81, 0]);
                }
                client.expect_closed();
            }
        }
    }
}

#[test]
fn reason_codes_that_are_not_in_the_table() {
    proves!(
        "5.0 MQTT-3.4.2-1",
        "5.0 MQTT-3.5.2-1",
        "5.0 MQTT-3.6.2-1",
        "5.0 MQTT-3.7.2-1",
        "5.0 MQTT-3.14.2-1"
    );
    for (first, reason) in [(0x40, 0x92), (0x50, 0x01), (0x62, 0x10), (0x70, 0x80)] {
        let mut client = broker().connect(&Connect::v5(&unique("reason")));
        client.send(&packet(first, &[0, 1, reason]));
        let end = client.receive();
        assert!(matches!(end[..], [0xE0, _, 0x81 | 0x82, ..]), "{first:02x}: {end:02x?}");
        client.expect_closed();
    }
    let mut client = broker().connect(&Connect::v5(&unique("reason")));
    client.send(&disconnect(0x02, &[]));
    let end = client.receive();
    assert!(matches!(end[..], [0xE0, _, 0x81 | 0x82, ..]), "{end:02x?}");
    client.expect_closed();
}

#[test]
fn disconnect_short_forms() {
    proves!("5.0 MQTT-3.14.4-1", "5.0 MQTT-3.14.4-2", "3.1.1 MQTT-3.14.4-1", "3.1.1 MQTT-3.14.4-2");
    let topic = unique("after");
    let mut witness = broker().connect(&Connect::v5(&unique("witness")));
    witness.send(&subscribe(1, &[(&topic, 0)]));
    witness.receive();
    let forms = [(Version::V311, &[0xE0, 0][..]), (Version::V5, &[0xE0, 0]), (Version::V5, &[0xE0, 1, 0])];
    for (version, form) in forms.into_iter().chain([(Version::V5, &[0xE0, 2, 0, 0][..])]) {
        let mut client = broker().connect(&Connect::new(version, &unique("form")).will(&topic, "will", 0));
        // What follows is not processed.
        client.send(&[form, &Publish::new(&topic, "x").bytes(version)].concat());
        client.expect_closed();
    }
    witness.expect_nothing();
    for form in [&[0xE0, 1, 4][..], &[0xE0, 2, 4, 0]] {
        broker().connect(&Connect::v5(&unique("form")).will(&topic, "will", 0)).leave_with(form);
        witness.expect(&Publish::new(&topic, "will").v5());
    }
}

#[test]
fn the_reason_arrives_although_more_was_sent() {
    let mut client = broker().connect(&Connect::v5(&unique("flood")));
    let flood: Vec<u8> = std::iter::repeat_n(Publish::new("a", "b").v5(), 100_000).flatten().collect();
    client.send(&[&[0x20, 2, 0, 0][..], &flood].concat());
    client.expect_end(0x82);
}

#[test]
fn connack_says_what_was_wrong_with_connect_and_disconnect_the_rest() {
    proves!("U-4.13-a", "5.0 MQTT-3.2.2-8", "5.0 MQTT-4.13.2-1");
    let unknown = [0x7F, 0];
    let twice = [0x26, 0, 0, 0, 0, 0x1F, 0, 0, 0x1F, 0, 0];
    let connect =
        |property: u8, value: &[u8]| Connect::v5(&unique("wrong")).property(property, value).bytes();
    for (bytes, reason) in [
        (connect(0x7F, &[0]), 0x81),
        (connect(0x21, &[0, 0]), 0x82),
        (connect(0x21, &[0, 9, 0x21, 0, 9]), 0x82),
        (connect(0x15, &string("SECRET")), 0x8C),
        (packet(0x10, &[&string("MQTT")[..], &[6, 2, 0, 0, 0], &string("x")].concat()), 0x84),
    ] {
        let mut client = broker().open();
        client.ask(&bytes, &[0x20, 3, 0, reason, 0]);
        client.expect_closed();
    }
    for (properties, reason) in [(&unknown[..], 0x81), (&twice, 0x82)] {
        let mut client = broker().connect(&Connect::v5(&unique("wrong")));
        let block = [&[0, 1, 0, properties.len() as u8], properties].concat();
        client.send(&packet(0x40, &block));
        client.expect_end(reason);
    }
}

#[test]
fn disconnect_of_the_broker_says_nothing_of_the_session() {
    proves!("5.0 MQTT-3.14.2-2");
    let alias = Publish::new("a", "").property(0x23, &[0, 0]).v5();
    let connect = Connect::v5(&unique("told"));
    for (bytes, reason) in
        [(connect.bytes(), 0x82), (vec![0x30, 0x81, 0x80, 0x40], 0x95), (vec![0xF1, 0], 0x81), (alias, 0x94)]
    {
        let mut client = broker().connect(&Connect::v5(&unique("told")).durable());
        client.send(&bytes);
        let disconnect = client.receive();
        assert_eq!((disconnect[0], disconnect[2]), (0xE0, reason));
        assert!(!disconnect[3..].contains(&0x11), "{disconnect:02x?}");
        client.expect_closed();
    }
    let connect = connect.durable();
    let mut old = broker().connect(&connect);
    broker().resume(&connect).expect_nothing();
    let disconnect = old.receive();
    assert!(disconnect[2] == 0x8E && !disconnect[3..].contains(&0x11), "{disconnect:02x?}");
}
