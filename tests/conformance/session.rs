//! Sessions: what survives, for how long, and in which order it comes.

use std::{thread::sleep, time::Duration};

use crate::harness::{
    Connect, Publish, Version, ack, ack_with, broker, disconnect, suback, suback_v311, subscribe,
    subscribe_v311, unique,
};

#[test]
fn clean_start_discards() {
    proves!(
        "5.0 MQTT-3.1.2-4",
        "5.0 MQTT-3.1.2-5",
        "5.0 MQTT-3.1.2-6",
        "5.0 MQTT-3.1.4-4",
        "5.0 MQTT-3.2.2-3",
        "5.0 MQTT-3.1.2-23",
        "5.0 MQTT-3.1.3-2",
        "3.1.1 MQTT-3.1.2-4",
        "3.1.1 MQTT-3.1.2-6",
        "3.1.1 MQTT-3.1.4-3",
        "3.1.1 MQTT-3.2.2-2",
        "3.1.1 MQTT-3.2.2-3",
        "3.1.1 MQTT-3.1.3-2"
    );
    for version in [Version::V31, Version::V311, Version::V5] {
        let (id, topic) = (unique("clean"), unique("clean"));
        let durable = Connect::new(version, &id).durable();
        let mut client = broker().connect(&durable);
        let request = if version == Version::V5 {
            subscribe(1, &[(&topic, 1)])
        } else {
            subscribe_v311(1, &[(&topic, 1)])
        };
        client.send(&request);
        client.receive();
        client.leave();
        let mut sender = broker().connect(&Connect::v5(&unique("p")));
        sender.ask(&Publish::new(&topic, "x").qos(1, 1).v5(), &ack(0x40, 1));
        broker().connect(&Connect::new(version, &id)).expect_nothing();
        sender.ask(&Publish::new(&topic, "x").qos(1, 1).v5(), &ack_with(0x40, 1, 0x10));
        let mut client = broker().connect(&durable);
        client.expect_nothing();
        client.leave();
        // 3.1 does not say whether there was a session.
        if version != Version::V31 {
            broker().resume(&durable).expect_nothing();
        }
    }
}

#[test]
fn resume_with_new_traffic() {
    proves!("3.1.1 MQTT-3.1.2-5", "5.0 MQTT-4.5.0-1", "5.0 MQTT-4.1.0-1", "3.1.1 MQTT-4.1.0-2");
    let (id, topic) = (unique("offline"), unique("offline"));
    let connect = Connect::v311(&id).durable();
    let mut client = broker().connect(&connect);
    client.ask(&subscribe_v311(1, &[(&topic, 1)]), &suback_v311(1, &[1]));
    client.leave();
    let mut sender = broker().connect(&Connect::v5(&unique("p")));
    let publish = |n: u16| Publish::new(&topic, n.to_string()).qos(1, n).v5();
    sender.send(&(1..=1000).flat_map(publish).collect::<Vec<_>>());
    (1..=1000).for_each(|n| sender.expect(&ack(0x40, n)));
    let mut client = broker().resume(&connect);
    // What comes while the backlog is read does not overtake it.
    sender.send(&(1001..=1500).flat_map(publish).collect::<Vec<_>>());
    for n in 1..=1500 {
        let message = client.message();
        assert_eq!((message.payload, message.dup), (n.to_string().into_bytes(), false));
        client.send(&ack(0x40, message.id));
    }
    client.expect_nothing();
}

#[test]
fn ends_with_its_connection_without_expiry() {
    proves!("5.0 MQTT-4.1.0-2");
    let id = unique("ends");
    broker().connect(&Connect::v5(&id).resuming()).cut();
    broker().connect(&Connect::v5(&id).resuming()).leave();
    broker().connect(&Connect::v5(&id).expiry(60).resuming()).leave();
    broker().resume(&Connect::v5(&id).expiry(0).resuming()).leave();
    broker().connect(&Connect::v5(&id).resuming()).leave();
}

#[test]
fn expires() {
    proves!("5.0 MQTT-4.1.0-2");
    let [short, changed, long] = [unique("expires"), unique("expires"), unique("expires")];
    broker().connect(&Connect::v5(&short).expiry(1)).leave();
    broker().connect(&Connect::v5(&changed).expiry(600)).leave_with(&disconnect(0, &[0x11, 0, 0, 0, 1]));
    broker().connect(&Connect::v5(&long).expiry(1)).leave_with(&disconnect(0, &[0x11, 0, 0, 0, 60]));
    // The one thing here that only time can show.
    sleep(Duration::from_millis(1100));
    broker().connect(&Connect::v5(&short).resuming()).expect_nothing();
    broker().connect(&Connect::v5(&changed).resuming()).expect_nothing();
    broker().resume(&Connect::v5(&long).resuming()).expect_nothing();
}

#[test]
fn expiry_decrement() {
    proves!("5.0 MQTT-3.3.2-5", "5.0 MQTT-3.3.2-6");
    let (id, topic) = (unique("late"), unique("late"));
    let connect = Connect::v5(&id).durable();
    let mut client = broker().connect(&connect);
    client.ask(&subscribe(1, &[(&topic, 1)]), &suback(0x90, 1, &[1]));
    client.leave();
    let mut sender = broker().connect(&Connect::v5(&unique("p")));
    let publish = |seconds: u8, n: u16| {
        Publish::new(&topic, seconds.to_string()).qos(1, n).property(2, &[0, 0, 0, seconds]).v5()
    };
    sender.ask(&publish(1, 1), &ack(0x40, 1));
    sender.ask(&publish(100, 2), &ack(0x40, 2));
    sleep(Duration::from_millis(1200));
    let mut client = broker().resume(&connect);
    let message = client.take_qos_1();
    assert_eq!(message.payload, b"100");
    assert!(matches!(message.properties[..], [2, 0, 0, 0, 90..=99]), "{:?}", message.properties);
    client.expect_nothing();
}

#[test]
fn resume_window_smaller() {
    let (id, topic) = (unique("smaller"), unique("smaller"));
    let connect = Connect::v5(&id).durable();
    let mut client = broker().connect(&connect);
    client.ask(&subscribe(1, &[(&topic, 1)]), &suback(0x90, 1, &[1]));
    let mut sender = broker().connect(&Connect::v5(&unique("p")));
    for n in 1..=20 {
        sender.ask(&Publish::new(&topic, n.to_string()).qos(1, n).v5(), &ack(0x40, n));
    }
    let ids: Vec<_> = (0..20).map(|_| client.message().id).collect();
    client.cut();
    let mut client = broker().resume(&connect.property(0x21, &[0, 1]));
    for id in ids {
        let message = client.message();
        assert_eq!((message.id, message.dup), (id, true));
        client.expect_nothing();
        client.send(&ack(0x40, id));
    }
    client.expect_nothing();
}

#[test]
fn subscriptions_and_their_options_survive() {
    let (id, base) = (unique("options"), unique("options"));
    let connect = Connect::v5(&id).durable();
    let (local, kept) = (format!("{base}/local"), format!("{base}/kept"));
    let mut client = broker().connect(&connect);
    client.ask(
        &crate::harness::subscribe_with(1, &[0x0B, 9], &[(&local, 4), (&kept, 8)]),
        &suback(0x90, 1, &[0, 0]),
    );
    client.leave();
    let mut client = broker().resume(&connect);
    client.send(&Publish::new(&local, "x").v5());
    client.send(&Publish::new(&kept, "y").retain().v5());
    client.expect(&Publish::new(&kept, "y").retain().property(0x0B, &[9]).v5());
    client.expect_nothing();
}

#[test]
fn the_longest_expiry_is_told() {
    let connack = broker().open().connect(&Connect::v5(&unique("forever")).expiry(u32::MAX), false);
    let ninety_days = [&[0x11][..], &(90 * 24 * 3600_u32).to_be_bytes()].concat();
    assert!(connack.windows(5).any(|window| window == ninety_days), "{connack:02x?}");
}
