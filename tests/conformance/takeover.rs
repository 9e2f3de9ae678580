//! The same client id twice.

use crate::harness::{Connect, Publish, Version, ack, broker, suback, subscribe, unique};

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
    let connect = Connect::v5(&unique("storm")).durable();
    broker().connect(&connect).leave();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..25 {
                    let mut client = broker().open();
                    client.send(&connect.bytes());
                    // One that a newer one overtakes before its CONNACK is closed without it.
                    client.wait_for_end_or(|answer| answer[0] == 0x20);
                }
            });
        }
    });
    broker().resume(&connect).expect_nothing();
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
