//! What the session tells the store, and when.

use super::*;

use Qos::{AtLeastOnce, ExactlyOnce};

fn later(millis: u64) -> UnixMillis {
    UnixMillis(NOW.0 + millis)
}

#[test]
fn a_batch_has_one_report() {
    let mut peer = Peer::durable();
    for lsn in 1..=5 {
        peer.deliver(owed(ExactlyOnce, OWN, lsn));
    }
    peer.deliver(owed(AtLeastOnce, OWN, 6));
    peer.route(&publish(ExactlyOnce, 1, "a"), 90);
    peer.session.handle_pubrel(ack(1));
    let delta = peer.report(101).unwrap();
    assert_eq!((delta.recipient, delta.epoch), (OWN, Epoch(1)));
    assert_eq!((delta.exchanges.len(), delta.released, delta.next_packet_id), (6, vec![id(1)], 7));
    assert_eq!(peer.report(102), None);
    assert!(!peer.session.must_report(later(10_000)));
}

#[test]
fn what_nobody_waits_for_is_held_back() {
    let mut peer = Peer::durable();
    peer.deliver(owed(AtLeastOnce, OWN, 5));
    assert!(!peer.session.must_report(later(249)));
    assert_eq!(peer.session.deadline(), Some(later(250)));
    assert!(peer.session.must_report(later(250)));
    let delta = peer.report(10).unwrap();
    assert_eq!((delta.exchanges[0].lsn, delta.exchanges[0].packet_id), (Lsn(5), id(1)));
    assert_eq!(peer.session.deadline(), None);
    // The end of an exchange that the store knows of is told in time, too.
    peer.session.handle_puback(ack(1)).unwrap();
    assert_eq!(peer.session.deadline(), Some(later(250)));
    let delta = peer.report(11).unwrap();
    assert_eq!((delta.ended, delta.settled), (vec![id(1)], vec![Lsn(5)]));
}

#[test]
fn an_exchange_that_is_over_is_not_reported() {
    let mut peer = Peer::durable();
    peer.deliver(owed(AtLeastOnce, OWN, 5));
    peer.session.handle_puback(ack(1)).unwrap();
    // Struck from its record in time.
    assert_eq!(peer.settled(), [Lsn(5)]);
    assert_eq!(peer.session.take_report(), None);
}

#[test]
fn many_settlements_do_not_wait() {
    let mut peer = Peer::durable();
    for lsn in 1..=1024 {
        assert!(!peer.session.must_report(NOW));
        peer.session.settle_by_report(&Claim { lsn: Lsn(lsn), owner: OWN, entry: None }, NOW);
    }
    assert!(peer.session.must_report(NOW));
}

/// [id_reuse_after_lazy_pubcomp] The end of an exchange is told later than it comes, and its identifier may have
/// been given out again by then: the settlement names the message, and the new exchange stays.
#[test]
fn id_reuse_after_lazy_pubcomp() {
    let terms = terms(Version::V5, |_, limits| limits.inflight = u16::MAX);
    let mut peer = Peer::new(&terms, true);
    for lsn in 1..=u64::from(u16::MAX) {
        peer.deliver(owed(ExactlyOnce, OWN, lsn));
    }
    let mut store = store::Store::default();
    store.epoch = 1;
    let told = peer.report(100).unwrap();
    store.report(told);
    peer.seen();
    peer.session.handle_pubrec(ack(777)).unwrap();
    let told = peer.report(100).unwrap();
    store.report(told);
    // All are in use; one ends, and its identifier begins again before the next report.
    peer.session.handle_pubcomp(ack(777)).unwrap();
    assert!(!peer.session.must_report(NOW), "it is told later");
    peer.deliver(owed(ExactlyOnce, OWN, 1_000_000));
    let delta = peer.report(101).unwrap();
    assert_eq!((&delta.ended, &delta.settled), (&vec![], &vec![Lsn(777)]));
    store.report(delta);
    store.commit_all();
    let exchange = store.progress.exchanges[&777];
    assert_eq!((exchange.lsn, exchange.state), (Lsn(1_000_000), ExchangeState::AwaitingPubrec));
}

#[test]
fn identifiers_are_told_before_a_crash_could_repeat_them() {
    let mut peer = Peer::durable();
    let mut told = 1u16;
    for n in 1..=u16::MAX {
        peer.deliver(owed(AtLeastOnce, OWN, n.into()));
        peer.session.handle_puback(ack(n)).unwrap();
        assert_eq!(peer.settled().len(), 1, "all are struck in time");
        if peer.session.must_report(NOW) {
            told = peer.report(50).unwrap().next_packet_id;
        }
        assert!(n.wrapping_add(1).wrapping_sub(told) < 1 << 14, "{n} was given out, {told} was told");
        peer.seen();
    }
    let mut passing = Peer::passing();
    for n in 1..=u16::MAX {
        passing.deliver(self::passing(AtLeastOnce, ""));
        passing.session.handle_puback(ack(n)).unwrap();
        assert!(!passing.session.must_report(NOW), "nobody has to know");
        passing.seen();
    }
}

#[test]
fn a_torn_session_tells_its_new_identifiers_before_it_uses_them() {
    let mut progress = Progress::default();
    progress.next_packet_id = 100;
    let terms = terms(Version::V5, |_, _| ());
    let mut peer = Peer::resumed(&terms, true, Some(&progress), true);
    assert!(!peer.session.has_window());
    assert!(peer.session.must_report(NOW));
    assert_eq!(peer.report(101).unwrap().next_packet_id, 100 + (1 << 15));
    assert!(!peer.session.must_report(NOW));
    assert_eq!(peer.session.held_waits_for(), Some(Lsn(101)));
    peer.seen();
    assert!(!peer.session.has_window());
    peer.watermark = Lsn(101);
    peer.seen();
    assert!(peer.session.has_window());
    assert_eq!(peer.session.held_waits_for(), None);
}

/// Also by a connection that follows one that did end in order: that one may not have come to it.
#[test]
fn what_may_have_been_sent_without_a_trace_is_sent_with_dup() {
    let mut progress = Progress::default();
    progress.doubtful_before = Lsn(6);
    let mut peer = Peer::resumed(&terms(Version::V5, |_, _| ()), true, Some(&progress), false);
    for lsn in [5, 6] {
        peer.deliver(owed(AtLeastOnce, OWN, lsn));
    }
    let want = [Seen::publish(1, AtLeastOnce, true, "5"), Seen::publish(2, AtLeastOnce, false, "6")];
    assert_eq!(peer.seen(), want);
}

#[test]
fn a_torn_session_wraps_past_zero() {
    let mut progress = Progress::default();
    progress.next_packet_id = 1 << 15;
    let mut peer = Peer::resumed(&terms(Version::V5, |_, _| ()), true, Some(&progress), true);
    assert_eq!(peer.report(50).unwrap().next_packet_id, 1);
}

#[test]
fn shared_messages_are_settled_for_the_group() {
    let mut peer = Peer::durable();
    peer.deliver(owed(AtLeastOnce, GROUP, 5));
    peer.session.handle_puback(ack(1)).unwrap();
    let delta = peer.report(10).unwrap();
    assert_eq!((delta.settled, delta.settled_shared), (vec![], vec![(GROUP, Lsn(5))]));
    // By a session that the store does not know, too.
    let mut peer = Peer::passing();
    peer.deliver(owed(ExactlyOnce, GROUP, 6));
    peer.seen();
    peer.session.handle_pubrec(ack(1)).unwrap();
    peer.session.handle_pubcomp(ack(1)).unwrap();
    let delta = peer.report(10).unwrap();
    let want = SessionDelta { settled_shared: vec![(GROUP, Lsn(6))], ..SessionDelta::default() };
    assert_eq!(delta, want);
}

#[test]
fn a_group_keeps_with_a_member_only_what_it_began_exactly_once() {
    let mut peer = Peer::durable();
    peer.deliver(owed(AtLeastOnce, GROUP, 5));
    peer.deliver(owed(ExactlyOnce, GROUP, 6));
    peer.deliver(owed(ExactlyOnce, OWN, 7));
    let delta = peer.report(10).unwrap();
    assert_eq!(delta.exchanges.iter().map(|exchange| exchange.lsn).collect::<Vec<_>>(), [Lsn(6), Lsn(7)]);
    assert_eq!(peer.session.begun_exactly_once(GROUP), [Lsn(6)]);
    assert_eq!(peer.session.in_flight().count(), 3);
}
