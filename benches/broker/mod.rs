//! A broker that is measured: the real binary, with a directory and ports of its own.

#![allow(dead_code, reason = "each benchmark uses a part")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

const CAUSEWAY: &str = env!("CARGO_BIN_EXE_causeway");
const PATIENCE: Duration = Duration::from_secs(30);

/// A broker with a directory of its own.
pub struct Broker {
    process: Child,
    directory: tempfile::TempDir,
    port: u16,
    admin: u16,
}

impl Broker {
    /// A broker in a directory below `parent`, with this in its `[store]` and behind it.
    pub fn start(parent: &Path, store: &str) -> Self {
        let directory = tempfile::tempdir_in(parent).expect("a directory to write in");
        let (port, admin) = (free_port(), free_port());
        let config = format!(
            "[log]\nlevel = \"error\"\n[[listeners]]\naddress = \"127.0.0.1:{port}\"\n\
             [admin]\naddress = \"127.0.0.1:{admin}\"\n[store]\npath = \"data\"\n{store}\n"
        );
        std::fs::write(directory.path().join("c.toml"), config).expect("room");
        let process = start(directory.path());
        let broker = Self { process, directory, port, admin };
        drop(broker.connect());
        broker
    }

    pub fn kill(&mut self) {
        self.process.kill().expect("it runs");
        self.process.wait().expect("it ends");
    }

    pub fn start_again(&mut self) {
        self.process = start(self.directory.path());
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn command(&self, mode: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(CAUSEWAY);
        command.args(["bench", mode, "--quiet", "--json", "-p", &self.port.to_string()]).args(arguments);
        command
    }

    /// Runs the load and gives its report.
    pub fn load(&self, mode: &str, arguments: &[&str]) -> Value {
        let pid = self.process.id().to_string();
        let output = self.command(mode, arguments).args(["--pid", &pid]).output().expect("the bench");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("a report")
    }

    /// Durable sessions that subscribe and leave.
    pub fn subscribe(&self, prefix: &str, clients: u32, filter: &str) {
        let clients = clients.to_string();
        let arguments =
            ["--durable", "--client-id", prefix, "-c", &clients, "-t", filter, "-q", "1", "-d", "0s"];
        self.load("sub", &arguments);
    }

    pub fn connect(&self) -> TcpStream {
        let start = Instant::now();
        loop {
            match TcpStream::connect(("127.0.0.1", self.port)) {
                Ok(stream) => return stream,
                Err(error) => assert!(start.elapsed() < PATIENCE, "no broker: {error}"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Resumes a session, as soon as somebody listens, and reads CONNACK.
    pub fn connect_as(&self, client_id: &[u8]) -> TcpStream {
        let mut stream = self.connect();
        let mut packet = vec![0x10, 12 + client_id.len() as u8, 0, 4];
        packet.extend_from_slice(b"MQTT\x04\x00\x00\x3c\x00");
        packet.push(client_id.len() as u8);
        packet.extend_from_slice(client_id);
        stream.write_all(&packet).expect("it listens");
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).expect("CONNACK");
        assert_eq!(connack, [0x20, 2, 1, 0], "the session is there");
        stream
    }

    /// Connects with a clean session.
    pub fn connect_clean(&self) -> TcpStream {
        let mut stream = self.connect();
        stream.set_nodelay(true).expect("a socket");
        stream.write_all(b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01b").expect("it listens");
        let mut connack = [0; 4];
        stream.read_exact(&mut connack).expect("CONNACK");
        stream
    }

    /// Seconds of CPU time that it has used.
    pub fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap_or_default();
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        ticks / 100.0
    }

    pub fn metric(&self, name: &str) -> Option<f64> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.admin)).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").ok()?;
        let mut page = String::new();
        stream.read_to_string(&mut page).ok()?;
        page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    pub fn commits(&self) -> f64 {
        self.metric("causeway_store_commits_total").unwrap_or(1.0)
    }

    pub fn wait_for_metric(&self, name: &str, value: f64) {
        let start = Instant::now();
        while self.metric(name).is_none_or(|found| found < value) {
            assert!(start.elapsed() < PATIENCE, "{name} did not come to {value}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Bytes of memory.
    pub fn resident(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
        line.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() * 1024.0
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn start(directory: &Path) -> Child {
    let log = File::create(directory.join("log")).expect("room");
    let mut command = Command::new(CAUSEWAY);
    command.args(["serve", "--config", "c.toml"]).current_dir(directory);
    command.stdout(Stdio::null()).stderr(log).spawn().expect("the broker")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

pub fn number(report: &Value, pointer: &str) -> f64 {
    let value = report.pointer(pointer).and_then(Value::as_f64);
    value.expect("a report that has the number")
}

pub fn mib(bytes: f64) -> f64 {
    bytes / 1024.0 / 1024.0
}
