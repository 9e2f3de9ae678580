//! UNSUBSCRIBE and UNSUBACK.

use crate::harness::{
    Connect, Publish, Version, ack, ack_with, broker, suback, suback_v311, subscribe, subscribe_v311, unique,
    unsubscribe, unsubscribe_v311,
};

#[test]
fn every_filter_is_answered_in_order() {
    proves!(
        "5.0 MQTT-3.10.4-1",
        "5.0 MQTT-3.10.4-4",
        "5.0 MQTT-3.10.4-5",
        "5.0 MQTT-3.10.4-6",
        "5.0 MQTT-3.11.3-1",
        "5.0 MQTT-3.11.3-2",
        "3.1.1 MQTT-3.10.4-1",
        "3.1.1 MQTT-3.10.4-4",
        "3.1.1 MQTT-3.10.4-5",
        "3.1.1 MQTT-3.10.4-6"
    );
    let topic = unique("gone");
    let wild = format!("{topic}/+");
    let mut client = broker().connect(&Connect::v5(&unique("gone")));
    client.ask(&subscribe(1, &[(&topic, 0), (&wild, 0)]), &suback(0x90, 1, &[0, 0]));
    let same_but_not_equal = format!("{topic}/x");
    let request = unsubscribe(2, &[&same_but_not_equal, &topic, &topic, "$share/g"]);
    client.ask(&request, &suback(0xB0, 2, &[0x11, 0, 0x11, 0x8F]));
    let mut old = broker().connect(&Connect::v311(&unique("gone")));
    old.ask(&subscribe_v311(1, &[(&topic, 0), (&wild, 0)]), &suback_v311(1, &[0, 0]));
    old.ask(&unsubscribe_v311(2, &["never", &same_but_not_equal, &topic]), &ack(0xB0, 2));
    let mut sender = broker().connect(&Connect::v5(&unique("gone")));
    for topic in [&topic, &same_but_not_equal] {
        sender.publish(&Publish::new(topic, "x"));
    }
    for client in [&mut client, &mut old] {
        client.expect_publish(&Publish::new(&same_but_not_equal, "x"));
        client.expect_nothing();
    }
}

#[test]
fn unsubscribe_inflight() {
    proves!("5.0 MQTT-3.10.4-2", "5.0 MQTT-3.10.4-3", "3.1.1 MQTT-3.10.4-2", "3.1.1 MQTT-3.10.4-3");
    for (version, qos) in Version::BOTH.into_iter().flat_map(|version| [(version, 1), (version, 2)]) {
        let topic = unique("begun");
        let connect = Connect::new(version, &unique("begun")).durable();
        let mut client = broker().connect(&connect);
        client.subscribe(&topic, 2);
        let mut sender = broker().connect(&Connect::v5(&unique("begun")));
        sender.publish(&Publish::new(&topic, "begun").qos(qos, 1));
        sender.receive();
        let message = client.message();
        if version == Version::V5 {
            client.ask(&unsubscribe(2, &[&topic]), &suback(0xB0, 2, &[0]));
        } else {
            client.ask(&unsubscribe_v311(2, &[&topic]), &ack(0xB0, 2));
        }
        sender.publish(&Publish::new(&topic, "new").qos(1, 2));
        sender.expect(&ack_with(0x40, 2, 0x10));
        client.expect_nothing();
        client.cut();
        let mut client = broker().resume(&connect);
        let again = client.message();
        assert_eq!((again.dup, again.id), (true, message.id));
        if qos == 1 {
            client.send(&ack(0x40, message.id));
        } else {
            client.ask(&ack(0x50, message.id), &ack(0x62, message.id));
            client.send(&ack(0x70, message.id));
        }
        client.leave();
        broker().resume(&connect).expect_nothing();
    }
}

#[test]
fn without_filters_or_flags_it_is_an_error() {
    proves!(
        "U-3.10.3-a",
        "5.0 MQTT-3.10.3-2",
        "5.0 MQTT-3.10.1-1",
        "3.1.1 MQTT-3.10.3-2",
        "3.1.1 MQTT-3.10.1-1"
    );
    let mut client = broker().connect(&Connect::v5(&unique("none")));
    client.send(&unsubscribe(1, &[]));
    client.expect_end(0x82);
    let mut client = broker().connect(&Connect::v311(&unique("none")));
    client.send(&unsubscribe_v311(1, &[]));
    client.expect_closed();
    for flags in (0..16).filter(|flags| *flags != 2) {
        for (version, mut request) in
            [(Version::V5, unsubscribe(1, &["a"])), (Version::V311, unsubscribe_v311(1, &["a"]))]
        {
            let mut client = broker().connect(&Connect::new(version, &unique("flags")));
            request[0] = 0xA0 | flags;
            client.send(&request);
            client.expect_end(0x81);
        }
    }
}
