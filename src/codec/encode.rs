//! Packets to bytes, for both roles: each function appends one packet to `out`, or nothing and an error.
//!
//! `max_packet_size` is the receiver's limit in bytes ([`super::MAX_PACKET_SIZE`] if it has named none). A
//! reason string, a server reference, and the response information and user properties of a CONNACK are left out
//! of a packet that would exceed it.
//! A broker sends its PUBLISH packets by [`PublishFrame`] alone, which leaves the payload where it is.

use super::frame::PacketType;
use super::{
    Ack, Auth, Connack, Connect, Disconnect, EncodeError, PacketId, ReasonCode, Subscribe, Unsubscribe,
};
use super::{MAX_PACKET_SIZE, PublishFrame, Version, adapter, by_hand, write};

/// Appends a CONNECT of the version that it names. Properties are left out before 5.0.
pub fn connect(connect: &Connect<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    super::connect::encode(connect, out)
}

/// Appends a CONNACK. Session Present is written for a success only [MQTT-3.2.2-6]. Before 5.0 the reason
/// has to have a return code ([`ReasonCode::connack_v3`]).
pub fn connack(
    version: Version,
    connack: &Connack,
    max_packet_size: u32,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    match version {
        Version::V5 => by_hand::encode_connack(connack, max_packet_size, out),
        Version::V31 | Version::V311 => adapter::encode_connack_v3(version, connack, out),
    }
}

/// Appends a PUBLISH with its payload, whose length replaces the one in `frame`.
pub fn publish(
    version: Version,
    frame: &PublishFrame<'_>,
    payload: &[u8],
    max_packet_size: u32,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let frame = PublishFrame { payload_len: payload.len(), ..*frame };
    write::field_len(frame.topic)?;
    let len = frame.encoded_len(version);
    if len > max_packet_size.min(MAX_PACKET_SIZE) as usize {
        return Err(EncodeError::PacketTooLarge { len, max: max_packet_size });
    }
    frame.encode_head(version, out);
    out.extend_from_slice(payload);
    Ok(())
}

macro_rules! acknowledgements {
    ($($(#[$doc:meta])* $name:ident: $packet_type:ident;)+) => {$(
        $(#[$doc])*
        ///
        /// Before 5.0 it is the packet identifier alone, as it is for a success without reason string.
        pub fn $name(
            version: Version,
            packet_id: PacketId,
            reason: ReasonCode,
            reason_string: Option<&str>,
            max_packet_size: u32,
            out: &mut Vec<u8>,
        ) -> Result<(), EncodeError> {
            let ack = Ack { packet_id, reason };
            if version != Version::V5 || (reason == ReasonCode::Success && reason_string.is_none()) {
                return short_ack(PacketType::$packet_type, packet_id, max_packet_size, out);
            }
            adapter::encode_ack(PacketType::$packet_type, ack, reason_string, max_packet_size, out)
        }
    )+};
}

acknowledgements! {
    /// Appends a PUBACK.
    puback: Puback;
    /// Appends a PUBREC.
    pubrec: Pubrec;
    /// Appends a PUBREL.
    pubrel: Pubrel;
    /// Appends a PUBCOMP.
    pubcomp: Pubcomp;
}

/// Appends a SUBSCRIBE. Before 5.0 only filters and QoS are on the wire.
pub fn subscribe(version: Version, subscribe: &Subscribe, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    not_empty(&subscribe.filters)?;
    adapter::encode_subscribe(version, subscribe, out)
}

/// Appends a SUBACK with one reason for each filter. Before 5.0 every error is 0x80.
pub fn suback(
    version: Version,
    packet_id: PacketId,
    reasons: &[ReasonCode],
    reason_string: Option<&str>,
    max_packet_size: u32,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    not_empty(reasons)?;
    adapter::encode_suback(version, packet_id, reasons, reason_string, max_packet_size, out)
}

/// Appends an UNSUBSCRIBE.
pub fn unsubscribe(
    version: Version,
    unsubscribe: &Unsubscribe,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    not_empty(&unsubscribe.filters)?;
    match version {
        Version::V5 => by_hand::encode_unsubscribe(unsubscribe, out),
        Version::V31 | Version::V311 => adapter::encode_unsubscribe_v3(unsubscribe, out),
    }
}

/// Appends an UNSUBACK with one reason for each filter. Before 5.0 the reasons are left out.
pub fn unsuback(
    version: Version,
    packet_id: PacketId,
    reasons: &[ReasonCode],
    reason_string: Option<&str>,
    max_packet_size: u32,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if version == Version::V5 {
        not_empty(reasons)?;
    }
    adapter::encode_unsuback(version, packet_id, reasons, reason_string, max_packet_size, out)
}

/// Appends a PINGREQ.
pub fn pingreq(out: &mut Vec<u8>) -> Result<(), EncodeError> {
    adapter::encode_pingreq(out)
}

/// Appends a PINGRESP.
pub fn pingresp(out: &mut Vec<u8>) -> Result<(), EncodeError> {
    adapter::encode_pingresp(out)
}

/// Appends a DISCONNECT. Before 5.0 it has no content, and only clients send one.
pub fn disconnect(
    version: Version,
    disconnect: &Disconnect,
    max_packet_size: u32,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    match version {
        Version::V5 => by_hand::encode_disconnect(disconnect, max_packet_size, out),
        Version::V31 | Version::V311 => adapter::encode_disconnect_v3(out),
    }
}

/// Appends an AUTH, which only 5.0 has. A success with an empty method is written without content.
pub fn auth(
    auth: &Auth,
    reason_string: Option<&str>,
    max_packet_size: u32,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    by_hand::encode_auth(auth, reason_string, max_packet_size, out)
}

/// The hot path: four bytes.
fn short_ack(
    packet_type: PacketType,
    packet_id: PacketId,
    max_packet_size: u32,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    if max_packet_size < 4 {
        return Err(EncodeError::PacketTooLarge { len: 4, max: max_packet_size });
    }
    let [high, low] = packet_id.get().to_be_bytes();
    out.extend_from_slice(&[packet_type.first_byte(), 2, high, low]);
    Ok(())
}

fn not_empty<T>(list: &[T]) -> Result<(), EncodeError> {
    if list.is_empty() { Err(EncodeError::EmptyList) } else { Ok(()) }
}
