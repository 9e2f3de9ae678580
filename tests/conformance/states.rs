//! A client that does anything at any time, against a small model of what a session has to do.
//!
//! The client subscribes to what it publishes. Whatever is open when it is cut off has to come again as it was
//! left: PUBLISH with its identifier and DUP, or PUBREL once its PUBREC was taken, and every message in order.
//!
//! `CAUSEWAY_STATES` sets how many steps are taken, `CAUSEWAY_STATES_SEED` which ones.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::harness::{
    Broker, Client, Connect, Dice, Publish, Version, ack, ack_with, packet, parse, string, unique,
};

const STEPS: usize = 320;
const THREADS: usize = 4;

/// What the client has sent and seen.
struct World<'a> {
    broker: &'a Broker,
    connect: Connect,
    version: Version,
    topic: String,
    client: Client,
    dice: Dice,
    /// QoS 2 identifiers whose PUBREL is owed by the client.
    inbound: BTreeSet<u16>,
    /// What the broker owes and has not sent: payloads by QoS, in order.
    owed: BTreeMap<u8, VecDeque<u32>>,
    /// What it has sent and we have not finished.
    open: BTreeMap<u16, Open>,
    /// Identifiers whose first PUBLISH may have been on its way when the connection was cut.
    cut: bool,
    published: u32,
    /// Our Receive Maximum.
    window: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Open {
    qos: u8,
    payload: u32,
    /// PUBREC was sent, and PUBREL has come.
    released: bool,
    /// It has to come again on this connection.
    again: bool,
}

#[test]
fn conn_drop_at_every_state() {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let steps = number("CAUSEWAY_STATES").unwrap_or(STEPS);
    let seed = number("CAUSEWAY_STATES_SEED").unwrap_or(0x5EED_0003) as u64;
    let broker = Broker::start("");
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let broker = &broker;
            scope.spawn(move || {
                let (version, window) = [
                    (Version::V5, 2),
                    (Version::V311, 65_535),
                    (Version::V5, 65_535),
                    (Version::V31, 65_535),
                ][thread];
                let dice = Dice::new(seed + thread as u64);
                let mut world = World::new(broker, version, window, dice);
                (0..steps / THREADS).for_each(|_| world.step());
                world.finish();
            });
        }
    });
    assert_eq!(broker.panics(), Vec::<String>::new());
}

impl<'a> World<'a> {
    fn new(broker: &'a Broker, version: Version, window: u16, dice: Dice) -> Self {
        let topic = unique("states");
        let mut connect = Connect::new(version, &topic).durable();
        if window < u16::MAX {
            connect = connect.property(0x21, &window.to_be_bytes());
        }
        let mut client = broker.connect(&connect);
        let properties: &[u8] = if version == Version::V5 { &[0] } else { &[] };
        client.send(&packet(0x82, &[&[0, 1], properties, &string(&topic), &[2]].concat()));
        assert_eq!(client.receive()[0], 0x90);
        Self {
            broker,
            connect,
            version,
            topic,
            client,
            dice,
            inbound: BTreeSet::new(),
            owed: BTreeMap::from([(1, VecDeque::new()), (2, VecDeque::new())]),
            open: BTreeMap::new(),
            cut: false,
            published: 0,
            window,
        }
    }

    fn step(&mut self) {
        match self.dice.roll(14) {
            0..=2 => self.publish(1),
            3..=5 => self.publish(2),
            6 => self.release(),
            7 => self.repeat(),
            8..=9 => self.acknowledge(),
            10 => self.refuse(),
            11 => self.stray(),
            12 => self.wrong_kind(),
            _ => self.reconnect(false),
        }
    }

    /// Everything is taken and finished, and then there is nothing left.
    fn finish(mut self) {
        self.reconnect(false);
        loop {
            let comes =
                self.owed.values().any(|owed| !owed.is_empty()) || self.open.values().any(|open| open.again);
            if comes && self.in_hand() < usize::from(self.window) {
                self.take();
            } else if self.open.is_empty() {
                break;
            } else {
                self.acknowledge();
            }
        }
        self.client.expect_nothing();
        self.client.cut();
        let mut client = self.broker.open();
        assert!(client.offer(&self.connect).is_some());
        client.expect_nothing();
    }

    /// Messages that take a place in the window.
    fn in_hand(&self) -> usize {
        self.open.values().filter(|open| !open.again).count()
    }

    fn publish(&mut self, qos: u8) {
        let id = 1 + self.dice.roll(50) as u16;
        if self.inbound.contains(&id) {
            return;
        }
        self.published += 1;
        self.owed.get_mut(&qos).unwrap().push_back(self.published);
        let publish = Publish::new(&self.topic, self.published.to_string()).qos(qos, id);
        self.client.send(&publish.bytes(self.version));
        if qos == 2 {
            self.inbound.insert(id);
        }
        self.wait_for(&ack(0x30 + (qos << 4), id));
    }

    /// A repeat is acknowledged, and nothing else.
    fn repeat(&mut self) {
        let Some(&id) = self.inbound.first() else { return };
        let publish = Publish::new(&self.topic, "a repeat").qos(2, id).dup();
        self.client.send(&publish.bytes(self.version));
        self.wait_for(&ack(0x50, id));
    }

    fn release(&mut self) {
        let id = 1 + self.dice.roll(50) as u16;
        self.client.send(&ack(0x62, id));
        let known = self.inbound.remove(&id) || self.version != Version::V5;
        self.wait_for(&if known { ack(0x70, id) } else { ack_with(0x70, id, 0x92) });
    }

    /// One that was seen, to its end or to its middle.
    fn acknowledge(&mut self) {
        let at = self.dice.roll(self.open.len());
        let Some((&id, &open)) = self.open.iter().filter(|(_, open)| !open.again).nth(at) else { return };
        if open.qos == 1 {
            self.client.send(&ack(0x40, id));
            self.open.remove(&id);
            return;
        }
        if !open.released {
            self.client.send(&ack(0x50, id));
            self.wait_for(&ack(0x62, id));
            self.open.get_mut(&id).unwrap().released = true;
        }
        if self.dice.one_in(2) {
            self.client.send(&ack(0x70, id));
            self.open.remove(&id);
        }
    }

    /// An error ends an exchange of QoS 2 as well as one of QoS 1.
    fn refuse(&mut self) {
        let refusable = |open: &Open| !open.again && !open.released && self.version == Version::V5;
        let Some((&id, &open)) = self.open.iter().find(|(_, open)| refusable(open)) else { return };
        self.client.send(&ack_with(if open.qos == 1 { 0x40 } else { 0x50 }, id, 0x83));
        self.open.remove(&id);
    }

    /// Acknowledgements of what was never sent change nothing.
    fn stray(&mut self) {
        let id = 30_000 + self.dice.roll(10) as u16;
        self.client.send(&[ack(0x40, id), ack(0x70, id), ack(0x50, id)].concat());
        let is_v5 = self.version == Version::V5;
        self.wait_for(&if is_v5 { ack_with(0x62, id, 0x92) } else { ack(0x62, id) });
    }

    /// The wrong acknowledgement ends the connection, and nothing but it.
    fn wrong_kind(&mut self) {
        let Some((&id, &open)) = self.open.iter().find(|(_, open)| !open.again && !open.released) else {
            return;
        };
        self.client.send(&ack(if open.qos == 1 { 0x50 } else { 0x40 }, id));
        self.reconnect(true);
    }

    /// Cuts the connection, perhaps within a packet, and resumes the session.
    fn reconnect(&mut self, ends_itself: bool) {
        let client = std::mem::replace(&mut self.client, self.broker.open());
        let is_takeover = self.dice.one_in(3);
        if ends_itself {
            let reason = client.last_words();
            assert_eq!(reason, (self.version == Version::V5).then_some(0x82));
        } else if !is_takeover {
            let mut client = client;
            let half = Publish::new(&self.topic, "never whole").qos(2, 60).bytes(self.version);
            client.send(&half[..self.dice.roll(half.len())]);
            client.cut();
        }
        let connack = self.client.offer(&self.connect).unwrap();
        assert!(connack[2] == 1 || self.version == Version::V31, "the session is gone");
        // Those that are released come again as PUBREL, all others as PUBLISH.
        let released: BTreeSet<_> =
            self.open.iter().filter(|(_, open)| open.released).map(|(id, _)| *id).collect();
        self.open.values_mut().filter(|open| !open.released).for_each(|open| open.again = true);
        self.cut = true;
        for _ in 0..released.len() {
            let pubrel = self.next_but_publish();
            let id = u16::from_be_bytes([pubrel[2], pubrel[3]]);
            assert!(pubrel == ack(0x62, id) && released.contains(&id), "{pubrel:02x?}, open: {released:?}");
        }
    }

    /// Waits for a packet, and takes the messages that come before it.
    fn wait_for(&mut self, answer: &[u8]) {
        let other = self.next_but_publish();
        assert_eq!(other, answer, "{other:02x?} instead of {answer:02x?}");
    }

    fn next_but_publish(&mut self) -> Vec<u8> {
        loop {
            let packet = self.client.receive();
            if packet[0] >> 4 != 3 {
                return packet;
            }
            self.take_message(&packet);
        }
    }

    /// Takes a message.
    fn take(&mut self) {
        let packet = self.client.receive();
        assert_eq!(packet[0] >> 4, 3, "{packet:02x?}");
        self.take_message(&packet);
    }

    /// A message is the next one that is owed, or one that was open before.
    fn take_message(&mut self, packet: &[u8]) {
        let message = parse(packet, self.version);
        let payload = String::from_utf8(message.payload.clone()).unwrap().parse().unwrap();
        let open = Open { qos: message.qos, payload, released: false, again: false };
        match self.open.get_mut(&message.id) {
            Some(known) => {
                assert!(known.again && message.dup, "{message:?}, known: {known:?}");
                known.again = false;
                assert_eq!(*known, open, "{message:?}");
                // In order: none of its QoS that is older is still to come again.
                let older = self.open.values().filter(|open| open.again && open.qos == message.qos);
                assert!(
                    older.into_iter().all(|open| open.payload > payload),
                    "{message:?} before {:?}",
                    self.open
                );
            }
            None => {
                // Sent before, when the connection was cut while it was on its way.
                assert!(!message.dup || self.cut, "{message:?}");
                let waiting = self.open.values().any(|open| open.again && open.qos == message.qos);
                assert!(!waiting, "{message:?} before {:?}", self.open);
                let next = self.owed.get_mut(&message.qos).and_then(VecDeque::pop_front);
                assert_eq!(next, Some(payload), "{message:?}");
                self.open.insert(message.id, open);
            }
        }
        assert!(self.in_hand() <= usize::from(self.window), "the window is exceeded: {:?}", self.open);
    }
}
