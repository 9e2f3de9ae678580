//! Bytes to packets and back, for MQTT 3.1, 3.1.1 and 5.0.
//!
//! Decoding borrows: a [`Packet`] points into the bytes it was read from, and nothing is copied until
//! somebody keeps it. Encoding appends to a `Vec<u8>` that the caller owns and reuses.
//!
//! Invariant: every byte of a frame is judged once, by the guard, before anything else reads it.

mod packet;
mod reason;

pub use packet::*;
pub use reason::ReasonCode;
