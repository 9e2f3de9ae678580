//! The broker as a process.
//!
//! Invariant: the process does not outlive the tests, however they end. It is watched over by a shell that
//! kills it when its own standard input ends.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Lines},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio},
    sync::OnceLock,
};

use tempfile::TempDir;

use super::{Client, Connect};

/// It tells the number of the process, and then leaves standard output to the broker.
const WATCH: &str = r#""$0" "$@" & broker=$!; echo "pid $broker"; exec >&-
read -r _; kill -9 $broker 2>/dev/null; wait $broker 2>/dev/null"#;

/// Where the broker's standard error goes, in its folder.
const STDERR: &str = "stderr";

/// A broker with a database of its own.
pub struct Broker {
    folder: TempDir,
    running: Running,
}

struct Running {
    shell: Child,
    /// Ends the broker when it is dropped.
    watch: Option<ChildStdin>,
    /// Kept open: the broker says more than its address.
    lines: Lines<BufReader<ChildStdout>>,
    address: SocketAddr,
    process: u32,
    websocket: Option<SocketAddr>,
    admin: Option<SocketAddr>,
}

/// The broker that most tests share: default settings, but for a plain listener only.
pub fn broker() -> &'static Broker {
    static SHARED: OnceLock<Broker> = OnceLock::new();
    SHARED.get_or_init(|| Broker::start(""))
}

impl Broker {
    /// Starts a broker; `config` is added to what it needs to run at all.
    pub fn start(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        configure(&folder, config);
        Self { running: run(&folder), folder }
    }

    /// Kills the broker where it stands, and starts it again with what is on its disk.
    pub fn crash(&mut self) {
        self.running.kill();
        self.running = run(&self.folder);
    }

    /// Stops the broker in order, and starts it again with what is on its disk.
    pub fn restart(&mut self) {
        self.running.stop();
        self.running = run(&self.folder);
    }

    /// As [`Broker::restart`], with another configuration.
    pub fn restart_with(&mut self, config: &str) {
        configure(&self.folder, config);
        self.restart();
    }

    /// Has the running broker read another configuration.
    pub fn reload(&self, config: &str) {
        self.configure(config);
        Command::new("kill").args(["-HUP", &self.running.process.to_string()]).status().unwrap();
    }

    /// Writes another configuration, which nobody is told of.
    pub fn configure(&self, config: &str) {
        configure(&self.folder, config);
    }

    /// Memory that the process has resident, in bytes, where the system says so.
    pub fn resident(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.running.process)).ok()?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().split(' ').next()?;
        Some(kib.parse::<u64>().ok()? * 1024)
    }

    /// What the broker has said of its own mistakes: a panic ends no more than its connection, so that a test
    /// that looks for one asks here.
    pub fn panics(&self) -> Vec<String> {
        let said = std::fs::read_to_string(self.folder.path().join(STDERR)).unwrap_or_default();
        let panics = said.lines().filter(|line| line.contains("panicked") || line.contains("overflow"));
        panics.map(str::to_owned).collect()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.running.address
    }

    /// Where it listens for WebSocket, with a configuration that says so.
    pub fn websocket_address(&self) -> SocketAddr {
        self.running.websocket.expect("there is no WebSocket listener")
    }

    /// What a subcommand prints as JSON that asks the running broker, with an `[admin]` in its configuration.
    pub fn ask(&self, command: &[&str]) -> serde_json::Value {
        let output = self.run(&[command, &["--json"]].concat());
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What becomes of a subcommand that asks the running broker.
    pub fn run(&self, command: &[&str]) -> Output {
        let admin = self.running.admin.expect("there is no admin listener").to_string();
        let mut asked = Command::new(env!("CARGO_BIN_EXE_causeway"));
        asked.args(command).args(["--admin", &admin]).stdin(Stdio::null()).output().unwrap()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join(STDERR)).unwrap_or_default()
    }

    /// A connection that has sent nothing yet.
    pub fn open(&self) -> Client {
        Client::open(self.address())
    }

    /// A connection whose CONNECT was accepted without a session.
    pub fn connect(&self, connect: &Connect) -> Client {
        let mut client = self.open();
        client.connect(connect, false);
        client
    }

    /// A connection whose CONNECT was accepted, with the session of before.
    pub fn resume(&self, connect: &Connect) -> Client {
        let mut client = self.open();
        client.connect(connect, true);
        client
    }
}

impl Running {
    /// Asks the broker to end, and waits until it has closed its standard output.
    fn stop(&mut self) {
        Command::new("kill").arg(self.process.to_string()).status().unwrap();
        self.lines.by_ref().for_each(drop);
    }

    fn kill(&mut self) {
        drop(self.watch.take());
        self.shell.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn configure(folder: &TempDir, config: &str) {
    let data = folder.path().join("data");
    let admin = if config.contains("[admin]") { "" } else { "[admin]\nenabled = false\n" };
    let log = if config.contains("[log]") { "" } else { "[log]\nlevel = \"error\"\n" };
    let text =
        format!("[store]\npath = {data:?}\n[[listeners]]\naddress = \"127.0.0.1:0\"\n{admin}{log}{config}\n");
    std::fs::write(folder.path().join("causeway.toml"), text).unwrap();
}

fn run(folder: &TempDir) -> Running {
    let stderr = File::options().create(true).append(true).open(folder.path().join(STDERR)).unwrap();
    let mut shell = Command::new("/bin/sh")
        .args(["-c", WATCH, env!("CARGO_BIN_EXE_causeway"), "serve", "--config"])
        .arg(folder.path().join("causeway.toml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
    let (mut process, mut address, mut websocket, mut admin) = (None, None, None, None);
    let mut is_complete = false;
    while process.is_none() || !is_complete {
        let Some(line) = lines.next() else {
            panic!(
                "the broker did not start: {}",
                std::fs::read_to_string(folder.path().join(STDERR)).unwrap()
            );
        };
        let line = line.unwrap();
        let value = |name| line.trim().strip_prefix(name).map(str::trim);
        process = process.or(value("pid").and_then(|process| process.parse().ok()));
        address = address.or(value("MQTT").and_then(|address| address.parse().ok()));
        admin = admin.or(value("admin").and_then(admin_address));
        let host = line.split_once("://").and_then(|(_, rest)| rest.split('/').next());
        websocket = websocket.or(host.and_then(|host| host.parse().ok()));
        // It comes after all addresses.
        is_complete |= value("data ").is_some();
    }
    let (process, address) = (process.unwrap(), address.expect("the broker says where it listens"));
    Running { watch: shell.stdin.take(), lines, shell, address, websocket, admin, process }
}

/// The address in `http://127.0.0.1:9883  (healthz, ...)`.
fn admin_address(line: &str) -> Option<SocketAddr> {
    line.strip_prefix("http://")?.split_whitespace().next()?.parse().ok()
}
