//! Packet identifiers at their limits, and the order in which messages and acknowledgements come.

use std::collections::HashMap;

use crate::harness::{
    Broker, Client, Connect, Publish, ack, ack_with, broker, suback, subscribe, subscribe_with, unique,
    unsubscribe,
};

/// Publishes messages with QoS 1, a thousand at a time, and takes their PUBACKs.
fn publish_many(sender: &mut Client, topic: &str, count: usize) {
    let mut left = count;
    while left > 0 {
        let some = left.min(1000) as u16;
        sender.send(&(1..=some).flat_map(|n| Publish::new(topic, "x").qos(1, n).v5()).collect::<Vec<_>>());
        (1..=some).for_each(|n| sender.expect(&ack(0x40, n)));
        left -= usize::from(some);
    }
}

#[test]
fn pkid_wrap() {
    proves!("5.0 MQTT-2.2.1-4");
    let topic = unique("wrap");
    let mut receiver = broker().connect(&Connect::v5(&topic));
    receiver.ask(&subscribe(1, &[(&topic, 1)]), &suback(0x90, 1, &[1]));
    let mut sender = broker().connect(&Connect::v5(&unique("sender")));
    publish_many(&mut sender, &topic, 1);
    let stuck = receiver.message().id;
    let (mut last, mut wrapped) = (stuck, false);
    for _ in 0..70 {
        publish_many(&mut sender, &topic, 1000);
        let mut acks = Vec::new();
        for _ in 0..1000 {
            let message = receiver.message();
            assert!(message.id != stuck && !message.dup, "{message:?}");
            wrapped |= message.id < last;
            last = message.id;
            acks.extend(ack(0x40, message.id));
            if acks.len() == 4 * 200 {
                receiver.send(&std::mem::take(&mut acks));
            }
        }
    }
    assert!(wrapped, "70 000 messages have fewer identifiers");
    receiver.send(&ack(0x40, stuck));
    receiver.expect_nothing();
}

#[test]
fn pkid_exhaust() {
    proves!("5.0 MQTT-3.3.4-10", "5.0 MQTT-3.3.4-9");
    const ALL: usize = 65_535;
    let broker = Broker::start("[limits]\ninflight = 65535\noutbox_bytes = \"64 MiB\"");
    let mut receiver = broker.connect(&Connect::v5("receiver"));
    receiver.ask(&subscribe(1, &[("t", 1)]), &suback(0x90, 1, &[1]));
    let mut sender = broker.connect(&Connect::v5("sender"));
    let reader = std::thread::spawn(move || {
        let mut seen = vec![false; ALL + 1];
        for _ in 0..ALL {
            let id = usize::from(receiver.message().id);
            assert!(id > 0 && !std::mem::replace(&mut seen[id], true), "{id} is in use");
        }
        receiver
    });
    publish_many(&mut sender, "t", ALL + 2);
    let mut receiver = reader.join().unwrap();
    // All identifiers are in use: no more messages, but everything else.
    receiver.expect_nothing();
    receiver.ask(&subscribe(9, &[("other", 0)]), &suback(0x90, 9, &[0]));
    receiver.ask(&unsubscribe(9, &["other"]), &suback(0xB0, 9, &[0]));
    for id in [4321, 65_535] {
        receiver.send(&ack(0x40, id));
        assert_eq!(receiver.message().id, id);
        receiver.expect_nothing();
    }
}

#[test]
fn ack_order() {
    proves!("5.0 MQTT-4.6.0-2", "5.0 MQTT-4.6.0-3");
    let topic = unique("order");
    let keeper = Connect::v5(&unique("keeper")).durable();
    let mut client = broker().connect(&keeper);
    client.ask(&subscribe(1, &[(&topic, 2)]), &suback(0x90, 1, &[2]));
    client.leave();
    // What is kept waits for the disk, what nobody wants does not: the answers come in order all the same.
    let nobody = unique("nobody");
    let mut sender = broker().connect(&Connect::v5(&unique("sender")).durable());
    let mut bytes = Vec::new();
    for n in 1..=300_u16 {
        let to = if n % 3 == 0 { &nobody } else { &topic };
        bytes.extend(Publish::new(to, "x").qos(1 + n as u8 % 2, n).v5());
    }
    sender.send(&bytes);
    for n in 1..=300_u16 {
        let first = if n % 2 == 0 { 0x40 } else { 0x50 };
        sender.expect(&if n % 3 == 0 { ack_with(first, n, 0x10) } else { ack(first, n) });
    }
    let odd = || (1..=300_u16).rev().filter(|n| n % 2 == 1);
    sender.send(&odd().flat_map(|n| ack(0x62, n)).collect::<Vec<_>>());
    odd().for_each(|n| sender.expect(&ack(0x70, n)));
}

#[test]
fn order_per_topic() {
    proves!("5.0 MQTT-4.6.0-5");
    const EACH: u32 = 60;
    let topic = unique("order");
    let connect = Connect::v5(&topic).durable().property(0x21, &[0, 3]);
    let mut receiver = broker().connect(&connect);
    receiver.ask(&subscribe(1, &[(&topic, 2)]), &suback(0x90, 1, &[2]));
    std::thread::scope(|scope| {
        for publisher in 0..3_u8 {
            let topic = &topic;
            scope.spawn(move || {
                let mut sender = broker().connect(&Connect::v5(&unique("sender")));
                for n in 1..=EACH as u16 {
                    for qos in [1, 2_u8] {
                        let payload = [&[publisher, qos][..], &n.to_be_bytes()].concat();
                        let id = 2 * n + u16::from(qos);
                        sender.send(&Publish::new(topic, payload).qos(qos, id).v5());
                        assert_eq!(sender.receive()[0], 0x30 + (qos << 4));
                        if qos == 2 {
                            sender.ask(&ack(0x62, id), &ack(0x70, id));
                        }
                    }
                }
            });
        }
        let mut next: HashMap<[u8; 2], u16> = HashMap::new();
        let (mut open, mut seen) = (Vec::new(), 0);
        while seen < 3 * 2 * EACH {
            let message = receiver.message();
            let [publisher, qos, high, low] = message.payload[..] else { panic!("{message:?}") };
            let is_repeat = open.contains(&message.id);
            assert!(!is_repeat || message.dup, "{message:?}");
            if !is_repeat {
                let last = next.insert([publisher, qos], u16::from_be_bytes([high, low])).unwrap_or(0);
                assert_eq!(u16::from_be_bytes([high, low]), last + 1, "publisher {publisher}, QoS {qos}");
                open.push(message.id);
                seen += 1;
            }
            // Now and then it goes away with something open.
            if seen % 50 == 0 && !is_repeat {
                receiver.cut();
                receiver = broker().resume(&connect);
                continue;
            }
            settle(&mut receiver, message.qos, message.id);
            open.retain(|id| *id != message.id);
        }
    });
}

/// Acknowledges to the end.
fn settle(receiver: &mut Client, qos: u8, id: u16) {
    if qos == 1 {
        return receiver.send(&ack(0x40, id));
    }
    // PUBCOMP may come before PUBREL is read here: it is owed for this PUBREC in any case.
    receiver.send(&ack(0x50, id));
    receiver.defer_until(&ack(0x62, id));
    receiver.send(&ack(0x70, id));
}

#[test]
fn subscribe_replace_no_gap() {
    let topic = unique("gap");
    let mut receiver = broker().connect(&Connect::v5(&topic));
    receiver.ask(&subscribe(1, &[(&topic, 1)]), &suback(0x90, 1, &[1]));
    let sender = {
        let topic = topic.clone();
        std::thread::spawn(move || {
            let mut sender = broker().connect(&Connect::v5(&unique("sender")));
            for n in 1..=400_u16 {
                sender.ask(&Publish::new(&topic, n.to_string()).qos(1, n).v5(), &ack(0x40, n));
            }
        })
    };
    let (mut seen, mut subacks) = (0, 0);
    while seen < 400 {
        if seen % 4 == 0 {
            let request =
                subscribe_with(2, &[0x0B, 1 + subacks as u8 % 100], &[(&topic, 0x21 + subacks as u8 % 2)]);
            receiver.send(&request);
        }
        let packet = receiver.receive();
        if packet[0] == 0x90 {
            subacks += 1;
            continue;
        }
        let message = crate::harness::parse(&packet, crate::harness::Version::V5);
        seen += 1;
        assert_eq!(message.payload, seen.to_string().as_bytes(), "each once and in order");
        receiver.send(&ack(0x40, message.id));
    }
    assert!(subacks > 20, "{subacks}");
    sender.join().unwrap();
}
