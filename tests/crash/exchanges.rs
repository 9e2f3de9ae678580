//! QoS 2 exchanges that a kill cuts in two, between each two packets and on both sides.

use causeway::codec::{Qos, ReasonCode};

use crate::broker::Broker;
use crate::wire::{Event, Message, Terms, Wire};

const ID: u16 = 7;

/// A durable QoS 2 subscriber of `t` that is offline.
fn subscribe(broker: &Broker) {
    let mut wire = Wire::connect(broker.address, &Terms::durable("subscriber")).unwrap();
    wire.subscribe("t", Qos::ExactlyOnce);
    wire.flush().unwrap();
    assert_eq!(wire.expect(), Event::Suback(vec![ReasonCode::GrantedQos2]));
    wire.disconnect();
}

fn resume(broker: &Broker, client_id: &str) -> Wire {
    let wire = Wire::connect(broker.address, &Terms::durable(client_id)).unwrap();
    assert!(wire.session_present);
    wire
}

fn message(payload: &str) -> Message {
    Message::new(Qos::ExactlyOnce, "t", payload).id(ID)
}

fn publish(wire: &mut Wire, message: &Message) {
    wire.publish(message);
    wire.flush().unwrap();
    assert_eq!(wire.expect(), Event::Pubrec(ID, ReasonCode::Success));
}

fn release(wire: &mut Wire) -> ReasonCode {
    wire.pubrel(ID);
    wire.flush().unwrap();
    match wire.expect() {
        Event::Pubcomp(ID, reason) => reason,
        other => panic!("not the PUBCOMP: {other:?}"),
    }
}

/// Everything that the subscriber is owed, up to a message that is published now.
fn received(broker: &Broker) -> Vec<String> {
    let mut publisher = Wire::connect(broker.address, &Terms::passing("last")).unwrap();
    publish(&mut publisher, &message("last"));
    let mut wire = resume(broker, "subscriber");
    let mut payloads = Vec::new();
    loop {
        match wire.expect() {
            Event::Publish(message) if message.payload == "last" => return payloads,
            Event::Publish(message) => {
                payloads.push(message.payload);
                wire.pubrec(message.packet_id);
            }
            Event::Pubrel(id) => wire.pubcomp(id),
            other => panic!("a subscriber hears {other:?}"),
        }
        wire.flush().unwrap();
    }
}

#[test]
fn qos2_crash_between_pubrec_and_pubrel() {
    let mut broker = Broker::start("");
    subscribe(&broker);
    let mut wire = Wire::connect(broker.address, &Terms::durable("publisher")).unwrap();
    publish(&mut wire, &message("a"));
    broker.kill_and_restart();

    // To the client the PUBREC may be lost.
    let mut wire = resume(&broker, "publisher");
    publish(&mut wire, &message("a").repeated());
    broker.kill_and_restart();
    let mut wire = resume(&broker, "publisher");
    assert_eq!(release(&mut wire), ReasonCode::Success);
    assert_eq!(received(&broker), ["a"]);
}

#[test]
fn qos2_crash_between_publish_and_pubrec() {
    let mut broker = Broker::start("");
    subscribe(&broker);
    let mut wire = Wire::connect(broker.address, &Terms::durable("publisher")).unwrap();
    for payload in ["a", "b", "c", "d"] {
        wire.publish(&message(payload));
        wire.flush().unwrap();
        broker.kill_and_restart();
        wire = resume(&broker, "publisher");
        publish(&mut wire, &message(payload).repeated());
        release(&mut wire);
    }
    assert_eq!(received(&broker), ["a", "b", "c", "d"]);
}

#[test]
fn qos2_crash_between_pubrel_and_pubcomp() {
    let mut broker = Broker::start("");
    subscribe(&broker);
    let mut wire = Wire::connect(broker.address, &Terms::durable("publisher")).unwrap();
    publish(&mut wire, &message("a"));
    wire.pubrel(ID);
    wire.flush().unwrap();
    broker.kill_and_restart();

    // Whether or not the release was in time, the client gets its PUBCOMP.
    let mut wire = resume(&broker, "publisher");
    let reason = release(&mut wire);
    assert!([ReasonCode::Success, ReasonCode::PacketIdentifierNotFound].contains(&reason));
    // Then the identifier is free, and stays so.
    broker.kill_and_restart();
    let mut wire = resume(&broker, "publisher");
    publish(&mut wire, &message("b"));
    assert_eq!(release(&mut wire), ReasonCode::Success);
    assert_eq!(received(&broker), ["a", "b"]);
}

#[test]
fn a_subscriber_goes_on_where_its_exchange_was_cut() {
    let mut broker = Broker::start("");
    subscribe(&broker);
    let mut wire = Wire::connect(broker.address, &Terms::passing("publisher")).unwrap();
    publish(&mut wire, &message("a"));

    let mut wire = resume(&broker, "subscriber");
    let first = wire.expect_publish();
    assert_eq!((first.payload.as_str(), first.dup), ("a", false));
    broker.kill_and_restart();
    let mut wire = resume(&broker, "subscriber");
    assert_eq!(wire.expect_publish(), first.clone().repeated());
    wire.pubrec(first.packet_id);
    wire.flush().unwrap();
    assert_eq!(wire.expect(), Event::Pubrel(first.packet_id));
    broker.kill_and_restart();
    // [MQTT-4.3.3-6] After PUBREC the PUBLISH does not come again.
    let mut wire = resume(&broker, "subscriber");
    assert_eq!(wire.expect(), Event::Pubrel(first.packet_id));
    wire.pubcomp(first.packet_id);
    wire.flush().unwrap();
    drop(wire);
    assert_eq!(received(&broker), [""; 0]);
}
