//! Messages that are given up: filed, counted, and never lost without a trace.

use std::sync::Once;

use super::Broker;
use crate::record::{Addressee, Change, DeadLetter, DeadLetterReason, Lsn, Message, Record};
use crate::store::SubmitError;

impl Broker {
    /// Files a message that was given up before anybody tried to deliver it, and gives the number that
    /// makes this durable.
    pub(super) fn give_up_unsent(
        &self,
        message: &Message,
        addressee: Addressee,
        reason: DeadLetterReason,
    ) -> Result<Lsn, SubmitError> {
        let letter = DeadLetter::new(reason, addressee, message.clone(), self.clock.now());
        self.file_dead_letter(&letter, Vec::new())
    }

    /// Files a dead letter in one record with what else changes: the settlement of the message it is for.
    /// When there are too many already the letter is dropped and counted; the rest goes through.
    ///
    /// # Errors
    /// When the store has failed.
    pub fn file_dead_letter(
        &self,
        letter: &DeadLetter,
        mut changes: Vec<Change>,
    ) -> Result<Lsn, SubmitError> {
        self.metrics.dead_letter(letter.reason);
        self.count_dead_letter(&letter.addressee);
        self.warn_of_limit();
        if self.takes_dead_letters() {
            let mut encoded = Vec::new();
            letter.encode(&mut encoded);
            changes.push(Change::DeadLetter(encoded.into()));
        } else {
            self.metrics.dropped.dead_letters_full.increment(1);
        }
        Ok(self.store.submit(Record::of(changes))?.lsn)
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
        self.warn_of_limit();
        if !self.takes_dead_letters() {
            return Ok(None);
        }
        self.metrics.dead_letter(letter.reason);
        let mut encoded = Vec::new();
        letter.encode(&mut encoded);
        changes.push(Change::DeadLetter(encoded.into()));
        Ok(Some(self.store.submit(Record::of(changes))?.lsn))
    }

    /// Whether there is room for another one.
    pub fn takes_dead_letters(&self) -> bool {
        let (count, bytes) = self.store.dead_letters();
        count < self.limits.dead_letters && bytes < self.limits.dead_letter_bytes
    }

    /// Says that there is little room left, while something can still be done about it; once until the
    /// broker starts again, because it is the same trouble.
    pub(super) fn warn_of_limit(&self) {
        static SAID: Once = Once::new();
        let (count, bytes) = self.store.dead_letters();
        let limits = &self.limits;
        if count >= limits.dead_letters / 10 * 9 || bytes >= limits.dead_letter_bytes / 10 * 9 {
            SAID.call_once(|| {
                tracing::warn!(
                    count,
                    bytes,
                    "nine tenths of the limits of dead letters are used. At the limit publishes that a full \
                     queue would turn into dead letters are refused, and messages that targets reject are \
                     lost: replay or discard some with `causeway dead-letters`, or raise limits.dead_letters \
                     and limits.dead_letter_bytes"
                );
            });
        }
    }
}
