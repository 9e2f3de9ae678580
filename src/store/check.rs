//! A look at a database on which no broker runs: whether all of it can be read and fits together, and what
//! occupies it.
//!
//! redb verifies its pages, the rest is said by the rows: each has to be what was written, and to name only
//! what is there. What a start would clear away by itself (a message that nobody is owed any more) is no
//! problem.
//!
//! Invariant: nothing is changed, and what a problem is said to be of can be found by its number or name.

use std::path::Path;

use redb::ReadableDatabase as _;
use serde::{Deserialize, Serialize};

use super::check_rows::check_rows;
use super::{FILE, StoreError, compact, overlay, recover};

/// What is in a database, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Schema version.
    pub schema: u64,
    /// Messages that somebody is owed.
    pub messages: Amount,
    /// Messages that nobody is owed any more.
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
    pub oldest_at: Option<u64>,
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

impl Amount {
    pub(super) fn add(&mut self, bytes: usize) {
        self.count += 1;
        self.bytes += bytes as u64;
    }
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
