//! A broker to talk to, a client that speaks bytes, and the bytes.

mod broker;
mod client;
mod dice;
mod judge;
mod packets;
mod recording;
mod scram;
mod websocket;

use std::sync::atomic::{AtomicU32, Ordering};

pub use broker::{Broker, broker};
pub use client::{Client, Received, Verdict, parse};
pub use dice::Dice;
pub use packets::*;
pub use scram::{Challenge, ITERATIONS, Scram, verifier_line};
pub use websocket::WebSocket;

/// A name that no other test has, for a client id or a topic.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
