//! Messages that are given up: filed, counted, told of, and never lost without a trace.
//!
//! Invariant: a letter is in the record of the settlement of its message, and so is what is published of it where
//! its route says so. What is published of a letter becomes no letter that is published again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use smallvec::SmallVec;

use super::fan_out::Full;
use super::matching::Matches;
use super::publish::Routed;
use super::slot::Touched;
use super::{Broker, DurableSlot, Slot};
use crate::codec::{PropertyChanges, Qos};
use crate::record::{
    Addressee, AttemptOutcome, Change, DeadLetter, DeadLetterReason, GlobalNo, Lsn, Message, Record,
};
use crate::session::{Claim, Receipt};
use crate::store::{Bell, SubmitError};
use crate::topic::{TopicFilter, TopicName};

/// How far above their limits dead letters may be, beside an eighth of these, until the oldest are gone.
const AHEAD_LETTERS: u64 = 4096;
const AHEAD_BYTES: u64 = 4 << 20;
/// Letters, and bytes of them, in the record of the message that many queues had no room for. The others are filed
/// before it: a commit must not become too large.
const LETTERS_MAX: usize = 64;
const LETTER_BYTES_MAX: usize = 1 << 20;
/// The path of a message that went wrong is told in user properties with this at the beginning of their names.
const PREFIX: &str = "dead-letter-";
/// Bytes of a text in such a property.
const TEXT_MAX: usize = 1024;

/// What becomes a dead letter at the word of the operator, and how long they are kept.
#[derive(Clone, Debug, Default)]
pub struct DeadLetterRules {
    /// Those that are older are discarded.
    pub age: Option<Duration>,
    /// At their limits the oldest go.
    pub drops_oldest: bool,
    /// Messages that expire in the queue of a session or shared group.
    pub expired: Vec<TopicFilter>,
    /// Messages that are larger than what their client takes.
    pub oversize: Vec<TopicFilter>,
    /// Messages that nobody takes.
    pub unroutable: Vec<TopicFilter>,
}

/// What is known of the room for dead letters.
#[derive(Debug, Default)]
pub(super) struct LetterRoom {
    /// It was said that nine tenths are used.
    was_said: AtomicBool,
    /// It was said that some are lost.
    loss_was_said: AtomicBool,
    /// Rung when the oldest have to go.
    pub(super) bell: Bell,
    /// Rung when one was filed.
    filed: Bell,
}

impl DeadLetterRules {
    /// Those of a broker that keeps only what is given up.
    pub const NONE: Self = Self {
        age: None,
        drops_oldest: false,
        expired: Vec::new(),
        oversize: Vec::new(),
        unroutable: Vec::new(),
    };

    /// Whether a message of this topic that could not be delivered for this reason becomes a dead letter.
    pub(super) fn keeps(&self, reason: DeadLetterReason, topic: &str) -> bool {
        let filters = match reason {
            DeadLetterReason::Expired => &self.expired,
            DeadLetterReason::Oversize => &self.oversize,
            DeadLetterReason::Unroutable => &self.unroutable,
            _ => return true,
        };
        !filters.is_empty()
            && TopicName::parse(topic, u16::MAX)
                .is_ok_and(|topic| filters.iter().any(|filter| filter.matches(&topic)))
    }
}

impl Broker {
    /// Files a dead letter in one record with what else changes: the settlement of the message it is for. With it
    /// goes what its route publishes of it. When there are too many already the letter is dropped and counted; the
    /// rest goes through.
    ///
    /// # Errors
    /// When the store has failed.
    pub fn file_dead_letter(
        &self,
        letter: &DeadLetter,
        mut changes: Vec<Change>,
    ) -> Result<Lsn, SubmitError> {
        changes.extend(self.letter(letter));
        self.file_with(letter, changes)
    }

    fn file_with(&self, letter: &DeadLetter, changes: Vec<Change>) -> Result<Lsn, SubmitError> {
        let filed = match self.announcement(letter) {
            Some(message) => self.announce(message, changes),
            None => Ok(self.store.submit(Record::of(changes))?.lsn),
        };
        // Whoever waits for it looks for what was submitted.
        self.letter_room.filed.ring();
        filed
    }

    /// As [`Broker::file_dead_letter`], but nothing is done, and `None` given, when there are too many.
    ///
    /// # Errors
    /// When the store has failed.
    pub fn file_if_room(
        &self,
        letter: &DeadLetter,
        mut changes: Vec<Change>,
    ) -> Result<Option<Lsn>, SubmitError> {
        // Asked once: between two answers others may have taken the room.
        let Some(filed) = self.encoded_if_room(letter) else { return Ok(None) };
        self.metrics.dead_letter(letter.reason);
        self.count_dead_letter(&letter.addressee);
        changes.push(filed);
        self.file_with(letter, changes).map(Some)
    }

    /// What makes a letter durable with another record. Counts it; `None` when there are too many.
    pub(super) fn letter(&self, letter: &DeadLetter) -> Option<Change> {
        self.metrics.dead_letter(letter.reason);
        self.count_dead_letter(&letter.addressee);
        let filed = self.encoded_if_room(letter);
        if filed.is_none() {
            self.metrics.dropped.dead_letters_full.increment(1);
            self.say_that_letters_are_lost();
        }
        filed
    }

    /// Once, until there was room meanwhile.
    fn say_that_letters_are_lost(&self) {
        if !self.letter_room.loss_was_said.swap(true, Ordering::Relaxed) {
            tracing::error!(
                "there is no room for more dead letters: messages that targets reject are lost, and counted \
                 (dead_letters_full): replay or discard some with `causeway dead-letters`, or raise \
                 limits.dead_letters and limits.dead_letter_bytes"
            );
        }
    }

    fn encoded_if_room(&self, letter: &DeadLetter) -> Option<Change> {
        self.warn_of_limit();
        if !self.takes_dead_letters() {
            return None;
        }
        let mut encoded = Vec::new();
        letter.encode(&mut encoded);
        Some(Change::DeadLetter(encoded.into()))
    }

    /// Whom a message is for that a session has in hand: itself, or a group it acts for. `None` when no disk has it.
    pub fn addressee_of(&self, slot: &Slot, claim: &Claim) -> Option<Addressee> {
        let owns = |queue: Option<&DurableSlot>| queue.is_some_and(|queue| queue.recipient == claim.owner);
        if owns(slot.durable()) {
            return Some(slot.addressee());
        }
        let group = self.group_of(slot, claim).filter(|group| owns(group.durable()))?;
        Some(group.addressee())
    }

    /// The letter of a message that a session, or a group it acts for, does not get, if the operator wants to have
    /// one of it.
    pub fn letter_of_unsent(
        &self,
        message: &Message,
        addressee: Addressee,
        (reason, detail): (DeadLetterReason, Option<String>),
        message_no: Lsn,
    ) -> Option<Change> {
        if !self.limits.letters.keeps(reason, message.topic()) {
            return None;
        }
        let letter = DeadLetter::new(reason, addressee, message.clone(), self.clock.now());
        self.letter(&DeadLetter { message_no, detail, ..letter })
    }

    /// The letters of a message for those that had no room for it: they belong into its record. Those that would
    /// make that too large are filed at once, so that after a crash in between they may be of a message that was
    /// not acknowledged.
    pub(super) fn letters_of_full(
        &self,
        message: &Message,
        full: &Full,
    ) -> Result<SmallVec<[Change; 1]>, SubmitError> {
        let (mut letters, mut bytes) = (SmallVec::<[Change; 1]>::new(), 0);
        for (_, addressee, reason) in full {
            let letter = DeadLetter::new(*reason, addressee.clone(), message.clone(), self.clock.now());
            let Some(change) = self.letter(&letter) else { continue };
            bytes += message.size();
            if letters.len() == LETTERS_MAX || (bytes > LETTER_BYTES_MAX && !letters.is_empty()) {
                self.store.submit(Record::of(letters.drain(..).collect::<Vec<_>>()))?;
                bytes = message.size();
            }
            letters.push(change);
        }
        Ok(letters)
    }

    /// Publishes of the letters of a message what their routes say, each in a record of its own: that of the
    /// message has one message already. Gives the number of the last.
    pub(super) fn announce_full(
        &self,
        message: &Message,
        full: &Full,
        touched: &mut Touched,
    ) -> Result<Option<Lsn>, SubmitError> {
        let mut last = None;
        if !full.is_empty() {
            self.letter_room.filed.ring();
        }
        for (_, addressee, reason) in full {
            let letter = DeadLetter::new(*reason, addressee.clone(), message.clone(), self.clock.now());
            if let Some(message) = self.announcement(&letter) {
                last = Some(self.publish_own(message, Vec::new(), touched)?);
            }
        }
        Ok(last)
    }

    /// Waits for a letter to be filed. It may not be durable yet. One waits.
    pub async fn letter_filed(&self) {
        self.letter_room.filed.heard().await;
    }

    /// Whether there is room for another one.
    pub fn takes_dead_letters(&self) -> bool {
        let (count, bytes) = self.store.dead_letters();
        let (mut count_max, mut bytes_max) = (self.limits.dead_letters, self.limits.dead_letter_bytes);
        if self.limits.letters.drops_oldest {
            if self.is_at_letter_limit() {
                self.letter_room.bell.ring();
            }
            count_max = count_max.saturating_add(count_max / 8).saturating_add(AHEAD_LETTERS);
            bytes_max = bytes_max.saturating_add(bytes_max / 8).saturating_add(AHEAD_BYTES);
        }
        count < count_max && bytes < bytes_max
    }

    /// Whether there are as many as there may be.
    pub(super) fn is_at_letter_limit(&self) -> bool {
        let (count, bytes) = self.store.dead_letters();
        count >= self.limits.dead_letters || bytes >= self.limits.dead_letter_bytes
    }

    /// Says that there is little room left, while something can still be done about it; again when there was
    /// room meanwhile.
    pub(super) fn warn_of_limit(&self) {
        let (count, bytes) = self.store.dead_letters();
        let limits = &self.limits;
        let uses = |tenths| {
            let of = |limit: u64| limit.saturating_mul(tenths).div_ceil(10);
            count >= of(limits.dead_letters) || bytes >= of(limits.dead_letter_bytes)
        };
        if !uses(9) {
            if !uses(7) {
                self.letter_room.was_said.store(false, Ordering::Relaxed);
                self.letter_room.loss_was_said.store(false, Ordering::Relaxed);
            }
            return;
        }
        if self.letter_room.was_said.swap(true, Ordering::Relaxed) {
            return;
        }
        let at_the_limit = if limits.letters.drops_oldest {
            "the oldest are discarded"
        } else {
            "publishes that a full queue would turn into dead letters are refused, and messages that targets \
             reject are lost"
        };
        tracing::warn!(
            count,
            bytes,
            "nine tenths of the limits of dead letters are used. At the limit {at_the_limit}: replay or discard \
             some with `causeway dead-letters`, or raise limits.dead_letters and limits.dead_letter_bytes"
        );
    }

    /// What the route of a letter publishes of it. Nothing of what was published so itself: no client can publish to
    /// a topic that begins with `$`.
    fn announcement(&self, letter: &DeadLetter) -> Option<Message> {
        let Addressee::Route { route: name, .. } = &letter.addressee else { return None };
        let topic = letter.message.topic();
        let route = self.routes().into_iter().find(|route| *route.name == **name)?;
        let prefix = route.dead_letter_topic.as_deref().filter(|_| !topic.starts_with('$'))?;
        let topic = format!("{prefix}/{name}/{topic}");
        let is_topic = TopicName::parse(&topic, u16::MAX).is_ok();
        if !is_topic {
            tracing::warn!(route = &**name, "a dead letter is not published: its topic would be too long");
            return None;
        }
        let properties = self.told_of(letter).apply(letter.message.properties());
        let properties = properties.unwrap_or_else(|_| letter.message.properties().to_vec());
        Some(letter.message.with(&topic, &properties).anew(Qos::AtLeastOnce, self.clock.now()))
    }

    /// User properties that say what went wrong.
    fn told_of(&self, letter: &DeadLetter) -> PropertyChanges {
        let mut changes = PropertyChanges::default();
        let mut tell = |name: &str, value: &str| {
            let value = value.get(..value.floor_char_boundary(TEXT_MAX)).unwrap_or_default();
            changes.set.push((format!("{PREFIX}{name}"), value.to_owned()));
        };
        tell("reason", letter.reason.as_str());
        if let Addressee::Route { route, target } = &letter.addressee {
            tell("route", route);
            tell("target", target);
        }
        if letter.message_no != Lsn::ZERO {
            let (store_id, number) = (self.store.id_of(letter.message_no), letter.message_no);
            tell("key", &GlobalNo { store_id, number }.to_string());
        }
        letter.detail.iter().for_each(|detail| tell("detail", detail));
        if let Some(attempts) = &letter.attempts {
            tell("attempts", &attempts.count.to_string());
            match attempts.last().map(|last| &last.outcome) {
                Some(AttemptOutcome::Answered { status, .. }) => tell("status", &status.to_string()),
                Some(AttemptOutcome::Failed(error)) => tell("error", error),
                None => {}
            }
        }
        changes
    }

    fn announce(&self, message: Message, changes: Vec<Change>) -> Result<Lsn, SubmitError> {
        let mut touched = Touched::default();
        let published = self.publish_own(message, changes, &mut touched);
        touched.ring();
        published
    }

    /// Publishes a message of the broker's own with what else changes. Nothing but a store that has failed refuses
    /// it.
    fn publish_own(
        &self,
        message: Message,
        changes: Vec<Change>,
        touched: &mut Touched,
    ) -> Result<Lsn, SubmitError> {
        let mut matches = Matches::default();
        if let Ok(topic) = TopicName::parse(message.topic(), u16::MAX) {
            matches.find(self, &topic, None);
        }
        if matches.is_empty() {
            return Ok(self.store.submit(Record::of(changes))?.lsn);
        }
        let routed = Routed { changes, goes_through: true, ..Routed::of(message) };
        match self.route(&matches, routed, touched) {
            Receipt::SafeAt(lsn, _) => Ok(lsn),
            Receipt::SafeWith(entry, _) => Ok(entry.lsn),
            // Nobody of them is owed it.
            Receipt::Safe(_) => Ok(self.store.last_submitted()),
            Receipt::Refused(_) => Err(SubmitError::Failed),
        }
    }
}
