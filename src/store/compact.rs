//! Giving back what a database file does not need any more.
//!
//! Freed pages are used again, so that a file is as large as it ever had to be. redb moves what is at the end of
//! the file into the gaps, commit by commit, and cuts the end off. A crash meanwhile loses nothing, but the next
//! start reads the whole file.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use redb::{CompactionError, Database};

use super::backup::refused;
use super::check::Space;
use super::{FILE, StoreError, recover};
use crate::telemetry::{free_space, occupied};

/// Bytes of memory for pages of the database.
const CACHE_BYTES: usize = 64 << 20;
/// A file that occupies less than this is not worth the time of a start.
const WORTHWHILE: u64 = 64 << 20;
/// What must stay free on the disk, beside what the compaction may need.
const SPARE: u64 = 64 << 20;

/// What a compaction has done.
#[derive(Clone, Copy, Debug)]
pub struct Compacted {
    /// The file as it was.
    pub before: Space,
    /// The file as it is.
    pub after: Space,
    /// How long it took.
    pub took: Duration,
}

/// Verifies and compacts the database in `directory`, on which no broker runs. Blocks on the disk.
///
/// # Errors
/// When there is none, a broker runs on it, it is damaged, or the disk has not enough room.
pub fn compact(directory: &Path) -> Result<Compacted, StoreError> {
    let path = directory.join(FILE);
    recover::guarded(|| {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
        let mut database = builder.open(&path).map_err(|error| recover::explain(&path, error))?;
        let before = space(&database, &path)?;
        check_room(&path, &before)?;
        let started = Instant::now();
        run(&mut database)?;
        let used = space(&database, &path)?.used;
        // The end is cut off when the file is closed.
        database.close().map_err(|error| recover::explain(&path, error))?;
        let after = Space { used, ..file_space(&path)? };
        Ok(Compacted { before, after, took: started.elapsed() })
    })
}

/// Compacts a database that a broker starts on, when more than half of what it occupies is free. `stored` is what
/// its rows amount to, in bytes: to measure what is in use means to read all of it.
pub(super) fn at_start(database: &mut Database, path: &Path, stored: u64) -> Result<(), StoreError> {
    let file = file_space(path)?;
    if file.occupied < WORTHWHILE || stored > file.occupied / 2 {
        return Ok(());
    }
    let before = space(database, path)?;
    if before.used > before.occupied / 2 {
        return Ok(());
    }
    let shown = |bytes| ByteSize(bytes).display().iec();
    if let Err(error) = check_room(path, &before) {
        tracing::warn!("the database is not compacted: {error}");
        return Ok(());
    }
    tracing::info!(
        "compacting the database: {} of {} are in use (store.compact_at_start)",
        shown(before.used),
        shown(before.occupied)
    );
    let started = Instant::now();
    run(database).map_err(|error| match error {
        StoreError::Failed(what) => StoreError::Failed(format!(
            "{what}, while it was compacted: nothing is lost. Make room, or set store.compact_at_start = false"
        )),
        other => other,
    })?;
    let after = file_space(path)?;
    tracing::info!(
        "the database is compacted: {} became {} in {:?}",
        shown(before.occupied),
        shown(after.occupied),
        started.elapsed()
    );
    Ok(())
}

/// Moves and cuts off what can be.
pub(super) fn run(database: &mut Database) -> Result<(), StoreError> {
    match database.compact() {
        Ok(_) => Ok(()),
        Err(CompactionError::Storage(error)) => Err(error.into()),
        Err(error) => Err(StoreError::Failed(error.to_string())),
    }
}

/// Bytes that a compaction may need: what is moved may fill gaps that were never written, and so take no space yet.
fn needed(space: &Space) -> u64 {
    space.length.saturating_sub(space.occupied).min(space.used).saturating_add(SPARE)
}

fn check_room(path: &Path, space: &Space) -> Result<(), StoreError> {
    let needed = needed(space);
    let free = free_space(path).map_err(|error| refused(path, &error))?;
    if free >= needed {
        return Ok(());
    }
    let (needed, free) = (ByteSize(needed).display().iec(), ByteSize(free).display().iec());
    Err(StoreError::Failed(format!(
        "{}: compacting may need {needed} of the disk, and {free} are free",
        path.display()
    )))
}

/// The space of an open database, whose pages in use are counted by going through them.
pub(super) fn space(database: &Database, path: &Path) -> Result<Space, StoreError> {
    let txn = database.begin_write()?;
    let stats = txn.stats()?;
    txn.abort()?;
    let used = stats.allocated_pages() * stats.page_size() as u64;
    Ok(Space { used, ..file_space(path)? })
}

fn file_space(path: &Path) -> Result<Space, StoreError> {
    let file = fs::metadata(path).map_err(|error| refused(path, &error))?;
    Ok(Space { length: file.len(), occupied: occupied(&file), used: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_that_were_never_written_may_take_space() {
        let space = |length, occupied, used| Space { length, occupied, used };
        assert_eq!(needed(&space(100, 100, 40)), SPARE);
        assert_eq!(needed(&space(100, 70, 40)), SPARE + 30);
        assert_eq!(needed(&space(100, 50, 10)), SPARE + 10);
    }
}
