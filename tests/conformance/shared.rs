//! Shared subscriptions.

use crate::harness::{
    Broker, Client, Connect, Publish, ack, ack_with, broker, disconnect, suback, subscribe, subscribe_with,
    unique, unsubscribe,
};

/// A client whose session lives on for others to resume, or ends with its connection.
fn session(durable: bool, name: &str) -> Connect {
    let connect = Connect::v5(&unique(name));
    if durable { connect.durable() } else { connect }
}

/// A DISCONNECT that ends the session, whatever was agreed on before.
fn end_of_session() -> Vec<u8> {
    disconnect(0, &[0x11, 0, 0, 0, 0])
}

/// A member of `$share/g/#` at a broker of its own that shares by `strategy`.
fn member_at(broker: &Broker, connect: &Connect) -> Client {
    let mut client = broker.connect(connect);
    client.ask(&subscribe(1, &[("$share/g/#", 1)]), &suback(0x90, 1, &[1]));
    client
}

fn sharing(strategy: &str) -> Broker {
    Broker::start(&format!("[shared]\nstrategy = \"random\"\n[shared.groups]\ng = \"{strategy}\""))
}

/// Everything of QoS 1 that has arrived until now, acknowledged; the payloads.
fn take_all(client: &mut Client) -> Vec<String> {
    let (mut payloads, mut pings) = (Vec::new(), 0);
    client.send(&[0xC0, 0]);
    loop {
        let packet = client.receive();
        if packet == [0xD0, 0] {
            // What is there goes out behind the answer to the first, and before that to the second.
            pings += 1;
            if pings == 2 {
                return payloads;
            }
            client.send(&[0xC0, 0]);
            continue;
        }
        let message = client.parse(&packet);
        client.send(&ack(0x40, message.id));
        payloads.push(String::from_utf8(message.payload).unwrap());
    }
}

fn member(connect: &Connect, filter: &str, qos: u8) -> Client {
    let mut client = broker().connect(connect);
    client.ask(&subscribe(1, &[(filter, qos)]), &suback(0x90, 1, &[qos]));
    client
}

fn publish(topic: &str, n: u16, qos: u8) {
    let mut sender = broker().connect(&Connect::v5(&unique("p")));
    sender.ask(
        &Publish::new(topic, n.to_string()).qos(qos, n).v5(),
        &ack(if qos == 1 { 0x40 } else { 0x50 }, n),
    );
}

#[test]
fn each_message_goes_to_one_member_of_each_group() {
    let topic = unique("shared");
    let (one, two) = (format!("$share/one/{topic}"), format!("$share/two/{topic}"));
    let mut members: Vec<_> =
        [&one, &one, &one, &two].map(|group| member(&Connect::v5(&unique("m")), group, 1)).into();
    let mut plain = member(&Connect::v5(&unique("m")), &topic, 1);
    (1..=9).for_each(|n| publish(&topic, n, 1));
    for member in &mut members[..3] {
        (0..3).for_each(|_| drop(member.take_qos_1()));
        member.expect_nothing();
    }
    (1..=9_u16).for_each(|n| assert_eq!(members[3].take_qos_1().payload, n.to_string().as_bytes()));
    (1..=9_u16).for_each(|n| assert_eq!(plain.take_qos_1().payload, n.to_string().as_bytes()));
}

#[test]
fn the_qos_of_the_member_and_its_identifier_count() {
    proves!("5.0 MQTT-4.8.2-3");
    let topic = unique("shared");
    let group = format!("$share/g/{topic}");
    let mut client = broker().connect(&Connect::v5(&unique("m")));
    client.ask(&subscribe_with(1, &[0x0B, 3], &[(&group, 0)]), &suback(0x90, 1, &[0]));
    publish(&topic, 1, 1);
    client.expect(&Publish::new(&topic, "1").property(0x0B, &[3]).v5());
}

#[test]
fn shared_parse_matrix() {
    proves!("5.0 MQTT-4.8.2-1", "5.0 MQTT-4.8.2-2");
    let filters = ["$share", "$share/", "$share/g", "$share/g/", "$share//t", "$share/g+/t", "$share/#/t"];
    // A broker of its own: `#` matches what other tests publish.
    let broker = Broker::start("");
    let mut client = broker.connect(&Connect::v5("m"));
    for filter in filters {
        client.ask(&subscribe(1, &[(filter, 0)]), &suback(0x90, 1, &[0x8F]));
    }
    let fine = ["$share/g/#", "$share/g//", "$SHARE/g/t", "$shared/x"];
    for filter in fine {
        client.ask(&subscribe(1, &[(filter, 0)]), &suback(0x90, 1, &[0]));
    }
}

#[test]
fn shared_vs_plain_same_filter() {
    let topic = unique("both");
    let group = format!("$share/g/{topic}");
    let mut client = broker().connect(&Connect::v5(&unique("m")));
    client.ask(&subscribe(1, &[(&topic, 0), (&group, 0)]), &suback(0x90, 1, &[0, 0]));
    let mut sender = broker().connect(&Connect::v5(&unique("p")));
    sender.send(&Publish::new(&topic, "1").v5());
    client.expect(&Publish::new(&topic, "1").v5());
    client.expect(&Publish::new(&topic, "1").v5());
    client.ask(&unsubscribe(2, &[&group]), &suback(0xB0, 2, &[0]));
    sender.send(&Publish::new(&topic, "2").v5());
    client.expect(&Publish::new(&topic, "2").v5());
    client.expect_nothing();
    client.ask(&subscribe(3, &[(&group, 0)]), &suback(0x90, 3, &[0]));
    client.ask(&unsubscribe(4, &[&topic]), &suback(0xB0, 4, &[0]));
    client.ask(&unsubscribe(5, &[&topic]), &suback(0xB0, 5, &[0x11]));
    sender.send(&Publish::new(&topic, "3").v5());
    client.expect(&Publish::new(&topic, "3").v5());
    client.expect_nothing();
}

#[test]
fn shared_member_dies() {
    proves!("U-4.8.2-a", "5.0 MQTT-4.8.2-5");
    for (durable, in_order) in [(true, true), (false, true), (true, false), (false, false)] {
        let topic = unique("shared");
        let group = format!("$share/g/{topic}");
        let mut dies = member(&session(durable, "dies").property(0x21, &[0, 3]), &group, 2);
        // In its hands: 1 is acknowledged, 2 and 3 are not. For 4 and 5 its window has no room.
        (1..=5).for_each(|n| publish(&topic, n, if n == 3 || n == 5 { 2 } else { 1 }));
        let first = dies.message();
        assert_eq!([dies.message().payload, dies.message().payload], [b"2", b"3"]);
        let mut other = member(&session(durable, "other"), &group, 2);
        dies.send(&ack(0x40, first.id));
        assert_eq!(dies.message().payload, b"4");
        if in_order {
            dies.leave_with(&end_of_session())
        } else {
            dies.cut()
        }
        let payloads = settle(&mut other, 3);
        assert_eq!(payloads, ["2", "4", "5"], "durable: {durable}, in order: {in_order}");
        other.expect_nothing();
        publish(&topic, 6, 1);
        assert_eq!(settle(&mut other, 1), ["6"]);
        other.expect_nothing();
    }
}

#[test]
fn what_a_member_has_acknowledged_goes_to_nobody_else() {
    for durable in [true, false] {
        let topic = unique("shared");
        let group = format!("$share/g/{topic}");
        let mut dies = member(&session(durable, "dies"), &group, 2);
        publish(&topic, 1, 1);
        publish(&topic, 2, 2);
        assert_eq!(settle(&mut dies, 2), ["1", "2"]);
        dies.expect_nothing();
        let mut other = member(&session(durable, "other"), &group, 2);
        dies.leave_with(&end_of_session());
        other.expect_nothing();
    }
}

/// The next `count` messages, settled as their QoS asks for; their payloads in order.
fn settle(client: &mut Client, count: usize) -> Vec<String> {
    let (mut payloads, mut open) = (Vec::new(), 0);
    while payloads.len() < count || open > 0 {
        let packet = client.receive();
        if packet[0] == 0x62 {
            client.send(&ack(0x70, u16::from_be_bytes([packet[2], packet[3]])));
            open -= 1;
            continue;
        }
        let message = client.parse(&packet);
        if message.qos == 2 {
            open += 1;
        }
        client.send(&ack(if message.qos == 2 { 0x50 } else { 0x40 }, message.id));
        payloads.push(String::from_utf8(message.payload).unwrap());
    }
    payloads.sort();
    payloads
}

#[test]
fn shared_all_offline() {
    let mut broker = Broker::start("[limits]\nqueued_messages = 3");
    let connect = Connect::v5("away").durable();
    member_at(&broker, &connect).leave();
    let mut sender = broker.connect(&Connect::v5("p"));
    // More than the limit is a dead letter, and acknowledged all the same.
    for n in 1..=5 {
        sender.ask(&Publish::new("t", n.to_string()).qos(1, n).v5(), &ack(0x40, n));
    }
    broker.crash();
    let mut back = broker.resume(&connect);
    for n in 1..=3_u16 {
        assert_eq!(back.take_qos_1().payload, n.to_string().as_bytes());
    }
    back.expect_nothing();
}

#[test]
fn qos_2_that_began_stays_with_its_member() {
    proves!("5.0 MQTT-4.8.2-4");
    let topic = unique("shared");
    let group = format!("$share/g/{topic}");
    let connect = Connect::v5(&unique("begins")).durable();
    let mut begins = member(&connect, &group, 2);
    publish(&topic, 1, 2);
    let message = begins.message();
    let mut other = member(&Connect::v5(&unique("other")), &group, 2);
    begins.cut();
    other.expect_nothing();
    let mut begins = broker().resume(&connect);
    let again = begins.message();
    assert_eq!((again.id, again.dup), (message.id, true));
    begins.ask(&ack(0x50, message.id), &ack(0x62, message.id));
    begins.send(&ack(0x70, message.id));
    begins.expect_nothing();
    other.expect_nothing();
}

#[test]
fn shared_negative_ack() {
    proves!("5.0 MQTT-4.8.2-6");
    for (durable, qos, first) in [(true, 1, 0x40), (false, 1, 0x40), (true, 2, 0x50), (false, 2, 0x50)] {
        let topic = unique("shared");
        let group = format!("$share/g/{topic}");
        let mut refuses = member(&session(durable, "refuses"), &group, 2);
        publish(&topic, 1, qos);
        let message = refuses.message();
        let mut other = member(&session(durable, "other"), &group, 2);
        refuses.send(&ack_with(first, message.id, 0x80));
        refuses.expect_nothing();
        refuses.leave_with(&end_of_session());
        other.expect_nothing();
    }
}

#[test]
fn who_unsubscribes_leaves_what_it_had_not_acknowledged_to_others() {
    let topic = unique("shared");
    let group = format!("$share/g/{topic}");
    let mut leaves = member(&Connect::v5(&unique("leaves")).durable(), &group, 1);
    publish(&topic, 1, 1);
    leaves.message();
    let mut other = member(&Connect::v5(&unique("other")).durable(), &group, 1);
    leaves.ask(&unsubscribe(2, &[&group]), &suback(0xB0, 2, &[0]));
    leaves.leave_with(&end_of_session());
    assert_eq!(other.take_qos_1().payload, b"1");
}

#[test]
fn shared_no_retained() {
    proves!("U-4.8.2-b");
    let topic = unique("shared");
    let kept = Publish::new(&topic, "x").qos(1, 1).retain().v5();
    broker().connect(&Connect::v5(&unique("p"))).ask(&kept, &ack_with(0x40, 1, 0x10));
    let group = format!("$share/g/{topic}");
    member(&Connect::v5(&unique("new")), &group, 1).expect_nothing();
    member(&Connect::v5(&unique("new")).durable(), &group, 1).expect_nothing();
}

#[test]
fn shared_no_local_error() {
    proves!("5.0 MQTT-3.8.3-4");
    for filters in [&[("$share/g/t", 4)][..], &[("t", 4), ("$share/g/#", 5)]] {
        let mut client = broker().connect(&Connect::v5(&unique("local")));
        client.send(&subscribe(1, filters));
        client.expect_end(0x82);
    }
}

#[test]
fn shared_fair_and_slow() {
    const MESSAGES: u16 = 500;
    for durable in [true, false] {
        let topic = unique("shared");
        let group = format!("$share/g/{topic}");
        let mut slow = member(&session(durable, "slow").property(0x21, &[0, 5]), &group, 1);
        let mut others = [0, 1].map(|_| member(&session(durable, "other"), &group, 1));
        let mut sender = broker().connect(&Connect::v5(&unique("p")));
        for first in (1..MESSAGES).step_by(50) {
            let batch = first..first + 50;
            let publish = |n: u16| Publish::new(&topic, n.to_string()).qos(1, n).v5();
            sender.send(&batch.clone().flat_map(publish).collect::<Vec<_>>());
            batch.for_each(|n| sender.expect(&ack(0x40, n)));
            // It takes five and says nothing; the two others have the rest, half each.
            let shares = others.each_mut().map(|other| take_all(other).len() as u16);
            let taken = if first == 1 { 5 } else { 0 };
            assert_eq!(shares[0] + shares[1], 50 - taken, "durable: {durable}, {shares:?}");
            assert!(shares[0].abs_diff(shares[1]) <= 5, "durable: {durable}, {shares:?}");
        }
        assert_eq!(take_all(&mut slow).len(), 5, "and it is still there");
    }
}

#[test]
fn what_has_waited_is_shared_as_windows_allow() {
    const MESSAGES: u16 = 100;
    let topic = unique("shared");
    let group = format!("$share/g/{topic}");
    let (slow, fast) = (session(true, "slow").property(0x21, &[0, 5]), session(true, "fast"));
    member(&slow, &group, 1).leave();
    member(&fast, &group, 1).leave();
    (1..=MESSAGES).for_each(|n| publish(&topic, n, 1));
    let mut slow = broker().resume(&slow);
    let taken: Vec<_> = (0..5).map(|_| slow.message()).collect();
    slow.expect_nothing();
    let mut fast = broker().resume(&fast);
    for n in 6..=MESSAGES {
        assert_eq!(fast.take_qos_1().payload, n.to_string().as_bytes());
    }
    fast.expect_nothing();
    taken.iter().for_each(|message| slow.send(&ack(0x40, message.id)));
    slow.expect_nothing();
}

#[test]
fn strategies_that_spread() {
    for strategy in ["round_robin", "random", "least_inflight"] {
        let broker = sharing(strategy);
        let mut members = ["a", "b", "c"].map(|id| member_at(&broker, &Connect::v5(id)));
        let mut sender = broker.connect(&Connect::v5("p"));
        let mut counts = [0; 3];
        for n in 1..=90_u16 {
            sender.ask(&Publish::new("t", n.to_string()).qos(1, n).v5(), &ack(0x40, n));
            if n % 30 == 0 {
                for (count, member) in counts.iter_mut().zip(&mut members) {
                    *count += take_all(member).len();
                }
            }
        }
        assert_eq!(counts.iter().sum::<usize>(), 90);
        let fair = if strategy == "random" { 5..=60 } else { 30..=30 };
        assert!(counts.iter().all(|count| fair.contains(count)), "{strategy}: {counts:?}");
    }
}

#[test]
fn least_inflight_goes_by_what_is_not_acknowledged() {
    let broker = sharing("least_inflight");
    let [mut busy, mut free] = ["busy", "free"].map(|id| member_at(&broker, &Connect::v5(id)));
    let mut sender = broker.connect(&Connect::v5("p"));
    for n in 1..=20_u16 {
        sender.ask(&Publish::new("t", n.to_string()).qos(1, n).v5(), &ack(0x40, n));
        take_all(&mut free);
    }
    assert_eq!(take_all(&mut busy).len(), 1);
}

#[test]
fn strategies_that_keep_together() {
    for (strategy, by_topic) in [("hash_topic", true), ("hash_client", false)] {
        let broker = sharing(strategy);
        let ids = ["a", "b", "c", "d"];
        let mut members: Vec<_> = ids.iter().map(|id| member_at(&broker, &Connect::v5(id))).collect();
        let publish_all = || {
            for publisher in 0..12 {
                let mut sender = broker.connect(&Connect::v5(&format!("p{publisher}")));
                for (id, topic) in (1..).zip(0..12) {
                    let key = if by_topic { topic } else { publisher };
                    let publish = Publish::new(&format!("t/{topic}"), key.to_string()).qos(1, id);
                    sender.ask(&publish.v5(), &ack(0x40, id));
                }
            }
        };
        publish_all();
        let mut owners = std::collections::BTreeMap::new();
        for (at, member) in members.iter_mut().enumerate() {
            let keys = take_all(member);
            assert!(keys.iter().all(|key| *owners.entry(key.clone()).or_insert(at) == at), "{strategy}");
        }
        assert_eq!(owners.len(), 12, "{strategy}");
        assert!(owners.values().any(|at| *at != owners["0"]), "{strategy}: not all to one");
        // Of what one leaves, everything goes; of the others' nothing moves.
        let gone = owners["0"];
        members.remove(gone).leave();
        publish_all();
        for (at, member) in members.iter_mut().enumerate() {
            let at = if at < gone { at } else { at + 1 };
            for key in take_all(member) {
                assert!([at, gone].contains(&owners[&key]), "{strategy}: {key} has moved");
            }
        }
    }
}

#[test]
fn sticky_stays_until_the_member_goes() {
    let broker = sharing("sticky");
    let mut members: Vec<_> = ["a", "b", "c"].iter().map(|id| member_at(&broker, &Connect::v5(id))).collect();
    let mut sender = broker.connect(&Connect::v5("p"));
    for left in (1..=3).rev() {
        (1..=20_u16).for_each(|n| sender.ask(&Publish::new("t", "x").qos(1, n).v5(), &ack(0x40, n)));
        let counts: Vec<_> = members.iter_mut().map(|member| take_all(member).len()).collect();
        assert_eq!((counts.len(), counts.iter().sum::<usize>()), (left, 20));
        let chosen = counts.iter().position(|count| *count == 20).unwrap();
        members.remove(chosen).leave();
    }
}
