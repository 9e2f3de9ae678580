//! Listeners: TCP, TLS and WebSocket, up to the moment when a connection is a stream of bytes.
//!
//! Admission is decided here, before a byte of a client is read: a connection over a limit is closed at
//! once. No MQTT packet is seen here. The handshakes are the caller's to run, in the connection's own task and
//! under its deadline, so that a slow client holds up nobody.

pub mod dev_certs;
mod limits;
mod listener;
mod stream;
mod tls;
pub mod websocket;

pub use limits::{ConnectionLimit, ConnectionPermit, raise_nofile};
pub use listener::{Accepted, BindError, Listener};
#[cfg(test)]
pub use stream::Simulated;
pub use stream::{Farewell, HandshakeError, Layers, Stream, handshake};
pub use tls::{Application, TlsError, TlsSettings};
