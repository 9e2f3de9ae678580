//! The same client id twice.

use crate::harness::{Connect, Publish, Version, ack, broker, parse, suback, subscribe, unique};

#[test]
fn the_old_connection_is_told_and_closed() {
    proves!("5.0 MQTT-3.1.4-3", "3.1.1 MQTT-3.1.4-2", "5.0 MQTT-4.13.2-1");
    for version in [Version::V31, Version::V311, Version::V5] {
        let connect = Connect::new(version, &unique("taken"));
        let mut old = broker().connect(&connect);
        broker().connect(&connect).expect_nothing();
        old.expect_end(0x8E);
    }
}

#[test]
fn the_session_goes_over_with_what_is_open() {
    let (id, topic) = (unique("taken"), unique("taken"));
    let connect = Connect::v5(&id).durable();
    let mut old = broker().connect(&connect);
    old.ask(&subscribe(1, &[(&topic, 1)]), &suback(0x90, 1, &[1]));
    let mut sender = broker().connect(&Connect::v5(&unique("p")));
    sender.ask(&Publish::new(&topic, "x").qos(1, 1).v5(), &ack(0x40, 1));
    let message = old.message();
    let mut new = broker().resume(&connect);
    old.expect_end(0x8E);
    let again = new.message();
    assert_eq!((again.id, again.dup), (message.id, true));
}

#[test]
fn takeover_storm() {
    const EACH: usize = 6;
    let topic = unique("storm");
    let connect = Connect::v5(&topic).durable();
    let mut first = broker().connect(&connect);
    first.ask(&subscribe(1, &[(&topic, 1)]), &suback(0x90, 1, &[1]));
    let mut sender = broker().connect(&Connect::v5(&unique("p")));
    sender.ask(&Publish::new(&topic, "kept").qos(1, 1).v5(), &ack(0x40, 1));
    let id = first.message().id;
    let before = broker().resident();
    let connections: Vec<_> = std::thread::scope(|scope| {
        let storm: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let connect = || {
                        let mut client = broker().open();
                        let connack = client.offer(&connect);
                        (client, connack)
                    };
                    (0..EACH).map(|_| connect()).collect::<Vec<_>>()
                })
            })
            .collect();
        storm.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    first.expect_end(0x8E);
    // Each was told to go, or overtaken before it was let in; all but one.
    let mut alive = 0;
    for (mut client, connack) in connections {
        let Some(connack) = connack else { continue };
        assert_eq!(connack[2], 1, "the session was lost: {connack:02x?}");
        client.send(&[0xC0, 0]);
        let mut end = client.receive();
        if end[0] == 0x3A {
            assert_eq!(parse(&end, Version::V5).id, id);
            end = client.receive();
        }
        match end[0] {
            0xD0 => alive += 1,
            _ => assert_eq!(end, [0xE0, 1, 0x8E]),
        }
        if end[0] == 0xE0 {
            client.expect_closed();
        }
    }
    assert_eq!(alive, 1);
    let again = broker().resume(&connect).message();
    assert_eq!((again.id, again.dup, again.payload), (id, true, b"kept".to_vec()));
    if let (Some(before), Some(after)) = (before, broker().resident()) {
        assert!(after < before + 100_000_000, "{before} bytes grew to {after}");
    }
}

#[test]
fn takeover_of_stuck_peer() {
    let (id, topic) = (unique("stuck"), unique("stuck"));
    let connect = Connect::v5(&id).durable();
    let mut stuck = broker().connect(&connect);
    stuck.ask(&subscribe(1, &[(&topic, 0)]), &suback(0x90, 1, &[0]));
    let mut sender = broker().connect(&Connect::v5(&unique("p")));
    for _ in 0..30 {
        sender.send(&Publish::new(&topic, vec![0; 500_000]).v5());
    }
    sender.expect_nothing();
    let since = std::time::Instant::now();
    drop(broker().resume(&connect));
    assert!(since.elapsed().as_millis() < 1000, "{:?}", since.elapsed());
}
