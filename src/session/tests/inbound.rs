//! Messages from the client.

use std::num::NonZeroU16;

use super::*;
use crate::codec::{Subscribe, SubscribeFilter, SubscribeOptions};

use Qos::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use ReasonCode::{NotAuthorized, PacketIdentifierNotFound, QuotaExceeded, ServerUnavailable, Success};

fn alias(number: u16, topic: &'static str) -> Publish<'static> {
    let mut publish = publish(AtMostOnce, 0, "");
    publish.topic = topic;
    publish.properties.topic_alias = NonZeroU16::new(number);
    publish
}

#[test]
fn qos2_publish_replay_n() {
    let mut peer = Peer::durable();
    assert!(peer.route(&publish(ExactlyOnce, 1, "a"), 200));
    for n in 0..50 {
        let repeat = Publish { dup: n % 2 == 0, ..publish(ExactlyOnce, 1, "a") };
        assert!(!peer.route(&repeat, 0), "routed once");
    }
    assert_eq!(peer.seen(), [], "no PUBREC before the record");
    assert_eq!(peer.session.reply_waits_for(), Some(Lsn(200)));
    peer.watermark = Lsn(200);
    assert_eq!(peer.seen(), vec![Seen::Pubrec(1, Success); 51]);
    // Over a reconnect too.
    let mut progress = Progress::default();
    progress.inbound.insert(1);
    let terms = terms(Version::V5, |_, _| ());
    let mut peer = Peer::resumed(&terms, true, Some(&progress), false);
    for _ in 0..50 {
        assert!(!peer.route(&publish(ExactlyOnce, 1, "a"), 0));
    }
    assert_eq!(peer.seen(), vec![Seen::Pubrec(1, Success); 50]);
    assert!(peer.session.has_inbound(id(1)));
}

#[test]
fn qos2_reuse_after_pubcomp() {
    let mut peer = Peer::durable();
    assert!(peer.route(&publish(ExactlyOnce, 1, "a"), 50));
    assert_eq!(peer.seen(), [Seen::Pubrec(1, Success)]);
    peer.session.handle_pubrel(ack(1));
    assert_eq!(peer.seen(), [], "the release is not durable");
    assert!(peer.session.must_report(NOW));
    assert_eq!(peer.report(101).unwrap().released, [id(1)]);
    assert_eq!(peer.seen(), []);
    peer.watermark = Lsn(101);
    assert_eq!(peer.seen(), [Seen::Pubcomp(1, Success)]);
    assert!(peer.route(&publish(ExactlyOnce, 1, "b"), 0), "a new message");
}

#[test]
fn qos2_pubrel_unknown() {
    for mut peer in [Peer::durable(), Peer::passing()] {
        peer.session.handle_pubrel(ack(9));
        assert!(!peer.session.must_report(NOW));
        assert_eq!(peer.seen(), [Seen::Pubcomp(9, PacketIdentifierNotFound)]);
    }
    let mut old = Peer::new(&terms(Version::V311, |_, _| ()), true);
    old.session.handle_pubrel(ack(9));
    assert_eq!(old.seen(), [Seen::Pubcomp(9, Success)]);
}

#[test]
fn refused_messages_leave_no_exchange() {
    let mut peer = Peer::durable();
    for (qos, want) in
        [(AtLeastOnce, Seen::Puback(1, QuotaExceeded)), (ExactlyOnce, Seen::Pubrec(1, QuotaExceeded))]
    {
        let publish = publish(qos, 1, "a");
        assert!(matches!(peer.session.handle_publish(&publish), Ok(Incoming::Route(_))));
        peer.session.published(&publish, Receipt::Refused(QuotaExceeded)).unwrap();
        assert_eq!(peer.seen(), [want]);
        assert!(!peer.session.has_inbound(id(1)));
    }
    // [MQTT-4.3.3-9]
    assert!(peer.route(&publish(ExactlyOnce, 1, "b"), 0));
}

/// A refusal would be the last word about the message.
#[test]
fn a_store_that_has_failed_is_no_reason_to_refuse() {
    let mut peer = Peer::durable();
    for qos in [AtLeastOnce, ExactlyOnce] {
        let publish = publish(qos, 1, "a");
        peer.session.handle_publish(&publish).unwrap();
        let published = peer.session.published(&publish, Receipt::Refused(ServerUnavailable));
        assert_eq!(published.unwrap_err().reason, ServerUnavailable);
    }
    assert_eq!(peer.seen(), []);
}

#[test]
fn an_older_client_is_told_of_a_refusal_by_the_end_of_the_connection() {
    let mut old = Peer::new(&terms(Version::V311, |_, _| ()), false);
    let refused = |peer: &mut Peer, qos, reason| {
        let publish = publish(qos, 1, "a");
        peer.session.handle_publish(&publish).unwrap();
        peer.session.published(&publish, Receipt::Refused(reason))
    };
    assert_eq!(refused(&mut old, AtLeastOnce, NotAuthorized), Ok(()));
    assert_eq!(refused(&mut old, ExactlyOnce, NotAuthorized), Ok(()));
    assert_eq!(old.seen(), [Seen::Puback(1, Success), Seen::Pubrec(1, Success)]);
    assert_eq!(refused(&mut old, AtMostOnce, QuotaExceeded), Ok(()));
    for qos in [AtLeastOnce, ExactlyOnce] {
        assert_eq!(refused(&mut old, qos, QuotaExceeded).unwrap_err().reason, QuotaExceeded);
    }
    assert_eq!(old.seen(), []);
}

#[test]
fn ack_order() {
    let mut peer = Peer::durable();
    let packets = [(AtLeastOnce, 1, 103), (AtLeastOnce, 2, 0), (ExactlyOnce, 3, 102), (AtLeastOnce, 4, 104)];
    for (qos, number, lsn) in packets {
        peer.route(&publish(qos, number, "a"), lsn);
    }
    peer.session.handle_pubrel(ack(3));
    peer.watermark = Lsn(102);
    assert_eq!(peer.seen(), [], "the first waits, so that all wait");
    peer.watermark = Lsn(103);
    let first = [Seen::Puback(1, Success), Seen::Puback(2, Success), Seen::Pubrec(3, Success)];
    assert_eq!(peer.seen(), first);
    peer.watermark = Lsn(104);
    assert_eq!(peer.seen(), [Seen::Puback(4, Success)]);
    assert_eq!(peer.session.reply_waits_for(), None, "the report has no number");
    peer.report(105);
    assert_eq!(peer.session.reply_waits_for(), Some(Lsn(105)));
    peer.watermark = Lsn(105);
    assert_eq!(peer.seen(), [Seen::Pubcomp(3, Success)]);
}

#[test]
fn receive_maximum_is_exact() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        let mut peer = Peer::durable();
        for number in 1..=10 {
            assert!(peer.route(&publish(qos, number, "a"), 200));
        }
        // QoS 0 and repeats do not count.
        assert!(peer.route(&publish(AtMostOnce, 0, "a"), 0));
        if qos == ExactlyOnce {
            assert!(!peer.route(&publish(qos, 10, "a"), 0));
        }
        let close = peer.session.handle_publish(&publish(qos, 11, "a")).unwrap_err();
        assert_eq!(close.reason, ReasonCode::ReceiveMaximumExceeded);
    }
}

#[test]
fn receive_maximum_counts_until_the_last_acknowledgement_has_left() {
    let mut peer = Peer::passing();
    for number in 1..=10 {
        peer.route(&publish(ExactlyOnce, number, "a"), 0);
    }
    peer.seen();
    assert!(peer.session.handle_publish(&publish(ExactlyOnce, 11, "a")).is_err(), "PUBREC frees nothing");
    peer.session.handle_pubrel(ack(3));
    assert!(peer.session.handle_publish(&publish(ExactlyOnce, 11, "a")).is_err(), "PUBREL frees nothing");
    assert_eq!(peer.seen(), [Seen::Pubcomp(3, Success)]);
    assert!(peer.route(&publish(ExactlyOnce, 11, "a"), 0));
    assert!(peer.session.handle_publish(&publish(AtLeastOnce, 12, "a")).is_err());
}

#[test]
fn a_resumed_client_has_its_whole_quota() {
    let mut progress = Progress::default();
    progress.inbound.extend(1..=10);
    let terms = terms(Version::V5, |_, _| ());
    let mut peer = Peer::resumed(&terms, true, Some(&progress), false);
    // Releases go first, and new messages need not wait for what answers them (section 4.9).
    (1..=10).for_each(|number| peer.session.handle_pubrel(ack(number)));
    (11..=20).for_each(|number| assert!(peer.route(&publish(ExactlyOnce, number, "a"), 200)));
    assert!(peer.session.handle_publish(&publish(ExactlyOnce, 21, "a")).is_err());
}

#[test]
fn qos2_never_released() {
    let terms = terms(Version::V5, |_, _| ());
    let mut progress = Progress::default();
    for connection in 0..5u16 {
        let mut peer = Peer::resumed(&terms, true, Some(&progress), false);
        for number in 1..=10 {
            let number = connection * 10 + number;
            if peer.session.handle_publish(&publish(ExactlyOnce, number, "a")).is_ok() {
                progress.inbound.insert(number);
            }
        }
    }
    assert_eq!(progress.inbound.len(), 20, "twice the Receive Maximum at most");
}

#[test]
fn an_older_client_has_no_receive_maximum() {
    let mut old = Peer::new(&terms(Version::V311, |_, _| ()), false);
    (1..=500).for_each(|number| assert!(old.route(&publish(ExactlyOnce, number, "a"), 0)));
}

#[test]
fn reading_stops_when_too_many_replies_wait() {
    let mut old = Peer::new(&terms(Version::V311, |_, _| ()), false);
    for number in 1..=4096 {
        assert!(!old.session.is_behind());
        old.route(&publish(AtLeastOnce, number, "a"), 200);
    }
    assert!(old.session.is_behind());
    old.watermark = Lsn(200);
    assert_eq!(old.seen().len(), 4096);
    assert!(!old.session.is_behind());
}

#[test]
fn the_topics_of_all_aliases_together_have_a_limit() {
    let mut peer = Peer::new(&terms(Version::V5, |_, _| ()), false);
    let long: &'static str = "a".repeat(40_000).leak();
    let mut set = |number| peer.session.handle_publish(&alias(number, long)).map(drop);
    set(1).unwrap();
    set(1).unwrap();
    assert_eq!(set(2).unwrap_err().reason, QuotaExceeded);
}

#[test]
fn alias_bounds() {
    let topic_of = |peer: &mut Peer, number, topic| match peer.session.handle_publish(&alias(number, topic)) {
        Ok(Incoming::Route(topic)) => Ok(topic.to_string()),
        Ok(Incoming::Nothing) => unreachable!("QoS 0 has no repeats"),
        Err(close) => Err(close.reason),
    };
    let mut peer = Peer::passing();
    assert_eq!(topic_of(&mut peer, 3, ""), Err(ReasonCode::ProtocolError), "never set");
    assert_eq!(topic_of(&mut peer, 3, "a"), Ok("a".into()));
    assert_eq!(topic_of(&mut peer, 3, ""), Ok("a".into()));
    assert_eq!(topic_of(&mut peer, 3, "b"), Ok("b".into()));
    assert_eq!(topic_of(&mut peer, 3, ""), Ok("b".into()));
    assert_eq!(topic_of(&mut peer, 1, ""), Err(ReasonCode::ProtocolError), "a gap is not set");
    assert_eq!(topic_of(&mut peer, 4, "a"), Err(ReasonCode::TopicAliasInvalid), "above the maximum");
    // [MQTT-3.3.2-7]
    let mut next = Peer::resumed(&terms(Version::V5, |_, _| ()), true, Some(&Progress::default()), false);
    assert_eq!(topic_of(&mut next, 3, ""), Err(ReasonCode::ProtocolError), "no carry-over");
    let mut none = Peer::new(&terms(Version::V5, |_, limits| limits.topic_alias_maximum = 0), false);
    assert_eq!(topic_of(&mut none, 1, "a"), Err(ReasonCode::TopicAliasInvalid));
}

#[test]
fn dollar_topics_are_acknowledged_and_go_nowhere() {
    for topic in ["$SYS/x", "$share/g/t", "$"] {
        let mut peer = Peer::durable();
        for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            let publish = Publish { topic, ..publish(qos, qos as u16, "a") };
            assert!(matches!(peer.session.handle_publish(&publish), Ok(Incoming::Nothing)), "{topic}");
        }
        assert_eq!(peer.seen(), [Seen::Puback(1, Success), Seen::Pubrec(2, Success)]);
    }
    let mut peer = Peer::durable();
    let inside = Publish { topic: "a/$b", ..publish(AtMostOnce, 0, "a") };
    assert!(peer.route(&inside, 0));
}

#[test]
fn topics_have_a_limited_depth() {
    let mut peer = Peer::passing();
    let publish = Publish { topic: "1/2/3/4/5/6/7/8/9", ..publish(AtLeastOnce, 1, "a") };
    assert_eq!(peer.session.handle_publish(&publish).unwrap_err().reason, ReasonCode::MalformedPacket);
}

#[test]
fn filters_are_judged_one_by_one_and_no_local_is_not_for_groups() {
    let subscribe = |filters: &[(&str, bool)]| Subscribe {
        packet_id: id(1),
        subscription_id: Some(5),
        filters: filters
            .iter()
            .map(|(filter, no_local)| SubscribeFilter {
                filter: (*filter).into(),
                options: SubscribeOptions { no_local: *no_local, ..Default::default() },
            })
            .collect(),
    };
    let peer = Peer::passing();
    let filters = [("a/#", true), ("$share/g", false), ("$share/g/a", false)];
    let judged = peer.session.handle_subscribe(&subscribe(&filters)).unwrap();
    assert_eq!(judged[0].as_ref().unwrap().id, Some(5));
    assert_eq!(judged[1], Err(ReasonCode::TopicFilterInvalid));
    assert!(judged[2].as_ref().unwrap().filter.is_shared());
    // What is no filter at all is malformed.
    let malformed = peer.session.handle_subscribe(&subscribe(&[("a#", false)]));
    assert_eq!(malformed.unwrap_err().reason, ReasonCode::MalformedPacket);
    // [MQTT-3.8.3-4]
    let shared = peer.session.handle_subscribe(&subscribe(&[("a", false), ("$share/g/a", true)]));
    assert_eq!(shared.unwrap_err().reason, ReasonCode::ProtocolError);
    let old = Peer::new(&terms(Version::V311, |_, _| ()), false);
    let judged = old.session.handle_subscribe(&subscribe(&[("$share/g", false)])).unwrap();
    assert_eq!(judged, [Err(ReasonCode::UnspecifiedError)]);
}
