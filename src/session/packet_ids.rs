//! Packet identifiers for the messages we send.
//!
//! Invariant: an identifier of a durable session is not given out while the store could, after a crash,
//! continue with it for another message: a late PUBACK for the old one would settle the new one.

use crate::codec::PacketId;
use crate::record::Lsn;

/// How far ahead a resumed session continues when the last identifiers before a crash are not known.
const SKIPPED: u16 = 1 << 15;

/// How many may be given out before the store is told how far we are. What is told takes a commit to be
/// durable, and as many again may go out in that time: together no more than are skipped.
const UNTOLD_MAX: u16 = SKIPPED / 2;

/// The next identifier, and what the store knows of it.
#[derive(Debug)]
pub(super) struct PacketIds {
    next: u16,
    /// Given out since the store was told.
    untold: u16,
    block: Block,
}

/// A block that was entered after a crash has to be durable before its first identifier is used: a second
/// crash must not enter it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Usable,
    Untold,
    ToldBy(Lsn),
}

impl PacketIds {
    pub(super) fn new() -> Self {
        Self { next: 1, untold: 0, block: Block::Usable }
    }

    /// Continues after an earlier connection; `torn` when the last identifiers it gave out are not known.
    pub(super) fn resume(&mut self, next: u16, torn: bool) {
        self.next = next.max(1);
        if torn {
            self.next = self.next.wrapping_add(SKIPPED).max(1);
            self.block = Block::Untold;
        }
    }

    pub(super) fn is_usable(&self) -> bool {
        self.block == Block::Usable
    }

    /// The next one that is not taken [MQTT-2.2.1-4]; `None` when all are.
    pub(super) fn give_out(&mut self, is_taken: impl Fn(PacketId) -> bool) -> Option<PacketId> {
        for _ in 0..=u16::MAX {
            let id = PacketId::new(self.next);
            self.next = self.next.wrapping_add(1).max(1);
            if let Some(id) = id.filter(|id| !is_taken(*id)) {
                self.untold = self.untold.saturating_add(1);
                return Some(id);
            }
        }
        None
    }

    /// Whether the store has to be told even when there is nothing else to tell.
    pub(super) fn must_tell(&self) -> bool {
        self.block == Block::Untold || self.untold >= UNTOLD_MAX
    }

    /// The identifier to continue with, for a report that is submitted now.
    pub(super) fn tell(&mut self) -> u16 {
        self.untold = 0;
        self.next
    }

    /// The report has this number.
    pub(super) fn told(&mut self, lsn: Lsn) {
        if self.block == Block::Untold {
            self.block = Block::ToldBy(lsn);
        }
    }

    /// The number that has to be durable before one may be given out.
    pub(super) fn waits_for(&self) -> Option<Lsn> {
        match self.block {
            Block::ToldBy(lsn) => Some(lsn),
            Block::Usable | Block::Untold => None,
        }
    }

    /// What is durable by now may make the block usable.
    pub(super) fn advance(&mut self, watermark: Lsn) {
        if self.waits_for().is_some_and(|lsn| lsn <= watermark) {
            self.block = Block::Usable;
        }
    }
}
