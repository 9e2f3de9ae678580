//! What can go wrong with the store.

use std::io;
use std::path::PathBuf;

/// The store could not be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the files.
    #[error(
        "{0} is in use by another process: is a broker already running on this data directory? \
         Stop it, or choose another directory with --data DIR"
    )]
    InUse(PathBuf),
    /// Written by a later version.
    #[error(
        "{path} has schema version {found}, this program knows up to {known}: start the version that wrote it, \
         or restore a backup made before the upgrade"
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// What it says.
        found: u64,
        /// What this program understands.
        known: u64,
    },
    /// The content is not what was written.
    #[error(
        "the database is damaged: {0}. Nothing was changed; keep a copy of the file and restore a backup, \
         or move the file away to start empty"
    )]
    Damaged(String),
    /// The disk or the filesystem said no.
    #[error("the database cannot be read or written: {0}")]
    Failed(String),
}

/// Why a record was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The store has failed or was closed; nothing is acknowledged any more.
    #[error("the store takes nothing any more: it has failed, or the broker is shutting down")]
    Failed,
    /// The disk is nearly full; settlements and resumes still go through.
    #[error("the disk is nearly full: make room, or lower store.free_space_min")]
    Full,
    /// The database has nearly reached its largest size; settlements and resumes still go through.
    #[error("the database is nearly as large as it may be: let clients drain it, or raise store.size_max")]
    OverBudget,
}

impl StoreError {
    /// What is wrong, without what to do about it.
    pub(super) fn brief(self) -> String {
        match self {
            Self::Damaged(what) => what,
            other => other.to_string(),
        }
    }
}

macro_rules! failed_from {
    ($($error:ty),+) => {
        $(impl From<$error> for StoreError {
            fn from(error: $error) -> Self {
                Self::from(redb::Error::from(error))
            }
        })+
    };
}

failed_from!(redb::TransactionError, redb::TableError, redb::StorageError, redb::CommitError);

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Corrupted(what) => Self::Damaged(what),
            redb::Error::Io(error) if is_damage(&error) => Self::Damaged(error.to_string()),
            other => Self::Failed(other.to_string()),
        }
    }
}

/// Whether it is the content that is wrong, and not the disk: it is no database, or it ends too early.
pub(super) fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}
