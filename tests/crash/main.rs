//! The real broker under SIGKILL: what was acknowledged is there after it, and QoS 2 stays exactly once.
//!
//! `load` kills it at random moments under load and checks the whole history; the other tests kill it at one
//! chosen moment each. `CAUSEWAY_CRASH_KILLS` sets how often `load` kills, `CAUSEWAY_CRASH_SEED` with which
//! seed; `outage` kills it while a target is down, for as long as `CAUSEWAY_OUTAGE` says ("10m"). A test that fails prints the seed, the times of the kills and the broker's last words.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod broker;
mod exchanges;
mod gate;
mod history;
mod load;
mod outage;
mod publisher;
mod sessions;
mod subscriber;
mod target;
mod wire;
