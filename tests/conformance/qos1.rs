//! QoS 1, both ways.

use crate::harness::{
    Broker, Connect, Publish, Version, ack, ack_with, broker, suback, subscribe, subscribe_v311, unique,
    unsubscribe, unsubscribe_v311,
};

#[test]
fn an_id_is_free_again_after_its_puback() {
    proves!("5.0 MQTT-4.3.2-4", "5.0 MQTT-4.3.2-5", "3.1.1 MQTT-4.3.2-2");
    for version in Version::BOTH {
        let topic = unique("again");
        let mut client = broker().connect(&Connect::new(version, &unique("again")));
        client.subscribe(&topic, 0);
        for round in ["one", "two"] {
            client.publish(&Publish::new(&topic, round).qos(1, 5).dup());
            let mut both = [client.receive(), client.receive()];
            both.sort();
            assert_eq!(both, [Publish::new(&topic, round).bytes(version), ack(0x40, 5)]);
        }
    }
}

#[test]
fn an_id_of_zero_is_refused() {
    proves!("5.0 MQTT-2.2.1-3", "3.1.1 MQTT-2.3.1-1");
    let publish = |qos| Publish::new("a", "").qos(qos, 0);
    for (v5, v311) in [
        (publish(1).v5(), publish(1).v311()),
        (publish(2).v5(), publish(2).v311()),
        (subscribe(0, &[("a", 0)]), subscribe_v311(0, &[("a", 0)])),
        (unsubscribe(0, &["a"]), unsubscribe_v311(0, &["a"])),
    ] {
        let mut client = broker().connect(&Connect::v5(&unique("zero")));
        client.send(&v5);
        client.expect_end(0x82);
        let mut client = broker().connect(&Connect::v311(&unique("zero")));
        client.send(&v311);
        client.expect_closed();
    }
}

#[test]
fn ids_to_the_client_are_unused_ones() {
    proves!(
        "5.0 MQTT-2.2.1-4",
        "3.1.1 MQTT-2.3.1-4",
        "5.0 MQTT-4.3.2-1",
        "5.0 MQTT-4.3.2-2",
        "3.1.1 MQTT-4.3.2-1"
    );
    for version in Version::BOTH {
        let topic = unique("ids");
        let mut receiver = broker().connect(&Connect::new(version, &unique("ids")));
        receiver.subscribe(&topic, 2);
        let mut sender = broker().connect(&Connect::new(version, &unique("ids")));
        let mut ids = Vec::new();
        for n in 1..=20 {
            // None of them is acknowledged, whatever its QoS.
            let qos = 1 + (n % 2) as u8;
            sender.publish(&Publish::new(&topic, "").qos(qos, n));
            sender.expect(&ack(if qos == 1 { 0x40 } else { 0x50 }, n));
            let message = receiver.message();
            assert_eq!((message.qos, message.dup), (qos, false));
            assert!(message.id > 0 && !ids.contains(&message.id), "{message:?}, used: {ids:?}");
            ids.push(message.id);
        }
        assert_eq!(ids[0], 1, "the ids of a session start at 1");
    }
}

#[test]
fn the_window_of_the_client_is_kept() {
    proves!(
        "5.0 MQTT-3.3.4-9",
        "5.0 MQTT-3.3.4-10",
        "5.0 MQTT-4.9.0-1",
        "5.0 MQTT-4.9.0-2",
        "5.0 MQTT-4.9.0-3",
        "5.0 MQTT-4.3.2-3"
    );
    let topic = unique("window");
    let mut receiver = broker().connect(&Connect::v5(&unique("window")).property(0x21, &[0, 2]));
    receiver.ask(&subscribe(1, &[(&topic, 2)]), &suback(0x90, 1, &[2]));
    let mut sender = broker().connect(&Connect::v5(&unique("window")));
    for n in 1..=5 {
        sender.ask(&Publish::new(&topic, n.to_string()).qos(1, n).v5(), &ack(0x40, n));
    }
    let (first, second) = (receiver.message(), receiver.message());
    receiver.expect_nothing();
    receiver.ask(&subscribe(2, &[("a/b/c", 0)]), &suback(0x90, 2, &[0]));
    // In the order of the client, not of the broker, and one for one.
    receiver.send(&ack(0x40, second.id));
    let third = receiver.message();
    assert_eq!(third.payload, b"3");
    receiver.expect_nothing();
    receiver.send(&[ack(0x40, first.id), ack(0x40, third.id)].concat());
    assert_eq!([receiver.take_qos_1().payload, receiver.take_qos_1().payload], [b"4", b"5"]);
}

#[test]
fn an_error_puback_settles_the_message() {
    proves!("5.0 MQTT-4.4.0-2");
    let (id, topic) = (unique("refuses"), unique("refuses"));
    let connect = Connect::v5(&id).durable();
    let mut receiver = broker().connect(&connect);
    receiver.ask(&subscribe(1, &[(&topic, 1)]), &suback(0x90, 1, &[1]));
    broker().connect(&Connect::v5(&unique("p"))).ask(&Publish::new(&topic, "").qos(1, 1).v5(), &ack(0x40, 1));
    let message = receiver.message();
    receiver.send(&ack_with(0x40, message.id, 0x80));
    receiver.leave();
    broker().resume(&connect).expect_nothing();
}

#[test]
fn no_resend_on_live_connection() {
    proves!(
        "5.0 MQTT-4.4.0-1",
        "3.1.1 MQTT-4.4.0-1",
        "5.0 MQTT-3.3.1-1",
        "3.1.1 MQTT-3.3.1-1",
        "3.1.1 MQTT-2.3.1-3"
    );
    for (connect, version) in [
        (Connect::v5(&unique("resend")).durable(), "5.0"),
        (Connect::v311(&unique("resend")).durable(), "3.1.1"),
    ] {
        let topic = unique("resend");
        let mut receiver = broker().connect(&connect);
        let request =
            if version == "5.0" { subscribe(1, &[(&topic, 1)]) } else { subscribe_v311(1, &[(&topic, 1)]) };
        receiver.send(&request);
        assert_eq!(receiver.receive()[0], 0x90);
        let mut sender = broker().connect(&Connect::v5(&unique("p")));
        for n in 1..=3 {
            sender.ask(&Publish::new(&topic, n.to_string()).qos(1, n).v5(), &ack(0x40, n));
        }
        let sent: Vec<_> = (0..3).map(|_| receiver.message()).collect();
        receiver.send(&ack(0x40, sent[1].id));
        receiver.expect_nothing();
        receiver.cut();
        let mut receiver = broker().resume(&connect);
        for first in [&sent[0], &sent[2]] {
            let again = receiver.message();
            assert!(again.dup, "{again:?}");
            assert_eq!((again.id, &again.payload), (first.id, &first.payload));
        }
        receiver.expect_nothing();
    }
}

#[test]
fn more_than_our_receive_maximum_ends_the_connection() {
    proves!("U-3.3.4-a", "5.0 MQTT-3.3.4-7");
    let broker = Broker::start("[limits]\nreceive_maximum = 3");
    let mut client = broker.connect(&Connect::v5("c"));
    for n in 1..=3 {
        client.ask(&Publish::new("t", "").qos(2, n).v5(), &ack_with(0x50, n, 0x10));
    }
    // Released ones make room; QoS 0 needs none.
    client.ask(&ack(0x62, 2), &ack(0x70, 2));
    client.send(&Publish::new("t", "").v5());
    client.ask(&Publish::new("t", "").qos(1, 2).v5(), &ack_with(0x40, 2, 0x10));
    client.ask(&Publish::new("t", "").qos(2, 2).v5(), &ack_with(0x50, 2, 0x10));
    client.send(&Publish::new("t", "").qos(1, 4).v5());
    client.expect_end(0x93);
}
