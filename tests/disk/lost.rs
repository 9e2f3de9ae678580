//! A write that fails for want of room ends the process, with a reason, and costs nothing acknowledged.

use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use causeway::codec::{Qos, ReasonCode};

use crate::broker::{Broker, Start};
use crate::full::{drain, leave_session, payload};
use crate::gate::PATIENCE;
use crate::small_disk::SmallDisk;
use crate::wire::{Event, Message, Terms, Wire};

const SIZE: usize = 20_000;

/// Most messages that are under way.
const WINDOW: usize = 50;

/// What became of a window of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Acknowledged,
    /// The disk was full, and the broker knew.
    Refused,
    /// The connection has ended.
    Closed,
}

/// Publishes a window of messages at once, numbered from `from`, and gives how many were acknowledged: those in
/// front.
fn publish_window(wire: &mut Wire, from: usize) -> (usize, End) {
    for index in 0..WINDOW {
        let message = Message::new(Qos::AtLeastOnce, "q/a", &payload(from + index, SIZE));
        wire.publish(&message.id(index as u16 + 1));
    }
    if wire.flush().is_err() {
        return (0, End::Closed);
    }
    let (mut acknowledged, mut end) = (0, End::Acknowledged);
    for index in 0..WINDOW {
        match wire.next(PATIENCE) {
            Ok(Some(Event::Puback(_, ReasonCode::QuotaExceeded))) => end = End::Refused,
            Ok(Some(Event::Puback(id, reason))) => {
                assert!(usize::from(id) == index + 1 && !reason.is_error(), "{id} {reason:?}");
                assert_eq!(end, End::Acknowledged, "nothing is taken after it");
                acknowledged += 1;
            }
            _ => return (acknowledged, End::Closed),
        }
    }
    (acknowledged, end)
}

fn assert_said_why(status: ExitStatus, log: &str, reason: &str) {
    assert_eq!(status.code(), Some(3), "{log}");
    assert!(log.contains(reason) && log.contains("the store has failed"), "{log}");
    assert!(log.lines().last().unwrap().contains("stopped"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

/// Everything that was acknowledged is there, and after it at most what was under way.
fn assert_kept(data: &Path, acknowledged: usize) {
    let broker = Broker::start(&Start::on(data));
    let numbers = drain(&broker, "sub", SIZE, Some(acknowledged));
    assert!((acknowledged..=acknowledged + WINDOW).contains(&numbers.len()), "{acknowledged} {numbers:?}");
    assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>());
}

#[test]
fn a_disk_that_somebody_else_fills_to_the_last_byte() {
    let Some(disk) = SmallDisk::new(32) else { return };
    let data = disk.path.join("data");
    let start = Start { store: "free_space_min = \"4 KiB\"", ..Start::on(&data) };
    let broker = Broker::start(&start);
    leave_session(&broker, "sub");
    let mut wire = Wire::connect(broker.address, &Terms::passing("publisher")).unwrap();
    let mut acknowledged = 0;
    loop {
        // It does not look at the disk between the publishes and the end of all room; it may do so before it
        // writes.
        broker.signal("STOP");
        let publisher = std::thread::spawn(move || {
            let ended = publish_window(&mut wire, acknowledged);
            (wire, ended)
        });
        std::thread::sleep(Duration::from_millis(200));
        disk.fill(32 << 20);
        broker.signal("CONT");
        let (more, end);
        (wire, (more, end)) = publisher.join().unwrap();
        acknowledged += more;
        if end == End::Closed {
            break;
        }
        disk.clear();
        broker.until_it_is_ready();
    }
    let (status, log) = broker.wait();
    assert_said_why(status, &log, "No space left on device");

    // While there is no room it says so, or does without.
    match Broker::try_start(&start) {
        Ok(broker) => drop(broker),
        Err((status, said)) => {
            assert_eq!(status.code(), Some(1), "{said}");
            assert!(said.contains("No space left on device"), "{said}");
        }
    }
    disk.clear();
    assert_kept(&data, acknowledged);
}

#[test]
fn a_limit_on_the_length_of_files_is_a_failed_write() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let start = Start { file_size_max: Some(6 * 1024), ..Start::on(&data) };
    let broker = Broker::start(&start);
    leave_session(&broker, "sub");
    let mut wire = Wire::connect(broker.address, &Terms::passing("publisher")).unwrap();
    let mut acknowledged = 0;
    loop {
        let (more, end) = publish_window(&mut wire, acknowledged);
        acknowledged += more;
        if end == End::Closed {
            break;
        }
        assert_eq!(end, End::Acknowledged);
    }
    let (status, log) = broker.wait();
    assert_said_why(status, &log, "File too large");
    assert!(acknowledged > 0);
    assert_kept(&data, acknowledged);
}
