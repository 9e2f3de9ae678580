//! QoS 2 exchanges that a kill cuts in two, between each two packets and on both sides.

use causeway::codec::{Qos, ReasonCode};

use crate::broker::Broker;
use crate::wire::{Event, Message, Terms, Wire};

const ID: u16 = 7;

const NO_SUBSCRIBERS: ReasonCode = ReasonCode::NoMatchingSubscribers;

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

/// What is settled goes to disk with a report. One that is on its way there when the backlog is read counts,
/// too, also when there is nothing more to report.
#[test]
fn what_is_settled_by_a_report_under_way_is_not_read_from_the_backlog() {
    let mut broker = Broker::start("");
    subscribe(&broker);
    let mut other = Wire::connect(broker.address, &Terms::durable("somebody else")).unwrap();
    other.subscribe("for somebody else", Qos::AtLeastOnce);
    other.flush().unwrap();
    assert_eq!(other.expect(), Event::Suback(vec![ReasonCode::GrantedQos1]));
    other.disconnect();
    let mut publisher = Wire::connect(broker.address, &Terms::passing("publisher")).unwrap();
    publish(&mut publisher, &message("a"));
    // The exchange takes the whole window, and is not complete.
    let terms = Terms { receive_maximum: 1, ..Terms::durable("subscriber") };
    let mut wire = Wire::connect(broker.address, &terms).unwrap();
    let sent = wire.expect_publish().packet_id;
    wire.pubrec(sent);
    wire.publish(&Message { topic: "elsewhere".into(), ..message("b") });
    wire.flush().unwrap();
    let answers = [wire.expect(), wire.expect()];
    assert!(answers.contains(&Event::Pubrel(sent)) && answers.contains(&Event::Pubrec(ID, NO_SUBSCRIBERS)));
    broker.kill_and_restart();

    let mut publisher = Wire::connect(broker.address, &Terms::passing("publisher")).unwrap();
    let mut wire = Wire::connect(broker.address, &terms).unwrap();
    assert_eq!(wire.expect(), Event::Pubrel(sent));
    // The writer is busy when PUBCOMP settles and PUBREL demands a report at once.
    for id in 100..500 {
        wire.publish(&Message::new(Qos::AtLeastOnce, "for somebody else", &"x".repeat(1000)).id(id));
    }
    wire.pubcomp(sent);
    wire.pubrel(ID);
    wire.flush().unwrap();
    publish(&mut publisher, &message("b"));
    let next = loop {
        match wire.expect() {
            Event::Publish(message) => break message,
            Event::Puback(..) | Event::Pubcomp(..) => {}
            other => panic!("a subscriber hears {other:?}"),
        }
    };
    assert_eq!(next.payload, "b");
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

#[test]
fn a_group_that_is_behind_gives_out_a_message_once() {
    let mut broker = Broker::start("");
    // With this window the group is behind until the last message is settled.
    let terms = Terms { receive_maximum: 1, ..Terms::durable("member") };
    let mut wire = Wire::connect(broker.address, &terms).unwrap();
    wire.subscribe("$share/group/t", Qos::ExactlyOnce);
    wire.flush().unwrap();
    assert_eq!(wire.expect(), Event::Suback(vec![ReasonCode::GrantedQos2]));
    broker.kill_and_restart();
    let mut publisher = Wire::connect(broker.address, &Terms::passing("publisher")).unwrap();
    for payload in ["a", "b"] {
        publish(&mut publisher, &message(payload));
        release(&mut publisher);
    }

    let mut wire = Wire::connect(broker.address, &terms).unwrap();
    let (mut payloads, mut released) = (Vec::new(), 0);
    while payloads.last().is_none_or(|last| last != "c") {
        match wire.expect() {
            Event::Publish(message) => {
                payloads.push(message.payload);
                wire.pubrec(message.packet_id);
            }
            Event::Pubrel(id) => {
                wire.pubcomp(id);
                released += 1;
                if released == 2 {
                    // Both are settled, and that is not on disk yet.
                    wire.flush().unwrap();
                    publish(&mut publisher, &message("c"));
                    release(&mut publisher);
                }
            }
            other => panic!("a member hears {other:?}"),
        }
        wire.flush().unwrap();
    }
    assert_eq!(payloads, ["a", "b", "c"]);
}
