//! Settled messages that are still to be written: gathered, because a record for each would cost a disk
//! write for each, and losing a few to a crash costs one repeat under the same idempotency key.
//!
//! Invariant: what is settled is submitted at most [`DELAY_MAX`] later.

use std::time::Duration;

use crate::record::{Change, Lsn, RecipientNo, Record, UnixMillis};
use crate::store::{Store, SubmitError};

const DELAY_MAX: Duration = Duration::from_millis(250);
const COUNT_MAX: usize = 512;

/// What one route has settled.
#[derive(Debug)]
pub(super) struct Settlement {
    recipient: RecipientNo,
    numbers: Vec<Lsn>,
    due: UnixMillis,
    last: Lsn,
}

impl Settlement {
    pub(super) fn new(recipient: RecipientNo) -> Self {
        Self { recipient, numbers: Vec::new(), due: UnixMillis::NEVER, last: Lsn::ZERO }
    }

    pub(super) fn add(&mut self, lsn: Lsn, now: UnixMillis) {
        self.numbers.push(lsn);
        let due = if self.numbers.len() >= COUNT_MAX { now } else { now.plus(DELAY_MAX) };
        self.due = self.due.min(due);
    }

    /// When something has to be written.
    pub(super) fn due(&self) -> UnixMillis {
        self.due
    }

    /// Takes everything, to be written with something else.
    pub(super) fn take(&mut self) -> Option<Change> {
        self.due = UnixMillis::NEVER;
        let numbers = std::mem::take(&mut self.numbers);
        (!numbers.is_empty()).then_some(Change::Settled(self.recipient, numbers))
    }

    /// The last record that was submitted here.
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
        if let Some(change) = self.take() {
            self.last = store.submit(Record::of([change]))?.lsn;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1000);

    #[test]
    fn what_is_settled_waits_a_quarter_of_a_second_for_more() {
        let mut settlement = Settlement::new(RecipientNo(7));
        assert_eq!((settlement.due(), settlement.take()), (UnixMillis::NEVER, None));
        settlement.add(Lsn(1), NOW);
        settlement.add(Lsn(2), UnixMillis(1100));
        assert_eq!(settlement.due(), UnixMillis(1250), "the oldest decides");
        assert_eq!(settlement.take(), Some(Change::Settled(RecipientNo(7), vec![Lsn(1), Lsn(2)])));
        assert_eq!((settlement.due(), settlement.take()), (UnixMillis::NEVER, None));
    }

    #[test]
    fn enough_for_a_record_does_not_wait() {
        let mut settlement = Settlement::new(RecipientNo(7));
        (1..512).for_each(|lsn| settlement.add(Lsn(lsn), NOW));
        assert_eq!(settlement.due(), UnixMillis(1250));
        settlement.add(Lsn(512), NOW);
        assert_eq!(settlement.due(), NOW);
    }
}
