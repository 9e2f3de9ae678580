//! The real broker and a wall clock that is wrong, or jumps: nothing ends early because of it.
//!
//! libfaketime gives the process another wall clock, which a test can set while it runs; elapsed time is what it
//! is. Where it is not installed the tests say so on standard error and prove nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bridge;
#[path = "../disk/broker.rs"]
#[allow(dead_code, reason = "another test needs more of it")]
mod broker;
mod client;
mod jumps;
mod starts;
mod wall_clock;
#[path = "../crash/wire.rs"]
#[allow(dead_code, reason = "another test needs more of it")]
mod wire;

mod gate {
    /// Long enough for a busy machine: no test waits for it unless it fails.
    pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
}
