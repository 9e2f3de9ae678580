//! The tables of the database, and what stands in `meta`.

use redb::{ReadableTable as _, Table, TableDefinition, WriteTransaction};

use super::StoreError;

/// The layout this program writes and the newest it reads.
///
/// 1: the first. 2: what is owed is indexed ([`INDEX`], [`SHARED`]); a file of version 1 is one whose index ends
/// at number 0. 3: what was tried is kept ([`TRIES`]), and dead letters tell every attempt; a file of version 2 has no
/// such rows, and letters of the form before.
pub(super) const SCHEMA: u64 = 3;

type Numbered = TableDefinition<'static, u64, &'static [u8]>;
type Named = TableDefinition<'static, &'static str, &'static [u8]>;

/// Schema version, store id, secret, reserved numbers.
pub(super) const META: Named = TableDefinition::new("meta");
/// Message number to the message, its payload once, and everyone it is owed to.
pub(super) const MESSAGES: Numbered = TableDefinition::new("messages");
/// Session number to the session.
pub(super) const SESSIONS: Numbered = TableDefinition::new("sessions");
/// Recipient number to how far it is.
pub(super) const PROGRESS: Numbered = TableDefinition::new("progress");
/// Session number and filter, as the client wrote it, to the options.
pub(super) const SUBSCRIPTIONS: TableDefinition<'static, (u64, &'static str), &'static [u8]> =
    TableDefinition::new("subscriptions");
/// `$share/<name>/<filter>` to the number of the group.
pub(super) const GROUPS: TableDefinition<'static, &'static str, u64> = TableDefinition::new("groups");
/// Name of a route to its number.
pub(super) const ROUTES: TableDefinition<'static, &'static str, u64> = TableDefinition::new("routes");
/// Topic to the retained message.
pub(super) const RETAINED: Named = TableDefinition::new("retained");
/// Topic to the user name of whoever published its retained message, where that had one.
pub(super) const AUTHORS: TableDefinition<'static, &'static str, &'static str> =
    TableDefinition::new("retained_authors");
/// Recipient and first number of a chunk to the numbers it is owed from there on; with number 0 to how many
/// these are in all chunks.
pub(super) const INDEX: TableDefinition<'static, (u64, u64), &'static [u8]> = TableDefinition::new("index");
/// Number of a message for several to how many of them it is owed to still, where the index knows of it.
pub(super) const SHARED: TableDefinition<'static, u64, u64> = TableDefinition::new("shared");
/// Recipient and message number to what was tried with that message, while it waits for another try.
pub(super) const TRIES: TableDefinition<'static, (u64, u64), &'static [u8]> = TableDefinition::new("tries");
/// A number of the record that gave up to the dead letter.
pub(super) const DEAD_LETTERS: Numbered = TableDefinition::new("dead_letters");

/// All tables, open for writing.
pub(super) struct Tables<'txn> {
    pub(super) meta: Table<'txn, &'static str, &'static [u8]>,
    pub(super) messages: Table<'txn, u64, &'static [u8]>,
    pub(super) sessions: Table<'txn, u64, &'static [u8]>,
    pub(super) progress: Table<'txn, u64, &'static [u8]>,
    pub(super) subscriptions: Table<'txn, (u64, &'static str), &'static [u8]>,
    pub(super) groups: Table<'txn, &'static str, u64>,
    pub(super) routes: Table<'txn, &'static str, u64>,
    pub(super) retained: Table<'txn, &'static str, &'static [u8]>,
    pub(super) authors: Table<'txn, &'static str, &'static str>,
    pub(super) index: Table<'txn, (u64, u64), &'static [u8]>,
    pub(super) shared: Table<'txn, u64, u64>,
    pub(super) tries: Table<'txn, (u64, u64), &'static [u8]>,
    pub(super) dead_letters: Table<'txn, u64, &'static [u8]>,
}

impl<'txn> Tables<'txn> {
    /// Opens all tables, making those that are missing.
    pub(super) fn open(txn: &'txn WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            meta: txn.open_table(META)?,
            messages: txn.open_table(MESSAGES)?,
            sessions: txn.open_table(SESSIONS)?,
            progress: txn.open_table(PROGRESS)?,
            subscriptions: txn.open_table(SUBSCRIPTIONS)?,
            groups: txn.open_table(GROUPS)?,
            routes: txn.open_table(ROUTES)?,
            retained: txn.open_table(RETAINED)?,
            authors: txn.open_table(AUTHORS)?,
            index: txn.open_table(INDEX)?,
            shared: txn.open_table(SHARED)?,
            tries: txn.open_table(TRIES)?,
            dead_letters: txn.open_table(DEAD_LETTERS)?,
        })
    }

    /// A number that stands in `meta`.
    pub(super) fn meta_number(&self, key: &str) -> Result<Option<u64>, StoreError> {
        let Some(value) = self.meta.get(key)? else { return Ok(None) };
        let bytes = value
            .value()
            .try_into()
            .map_err(|_| StoreError::Damaged(format!("\"{key}\" in meta is not a number")))?;
        Ok(Some(u64::from_be_bytes(bytes)))
    }

    /// Sets a number in `meta`.
    pub(super) fn set_meta_number(&mut self, key: &str, value: u64) -> Result<(), StoreError> {
        self.meta.insert(key, value.to_be_bytes().as_slice())?;
        Ok(())
    }
}

/// Keys of `meta`.
pub(super) mod key {
    /// [`super::SCHEMA`].
    pub(in crate::store) const SCHEMA: &str = "schema";
    /// Random, drawn when the file is made; part of every idempotency key.
    pub(in crate::store) const STORE_ID: &str = "store_id";
    /// Store ids before each restore, and the end of their numbers: pairs of end and id, rising.
    pub(in crate::store) const FORMER_IDS: &str = "former_ids";
    /// Random, drawn once, and told to nobody.
    pub(in crate::store) const SECRET: &str = "secret";
    /// Record numbers below this one may have been given out.
    pub(in crate::store) const RESERVED: &str = "reserved";
    /// What is owed up to this record number is in the index.
    pub(in crate::store) const INDEXED: &str = "indexed";
    /// Bytes of the messages up to that number.
    pub(in crate::store) const INDEXED_BYTES: &str = "indexed_bytes";
    /// Bytes of the dead letters.
    pub(in crate::store) const DEAD_LETTER_BYTES: &str = "dead_letter_bytes";
    /// Recipient numbers below this one may have been given out.
    pub(in crate::store) const RECIPIENTS: &str = "recipients";
    /// The newest time that is stored, and when clocks were behind: [`crate::store::timeline`].
    pub(in crate::store) const CLOCK: &str = "clock";
    /// In front of the name of a target that is paused: [`crate::store::pauses`].
    pub(in crate::store) const PAUSED: &str = "paused/";
}
