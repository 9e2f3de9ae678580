//! Reading back, page by page, in short transactions: a long one makes the file grow.

use std::ops::Bound;

use redb::ReadableDatabase as _;

use super::rows::{self, Progress};
use super::tables::{DEAD_LETTERS, MESSAGES, PROGRESS};
use super::{Store, StoreError};
use crate::record::{Leg, Lsn, Message, RecipientNo, UnixMillis};

/// Bytes of messages that one page holds at most (one message at least).
const PAGE_BYTES_MAX: usize = 256 * 1024;

/// A message as one recipient is owed it.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Its number.
    pub lsn: Lsn,
    /// The message.
    pub message: Message,
    /// How this recipient gets it.
    pub leg: Leg,
    /// The number it had before, when it was a dead letter and was replayed.
    pub origin: Option<Lsn>,
}

/// A dead letter as it was filed.
#[derive(Clone, Debug)]
pub struct StoredDeadLetter {
    /// The number it is known by.
    pub id: Lsn,
    /// The encoded letter.
    pub bytes: Vec<u8>,
}

impl Store {
    /// Reads the messages with these numbers as `recipient` is owed them, up to a page's worth of bytes: the
    /// rest is for the next page. A number that was settled or discarded meanwhile is left out. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// When the database cannot be read, or a number that is owed is not there: that is damage, and never
    /// skipped in silence.
    pub fn read(&self, recipient: RecipientNo, numbers: &[Lsn]) -> Result<Vec<Stored>, StoreError> {
        let table = self.database.begin_read()?.open_table(MESSAGES)?;
        let (mut page, mut bytes) = (Vec::with_capacity(numbers.len()), 0);
        for lsn in numbers {
            let Some(row) = table.get(lsn.0)? else {
                // The writer strikes a number out of the backlog before the row goes.
                if self.backlog(recipient).contains(*lsn) {
                    return Err(missing(*lsn, recipient));
                }
                continue;
            };
            bytes += row.value().len();
            if bytes > PAGE_BYTES_MAX && !page.is_empty() {
                break;
            }
            let mut own = None;
            let row = rows::message(row.value(), |leg| {
                if leg.recipient == recipient {
                    own = Some(leg);
                }
            })?;
            let leg = own.ok_or_else(|| missing(*lsn, recipient))?;
            let message = self.timeline().current(row.message);
            page.push(Stored { lsn: *lsn, message, leg, origin: row.origin });
        }
        Ok(page)
    }

    /// How far a session is with its exchanges, as of the last commit. Blocks on the disk.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn progress(&self, recipient: RecipientNo) -> Result<Progress, StoreError> {
        let table = self.database.begin_read()?.open_table(PROGRESS)?;
        let row = table.get(recipient.0)?;
        let mut progress = row.map_or_else(|| Ok(Progress::default()), |row| rows::progress(row.value()))?;
        progress.doubtful_before = self.timeline().counts_as(progress.doubtful_before);
        Ok(progress)
    }

    /// When a message that is still owed was published. Blocks on the disk.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn published_at(&self, lsn: Lsn) -> Result<Option<UnixMillis>, StoreError> {
        let table = self.database.begin_read()?.open_table(MESSAGES)?;
        let row = table.get(lsn.0)?;
        let stored = row.map(|row| rows::message(row.value(), drop)).transpose()?;
        Ok(stored.map(|row| self.timeline().current(row.message).head().published_at))
    }

    /// Dead letters after `cursor`, oldest first, `max` at most and up to a page's worth of bytes (one letter
    /// at least). The last page is the empty one. Blocks on the disk.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn read_dead_letters(&self, cursor: Lsn, max: usize) -> Result<Vec<StoredDeadLetter>, StoreError> {
        let table = self.database.begin_read()?.open_table(DEAD_LETTERS)?;
        let (mut page, mut bytes) = (Vec::new(), 0);
        for row in table.range::<u64>((Bound::Excluded(cursor.0), Bound::Unbounded))?.take(max) {
            let (id, row) = row?;
            bytes += row.value().len();
            if bytes > PAGE_BYTES_MAX && !page.is_empty() {
                break;
            }
            page.push(StoredDeadLetter { id: Lsn(id.value()), bytes: row.value().to_vec() });
        }
        Ok(page)
    }
}

fn missing(lsn: Lsn, recipient: RecipientNo) -> StoreError {
    StoreError::Damaged(format!("message {} that is owed to recipient {} is not there", lsn.0, recipient.0))
}
