//! What stands in for broker and store: records in order, applied when they are durable, as the writer
//! applies them.

use std::collections::{BTreeMap, VecDeque};

use super::*;

/// What one record changes.
enum Record {
    Delta(SessionDelta),
    Inbound(Option<PacketId>, String),
}

/// One session's side of the store.
#[derive(Default)]
pub(super) struct Store {
    next: u64,
    watermark: u64,
    queue: VecDeque<(u64, Record)>,
    pub(super) progress: Progress,
    /// Messages that are owed to the session.
    pub(super) owed: BTreeMap<Lsn, Qos>,
    /// Messages from the client that are durable, in the order in which they were routed.
    pub(super) routed: Vec<String>,
    pub(super) epoch: u64,
}

impl Store {
    pub(super) fn owing(messages: &[Qos]) -> Self {
        let owed: BTreeMap<_, _> = (1..).map(Lsn).zip(messages.iter().copied()).collect();
        Self { next: 100, watermark: 99, owed, epoch: 1, ..Self::default() }
    }

    pub(super) fn watermark(&self) -> Lsn {
        Lsn(self.watermark)
    }

    pub(super) fn route(&mut self, publish: &Publish<'_>) -> Lsn {
        let packet_id = publish.packet_id.filter(|_| publish.qos == Qos::ExactlyOnce);
        let payload = String::from_utf8_lossy(publish.payload);
        self.submit(Record::Inbound(packet_id, payload.into()))
    }

    pub(super) fn report(&mut self, delta: SessionDelta) -> Lsn {
        self.submit(Record::Delta(delta))
    }

    fn submit(&mut self, record: Record) -> Lsn {
        self.queue.push_back((self.next, record));
        self.next += 1;
        Lsn(self.next - 1)
    }

    /// Makes the next record durable. False when there is none.
    pub(super) fn commit(&mut self) -> bool {
        let Some((lsn, record)) = self.queue.pop_front() else { return false };
        self.watermark = lsn;
        match record {
            Record::Inbound(packet_id, payload) => {
                self.progress.inbound.extend(packet_id.map(PacketId::get));
                self.routed.push(payload);
            }
            Record::Delta(delta) if delta.epoch == Epoch(self.epoch) => self.apply(&delta),
            Record::Delta(_) => {}
        }
        true
    }

    fn apply(&mut self, delta: &SessionDelta) {
        for lsn in &delta.settled {
            self.owed.remove(lsn);
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

    /// The broker dies: what is not durable is gone, and so are its numbers.
    pub(super) fn crash(&mut self) {
        self.queue.clear();
        self.watermark = self.next;
        self.next += 1;
    }

    pub(super) fn commit_all(&mut self) {
        while self.commit() {}
    }
}
