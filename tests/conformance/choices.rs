//! Where the specification leaves room: what Causeway does, as `docs/mqtt.md` says it.

use crate::harness::{
    Broker, Client, Connect, Publish, Verdict, Version, ack, ack_with, broker, packet, string, suback,
    suback_v311, subscribe, subscribe_v311, subscribe_with, unique,
};

fn client() -> Client {
    broker().connect(&Connect::v5(&unique("chooses")))
}

#[test]
fn overlapping_subscriptions_give_one_copy_with_the_highest_qos_and_all_identifiers() {
    proves!("5.0 MQTT-3.3.4-2", "5.0 MQTT-3.3.4-3", "5.0 MQTT-3.3.4-4");
    let base = unique("overlap");
    let mut receiver = client();
    let filters = [(format!("{base}/+"), 0), (format!("{base}/#"), 2), (format!("{base}/x"), 1)];
    for (id, (filter, qos)) in (1..).zip(&filters) {
        receiver.ask(
            &subscribe_with(id.into(), &[0x0B, id], &[(filter, *qos)]),
            &suback(0x90, id.into(), &[*qos]),
        );
    }
    client().ask(&Publish::new(&format!("{base}/x"), "one").qos(2, 1).v5(), &ack(0x50, 1));
    let message = receiver.message();
    assert_eq!(message.qos, 2);
    let mut ids: Vec<_> = message.properties.chunks(2).map(<[u8]>::to_vec).collect();
    ids.sort();
    assert_eq!(ids, [[0x0B, 1], [0x0B, 2], [0x0B, 3]]);
    receiver.expect_nothing();
}

#[test]
fn overlapping_subscriptions_give_one_copy_for_each_where_that_is_wanted() {
    proves!("5.0 MQTT-3.3.4-2", "5.0 MQTT-3.3.4-3", "5.0 MQTT-3.3.4-5");
    let mut broker = Broker::start("[mqtt]\nmerge_overlapping = false");
    let reader = Connect::v5("reader").expiry(60);
    let mut client = broker.connect(&reader);
    for (id, (filter, qos)) in (1..).zip([("a/+", 1), ("a/#", 0), ("a/x", 2)]) {
        let granted = suback(0x90, id.into(), &[qos]);
        client.ask(&subscribe_with(id.into(), &[0x0B, id], &[(filter, qos)]), &granted);
    }
    let mut sender = broker.connect(&Connect::v5("sender"));
    sender.ask(&Publish::new("a/x", "live").qos(2, 1).v5(), &ack(0x50, 1));
    let copies = |mut client: Client, count| {
        let mut copies: Vec<_> =
            (0..count).map(|_| client.message()).map(|m| (m.qos, m.properties)).collect();
        copies.sort();
        client.expect_nothing();
        client.cut();
        copies
    };
    let wanted = [(0, vec![0x0B, 2]), (1, vec![0x0B, 1]), (2, vec![0x0B, 3])];
    assert_eq!(copies(client, 3), wanted);

    // Copies that are owed to a client that is away are kept like any other message.
    sender.ask(&Publish::new("a/x", "kept").qos(2, 2).v5(), &ack(0x50, 2));
    broker.crash();
    let mut kept = copies(broker.resume(&reader.resuming()), 4);
    kept.dedup();
    assert_eq!(kept, wanted[1..], "both messages, but for what QoS 0 does not keep");
}

#[test]
fn a_client_with_very_many_overlapping_subscriptions_gets_its_copies_and_harms_nobody() {
    let broker = Broker::start("[mqtt]\nmerge_overlapping = false");
    let mut reader = broker.connect(&Connect::v5("reader"));
    // Each of 13 levels is named or a wildcard.
    let filter =
        |n: usize| (0..13).map(|bit| if n >> bit & 1 == 0 { "a" } else { "+" }).collect::<Vec<_>>().join("/");
    let filters: Vec<_> = (0..1 << 13).map(filter).collect();
    for (id, filters) in (1..).zip(filters.chunks(1 << 9)) {
        let asked: Vec<_> = filters.iter().map(|filter| (&**filter, 0)).collect();
        reader.ask(&subscribe(id, &asked), &suback(0x90, id, &[0; 1 << 9]));
    }
    let mut sender = broker.connect(&Connect::v5("sender"));
    sender.ask(&Publish::new(&filters[0], "x").qos(1, 1).v5(), &ack(0x40, 1));
    // More of them than the outbox holds may be dropped: it is QoS 0.
    (0..100).for_each(|_| assert_eq!(reader.message().payload, b"x"));
}

#[test]
fn qos_2_is_handed_on_before_its_release() {
    let topic = unique("handed-on");
    let mut receiver = client();
    receiver.ask(&subscribe(1, &[(&topic, 0)]), &suback(0x90, 1, &[0]));
    let mut sender = client();
    sender.ask(&Publish::new(&topic, "x").qos(2, 1).v5(), &ack(0x50, 1));
    assert_eq!(receiver.message().payload, b"x");
    sender.ask(&ack(0x62, 1), &ack(0x70, 1));
    receiver.expect_nothing();
}

#[test]
fn what_is_published_to_dollar_topics_is_acknowledged_and_nobody_gets_it() {
    let topic = format!("${}", unique("dollar"));
    let mut witness = client();
    witness.ask(&subscribe(1, &[(&topic, 2)]), &suback(0x90, 1, &[2]));
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut sender = broker().connect(&Connect::new(version, &unique("dollar")));
        sender.send(&Publish::new(&topic, "0").bytes(version));
        sender.ask(&Publish::new(&topic, "1").qos(1, 1).retain().bytes(version), &ack(0x40, 1));
        sender.ask(&Publish::new(&topic, "2").qos(2, 2).bytes(version), &ack(0x50, 2));
        sender.ask(&ack(0x62, 2), &ack(0x70, 2));
        broker().connect(&Connect::new(version, &unique("dollar")).will(&topic, "will", 1)).cut();
    }
    witness.expect_nothing();
    // Nothing was retained either.
    let mut late = client();
    late.ask(&subscribe(1, &[(&topic, 0)]), &suback(0x90, 1, &[0]));
    late.expect_nothing();
}

#[test]
fn packet_identifiers_of_a_session_begin_at_1() {
    let topic = unique("first");
    for version in [Version::V311, Version::V5] {
        let mut receiver = broker().connect(&Connect::new(version, &unique("first")).durable());
        match version {
            Version::V5 => receiver.ask(&subscribe(9, &[(&topic, 2)]), &suback(0x90, 9, &[2])),
            _ => receiver.ask(&subscribe_v311(9, &[(&topic, 2)]), &suback_v311(9, &[2])),
        }
        let mut sender = client();
        sender.ask(&Publish::new(&topic, "x").qos(1, 7).v5(), &ack(0x40, 7));
        sender.ask(&Publish::new(&topic, "x").qos(2, 8).v5(), &ack(0x50, 8));
        assert_eq!([receiver.message().id, receiver.message().id], [1, 2]);
        receiver.leave();
    }
}

#[test]
fn a_refused_subscription_says_why_unless_it_is_told_not_to() {
    let folder = tempfile::tempdir().unwrap();
    let acl = folder.path().join("acl");
    std::fs::write(&acl, "topic read mine/#\n").unwrap();
    for (vague, refusal) in [(false, 0x87), (true, 0x80)] {
        let broker = Broker::start(&format!("[auth]\nacl_file = {acl:?}\nvague_refusals = {vague}"));
        let filters = [("mine/x", 1), ("other/x", 1)];
        broker.connect(&Connect::v5("c")).ask(&subscribe(1, &filters), &suback(0x90, 1, &[1, refusal]));
        broker.connect(&Connect::v311("c")).ask(&subscribe_v311(1, &filters), &suback_v311(1, &[1, 0x80]));
    }
}

#[test]
fn a_publisher_learns_that_nobody_has_subscribed() {
    let topic = unique("nobody");
    for connect in [Connect::v5(&unique("nobody")), Connect::v5(&unique("nobody")).durable()] {
        let mut sender = broker().connect(&connect);
        sender.ask(&Publish::new(&topic, "x").qos(1, 1).v5(), &ack_with(0x40, 1, 0x10));
        sender.ask(&Publish::new(&topic, "x").qos(2, 2).v5(), &ack_with(0x50, 2, 0x10));
        // The identifier is in use all the same.
        sender.ask(&ack(0x62, 2), &ack(0x70, 2));
        sender.leave();
    }
}

#[test]
fn malformed_and_protocol_error_are_told_apart() {
    let publish =
        |properties: &[u8]| packet(0x30, &[&string("a"), &[properties.len() as u8][..], properties].concat());
    let subscribe = |options: u8| subscribe(1, &[("a", options)]);
    let malformed = [
        ("an unknown property", publish(&[0x7F, 1])),
        ("a property of another packet", publish(&[0x21, 0, 1])),
        ("a property that is cut short", publish(&[0x02, 0, 0])),
        ("a topic name with a wildcard", packet(0x30, &[&string("a/+"), &[0][..]].concat())),
        ("a filter with # in the middle", packet(0x82, &[&[0, 1, 0], &string("#/a")[..], &[0]].concat())),
        ("201 levels", Publish::new(&["a"; 201].join("/"), "").v5()),
        ("reserved subscription options", subscribe(0x40)),
        ("flags of the fixed header", vec![0x60, 2, 0, 1]),
        ("QoS 3", packet(0x36, &[&string("a"), &[0, 1, 0][..]].concat())),
    ];
    let protocol_error = [
        ("a property twice", publish(&[0x01, 0, 0x01, 0])),
        ("a value out of range", publish(&[0x01, 2])),
        ("QoS 3 of a subscription", subscribe(3)),
        ("Retain Handling 3", subscribe(0x30)),
        (
            "No Local on a shared subscription",
            packet(0x82, &[&[0, 1, 0], &string("$share/g/a")[..], &[4]].concat()),
        ),
        ("a SUBSCRIBE without filters", packet(0x82, &[0, 1, 0])),
        ("a Subscription Identifier of 0", subscribe_with(1, &[0x0B, 0], &[("a", 0)])),
        ("an alias that was never set", packet(0x30, &[&string(""), &[3, 0x23, 0, 1][..]].concat())),
        ("no topic and no alias", packet(0x30, &[&string(""), &[0][..]].concat())),
        ("a reason code of another packet", ack_with(0x40, 1, 0x04)),
        ("a packet of the server", vec![0xD0, 0]),
        ("a second CONNECT", Connect::v5("again").bytes()),
    ];
    let of_its_own = [
        ("alias 0", 0x94, publish(&[0x23, 0, 0])),
        ("an alias above the maximum", 0x94, publish(&[0x23, 0, 65])),
    ];
    let coded = |code: u8| move |(what, bytes)| (what, code, bytes);
    let all = malformed.into_iter().map(coded(0x81)).chain(protocol_error.into_iter().map(coded(0x82)));
    for (what, code, bytes) in all.chain(of_its_own) {
        assert_eq!(client().verdict(&bytes), Verdict::Told(code), "{what}");
    }
}

#[test]
fn flags_that_3_1_does_not_use_may_have_any_value() {
    for flags in [0x01, 0x08, 0x10, 0x18, 0x20, 0x39] {
        let mut connect = Connect::new(Version::V31, &unique("flags")).bytes();
        connect[11] |= flags;
        broker().open().ask(&connect, &[0x20, 2, 0, 0]);
    }
    // A will that is there has a QoS.
    let mut connect = Connect::new(Version::V31, &unique("flags")).will("a", "b", 0).bytes();
    connect[11] |= 0x18;
    let mut client = broker().open();
    client.send(&connect);
    client.expect_closed();
}

#[test]
fn aliases_to_the_client_begin_anew_with_each_connection() {
    proves!("5.0 MQTT-3.3.2-7", "5.0 MQTT-3.1.2-27", "U-3.3.2-b");
    let topic = unique("alias");
    let connect = Connect::v5(&unique("aliased")).durable();
    let aliased = connect.clone().property(0x22, &[0, 1]);
    let mut receiver = broker().connect(&aliased);
    receiver.ask(&subscribe(1, &[(&topic, 1)]), &suback(0x90, 1, &[1]));
    let mut sender = client();
    for n in 1..=2 {
        sender.ask(&Publish::new(&topic, "x").qos(1, n).v5(), &ack(0x40, n));
    }
    let first = Publish::new(&topic, "x").qos(1, 1).property(0x23, &[0, 1]);
    let second = Publish::new("", "x").qos(1, 2).property(0x23, &[0, 1]);
    receiver.expect(&first.v5());
    receiver.expect(&second.v5());
    receiver.cut();
    // What is repeated teaches the alias again.
    let mut receiver = broker().resume(&aliased);
    receiver.expect(&first.dup().v5());
    receiver.expect(&second.dup().v5());
    receiver.cut();
    // A client that asks for none gets none.
    let mut receiver = broker().resume(&connect);
    for n in 1..=2 {
        receiver.expect(&Publish::new(&topic, "x").qos(1, n).dup().v5());
    }
}

#[test]
fn outgoing_size_limit() {
    proves!("5.0 MQTT-3.1.2-24", "5.0 MQTT-3.1.2-25", "5.0 MQTT-3.2.2-19");
    let small = |id: &str| Connect::v5(id).property(0x27, &[0, 0, 0, 20]);
    let topic = unique("s");
    let mut receiver = broker().open();
    let connack = receiver.connect(&small(&unique("small")).durable(), false);
    assert!(connack.len() <= 20, "{connack:02x?}");
    receiver.ask(&subscribe(1, &[(&topic, 2)]), &suback(0x90, 1, &[2]));
    receiver.ask(&Publish::new("none", "x").qos(1, 5).v5(), &ack_with(0x40, 5, 0x10));
    let mut sender = client();
    // More of those it cannot take than its window, or the identifiers of a connection that kept them, has.
    for n in 1..=600 {
        sender.ask(&Publish::new(&topic, "much too large").qos(1, n).v5(), &ack(0x40, n));
    }
    for qos in 0..=2 {
        sender.send(&Publish::new(&topic, "fits").qos(qos, 1000).v5());
        let message = receiver.message();
        assert_eq!((message.payload, message.qos), (b"fits".to_vec(), qos));
    }
    // What was skipped is settled, and does not come later.
    receiver.leave();
    // An answer that cannot be made to fit ends the connection, with a word if there is room for one.
    let mut nameless = broker().open();
    nameless.ask(&small("").bytes(), &[0x20, 3, 0, 0x95, 0]);
    nameless.expect_closed();
    let mut tiny = broker().open();
    tiny.send(&Connect::v5(&unique("tiny")).property(0x27, &[0, 0, 0, 4]).bytes());
    tiny.expect_closed();
    let mut receiver = broker().connect(&small(&unique("small")));
    let filters = [("a", 0); 20];
    receiver.send(&subscribe(1, &filters));
    receiver.expect_end(0x95);
}
