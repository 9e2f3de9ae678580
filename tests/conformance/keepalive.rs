//! Keep-alive.

use std::time::{Duration, Instant};

use crate::harness::{Broker, Connect, Publish, Version, broker, suback, subscribe, unique};

#[test]
fn half_open_keepalive() {
    proves!(
        "5.0 MQTT-3.1.2-22",
        "3.1.1 MQTT-3.1.2-24",
        "5.0 MQTT-3.1.2-20",
        "3.1.1 MQTT-3.1.2-23",
        "5.0 MQTT-3.2.2-22"
    );
    let silence = |version| {
        let topic = unique("silent");
        let mut witness = broker().connect(&Connect::new(version, &unique("witness")));
        witness.subscribe(&topic, 0);
        let connect = Connect::new(version, &unique("silent")).keep_alive(1).will(&topic, "lost", 0);
        let mut silent = broker().open();
        let since = Instant::now();
        let connack = silent.connect(&connect, false);
        let connected = Instant::now();
        assert!(!connack.windows(2).any(|window| window == [0x13, 0]), "{connack:02x?}");
        silent.expect_end(0x8D);
        assert!(since.elapsed() >= Duration::from_millis(1500), "{:?}", since.elapsed());
        assert!(connected.elapsed() < Duration::from_millis(2500), "{:?}", connected.elapsed());
        witness.expect_publish(&Publish::new(&topic, "lost"));
    };
    std::thread::scope(|scope| {
        for version in Version::BOTH {
            scope.spawn(move || silence(version));
        }
    });
}

#[test]
fn what_is_sent_to_a_client_does_not_keep_it_alive_and_what_it_sends_does() {
    let topic = unique("busy");
    let mut silent = broker().connect(&Connect::v5(&unique("silent")).keep_alive(1));
    silent.ask(&subscribe(1, &[(&topic, 0)]), &suback(0x90, 1, &[0]));
    let mut busy = broker().connect(&Connect::v5(&unique("busy")).keep_alive(1));
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(300));
        busy.send(&Publish::new(&topic, "x").v5());
    }
    busy.expect_nothing();
    while let packet = silent.receive()
        && packet[0] == 0x30
    {}
    silent.expect_closed();
}

#[test]
fn half_open_keepalive_counts_packets_and_not_their_bytes() {
    let publish = Publish::new("slow", [0; 40]).v5();
    let mut slow = broker().connect(&Connect::v5(&unique("slow")).keep_alive(1));
    let long = Publish::new("long", [0; 3000]).v5();
    let mut busy = broker().connect(&Connect::v5(&unique("busy")).keep_alive(1));
    let since = Instant::now();
    for at in 0..20 {
        slow.send(&publish[at..=at]);
        busy.send(&long[at * 100..at * 100 + 100]);
        std::thread::sleep(Duration::from_millis(100));
    }
    slow.expect_end(0x8D);
    assert!(since.elapsed() < Duration::from_millis(2900), "{:?}", since.elapsed());
    busy.send(&long[2000..]);
    busy.expect_nothing();
}

#[test]
fn pingreq_is_answered() {
    proves!("5.0 MQTT-3.12.4-1", "3.1.1 MQTT-3.12.4-1");
    for version in [Version::V31, Version::V311, Version::V5] {
        broker().connect(&Connect::new(version, &unique("ping"))).ask(&[0xC0, 0], &[0xD0, 0]);
    }
}

#[test]
fn a_maximum_is_imposed_on_5_only() {
    let broker = Broker::start("[limits]\nkeep_alive_max = \"60s\"");
    for (asked, told) in [(0, true), (61, true), (60, false), (5, false)] {
        let connack = broker.open().connect(&Connect::v5("c").keep_alive(asked), false);
        assert_eq!(connack.windows(3).any(|window| window == [0x13, 0, 60]), told, "{asked}: {connack:02x?}");
    }
    broker.connect(&Connect::v311("c")).expect_nothing();
}

#[test]
fn one_of_0_is_off_unless_a_maximum_is_imposed() {
    proves!("5.0 MQTT-3.1.2-21", "5.0 MQTT-3.2.2-21");
    let broker = Broker::start("[limits]\nkeep_alive_max = \"1s\"");
    let mut old = broker.connect(&Connect::v311("old").keep_alive(0));
    for asked in [0, 600] {
        let mut new = broker.open();
        let connack = new.connect(&Connect::v5("new").keep_alive(asked), false);
        assert!(connack.windows(3).any(|window| window == [0x13, 0, 1]), "{connack:02x?}");
        let since = Instant::now();
        new.expect_end(0x8D);
        let waited = since.elapsed();
        assert!(waited >= Duration::from_millis(1450) && waited < Duration::from_millis(2500), "{waited:?}");
    }
    old.expect_nothing();
}
