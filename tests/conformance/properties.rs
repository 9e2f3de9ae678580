//! Properties: each where it belongs, once, and with a value it may have.

use crate::harness::{Connect, Publish, broker, disconnect, packet, string, subscribe_with, unique};

/// Every property with a value it may have.
fn all() -> Vec<(u8, Vec<u8>)> {
    let pair = [string("a"), string("b")].concat();
    let flags = [0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A].map(|id| (id, vec![1]));
    let numbers = [0x13, 0x21, 0x22, 0x23].map(|id| (id, vec![0, 9]));
    let seconds = [0x02, 0x11, 0x18, 0x27].map(|id| (id, vec![0, 1, 0, 0]));
    let texts = [0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, 0x1F].map(|id| (id, string("text")));
    let all = flags.into_iter().chain(numbers).chain(seconds).chain(texts);
    all.chain([(0x0B, vec![5]), (0x26, pair)]).collect()
}

/// The end of a connection that sends `bytes`: the reason code, or `None` when it goes on.
fn end_of(bytes: &[u8]) -> Option<u8> {
    let mut client = broker().connect(&Connect::v5(&unique("property")).expiry(5));
    client.send(&[bytes, &[0xC0, 0]].concat());
    loop {
        match client.receive()[..] {
            [0xE0, _, reason, ..] => return Some(reason),
            [0xD0, ..] => return None,
            _ => {}
        }
    }
}

/// Checks a kind of packet: `with` makes one that has the given property bytes.
fn check(allowed: &[u8], repeatable: &[u8], with: impl Fn(&[u8]) -> Vec<u8>) {
    for (id, value) in all() {
        let once = [&[id][..], &value].concat();
        let twice = once.repeat(2);
        if !allowed.contains(&id) {
            for properties in [&once, &twice] {
                let end = end_of(&with(properties));
                assert_eq!(end, Some(0x81), "property {id:#04x} does not belong there");
            }
        } else {
            assert_eq!(end_of(&with(&once)), None, "property {id:#04x} belongs there");
            let wanted = if repeatable.contains(&id) { None } else { Some(0x82) };
            assert_eq!(end_of(&with(&twice)), wanted, "property {id:#04x} twice");
        }
    }
    for unknown in [0x00, 0x04, 0x0A, 0x14, 0x2B, 0x7F] {
        assert_eq!(end_of(&with(&[unknown, 0])), Some(0x81), "unknown property {unknown:#04x}");
    }
}

#[test]
fn property_matrix_of_publish() {
    proves!(
        "U-PROP-01-once",
        "U-PROP-01-where",
        "U-PROP-02-once",
        "U-PROP-02-where",
        "U-PROP-03-once",
        "U-PROP-03-where",
        "U-PROP-08-once",
        "U-PROP-08-where",
        "U-PROP-09-once",
        "U-PROP-09-where",
        "U-PROP-23-once",
        "U-PROP-23-where",
        "U-PROP-26-where",
        "U-2.2.2-a"
    );
    check(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26], &[0x26], |properties| {
        packet(0x30, &[string("a"), vec![properties.len() as u8], properties.to_vec()].concat())
    });
}

#[test]
fn property_matrix_of_subscribe_and_unsubscribe() {
    check(&[0x0B, 0x26], &[0x26], |properties| subscribe_with(1, properties, &[("a", 0)]));
    check(&[0x26], &[0x26], |properties| {
        packet(0xA2, &[vec![0, 1, properties.len() as u8], properties.to_vec(), string("a")].concat())
    });
}

#[test]
fn property_matrix_of_acknowledgements() {
    proves!("U-PROP-1F-once", "U-PROP-1F-where");
    for first in [0x40, 0x50, 0x62, 0x70] {
        check(&[0x1F, 0x26], &[0x26], |properties| {
            packet(first, &[vec![0, 1, 0, properties.len() as u8], properties.to_vec()].concat())
        });
    }
}

#[test]
fn property_matrix_of_disconnect() {
    proves!("U-PROP-11-where", "U-PROP-1C-where", "U-PROP-1C-once");
    for (id, value) in all() {
        let property = [&[id][..], &value].concat();
        let mut client = broker().connect(&Connect::v5(&unique("property")).expiry(5));
        client.send(&disconnect(0, &property));
        // The table has 0x1C for DISCONNECT, whoever sends it.
        let belongs = [0x11, 0x1C, 0x1F, 0x26].contains(&id);
        if belongs {
            client.expect_closed();
        } else {
            client.expect_end(0x81);
        }
        let mut client = broker().connect(&Connect::v5(&unique("property")).expiry(5));
        client.send(&disconnect(0, &property.repeat(2)));
        match id {
            0x26 => client.expect_closed(),
            _ => client.expect_end(if belongs { 0x82 } else { 0x81 }),
        }
    }
}

/// Checks CONNECT: `with` makes one that has the given property.
fn check_connect(allowed: &[u8], repeatable: &[u8], with: impl Fn(u8, &[u8]) -> Vec<u8>) {
    for (id, value) in all() {
        let connack = |value: &[u8]| {
            let mut client = broker().open();
            client.send(&with(id, value));
            client.receive()[3]
        };
        let twice = [&value[..], &[id], &value].concat();
        if !allowed.contains(&id) {
            assert_eq!(connack(&value), 0x81, "property {id:#04x} does not belong there");
            assert_eq!(connack(&twice), 0x81, "property {id:#04x} does not belong there");
        } else {
            // A method is known by nobody here, and data needs one.
            let once = match id {
                0x15 => 0x8C,
                0x16 => 0x82,
                _ => 0,
            };
            assert_eq!(connack(&value), once, "property {id:#04x} belongs there");
            assert_eq!(connack(&twice), if repeatable.contains(&id) { 0 } else { 0x82 }, "{id:#04x} twice");
        }
    }
}

#[test]
fn property_matrix_of_connect() {
    proves!(
        "U-PROP-11-once",
        "U-PROP-12-once",
        "U-PROP-12-where",
        "U-PROP-13-once",
        "U-PROP-15-once",
        "U-PROP-15-where",
        "U-PROP-16-where",
        "U-PROP-13-where",
        "U-PROP-17-once",
        "U-PROP-17-where",
        "U-PROP-19-once",
        "U-PROP-19-where",
        "U-PROP-1A-once",
        "U-PROP-1A-where",
        "U-PROP-21-once",
        "U-PROP-21-where",
        "U-PROP-22-once",
        "U-PROP-22-where",
        "U-PROP-24-once",
        "U-PROP-24-where",
        "U-PROP-25-once",
        "U-PROP-25-where",
        "U-PROP-27-once",
        "U-PROP-27-where",
        "U-PROP-28-once",
        "U-PROP-28-where",
        "U-PROP-29-once",
        "U-PROP-29-where",
        "U-PROP-2A-once",
        "U-PROP-2A-where"
    );
    // Those that only servers send are misplaced, once or twice; the harness sees that the broker sends none twice.
    check_connect(&[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27], &[0x26], |id, value| {
        Connect::v5(&unique("property")).property(id, value).bytes()
    });
}

#[test]
fn property_matrix_of_a_will() {
    proves!("U-PROP-18-once", "U-PROP-18-where");
    check_connect(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26], &[0x26], |id, value| {
        Connect::v5(&unique("property")).will("a", "b", 0).will_property(id, value).bytes()
    });
}

#[test]
fn property_matrix_of_values() {
    proves!(
        "U-PROP-01-value",
        "U-PROP-08-value",
        "5.0 MQTT-3.3.2-14",
        "U-PROP-17-value",
        "U-PROP-19-value",
        "U-PROP-21-value",
        "U-PROP-27-value",
        "U-PROP-16-value"
    );
    for (id, value) in [(0x01, vec![2]), (0x08, string("a/+")), (0x08, string("#"))] {
        let end = end_of(&Publish::new("a", "").property(id, &value).v5());
        assert!(matches!(end, Some(0x81 | 0x82)), "{id:#04x}: {end:02x?}");
    }
    for (id, value) in [
        (0x17, vec![2]),
        (0x19, vec![2]),
        (0x21, vec![0, 0]),
        (0x27, vec![0, 0, 0, 0]),
        (0x16, string("data without a method")),
    ] {
        let mut client = broker().open();
        client.send(&Connect::v5(&unique("value")).property(id, &value).bytes());
        let connack = client.receive();
        assert!(matches!(connack[3], 0x81 | 0x82), "{id:#04x}: {connack:02x?}");
        client.expect_closed();
    }
}

#[test]
fn values_that_only_servers_send_and_that_are_none() {
    proves!("U-PROP-24-value", "U-PROP-25-value", "U-PROP-28-value", "U-PROP-29-value", "U-PROP-2A-value");
    // The harness sees that the broker sends 0 or 1.
    for id in [0x24, 0x25, 0x28, 0x29, 0x2A] {
        let mut client = broker().open();
        let connect = Connect::v5(&unique("value")).property(id, &[2]);
        client.ask(&connect.bytes(), &[0x20, 3, 0, 0x81, 0]);
        client.expect_closed();
    }
}

#[test]
fn authentication_data_comes_once() {
    proves!("U-PROP-16-once");
    let method = Connect::v5(&unique("data")).property(0x15, &string("SECRET"));
    for (connect, reason) in [
        (method.clone().property(0x16, &string("data")), 0x8C),
        (method.property(0x16, &string("data")).property(0x16, &string("data")), 0x82),
    ] {
        let mut client = broker().open();
        client.ask(&connect.bytes(), &[0x20, 3, 0, reason, 0]);
        client.expect_closed();
    }
}

#[test]
fn lengths_that_do_not_fit() {
    proves!("5.0 MQTT-2.2.2-1", "U-2.1.4-a");
    for body in [
        &[0, 1, b'a', 2, 1][..],
        &[0, 1, b'a', 1, 1],
        &[0, 1, b'a', 0x80],
        &[0, 1, b'a', 5, 3, 0, 9, b'x', b'y'],
    ] {
        assert_eq!(end_of(&packet(0x30, body)), Some(0x81), "{body:02x?}");
    }
    // 5.0 writes a length of 0 when there is nothing.
    assert_eq!(end_of(&packet(0x82, &[0, 1])), Some(0x81));
}
