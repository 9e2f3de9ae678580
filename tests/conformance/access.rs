//! Who is let in, and who may publish.

use tempfile::TempDir;

use crate::harness::{Broker, Connect, Publish, Version, ack, ack_with, packet, string, unique};

/// The hash of "secret".
const HASH: &str = "$7$1000$AAECAwQFBgcICQoL$4wTcmyeXKbX+eU8mRAv8RuY7FkPT5YqwsG6AZlmHKNwWPzuBfjOpFNbp6eDXGOQ94FxpOi30RqAptC1OfHP0KA==";

/// A broker that asks for a login: "ada" may publish below `open/`, "bob" may do everything. The folder has its
/// files.
fn guarded() -> (Broker, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let (passwords, acl) = (folder.path().join("passwords"), folder.path().join("acl"));
    std::fs::write(&passwords, format!("ada:{HASH}\nbob:{HASH}\n")).unwrap();
    std::fs::write(&acl, "user ada\ntopic readwrite open/#\nuser bob\ntopic readwrite #\n").unwrap();
    let config = format!("[auth]\nanonymous = false\npassword_file = {passwords:?}\nacl_file = {acl:?}");
    (Broker::start(&config), folder)
}

#[test]
fn who_is_not_let_in_is_closed_and_disturbs_no_session() {
    proves!("5.0 MQTT-3.1.4-2", "5.0 MQTT-3.2.2-6", "3.1.1 MQTT-3.2.2-4");
    let (broker, _files) = guarded();
    for version in Version::BOTH {
        let durable = Connect::new(version, &unique("stored")).durable();
        let good = durable.clone().user("ada", Some("secret"));
        let mut inside = broker.connect(&good);
        let [bad, none] = if version == Version::V5 { [0x86, 0x87] } else { [4, 5] };
        for (refused, reason) in [(durable.clone().user("ada", Some("Secret")), bad), (durable.clone(), none)]
        {
            let mut client = broker.open();
            client.send(&refused.bytes());
            let connack = client.receive();
            assert_eq!((connack[0], connack[2], connack[3]), (0x20, 0, reason), "{connack:02x?}");
            client.expect_closed();
        }
        inside.expect_nothing();
        inside.leave();
        broker.resume(&good).expect_nothing();
    }
}

#[test]
fn the_payload_of_connect_has_an_order() {
    proves!("5.0 MQTT-3.1.3-1", "3.1.1 MQTT-3.1.3-1");
    let (broker, _files) = guarded();
    for version in Version::BOTH {
        let mut witness = broker.connect(&Connect::new(version, "witness").user("bob", Some("secret")));
        witness.subscribe("open/will", 0);
        broker
            .connect(&Connect::new(version, "right").will("open/will", "gone", 0).user("ada", Some("secret")))
            .cut();
        witness.expect_publish(&Publish::new("open/will", "gone"));
        let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        let head = [&string("MQTT")[..], &[version as u8, 0xC6, 0, 0], properties].concat();
        let will = [properties, &string("open/will"), &string("gone")].concat();
        let login = [string("ada"), string("secret")].concat();
        let id = string("wrong");
        for payload in [[&id, &login, &will], [&will, &id, &login], [&login, &id, &will]] {
            let mut client = broker.open();
            client.send(&packet(0x10, &[head.clone(), payload.map(Vec::as_slice).concat()].concat()));
            while let Some(packet) = client.next() {
                assert!(packet[0] == 0x20 && packet[3] > 0, "let in: {packet:02x?}");
            }
        }
        witness.expect_nothing();
    }
}

#[test]
fn who_may_not_publish_is_acknowledged_before_5_and_nobody_hears_it() {
    proves!("3.1.1 MQTT-3.3.5-2");
    let (broker, _files) = guarded();
    let mut witness = broker.connect(&Connect::v311("witness").user("bob", Some("secret")));
    witness.subscribe("#", 0);
    let mut client = broker.connect(&Connect::v311("publisher").user("ada", Some("secret")));
    client.publish(&Publish::new("closed/x", "x"));
    client.ask(&Publish::new("closed/x", "x").qos(1, 1).v311(), &ack(0x40, 1));
    client.ask(&Publish::new("closed/x", "x").qos(2, 2).v311(), &ack(0x50, 2));
    client.ask(&ack(0x62, 2), &ack(0x70, 2));
    client.ask(&Publish::new("open/x", "x").qos(1, 3).v311(), &ack(0x40, 3));
    witness.expect_publish(&Publish::new("open/x", "x"));
    witness.expect_nothing();
}

#[test]
fn after_an_error_pubrec_the_identifier_is_a_new_one() {
    proves!("5.0 MQTT-4.3.3-9");
    let (broker, _files) = guarded();
    let mut witness = broker.connect(&Connect::v5("witness").user("bob", Some("secret")));
    witness.subscribe("#", 0);
    let mut client = broker.connect(&Connect::v5("publisher").user("ada", Some("secret")));
    for round in ["one", "two"] {
        client.ask(&Publish::new("closed/x", round).qos(2, 1).v5(), &ack_with(0x50, 1, 0x87));
        client.ask(&Publish::new("open/x", round).qos(2, 1).dup().v5(), &ack(0x50, 1));
        witness.expect_publish(&Publish::new("open/x", round));
        client.ask(&ack(0x62, 1), &ack(0x70, 1));
    }
    witness.expect_nothing();
}
