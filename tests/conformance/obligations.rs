//! What clients owe, and what the broker does to one that owes it still.

use crate::harness::{
    Broker, Connect, Publish, Version, ack, ack_with, broker, disconnect, packet, string, suback, subscribe,
    subscribe_v311, subscribe_with, unique, unsubscribe_v311,
};

#[test]
fn an_identifier_in_qos_0_is_payload() {
    proves!("5.0 MQTT-2.2.1-2", "3.1.1 MQTT-2.3.1-5");
    for version in Version::BOTH {
        let topic = unique("no-id");
        let mut receiver = broker().connect(&Connect::new(version, &unique("receiver")));
        receiver.subscribe(&topic, 2);
        let mut client = broker().connect(&Connect::new(version, &unique("client")));
        // In 5.0 a property length stands there, and 0 and 1 are one of 0 and the payload.
        let body = [&string(&topic)[..], &[0, 1], b"x"].concat();
        client.send(&packet(0x30, &body));
        // The broker's own has none either: the bytes are the same.
        receiver.expect(&packet(0x30, &body));
        let payload: &[u8] = if version == Version::V5 { &[1, b'x'] } else { &[0, 1, b'x'] };
        client.publish(&Publish::new(&topic, payload));
        receiver.expect(&packet(0x30, &body));
    }
}

#[test]
fn an_identifier_in_use_names_the_message_it_has() {
    proves!("5.0 MQTT-2.2.1-3", "3.1.1 MQTT-2.3.1-2");
    for version in Version::BOTH {
        let topic = unique("in-use");
        let mut receiver = broker().connect(&Connect::new(version, &unique("receiver")));
        receiver.subscribe(&topic, 0);
        let mut client = broker().connect(&Connect::new(version, &unique("client")));
        client.ask(&Publish::new(&topic, "first").qos(2, 9).bytes(version), &ack(0x50, 9));
        // Another message with its identifier counts as a repeat.
        client.ask(&Publish::new(&topic, "second").qos(2, 9).bytes(version), &ack(0x50, 9));
        receiver.expect_publish(&Publish::new(&topic, "first"));
        receiver.expect_nothing();
    }
}

#[test]
fn an_alias_where_there_are_none_ends_the_connection() {
    proves!("5.0 MQTT-3.2.2-18");
    let broker = Broker::start("[limits]\ntopic_alias_maximum = 0");
    let mut client = broker.open();
    let connack = client.connect(&Connect::v5("c"), false);
    assert!(
        !connack[5..].windows(3).any(|window| window[0] == 0x22 && window[1..] != [0, 0]),
        "{connack:02x?}"
    );
    client.send(&Publish::new("a", "").property(0x23, &[0, 1]).v5());
    client.expect_end(0x94);
}

#[test]
fn a_client_that_gives_up_over_an_alias_it_allowed_has_left_in_disorder() {
    proves!("5.0 MQTT-3.3.2-10");
    let (base, will) = (unique("alias"), unique("will"));
    let mut witness = broker().connect(&Connect::v5(&unique("witness")));
    witness.subscribe(&will, 0);
    let connect = Connect::v5(&unique("forgets")).property(0x22, &[0, 3]).will(&will, "gave up", 0);
    let mut client = broker().connect(&connect);
    client.subscribe(&format!("{base}/#"), 0);
    let mut sender = broker().connect(&Connect::v5(&unique("sender")));
    let topics = [1, 2, 3].map(|n| format!("{base}/{n}"));
    for round in ["new", "known"] {
        for (topic, alias) in topics.iter().zip(1_u16..) {
            sender.publish(&Publish::new(topic, round));
            let topic = if round == "new" { topic } else { "" };
            client.expect(&Publish::new(topic, round).property(0x23, &alias.to_be_bytes()).v5());
        }
    }
    client.leave_with(&disconnect(0x94, &[]));
    witness.expect_publish(&Publish::new(&will, "gave up"));
}

#[test]
fn a_copy_for_one_subscription_has_its_identifier_alone() {
    proves!("5.0 MQTT-3.3.4-5");
    let topic = unique("copies");
    let group = format!("$share/g/{topic}");
    let mut client = broker().connect(&Connect::v5(&unique("copies")));
    client.ask(&subscribe_with(1, &[0x0B, 1], &[(&topic, 0)]), &suback(0x90, 1, &[0]));
    client.ask(&subscribe_with(2, &[0x0B, 2], &[(&group, 0)]), &suback(0x90, 2, &[0]));
    broker().connect(&Connect::v5(&unique("p"))).send(&Publish::new(&topic, "x").v5());
    let mut properties = [client.message().properties, client.message().properties];
    properties.sort();
    assert_eq!(properties, [[0x0B, 1], [0x0B, 2]]);
    client.expect_nothing();
}

#[test]
fn a_client_that_may_not_publish_is_answered_all_else() {
    proves!("5.0 MQTT-3.3.4-8", "5.0 MQTT-4.9.0-3");
    let broker = Broker::start("[limits]\nreceive_maximum = 2");
    let mut client = broker.connect(&Connect::v5("full"));
    for id in [1, 2] {
        client.ask(&Publish::new("t", "").qos(2, id).v5(), &ack_with(0x50, id, 0x10));
    }
    client.ask(&subscribe(1, &[("t", 1)]), &suback(0x90, 1, &[1]));
    client.ask(&[0xC0, 0], &[0xD0, 0]);
    client.ask(&Publish::new("t", "QoS 0").v5(), &Publish::new("t", "QoS 0").v5());
    let mut other = broker.connect(&Connect::v5("other"));
    other.ask(&Publish::new("t", "x").qos(1, 1).v5(), &ack(0x40, 1));
    client.take_qos_1();
    client.ask(&ack(0x62, 1), &ack(0x70, 1));
    client.ask(&Publish::new("none", "").qos(1, 1).v5(), &ack_with(0x40, 1, 0x10));
    client.ask(&subscribe(2, &[("none", 0)]), &suback(0x90, 2, &[0]));
    other.ask(&subscribe(1, &[("other", 0)]), &suback(0x90, 1, &[0]));
    client.ask(&Publish::new("other", "").qos(2, 3).v5(), &ack(0x50, 3));
    client.send(&Publish::new("other", "").qos(2, 4).v5());
    client.expect_end(0x93);
}

#[test]
fn names_and_filters_are_as_long_as_a_string_can_be() {
    proves!("5.0 MQTT-4.7.3-3", "3.1.1 MQTT-4.7.3-3");
    for version in Version::BOTH {
        let topic = format!("{:x<65535}", unique("longest"));
        let mut client = broker().connect(&Connect::new(version, &unique("longest")));
        client.subscribe(&topic, 0);
        client.publish(&Publish::new(&topic, "x"));
        client.expect_publish(&Publish::new(&topic, "x"));
        // One byte more is no part of it: 65,536 is 0 in two bytes.
        let longer = [&[0, 0][..], topic.as_bytes(), b"x", &[0]].concat();
        client.send(&packet(0x30, &longer));
        client.expect_end(if version == Version::V5 { 0x81 } else { 0 });
    }
}

#[test]
fn nothing_but_3_1_1_is_needed() {
    proves!("3.1.1 MQTT-7.0.0-2");
    let topic = unique("plain");
    let mut client = broker().connect(&Connect::v311(&unique("plain")));
    client.ask(&subscribe_v311(1, &[(&topic, 2)]), &[0x90, 3, 0, 1, 2]);
    for qos in 0..3 {
        let publish = Publish::new(&topic, "x").qos(qos, u16::from(qos > 0)).v311();
        let answer = [0, 0x40, 0x50][usize::from(qos)];
        client.send(&publish);
        let mut packets = vec![client.receive()];
        if qos > 0 {
            packets.push(client.receive());
        }
        packets.sort();
        assert_eq!(packets[0][0], 0x30 | qos << 1);
        packets[1..].iter().for_each(|packet| assert_eq!(*packet, ack(answer, 1)));
        if qos == 2 {
            client.ask(&ack(0x62, 1), &ack(0x70, 1));
        }
    }
    client.ask(&unsubscribe_v311(2, &[&topic]), &ack(0xB0, 2));
    client.ask(&[0xC0, 0], &[0xD0, 0]);
    client.send(&[0xE0, 0]);
    client.expect_closed();
}

#[test]
fn a_packet_for_which_there_is_no_room_now_ends_the_connection() {
    proves!("3.1.1 MQTT-4.8.0-2");
    let broker = Broker::start("[limits]\npacket_size = \"512 KiB\"\nmemory = \"512 KiB\"");
    let large = Publish::new("large", vec![0; 450_000]);
    // One that takes its time has the broker keep what comes for it.
    let mut slow = broker.connect(&Connect::v5("slow").property(0x21, &[0, 1]));
    slow.subscribe("t", 1);
    let mut sender = broker.connect(&Connect::v5("sender"));
    for n in 1..=8 {
        sender.ask(&Publish::new("t", vec![0; 60_000]).qos(1, n).v5(), &ack(0x40, n));
    }
    let clients = Version::BOTH.map(|version| broker.connect(&Connect::new(version, &unique("large"))));
    let mut other = broker.connect(&Connect::v311("other"));
    for mut client in clients {
        client.publish(&large);
        client.expect_end(0x97);
    }
    for _ in 1..=8 {
        slow.take_qos_1();
    }
    slow.expect_nothing();
    other.publish(&large);
    other.expect_nothing();
}
