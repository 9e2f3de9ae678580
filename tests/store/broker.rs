//! The broker as a process on a folder that the test fills and looks at, with its admin listener.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::wire::{Client, Connect};

/// A folder with a configuration and a database, on which a broker can run.
pub struct Home {
    folder: TempDir,
}

/// A broker that runs. It does not outlive the test.
pub struct Running {
    child: Child,
    pub address: SocketAddr,
    pub admin: SocketAddr,
}

impl Home {
    /// An empty folder. `config` is added to what the broker needs to run at all; it begins with keys of the store.
    pub fn new(config: &str) -> Self {
        let home = Self { folder: tempfile::tempdir().unwrap() };
        home.configure(config);
        home
    }

    /// Another configuration, for the next start.
    pub fn configure(&self, config: &str) {
        let text = format!(
            "[[listeners]]\naddress = \"127.0.0.1:0\"\n[admin]\naddress = \"127.0.0.1:0\"\n\
             [store]\npath = {:?}\nfree_space_min = \"1 MiB\"\n{config}\n",
            self.data()
        );
        fs::write(self.path("causeway.toml"), text).unwrap();
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder of the database.
    pub fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// The database.
    pub fn file(&self) -> PathBuf {
        self.data().join("causeway.redb")
    }

    /// Puts a database in place.
    pub fn put(&self, content: &[u8]) {
        fs::create_dir_all(self.data()).unwrap();
        fs::write(self.file(), content).unwrap();
    }

    pub fn start(&self) -> Running {
        self.try_start().unwrap_or_else(|log| panic!("the broker did not start:\n{log}"))
    }

    /// Starts the broker; what it says when it does not want to.
    pub fn try_start(&self) -> Result<Running, String> {
        let log = File::create(self.path("log")).unwrap();
        let mut child = command(self.folder.path(), &["serve", "--config", "causeway.toml"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let (mut address, mut admin) = (None, None);
        while address.is_none() || admin.is_none() {
            let Some(line) = lines.next() else {
                child.wait().unwrap();
                return Err(self.log());
            };
            let value = |name| line.trim().strip_prefix(name).map(str::trim);
            address = address.or(value("MQTT ").and_then(|address| address.parse().ok()));
            let http = value("admin").and_then(|url| url.strip_prefix("http://"));
            admin = admin.or(http.and_then(|url| url.split(' ').next()?.parse().ok()));
        }
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Running { child, address: address.unwrap(), admin: admin.unwrap() })
    }

    /// What the last broker has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// Runs a subcommand in the folder.
    pub fn run(&self, arguments: &[&str]) -> Output {
        command(self.folder.path(), arguments).stdin(Stdio::null()).output().unwrap()
    }
}

impl Running {
    /// A connection whose CONNECT was accepted without a session.
    pub fn connect(&self, connect: &Connect) -> Client {
        let mut client = Client::open(self.address);
        client.connect(connect, false);
        client
    }

    /// A connection whose CONNECT was accepted, with the session of before.
    pub fn resume(&self, connect: &Connect) -> Client {
        let mut client = Client::open(self.address);
        client.connect(connect, true);
        client
    }

    /// Status and body of a GET of the admin listener.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.ask("GET", path)
    }

    pub fn post(&self, path: &str) -> (u16, String) {
        self.ask("POST", path)
    }

    fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// What the admin listener says at this path.
    pub fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// SIGKILL: whatever it was doing, it does no more of it.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits until it has. Gives its exit code.
    pub fn stop(mut self) -> Option<i32> {
        Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_causeway"));
    command.args(arguments).current_dir(folder);
    command
}
