//! How a dead letter is stored: a version byte, then the fields in a fixed order, integers in little-endian, and bytes
//! after their length.
//!
//! Version 1 knew the last attempt only, no detail, and no letter from elsewhere. It is read, and not written.
//!
//! Invariant: `decode(encode(letter)) == letter`, and `decode` never panics or reserves memory for a
//! length that the bytes do not have.

use super::{
    Addressee, Attempt, AttemptOutcome, Attempts, DeadLetter, DeadLetterReason, GlobalNo, Lsn, Message,
    MessageParts, UnixMillis,
};
use crate::codec::Qos;

const VERSION: u8 = 2;
/// The first.
const VERSION_1: u8 = 1;
const ROUTE: u8 = 0;
const SESSION: u8 = 1;
const NOBODY: u8 = 2;
const NEVER_TRIED: u8 = 0;
const ANSWERED: u8 = 1;
const FAILED: u8 = 2;
/// In version 2, where version 1 has how the last attempt ended.
const TRIED: u8 = 1;
/// Instead of a latency.
const UNKNOWN: u32 = u32::MAX;

/// Why stored bytes are no dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeadLetterError {
    /// The bytes end before the field that is named here does.
    #[error("dead letter ends in the middle of its {0}")]
    Truncated(&'static str),
    /// Its first byte names a format that this version does not know.
    #[error("dead letter has format {0}; this version reads formats up to {VERSION}")]
    Version(u8),
    /// The field that is named here has a number without a meaning.
    #[error("dead letter has {1} as its {0}, which means nothing")]
    Unknown(&'static str, u8),
    /// A text of it, which is named here, is no UTF-8.
    #[error("the {0} of the dead letter is not UTF-8")]
    NotUtf8(&'static str),
    /// The lengths of the parts of its message are not those of its bytes.
    #[error("the parts of the message of the dead letter do not fit its length")]
    Lengths,
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
        put_optional(out, self.detail.as_deref(), |out, detail| put_bytes(out, detail.as_bytes()));
        put_optional(out, self.imported_from, |out, GlobalNo { store_id, number }| {
            put_u64(out, store_id);
            put_u64(out, number.0);
        });
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
            Addressee::Nobody => out.push(NOBODY),
        }
        put_attempts(out, self.attempts.as_ref());
        put_message(out, &self.message);
    }

    /// Reads the stored form.
    pub fn decode(bytes: &[u8]) -> Result<Self, DeadLetterError> {
        let mut reader = Reader { rest: bytes };
        let version = reader.u8("version")?;
        if !matches!(version, VERSION_1 | VERSION) {
            return Err(DeadLetterError::Version(version));
        }
        let reason = reader.u8("reason")?;
        let reason = DeadLetterReason::from_u8(reason).ok_or(DeadLetterError::Unknown("reason", reason))?;
        let message_no = Lsn(reader.u64("message number")?);
        let created_at = UnixMillis(reader.u64("time")?);
        let (detail, imported_from) = match version {
            VERSION_1 => (None, None),
            _ => (reader.optional("detail", Reader::text)?, reader.optional("origin", Reader::global_no)?),
        };
        let addressee = match reader.u8("addressee")? {
            ROUTE => Addressee::Route { route: reader.text("route")?, target: reader.text("target")? },
            SESSION => Addressee::Session { client_id: reader.text("client id")? },
            NOBODY => Addressee::Nobody,
            kind => return Err(DeadLetterError::Unknown("addressee", kind)),
        };
        let (attempts, message) = match version {
            VERSION_1 => (reader.attempts_1()?, reader.message_1()?),
            _ => (reader.attempts()?, reader.message()?),
        };
        let letter =
            Self { message_no, reason, detail, addressee, message, attempts, created_at, imported_from };
        match reader.rest.len() {
            0 => Ok(letter),
            trailing => Err(DeadLetterError::Trailing(trailing)),
        }
    }
}

fn put_attempts(out: &mut Vec<u8>, attempts: Option<&Attempts>) {
    let Some(attempts) = attempts else {
        return out.push(NEVER_TRIED);
    };
    out.push(TRIED);
    put_u32(out, attempts.count);
    put_u64(out, attempts.first_at.0);
    put_u64(out, attempts.last_at.0);
    put_u32(out, attempts.list.len() as u32);
    for Attempt { at, latency_ms, outcome } in &attempts.list {
        put_u64(out, at.0);
        put_u32(out, latency_ms.unwrap_or(UNKNOWN));
        match outcome {
            AttemptOutcome::Answered { status, .. } => {
                out.push(ANSWERED);
                out.extend_from_slice(&status.to_le_bytes());
            }
            AttemptOutcome::Failed(_) => out.push(FAILED),
        }
        put_bytes(out, outcome.text().as_bytes());
    }
}

/// As it is in memory: what the lengths stand for is the message's own concern.
fn put_message(out: &mut Vec<u8>, message: &Message) {
    let head = message.head();
    out.push(head.qos as u8);
    out.push(u8::from(head.retain));
    put_u64(out, head.published_at.0);
    put_u64(out, head.expires_at.0);
    message.lengths().into_iter().for_each(|len| put_u32(out, len));
    put_bytes(out, message.bytes());
}

fn put_optional<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
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
        match self.u8("attempts")? {
            NEVER_TRIED => return Ok(None),
            TRIED => {}
            kind => return Err(DeadLetterError::Unknown("attempts", kind)),
        }
        let count = self.u32("attempts")?;
        let (first_at, last_at) = (self.u64("first attempt")?, self.u64("last attempt")?);
        let (first_at, last_at) = (UnixMillis(first_at), UnixMillis(last_at));
        let mut list = Vec::new();
        for _ in 0..self.u32("attempts")? {
            let at = UnixMillis(self.u64("attempt")?);
            let latency_ms = Some(self.u32("latency")?).filter(|latency| *latency != UNKNOWN);
            list.push(Attempt { at, latency_ms, outcome: self.outcome()? });
        }
        Ok(Some(Attempts { count, first_at, last_at, list }))
    }

    fn outcome(&mut self) -> Result<AttemptOutcome, DeadLetterError> {
        Ok(match self.u8("outcome")? {
            ANSWERED => AttemptOutcome::Answered {
                status: u16::from_le_bytes(self.array("status")?),
                excerpt: self.str("excerpt")?.into(),
            },
            FAILED => AttemptOutcome::Failed(self.str("error")?.into()),
            kind => return Err(DeadLetterError::Unknown("outcome", kind)),
        })
    }

    fn message(&mut self) -> Result<Message, DeadLetterError> {
        let qos = self.u8("QoS")?;
        let parts = MessageParts {
            qos: Qos::from_u8(qos).ok_or(DeadLetterError::Unknown("QoS", qos))?,
            retain: self.u8("RETAIN flag")? != 0,
            published_at: UnixMillis(self.u64("publish time")?),
            expires_at: UnixMillis(self.u64("expiry")?),
            topic: "",
            properties: &[],
            publisher: "",
            payload: &[],
        };
        let lengths = [self.u32("topic")?, self.u32("properties")?, self.u32("publisher")?];
        let bytes = self.bytes("message")?;
        Message::restore(&parts, lengths, bytes).ok_or(DeadLetterError::Lengths)
    }

    /// As version 1 has it: the last one only.
    fn attempts_1(&mut self) -> Result<Option<Attempts>, DeadLetterError> {
        let outcome = match self.u8("last attempt")? {
            NEVER_TRIED => return Ok(None),
            ANSWERED => AttemptOutcome::Answered {
                status: u16::from_le_bytes(self.array("status")?),
                excerpt: self.str("excerpt")?.into(),
            },
            FAILED => AttemptOutcome::Failed(self.str("error")?.into()),
            kind => return Err(DeadLetterError::Unknown("last attempt", kind)),
        };
        let count = self.u32("attempts")?;
        let first_at = UnixMillis(self.u64("first attempt")?);
        let last_at = UnixMillis(self.u64("last attempt")?);
        let last = Attempt { at: last_at, latency_ms: None, outcome };
        Ok(Some(Attempts { count, first_at, last_at, list: vec![last] }))
    }

    /// As version 1 has it: piece by piece.
    fn message_1(&mut self) -> Result<Message, DeadLetterError> {
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

    fn global_no(&mut self, field: &'static str) -> Result<GlobalNo, DeadLetterError> {
        Ok(GlobalNo { store_id: self.u64(field)?, number: Lsn(self.u64(field)?) })
    }

    fn optional<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Self, &'static str) -> Result<T, DeadLetterError>,
    ) -> Result<Option<T>, DeadLetterError> {
        match self.u8(field)? {
            0 => Ok(None),
            1 => read(self, field).map(Some),
            other => Err(DeadLetterError::Unknown(field, other)),
        }
    }

    fn text(&mut self, field: &'static str) -> Result<String, DeadLetterError> {
        self.str(field).map(str::to_owned)
    }

    fn str(&mut self, field: &'static str) -> Result<&'a str, DeadLetterError> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| DeadLetterError::NotUtf8(field))
    }

    fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], DeadLetterError> {
        let len = self.u32(field)?;
        self.take(len as usize, field)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, DeadLetterError> {
        self.array(field).map(u64::from_le_bytes)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, DeadLetterError> {
        self.array(field).map(u32::from_le_bytes)
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
pub(super) mod tests;
