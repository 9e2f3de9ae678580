//! Messages that nobody gets, and that are kept all the same because the operator wants that: before they are
//! acknowledged, and over a crash.

use std::time::{Duration, Instant};

use crate::harness::{Broker, Connect, Publish, ack, ack_with, suback, subscribe};

const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";

/// Reason, whom it was for, and payload.
type Letter = (String, String, String);

fn all(broker: &Broker, filter: &[&str]) -> Vec<Letter> {
    let page = broker.ask(&[&["dead-letters", "list", "--limit", "1000"][..], filter].concat());
    let text = |letter: &serde_json::Value, name: &str| letter[name].as_str().unwrap_or_default().to_owned();
    let letters = page["dead_letters"].as_array().unwrap().iter();
    letters.map(|it| (text(it, "reason"), text(it, "client_id"), text(it, "payload_text"))).collect()
}

/// The letters, once there are so many.
fn letters(broker: &Broker, count: usize) -> Vec<Letter> {
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let letters = all(broker, &[]);
        if letters.len() >= count {
            return letters;
        }
        assert!(Instant::now() < patience, "{} dead letters instead of {count}", letters.len());
    }
}

fn letter(reason: &str, client_id: &str, payload: &str) -> Letter {
    (reason.to_owned(), client_id.to_owned(), payload.to_owned())
}

#[test]
fn unroutable_dlq() {
    proves!("5.0 MQTT-3.4.2-1");
    let mut broker = Broker::start(&format!("{ADMIN}[dead_letters]\nunroutable = [\"orders/#\"]"));
    let durable = Connect::v5("publisher").durable();
    let mut publisher = broker.connect(&durable);
    // No matching subscribers: they are told so, and the message is on disk before that.
    publisher.ask(&Publish::new("orders/1", "one").qos(1, 1).v5(), &ack_with(0x40, 1, 0x10));
    publisher.ask(&Publish::new("orders/1", "two").qos(2, 2).v5(), &ack_with(0x50, 2, 0x10));
    publisher.ask(&Publish::new("other", "lost").qos(1, 3).v5(), &ack_with(0x40, 3, 0x10));
    publisher.send(&Publish::new("orders/1", "QoS 0").v5());
    publisher.ask(&Publish::new("orders/2", "kept").qos(1, 4).retain().v5(), &ack_with(0x40, 4, 0x10));
    broker.crash();
    let expected = ["one", "two"].map(|payload| letter("unroutable", "", payload));
    assert_eq!(all(&broker, &[]), expected);
    // A repeat of the identifier makes no second letter.
    let mut publisher = broker.resume(&durable);
    publisher.ask(&Publish::new("orders/1", "two").qos(2, 2).dup().v5(), &ack(0x50, 2));
    publisher.ask(&ack(0x62, 2), &ack(0x70, 2));
    assert_eq!(all(&broker, &[]), expected);
    assert_eq!(all(&broker, &["--publisher", "publisher", "--topic", "orders/+"]).len(), 2);

    // Replayed, they go to whoever wants them by now.
    let connect = Connect::v5("reader").durable();
    let mut reader = broker.connect(&connect);
    reader.ask(&subscribe(1, &[("orders/1", 1)]), &suback(0x90, 1, &[1]));
    broker.ask(&["dead-letters", "replay", "--all"]);
    for payload in ["one", "two"] {
        assert_eq!(reader.take_qos_1().payload, payload.as_bytes());
    }
    reader.expect_nothing();
    assert_eq!(all(&broker, &[]), []);
}

#[test]
fn letters_go_out_and_come_back_by_the_command_line() {
    let broker = Broker::start(&format!("{ADMIN}[dead_letters]\nunroutable = [\"#\"]"));
    let mut publisher = broker.connect(&Connect::v5("publisher"));
    let payload = "\0".repeat(20_000);
    for id in 1..=30 {
        let publish = Publish::new("t", format!("{id}{payload}")).property(0x26, b"\0\x01a\0\x01b");
        publisher.ask(&publish.qos(1, id).v5(), &ack_with(0x40, id, 0x10));
    }
    let before = all(&broker, &[]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letters.ndjson");
    let file = file.to_str().unwrap();
    assert_eq!(broker.ask(&["dead-letters", "export", "--out", file])["exported"], 30);
    assert_eq!(broker.ask(&["dead-letters", "discard", "--all"])["done"], 30);
    assert_eq!(broker.ask(&["dead-letters", "import", file])["imported"], 30);
    assert_eq!(broker.ask(&["dead-letters", "import", file])["known"], 30);
    assert_eq!(all(&broker, &[]), before);
    let mut reader = broker.connect(&Connect::v5("reader").durable());
    reader.ask(&subscribe(1, &[("t", 1)]), &suback(0x90, 1, &[1]));
    let replay = ["dead-letters", "replay", "--all", "--rate", "1000/s", "--set-property", "c=d"];
    assert_eq!(broker.ask(&replay)["done"], 30);
    for id in 1..=30 {
        let message = reader.take_qos_1();
        assert_eq!(message.payload, format!("{id}{payload}").as_bytes());
        assert_eq!(message.properties, b"\x26\0\x01a\0\x01b\x26\0\x01c\0\x01d");
    }
}

#[test]
fn a_message_too_large_for_a_durable_session_is_kept() {
    proves!("5.0 MQTT-3.1.2-24", "5.0 MQTT-3.1.2-25");
    let mut broker = Broker::start(ADMIN);
    let small = |name: &str| Connect::v5(name).durable().property(0x27, &[0, 0, 0, 60]);
    let mut receiver = broker.connect(&small("small"));
    receiver.ask(&subscribe(1, &[("t", 2), ("q", 1)]), &suback(0x90, 1, &[2, 1]));
    let passing = Connect::v5("passing").property(0x27, &[0, 0, 0, 60]);
    broker.connect(&passing).ask(&subscribe(1, &[("t", 2)]), &suback(0x90, 1, &[2]));
    let mut sender = broker.connect(&Connect::v5("sender"));
    let large = "x".repeat(60);
    sender.ask(&Publish::new("t", &large).qos(1, 1).v5(), &ack(0x40, 1));
    sender.ask(&Publish::new("t", &large).qos(2, 2).v5(), &ack(0x50, 2));
    sender.ask(&Publish::new("q", "fits").qos(1, 3).v5(), &ack(0x40, 3));
    assert_eq!(receiver.take_qos_1().payload, b"fits");
    let expected = letter("oversize", "small", &large);
    assert_eq!(letters(&broker, 2), [expected.clone(), expected.clone()]);
    let page = broker.ask(&["dead-letters", "list"]);
    let detail = "the client takes packets of up to 60 bytes (Maximum Packet Size)";
    assert_eq!(page["dead_letters"][0]["detail"], detail);
    broker.crash();
    assert_eq!(all(&broker, &[]), [expected.clone(), expected]);
    // Settled: it does not come again.
    let mut receiver = broker.resume(&small("small"));
    receiver.expect_nothing();
    assert_eq!(all(&broker, &[]).len(), 2);
}

#[test]
fn a_message_that_expires_in_a_queue_is_kept_where_it_is_asked_for() {
    proves!("5.0 MQTT-3.3.2-5");
    let queued_age = "[limits]\nqueued_age = \"2s\"\n";
    for queue in ["", queued_age] {
        let broker = Broker::start(&format!("{ADMIN}{queue}[dead_letters]\nexpired = [\"orders/#\"]"));
        let away = Connect::v5("away").durable();
        let mut client = broker.connect(&away);
        client.ask(&subscribe(1, &[("#", 1)]), &suback(0x90, 1, &[1]));
        client.leave();
        let mut sender = broker.connect(&Connect::v5("sender"));
        for (topic, id) in [("orders/1", 1), ("other", 2)] {
            let expires = Publish::new(topic, topic).property(0x02, &1_u32.to_be_bytes());
            sender.ask(&expires.qos(1, id).v5(), &ack(0x40, id));
        }
        let mut back = None;
        if queue.is_empty() {
            // It is found to have expired when it would be delivered.
            let expired = Instant::now() + Duration::from_millis(1100);
            while Instant::now() < expired {
                sender.expect_nothing();
            }
            back = Some(broker.resume(&away));
        }
        assert_eq!(letters(&broker, 1), [letter("expired", "away", "orders/1")]);
        back.into_iter().for_each(|mut client| client.expect_nothing());
    }
}

/// [dead_letter_full] With `drop_oldest` the newest stay, and nobody is refused.
#[test]
fn dead_letter_full() {
    let limits =
        "[limits]\nqueued_messages = 1\ndead_letters = 3\n[dead_letters]\nwhen_full = \"drop_oldest\"\n";
    let broker = Broker::start(&format!("{ADMIN}{limits}"));
    let mut away = broker.connect(&Connect::v5("away").durable());
    away.ask(&subscribe(1, &[("t", 1)]), &suback(0x90, 1, &[1]));
    away.leave();
    let mut sender = broker.connect(&Connect::v5("sender"));
    for id in 0..=20 {
        sender.ask(&Publish::new("t", id.to_string()).qos(1, id + 1).v5(), &ack(0x40, id + 1));
    }
    let expected = ["18", "19", "20"].map(|payload| letter("queue_full", "away", payload));
    let patience = Instant::now() + Duration::from_secs(20);
    while all(&broker, &[]) != expected {
        assert!(Instant::now() < patience, "{:?}", all(&broker, &[]));
    }
}

#[test]
fn a_letter_that_is_too_old_is_discarded() {
    let broker = Broker::start(&format!("{ADMIN}[dead_letters]\nunroutable = [\"#\"]\nage = \"1s\""));
    let mut sender = broker.connect(&Connect::v5("sender"));
    sender.ask(&Publish::new("t", "x").qos(1, 1).v5(), &ack_with(0x40, 1, 0x10));
    let patience = Instant::now() + Duration::from_secs(20);
    while !all(&broker, &[]).is_empty() {
        assert!(Instant::now() < patience, "it is still there");
    }
}
