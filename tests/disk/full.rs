//! Full is not failed: publishes are refused, everything else goes on, and it ends by itself.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use causeway::codec::{Qos, ReasonCode};

use crate::broker::{Broker, Start};
use crate::gate::PATIENCE;
use crate::small_disk::SmallDisk;
use crate::wire::{Event, Message, Terms, Wire};

/// Bytes of messages under way at once.
const WINDOW_BYTES: usize = 200_000;

/// Makes a durable session that waits for everything below `q/`, and leaves.
pub fn leave_session(broker: &Broker, client_id: &str) {
    leave_session_at(broker, client_id, "q/#");
}

fn leave_session_at(broker: &Broker, client_id: &str, filter: &str) {
    let mut wire = Wire::connect(broker.address, &Terms::durable(client_id)).unwrap();
    wire.subscribe(filter, Qos::AtLeastOnce);
    wire.flush().unwrap();
    assert_eq!(wire.expect(), Event::Suback(vec![ReasonCode::GrantedQos1]));
    wire.disconnect();
}

/// The payload of the n-th message: its number, and so many bytes in all.
pub fn payload(number: usize, size: usize) -> String {
    let number = number.to_string();
    format!("{number}{}", " ".repeat(size - number.len()))
}

/// Publishes one message with QoS 1 and gives the answer.
fn publish(wire: &mut Wire, payload: String) -> ReasonCode {
    wire.publish(&Message::new(Qos::AtLeastOnce, "q/a", &payload).id(1));
    wire.flush().unwrap();
    match wire.expect() {
        Event::Puback(1, reason) => reason,
        other => panic!("not a PUBACK: {other:?}"),
    }
}

/// Publishes messages of this size, some at once, until one is refused; gives the numbers of those that were
/// taken.
fn publish_until_refused(broker: &Broker, size: usize) -> Vec<usize> {
    publish_to_until_refused(broker, size, |_| "q/a".into())
}

fn publish_to_until_refused(broker: &Broker, size: usize, topic: impl Fn(usize) -> String) -> Vec<usize> {
    let mut wire = Wire::connect(broker.address, &Terms::passing("publisher")).unwrap();
    let (mut taken, mut next) = (Vec::new(), 0);
    loop {
        let numbers = next..next + (WINDOW_BYTES / size).min(200);
        next = numbers.end;
        for (index, number) in numbers.clone().enumerate() {
            let message = Message::new(Qos::AtLeastOnce, &topic(number), &payload(number, size));
            wire.publish(&message.id(index as u16 + 1));
        }
        wire.flush().unwrap();
        let mut is_refused = false;
        for number in numbers {
            match wire.expect() {
                Event::Puback(_, reason) if !reason.is_error() => taken.push(number),
                Event::Puback(_, ReasonCode::QuotaExceeded) => is_refused = true,
                other => panic!("{other:?}"),
            }
        }
        if is_refused {
            return taken;
        }
    }
}

/// Takes as many messages, or all there are, and gives their numbers. Nothing comes twice, and nothing after.
pub fn drain(broker: &Broker, client_id: &str, size: usize, count: Option<usize>) -> Vec<usize> {
    let mut wire = Wire::connect(broker.address, &Terms::durable(client_id)).unwrap();
    assert!(wire.session_present);
    let mut numbers = Vec::new();
    loop {
        wire.flush().unwrap();
        let expects = count.is_some_and(|count| numbers.len() < count);
        match wire.next(if expects { PATIENCE } else { Duration::from_millis(500) }).unwrap() {
            None => break,
            Some(Event::Publish(message)) => {
                assert!(!message.dup && message.payload.len() == size, "{message:?}");
                numbers.push(message.payload.trim().parse().unwrap());
                wire.puback(message.packet_id);
            }
            Some(other) => panic!("not a PUBLISH: {other:?}"),
        }
    }
    wire.disconnect();
    numbers
}

/// Has a session take exactly these.
fn assert_drains(broker: &Broker, client_id: &str, size: usize, numbers: &[usize]) {
    assert_eq!(drain(broker, client_id, size, Some(numbers.len())), numbers);
}

/// A 3.1.1 client publishes with QoS 1. Gives what it hears until the end of its connection.
fn publish_v311(broker: &Broker) -> Vec<u8> {
    let mut stream = TcpStream::connect(broker.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"\x10\x0e\0\x04MQTT\x04\x02\0\x3c\0\x02v3").unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).unwrap();
    assert_eq!(connack, *b"\x20\x02\0\0");
    stream.write_all(b"\x32\x08\0\x03q/a\0\x07x").unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    heard
}

/// QoS 0 goes on between clients that are there.
fn assert_qos0_goes_on(broker: &Broker) {
    let mut wire = Wire::connect(broker.address, &Terms::passing("live")).unwrap();
    wire.subscribe("live", Qos::AtLeastOnce);
    wire.flush().unwrap();
    assert_eq!(wire.expect(), Event::Suback(vec![ReasonCode::GrantedQos1]));
    wire.publish(&Message::new(Qos::AtMostOnce, "live", "x"));
    wire.flush().unwrap();
    assert_eq!(wire.expect_publish().payload, "x");
}

fn assert_refuses_new_sessions(broker: &Broker) {
    let mut stream = TcpStream::connect(broker.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // 5.0 with a Session Expiry Interval of one hour.
    stream.write_all(b"\x10\x15\0\x04MQTT\x05\0\0\x3c\x05\x11\0\0\x0e\x10\0\x03new").unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).unwrap();
    assert_eq!((connack[0], connack[3]), (0x20, 0x97), "{connack:x?}");
}

fn lines_with(log: &str, text: &str) -> usize {
    log.lines().filter(|line| line.contains(text)).count()
}

fn fill_and_drain(size: usize) {
    let Some(disk) = SmallDisk::new(32) else { return };
    let data = disk.path.join("data");
    let broker = Broker::start(&Start::on(&data));
    leave_session(&broker, "sub");
    leave_session(&broker, "other");
    let taken = publish_until_refused(&broker, size);
    broker.until_it_says("the disk is nearly full");
    let (status, body) = broker.get("/readyz");
    assert!(status == 503 && body.contains("nearly full"), "{status} {body}");
    assert_eq!(broker.get("/healthz").0, 200, "full is not failed");
    assert_eq!(publish_v311(&broker), b"", "no acknowledgement, and the end");
    assert_qos0_goes_on(&broker);
    assert_refuses_new_sessions(&broker);

    assert_eq!(lines_with(&broker.log(), "nearly full"), 1, "{}", broker.log());

    // One reads all of it while it is full, the other after a restart.
    assert_drains(&broker, "sub", size, &taken);
    assert_eq!(broker.get("/readyz").0, 503, "it is still owed to the other");
    let broker = broker.restart(&Start::on(&data));
    assert_drains(&broker, "other", size, &taken);
    broker.until_it_is_ready();

    // The file has not become shorter, but it has room inside.
    let again = publish_until_refused(&broker, size);
    assert!(again.len() * 2 > taken.len(), "{} and {} before", again.len(), taken.len());
    assert_drains(&broker, "sub", size, &again);
    assert_drains(&broker, "other", size, &again);
    broker.until_it_says("the disk has room");
    broker.until_it_is_ready();
    eprintln!("{} and {} messages of {size} bytes were taken", taken.len(), again.len());
}

#[test]
fn a_full_disk_refuses_drains_and_recovers() {
    fill_and_drain(4000);
}

#[test]
fn as_much_with_small_messages() {
    fill_and_drain(300);
}

#[test]
fn as_much_with_messages_longer_than_a_page() {
    fill_and_drain(70_000);
}

/// What they settle is everywhere in the database, so that as many pages as possible are copied at once.
#[test]
fn many_sessions_drain_a_full_disk_at_once() {
    const SESSIONS: usize = 40;
    let Some(disk) = SmallDisk::new(32) else { return };
    let broker = Broker::start(&Start::on(&disk.path.join("data")));
    (0..SESSIONS).for_each(|n| leave_session_at(&broker, &format!("s{n}"), &format!("many/{n}")));
    let taken = publish_to_until_refused(&broker, 300, |number| format!("many/{}", number % SESSIONS));
    broker.until_it_says("the disk is nearly full");
    std::thread::scope(|scope| {
        for n in 0..SESSIONS {
            let (broker, taken) = (&broker, &taken);
            scope.spawn(move || {
                let own: Vec<_> = taken.iter().copied().filter(|number| number % SESSIONS == n).collect();
                assert_drains(broker, &format!("s{n}"), 300, &own);
            });
        }
    });
    broker.until_it_says("the disk has room");
}

#[test]
fn room_that_somebody_else_makes_is_noticed() {
    let Some(disk) = SmallDisk::new(32) else { return };
    let broker = Broker::start(&Start::on(&disk.path.join("data")));
    leave_session(&broker, "sub");
    let mut wire = Wire::connect(broker.address, &Terms::passing("publisher")).unwrap();
    wire.publish(&Message::new(Qos::AtLeastOnce, "kept/a", "kept").retained().id(1));
    wire.flush().unwrap();
    assert_eq!(wire.expect(), Event::Puback(1, ReasonCode::NoMatchingSubscribers));
    disk.fill(26 << 20);
    broker.until_it_says("the disk is nearly full");
    assert_eq!(publish(&mut wire, payload(0, 10)), ReasonCode::QuotaExceeded);
    // What is retained would be stored for the session: that waits.
    let mut resumed = Wire::connect(broker.address, &Terms::durable("sub")).unwrap();
    resumed.subscribe("kept/#", Qos::AtLeastOnce);
    resumed.flush().unwrap();
    assert_eq!(resumed.expect(), Event::Suback(vec![ReasonCode::GrantedQos1]));
    assert_eq!(resumed.next(Duration::from_millis(500)).unwrap(), None);
    disk.clear();
    let kept = resumed.expect_publish();
    assert!(kept.retain && kept.payload == "kept", "{kept:?}");
    resumed.puback(kept.packet_id);
    resumed.disconnect();
    broker.until_it_says("the disk has room");
    assert_eq!(publish(&mut wire, payload(0, 10)), ReasonCode::Success);
    assert_drains(&broker, "sub", 10, &[0]);
}
