//! MQTT over WebSocket (RFC 6455; section 6 of both MQTT specifications): a stream of bytes in binary frames.
//!
//! `handshake` answers the HTTP request, `frames` takes the frames of a client apart while they arrive,
//! `stream` joins both to what the rest of the broker sees: bytes in, bytes out. Nothing is collected here: a
//! frame or a message of any size passes through the buffer that the reader lends (docs/adr/0009).
//!
//! Invariant: no byte of a frame that breaks a rule gets through, and after such a frame none at all.

mod frames;
mod handshake;
mod origin;
mod stream;

pub use frames::{Ended, FrameReader, Replies, Violation};
pub(super) use handshake::accept;
pub use handshake::{Refusal, RefusedRequest};
pub use stream::WebSocket;
