//! Judges the packets that `adapter` reads afterwards: every length, list, reason code and property of the
//! body, so that mqttbytes only ever sees packets that are right. PUBLISH, CONNECT and the other packets
//! that are read by hand are judged where they are read.
//!
//! Invariant: what passes here is read by mqttbytes without an error, and as the specification means it.

use super::frame::PacketType;
use super::properties::{Place, Properties};
use super::reader::Reader;
use super::{Ack, DecodeError, PacketId, ReasonCode, Version};

/// What the guard makes of a PUBACK, PUBREC, PUBREL or PUBCOMP.
pub(super) enum JudgedAck {
    /// The packet identifier alone: the form of the hot path, already read.
    Short(Ack),
    /// With a reason code, and perhaps properties.
    Long,
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP.
pub(super) fn ack(packet_type: PacketType, body: &[u8], version: Version) -> Result<JudgedAck, DecodeError> {
    let mut reader = Reader::new(body);
    let packet_id = reader.packet_id()?;
    if reader.is_empty() {
        return Ok(JudgedAck::Short(Ack { packet_id, reason: ReasonCode::Success }));
    }
    if version != Version::V5 {
        reader.end()?;
    }
    reason(&mut reader, packet_type)?;
    if !reader.is_empty() {
        Properties::read(&mut reader, Place::Ack)?.judge_rest()?;
    }
    reader.end()?;
    Ok(JudgedAck::Long)
}

/// SUBSCRIBE. Whether a filter is one is for `topic` to say, but it is not empty [MQTT-4.7.3-1].
pub(super) fn subscribe(body: &[u8], version: Version) -> Result<(), DecodeError> {
    let mut reader = Reader::new(body);
    request_head(&mut reader, Place::Subscribe, version)?;
    while !reader.is_empty() {
        filter(&mut reader)?;
        let options = reader.u8("a topic filter without subscription options")?;
        let reserved = if version == Version::V5 { 0b1100_0000 } else { 0b1111_1100 };
        if options & reserved != 0 {
            return Err(DecodeError::malformed("reserved subscription options are set [MQTT-3.8.3-5]"));
        }
        if options & 0b11 == 3 {
            return Err(DecodeError::protocol("a subscription with QoS 3; it has to be 0, 1 or 2"));
        }
        if options >> 4 & 0b11 == 3 {
            return Err(DecodeError::protocol(
                "a subscription with Retain Handling 3; it has to be 0, 1 or 2",
            ));
        }
    }
    Ok(())
}

/// UNSUBSCRIBE of 3.1 and 3.1.1.
pub(super) fn unsubscribe_v3(body: &[u8]) -> Result<(), DecodeError> {
    let mut reader = Reader::new(body);
    request_head(&mut reader, Place::Unsubscribe, Version::V311)?;
    while !reader.is_empty() {
        filter(&mut reader)?;
    }
    Ok(())
}

/// SUBACK.
pub(super) fn suback(body: &[u8], version: Version) -> Result<(), DecodeError> {
    reason_list(PacketType::Suback, body, version)
}

/// UNSUBACK. Before 5.0 it is the packet identifier alone.
pub(super) fn unsuback(body: &[u8], version: Version) -> Result<(), DecodeError> {
    if version == Version::V5 {
        return reason_list(PacketType::Unsuback, body, version);
    }
    let mut reader = Reader::new(body);
    reader.packet_id()?;
    reader.end()
}

fn reason_list(packet_type: PacketType, body: &[u8], version: Version) -> Result<(), DecodeError> {
    let mut reader = Reader::new(body);
    reader.packet_id()?;
    if version == Version::V5 {
        Properties::read(&mut reader, Place::Ack)?.judge_rest()?;
    }
    if reader.is_empty() {
        return Err(DecodeError::protocol("a SUBACK or UNSUBACK without reason codes"));
    }
    while !reader.is_empty() {
        let code = reason(&mut reader, packet_type)?;
        let known_to_v3 = (code as u8) < 3 || code == ReasonCode::UnspecifiedError;
        if version != Version::V5 && !known_to_v3 {
            return Err(DecodeError::protocol(
                "a SUBACK return code other than 0, 1, 2 and 0x80 [MQTT-3.9.3-2]",
            ));
        }
    }
    Ok(())
}

/// CONNACK of 3.1 and 3.1.1.
pub(super) fn connack_v3(body: &[u8]) -> Result<(), DecodeError> {
    let mut reader = Reader::new(body);
    let session_present = session_present(&mut reader)?;
    let code = reader.u8("the return code is missing")?;
    reader.end()?;
    let reason =
        ReasonCode::from_connack_v3(code).ok_or(DecodeError::protocol("a CONNACK return code above 5"))?;
    accepted_if_present(session_present, reason)
}

/// A packet that has no body.
pub(super) fn empty(body: &[u8]) -> Result<(), DecodeError> {
    Reader::new(body).end()
}

/// Takes a reason code that this packet can have.
pub(super) fn reason(reader: &mut Reader<'_>, packet_type: PacketType) -> Result<ReasonCode, DecodeError> {
    let value = reader.u8("the reason code is missing")?;
    match ReasonCode::from_u8(value) {
        Some(code) if code.is_in(packet_type) => Ok(code),
        _ => Err(DecodeError::protocol("a reason code that this packet does not have")),
    }
}

/// Takes the acknowledge flags of a CONNACK [MQTT-3.2.2-1].
pub(super) fn session_present(reader: &mut Reader<'_>) -> Result<bool, DecodeError> {
    match reader.u8("the acknowledge flags are missing")? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::malformed("reserved acknowledge flags are set [MQTT-3.2.2-1]")),
    }
}

/// A refusal has no session [MQTT-3.2.2-6].
pub(super) fn accepted_if_present(session_present: bool, reason: ReasonCode) -> Result<(), DecodeError> {
    if session_present && reason != ReasonCode::Success {
        return Err(DecodeError::protocol("Session Present in a refusal [MQTT-3.2.2-6]"));
    }
    Ok(())
}

/// Takes what SUBSCRIBE and UNSUBSCRIBE begin with, and sees that a first filter follows
/// [MQTT-3.8.3-2] [MQTT-3.10.3-2].
pub(super) fn request_head(
    reader: &mut Reader<'_>,
    place: Place,
    version: Version,
) -> Result<PacketId, DecodeError> {
    let packet_id = reader.packet_id()?;
    if version == Version::V5 {
        Properties::read(reader, place)?.judge_rest()?;
    }
    if reader.is_empty() {
        return Err(DecodeError::protocol("the list of topic filters is empty; it needs at least one"));
    }
    Ok(packet_id)
}

/// Takes a topic filter.
pub(super) fn filter<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    const DETAIL: &str = "a topic filter has to be UTF-8 without U+0000, and not empty";
    match reader.text(DETAIL)? {
        "" => Err(DecodeError::malformed(DETAIL)),
        filter => Ok(filter),
    }
}
