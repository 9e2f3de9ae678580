//! Messages to the client.

use std::num::NonZeroU16;

use super::*;

use Qos::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use ReasonCode::{PacketIdentifierNotFound, ProtocolError, Success};

fn windowed(window: u16) -> Peer {
    Peer::new(&terms(Version::V5, |connect, _| connect.receive_maximum = NonZeroU16::new(window)), true)
}

/// Delivers a QoS 2 message up to its PUBLISH.
fn deliver_qos_2(peer: &mut Peer, lsn: u64) -> Vec<Seen> {
    assert_eq!(peer.deliver(owed(ExactlyOnce, OWN, lsn)), Outcome::Taken);
    peer.report(lsn + 1);
    peer.seen()
}

#[test]
fn qos_1_is_settled_by_its_puback() {
    let mut peer = windowed(20);
    peer.deliver(owed(AtLeastOnce, OWN, 5));
    assert_eq!(peer.seen(), [Seen::publish(1, AtLeastOnce, false, "5")]);
    assert_eq!(peer.settled(), []);
    peer.session.handle_puback(ack(1)).unwrap();
    assert_eq!(peer.settled(), [Lsn(5)]);
    peer.session.handle_puback(ack(1)).unwrap();
    assert_eq!(peer.settled(), [], "once");
}

#[test]
fn a_refusal_settles_too() {
    let mut peer = windowed(20);
    peer.deliver(owed(AtLeastOnce, OWN, 5));
    peer.session.handle_puback(refusal(1)).unwrap();
    assert_eq!(peer.settled(), [Lsn(5)]);
}

#[test]
fn qos_2_is_told_first_and_released_when_that_is_durable() {
    let mut peer = windowed(20);
    peer.deliver(owed(ExactlyOnce, OWN, 5));
    assert!(peer.session.must_report(NOW));
    assert_eq!(peer.seen(), []);
    let delta = peer.report(101).unwrap();
    assert_eq!((delta.exchanges.len(), delta.next_packet_id), (1, 2));
    assert_eq!(peer.session.held_waits_for(), Some(Lsn(101)));
    assert_eq!(peer.seen(), []);
    peer.watermark = Lsn(101);
    assert_eq!(peer.seen(), [Seen::publish(1, ExactlyOnce, false, "5")]);
    peer.session.handle_pubrec(ack(1)).unwrap();
    assert_eq!(peer.seen(), []);
    let delta = peer.report(102).unwrap();
    assert_eq!(delta.exchanges[0].state, ExchangeState::AwaitingPubcomp);
    assert_eq!(peer.seen(), []);
    peer.watermark = Lsn(102);
    assert_eq!(peer.seen(), [Seen::Pubrel(1, Success)]);
    peer.session.handle_pubcomp(ack(1)).unwrap();
    let delta = peer.report(103).unwrap();
    assert_eq!((delta.ended, delta.settled), (vec![id(1)], vec![Lsn(5)]));
}

#[test]
fn a_session_that_ends_with_its_connection_waits_for_nothing() {
    let mut peer = Peer::passing();
    peer.deliver(passing(ExactlyOnce, "a"));
    assert_eq!(peer.seen(), [Seen::publish(1, ExactlyOnce, false, "a")]);
    peer.session.handle_pubrec(ack(1)).unwrap();
    assert_eq!(peer.seen(), [Seen::Pubrel(1, Success)]);
    peer.session.handle_pubcomp(ack(1)).unwrap();
    assert_eq!(peer.report(101), None);
}

#[test]
fn what_was_not_sent_cannot_be_acknowledged() {
    let mut peer = windowed(20);
    peer.deliver(owed(ExactlyOnce, OWN, 5));
    peer.session.handle_pubrec(ack(1)).unwrap();
    peer.session.handle_pubrec(refusal(1)).unwrap();
    peer.session.handle_pubcomp(ack(1)).unwrap();
    peer.session.handle_puback(ack(1)).unwrap();
    assert_eq!(peer.settled(), []);
    peer.report(100);
    let seen = peer.seen();
    let want = [Seen::Pubrel(1, PacketIdentifierNotFound), Seen::publish(1, ExactlyOnce, false, "5")];
    assert_eq!(seen, want);
}

#[test]
fn qos2_error_pubrec() {
    let mut peer = windowed(1);
    deliver_qos_2(&mut peer, 5);
    assert!(!peer.session.has_window());
    peer.session.handle_pubrec(refusal(1)).unwrap();
    assert!(peer.session.has_window(), "[MQTT-4.4.0-2]");
    let delta = peer.report(10).unwrap();
    assert_eq!((delta.ended, delta.settled), (vec![id(1)], vec![Lsn(5)]));
    assert_eq!(peer.seen(), [], "no PUBREL");
}

#[test]
fn wrong_ack_kind() {
    let mut peer = windowed(20);
    peer.deliver(owed(AtLeastOnce, OWN, 5));
    deliver_qos_2(&mut peer, 6);
    assert_eq!(peer.session.handle_pubrec(ack(1)).unwrap_err().reason, ProtocolError);
    assert_eq!(peer.session.handle_puback(ack(2)).unwrap_err().reason, ProtocolError);
    assert_eq!(peer.session.handle_pubcomp(ack(1)).unwrap_err().reason, ProtocolError);
    assert_eq!(peer.session.handle_pubcomp(ack(2)).unwrap_err().reason, ProtocolError);
    // Not in use: ignored, or answered with a reason.
    peer.session.handle_pubcomp(ack(3)).unwrap();
    peer.session.handle_puback(ack(3)).unwrap();
    peer.session.handle_pubrec(refusal(3)).unwrap();
    assert_eq!(peer.seen(), []);
    peer.session.handle_pubrec(ack(3)).unwrap();
    assert_eq!(peer.seen(), [Seen::Pubrel(3, PacketIdentifierNotFound)]);
    assert_eq!(peer.settled(), []);
    assert_eq!(peer.session.in_flight().count(), 2);
}

#[test]
fn a_pubcomp_that_answers_a_pubrel_for_nothing_hits_no_other_message() {
    let mut peer = windowed(20);
    peer.session.handle_pubrec(ack(1)).unwrap();
    assert_eq!(peer.seen(), [Seen::Pubrel(1, PacketIdentifierNotFound)]);
    // The identifier is given to a message before the client has answered.
    peer.deliver(owed(AtLeastOnce, OWN, 5));
    peer.session.handle_pubcomp(ack(1)).unwrap();
    assert_eq!(peer.session.in_flight().count(), 1);
    assert_eq!(peer.session.handle_pubcomp(ack(1)).unwrap_err().reason, ProtocolError);
}

#[test]
fn a_repeated_pubrec_is_answered_again() {
    let mut peer = windowed(20);
    deliver_qos_2(&mut peer, 5);
    peer.session.handle_pubrec(ack(1)).unwrap();
    peer.session.handle_pubrec(ack(1)).unwrap();
    assert_eq!(peer.seen(), [], "neither before the record");
    peer.report(50);
    assert_eq!(peer.seen(), [Seen::Pubrel(1, Success), Seen::Pubrel(1, Success)]);
}

#[test]
fn window_counts_qos2_until_pubcomp() {
    let mut peer = windowed(2);
    deliver_qos_2(&mut peer, 5);
    peer.deliver(owed(AtLeastOnce, OWN, 7));
    assert!(!peer.session.has_window());
    assert_eq!(peer.deliver(owed(AtLeastOnce, OWN, 8)), Outcome::NoWindow);
    assert_eq!(peer.settled(), [], "still owed");
    assert_eq!(peer.deliver(passing(AtMostOnce, "a")), Outcome::Taken, "QoS 0 has no window");
    peer.session.handle_pubrec(ack(1)).unwrap();
    peer.report(9);
    peer.seen();
    assert!(!peer.session.has_window(), "PUBREC frees nothing");
    peer.session.handle_pubcomp(ack(1)).unwrap();
    assert!(peer.session.has_window());
    peer.deliver(owed(AtLeastOnce, OWN, 8));
    assert!(!peer.session.has_window());
    // An acknowledgement of nothing frees nothing.
    peer.session.handle_puback(ack(9)).unwrap();
    peer.session.handle_pubcomp(ack(9)).unwrap();
    assert!(!peer.session.has_window());
}

#[test]
fn pkid_wrap() {
    let mut peer = windowed(2);
    assert_eq!(peer.deliver(owed(AtLeastOnce, OWN, 1)), Outcome::Taken);
    assert_eq!(peer.seen(), [Seen::publish(1, AtLeastOnce, false, "1")]);
    let mut expected = 1u16;
    for n in 0..70_000u64 {
        expected = if expected == u16::MAX { 2 } else { expected + 1 };
        assert_eq!(peer.deliver(passing(AtLeastOnce, "")), Outcome::Taken);
        assert_eq!(peer.seen(), [Seen::publish(expected, AtLeastOnce, false, "")], "message {n}");
        peer.session.handle_puback(ack(expected)).unwrap();
    }
    peer.session.handle_puback(ack(1)).unwrap();
    assert_eq!(peer.settled(), [Lsn(1)]);
}

#[test]
fn pkid_exhaust() {
    let terms = terms(Version::V5, |_, limits| limits.inflight = u16::MAX);
    let mut peer = Peer::new(&terms, false);
    for _ in 0..u16::MAX {
        assert_eq!(peer.deliver(passing(AtLeastOnce, "")), Outcome::Taken);
    }
    assert_eq!(peer.deliver(passing(AtLeastOnce, "")), Outcome::NoWindow);
    peer.seen();
    // [MQTT-3.3.4-10]
    peer.session.handle_pingreq();
    assert_eq!(peer.seen(), [Seen::Other]);
    peer.session.handle_puback(ack(777)).unwrap();
    peer.deliver(passing(AtLeastOnce, ""));
    assert_eq!(peer.seen(), [Seen::publish(777, AtLeastOnce, false, "")]);
}

#[test]
fn no_resend_on_live_connection() {
    let mut peer = windowed(20);
    peer.deliver(owed(AtLeastOnce, OWN, 5));
    peer.report(6);
    deliver_qos_2(&mut peer, 7);
    for minute in 1..10 {
        peer.session.handle_time(UnixMillis(NOW.0 + minute * 60_000)).unwrap();
        assert!(!peer.session.has_resends() && peer.session.take_resend().is_none());
        assert_eq!(peer.seen(), []);
    }
}

#[test]
fn dup_not_propagated() {
    let mut publisher = Peer::passing();
    let publish = Publish { dup: true, ..publish(AtLeastOnce, 1, "a") };
    publisher.route(&publish, 0);
    let message = Message::from_publish(&publish, "t", "p".into(), NOW, &mut Vec::new());
    let mut peer = Peer::passing();
    peer.deliver(Delivery { message, ..passing(AtLeastOnce, "") });
    assert_eq!(peer.seen(), [Seen::publish(1, AtLeastOnce, false, "a")]);
}

#[test]
fn expiry_decrement() {
    let expiring = |millis| Delivery {
        message: message("t", b"", UnixMillis(NOW.0 + millis)),
        ..owed(AtLeastOnce, OWN, 5)
    };
    for (millis, want) in
        [(10_000, 10), (9_300, 10), (5_000, 5), (1, 1), (u64::from(u32::MAX) * 2000, u32::MAX)]
    {
        let mut peer = windowed(20);
        assert_eq!(peer.deliver(expiring(millis)), Outcome::Taken);
        let [Seen::Publish { expiry, .. }] = &peer.seen()[..] else { unreachable!("one PUBLISH") };
        assert_eq!(*expiry, Some(want), "{millis} ms are left");
    }
    // Who delivers has looked at the clock just before.
    let mut peer = windowed(20);
    let before = UnixMillis(NOW.0 - 1);
    assert_eq!(peer.session.deliver(before, expiring(5_000), &mut peer.out), Outcome::Taken);
    assert!(matches!(peer.seen()[..], [Seen::Publish { expiry: Some(5), .. }]));
    let mut peer = windowed(20);
    assert_eq!(peer.deliver(expiring(0)), Outcome::Dropped(Dropped::Expired));
    assert_eq!(peer.settled(), [Lsn(5)]);
    assert_eq!(peer.seen(), []);
}

#[test]
fn a_held_message_that_expires_is_not_sent() {
    let mut peer = windowed(1);
    let message = message("t", b"", UnixMillis(NOW.0 + 10));
    peer.deliver(Delivery { message, ..owed(ExactlyOnce, OWN, 5) });
    peer.report(50);
    let late = UnixMillis(NOW.0 + 10);
    assert_eq!(peer.session.write_held(late, Lsn(50), &mut peer.out).len(), 1);
    assert_eq!(peer.seen(), []);
    assert!(peer.session.has_window());
    let delta = peer.report(51).unwrap();
    assert_eq!((delta.ended, delta.settled), (vec![id(1)], vec![Lsn(5)]));
}

#[test]
fn qos2_expiry_midway() {
    let mut progress = Progress::default();
    let exchange = |packet_id, state| Exchange { packet_id, lsn: Lsn(5), owner: OWN, state };
    progress.exchanges.insert(1, exchange(id(1), ExchangeState::AwaitingPubrec));
    let mut peer = Peer::resumed(&terms(Version::V5, |_, _| ()), true, Some(&progress), false);
    let resend = peer.session.take_resend().unwrap();
    let expired = Delivery { message: message("t", b"", UnixMillis(1)), ..owed(ExactlyOnce, OWN, 5) };
    // [MQTT-4.3.3-7] The PUBLISH may have been sent.
    assert_eq!(peer.session.redeliver(NOW, resend.packet_id, expired, &mut peer.out), Outcome::Taken);
    let [Seen::Publish { expiry, dup: true, .. }] = &peer.seen()[..] else { unreachable!("one PUBLISH") };
    assert_eq!(*expiry, Some(1));
}

#[test]
fn outgoing_size_limit() {
    let sized = |size| {
        terms(Version::V5, |connect, _| {
            (connect.maximum_packet_size, connect.receive_maximum) = (Some(size), NonZeroU16::new(1));
        })
    };
    // 2 fixed, 3 topic, 2 identifier, 1 properties, and the payload.
    let mut peer = Peer::new(&sized(20), true);
    for (qos, fits) in [(AtMostOnce, 14), (AtLeastOnce, 12), (ExactlyOnce, 12)] {
        let large =
            Delivery { message: message("t", &vec![b'x'; fits + 1], UnixMillis::NEVER), ..owed(qos, OWN, 5) };
        for _ in 0..3 {
            assert_eq!(peer.deliver(large.clone()), Outcome::Dropped(Dropped::TooLarge), "{qos:?}");
            assert_eq!(peer.settled(), [Lsn(5)], "[MQTT-3.1.2-25]");
            assert!(peer.session.has_window(), "no stall");
        }
        assert_eq!(peer.report(6).map_or(0, |delta| delta.exchanges.len()), 0);
    }
    for (qos, fits) in [(AtMostOnce, 14), (AtLeastOnce, 12)] {
        let message = message("t", &vec![b'x'; fits], UnixMillis::NEVER);
        assert_eq!(peer.deliver(Delivery { message, ..owed(qos, OWN, 5) }), Outcome::Taken);
        assert_eq!(peer.seen().len(), 1);
    }
    let mut peer = Peer::new(&sized(3), false);
    peer.route(&publish(AtLeastOnce, 1, "a"), 0);
    let close = peer.session.write_replies(Lsn(100), &mut peer.out).unwrap_err();
    assert_eq!(close.reason, ReasonCode::PacketTooLarge);
}

#[test]
fn outgoing_size_limit_of_a_repeat() {
    let mut progress = Progress::default();
    for (number, state) in [(1, ExchangeState::AwaitingPuback), (2, ExchangeState::AwaitingPubrec)] {
        let exchange = Exchange { packet_id: id(number), lsn: Lsn(number.into()), owner: OWN, state };
        progress.exchanges.insert(number, exchange);
    }
    let terms = terms(Version::V5, |connect, _| connect.maximum_packet_size = Some(8));
    let mut peer = Peer::resumed(&terms, true, Some(&progress), false);
    while let Some(resend) = peer.session.take_resend() {
        let delivery = owed(AtLeastOnce, OWN, resend.lsn.0);
        let outcome = peer.session.redeliver(NOW, resend.packet_id, delivery, &mut peer.out);
        assert_eq!(outcome, Outcome::Dropped(Dropped::TooLarge));
    }
    let delta = peer.report(101).unwrap();
    assert_eq!((delta.ended, delta.settled), (vec![id(1), id(2)], vec![Lsn(1), Lsn(2)]));
    assert_eq!(peer.session.in_flight().count(), 0);
}

fn aliased(size: Option<u32>) -> Peer {
    let terms = terms(Version::V5, |connect, _| {
        (connect.topic_alias_maximum, connect.maximum_packet_size) = (2, size);
    });
    Peer::new(&terms, false)
}

fn alias_of(peer: &mut Peer, topic: &str, payload: &str) -> Option<(String, u16)> {
    let message = message(topic, payload.as_bytes(), UnixMillis::NEVER);
    peer.deliver(Delivery { message, ..passing(AtMostOnce, "") });
    match peer.seen().pop() {
        Some(Seen::Publish { topic, alias, .. }) => Some((topic, alias)),
        _ => None,
    }
}

#[test]
fn alias_bounds() {
    let mut peer = aliased(None);
    assert_eq!(alias_of(&mut peer, "a", ""), Some(("a".into(), 1)));
    assert_eq!(alias_of(&mut peer, "b", ""), Some(("b".into(), 2)));
    assert_eq!(alias_of(&mut peer, "c", ""), Some(("c".into(), 0)), "no more than the client takes");
    assert_eq!(alias_of(&mut peer, "a", ""), Some(("".into(), 1)));
    assert_eq!(alias_of(&mut peer, "b", ""), Some(("".into(), 2)));
    let mut peer = Peer::passing();
    assert_eq!(alias_of(&mut peer, "a", ""), Some(("a".into(), 0)), "[MQTT-3.1.2-27]");
}

#[test]
fn the_topics_of_all_aliases_together_have_a_limit() {
    let mut peer = aliased(None);
    let long = "a".repeat(40_000);
    assert_eq!(alias_of(&mut peer, &long, "").unwrap().1, 1);
    assert_eq!(alias_of(&mut peer, &long.replace('a', "b"), "").unwrap().1, 0);
    assert_eq!(alias_of(&mut peer, "b", "").unwrap().1, 2);
}

#[test]
fn an_alias_is_used_only_after_the_client_has_seen_it() {
    // 2 fixed, 2 + 3 topic, 1 + 3 properties: 9 bytes are left for the payload, 12 without the alias.
    let mut peer = aliased(Some(20));
    assert_eq!(alias_of(&mut peer, "abc", "0123456789abcd"), None, "too large");
    assert_eq!(alias_of(&mut peer, "abc", "0123456789"), Some(("abc".into(), 0)), "no room for it");
    assert_eq!(alias_of(&mut peer, "abc", "012345678"), Some(("abc".into(), 1)));
    // The alias in place of the topic leaves room for what had none before.
    assert_eq!(alias_of(&mut peer, "abc", "0123456789"), Some(("".into(), 1)));
    assert_eq!(alias_of(&mut peer, "abc", "0123456789ab"), Some(("".into(), 1)));
    assert_eq!(alias_of(&mut peer, "abc", "0123456789abc"), None);
}

#[test]
fn a_topic_that_is_shorter_than_its_alias_goes_where_the_alias_has_no_room() {
    // 2 fixed, 2 + 1 topic, 1 properties: 14 bytes are left for the payload; 12 with the alias alone.
    let mut peer = aliased(Some(20));
    assert_eq!(alias_of(&mut peer, "a", "0"), Some(("a".into(), 1)));
    assert_eq!(alias_of(&mut peer, "a", "0123456789ab"), Some(("".into(), 1)));
    assert_eq!(alias_of(&mut peer, "a", "0123456789abc"), Some(("a".into(), 0)));
    assert_eq!(alias_of(&mut peer, "a", "0123456789abcd"), Some(("a".into(), 0)));
    assert_eq!(alias_of(&mut peer, "a", "0123456789abcde"), None, "too large");
}
