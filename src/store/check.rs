//! A look at a database on which no broker runs: whether all of it can be read and fits together, and what
//! occupies it.
//!
//! redb verifies its pages, the rest is said by the rows: each has to be what was written, and to name only
//! what is there. What a start would clear away by itself (a message that nobody is owed any more) is no
//! problem.
//!
//! Invariant: nothing is changed, and what a problem is said to be of can be found by its number or name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use redb::{
    Key, ReadTransaction, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _,
    TableDefinition, TableError, TableHandle as _, Value,
};
use serde::{Deserialize, Serialize};

use super::rows::{self, Progress};
use super::tables::{
    AUTHORS, DEAD_LETTERS, GROUPS, MESSAGES, META, PROGRESS, RETAINED, ROUTES, SCHEMA, SESSIONS,
    SUBSCRIPTIONS, key,
};
use super::{FILE, StoreError, compact, overlay, recover};
use crate::record::{DeadLetter, Lsn, RecipientNo};
use crate::topic::{SubscriptionFilter, TopicName};

/// Problems that are told in words; further ones are counted.
const PROBLEMS_MAX: usize = 100;

/// What is in a database, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Schema version.
    pub schema: u64,
    /// Messages that somebody is owed.
    pub messages: Amount,
    /// Messages that nobody is owed any more: the next start removes them.
    pub settled: Amount,
    /// Dead letters.
    pub dead_letters: Amount,
    /// Retained messages.
    pub retained: Amount,
    /// Durable sessions.
    pub sessions: u64,
    /// Their subscriptions.
    pub subscriptions: u64,
    /// Shared groups with a durable member.
    pub groups: u64,
    /// Routes.
    pub routes: u64,
    /// The file.
    pub space: Space,
    /// Whoever is owed something, those first that pin the most bytes.
    pub pins: Vec<Pin>,
    /// What is wrong, the first of it.
    pub problems: Vec<String>,
    /// How much is wrong.
    pub problem_count: u64,
}

/// Rows and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// How many.
    pub count: u64,
    /// How large they are together, without what the database needs to find them.
    pub bytes: u64,
}

/// The space of a database file, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// Its length.
    pub length: u64,
    /// What it occupies of the disk: less where nothing was ever written.
    pub occupied: u64,
    /// What is in use of it; the rest is used again before the file grows.
    pub used: u64,
}

/// What is kept for a session, a shared group or a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// What it is.
    pub kind: PinKind,
    /// The client id of a session, the name of a group or a route.
    pub name: String,
    /// Messages that it is owed, and their bytes (a message for several counts for each).
    #[serde(flatten)]
    pub owed: Amount,
    /// When the oldest of them was published, in milliseconds since 1970.
    pub oldest_at: u64,
}

/// Who can be owed a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PinKind {
    /// A durable session.
    Session,
    /// A shared group.
    Group,
    /// A route.
    Route,
}

impl CheckReport {
    /// Whether a broker can be started on it without losing anything.
    pub fn is_good(&self) -> bool {
        self.problem_count == 0
    }
}

impl PinKind {
    /// `session`, `group`, `route`
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Group => "group",
            Self::Route => "route",
        }
    }
}

/// Looks at the database in `directory`, and changes nothing.
///
/// # Errors
/// When there is none, a broker runs on it, a later version wrote it, or not even its pages can be read.
pub fn check(directory: &Path) -> Result<CheckReport, StoreError> {
    check_file(&directory.join(FILE))
}

/// As [`check`], for a file of any name, such as a backup.
///
/// # Errors
/// As [`check`].
pub fn check_file(path: &Path) -> Result<CheckReport, StoreError> {
    recover::guarded(|| {
        let database = overlay::open(path)?;
        let mut report = check_rows(&database.begin_read()?, path)?;
        report.space = compact::space(&database, path)?;
        Ok(report)
    })
}

fn check_rows(txn: &ReadTransaction, path: &Path) -> Result<CheckReport, StoreError> {
    let check = Check {
        txn,
        report: CheckReport::default(),
        problems: Problems::default(),
        reserved: 0,
        next_recipient: 1,
        known: BTreeMap::new(),
    };
    check.run(path)
}

/// A look under way.
struct Check<'a> {
    txn: &'a ReadTransaction,
    report: CheckReport,
    problems: Problems,
    /// Numbers from here on were never given out: of records, and of recipients.
    reserved: u64,
    next_recipient: u64,
    known: BTreeMap<u64, Known>,
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
}

impl Amount {
    fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes as u64;
    }
}

impl Check<'_> {
    fn run(mut self, path: &Path) -> Result<CheckReport, StoreError> {
        self.meta(path)?;
        self.recipients()?;
        self.progress()?;
        self.subscriptions()?;
        self.messages()?;
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
        let number = |key: &str| Some(u64::from_be_bytes(values.get(key)?.as_slice().try_into().ok()?));
        let Some(schema) = number(key::SCHEMA) else {
            if !values.is_empty() {
                self.problems.add("the schema version is not there".into());
            }
            return Ok(());
        };
        if schema > SCHEMA {
            return Err(StoreError::Newer { path: path.to_owned(), found: schema, known: SCHEMA });
        }
        self.report.schema = schema;
        self.reserved = number(key::RESERVED).unwrap_or_default();
        self.next_recipient = number(key::RECIPIENTS).unwrap_or(1);
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
            let Some(session) = problems.read(format_args!("session {number}"), read) else { return };
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
            if number >= self.next_recipient {
                self.problems.add(format!(
                    "{} {name:?} has number {number}, which was never given out",
                    kind.as_str()
                ));
            }
            let pin = Pin { kind, name, owed: Amount::default(), oldest_at: u64::MAX };
            let known = Known { progress: Progress::default(), pin };
            if let Some(other) = self.known.insert(number, known) {
                self.problems.add(format!("number {number} belongs to {:?} and to another", other.pin.name));
            }
        }
        Ok(())
    }

    fn progress(&mut self) -> Result<(), StoreError> {
        let Self { known, reserved, .. } = self;
        each(self.txn, PROGRESS, &mut self.problems, |number, row, problems| {
            let what = format!("progress of recipient {number}");
            let Some(progress) = problems.read(&what, rows::progress(row)) else { return };
            let exchanges = progress.exchanges.values().map(|exchange| exchange.lsn.0);
            let last = progress.settled.last_key_value().map_or(progress.cursor.0, |(_, last)| *last);
            if let Some(beyond) = exchanges.chain([last]).find(|lsn| lsn >= reserved && *lsn > 0) {
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
            problems.read(&what, rows::subscription(filter, row));
            problems.read(&what, SubscriptionFilter::parse(filter, u16::MAX));
            if known.get(&number).is_none_or(|known| known.pin.kind != PinKind::Session) {
                problems.add(format!("{what} is there, but no such session"));
            }
        })
    }

    fn messages(&mut self) -> Result<(), StoreError> {
        let Self { known, report, reserved, next_recipient, .. } = self;
        each(self.txn, MESSAGES, &mut self.problems, |lsn, row, problems| {
            let what = format!("message {lsn}");
            let mut legs = Vec::new();
            let read = rows::message(row, |leg| legs.push(leg.recipient.0));
            let Some(read) = problems.read(&what, read) else { return };
            if lsn >= *reserved {
                problems.add(format!("{what} has a number that was never given out"));
            }
            if legs.is_empty() || !legs.is_sorted_by(|a, b| a < b) {
                problems.add(format!("the recipients of {what} are none, or out of order"));
            }
            if let Some(stranger) = legs.iter().find(|number| *number >= next_recipient) {
                problems.add(format!("{what} is owed to {stranger}, a number that was never given out"));
            }
            let mut is_owed = false;
            for number in legs {
                // What is left of a recipient that was discarded is owed to nobody.
                let Some(known) = known.get_mut(&number) else { continue };
                if !known.progress.has_settled(Lsn(lsn)) {
                    is_owed = true;
                    known.pin.owed.add(row.len());
                    known.pin.oldest_at = known.pin.oldest_at.min(read.message.head().published_at.0);
                }
            }
            if is_owed { &mut report.messages } else { &mut report.settled }.add(row.len());
        })
    }

    fn retained(&mut self) -> Result<(), StoreError> {
        let mut topics = BTreeSet::new();
        let Self { report, .. } = self;
        each(self.txn, RETAINED, &mut self.problems, |topic, row, problems| {
            report.retained.add(row.len());
            topics.insert(topic.to_owned());
            let what = format!("retained message of {topic:?}");
            let read = problems.read(&what, rows::message(row, drop));
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
        let Self { report, reserved, .. } = self;
        each(self.txn, DEAD_LETTERS, &mut self.problems, |id, row, problems| {
            report.dead_letters.add(row.len());
            problems.read(format_args!("dead letter {id}"), DeadLetter::decode(row));
            if id >= *reserved {
                problems.add(format!("dead letter {id} has a number that was never given out"));
            }
        })
    }
}

/// Goes through a table, one that is not there being empty, and compares how many rows it has with how many it
/// says to have.
fn each<K: Key + 'static, V: Value + 'static>(
    txn: &ReadTransaction,
    definition: TableDefinition<'static, K, V>,
    problems: &mut Problems,
    mut row: impl for<'r> FnMut(K::SelfType<'r>, V::SelfType<'r>, &mut Problems),
) -> Result<(), StoreError> {
    let table = match txn.open_table(definition) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
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
