//! Appends the pieces of packets: lengths, strings, properties. What cannot be written leaves nothing behind.

use super::frame::PacketType;
use super::properties::PropertyId;
use super::reader::VARINT_MAX;
use super::{EncodeError, MAX_PACKET_SIZE, ReasonCode};

type Written = Result<(), EncodeError>;

/// Appends one packet: its first byte, its length and what `body` writes.
pub(super) fn packet(
    out: &mut Vec<u8>,
    packet_type: PacketType,
    body: impl FnOnce(&mut Vec<u8>) -> Written,
) -> Written {
    let start = out.len();
    out.push(packet_type.first_byte());
    let written = with_length(out, body);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

/// Appends one packet that its receiver takes. `write` is called with `true` for the whole of it; if that
/// is too large, with `false` for the packet without reason string and user properties, which the
/// specification asks to leave out then [MQTT-3.4.2-2] [MQTT-3.2.2-19], and without whatever else the
/// receiver can do without; if that is too large too, the packet cannot be sent.
pub(super) fn fitting(
    out: &mut Vec<u8>,
    max_packet_size: u32,
    mut write: impl FnMut(&mut Vec<u8>, bool) -> Written,
) -> Written {
    let start = out.len();
    let mut len = 0;
    for with_diagnostics in [true, false] {
        write(out, with_diagnostics)?;
        len = out.len() - start;
        if len <= max_packet_size as usize {
            return Ok(());
        }
        out.truncate(start);
    }
    Err(EncodeError::PacketTooLarge { len, max: max_packet_size })
}

/// Appends what `block` writes, after its length as a variable byte integer. The length is put in
/// afterwards: the few bytes of a control packet are moved more cheaply than measured twice.
pub(super) fn with_length(out: &mut Vec<u8>, block: impl FnOnce(&mut Vec<u8>) -> Written) -> Written {
    let start = out.len();
    block(out)?;
    let len = out.len() - start;
    if len > VARINT_MAX as usize {
        return Err(EncodeError::PacketTooLarge { len, max: MAX_PACKET_SIZE });
    }
    let (bytes, used) = varint_bytes(len);
    out.splice(start..start, bytes.into_iter().take(used));
    Ok(())
}

/// Bytes that a variable byte integer takes.
pub(super) fn varint_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Appends a variable byte integer, of at most 268 435 455.
pub(super) fn varint(out: &mut Vec<u8>, mut value: usize) {
    debug_assert!(value <= VARINT_MAX as usize);
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn text(out: &mut Vec<u8>, text: &str) -> Written {
    binary(out, text.as_bytes())
}

pub(super) fn binary(out: &mut Vec<u8>, bytes: &[u8]) -> Written {
    out.extend_from_slice(&field_len(bytes)?.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// The length that stands before a string or binary field.
pub(super) fn field_len(bytes: &[u8]) -> Result<u16, EncodeError> {
    u16::try_from(bytes.len()).map_err(|_| EncodeError::FieldTooLong(bytes.len()))
}

pub(super) fn property_flag(out: &mut Vec<u8>, id: PropertyId, value: bool) {
    out.extend_from_slice(&[id as u8, u8::from(value)]);
}

pub(super) fn property_u16(out: &mut Vec<u8>, id: PropertyId, value: u16) {
    out.push(id as u8);
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn property_u32(out: &mut Vec<u8>, id: PropertyId, value: u32) {
    out.push(id as u8);
    out.extend_from_slice(&value.to_be_bytes());
}

pub(super) fn property_varint(out: &mut Vec<u8>, id: PropertyId, value: u32) {
    out.push(id as u8);
    varint(out, value as usize);
}

/// A string or binary property, unless it is absent.
pub(super) fn property_bytes(out: &mut Vec<u8>, id: PropertyId, value: Option<&[u8]>) -> Written {
    let Some(value) = value else { return Ok(()) };
    field_len(value)?;
    out.push(id as u8);
    binary(out, value)
}

/// A string property, unless it is absent.
pub(super) fn property_text(out: &mut Vec<u8>, id: PropertyId, value: Option<&str>) -> Written {
    property_bytes(out, id, value.map(str::as_bytes))
}

/// A name and a value. What does not fit leaves nothing behind.
pub(super) fn property_pair(out: &mut Vec<u8>, id: PropertyId, (name, value): (&str, &str)) -> Written {
    let start = out.len();
    out.push(id as u8);
    let written = text(out, name).and_then(|()| text(out, value));
    if written.is_err() {
        out.truncate(start);
    }
    written
}

fn varint_bytes(value: usize) -> ([u8; 4], usize) {
    let len = varint_len(value);
    let byte = |index: usize| {
        let more = if index + 1 < len { 0x80 } else { 0 };
        (value >> (7 * index)) as u8 & 0x7F | more
    };
    ([byte(0), byte(1), byte(2), byte(3)], len)
}

/// Refuses a reason code that the specification does not give to this packet [MQTT-3.4.2-1].
pub(super) fn in_packet(reason: ReasonCode, packet_type: PacketType) -> Written {
    if reason.is_in(packet_type) { Ok(()) } else { Err(EncodeError::ReasonNotInPacket(reason)) }
}
