//! Messages that are given up: filed, counted, and never lost without a trace.

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
        let letter = DeadLetter {
            message_no: Lsn::ZERO,
            reason,
            addressee,
            message: message.clone(),
            attempts: None,
            created_at: self.clock.now(),
        };
        self.file_dead_letter(&letter, Vec::new())
    }

    /// Files a dead letter in one record with what else changes: the settlement of the message it is for.
    /// When there are too many already the letter is dropped, counted and said so; the rest goes through.
    ///
    /// # Errors
    /// When the store has failed.
    pub fn file_dead_letter(
        &self,
        letter: &DeadLetter,
        mut changes: Vec<Change>,
    ) -> Result<Lsn, SubmitError> {
        self.metrics.dead_letter(letter.reason);
        let (count, bytes) = self.store.dead_letters();
        if count < self.limits.dead_letters && bytes < self.limits.dead_letter_bytes {
            let mut encoded = Vec::new();
            letter.encode(&mut encoded);
            changes.push(Change::DeadLetter(encoded.into()));
        } else {
            self.metrics.dropped.dead_letters_full.increment(1);
            self.dead_letters_full();
        }
        Ok(self.store.submit(Record::of(changes))?.lsn)
    }

    /// Says that dead letters are lost; once until the broker starts again, because it is the same trouble.
    fn dead_letters_full(&self) {
        static SAID: std::sync::Once = std::sync::Once::new();
        SAID.call_once(|| {
            tracing::error!(
                limit = self.limits.dead_letters,
                "the limit of dead letters is reached: further ones are lost. Replay or discard some with \
                 `causeway dead-letters`, or raise limits.dead_letters"
            );
        });
    }
}
