//! `$SYS`, under the names that mosquitto uses.

use std::collections::BTreeMap;

use crate::harness::{Broker, Client, Connect, Publish, ack_with, suback, subscribe};

const EVERY_SECOND: &str = "[sys]\ninterval = \"1s\"";

/// Reads until each of `names` has been told, and gives what was told last of everything.
fn told(client: &mut Client, names: &[&str]) -> BTreeMap<String, String> {
    let mut told = BTreeMap::new();
    while !names.iter().all(|name| told.contains_key(*name)) {
        let message = client.message();
        let name = message.topic.strip_prefix("$SYS/broker/").unwrap().to_owned();
        assert_eq!(message.qos, 0, "{name}");
        told.insert(name, String::from_utf8(message.payload).unwrap());
    }
    told
}

#[test]
fn the_names_are_those_of_mosquitto() {
    let broker = Broker::start(EVERY_SECOND);
    let mut client = broker.connect(&Connect::v5("watcher"));
    client.ask(&subscribe(1, &[("$SYS/#", 1)]), &suback(0x90, 1, &[1]));
    let names = "version uptime clients/total clients/maximum clients/connected clients/disconnected \
         clients/active clients/inactive clients/expired messages/received messages/sent messages/stored \
         store/messages/count store/messages/bytes subscriptions/count shared_subscriptions/count \
         publish/messages/received publish/messages/sent publish/messages/dropped publish/bytes/received \
         publish/bytes/sent bytes/received bytes/sent heap/current load/messages/received/1min \
         load/messages/sent/5min load/publish/received/15min load/publish/sent/1min load/publish/dropped/1min \
         load/bytes/received/1min load/bytes/sent/5min load/sockets/1min load/connections/15min";
    let names: Vec<_> = names.split_whitespace().chain(["retained messages/count"]).collect();
    let told = told(&mut client, &names);
    assert!(told["version"].starts_with("causeway version "), "{told:?}");
    assert!(told["uptime"].ends_with(" seconds"), "{told:?}");
    assert_eq!((&*told["store/messages/count"], &*told["retained messages/count"]), ("0", "0"));
}

#[test]
fn it_tells_what_happens() {
    let broker = Broker::start(EVERY_SECOND);
    let mut client = broker.connect(&Connect::v5("watcher"));
    client.ask(&subscribe(1, &[("$SYS/#", 0)]), &suback(0x90, 1, &[0]));
    let mut away = broker.connect(&Connect::v5("away").durable());
    away.ask(&subscribe(1, &[("t", 1), ("$share/g/x", 0)]), &suback(0x90, 1, &[1, 0]));
    away.leave();
    let mut sender = broker.connect(&Connect::v5("sender"));
    for id in 1..=3 {
        sender.ask(&Publish::new("t", "12345").qos(1, id).v5(), &crate::harness::ack(0x40, id));
    }
    sender.ask(&Publish::new("kept", "x").qos(1, 4).retain().v5(), &ack_with(0x40, 4, 0x10));
    let wanted = [
        ("clients/total", "3"),
        ("clients/connected", "2"),
        ("clients/disconnected", "1"),
        ("store/messages/count", "3"),
        ("messages/stored", "3"),
        ("retained messages/count", "1"),
        ("subscriptions/count", "3"),
        ("shared_subscriptions/count", "1"),
        ("publish/messages/received", "4"),
        ("publish/bytes/received", "16"),
        // Three CONNECTs, two SUBSCRIBEs, a DISCONNECT and four PUBLISHes.
        ("messages/received", "10"),
    ];
    let mut now = BTreeMap::new();
    while !wanted.iter().all(|(name, value)| now.get(*name).is_some_and(|known| known == value)) {
        now.append(&mut told(&mut client, &["uptime"]));
    }
    assert_ne!(now["load/publish/received/1min"], "0.00");
}

#[test]
fn nothing_of_it_waits_for_who_is_away() {
    let broker = Broker::start(EVERY_SECOND);
    let mut watcher = broker.connect(&Connect::v5("watcher"));
    watcher.ask(&subscribe(1, &[("$SYS/broker/uptime", 0)]), &suback(0x90, 1, &[0]));
    let connect = Connect::v5("away").durable();
    let mut away = broker.connect(&connect);
    away.send(&subscribe(1, &[("$SYS/broker/uptime", 1)]));
    // The SUBACK waits for the disk, and what is told meanwhile does not.
    away.defer_until(&suback(0x90, 1, &[1]));
    away.leave();
    // Two that are told while it is away.
    let told: Vec<_> = (0..3).map(|_| watcher.message().payload).collect();
    let back = broker.resume(&connect).message().payload;
    assert!(!told.contains(&back), "{told:?} {back:?}");
}

#[test]
fn an_acl_has_to_name_it() {
    let folder = tempfile::tempdir().unwrap();
    let acl = folder.path().join("acl");
    std::fs::write(&acl, "topic readwrite #\npattern read $SYS/broker/uptime\n").unwrap();
    let broker = Broker::start(&format!("{EVERY_SECOND}\n[auth]\nacl_file = {acl:?}"));
    let mut client = broker.connect(&Connect::v5("watcher"));
    let filters = [("$SYS/broker/version", 0), ("$SYS/broker/uptime", 0), ("#", 0)];
    client.ask(&subscribe(1, &filters), &suback(0x90, 1, &[0x87, 0, 0]));
    assert_eq!(client.message().topic, "$SYS/broker/uptime");
}

#[test]
fn it_can_be_off() {
    let broker = Broker::start("[sys]\ninterval = \"0s\"");
    let mut client = broker.connect(&Connect::v5("watcher"));
    client.ask(&subscribe(1, &[("$SYS/#", 0)]), &suback(0x90, 1, &[0]));
    client.expect_nothing();
}
