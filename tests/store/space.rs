//! Space: what is freed is used again, given back at a start, and bounded by `store.size_max`.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use crate::broker::{Home, Running};
use crate::wire::{Client, Connect, Publish, ack, ack_with, suback, subscribe};

const MIB: u64 = 1 << 20;

fn durable(id: &str) -> Connect {
    Connect::v5(id).expiry(3600).resuming()
}

/// A durable session that waits for what comes to its name.
fn keeper(broker: &Running, id: &str) {
    let mut keeper = broker.connect(&durable(id));
    keeper.ask(&subscribe(1, &[(id, 1)]), &suback(0x90, 1, &[1]));
    keeper.leave();
}

/// Publishes `count` messages, a window at a time; the reasons of the PUBACKs.
fn publish(client: &mut Client, topic: &str, payload: &str, count: usize) -> Vec<u8> {
    let mut reasons = Vec::new();
    let mut left = count;
    while left > 0 {
        let window = left.min(50);
        let packets = (1..=window).flat_map(|id| Publish::new(topic, payload).qos(1, id as u16).v5());
        client.send(&packets.collect::<Vec<_>>());
        for _ in 0..window {
            let ack = client.receive();
            assert_eq!(ack[0], 0x40, "{ack:02x?}");
            reasons.push(ack.get(4).copied().unwrap_or(0));
        }
        left -= window;
    }
    reasons
}

/// Takes `count` messages, as many as it is owed.
fn drain(broker: &Running, id: &str, count: usize) {
    let mut client = broker.resume(&durable(id));
    (0..count).for_each(|_| drop(client.take_qos_1()));
    client.leave();
}

fn occupied(home: &Home) -> u64 {
    fs::metadata(home.file()).unwrap().blocks() * 512
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not within time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn freed_pages_are_used_again() {
    for (size, count) in [(200, 12_000), (1000, 4_000), (5_000, 1_000)] {
        let home = Home::new("");
        let broker = home.start();
        keeper(&broker, "keeper");
        let mut sender = broker.connect(&Connect::v5("sender"));
        let payload = "x".repeat(size);
        let mut largest = 0;
        for _ in 0..4 {
            publish(&mut sender, "keeper", &payload, count);
            largest = largest.max(occupied(&home));
            drain(&broker, "keeper", count);
            largest = largest.max(occupied(&home));
        }
        let peak = (size * count) as u64;
        eprintln!("{count} messages of {size}: {:.2} of the peak", largest as f64 / peak as f64);
        assert!(largest < 2 * peak + MIB, "{size}: {largest} for {peak}");
    }
}

#[test]
fn a_start_gives_back_what_is_not_needed() {
    let home = Home::new("");
    let broker = home.start();
    keeper(&broker, "a");
    keeper(&broker, "b");
    let mut sender = broker.connect(&Connect::v5("sender"));
    let payload = "x".repeat(100_000);
    // The one that stays lies behind those that go.
    publish(&mut sender, "a", &payload, 800);
    publish(&mut sender, "b", &payload, 1);
    drain(&broker, "a", 800);
    broker.stop();
    let before = occupied(&home);
    assert!(before > 64 * MIB, "{before}");
    home.configure("compact_at_start = false");
    home.start().stop();
    assert!(occupied(&home) > 64 * MIB, "not without being asked");
    home.configure("");
    let broker = home.start();
    let log = home.log();
    assert!(log.contains("the database is compacted:"), "{log}");
    let after = occupied(&home);
    assert!(after < 4 * MIB, "{before} {after}");
    drain(&broker, "b", 1);
}

#[test]
fn a_budget_refuses_publishes_until_there_is_room() {
    let home = Home::new("size_max = \"20 MiB\"");
    let broker = home.start();
    keeper(&broker, "keeper");
    let mut sender = broker.connect(&Connect::v5("sender"));
    let payload = "x".repeat(20_000);
    let mut taken = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < deadline, "{taken} were taken");
        match publish(&mut sender, "keeper", &payload, 1)[..] {
            [0] => taken += 1,
            [0x97] => break,
            ref other => panic!("{other:02x?}"),
        }
    }
    let full = occupied(&home);
    assert!(full <= 20 * MIB, "{full}");
    assert!(taken > 300, "{taken}");
    let (status, body) = broker.get("/readyz");
    assert!(status == 503 && body.contains("store.size_max"), "{status} {body}");
    let (_, metrics) = broker.get("/metrics");
    assert!(metrics.contains("causeway_store_over_budget 1"), "{metrics}");
    assert!(home.log().contains("nine tenths of store.size_max (20.0 MiB)"), "{}", home.log());
    // What needs no disk goes on.
    sender.ask(&Publish::new("nobody", "x").qos(1, 9).v5(), &ack_with(0x40, 9, 0x10));
    drain(&broker, "keeper", taken);
    eventually("it is ready again", || broker.get("/readyz").0 == 200);
    sender.ask(&Publish::new("keeper", "again").qos(1, 9).v5(), &ack(0x40, 9));
    assert!(occupied(&home) <= 20 * MIB);
    assert!(home.log().contains("the database has room"), "{}", home.log());
}
