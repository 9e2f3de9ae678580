//! Bytes to packets and back, for MQTT 3.1, 3.1.1 and 5.0.
//!
//! Decoding borrows: a [`Packet`] points into the bytes it was read from, and nothing is copied until
//! somebody keeps it. Encoding appends to a `Vec<u8>` that the caller owns and reuses. There is no I/O
//! here, and no state but the version of the connection.
//!
//! Own code reads what is frequent or what mqttbytes gets wrong; mqttbytes reads the rest, behind `guard`,
//! and none of its types leave `adapter`.
//!
//! Invariant: a packet that comes out of here breaks no rule that can be checked without a session.

mod adapter;
mod by_hand;
mod connect;
mod decode;
pub mod encode;
mod error;
mod forwarded;
mod frame;
mod guard;
mod packet;
mod properties;
mod publish;
mod reader;
mod reason;
mod write;

#[cfg(test)]
mod tests;

pub use decode::Decoder;
pub use error::{DecodeError, EncodeError};
pub use forwarded::{PropertyChanges, are_forwarded};
pub use frame::MAX_PACKET_SIZE;
pub use packet::*;
pub use publish::{OwnProperties, PublishFrame};
pub use reason::ReasonCode;
