//! Dead letters that were exported, filed again: each under a number of its own.
//!
//! A letter keeps the name it had when it was exported, so that it is not filed twice: one that is there already, as
//! it was or imported before, is left out. Its message keeps the number that targets know it by, if that number is
//! of this database.
//!
//! Invariant: a line is filed as a whole or not at all, and what was counted as imported is on disk.

use std::collections::HashSet;
use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::operator::{DeadLetters, DeadLettersError, find};
use crate::bridge::excerpt;
use crate::codec::{Qos, are_forwarded};
use crate::record::{
    Addressee, Attempt, AttemptOutcome, Attempts, Change, DeadLetter, DeadLetterReason, EXCERPT_KEPT_MAX,
    GlobalNo, Lsn, Message, MessageParts, Record, UnixMillis,
};
use crate::store::{Store, StoreError};
use crate::topic::TopicName;

/// Letters, and about how many bytes of them, in one record.
const BATCH_MAX: usize = 64;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// Bytes of a text that tells of an attempt.
const TEXT_MAX: usize = 4 * 1024;

/// Why an import has ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// A line is no dead letter.
    #[error("line {line} is no dead letter: {why}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        why: String,
    },
    /// There are too many already.
    #[error("there is no room for the dead letter of line {0}")]
    Full(u64),
    /// The database cannot be read or written.
    #[error(transparent)]
    Letters(#[from] DeadLettersError),
}

/// What has become of the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Letters that were filed.
    pub imported: u64,
    /// Those that are there already.
    pub known: u64,
    /// Those of the imported ones whose targets will see them under new keys: their messages have numbers of another
    /// database, or none.
    pub new_keys: u64,
}

/// An import under way.
pub struct Import<'a> {
    letters: &'a DeadLetters,
    /// What letters that were imported before had been filed as.
    known: HashSet<GlobalNo>,
    line: u64,
    batch: Vec<Change>,
    batch_bytes: usize,
    counted: Imported,
    in_batch: Imported,
}

/// One line, as [`DeadLetterView`](crate::record::DeadLetterView) writes it.
#[derive(Deserialize)]
struct Line {
    filed_as: String,
    imported_from: Option<String>,
    idempotency_key: Option<String>,
    reason: String,
    detail: Option<String>,
    created_at: Timestamp,
    route: Option<String>,
    target: Option<String>,
    client_id: Option<String>,
    attempts: Option<u32>,
    first_attempt_at: Option<Timestamp>,
    last_attempt_at: Option<Timestamp>,
    #[serde(default)]
    tries: Vec<Try>,
    topic: String,
    publisher: String,
    user_name: Option<String>,
    qos: u8,
    retain: bool,
    published_at: Option<Timestamp>,
    expires_at: Option<Timestamp>,
    #[serde(default)]
    properties_base64: String,
    payload_base64: String,
}

#[derive(Deserialize)]
struct Try {
    at: Timestamp,
    latency_ms: Option<u32>,
    status: Option<u16>,
    answer: Option<String>,
    error: Option<String>,
}

impl<'a> Import<'a> {
    /// Begins one. Looks through the letters there are for those that were imported before.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn begin(letters: &'a DeadLetters) -> Result<Self, ImportError> {
        let known = letters.blocking(imported_before).await?;
        let (counted, in_batch) = (Imported::default(), Imported::default());
        Ok(Self { letters, known, line: 0, batch: Vec::new(), batch_bytes: 0, counted, in_batch })
    }

    /// Takes the next line, without its end. An empty one is passed over.
    ///
    /// # Errors
    /// When it is no letter, or there is no room for one more. What came before is filed with
    /// [`Import::finish`].
    pub async fn line(&mut self, line: &[u8]) -> Result<(), ImportError> {
        self.line += 1;
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        let wrong = |why| ImportError::Line { line: self.line, why };
        let line: Line = serde_json::from_slice(line).map_err(|error| wrong(without_place(&error)))?;
        let (filed_as, letter) = line.read(&self.letters.broker.store).map_err(wrong)?;
        let origin = letter.imported_from.unwrap_or(filed_as);
        if self.known.contains(&origin) || self.is_there(filed_as).await? || self.is_there(origin).await? {
            self.in_batch.known += 1;
            return Ok(());
        }
        if !self.letters.broker.takes_dead_letters() {
            return Err(ImportError::Full(self.line));
        }
        self.known.insert(origin);
        self.in_batch.imported += 1;
        self.in_batch.new_keys += u64::from(letter.message_no == Lsn::ZERO);
        let mut encoded = Vec::new();
        DeadLetter { imported_from: Some(origin), ..letter }.encode(&mut encoded);
        self.batch_bytes += encoded.len();
        self.batch.push(Change::DeadLetter(Arc::from(encoded)));
        if self.batch.len() >= BATCH_MAX || self.batch_bytes >= BATCH_BYTES_MAX {
            self.file().await?;
        }
        Ok(())
    }

    /// Files what is left, and gives what has become of all lines. Also after an error.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub async fn finish(&mut self) -> Result<Imported, ImportError> {
        self.file().await?;
        Ok(self.counted)
    }

    async fn file(&mut self) -> Result<(), ImportError> {
        if !self.batch.is_empty() {
            let store = &self.letters.broker.store;
            let record = Record::of(std::mem::take(&mut self.batch));
            let entry = store.submit(record).map_err(DeadLettersError::from)?;
            store.durable(entry.lsn).await.map_err(DeadLettersError::from)?;
        }
        self.batch_bytes = 0;
        let Imported { imported, known, new_keys } = std::mem::take(&mut self.in_batch);
        self.counted.imported += imported;
        self.counted.known += known;
        self.counted.new_keys += new_keys;
        Ok(())
    }

    async fn is_there(&self, letter: GlobalNo) -> Result<bool, ImportError> {
        let GlobalNo { store_id, number } = letter;
        let is_own = store_id == self.letters.broker.store.id_of(number);
        Ok(is_own && self.letters.blocking(move |store| find(store, number)).await?.is_some())
    }
}

impl Line {
    /// The letter, and what it was filed as.
    fn read(self, store: &Store) -> Result<(GlobalNo, DeadLetter), String> {
        let number = |text: &str, key| {
            GlobalNo::parse(text).ok_or_else(|| format!("{key} is \"{}\"", excerpt(text.as_bytes(), 64)))
        };
        let filed_as = number(&self.filed_as, "filed_as")?;
        let imported_from =
            self.imported_from.as_deref().map(|text| number(text, "imported_from")).transpose()?;
        let key = self.idempotency_key.as_deref().map(|text| number(text, "idempotency_key")).transpose()?;
        let reason = DeadLetterReason::from_word(&self.reason);
        let reason =
            reason.ok_or_else(|| format!("no reason is \"{}\"", excerpt(self.reason.as_bytes(), 64)))?;
        // A number that was never given out would be that of a message to come.
        let is_own =
            |key: &GlobalNo| key.store_id == store.id_of(key.number) && key.number <= store.last_submitted();
        let letter = DeadLetter {
            message_no: key.filter(is_own).map_or(Lsn::ZERO, |key| key.number),
            detail: self.detail.as_deref().map(safe),
            attempts: self.attempts()?,
            imported_from,
            ..DeadLetter::new(reason, self.addressee()?, self.message()?, millis(self.created_at))
        };
        Ok((filed_as, letter))
    }

    fn addressee(&self) -> Result<Addressee, String> {
        match (&self.route, &self.target, &self.client_id) {
            (Some(route), Some(target), None) => {
                Ok(Addressee::Route { route: route.clone(), target: target.clone() })
            }
            (None, None, Some(client_id)) => Ok(Addressee::Session { client_id: client_id.clone() }),
            (None, None, None) => Ok(Addressee::Nobody),
            _ => Err("it is for a route and its target, or for a client_id, and not for some of each".into()),
        }
    }

    fn attempts(&self) -> Result<Option<Attempts>, String> {
        let Some(count) = self.attempts else { return Ok(None) };
        let (Some(first_at), Some(last_at)) = (self.first_attempt_at, self.last_attempt_at) else {
            return Err("it has attempts, and no first_attempt_at or last_attempt_at".into());
        };
        let mut attempts =
            Attempts { count: 0, first_at: millis(first_at), last_at: millis(last_at), list: Vec::new() };
        for Try { at, latency_ms, status, answer, error } in &self.tries {
            let outcome = match (status, error) {
                (Some(status), None) => AttemptOutcome::Answered {
                    status: *status,
                    excerpt: safe(answer.as_deref().unwrap_or_default()).into(),
                },
                (None, Some(error)) => AttemptOutcome::Failed(safe(error).into()),
                _ => return Err("each of its tries has a status or an error".into()),
            };
            attempts.add(Attempt { at: millis(*at), latency_ms: *latency_ms, outcome }, attempts.last_at);
        }
        Ok(Some(Attempts { count, ..attempts }))
    }

    fn message(&self) -> Result<Message, String> {
        let decode = |text: &str, key| {
            BASE64_STANDARD.decode(text).map_err(|error| format!("{key} is no base64: {error}"))
        };
        let payload = decode(&self.payload_base64, "payload_base64")?;
        let properties = decode(&self.properties_base64, "properties_base64")?;
        if !are_forwarded(&properties) {
            return Err("properties_base64 holds what is no property of a message".into());
        }
        TopicName::parse(&self.topic, u16::MAX).map_err(|error| format!("its topic {error}"))?;
        let names = [Some(&self.publisher), self.user_name.as_ref()];
        if names.into_iter().flatten().any(|name| name.contains('\0') || name.len() > u16::MAX.into()) {
            return Err("its publisher or user_name is none".into());
        }
        let publisher = match &self.user_name {
            Some(user_name) => format!("{}\0{user_name}", self.publisher),
            None => self.publisher.clone(),
        };
        let parts = MessageParts {
            qos: Qos::from_u8(self.qos)
                .filter(|qos| *qos > Qos::AtMostOnce)
                .ok_or("its qos is not 1 or 2")?,
            retain: self.retain,
            published_at: millis(self.published_at.unwrap_or(self.created_at)),
            expires_at: self.expires_at.map_or(UnixMillis::NEVER, millis),
            topic: &self.topic,
            properties: &properties,
            payload: &payload,
            publisher: &publisher,
        };
        Ok(Message::new(&parts, &mut Vec::new()))
    }
}

/// What serde says without the line and column: the line is another one.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split_once(" at line ").map_or(text.clone(), |(what, _)| what.to_owned())
}

/// A text as it could have been written here.
fn safe(text: &str) -> String {
    excerpt(text.as_bytes(), TEXT_MAX.max(EXCERPT_KEPT_MAX))
}

fn millis(at: Timestamp) -> UnixMillis {
    UnixMillis(u64::try_from(at.as_millisecond()).unwrap_or(0))
}

fn imported_before(store: &Store) -> Result<HashSet<GlobalNo>, StoreError> {
    let (mut known, mut cursor) = (HashSet::new(), Lsn::ZERO);
    loop {
        let page = store.read_dead_letters(cursor, BATCH_MAX)?;
        let Some(last) = page.last().map(|last| last.id) else { return Ok(known) };
        cursor = last;
        let letters = page.iter().filter_map(|stored| DeadLetter::decode(&stored.bytes).ok());
        known.extend(letters.filter_map(|letter| letter.imported_from));
    }
}
