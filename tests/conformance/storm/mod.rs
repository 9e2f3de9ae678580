//! Packets with something wrong in them, thousands in every run and as many as one likes: at every state of a
//! connection, in every version.
//!
//! What is wrong is found out by a second opinion (`judge`). The broker has to close those connections, tell
//! 5.0 clients why, go on with all others, serve its other clients meanwhile, and grow no larger.
//!
//! `CAUSEWAY_STORM=1000000` sets how many packets are sent, `CAUSEWAY_STORM_SEED` which ones.

mod judge;
mod seeds;

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use crate::harness::{Broker, Client, Connect, Dice, Publish, Version, ack, ack_with, suback, subscribe};
use judge::{Judgement, Side, judge};
use seeds::{burst, connects, mutated};

const PACKETS: usize = 5_000;
const THREADS: usize = 8;

/// Little is kept, so that what a run leaves does not count as growth.
const CONFIG: &str = "[limits]\nsession_expiry = \"2s\"";

/// How long any other client may have to wait for its answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// More than the tables of what a run leaves, less than a leak of a hundred bytes a packet.
const GROWTH_MAX: u64 = 64 * 1024 * 1024;

#[test]
fn storm_of_malformed_packets() {
    let packets = number("CAUSEWAY_STORM").unwrap_or(PACKETS);
    let seed = number("CAUSEWAY_STORM_SEED").unwrap_or(0x5EED_0002) as u64;
    let broker = Broker::start(CONFIG);
    let (over, counts) = (AtomicBool::new(false), Counts::default());
    std::thread::scope(|scope| {
        let witness = scope.spawn(|| witness(&broker, &over));
        let ends_it = Ends(&over);
        let run = |packets: usize, seed: u64| {
            std::thread::scope(|scope| {
                for thread in 0..THREADS {
                    let (broker, counts) = (&broker, &counts);
                    scope.spawn(move || {
                        attack(broker, thread, packets / THREADS, seed + thread as u64, counts)
                    });
                }
            });
            broker.resident()
        };
        let warm = run(packets / 4, seed);
        let after = run(packets - packets / 4, seed + 1000);
        drop(ends_it);
        assert!(witness.join().unwrap() > 10, "the witness was served");
        if let (Some(warm), Some(after)) = (warm, after) {
            assert!(after < warm + GROWTH_MAX, "{warm} bytes grew to {after}");
        }
    });
    assert_eq!(broker.panics(), Vec::<String>::new());
    broker.connect(&Connect::v5("after")).expect_nothing();
    println!("{counts:?}");
    // Enough of each, or the storm is none.
    let [sent, wrong] = [&counts.sent, &counts.wrong].map(|count| count.load(Ordering::Relaxed));
    assert!(sent + THREADS > packets && wrong > packets / 5 && wrong < sent, "{counts:?}");
}

/// Ends the witness, also when the test has failed.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What was sent and what came of it.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicUsize,
    wrong: AtomicUsize,
    incomplete: AtomicUsize,
    connects: AtomicUsize,
}

impl Counts {
    fn count(&self, expected: Expected) {
        let count = match expected {
            Expected::Goes => return,
            Expected::Waits => &self.incomplete,
            Expected::Ends | Expected::MayEnd => &self.wrong,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn number(name: &str) -> Option<usize> {
    std::env::var(name).ok()?.parse().ok()
}

/// A client that keeps to the rules, and is served all the time. Says how often it was.
fn witness(broker: &Broker, over: &AtomicBool) -> usize {
    let mut client = broker.connect(&Connect::v5("witness"));
    client.ask(&subscribe(1, &[("witness", 1)]), &suback(0x90, 1, &[1]));
    let mut rounds = 0;
    while !over.load(Ordering::Relaxed) {
        let since = Instant::now();
        client.send(&Publish::new("witness", "x").qos(1, 1).v5());
        let mut packets = [client.receive(), client.receive()];
        packets.sort();
        assert_eq!((packets[0][0], &packets[1]), (0x32, &ack(0x40, 1)));
        client.send(&ack(0x40, u16::from_be_bytes([packets[0][11], packets[0][12]])));
        assert!(since.elapsed() < PATIENCE, "the witness had to wait {:?}", since.elapsed());
        rounds += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    rounds
}

/// Attacks until so many packets were sent.
fn attack(broker: &Broker, thread: usize, packets: usize, seed: u64, counts: &Counts) {
    let mut dice = Dice::new(seed);
    let mut sent = 0;
    while sent < packets {
        // Names of which none becomes that of another thread by a few changes.
        let letters =
            ["aaaaaaaa", "bbbbbbbb", "cccccccc", "dddddddd", "eeeeeeee", "ffffffff", "gggggggg", "hhhhhhhh"]
                [thread];
        let name = format!("{letters}{}", dice.roll(4));
        sent += if dice.one_in(4) {
            attack_connect(broker, &name, &mut dice, counts)
        } else {
            attack_connection(broker, &name, &mut dice, counts)
        };
    }
    counts.sent.fetch_add(sent, Ordering::Relaxed);
}

/// A CONNECT with something wrong in it. Nobody is told anything but by a CONNACK.
fn attack_connect(broker: &Broker, name: &str, dice: &mut Dice, counts: &Counts) -> usize {
    let seed = dice.roll(6);
    let bytes = mutated(&connects(name)[seed], dice);
    counts.connects.fetch_add(1, Ordering::Relaxed);
    let context = || format!("CONNECT {bytes:02x?}");
    let judgement = judge(None, Side::Client, &bytes);
    let mut client = broker.open();
    client.send(&bytes);
    if judgement == Judgement::Incomplete {
        client.half_close();
    }
    let Some(answer) = client.next() else {
        // Taken over before it was let in, or of a version that has no words for it.
        return 1;
    };
    assert_eq!(answer[0], 0x20, "{answer:02x?} to {}", context());
    if answer[3] != 0 {
        client.expect_closed();
    } else {
        assert!(matches!(judgement, Judgement::Right(..)), "accepted: {}", context());
    }
    1
}

/// Packets on a connection that was brought to some state before, until it ends.
fn attack_connection(broker: &Broker, name: &str, dice: &mut Dice, counts: &Counts) -> usize {
    let version = [Version::V31, Version::V311, Version::V5, Version::V5][dice.roll(4)];
    let Some(mut client) = prepare(broker, version, name, dice) else { return 0 };
    for sent in 1..=20 {
        let bytes = burst(version, name, dice);
        let (expected, pings) = Expected::of(version, &bytes);
        counts.count(expected);
        send(&mut client, &bytes, expected, dice);
        match outcome(&mut client, version, pings) {
            Outcome::Goes => assert_ne!(expected, Expected::Ends, "{version:?} goes on after {bytes:02x?}"),
            Outcome::Ended(reason) => {
                check_end(version, expected, reason, &bytes);
                return sent;
            }
        }
    }
    client.leave();
    20
}

/// What the second opinion makes of what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Goes,
    /// The connection ends, with a reason.
    Ends,
    /// It may: acknowledgements and aliases can be wrong at the state of the connection, and a session can be
    /// ended by its client.
    MayEnd,
    /// The last packet is not whole.
    Waits,
}

impl Expected {
    /// Also says how many PINGREQs there are before anything that ends the connection.
    fn of(version: Version, mut bytes: &[u8]) -> (Self, usize) {
        let (mut may_end, mut pings) = (false, 0);
        while !bytes.is_empty() {
            let Judgement::Right(kind, length) = judge(Some(version), Side::Client, bytes) else { break };
            let (packet, rest) = bytes.split_at(length);
            match kind {
                // A connection without a method has no AUTH.
                15 => break,
                14 => return (Self::MayEnd, pings),
                4 | 5 | 7 => may_end = true,
                3 => may_end |= packet.contains(&0x23),
                12 => pings += 1,
                _ => {}
            }
            bytes = rest;
        }
        let expected = match judge(Some(version), Side::Client, bytes) {
            _ if bytes.is_empty() && may_end => Self::MayEnd,
            _ if bytes.is_empty() => Self::Goes,
            Judgement::Incomplete => Self::Waits,
            _ if may_end => Self::MayEnd,
            _ => Self::Ends,
        };
        (expected, pings)
    }
}

/// What became of a connection.
enum Outcome {
    Goes,
    /// With the reason of its DISCONNECT.
    Ended(Option<u8>),
}

/// Sends the bytes, in pieces now and then, and a PINGREQ; or the end when that would become part of a packet.
fn send(client: &mut Client, bytes: &[u8], expected: Expected, dice: &mut Dice) {
    let cut = if dice.one_in(4) { dice.roll(bytes.len()) } else { 0 };
    client.send(&bytes[..cut]);
    client.send(&bytes[cut..]);
    if expected == Expected::Waits {
        client.half_close();
    } else {
        client.send(&[0xC0, 0]);
    }
}

/// Reads until the end, or until all PINGREQs were answered. What the broker sends is judged, too.
fn outcome(client: &mut Client, version: Version, mut pings: usize) -> Outcome {
    let mut reason = None;
    while let Some(packet) = client.next() {
        let judgement = judge(Some(version), Side::Server, &packet);
        assert_eq!(judgement, Judgement::Right(packet[0] >> 4, packet.len()), "sent {packet:02x?}");
        assert_eq!(reason, None, "{packet:02x?} after DISCONNECT");
        match packet[0] {
            0xD0 if pings == 0 => return Outcome::Goes,
            0xD0 => pings -= 1,
            0xE0 => reason = Some(packet[2]),
            _ => {}
        }
    }
    Outcome::Ended(reason)
}

/// A 5.0 client is told why, unless it has said goodbye or nothing wrong itself.
fn check_end(version: Version, expected: Expected, reason: Option<u8>, bytes: &[u8]) {
    let context = || format!("{version:?}, {expected:?}, {reason:02x?} after {bytes:02x?}");
    match reason {
        Some(reason) => {
            assert_eq!(version, Version::V5, "{}", context());
            let is_sensible = matches!(reason, 0x81 | 0x82 | 0x93 | 0x94 | 0x95);
            assert!(is_sensible && expected != Expected::Goes, "{}", context());
        }
        None => {
            let told_nothing =
                version != Version::V5 || matches!(expected, Expected::MayEnd | Expected::Waits);
            assert!(told_nothing && expected != Expected::Goes, "{}", context());
        }
    }
}

/// A connection at some state: with messages open both ways, resumed, with an alias, with narrow limits.
fn prepare(broker: &Broker, version: Version, name: &str, dice: &mut Dice) -> Option<Client> {
    let mut connect = Connect::new(version, name);
    if dice.one_in(2) {
        connect = connect.durable();
    }
    if version == Version::V5 && dice.one_in(3) {
        connect = connect.property(0x21, &[0, 1]).property(0x27, &[0, 0, 0, 64]).property(0x22, &[0, 2]);
    }
    if dice.one_in(3) {
        connect = connect.will(name, "gone", 2);
    }
    let mut client = broker.open();
    client.offer(&connect)?;
    let is_v5 = version == Version::V5;
    let filter = [&[0, 1][..], if is_v5 { &[0] } else { &[] }, &crate::harness::string(name), &[2]].concat();
    let mut steps = vec![
        crate::harness::packet(0x82, &filter),
        Publish::new(name, "0").bytes(version),
        Publish::new(name, "1").qos(1, 1).bytes(version),
        Publish::new(name, "2").qos(2, 2).bytes(version),
        ack(0x62, 2),
        Publish::new(name, "3").qos(2, 3).bytes(version),
        ack(0x50, 2),
        ack(0x40, 1),
    ];
    if is_v5 {
        steps.push(Publish::new(name, "a").property(0x23, &[0, 1]).v5());
        steps.push(ack_with(0x50, 3, 0x80));
    }
    steps.truncate(dice.roll(steps.len() + 1));
    client.send(&steps.concat());
    client.send(&[0xC0, 0]);
    // An acknowledgement here can be one of the wrong kind, and then there is no connection to attack.
    matches!(outcome(&mut client, version, 0), Outcome::Goes).then_some(client)
}
