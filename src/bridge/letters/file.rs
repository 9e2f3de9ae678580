//! Files that dead letters of routes are appended to, as lines of an export.
//!
//! The file is a copy: the letter itself is in the store, whatever becomes of this. Each line says as what it is
//! filed, so that the last one tells how far the file is, and nothing else has to be kept. A line that a crash
//! has cut is taken out again.
//!
//! Invariant: a file that can be written has every letter of its routes that was not discarded or replayed before its
//! turn came, each once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::operator::decode;
use crate::broker::Broker;
use crate::record::{Addressee, GlobalNo, Lsn};
use crate::store::Store;

/// How often a file is tried again that could not be written.
const RETRY: Duration = Duration::from_secs(5);
/// Letters that are read at once; each can be as large as the largest packet.
const PAGE_MAX: usize = 32;
/// Bytes of a file that are read at once, from its end, to find its last line.
const CHUNK: u64 = 64 * 1024;

/// How far one file is.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    /// Every letter up to here is in it, or not meant for it; `None` until its last line was read.
    cursor: Option<Lsn>,
    /// It was said that it cannot be written.
    has_failed: bool,
}

/// A file and the names of the routes whose letters it gets.
type Files = BTreeMap<PathBuf, BTreeSet<String>>;

/// What is read of a line.
#[derive(Deserialize)]
struct Line {
    filed_as: String,
}

/// Appends letters to the files of the routes, whichever these are at the time, until it is told to stop.
pub(in crate::bridge) async fn run(broker: Arc<Broker>, mut stop: watch::Receiver<Option<Instant>>) {
    let mut progress = BTreeMap::<PathBuf, Progress>::new();
    while stop.borrow().is_none() && !broker.store.has_failed() {
        let mut has_failed = false;
        for (path, routes) in files(&broker) {
            let known = progress.entry(path.clone()).or_default();
            *known = append(&broker, path, routes, *known).await;
            has_failed |= known.has_failed;
        }
        let filed = async {
            if has_failed {
                tokio::time::sleep(RETRY).await;
            } else {
                broker.letter_filed().await;
            }
        };
        tokio::select! {
            () = filed => {}
            _ = stop.changed() => {}
            // Another configuration may name other files.
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}

fn files(broker: &Broker) -> Files {
    let mut files = Files::new();
    for route in broker.routes() {
        if let Some(path) = &route.dead_letter_file {
            files.entry(path.clone()).or_default().insert(route.name.to_string());
        }
    }
    files
}

/// Appends what is new, and gives how far the file is then.
async fn append(
    broker: &Arc<Broker>,
    path: PathBuf,
    routes: BTreeSet<String>,
    progress: Progress,
) -> Progress {
    // What was filed is submitted, and perhaps not committed.
    let submitted = broker.store.last_submitted();
    if timeout(RETRY, broker.store.durable(submitted)).await.is_err() {
        return progress;
    }
    let (store, shown) = (broker.store.clone(), path.display().to_string());
    let work = move || append_new(&store, &path, &routes, progress.cursor);
    let written = match tokio::task::spawn_blocking(work).await {
        Ok(written) => written,
        Err(error) => Err(io::Error::other(error)),
    };
    match written {
        Ok(cursor) => {
            if progress.has_failed {
                tracing::info!(file = shown, "dead letters are appended to the file again");
            }
            Progress { cursor: Some(cursor), has_failed: false }
        }
        Err(error) => {
            if !progress.has_failed {
                tracing::error!(
                    file = shown,
                    %error,
                    "dead letters cannot be appended to the file; they are in the store, and it is tried again"
                );
            }
            // How far it is now is in the file.
            Progress { cursor: None, has_failed: true }
        }
    }
}

/// Blocks on the disk. Gives the number of the last letter that was looked at.
fn append_new(store: &Store, path: &Path, routes: &BTreeSet<String>, cursor: Option<Lsn>) -> io::Result<Lsn> {
    let mut file = None;
    let mut cursor = match cursor {
        Some(cursor) => cursor,
        None => last_in(file.insert(open(path)?), store)?,
    };
    loop {
        let page = store.read_dead_letters(cursor, PAGE_MAX).map_err(io::Error::other)?;
        let Some(last) = page.last().map(|last| last.id) else { return Ok(cursor) };
        let mut lines = Vec::new();
        for stored in page {
            // One that cannot be read is told of where somebody asks for it.
            let Ok(filed) = decode(store, stored) else { continue };
            let is_meant =
                matches!(&filed.letter.addressee, Addressee::Route { route, .. } if routes.contains(route));
            // What was imported comes from such a file.
            if is_meant && filed.letter.imported_from.is_none() {
                serde_json::to_writer(&mut lines, &filed.view())?;
                lines.push(b'\n');
            }
        }
        if !lines.is_empty() {
            let file = match &mut file {
                Some(file) => file,
                None => file.insert(open(path)?),
            };
            write(file, &lines)?;
        }
        cursor = last;
    }
}

/// The file, for its owner alone, without a line that was cut.
fn open(path: &Path) -> io::Result<File> {
    let mut file =
        OpenOptions::new().read(true).append(true).create(true).truncate(false).mode(0o600).open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    let whole = line_before(&mut file, length)?;
    if whole < length {
        tracing::warn!(file = %path.display(), bytes = length - whole, "a line that was cut is taken out");
        file.set_len(whole)?;
        file.sync_all()?;
    }
    Ok(file)
}

/// Appends lines, all of them or none.
fn write(file: &mut File, lines: &[u8]) -> io::Result<()> {
    let before = file.seek(SeekFrom::End(0))?;
    let written = file.write_all(lines).and_then(|()| file.sync_data());
    if written.is_err() {
        // If this fails as well, the cut line is taken out when the file is opened again.
        let _ = file.set_len(before);
    }
    written
}

/// What the last line is filed as. A file that does not tell gets every letter there is: some twice is better than
/// one not at all.
fn last_in(file: &mut File, store: &Store) -> io::Result<Lsn> {
    let length = file.seek(SeekFrom::End(0))?;
    if length == 0 {
        return Ok(Lsn::ZERO);
    }
    let start = line_before(file, length - 1)?;
    file.seek(SeekFrom::Start(start))?;
    let mut line = Vec::new();
    file.read_to_end(&mut line)?;
    let filed_as =
        serde_json::from_slice::<Line>(&line).ok().and_then(|line| GlobalNo::parse(&line.filed_as));
    let own = filed_as.filter(|filed_as| filed_as.store_id == store.id_of(filed_as.number));
    Ok(own.map_or(Lsn::ZERO, |own| own.number))
}

/// Where the line begins that goes on at `end`: behind the last line break before it.
fn line_before(file: &mut File, end: u64) -> io::Result<u64> {
    let mut end = end;
    let mut chunk = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(CHUNK);
        file.seek(SeekFrom::Start(start))?;
        chunk.clear();
        Read::by_ref(file).take(end - start).read_to_end(&mut chunk)?;
        if let Some(at) = chunk.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_is_taken_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        for (before, after) in [
            (String::new(), 0),
            ("a line\n".into(), 7),
            ("a line\nand a bi".into(), 7),
            ("no line at all".into(), 0),
            (format!("a line\n{}", "x".repeat(200_000)), 7),
            (format!("{}\n{}", "y".repeat(200_000), "x".repeat(70_000)), 200_001),
        ] {
            std::fs::write(&path, &before).unwrap();
            open(&path).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().len(), after);
        }
    }
}
