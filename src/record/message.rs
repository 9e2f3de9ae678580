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

/// An application message: topic, the properties that are forwarded (in wire form), payload, and who
/// published it, in one allocation of the right size. Cloning counts a reference.
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
    /// Who published it, in the form of [`Message::publisher_bytes`]: a client id stands for itself.
    pub publisher: &'a str,
}

/// Who published a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publisher<'a> {
    /// For shared groups, and for whoever reads a dead letter.
    pub client_id: &'a str,
    /// Its user name, if somebody has checked it, and somebody wants to know it.
    pub user_name: Option<&'a str>,
}

/// Between client id and user name: no text of MQTT has it [MQTT-1.5.4-2].
const NUL: u8 = 0;

impl Message {
    /// Makes a message in one allocation. `scratch` is overwritten: the pieces are gathered in it first.
    pub fn new(parts: &MessageParts<'_>, scratch: &mut Vec<u8>) -> Self {
        scratch.clear();
        scratch.extend_from_slice(parts.topic.as_bytes());
        scratch.extend_from_slice(parts.properties);
        scratch.extend_from_slice(parts.publisher.as_bytes());
        Self::finish(parts, [parts.properties.len(), parts.publisher.len()], scratch)
    }

    /// Makes a message from a PUBLISH whose topic was resolved to `topic`.
    pub fn from_publish(
        publish: &Publish<'_>,
        topic: &str,
        publisher: Publisher<'_>,
        now: UnixMillis,
        scratch: &mut Vec<u8>,
    ) -> Self {
        scratch.clear();
        scratch.extend_from_slice(topic.as_bytes());
        publish.properties.forwarded(|bytes| scratch.extend_from_slice(bytes));
        let publisher_len = publisher.put(scratch);
        let parts = MessageParts {
            qos: publish.qos,
            retain: publish.retain,
            published_at: now,
            expires_at: expiry(now, publish.properties.message_expiry),
            topic,
            properties: &[],
            payload: publish.payload,
            publisher: "",
        };
        Self::finish(&parts, [publish.properties.forwarded_len, publisher_len], scratch)
    }

    /// `scratch` holds topic, properties and publisher already; `lens` are those of the last two.
    fn finish(parts: &MessageParts<'_>, lens: [usize; 2], scratch: &mut Vec<u8>) -> Self {
        scratch.extend_from_slice(parts.payload);
        let head = MessageHead {
            qos: parts.qos,
            retain: parts.retain,
            published_at: parts.published_at,
            expires_at: parts.expires_at,
            topic_len: parts.topic.len() as u32,
            properties_len: lens[0] as u32,
            publisher_len: lens[1] as u32,
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

    /// The same message with the user name of its publisher, which somebody has checked.
    pub fn published_by(&self, user_name: &str) -> Self {
        let (topic, properties) = (self.topic_bytes(), self.properties());
        let mut bytes = Vec::with_capacity(self.bytes().len() + 1 + user_name.len());
        bytes.extend_from_slice(topic);
        bytes.extend_from_slice(properties);
        let publisher = Publisher { client_id: self.publisher(), user_name: Some(user_name) };
        let publisher_len = publisher.put(&mut bytes) as u32;
        bytes.extend_from_slice(self.payload());
        let head = MessageHead { publisher_len, ..self.head().clone() };
        Self(ThinArc::from_header_and_slice(head, &bytes))
    }

    /// The same message as if the broker published it now: not retained, and without an expiry.
    pub fn anew(&self, qos: Qos, now: UnixMillis) -> Self {
        let (published_at, expires_at) = (now, UnixMillis::NEVER);
        let head = MessageHead { qos, retain: false, published_at, expires_at, ..self.head().clone() };
        Self(ThinArc::from_header_and_slice(head, &self.0.slice))
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
        let bytes = self.publisher_bytes();
        let end = memchr::memchr(NUL, bytes).unwrap_or(bytes.len());
        std::str::from_utf8(bytes.get(..end).unwrap_or_default()).unwrap_or_default()
    }

    /// The user name of the publisher, if somebody has checked it. Known only of messages that a route
    /// took when they were published: nobody else asks.
    pub fn user_name(&self) -> Option<&str> {
        let bytes = self.publisher_bytes();
        let start = memchr::memchr(NUL, bytes)? + 1;
        std::str::from_utf8(bytes.get(start..)?).ok()
    }

    /// Client id and user name as they are kept: the client id, and if there is a user name U+0000 and
    /// the user name.
    pub fn publisher_bytes(&self) -> &[u8] {
        let head = self.head();
        self.range(head.topic_len + head.properties_len, head.publisher_len)
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

impl<'a> From<&'a str> for Publisher<'a> {
    fn from(client_id: &'a str) -> Self {
        Self { client_id, user_name: None }
    }
}

impl Publisher<'_> {
    /// Appends the form of [`Message::publisher_bytes`] and gives its length.
    fn put(&self, out: &mut Vec<u8>) -> usize {
        let start = out.len();
        out.extend_from_slice(self.client_id.as_bytes());
        if let Some(user_name) = self.user_name {
            out.push(NUL);
            out.extend_from_slice(user_name.as_bytes());
        }
        out.len() - start
    }
}

/// When a message with this Message Expiry Interval (seconds) expires.
pub fn expiry(now: UnixMillis, interval: Option<u32>) -> UnixMillis {
    match interval {
        Some(seconds) => now.plus(std::time::Duration::from_secs(seconds.into())),
        None => UnixMillis::NEVER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(publisher: &str) -> Message {
        let parts = MessageParts {
            qos: Qos::AtLeastOnce,
            retain: false,
            published_at: UnixMillis(1),
            expires_at: UnixMillis::NEVER,
            topic: "t",
            properties: &[1, 1],
            payload: b"p\0q",
            publisher,
        };
        Message::new(&parts, &mut Vec::new())
    }

    #[test]
    fn a_message_knows_client_and_user() {
        let plain = message("boat");
        assert_eq!((plain.publisher(), plain.user_name()), ("boat", None));
        let named = plain.published_by("ada");
        assert_eq!((named.publisher(), named.user_name()), ("boat", Some("ada")));
        assert_eq!(named.publisher_bytes(), b"boat\0ada");
        assert_eq!((named.topic(), named.properties(), named.payload()), ("t", &[1, 1][..], &b"p\0q"[..]));
        assert_eq!(named.published_by("bob").user_name(), Some("bob"));
        assert_eq!(message("boat\0ada"), named);
        assert_eq!(message("boat\0").user_name(), Some(""));
    }
}
