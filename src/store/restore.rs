//! Putting a backup in place.
//!
//! What was acknowledged, settled or numbered after the backup is not in it. So that a restored copy breaks no
//! promise that can still be kept, it begins with a new store id: numbers that the original has given out since
//! are given out again, and name other messages. Messages that are in the backup keep the id they had.
//! Identifiers of packets are doubted, because clients may have moved on: a repeat is better than a loss.
//!
//! Invariant: the database has its place only when all of this is on disk.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::{Database, ReadableTable as _, WriteTransaction};

use super::backup::{refused, sync, sync_folder, with_suffix};
use super::check::{CheckReport, check_file};
use super::rows::{self, Progress};
use super::tables::{Tables, key};
use super::{FILE, Store, StoreError, StoreSettings, recover};
use crate::record::{Lsn, RecipientNo};

/// Where the copy is made ready, in the data folder.
const WORKSHOP: &str = "restore.new";
const SETTINGS: StoreSettings = StoreSettings {
    cache_size: 16 << 20,
    commit_interval: Duration::ZERO,
    batch_bytes_max: 1 << 20,
    queue_bytes_max: 1 << 20,
    compact_at_start: false,
    recent_max: StoreSettings::RECENT_MAX,
};

/// What was put in place.
#[derive(Debug)]
pub struct Restored {
    /// What is in it.
    pub report: CheckReport,
    /// Where the database is that was there before.
    pub aside: Option<PathBuf>,
}

/// Why a backup was not put in place.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup, or what is to be made of it, cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The backup does not fit together.
    #[error(
        "the backup has {count} problems, the first is: {first}. `causeway store check` tells them all; nothing was \
         changed"
    )]
    Bad {
        /// How many problems there are.
        count: u64,
        /// The first of them.
        first: String,
    },
    /// A database is where the backup should go.
    #[error("{0} is there already: with --force it is moved aside, or choose another folder with --data DIR")]
    Occupied(PathBuf),
}

/// Puts the backup `file` into `directory`, which is made if it is not there. With `force` a database that is
/// there is moved aside.
///
/// # Errors
/// When the backup is not good, a database is there already, a broker runs on it, or the disk says no. Then
/// nothing was changed.
pub fn restore(file: &Path, directory: &Path, force: bool) -> Result<Restored, RestoreError> {
    let report = check_file(file)?;
    if let Some(first) = report.problems.first() {
        return Err(RestoreError::Bad { count: report.problem_count, first: first.clone() });
    }
    let target = directory.join(FILE);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| refused(directory, &error))?;
    // Held until the end: no broker makes a database meanwhile.
    let folder = File::open(directory).and_then(|folder| folder.lock().map(|()| folder));
    let _folder = folder.map_err(|error| refused(directory, &error))?;
    let occupied = target.try_exists().map_err(|error| refused(&target, &error))?;
    if occupied && !force {
        return Err(RestoreError::Occupied(target));
    }
    if occupied {
        free_of_brokers(&target)?;
    }
    let workshop = directory.join(WORKSHOP);
    let ready = prepare(file, &workshop).inspect_err(|_| {
        // What was begun is of no use; that it is there still does no harm.
        let _ = fs::remove_dir_all(&workshop);
    })?;
    let put = || -> io::Result<Option<PathBuf>> {
        let aside = occupied.then(|| unused(&target)).transpose()?;
        if let Some(aside) = &aside {
            fs::rename(&target, aside)?;
        }
        fs::rename(&ready, &target)?;
        fs::remove_dir_all(&workshop)?;
        sync_folder(&target)?;
        Ok(aside)
    };
    let aside = put().map_err(|error| refused(&target, &error))?;
    Ok(Restored { report, aside })
}

/// A copy of the backup that can take its place.
fn prepare(file: &Path, workshop: &Path) -> Result<PathBuf, StoreError> {
    let ready = workshop.join(FILE);
    let copy = || {
        match fs::remove_dir_all(workshop) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(workshop)?;
        fs::copy(file, &ready)?;
        fs::set_permissions(&ready, Permissions::from_mode(0o600))
    };
    copy().map_err(|error| refused(&ready, &error))?;
    // What a start does to it is done here: it may be of an earlier version, or of a broker that was killed.
    let (store, _) = Store::open(workshop, &SETTINGS)?;
    store.close();
    drop(store);
    let database = Database::open(&ready).map_err(|error| recover::explain(&ready, error))?;
    let txn = database.begin_write()?;
    mark(&txn)?;
    txn.commit()?;
    database.close().map_err(|error| recover::explain(&ready, error))?;
    sync(&ready).map_err(|error| refused(&ready, &error))?;
    Ok(ready)
}

/// Notes that this is a database whose clients and targets may have moved on.
fn mark(txn: &WriteTransaction) -> Result<(), StoreError> {
    let mut tables = Tables::open(txn)?;
    renew_id(&mut tables)?;
    // Every number that was given out until now.
    let doubtful_before = Lsn(tables.meta_number(key::RESERVED)?.unwrap_or_default());
    let mut sessions = Vec::new();
    for row in tables.sessions.iter()? {
        let (number, row) = row?;
        sessions.push(rows::session(RecipientNo(number.value()), row.value())?);
    }
    for mut session in sessions {
        let number = session.opened.recipient.0;
        session.torn = true;
        let known = tables.progress.get(number)?.map(|row| rows::progress(row.value())).transpose()?;
        let mut progress: Progress = known.unwrap_or_default();
        progress.inbound.clear();
        progress.doubtful_before = doubtful_before;
        let (mut session_row, mut progress_row) = (Vec::new(), Vec::new());
        rows::put_session(&mut session_row, &session);
        rows::put_progress(&mut progress_row, &progress);
        tables.sessions.insert(number, session_row.as_slice())?;
        tables.progress.insert(number, progress_row.as_slice())?;
    }
    Ok(())
}

/// Draws a new store id for the numbers that are given out from now on.
fn renew_id(tables: &mut Tables<'_>) -> Result<(), StoreError> {
    let absent = |what: &str| StoreError::Damaged(format!("\"{what}\" in meta is not there"));
    let below = tables.meta_number(key::RESERVED)?.ok_or_else(|| absent(key::RESERVED))?;
    let id = tables.meta_number(key::STORE_ID)?.ok_or_else(|| absent(key::STORE_ID))?;
    let mut ids = recover::former_ids(tables)?;
    ids.push((below, id));
    let bytes: Vec<u8> =
        ids.iter().flat_map(|(below, id)| [below.to_be_bytes(), id.to_be_bytes()]).flatten().collect();
    tables.meta.insert(key::FORMER_IDS, bytes.as_slice())?;
    tables.set_meta_number(key::STORE_ID, rand::random())
}

/// No broker runs on this database.
fn free_of_brokers(path: &Path) -> Result<(), StoreError> {
    let locked = File::open(path).map_err(TryLockError::Error).and_then(|file| file.try_lock());
    match locked {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(refused(path, &error)),
    }
}

/// A name beside `path` that nothing has.
fn unused(path: &Path) -> io::Result<PathBuf> {
    for number in 1_u32.. {
        let aside = with_suffix(path, &format!(".before-restore-{number}"));
        if !aside.try_exists()? {
            return Ok(aside);
        }
    }
    Err(ErrorKind::AlreadyExists.into())
}
