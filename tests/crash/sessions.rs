//! What belongs to a session or to the broker, and not to one message: it is there after a kill.

use std::time::{Duration, Instant};

use causeway::codec::{Qos, ReasonCode};

use crate::broker::Broker;
use crate::wire::{Event, Message, Terms, Wire};

/// Connects with this session and subscribes.
fn subscribe(broker: &Broker, terms: &Terms, filter: &str) -> Wire {
    let mut wire = Wire::connect(broker.address, terms).unwrap();
    wire.subscribe(filter, Qos::AtLeastOnce);
    wire.flush().unwrap();
    assert_eq!(wire.expect(), Event::Suback(vec![ReasonCode::GrantedQos1]));
    wire
}

/// Waits until everything that the broker was told is on disk.
fn sync(broker: &Broker) {
    publish(broker, message("sync", "").retained());
}

/// Publishes and waits for the PUBACK.
fn publish(broker: &Broker, message: Message) {
    let mut wire = Wire::connect(broker.address, &Terms::passing("publisher")).unwrap();
    wire.publish(&message.id(1));
    wire.flush().unwrap();
    assert!(matches!(wire.expect(), Event::Puback(1, reason) if !reason.is_error()));
    wire.disconnect();
}

fn message(topic: &str, payload: &str) -> Message {
    Message::new(Qos::AtLeastOnce, topic, payload)
}

/// Everything up to the message that is published now to `topic`.
fn received(broker: &Broker, wire: &mut Wire, topic: &str) -> Vec<String> {
    publish(broker, message(topic, "last"));
    let mut payloads = Vec::new();
    loop {
        let message = wire.expect_publish();
        wire.puback(message.packet_id);
        wire.flush().unwrap();
        if message.payload == "last" {
            return payloads;
        }
        payloads.push(message.payload);
    }
}

/// The retained messages below `keep/`.
fn retained(broker: &Broker) -> Vec<String> {
    let mut wire = subscribe(broker, &Terms::passing("reader"), "keep/#");
    let mut found = received(broker, &mut wire, "keep/last");
    found.sort_unstable();
    found
}

#[test]
fn subscription_survives() {
    let mut broker = Broker::start("");
    let subscriber = Terms::durable("subscriber");
    let wire = subscribe(&broker, &subscriber, "a/+");
    broker.kill_and_restart();
    drop(wire);
    publish(&broker, message("a/1", "offline"));
    broker.kill_and_restart();
    let mut wire = Wire::connect(broker.address, &subscriber).unwrap();
    assert!(wire.session_present);
    assert_eq!(received(&broker, &mut wire, "a/2"), ["offline"]);
}

#[test]
fn a_discarded_session_stays_discarded() {
    let mut broker = Broker::start("");
    let subscriber = Terms::durable("subscriber");
    subscribe(&broker, &subscriber, "a").disconnect();
    publish(&broker, message("a", "for the old session"));
    let fresh = Terms { clean_start: true, ..subscriber.clone() };
    let wire = Wire::connect(broker.address, &fresh).unwrap();
    assert!(!wire.session_present);
    broker.kill_and_restart();
    drop(wire);
    publish(&broker, message("a", "for nobody"));
    let mut wire = Wire::connect(broker.address, &subscriber).unwrap();
    assert!(wire.session_present);
    wire.subscribe("b", Qos::AtLeastOnce);
    wire.flush().unwrap();
    assert_eq!(wire.expect(), Event::Suback(vec![ReasonCode::GrantedQos1]));
    assert_eq!(received(&broker, &mut wire, "b"), [""; 0]);
}

#[test]
fn will_with_delay_fires_after_restart() {
    let mut broker = Broker::start("");
    let watcher = Terms::durable("watcher");
    subscribe(&broker, &watcher, "wills/#").disconnect();
    let leaver = |delay, topic: &str| Terms { will: Some((topic.into(), delay)), ..Terms::durable(topic) };
    // One is online at the kill, one has left before it, and one comes back in time.
    let online = Wire::connect(broker.address, &leaver(2, "wills/online")).unwrap();
    drop(Wire::connect(broker.address, &leaver(2, "wills/left")).unwrap());
    let returning = Wire::connect(broker.address, &leaver(2, "wills/returns")).unwrap();
    broker.kill();
    drop((online, returning));
    let restarted = Instant::now();
    broker.restart();
    Wire::connect(broker.address, &Terms::durable("wills/returns")).unwrap().disconnect();
    // The delay counts from the first restart.
    std::thread::sleep(Duration::from_millis(1200));
    broker.kill_and_restart();

    let mut wire = Wire::connect(broker.address, &watcher).unwrap();
    let mut topics = Vec::new();
    for _ in 0..2 {
        let will = wire.expect_publish();
        wire.puback(will.packet_id);
        wire.flush().unwrap();
        assert_eq!(will.payload, "gone");
        if will.topic == "wills/online" {
            let passed = restarted.elapsed();
            assert!(passed > Duration::from_secs(2) && passed < Duration::from_secs(3), "{passed:?}");
        }
        topics.push(will.topic);
    }
    topics.sort_unstable();
    assert_eq!(topics, ["wills/left", "wills/online"]);
    wire.disconnect();
    sync(&broker);
    // Once.
    broker.kill_and_restart();
    let mut wire = Wire::connect(broker.address, &watcher).unwrap();
    std::thread::sleep(Duration::from_millis(2200));
    assert_eq!(received(&broker, &mut wire, "wills/last"), [""; 0]);
}

#[test]
fn session_expiry_counts_over_restart() {
    let mut broker = Broker::start("");
    let short = |client_id: &str| Terms { expiry: 2, ..Terms::durable(client_id) };
    let online = subscribe(&broker, &short("online"), "a");
    let left = subscribe(&broker, &short("left"), "a");
    let stays = subscribe(&broker, &Terms::durable("stays"), "a");
    let left_at = Instant::now();
    left.disconnect();
    stays.disconnect();
    publish(&broker, message("a", "owed"));
    broker.kill_and_restart();
    let restarted = Instant::now();
    drop(online);
    assert!(Wire::connect(broker.address, &Terms::durable("stays")).unwrap().session_present);
    std::thread::sleep(Duration::from_millis(1200));
    broker.kill_and_restart();

    let rest = |since: Instant| Duration::from_millis(2200).saturating_sub(since.elapsed());
    std::thread::sleep(rest(left_at));
    assert!(!Wire::connect(broker.address, &short("left")).unwrap().session_present);
    // Online at the kill counts as disconnected at the restart, the first one.
    std::thread::sleep(rest(restarted));
    assert!(!Wire::connect(broker.address, &short("online")).unwrap().session_present);
    assert!(Wire::connect(broker.address, &Terms::durable("stays")).unwrap().session_present);
}

#[test]
fn retained_replace_delete_crash() {
    let mut broker = Broker::start("");
    for (topic, payload) in [("keep/a", "a1"), ("keep/b", "b1"), ("keep/c", "c1")] {
        publish(&broker, message(topic, payload).retained());
    }
    broker.kill_and_restart();
    assert_eq!(retained(&broker), ["a1", "b1", "c1"]);
    publish(&broker, message("keep/a", "a2").retained());
    publish(&broker, message("keep/b", "").retained());
    broker.kill_and_restart();
    assert_eq!(retained(&broker), ["a2", "c1"]);
    publish(&broker, message("keep/b", "b2").retained());
    broker.kill_and_restart();
    assert_eq!(retained(&broker), ["a2", "b2", "c1"]);
}

#[test]
fn second_broker_on_same_data_refused() {
    let mut broker = Broker::start("");
    publish(&broker, message("keep/a", "a").retained());
    let output = broker.start_another();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("causeway.redb"), "{said}");
    // The first one does not mind, and a kill leaves no lock behind.
    assert_eq!(retained(&broker), ["a"]);
    broker.kill_and_restart();
    assert_eq!(retained(&broker), ["a"]);
}
