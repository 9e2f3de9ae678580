//! What the session owes the store a word about, gathered over a batch of packets.

use super::{Claim, Session};
use crate::codec::PacketId;
use crate::record::{Exchange, ExchangeState, Lsn, SessionDelta, UnixMillis};

/// How long a report that nobody waits for may be held back, in milliseconds. A crash within that time costs
/// one repeat of what was settled.
const HELD_BACK_MS: u64 = 250;

/// Settlements that are held back at most.
const SETTLED_MAX: usize = 1024;

/// The report in the making.
#[derive(Debug, Default)]
pub(super) struct Report {
    delta: SessionDelta,
    /// QoS 1 identifiers that were given out since the last report.
    given_out: Vec<PacketId>,
    due: Option<UnixMillis>,
    /// Somebody waits: a QoS 2 PUBLISH for its identifier, or a reply.
    urgent: bool,
}

impl Report {
    pub(super) fn deadline(&self) -> Option<UnixMillis> {
        self.due
    }

    pub(super) fn released(&mut self, packet_id: PacketId) {
        self.delta.released.push(packet_id);
    }

    /// An exchange began or moved on, and nothing is sent before that is durable.
    pub(super) fn exchange_first(&mut self, exchange: Exchange) {
        self.delta.exchanges.push(exchange);
        self.urgent = true;
    }

    /// A QoS 1 identifier was given out; that may be told later.
    pub(super) fn gave_out(&mut self, packet_id: PacketId, now: UnixMillis) {
        self.given_out.push(packet_id);
        self.due_by(now);
    }

    /// An exchange that the store knows of ended.
    pub(super) fn ended(&mut self, packet_id: PacketId) {
        self.delta.ended.push(packet_id);
    }

    fn due_by(&mut self, now: UnixMillis) {
        self.due.get_or_insert(UnixMillis(now.0 + HELD_BACK_MS));
    }
}

impl Session {
    /// Messages that were settled since the last call. The caller strikes the leg from the record when the
    /// writer has not taken it yet, and otherwise says so with [`Session::settle_by_report`].
    pub fn take_settled(&mut self) -> impl Iterator<Item = Claim> + use<> {
        std::mem::take(&mut self.outbound.settled).into_iter()
    }

    /// The settlement of this claim has to become durable by the session's report.
    pub fn settle_by_report(&mut self, claim: &Claim, now: UnixMillis) {
        match self.durable {
            Some(durable) if claim.owner == durable.recipient => self.report.delta.settled.push(claim.lsn),
            _ => self.report.delta.settled_shared.push((claim.owner, claim.lsn)),
        }
        self.report.due_by(now);
    }

    /// Whether a report is to be submitted now: somebody waits for it, it is large, or it was held back for
    /// long enough.
    pub fn must_report(&self, now: UnixMillis) -> bool {
        self.report.urgent
            || self.replies.wait_for_report()
            || self.report.delta.settled.len() + self.report.delta.settled_shared.len() >= SETTLED_MAX
            || self.report.due.is_some_and(|due| due <= now)
    }

    /// The report since the last one; `None` when there is nothing to tell. Its number has to come back
    /// with [`Session::reported`].
    pub fn take_report(&mut self) -> Option<SessionDelta> {
        let report = std::mem::take(&mut self.report);
        let mut delta = report.delta;
        for packet_id in report.given_out {
            delta.exchanges.extend(self.outbound.save(packet_id));
        }
        if delta.is_empty() {
            return None;
        }
        if let Some(durable) = self.durable {
            delta.recipient = durable.recipient;
            delta.epoch = durable.epoch;
            delta.next_packet_id = self.outbound.next_packet_id();
        }
        Some(delta)
    }

    /// The report became a record with this number.
    pub fn reported(&mut self, lsn: Lsn) {
        self.replies.reported(lsn);
        self.outbound.reported(lsn);
    }
}

/// Whether an exchange of this kind has to be durable before its PUBLISH is sent.
pub(super) fn is_told_first(state: ExchangeState) -> bool {
    state != ExchangeState::AwaitingPuback
}
