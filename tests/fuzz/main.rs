//! The fuzz targets for a moment each, on inputs that are the same every time: the seeds, every input that
//! ever failed, and some thousands that are made from them. `fuzz/README.md` says how to run them for longer.
//!
//! A failing input is printed as the bytes it consists of, to be kept in `fuzz/regressions`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod inputs;
#[path = "../../fuzz/src/targets/mod.rs"]
mod targets;

// For the files of the broker that `targets::rows` compiles once more.
use causeway::{codec, record};

use inputs::run;

#[test]
fn decoder() {
    run("decoder", 3_000, targets::decoder::run);
}

#[test]
fn round_trip() {
    run("round_trip", 20_000, targets::round_trip::run);
}

#[test]
fn session() {
    run("session", 4_000, targets::session::run);
}

#[test]
fn trie() {
    run("trie", 2_000, targets::trie::run);
}

#[test]
fn retained_tree() {
    run("retained_tree", 1_000, targets::retained_tree::run);
}

#[test]
fn config() {
    run("config", 1_000, targets::config::run);
}

#[test]
fn auth_files() {
    run("auth_files", 15_000, targets::auth_files::run);
}

#[test]
fn rows() {
    run("rows", 20_000, targets::rows::run);
}

#[test]
fn websocket() {
    run("websocket", 20_000, targets::websocket::run);
}
