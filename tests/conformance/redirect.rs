//! Clients are sent to another server: Server Reference in CONNACK and DISCONNECT.

use crate::harness::{Broker, Connect, Version, packet, string, suback, subscribe};

const TO: &str = "other.example:1883";

fn config(permanent: bool) -> String {
    format!("[redirect]\nto = \"{TO}\"\npermanent = {permanent}")
}

/// The body of a packet that says where to go, from its reason code on.
fn reference(reason: u8) -> Vec<u8> {
    let property = [&[0x1C][..], &string(TO)].concat();
    [&[reason, property.len() as u8][..], &property].concat()
}

#[test]
fn nobody_is_let_in() {
    proves!("U-PROP-1C-where");
    for (permanent, reason) in [(false, 0x9C), (true, 0x9D)] {
        let broker = Broker::start(&config(permanent));
        let mut client = broker.open();
        client.ask(&Connect::v5("c").bytes(), &packet(0x20, &[&[0][..], &reference(reason)].concat()));
        client.expect_closed();
        // A client that takes no packet of that size is told the reason alone.
        let mut client = broker.open();
        client.ask(&Connect::v5("c").property(0x27, &[0, 0, 0, 20]).bytes(), &[0x20, 3, 0, reason, 0]);
        client.expect_closed();
        for version in [Version::V31, Version::V311] {
            let mut client = broker.open();
            client.ask(&Connect::new(version, "c").bytes(), &[0x20, 2, 0, 3]);
            client.expect_closed();
        }
    }
}

#[test]
fn a_reload_empties_the_broker_and_another_one_fills_it_again() {
    let broker = Broker::start("");
    let durable = Connect::v5("durable").durable();
    let mut new = broker.connect(&durable);
    new.ask(&subscribe(1, &[("t", 1)]), &suback(0x90, 1, &[1]));
    let mut small = broker.connect(&Connect::v5("small").property(0x27, &[0, 0, 0, 20]));
    let mut old = broker.connect(&Connect::v311("old"));

    broker.reload(&config(false));
    new.expect(&packet(0xE0, &reference(0x9C)));
    new.expect_closed();
    small.expect(&[0xE0, 1, 0x9C]);
    small.expect_closed();
    old.expect_closed();
    let mut back = broker.open();
    back.ask(&Connect::v5("new").bytes(), &packet(0x20, &[&[0][..], &reference(0x9C)].concat()));

    // Who comes back finds the session.
    broker.reload("");
    let let_in = |_| {
        let mut client = broker.open();
        client.send(&Connect::v311("first").bytes());
        client.receive() == [0x20, 2, 0, 0]
    };
    assert!((0..10_000).any(let_in));
    broker.resume(&durable).expect_nothing();
}
