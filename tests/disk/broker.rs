//! The broker as a process on a folder of the test's choice, with its admin listener.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::gate::PATIENCE;

/// A broker that runs.
pub struct Broker {
    folder: TempDir,
    child: Child,
    /// Where its MQTT listener is.
    pub address: SocketAddr,
    admin: SocketAddr,
}

/// How a broker is started.
#[derive(Clone, Copy)]
pub struct Start<'a> {
    /// The folder of its database.
    pub data: &'a Path,
    /// What `[store]` says beside the path.
    pub store: &'a str,
    /// Limit on the length of its files in KiB.
    pub file_size_max: Option<u64>,
    /// What else is in its configuration.
    pub more: &'a str,
    /// Variables of its environment.
    pub environment: &'a [(&'a str, &'a str)],
}

impl<'a> Start<'a> {
    /// With the default settings.
    pub fn on(data: &'a Path) -> Self {
        Self { data, store: "", file_size_max: None, more: "", environment: &[] }
    }
}

impl Broker {
    /// Starts it. The folder of the database stays when it ends.
    pub fn start(start: &Start<'_>) -> Self {
        Self::try_start(start).unwrap_or_else(|(status, said)| panic!("not started, {status}: {said}"))
    }

    /// Starts it, or gives how it ended and what it said.
    pub fn try_start(start: &Start<'_>) -> Result<Self, (ExitStatus, String)> {
        let folder = tempfile::tempdir().unwrap();
        let Start { data, store, file_size_max, more, environment } = start;
        let config = format!(
            "[store]\npath = {data:?}\n{store}\n[[listeners]]\naddress = \"127.0.0.1:0\"\n\
             [admin]\naddress = \"127.0.0.1:0\"\n[log]\nlevel = \"info\"\n{more}"
        );
        fs::write(folder.path().join("causeway.toml"), config).unwrap();
        let limit = file_size_max.map_or(String::new(), |kib| format!("ulimit -f {}; ", kib * 2));
        let mut child = Command::new("sh")
            .args(["-c", &format!("{limit}exec \"$0\" serve --config causeway.toml")])
            .arg(env!("CARGO_BIN_EXE_causeway"))
            .current_dir(folder.path())
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut found = |name: &str| {
            let line = lines.find_map(|line| line.trim().strip_prefix(name).map(str::to_owned))?;
            line.split_whitespace().next()?.trim_start_matches("http://").parse().ok()
        };
        let Some((address, admin)) = found("MQTT ").zip(found("admin ")) else {
            let status = child.wait().unwrap();
            return Err((status, fs::read_to_string(folder.path().join("log")).unwrap()));
        };
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { folder, child, address, admin })
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// The status and the body of a page of its admin listener.
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status.unwrap_or_else(|| panic!("{answer}")), body.to_owned())
    }

    /// Waits until this is in its log.
    pub fn until_it_says(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "it does not say {text:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until `/readyz` is green.
    pub fn until_it_is_ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.get("/readyz").0 != 200 {
            assert!(Instant::now() < deadline, "it is not ready: {:?}", self.get("/readyz"));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, self.log());
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills it and starts it again, otherwise perhaps.
    pub fn restart(mut self, start: &Start<'_>) -> Self {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        Self::start(start)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the broker said:\n{}", self.log());
        }
    }
}
