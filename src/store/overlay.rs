//! A database file that is only looked at: what redb writes when it opens one stays in memory.
//!
//! redb repairs what a crash has left, and says in the file that somebody has it open. Here it does so on a
//! copy of the pages that it touches, so that a database can be opened whatever its state, verified and read.
//!
//! Invariant: the file is open for reading only, and locked against a broker that writes to it.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::Path;

use parking_lot::RwLock;
use redb::{BackendError, Database, DatabaseError, StorageBackend, backends::FileBackend};

use super::StoreError;
use super::recover::explain;

const PAGE: u64 = 4096;
/// Bytes of memory for pages that are read more than once.
const CACHE_BYTES: usize = 32 << 20;

/// Opens a database as it would be after a start, and verifies the checksum of every page that is in use. The
/// file is not changed.
///
/// # Errors
/// When a broker runs on it, when it cannot be read, or when it is damaged.
pub(super) fn open(path: &Path) -> Result<Database, StoreError> {
    let open = || {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty").into());
        }
        let overlay = Overlay { file: FileBackend::new(file)?, written: RwLock::default() };
        Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(overlay)
    };
    open().map_err(|error: DatabaseError| explain(path, error))
}

/// The file, and what was written over it.
#[derive(Debug)]
struct Overlay {
    file: FileBackend,
    written: RwLock<Written>,
}

#[derive(Debug, Default)]
struct Written {
    pages: HashMap<u64, Box<[u8]>>,
    /// The length, once it was changed, and the least that it ever was: beyond that the file is forgotten.
    len: Option<(u64, u64)>,
}

impl Overlay {
    /// The bytes of the file, and zeros where it ends or was cut off.
    fn read_file(&self, written: &Written, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = written.len.map_or(u64::MAX, |(_, least)| least).min(self.file.len()?);
        let there = end.saturating_sub(offset).min(out.len() as u64);
        let (bytes, beyond) = out.split_at_mut(usize::try_from(there).unwrap_or(out.len()));
        beyond.fill(0);
        if bytes.is_empty() { Ok(()) } else { self.file.read(offset, bytes) }
    }
}

impl Written {
    /// What of a page overlaps `len` bytes from `offset` on: where in the page, and where in the bytes.
    fn overlap(page: u64, offset: u64, len: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let (page_start, end) = (page * PAGE, offset + len as u64);
        let (from, to) = (page_start.max(offset), (page_start + PAGE).min(end));
        let part = |start: u64| (from - start) as usize..(to - start) as usize;
        (part(page_start), part(offset))
    }
}

/// The pages that `len` bytes from `offset` on lie in.
fn pages(offset: u64, len: usize) -> std::ops::Range<u64> {
    offset / PAGE..(offset + len as u64).div_ceil(PAGE)
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        let changed = self.written.read().len;
        changed.map_or_else(|| self.file.len(), |(len, _)| Ok(len))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() as u64 > self.len()? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let written = self.written.read();
        self.read_file(&written, offset, out)?;
        for page in pages(offset, out.len()) {
            if let Some(bytes) = written.pages.get(&page) {
                let (within, target) = Written::overlap(page, offset, out.len());
                out[target].copy_from_slice(&bytes[within]);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.written.write();
        written.pages.retain(|page, _| page * PAGE < len);
        let least = written.len.map_or(len, |(_, least)| least.min(len));
        written.len = Some((len, least));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written.write();
        for page in pages(offset, data.len()) {
            if !written.pages.contains_key(&page) {
                let mut bytes = vec![0; PAGE as usize].into_boxed_slice();
                self.read_file(&written, page * PAGE, &mut bytes)?;
                written.pages.insert(page, bytes);
            }
            if let Some(bytes) = written.pages.get_mut(&page) {
                let (within, source) = Written::overlap(page, offset, data.len());
                bytes[within].copy_from_slice(&data[source]);
            }
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    /// Shared is enough to keep a broker away, and several may look at once.
    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
}
