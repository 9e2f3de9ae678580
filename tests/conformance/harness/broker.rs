//! The broker as a process.
//!
//! Invariant: the process does not outlive the tests, however they end. It is watched over by a shell that
//! kills it when its own standard input ends.

use std::{
    io::{BufRead as _, BufReader, Lines},
    net::SocketAddr,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::OnceLock,
};

use tempfile::TempDir;

use super::{Client, Connect};

const WATCH: &str = r#""$0" "$@" & broker=$!; read -r _; kill -9 $broker; wait $broker 2>/dev/null"#;

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
    _lines: Lines<BufReader<ChildStdout>>,
    address: SocketAddr,
    websocket: Option<SocketAddr>,
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
        let file = folder.path().join("causeway.toml");
        let data = folder.path().join("data");
        let text = format!(
            "[store]\npath = {data:?}\n[[listeners]]\naddress = \"127.0.0.1:0\"\n[admin]\nenabled = false\n\
             [log]\nlevel = \"error\"\n{config}\n"
        );
        std::fs::write(file, text).unwrap();
        Self { running: run(&folder), folder }
    }

    /// Kills the broker where it stands, and starts it again with what is on its disk.
    pub fn crash(&mut self) {
        self.running.kill();
        self.running = run(&self.folder);
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.running.address
    }

    /// Where it listens for WebSocket, with a configuration that says so.
    pub fn websocket_address(&self) -> SocketAddr {
        self.running.websocket.expect("there is no WebSocket listener")
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

fn run(folder: &TempDir) -> Running {
    let mut shell = Command::new("/bin/sh")
        .args(["-c", WATCH, env!("CARGO_BIN_EXE_causeway"), "serve", "--config"])
        .arg(folder.path().join("causeway.toml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
    let said: Vec<_> = lines.by_ref().map(Result::unwrap).take_while(|line| !is_last(line)).collect();
    let address = said.iter().find_map(|line| line.trim().strip_prefix("MQTT")?.trim().parse().ok());
    let address = address.expect("the broker says where it listens");
    let websocket = said.iter().find_map(|line| line.split_once("://")?.1.split('/').next()?.parse().ok());
    Running { watch: shell.stdin.take(), _lines: lines, shell, address, websocket }
}

/// Behind all addresses.
fn is_last(line: &str) -> bool {
    line.trim().starts_with("data ")
}
