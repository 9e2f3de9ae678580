//! Queues that are full, or hold what is too old: what gives way, and that it is a dead letter or is refused.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use crate::harness::{Broker, Client, Connect, Dice, Publish, ack, ack_with, suback, subscribe};

const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";

/// What became of a message that was given up: why, for whom, and what was in it.
type Letter = (String, String, String);

/// The dead letters, once there are so many.
fn letters(broker: &Broker, count: usize) -> Vec<Letter> {
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let page = broker.ask(&["dead-letters", "list", "--limit", "1000"]);
        let letters = page["dead_letters"].as_array().unwrap();
        if letters.len() >= count {
            return letters.iter().map(letter).collect();
        }
        assert!(Instant::now() < patience, "{} dead letters instead of {count}", letters.len());
    }
}

/// Until the session `away` has so many messages in its queue.
fn wait_until_queued(broker: &Broker, count: u64) {
    let patience = Instant::now() + Duration::from_secs(20);
    while broker.ask(&["sessions", "show", "away"])["queued_messages"] != count {
        assert!(Instant::now() < patience, "not {count} in the queue");
    }
}

/// All dead letters.
fn all_letters(broker: &Broker) -> Vec<Letter> {
    let page = broker.ask(&["dead-letters", "list", "--limit", "100000"]);
    page["dead_letters"].as_array().unwrap().iter().map(letter).collect()
}

fn letter(letter: &serde_json::Value) -> Letter {
    let text = |name: &str| letter[name].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("client_id") + &text("route"), text("payload_text"))
}

fn expected(reason: &str, owner: &str, payloads: &[&str]) -> Vec<Letter> {
    payloads.iter().map(|payload| (reason.to_owned(), owner.to_owned(), (*payload).to_owned())).collect()
}

/// Publishes each with QoS 1 to `t`, and waits for each success.
fn publish_all(broker: &Broker, payloads: &[&str]) {
    let mut publisher = broker.connect(&Connect::v5("publisher"));
    for (payload, id) in payloads.iter().zip(1..) {
        publisher.ask(&Publish::new("t", payload).qos(1, id).v5(), &ack(0x40, id));
    }
}

/// A durable session with a subscription, whose client has left.
fn away(broker: &Broker, name: &str, filter: &str) -> Connect {
    let connect = Connect::v5(name).durable();
    let mut client = broker.connect(&connect);
    client.ask(&subscribe(1, &[(filter, 1)]), &suback(0x90, 1, &[1]));
    client.leave();
    connect
}

/// Comes back and gets these, and no more.
fn comes_back_to(broker: &Broker, connect: &Connect, payloads: &[&str]) {
    let mut client = broker.resume(connect);
    for payload in payloads {
        assert_eq!(client.take_qos_1().payload, payload.as_bytes());
    }
    client.expect_nothing();
}

#[test]
fn a_session_drops_its_newest_or_its_oldest() {
    for (policy, dropped, kept) in [
        ("", ["4", "5", "6"], ["1", "2", "3"]),
        ("overflow = \"drop_newest\"", ["4", "5", "6"], ["1", "2", "3"]),
        ("overflow = \"drop_oldest\"", ["1", "2", "3"], ["4", "5", "6"]),
    ] {
        for filter in ["t", "$share/g/t"] {
            let broker = Broker::start(&format!("{ADMIN}[limits]\nqueued_messages = 3\n{policy}"));
            let connect = away(&broker, "away", filter);
            publish_all(&broker, &["1", "2", "3", "4", "5", "6"]);
            let owner = if filter == "t" { "away" } else { filter };
            assert_eq!(letters(&broker, 3), expected("queue_full", owner, &dropped), "{policy} {filter}");
            comes_back_to(&broker, &connect, &kept);
        }
    }
}

#[test]
fn bytes_are_a_limit_too() {
    let payloads = ["1", "2", "3", "4", "5", "6"].map(|name| name.repeat(1100));
    let payloads = payloads.each_ref().map(String::as_str);
    let (first, last) = payloads.split_at(3);
    for (policy, dropped, kept) in
        [("drop_newest", &[payloads[4], payloads[5]][..], &payloads[..4]), ("drop_oldest", first, last)]
    {
        let limits = "[limits]\npacket_size = \"4 KiB\"\nqueued_bytes = \"4 KiB\"";
        let broker = Broker::start(&format!("{ADMIN}{limits}\noverflow = \"{policy}\""));
        let connect = away(&broker, "away", "t");
        publish_all(&broker, &payloads);
        let letters = letters(&broker, dropped.len());
        assert_eq!(letters, expected("queue_bytes_full", "away", dropped), "{policy}");
        comes_back_to(&broker, &connect, kept);
    }
}

#[test]
fn what_is_too_old_is_given_up() {
    for (filter, owner) in [("t", "away"), ("$share/g/t", "$share/g/t")] {
        let mut broker = Broker::start(&format!("{ADMIN}[limits]\nqueued_age = \"1s\""));
        let connect = away(&broker, "away", filter);
        publish_all(&broker, &["1", "2"]);
        assert_eq!(letters(&broker, 2), expected("queue_age", owner, &["1", "2"]));
        // As old over a crash as before it.
        publish_all(&broker, &["3"]);
        broker.crash();
        assert_eq!(letters(&broker, 3)[2], expected("queue_age", owner, &["3"])[0]);
        comes_back_to(&broker, &connect, &[]);
    }
}

#[test]
fn a_message_that_has_expired_is_dropped_as_it_would_be_at_its_delivery() {
    let broker = Broker::start(&format!("{ADMIN}[limits]\nqueued_age = \"2s\""));
    away(&broker, "away", "t");
    let mut publisher = broker.connect(&Connect::v5("publisher"));
    let expires = Publish::new("t", "expires").property(0x02, &1_u32.to_be_bytes());
    publisher.ask(&expires.qos(1, 1).v5(), &ack(0x40, 1));
    publisher.ask(&Publish::new("t", "stays").qos(1, 2).v5(), &ack(0x40, 2));
    assert_eq!(letters(&broker, 1), expected("queue_age", "away", &["stays"]));
    wait_until_queued(&broker, 0);
}

#[test]
fn a_refusal_is_a_refusal_on_every_leg() {
    let limits = "[limits]\nqueued_messages = 1\noverflow = \"refuse\"";
    for filter in ["t", "$share/g/t"] {
        let broker = Broker::start(&format!("{ADMIN}{limits}"));
        let connect = away(&broker, "away", filter);
        let other = away(&broker, "other", "t/+");
        let mut live = broker.connect(&Connect::v5("live"));
        live.ask(&subscribe(1, &[("t", 2)]), &suback(0x90, 1, &[2]));
        let mut publisher = broker.connect(&Connect::v5("publisher"));
        publisher.ask(&Publish::new("t", "1").qos(1, 1).retain().v5(), &ack(0x40, 1));
        publisher.ask(&Publish::new("t", "2").qos(1, 2).retain().v5(), &ack_with(0x40, 2, 0x97));
        publisher.ask(&Publish::new("t", "3").qos(2, 3).v5(), &ack_with(0x50, 3, 0x97));
        // The identifier is free again, and others have room.
        publisher.ask(&Publish::new("t/x", "4").qos(2, 3).v5(), &ack(0x50, 3));
        publisher.ask(&ack(0x62, 3), &ack(0x70, 3));
        // What nobody has to keep is for those who are there.
        publisher.send(&Publish::new("t", "0").v5());
        let mut old = broker.connect(&Connect::v311("old"));
        old.send(&Publish::new("t", "5").qos(1, 1).v311());
        old.expect_closed();
        assert_eq!(live.take_qos_1().payload, b"1");
        assert_eq!(live.message().payload, b"0");
        live.expect_nothing();
        let mut late = broker.connect(&Connect::v5("late"));
        late.ask(&subscribe(1, &[("t", 0)]), &suback(0x90, 1, &[0]));
        assert_eq!(late.message().payload, b"1", "the retained message is the one that was taken");
        comes_back_to(&broker, &connect, &["1"]);
        comes_back_to(&broker, &other, &["4"]);
        assert_eq!(letters(&broker, 0), []);
        // There is room again, once what was acknowledged is settled.
        let taken = |id| {
            publisher.send(&Publish::new("t", "6").qos(1, id).v5());
            publisher.receive() == ack(0x40, id)
        };
        assert!((4..u16::MAX).any(taken));
    }
}

#[test]
fn without_room_for_dead_letters_the_publisher_is_refused() {
    for policy in ["drop_newest", "drop_oldest"] {
        let limits = format!("queued_messages = 1\ndead_letters = 1\noverflow = \"{policy}\"");
        let broker = Broker::start(&format!("{ADMIN}[limits]\n{limits}"));
        let connect = away(&broker, "away", "t");
        publish_all(&broker, &["1", "2"]);
        let (dropped, kept) = if policy == "drop_newest" { ("2", "1") } else { ("1", "2") };
        assert_eq!(letters(&broker, 1), expected("queue_full", "away", &[dropped]));
        let mut publisher = broker.connect(&Connect::v5("publisher"));
        publisher.ask(&Publish::new("t", "3").qos(1, 3).v5(), &ack_with(0x40, 3, 0x97));
        comes_back_to(&broker, &connect, &[kept]);
    }
}

#[test]
fn what_a_client_has_in_hand_goes_on() {
    let limits = "[limits]\nqueued_messages = 8\noverflow = \"drop_oldest\"";
    let broker = Broker::start(&format!("{ADMIN}{limits}"));
    for qos in [1, 2] {
        let connect = Connect::v5(&format!("slow-{qos}")).durable().property(0x21, &2_u16.to_be_bytes());
        let mut slow = broker.connect(&connect);
        slow.ask(&subscribe(1, &[("t", qos)]), &suback(0x90, 1, &[qos]));
        let mut publisher = broker.connect(&Connect::v5("publisher"));
        let all: BTreeSet<String> = (1..=40).map(|n| n.to_string()).collect();
        for n in 1..=40 {
            publisher.ask(&Publish::new("t", n.to_string()).qos(2, n).v5(), &ack(0x50, n));
            publisher.ask(&ack(0x62, n), &ack(0x70, n));
        }
        letters(&broker, 1);
        let got = drain(&mut slow, |got| got.last().is_some_and(|last| last == "40"));
        assert_eq!(got.first().map(String::as_str), Some("1"), "it was in the client's hands");
        assert_eq!(got.last().map(String::as_str), Some("40"), "the newest stays");
        let in_order: Vec<u32> = got.iter().map(|payload| payload.parse().unwrap()).collect();
        assert!(in_order.is_sorted(), "{in_order:?}");
        let dropped = letters(&broker, all.len() - got.len()).into_iter();
        let dropped: BTreeSet<String> = dropped.map(|(_, _, payload)| payload).collect();
        assert!(!dropped.is_empty());
        assert!(got.iter().all(|payload| !dropped.contains(payload)), "given up and delivered");
        assert_eq!(got.into_iter().chain(dropped).collect::<BTreeSet<_>>(), all);
        slow.ask(&[&[0xA2, 6, 0, 9, 0][..], &[0, 1, b't']].concat(), &[0xB0, 4, 0, 9, 0, 0]);
        slow.leave();
        broker.ask(&["dead-letters", "discard", "--all"]);
    }
}

/// Takes messages and acknowledges each, until these are all. Gives their payloads in the order of arrival.
fn drain(client: &mut Client, are_all: impl Fn(&[String]) -> bool) -> Vec<String> {
    let (mut payloads, mut open) = (Vec::new(), 0);
    while !are_all(&payloads) || open > 0 {
        let packet = client.receive();
        if packet[0] >> 4 == 3 {
            let message = client.parse(&packet);
            client.send(&ack(if message.qos == 2 { 0x50 } else { 0x40 }, message.id));
            payloads.push(String::from_utf8(message.payload).unwrap());
            open += u32::from(message.qos == 2);
        } else {
            open -= 1;
            client.send(&ack(0x70, u16::from_be_bytes([packet[2], packet[3]])));
        }
    }
    client.expect_nothing();
    payloads
}

/// Takes messages until the one that says `last`, and is cut off now and then.
fn read_all(broker: &Broker, connect: &Connect) -> Vec<String> {
    let (mut got, mut client, mut dice) = (Vec::new(), broker.resume(connect), Dice::new(7));
    while got.last().is_none_or(|last| last != "last") {
        if dice.one_in(150) {
            client.cut();
            client = broker.resume(connect);
        }
        let message = client.message();
        client.send(&ack(0x40, message.id));
        let payload = String::from_utf8(message.payload).unwrap();
        if !message.dup || !got.contains(&payload) {
            got.push(payload);
        }
    }
    got
}

#[test]
fn a_client_that_reads_while_its_queue_overflows_misses_what_is_a_dead_letter_and_nothing_else() {
    let limits = "[limits]\nqueued_messages = 40\noverflow = \"drop_oldest\"";
    let broker = Broker::start(&format!("{ADMIN}{limits}"));
    for (filter, count) in [("t", 3000), ("$share/g/t", 3000)] {
        let connect = Connect::v5("away").durable().property(0x21, &10_u16.to_be_bytes());
        let mut client = broker.connect(&connect);
        client.ask(&subscribe(1, &[(filter, 1)]), &suback(0x90, 1, &[1]));
        client.leave();
        let got = std::thread::scope(|scope| {
            let reading = scope.spawn(|| read_all(&broker, &connect));
            let mut publisher = broker.connect(&Connect::v5("publisher"));
            for id in 1..=count {
                publisher.send(&Publish::new("t", id.to_string()).qos(1, id).v5());
                if id % 100 == 0 {
                    (id - 99..=id).for_each(|id| publisher.expect(&ack(0x40, id)));
                }
            }
            publisher.ask(&Publish::new("t", "last").qos(1, count + 1).v5(), &ack(0x40, count + 1));
            reading.join().unwrap()
        });
        let all: BTreeSet<_> = (1..=count).map(|id| id.to_string()).chain(["last".to_owned()]).collect();
        let dropped: Vec<_> = all_letters(&broker).into_iter().map(|(_, _, payload)| payload).collect();
        let both: BTreeSet<_> = got.iter().chain(&dropped).cloned().collect();
        let twice: Vec<_> = dropped.iter().filter(|payload| got.contains(payload)).collect();
        assert!(twice.is_empty(), "{filter}: delivered and given up: {twice:?}");
        assert_eq!(both.len(), got.len() + dropped.len(), "{filter}: delivered or given up twice");
        assert_eq!(both, all, "{filter}");
        assert!(dropped.len() > 100, "{filter}: {} dropped", dropped.len());
        let order: Vec<u32> = got.iter().filter_map(|payload| payload.parse().ok()).collect();
        assert!(filter != "t" || order.is_sorted(), "{order:?}");
        broker.ask(&["dead-letters", "discard", "--all"]);
        broker.ask(&["sessions", "delete", "away"]);
    }
}

/// An HTTP target whose answers a test gives, one connection for each request.
struct Target(TcpListener);

impl Target {
    fn new() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    /// A broker with one route to it, for `t`.
    fn broker(&self, route: &str) -> Broker {
        let url = format!("http://{}/", self.0.local_addr().unwrap());
        Broker::start(&format!(
            "{ADMIN}[targets.shore]\nurl = \"{url}\"\ntimeout = \"1h\"\nconcurrency = 1\n\
             [[routes]]\nname = \"r\"\ntopics = [\"t\"]\ntarget = \"shore\"\n{route}"
        ))
    }

    /// The body of the next request, and where to answer it.
    fn take(&self) -> (String, TcpStream) {
        let (stream, _) = self.0.accept().unwrap();
        let mut reader = BufReader::new(&stream);
        let (mut length, mut line) = (0, String::new());
        while reader.read_line(&mut line).unwrap() > 2 {
            let value = line.to_ascii_lowercase();
            length = value.strip_prefix("content-length:").map_or(length, |n| n.trim().parse().unwrap());
            line.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        drop(reader);
        (String::from_utf8(body).unwrap(), stream)
    }

    fn expect(&self, bodies: &[&str]) {
        for body in bodies {
            let (taken, stream) = self.take();
            assert_eq!(&taken, body);
            complete(stream);
        }
    }
}

fn complete(mut stream: TcpStream) {
    stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").unwrap();
}

#[test]
fn a_route_drops_its_newest_or_its_oldest() {
    for (policy, dropped, kept) in [
        ("overflow = \"drop_newest\"", ["4", "5", "6"], ["2", "3"]),
        ("overflow = \"drop_oldest\"", ["2", "3", "4"], ["5", "6"]),
    ] {
        let target = Target::new();
        let broker = target.broker(&format!("queued_messages = 3\n{policy}"));
        publish_all(&broker, &["1"]);
        let (first, stream) = target.take();
        assert_eq!(first, "1");
        publish_all(&broker, &["2", "3", "4", "5", "6"]);
        assert_eq!(letters(&broker, 3), expected("queue_full", "r", &dropped), "{policy}");
        complete(stream);
        target.expect(&kept);
        assert_eq!(letters(&broker, 3).len(), 3);
    }
}

#[test]
fn a_route_that_is_full_by_bytes_drops_its_oldest() {
    let target = Target::new();
    let broker = target
        .broker("queued_bytes = \"4 KiB\"\noverflow = \"drop_oldest\"\n[limits]\npacket_size = \"4 KiB\"");
    let payloads = ["1", "2", "3", "4", "5"].map(|name| name.repeat(1100));
    let [one, two, three, four, five] = payloads.each_ref().map(String::as_str);
    publish_all(&broker, &[one]);
    let (_, stream) = target.take();
    publish_all(&broker, &[two, three, four, five]);
    assert_eq!(letters(&broker, 2), expected("queue_bytes_full", "r", &[two, three]));
    complete(stream);
    target.expect(&[four, five]);
}

#[test]
fn a_route_refuses_while_sessions_have_room() {
    let target = Target::new();
    let broker = target.broker("queued_messages = 1\noverflow = \"refuse\"");
    let connect = away(&broker, "away", "t");
    publish_all(&broker, &["1"]);
    let (_, stream) = target.take();
    let mut publisher = broker.connect(&Connect::v5("publisher"));
    publisher.ask(&Publish::new("t", "2").qos(1, 2).v5(), &ack_with(0x40, 2, 0x97));
    complete(stream);
    comes_back_to(&broker, &connect, &["1"]);
    assert_eq!(letters(&broker, 0), []);
}

#[test]
fn what_is_too_old_for_a_route_is_given_up_while_another_is_being_tried() {
    let target = Target::new();
    let broker = target.broker("queued_age = \"1s\"");
    publish_all(&broker, &["1"]);
    let (_, stream) = target.take();
    publish_all(&broker, &["2", "3"]);
    assert_eq!(letters(&broker, 2), expected("queue_age", "r", &["2", "3"]));
    complete(stream);
    publish_all(&broker, &["4"]);
    target.expect(&["4"]);
}

/// A message that is being tried is neither given up nor counted twice, and what has been taken is not in the way.
#[test]
fn what_a_route_does_not_deliver_while_it_overflows_is_a_dead_letter() {
    let target = Target::new();
    let broker = target.broker("queued_messages = 20\noverflow = \"drop_oldest\"");
    let count = 600;
    let taken = std::thread::scope(|scope| {
        let taking = scope.spawn(|| {
            let mut taken = Vec::new();
            while taken.last().is_none_or(|last| last != "last") {
                let (body, stream) = target.take();
                complete(stream);
                taken.push(body);
            }
            taken
        });
        let mut publisher = broker.connect(&Connect::v5("publisher"));
        for id in 1..=count {
            publisher.send(&Publish::new("t", id.to_string()).qos(1, id).v5());
            if id % 50 == 0 {
                (id - 49..=id).for_each(|id| publisher.expect(&ack(0x40, id)));
            }
        }
        publisher.ask(&Publish::new("t", "last").qos(1, count + 1).v5(), &ack(0x40, count + 1));
        taking.join().unwrap()
    });
    let all: BTreeSet<_> = (1..=count).map(|id| id.to_string()).chain(["last".to_owned()]).collect();
    let dropped = letters(&broker, all.len() - taken.len()).into_iter().map(|(_, _, payload)| payload);
    let dropped: Vec<_> = dropped.collect();
    assert!(!dropped.is_empty());
    let both: BTreeSet<_> = taken.iter().chain(&dropped).cloned().collect();
    assert_eq!(both.len(), taken.len() + dropped.len(), "delivered and given up: {taken:?} {dropped:?}");
    assert_eq!(both, all);
}

#[test]
fn a_replay_meets_the_same_limits() {
    for policy in ["drop_newest", "drop_oldest", "refuse"] {
        let limits = "[limits]\nqueued_messages = 2\noverflow =";
        let mut broker = Broker::start(&format!("{ADMIN}{limits} \"drop_newest\""));
        let connect = away(&broker, "away", "t");
        publish_all(&broker, &["1", "2", "3"]);
        broker.restart_with(&format!("{ADMIN}{limits} \"{policy}\""));
        let [letter] = letters(&broker, 1).try_into().unwrap();
        assert_eq!(letter.2, "3");
        let replayed = broker.ask(&["dead-letters", "replay", "--all"]);
        assert_eq!(letters(&broker, 1).len(), 1, "{replayed}");
        comes_back_to(&broker, &connect, &["1", "2"]);
        wait_until_queued(&broker, 0);
        broker.ask(&["dead-letters", "replay", "--all"]);
        comes_back_to(&broker, &connect, &["3"]);
    }
}

#[test]
fn what_was_acknowledged_is_in_the_queue_or_a_dead_letter_over_crashes() {
    for policy in ["drop_newest", "drop_oldest"] {
        let limits = format!("queued_messages = 50\noverflow = \"{policy}\"");
        let mut broker = Broker::start(&format!("{ADMIN}[limits]\n{limits}"));
        let connect = away(&broker, "away", "t");
        let mut acknowledged = BTreeSet::new();
        for round in 0..6_u16 {
            let mut publisher = broker.connect(&Connect::v5("publisher"));
            let name = |id: u16| format!("{round}-{id}");
            for id in 1..=100 {
                publisher.send(&Publish::new("t", name(id)).qos(1, id).v5());
            }
            for id in 1..=20 * round {
                publisher.expect(&ack(0x40, id));
                acknowledged.insert(name(id));
            }
            broker.crash();
        }
        let publisher = &mut broker.connect(&Connect::v5("publisher"));
        publisher.ask(&Publish::new("t", "last").qos(1, 1).v5(), &ack(0x40, 1));
        // Whatever is too much has gone by the time that the queue has its length.
        if policy == "drop_oldest" {
            wait_until_queued(&broker, 50);
            // It is counted when it is applied, and seen when that is committed: with this or before it.
            publisher.ask(&Publish::new("r", "x").qos(1, 2).retain().v5(), &ack_with(0x40, 2, 0x10));
        }
        let dropped = letters(&broker, 0).into_iter().map(|(_, _, payload)| payload).collect::<Vec<_>>();
        let queued = broker.ask(&["sessions", "show", "away"])["queued_messages"].as_u64().unwrap();
        assert!(queued >= 50, "{queued}");
        let kept = drain(&mut broker.resume(&connect), |got| got.len() as u64 == queued);
        let both = dropped.iter().chain(&kept).cloned().collect::<BTreeSet<_>>();
        assert_eq!(both.len(), dropped.len() + kept.len(), "a message is in two places");
        let lost: Vec<_> = acknowledged.difference(&both).collect();
        assert!(lost.is_empty(), "{policy}: {lost:?}; kept {kept:?}; dropped {dropped:?}");
        assert!(both.contains("last"));
    }
}

#[test]
fn the_log_says_once_that_dead_letters_are_lost() {
    let route = "[targets.t]\nurl = \"http://127.0.0.1:1/\"\n[[routes]]\nname = \"r\"\ntopics = [\"t\"]\n\
                 target = \"t\"\nfilter = \"payload.x == 1\"\n";
    let broker =
        Broker::start(&format!("{ADMIN}[log]\nlevel = \"warn\"\n[limits]\ndead_letters = 2\n{route}"));
    // The filter has no answer for any of them.
    publish_all(&broker, &["1", "2"]);
    letters(&broker, 2);
    publish_all(&broker, &["3", "4", "5"]);
    let patience = Instant::now() + Duration::from_secs(20);
    while broker.ask(&["routes", "show", "r"])["dead_letters"] != 5 {
        assert!(Instant::now() < patience, "not all were given up");
    }
    let log = broker.log();
    assert_eq!(log.matches("messages that targets reject are lost, and counted").count(), 1, "{log}");
    assert_eq!(log.matches("nine tenths of the limits of dead letters").count(), 1, "{log}");
}

#[test]
fn the_log_says_once_that_a_queue_is_full() {
    let broker = Broker::start(&format!("{ADMIN}[log]\nlevel = \"warn\"\n[limits]\nqueued_messages = 1"));
    away(&broker, "away", "t");
    publish_all(&broker, &["1", "2", "3", "4"]);
    let log = broker.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("a queue is full")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains("away") && lines[0].contains("drop_newest"), "{log}");
}
