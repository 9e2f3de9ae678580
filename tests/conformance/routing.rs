//! Who gets what: topics that begin with `$`, and what publishers remember of it.

use std::collections::BTreeSet;

use crate::harness::{
    Broker, Client, Connect, Dice, Publish, ack, ack_with, broker, suback, subscribe, unique, unsubscribe,
};

#[test]
fn dollar_topics() {
    proves!("5.0 MQTT-4.7.2-1");
    // The broker publishes below $SYS when it starts, and not again while this runs.
    let broker = Broker::start("[sys]\ninterval = \"1h\"");
    let mut first = broker.connect(&Connect::v5("first"));
    first.ask(&subscribe(1, &[("$SYS/#", 0)]), &suback(0x90, 1, &[0]));
    while first.message().topic != "$SYS/broker/load/connections/15min" {}
    drop(first);
    let mut all = broker.connect(&Connect::v5("all"));
    let wide = [("#", 0), ("+/broker/uptime", 0), ("+/#", 0), ("+/x", 0), ("+", 0)];
    all.ask(&subscribe(1, &wide), &suback(0x90, 1, &[0; 5]));
    let mut named = broker.connect(&Connect::v5("named"));
    named.ask(&subscribe(1, &[("$SYS/broker/version", 1)]), &suback(0x90, 1, &[1]));
    let version = named.message();
    assert_eq!((version.qos, version.retain), (0, true));
    // 0x20 asks for nothing that is retained.
    let own = [("$SYS/#", 0x20), ("$dead/#", 0), ("$share/g/$SYS/#", 0), ("$other", 0)];
    named.ask(&subscribe(2, &own), &suback(0x90, 2, &[0; 4]));
    let mut sender = broker.connect(&Connect::v5("sender"));
    for (id, topic) in (1..).zip(["$SYS/x", "$SYS/broker/version", "$share/g/t", "$dead/x", "$other", "$"]) {
        sender.send(&Publish::new(topic, "mine").retain().v5());
        sender.ask(&Publish::new(topic, "mine").qos(1, id).v5(), &ack(0x40, id));
        sender.ask(&Publish::new(topic, "").qos(2, 100 + id).retain().v5(), &ack(0x50, 100 + id));
        sender.ask(&ack(0x62, 100 + id), &ack(0x70, 100 + id));
    }
    sender.ask(&subscribe(1, &[("$SYS/broker/version", 0)]), &suback(0x90, 1, &[0]));
    sender.expect(&Publish::new("$SYS/broker/version", version.payload).retain().v5());
    named.expect_nothing();
    all.expect_nothing();
}

/// Whether a filter matches a topic, level by level.
fn matches(filter: &str, topic: &str) -> bool {
    let (filter, topic): (Vec<_>, Vec<_>) = (filter.split('/').collect(), topic.split('/').collect());
    for (at, level) in filter.iter().enumerate() {
        match (*level, topic.get(at)) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(name)) if level == *name => {}
            _ => return false,
        }
    }
    filter.len() == topic.len()
}

#[test]
fn route_cache_coherent() {
    let base = unique("cache");
    let level = |dice: &mut Dice| ["a", "b", "c"][dice.roll(3)];
    let topic = |dice: &mut Dice| format!("{base}/{}/{}", level(dice), level(dice));
    let filter = |dice: &mut Dice| {
        let forms = [
            topic(dice),
            format!("{base}/+/{}", level(dice)),
            format!("{base}/{}/#", level(dice)),
            format!("+/{}/+", level(dice)),
            format!("{base}/#"),
        ];
        forms[dice.roll(5)].clone()
    };
    let mut dice = Dice::new(1);
    let mut clients = [0; 3].map(|_| broker().connect(&Connect::v5(&unique("cache"))));
    let mut filters: [BTreeSet<String>; 3] = Default::default();
    // Each remembers the matches of its topics, over all that changes between two messages.
    let mut senders = [0; 2].map(|_| broker().connect(&Connect::v5(&unique("cache"))));
    for step in 0..600_u32 {
        let at = dice.roll(3);
        let filter = filter(&mut dice);
        match dice.roll(4) {
            0 => {
                clients[at].ask(&subscribe(1, &[(&filter, 0)]), &suback(0x90, 1, &[0]));
                filters[at].insert(filter);
            }
            1 => {
                let filter = filters[at].first().cloned().unwrap_or(filter);
                let reason = if filters[at].remove(&filter) { 0 } else { 0x11 };
                clients[at].ask(&unsubscribe(2, &[&filter]), &suback(0xB0, 2, &[reason]));
            }
            _ => {
                let topic = topic(&mut dice);
                let payload = step.to_string();
                let expected = |filters: &BTreeSet<String>| filters.iter().any(|f| matches(f, &topic));
                let answer =
                    if filters.iter().any(expected) { ack(0x40, 1) } else { ack_with(0x40, 1, 0x10) };
                senders[dice.roll(2)].ask(&Publish::new(&topic, &payload).qos(1, 1).v5(), &answer);
                for (client, _) in clients.iter_mut().zip(&filters).filter(|(_, own)| expected(own)) {
                    client.expect(&Publish::new(&topic, &payload).v5());
                }
            }
        }
    }
    clients.iter_mut().for_each(Client::expect_nothing);
}

#[test]
fn subscription_leak() {
    let broker = Broker::start("[sys]\ninterval = \"1s\"");
    let mut watcher = broker.connect(&Connect::v5("watcher"));
    let counts = ["$SYS/broker/subscriptions/count", "$SYS/broker/shared_subscriptions/count"];
    watcher.ask(&subscribe(1, &counts.map(|count| (count, 0))), &suback(0x90, 1, &[0, 0]));
    let cycles: u32 = std::env::var("CAUSEWAY_CYCLES").map_or(200, |cycles| cycles.parse().unwrap());
    for cycle in 0..cycles {
        let filters = [format!("a/{cycle}/+"), "b/#".to_owned(), format!("$share/g{}/c/#", cycle % 7)];
        let filters = filters.each_ref().map(String::as_str);
        let durable = cycle % 3 == 0;
        let connect = Connect::v5(&format!("c{}", cycle % 20));
        let mut client = broker.connect(&if durable { connect.expiry(60) } else { connect });
        client.ask(&subscribe(1, &filters.map(|filter| (filter, 1))), &suback(0x90, 1, &[1; 3]));
        match cycle % 4 {
            0 => client.ask(&unsubscribe(2, &filters), &suback(0xB0, 2, &[0; 3])),
            1 => client.ask(&unsubscribe(2, &filters[..1]), &suback(0xB0, 2, &[0])),
            _ => {}
        }
        match durable {
            true => client.leave_with(&crate::harness::disconnect(0, &[0x11, 0, 0, 0, 0])),
            false => client.cut(),
        }
    }
    // The watcher's own two are left, and of the shared ones none.
    let (mut plain, mut shared) = (None, None);
    while (plain.as_deref(), shared.as_deref()) != (Some(&b"2"[..]), Some(&b"0"[..])) {
        let message = watcher.message();
        *(if message.topic == counts[0] { &mut plain } else { &mut shared }) = Some(message.payload);
    }
}
