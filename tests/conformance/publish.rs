//! PUBLISH: topics, forwarding, order, aliases, size.

use crate::harness::{
    Broker, Client, Connect, Publish, Version, ack, ack_with, broker, packet, string, suback, suback_v311,
    subscribe, subscribe_v311, subscribe_with, unique,
};

/// A client of 5.0 that subscribes to `filter`.
fn subscriber(filter: &str, options: u8) -> Client {
    let mut client = broker().connect(&Connect::v5(&unique("subscriber")));
    client.ask(&subscribe(1, &[(filter, options)]), &suback(0x90, 1, &[options & 3]));
    client
}

fn publisher() -> Client {
    broker().connect(&Connect::v5(&unique("publisher")))
}

#[test]
fn delivery_has_the_lower_qos() {
    proves!(
        "5.0 MQTT-3.8.4-8",
        "3.1.1 MQTT-3.8.4-6",
        "5.0 MQTT-4.3.1-1",
        "3.1.1 MQTT-4.3.1-1",
        "5.0 MQTT-4.5.0-1",
        "3.1.1 MQTT-4.5.0-1",
        "5.0 MQTT-3.3.4-1",
        "3.1.1 MQTT-3.3.4-1"
    );
    for (version, granted) in Version::BOTH.into_iter().flat_map(|v| [0, 1, 2].map(|qos| (v, qos))) {
        let topic = unique("qos");
        let mut receiver = broker().connect(&Connect::new(version, &unique("receiver")));
        receiver.subscribe(&topic, granted);
        let mut sender = broker().connect(&Connect::new(version, &unique("sender")));
        sender.publish(&Publish::new(&topic, "0"));
        sender.ask(&Publish::new(&topic, "1").qos(1, 1).bytes(version), &ack(0x40, 1));
        sender.ask(&Publish::new(&topic, "2").qos(2, 2).bytes(version), &ack(0x50, 2));
        sender.ask(&ack(0x62, 2), &ack(0x70, 2));
        for qos in 0..3 {
            let message = receiver.message();
            assert_eq!((message.qos, message.dup), (qos.min(granted), false));
            assert_eq!(message.payload, qos.to_string().as_bytes());
        }
    }
}

#[test]
fn nobody_listens_is_told() {
    let mut sender = publisher();
    sender.ask(&Publish::new(&unique("nobody"), "").qos(1, 7).v5(), &ack_with(0x40, 7, 0x10));
    sender.ask(&Publish::new(&unique("nobody"), "").qos(2, 8).v5(), &ack_with(0x50, 8, 0x10));
}

#[test]
fn dup_not_propagated() {
    proves!("5.0 MQTT-3.3.1-3", "3.1.1 MQTT-3.3.1-3");
    for version in Version::BOTH {
        let topic = unique("dup");
        let mut receiver = broker().connect(&Connect::new(version, &unique("receiver")));
        receiver.subscribe(&topic, 2);
        let mut sender = broker().connect(&Connect::new(version, &unique("sender")));
        sender.ask(&Publish::new(&topic, "").qos(1, 9).dup().bytes(version), &ack(0x40, 9));
        assert!(!receiver.take_qos_1().dup);
        sender.ask(&Publish::new(&topic, "").qos(2, 9).dup().bytes(version), &ack(0x50, 9));
        assert!(!receiver.message().dup);
    }
}

#[test]
fn wildcards_in_a_topic_name_end_the_connection() {
    proves!("5.0 MQTT-3.3.2-2", "5.0 MQTT-4.7.0-1", "3.1.1 MQTT-3.3.2-2", "3.1.1 MQTT-4.7.1-1");
    for topic in ["a/+", "#", "a/b#", "+/a"] {
        let mut client = publisher();
        client.send(&Publish::new(topic, "").v5());
        client.expect_end(0x81);
        let mut client = broker().connect(&Connect::v311(&unique("wildcard")));
        client.send(&Publish::new(topic, "").v311());
        client.expect_closed();
    }
}

#[test]
fn an_empty_topic_needs_an_alias() {
    proves!("U-3.3.2-a", "3.1.1 MQTT-4.7.3-1", "5.0 MQTT-4.7.3-1");
    let mut client = publisher();
    client.send(&Publish::new("", "").v5());
    client.expect_end(0x82);
    let mut client = broker().connect(&Connect::v311(&unique("empty")));
    client.send(&Publish::new("", "").v311());
    client.expect_closed();
}

#[test]
fn more_levels_than_the_limit_are_malformed() {
    let levels = |n: usize| vec!["a"; n].join("/");
    let mut client = publisher();
    client.ask(&Publish::new(&levels(200), "").qos(1, 1).v5(), &ack_with(0x40, 1, 0x10));
    client.send(&Publish::new(&levels(201), "").v5());
    client.expect_end(0x81);
    let mut client = publisher();
    client.send(&Publish::new(&"/".repeat(65_535), "").v5());
    client.expect_end(0x81);
}

#[test]
fn properties_are_forwarded_unchanged_and_in_order() {
    proves!(
        "5.0 MQTT-3.3.2-4",
        "5.0 MQTT-3.3.2-15",
        "5.0 MQTT-3.3.2-16",
        "5.0 MQTT-3.3.2-17",
        "5.0 MQTT-3.3.2-18",
        "5.0 MQTT-3.3.2-20"
    );
    let topic = unique("properties");
    let mut receiver = subscriber(&topic, 0);
    let pair = |name: &str, value: &str| [string(name), string(value)].concat();
    let publish = Publish::new(&topic, "x")
        .property(0x01, &[1])
        .property(0x03, &string("text/plain"))
        .property(0x08, &string("answer/here"))
        .property(0x09, &[0, 3, 0, 0xFF, 1])
        .property(0x26, &pair("b", "2"))
        .property(0x26, &pair("a", "1"))
        .property(0x26, &pair("b", "2"));
    publisher().send(&publish.v5());
    receiver.expect(&publish.v5());
}

/// No order is asked for, but of User Properties; this one is mosquitto's.
#[test]
fn what_the_broker_adds_stands_behind_what_the_publisher_wrote() {
    let topic = unique("order");
    let mut receiver = broker().connect(&Connect::v5(&topic));
    receiver.ask(&subscribe_with(1, &[0x0B, 7], &[(&topic, 0)]), &suback(0x90, 1, &[0]));
    let publish = Publish::new(&topic, "x").property(0x02, &[0, 0, 0, 90]).property(0x03, &string("text"));
    receiver.send(&publish.v5());
    let got = receiver.message().properties;
    assert_eq!(got[..7], [&[3][..], &string("text")].concat(), "{got:02x?}");
    assert!(got[7] == 2 && got[12..] == [0x0B, 7], "{got:02x?}");
}

#[test]
fn message_expiry_is_forwarded() {
    proves!("5.0 MQTT-3.3.2-6");
    let topic = unique("expiry");
    let mut receiver = subscriber(&topic, 0);
    publisher().send(&Publish::new(&topic, "x").property(0x02, &[0, 0, 0, 90]).v5());
    let [2, 0, 0, 0, left @ 80..=90] = receiver.message().properties[..] else { panic!("no expiry") };
    assert!(left > 0);
}

#[test]
fn order_is_kept() {
    proves!(
        "5.0 MQTT-4.6.0-5",
        "5.0 MQTT-4.6.0-6",
        "3.1.1 MQTT-4.6.0-5",
        "3.1.1 MQTT-4.6.0-6",
        "3.1.1 MQTT-4.6.0-2",
        "5.0 MQTT-4.6.0-2"
    );
    for version in Version::BOTH {
        let topic = unique("order");
        let mut receiver = broker().connect(&Connect::new(version, &unique("receiver")));
        receiver.subscribe(&topic, 1);
        let mut sender = broker().connect(&Connect::new(version, &unique("sender")));
        let publish = |n: u16| Publish::new(&topic, n.to_string()).qos(1, n).bytes(version);
        sender.send(&(1..=500).flat_map(publish).collect::<Vec<_>>());
        for n in 1..=500 {
            assert_eq!(receiver.take_qos_1().payload, n.to_string().as_bytes());
        }
        (1..=500).for_each(|n| sender.expect(&ack(0x40, n)));
    }
}

#[test]
fn alias_bounds() {
    proves!(
        "5.0 MQTT-3.3.2-12",
        "5.0 MQTT-3.3.2-9",
        "5.0 MQTT-3.2.2-17",
        "U-PROP-23-value",
        "5.0 MQTT-3.3.2-8"
    );
    let (one, other) = (unique("alias"), unique("alias"));
    let mut receiver = subscriber(&one, 0);
    receiver.ask(&subscribe(2, &[(&other, 0)]), &suback(0x90, 2, &[0]));
    let mut sender = publisher();
    let publish =
        |topic: &str, alias: u16| Publish::new(topic, "x").property(0x23, &alias.to_be_bytes()).v5();
    for alias in 1..=64 {
        sender.send(&publish(&one, alias));
        sender.send(&publish("", alias));
        sender.send(&publish(&other, alias));
        sender.send(&publish("", alias));
        for topic in [&one, &one, &other, &other] {
            receiver.expect(&Publish::new(topic, "x").v5());
        }
    }
    for alias in [0, 65, 65_535] {
        let mut sender = publisher();
        sender.send(&publish(&one, alias));
        sender.expect_end(0x94);
    }
    // Within the maximum, but never set.
    let mut sender = publisher();
    sender.send(&publish("", 63));
    sender.expect_end(0x82);
}

#[test]
fn alias_bounds_end_with_the_connection() {
    proves!("5.0 MQTT-3.3.2-7", "U-3.3.2-b");
    let (id, topic) = (unique("alias"), unique("alias"));
    let mut client = broker().connect(&Connect::v5(&id).expiry(100));
    client.send(&Publish::new(&topic, "x").property(0x23, &[0, 1]).v5());
    client.leave();
    let mut client = broker().resume(&Connect::v5(&id).expiry(100).resuming());
    client.send(&Publish::new("", "x").property(0x23, &[0, 1]).v5());
    client.expect_end(0x82);
}

#[test]
fn aliases_to_the_client_stay_within_its_maximum() {
    proves!("5.0 MQTT-3.1.2-26", "5.0 MQTT-3.1.2-27", "5.0 MQTT-3.3.2-11");
    let base = unique("alias");
    let connect = Connect::v5(&unique("aliased")).property(0x22, &[0, 1]);
    let mut receiver = broker().connect(&connect);
    let filter = format!("{base}/+");
    receiver.ask(&subscribe(1, &[(&filter, 0)]), &suback(0x90, 1, &[0]));
    let mut plain = subscriber(&filter, 0);
    let mut sender = publisher();
    let (one, other) = (format!("{base}/1"), format!("{base}/2"));
    for topic in [&one, &other, &one] {
        sender.send(&Publish::new(topic, "x").v5());
    }
    receiver.expect(&Publish::new(&one, "x").property(0x23, &[0, 1]).v5());
    receiver.expect(&Publish::new(&other, "x").v5());
    receiver.expect(&Publish::new("", "x").property(0x23, &[0, 1]).v5());
    for topic in [&one, &other, &one] {
        plain.expect(&Publish::new(topic, "x").v5());
    }
}

#[test]
fn a_message_too_large_for_the_client_is_skipped_and_teaches_no_alias() {
    proves!("5.0 MQTT-3.1.2-24", "5.0 MQTT-3.1.2-25");
    let topic = unique("large");
    let connect = Connect::v5(&unique("small")).property(0x27, &[0, 0, 0, 60]).property(0x22, &[0, 5]);
    let mut receiver = broker().connect(&connect);
    receiver.ask(&subscribe(1, &[(&topic, 1)]), &suback(0x90, 1, &[1]));
    let mut sender = publisher();
    sender.ask(&Publish::new(&topic, "x".repeat(60)).qos(1, 1).v5(), &ack(0x40, 1));
    sender.ask(&Publish::new(&topic, "fits").qos(1, 2).v5(), &ack(0x40, 2));
    let message = receiver.take_qos_1();
    assert_eq!((message.topic, message.payload), (topic, b"fits".to_vec()));
}

#[test]
fn a_packet_above_our_maximum_ends_the_connection() {
    proves!("U-3.2.2-c", "5.0 MQTT-3.2.2-15");
    let mut client = publisher();
    // The fixed header alone decides.
    client.send(&[0x30, 0x81, 0x80, 0x40]);
    client.expect_end(0x95);
}

#[test]
fn large_messages_pass() {
    let topic = unique("megabyte");
    let mut receiver = subscriber(&topic, 1);
    let payload = vec![7; 1024 * 1024 - 100];
    publisher().ask(&Publish::new(&topic, &payload).qos(1, 1).v5(), &ack(0x40, 1));
    assert_eq!(receiver.take_qos_1().payload, payload);
}

#[test]
fn leading_wildcards_do_not_match_dollar_topics() {
    proves!("5.0 MQTT-4.7.2-1", "3.1.1 MQTT-4.7.2-1");
    for version in Version::BOTH {
        // Others publish meanwhile what these filters match.
        let broker = Broker::start("");
        let mut receiver = broker.connect(&Connect::new(version, "receiver"));
        for filter in ["#", "+/broker/uptime", "+/#", "+/+/+"] {
            receiver.subscribe(filter, 0);
        }
        let mut sender = broker.connect(&Connect::new(version, "sender"));
        for topic in ["$SYS/broker/uptime", "$x/broker/uptime", "$/broker/uptime"] {
            sender.ask(&Publish::new(topic, "").qos(1, 1).bytes(version), &ack(0x40, 1));
        }
        sender.publish(&Publish::new("x$/broker/uptime", ""));
        receiver.expect_publish(&Publish::new("x$/broker/uptime", ""));
        receiver.expect_nothing();
    }
}

#[test]
fn topics_are_compared_byte_by_byte() {
    proves!(
        "5.0 MQTT-4.7.3-4",
        "3.1.1 MQTT-4.7.3-4",
        "5.0 MQTT-1.5.4-3",
        "3.1.1 MQTT-1.5.3-3",
        "5.0 MQTT-3.3.2-3",
        "3.1.1 MQTT-3.3.2-3"
    );
    for version in Version::BOTH {
        let base = unique("bytes");
        let alike = ["e\u{301}", "\u{c9}", "\u{feff}\u{e9}", "\u{e9}\u{feff}", "\u{e9}/", "\u{e9}"];
        let topics = alike.map(|end| format!("{base}/{end}"));
        let mut sender = broker().connect(&Connect::new(version, &unique("sender")));
        let mut receivers = topics.clone().map(|topic| {
            let mut receiver = broker().connect(&Connect::new(version, &unique("receiver")));
            receiver.subscribe(&topic, 0);
            receiver
        });
        topics.iter().for_each(|topic| sender.publish(&Publish::new(topic, "x")));
        for (receiver, topic) in receivers.iter_mut().zip(&topics) {
            receiver.expect_publish(&Publish::new(topic, "x"));
            receiver.expect_nothing();
        }
    }
}

#[test]
fn versions_meet() {
    let topic = unique("versions");
    let mut old = broker().connect(&Connect::v311(&unique("old")));
    old.ask(&subscribe_v311(1, &[(&topic, 1)]), &suback_v311(1, &[1]));
    let mut new = subscriber(&topic, 0);
    publisher().send(&Publish::new(&topic, "n").property(0x03, &string("t")).v5());
    old.expect(&Publish::new(&topic, "n").v311());
    new.expect(&Publish::new(&topic, "n").property(0x03, &string("t")).v5());
    old.send(&Publish::new(&topic, "o").v311());
    new.expect(&Publish::new(&topic, "o").v5());
}

#[test]
fn a_client_may_not_send_subscription_identifiers() {
    proves!("5.0 MQTT-3.3.4-6", "U-PROP-0B-where");
    let mut client = publisher();
    client.send(&Publish::new("a", "").property(0x0B, &[1]).v5());
    let end = client.receive();
    assert!(matches!(end[..], [0xE0, _, 0x81 | 0x82, ..]), "{end:02x?}");
    client.expect_closed();
}

#[test]
fn subscription_identifiers_come_along() {
    proves!("5.0 MQTT-3.3.4-3", "5.0 MQTT-3.3.4-4", "U-3.3.4-b", "5.0 MQTT-3.3.4-2");
    let topic = unique("ids");
    let mut receiver = broker().connect(&Connect::v5(&unique("ids")));
    let wild = format!("{topic}/#");
    receiver.ask(&subscribe_with(1, &[0x0B, 1], &[(&topic, 0)]), &suback(0x90, 1, &[0]));
    receiver.ask(&subscribe_with(2, &[0x0B, 0xFF, 0xFF, 0xFF, 0x7F], &[(&wild, 2)]), &suback(0x90, 2, &[2]));
    receiver.ask(&subscribe(3, &[("+/none", 0)]), &suback(0x90, 3, &[0]));
    publisher().ask(&Publish::new(&topic, "x").qos(1, 1).v5(), &ack(0x40, 1));
    let message = receiver.take_qos_1();
    let mut ids: Vec<_> = message.properties.split(|byte| *byte == 0x0B).map(<[u8]>::to_vec).collect();
    ids.sort();
    assert_eq!(ids, [vec![], vec![1], vec![0xFF, 0xFF, 0xFF, 0x7F]]);
    receiver.expect_nothing();
}

#[test]
fn a_packet_of_length_zero_is_malformed() {
    let mut client = publisher();
    client.send(&packet(0x30, &[]));
    client.expect_end(0x81);
}
