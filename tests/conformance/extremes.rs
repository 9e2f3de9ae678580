//! The longest and the shortest that MQTT allows, and clients that are gone before they are answered.

use std::time::{Duration, Instant};

use crate::harness::{
    Broker, Connect, Publish, Version, ack, broker, packet, string, suback, subscribe, unique, unsubscribe,
};

/// A string of the greatest length that ends in `mark`.
fn longest(mark: &str) -> String {
    format!("{}{mark}", "x".repeat(65_535 - mark.len()))
}

#[test]
fn longest_strings() {
    let mut broker = Broker::start("");
    let (topic, will_topic) = (longest("topic"), longest("will"));
    let pair = [string(&longest("k")), string(&longest("v"))].concat();
    let connect = Connect::v5(&longest("client")).durable();
    let mut client = broker.connect(&connect);
    client.ask(&subscribe(1, &[(&topic, 2), (&will_topic, 1)]), &suback(0x90, 1, &[2, 1]));
    client.leave();
    let dies = Connect::v5(&longest("dies")).will(&will_topic, &longest("gone"), 1).property(0x26, &pair);
    broker.connect(&dies.will_property(0x26, &pair).will_property(0x03, &string(&longest("t")))).cut();
    let rich = Publish::new(&topic, "rich").property(0x03, &string(&longest("type")));
    let rich = rich.property(0x08, &string(&longest("response"))).property(0x09, &string(&longest("data")));
    let rich = rich.property(0x26, &pair).qos(1, 1);
    broker.connect(&Connect::v5("sender")).ask(&rich.clone().retain().v5(), &ack(0x40, 1));
    broker.restart();
    let mut client = broker.resume(&connect);
    let will = client.take_qos_1();
    assert_eq!((will.topic, will.payload), (will_topic.clone(), longest("gone").into_bytes()));
    let message = client.take_qos_1();
    assert_eq!((&message.topic, message.payload), (&topic, b"rich".to_vec()));
    let length = message.properties.len();
    assert_eq!(length, 5 * (65_535 + 2) + 4, "all properties came along");
    client.ask(&unsubscribe(2, &[&topic, &will_topic]), &suback(0xB0, 2, &[0, 0]));
    client.ask(&subscribe(3, &[(&topic, 0)]), &suback(0x90, 3, &[0]));
    assert!(client.message().retain);
    client.expect_nothing();
}

#[test]
fn shortest_strings() {
    let topic = unique("shortest");
    let mut client = broker().connect(&Connect::v5(&topic).durable());
    client.ask(&subscribe(1, &[(&topic, 1), ("/", 0), ("//", 0)]), &suback(0x90, 1, &[1, 0, 0]));
    let empty = Publish::new(&topic, "").property(0x03, &[0, 0]).property(0x09, &[0, 0]);
    let empty = empty.property(0x26, &[0, 0, 0, 0]);
    client.ask(&empty.v5(), &empty.v5());
    for topic in ["/", "//"] {
        client.ask(&Publish::new(topic, "").v5(), &Publish::new(topic, "").v5());
    }
    // User name and password may be there and empty, and so may the payload of a will.
    for (level, flags) in [(4, 0xC6), (5, 0xC6), (5, 0x46)] {
        let properties: &[u8] = if level == 5 { &[0] } else { &[] };
        let mut fields = [string(&unique("empty")), properties.to_vec(), string("w"), vec![0, 0]].concat();
        let texts = if flags & 0x80 == 0 { 1 } else { 2 };
        fields.extend([0, 0].repeat(texts));
        let body = [&string("MQTT")[..], &[level, flags, 0, 0], properties, &fields].concat();
        let mut client = broker().open();
        client.send(&packet(0x10, &body));
        let connack = client.receive();
        assert!(matches!(connack[3], 0 | 4 | 0x86), "{connack:02x?}");
    }
}

#[test]
fn who_is_gone_before_connack_leaves_nothing_behind() {
    for version in [Version::V311, Version::V5] {
        let name = unique("hasty");
        let durable = Connect::new(version, &name).durable();
        broker().connect(&durable).leave();
        for round in 0..60 {
            let mut client = broker().open();
            let connect = if round % 3 == 0 { Connect::new(version, &name) } else { durable.clone() };
            client.send(&connect.bytes());
            if round % 2 == 0 {
                client.half_close();
            }
        }
        // Whatever became of them, the next one is served, and at once. Each of them may still take it over once,
        // because the broker hears them in any order.
        let since = Instant::now();
        let is_served = |_| {
            let mut client = broker().open();
            client.offer(&durable).is_some() && {
                client.send(&[0xC0, 0]);
                client.next() == Some(vec![0xD0, 0])
            }
        };
        assert!((0..=60).any(is_served));
        assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    }
}
