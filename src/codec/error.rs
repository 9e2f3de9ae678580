//! What can be wrong with a packet, in and out.

use super::ReasonCode;

/// Why bytes are not a packet. The reason is what a 5.0 peer is told before the connection is closed.
///
/// Malformed (0x81) is what cannot be parsed: lengths, UTF-8, flags, reserved bits, unknown or misplaced
/// properties, and strings that cannot be a topic name or filter. Protocol Error (0x82) is what parses and
/// is not allowed: a packet that is not the sender's to send, values out of range, a property twice, an
/// empty list, a reason code that is not in the packet's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason:?} (0x{:02X}): {detail}", *reason as u8)]
pub struct DecodeError {
    /// The reason code that says so.
    pub reason: ReasonCode,
    /// Which field is wrong, and what it has to be.
    pub detail: &'static str,
}

impl DecodeError {
    pub(super) const fn new(reason: ReasonCode, detail: &'static str) -> Self {
        Self { reason, detail }
    }

    pub(super) const fn malformed(detail: &'static str) -> Self {
        Self::new(ReasonCode::MalformedPacket, detail)
    }

    pub(super) const fn protocol(detail: &'static str) -> Self {
        Self::new(ReasonCode::ProtocolError, detail)
    }
}

/// Why a packet cannot be written. Nothing of it is in the buffer then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The length of a string or binary field has 16 bits on the wire.
    #[error("a string or binary field has {0} bytes; 65535 is the most")]
    FieldTooLong(usize),
    /// Also without its reason string and user properties [MQTT-3.1.2-24].
    #[error("the packet has {len} bytes; its receiver takes {max}")]
    PacketTooLarge {
        /// Bytes of the whole packet.
        len: usize,
        /// The limit of the receiver.
        max: u32,
    },
    /// The connection is closed without a CONNACK [MQTT-3.2.2-6 of 3.1.1].
    #[error("no CONNACK return code of MQTT 3.1.1 says {0:?}; close without a CONNACK")]
    NoReturnCode(ReasonCode),
    /// The specification does not give this code to this packet.
    #[error("{0:?} is not a reason code of this packet")]
    ReasonNotInPacket(ReasonCode),
    /// SUBSCRIBE and UNSUBSCRIBE have at least one filter [MQTT-3.8.3-2] [MQTT-3.10.3-2].
    #[error("the list of topic filters or reason codes is empty; it needs at least one")]
    EmptyList,
}
