//! Frames and fields that are cut, too long, or longer than they say: every one is judged at once, none is
//! waited for, and none costs more memory than it has sent.

use std::time::{Duration, Instant};

use crate::harness::{
    Broker, Connect, Publish, Verdict, Version, ack, broker, disconnect, packet, string, suback, subscribe,
    subscribe_v311, subscribe_with, unique, unsubscribe, unsubscribe_v311,
};

const BOTH: [Version; 2] = [Version::V311, Version::V5];

/// What becomes of a client that sends these bytes after its CONNECT.
fn verdict(version: Version, bytes: &[u8]) -> Verdict {
    broker().connect(&Connect::new(version, &unique("parser"))).verdict(bytes)
}

/// What becomes of a CONNECT.
fn connect_verdict(bytes: &[u8]) -> Verdict {
    let mut client = broker().open();
    client.send(bytes);
    match client.next().as_deref() {
        None => Verdict::Closed,
        Some([0x20, _, _, 0, ..]) => Verdict::Alive,
        Some([0x20, _, _, reason, ..]) => {
            client.expect_closed();
            Verdict::Told(*reason)
        }
        Some(other) => panic!("no CONNACK: {other:02x?}"),
    }
}

/// A 5.0 client is told, an older one is not.
fn refused(version: Version, reason: u8) -> Verdict {
    if version == Version::V5 { Verdict::Told(reason) } else { Verdict::Closed }
}

/// One packet of each kind that a client sends, with every field it can have.
fn samples(version: Version) -> Vec<Vec<u8>> {
    let pair = [string("k"), string("v")].concat();
    let publish = Publish::new("parser/a", "payload");
    let mut samples = vec![publish.bytes(version), publish.clone().qos(1, 9).bytes(version), vec![0xC0, 0]];
    if version == Version::V5 {
        let properties = [&[0x1F][..], &string("because"), &[0x26], &pair].concat();
        let with_length = [&[properties.len() as u8][..], &properties].concat();
        samples.extend(
            [0x40, 0x50, 0x62, 0x70].map(|first| packet(first, &[&[0, 7, 0][..], &with_length].concat())),
        );
        let rich = publish.property(0x03, &string("t")).property(0x02, &[0, 0, 0, 9]).property(0x26, &pair);
        samples.push(rich.qos(2, 8).v5());
        samples.push(subscribe_with(1, &[0x0B, 0xFF, 1], &[("parser/s", 0), ("parser/+/t", 1)]));
        samples.push(unsubscribe(2, &["parser/s", "parser/+/t"]));
        samples.push(disconnect(0, &properties));
    } else {
        samples.extend([0x40, 0x50, 0x62, 0x70].map(|first| ack(first, 7)));
        samples.push(subscribe_v311(1, &[("parser/s", 0), ("parser/+/t", 1)]));
        samples.push(unsubscribe_v311(2, &["parser/s", "parser/+/t"]));
        samples.push(vec![0xE0, 0]);
    }
    samples
}

/// A CONNECT with every field it can have.
fn full_connect(version: Version) -> Vec<u8> {
    let connect = Connect::new(version, &unique("parser")).will("parser/will", "gone", 1);
    if version != Version::V5 {
        return connect.bytes();
    }
    connect.expiry(1).property(0x21, &[0, 9]).will_property(0x18, &[0, 0, 0, 1]).bytes()
}

/// The packet without its fixed header of two bytes.
fn body(packet: &[u8]) -> &[u8] {
    assert!(packet[1] < 0x80, "a sample is short");
    &packet[2..]
}

#[test]
fn truncated_field_in_complete_frame() {
    for version in BOTH {
        for sample in samples(version) {
            for cut in 0..body(&sample).len() {
                let bytes = packet(sample[0], &body(&sample)[..cut]);
                // Also valid: a shorter payload or list, and the short forms of 5.0.
                let may_be_valid = matches!(sample[0] >> 4, 3 | 8 | 10) || version == Version::V5;
                match verdict(version, &bytes) {
                    Verdict::Told(0x81 | 0x82) => assert_eq!(version, Version::V5),
                    Verdict::Closed if version == Version::V311 => {}
                    // A DISCONNECT in its short form.
                    Verdict::Closed => assert_eq!(sample[0], 0xE0, "{bytes:02x?}"),
                    other => assert!(other == Verdict::Alive && may_be_valid, "{other:?} to {bytes:02x?}"),
                }
            }
        }
        let connect = full_connect(version);
        let id_at = if version == Version::V5 { 11 + usize::from(body(&connect)[10]) } else { 10 };
        let id_end = id_at + 2 + usize::from(body(&connect)[id_at + 1]);
        for cut in 0..body(&connect).len() {
            let end = connect_verdict(&packet(0x10, &body(&connect)[..cut]));
            // What does not reach the end of its client identifier is not answered, unless its properties are
            // what is wrong.
            let answered = cut >= id_end || (11..id_at).contains(&cut);
            let wanted = if answered { refused(version, 0x81) } else { Verdict::Closed };
            assert_eq!(end, wanted, "CONNECT of {version:?} cut at {cut}");
        }
    }
}

#[test]
fn trailing_bytes() {
    for version in BOTH {
        for sample in samples(version).iter().filter(|sample| sample[0] >> 4 != 3) {
            let bytes = packet(sample[0], &[body(sample), &[0]].concat());
            assert_eq!(verdict(version, &bytes), refused(version, 0x81), "{bytes:02x?}");
        }
        let connect = packet(0x10, &[body(&full_connect(version)), &[0]].concat());
        assert_eq!(connect_verdict(&connect), refused(version, 0x81));
    }
}

#[test]
fn varint_five_bytes() {
    for (version, first) in
        BOTH.into_iter().flat_map(|version| [0x30, 0x40, 0x82, 0xC0].map(|f| (version, f)))
    {
        for tail in
            [&[0x80, 0x80, 0x80, 0x80, 1][..], &[0xFF, 0xFF, 0xFF, 0xFF], &[0x80, 0x80, 0x80, 0x80, 0]]
        {
            let bytes = [&[first][..], tail].concat();
            assert_eq!(verdict(version, &bytes), refused(version, 0x81), "{bytes:02x?}");
        }
    }
    assert_eq!(connect_verdict(&[0x10, 0x80, 0x80, 0x80, 0x80, 1]), Verdict::Closed);
    varints_inside(&[0x80, 0x80, 0x80, 0x80, 1]);
}

#[test]
fn varint_not_minimal() {
    proves!("5.0 MQTT-1.5.5-1");
    for version in BOTH {
        for bytes in [&[0xC0, 0x80, 0][..], &[0x40, 0x82, 0, 0, 1], &[0x40, 0x82, 0x80, 0, 0, 1]] {
            assert_eq!(verdict(version, bytes), refused(version, 0x81), "{bytes:02x?}");
        }
    }
    let connect = Connect::v5("minimal").bytes();
    let longer = [&[0x10, connect[1] | 0x80, 0], &connect[2..]].concat();
    assert_eq!(connect_verdict(&longer), Verdict::Closed);
    varints_inside(&[0x80, 0]);
    varints_inside(&[0x80, 0x80, 0]);
}

/// As a property length of each packet that has one, and as a subscription identifier.
fn varints_inside(varint: &[u8]) {
    let v5 = |bytes: Vec<u8>| assert_eq!(verdict(Version::V5, &bytes), Verdict::Told(0x81), "{bytes:02x?}");
    v5(packet(0x30, &[&string("a")[..], varint].concat()));
    v5(packet(0x82, &[&[0, 1], varint, &string("a"), &[0]].concat()));
    v5(packet(0xA2, &[&[0, 1], varint, &string("a")].concat()));
    for first in [0x40, 0x50, 0x62, 0x70] {
        v5(packet(first, &[&[0, 1, 0], varint].concat()));
    }
    v5(packet(0xE0, &[&[0], varint].concat()));
    let subscription_id = [&[0x0B], varint].concat();
    v5(subscribe_with(1, &subscription_id, &[("a", 0)]));
    let head = [&string("MQTT")[..], &[5, 6, 0, 0]].concat();
    let in_connect = [&head[..], varint, &string("x"), &[0], &string("w"), &string("w")].concat();
    // Where its client identifier is cannot be told.
    assert_eq!(connect_verdict(&packet(0x10, &in_connect)), Verdict::Closed);
    let in_will = [&head[..], &[0], &string("x"), varint, &string("w"), &string("w")].concat();
    assert_eq!(connect_verdict(&packet(0x10, &in_will)), Verdict::Told(0x81));
}

#[test]
fn what_comes_with_connect_is_judged_after_it() {
    let topic = unique("with");
    for (behind, reason) in
        [(vec![0x20, 2, 0, 0], 0x82), (vec![0x36, 0], 0x81), (Connect::v5(&topic).bytes(), 0x82)]
    {
        let mut client = broker().open();
        client.send(&[Connect::v5(&topic).bytes(), subscribe(1, &[(&topic, 0)]), behind].concat());
        assert_eq!(client.receive()[..4], [0x20, 14, 0, 0]);
        assert_eq!(client.last_words(), Some(reason));
    }
    // Behind one that is refused nothing is looked at.
    let mut client = broker().open();
    client.send(&[Connect::v5(&topic).property(0x21, &[0, 0]).bytes(), vec![0xC0, 0, 0x20, 0]].concat());
    client.expect(&[0x20, 3, 0, 0x82, 0]);
    client.expect_closed();
}

#[test]
fn receive_maximum_zero() {
    let connect = Connect::v5(&unique("zero")).property(0x21, &[0, 0]);
    assert_eq!(connect_verdict(&connect.bytes()), Verdict::Told(0x82));
}

#[test]
fn max_packet_zero() {
    let connect = Connect::v5(&unique("zero")).property(0x27, &[0, 0, 0, 0]);
    assert_eq!(connect_verdict(&connect.bytes()), Verdict::Told(0x82));
}

#[test]
fn user_property_flood() {
    let pair = [&[0x26][..], &string("name"), &string("value")].concat();
    let flood = |connect: Connect| (0..5000).fold(connect, |connect, _| connect.property(0x26, &pair[1..]));
    let connect = flood(Connect::v5(&unique("flood")));
    let mut client = broker().connect(&connect);
    let topic = unique("flood");
    client.ask(&subscribe_with(1, &pair.repeat(5000), &[(&topic, 0)]), &suback(0x90, 1, &[0]));
    let publish = (0..5000).fold(Publish::new(&topic, "x"), |p, _| p.property(0x26, &pair[1..]));
    client.ask(&publish.v5(), &publish.v5());
    // What is above the limit is above that of the packet.
    client.send(&subscribe_with(2, &pair.repeat(100_000), &[("a", 0)])[..5]);
    client.expect_end(0x95);
}

#[test]
fn subscribe_many_filters() {
    let filters: Vec<_> = (0..100_000).map(|n| format!("m{n:06}")).collect();
    let entries: Vec<_> = filters.iter().map(|filter| (filter.as_str(), 0)).collect();
    let mut client = broker().connect(&Connect::v5(&unique("many")));
    let codes: Vec<_> = (0..100_000).map(|n| if n < 10_000 { 0 } else { 0x97 }).collect();
    client.ask(&subscribe(1, &entries), &suback(0x90, 1, &codes));
    // Those that are there are not new ones.
    client.ask(&subscribe(2, &entries[..10]), &suback(0x90, 2, &[0; 10]));
    client.ask(&unsubscribe(3, &[&filters[0], &filters[10_000]]), &suback(0xB0, 3, &[0, 0x11]));
    client.ask(&subscribe(4, &entries[10_000..10_002]), &suback(0x90, 4, &[0, 0x97]));
}

#[test]
fn unsubscribe_many_filters() {
    let filters: Vec<_> = (0..100_000).map(|n| format!("m{n:06}")).collect();
    let entries: Vec<_> = filters[..10_000].iter().map(|filter| (filter.as_str(), 0)).collect();
    let names: Vec<_> = filters.iter().map(String::as_str).rev().collect();
    // Retained messages are still to be looked for when all of them are taken back, and others, too.
    let mut client = broker().connect(&Connect::v5(&unique("many")).expiry(5));
    client.send(&[subscribe(1, &entries), unsubscribe(2, &names)].concat());
    client.expect(&suback(0x90, 1, &[0; 10_000]));
    let codes: Vec<_> = (0..100_000).rev().map(|n| if n < 10_000 { 0 } else { 0x11 }).collect();
    client.expect(&suback(0xB0, 2, &codes));
}

#[test]
fn subscribe_many_filters_that_are_shared() {
    let base = unique("many");
    let filters: Vec<_> = (0..4_000).map(|n| format!("$share/{base}-{n}/{n}")).collect();
    let entries: Vec<_> = filters.iter().map(|filter| (filter.as_str(), 1)).collect();
    let names: Vec<_> = filters.iter().map(String::as_str).collect();
    let connect = Connect::v5(&base).durable();
    let mut client = broker().connect(&connect);
    for round in 0..2 {
        client.ask(&subscribe(1, &entries), &suback(0x90, 1, &[1; 4_000]));
        if round == 0 {
            client.ask(&unsubscribe(2, &names), &suback(0xB0, 2, &[0; 4_000]));
        }
    }
    // By the end of their session as by an UNSUBSCRIBE. Others who wait for the disk wait no longer for it.
    client.leave();
    broker().connect(&connect.clean()).expect_nothing();
}

#[test]
fn length_dribble() {
    let broker = Broker::start("[limits]\npacket_timeout = \"2s\"");
    let publish = Publish::new("dribble", vec![7; 1_000_000]).v5();
    let mut clients: Vec<_> =
        (0..300).map(|n| broker.connect(&Connect::v5(&format!("dribble-{n}")))).collect();
    let before = broker.resident();
    // What was announced would be 300 MB; what was sent is half of one.
    for client in &mut clients {
        client.send(&publish[..1000]);
        (1000..1200).for_each(|at| client.send(&publish[at..at + 1]));
    }
    broker.connect(&Connect::v5("other")).expect_nothing();
    if let (Some(before), Some(after)) = (before, broker.resident()) {
        assert!(after < before + 20_000_000, "{before} to {after} bytes");
    }
    // The packet is one all the same when the rest comes, and the others have had their time.
    let mut last = clients.pop().unwrap();
    last.send(&publish[1200..]);
    last.expect_nothing();
    clients.iter_mut().for_each(|client| client.expect_end(0x83));
    // It is a packet's, not the connection's.
    last.expect_nothing();
}

#[test]
fn connect_length_over_limit() {
    let broker = Broker::start("");
    let before = broker.resident();
    for _ in 0..200 {
        let mut client = broker.open();
        client.send(&[0x10, 0xFF, 0xFF, 0xFF, 0x7F]);
        client.send(&[0; 1]);
        let since = Instant::now();
        client.expect_closed();
        assert!(since.elapsed() < Duration::from_secs(5));
    }
    if let (Some(before), Some(after)) = (before, broker.resident()) {
        assert!(after < before + 10_000_000, "{before} to {after} bytes");
    }
}
