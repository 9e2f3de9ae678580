//! Packets and events in any order against a session, with a store behind it that commits when the input
//! says so and forgets when it crashes, and a reference model that says what the client must get.
//!
//! The first bytes choose the terms. An honest client keeps to the specification, so that nothing may be lost
//! or doubled from end to end, whatever is cut; any other client sends what the input says.

mod client;
mod events;
mod model;
mod store;

use std::collections::BTreeSet;
use std::num::NonZeroU16;

use causeway::codec::{Connect, Decoder, MAX_PACKET_SIZE, Qos, Version};
use causeway::record::{Lsn, UnixMillis};
use causeway::session::{Durable, Offer, Outgoing, Session, SessionLimits, Terms};

use super::Input;
use client::Client;
use model::{Model, Verdict};
use store::{OWN, Store};

/// Levels that a topic may have.
const TOPIC_LEVELS: u16 = 6;

/// What does not change over reconnects.
struct Setup {
    version: Version,
    /// The session outlives its connection.
    durable: bool,
    /// The client keeps to the specification.
    honest: bool,
    connect: Connect<'static>,
    limits: SessionLimits,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The last report is made durable.
    Orderly,
    /// The last report is missing.
    Torn,
    /// The broker dies with what is not durable.
    Crash,
}

struct World {
    setup: Setup,
    terms: Terms,
    now: UnixMillis,
    store: Store,
    client: Client,
    /// Payloads of the client that were refused at least once.
    refused: Vec<String>,
    session: Session,
    model: Model,
    out: Outgoing,
    server_decoder: Decoder,
    heard_at: UnixMillis,
    /// The first identifiers after a torn connection wait for the disk.
    may_wait_for_ids: bool,
    /// Messages that are owed and were not tried on this connection.
    backlog: Vec<u64>,
    /// Messages that the client has to have in the end.
    promised: BTreeSet<u64>,
    /// What becomes of the next PUBLISH.
    verdict: u8,
    over: bool,
}

pub fn run(input: &[u8]) {
    let mut input = Input(input);
    let mut world = World::new(&mut input);
    while !input.is_empty() {
        world.step(&mut input);
        world.check();
    }
    world.finish();
}

impl Setup {
    fn choose(input: &mut Input<'_>) -> Self {
        let version = input.pick(&[Version::V5, Version::V5, Version::V311, Version::V31]);
        let flags = input.byte();
        let durable = flags & 1 == 0;
        let mut connect = Connect::new(version, "c");
        connect.clean_start = !durable;
        connect.keep_alive = input.pick(&[0, 0, 10]);
        let honest = flags & 2 == 0;
        if version == Version::V5 {
            connect.session_expiry = durable.then_some(100);
            connect.receive_maximum = NonZeroU16::new(input.pick(&[2, 1, 4, 0]));
            connect.topic_alias_maximum = input.below(3).into();
            connect.maximum_packet_size =
                input.pick(&[None, Some(4), Some(20), Some(40)]).filter(|_| !honest);
        }
        let limits = SessionLimits {
            receive_maximum: input.pick(&[10, 1, 3, u16::MAX]),
            inflight: input.pick(&[20, 1, 3]),
            topic_alias_maximum: input.below(3).into(),
            topic_levels: TOPIC_LEVELS,
            packet_size: MAX_PACKET_SIZE,
            keep_alive_max: input.pick(&[0, 5]),
            session_expiry: 3600,
            offer: if honest { Offer::EVERYTHING } else { any_offer(input.byte()) },
            response_information: None,
        };
        Self { version, durable, honest, connect, limits }
    }

    fn terms(&self) -> Terms {
        Terms::agree(&self.connect, &self.limits, || unreachable!("the client has a name")).unwrap()
    }
}

impl World {
    fn new(input: &mut Input<'_>) -> Self {
        let setup = Setup::choose(input);
        let terms = setup.terms();
        let store = Store::new(input.pick(&[0, u16::MAX - 3]));
        let now = UnixMillis(1_000_000);
        let (session, model) = begin(&setup, &terms, &store, false, now);
        let mut client = Client::default();
        client.connected(true, quota(&setup));
        let server_decoder = server_decoder(setup.version);
        let (refused, backlog, promised) = Default::default();
        Self {
            setup,
            terms,
            now,
            store,
            client,
            refused,
            session,
            model,
            out: Outgoing::default(),
            server_decoder,
            heard_at: now,
            may_wait_for_ids: false,
            backlog,
            promised,
            verdict: 0,
            over: false,
        }
    }

    /// The connection ends, and the next one begins.
    fn reconnect(&mut self, end: End) {
        if end == End::Orderly {
            self.report();
        }
        match end {
            End::Orderly | End::Torn => self.store.commit_all(),
            End::Crash => self.store.crash(),
        }
        self.forget_what_left();
        self.store.epoch.0 += 1;
        self.now = UnixMillis(self.now.0 + 1000);
        let torn = end != End::Orderly;
        if torn {
            self.store.progress.doubtful_before = Lsn(self.store.number());
        }
        (self.session, self.model) = begin(&self.setup, &self.terms, &self.store, torn, self.now);
        (self.out, self.over) = (Outgoing::default(), false);
        (self.heard_at, self.may_wait_for_ids) = (self.now, torn && self.setup.durable);
        self.server_decoder = server_decoder(self.setup.version);
        let begun: Vec<_> = self.session.in_flight().map(|claim| claim.lsn.0).collect();
        self.backlog = self.store.owed.keys().copied().filter(|number| !begun.contains(number)).collect();
        self.backlog.reverse();
        self.client.connected(self.setup.durable, quota(&self.setup));
        if self.setup.honest {
            self.client_sends_again();
        }
    }

    /// What belongs to the connection goes with it: everything for a session that ends, and for one that
    /// does not the messages of a group, but for those whose QoS 2 exchange is durable [MQTT-4.8.2-4].
    fn forget_what_left(&mut self) {
        if !self.setup.durable {
            self.store.owed.clear();
            return;
        }
        let exchanges = &self.store.progress.exchanges;
        self.store.owed.retain(|number, item| {
            item.owner == Some(OWN) || exchanges.values().any(|exchange| exchange.lsn.0 == *number)
        });
    }

    /// What holds at any time.
    fn check(&mut self) {
        if self.over {
            // Whoever is told to close closes.
            self.reconnect(End::Orderly);
        }
        let window = usize::from(self.terms.send_window);
        if self.setup.honest {
            assert!(self.model.sent.len() <= window, "[MQTT-3.3.4-9] {:?}", self.model.sent);
        }
        let has_window = self.session.has_window();
        let expected = self.model.used() < window;
        assert!(
            has_window == expected || (self.may_wait_for_ids && expected),
            "{} of {window}",
            self.model.used()
        );
        let wait = self.model.replies.front().map(|(wait, _)| *wait);
        let reply_waits_for = match wait {
            Some(model::Wait::For(lsn)) => Some(lsn),
            Some(model::Wait::Report) | None => None,
        };
        assert_eq!(self.session.reply_waits_for(), reply_waits_for);
        let mut in_flight: Vec<_> = self.session.in_flight().map(|claim| claim.lsn.0).collect();
        let open = self.model.sent.values().chain(self.model.waiting.iter().map(|(_, open)| open));
        let open = open.filter(|open| open.owner.is_some()).map(|open| open.number);
        let held = self.model.held.iter().filter(|held| held.item.owner.is_some());
        let mut expected: Vec<_> = open.chain(held.map(|held| held.item.number)).collect();
        in_flight.sort_unstable();
        expected.sort_unstable();
        assert_eq!(in_flight, expected, "each message in one exchange");
        assert!(self.model.waiting.is_empty() || self.session.has_resends());
    }

    /// A while in which everybody does what they owe: then nothing is left.
    fn finish(mut self) {
        // The client goes on without a word when it is not honest: what it has open is answered for it.
        for _ in 0..200 + 10 * self.store.owed.len() {
            self.settle_down();
            if self.is_idle() {
                break;
            }
        }
        assert!(self.is_idle(), "stays open for ever: {}", self.open());
        assert!(self.session.has_window() && !self.session.must_report(self.now));
        assert_eq!((self.session.reply_waits_for(), self.session.held_waits_for()), (None, None));
        assert_eq!(self.session.in_flight().count(), 0);
        if self.setup.durable {
            assert!(self.store.progress.exchanges.is_empty(), "{:?}", self.store.progress);
        }
        if self.setup.honest {
            self.judge_end_to_end();
        }
    }

    fn open(&self) -> String {
        let Model { sent, waiting, held, replies, settled, .. } = &self.model;
        let owed: Vec<_> = self.store.owed.keys().collect();
        format!("{sent:?} {waiting:?} {held:?} {replies:?} {settled:?} {owed:?} {:?}", self.client)
    }

    fn is_idle(&self) -> bool {
        let model = &self.model;
        let open = model.used() + model.waiting.len() + model.replies.len() + model.settled.len();
        let stored = self.store.owed.len() + self.store.progress.exchanges.len();
        open + stored == 0 && (!self.setup.honest || self.client.is_idle())
    }

    /// Nothing that the client was told is safe was lost, and nothing of QoS 2 came twice.
    fn judge_end_to_end(&self) {
        if !self.setup.durable {
            return;
        }
        assert!(self.store.progress.inbound.is_empty(), "{:?}", self.store.progress);
        for payload in self.client.acknowledged.iter().filter(|payload| !self.refused.contains(payload)) {
            assert!(self.store.routed.contains(payload), "{payload} was acknowledged and is lost");
        }
        let lost: Vec<_> = self.promised.iter().filter(|number| !self.client.has(**number)).collect();
        assert!(lost.is_empty(), "{lost:?} were settled and never sent");
        let mut exactly_once: Vec<_> =
            self.store.routed.iter().filter(|payload| payload.starts_with("2-")).collect();
        let all = exactly_once.len();
        exactly_once.sort_unstable();
        exactly_once.dedup();
        assert_eq!(exactly_once.len(), all, "{:?}", self.store.routed);
    }
}

fn begin(setup: &Setup, terms: &Terms, store: &Store, torn: bool, now: UnixMillis) -> (Session, Model) {
    let durable = setup.durable.then_some(Durable { recipient: OWN, epoch: store.epoch });
    let progress = setup.durable.then_some(&store.progress);
    let session = Session::new(terms, durable, progress, torn, now);
    let model = Model::new(terms, setup.durable, progress.unwrap_or(&Default::default()));
    (session, model)
}

/// Most of it, most of the time.
fn any_offer(choice: u8) -> Offer {
    Offer {
        maximum_qos: if choice & 3 == 3 { Qos::AtLeastOnce } else { Qos::ExactlyOnce },
        retain: choice & 12 != 12,
        wildcard_subscriptions: choice & 0x30 != 0x30,
        subscription_identifiers: choice & 0xC0 != 0xC0,
        shared_subscriptions: choice & 0xC0 != 0x80,
    }
}

/// QoS 1 and 2 messages that an honest client may have open.
fn quota(setup: &Setup) -> u16 {
    if setup.version == Version::V5 { setup.limits.receive_maximum } else { u16::MAX }
}

fn server_decoder(version: Version) -> Decoder {
    super::packets::Peer::Client(version).decoder(MAX_PACKET_SIZE)
}

fn qos(input: &mut Input<'_>) -> Qos {
    input.pick(&[Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce, Qos::ExactlyOnce])
}
