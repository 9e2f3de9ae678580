//! The broker as a process: started on a folder, killed without warning, started again.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

/// A folder with a configuration and a database, and the broker that runs on it.
pub struct Broker {
    folder: TempDir,
    child: Child,
    pub address: SocketAddr,
    pub kills: usize,
}

impl Broker {
    /// A broker on a new folder. `more` is appended to its configuration.
    pub fn start(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let config = format!(
            "[store]\npath = {data:?}\nfree_space_min = \"1 MiB\"\n\
             [[listeners]]\naddress = \"127.0.0.1:0\"\n\
             [admin]\nenabled = false\n[log]\nlevel = \"info\"\n{more}"
        );
        fs::write(folder.path().join("causeway.toml"), config).unwrap();
        let (child, address) = start(folder.path());
        Self { folder, child, address, kills: 0 }
    }

    /// SIGKILL: whatever it was doing, it does no more of it.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.kills += 1;
    }

    /// After a kill: everything in the database can be read and fits together, as `causeway store check` sees it.
    pub fn check_database(&self) {
        let report = causeway::store::check(&self.folder.path().join("data")).unwrap();
        assert!(report.is_good(), "after {} kills: {:#?}", self.kills, report.problems);
    }

    /// Starts it again on the same folder.
    pub fn restart(&mut self) {
        (self.child, self.address) = start(self.folder.path());
    }

    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.check_database();
        self.restart();
    }

    /// Bytes of memory that it occupies.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        kib.trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
    }

    /// Runs a second broker on the same folder until it ends.
    pub fn start_another(&self) -> Output {
        command(self.folder.path()).stdin(Stdio::null()).output().unwrap()
    }

    /// All that it has logged since the first start.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The last lines that it has logged, for a test that fails.
    pub fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have been killed before.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the broker was killed {} times; it said at last:\n{}", self.kills, self.last_words());
        }
    }
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_causeway"));
    command.arg("serve").arg("--config").arg(folder.join("causeway.toml")).current_dir(folder);
    command
}

/// Starts it and waits until it says where it listens.
fn start(folder: &Path) -> (Child, SocketAddr) {
    let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
    let mut child = command(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("the broker starts");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let address = lines.find_map(|line| line.trim().strip_prefix("MQTT ")?.trim().parse().ok());
    // What it says later must not fill the pipe.
    std::thread::spawn(move || lines.for_each(drop));
    let Some(address) = address else {
        let status = child.wait();
        let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        panic!("the broker did not start: {status:?}\n{log}");
    };
    (child, address)
}
