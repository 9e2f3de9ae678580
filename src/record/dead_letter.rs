//! A dead letter: a message that had to be given up, for whom, and why.
//!
//! Nothing of the message is lost, so that it can be delivered after all. The binary form is what the
//! store keeps: a version byte, then the fields in a fixed order, integers in little-endian, and bytes
//! after their length.
//!
//! Invariant: `decode(encode(letter)) == letter`, and `decode` never panics or reserves memory for a
//! length that the bytes do not have.

use super::{Lsn, Message, MessageParts, UnixMillis};
use crate::codec::Qos;

const VERSION: u8 = 1;
const ROUTE: u8 = 0;
const SESSION: u8 = 1;
const NEVER_TRIED: u8 = 0;
const ANSWERED: u8 = 1;
const FAILED: u8 = 2;

/// A message that was given up, for one recipient. It is filed under the number of the record that
/// stored it, which is not known yet when it is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The number of the message, which a replay goes on using: a target then sees the same key.
    pub message_no: Lsn,
    /// Which limit, rule or event it fell to.
    pub reason: DeadLetterReason,
    /// The one recipient; others that were owed the message have letters of their own, or none.
    pub addressee: Addressee,
    /// Whole: its topic, the properties that are forwarded, and its payload.
    pub message: Message,
    /// `None` when the message was given up before it was tried.
    pub attempts: Option<Attempts>,
    /// When the message was given up.
    pub created_at: UnixMillis,
}

/// Whom a dead letter was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addressee {
    /// A route and the target it named then.
    Route {
        /// Its name, as in the configuration.
        route: String,
        /// Its name, as in the configuration.
        target: String,
    },
    /// The session of this client, or the shared group of this name.
    Session {
        /// The Client Identifier, or the group's name.
        client_id: String,
    },
}

/// The attempts that were made before a message was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempts {
    /// All of them, whether or not they counted against the limit.
    pub count: u32,
    /// When the first attempt began.
    pub first_at: UnixMillis,
    /// When the last attempt ended.
    pub last_at: UnixMillis,
    /// How the last one ended.
    pub last: LastAttempt,
}

/// How the last attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LastAttempt {
    /// With an answer.
    Answered {
        /// The HTTP status.
        status: u16,
        /// The beginning of the answer's body, safe to print.
        excerpt: String,
    },
    /// Without one; the text says why.
    Failed(String),
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)+) => {
        /// Why a message was given up. The numbers are stored: they never change their meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DeadLetterReason { $($(#[$doc])* $name = $value),+ }

        impl DeadLetterReason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The word for JSON, metrics and the command line.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            fn from_u8(value: u8) -> Option<Self> {
                match value { $($value => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

reasons! {
    /// The target answered as often as its policy allows, and never took it.
    AttemptsExhausted = 1, "attempts_exhausted";
    /// It was older than the policy's `max_age`, mostly because its target was down.
    MaxAge = 2, "max_age";
    /// Its Message Expiry Interval ran out.
    Expired = 3, "expired";
    /// The target answered with a status that says "never".
    Rejected = 4, "rejected";
    /// The queue it was in, or should have entered, held its most messages.
    QueueFull = 5, "queue_full";
    /// The queue it was in, or should have entered, held its most bytes.
    QueueBytesFull = 6, "queue_bytes_full";
    /// Its route or target is no longer configured.
    TargetRemoved = 7, "target_removed";
    /// It waited in its queue for longer than that allows.
    QueueAge = 8, "queue_age";
    /// No request could be made from it: a template has no value for it, or its payload is not what the body needs.
    Unrenderable = 9, "unrenderable";
    /// The filter of its route could not be evaluated for it.
    FilterError = 10, "filter_error";
    /// It kept those behind it waiting for longer than its route allows.
    Blocked = 11, "blocked";
    /// It is larger than what its addressee takes.
    Oversize = 12, "oversize";
    /// Nobody was there to take it.
    Unroutable = 13, "unroutable";
    /// It has come back through routes too often.
    Loop = 14, "loop";
}

/// Why stored bytes are no dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeadLetterError {
    /// The bytes end before the field that is named here does.
    #[error("dead letter ends in the middle of its {0}")]
    Truncated(&'static str),
    /// Its first byte names a format that this version does not know.
    #[error("dead letter has format {0}; this version reads format {VERSION}")]
    Version(u8),
    /// The field that is named here has a number without a meaning.
    #[error("dead letter has {1} as its {0}, which means nothing")]
    Unknown(&'static str, u8),
    /// A text of it, which is named here, is no UTF-8.
    #[error("the {0} of the dead letter is not UTF-8")]
    NotUtf8(&'static str),
    /// So many bytes follow the last field.
    #[error("dead letter goes on for {0} bytes after its end")]
    Trailing(usize),
}

impl DeadLetter {
    /// Appends the stored form to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        out.push(self.reason as u8);
        put_u64(out, self.message_no.0);
        put_u64(out, self.created_at.0);
        match &self.addressee {
            Addressee::Route { route, target } => {
                out.push(ROUTE);
                put_bytes(out, route.as_bytes());
                put_bytes(out, target.as_bytes());
            }
            Addressee::Session { client_id } => {
                out.push(SESSION);
                put_bytes(out, client_id.as_bytes());
            }
        }
        put_attempts(out, self.attempts.as_ref());
        put_message(out, &self.message);
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DeadLetterError> {
        let mut reader = Reader { rest: bytes };
        match reader.u8("version")? {
            VERSION => (),
            version => return Err(DeadLetterError::Version(version)),
        }
        let reason = reader.u8("reason")?;
        let reason = DeadLetterReason::from_u8(reason).ok_or(DeadLetterError::Unknown("reason", reason))?;
        let message_no = Lsn(reader.u64("message number")?);
        let created_at = UnixMillis(reader.u64("time")?);
        let addressee = match reader.u8("addressee")? {
            ROUTE => Addressee::Route { route: reader.text("route")?, target: reader.text("target")? },
            SESSION => Addressee::Session { client_id: reader.text("client id")? },
            kind => return Err(DeadLetterError::Unknown("addressee", kind)),
        };
        let attempts = reader.attempts()?;
        let message = reader.message()?;
        match reader.rest.len() {
            0 => Ok(Self { message_no, reason, addressee, message, attempts, created_at }),
            trailing => Err(DeadLetterError::Trailing(trailing)),
        }
    }
}

fn put_attempts(out: &mut Vec<u8>, attempts: Option<&Attempts>) {
    let Some(attempts) = attempts else {
        return out.push(NEVER_TRIED);
    };
    match &attempts.last {
        LastAttempt::Answered { status, excerpt } => {
            out.push(ANSWERED);
            out.extend_from_slice(&status.to_le_bytes());
            put_bytes(out, excerpt.as_bytes());
        }
        LastAttempt::Failed(error) => {
            out.push(FAILED);
            put_bytes(out, error.as_bytes());
        }
    }
    out.extend_from_slice(&attempts.count.to_le_bytes());
    put_u64(out, attempts.first_at.0);
    put_u64(out, attempts.last_at.0);
}

fn put_message(out: &mut Vec<u8>, message: &Message) {
    let head = message.head();
    out.push(head.qos as u8);
    out.push(u8::from(head.retain));
    put_u64(out, head.published_at.0);
    put_u64(out, head.expires_at.0);
    put_bytes(out, message.topic_bytes());
    put_bytes(out, message.properties());
    put_bytes(out, message.publisher_bytes());
    put_bytes(out, message.payload());
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// No part of an MQTT packet, and no excerpt or name, comes near the 4 GiB that its length can say.
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// What is left to read. Each read names the field, for the error.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn attempts(&mut self) -> Result<Option<Attempts>, DeadLetterError> {
        let last = match self.u8("last attempt")? {
            NEVER_TRIED => return Ok(None),
            ANSWERED => LastAttempt::Answered {
                status: u16::from_le_bytes(self.array("status")?),
                excerpt: self.text("excerpt")?,
            },
            FAILED => LastAttempt::Failed(self.text("error")?),
            kind => return Err(DeadLetterError::Unknown("last attempt", kind)),
        };
        Ok(Some(Attempts {
            count: u32::from_le_bytes(self.array("attempts")?),
            first_at: UnixMillis(self.u64("first attempt")?),
            last_at: UnixMillis(self.u64("last attempt")?),
            last,
        }))
    }

    fn message(&mut self) -> Result<Message, DeadLetterError> {
        let qos = self.u8("QoS")?;
        let parts = MessageParts {
            qos: Qos::from_u8(qos).ok_or(DeadLetterError::Unknown("QoS", qos))?,
            retain: self.u8("RETAIN flag")? != 0,
            published_at: UnixMillis(self.u64("publish time")?),
            expires_at: UnixMillis(self.u64("expiry")?),
            topic: self.str("topic")?,
            properties: self.bytes("properties")?,
            publisher: self.str("publisher")?,
            payload: self.bytes("payload")?,
        };
        Ok(Message::new(&parts, &mut Vec::new()))
    }

    fn text(&mut self, field: &'static str) -> Result<String, DeadLetterError> {
        self.str(field).map(str::to_owned)
    }

    fn str(&mut self, field: &'static str) -> Result<&'a str, DeadLetterError> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| DeadLetterError::NotUtf8(field))
    }

    fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], DeadLetterError> {
        let len = u32::from_le_bytes(self.array(field)?);
        self.take(len as usize, field)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, DeadLetterError> {
        self.array(field).map(u64::from_le_bytes)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, DeadLetterError> {
        self.array(field).map(u8::from_le_bytes)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DeadLetterError> {
        self.take(N, field)?.try_into().map_err(|_| DeadLetterError::Truncated(field))
    }

    fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], DeadLetterError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(DeadLetterError::Truncated(field))?;
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Content type, response topic, correlation data, and one user property twice.
    const PROPERTIES: &[u8] = b"\x03\0\x01x\x08\0\x01r\x09\0\x01\xff\x26\0\x01k\0\x011\x26\0\x01k\0\x012";

    /// A letter with every field set, for the tests of this room.
    pub(in crate::record) fn rejected_letter() -> DeadLetter {
        DeadLetter {
            message_no: Lsn(8),
            reason: DeadLetterReason::Rejected,
            addressee: Addressee::Route { route: "orders".into(), target: "erp".into() },
            message: message("a/ö", PROPERTIES, b"payload", "boat"),
            attempts: Some(Attempts {
                count: 2,
                first_at: UnixMillis(1_700_000_001_000),
                last_at: UnixMillis(1_700_000_002_500),
                last: LastAttempt::Answered { status: 422, excerpt: "no such order".into() },
            }),
            created_at: UnixMillis(1_700_000_002_600),
        }
    }

    fn message(topic: &str, properties: &[u8], payload: &[u8], publisher: &str) -> Message {
        let parts = MessageParts {
            qos: Qos::AtLeastOnce,
            retain: true,
            published_at: UnixMillis(1_700_000_000_000),
            expires_at: UnixMillis::NEVER,
            topic,
            properties,
            payload,
            publisher,
        };
        Message::new(&parts, &mut Vec::new())
    }

    fn encoded(letter: &DeadLetter) -> Vec<u8> {
        let mut bytes = Vec::new();
        letter.encode(&mut bytes);
        bytes
    }

    #[test]
    fn the_stored_form_does_not_change() {
        let letter = DeadLetter {
            addressee: Addressee::Session { client_id: "c".into() },
            message: message("t", b"p", b"x", "b"),
            attempts: None,
            ..rejected_letter()
        };
        let expected = [
            &[1, 4][..],
            &8u64.to_le_bytes(),
            &1_700_000_002_600u64.to_le_bytes(),
            b"\x01\x01\0\0\0c\0\x01\x01",
            &1_700_000_000_000u64.to_le_bytes(),
            &[0xff; 8],
            b"\x01\0\0\0t\x01\0\0\0p\x01\0\0\0b\x01\0\0\0x",
        ];
        assert_eq!(encoded(&letter), expected.concat());
    }

    #[test]
    fn every_shape_of_a_letter_comes_back() {
        let failed = LastAttempt::Failed("cannot connect".into());
        let attempts = rejected_letter().attempts.unwrap();
        for attempts in [None, Some(attempts.clone()), Some(Attempts { last: failed, ..attempts })] {
            for &reason in DeadLetterReason::ALL {
                let letter = DeadLetter { reason, attempts: attempts.clone(), ..rejected_letter() };
                assert_eq!(DeadLetter::decode(&encoded(&letter)), Ok(letter));
            }
        }
    }

    #[test]
    fn a_letter_that_is_cut_short_is_an_error() {
        let bytes = encoded(&rejected_letter());
        for len in 0..bytes.len() {
            let cut = DeadLetter::decode(&bytes[..len]);
            assert!(matches!(cut, Err(DeadLetterError::Truncated(_))), "at {len}: {cut:?}");
        }
    }

    #[test]
    fn bytes_that_mean_nothing_are_errors() {
        let with = |at: usize, byte: u8| {
            let mut bytes = encoded(&rejected_letter());
            bytes[at] = byte;
            DeadLetter::decode(&bytes)
        };
        assert_eq!(with(0, 2), Err(DeadLetterError::Version(2)));
        assert_eq!(with(1, 0), Err(DeadLetterError::Unknown("reason", 0)));
        assert_eq!(with(18, 9), Err(DeadLetterError::Unknown("addressee", 9)));
        assert_eq!(with(23, 0xff), Err(DeadLetterError::NotUtf8("route")));
        let mut longer = encoded(&rejected_letter());
        longer.push(0);
        assert_eq!(DeadLetter::decode(&longer), Err(DeadLetterError::Trailing(1)));
    }

    #[test]
    fn each_reason_has_a_word_of_its_own() {
        for reason in DeadLetterReason::ALL {
            let same = DeadLetterReason::ALL.iter().filter(|other| other.as_str() == reason.as_str());
            assert_eq!(same.count(), 1, "{reason:?}");
        }
    }

    proptest! {
        #[test]
        fn any_message_comes_back(
            topic in ".{0,40}", publisher in ".{0,40}",
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            properties in proptest::collection::vec(any::<u8>(), 0..40),
            message_no: u64, created_at: u64,
        ) {
            let message = message(&topic, &properties, &payload, &publisher);
            let created_at = UnixMillis(created_at);
            let letter = DeadLetter { message_no: Lsn(message_no), message, created_at, ..rejected_letter() };
            prop_assert_eq!(DeadLetter::decode(&encoded(&letter)), Ok(letter));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(version) = bytes.first_mut() {
                *version = VERSION;
            }
            let _ = DeadLetter::decode(&bytes);
        }
    }
}
