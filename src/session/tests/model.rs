//! Random packets and events, legal and not, against a model of what the client was sent.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use proptest::prelude::*;

use super::store::Store;
use super::*;

use ExchangeState::{AwaitingPuback, AwaitingPubcomp, AwaitingPubrec};

const WINDOW: u16 = 4;

#[derive(Clone, Debug)]
enum Op {
    Deliver(Qos, bool),
    Puback(u16, bool),
    Pubrec(u16, bool),
    Pubcomp(u16),
    Pubrel(u16),
    Publish(Qos, u16),
    Abandon(u16),
    Report,
    Commit,
    Write,
}

fn qos() -> impl Strategy<Value = Qos> {
    prop_oneof![Just(Qos::AtMostOnce), Just(Qos::AtLeastOnce), Just(Qos::ExactlyOnce)]
}

/// Identifiers that are often in use, at the end of their range and at its beginning.
fn number() -> impl Strategy<Value = u16> {
    prop_oneof![1u16..6, u16::MAX - 3..=u16::MAX]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (qos(), any::<bool>()).prop_map(|(qos, group)| Op::Deliver(qos, group)),
        3 => (number(), any::<bool>()).prop_map(|(id, error)| Op::Puback(id, error)),
        3 => (number(), prop::bool::weighted(0.2)).prop_map(|(id, error)| Op::Pubrec(id, error)),
        3 => number().prop_map(Op::Pubcomp),
        1 => number().prop_map(Op::Pubrel),
        1 => (qos(), number()).prop_map(|(qos, id)| Op::Publish(qos, id)),
        1 => number().prop_map(Op::Abandon),
        4 => Just(Op::Report),
        4 => Just(Op::Commit),
        4 => Just(Op::Write),
    ]
}

/// The session, its store, and what the client and the broker know.
struct Model {
    peer: Peer,
    store: Store,
    /// What the client was sent and has not acknowledged, from the wire alone.
    open: BTreeMap<u16, ExchangeState>,
    /// Messages that were taken and are to be settled.
    claims: BTreeSet<u64>,
    next_lsn: u64,
    /// Messages whose exchange was abandoned, which are not settled.
    abandoned: BTreeSet<u64>,
    inbound: BTreeSet<u16>,
}

impl Model {
    fn new(durable: bool) -> Self {
        let terms = terms(Version::V5, |connect, limits| {
            connect.receive_maximum = NonZeroU16::new(WINDOW);
            limits.receive_maximum = u16::MAX;
        });
        let mut progress = Progress::default();
        progress.next_packet_id = u16::MAX - 3;
        let store = Store::owing(&[]);
        let mut peer = Peer::resumed(&terms, durable, Some(&progress), false);
        peer.watermark = store.watermark();
        let (open, claims, abandoned, inbound) = Default::default();
        Self { peer, store, open, claims, next_lsn: 1, abandoned, inbound }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Deliver(qos, group) => self.deliver(qos, group),
            Op::Puback(number, error) => {
                let ack = if error { refusal(number) } else { ack(number) };
                if self.peer.session.handle_puback(ack).is_ok() {
                    self.acknowledged(number, AwaitingPuback);
                }
            }
            Op::Pubrec(number, error) => {
                let ack = if error { refusal(number) } else { ack(number) };
                let state = self.open.get(&number).copied();
                let result = self.peer.session.handle_pubrec(ack);
                assert_eq!(result.is_err(), state == Some(AwaitingPuback));
                if state == Some(AwaitingPubrec) && error {
                    self.open.remove(&number);
                } else if state == Some(AwaitingPubrec) {
                    self.open.insert(number, AwaitingPubcomp);
                }
            }
            Op::Pubcomp(number) => {
                let state = self.open.get(&number).copied();
                match self.peer.session.handle_pubcomp(ack(number)) {
                    Ok(()) => self.acknowledged(number, AwaitingPubcomp),
                    Err(_) => assert!(matches!(state, Some(AwaitingPuback | AwaitingPubrec))),
                }
            }
            Op::Pubrel(number) => {
                self.inbound.remove(&number);
                self.peer.session.handle_pubrel(ack(number));
            }
            Op::Publish(qos, number) => self.publish(qos, number),
            Op::Abandon(number) => self.abandon(number),
            Op::Report => self.report(),
            Op::Commit => {
                self.store.commit();
                self.peer.watermark = self.store.watermark();
            }
            Op::Write => self.write(),
        }
        assert!(self.open.len() <= usize::from(WINDOW), "[MQTT-3.3.4-9] {:?}", self.open);
        assert!(self.peer.session.in_flight().count() <= usize::from(WINDOW));
    }

    fn deliver(&mut self, qos: Qos, group: bool) {
        let lsn = self.next_lsn;
        let had_window = self.peer.session.has_window();
        let outcome = self.peer.deliver(owed(qos, if group { GROUP } else { OWN }, lsn));
        assert_eq!(outcome == Outcome::NoWindow, qos > Qos::AtMostOnce && !had_window);
        if outcome == Outcome::Taken {
            self.claims.insert(lsn);
            self.next_lsn += 1;
        }
        // What is sent at once is on the wire in this order.
        self.write();
    }

    fn acknowledged(&mut self, number: u16, state: ExchangeState) {
        if self.open.get(&number) == Some(&state) {
            self.open.remove(&number);
        }
    }

    fn publish(&mut self, qos: Qos, number: u16) {
        let publish = publish(qos, number, "x");
        let routed = self.peer.session.handle_publish(&publish).unwrap();
        let is_new = qos < Qos::ExactlyOnce || self.inbound.insert(number);
        assert_eq!(matches!(routed, Incoming::Route(_)), is_new, "a repeat is not routed");
        if is_new {
            let lsn = self.store.route(&publish);
            self.peer.session.published(&publish, Receipt::SafeAt(lsn, ReasonCode::Success)).unwrap();
        }
    }

    fn abandon(&mut self, number: u16) {
        let claims = |peer: &Peer| peer.session.in_flight().map(|claim| claim.lsn.0).collect::<BTreeSet<_>>();
        let before = claims(&self.peer);
        self.peer.session.abandon(id(number));
        let after = claims(&self.peer);
        self.abandoned.extend(before.difference(&after));
        self.open.remove(&number);
    }

    fn report(&mut self) {
        for claim in self.peer.session.take_settled() {
            assert!(self.claims.remove(&claim.lsn.0), "message {} was settled twice", claim.lsn.0);
            self.peer.session.settle_by_report(&claim, NOW);
        }
        if let Some(delta) = self.peer.session.take_report() {
            let lsn = self.store.report(delta);
            self.peer.session.reported(lsn);
        }
    }

    fn write(&mut self) {
        for seen in self.peer.seen() {
            match seen {
                Seen::Publish { id, qos, dup, .. } if qos > Qos::AtMostOnce => {
                    assert!(!dup);
                    let state = if qos == Qos::AtLeastOnce { AwaitingPuback } else { AwaitingPubrec };
                    assert_eq!(self.open.insert(id, state), None, "identifier {id} is in two exchanges");
                    if let Some(durable) = self.peer.session.durable()
                        && qos == Qos::ExactlyOnce
                    {
                        let known = &self.store.progress.exchanges[&id];
                        assert!(known.state == AwaitingPubrec && durable.recipient == OWN, "told first");
                    }
                }
                _ => {}
            }
        }
    }

    /// A client that answers everything.
    fn drain(&mut self) {
        for _ in 0..20 {
            self.report();
            self.store.commit_all();
            self.peer.watermark = self.store.watermark();
            self.write();
            for (number, state) in self.open.clone() {
                self.apply(&match state {
                    AwaitingPuback => Op::Puback(number, false),
                    AwaitingPubrec => Op::Pubrec(number, false),
                    AwaitingPubcomp => Op::Pubcomp(number),
                });
            }
            for number in self.inbound.clone() {
                self.apply(&Op::Pubrel(number));
            }
        }
    }
}

fn run(durable: bool, ops: &[Op]) {
    let mut model = Model::new(durable);
    ops.iter().for_each(|op| model.apply(op));
    model.drain();
    let (session, progress) = (&model.peer.session, &model.store.progress);
    assert_eq!(session.in_flight().count(), 0);
    assert_eq!(model.claims, model.abandoned, "everything else is settled");
    assert!(session.has_window() && !session.must_report(NOW) && session.reply_waits_for().is_none());
    assert!(session.held_waits_for().is_none());
    if durable {
        assert_eq!((&progress.exchanges, &progress.inbound), (&BTreeMap::new(), &BTreeSet::new()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_order_of_packets_and_events(durable: bool, ops in prop::collection::vec(op(), 1..200)) {
        run(durable, &ops);
    }
}
