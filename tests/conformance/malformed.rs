//! Bytes that are no MQTT, and packets that clients do not send.

use crate::harness::{Connect, Publish, broker, disconnect, packet, string, suback, subscribe, unique};

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
        if first & 0x0F != right {
            ends(&[first, 2, 0, 1], 0x81);
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
    proves!("U-2.1.4-a", "5.0 MQTT-1.5.5-1");
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
        "U-1.5.4-a",
        "5.0 MQTT-4.7.3-2",
        "3.1.1 MQTT-1.5.3-1",
        "3.1.1 MQTT-1.5.3-2",
        "3.1.1 MQTT-4.7.3-2",
        "5.0 MQTT-3.3.2-1",
        "3.1.1 MQTT-3.3.2-1"
    );
    let bad: [&[u8]; 7] = [
        b"a\0b",
        &[0xC0, 0x80],
        &[0xED, 0xA0, 0x80],
        &[0xED, 0xBF, 0xBF],
        &[0xF4, 0x90, 0x80, 0x80],
        &[0xE2, 0x82],
        &[0xFF],
    ];
    for text in bad {
        let text = [&(text.len() as u16).to_be_bytes()[..], text].concat();
        ends(&packet(0x30, &[&text[..], &[0]].concat()), 0x81);
        let mut client = broker().connect(&Connect::v5(&unique("text")));
        client.send(&packet(0x82, &[&[0, 1, 0][..], &text, &[0]].concat()));
        client.expect_end(0x81);
        let mut client = broker().connect(&Connect::v5(&unique("text")));
        client.send(&packet(0xA2, &[&[0, 1, 0][..], &text].concat()));
        client.expect_end(0x81);
        // As client id, user name, and in a property.
        let head = [&string("MQTT")[..], &[5, 2, 0, 0, 0]].concat();
        let mut client = broker().open();
        client.ask(&packet(0x10, &[head, text.clone()].concat()), &[0x20, 3, 0, 0x81, 0]);
        client.expect_closed();
        let head = [&string("MQTT")[..], &[4, 0x82, 0, 0], &string(&unique("text"))].concat();
        let mut client = broker().open();
        client.send(&packet(0x10, &[head, text.clone()].concat()));
        client.expect_closed();
        let mut client = broker().connect(&Connect::v5(&unique("text")));
        client.send(&Publish::new("a", "").property(0x03, &text).v5());
        client.expect_end(0x81);
        let mut client = broker().connect(&Connect::v5(&unique("text")));
        let pair = [string("k"), text].concat();
        client.send(&Publish::new("a", "").property(0x26, &pair).v5());
        client.expect_end(0x81);
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
    for form in [&[0xE0, 0][..], &[0xE0, 1, 0], &[0xE0, 2, 0, 0]] {
        let mut client = broker().connect(&Connect::v5(&unique("form")).will(&topic, "will", 0));
        // What follows is not processed.
        client.send(&[form, &Publish::new(&topic, "x").v5()[..]].concat());
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
