//! What of MQTT is offered: told in CONNACK where it is less than all, and refused with its own code.

use crate::harness::{
    Broker, Client, Connect, Publish, Verdict, Version, ack, ack_with, string, suback, suback_v311,
    subscribe, subscribe_v311, subscribe_with, unsubscribe,
};

/// A broker with a line in its `[mqtt]`.
fn offering(line: &str) -> Broker {
    Broker::start(&format!("[mqtt]\n{line}"))
}

/// Checks that CONNACK has the property, and that it is all there is beside the usual limits.
fn told(broker: &Broker, property: &[u8]) {
    let connack = broker.open().connect(&Connect::v5("told"), false);
    let (aliases, limits): (&[u8], &[u8]) = (&[0x22, 0, 0x40], &[0x27, 0, 0x10, 0, 0, 0x21, 4, 0]);
    let places = [[aliases, property, limits].concat(), [aliases, limits, property].concat()];
    assert!(places.iter().any(|place| *place == connack[5..]), "{connack:02x?}");
}

/// The end of a connection of each version that sends what it is not offered.
fn refused(broker: &Broker, reason: u8, packet: impl Fn(Version) -> Vec<u8>) {
    for version in [Version::V31, Version::V311, Version::V5] {
        let verdict = broker.connect(&Connect::new(version, "c")).verdict(&packet(version));
        let wanted = if version == Version::V5 { Verdict::Told(reason) } else { Verdict::Closed };
        assert_eq!(verdict, wanted, "{version:?}");
    }
}

/// The end of a CONNECT with a will that is not offered: before 5.0 there is no return code for it.
fn will_refused(broker: &Broker, reason: u8, with_will: impl Fn(Connect) -> Connect) {
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut client = broker.open();
        client.send(&with_will(Connect::new(version, "c")).bytes());
        if version == Version::V5 {
            client.expect(&[0x20, 3, 0, reason, 0]);
        }
        client.expect_closed();
    }
}

/// The properties of the next two messages.
fn two(client: &mut Client) -> [Vec<u8>; 2] {
    [client.message().properties, client.message().properties]
}

#[test]
fn everything_is_not_announced() {
    told(&offering(""), &[]);
}

#[test]
fn a_qos_above_the_maximum_is_refused_and_a_subscription_lowered() {
    proves!(
        "5.0 MQTT-3.2.2-9",
        "5.0 MQTT-3.2.2-10",
        "5.0 MQTT-3.2.2-11",
        "5.0 MQTT-3.2.2-12",
        "U-3.2.2-a",
        "U-PROP-24-value"
    );
    for maximum in [0, 1] {
        let broker = offering(&format!("maximum_qos = {maximum}"));
        told(&broker, &[0x24, maximum]);
        for above in maximum + 1..=2 {
            refused(&broker, 0x9B, |version| Publish::new("t", "x").qos(above, 1).bytes(version));
            will_refused(&broker, 0x9B, |connect| connect.will("t", "x", above));
        }
        let filters = [("t", 0), ("u", 1), ("v", 2)];
        let granted = [0, maximum, maximum];
        let mut client = broker.connect(&Connect::v5("s").will("t", "x", maximum));
        client.ask(&subscribe(1, &filters), &suback(0x90, 1, &granted));
        let mut old = broker.connect(&Connect::v311("o"));
        old.ask(&subscribe_v311(1, &filters), &suback_v311(1, &granted));
        old.send(&Publish::new("v", "x").qos(maximum, 1).v311());
        assert_eq!(client.message().qos, maximum);
    }
}

#[test]
fn retained_messages_are_refused_and_those_there_are_kept_to_oneself() {
    proves!("5.0 MQTT-3.2.2-13", "5.0 MQTT-3.2.2-14", "U-3.2.2-b", "U-PROP-25-value");
    let mut broker = Broker::start("");
    let mut client = broker.connect(&Connect::v5("k"));
    client.ask(&Publish::new("t", "kept").qos(1, 1).retain().v5(), &ack_with(0x40, 1, 0x10));
    let dies = Connect::v5("dies").expiry(60).will("t", "gone", 1).will_retained();
    broker.connect(&dies.will_property(0x18, &[0, 0, 0, 2])).cut();

    broker.restart_with("[mqtt]\nretain = false");
    told(&broker, &[0x25, 0]);
    refused(&broker, 0x9A, |version| Publish::new("t", "x").retain().bytes(version));
    refused(&broker, 0x9A, |version| Publish::new("t", "x").qos(2, 1).retain().bytes(version));
    will_refused(&broker, 0x9A, |connect| connect.will("t", "x", 0).will_retained());
    let mut witness = broker.connect(&Connect::v5("s").will("t", "x", 2));
    witness.ask(&subscribe(1, &[("t", 0)]), &suback(0x90, 1, &[0]));
    // The will that was left before comes as a message like any other.
    assert_eq!(witness.message().payload, b"gone");
    witness.expect_nothing();

    broker.restart_with("");
    let mut client = broker.connect(&Connect::v5("s"));
    client.ask(&subscribe(1, &[("t", 0)]), &suback(0x90, 1, &[0]));
    let kept = client.message();
    assert!(kept.retain && kept.payload == b"kept", "{kept:?}");
}

#[test]
fn wildcards_are_refused() {
    proves!("U-3.2.2-d", "U-PROP-28-value", "3.1.1 MQTT-3.8.3-2");
    let broker = offering("wildcard_subscriptions = false");
    told(&broker, &[0x28, 0]);
    for filter in ["#", "a/+", "+/b", "$share/group/a/#"] {
        let verdict = broker.connect(&Connect::v5("c")).verdict(&subscribe(1, &[("a/b", 0), (filter, 0)]));
        assert_eq!(verdict, Verdict::Told(0xA2), "{filter}");
        let mut old = broker.connect(&Connect::v311("c"));
        old.ask(&subscribe_v311(1, &[("a/b", 0), (filter, 0)]), &suback_v311(1, &[0, 0x80]));
    }
    let mut client = broker.connect(&Connect::v5("c"));
    client.ask(&subscribe(1, &[("a/b", 1)]), &suback(0x90, 1, &[1]));
    client.ask(&unsubscribe(2, &["a/+", "a/b"]), &suback(0xB0, 2, &[0x11, 0]));
}

#[test]
fn subscription_identifiers_are_refused() {
    proves!("U-3.2.2-e", "U-PROP-29-value");
    let broker = offering("subscription_identifiers = false");
    told(&broker, &[0x29, 0]);
    let verdict = broker.connect(&Connect::v5("c")).verdict(&subscribe_with(1, &[0x0B, 5], &[("a", 0)]));
    assert_eq!(verdict, Verdict::Told(0xA1));
    broker.connect(&Connect::v5("c")).ask(&subscribe(1, &[("a", 0)]), &suback(0x90, 1, &[0]));
}

#[test]
fn shared_subscriptions_are_refused() {
    proves!("U-3.2.2-f", "U-PROP-2A-value");
    let broker = offering("shared_subscriptions = false");
    told(&broker, &[0x2A, 0]);
    let shared = "$share/group/a";
    let verdict = broker.connect(&Connect::v5("c")).verdict(&subscribe(1, &[("a", 0), (shared, 0)]));
    assert_eq!(verdict, Verdict::Told(0x9E));
    let mut old = broker.connect(&Connect::v311("c"));
    old.ask(&subscribe_v311(1, &[(shared, 0), ("a", 1)]), &suback_v311(1, &[0x80, 1]));
    let mut sender = broker.connect(&Connect::v5("p"));
    sender.ask(&Publish::new("a", "x").qos(1, 1).v5(), &ack(0x40, 1));
    assert_eq!(old.take_qos_1().payload, b"x");
}

#[test]
fn response_information_is_for_those_who_ask() {
    proves!("5.0 MQTT-3.1.2-28");
    let broker = offering("response_information = \"response/{client_id}/\"");
    told(&broker, &[]);
    let asks = |id: &str| Connect::v5(id).property(0x19, &[1]);
    let connack = broker.open().connect(&asks("ada"), false);
    let information = [&[0x1A][..], &string("response/ada/")].concat();
    assert!(connack.ends_with(&information), "{connack:02x?}");
    let connack = broker.open().connect(&Connect::v5("ada").property(0x19, &[0]), false);
    assert!(!connack.contains(&0x1A), "{connack:02x?}");
    // It would lead into the topics of others.
    let connack = broker.open().connect(&asks("ada/#"), false);
    assert!(!connack.contains(&0x1A), "{connack:02x?}");
    // It is left out of a CONNACK that would be too large with it.
    let connack = broker.open().connect(&asks("ada").property(0x27, &[0, 0, 0, 20]), false);
    assert!(connack.len() <= 20 && !connack.contains(&0x1A), "{connack:02x?}");
    // And what it is for: requests and responses find each other.
    let mut asker = broker.connect(&asks("ada"));
    asker.ask(&subscribe(1, &[("response/ada/#", 0)]), &suback(0x90, 1, &[0]));
    let mut answerer = broker.connect(&Connect::v5("bob"));
    answerer.ask(&subscribe(1, &[("request", 0)]), &suback(0x90, 1, &[0]));
    for _ in 0..2 {
        let request = Publish::new("request", "?").property(0x08, &string("response/ada/1"));
        asker.send(&request.property(0x09, &string("42")).v5());
    }
    for request in two(&mut answerer) {
        assert_eq!(request, [&[0x08][..], &string("response/ada/1"), &[0x09], &string("42")].concat());
        answerer.send(&Publish::new("response/ada/1", "!").property(0x09, &string("42")).v5());
    }
    for response in two(&mut asker) {
        assert_eq!(response, [&[0x09][..], &string("42")].concat());
    }
}
