//! A consistent copy of a database, of one that a broker runs on as well.
//!
//! One read transaction sees everything as it was at one commit, and each table is copied row by row into a
//! new database. While that lasts, pages that the broker frees are not used again: its file grows by what is
//! written meanwhile, and the space serves again afterwards.
//!
//! Invariant: a copy has its name only when it is whole and on disk.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use redb::{
    Database, Key, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError,
    TableHandle as _, Value, WriteTransaction,
};

use super::check_rows::schema_of;
use super::tables::{
    AUTHORS, DEAD_LETTERS, GROUPS, INDEX, MESSAGES, META, PROGRESS, RETAINED, ROUTES, SESSIONS, SHARED,
    SUBSCRIPTIONS, TRIES,
};
use super::{FILE, Store, StoreError, overlay, recover};
use crate::telemetry::free_space;

/// Bytes of memory for pages of the copy.
const CACHE_BYTES: usize = 16 << 20;
/// Rows between two looks at the disk and at whether to stop.
const ROWS_BETWEEN_LOOKS: u64 = 1024;

/// How far a backup is, for those who watch it, and a way to end it.
#[derive(Debug, Default)]
pub struct BackupProgress {
    rows: AtomicU64,
    bytes: AtomicU64,
    stop: AtomicBool,
}

impl BackupProgress {
    /// Rows copied, and their bytes.
    pub fn copied(&self) -> (u64, u64) {
        (self.rows.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Has the backup end without a copy.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Copies the database in `directory`, on which no broker runs, to the new file `to`. Blocks on the disk.
///
/// # Errors
/// When there is none, a broker runs on it, it is damaged, or the copy cannot be written, or would leave less
/// than `free_min` bytes on its disk.
pub fn backup(
    directory: &Path,
    to: &Path,
    free_min: u64,
    progress: &BackupProgress,
) -> Result<(), StoreError> {
    recover::guarded(|| {
        let path = directory.join(FILE);
        let database = overlay::open(&path)?;
        let snapshot = database.begin_read()?;
        // What is not understood cannot be copied whole.
        schema_of(&snapshot, &path)?;
        Copy { to, free_min, progress }.write(&snapshot)
    })
}

impl Store {
    /// Copies what is committed to the file `to`, in place of any that is there. Blocks on the disk.
    ///
    /// # Errors
    /// When the database cannot be read, or the copy cannot be written, or would leave less than `free_min`
    /// bytes on its disk.
    pub fn backup(&self, to: &Path, free_min: u64, progress: &BackupProgress) -> Result<(), StoreError> {
        recover::guarded(|| Copy { to, free_min, progress }.write(&self.database.begin_read()?))
    }
}

/// A copy in the making.
struct Copy<'a> {
    to: &'a Path,
    free_min: u64,
    progress: &'a BackupProgress,
}

impl Copy<'_> {
    fn write(&self, from: &ReadTransaction) -> Result<(), StoreError> {
        let begun = with_suffix(self.to, ".new");
        let written = self.fill(from, &begun).and_then(|()| {
            let named =
                sync(&begun).and_then(|()| fs::rename(&begun, self.to)).and_then(|()| sync_folder(self.to));
            named.map_err(|error| refused(self.to, &error))
        });
        if written.is_err() {
            // What was begun is of no use; that it is there still does no harm.
            let _ = fs::remove_file(&begun);
        }
        written
    }

    fn fill(&self, from: &ReadTransaction, begun: &Path) -> Result<(), StoreError> {
        create(begun).map_err(|error| refused(begun, &error))?;
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(begun);
        let database = database.map_err(|error| recover::explain(begun, error))?;
        let txn = database.begin_write()?;
        self.tables(from, &txn)?;
        txn.commit()?;
        database.close().map_err(|error| recover::explain(begun, error))
    }

    fn tables(&self, from: &ReadTransaction, into: &WriteTransaction) -> Result<(), StoreError> {
        let copied = [
            self.table(from, into, META)?,
            self.table(from, into, SESSIONS)?,
            self.table(from, into, PROGRESS)?,
            self.table(from, into, SUBSCRIPTIONS)?,
            self.table(from, into, GROUPS)?,
            self.table(from, into, ROUTES)?,
            self.table(from, into, RETAINED)?,
            self.table(from, into, AUTHORS)?,
            self.table(from, into, DEAD_LETTERS)?,
            self.table(from, into, INDEX)?,
            self.table(from, into, SHARED)?,
            self.table(from, into, TRIES)?,
            self.table(from, into, MESSAGES)?,
        ];
        // A copy that lacks a table would be no copy.
        let unknown = from.list_tables()?.find(|table| !copied.iter().any(|name| name == table.name()));
        unknown.map_or(Ok(()), |table| {
            Err(StoreError::Damaged(format!("table {:?} is not known", table.name())))
        })
    }

    /// Copies one table, if it is there, and gives its name.
    fn table<K: Key + 'static, V: Value + 'static>(
        &self,
        from: &ReadTransaction,
        into: &WriteTransaction,
        definition: TableDefinition<'static, K, V>,
    ) -> Result<String, StoreError> {
        let name = definition.name().to_owned();
        let from = match from.open_table(definition) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(String::new()),
            Err(error) => return Err(error.into()),
        };
        let mut into = into.open_table(definition)?;
        for row in from.iter()? {
            let (key, value) = row?;
            let value = value.value();
            let bytes = V::as_bytes(&value).as_ref().len() as u64;
            into.insert(key.value(), value)?;
            self.count(bytes)?;
        }
        Ok(name)
    }

    fn count(&self, bytes: u64) -> Result<(), StoreError> {
        let rows = self.progress.rows.fetch_add(1, Ordering::Relaxed);
        self.progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        if !rows.is_multiple_of(ROWS_BETWEEN_LOOKS) {
            return Ok(());
        }
        if self.progress.stop.load(Ordering::Relaxed) {
            return Err(StoreError::Failed("the backup was stopped".into()));
        }
        let free = free_space(folder_of(self.to)).map_err(|error| refused(self.to, &error))?;
        if free < self.free_min {
            let text =
                format!("{}: the copy would leave less than {} bytes free", self.to.display(), self.free_min);
            return Err(StoreError::Failed(text));
        }
        Ok(())
    }
}

/// An empty file for its owner alone, in place of one that an earlier copy has left.
pub(super) fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// `path` with something behind its name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

pub(super) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// After a power failure a file is there only when its folder says so.
pub(super) fn sync_folder(file: &Path) -> io::Result<()> {
    sync(folder_of(file))
}

pub(super) fn refused(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Failed(format!("{}: {error}", path.display()))
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
