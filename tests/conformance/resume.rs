//! What is open when a connection is cut, wherever it is cut, goes on where it was when the session is resumed.

use std::{cell::Cell, collections::BTreeSet};

use crate::harness::{
    Client, Connect, Publish, Version, ack, ack_with, broker, packet, parse, string, suback, subscribe,
    unique,
};

const BOTH: [Version; 2] = [Version::V311, Version::V5];

/// Payload and QoS of the messages of an exchange, in order.
const MESSAGES: [(&str, u8); 4] = [("1", 1), ("2", 2), ("3", 1), ("4", 2)];

/// Subscribes with QoS 2 in any version.
fn subscribe_to(client: &mut Client, version: Version, topic: &str) {
    let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
    client.send(&packet(0x82, &[&[0, 1], properties, &string(topic), &[2]].concat()));
    assert_eq!(client.receive()[0], 0x90);
}

/// Publishes everything, each to its end.
fn publish_all(topic: &str) {
    let mut sender = broker().connect(&Connect::v5(&unique("sender")));
    for (n, (payload, qos)) in (1..).zip(MESSAGES) {
        sender.ask(&Publish::new(topic, payload).qos(qos, n).v5(), &ack(0x30 + (qos << 4), n));
        if qos == 2 {
            sender.ask(&ack(0x62, n), &ack(0x70, n));
        }
    }
}

/// Runs `cut` for each number of bytes until one says that nothing was cut any more, a few at once.
fn at_every_byte(cut: impl Fn(usize) -> bool + Sync) {
    const AT_ONCE: usize = 12;
    std::thread::scope(|scope| {
        for first in 0..AT_ONCE {
            let cut = &cut;
            scope.spawn(move || {
                let cuts = (first..).step_by(AT_ONCE).take_while(|bytes| cut(*bytes)).count();
                assert!((1..100).contains(&cuts), "the script is neither empty nor endless: {cuts}");
            });
        }
    });
}

/// What a client knows of the messages it gets.
#[derive(Default)]
struct Mind {
    /// Identifier and payload of each message with QoS 1 or 2 that was seen, in order.
    seen: Vec<(u16, u8, String)>,
    /// QoS 1 messages that were acknowledged, and QoS 2 messages whose PUBCOMP was sent.
    done: BTreeSet<u16>,
    /// QoS 2 messages whose PUBREC was sent.
    received: BTreeSet<u16>,
}

impl Mind {
    fn is_done(&self) -> bool {
        self.done.len() == MESSAGES.len()
    }

    /// Takes a packet and answers it.
    fn take(&mut self, client: &mut Client, version: Version, bytes: &[u8]) {
        if bytes[0] == 0x62 {
            let id = u16::from_be_bytes([bytes[2], bytes[3]]);
            assert!(self.received.contains(&id), "PUBREL {id} without a PUBREC");
            self.done.insert(id);
            return client.send(&ack(0x70, id));
        }
        let message = parse(bytes, version);
        let payload = String::from_utf8(message.payload).unwrap();
        self.seen.push((message.id, message.qos, payload));
        if message.qos == 1 {
            self.done.insert(message.id);
            client.send(&ack(0x40, message.id));
        } else {
            self.received.insert(message.id);
            client.send(&ack(0x50, message.id));
        }
    }

    /// Checks what a resumed session sends: what this client has not finished, as it was left.
    fn check(mut self, mut client: Client, version: Version, partly_sent: bool) {
        let open: Vec<_> = self.seen.iter().filter(|(id, ..)| !self.done.contains(id)).cloned().collect();
        assert!(open.iter().all(|(id, qos, _)| *qos == 2 && self.received.contains(id)), "{open:?}");
        let mut first_new = partly_sent;
        while !self.is_done() {
            let bytes = client.receive();
            if bytes[0] != 0x62 {
                let message = parse(&bytes, version);
                // [MQTT-4.3.3-6] Not again after its PUBREC; and no identifier that is in use.
                assert!(
                    !self.seen.iter().any(|(id, ..)| *id == message.id),
                    "{message:?} after {:?}",
                    self.seen
                );
                assert!(message.dup || !first_new, "the message that was cut has no DUP: {message:?}");
                first_new = false;
            }
            self.take(&mut client, version, &bytes);
        }
        client.expect_nothing();
        for qos in [1, 2] {
            let order = self.seen.iter().filter(|seen| seen.1 == qos).map(|seen| seen.2.as_str());
            let published = MESSAGES.iter().filter(|message| message.1 == qos).map(|message| message.0);
            assert!(order.eq(published), "{:?}", self.seen);
        }
    }
}

/// The client reads so many bytes, answers what is whole, and is gone.
fn cut_receiving(version: Version, bytes: usize) -> bool {
    let topic = unique("exact");
    let connect = Connect::new(version, &topic).durable();
    let mut client = broker().connect(&connect);
    subscribe_to(&mut client, version, &topic);
    client.leave();
    publish_all(&topic);
    let mut client = broker().resume(&connect);
    client.read_at_most(bytes);
    let mut mind = Mind::default();
    let mut whole = 0;
    while !mind.is_done() {
        let Some(received) = client.next() else { break };
        whole += received.len();
        mind.take(&mut client, version, &received);
    }
    let was_cut = !mind.is_done();
    // With some of a packet the client knows that it was sent, and so does the broker.
    let next_is_publish = mind.received.iter().all(|id| mind.done.contains(id));
    let partly_sent = bytes > whole && next_is_publish;
    client.cut();
    mind.check(broker().resume(&connect), version, partly_sent);
    was_cut
}

/// The client gets everything, and is gone after so many bytes of its answers.
fn cut_answering(version: Version, bytes: usize) -> bool {
    let topic = unique("exact");
    let connect = Connect::new(version, &topic).durable();
    let mut client = broker().connect(&connect);
    subscribe_to(&mut client, version, &topic);
    publish_all(&topic);
    let mut messages: Vec<_> = MESSAGES.iter().map(|_| client.message()).collect();
    // In order they are within each QoS; they come again in the order of their publishing.
    messages.sort_by(|one, other| one.payload.cmp(&other.payload));
    let (mut left, mut open) = (bytes, Vec::new());
    // Sends an answer as far as there are bytes left for it; whether it was whole.
    let mut answer = |client: &mut Client, packet: Vec<u8>| {
        let sent = packet.len().min(left);
        client.send(&packet[..sent]);
        left -= sent;
        sent == packet.len()
    };
    let with_reason =
        |first: u8, id: u16| if version == Version::V5 { ack_with(first, id, 0) } else { ack(first, id) };
    for message in &messages {
        let first = if message.qos == 1 { 0x40 } else { 0x50 };
        if !answer(&mut client, with_reason(first, message.id)) {
            open.push((message, true));
        } else if message.qos == 2 {
            client.expect(&ack(0x62, message.id));
            if !answer(&mut client, with_reason(0x70, message.id)) {
                open.push((message, false));
            }
        }
    }
    client.cut();
    let mut client = broker().resume(&connect);
    // PUBREL for what was received, PUBLISH for the rest, in order.
    let mut released: BTreeSet<_> = open.iter().filter(|(_, again)| !again).map(|(m, _)| m.id).collect();
    let mut repeated = open.iter().filter(|(_, again)| *again).map(|(message, _)| message);
    for _ in 0..open.iter().map(|(message, again)| 1 + usize::from(*again && message.qos == 2)).sum() {
        let packet = client.receive();
        if packet[0] == 0x62 {
            assert!(released.remove(&u16::from_be_bytes([packet[2], packet[3]])), "{packet:02x?}");
            client.send(&[&[0x70], &packet[1..]].concat());
            continue;
        }
        let (again, message) = (parse(&packet, version), repeated.next().unwrap());
        assert_eq!((again.id, again.qos, again.dup), (message.id, message.qos, true), "cut at {bytes}");
        assert_eq!(again.payload, message.payload);
        client.send(&ack(if again.qos == 1 { 0x40 } else { 0x50 }, again.id));
        if again.qos == 2 {
            released.insert(again.id);
        }
    }
    client.expect_nothing();
    !open.is_empty()
}

/// The client publishes, and is gone after so many bytes; what it was not answered it says again.
fn cut_publishing(version: Version, bytes: usize) -> bool {
    let topic = unique("exact");
    let mut receiver = broker().connect(&Connect::v5(&unique("receiver")));
    receiver.ask(&subscribe(1, &[(&topic, 2)]), &suback(0x90, 1, &[2]));
    let connect = Connect::new(version, &topic).durable();
    let mut client = broker().connect(&connect);
    let publish = |n: u16| {
        let (payload, qos) = MESSAGES[usize::from(n) - 1];
        Publish::new(&topic, payload).qos(qos, n)
    };
    let left = Cell::new(bytes);
    let send = |client: &mut Client, packet: &[u8]| {
        let sent = packet.len().min(left.get());
        client.send(&packet[..sent]);
        left.set(left.get() - sent);
    };
    let mut answered = BTreeSet::new();
    for n in 1..=4 {
        send(&mut client, &publish(n).bytes(version));
    }
    if left.get() > 0 {
        for n in 1..=4 {
            let first = 0x30 + (MESSAGES[usize::from(n) - 1].1 << 4);
            client.expect(&ack(first, n));
            answered.insert((first, n));
        }
        [2, 4].iter().for_each(|n| send(&mut client, &ack(0x62, *n)));
    }
    client.cut();
    let mut client = broker().resume(&connect);
    for n in 1..=4 {
        let first = 0x30 + (MESSAGES[usize::from(n) - 1].1 << 4);
        if !answered.contains(&(first, n)) {
            client.ask(&publish(n).dup().bytes(version), &ack(first, n));
        }
    }
    for n in [2, 4] {
        client.send(&ack(0x62, n));
        // The PUBREL may have come through, and its answer may not.
        let pubcomp = client.receive();
        let known = pubcomp == ack(0x70, n) || version == Version::V5 && pubcomp == ack_with(0x70, n, 0x92);
        assert!(known, "{pubcomp:02x?}");
    }
    client.send(&Publish::new(&topic, "last").bytes(version));
    check_published(receiver);
    left.get() == 0
}

/// QoS 1 came at least once, QoS 2 once, both in order.
fn check_published(mut receiver: Client) {
    let mut payloads: Vec<Vec<u8>> = Vec::new();
    loop {
        let packet = receiver.receive();
        if packet[0] == 0x62 {
            receiver.send(&[&[0x70], &packet[1..]].concat());
            continue;
        }
        let message = parse(&packet, Version::V5);
        if message.payload == b"last" {
            break;
        }
        assert!(!message.dup);
        receiver.send(&ack(if message.qos == 1 { 0x40 } else { 0x50 }, message.id));
        let is_repeat = payloads.contains(&message.payload);
        assert!(!is_repeat || message.qos == 1, "{message:?} came twice");
        if !is_repeat {
            payloads.push(message.payload);
        }
    }
    payloads.sort();
    assert_eq!(payloads, [b"1", b"2", b"3", b"4"]);
}

#[test]
fn resume_exact() {
    proves!("5.0 MQTT-4.4.0-1", "3.1.1 MQTT-4.4.0-1", "5.0 MQTT-4.3.3-6");
    for version in BOTH {
        at_every_byte(|bytes| cut_receiving(version, bytes));
        at_every_byte(|bytes| cut_answering(version, bytes));
    }
}

#[test]
fn resume_exact_of_a_publisher() {
    proves!("5.0 MQTT-4.3.3-10", "5.0 MQTT-4.3.3-12", "3.1.1 MQTT-4.3.3-2");
    for version in BOTH {
        at_every_byte(|bytes| cut_publishing(version, bytes));
    }
}
