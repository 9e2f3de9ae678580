//! Reading back, page by page, in short transactions: a long one makes the file grow.

use std::collections::BTreeMap;
use std::ops::Bound;

use redb::{ReadOnlyTable, ReadableDatabase as _, ReadableTable as _};

use super::rows::{self, MessageRow, Progress};
use super::tables::{DEAD_LETTERS, INDEX, MESSAGES, PROGRESS, TRIES};
use super::{Store, StoreError, index};
use crate::record::{Leg, Lsn, Message, RecipientNo, SavedTries, UnixMillis};

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
    /// Bytes that it occupies on disk.
    pub bytes: u64,
}

/// A page of a backlog.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The messages, oldest first.
    pub messages: Vec<Stored>,
    /// How far was looked: what is not in the page and is not above this is not owed, or was to be skipped.
    pub cursor: Lsn,
    /// Whether there was nothing more when it was read.
    pub is_last: bool,
    /// Whether all that was asked for is here, but for what is not owed any more; otherwise the rest is for
    /// another page.
    pub is_whole: bool,
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
    /// Reads what `recipient` is owed after `cursor` and not above `durable`, a watermark that was seen, without
    /// those to `skip`: `max` messages at most, and up to a page's worth of bytes. Blocks on the disk.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub fn read_after(
        &self,
        recipient: RecipientNo,
        (cursor, durable): (Lsn, Lsn),
        max: usize,
        skip: impl Fn(Lsn) -> bool,
    ) -> Result<Page, StoreError> {
        // Before the snapshot: what memory has forgotten is in the index of every later one.
        let (indexed_to, recent) = self.backlog(recipient).look(cursor, durable, max, &skip);
        let snapshot = Snapshot::of(self)?;
        let mut numbers = Vec::new();
        if cursor < indexed_to && max > 0 {
            index::each_after(&snapshot.index, recipient, cursor, |lsn| {
                let is_within = lsn <= durable.min(indexed_to);
                if is_within && !skip(lsn) {
                    numbers.push(lsn);
                }
                is_within && numbers.len() < max
            })?;
        }
        numbers.extend(recent);
        numbers.truncate(max);
        let mut page = snapshot.read(self, recipient, &numbers)?;
        // One that had room for more has everything there is.
        if page.is_whole && numbers.len() < max {
            page.cursor = durable;
            page.is_last = true;
        }
        page.cursor = page.cursor.max(cursor);
        Ok(page)
    }

    /// Reads the messages with these numbers as `recipient` is owed them, up to a page's worth of bytes: the
    /// rest is for the next page. A number that was settled or discarded meanwhile is left out. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// When the database cannot be read, or a number that is owed is not there: that is damage, and never
    /// skipped in silence.
    pub fn read(&self, recipient: RecipientNo, numbers: &[Lsn]) -> Result<Page, StoreError> {
        Snapshot::of(self)?.read(self, recipient, numbers)
    }

    /// The oldest number that a recipient is owed. Blocks on the disk.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn oldest(&self, recipient: RecipientNo) -> Result<Option<Lsn>, StoreError> {
        let (indexed_to, recent) = self.backlog(recipient).look(Lsn::ZERO, Lsn(u64::MAX), 1, |_| false);
        let indexed = match indexed_to {
            Lsn::ZERO => None,
            _ => index::first(&self.database.begin_read()?.open_table(INDEX)?, recipient)?,
        };
        Ok(indexed.or_else(|| recent.first().copied()))
    }

    /// When the oldest message was published that anybody is owed. Blocks on the disk.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn oldest_published_at(&self) -> Result<Option<UnixMillis>, StoreError> {
        let table = self.database.begin_read()?.open_table(MESSAGES)?;
        let Some((_, row)) = table.first()? else { return Ok(None) };
        let message = self.timeline().current(rows::message(row.value(), drop)?.message);
        Ok(Some(message.head().published_at))
    }

    /// How far a session is with its exchanges, as of the last commit. Blocks on the disk.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn progress(&self, recipient: RecipientNo) -> Result<Progress, StoreError> {
        let table = self.database.begin_read()?.open_table(PROGRESS)?;
        let row = table.get(recipient.0)?;
        row.map_or_else(|| Ok(Progress::default()), |row| rows::progress(row.value()))
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

    /// What was tried with messages that a route is owed, before the start or since: of those that wait for another
    /// try, as of the last commit. Blocks on the disk.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn tries(&self, recipient: RecipientNo) -> Result<BTreeMap<Lsn, SavedTries>, StoreError> {
        let table = self.database.begin_read()?.open_table(TRIES)?;
        let mut tries = BTreeMap::new();
        for row in table.range((recipient.0, 0)..=(recipient.0, u64::MAX))? {
            let (key, row) = row?;
            tries.insert(Lsn(key.value().1), rows::tries(row.value())?);
        }
        Ok(tries)
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

/// What a page is read from: messages and index as of one commit.
struct Snapshot {
    messages: ReadOnlyTable<u64, &'static [u8]>,
    index: ReadOnlyTable<(u64, u64), &'static [u8]>,
}

impl Snapshot {
    fn of(store: &Store) -> Result<Self, StoreError> {
        let txn = store.database.begin_read()?;
        Ok(Self { messages: txn.open_table(MESSAGES)?, index: txn.open_table(INDEX)? })
    }

    fn read(&self, store: &Store, recipient: RecipientNo, numbers: &[Lsn]) -> Result<Page, StoreError> {
        let messages = Vec::with_capacity(numbers.len());
        let (mut page, mut bytes) = (Page { messages, cursor: Lsn::ZERO, is_last: false, is_whole: true }, 0);
        for lsn in numbers {
            let before = std::mem::replace(&mut page.cursor, *lsn);
            let Some(row) = self.messages.get(lsn.0)? else {
                // The writer strikes a number out of memory before the row goes, and of the index with the row.
                if store.backlog(recipient).has_recent(*lsn) || index::contains(&self.index, recipient, *lsn)?
                {
                    return Err(store.missing(*lsn, recipient));
                }
                continue;
            };
            let size = row.value().len();
            bytes += size;
            if bytes > PAGE_BYTES_MAX && !page.messages.is_empty() {
                return Ok(Page { cursor: before, is_whole: false, ..page });
            }
            let mut own = None;
            let row = rows::message(row.value(), |leg| {
                if leg.recipient == recipient {
                    own = Some(leg);
                }
            })?;
            let leg = own.ok_or_else(|| store.missing(*lsn, recipient))?;
            let MessageRow { message, origin } = row;
            let message = store.timeline().current(message);
            page.messages.push(Stored { lsn: *lsn, message, leg, origin, bytes: size as u64 });
        }
        Ok(page)
    }
}

impl Store {
    fn missing(&self, lsn: Lsn, recipient: RecipientNo) -> StoreError {
        self.shared.metrics.missing.increment(1);
        let what = format!("message {} that is owed to recipient {} is not there", lsn.0, recipient.0);
        StoreError::Damaged(what)
    }
}
