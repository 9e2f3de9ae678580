//! The rows of a database that is looked at: each has to be what was written, and to name only what is there.
//!
//! What is owed stands in two places that have to agree: a message names everyone it was owed to, and the
//! progress of each of them, or the index, says who still is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use redb::{
    Key, ReadOnlyTable, ReadTransaction, ReadableTable as _, ReadableTableMetadata as _, TableDefinition,
    TableError, TableHandle as _, Value,
};

use super::check::{Amount, CheckReport, Pin, PinKind};
use super::rows::{self, Indexed, Progress};
use super::runs::PendingList;
use super::shared_rows::SharedRow;
use super::tables::{
    AUTHORS, DEAD_LETTERS, GROUPS, INDEX, MESSAGES, META, PROGRESS, RETAINED, ROUTES, SCHEMA, SESSIONS,
    SHARED, SUBSCRIPTIONS, TRIES, key,
};
use super::{StoreError, pauses};
use crate::record::{DeadLetter, Lsn, RecipientNo, UnixMillis};
use crate::topic::{SubscriptionFilter, TopicName};

/// Problems that are told in words; further ones are counted.
const PROBLEMS_MAX: usize = 100;

/// Looks at everything that a snapshot holds. `path` is for messages.
pub(super) fn check_rows(txn: &ReadTransaction, path: &Path) -> Result<CheckReport, StoreError> {
    let check = Check {
        txn,
        report: CheckReport::default(),
        problems: Problems::default(),
        meta: Meta::default(),
        known: BTreeMap::new(),
        index: BTreeMap::new(),
        tried: BTreeSet::new(),
    };
    check.run(path)
}

/// The schema version, when there is one.
///
/// # Errors
/// When it is a newer one than this program knows.
pub(super) fn schema_of(txn: &ReadTransaction, path: &Path) -> Result<Option<u64>, StoreError> {
    let Some(meta) = open(txn, META)? else { return Ok(None) };
    let Some(value) = meta.get(key::SCHEMA)? else { return Ok(None) };
    match value.value().try_into().map(u64::from_be_bytes) {
        Ok(found) if found > SCHEMA => Err(StoreError::Newer { path: path.to_owned(), found, known: SCHEMA }),
        Ok(found) => Ok(Some(found)),
        Err(_) => Err(StoreError::Damaged("the schema version is cut".into())),
    }
}

/// A look under way.
struct Check<'a> {
    txn: &'a ReadTransaction,
    report: CheckReport,
    problems: Problems,
    meta: Meta,
    /// Who can be owed something, by number.
    known: BTreeMap<u64, Known>,
    /// What the index says that somebody is owed: of those who are gone as well.
    index: BTreeMap<u64, Owed>,
    /// Recipients and messages of which is known what was tried, and that have not been found yet.
    tried: BTreeSet<(u64, u64)>,
}

/// The numbers in `meta`.
#[derive(Default)]
struct Meta {
    /// Numbers from here on were never given out: of records, and of recipients.
    reserved: u64,
    next_recipient: u64,
    /// What is owed up to this number is in the index.
    indexed_to: u64,
    indexed_bytes: u64,
    dead_letter_bytes: Option<u64>,
}

/// What is in the index for one recipient.
#[derive(Default)]
struct Owed {
    /// Numbers whose messages have not been found yet.
    missing: PendingList,
    found: Indexed,
    said: Option<Indexed>,
}

/// Somebody who can be owed a message.
struct Known {
    progress: Progress,
    pin: Pin,
}

#[derive(Default)]
struct Problems {
    told: Vec<String>,
    count: u64,
}

impl Problems {
    fn add(&mut self, problem: String) {
        self.count += 1;
        if self.told.len() < PROBLEMS_MAX {
            self.told.push(problem);
        }
    }

    /// The value, unless it cannot be read: that is a problem of `what`.
    fn read<T, E: Display>(&mut self, what: impl Display, read: Result<T, E>) -> Option<T> {
        read.map_err(|error| self.add(format!("{what}: {error}"))).ok()
    }

    /// As [`Problems::read`], without the advice for a start that is refused.
    fn read_row<T>(&mut self, what: impl Display, read: Result<T, StoreError>) -> Option<T> {
        self.read(what, read.map_err(StoreError::brief))
    }
}

impl Problems {
    /// The recipients of a message: at least one, each once, in order, and all of them ever there.
    fn check_legs(&mut self, what: &str, legs: &[u64], meta: &Meta) {
        if legs.is_empty() || !legs.is_sorted_by(|a, b| a < b) {
            self.add(format!("the recipients of {what} are none, or out of order"));
        }
        if let Some(stranger) = legs.iter().find(|number| **number >= meta.next_recipient) {
            self.add(format!("{what} is owed to {stranger}, a number that was never given out"));
        }
    }

    /// What counts to how many an indexed message is owed: nothing where it was for one only.
    fn check_count(&mut self, what: &str, legs: usize, right: SharedRow, said: Option<SharedRow>) {
        match said {
            None if right.open == 0 || legs > 1 => {
                self.add(format!("{what} is kept, and nothing counts to how many it is owed"));
            }
            Some(said) if said != right => {
                self.add(format!("{what} is owed to {}, and is said to be to {}", right.open, said.open));
            }
            _ => {}
        }
    }
}

impl Pin {
    /// It is owed one message more.
    fn add(&mut self, bytes: usize, published_at: UnixMillis) {
        self.owed.add(bytes);
        let at = published_at.0;
        self.oldest_at = Some(self.oldest_at.map_or(at, |oldest| oldest.min(at)));
    }
}

impl Known {
    fn is_owed(&self, lsn: u64, is_indexed: bool) -> bool {
        if Lsn(lsn) > self.progress.cursor { !self.progress.has_settled(Lsn(lsn)) } else { is_indexed }
    }
}

impl Owed {
    /// A message was found: whether it is one of these.
    fn take(&mut self, lsn: u64, bytes: usize) -> bool {
        let is_there = self.missing.remove(Lsn(lsn));
        if is_there {
            self.found.count += 1;
            self.found.bytes += bytes as u64;
        }
        is_there
    }
}

impl Check<'_> {
    fn run(mut self, path: &Path) -> Result<CheckReport, StoreError> {
        self.meta(path)?;
        self.recipients()?;
        self.progress()?;
        self.subscriptions()?;
        self.index()?;
        self.tries()?;
        self.messages()?;
        self.index_is_complete();
        self.tries_are_of_messages();
        self.retained()?;
        self.dead_letters()?;
        let mut report = self.report;
        report.pins =
            self.known.into_values().map(|known| known.pin).filter(|pin| pin.owed.count > 0).collect();
        report.pins.sort_by(|a, b| b.owed.bytes.cmp(&a.owed.bytes).then_with(|| a.name.cmp(&b.name)));
        (report.problems, report.problem_count) = (self.problems.told, self.problems.count);
        Ok(report)
    }

    /// Schema version, and the ends of the numbers. A file that was made and never used has none of them.
    fn meta(&mut self, path: &Path) -> Result<(), StoreError> {
        let mut values = BTreeMap::new();
        each(self.txn, META, &mut self.problems, |key, value, _| {
            values.insert(key.to_owned(), value.to_vec());
        })?;
        let Some(schema) = schema_of(self.txn, path)? else {
            if !values.is_empty() {
                self.problems.add("the schema version is not there".into());
            }
            return Ok(());
        };
        let number = |key: &str| Some(u64::from_be_bytes(values.get(key)?.as_slice().try_into().ok()?));
        self.report.schema = schema;
        self.meta = Meta {
            reserved: number(key::RESERVED).unwrap_or_default(),
            next_recipient: number(key::RECIPIENTS).unwrap_or(1),
            indexed_to: number(key::INDEXED).unwrap_or_default(),
            indexed_bytes: number(key::INDEXED_BYTES).unwrap_or_default(),
            dead_letter_bytes: number(key::DEAD_LETTER_BYTES),
        };
        for (key, value) in &values {
            if let Some(target) = key.strip_prefix(key::PAUSED) {
                self.problems.read_row(format_args!("the pause of target {target}"), pauses::read(value));
            }
        }
        for (key, length) in [(key::STORE_ID, 8), (key::SECRET, 32), (key::RESERVED, 8)] {
            if values.get(key).is_none_or(|value| value.len() != length) {
                self.problems.add(format!("\"{key}\" in meta is not there, or is cut"));
            }
        }
        Ok(())
    }

    fn recipients(&mut self) -> Result<(), StoreError> {
        let mut found = Vec::new();
        let mut clients = BTreeSet::new();
        each(self.txn, SESSIONS, &mut self.problems, |number, row, problems| {
            let read = rows::session(RecipientNo(number), row);
            let Some(session) = problems.read_row(format_args!("session {number}"), read) else { return };
            let client_id = session.opened.client_id;
            if !clients.insert(Arc::clone(&client_id)) {
                problems.add(format!("two sessions have the client id {client_id:?}"));
            }
            found.push((number, PinKind::Session, client_id.to_string()));
        })?;
        each(self.txn, GROUPS, &mut self.problems, |name, number, _| {
            found.push((number, PinKind::Group, name.to_owned()));
        })?;
        each(self.txn, ROUTES, &mut self.problems, |name, number, _| {
            found.push((number, PinKind::Route, name.to_owned()));
        })?;
        for (number, kind, name) in found {
            let count = match kind {
                PinKind::Session => &mut self.report.sessions,
                PinKind::Group => &mut self.report.groups,
                PinKind::Route => &mut self.report.routes,
            };
            *count += 1;
            if number >= self.meta.next_recipient {
                self.problems.add(format!(
                    "{} {name:?} has number {number}, which was never given out",
                    kind.as_str()
                ));
            }
            let pin = Pin { kind, name, owed: Amount::default(), oldest_at: None };
            let known = Known { progress: Progress::default(), pin };
            if let Some(other) = self.known.insert(number, known) {
                self.problems.add(format!("number {number} belongs to {:?} and to another", other.pin.name));
            }
        }
        Ok(())
    }

    fn progress(&mut self) -> Result<(), StoreError> {
        let Self { known, meta, .. } = self;
        each(self.txn, PROGRESS, &mut self.problems, |number, row, problems| {
            let what = format!("progress of recipient {number}");
            let Some(progress) = problems.read_row(&what, rows::progress(row)) else { return };
            let exchanges = progress.exchanges.values().map(|exchange| exchange.lsn.0);
            let last = progress.settled.last_key_value().map_or(progress.cursor.0, |(_, last)| *last);
            if let Some(beyond) = exchanges.chain([last]).find(|lsn| *lsn >= meta.reserved && *lsn > 0) {
                problems.add(format!("{what} names message {beyond}, a number that was never given out"));
            }
            match known.get_mut(&number) {
                Some(known) => known.progress = progress,
                None => problems.add(format!("{what} is there, but neither session nor group nor route")),
            }
        })
    }

    fn subscriptions(&mut self) -> Result<(), StoreError> {
        let Self { known, report, .. } = self;
        each(self.txn, SUBSCRIPTIONS, &mut self.problems, |(number, filter), row, problems| {
            report.subscriptions += 1;
            let what = format!("subscription {filter:?} of session {number}");
            problems.read_row(&what, rows::subscription(filter, row));
            problems.read(&what, SubscriptionFilter::parse(filter, u16::MAX));
            if known.get(&number).is_none_or(|known| known.pin.kind != PinKind::Session) {
                problems.add(format!("{what} is there, but no such session"));
            }
        })
    }

    fn index(&mut self) -> Result<(), StoreError> {
        let Self { index, .. } = self;
        each(self.txn, INDEX, &mut self.problems, |(recipient, first), row, problems| {
            let what = format!("index of recipient {recipient}");
            let owed = index.entry(recipient).or_default();
            if first == 0 {
                owed.said = problems.read_row(&what, rows::indexed(row));
                return;
            }
            let Some(chunk) = problems.read_row(&what, rows::chunk(row)) else { return };
            let before = owed.missing.last().unwrap_or_default();
            if chunk.first().is_none_or(|number| number.0 < first || number <= before) {
                problems.add(format!("{what}: its chunk {first} is out of order"));
            } else {
                chunk.runs().for_each(|run| owed.missing.push_run(run));
            }
        })
    }

    fn tries(&mut self) -> Result<(), StoreError> {
        let Self { tried, .. } = self;
        each(self.txn, TRIES, &mut self.problems, |key, row, problems| {
            let (recipient, number) = key;
            let what = format_args!("tries of message {number} for recipient {recipient}");
            problems.read_row(what, rows::tries(row));
            tried.insert(key);
        })
    }

    /// What was tried is known only of messages that wait for another try.
    fn tries_are_of_messages(&mut self) {
        for (recipient, number) in &self.tried {
            self.problems.add(format!(
                "tries of message {number} are there, and recipient {recipient} is not owed it"
            ));
        }
    }

    fn messages(&mut self) -> Result<(), StoreError> {
        let shared = open(self.txn, SHARED)?;
        let Self { known, index, tried, report, meta, .. } = self;
        let (mut indexed_bytes, mut counted) = (0, 0);
        each(self.txn, MESSAGES, &mut self.problems, |lsn, row, problems| {
            let what = format!("message {lsn}");
            let mut legs = Vec::new();
            let read = rows::message(row, |leg| legs.push(leg.recipient.0));
            let Some(read) = problems.read_row(&what, read) else { return };
            problems.check_legs(&what, &legs, meta);
            if lsn >= meta.reserved {
                problems.add(format!("{what} has a number that was never given out"));
            }
            let mut open = 0;
            for number in &legs {
                let is_indexed = index.get_mut(number).is_some_and(|owed| owed.take(lsn, row.len()));
                let Some(known) = known.get_mut(number) else {
                    // What is left in the index of somebody who was discarded is taken out by and by.
                    open += u32::from(is_indexed);
                    continue;
                };
                if known.is_owed(lsn, is_indexed) {
                    open += 1;
                    tried.remove(&(*number, lsn));
                    known.pin.add(row.len(), read.message.head().published_at);
                }
            }
            if open > 0 { &mut report.messages } else { &mut report.settled }.add(row.len());
            if lsn > meta.indexed_to {
                return;
            }
            indexed_bytes += row.len() as u64;
            let said = shared.as_ref().and_then(|table| table.get(lsn).ok().flatten());
            counted += u64::from(said.is_some());
            let said = said.map(|packed| SharedRow::unpack(packed.value()));
            problems.check_count(&what, legs.len(), SharedRow { open, bytes: row.len() as u32 }, said);
        })?;
        let counts = shared
            .map_or(Ok(0), |table| table.range(..=meta.indexed_to).map(|range| range.count() as u64))?;
        if counts != counted {
            self.problems.add(format!("{} messages are counted that are not there", counts - counted));
        }
        if indexed_bytes != meta.indexed_bytes {
            self.problems.add(format!(
                "the index is said to be of {} bytes, and is of {indexed_bytes}",
                meta.indexed_bytes
            ));
        }
        Ok(())
    }

    /// Every number in the index has to have its message.
    fn index_is_complete(&mut self) {
        for (recipient, owed) in &self.index {
            if let Some(first) = owed.missing.first() {
                self.problems
                    .add(format!("recipient {recipient} is owed message {}, which is not there", first.0));
            } else if owed.said.unwrap_or_default() != owed.found {
                let (said, found) = (owed.said.unwrap_or_default(), owed.found);
                self.problems
                    .add(format!("recipient {recipient} is said to be owed {said:?}, and is {found:?}"));
            }
        }
    }

    fn retained(&mut self) -> Result<(), StoreError> {
        let mut topics = BTreeSet::new();
        let Self { report, .. } = self;
        each(self.txn, RETAINED, &mut self.problems, |topic, row, problems| {
            report.retained.add(row.len());
            topics.insert(topic.to_owned());
            let what = format!("retained message of {topic:?}");
            let read = problems.read_row(&what, rows::message(row, drop));
            if read.is_some_and(|read| read.message.topic() != topic) {
                problems.add(format!("{what} has another topic in itself"));
            }
            problems.read(&what, TopicName::parse(topic, u16::MAX));
        })?;
        each(self.txn, AUTHORS, &mut self.problems, |topic, _, problems| {
            if !topics.contains(topic) {
                problems.add(format!("an author is there for {topic:?}, but no retained message"));
            }
        })
    }

    fn dead_letters(&mut self) -> Result<(), StoreError> {
        let Self { report, meta, .. } = self;
        each(self.txn, DEAD_LETTERS, &mut self.problems, |id, row, problems| {
            report.dead_letters.add(row.len());
            problems.read(format_args!("dead letter {id}"), DeadLetter::decode(row));
            if id >= meta.reserved {
                problems.add(format!("dead letter {id} has a number that was never given out"));
            }
        })?;
        let bytes = report.dead_letters.bytes;
        if let Some(said) = meta.dead_letter_bytes.filter(|said| *said != bytes) {
            self.problems.add(format!("the dead letters are said to have {said} bytes, and have {bytes}"));
        }
        Ok(())
    }
}

/// A table, unless it is not there: then it is an empty one.
fn open<K: Key + 'static, V: Value + 'static>(
    txn: &ReadTransaction,
    definition: TableDefinition<'static, K, V>,
) -> Result<Option<ReadOnlyTable<K, V>>, StoreError> {
    match txn.open_table(definition) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Goes through a table, and compares how many rows it has with how many it says to have.
fn each<K: Key + 'static, V: Value + 'static>(
    txn: &ReadTransaction,
    definition: TableDefinition<'static, K, V>,
    problems: &mut Problems,
    mut row: impl for<'r> FnMut(K::SelfType<'r>, V::SelfType<'r>, &mut Problems),
) -> Result<(), StoreError> {
    let Some(table) = open(txn, definition)? else { return Ok(()) };
    let mut count = 0;
    for entry in table.iter()? {
        let (key, value) = entry?;
        row(key.value(), value.value(), problems);
        count += 1;
    }
    let said = table.len()?;
    if said != count {
        problems.add(format!("table {:?} has {count} rows, and says {said}", definition.name()));
    }
    Ok(())
}
