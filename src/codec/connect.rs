//! CONNECT (3.1), read and written by hand: the one packet whose version has to be found out first.
//!
//! 3.1 is judged as 3.1.1 is, with two exceptions. A user name or password may be missing from the end although
//! its flag is set, which 3.1 asks servers to accept; and connect flags that it does not use, bit 0 and those of
//! a will that is not there, may have any value, because it names none.

use std::num::NonZeroU16;

use super::frame::PacketType;
use super::properties::{Place, Properties, PropertyId, Value};
use super::reader::Reader;
use super::{Connect, DecodeError, EncodeError, Qos, ReasonCode, Version, Will};
use super::{publish, write};

const FLAG_RESERVED: u8 = 0x01;
const FLAG_CLEAN_START: u8 = 0x02;
const FLAG_WILL: u8 = 0x04;
const FLAG_WILL_QOS: u8 = 0x18;
const FLAG_WILL_RETAIN: u8 = 0x20;
const FLAG_PASSWORD: u8 = 0x40;
const FLAG_USER_NAME: u8 = 0x80;

/// What protocol name and level say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// A version that is served.
    Served(Version),
    /// A version that is not, and the one to refuse it in: `None` is to close without a word.
    NotServed(Option<Version>),
}

/// Reads protocol name and level.
///
/// A level of `MQTT` or `MQIsdp` that is not served is refused in words that such a client may know: 5.0
/// for a level above 5 [MQTT-3.1.2-2], else 3.1.1 with its return code 1. A bridge of Mosquitto sets the
/// highest bit of the level, so that bit is left out of this comparison. Another name is refused in 5.0
/// from level 5 on, which 5.0 allows [MQTT-3.1.2-1]; below that 3.1.1 leaves nothing to say.
pub(super) fn read_protocol(reader: &mut Reader<'_>) -> Result<Protocol, DecodeError> {
    let name = reader.text("the protocol name has to be a string")?;
    let level = reader.u8("the protocol level is missing")?;
    Ok(match (name, level) {
        ("MQIsdp", 3) => Protocol::Served(Version::V31),
        ("MQTT", 4) => Protocol::Served(Version::V311),
        ("MQTT", 5) => Protocol::Served(Version::V5),
        (_, 5..0x80 | 0x85..) => Protocol::NotServed(Some(Version::V5)),
        ("MQTT" | "MQIsdp", _) => Protocol::NotServed(Some(Version::V311)),
        _ => Protocol::NotServed(None),
    })
}

/// Judges and reads what follows protocol name and level.
pub(super) fn read<'a>(mut reader: Reader<'a>, version: Version) -> Result<Connect<'a>, DecodeError> {
    let flags = reader.u8("the connect flags are missing")?;
    judge_flags(flags, version)?;
    let keep_alive = reader.u16("the keep alive is cut short")?;
    let mut connect =
        Connect { clean_start: flags & FLAG_CLEAN_START != 0, keep_alive, ..Connect::new(version, "") };
    if version == Version::V5 {
        read_properties(&mut reader, &mut connect)?;
    }
    connect.client_id = reader.text("the client identifier has to be a string")?;
    if flags & FLAG_WILL != 0 {
        connect.will = Some(read_will(&mut reader, flags, version)?);
    }
    let may_be_missing = version == Version::V31;
    if flags & FLAG_USER_NAME != 0 && !(may_be_missing && reader.is_empty()) {
        connect.user_name = Some(reader.text("the user name has to be a string")?);
    }
    if flags & FLAG_PASSWORD != 0 && !(may_be_missing && reader.is_empty()) {
        connect.password = Some(reader.binary("the password is missing or cut short")?);
    }
    reader.end()?;
    Ok(connect)
}

/// Whether the packet ends before its client identifier does. Nothing of it can be believed then, not even
/// its version, so it is not answered: a CONNACK is allowed and not asked for [MQTT-3.1.4-1].
pub(super) fn is_cut_short(mut reader: Reader<'_>, version: Version) -> bool {
    const DETAIL: &str = "the packet is cut short";
    let mut skip_to_client_id = || {
        reader.take(size_of::<u8>() + size_of::<u16>(), DETAIL)?;
        if version == Version::V5 {
            let len = reader.varint(DETAIL)?;
            // A length that leads out of the packet is a property length that is wrong, in a packet that is not.
            if reader.take(len as usize, DETAIL).is_err() {
                return Ok(());
            }
        }
        reader.binary(DETAIL).map(drop)
    };
    skip_to_client_id().is_err()
}

fn judge_flags(flags: u8, version: Version) -> Result<(), DecodeError> {
    let flags = if version == Version::V31 { used_by_v31(flags) } else { flags };
    let will_qos = flags >> 3 & 3;
    if flags & FLAG_RESERVED != 0 {
        return Err(DecodeError::malformed("the reserved connect flag is set [MQTT-3.1.2-3]"));
    }
    if will_qos == 3 {
        return Err(DecodeError::malformed("the Will QoS is 3 [MQTT-3.1.2-12]"));
    }
    if flags & FLAG_WILL == 0 && (will_qos != 0 || flags & FLAG_WILL_RETAIN != 0) {
        return Err(DecodeError::malformed("Will QoS or Will Retain without Will Flag [MQTT-3.1.2-11]"));
    }
    if version != Version::V5 && flags & FLAG_PASSWORD != 0 && flags & FLAG_USER_NAME == 0 {
        // 5.0 has dropped this rule.
        return Err(DecodeError::malformed("a password without a user name [MQTT-3.1.2-22 of 3.1.1]"));
    }
    Ok(())
}

/// The connect flags without those that 3.1 does not use and names no value for.
fn used_by_v31(flags: u8) -> u8 {
    let of_no_will = if flags & FLAG_WILL == 0 { FLAG_WILL_QOS | FLAG_WILL_RETAIN } else { 0 };
    flags & !(FLAG_RESERVED | of_no_will)
}

fn read_properties<'a>(reader: &mut Reader<'a>, connect: &mut Connect<'a>) -> Result<(), DecodeError> {
    for property in Properties::read(reader, Place::Connect)? {
        let property = property?;
        match (property.id, property.value) {
            (PropertyId::SessionExpiryInterval, Value::U32(seconds)) => {
                connect.session_expiry = Some(seconds)
            }
            (PropertyId::ReceiveMaximum, Value::U16(n)) => connect.receive_maximum = NonZeroU16::new(n),
            (PropertyId::MaximumPacketSize, Value::U32(n)) => connect.maximum_packet_size = Some(n),
            (PropertyId::TopicAliasMaximum, Value::U16(n)) => connect.topic_alias_maximum = n,
            (PropertyId::RequestResponseInformation, Value::Flag(on)) => {
                connect.request_response_information = on;
            }
            (PropertyId::RequestProblemInformation, Value::Flag(on)) => {
                connect.request_problem_information = on
            }
            (PropertyId::AuthenticationMethod, Value::Text(method)) => {
                connect.authentication_method = Some(method);
            }
            (PropertyId::AuthenticationData, Value::Binary(data)) => connect.authentication_data = Some(data),
            _ => {}
        }
    }
    judge_authentication(connect.authentication_method.is_some(), connect.authentication_data.is_some())
}

/// Authentication data needs a method (3.1.2.11.10).
pub(super) fn judge_authentication(has_method: bool, has_data: bool) -> Result<(), DecodeError> {
    if has_data && !has_method {
        return Err(DecodeError::protocol("authentication data without an authentication method"));
    }
    Ok(())
}

fn read_will<'a>(reader: &mut Reader<'a>, flags: u8, version: Version) -> Result<Will<'a>, DecodeError> {
    const TOPIC: &str = "the will topic has to be UTF-8 without U+0000, + and #, and not empty";
    let mut delay = 0;
    let properties = if version == Version::V5 {
        let mut properties = Properties::read(reader, Place::Will)?;
        publish::read_properties(&mut properties, |property| {
            if let (PropertyId::WillDelayInterval, Value::U32(seconds)) = (property.id, property.value) {
                delay = seconds;
            }
        })?
    } else {
        Default::default()
    };
    let topic = reader.topic_name(TOPIC)?;
    if topic.is_empty() {
        return Err(DecodeError::malformed(TOPIC));
    }
    let payload = reader.binary("the will payload is missing or cut short")?;
    let qos = Qos::from_u8(flags >> 3 & 3).unwrap_or_default();
    Ok(Will { qos, retain: flags & FLAG_WILL_RETAIN != 0, topic, payload, delay, properties })
}

/// The error for a version that is not served.
pub(super) fn not_served() -> DecodeError {
    DecodeError::new(
        ReasonCode::UnsupportedProtocolVersion,
        "protocol name and level have to be MQIsdp 3, MQTT 4 or MQTT 5 [MQTT-3.1.2-1] [MQTT-3.1.2-2]",
    )
}

/// Appends a CONNECT of the version it names. Properties are left out before 5.0.
pub(super) fn encode(connect: &Connect<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    write::packet(out, PacketType::Connect, |body| {
        let (name, level) = match connect.version {
            Version::V31 => ("MQIsdp", 3),
            Version::V311 => ("MQTT", 4),
            Version::V5 => ("MQTT", 5),
        };
        write::text(body, name)?;
        body.extend_from_slice(&[level, flags(connect)]);
        body.extend_from_slice(&connect.keep_alive.to_be_bytes());
        if connect.version == Version::V5 {
            write::with_length(body, |block| encode_properties(connect, block))?;
        }
        write::text(body, connect.client_id)?;
        if let Some(will) = &connect.will {
            encode_will(will, connect.version, body)?;
        }
        if let Some(name) = connect.user_name {
            write::text(body, name)?;
        }
        connect.password.map_or(Ok(()), |password| write::binary(body, password))
    })
}

fn flags(connect: &Connect<'_>) -> u8 {
    let bit = |on: bool, flag: u8| if on { flag } else { 0 };
    let will = connect
        .will
        .as_ref()
        .map_or(0, |will| FLAG_WILL | (will.qos as u8) << 3 | bit(will.retain, FLAG_WILL_RETAIN));
    bit(connect.clean_start, FLAG_CLEAN_START)
        | will
        | bit(connect.password.is_some(), FLAG_PASSWORD)
        | bit(connect.user_name.is_some(), FLAG_USER_NAME)
}

fn encode_properties(connect: &Connect<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if let Some(seconds) = connect.session_expiry {
        write::property_u32(out, PropertyId::SessionExpiryInterval, seconds);
    }
    if let Some(maximum) = connect.receive_maximum {
        write::property_u16(out, PropertyId::ReceiveMaximum, maximum.get());
    }
    if let Some(maximum) = connect.maximum_packet_size {
        write::property_u32(out, PropertyId::MaximumPacketSize, maximum);
    }
    if connect.topic_alias_maximum != 0 {
        write::property_u16(out, PropertyId::TopicAliasMaximum, connect.topic_alias_maximum);
    }
    if connect.request_response_information {
        write::property_flag(out, PropertyId::RequestResponseInformation, true);
    }
    if !connect.request_problem_information {
        write::property_flag(out, PropertyId::RequestProblemInformation, false);
    }
    write::property_text(out, PropertyId::AuthenticationMethod, connect.authentication_method)?;
    write::property_bytes(out, PropertyId::AuthenticationData, connect.authentication_data)
}

fn encode_will(will: &Will<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    if version == Version::V5 {
        write::with_length(out, |block| {
            if will.delay != 0 {
                write::property_u32(block, PropertyId::WillDelayInterval, will.delay);
            }
            if let Some(seconds) = will.properties.message_expiry {
                write::property_u32(block, PropertyId::MessageExpiryInterval, seconds);
            }
            will.properties.forwarded(|bytes| block.extend_from_slice(bytes));
            Ok(())
        })?;
    }
    write::text(out, will.topic)?;
    write::binary(out, will.payload)
}
