//! The properties of MQTT 5.0: one table says what each looks like and where it may stand, and one walk
//! judges by it. A property that is unknown, misplaced or cut short is malformed; one that comes twice or
//! has a value out of range is a protocol error (2.2.2.2).
//!
//! Invariant: nothing is read beyond the length that the property block announced.

use super::reader::Reader;
use super::{DecodeError, ReasonCode};

/// What a value looks like on the wire, and which values are out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One byte, 0 or 1.
    Flag,
    U16,
    U32,
    NonZeroU16,
    NonZeroU32,
    NonZeroVarint,
    /// Two bytes; 0 has a reason code of its own.
    Alias,
    Text,
    TopicName,
    Binary,
    Pair,
}

impl Kind {
    /// Passes over a value by its length alone.
    fn skip(self, reader: &mut Reader<'_>, detail: &'static str) -> Result<(), DecodeError> {
        match self {
            Self::Flag => reader.take(1, detail),
            Self::U16 | Self::NonZeroU16 | Self::Alias => reader.take(2, detail),
            Self::U32 | Self::NonZeroU32 => reader.take(4, detail),
            Self::NonZeroVarint => return reader.varint(detail).map(drop),
            Self::Text | Self::TopicName | Self::Binary => reader.binary(detail),
            Self::Pair => reader.binary(detail).and_then(|_| reader.binary(detail)),
        }
        .map(drop)
    }
}

/// A packet, or a part of one, that has properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Place {
    Connect = CONNECT,
    Will = WILL,
    Connack = CONNACK,
    PublishToServer = PUBLISH_TO_SERVER,
    PublishToClient = PUBLISH_TO_CLIENT,
    /// PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK have the same.
    Ack = ACK,
    Subscribe = SUBSCRIBE,
    Unsubscribe = UNSUBSCRIBE,
    DisconnectFromClient = DISCONNECT_FROM_CLIENT,
    DisconnectFromServer = DISCONNECT_FROM_SERVER,
    Auth = AUTH,
}

const CONNECT: u16 = 1;
const WILL: u16 = 1 << 1;
const CONNACK: u16 = 1 << 2;
const PUBLISH_TO_SERVER: u16 = 1 << 3;
const PUBLISH_TO_CLIENT: u16 = 1 << 4;
const ACK: u16 = 1 << 5;
const SUBSCRIBE: u16 = 1 << 6;
const UNSUBSCRIBE: u16 = 1 << 7;
const DISCONNECT_FROM_CLIENT: u16 = 1 << 8;
const DISCONNECT_FROM_SERVER: u16 = 1 << 9;
const AUTH: u16 = 1 << 10;

const PUBLISH: u16 = PUBLISH_TO_SERVER | PUBLISH_TO_CLIENT;
const DISCONNECT: u16 = DISCONNECT_FROM_CLIENT | DISCONNECT_FROM_SERVER;
const ANYWHERE: u16 = u16::MAX;

macro_rules! properties {
    ($($name:ident = $id:literal, $kind:ident, $places:expr;)+) => {
        /// A property identifier.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum PropertyId { $($name = $id),+ }

        impl PropertyId {
            fn from_u8(value: u8) -> Option<Self> {
                match value { $($id => Some(Self::$name),)+ _ => None }
            }

            fn kind(self) -> Kind {
                match self { $(Self::$name => Kind::$kind),+ }
            }

            fn places(self) -> u16 {
                match self { $(Self::$name => $places),+ }
            }

            fn misplaced(self) -> &'static str {
                match self { $(Self::$name => concat!("this packet has no property ", stringify!($name))),+ }
            }

            fn repeated(self) -> &'static str {
                match self { $(Self::$name => concat!("property ", stringify!($name), " comes twice")),+ }
            }

            fn cut_short(self) -> &'static str {
                match self {
                    $(Self::$name => concat!("property ", stringify!($name), " is cut short or not text")),+
                }
            }

            fn out_of_range(self) -> &'static str {
                match self {
                    $(Self::$name => concat!("property ", stringify!($name), " is out of range")),+
                }
            }
        }
    };
}

// Section 2.2.2.2. MQTT gives the subscription identifier in a PUBLISH to the server alone [MQTT-3.3.4-6],
// and the session expiry in a DISCONNECT to the client alone [MQTT-3.14.2-2].
properties! {
    PayloadFormatIndicator = 0x01, Flag, PUBLISH | WILL;
    MessageExpiryInterval = 0x02, U32, PUBLISH | WILL;
    ContentType = 0x03, Text, PUBLISH | WILL;
    ResponseTopic = 0x08, TopicName, PUBLISH | WILL;
    CorrelationData = 0x09, Binary, PUBLISH | WILL;
    SubscriptionIdentifier = 0x0B, NonZeroVarint, PUBLISH_TO_CLIENT | SUBSCRIBE;
    SessionExpiryInterval = 0x11, U32, CONNECT | CONNACK | DISCONNECT_FROM_CLIENT;
    AssignedClientIdentifier = 0x12, Text, CONNACK;
    ServerKeepAlive = 0x13, U16, CONNACK;
    AuthenticationMethod = 0x15, Text, CONNECT | CONNACK | AUTH;
    AuthenticationData = 0x16, Binary, CONNECT | CONNACK | AUTH;
    RequestProblemInformation = 0x17, Flag, CONNECT;
    WillDelayInterval = 0x18, U32, WILL;
    RequestResponseInformation = 0x19, Flag, CONNECT;
    ResponseInformation = 0x1A, Text, CONNACK;
    ServerReference = 0x1C, Text, CONNACK | DISCONNECT;
    ReasonString = 0x1F, Text, CONNACK | ACK | DISCONNECT | AUTH;
    ReceiveMaximum = 0x21, NonZeroU16, CONNECT | CONNACK;
    TopicAliasMaximum = 0x22, U16, CONNECT | CONNACK;
    TopicAlias = 0x23, Alias, PUBLISH;
    MaximumQos = 0x24, Flag, CONNACK;
    RetainAvailable = 0x25, Flag, CONNACK;
    UserProperty = 0x26, Pair, ANYWHERE;
    MaximumPacketSize = 0x27, NonZeroU32, CONNECT | CONNACK;
    WildcardSubscriptionAvailable = 0x28, Flag, CONNACK;
    SubscriptionIdentifierAvailable = 0x29, Flag, CONNACK;
    SharedSubscriptionAvailable = 0x2A, Flag, CONNACK;
}

impl PropertyId {
    /// Whether a broker hands the property of a PUBLISH or will on as it came.
    pub fn is_forwarded(self) -> bool {
        !matches!(
            self,
            Self::TopicAlias
                | Self::MessageExpiryInterval
                | Self::SubscriptionIdentifier
                | Self::WillDelayInterval
        )
    }

    /// Whether a PUBLISH may have it.
    pub fn is_of_publish(self) -> bool {
        self.places() & PUBLISH != 0
    }

    fn may_repeat(self, place: Place) -> bool {
        match self {
            Self::UserProperty => true,
            Self::SubscriptionIdentifier => place == Place::PublishToClient,
            _ => false,
        }
    }
}

/// A property value that was found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Flag(bool),
    U16(u16),
    /// Four bytes, or a variable byte integer.
    U32(u32),
    Text(&'a str),
    Binary(&'a [u8]),
    Pair(&'a str, &'a str),
}

/// A property with its place in the block known and its value not looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<'a> {
    pub id: PropertyId,
    /// Bytes of identifier and value.
    pub wire_len: usize,
    value: Reader<'a>,
}

impl<'a> Entry<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        const UNKNOWN: &str = "an unknown property identifier";
        let id = PropertyId::from_u8(reader.u8(UNKNOWN)?).ok_or(DecodeError::malformed(UNKNOWN))?;
        let from_value = reader.rest();
        id.kind().skip(reader, id.cut_short())?;
        let value_len = from_value.len() - reader.rest().len();
        let value = Reader::new(from_value.get(..value_len).unwrap_or_default());
        Ok(Self { id, wire_len: 1 + value_len, value })
    }

    /// Judges the value and gives it.
    pub fn value(&self) -> Result<Value<'a>, DecodeError> {
        let mut reader = self.value;
        let detail = self.id.cut_short();
        let in_range =
            |is: bool| if is { Ok(()) } else { Err(DecodeError::protocol(self.id.out_of_range())) };
        Ok(match self.id.kind() {
            Kind::Flag => {
                let byte = reader.u8(detail)?;
                in_range(byte <= 1)?;
                Value::Flag(byte == 1)
            }
            Kind::U16 => Value::U16(reader.u16(detail)?),
            Kind::U32 => Value::U32(reader.u32(detail)?),
            Kind::NonZeroU16 => {
                let number = reader.u16(detail)?;
                in_range(number != 0)?;
                Value::U16(number)
            }
            Kind::NonZeroU32 | Kind::NonZeroVarint => {
                let is_varint = self.id.kind() == Kind::NonZeroVarint;
                let number = if is_varint { reader.varint(detail)? } else { reader.u32(detail)? };
                in_range(number != 0)?;
                Value::U32(number)
            }
            Kind::Alias => match reader.u16(detail)? {
                0 => return Err(DecodeError::new(ReasonCode::TopicAliasInvalid, self.id.out_of_range())),
                alias => Value::U16(alias),
            },
            Kind::Text => Value::Text(reader.text(detail)?),
            Kind::TopicName => match reader.topic_name(detail)? {
                "" => return Err(DecodeError::malformed(detail)),
                topic => Value::Text(topic),
            },
            Kind::Binary => Value::Binary(reader.binary(detail)?),
            Kind::Pair => Value::Pair(reader.text(detail)?, reader.text(detail)?),
        })
    }
}

/// The properties in bytes that were judged before. Ends early if they were not.
pub(super) fn entries(raw: &[u8]) -> impl Iterator<Item = Entry<'_>> {
    let mut reader = Reader::new(raw);
    std::iter::from_fn(move || if reader.is_empty() { None } else { Entry::read(&mut reader).ok() })
}

/// A property that was found right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Property<'a> {
    pub id: PropertyId,
    pub value: Value<'a>,
    /// Bytes of identifier and value.
    pub wire_len: usize,
}

/// Walks a property block and judges each property on the way. After an error the walk is over.
pub(super) struct Properties<'a> {
    reader: Reader<'a>,
    place: Place,
    seen: u64,
}

impl<'a> Properties<'a> {
    /// Takes the block with its length from `reader`.
    pub fn read(reader: &mut Reader<'a>, place: Place) -> Result<Self, DecodeError> {
        let len = reader.varint("the property length is missing or cut short")?;
        let block = reader.take(len as usize, "the property length reaches beyond the packet")?;
        Ok(Self { reader: Reader::new(block), place, seen: 0 })
    }

    /// What was not walked yet.
    pub fn raw(&self) -> &'a [u8] {
        self.reader.rest()
    }

    /// Judges all that is left, for a packet whose properties nobody reads.
    pub fn judge_rest(mut self) -> Result<(), DecodeError> {
        self.try_for_each(|property| property.map(drop))
    }

    fn judge(&mut self) -> Result<Property<'a>, DecodeError> {
        let entry = Entry::read(&mut self.reader)?;
        let id = entry.id;
        if id.places() & self.place as u16 == 0 {
            return Err(DecodeError::malformed(id.misplaced()));
        }
        let bit = 1 << id as u8;
        if self.seen & bit != 0 && !id.may_repeat(self.place) {
            return Err(DecodeError::protocol(id.repeated()));
        }
        self.seen |= bit;
        Ok(Property { id, value: entry.value()?, wire_len: entry.wire_len })
    }
}

impl<'a> Iterator for Properties<'a> {
    type Item = Result<Property<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let property = self.judge();
        if property.is_err() {
            self.reader = Reader::new(&[]);
        }
        Some(property)
    }
}
