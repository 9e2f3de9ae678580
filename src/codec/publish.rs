//! PUBLISH (3.3), the hot path: read from a frame without an allocation, and written for a subscriber
//! around a payload that is not touched.
//!
//! Invariant: a property that the broker does not act on leaves as the bytes it came in, in the same order.

use std::num::NonZeroU16;

use super::frame::{FixedHeader, PacketType, Sender};
use super::properties::{Place, Properties, Property, PropertyId, Value, entries};
use super::reader::Reader;
use super::write;
use super::{DecodeError, PacketId, Publish, PublishProperties, Qos, Version};

/// A PUBLISH as it leaves, but for its payload.
///
/// The caller sees to two limits: `topic` has at most 65 535 bytes, as every topic that was decoded has,
/// and [`PublishFrame::encoded_len`] is within the receiver's maximum packet size [MQTT-3.1.2-24]
/// ([`super::MAX_PACKET_SIZE`] without one). [`super::encode::publish`] checks both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishFrame<'a> {
    /// A repeat of what was sent before.
    pub dup: bool,
    /// The QoS of this delivery.
    pub qos: Qos,
    /// The RETAIN flag of this delivery.
    pub retain: bool,
    /// Present exactly when `qos` is above 0.
    pub packet_id: Option<PacketId>,
    /// Empty when the receiver knows `alias`.
    pub topic: &'a [u8],
    /// 0x23, 1 to the receiver's Topic Alias Maximum.
    pub alias: Option<u16>,
    /// 0x02, seconds that are left.
    pub expiry: Option<u32>,
    /// 0x0B, each 1 to 268 435 455.
    pub subscription_ids: &'a [u32],
    /// Other properties in wire form, without their length.
    pub properties: &'a [u8],
    /// Bytes of the payload that the caller sends after the head.
    pub payload_len: usize,
}

impl PublishFrame<'_> {
    /// Bytes of the whole packet, payload included.
    pub fn encoded_len(&self, version: Version) -> usize {
        let body = self.body_len(version);
        1 + write::varint_len(body) + body
    }

    /// Appends everything up to the payload. For 3.1 and 3.1.1 all properties are left out.
    pub fn encode_head(&self, version: Version, out: &mut Vec<u8>) {
        debug_assert_eq!(self.packet_id.is_some(), self.qos != Qos::AtMostOnce);
        debug_assert!(self.topic.len() <= usize::from(u16::MAX));
        let body_len = self.body_len(version);
        out.reserve(5 + body_len - self.payload_len);
        let flags = u8::from(self.dup) << 3 | (self.qos as u8) << 1 | u8::from(self.retain);
        out.push(PacketType::Publish.first_byte() | flags);
        write::varint(out, body_len);
        out.extend_from_slice(&(self.topic.len() as u16).to_be_bytes());
        out.extend_from_slice(self.topic);
        if let Some(packet_id) = self.packet_id {
            out.extend_from_slice(&packet_id.get().to_be_bytes());
        }
        if version == Version::V5 {
            self.encode_properties(out);
        }
    }

    /// The publisher's own first, and then in the order in which mosquitto writes them.
    fn encode_properties(&self, out: &mut Vec<u8>) {
        write::varint(out, self.properties_len());
        out.extend_from_slice(self.properties);
        if let Some(expiry) = self.expiry {
            write::property_u32(out, PropertyId::MessageExpiryInterval, expiry);
        }
        if let Some(alias) = self.alias {
            write::property_u16(out, PropertyId::TopicAlias, alias);
        }
        for &id in self.subscription_ids {
            write::property_varint(out, PropertyId::SubscriptionIdentifier, id);
        }
    }

    fn body_len(&self, version: Version) -> usize {
        let packet_id = if self.packet_id.is_some() { 2 } else { 0 };
        let properties = match version {
            Version::V5 => write::varint_len(self.properties_len()) + self.properties_len(),
            Version::V31 | Version::V311 => 0,
        };
        2 + self.topic.len() + packet_id + properties + self.payload_len
    }

    fn properties_len(&self) -> usize {
        let alias = if self.alias.is_some() { 3 } else { 0 };
        let expiry = if self.expiry.is_some() { 5 } else { 0 };
        let ids: usize = self.subscription_ids.iter().map(|&id| 1 + write::varint_len(id as usize)).sum();
        alias + expiry + ids + self.properties.len()
    }
}

/// Properties of a message that the broker itself makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnProperties<'a> {
    /// 0x03.
    pub content_type: Option<&'a str>,
    /// 0x09.
    pub correlation_data: Option<&'a [u8]>,
    /// 0x26, in this order.
    pub user: &'a [(&'a str, &'a str)],
}

impl OwnProperties<'_> {
    /// As [`PublishProperties::forwarded`] gives those of a client. What is longer than a property can be is left
    /// out.
    pub fn encoded(&self) -> Vec<u8> {
        let mut out = Vec::new();
        // An error leaves out what is too long.
        let _ = write::property_text(&mut out, PropertyId::ContentType, self.content_type);
        let _ = write::property_bytes(&mut out, PropertyId::CorrelationData, self.correlation_data);
        for (name, value) in self.user {
            let _ = write::property_pair(&mut out, PropertyId::UserProperty, (name, value));
        }
        out
    }
}

impl<'a> PublishProperties<'a> {
    /// The properties of a message that was kept: `raw` is what [`PublishProperties::forwarded`] gave.
    pub fn from_forwarded(raw: &'a [u8]) -> Self {
        Self { raw, topic_alias: None, message_expiry: None, forwarded_len: raw.len() }
    }

    /// Calls `keep` with each run of bytes that is forwarded, in order.
    pub fn forwarded(&self, mut keep: impl FnMut(&'a [u8])) {
        if self.forwarded_len == self.raw.len() {
            return keep(self.raw);
        }
        let mut rest = self.raw;
        let mut run_len = 0;
        for entry in entries(self.raw) {
            if entry.id.is_forwarded() {
                run_len += entry.wire_len;
                continue;
            }
            let Some((run, from_entry)) = rest.split_at_checked(run_len) else { return };
            if !run.is_empty() {
                keep(run);
            }
            rest = from_entry.get(entry.wire_len..).unwrap_or_default();
            run_len = 0;
        }
        if !rest.is_empty() {
            keep(rest);
        }
    }

    /// 0x26, in order.
    pub fn user_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        entries(self.raw).filter_map(|entry| match entry.value() {
            Ok(Value::Pair(name, value)) => Some((name, value)),
            _ => None,
        })
    }

    /// 0x0B, in order.
    pub fn subscription_identifiers(&self) -> impl Iterator<Item = u32> + use<'a> {
        entries(self.raw).filter(|entry| entry.id == PropertyId::SubscriptionIdentifier).filter_map(|entry| {
            match entry.value() {
                Ok(Value::U32(id)) => Some(id),
                _ => None,
            }
        })
    }

    /// 0x08.
    pub fn response_topic(&self) -> Option<&'a str> {
        self.text(PropertyId::ResponseTopic)
    }

    /// 0x03.
    pub fn content_type(&self) -> Option<&'a str> {
        self.text(PropertyId::ContentType)
    }

    /// 0x09.
    pub fn correlation_data(&self) -> Option<&'a [u8]> {
        match self.find(PropertyId::CorrelationData)? {
            Value::Binary(data) => Some(data),
            _ => None,
        }
    }

    /// Whether 0x01 says that the payload is UTF-8. The codec does not check it.
    pub fn payload_format_is_utf8(&self) -> bool {
        self.find(PropertyId::PayloadFormatIndicator) == Some(Value::Flag(true))
    }

    fn text(&self, id: PropertyId) -> Option<&'a str> {
        match self.find(id)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn find(&self, id: PropertyId) -> Option<Value<'a>> {
        entries(self.raw).find(|entry| entry.id == id)?.value().ok()
    }
}

/// Judges and reads the body of a PUBLISH.
pub(super) fn read<'a>(
    header: &FixedHeader,
    body: &'a [u8],
    version: Version,
    sender: Sender,
) -> Result<Publish<'a>, DecodeError> {
    let mut reader = Reader::new(body);
    let topic = reader.topic_name("the topic name has to be UTF-8 without U+0000, + and #")?;
    let qos = Qos::from_u8(header.flags >> 1 & 3).unwrap_or_default();
    let packet_id = if qos == Qos::AtMostOnce { None } else { Some(reader.packet_id()?) };
    let properties = if version == Version::V5 {
        let place = if sender == Sender::Client { Place::PublishToServer } else { Place::PublishToClient };
        let mut properties = Properties::read(&mut reader, place)?;
        read_properties(&mut properties, |_| ())?
    } else {
        PublishProperties::default()
    };
    if topic.is_empty() && properties.topic_alias.is_none() {
        return Err(empty_topic(version));
    }
    let (dup, retain) = (header.flags & 0b1000 != 0, header.flags & 1 != 0);
    Ok(Publish { dup, qos, retain, topic, packet_id, properties, payload: reader.rest() })
}

/// Reads what a PUBLISH and a will have in common; `other` sees each property.
pub(super) fn read_properties<'a>(
    properties: &mut Properties<'a>,
    mut other: impl FnMut(&Property<'a>),
) -> Result<PublishProperties<'a>, DecodeError> {
    let raw = properties.raw();
    let mut found = PublishProperties::from_forwarded(raw);
    for property in properties {
        let property = property?;
        match (property.id, property.value) {
            (PropertyId::TopicAlias, Value::U16(alias)) => found.topic_alias = NonZeroU16::new(alias),
            (PropertyId::MessageExpiryInterval, Value::U32(seconds)) => found.message_expiry = Some(seconds),
            _ => {}
        }
        if !property.id.is_forwarded() {
            found.forwarded_len -= property.wire_len;
        }
        other(&property);
    }
    Ok(found)
}

/// Only 5.0 can leave the topic out, with an alias for it; to 3.1.1 an empty name is no topic name at all.
fn empty_topic(version: Version) -> DecodeError {
    match version {
        Version::V5 => DecodeError::protocol("the topic name is empty and no topic alias stands for it"),
        Version::V31 | Version::V311 => {
            DecodeError::malformed("the topic name is empty; it needs a character [MQTT-4.7.3-1]")
        }
    }
}
