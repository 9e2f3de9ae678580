//! Wills: when they are published, when not, and as what.

use std::time::{Duration, Instant};

use crate::harness::{
    Broker, Client, Connect, Publish, Version, ack, broker, disconnect, packet, string, suback, subscribe,
    unique,
};

/// Somebody who waits for the will on `topic`.
fn witness(topic: &str) -> Client {
    let mut client = broker().connect(&Connect::v5(&unique("witness")));
    client.ask(&subscribe(1, &[(topic, 1)]), &suback(0x90, 1, &[1]));
    client
}

#[test]
fn is_published_when_the_connection_is_lost() {
    proves!(
        "5.0 MQTT-3.1.2-7",
        "5.0 MQTT-3.1.2-8",
        "5.0 MQTT-3.1.2-10",
        "5.0 MQTT-3.1.2-14",
        "3.1.1 MQTT-3.1.2-8",
        "3.1.1 MQTT-3.1.2-10",
        "3.1.1 MQTT-3.1.2-16"
    );
    for version in [Version::V31, Version::V311, Version::V5] {
        let topic = unique("will");
        let mut witness = witness(&topic);
        broker().connect(&Connect::new(version, &unique("dies")).will(&topic, "gone", 1)).cut();
        assert_eq!(witness.take_qos_1().payload, b"gone");
        witness.expect_nothing();
        let mut later = broker().connect(&Connect::v5(&unique("later")));
        later.subscribe(&topic, 0);
        later.expect_nothing();
    }
}

#[test]
fn is_discarded_by_disconnect() {
    proves!("5.0 MQTT-3.14.4-3", "3.1.1 MQTT-3.14.4-3", "5.0 MQTT-3.1.2-8", "5.0 MQTT-3.1.2-10");
    for version in [Version::V31, Version::V311, Version::V5] {
        let topic = unique("will");
        let mut witness = witness(&topic);
        broker().connect(&Connect::new(version, &unique("leaves")).will(&topic, "gone", 1)).leave();
        witness.expect_nothing();
    }
    for leave in [vec![0xE0, 1, 0], vec![0xE0, 2, 0, 0]] {
        let topic = unique("will");
        let mut witness = witness(&topic);
        broker().connect(&Connect::v5(&unique("leaves")).will(&topic, "gone", 1)).leave_with(&leave);
        witness.expect_nothing();
    }
}

#[test]
fn is_published_when_the_client_asks_for_it() {
    for leave in [vec![0xE0, 1, 4], vec![0xE0, 2, 4, 0], vec![0xE0, 1, 0x80]] {
        let topic = unique("will");
        let mut witness = witness(&topic);
        broker().connect(&Connect::v5(&unique("leaves")).will(&topic, "gone", 1)).leave_with(&leave);
        assert_eq!(witness.take_qos_1().payload, b"gone");
    }
}

#[test]
fn is_published_after_a_protocol_error() {
    let topic = unique("will");
    let mut witness = witness(&topic);
    let mut client = broker().connect(&Connect::v5(&unique("errs")).will(&topic, "gone", 1));
    client.send(&[0x20, 0]);
    client.expect_end(0x82);
    assert_eq!(witness.take_qos_1().payload, b"gone");
}

#[test]
fn is_retained_on_demand() {
    proves!("5.0 MQTT-3.1.2-15", "3.1.1 MQTT-3.1.2-17");
    for version in Version::BOTH {
        let topic = unique("will");
        let mut witness = witness(&topic);
        broker()
            .connect(&Connect::new(version, &unique("dies")).will(&topic, "gone", 1).will_retained())
            .cut();
        witness.take_qos_1();
        let mut later = broker().connect(&Connect::new(version, &unique("later")));
        later.subscribe(&topic, 0);
        later.expect_publish(&Publish::new(&topic, "gone").retain());
    }
}

#[test]
fn is_that_of_the_last_connect() {
    proves!("3.1.1 MQTT-3.1.2-12", "5.0 MQTT-3.1.2-10");
    for version in Version::BOTH {
        let topic = unique("will");
        let mut witness = witness(&topic);
        let connect = Connect::new(version, &unique("changes")).durable();
        broker().connect(&connect.clone().will(&topic, "one", 1)).leave();
        broker().resume(&connect.clone().will(&topic, "two", 1)).cut();
        assert_eq!(witness.take_qos_1().payload, b"two");
        // Without one nothing is left of those before.
        broker().resume(&connect).cut();
        broker().resume(&connect).leave();
        witness.expect_nothing();
    }
    // Also one that waited for its delay, and would be published when the session ends.
    let topic = unique("will");
    let mut witness = witness(&topic);
    let connect = Connect::v5(&unique("changes")).durable();
    let late = connect.clone().will(&topic, "late", 1).will_property(0x18, &[0, 0, 0, 200]);
    broker().connect(&late).cut();
    broker().resume(&connect).leave_with(&disconnect(4, &[0x11, 0, 0, 0, 0]));
    witness.expect_nothing();
}

#[test]
fn has_its_properties() {
    proves!("5.0 MQTT-3.1.3-10");
    let topic = unique("will");
    let mut witness = witness(&topic);
    let pair = |name: &str| [string(name), string("x")].concat();
    let connect = Connect::v5(&unique("dies"))
        .will(&topic, "gone", 1)
        .will_property(0x26, &pair("b"))
        .will_property(0x02, &[0, 0, 0, 9])
        .will_property(0x26, &pair("a"))
        .will_property(0x18, &[0, 0, 0, 0]);
    broker().connect(&connect).cut();
    let properties = witness.take_qos_1().properties;
    let at = |part: &[u8]| properties.windows(part.len()).position(|window| window == part);
    assert!(at(&pair("b")).unwrap() < at(&pair("a")).unwrap());
    assert!(at(&[2, 0, 0, 0, 9]).is_some() && at(&[0x18]).is_none(), "{properties:02x?}");
}

#[test]
fn waits_for_its_delay() {
    proves!("5.0 MQTT-3.1.2-8");
    let topic = unique("will");
    let mut witness = witness(&topic);
    let connect = Connect::v5(&unique("dies")).expiry(60).will(&topic, "gone", 1);
    broker().connect(&connect.will_property(0x18, &[0, 0, 0, 1])).cut();
    let since = Instant::now();
    witness.expect_nothing();
    witness.take_qos_1();
    let waited = since.elapsed();
    assert!(waited >= Duration::from_millis(950) && waited < Duration::from_secs(2), "{waited:?}");
}

#[test]
fn is_void_when_the_client_is_back_in_time() {
    proves!("5.0 MQTT-3.1.3-9");
    let topic = unique("will");
    let mut witness = witness(&topic);
    let connect = Connect::v5(&unique("back")).durable();
    let with_will = connect.clone().will(&topic, "gone", 1).will_property(0x18, &[0, 0, 0, 1]);
    broker().connect(&with_will).cut();
    let mut back = broker().resume(&connect);
    // The delay passes for another client.
    let other = unique("will");
    witness.ask(&subscribe(2, &[(&other, 1)]), &suback(0x90, 2, &[1]));
    let connect = Connect::v5(&unique("dies")).expiry(60).will(&other, "later", 1);
    broker().connect(&connect.will_property(0x18, &[0, 0, 0, 1])).cut();
    assert_eq!(witness.take_qos_1().payload, b"later");
    back.expect_nothing();
}

#[test]
fn is_published_when_the_session_ends_before_the_delay() {
    let topic = unique("will");
    let mut witness = witness(&topic);
    let late = [0, 0, 0, 200];
    broker().connect(&Connect::v5(&unique("dies")).will(&topic, "ends", 1).will_property(0x18, &late)).cut();
    assert_eq!(witness.take_qos_1().payload, b"ends");
    let id = unique("cleared");
    let connect = Connect::v5(&id).expiry(60).will(&topic, "cleared", 1).will_property(0x18, &late);
    broker().connect(&connect).cut();
    witness.expect_nothing();
    let mut back = broker().connect(&Connect::v5(&id));
    assert_eq!(witness.take_qos_1().payload, b"cleared");
    back.expect_nothing();
}

#[test]
fn without_delay_is_published_however_soon_the_client_is_back() {
    for version in [Version::V311, Version::V5] {
        for _ in 0..10 {
            let topic = unique("will");
            let mut witness = witness(&topic);
            let connect = Connect::new(version, &unique("back")).durable();
            broker().connect(&connect.clone().will(&topic, "cut", 1)).cut();
            let taken = broker().resume(&connect.clone().will(&topic, "taken", 1));
            assert_eq!(witness.take_qos_1().payload, b"cut");
            broker().resume(&connect).expect_nothing();
            assert_eq!(witness.take_qos_1().payload, b"taken");
            witness.expect_nothing();
            drop(taken);
        }
    }
}

#[test]
fn a_disconnect_before_the_takeover_counts() {
    for _ in 0..20 {
        let topic = unique("will");
        let mut witness = witness(&topic);
        let connect = Connect::v5(&unique("hasty")).durable();
        let mut client = broker().connect(&connect.clone().will(&topic, "gone", 1));
        client.send(&[0xE0, 0]);
        broker().resume(&connect).expect_nothing();
        witness.expect_nothing();
    }
}

#[test]
fn an_empty_one_is_a_message_too() {
    let topic = unique("will");
    let mut witness = witness(&topic);
    broker().connect(&Connect::v5(&unique("dies")).will(&topic, "", 2)).cut();
    assert_eq!(witness.take_qos_1().payload, b"");
}

#[test]
fn its_topic_is_a_topic_name() {
    for topic in ["", "a/+", "#", "a\0"] {
        let mut client = broker().open();
        client.send(&Connect::v5(&unique("topic")).will(topic, "x", 0).bytes());
        let connack = client.receive();
        assert!(connack[0] == 0x20 && connack[3] >= 0x80, "{topic:?}: {connack:02x?}");
        client.expect_closed();
        let mut client = broker().open();
        client.send(&Connect::v311(&unique("topic")).will(topic, "x", 0).bytes());
        client.expect_closed();
    }
}

#[test]
fn expiry_in_disconnect_decides_when_the_session_ends() {
    proves!("U-3.14.2-a", "U-PROP-11-value");
    let topic = unique("will");
    let mut witness = witness(&topic);
    let connect = Connect::v5(&unique("leaves")).durable();
    let late = connect.clone().will(&topic, "gone", 1).will_property(0x18, &[0, 0, 0, 200]);
    broker().connect(&late).leave_with(&disconnect(4, &[0x11, 0, 0, 0, 0]));
    assert_eq!(witness.take_qos_1().payload, b"gone");
    let mut client = broker().connect(&connect);
    client.expect_nothing();
    client.leave();
    // From 0 it cannot be raised, also when the session was resumed.
    let id = unique("raises");
    broker().connect(&Connect::v5(&id).expiry(60)).leave();
    let mut client = broker().resume(&Connect::v5(&id).resuming());
    client.send(&disconnect(0, &[0x11, 0, 0, 0, 9]));
    client.expect_end(0x82);
}

#[test]
fn qos_2_is_delivered_by_handshake() {
    let topic = unique("will");
    let mut witness = broker().connect(&Connect::v5(&unique("witness")));
    witness.ask(&subscribe(1, &[(&topic, 2)]), &suback(0x90, 1, &[2]));
    broker().connect(&Connect::v311(&unique("dies")).will(&topic, "gone", 2)).cut();
    let will = witness.message();
    assert_eq!(will.qos, 2);
    witness.ask(&ack(0x50, will.id), &ack(0x62, will.id));
    witness.send(&packet(0x70, &will.id.to_be_bytes()));
    witness.expect_nothing();
}

/// How a connection with a will ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Disconnect(u8),
    Cut,
    Silence,
    ProtocolError,
    Takeover { clean: bool },
    Back { clean: bool },
    Stop,
    Crash,
}

#[test]
fn will_matrix() {
    use End::*;
    // The will's delay, the session's expiry, how it ends, and how often the will is published within 1.3 s.
    let cases = [
        (0, 60, Disconnect(0), 0),
        (1, 60, Disconnect(0), 0),
        (0, 0, Disconnect(4), 1),
        (60, 60, Disconnect(4), 0),
        (60, 0, Disconnect(4), 1),
        (0, 0, Cut, 1),
        (60, 0, Cut, 1),
        (60, 1, Cut, 1),
        (1, 60, Cut, 1),
        (60, 60, Cut, 0),
        (0, 60, Silence, 1),
        (0, 60, ProtocolError, 1),
        (60, 60, ProtocolError, 0),
        (0, 60, Takeover { clean: false }, 1),
        (60, 60, Takeover { clean: false }, 0),
        (0, 60, Takeover { clean: true }, 1),
        (60, 60, Takeover { clean: true }, 1),
        (1, 60, Back { clean: false }, 0),
        (0, 60, Back { clean: false }, 1),
        (60, 60, Back { clean: true }, 1),
    ];
    std::thread::scope(|scope| {
        for (delay, expiry, end, times) in cases {
            scope.spawn(move || will_case(delay, expiry, end, times));
        }
        // These have a broker of their own.
        for (delay, end, times) in
            [(0, Stop, 1), (1, Stop, 1), (60, Stop, 0), (0, Crash, 1), (1, Crash, 1), (60, Crash, 0)]
        {
            scope.spawn(move || will_case_of_the_broker(delay, end, times));
        }
    });
}

fn will_case(delay: u8, expiry: u32, end: End, times: usize) {
    let topic = unique("will");
    let mut witness = witness(&topic);
    let keep_alive = u16::from(matches!(end, End::Silence));
    let plain = Connect::v5(&unique("dies")).resuming().expiry(expiry).keep_alive(keep_alive);
    let connect = plain.clone().will(&topic, "gone", 1).will_property(0x18, &[0, 0, 0, delay]);
    let mut client = broker().connect(&connect);
    let mut back = None;
    match end {
        End::Disconnect(reason) => client.leave_with(&disconnect(reason, &[])),
        End::Cut => client.cut(),
        End::Silence => client.expect_end(0x8D),
        End::ProtocolError => client.leave_with(&[0xD0, 0]),
        End::Takeover { clean } | End::Back { clean } => {
            if matches!(end, End::Back { .. }) {
                client.cut();
            }
            let mut next = broker().open();
            assert_eq!(next.offer(&if clean { plain.clean() } else { plain }).unwrap()[2], u8::from(!clean));
            back = Some(next);
        }
        End::Stop | End::Crash => unreachable!("not with the shared broker"),
    }
    std::thread::sleep(Duration::from_millis(1300));
    for _ in 0..times {
        assert_eq!(witness.take_qos_1().payload, b"gone", "delay {delay}, expiry {expiry}, {end:?}");
    }
    witness.expect_nothing();
    drop(back);
}

/// Stopped or killed, the broker owes the will of a durable session once it runs again, and no earlier than
/// its delay; the will of one that was published at the stop is not published again.
fn will_case_of_the_broker(delay: u8, end: End, times: usize) {
    let mut broker = Broker::start("");
    let witness = Connect::v5("witness").durable();
    broker.connect(&witness).ask(&subscribe(1, &[("will", 1)]), &suback(0x90, 1, &[1]));
    let connect = Connect::v5("dies").durable().will("will", "gone", 1);
    let _client = broker.connect(&connect.will_property(0x18, &[0, 0, 0, delay]));
    match end {
        End::Stop => broker.restart(),
        _ => broker.crash(),
    }
    std::thread::sleep(Duration::from_millis(1300));
    // Not twice either, after another start.
    broker.crash();
    let mut witness = broker.resume(&witness);
    for _ in 0..times {
        assert_eq!(witness.take_qos_1().payload, b"gone", "delay {delay}, {end:?}");
    }
    witness.expect_nothing();
}
