//! Replies that wait for the disk, in the order of the packets they answer [MQTT-4.6.0-2].

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Close, Outgoing, Session};
use crate::codec::{Auth, EncodeError, PacketId, ReasonCode, Suback, Version, encode};
use crate::record::Lsn;
use crate::store::Entry;

/// Replies that may wait before no more packets are read from the client.
pub(super) const REPLIES_MAX: usize = 4096;

/// A packet that answers one of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the packets")]
pub enum ReplyPacket {
    Puback(PacketId, ReasonCode),
    Pubrec(PacketId, ReasonCode),
    Pubrel(PacketId, ReasonCode),
    Pubcomp(PacketId, ReasonCode),
    Suback(Suback),
    Unsuback(Suback),
    Auth(Box<Auth>),
}

/// What has to be durable before a reply may leave.
#[derive(Clone, Debug)]
pub(super) enum Wait {
    /// The record with this number (zero: nothing).
    For(Lsn),
    /// This record, unless nothing of it is left: everyone who was to get the message has it.
    With(Arc<Entry>),
    /// The session's next report.
    Report,
}

impl Wait {
    pub(super) const NOTHING: Self = Self::For(Lsn::ZERO);

    /// The number that the watermark has to reach; `None` while there is none.
    pub(super) fn number(&self) -> Option<Lsn> {
        match self {
            Self::For(lsn) => Some(*lsn),
            Self::With(entry) => Some(entry.lsn),
            Self::Report => None,
        }
    }

    fn is_over(&self, watermark: Lsn) -> bool {
        let is_complete = || matches!(self, Self::With(entry) if entry.is_complete());
        self.number().is_some_and(|lsn| lsn <= watermark) || is_complete()
    }
}

/// The replies that were not written yet.
#[derive(Debug, Default)]
pub(super) struct Replies {
    queue: VecDeque<(Wait, ReplyPacket)>,
    /// How many of them wait for the next report.
    unreported: usize,
}

impl Replies {
    pub(super) fn push(&mut self, wait: Wait, packet: ReplyPacket) {
        self.unreported += usize::from(matches!(wait, Wait::Report));
        self.queue.push_back((wait, packet));
    }

    pub(super) fn push_now(&mut self, packet: ReplyPacket) {
        self.push(Wait::NOTHING, packet);
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn wait_for_report(&self) -> bool {
        self.unreported > 0
    }

    /// The report got this number.
    pub(super) fn reported(&mut self, lsn: Lsn) {
        for (wait, _) in self.queue.iter_mut().rev() {
            if self.unreported == 0 {
                break;
            }
            if matches!(wait, Wait::Report) {
                *wait = Wait::For(lsn);
                self.unreported -= 1;
            }
        }
    }

    fn pop_ready(&mut self, watermark: Lsn) -> Option<ReplyPacket> {
        self.queue.front().filter(|(wait, _)| wait.is_over(watermark))?;
        let reply = self.queue.pop_front().map(|(_, packet)| packet);
        if self.queue.is_empty() && self.queue.capacity() > 64 {
            self.queue = VecDeque::new();
        }
        reply
    }
}

impl Session {
    /// Writes every reply whose record is durable or complete, up to the first that is not. Says how many.
    ///
    /// # Errors
    /// When a reply cannot be made small enough for the client.
    pub fn write_replies(&mut self, watermark: Lsn, out: &mut Outgoing) -> Result<u64, Close> {
        let mut written = u64::from(self.pings_owed);
        for _ in 0..std::mem::take(&mut self.pings_owed) {
            // Two bytes, which any client takes.
            let _ = encode::pingresp(&mut out.bytes);
        }
        while let Some(packet) = self.replies.pop_ready(watermark) {
            if packet.closes_exchange() {
                self.inbound.closed();
            }
            packet.encode(self.version, self.max_packet_size, &mut out.bytes).map_err(|_| {
                Close::because(ReasonCode::PacketTooLarge, "a reply exceeds the client's Maximum Packet Size")
            })?;
            written += 1;
        }
        Ok(written)
    }

    /// The number the next reply waits for; `None` when there is none, or it waits for the report.
    pub fn reply_waits_for(&self) -> Option<Lsn> {
        self.replies.queue.front().and_then(|(wait, _)| wait.number())
    }

    /// The record whose completion lets the next reply leave before its number is durable.
    pub fn reply_waits_with(&self) -> Option<&Entry> {
        match self.replies.queue.front()? {
            (Wait::With(entry), _) => Some(entry),
            _ => None,
        }
    }

    /// Answers a SUBSCRIBE, UNSUBSCRIBE or AUTH once `lsn` is durable.
    pub fn answer_later(&mut self, lsn: Lsn, packet: ReplyPacket) {
        self.replies.push(Wait::For(lsn), packet);
    }
}

impl ReplyPacket {
    /// Whether the client may open another exchange once it has this. It does not look at the reason of a
    /// PUBCOMP, and neither do we (section 4.9).
    fn closes_exchange(&self) -> bool {
        match self {
            Self::Puback(..) | Self::Pubcomp(..) => true,
            Self::Pubrec(_, reason) => reason.is_error(),
            Self::Pubrel(..) | Self::Suback(_) | Self::Unsuback(_) | Self::Auth(_) => false,
        }
    }

    fn encode(&self, version: Version, size_max: u32, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Puback(id, reason) => encode::puback(version, *id, *reason, None, size_max, out),
            Self::Pubrec(id, reason) => encode::pubrec(version, *id, *reason, None, size_max, out),
            Self::Pubrel(id, reason) => encode::pubrel(version, *id, *reason, None, size_max, out),
            Self::Pubcomp(id, reason) => encode::pubcomp(version, *id, *reason, None, size_max, out),
            Self::Suback(suback) => {
                encode::suback(version, suback.packet_id, &suback.reasons, None, size_max, out)
            }
            Self::Unsuback(unsuback) => {
                encode::unsuback(version, unsuback.packet_id, &unsuback.reasons, None, size_max, out)
            }
            Self::Auth(auth) => encode::auth(auth, None, size_max, out),
        }
    }
}
