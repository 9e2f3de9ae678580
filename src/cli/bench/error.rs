//! What ends a load run, in words for the person who started it.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::codec::{DecodeError, EncodeError, ReasonCode};

/// Why a client, or the whole run, could not go on.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The host name has no address.
    #[error("cannot resolve {host}: {source}")]
    Resolve {
        /// As given by `--host`.
        host: String,
        /// From the system's resolver.
        source: io::Error,
    },
    /// No TCP connection.
    #[error("cannot connect to {address}: {source}; is a broker listening there?")]
    Connect {
        /// Resolved from `--host` and the port.
        address: SocketAddr,
        /// From the system; mostly that the connection was refused.
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error("TLS with {address} failed: {source}; --ca FILE names whom to trust, --insecure trusts anyone")]
    Tls {
        /// Where TCP did connect.
        address: SocketAddr,
        /// From the TLS library.
        source: io::Error,
    },
    /// A file named on the command line is of no use.
    #[error("{path}: {reason}", path = path.display())]
    File {
        /// As given on the command line.
        path: PathBuf,
        /// Why it cannot be read, or what it lacks.
        reason: String,
    },
    /// Options that do not go together, or make no sense.
    #[error("{0}")]
    Argument(String),
    /// A CONNACK that refuses.
    #[error("the broker refused the connection: {0:?} (0x{code:02x})", code = *.0 as u8)]
    Refused(ReasonCode),
    /// A SUBACK that refuses.
    #[error("the broker refused the subscription to {filter}: {reason:?} (0x{code:02x})", code = *reason as u8)]
    SubscriptionRefused {
        /// With the client's number filled in.
        filter: String,
        /// From the SUBACK: 0x80 or more.
        reason: ReasonCode,
    },
    /// A DISCONNECT from the broker.
    #[error("the broker disconnected the client: {0:?} (0x{code:02x})", code = *.0 as u8)]
    Disconnected(ReasonCode),
    /// The connection ended.
    #[error("the broker closed the connection")]
    Closed,
    /// Reading or writing failed.
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
    /// Bytes that are not MQTT.
    #[error("the broker sent a malformed packet: {0}")]
    Malformed(#[from] DecodeError),
    /// A packet that cannot be sent.
    #[error("cannot send a packet: {0}")]
    Encode(#[from] EncodeError),
    /// A packet that does not belong there.
    #[error("the broker broke the protocol: {0}")]
    Protocol(String),
    /// Ctrl-C before anything was measured.
    #[error("interrupted")]
    Interrupted,
    /// Nothing came for too long.
    #[error("no {what} within {after:?} (--timeout)")]
    Timeout {
        /// The packet that was waited for.
        what: &'static str,
        /// The limit that was set.
        after: Duration,
    },
    /// The process given by `--pid` cannot be observed.
    #[error("cannot read the counters of process {pid}: {reason}")]
    Process {
        /// As given by `--pid`, or this process.
        pid: u32,
        /// The file below `/proc`, and what is wrong with it.
        reason: String,
    },
}
