//! The database as an operator has it: files of earlier versions, damaged ones, the subcommands of `causeway
//! store`, and the space that it takes. Everything runs on the real binary, or on the real store.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod broker;
mod commands;
mod damage;
mod golden;
mod space;
mod sparse;
mod target;
/// The client of the conformance tests: bytes over a socket.
#[path = "../conformance/harness/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the other tests use more of it")]
mod wire;
