//! What the session owes the store a word about, gathered over a batch of packets.

use std::time::Duration;

use super::{Claim, Session};
use crate::codec::PacketId;
use crate::record::{Exchange, Lsn, SessionDelta, UnixMillis};

/// How long a report that nobody waits for may be held back. A crash within that time costs one repeat of
/// what was settled.
const HELD_BACK: Duration = Duration::from_millis(250);

/// Settlements and ends of exchanges that are held back at most.
const ENTRIES_MAX: usize = 1024;

/// The report in the making.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Boxed, because most sessions have nothing to tell most of the time.
    delta: Option<Box<SessionDelta>>,
    /// QoS 1 identifiers were given out since the last report.
    unsaved: bool,
    due: Option<UnixMillis>,
    /// Somebody waits: a QoS 2 PUBLISH for its identifier, or a reply.
    urgent: bool,
}

impl Report {
    pub(super) fn deadline(&self) -> Option<UnixMillis> {
        self.due
    }

    pub(super) fn released(&mut self, packet_id: PacketId) {
        self.delta().released.push(packet_id);
    }

    /// An exchange began or moved on, and nothing is sent before that is durable.
    pub(super) fn exchange_first(&mut self, exchange: Exchange) {
        self.delta().exchanges.push(exchange);
        self.urgent = true;
    }

    /// A QoS 1 identifier was given out; that may be told later.
    pub(super) fn gave_out(&mut self, now: UnixMillis) {
        self.unsaved = true;
        self.due_by(now);
    }

    /// An exchange that the store knows of ended.
    pub(super) fn ended(&mut self, packet_id: PacketId, now: UnixMillis) {
        self.delta().ended.push(packet_id);
        self.due_by(now);
    }

    fn is_large(&self) -> bool {
        let Some(delta) = &self.delta else { return false };
        delta.settled.len() + delta.settled_shared.len() + delta.ended.len() >= ENTRIES_MAX
    }

    fn delta(&mut self) -> &mut SessionDelta {
        self.delta.get_or_insert_default()
    }

    fn due_by(&mut self, now: UnixMillis) {
        self.due.get_or_insert(now.plus(HELD_BACK));
    }
}

impl Session {
    /// Messages that were settled since the last call. The caller strikes the leg from the record when the
    /// writer has not taken it yet, and otherwise says so with [`Session::settle_by_report`].
    pub fn take_settled(&mut self) -> impl Iterator<Item = Claim> + use<> {
        let dropped = self.outbound.dropped.take().and_then(|dropped| dropped.claim);
        self.outbound.settled.extend(dropped);
        std::mem::take(&mut self.outbound.settled).into_iter()
    }

    /// The settlement of this claim has to become durable by the session's report.
    pub fn settle_by_report(&mut self, claim: &Claim, now: UnixMillis) {
        match self.durable {
            Some(durable) if claim.owner == durable.recipient => self.report.delta().settled.push(claim.lsn),
            _ => self.report.delta().settled_shared.push((claim.owner, claim.lsn)),
        }
        self.report.due_by(now);
    }

    /// Whether a report is to be submitted now: somebody waits for it, it is large, or it was held back for
    /// long enough.
    pub fn must_report(&self, now: UnixMillis) -> bool {
        self.report.urgent
            || self.replies.wait_for_report()
            || self.report.is_large()
            || (self.durable.is_some() && self.outbound.ids.must_tell())
            || self.report.due.is_some_and(|due| due <= now)
    }

    /// The report since the last one; `None` when there is nothing to tell. It is submitted at once, before
    /// another packet is handled, and its number comes back with [`Session::reported`].
    ///
    /// That of a session that ends with its connection names no session: all that is in it are messages of
    /// shared groups, to be settled one by one.
    pub fn take_report(&mut self) -> Option<SessionDelta> {
        let Report { delta, unsaved, .. } = std::mem::take(&mut self.report);
        let mut delta = delta.map_or_else(SessionDelta::default, |delta| *delta);
        let Some(durable) = self.durable else { return Some(delta).filter(|delta| !delta.is_empty()) };
        if unsaved {
            self.outbound.save(durable.recipient, &mut delta.exchanges);
        }
        // An identifier that was given out again since has an exchange that goes on. The store looks at what
        // began before it looks at what ended.
        delta.ended.retain(|packet_id| !self.outbound.is_saved(*packet_id));
        if delta.is_empty() && !self.outbound.ids.must_tell() {
            return None;
        }
        delta.recipient = durable.recipient;
        delta.epoch = durable.epoch;
        delta.next_packet_id = self.outbound.ids.tell();
        Some(delta)
    }

    /// The report became a record with this number.
    pub fn reported(&mut self, lsn: Lsn) {
        self.replies.reported(lsn);
        self.outbound.reported(lsn);
    }
}
