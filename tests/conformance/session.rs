//! Sessions: what survives, for how long, and in which order it comes.

use std::{thread::sleep, time::Duration};

use crate::harness::{
    Broker, Connect, Publish, Version, ack, ack_with, broker, disconnect, suback, suback_v311, subscribe,
    subscribe_v311, unique,
};

#[test]
fn clean_start_discards() {
    proves!(
        "5.0 MQTT-3.1.2-4",
        "5.0 MQTT-3.1.2-5",
        "5.0 MQTT-3.1.2-6",
        "5.0 MQTT-3.1.4-4",
        "5.0 MQTT-3.2.2-2",
        "5.0 MQTT-3.2.2-3",
        "5.0 MQTT-3.1.2-23",
        "5.0 MQTT-3.1.3-2",
        "3.1.1 MQTT-3.1.2-4",
        "3.1.1 MQTT-3.1.2-6",
        "3.1.1 MQTT-3.1.4-3",
        "3.1.1 MQTT-3.2.2-1",
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
fn clean_start_discards_what_is_open_and_what_waits() {
    proves!("5.0 MQTT-3.1.2-4", "5.0 MQTT-3.1.4-4");
    let connect = Connect::v5("clean").expiry(600);
    let will = connect.clone().will("will", "gone", 1).will_property(0x18, &[0, 0, 1, 0]);
    let witness = Connect::v5("witness").durable();
    for crashes in [false, true] {
        let mut broker = Broker::start("");
        let mut watches = broker.connect(&witness);
        watches.ask(&subscribe(1, &[("will", 1)]), &suback(0x90, 1, &[1]));
        let mut client = broker.connect(&will);
        client.ask(&subscribe(1, &[("t", 2)]), &suback(0x90, 1, &[2]));
        let mut sender = broker.connect(&Connect::v5("sender"));
        sender.ask(&Publish::new("t", "open").qos(1, 1).v5(), &ack(0x40, 1));
        sender.ask(&Publish::new("t", "open").qos(2, 2).v5(), &ack(0x50, 2));
        client.send(&Publish::new("u", "open").qos(2, 3).v5());
        client.defer_until(&ack_with(0x50, 3, 0x10));
        client.message();
        client.message();
        client.cut();
        sender.ask(&Publish::new("t", "waits").qos(1, 1).v5(), &ack(0x40, 1));
        // The will waits for its delay or the end of the session, which is now.
        let mut client = broker.connect(&connect);
        client.expect_nothing();
        client.ask(&ack(0x62, 3), &ack_with(0x70, 3, 0x92));
        if crashes {
            broker.crash();
            client = broker.resume(&connect.clone().resuming());
            watches = broker.resume(&witness);
        }
        client.expect_nothing();
        sender = broker.connect(&Connect::v5("sender"));
        sender.ask(&Publish::new("t", "nobody").qos(1, 1).v5(), &ack_with(0x40, 1, 0x10));
        assert_eq!(watches.take_qos_1().payload, b"gone");
        watches.expect_nothing();
    }
}

#[test]
fn resume_with_new_traffic() {
    // `resume` sees that CONNACK comes first, whatever else waits.
    proves!("3.1.1 MQTT-3.1.2-5", "3.1.1 MQTT-4.5.0-1", "3.1.1 MQTT-3.2.0-1");
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
fn session_expiry_matrix() {
    proves!("5.0 MQTT-4.1.0-2", "5.0 MQTT-3.1.2-23");
    let mut broker = Broker::start("");
    let expiry = |seconds: u32| disconnect(0, &[&[0x11][..], &seconds.to_be_bytes()].concat());
    // What CONNECT asks for, how the connection ends, and whether the session is there 1.2 s later.
    let cases: [(Option<u32>, Option<Vec<u8>>, bool); 11] = [
        (None, None, false),
        (Some(0), None, false),
        (Some(1), None, false),
        (Some(60), None, true),
        (Some(u32::MAX), None, true),
        (Some(1), Some(vec![0xE0, 0]), false),
        (Some(60), Some(vec![0xE0, 0]), true),
        (Some(60), Some(expiry(0)), false),
        (Some(60), Some(expiry(1)), false),
        (Some(1), Some(expiry(60)), true),
        (Some(1), Some(expiry(u32::MAX)), true),
    ];
    let connect = |n: usize, seconds: Option<u32>| {
        let connect = Connect::v5(&format!("c{n}")).resuming();
        seconds.map_or(connect.clone(), |seconds| connect.expiry(seconds))
    };
    for (n, (seconds, end, _)) in cases.iter().enumerate() {
        let client = broker.connect(&connect(n, *seconds));
        match end {
            Some(end) => client.leave_with(end),
            None => client.cut(),
        }
    }
    // From 0 it cannot be raised, and the session ends as it would have.
    let mut raises = broker.connect(&connect(99, None));
    raises.send(&expiry(60));
    raises.expect_end(0x82);
    broker.connect(&connect(99, None)).leave();
    // A restart does not begin anew what runs. What was acknowledged after the last one left is on disk, and
    // so is that it left.
    let mut sync = broker.connect(&Connect::v5("sync"));
    sync.ask(&Publish::new("sync", "x").qos(1, 1).retain().v5(), &ack_with(0x40, 1, 0x10));
    broker.crash();
    sleep(Duration::from_millis(1200));
    for (n, (seconds, end, kept)) in cases.iter().enumerate() {
        let connack = broker.open().offer(&connect(n, Some(5))).unwrap();
        assert_eq!(connack[2], u8::from(*kept), "{seconds:?}, ended by {end:02x?}");
    }
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
    // The same in the memory of a connected client whose window is full, and as retained messages.
    let mut slow = broker().connect(&Connect::v5(&unique("slow")).property(0x21, &[0, 1]));
    let online = unique("online");
    slow.ask(&subscribe(1, &[(&online, 1)]), &suback(0x90, 1, &[1]));
    let publish = |topic: &str, seconds: u8| {
        Publish::new(topic, "x").qos(1, 3).property(2, &[0, 0, 0, seconds]).retain().v5()
    };
    for seconds in [100, 1, 100] {
        sender.ask(&publish(&online, seconds), &ack(0x40, 3));
    }
    let [gone, kept] = [unique("gone"), unique("kept")];
    sender.ask(&publish(&gone, 1), &ack_with(0x40, 3, 0x10));
    sender.ask(&publish(&kept, 100), &ack_with(0x40, 3, 0x10));
    sleep(Duration::from_millis(1200));
    let is_reduced = |properties: &[u8]| matches!(properties, [2, 0, 0, 0, 90..=99]);
    let mut client = broker().resume(&connect);
    let message = client.take_qos_1();
    assert_eq!(message.payload, b"100");
    assert!(is_reduced(&message.properties), "{:?}", message.properties);
    client.expect_nothing();
    assert_eq!(slow.take_qos_1().properties, [2, 0, 0, 0, 100]);
    let second = slow.take_qos_1();
    assert!(is_reduced(&second.properties), "{second:?}");
    slow.expect_nothing();
    slow.ask(&subscribe(2, &[(&gone, 1), (&kept, 1)]), &suback(0x90, 2, &[1, 1]));
    let retained = slow.take_qos_1();
    assert!(retained.topic == kept && retained.retain && is_reduced(&retained.properties), "{retained:?}");
    slow.expect_nothing();
}

#[test]
fn resume_window_smaller() {
    let (id, topic) = (unique("smaller"), unique("smaller"));
    let connect = Connect::v5(&id).durable();
    let mut client = broker().connect(&connect);
    client.ask(&subscribe(1, &[(&topic, 1)]), &suback(0x90, 1, &[1]));
    let mut sender = broker().connect(&Connect::v5(&unique("p")));
    let publish = |n: u16| Publish::new(&topic, n.to_string()).qos(1, n).v5();
    sender.send(&(1..=100).flat_map(publish).collect::<Vec<_>>());
    (1..=100).for_each(|n| sender.expect(&ack(0x40, n)));
    let ids: Vec<_> = (0..100).map(|_| client.message().id).collect();
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

#[test]
fn no_session_ends_before_its_connection() {
    proves!("5.0 MQTT-4.1.0-1", "3.1.1 MQTT-4.1.0-2");
    let topic = unique("stays");
    let mut clients = [
        Connect::v5(&unique("stays")),
        Connect::v5(&unique("stays")).expiry(1).resuming(),
        Connect::v311(&unique("stays")),
    ]
    .map(|connect| (broker().connect(&connect), connect));
    clients.iter_mut().for_each(|(client, _)| client.subscribe(&topic, 1));
    // Longer than the session would last without its client.
    sleep(Duration::from_millis(1300));
    let mut sender = broker().connect(&Connect::v5(&unique("p")));
    sender.ask(&Publish::new(&topic, "x").qos(1, 1).v5(), &ack(0x40, 1));
    clients.iter_mut().for_each(|(client, _)| assert_eq!(client.take_qos_1().payload, b"x"));
    let [_, (lasts, connect), _] = clients;
    lasts.cut();
    broker().resume(&connect).expect_nothing();
}

#[test]
fn a_client_that_keeps_a_lost_session_is_treated_as_new() {
    proves!("5.0 MQTT-3.2.2-5");
    let (id, topic) = (unique("lost"), unique("lost"));
    let connect = Connect::v5(&id).durable();
    let mut client = broker().connect(&connect);
    client.subscribe(&topic, 2);
    let mut witness = broker().connect(&Connect::v5(&unique("witness")));
    witness.subscribe(&topic, 0);
    client.ask(&Publish::new(&topic, "first").qos(2, 7).v5(), &ack(0x50, 7));
    witness.expect(&Publish::new(&topic, "first").v5());
    let message = client.message();
    client.cut();
    broker().connect(&Connect::v5(&id)).leave();
    // It should have begun anew, and goes on instead.
    let mut client = broker().connect(&connect);
    client.ask(&ack(0x62, 7), &ack_with(0x70, 7, 0x92));
    client.ask(&ack(0x50, message.id), &ack_with(0x62, message.id, 0x92));
    client.ask(&Publish::new(&topic, "second").qos(2, 7).dup().v5(), &ack(0x50, 7));
    witness.expect(&Publish::new(&topic, "second").v5());
    client.expect_nothing();
}

#[test]
fn what_a_client_never_acknowledges_is_kept_for_it() {
    proves!("5.0 MQTT-4.5.0-2", "3.1.1 MQTT-4.5.0-2", "5.0 MQTT-4.3.2-3", "5.0 MQTT-4.5.0-1");
    for version in Version::BOTH {
        let topic = unique("ignored");
        let connect = Connect::new(version, &unique("ignores")).durable();
        let connect = if version == Version::V5 { connect.property(0x21, &[0, 2]) } else { connect };
        let mut client = broker().connect(&connect);
        client.subscribe(&topic, 1);
        let mut sender = broker().connect(&Connect::v5(&unique("p")));
        for n in 1..=3 {
            sender.ask(&Publish::new(&topic, n.to_string()).qos(1, n).v5(), &ack(0x40, n));
        }
        // A 5.0 client gets no more than it said it can have open.
        let open = if version == Version::V5 { 2 } else { 3 };
        let first: Vec<_> = (0..open).map(|_| client.message()).collect();
        for _ in 0..2 {
            client.expect_nothing();
            client.cut();
            client = broker().resume(&connect);
            for message in &first {
                let again = client.message();
                assert_eq!((again.id, &again.payload, again.dup), (message.id, &message.payload, true));
            }
        }
        first.iter().for_each(|message| client.send(&ack(0x40, message.id)));
        if version == Version::V5 {
            assert_eq!(client.take_qos_1().payload, b"3");
        }
        client.leave();
        broker().resume(&connect).expect_nothing();
    }
}
