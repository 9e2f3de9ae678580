//! CONNECT and CONNACK.

use crate::harness::{
    Broker, Client, Connect, Publish, Version, broker, packet, string, suback, suback_v311, subscribe,
    subscribe_v311, unique,
};

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

/// A CONNECT until its payload, with these flags.
fn connect_head(version: Version, flags: u8) -> Vec<u8> {
    let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    [&string("MQTT")[..], &[version as u8, flags, 0, 0], properties].concat()
}

/// Sends a CONNECT that is written wrongly.
fn refused_as_malformed(connect: &[u8], version: Version) {
    let mut client = broker().open();
    client.send(&packet(0x10, connect));
    if version == Version::V5 {
        client.expect(&[0x20, 3, 0, 0x81, 0]);
    }
    client.expect_closed();
}

#[test]
fn is_accepted_in_every_version() {
    proves!(
        "5.0 MQTT-3.1.4-5",
        "5.0 MQTT-3.2.0-1",
        "5.0 MQTT-3.2.2-1",
        "3.1.1 MQTT-3.1.4-4",
        "3.1.1 MQTT-3.2.0-1"
    );
    for version in VERSIONS {
        let mut client = broker().connect(&Connect::new(version, &unique("accepted")));
        client.expect_nothing();
    }
}

#[test]
fn short_identifiers_of_letters_and_digits_are_taken() {
    proves!("5.0 MQTT-3.1.3-5", "3.1.1 MQTT-3.1.3-5");
    let characters: Vec<char> = ('0'..='9').chain('a'..='z').chain('A'..='Z').collect();
    let of_length = |length| characters.chunks(length).map(|chunk| chunk.iter().collect::<String>());
    for version in VERSIONS {
        // No other test may have them.
        let broker = Broker::start("");
        for id in of_length(1).chain(of_length(23)) {
            broker.connect(&Connect::new(version, &id)).expect_nothing();
        }
    }
}

#[test]
fn second_connect() {
    proves!("5.0 MQTT-3.1.0-2", "5.0 MQTT-3.2.0-2", "3.1.1 MQTT-3.1.0-2");
    for version in VERSIONS {
        let connect = Connect::new(version, &unique("twice"));
        let mut client = broker().connect(&connect);
        client.send(&connect.bytes());
        client.expect_end(0x82);
    }
}

#[test]
fn first_packet_not_connect() {
    proves!("5.0 MQTT-3.1.0-1", "3.1.1 MQTT-3.1.0-1", "5.0 MQTT-3.14.0-1");
    let firsts = [Publish::new("a", "").v5(), vec![0xC0, 0], vec![0xE0, 0], subscribe(1, &[("a", 0)])];
    for first in firsts {
        let mut client = broker().open();
        client.send(&first);
        client.expect_closed();
    }
    // By its first byte, whatever length follows.
    for first in (0..=255).filter(|first| *first != 0x10) {
        let mut client = broker().open();
        client.send(&[first, 0xFF, 0xFF, 0xFF, 0x7F]);
        client.expect_closed();
    }
}

#[test]
fn protocol_names() {
    proves!(
        "5.0 MQTT-3.1.2-1",
        "5.0 MQTT-3.1.2-2",
        "3.1.1 MQTT-3.1.2-1",
        "3.1.1 MQTT-3.1.2-2",
        "5.0 MQTT-3.2.2-7",
        "3.1.1 MQTT-3.2.2-5"
    );
    let connect =
        |name: &str, level: u8| packet(0x10, &[&string(name)[..], &[level, 2, 0, 0], &string("x")].concat());
    for (name, level, answer) in [
        ("MQTT", 6, Some(vec![0x20, 3, 0, 0x84, 0])),
        ("MQTT", 3, Some(vec![0x20, 2, 0, 1])),
        ("MQIsdp", 2, Some(vec![0x20, 2, 0, 1])),
        ("MQTTX", 4, None),
        ("mqtt", 4, None),
    ] {
        let mut client = broker().open();
        client.send(&connect(name, level));
        if let Some(answer) = answer {
            client.expect(&answer);
        }
        client.expect_closed();
    }
}

#[test]
fn reserved_flag_is_checked() {
    proves!(
        "5.0 MQTT-3.1.2-3",
        "3.1.1 MQTT-3.1.2-3",
        "U-3.1.2-a",
        "3.1.1 MQTT-3.1.4-1",
        "5.0 MQTT-3.1.4-1",
        "3.1.1 MQTT-3.2.2-6"
    );
    for version in [Version::V311, Version::V5] {
        let mut connect = Connect::new(version, &unique("flag")).bytes();
        connect[9] |= 1;
        let mut client = broker().open();
        client.send(&connect);
        if version == Version::V5 {
            client.expect(&[0x20, 3, 0, 0x81, 0]);
        }
        client.expect_closed();
    }
    // 3.1 does not use the bit.
    let mut connect = Connect::new(Version::V31, &unique("flag")).bytes();
    connect[11] |= 1;
    broker().open().ask(&connect, &[0x20, 2, 0, 0]);
}

#[test]
fn will_flags_without_a_will_or_qos_3_are_malformed() {
    proves!(
        "5.0 MQTT-3.1.2-11",
        "5.0 MQTT-3.1.2-12",
        "5.0 MQTT-3.1.2-13",
        "U-3.1.2-b",
        "3.1.1 MQTT-3.1.2-11",
        "3.1.1 MQTT-3.1.2-13",
        "3.1.1 MQTT-3.1.2-14",
        "3.1.1 MQTT-3.1.2-15"
    );
    for flags in [0x08, 0x10, 0x20, 0x18] {
        for version in [Version::V311, Version::V5] {
            let mut connect = Connect::new(version, &unique("will")).bytes();
            connect[9] |= flags;
            let mut client = broker().open();
            client.send(&connect);
            if version == Version::V5 {
                client.expect(&[0x20, 3, 0, 0x81, 0]);
            }
            client.expect_closed();
        }
    }
    for version in Version::BOTH {
        let mut client = broker().open();
        let mut connect = Connect::new(version, &unique("will")).will("a", "b", 0).bytes();
        connect[9] |= 0x18;
        client.send(&connect);
        if version == Version::V5 {
            client.expect(&[0x20, 3, 0, 0x81, 0]);
        }
        client.expect_closed();
    }
}

#[test]
fn what_the_flags_announce_has_to_be_there() {
    proves!(
        "5.0 MQTT-3.1.2-9",
        "5.0 MQTT-3.1.2-16",
        "5.0 MQTT-3.1.2-17",
        "5.0 MQTT-3.1.2-18",
        "5.0 MQTT-3.1.2-19",
        "3.1.1 MQTT-3.1.2-9",
        "3.1.1 MQTT-3.1.2-18",
        "3.1.1 MQTT-3.1.2-19",
        "3.1.1 MQTT-3.1.2-20",
        "3.1.1 MQTT-3.1.2-21",
        "3.1.1 MQTT-3.1.2-22",
        "5.0 MQTT-3.1.3-3",
        "3.1.1 MQTT-3.1.3-3"
    );
    let will = |version| match version {
        Version::V5 => [&[0][..], &string("will/topic")].concat(),
        _ => string("will/topic"),
    };
    for version in Version::BOTH {
        for (flags, tail) in [
            (0x04, vec![]),
            (0x04, will(version)),
            (0x80, vec![]),
            (0xC0, string("user")),
            (0x80, [string("user"), string("a password that no flag announces")].concat()),
            (0x00, string("a user that no flag announces")),
        ] {
            let head = connect_head(version, 2 | flags);
            refused_as_malformed(&[head, string(&unique("flags")), tail].concat(), version);
        }
        // Without a client identifier there is no payload at all, and nothing to answer.
        let mut client = broker().open();
        client.send(&packet(0x10, &connect_head(version, 2)));
        client.expect_closed();
    }
    let password = [connect_head(Version::V311, 0x42), string(&unique("flags")), string("alone")].concat();
    refused_as_malformed(&password, Version::V311);
    // A password alone is right in 5.0.
    let body =
        [&string("MQTT")[..], &[5, 0x42, 0, 0, 0], &string(&unique("password")), &string("p")].concat();
    let mut client = broker().open();
    client.send(&packet(0x10, &body));
    assert_eq!(client.receive()[3], 0);
}

#[test]
fn an_empty_client_id_gets_one_that_is_used() {
    proves!("5.0 MQTT-3.1.3-6", "5.0 MQTT-3.1.3-7", "5.0 MQTT-3.2.2-16", "3.1.1 MQTT-3.1.3-6");
    let assigned = || {
        let mut client = broker().open();
        let connack = client.connect(&Connect::v5("").expiry(100), false);
        let at = connack.iter().rposition(|byte| *byte == 0x12).unwrap();
        let length = usize::from(connack[at + 2]);
        client.leave();
        String::from_utf8(connack[at + 3..at + 3 + length].to_vec()).unwrap()
    };
    let (one, other) = (assigned(), assigned());
    assert_ne!(one, other);
    broker().resume(&Connect::v5(&one).expiry(100).resuming());
    // Neither of two takes the other one's place.
    let mut without_id = [Connect::v311(""), Connect::v311("")].map(|connect| broker().connect(&connect));
    without_id.iter_mut().for_each(Client::expect_nothing);
}

/// No order is asked for; this one is mosquitto's, and its form of identifiers.
#[test]
fn what_connack_says_is_in_the_order_that_clients_know() {
    let broker = Broker::start(
        "[limits]\npacket_size = 2000000\nreceive_maximum = 20\ntopic_alias_maximum = 10\nsession_expiry = \"1s\"\n\
         keep_alive_max = \"60s\"\n[mqtt]\nmaximum_qos = 1\nretain = false",
    );
    let connack = broker.open().connect(&Connect::v5("").expiry(9), false);
    let (before, id, after) = (&connack[5..14], &connack[14..55], &connack[55..]);
    assert_eq!(before, [0x13, 0, 60, 0x22, 0, 10, 0x12, 0, 41]);
    let hyphens: Vec<usize> = (0..id.len()).filter(|at| id[*at] == b'-').collect();
    assert!(id.starts_with(b"auto-") && hyphens == [4, 13, 18, 23, 28], "{id:02x?}");
    let limits = [0x25, 0, 0x27, 0, 0x1E, 0x84, 0x80, 0x21, 0, 20, 0x24, 1, 0x11, 0, 0, 0, 1];
    assert_eq!(after, limits);
}

#[test]
fn a_property_length_that_leads_out_of_connect_is_malformed() {
    proves!("5.0 MQTT-3.1.4-1");
    let body = [&string("MQTT")[..], &[5, 2, 0, 10, 0x24, 1], &string("p")].concat();
    refused_as_malformed(&body, Version::V5);
}

#[test]
fn assigned_id_unique() {
    let mut broker = Broker::start("");
    let mut known = std::collections::HashSet::new();
    for round in 0..300 {
        if round == 200 {
            broker.crash();
        }
        let connack = broker.open().connect(&Connect::v5("").expiry(u32::from(round % 50 == 0) * 9), false);
        let at = connack.iter().rposition(|byte| *byte == 0x12).unwrap();
        let id = connack[at + 3..at + 3 + usize::from(connack[at + 2])].to_vec();
        // Sixteen random bytes and more cannot be guessed.
        assert!(id.len() >= 32 && connack[at + 1] == 0, "{connack:02x?}");
        assert!(known.insert(id), "{connack:02x?} was given out before");
    }
}

#[test]
fn an_empty_client_id_with_a_session_is_refused_before_5() {
    proves!("3.1.1 MQTT-3.1.3-7", "3.1.1 MQTT-3.1.3-8", "3.1.1 MQTT-3.1.3-9");
    let mut client = broker().open();
    client.ask(&Connect::v311("").resuming().bytes(), &[0x20, 2, 0, 2]);
    client.expect_closed();
}

#[test]
fn what_a_refused_client_sends_has_no_effect() {
    proves!("3.1.1 MQTT-3.1.4-5", "5.0 MQTT-3.1.4-6");
    let topic = unique("refused");
    let mut witness = broker().connect(&Connect::v5(&unique("witness")));
    witness.subscribe(&topic, 0);
    let unknown_method = Connect::v5(&unique("refused")).property(0x15, &string("SECRET"));
    for refused in [Connect::v311("").resuming(), unknown_method] {
        let mut client = broker().open();
        let publish = Publish::new(&topic, "x").bytes(refused.version);
        client.send(&[refused.bytes(), publish, vec![0xC0, 0]].concat());
        let connack = client.receive();
        assert!(connack[0] == 0x20 && connack[3] > 0, "{connack:02x?}");
        client.expect_closed();
    }
    witness.expect_nothing();
}

#[test]
fn limits_are_announced() {
    proves!("5.0 MQTT-4.12.0-6");
    let connack = broker().open().connect(&Connect::v5(&unique("limits")).keep_alive(77), false);
    let announced = connack.get(5..).unwrap();
    let has = |property: &[u8]| announced.windows(property.len()).any(|window| window == property);
    assert!(has(&[0x21, 0x04, 0x00]), "Receive Maximum 1024: {connack:02x?}");
    assert!(has(&[0x22, 0x00, 64]), "Topic Alias Maximum 64: {connack:02x?}");
    assert!(has(&[0x27, 0, 0x10, 0, 0]), "Maximum Packet Size 1 MiB: {connack:02x?}");
    assert_eq!(
        announced.len(),
        11,
        "all else is allowed, and the keep-alive is the client's: {connack:02x?}"
    );
}

#[test]
fn an_authentication_method_is_refused() {
    proves!("5.0 MQTT-4.12.0-1");
    let connect = Connect::v5(&unique("auth")).property(0x15, &string("SECRET"));
    let mut client = broker().open();
    client.ask(&connect.bytes(), &[0x20, 3, 0, 0x8C, 0]);
    client.expect_closed();
}

#[test]
fn auth_without_a_method_is_a_protocol_error() {
    proves!("U-3.15.0-a", "5.0 MQTT-4.12.0-7", "5.0 MQTT-3.15.1-1");
    let mut client = broker().connect(&Connect::v5(&unique("auth")));
    client.send(&packet(0xF0, &[0x19, 3 + 2, 0x15, 0, 2, b'x', b'y']));
    client.expect_end(0x82);
    let mut client = broker().connect(&Connect::v5(&unique("auth")));
    client.send(&[0xF1, 0]);
    client.expect_end(0x81);
}

#[test]
fn packets_may_come_in_one_piece_or_byte_by_byte() {
    // Listeners are for TCP: a stream, of which the pieces mean nothing.
    proves!("3.1.1 MQTT-7.1.1-1");
    for version in Version::BOTH {
        let topic = unique("pieces");
        let (subscribe, granted) = match version {
            Version::V5 => (subscribe(1, &[(&topic, 0)]), suback(0x90, 1, &[0])),
            _ => (subscribe_v311(1, &[(&topic, 0)]), suback_v311(1, &[0])),
        };
        let publish = Publish::new(&topic, "x").bytes(version);
        let all = [Connect::new(version, &unique("pieces")).bytes(), subscribe, publish.clone()].concat();
        for piece in [all.len(), 7, 1] {
            let mut client = broker().open();
            all.chunks(piece).for_each(|piece| client.send(piece));
            assert_eq!(client.receive()[0], 0x20);
            client.expect(&granted);
            client.expect(&publish);
        }
    }
}

#[test]
fn what_was_not_asked_for_is_not_sent() {
    for asked in [0, 1] {
        let connect = Connect::v5(&unique("information")).property(0x19, &[asked]).property(0x17, &[0]);
        let mut client = broker().open();
        let connack = client.connect(&connect, false);
        assert!(!connack[5..].contains(&0x1A), "{connack:02x?}");
        client.ask(&subscribe(1, &[("$share/g", 0)]), &suback(0x90, 1, &[0x8F]));
    }
}

#[test]
fn a_silent_connection_is_closed_without_a_word() {
    proves!("U-3.1.4-a");
    let broker = Broker::start("[limits]\nconnect_timeout = \"1s\"");
    let mut silent = broker.open();
    let mut slow = broker.open();
    slow.send(&[0x10, 0x50, 0, 4]);
    silent.expect_closed();
    slow.expect_closed();
}

#[test]
fn one_that_is_too_large_is_refused_by_its_length() {
    for bytes in [[0x10, 0xFF, 0xFF, 0xFF, 0x7F], [0x30, 0xFF, 0xFF, 0xFF, 0x7F]] {
        let mut client = broker().open();
        client.send(&bytes);
        client.expect_closed();
    }
}

#[test]
fn control_characters_are_taken() {
    proves!("U-1.5.4-b");
    let topic = unique("control\u{1}\u{7f}\u{9f}\u{ffff}");
    let mut client = broker().connect(&Connect::v5(&unique("control\u{1}")));
    client.ask(&subscribe(1, &[(&topic, 0)]), &suback(0x90, 1, &[0]));
    client.send(&Publish::new(&topic, "x").v5());
    client.expect(&Publish::new(&topic, "x").v5());
}
