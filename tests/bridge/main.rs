//! From a PUBLISH to an HTTP target: what is acknowledged arrives, or becomes a dead letter that says why.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends that way")]

mod batches;
mod dead_letters;
mod delivery;
mod failures;
mod faults;
mod guarantees;
mod lanes;
mod matrix;
mod policy;
mod reload;
mod reply;
mod requests;
mod sinks;
mod world;
