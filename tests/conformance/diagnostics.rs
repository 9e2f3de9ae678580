//! Texts for people (Reason String, User Property) are never in the way: an answer arrives however little room
//! its client leaves, and without texts for one that wants none.

use crate::harness::{
    Client, Connect, Publish, ack, ack_with, broker, packet, string, suback, subscribe, unique, unsubscribe,
};

/// A client that takes no packet larger than the CONNACK it got.
fn cramped(connect: impl Fn() -> Connect) -> Client {
    let connack = broker().open().connect(&connect().property(0x27, &[0, 0, 0, 200]), false);
    let mut client = broker().open();
    let exact = connect().property(0x27, &(connack.len() as u32).to_be_bytes());
    assert_eq!(client.connect(&exact, false).len(), connack.len());
    client
}

/// Asks for one error of each kind that the connection outlives, and checks that there is no text.
fn answers_are_short(client: &mut Client) {
    client.ask(&Publish::new(&unique("nobody"), "").qos(1, 1).v5(), &ack_with(0x40, 1, 0x10));
    client.ask(&Publish::new(&unique("nobody"), "").qos(2, 2).v5(), &ack_with(0x50, 2, 0x10));
    client.ask(&ack(0x50, 3), &ack_with(0x62, 3, 0x92));
    client.ask(&ack(0x62, 4), &ack_with(0x70, 4, 0x92));
    client.ask(&subscribe(5, &[("$share/g", 0)]), &suback(0x90, 5, &[0x8F]));
    client.ask(&unsubscribe(6, &["never"]), &suback(0xB0, 6, &[0x11]));
}

#[test]
fn an_answer_fits_its_client() {
    proves!(
        "5.0 MQTT-3.2.2-19",
        "5.0 MQTT-3.2.2-20",
        "5.0 MQTT-3.4.2-2",
        "5.0 MQTT-3.4.2-3",
        "5.0 MQTT-3.5.2-2",
        "5.0 MQTT-3.5.2-3",
        "5.0 MQTT-3.6.2-2",
        "5.0 MQTT-3.6.2-3",
        "5.0 MQTT-3.7.2-2",
        "5.0 MQTT-3.7.2-3",
        "5.0 MQTT-3.9.2-1",
        "5.0 MQTT-3.9.2-2",
        "5.0 MQTT-3.11.2-1",
        "5.0 MQTT-3.11.2-2",
        "5.0 MQTT-3.14.2-3",
        "5.0 MQTT-3.14.2-4"
    );
    let mut client = cramped(|| Connect::v5(&unique("cramped")));
    answers_are_short(&mut client);
    client.send(&packet(0x20, &[0, 0]));
    client.expect(&[0xE0, 1, 0x82]);
    client.expect_closed();
    // A refusal has just the room that it needs.
    let mut client = broker().open();
    let refused = Connect::v5(&unique("cramped")).property(0x15, &string("SECRET"));
    client.ask(&refused.property(0x27, &[0, 0, 0, 5]).bytes(), &[0x20, 3, 0, 0x8C, 0]);
    client.expect_closed();
}

#[test]
fn who_wants_no_texts_gets_none() {
    proves!("5.0 MQTT-3.1.2-29");
    let mut client = broker().connect(&Connect::v5(&unique("short")).property(0x17, &[0]));
    answers_are_short(&mut client);
}
