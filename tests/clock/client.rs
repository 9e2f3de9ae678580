//! What the tests do as clients.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use causeway::codec::{Qos, ReasonCode};

use crate::broker::Broker;
use crate::gate::PATIENCE;
use crate::wire::{Event, Terms, Wire};

/// A durable session with this Session Expiry Interval that gets everything below `q/`.
pub fn subscribe(broker: &Broker, client_id: &str, expiry: u32) -> Wire {
    let mut wire = Wire::connect(broker.address, &terms(client_id, expiry)).unwrap();
    wire.subscribe("q/#", Qos::AtLeastOnce);
    wire.flush().unwrap();
    assert_eq!(wire.expect(), Event::Suback(vec![ReasonCode::GrantedQos1]));
    wire
}

/// The session that this client has left.
pub fn resume(broker: &Broker, client_id: &str, expiry: u32) -> Wire {
    let wire = Wire::connect(broker.address, &terms(client_id, expiry)).unwrap();
    assert!(wire.session_present);
    wire
}

pub fn terms(client_id: &str, expiry: u32) -> Terms {
    Terms { expiry, ..Terms::durable(client_id) }
}

/// Whether there is a session. There is one afterwards.
pub fn has_session(broker: &Broker, client_id: &str, expiry: u32) -> bool {
    let wire = Wire::connect(broker.address, &terms(client_id, expiry)).unwrap();
    let present = wire.session_present;
    wire.disconnect();
    present
}

/// Publishes with QoS 1 and a Message Expiry Interval of some seconds, below 256, and waits for the PUBACK.
pub fn publish(broker: &Broker, topic: &str, payload: &str, expiry: u8, retain: bool) {
    let mut stream = TcpStream::connect(broker.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"\x10\x10\0\x04MQTT\x05\x02\0\x3c\0\0\x03pub").unwrap();
    let mut byte = [0; 2];
    stream.read_exact(&mut byte).unwrap();
    assert_eq!(byte[0], 0x20);
    let mut connack = vec![0; byte[1].into()];
    stream.read_exact(&mut connack).unwrap();
    assert_eq!(connack[1], 0);
    let mut body = vec![0, topic.len() as u8];
    body.extend(topic.bytes());
    body.extend([0, 1, 5, 2, 0, 0, 0, expiry]);
    body.extend(payload.bytes());
    stream.write_all(&[0x32 | u8::from(retain), body.len() as u8]).unwrap();
    stream.write_all(&body).unwrap();
    let mut puback = [0; 4];
    stream.read_exact(&mut puback).unwrap();
    assert_eq!(puback, *b"\x40\x02\0\x01");
}

/// Whether a new subscriber gets the retained message of `q/kept`.
pub fn is_retained(broker: &Broker) -> bool {
    let mut wire = Wire::connect(broker.address, &Terms::passing("reader")).unwrap();
    wire.subscribe("q/kept", Qos::AtMostOnce);
    wire.subscribe("end", Qos::AtMostOnce);
    wire.flush().unwrap();
    assert!(matches!(wire.expect(), Event::Suback(_)));
    // What the first has found comes before what is published after it.
    let mut found = false;
    wire.publish(&crate::wire::Message::new(Qos::AtMostOnce, "end", "end"));
    wire.flush().unwrap();
    loop {
        match wire.expect() {
            Event::Publish(message) if message.payload == "end" => return found,
            Event::Publish(_) => found = true,
            _ => {}
        }
    }
}

/// The next payload that a session gets.
pub fn next(wire: &mut Wire) -> String {
    let message = wire.expect_publish();
    wire.puback(message.packet_id);
    wire.flush().unwrap();
    message.payload
}
