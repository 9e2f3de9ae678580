//! Sessions that are cut and resumed.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::num::NonZeroU16;

use super::store::Store;
use super::*;
use crate::codec::{PublishFrame, encode};

use Qos::{AtLeastOnce, ExactlyOnce};

const OWED: [Qos; 7] =
    [AtLeastOnce, ExactlyOnce, ExactlyOnce, AtLeastOnce, ExactlyOnce, AtLeastOnce, AtLeastOnce];
const SENT: [Qos; 6] = [ExactlyOnce, AtLeastOnce, ExactlyOnce, ExactlyOnce, AtLeastOnce, ExactlyOnce];

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// The last report is made durable.
    Orderly,
    /// The broker dies with what is not durable.
    Crash,
}

/// A client that keeps to the specification, also over reconnects.
#[derive(Default)]
struct Client {
    /// To be sent, by packet identifier: payload, and whether PUBREC has come.
    sending: BTreeMap<u16, (Qos, String, bool)>,
    /// Identifiers of QoS 2 messages that were not released.
    receiving: HashSet<u16>,
    got: Vec<(Qos, String)>,
    bytes: Vec<u8>,
}

impl Client {
    fn new() -> Self {
        let messages = (1..).zip(SENT).map(|(id, qos)| (id, (qos, format!("{}-{id}", qos as u8), false)));
        Self { sending: messages.collect(), ..Self::default() }
    }

    /// What goes out on a new connection.
    fn begin(&mut self, again: bool) -> Vec<Vec<u8>> {
        self.bytes.clear();
        self.sending
            .iter()
            .map(|(id, (qos, payload, released))| client_publish(*id, (*qos, payload), *released, again))
            .collect()
    }

    /// Takes bytes in; gives the packets that answer them.
    fn take(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        self.bytes.extend_from_slice(bytes);
        let (mut decoder, mut answers, mut at) =
            (Decoder::client(Version::V5, MAX_PACKET_SIZE), Vec::new(), 0);
        let bytes = std::mem::take(&mut self.bytes);
        while let Some((packet, len)) = decoder.decode(&bytes[at..]).unwrap() {
            at += len;
            answers.extend(self.answer(Seen::from_packet(&packet)));
        }
        self.bytes = bytes[at..].to_vec();
        answers
    }

    fn answer(&mut self, seen: Seen) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let (v5, ok, max) = (Version::V5, ReasonCode::Success, MAX_PACKET_SIZE);
        match seen {
            Seen::Publish { id: number, qos, dup, payload, .. } => {
                let repeated = self.got.contains(&(qos, payload.clone()));
                assert!(dup || !repeated, "{payload} came again without DUP");
                if qos == AtLeastOnce {
                    self.got.push((qos, payload));
                    encode::puback(v5, id(number), ok, None, max, &mut out).unwrap();
                } else {
                    if self.receiving.insert(number) {
                        self.got.push((qos, payload));
                    }
                    encode::pubrec(v5, id(number), ok, None, max, &mut out).unwrap();
                }
            }
            Seen::Pubrel(number, _) => {
                self.receiving.remove(&number);
                encode::pubcomp(v5, id(number), ok, None, max, &mut out).unwrap();
            }
            Seen::Puback(number, _) | Seen::Pubcomp(number, _) => {
                self.sending.remove(&number);
            }
            Seen::Pubrec(number, _) => {
                if let Some((.., released)) = self.sending.get_mut(&number) {
                    *released = true;
                }
                encode::pubrel(v5, id(number), ok, None, max, &mut out).unwrap();
            }
            Seen::Other => {}
        }
        (!out.is_empty()).then_some(out)
    }
}

fn client_publish(number: u16, (qos, payload): (Qos, &str), released: bool, dup: bool) -> Vec<u8> {
    let mut out = Vec::new();
    if released {
        encode::pubrel(Version::V5, id(number), ReasonCode::Success, None, MAX_PACKET_SIZE, &mut out)
            .unwrap();
        return out;
    }
    let frame = PublishFrame {
        dup,
        qos,
        retain: false,
        packet_id: Some(id(number)),
        topic: b"t",
        alias: None,
        expiry: None,
        subscription_ids: &[],
        properties: &[],
        payload_len: 0,
    };
    encode::publish(Version::V5, &frame, payload.as_bytes(), MAX_PACKET_SIZE, &mut out).unwrap();
    out
}

/// The broker's end of one connection.
struct Server<'a> {
    peer: Peer,
    store: &'a mut Store,
    backlog: VecDeque<(Lsn, Qos)>,
    input: Vec<u8>,
    now: UnixMillis,
}

impl<'a> Server<'a> {
    fn new(store: &'a mut Store, window: u16, torn: bool, now: UnixMillis) -> Self {
        let terms = terms(Version::V5, |connect, _| connect.receive_maximum = NonZeroU16::new(window));
        let durable = Some(Durable { recipient: OWN, epoch: Epoch(store.epoch) });
        let session = Session::new(&terms, durable, Some(&store.progress), torn, now);
        let in_flight: BTreeSet<_> = session.in_flight().map(|claim| claim.lsn).collect();
        let backlog = store.owed.iter().map(|(lsn, qos)| (*lsn, *qos));
        let backlog = backlog.filter(|(lsn, _)| !in_flight.contains(lsn)).collect();
        let peer = Peer { session, out: Outgoing::default(), watermark: Lsn::ZERO };
        Self { peer, store, backlog, input: Vec::new(), now }
    }

    /// Handles what came, and writes what may be written.
    fn turn(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.input.extend_from_slice(bytes);
        let mut decoder = Decoder::client(Version::V5, MAX_PACKET_SIZE);
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        while let Some((packet, len)) = decoder.decode(&input[at..]).unwrap() {
            at += len;
            self.handle(&packet);
        }
        self.input = input[at..].to_vec();
        self.settle(self.now);
        let watermark = self.store.watermark();
        let peer = &mut self.peer;
        peer.session.write_replies(watermark, &mut peer.out).unwrap();
        peer.session.write_held(self.now, watermark, &mut peer.out);
        while let Some(exchange) = peer.session.take_resend() {
            let delivery = stored(exchange.lsn, self.store.owed[&exchange.lsn]);
            peer.session.redeliver(self.now, exchange.packet_id, delivery, &mut peer.out);
        }
        while !peer.session.has_resends() && peer.session.has_window() {
            let Some((lsn, qos)) = self.backlog.pop_front() else { break };
            peer.session.deliver(self.now, stored(lsn, qos), &mut peer.out);
        }
        let bytes = flat(&mut peer.out);
        self.settle(self.now);
        bytes
    }

    fn handle(&mut self, packet: &Packet<'_>) {
        let session = &mut self.peer.session;
        match packet {
            Packet::Publish(publish) => {
                if let Incoming::Route(_) = session.handle_publish(publish).unwrap() {
                    let lsn = self.store.route(publish);
                    session.published(publish, Receipt::SafeAt(lsn, ReasonCode::Success)).unwrap();
                }
            }
            Packet::Puback(ack) => session.handle_puback(*ack).unwrap(),
            Packet::Pubrec(ack) => session.handle_pubrec(*ack).unwrap(),
            Packet::Pubrel(ack) => session.handle_pubrel(*ack),
            Packet::Pubcomp(ack) => session.handle_pubcomp(*ack).unwrap(),
            other => unreachable!("{other:?}"),
        }
    }

    fn settle(&mut self, now: UnixMillis) {
        for claim in self.peer.session.take_settled() {
            self.peer.session.settle_by_report(&claim, now);
        }
        if self.peer.session.must_report(now)
            && let Some(delta) = self.peer.session.take_report()
        {
            let lsn = self.store.report(delta);
            self.peer.session.reported(lsn);
        }
    }
}

fn stored(lsn: Lsn, qos: Qos) -> Delivery {
    Delivery {
        message: message("t", lsn.0.to_string().as_bytes(), UnixMillis::NEVER),
        ..owed(qos, OWN, lsn.0)
    }
}

/// Runs one connection until nothing moves, or `budget` bytes and commits were used: then it is cut.
/// `lag` is how many turns pass before a record becomes durable.
fn run(client: &mut Client, server: &mut Server<'_>, again: bool, budget: &mut usize, lag: usize) -> bool {
    let mut to_server: Vec<u8> = client.begin(again).concat();
    for turn in 0.. {
        let was_sent = std::mem::take(&mut to_server);
        let arrived = &was_sent[..was_sent.len().min(*budget)];
        *budget -= arrived.len();
        let bytes = server.turn(arrived);
        let arrived = &bytes[..bytes.len().min(*budget)];
        *budget -= arrived.len();
        to_server = client.take(arrived).concat();
        let mut moved = !was_sent.is_empty() || !bytes.is_empty();
        if turn % (lag + 1) == lag {
            *budget = budget.saturating_sub(1);
            moved |= *budget > 0 && server.store.commit();
        }
        if *budget == 0 {
            return false;
        }
        if !moved && to_server.is_empty() && turn % (lag + 1) == lag {
            return true;
        }
    }
    unreachable!("the loop ends when nothing moves")
}

fn cut_at(cut: usize, how: Cut, lag: usize) -> usize {
    let (mut client, mut store) = (Client::new(), Store::owing(&OWED));
    let mut now = UnixMillis(NOW.0 + 1);
    let mut budget = cut;
    let mut torn = false;
    for connection in 0..3 {
        let mut server = Server::new(&mut store, 3, torn, now);
        let done = run(&mut client, &mut server, connection > 0, &mut budget, lag);
        if how == Cut::Orderly || done {
            // Everything that is held back is told when the connection ends.
            server.settle(UnixMillis(u64::MAX - 1));
            store.commit_all();
        } else {
            store.crash();
        }
        if done {
            break;
        }
        torn = how == Cut::Crash;
        store.epoch += 1;
        now = UnixMillis(now.0 + 1000);
        if torn {
            store.progress.doubtful_before = Lsn(u64::MAX);
        }
        // Cut again in the middle of what is left, then no more.
        budget = if connection == 0 { 60 } else { 1_000_000 };
    }
    judge(&client, &store, &format!("cut at {cut}, {how:?}, lag {lag}"));
    budget
}

fn judge(client: &Client, store: &Store, what: &str) {
    let exactly_once = |all: &[(Qos, String)]| -> Vec<String> {
        all.iter().filter(|(qos, _)| *qos == ExactlyOnce).map(|(_, payload)| payload.clone()).collect()
    };
    let owed: Vec<_> = (1..).zip(OWED).map(|(n, qos): (u64, Qos)| (qos, n.to_string())).collect();
    assert_eq!(exactly_once(&client.got), exactly_once(&owed), "to the client: {what}");
    let mut seen = HashSet::new();
    let firsts: Vec<_> =
        client.got.iter().filter(|(qos, p)| *qos == AtLeastOnce && seen.insert(p.clone())).collect();
    let want: Vec<_> = owed.iter().filter(|(qos, _)| *qos == AtLeastOnce).collect();
    assert_eq!(firsts, want, "to the client: {what}");
    let routed: Vec<_> = store.routed.iter().filter(|payload| payload.starts_with("2-")).collect();
    assert_eq!(routed, ["2-1", "2-3", "2-4", "2-6"], "from the client: {what}");
    for once in ["1-2", "1-5"] {
        assert!(store.routed.iter().any(|payload| payload == once), "from the client: {what}");
    }
    assert!(client.sending.is_empty() && client.receiving.is_empty(), "{what}");
    assert!(store.owed.is_empty(), "{what}: {:?}", store.owed);
    assert!(store.progress.exchanges.is_empty() && store.progress.inbound.is_empty(), "{what}");
}

#[test]
fn resume_exact() {
    for how in [Cut::Orderly, Cut::Crash] {
        for lag in [0, 2] {
            let used = 1_000_000 - cut_at(1_000_000, how, lag);
            assert!(used > 200, "{used} bytes and commits");
            for cut in 1..=used {
                cut_at(cut, how, lag);
            }
        }
    }
}

fn progress(exchanges: &[(u16, u64, ExchangeState)]) -> Progress {
    let mut progress = Progress::default();
    for (number, lsn, state) in exchanges {
        let exchange = Exchange { packet_id: id(*number), lsn: Lsn(*lsn), owner: OWN, state: *state };
        progress.exchanges.insert(*number, exchange);
    }
    progress.next_packet_id = 500;
    progress
}

fn resumed(window: u16, exchanges: &[(u16, u64, ExchangeState)]) -> Peer {
    let terms = terms(Version::V5, |connect, _| connect.receive_maximum = NonZeroU16::new(window));
    Peer::resumed(&terms, true, Some(&progress(exchanges)), false)
}

fn repeat(peer: &mut Peer) -> Option<(u64, Vec<Seen>)> {
    let exchange = peer.session.take_resend()?;
    // What the caller believes about the QoS does not matter: the exchange knows.
    let delivery = owed(AtLeastOnce, OWN, exchange.lsn.0);
    peer.session.redeliver(NOW, exchange.packet_id, delivery, &mut peer.out);
    Some((exchange.lsn.0, peer.seen()))
}

#[test]
fn resume_window_smaller() {
    let exchanges: Vec<_> =
        (1..=100u16).map(|n| (101 - n, n.into(), ExchangeState::AwaitingPuback)).collect();
    let mut peer = resumed(1, &exchanges);
    for n in 1..=100u16 {
        let (number, lsn) = (101 - n, u64::from(n));
        let want = Seen::publish(number, AtLeastOnce, true, &lsn.to_string());
        assert_eq!(repeat(&mut peer), Some((lsn, vec![want])), "in the order of the messages");
        assert_eq!(repeat(&mut peer), None, "one at a time");
        assert!(!peer.session.has_window());
        peer.session.handle_puback(ack(number)).unwrap();
    }
    assert!(!peer.session.has_resends() && peer.session.has_window());
    assert_eq!(peer.settled().len(), 100);
    peer.deliver(owed(AtLeastOnce, OWN, 200));
    assert_eq!(peer.seen(), [Seen::publish(500, AtLeastOnce, false, "200")]);
}

#[test]
fn resume_releases_without_a_window_and_counts_what_is_released() {
    let release = ExchangeState::AwaitingPubcomp;
    let mut peer = resumed(1, &[(1, 10, release), (2, 5, release), (3, 7, ExchangeState::AwaitingPubrec)]);
    let ok = ReasonCode::Success;
    assert_eq!(peer.seen(), [Seen::Pubrel(2, ok), Seen::Pubrel(1, ok)]);
    assert_eq!(repeat(&mut peer), None);
    assert!(peer.session.has_resends() && !peer.session.has_window());
    peer.session.handle_pubcomp(ack(1)).unwrap();
    assert_eq!(repeat(&mut peer), None);
    peer.session.handle_pubcomp(ack(2)).unwrap();
    assert_eq!(repeat(&mut peer), Some((7, vec![Seen::publish(3, ExactlyOnce, true, "7")])));
    assert!(!peer.session.has_window());
}

#[test]
fn a_late_acknowledgement_needs_no_repeat() {
    use ExchangeState::{AwaitingPuback, AwaitingPubrec};
    let mut peer = resumed(1, &[(1, 10, AwaitingPuback), (2, 11, AwaitingPubrec), (3, 12, AwaitingPuback)]);
    peer.session.handle_puback(ack(1)).unwrap();
    peer.session.handle_pubrec(ack(2)).unwrap();
    assert!(!peer.session.has_window(), "the released one is the client's now");
    peer.report(50);
    assert_eq!(peer.seen(), [Seen::Pubrel(2, ReasonCode::Success)]);
    peer.session.handle_pubcomp(ack(2)).unwrap();
    let exchange = peer.session.take_resend().unwrap();
    assert_eq!(exchange.lsn, Lsn(12));
    // Acknowledged while its message is read.
    peer.session.handle_puback(ack(3)).unwrap();
    peer.session.redeliver(NOW, exchange.packet_id, owed(AtLeastOnce, OWN, 12), &mut peer.out);
    assert_eq!(peer.seen(), []);
    assert!(peer.session.has_window() && !peer.session.has_resends());
    assert_eq!(peer.report(51).unwrap().settled, [Lsn(11), Lsn(12)], "the first went with the report before");
}

#[test]
fn an_exchange_without_its_message_is_abandoned() {
    let mut peer = resumed(1, &[(1, 10, ExchangeState::AwaitingPuback)]);
    let exchange = peer.session.take_resend().unwrap();
    assert!(!peer.session.has_window());
    peer.session.abandon(exchange.packet_id);
    assert!(peer.session.has_window());
    assert_eq!(peer.settled(), [], "it is not ours to settle");
    assert_eq!(peer.report(50).unwrap().ended, [id(1)]);
    peer.session.abandon(exchange.packet_id);
    assert_eq!(peer.report(51), None);
}
