//! What stands in for broker and store: records in order, applied when they are durable, as the writer
//! applies them. A crash forgets those that are not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use causeway::codec::Qos;
use causeway::record::{Epoch, Lsn, RecipientNo, SessionDelta, UnixMillis};
use causeway::store::Progress;

/// The session's own number.
pub const OWN: RecipientNo = RecipientNo(7);
/// That of a shared group it acts for.
pub const GROUP: RecipientNo = RecipientNo(8);

/// A message for the client.
#[derive(Clone, Debug)]
pub struct Item {
    /// Its number, and what its payload begins with.
    pub number: u64,
    pub qos: Qos,
    /// Whose leg it is; `None` for a message that is not durable.
    pub owner: Option<RecipientNo>,
    pub topic: &'static str,
    pub payload_len: usize,
    pub retain: bool,
    pub subscription_ids: Vec<u32>,
    pub published_at: UnixMillis,
    pub expires_at: UnixMillis,
}

impl Item {
    pub fn payload(&self) -> Vec<u8> {
        let mut payload = self.number.to_string().into_bytes();
        payload.resize(payload.len() + self.payload_len, b'.');
        payload
    }
}

/// What one record changes.
pub enum Record {
    /// A message from the client, by the QoS 2 identifier it came with, if the session is durable.
    Inbound(Option<u16>, String),
    Report(SessionDelta),
    /// A SUBSCRIBE or UNSUBSCRIBE.
    Subscriptions,
}

/// One session's side of the store.
pub struct Store {
    next: u64,
    watermark: u64,
    queue: VecDeque<(u64, Record)>,
    pub progress: Progress,
    /// Messages that are owed to the session, or were given to it by the group.
    pub owed: BTreeMap<u64, Item>,
    /// Messages that went elsewhere when they were to be repeated: settling one is no news.
    pub elsewhere: BTreeSet<u64>,
    /// Payloads from the client that are durable, in the order in which they were routed.
    pub routed: Vec<String>,
    pub epoch: Epoch,
}

impl Store {
    pub fn new(next_packet_id: u16) -> Self {
        let mut progress = Progress::default();
        progress.next_packet_id = next_packet_id;
        let (queue, owed, elsewhere, routed) = Default::default();
        Self { next: 1, watermark: 0, queue, progress, owed, elsewhere, routed, epoch: Epoch(1) }
    }

    pub fn watermark(&self) -> Lsn {
        Lsn(self.watermark)
    }

    /// Gives a record its number and its place.
    pub fn submit(&mut self, record: Record) -> Lsn {
        self.queue.push_back((self.next, record));
        self.next += 1;
        Lsn(self.next - 1)
    }

    /// A number that is used for something else.
    pub fn number(&mut self) -> u64 {
        self.submit(Record::Subscriptions).0
    }

    /// Makes the next record durable. False when there is none.
    pub fn commit(&mut self) -> bool {
        let Some((number, record)) = self.queue.pop_front() else { return false };
        self.watermark = number;
        match record {
            Record::Inbound(packet_id, payload) => {
                self.progress.inbound.extend(packet_id);
                self.routed.push(payload);
            }
            Record::Report(delta) => self.apply(&delta),
            Record::Subscriptions => {}
        }
        true
    }

    pub fn commit_all(&mut self) {
        while self.commit() {}
    }

    /// The broker dies: what is not durable is gone, and so are its numbers.
    pub fn crash(&mut self) {
        self.queue.clear();
        self.watermark = self.next;
        self.next += 1;
    }

    fn settle(&mut self, lsn: Lsn) {
        let is_owed = self.owed.remove(&lsn.0).is_some();
        assert!(is_owed || self.elsewhere.contains(&lsn.0), "{lsn:?} was settled twice");
    }

    fn apply(&mut self, delta: &SessionDelta) {
        for (group, lsn) in &delta.settled_shared {
            assert_eq!(*group, GROUP);
            self.settle(*lsn);
        }
        if delta.recipient != OWN {
            let nothing_else = SessionDelta { settled_shared: Vec::new(), ..delta.clone() };
            assert!(nothing_else.is_empty(), "a session that ends with its connection says {delta:?}");
            return;
        }
        assert_eq!(delta.epoch, self.epoch, "the connection speaks for itself");
        for lsn in &delta.settled {
            self.settle(*lsn);
        }
        for exchange in &delta.exchanges {
            self.progress.exchanges.insert(exchange.packet_id.get(), *exchange);
        }
        for packet_id in &delta.ended {
            self.progress.exchanges.remove(&packet_id.get());
        }
        for packet_id in &delta.released {
            self.progress.inbound.remove(&packet_id.get());
        }
        if delta.next_packet_id != 0 {
            self.progress.next_packet_id = delta.next_packet_id;
        }
    }
}
