//! UNSUBSCRIBE and UNSUBACK.

use crate::harness::{
    Connect, Publish, ack, broker, suback, suback_v311, subscribe, subscribe_v311, unique, unsubscribe,
    unsubscribe_v311,
};

#[test]
fn every_filter_is_answered_in_order() {
    proves!(
        "5.0 MQTT-3.10.4-1",
        "5.0 MQTT-3.10.4-4",
        "5.0 MQTT-3.10.4-5",
        "5.0 MQTT-3.10.4-6",
        "5.0 MQTT-3.11.3-1",
        "5.0 MQTT-3.11.3-2",
        "3.1.1 MQTT-3.10.4-1",
        "3.1.1 MQTT-3.10.4-4",
        "3.1.1 MQTT-3.10.4-5",
        "3.1.1 MQTT-3.10.4-6"
    );
    let topic = unique("gone");
    let wild = format!("{topic}/+");
    let mut client = broker().connect(&Connect::v5(&unique("gone")));
    client.ask(&subscribe(1, &[(&topic, 0), (&wild, 0)]), &suback(0x90, 1, &[0, 0]));
    let same_but_not_equal = format!("{topic}/x");
    let request = unsubscribe(2, &[&same_but_not_equal, &topic, &topic, "$share/g"]);
    client.ask(&request, &suback(0xB0, 2, &[0x11, 0, 0x11, 0x8F]));
    let mut client = broker().connect(&Connect::v311(&unique("gone")));
    client.ask(&subscribe_v311(1, &[(&topic, 0)]), &suback_v311(1, &[0]));
    client.ask(&unsubscribe_v311(2, &["never", &topic]), &ack(0xB0, 2));
}

#[test]
fn unsubscribe_inflight() {
    proves!("5.0 MQTT-3.10.4-2", "5.0 MQTT-3.10.4-3", "3.1.1 MQTT-3.10.4-2", "3.1.1 MQTT-3.10.4-3");
    let topic = unique("begun");
    let connect = Connect::v5(&unique("begun")).durable();
    let mut client = broker().connect(&connect);
    client.ask(&subscribe(1, &[(&topic, 2)]), &suback(0x90, 1, &[2]));
    let mut sender = broker().connect(&Connect::v5(&unique("begun")));
    sender.ask(&Publish::new(&topic, "begun").qos(2, 1).v5(), &ack(0x50, 1));
    let message = client.message();
    client.ask(&unsubscribe(2, &[&topic]), &suback(0xB0, 2, &[0]));
    sender.send(&Publish::new(&topic, "new").qos(1, 2).v5());
    assert_eq!(sender.receive()[0], 0x40);
    client.expect_nothing();
    client.cut();
    let mut client = broker().resume(&connect);
    let again = client.message();
    assert_eq!((again.dup, again.id), (true, message.id));
    client.ask(&ack(0x50, message.id), &ack(0x62, message.id));
    client.send(&ack(0x70, message.id));
    client.expect_nothing();
}

#[test]
fn without_filters_or_flags_it_is_an_error() {
    proves!(
        "U-3.10.3-a",
        "5.0 MQTT-3.10.3-2",
        "5.0 MQTT-3.10.1-1",
        "3.1.1 MQTT-3.10.3-2",
        "3.1.1 MQTT-3.10.1-1"
    );
    let mut client = broker().connect(&Connect::v5(&unique("none")));
    client.send(&unsubscribe(1, &[]));
    client.expect_end(0x82);
    let mut client = broker().connect(&Connect::v311(&unique("none")));
    client.send(&unsubscribe_v311(1, &[]));
    client.expect_closed();
    let mut client = broker().connect(&Connect::v5(&unique("flags")));
    let mut request = unsubscribe(1, &["a"]);
    request[0] = 0xA0;
    client.send(&request);
    client.expect_end(0x81);
}
