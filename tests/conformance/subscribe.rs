//! SUBSCRIBE and SUBACK.

use crate::harness::{
    Connect, Publish, Version, ack, broker, suback, suback_v311, subscribe, subscribe_v311, subscribe_with,
    unique,
};

#[test]
fn one_code_for_each_filter_in_order() {
    proves!(
        "5.0 MQTT-3.8.4-1",
        "5.0 MQTT-3.8.4-2",
        "5.0 MQTT-3.8.4-5",
        "5.0 MQTT-3.8.4-6",
        "5.0 MQTT-3.8.4-7",
        "5.0 MQTT-3.9.3-1",
        "5.0 MQTT-3.9.3-2",
        "5.0 MQTT-2.2.1-6",
        "3.1.1 MQTT-3.8.4-1",
        "3.1.1 MQTT-3.8.4-2",
        "3.1.1 MQTT-3.8.4-4",
        "3.1.1 MQTT-3.8.4-5",
        "3.1.1 MQTT-3.9.3-1",
        "3.1.1 MQTT-3.9.3-2",
        "3.1.1 MQTT-2.3.1-7"
    );
    let filters = [("a/+", 2), ("$share//b", 0), ("b/#", 1), ("c", 0)];
    let mut client = broker().connect(&Connect::v5(&unique("codes")));
    client.ask(&subscribe(0x1234, &filters), &suback(0x90, 0x1234, &[2, 0x8F, 1, 0]));
    let mut client = broker().connect(&Connect::v311(&unique("codes")));
    client.ask(&subscribe_v311(0x1234, &filters), &suback_v311(0x1234, &[2, 0x80, 1, 0]));
}

#[test]
fn filters_that_are_none_end_the_connection() {
    proves!(
        "5.0 MQTT-4.7.1-1",
        "5.0 MQTT-4.7.1-2",
        "3.1.1 MQTT-4.7.1-2",
        "3.1.1 MQTT-4.7.1-3",
        "3.1.1 MQTT-4.8.0-1"
    );
    let deep = vec!["a"; 201].join("/");
    for filter in ["a/#/b", "a#", "a/b+", "+a", "##", "$share/g/a/#/b", "", &deep] {
        let mut client = broker().connect(&Connect::v5(&unique("filter")));
        client.send(&subscribe(1, &[("fine", 0), (filter, 0)]));
        client.expect_end(0x81);
        let mut client = broker().connect(&Connect::v311(&unique("filter")));
        client.send(&subscribe_v311(1, &[(filter, 0)]));
        client.expect_closed();
    }
}

#[test]
fn options_that_are_none_end_the_connection() {
    proves!("5.0 MQTT-3.8.3-5", "U-3.8.3-b", "3.1.1 MQTT-3.8.3-4");
    for (options, reason) in [(0x40, 0x81), (0x80, 0x81), (0x03, 0x82), (0x30, 0x82)] {
        let mut client = broker().connect(&Connect::v5(&unique("options")));
        client.send(&subscribe(1, &[("a", options)]));
        client.expect_end(reason);
    }
    for options in [3, 4, 8, 0x80] {
        let mut client = broker().connect(&Connect::v311(&unique("options")));
        client.send(&subscribe_v311(1, &[("a", options)]));
        client.expect_closed();
    }
}

#[test]
fn without_filters_it_is_an_error() {
    proves!("U-3.8.3-a", "5.0 MQTT-3.8.3-2", "3.1.1 MQTT-3.8.3-3");
    let mut client = broker().connect(&Connect::v5(&unique("none")));
    client.send(&subscribe(1, &[]));
    client.expect_end(0x82);
    let mut client = broker().connect(&Connect::v311(&unique("none")));
    client.send(&subscribe_v311(1, &[]));
    client.expect_closed();
}

#[test]
fn a_filter_is_replaced() {
    proves!("5.0 MQTT-3.8.4-3", "3.1.1 MQTT-3.8.4-3");
    let topic = unique("replaced");
    let mut client = broker().connect(&Connect::v5(&unique("replaced")));
    client.ask(&subscribe_with(1, &[0x0B, 5], &[(&topic, 2)]), &suback(0x90, 1, &[2]));
    client.ask(&subscribe(2, &[(&topic, 0)]), &suback(0x90, 2, &[0]));
    let mut old = broker().connect(&Connect::v311(&unique("replaced")));
    old.subscribe(&topic, 2);
    old.subscribe(&topic, 0);
    let mut sender = broker().connect(&Connect::v5(&unique("p")));
    sender.ask(&Publish::new(&topic, "x").qos(1, 1).retain().v5(), &ack(0x40, 1));
    for client in [&mut client, &mut old] {
        client.expect_publish(&Publish::new(&topic, "x"));
        client.expect_nothing();
    }
    old.subscribe(&topic, 1);
    assert!(old.take_qos_1().retain);
    old.expect_nothing();
}

#[test]
fn replacing_a_subscription_loses_no_message() {
    proves!("5.0 MQTT-3.8.4-4", "3.1.1 MQTT-3.8.4-3");
    for version in Version::BOTH {
        let (topic, kept) = (unique("stream"), unique("kept"));
        let mut sender = broker().connect(&Connect::v5(&unique("p")));
        sender.publish(&Publish::new(&kept, "kept").retain());
        sender.expect_nothing();
        let mut client = broker().connect(&Connect::new(version, &unique("replaces")));
        client.subscribe(&topic, 1);
        for n in 1..=200 {
            let filters = [(&topic[..], 1), (&kept, 0)];
            let replace = if version == Version::V5 { subscribe } else { subscribe_v311 };
            // At the same time.
            client.send(&replace(n, &filters));
            sender.publish(&Publish::new(&topic, n.to_string()).qos(1, n));
            let mut packets = [client.receive(), client.receive(), client.receive()];
            packets.sort();
            let [retained, message, suback] = packets;
            assert_eq!(retained, Publish::new(&kept, "kept").retain().bytes(version));
            assert!(message[0] == 0x32 && message.ends_with(n.to_string().as_bytes()), "{n}: {message:02x?}");
            assert_eq!(suback[0], 0x90);
            let id = u16::from_be_bytes([message[4 + topic.len()], message[5 + topic.len()]]);
            client.send(&ack(0x40, id));
            sender.expect(&ack(0x40, n));
        }
        client.expect_nothing();
    }
}

#[test]
fn overlap_subs() {
    proves!("5.0 MQTT-3.3.4-2", "3.1.1 MQTT-3.3.5-1");
    let base = unique("overlap");
    let (plus, hash, topic) = (format!("{base}/+"), format!("{base}/#"), format!("{base}/x"));
    let mut client = broker().connect(&Connect::v311(&unique("overlap")));
    client.ask(&subscribe_v311(1, &[(&plus, 0), (&hash, 1), (&topic, 0)]), &suback_v311(1, &[0, 1, 0]));
    let mut sender = broker().connect(&Connect::v5(&unique("p")));
    sender.ask(&Publish::new(&topic, "x").qos(2, 1).v5(), &ack(0x50, 1));
    assert_eq!(client.take_qos_1().payload, b"x");
    client.expect_nothing();
    // In 5.0 with the identifiers of all that have one, and as retained as the best of them has it.
    let mut client = broker().connect(&Connect::v5(&unique("overlap")));
    for (id, filter, qos) in [(1, &plus, 0), (2, &hash, 2), (3, &topic, 1)] {
        client.ask(&subscribe_with(id, &[0x0B, id as u8], &[(filter, qos)]), &suback(0x90, id, &[qos]));
    }
    sender.ask(&ack(0x62, 1), &ack(0x70, 1));
    sender.ask(&Publish::new(&topic, "y").qos(2, 1).v5(), &ack(0x50, 1));
    let message = client.message();
    assert_eq!((message.qos, message.payload), (2, b"y".to_vec()));
    let mut ids: Vec<_> = message.properties.chunks(2).map(|id| (id[0], id[1])).collect();
    ids.sort_unstable();
    assert_eq!(ids, [(0x0B, 1), (0x0B, 2), (0x0B, 3)]);
    client.expect_nothing();
}

#[test]
fn no_local() {
    proves!("5.0 MQTT-3.8.3-3");
    let topic = unique("local");
    let mut one = broker().connect(&Connect::v5(&unique("local")));
    one.ask(&subscribe(1, &[(&topic, 4)]), &suback(0x90, 1, &[0]));
    let mut other = broker().connect(&Connect::v5(&unique("local")));
    other.ask(&subscribe(1, &[(&topic, 4)]), &suback(0x90, 1, &[0]));
    one.send(&Publish::new(&topic, "x").v5());
    other.expect(&Publish::new(&topic, "x").v5());
    one.expect_nothing();
    other.send(&Publish::new(&topic, "y").v5());
    one.expect(&Publish::new(&topic, "y").v5());
    // The last SUBSCRIBE says whether.
    other.ask(&subscribe(2, &[(&topic, 0)]), &suback(0x90, 2, &[0]));
    other.ask(&Publish::new(&topic, "z").v5(), &Publish::new(&topic, "z").v5());
    other.ask(&subscribe(3, &[(&topic, 4)]), &suback(0x90, 3, &[0]));
    other.send(&Publish::new(&topic, "z").v5());
    other.expect_nothing();
}

#[test]
fn subid_range() {
    proves!("U-PROP-0B-value");
    for (properties, reason) in
        [(vec![0x0B, 0], 0x82), (vec![0x0B, 0xFF, 0xFF, 0xFF, 0xFF, 1], 0x81), (vec![0x0B, 1, 0x0B, 2], 0x82)]
    {
        let mut client = broker().connect(&Connect::v5(&unique("range")));
        client.send(&subscribe_with(1, &properties, &[("a", 0)]));
        client.expect_end(reason);
    }
    for id in [&[1][..], &[0xFF, 0xFF, 0xFF, 0x7F]] {
        let topic = unique("range");
        let mut client = broker().connect(&Connect::v5(&topic));
        let property = [&[0x0B], id].concat();
        client.ask(&subscribe_with(1, &property, &[(&topic, 0)]), &suback(0x90, 1, &[0]));
        client.ask(&Publish::new(&topic, "x").v5(), &Publish::new(&topic, "x").property(0x0B, id).v5());
    }
}

#[test]
fn flags_are_fixed() {
    proves!("5.0 MQTT-3.8.1-1", "3.1.1 MQTT-3.8.1-1");
    for (version, flags) in Version::BOTH.into_iter().flat_map(|version| (0..16).map(move |f| (version, f))) {
        let is_v5 = version == Version::V5;
        let filters = [("a", 0)];
        let mut request = if is_v5 { subscribe(1, &filters) } else { subscribe_v311(1, &filters) };
        request[0] = 0x80 | flags;
        if flags != 2 {
            let mut client = broker().connect(&Connect::new(version, &unique("flags")));
            client.send(&request);
            client.expect_end(0x81);
        }
    }
}

#[test]
fn wildcards_match_whole_levels() {
    let base = unique("levels");
    let topic = |tail: &str| format!("{base}{tail}");
    let mut client = broker().connect(&Connect::v5(&unique("levels")));
    let filters = [topic("/a/#"), topic("/+/c"), topic("/+/+/d")];
    let filters: Vec<_> = filters.iter().map(|filter| (filter.as_str(), 0)).collect();
    client.ask(&subscribe(1, &filters), &suback(0x90, 1, &[0, 0, 0]));
    let mut sender = broker().connect(&Connect::v5(&unique("levels")));
    let tails = ["/a", "/a/b/e", "/b/c", "//c", "/b/c/d", "/b", "/b/c/e", "/bc", "", "/a/"];
    let matching = ["/a", "/a/b/e", "/b/c", "//c", "/b/c/d", "/a/"];
    tails.iter().for_each(|tail| sender.send(&Publish::new(&topic(tail), "x").v5()));
    for tail in matching {
        assert_eq!(client.message().topic, topic(tail));
    }
    client.expect_nothing();
}
