//! The real broker on a real disk that gets full: on a filesystem of some megabytes of its own, and with a
//! limit on the length of its files.
//!
//! A filesystem is mounted in a namespace of its own, for which nobody has to be root. Where that is not
//! allowed either, the tests say so on standard error and prove nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod broker;
mod full;
mod lost;
mod small_disk;
#[path = "../crash/wire.rs"]
#[allow(dead_code, reason = "another test needs more of it")]
mod wire;

mod gate {
    /// Long enough for a busy machine: no test waits for it unless it fails.
    pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
}
