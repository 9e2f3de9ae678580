//! A message on its way: one allocation, shared by everyone it goes to.

use triomphe::ThinArc;

use super::UnixMillis;
use crate::codec::{Publish, Qos};

/// What is known of a message beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageHead {
    /// The QoS it was published with.
    pub qos: Qos,
    /// The RETAIN flag it was published with.
    pub retain: bool,
    /// When it was published.
    pub published_at: UnixMillis,
    /// When it expires ([`UnixMillis::NEVER`] without a Message Expiry Interval).
    pub expires_at: UnixMillis,
    topic_len: u32,
    properties_len: u32,
    publisher_len: u32,
}

/// An application message: topic, the properties that are forwarded (in wire form), payload, and the
/// client id of its publisher, in one allocation of the right size. Cloning counts a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message(ThinArc<MessageHead, u8>);

/// The pieces that a [`Message`] is made from.
#[derive(Clone, Copy, Debug)]
pub struct MessageParts<'a> {
    /// As the publisher sent it; subscribers get the lower of this and their own.
    pub qos: Qos,
    /// The RETAIN flag of the PUBLISH or the Will; live deliveries go by Retain As Published.
    pub retain: bool,
    /// When the broker took the message, from its publisher or from a replay.
    pub published_at: UnixMillis,
    /// [`UnixMillis::NEVER`] without a Message Expiry Interval.
    pub expires_at: UnixMillis,
    /// The whole Topic Name, with any Topic Alias resolved.
    pub topic: &'a str,
    /// Wire form, without their length; only properties that are forwarded unchanged.
    pub properties: &'a [u8],
    /// May be empty.
    pub payload: &'a [u8],
    /// The client id of the publisher; for No Local and for whoever reads a dead letter.
    pub publisher: &'a str,
}

impl Message {
    /// Makes a message in one allocation. `scratch` is overwritten: the pieces are gathered in it first.
    pub fn new(parts: &MessageParts<'_>, scratch: &mut Vec<u8>) -> Self {
        scratch.clear();
        scratch.extend_from_slice(parts.topic.as_bytes());
        scratch.extend_from_slice(parts.properties);
        Self::finish(parts, parts.properties.len(), scratch)
    }

    /// Makes a message from a PUBLISH whose topic was resolved to `topic`.
    pub fn from_publish(
        publish: &Publish<'_>,
        topic: &str,
        publisher: &str,
        now: UnixMillis,
        scratch: &mut Vec<u8>,
    ) -> Self {
        scratch.clear();
        scratch.extend_from_slice(topic.as_bytes());
        publish.properties.forwarded(|bytes| scratch.extend_from_slice(bytes));
        let parts = MessageParts {
            qos: publish.qos,
            retain: publish.retain,
            published_at: now,
            expires_at: expiry(now, publish.properties.message_expiry),
            topic,
            properties: &[],
            payload: publish.payload,
            publisher,
        };
        Self::finish(&parts, publish.properties.forwarded_len, scratch)
    }

    /// `scratch` holds topic and properties already.
    fn finish(parts: &MessageParts<'_>, properties_len: usize, scratch: &mut Vec<u8>) -> Self {
        scratch.extend_from_slice(parts.publisher.as_bytes());
        scratch.extend_from_slice(parts.payload);
        let head = MessageHead {
            qos: parts.qos,
            retain: parts.retain,
            published_at: parts.published_at,
            expires_at: parts.expires_at,
            topic_len: parts.topic.len() as u32,
            properties_len: properties_len as u32,
            publisher_len: parts.publisher.len() as u32,
        };
        Self(ThinArc::from_header_and_slice(head, scratch))
    }

    /// Puts a message together again from what [`Message::lengths`] and [`Message::bytes`] gave.
    /// `None` when the lengths do not fit the bytes.
    pub fn restore(parts: &MessageParts<'_>, lengths: [u32; 3], bytes: &[u8]) -> Option<Self> {
        let [topic_len, properties_len, publisher_len] = lengths;
        let fixed = lengths.iter().try_fold(0u32, |sum, len| sum.checked_add(*len))?;
        if fixed as usize > bytes.len() || std::str::from_utf8(bytes.get(..topic_len as usize)?).is_err() {
            return None;
        }
        let head = MessageHead {
            qos: parts.qos,
            retain: parts.retain,
            published_at: parts.published_at,
            expires_at: parts.expires_at,
            topic_len,
            properties_len,
            publisher_len,
        };
        Some(Self(ThinArc::from_header_and_slice(head, bytes)))
    }

    /// The same message with other times.
    pub fn at(&self, published_at: UnixMillis, expires_at: UnixMillis) -> Self {
        let head = MessageHead { published_at, expires_at, ..self.head().clone() };
        Self(ThinArc::from_header_and_slice(head, &self.0.slice))
    }

    /// The same message with another topic and other properties.
    pub fn with(&self, topic: &str, properties: &[u8]) -> Self {
        let rest = self.0.slice.get((self.head().topic_len + self.head().properties_len) as usize..);
        let bytes = [topic.as_bytes(), properties, rest.unwrap_or_default()].concat();
        let (topic_len, properties_len) = (topic.len() as u32, properties.len() as u32);
        let head = MessageHead { topic_len, properties_len, ..self.head().clone() };
        Self(ThinArc::from_header_and_slice(head, &bytes))
    }

    /// The lengths of topic, properties and publisher, in this order.
    pub fn lengths(&self) -> [u32; 3] {
        let head = self.head();
        [head.topic_len, head.properties_len, head.publisher_len]
    }

    /// Topic, properties, publisher and payload, one behind the other.
    pub fn bytes(&self) -> &[u8] {
        &self.0.slice
    }

    /// What is known beside the bytes.
    pub fn head(&self) -> &MessageHead {
        &self.0.header.header
    }

    /// The topic name.
    pub fn topic(&self) -> &str {
        std::str::from_utf8(self.topic_bytes()).unwrap_or_default()
    }

    /// The topic name as bytes, for those who only copy it.
    pub fn topic_bytes(&self) -> &[u8] {
        self.range(0, self.head().topic_len)
    }

    /// The forwarded properties in wire form, without their length.
    pub fn properties(&self) -> &[u8] {
        self.range(self.head().topic_len, self.head().properties_len)
    }

    /// The client id of the publisher.
    pub fn publisher(&self) -> &str {
        let head = self.head();
        let bytes = self.range(head.topic_len + head.properties_len, head.publisher_len);
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// The payload.
    pub fn payload(&self) -> &[u8] {
        let head = self.head();
        let start = head.topic_len + head.properties_len + head.publisher_len;
        self.0.slice.get(start as usize..).unwrap_or_default()
    }

    /// Bytes that the message occupies, for limits on memory and queues.
    pub fn size(&self) -> usize {
        self.0.slice.len() + size_of::<MessageHead>()
    }

    fn range(&self, start: u32, len: u32) -> &[u8] {
        self.0.slice.get(start as usize..(start + len) as usize).unwrap_or_default()
    }
}

/// When a message with this Message Expiry Interval (seconds) expires.
pub fn expiry(now: UnixMillis, interval: Option<u32>) -> UnixMillis {
    match interval {
        Some(seconds) => now.plus(std::time::Duration::from_secs(seconds.into())),
        None => UnixMillis::NEVER,
    }
}
