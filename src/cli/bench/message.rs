//! The messages that are sent: numbered, stamped, and encoded ahead.
//!
//! A publisher's messages differ in packet identifier, number and time only, so the frame is encoded once
//! and copied for each message with those bytes patched in.

use super::error::BenchError;
use crate::codec::{PacketId, PublishFrame, Qos, Version};

/// Bytes at the start of a payload that identify it.
pub const HEADER_BYTES: usize = 24;

/// The length of a topic has 16 bits on the wire.
const TOPIC_BYTES_MAX: usize = u16::MAX as usize;

/// The first two bytes of every payload, so that other people's messages are not taken for ours.
const MAGIC: [u8; 2] = [0xCA, 0x5E];

/// What a payload says about its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which run it belongs to.
    pub run: u16,
    /// Which publisher and topic within the run.
    pub stream: u32,
    /// Its number in the stream, from 0.
    pub sequence: u64,
    /// When it was handed to the socket, nanoseconds since 1970.
    pub sent_at_ns: u64,
}

impl Header {
    /// The header at the start of `payload`, if it is one of ours.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let rest = payload.strip_prefix(&MAGIC)?;
        let (run, rest) = rest.split_first_chunk()?;
        let (stream, rest) = rest.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let (sent_at_ns, _) = rest.split_first_chunk()?;
        Some(Self {
            run: u16::from_le_bytes(*run),
            stream: u32::from_le_bytes(*stream),
            sequence: u64::from_le_bytes(*sequence),
            sent_at_ns: u64::from_le_bytes(*sent_at_ns),
        })
    }

    /// Names the stream over all runs.
    pub fn stream_key(&self) -> u64 {
        u64::from(self.run) << 32 | u64::from(self.stream)
    }

    fn bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..2].copy_from_slice(&MAGIC);
        bytes[2..4].copy_from_slice(&self.run.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.stream.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..].copy_from_slice(&self.sent_at_ns.to_le_bytes());
        bytes
    }
}

/// What all messages of one publisher have in common.
#[derive(Clone, Debug)]
pub struct MessagePlan {
    /// Decides how the PUBLISH is encoded: 5.0 adds the length of its properties.
    pub version: Version,
    /// Above 0 every message has a Packet Identifier.
    pub qos: Qos,
    /// The RETAIN flag of every message.
    pub retain: bool,
    /// Whole payload, header included; at least [`HEADER_BYTES`].
    pub payload_bytes: usize,
    /// `{i}` stands for the publisher's number, `{t}` for the number of the topic.
    pub topic: String,
    /// How many topics `{t}` goes through in turn; at least 1.
    pub topics: u32,
    /// The run's number, so that messages of another run are told apart.
    pub run: u16,
    /// The publisher's number.
    pub publisher: u32,
}

/// Appends the messages of one publisher to a buffer.
#[derive(Debug)]
pub struct MessageWriter {
    plan: MessagePlan,
    topics: u32,
    /// A whole PUBLISH, with the bytes that differ from message to message still those of the last one.
    frame: Vec<u8>,
    /// Where the packet identifier is in `frame`.
    id_at: usize,
    /// Where the payload begins in `frame`.
    payload_at: usize,
}

impl MessageWriter {
    /// A writer for what `plan` says.
    ///
    /// # Errors
    /// When the topic cannot be published to, or the messages are too large for MQTT.
    pub fn new(plan: MessagePlan) -> Result<Self, BenchError> {
        let topics = if plan.topic.contains("{t}") { plan.topics.max(1) } else { 1 };
        let longest = topic_name(&plan.topic, plan.publisher, topics - 1);
        if longest.is_empty() || longest.len() > TOPIC_BYTES_MAX || longest.contains(['+', '#', '\0']) {
            let reason = format!("a topic to publish to has 1 to {TOPIC_BYTES_MAX} bytes and no +, # or NUL");
            return Err(BenchError::Argument(format!("{longest}: {reason}")));
        }
        let mut writer = Self { plan, topics, frame: Vec::new(), id_at: 0, payload_at: 0 };
        writer.encode(topics - 1);
        Ok(writer)
    }

    /// Bytes of the last message on the wire; at first of the longest.
    pub fn message_bytes(&self) -> usize {
        self.frame.len()
    }

    /// Appends message number `number` (from 0) of this publisher. `packet_id` is for QoS 1 and 2.
    pub fn append(&mut self, number: u64, packet_id: Option<PacketId>, now_ns: u64, out: &mut Vec<u8>) {
        let (topic, sequence) = (number % u64::from(self.topics), number / u64::from(self.topics));
        let topic = topic as u32;
        if self.topics > 1 {
            self.encode(topic);
        }
        let stream = self.plan.publisher.wrapping_mul(self.topics).wrapping_add(topic);
        let header = Header { run: self.plan.run, stream, sequence, sent_at_ns: now_ns };
        patch(&mut self.frame, self.payload_at, &header.bytes());
        if let Some(id) = packet_id {
            patch(&mut self.frame, self.id_at, &id.get().to_be_bytes());
        }
        out.extend_from_slice(&self.frame);
    }

    fn encode(&mut self, topic: u32) {
        let plan = &self.plan;
        let name = topic_name(&plan.topic, plan.publisher, topic);
        self.frame.clear();
        let frame = PublishFrame {
            dup: false,
            qos: plan.qos,
            retain: plan.retain,
            packet_id: (plan.qos > Qos::AtMostOnce).then(|| PacketId::new(1)).flatten(),
            topic: name.as_bytes(),
            alias: None,
            expiry: None,
            subscription_ids: &[],
            properties: &[],
            payload_len: plan.payload_bytes.max(HEADER_BYTES),
        };
        frame.encode_head(plan.version, &mut self.frame);
        self.payload_at = self.frame.len();
        // The identifier ends the head, but for the empty property list of 5.0.
        self.id_at = self.payload_at.saturating_sub(if plan.version == Version::V5 { 3 } else { 2 });
        self.frame.resize(self.payload_at + plan.payload_bytes.max(HEADER_BYTES), b'.');
    }
}

/// A topic template with its placeholders filled in.
pub fn topic_name(template: &str, client: u32, topic: u32) -> String {
    template.replace("{i}", &client.to_string()).replace("{t}", &topic.to_string())
}

fn patch(frame: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = frame.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Decoder, MAX_PACKET_SIZE, Packet};

    fn plan(version: Version, qos: Qos, topic: &str) -> MessagePlan {
        let topic = topic.to_owned();
        MessagePlan { version, qos, retain: false, payload_bytes: 64, topic, topics: 3, run: 9, publisher: 2 }
    }

    /// Topic, packet identifier and header of each message.
    fn decoded(version: Version, mut bytes: &[u8]) -> Vec<(String, Option<u16>, Header)> {
        let mut decoder = Decoder::client(version, MAX_PACKET_SIZE);
        let mut messages = Vec::new();
        while let Some((Packet::Publish(publish), len)) = decoder.decode(bytes).unwrap() {
            assert_eq!(publish.payload.len(), 64);
            let header = Header::read(publish.payload).unwrap();
            messages.push((publish.topic.to_owned(), publish.packet_id.map(PacketId::get), header));
            bytes = &bytes[len..];
        }
        assert!(bytes.is_empty());
        messages
    }

    #[test]
    fn what_is_patched_decodes_to_what_was_meant_in_every_version() {
        for version in [Version::V31, Version::V311, Version::V5] {
            let mut writer = MessageWriter::new(plan(version, Qos::AtLeastOnce, "t/{i}")).unwrap();
            let mut out = Vec::new();
            writer.append(0, PacketId::new(1), 70, &mut out);
            writer.append(1, PacketId::new(0xABCD), 71, &mut out);
            let header = |sequence, sent_at_ns| Header { run: 9, stream: 2, sequence, sent_at_ns };
            let expected =
                [("t/2".to_owned(), Some(1), header(0, 70)), ("t/2".to_owned(), Some(0xABCD), header(1, 71))];
            assert_eq!(decoded(version, &out), expected);
        }
    }

    #[test]
    fn each_topic_is_a_stream_with_numbers_of_its_own() {
        let mut writer = MessageWriter::new(plan(Version::V5, Qos::AtMostOnce, "t/{i}/{t}")).unwrap();
        let mut out = Vec::new();
        for number in 0..5 {
            writer.append(number, None, 0, &mut out);
        }
        let seen: Vec<_> = decoded(Version::V5, &out)
            .into_iter()
            .map(|(topic, _, header)| (topic, header.stream, header.sequence))
            .collect();
        let expected = [("t/2/0", 6, 0), ("t/2/1", 7, 0), ("t/2/2", 8, 0), ("t/2/0", 6, 1), ("t/2/1", 7, 1)];
        assert_eq!(seen, expected.map(|(topic, stream, sequence)| (topic.to_owned(), stream, sequence)));
    }

    #[test]
    fn foreign_payloads_are_not_taken_for_ours() {
        assert_eq!(Header::read(b""), None);
        assert_eq!(Header::read(&[0; 64]), None);
        let header = Header { run: 1, stream: 2, sequence: 3, sent_at_ns: 4 };
        assert_eq!(Header::read(&header.bytes()), Some(header));
        assert_eq!(Header::read(&header.bytes()[..HEADER_BYTES - 1]), None);
    }

    #[test]
    fn a_topic_that_cannot_be_published_to_is_refused() {
        for topic in ["", "a/#", "a/+/b", &"x".repeat(70_000)] {
            assert!(MessageWriter::new(plan(Version::V5, Qos::AtMostOnce, topic)).is_err());
        }
    }
}
