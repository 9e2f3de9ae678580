//! How the writer files and discards dead letters, and keeps what was tried with messages that wait for another try.
//!
//! Invariant: what was tried is known of messages that are owed, and goes with the settlement.

use super::state::State;
use super::tables::Tables;
use super::{Registry, StoreError, rows};
use crate::record::{Lsn, RecipientNo, Record, SavedTries};

/// The number of the first dead letter of a record: the last one has that of the record.
pub(super) fn first_letter(Lsn(lsn): Lsn, record: &Record) -> Lsn {
    Lsn((lsn + 1).saturating_sub(record.letters()))
}

impl State {
    pub(super) fn file(
        &mut self,
        tables: &mut Tables<'_>,
        registry: &Registry,
        id: Lsn,
        letter: &[u8],
    ) -> Result<(), StoreError> {
        tables.dead_letters.insert(id.0, letter)?;
        registry.dead_letters.added(letter.len());
        self.letters_changed = true;
        Ok(())
    }

    pub(super) fn discard_letters(
        &mut self,
        tables: &mut Tables<'_>,
        registry: &Registry,
        ids: &[Lsn],
    ) -> Result<(), StoreError> {
        for id in ids {
            if let Some(old) = tables.dead_letters.remove(id.0)? {
                registry.dead_letters.removed(old.value().len());
                self.letters_changed = true;
            }
        }
        Ok(())
    }

    /// Something was tried with messages. Of those that are not owed (any more) nothing is kept.
    pub(super) fn tried(
        &mut self,
        tables: &mut Tables<'_>,
        number: RecipientNo,
        tries: &[(Lsn, SavedTries)],
    ) -> Result<(), StoreError> {
        for (lsn, tries) in tries {
            if !self.is_owed(tables, number, *lsn)? {
                continue;
            }
            let Some(recipient) = self.recipients.get_mut(&number) else { break };
            recipient.tried.insert(*lsn);
            self.row.clear();
            rows::put_tries(&mut self.row, tries);
            tables.tries.insert((number.0, lsn.0), self.row.as_slice())?;
        }
        Ok(())
    }

    fn is_owed(
        &mut self,
        tables: &mut Tables<'_>,
        number: RecipientNo,
        lsn: Lsn,
    ) -> Result<bool, StoreError> {
        let Some(recipient) = self.recipients.get(&number) else { return Ok(false) };
        if lsn > recipient.progress.cursor {
            return Ok(recipient.backlog.has_recent(lsn));
        }
        Ok(recipient.indexed.count > 0 && self.chunks.has(tables, number, lsn)?)
    }
}
