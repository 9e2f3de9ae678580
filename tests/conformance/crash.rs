//! What a SIGKILL of the broker leaves.

use crate::harness::{Broker, Connect, Publish, ack, ack_with, suback, subscribe};

#[test]
fn acknowledged_messages_sessions_and_exchanges_survive() {
    proves!("5.0 MQTT-4.3.3-10", "5.0 MQTT-4.4.0-1");
    let mut broker = Broker::start("");
    let receiver = Connect::v5("receiver").durable();
    let sender = Connect::v5("sender").durable();
    let mut client = broker.connect(&receiver);
    client.ask(&subscribe(1, &[("t", 2)]), &suback(0x90, 1, &[2]));
    let mut publisher = broker.connect(&sender);
    publisher.ask(&Publish::new("t", "one").qos(1, 1).v5(), &ack(0x40, 1));
    publisher.ask(&Publish::new("t", "two").qos(2, 2).v5(), &ack(0x50, 2));
    publisher.ask(&Publish::new("t", "three").qos(2, 3).v5(), &ack(0x50, 3));
    let [one, two, three] = [client.message(), client.message(), client.message()];
    client.ask(&ack(0x50, two.id), &ack(0x62, two.id));
    broker.crash();

    let mut publisher = broker.resume(&sender);
    publisher.ask(&Publish::new("t", "two").qos(2, 2).dup().v5(), &ack(0x50, 2));
    publisher.ask(&ack(0x62, 2), &ack(0x70, 2));
    publisher.ask(&ack(0x62, 3), &ack(0x70, 3));
    publisher.ask(&ack(0x62, 3), &ack_with(0x70, 3, 0x92));
    let mut client = broker.resume(&receiver);
    let mut packets = [client.receive(), client.receive(), client.receive()];
    packets.sort();
    // PUBLISH one with DUP, whatever its id; PUBLISH three with its id and DUP; PUBREL two.
    assert_eq!(packets[0][0], 0x3A, "{packets:02x?}");
    assert!(packets[0].ends_with(b"one"));
    assert_eq!(packets[1], Publish::new("t", "three").qos(2, three.id).dup().v5());
    assert_eq!(packets[2], ack(0x62, two.id));
    drop(one);
}

#[test]
fn qos1_crash_after_ack() {
    let mut broker = Broker::start("");
    let keeper = Connect::v5("keeper").durable();
    broker.connect(&keeper).ask(&subscribe(1, &[("t", 1)]), &suback(0x90, 1, &[1]));
    for round in 1..=8_u16 {
        let mut sender = broker.connect(&Connect::v5("sender"));
        sender.ask(&Publish::new("t", round.to_string()).qos(1, round).v5(), &ack(0x40, round));
        broker.crash();
    }
    let mut client = broker.resume(&keeper);
    for round in 1..=8 {
        assert_eq!(client.take_qos_1().payload, round.to_string().as_bytes());
    }
    client.expect_nothing();
}

#[test]
fn retained_messages_and_wills_survive() {
    let mut broker = Broker::start("");
    let mut client = broker.connect(&Connect::v5("keeps"));
    client.ask(&Publish::new("kept", "x").qos(1, 1).retain().v5(), &ack_with(0x40, 1, 0x10));
    client.ask(&Publish::new("removed", "x").qos(1, 1).retain().v5(), &ack_with(0x40, 1, 0x10));
    client.ask(&Publish::new("removed", "").qos(1, 1).retain().v5(), &ack_with(0x40, 1, 0x10));
    let witness = Connect::v5("witness").durable();
    broker.connect(&witness).ask(&subscribe(1, &[("will", 1)]), &suback(0x90, 1, &[1]));
    let dies = broker.connect(&Connect::v5("dies").expiry(60).will("will", "gone", 1));
    broker.crash();
    drop(dies);
    let mut back = broker.resume(&witness);
    assert_eq!(back.take_qos_1().payload, b"gone");
    back.ask(&subscribe(1, &[("kept", 0), ("removed", 0)]), &suback(0x90, 1, &[0, 0]));
    back.expect(&Publish::new("kept", "x").retain().v5());
    back.expect_nothing();
}

#[test]
fn qos_2_of_a_shared_group_goes_to_nobody_else() {
    proves!("5.0 MQTT-4.8.2-5");
    let mut broker = Broker::start("");
    let ends = Connect::v5("ends").durable();
    let mut client = broker.connect(&ends);
    client.ask(&subscribe(1, &[("$share/g/t", 2)]), &suback(0x90, 1, &[2]));
    let other = Connect::v5("other").durable();
    broker.connect(&Connect::v5("p")).ask(&Publish::new("t", "x").qos(2, 1).v5(), &ack(0x50, 1));
    client.message();
    broker.connect(&other).ask(&subscribe(1, &[("$share/g/t", 2)]), &suback(0x90, 1, &[2]));
    client.leave_with(&[0xE0, 7, 0, 5, 0x11, 0, 0, 0, 0]);
    broker.crash();
    broker.resume(&other).expect_nothing();
}
