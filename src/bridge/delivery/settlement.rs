//! What a route has settled, or tried in vain, and that is still to be written: gathered, because a record for each
//! would cost a disk write for each, and losing a few to a crash costs one repeat under the same idempotency key, or
//! an early retry.
//!
//! Invariant: what is noted is submitted at most [`DELAY_MAX`] later.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::record::{Change, Lsn, RecipientNo, Record, SavedTries, UnixMillis};
use crate::store::{Store, SubmitError};

const DELAY_MAX: Duration = Duration::from_millis(250);
const COUNT_MAX: usize = 512;

/// What one route has settled.
#[derive(Debug)]
pub(super) struct Settlement {
    recipient: RecipientNo,
    numbers: Vec<Lsn>,
    tries: BTreeMap<Lsn, SavedTries>,
    due: UnixMillis,
    last: Lsn,
}

impl Settlement {
    pub(super) fn new(recipient: RecipientNo) -> Self {
        let (numbers, tries) = (Vec::new(), BTreeMap::new());
        Self { recipient, numbers, tries, due: UnixMillis::NEVER, last: Lsn::ZERO }
    }

    pub(super) fn add(&mut self, lsn: Lsn, now: UnixMillis) {
        self.numbers.push(lsn);
        self.tries.remove(&lsn);
        self.due_within(self.numbers.len(), now);
    }

    /// A message waits for another try.
    pub(super) fn tried(&mut self, lsn: Lsn, tries: SavedTries, now: UnixMillis) {
        self.tries.insert(lsn, tries);
        self.due_within(self.tries.len(), now);
    }

    /// When something has to be written.
    pub(super) fn due(&self) -> UnixMillis {
        self.due
    }

    /// Takes everything, to be written with something else.
    pub(super) fn take(&mut self) -> Vec<Change> {
        self.due = UnixMillis::NEVER;
        let (numbers, tries) = (std::mem::take(&mut self.numbers), std::mem::take(&mut self.tries));
        let settled = (!numbers.is_empty()).then_some(Change::Settled(self.recipient, numbers));
        let tried = (!tries.is_empty()).then(|| Change::Tried(self.recipient, tries.into_iter().collect()));
        settled.into_iter().chain(tried).collect()
    }

    /// What was taken is written with this record, or one before it.
    pub(super) fn went_with(&mut self, record: Lsn) {
        self.last = self.last.max(record);
    }

    /// The last record that anything went with.
    pub(super) fn last(&self) -> Lsn {
        self.last
    }

    /// Has it written when it is time.
    ///
    /// # Errors
    /// When the store has failed.
    pub(super) fn submit_if_due(&mut self, now: UnixMillis, store: &Store) -> Result<(), SubmitError> {
        if now < self.due { Ok(()) } else { self.submit(store) }
    }

    /// Has it written now.
    ///
    /// # Errors
    /// When the store has failed.
    pub(super) fn submit(&mut self, store: &Store) -> Result<(), SubmitError> {
        let changes = self.take();
        if !changes.is_empty() {
            self.last = store.submit(Record::of(changes))?.lsn;
        }
        Ok(())
    }

    fn due_within(&mut self, count: usize, now: UnixMillis) {
        let due = if count >= COUNT_MAX { now } else { now.plus(DELAY_MAX) };
        self.due = self.due.min(due);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1000);

    #[test]
    fn what_is_settled_waits_a_quarter_of_a_second_for_more() {
        let mut settlement = Settlement::new(RecipientNo(7));
        assert_eq!((settlement.due(), settlement.take()), (UnixMillis::NEVER, vec![]));
        settlement.add(Lsn(1), NOW);
        settlement.add(Lsn(2), UnixMillis(1100));
        assert_eq!(settlement.due(), UnixMillis(1250), "the oldest decides");
        assert_eq!(settlement.take(), [Change::Settled(RecipientNo(7), vec![Lsn(1), Lsn(2)])]);
        assert_eq!((settlement.due(), settlement.take()), (UnixMillis::NEVER, vec![]));
    }

    #[test]
    fn enough_for_a_record_does_not_wait() {
        let mut settlement = Settlement::new(RecipientNo(7));
        (1..512).for_each(|lsn| settlement.add(Lsn(lsn), NOW));
        assert_eq!(settlement.due(), UnixMillis(1250));
        settlement.add(Lsn(512), NOW);
        assert_eq!(settlement.due(), NOW);
    }

    #[test]
    fn of_what_was_tried_the_last_word_counts() {
        let mut settlement = Settlement::new(RecipientNo(7));
        let tries = |count| SavedTries { count, answers: 0, first_at: NOW, last_at: NOW };
        for (lsn, count) in [(1, 1), (2, 1), (1, 2)] {
            settlement.tried(Lsn(lsn), tries(count), NOW);
        }
        assert_eq!(settlement.due(), UnixMillis(1250));
        settlement.add(Lsn(2), NOW);
        let settled = Change::Settled(RecipientNo(7), vec![Lsn(2)]);
        assert_eq!(settlement.take(), [settled, Change::Tried(RecipientNo(7), vec![(Lsn(1), tries(2))])]);
    }
}
