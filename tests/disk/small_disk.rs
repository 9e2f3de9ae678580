//! A filesystem of some megabytes.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// Mounts it, says so, and keeps it until its standard input ends.
const MOUNT: &str = r#"mount -t tmpfs -o "size=$0" none "$1" && echo mounted && read -r _"#;

/// A filesystem in memory. It is there as long as this is.
pub struct SmallDisk {
    /// Keeps the namespace that it is mounted in.
    keeper: Child,
    /// Where it is, seen from here.
    pub path: PathBuf,
    _mount_point: TempDir,
}

impl SmallDisk {
    /// A new one; `None` where this machine does not allow it, which is said.
    pub fn new(mebibytes: u64) -> Option<Self> {
        let made = ["-Urm", "-m"].iter().find_map(|flags| Self::mounted(flags, mebibytes));
        if made.is_none() {
            // Not by a macro: that would be hidden with the rest that a passing test says.
            let _ = std::io::stderr().write_all(
                b"SKIPPED: no filesystem can be mounted here (unshare -Urm failed, and so did unshare -m), so that \
                  this test has proved nothing\n",
            );
        }
        made
    }

    fn mounted(flags: &str, mebibytes: u64) -> Option<Self> {
        let mount_point = tempfile::tempdir().unwrap();
        let mut keeper = Command::new("unshare")
            .args([flags, "sh", "-c", MOUNT, &format!("{mebibytes}m")])
            .arg(mount_point.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        // Its own root: the mount is in no other namespace.
        let seen = PathBuf::from(format!("/proc/{}/root{}", keeper.id(), mount_point.path().display()));
        let disk = Self { keeper, path: seen, _mount_point: mount_point };
        (line == "mounted\n" && disk.path.is_dir()).then_some(disk)
    }

    /// Somebody else writes a file of so many bytes, or less when there is no room for more.
    pub fn fill(&self, bytes: usize) {
        let mut file = File::create(self.path.join("somebody-elses")).unwrap();
        for piece in vec![1; bytes].chunks(4096) {
            match file.write_all(piece) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// That file goes again.
    pub fn clear(&self) {
        fs::remove_file(self.path.join("somebody-elses")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // It may not have started.
        let _ = self.keeper.wait();
    }
}
