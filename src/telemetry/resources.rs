//! What the process and its disk use. Everything here asks the operating system and may block.

use std::{fs, io, path::Path};

/// The space of a folder and of the filesystem it is on, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskSpace {
    /// What the files of the folder occupy.
    pub used: u64,
    /// What an ordinary user may still write on its filesystem.
    pub free: u64,
    /// The size of its filesystem.
    pub total: u64,
}

/// Measures a folder whose files lie in it directly, as the store's do.
///
/// # Errors
/// When the folder cannot be read.
pub fn disk_space(folder: &Path) -> io::Result<DiskSpace> {
    let mut used = 0;
    for entry in fs::read_dir(folder)? {
        // A file that has just gone occupies nothing.
        used += entry?.metadata().map_or(0, |metadata| occupied(&metadata));
    }
    let found = rustix::fs::statvfs(folder)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(DiskSpace { used, free: bytes(found.f_bavail), total: bytes(found.f_blocks) })
}

/// Bytes that an ordinary user may still write on the filesystem of this path.
///
/// # Errors
/// When the operating system cannot say.
pub fn free_space(path: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Bytes of memory that the process has in use; `None` where the operating system does not tell.
pub fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    resident_in(&status)
}

/// Files and sockets that the process has open; `None` where the operating system does not tell.
pub fn open_files() -> Option<u64> {
    // The reader itself is one of them.
    fs::read_dir("/proc/self/fd").ok().map(|entries| (entries.count() as u64).saturating_sub(1))
}

/// `VmRSS:     1234 kB`
fn resident_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// What a file occupies of the disk, in bytes. One of the database can be sparse, so that its length says too much.
#[cfg(unix)]
pub fn occupied(metadata: &fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    metadata.blocks() * 512
}

/// What a file occupies of the disk, in bytes.
#[cfg(not(unix))]
pub fn occupied(metadata: &fs::Metadata) -> u64 {
    metadata.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_occupies_what_its_files_do() {
        let folder = tempfile::tempdir().unwrap();
        let empty = disk_space(folder.path()).unwrap();
        assert_eq!(empty.used, 0);
        assert!(empty.free > 0 && empty.free <= empty.total);
        let file = fs::File::create(folder.path().join("a")).unwrap();
        io::Write::write_all(&mut &file, &[1; 100_000]).unwrap();
        file.sync_all().unwrap();
        assert!(disk_space(folder.path()).unwrap().used >= 100_000);
        assert!(disk_space(&folder.path().join("no")).is_err());
    }

    #[test]
    fn resident_memory_is_read_in_bytes() {
        let status = "Name:\tcauseway\nVmRSS:\t    2048 kB\nThreads:\t4\n";
        assert_eq!(resident_in(status), Some(2 << 20));
        assert_eq!(resident_in("Name:\tcauseway\n"), None);
        assert_eq!(resident_in("VmRSS:\tmany kB\n"), None);
    }
}
