//! The fixed header: packet type, flags, Remaining Length. It is judged as soon as its bytes are there,
//! before anything of the body is waited for.

use super::reader::varint;
use super::{DecodeError, ReasonCode, Version};

/// The largest packet that MQTT can express: a fixed header of five bytes and 268 435 455 bytes after it.
/// The limit of a receiver that has named none.
pub const MAX_PACKET_SIZE: u32 = super::reader::VARINT_MAX + 5;

/// Who sent the bytes that are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    Client,
    Server,
}

/// The upper half of the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum PacketType {
    Connect = 1,
    Connack,
    Publish,
    Puback,
    Pubrec,
    Pubrel,
    Pubcomp,
    Subscribe,
    Suback,
    Unsubscribe,
    Unsuback,
    Pingreq,
    Pingresp,
    Disconnect,
    Auth,
}

/// A fixed header that was found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FixedHeader {
    pub packet_type: PacketType,
    /// The lower half of the first byte.
    pub flags: u8,
    /// Bytes of the fixed header itself: 2 to 5.
    pub len: usize,
    /// The Remaining Length.
    pub body_len: usize,
}

impl FixedHeader {
    /// Bytes of the whole packet.
    pub fn frame_len(&self) -> usize {
        self.len + self.body_len
    }

    /// Judges the bytes at the start of a packet. `version` is `None` until CONNECT was seen; `None` comes
    /// back when more bytes are needed to know the length.
    pub fn read(
        input: &[u8],
        sender: Sender,
        version: Option<Version>,
        max_packet_size: u32,
    ) -> Result<Option<Self>, DecodeError> {
        let Some((&first, rest)) = input.split_first() else { return Ok(None) };
        let packet_type = judge_type(first >> 4, sender, version)?;
        let flags = first & 0x0F;
        judge_flags(packet_type, flags, version)?;
        let Some((body_len, varint_len)) = varint(rest)? else { return Ok(None) };
        let header = Self { packet_type, flags, len: 1 + varint_len, body_len: body_len as usize };
        if header.frame_len() > max_packet_size as usize {
            return Err(DecodeError::new(ReasonCode::PacketTooLarge, "the packet is larger than the limit"));
        }
        Ok(Some(header))
    }
}

impl PacketType {
    /// The first byte of a packet of this type; PUBLISH adds its flags.
    pub fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.reserved_flags()
    }

    fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Connect,
            2 => Self::Connack,
            3 => Self::Publish,
            4 => Self::Puback,
            5 => Self::Pubrec,
            6 => Self::Pubrel,
            7 => Self::Pubcomp,
            8 => Self::Subscribe,
            9 => Self::Suback,
            10 => Self::Unsubscribe,
            11 => Self::Unsuback,
            12 => Self::Pingreq,
            13 => Self::Pingresp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    fn reserved_flags(self) -> u8 {
        if matches!(self, Self::Pubrel | Self::Subscribe | Self::Unsubscribe) { 0b0010 } else { 0 }
    }

    fn is_sent_by(self, sender: Sender, version: Version) -> bool {
        match self {
            Self::Connect | Self::Subscribe | Self::Unsubscribe | Self::Pingreq => sender == Sender::Client,
            Self::Connack | Self::Suback | Self::Unsuback | Self::Pingresp => sender == Sender::Server,
            Self::Disconnect => sender == Sender::Client || version == Version::V5,
            _ => true,
        }
    }
}

fn judge_type(number: u8, sender: Sender, version: Option<Version>) -> Result<PacketType, DecodeError> {
    let packet_type =
        PacketType::from_u8(number).ok_or(DecodeError::malformed("packet type 0 is reserved"))?;
    let Some(version) = version else {
        if packet_type == PacketType::Connect {
            return Ok(packet_type);
        }
        return Err(DecodeError::protocol("the first packet has to be CONNECT [MQTT-3.1.0-1]"));
    };
    if packet_type == PacketType::Auth && version != Version::V5 {
        return Err(DecodeError::malformed("packet type 15 is reserved before MQTT 5.0"));
    }
    if packet_type == PacketType::Connect && sender == Sender::Client {
        return Err(DecodeError::protocol("a second CONNECT [MQTT-3.1.0-2]"));
    }
    if !packet_type.is_sent_by(sender, version) {
        return Err(DecodeError::protocol("a packet type that this side never sends"));
    }
    Ok(packet_type)
}

/// [MQTT-2.1.3-1]. MQTT 3.1 also sets DUP on the requests that it repeats; later versions do not repeat them.
fn judge_flags(packet_type: PacketType, flags: u8, version: Option<Version>) -> Result<(), DecodeError> {
    const DUP: u8 = 0b1000;
    if packet_type == PacketType::Publish {
        return match flags >> 1 & 3 {
            3 => Err(DecodeError::malformed("PUBLISH with QoS 3 [MQTT-3.3.1-4]")),
            0 if flags & DUP != 0 => Err(DecodeError::malformed("PUBLISH with QoS 0 and DUP [MQTT-3.3.1-2]")),
            _ => Ok(()),
        };
    }
    let reserved = packet_type.reserved_flags();
    let repeated = version == Some(Version::V31) && reserved != 0 && flags == reserved | DUP;
    if flags == reserved || repeated {
        return Ok(());
    }
    Err(DecodeError::malformed("the reserved flags of the fixed header are wrong [MQTT-2.1.3-1]"))
}
