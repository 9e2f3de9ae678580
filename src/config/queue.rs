//! How much waits on disk for one session, shared group or route, and what gives way when it is too much.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    load::{BYTES, STORED},
    report::Wrong,
    section::Section,
    values,
};
use serde::{Deserialize, Serialize};

/// Zero is no limit.
const QUEUED_AGE: RangeInclusive<Duration> = Duration::ZERO..=*values::AGE.end();
const POLICIES: [(&str, Overflow); 3] = [
    ("drop_newest", Overflow::DropNewest),
    ("drop_oldest", Overflow::DropOldest),
    ("refuse", Overflow::Refuse),
];

/// The limits of one queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Most messages.
    pub messages: u64,
    /// Most bytes of messages.
    pub bytes: u64,
    /// A message that has waited for longer is given up; `None` is no limit.
    pub age: Option<Duration>,
    /// What happens when one more comes.
    pub overflow: Overflow,
}

/// A [`QueueConfig`] as an operator is shown it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueView {
    /// Most messages.
    pub messages: u64,
    /// Most bytes of messages.
    pub bytes: u64,
    /// How long a message may wait; `null` is no limit.
    pub age_seconds: Option<u64>,
    /// What happens when one more comes.
    pub overflow: Overflow,
}

/// What gives way at a queue that is full. What is dropped becomes a dead letter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// The message that comes, for the one whose queue is full.
    #[default]
    DropNewest,
    /// The oldest message that nobody has in hand yet.
    DropOldest,
    /// The publisher: nobody gets the message, and it is told so.
    Refuse,
}

impl QueueConfig {
    /// Whether a queue with so much in it is more than half full.
    pub fn is_filling(&self, messages: u64, bytes: u64) -> bool {
        messages > self.messages / 2 || bytes > self.bytes / 2
    }
}

impl From<QueueConfig> for QueueView {
    fn from(queue: QueueConfig) -> Self {
        let QueueConfig { messages, bytes, age, overflow } = queue;
        Self { messages, bytes, age_seconds: age.map(|age| age.as_secs()), overflow }
    }
}

impl Overflow {
    /// The word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DropNewest => "drop_newest",
            Self::DropOldest => "drop_oldest",
            Self::Refuse => "refuse",
        }
    }
}

/// Reads the four keys of a queue; what is not said is as in `default`.
pub(super) fn read_queue(section: &mut Section<'_>, default: &QueueConfig) -> QueueConfig {
    let age = section.duration("queued_age", QUEUED_AGE, default.age.unwrap_or_default());
    if !age.is_zero() && age < *values::AGE.start() {
        section.wrong("queued_age", Wrong::new("must be at least 1s").help("or \"0s\", for no limit"));
    }
    QueueConfig {
        messages: section.number("queued_messages", STORED, default.messages),
        bytes: section.bytes("queued_bytes", BYTES, default.bytes),
        age: Some(age).filter(|age| !age.is_zero()),
        overflow: section.choice("overflow", &POLICIES).unwrap_or(default.overflow),
    }
}

/// Reports a number of bytes in which the largest packet would never find room.
pub(super) fn check_room(section: &Section<'_>, key: &str, bytes: u64, packet_size: u32) {
    let packet = u64::from(packet_size);
    if bytes < packet {
        let (bytes, packet) = (values::show_bytes(bytes), values::show_bytes(packet));
        let message = format!("has room for {bytes}, less than one packet of limits.packet_size ({packet})");
        section.wrong(key, Wrong::new(message).help("make it larger, or packet_size smaller"));
    }
}
