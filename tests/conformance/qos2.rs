//! QoS 2, both ways.

use crate::harness::{
    Broker, Client, Connect, Publish, Version, ack, ack_with, broker, suback, subscribe, unique,
};

fn receiver_of(topic: &str, connect: &Connect) -> Client {
    let mut receiver = broker().connect(connect);
    receiver.subscribe(topic, 2);
    receiver
}

fn publish_to(topic: &str, payload: &str) {
    let mut sender = broker().connect(&Connect::v5(&unique("sender")));
    sender.ask(&Publish::new(topic, payload).qos(2, 1).v5(), &ack(0x50, 1));
    sender.ask(&ack(0x62, 1), &ack(0x70, 1));
}

#[test]
fn qos2_publish_replay_n() {
    proves!(
        "5.0 MQTT-4.3.3-8",
        "5.0 MQTT-4.3.3-10",
        "5.0 MQTT-4.3.3-11",
        "5.0 MQTT-4.3.3-12",
        "3.1.1 MQTT-4.3.3-2"
    );
    for version in Version::BOTH {
        let topic = unique("repeat");
        let mut receiver = receiver_of(&topic, &Connect::new(version, &unique("repeat")));
        let mut sender = broker().connect(&Connect::new(version, &unique("repeat")));
        for round in ["one", "two"] {
            let publish = Publish::new(&topic, round).qos(2, 4);
            sender.ask(&publish.bytes(version), &ack(0x50, 4));
            for _ in 0..5 {
                sender.ask(&publish.clone().dup().bytes(version), &ack(0x50, 4));
                sender.ask(&publish.bytes(version), &ack(0x50, 4));
            }
            sender.ask(&ack(0x62, 4), &ack(0x70, 4));
            let message = receiver.message();
            assert_eq!((message.payload, message.qos), (round.as_bytes().to_vec(), 2));
            receiver.ask(&ack(0x50, message.id), &ack(0x62, message.id));
            receiver.send(&ack(0x70, message.id));
            receiver.expect_nothing();
        }
    }
}

#[test]
fn all_acknowledgements_name_their_message_and_keep_its_order() {
    proves!(
        "5.0 MQTT-2.2.1-5",
        "3.1.1 MQTT-2.3.1-6",
        "5.0 MQTT-4.6.0-3",
        "3.1.1 MQTT-4.6.0-3",
        "5.0 MQTT-4.6.0-4",
        "3.1.1 MQTT-4.6.0-4"
    );
    for version in Version::BOTH {
        let topic = unique("order");
        let mut receiver = receiver_of(&topic, &Connect::new(version, &unique("order")));
        let mut sender = broker().connect(&Connect::new(version, &unique("order")));
        // In no order of their own.
        let ids: Vec<u16> = (0..60).map(|n| 1 + n * 37 % 61 * 1000).collect();
        ids.iter().for_each(|id| sender.publish(&Publish::new(&topic, id.to_string()).qos(2, *id)));
        ids.iter().for_each(|id| sender.expect(&ack(0x50, *id)));
        let sent: Vec<_> = ids.iter().map(|_| receiver.message()).collect();
        for (message, id) in sent.iter().zip(&ids) {
            assert_eq!(message.payload, id.to_string().as_bytes());
        }
        sender.send(&ids.iter().flat_map(|id| ack(0x62, *id)).collect::<Vec<_>>());
        ids.iter().for_each(|id| sender.expect(&ack(0x70, *id)));
        receiver.send(&sent.iter().flat_map(|message| ack(0x50, message.id)).collect::<Vec<_>>());
        sent.iter().for_each(|message| receiver.expect(&ack(0x62, message.id)));
    }
}

#[test]
fn qos2_publish_replay_n_over_reconnects_and_crashes() {
    proves!("3.1.1 MQTT-4.1.0-1");
    let mut broker = Broker::start("");
    let receives = Connect::v5("receives").durable();
    let mut receiver = broker.connect(&receives);
    receiver.ask(&subscribe(1, &[("once", 2)]), &suback(0x90, 1, &[2]));
    let connect = Connect::v311("sends").durable();
    let mut sender = broker.connect(&connect);
    let publish = Publish::new("once", "once").qos(2, 4);
    sender.ask(&publish.v311(), &ack(0x50, 4));
    for n in 1..=50 {
        sender.ask(&publish.clone().dup().v311(), &ack(0x50, 4));
        if n % 20 == 0 {
            broker.crash();
            sender = broker.resume(&connect);
        } else if n % 6 == 0 {
            sender.cut();
            sender = broker.resume(&connect);
        }
    }
    sender.ask(&ack(0x62, 4), &ack(0x70, 4));
    let mut receiver = broker.resume(&receives);
    let message = receiver.message();
    assert_eq!(message.payload, b"once");
    receiver.ask(&ack(0x50, message.id), &ack(0x62, message.id));
    receiver.send(&ack(0x70, message.id));
    receiver.expect_nothing();
    receiver.leave();
    broker.resume(&receives).expect_nothing();
}

#[test]
fn qos2_never_released() {
    let topic = unique("never");
    let connect = Connect::v5(&topic).expiry(60);
    for _ in 0..2 {
        let mut client = broker().connect(&connect);
        let all: Vec<u8> = (1..=1024).flat_map(|n| Publish::new(&topic, "").qos(2, n).v5()).collect();
        client.send(&all);
        (1..=1024).for_each(|n| client.expect(&ack_with(0x50, n, 0x10)));
        // A repeat is none too many.
        client.ask(&Publish::new(&topic, "").qos(2, 1024).dup().v5(), &ack(0x50, 1024));
        client.send(&Publish::new(&topic, "").qos(2, 1025).v5());
        client.expect_end(0x93);
        // What the session had open ends with it: all of it can be opened again.
    }
}

#[test]
fn qos2_never_released_before_5() {
    // There is no Receive Maximum; there are no more than all identifiers.
    let mut client = broker().connect(&Connect::v311(&unique("never")));
    for round in 0..2 {
        for start in (1..=65_535).step_by(5_000) {
            let ids = start..=(start + 4_999).min(65_535_u32);
            let publish = |n: u32| Publish::new("never-released", "").qos(2, n as u16);
            let repeated = |n| if round == 0 { publish(n) } else { publish(n).dup() };
            client.send(&ids.clone().flat_map(|n| repeated(n).v311()).collect::<Vec<_>>());
            ids.for_each(|n| client.expect(&ack(0x50, n as u16)));
        }
    }
}

#[test]
fn qos2_reuse_after_pubcomp() {
    proves!("5.0 MQTT-4.3.3-12");
    let mut broker = Broker::start("");
    let receives = Connect::v5("receives").durable();
    broker.connect(&receives).ask(&subscribe(1, &[("t", 2)]), &suback(0x90, 1, &[2]));
    let connect = Connect::v5("sends").durable();
    let mut sender = broker.connect(&connect);
    for round in 0..4 {
        sender.ask(&Publish::new("t", round.to_string()).qos(2, 7).v5(), &ack(0x50, 7));
        sender.send(&ack(0x62, 7));
        if round % 2 == 0 {
            // Wherever this finds the PUBREL: on its way, or released, or answered.
            broker.crash();
            sender = broker.resume(&connect);
            sender.send(&ack(0x62, 7));
            let pubcomp = sender.receive();
            assert!(pubcomp == ack(0x70, 7) || pubcomp == ack_with(0x70, 7, 0x92), "{pubcomp:02x?}");
        } else {
            sender.expect(&ack(0x70, 7));
        }
    }
    let mut receiver = broker.resume(&receives);
    for round in 0..4 {
        assert_eq!(receiver.message().payload, round.to_string().as_bytes());
    }
    receiver.expect_nothing();
}

#[test]
fn qos2_pubrel_unknown() {
    let mut client = broker().connect(&Connect::v5(&unique("unknown")));
    client.ask(&ack(0x62, 9), &ack_with(0x70, 9, 0x92));
    // Known once, and not any more.
    let topic = unique("unknown");
    client.ask(&Publish::new(&topic, "").qos(2, 9).v5(), &ack_with(0x50, 9, 0x10));
    client.ask(&ack(0x62, 9), &ack(0x70, 9));
    client.ask(&ack(0x62, 9), &ack_with(0x70, 9, 0x92));
    let mut client = broker().connect(&Connect::v311(&unique("unknown")));
    client.ask(&ack(0x62, 9), &ack(0x70, 9));
}

#[test]
fn an_unknown_pubrec_is_answered() {
    let mut client = broker().connect(&Connect::v5(&unique("unknown")));
    client.ask(&ack(0x50, 9), &ack_with(0x62, 9, 0x92));
    let mut client = broker().connect(&Connect::v311(&unique("unknown")));
    client.ask(&ack(0x50, 9), &ack(0x62, 9));
}

#[test]
fn publish_is_repeated_before_pubrec_and_pubrel_after_it() {
    proves!(
        "5.0 MQTT-4.3.3-1",
        "5.0 MQTT-4.3.3-2",
        "5.0 MQTT-4.3.3-3",
        "5.0 MQTT-4.3.3-4",
        "5.0 MQTT-4.3.3-5",
        "5.0 MQTT-4.3.3-6",
        "3.1.1 MQTT-4.3.3-1",
        "3.1.1 MQTT-4.4.0-1"
    );
    for version in Version::BOTH {
        let topic = unique("steps");
        let connect = Connect::new(version, &unique("steps")).durable();
        receiver_of(&topic, &connect).leave();
        publish_to(&topic, "x");
        let mut receiver = broker().resume(&connect);
        let first = receiver.message();
        assert_eq!((first.qos, first.dup), (2, false));
        receiver.cut();
        let mut receiver = broker().resume(&connect);
        let again = receiver.message();
        assert_eq!((again.qos, again.dup, again.id), (2, true, first.id));
        receiver.ask(&ack(0x50, first.id), &ack(0x62, first.id));
        receiver.cut();
        let mut receiver = broker().resume(&connect);
        receiver.expect(&ack(0x62, first.id));
        receiver.expect_nothing();
        receiver.send(&ack(0x70, first.id));
        receiver.leave();
        broker().resume(&connect).expect_nothing();
    }
}

#[test]
fn what_is_repeated_comes_in_the_order_of_the_first_time() {
    proves!("5.0 MQTT-4.6.0-1", "3.1.1 MQTT-4.6.0-1");
    for (version, qos) in Version::BOTH.into_iter().flat_map(|version| [(version, 1), (version, 2)]) {
        let topic = unique("again");
        let connect = Connect::new(version, &unique("again")).durable();
        let mut receiver = receiver_of(&topic, &connect);
        let mut sender = broker().connect(&Connect::new(version, &unique("sender")));
        for n in 1..=30 {
            let answer = ack(if qos == 1 { 0x40 } else { 0x50 }, n);
            sender.ask(&Publish::new(&topic, n.to_string()).qos(qos, n).bytes(version), &answer);
        }
        let first: Vec<_> = (0..30).map(|_| receiver.message()).collect();
        receiver.cut();
        let mut receiver = broker().resume(&connect);
        for message in first {
            let again = receiver.message();
            assert_eq!((again.id, again.payload, again.dup), (message.id, message.payload, true));
        }
        receiver.expect_nothing();
    }
}

#[test]
fn window_counts_qos2_until_pubcomp() {
    let topic = unique("window");
    let mut receiver = receiver_of(&topic, &Connect::v5(&unique("window")).property(0x21, &[0, 1]));
    publish_to(&topic, "1");
    publish_to(&topic, "2");
    publish_to(&topic, "3");
    let first = receiver.message();
    receiver.expect_nothing();
    receiver.ask(&ack(0x50, first.id), &ack(0x62, first.id));
    receiver.expect_nothing();
    receiver.send(&ack(0x70, first.id));
    let second = receiver.message();
    assert_eq!(second.payload, b"2");
    // An error ends the exchange: no PUBREL, and room for the next.
    receiver.send(&ack_with(0x50, second.id, 0x83));
    assert_eq!(receiver.message().payload, b"3");
}

#[test]
fn qos2_error_pubrec() {
    proves!("5.0 MQTT-4.4.0-2");
    let topic = unique("refuses");
    let connect = Connect::v5(&unique("refuses")).durable();
    let mut receiver = receiver_of(&topic, &connect);
    publish_to(&topic, "x");
    let message = receiver.message();
    receiver.send(&ack_with(0x50, message.id, 0x97));
    receiver.expect_nothing();
    receiver.leave();
    broker().resume(&connect).expect_nothing();
}

#[test]
fn wrong_ack_kind() {
    for (qos, wrong) in [(2, 0x40), (1, 0x50), (1, 0x70), (2, 0x70)] {
        let topic = unique("wrong");
        let connect = Connect::v5(&topic).durable();
        let mut receiver = broker().connect(&connect);
        receiver.ask(&subscribe(1, &[(&topic, qos)]), &suback(0x90, 1, &[qos]));
        publish_to(&topic, "x");
        let message = receiver.message();
        receiver.send(&ack(wrong, message.id));
        receiver.expect_end(0x82);
        // Neither is the identifier free, nor is the message settled. An acknowledgement of what was never sent
        // is nobody's.
        let mut receiver = broker().resume(&connect);
        let again = receiver.message();
        assert_eq!((again.id, again.dup, again.payload), (message.id, true, b"x".to_vec()));
        receiver.send(&[ack(0x40, 777), ack(0x70, 778)].concat());
        receiver.expect_nothing();
        receiver.cut();
        let mut receiver = broker().resume(&connect);
        assert_eq!(receiver.message().id, message.id);
    }
}

#[test]
fn qos2_expiry_midway() {
    proves!("5.0 MQTT-4.3.3-7", "5.0 MQTT-4.3.3-13");
    let topic = unique("expires");
    let connect = Connect::v5(&unique("expires")).durable();
    let mut receiver = receiver_of(&topic, &connect);
    let mut sender = broker().connect(&Connect::v5(&unique("sender")));
    sender.ask(&Publish::new(&topic, "x").qos(2, 1).property(2, &[0, 0, 0, 1]).v5(), &ack(0x50, 1));
    let message = receiver.message();
    receiver.cut();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    sender.ask(&ack(0x62, 1), &ack(0x70, 1));
    let mut receiver = broker().resume(&connect);
    let again = receiver.message();
    assert_eq!((again.id, again.dup), (message.id, true));
    receiver.ask(&ack(0x50, message.id), &ack(0x62, message.id));
    receiver.send(&ack(0x70, message.id));
    receiver.expect_nothing();
}
