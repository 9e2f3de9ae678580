//! When what is owed goes into the index: in passes, a piece with each batch.
//!
//! What the writer applies is owed in memory at first, and most of it is settled before anything else
//! happens. When enough has gathered, a pass moves what is left of it into the index; a start reads only the
//! messages that are newer than the last pass.
//!
//! Invariant: what a pass has moved is forgotten in memory after its commit, never before: a reader that
//! looks into memory first, and then takes a snapshot, misses nothing.

use std::sync::Arc;

use super::rows::Indexed;
use super::state::State;
use super::tables::{Tables, key};
use super::{Backlog, StoreError};
use crate::record::{Lsn, RecipientNo};

/// Bytes of messages after which a pass begins: a start reads as much, and what came during the last pass.
const RECENT_BYTES_MAX: u64 = 64 << 20;
/// How much of a pass goes with one batch at least: runs of numbers, and one for each recipient. More when the
/// batch adds more, so that a pass gains on what comes.
const STEP_MIN: usize = 16_384;

/// How far the index is, and what is not in it.
#[derive(Debug, Default)]
pub(super) struct Indexing {
    /// What is owed up to this number is in the index.
    pub(super) to: Lsn,
    /// Bytes of messages up to there.
    pub(super) bytes: u64,
    /// What came after it, or, during a pass, after that began.
    recent: Recent,
    pass: Option<Pass>,
    /// Backlogs whose recent numbers go into the index with this batch, up to this number.
    moved: Vec<(Arc<Backlog>, Lsn)>,
    /// Legs that this batch has added.
    added: usize,
    is_changed: bool,
}

#[derive(Debug, Default)]
struct Recent {
    /// Who is owed some of it.
    owners: Vec<RecipientNo>,
    legs: u64,
    bytes: u64,
}

/// A pass under way.
#[derive(Debug)]
struct Pass {
    /// It ends when what is owed up to this number is in the index.
    mark: Lsn,
    /// Who is still to be looked at.
    owners: Vec<RecipientNo>,
    /// Bytes of messages up to the mark that are not below [`Indexing::to`].
    bytes: u64,
}

impl Indexing {
    /// A message for so many was written.
    pub(super) fn published(&mut self, legs: usize, bytes: u64) {
        self.added += legs;
        self.recent.legs += legs as u64;
        self.recent.bytes += bytes;
    }

    /// Somebody is owed something recent, who was not since the last pass.
    pub(super) fn owed_to(&mut self, recipient: RecipientNo) {
        self.recent.owners.push(recipient);
    }

    /// A message went.
    pub(super) fn removed(&mut self, lsn: Lsn, bytes: u64) {
        let counted = match &mut self.pass {
            _ if lsn <= self.to => {
                self.is_changed = true;
                &mut self.bytes
            }
            Some(pass) if lsn <= pass.mark => &mut pass.bytes,
            _ => &mut self.recent.bytes,
        };
        *counted = counted.saturating_sub(bytes);
    }

    /// Bytes of all messages.
    pub(super) fn bytes_in_all(&self) -> u64 {
        self.bytes + self.pass.as_ref().map_or(0, |pass| pass.bytes) + self.recent.bytes
    }

    /// Whether there is something to do without new records.
    pub(super) fn is_under_way(&self) -> bool {
        self.pass.is_some()
    }

    /// The batch is durable: what went into the index need not be in memory.
    pub(super) fn committed(&mut self) {
        self.moved.drain(..).for_each(|(backlog, to)| backlog.indexed(to));
    }

    fn is_due(&self, legs_max: u64) -> bool {
        self.recent.legs >= legs_max || self.recent.bytes >= RECENT_BYTES_MAX
    }

    fn begin(&mut self, mark: Lsn) -> Pass {
        let Recent { owners, bytes, .. } = std::mem::take(&mut self.recent);
        Pass { mark, owners, bytes }
    }
}

impl State {
    /// Goes on with the pass, or begins one when it is due. `last` is the last number that was applied.
    pub(super) fn index_some(&mut self, tables: &mut Tables<'_>, last: Lsn) -> Result<(), StoreError> {
        let added = std::mem::take(&mut self.indexing.added);
        let mut pass = match self.indexing.pass.take() {
            Some(pass) => pass,
            None if self.indexing.is_due(self.recent_max) => self.indexing.begin(last),
            None => return self.write_indexing(tables),
        };
        let least = usize::try_from(self.recent_max).map_or(STEP_MIN, |max| max.min(STEP_MIN));
        let mut room = least.max(2 * added);
        while room > 0
            && let Some(number) = pass.owners.pop()
        {
            let runs = self.index_recipient(tables, number, last)?;
            room = room.saturating_sub(runs + 1);
        }
        if pass.owners.is_empty() {
            room -= self.shared.index(tables, pass.mark, room)?;
        }
        // What somebody who is gone was owed is found in memory only, until it is in the index or swept.
        let is_swept = self.sweeps.iter().all(|sweep| sweep.backlog.recent().is_empty());
        if room > 0 && is_swept {
            self.indexing.to = pass.mark;
            self.indexing.bytes += pass.bytes;
            self.indexing.is_changed = true;
            tables.set_meta_number(key::INDEXED, pass.mark.0)?;
        } else {
            self.indexing.pass = Some(pass);
        }
        self.write_indexing(tables)
    }

    /// Moves what one recipient is owed into the index. Gives how many runs that are.
    fn index_recipient(
        &mut self,
        tables: &mut Tables<'_>,
        number: RecipientNo,
        last: Lsn,
    ) -> Result<usize, StoreError> {
        let Some(recipient) = self.recipients.get_mut(&number) else { return Ok(0) };
        recipient.is_listed = false;
        let recent = recipient.backlog.recent();
        if recent.is_empty() {
            return Ok(0);
        }
        let runs = self.chunks.append(tables, number, &recent)?;
        recipient.indexed = Indexed { count: recipient.backlog.count(), bytes: recipient.backlog.bytes() };
        recipient.progress.indexed(last);
        self.indexing.moved.push((Arc::clone(&recipient.backlog), last));
        self.mark(number);
        Ok(runs)
    }

    fn write_indexing(&mut self, tables: &mut Tables<'_>) -> Result<(), StoreError> {
        if std::mem::take(&mut self.indexing.is_changed) {
            tables.set_meta_number(key::INDEXED_BYTES, self.indexing.bytes)?;
        }
        Ok(())
    }
}
