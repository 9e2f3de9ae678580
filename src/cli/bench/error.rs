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
        #[allow(missing_docs)]
        host: String,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// No TCP connection.
    #[error("cannot connect to {address}: {source}; is a broker listening there?")]
    Connect {
        #[allow(missing_docs)]
        address: SocketAddr,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// The TLS handshake failed.
    #[error("TLS with {address} failed: {source}; --ca FILE names whom to trust, --insecure trusts anyone")]
    Tls {
        #[allow(missing_docs)]
        address: SocketAddr,
        #[allow(missing_docs)]
        source: io::Error,
    },
    /// A file named on the command line is of no use.
    #[error("{path}: {reason}", path = path.display())]
    File {
        #[allow(missing_docs)]
        path: PathBuf,
        #[allow(missing_docs)]
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
        #[allow(missing_docs)]
        filter: String,
        #[allow(missing_docs)]
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
        #[allow(missing_docs)]
        what: &'static str,
        #[allow(missing_docs)]
        after: Duration,
    },
    /// The process given by `--pid` cannot be observed.
    #[error("cannot read the counters of process {pid}: {reason}")]
    Process {
        #[allow(missing_docs)]
        pid: u32,
        #[allow(missing_docs)]
        reason: String,
    },
}
