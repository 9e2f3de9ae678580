//! Retained messages.

use crate::harness::{
    Client, Connect, Publish, ack, ack_with, broker, suback, suback_v311, subscribe, subscribe_v311, unique,
};

fn client() -> Client {
    broker().connect(&Connect::v5(&unique("retained")))
}

fn keep(topic: &str, payload: &str, qos: u8) {
    let mut sender = client();
    sender.send(&Publish::new(topic, payload).qos(qos, u16::from(qos > 0)).retain().v5());
    match qos {
        0 => sender.expect_nothing(),
        1 => sender.expect(&ack_with(0x40, 1, 0x10)),
        _ => sender.expect(&ack_with(0x50, 1, 0x10)),
    }
}

#[test]
fn a_new_subscription_gets_the_last_of_each_topic() {
    proves!(
        "5.0 MQTT-3.3.1-5",
        "5.0 MQTT-3.3.1-9",
        "3.1.1 MQTT-3.3.1-5",
        "3.1.1 MQTT-3.3.1-6",
        "3.1.1 MQTT-3.3.1-8",
        "3.1.1 MQTT-3.3.1-7",
        "3.1.1 MQTT-3.1.2-7"
    );
    let base = unique("kept");
    let topics: Vec<_> = (0..3).map(|n| format!("{base}/{n}")).collect();
    for (topic, qos) in topics.iter().zip(0..) {
        keep(topic, "old", qos);
        keep(topic, "last", qos);
    }
    let filter = format!("{base}/#");
    let mut new = client();
    new.ask(&subscribe(1, &[(&filter, 1)]), &suback(0x90, 1, &[1]));
    for (topic, qos) in topics.iter().zip(0..) {
        let message = new.message();
        assert_eq!((&message.topic, message.payload), (topic, b"last".to_vec()));
        assert_eq!((message.retain, message.qos), (true, qos.min(1)));
    }
    new.expect_nothing();
    let mut old = broker().connect(&Connect::v311(&unique("old")));
    old.ask(&subscribe_v311(1, &[(&topics[0], 0)]), &suback_v311(1, &[0]));
    old.expect(&Publish::new(&topics[0], "last").retain().v311());
}

#[test]
fn an_empty_payload_removes_and_is_delivered() {
    proves!(
        "5.0 MQTT-3.3.1-6",
        "5.0 MQTT-3.3.1-7",
        "5.0 MQTT-3.3.1-8",
        "3.1.1 MQTT-3.3.1-10",
        "3.1.1 MQTT-3.3.1-11",
        "3.1.1 MQTT-3.3.1-12"
    );
    let topic = unique("removed");
    keep(&topic, "x", 1);
    let mut there = client();
    there.ask(&subscribe(1, &[(&topic, 0)]), &suback(0x90, 1, &[0]));
    there.expect(&Publish::new(&topic, "x").retain().v5());
    let mut sender = client();
    sender.send(&Publish::new(&topic, "").v5());
    there.expect(&Publish::new(&topic, "").v5());
    client().ask(&subscribe(1, &[(&topic, 0)]), &suback(0x90, 1, &[0]));
    sender.ask(&Publish::new(&topic, "").qos(1, 1).retain().v5(), &ack(0x40, 1));
    there.expect(&Publish::new(&topic, "").v5());
    let mut new = client();
    new.ask(&subscribe(1, &[(&topic, 0)]), &suback(0x90, 1, &[0]));
    new.expect_nothing();
}

#[test]
fn retain_as_published() {
    proves!("5.0 MQTT-3.3.1-12", "5.0 MQTT-3.3.1-13", "3.1.1 MQTT-3.3.1-9");
    let topic = unique("as-published");
    let [mut plain, mut as_published] = [client(), client()];
    plain.ask(&subscribe(1, &[(&topic, 0)]), &suback(0x90, 1, &[0]));
    as_published.ask(&subscribe(1, &[(&topic, 8)]), &suback(0x90, 1, &[0]));
    let mut sender = client();
    sender.send(&Publish::new(&topic, "x").retain().v5());
    sender.send(&Publish::new(&topic, "y").v5());
    plain.expect(&Publish::new(&topic, "x").v5());
    plain.expect(&Publish::new(&topic, "y").v5());
    as_published.expect(&Publish::new(&topic, "x").retain().v5());
    as_published.expect(&Publish::new(&topic, "y").v5());
}

#[test]
fn retain_handling_0_1_2() {
    proves!("5.0 MQTT-3.3.1-10", "5.0 MQTT-3.3.1-11", "5.0 MQTT-3.8.4-4");
    let topic = unique("handling");
    keep(&topic, "x", 0);
    let kept = Publish::new(&topic, "x").retain().v5();
    for (handling, times) in [(0, [true, true]), (0x10, [true, false]), (0x20, [false, false])] {
        let mut client = client();
        for (id, sent) in times.into_iter().enumerate() {
            client.ask(&subscribe(id as u16 + 1, &[(&topic, handling)]), &suback(0x90, id as u16 + 1, &[0]));
            if sent {
                client.expect(&kept);
            }
            client.expect_nothing();
        }
    }
}

#[test]
fn properties_and_expiry_are_kept() {
    let topic = unique("expires");
    let publish = Publish::new(&topic, "x").retain().property(0x03, &[0, 1, b't']);
    let mut sender = client();
    sender.send(&publish.clone().property(0x02, &[0, 0, 0, 50]).v5());
    sender.expect_nothing();
    let mut new = client();
    new.ask(&subscribe(1, &[(&topic, 0)]), &suback(0x90, 1, &[0]));
    let mut properties = new.message().properties;
    properties.sort();
    assert!(properties.contains(&3) && properties.contains(&2), "{properties:?}");
}

#[test]
fn shared_subscriptions_get_none() {
    proves!("U-4.8.2-b");
    let topic = unique("shared");
    keep(&topic, "x", 1);
    let mut member = client();
    let filter = format!("$share/g/{topic}");
    member.ask(&subscribe(1, &[(&filter, 1)]), &suback(0x90, 1, &[1]));
    member.expect_nothing();
}

#[test]
fn many_come_all_and_in_the_window() {
    let base = unique("many");
    let mut sender = client();
    for n in 1..=300 {
        sender.ask(
            &Publish::new(&format!("{base}/{n}"), "x").qos(1, n).retain().v5(),
            &ack_with(0x40, n, 0x10),
        );
    }
    let mut new = broker().connect(&Connect::v5(&unique("many")).property(0x21, &[0, 7]));
    let filter = format!("{base}/#");
    new.ask(&subscribe(1, &[(&filter, 1)]), &suback(0x90, 1, &[1]));
    let mut topics: Vec<_> = (1..=300).map(|_| new.take_qos_1().topic).collect();
    topics.sort();
    topics.dedup();
    assert_eq!(topics.len(), 300);
    new.expect_nothing();
}
