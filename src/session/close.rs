//! Why a connection ends.

use crate::codec::{DecodeError, ReasonCode};

/// A connection has to be closed, and why. A 5.0 client is told by a DISCONNECT, an older one is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close {
    /// What the client is told.
    pub reason: ReasonCode,
    /// What the log is told.
    pub detail: &'static str,
}

impl Close {
    /// Closes with a reason code and an explanation for the log.
    pub fn because(reason: ReasonCode, detail: &'static str) -> Self {
        Self { reason, detail }
    }

    /// The client broke the protocol [MQTT-4.13.1-1].
    pub fn protocol_error(detail: &'static str) -> Self {
        Self::because(ReasonCode::ProtocolError, detail)
    }
}

impl From<DecodeError> for Close {
    fn from(error: DecodeError) -> Self {
        Self::because(error.reason, error.detail)
    }
}
