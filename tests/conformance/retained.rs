//! Retained messages.

use crate::harness::{
    Broker, Client, Connect, Publish, Received, Version, ack, ack_with, broker, disconnect, suback,
    subscribe, unique,
};

/// Two users with the password "secret", as mosquitto_passwd writes them: cheap to check.
const USERS: &str = "\
    ada:$7$101$pPIMOVFwvdZM0qFd$x3sfA3kpgknHKDDa9QALxr7W/vaVBArNmxhtgGFR10o0bxSj0KWeW66YZNMK/ePvz/jo2LP/kUB0bGb8fSJqug==\n\
    bob:$7$101$O2v80Oy1STeSh2K1$PgcWp0p1hKWfrzZTSencenNzdJyuhx0TQTtFlME0WxndHWZZl40nktanxmsyn2Eb6V20sBpZC6BHBX0PdsfJ2g==\n";

fn client() -> Client {
    broker().connect(&Connect::v5(&unique("retained")))
}

fn keep(topic: &str, payload: &str, qos: u8) {
    let mut sender = client();
    sender.send(&Publish::new(topic, payload).qos(qos, u16::from(qos > 0)).retain().v5());
    match qos {
        0 => sender.expect_nothing(),
        1 => sender.expect(&ack_with(0x40, 1, 0x10)),
        _ => sender.expect(&ack_with(0x50, 1, 0x10)),
    }
}

#[test]
fn a_new_subscription_gets_the_last_of_each_topic() {
    proves!(
        "5.0 MQTT-3.3.1-5",
        "3.1.1 MQTT-3.3.1-5",
        "3.1.1 MQTT-3.3.1-6",
        "3.1.1 MQTT-3.3.1-8",
        "3.1.1 MQTT-3.3.1-7",
        "3.1.1 MQTT-3.1.2-7"
    );
    let base = unique("kept");
    let topics: Vec<_> = (0..3).map(|n| format!("{base}/{n}")).collect();
    for (topic, qos) in topics.iter().zip(0..) {
        // Whatever the QoS of the one before.
        keep(topic, "old", 2 - qos);
        keep(topic, "last", qos);
    }
    let filter = format!("{base}/#");
    for version in Version::BOTH {
        let mut new = broker().connect(&Connect::new(version, &unique("new")));
        new.subscribe(&filter, 2);
        for (topic, qos) in topics.iter().zip(0..) {
            let message = new.message();
            assert_eq!((&message.topic, message.payload), (topic, b"last".to_vec()));
            assert_eq!((message.retain, message.qos), (true, qos));
        }
        new.expect_nothing();
    }
}

#[test]
fn an_empty_payload_removes_and_is_delivered() {
    proves!(
        "5.0 MQTT-3.3.1-6",
        "5.0 MQTT-3.3.1-7",
        "5.0 MQTT-3.3.1-8",
        "3.1.1 MQTT-3.3.1-10",
        "3.1.1 MQTT-3.3.1-11",
        "3.1.1 MQTT-3.3.1-12"
    );
    for version in Version::BOTH {
        let topic = unique("removed");
        keep(&topic, "x", 1);
        let connect = || broker().connect(&Connect::new(version, &unique("removed")));
        let mut there = connect();
        there.subscribe(&topic, 0);
        there.expect_publish(&Publish::new(&topic, "x").retain());
        let mut sender = connect();
        // Without RETAIN nothing is changed.
        for payload in ["", "y"] {
            sender.publish(&Publish::new(&topic, payload));
            there.expect_publish(&Publish::new(&topic, payload));
            let mut new = connect();
            new.subscribe(&topic, 0);
            new.expect_publish(&Publish::new(&topic, "x").retain());
        }
        sender.ask(&Publish::new(&topic, "").qos(1, 1).retain().bytes(version), &ack(0x40, 1));
        there.expect_publish(&Publish::new(&topic, ""));
        sender.ask(&Publish::new(&topic, "y").qos(1, 1).bytes(version), &ack(0x40, 1));
        let mut new = connect();
        new.subscribe(&topic, 0);
        new.expect_nothing();
    }
}

#[test]
fn retain_as_published() {
    proves!("5.0 MQTT-3.3.1-12", "5.0 MQTT-3.3.1-13", "3.1.1 MQTT-3.3.1-9");
    let topic = unique("as-published");
    let mut old = broker().connect(&Connect::v311(&unique("old")));
    old.subscribe(&topic, 0);
    let [mut plain, mut as_published] = [client(), client()];
    plain.ask(&subscribe(1, &[(&topic, 0)]), &suback(0x90, 1, &[0]));
    as_published.ask(&subscribe(1, &[(&topic, 8)]), &suback(0x90, 1, &[0]));
    let mut members = [("plain", 0), ("as-published", 8)].map(|(group, options)| {
        let mut member = client();
        member.subscribe(&format!("$share/{group}/{topic}"), options);
        member
    });
    let mut sender = client();
    sender.send(&Publish::new(&topic, "x").retain().v5());
    sender.send(&Publish::new(&topic, "y").v5());
    plain.expect(&Publish::new(&topic, "x").v5());
    plain.expect(&Publish::new(&topic, "y").v5());
    as_published.expect(&Publish::new(&topic, "x").retain().v5());
    as_published.expect(&Publish::new(&topic, "y").v5());
    old.expect_publish(&Publish::new(&topic, "x"));
    old.expect_publish(&Publish::new(&topic, "y"));
    members[0].expect_publish(&Publish::new(&topic, "x"));
    members[1].expect_publish(&Publish::new(&topic, "x").retain());
    for member in &mut members {
        member.expect_publish(&Publish::new(&topic, "y"));
    }
}

#[test]
fn retain_handling_0_1_2() {
    proves!("5.0 MQTT-3.3.1-9", "5.0 MQTT-3.3.1-10", "5.0 MQTT-3.3.1-11");
    let topic = unique("handling");
    keep(&topic, "x", 0);
    let kept = Publish::new(&topic, "x").retain().v5();
    for (handling, times) in [(0, [true, true]), (0x10, [true, false]), (0x20, [false, false])] {
        let mut client = client();
        for (id, sent) in times.into_iter().enumerate() {
            client.ask(&subscribe(id as u16 + 1, &[(&topic, handling)]), &suback(0x90, id as u16 + 1, &[0]));
            if sent {
                client.expect(&kept);
            }
            client.expect_nothing();
        }
    }
}

#[test]
fn properties_and_expiry_are_kept() {
    let topic = unique("expires");
    let publish = Publish::new(&topic, "x").retain().property(0x03, &[0, 1, b't']);
    let mut sender = client();
    sender.send(&publish.clone().property(0x02, &[0, 0, 0, 50]).v5());
    sender.expect_nothing();
    let mut new = client();
    new.ask(&subscribe(1, &[(&topic, 0)]), &suback(0x90, 1, &[0]));
    let mut properties = new.message().properties;
    properties.sort();
    assert!(properties.contains(&3) && properties.contains(&2), "{properties:?}");
}

/// What a new subscription to `filter` is given.
fn kept(client: &mut Client, filter: &str) -> Vec<String> {
    client.ask(&subscribe(1, &[(filter, 0)]), &suback(0x90, 1, &[0]));
    let mut payloads = Vec::new();
    // Retained messages follow SUBACK at once; what follows them is the answer to the second ping.
    for _ in 0..2 {
        client.send(&[0xC0, 0]);
        loop {
            let packet = client.receive();
            if packet == [0xD0, 0] {
                break;
            }
            payloads.push(String::from_utf8(client.parse(&packet).payload).unwrap());
        }
    }
    payloads.sort();
    payloads
}

#[test]
fn retained_replace_delete_crash() {
    let mut broker = Broker::start("");
    for (qos, first) in [(1, 0x40), (2, 0x50)] {
        for (step, payload) in (1..).zip(["put", "replaced", "", "again", ""]) {
            let mut sender = broker.connect(&Connect::v5("sender").durable());
            sender
                .ask(&Publish::new("t", payload).qos(qos, step).retain().v5(), &ack_with(first, step, 0x10));
            broker.crash();
            let expected = if payload.is_empty() { vec![] } else { vec![payload] };
            assert_eq!(kept(&mut broker.connect(&Connect::v5("new")), "#"), expected, "QoS {qos}");
            let sender = broker.resume(&Connect::v5("sender").durable());
            sender.leave_with(&disconnect(0, &[0x11, 0, 0, 0, 0]));
        }
    }
}

#[test]
fn retained_qos0_policy() {
    // QoS 0 is kept as any other, replaces and removes as any other, and is on disk with the next commit.
    let mut broker = Broker::start("");
    let mut sender = broker.connect(&Connect::v5("sender"));
    for (id, topic) in (1..).zip(["replaced", "removed"]) {
        sender.ask(&Publish::new(topic, "QoS 1").qos(1, id).retain().v5(), &ack_with(0x40, id, 0x10));
    }
    sender.send(&Publish::new("replaced", "QoS 0").retain().v5());
    sender.send(&Publish::new("removed", "").retain().v5());
    sender.send(&Publish::new("new", "new").retain().v5());
    sender.ask(&Publish::new("last", "last").qos(1, 3).retain().v5(), &ack_with(0x40, 3, 0x10));
    let expected = ["QoS 0", "last", "new"];
    assert_eq!(kept(&mut broker.connect(&Connect::v5("new")), "#"), expected);
    broker.crash();
    assert_eq!(kept(&mut broker.connect(&Connect::v5("new")), "#"), expected);
}

#[test]
fn retained_expired() {
    let broker = Broker::start("[sys]\ninterval = \"1s\"");
    let mut watcher = broker.connect(&Connect::v5("watcher"));
    let count = "$SYS/broker/retained messages/count";
    let mut sender = broker.connect(&Connect::v5("sender"));
    let expiring = Publish::new("t", "x").retain().property(0x02, &[0, 0, 0, 2]);
    sender.ask(&expiring.qos(1, 1).v5(), &ack_with(0x40, 1, 0x10));
    assert_eq!(kept(&mut broker.connect(&Connect::v5("new")), "t"), ["x"]);
    watcher.ask(&subscribe(1, &[(count, 0)]), &suback(0x90, 1, &[0]));
    while watcher.message().payload != b"1" {}
    // Each uptime is a second later.
    watcher.ask(&subscribe(2, &[("$SYS/broker/uptime", 0)]), &suback(0x90, 2, &[0]));
    (0..4).for_each(|_| drop(watcher.message()));
    assert_eq!(kept(&mut broker.connect(&Connect::v5("new")), "t"), [""; 0]);
    let removed = |message: Received| message.topic == count && message.payload == b"0";
    while !removed(watcher.message()) {}
}

#[test]
fn retained_author_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let (passwords, acl) = (folder.path().join("passwords"), folder.path().join("acl"));
    std::fs::write(&passwords, USERS).unwrap();
    let auth = format!("[auth]\nanonymous = true\npassword_file = {passwords:?}\nacl_file = {acl:?}\n");
    let reader = "topic read #\npattern write of/%c\n";
    for (check, expected) in [(true, &["bob"][..]), (false, &["ada", "bob", "device"])] {
        std::fs::write(&acl, format!("{reader}user ada\ntopic write by/+\nuser bob\ntopic write by/+\n"))
            .unwrap();
        let mut broker = Broker::start(&format!("{auth}[retain]\ncheck_source = {check}"));
        for user in ["ada", "bob"] {
            let mut sender = broker.connect(&Connect::v5("sender").user(user, Some("secret")));
            let publish = Publish::new(&format!("by/{user}"), user).qos(1, 1).retain().v5();
            sender.ask(&publish, &ack_with(0x40, 1, 0x10));
        }
        let mut device = broker.connect(&Connect::v5("device"));
        device.ask(&Publish::new("of/device", "device").qos(1, 1).retain().v5(), &ack_with(0x40, 1, 0x10));
        let mut new = broker.connect(&Connect::v5("new"));
        assert_eq!(kept(&mut new, "#"), ["ada", "bob", "device"]);
        // Whose it is is known after a crash, too.
        std::fs::write(&acl, "topic read #\nuser bob\ntopic write by/+\n").unwrap();
        broker.crash();
        assert_eq!(kept(&mut broker.connect(&Connect::v5("new")), "#"), expected);
    }
}

/// How many retained messages a test makes: a few, or what the environment says.
fn many() -> usize {
    std::env::var("CAUSEWAY_RETAINED").map_or(3_000, |many| many.parse().unwrap())
}

#[test]
fn retained_hash_subscribe() {
    let broker = Broker::start("");
    let mut sender = broker.connect(&Connect::v5("sender"));
    let topics: Vec<_> = (0..many()).map(|n| format!("many/{}/{n}", n % 100)).collect();
    for batch in topics.chunks(500) {
        let publishes = batch.iter().flat_map(|topic| Publish::new(topic, "x").retain().v5());
        sender.send(&publishes.collect::<Vec<_>>());
        sender.expect_nothing();
    }
    let mut new = broker.connect(&Connect::v5("new"));
    new.ask(&subscribe(1, &[("#", 0)]), &suback(0x90, 1, &[0]));
    // Meanwhile others are served.
    let mut other = broker.connect(&Connect::v5("other"));
    other.ask(&subscribe(1, &[("$other", 0)]), &suback(0x90, 1, &[0]));
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..topics.len() {
        assert!(seen.insert(new.message().topic), "once each");
        if n % 100 == 0 {
            other.expect_nothing();
        }
    }
    new.expect_nothing();
    assert_eq!(seen, topics.into_iter().collect());
}

#[test]
fn retained_messages_obey_the_window() {
    const KEPT: u16 = 300;
    let base = unique("window");
    let mut sender = client();
    for n in 1..=KEPT {
        let publish = Publish::new(&format!("{base}/{n}"), "x").qos(1, n).retain().v5();
        sender.ask(&publish, &ack_with(0x40, n, 0x10));
    }
    for connect in [Connect::v5(&unique("window")), Connect::v5(&unique("window")).durable()] {
        let mut new = broker().connect(&connect.property(0x21, &[0, 7]));
        let filter = format!("{base}/#");
        new.ask(&subscribe(1, &[(&filter, 1)]), &suback(0x90, 1, &[1]));
        let mut topics: Vec<_> = (0..7).map(|_| new.message()).collect();
        new.expect_nothing();
        topics.iter().for_each(|message| new.send(&ack(0x40, message.id)));
        topics.extend((7..KEPT).map(|_| new.take_qos_1()));
        let mut topics: Vec<_> = topics.into_iter().map(|message| message.topic).collect();
        topics.sort();
        topics.dedup();
        assert_eq!(topics.len(), usize::from(KEPT));
        new.expect_nothing();
    }
}
