//! Routes as an operator meets them: the real broker, its subcommands and signals, and devices that ask a service
//! over MQTT.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod reload;
mod reply;
#[path = "../store/target.rs"]
mod target;
/// The broker and the client of the conformance tests.
#[path = "../conformance/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the other tests use more of it")]
mod wire;

use std::process::Output;
use std::time::{Duration, Instant};

use target::Target;

/// An admin listener, and what is logged.
const BASE: &str = "[admin]\naddress = \"127.0.0.1:0\"\n[log]\nlevel = \"info\"\n";

/// A target `t` at this path of a server, which answers by the path, and the sections that come after.
fn config(server: &Target, path: &str, rest: &str) -> String {
    let at = server.address;
    format!("{BASE}[targets.t]\nurl = \"http://{at}{path}\"\n{rest}")
}

/// A target that takes what is posted below `/ok`, and nothing else.
fn server() -> Target {
    Target::start(|path| match path {
        path if path.starts_with("/ok") => ("200 OK", "taken"),
        path if path.starts_with("/no") => ("422 Unprocessable Content", "never"),
        _ => ("503 Service Unavailable", "down"),
    })
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "not within time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
