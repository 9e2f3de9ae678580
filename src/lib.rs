//! Causeway: an MQTT broker whose acknowledgement is a promise.
//!
//! A PUBACK (or PUBREC) means that the message is on disk for every durable session and every HTTP
//! target that still has to get it. The rooms below are ordered from the ground up; a room uses the
//! rooms below it and never one above (`tests/rooms.rs` keeps it so). `ARCHITECTURE.md` has the map.

// Floor 1: plain values and pure functions.
pub mod codec;
pub mod config;
pub mod record;
pub mod telemetry;
pub mod topic;

// Floor 2: what is on disk.
pub mod store;

// Floor 3: one client's protocol, and its rights.
pub mod auth;
pub mod session;

// Floor 4: where messages go.
pub mod bridge;
pub mod broker;

// Floor 5: the doors.
pub mod admin;
pub mod connection;
pub mod transport;

// Floor 6: what a person starts.
pub mod cli;
pub mod server;

/// Tests of everything together, on a machine that is simulated.
#[cfg(test)]
#[path = "../tests/simulation/mod.rs"]
mod simulation;
