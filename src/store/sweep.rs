//! What discarded recipients were owed goes piece by piece, a part of it with each batch.

use std::sync::Arc;

use super::rows::Indexed;
use super::state::State;
use super::tables::Tables;
use super::{Backlog, StoreError};
use crate::record::{Lsn, RecipientNo};

/// How many messages of a discarded recipient are let go in one batch, so that a large backlog does not hold
/// up those who wait for their acknowledgement.
const SWEEP_MAX: usize = 4096;

/// What somebody was owed who is gone.
#[derive(Debug)]
pub(super) struct Sweep {
    pub(super) recipient: RecipientNo,
    pub(super) backlog: Arc<Backlog>,
    /// How much of it is in the index.
    pub(super) indexed: Indexed,
}

impl State {
    /// Lets go of some of what discarded recipients were owed; more when `sweeps` is not empty after it.
    pub(super) fn sweep(&mut self, tables: &mut Tables<'_>) -> Result<(), StoreError> {
        let mut room = SWEEP_MAX;
        while room > 0
            && let Some(sweep) = self.sweeps.pop_front()
        {
            // The recent ones first: a pass of the index cannot end before.
            let (_, recent) = sweep.backlog.look(Lsn::ZERO, Lsn(u64::MAX), room, |_| false);
            room -= recent.len();
            for lsn in &recent {
                sweep.backlog.remove_recent(*lsn);
                sweep.backlog.freed(self.let_go(tables, *lsn)?);
            }
            let is_done = recent.is_empty() && sweep.indexed.count == 0;
            let sweep = if recent.is_empty() { self.sweep_index(tables, sweep, &mut room)? } else { sweep };
            if !is_done {
                self.sweeps.push_front(sweep);
            }
        }
        Ok(())
    }

    fn sweep_index(
        &mut self,
        tables: &mut Tables<'_>,
        mut sweep: Sweep,
        room: &mut usize,
    ) -> Result<Sweep, StoreError> {
        let numbers = self.chunks.drain(tables, sweep.recipient, *room)?;
        *room -= numbers.len();
        for lsn in &numbers {
            let bytes = self.let_go(tables, *lsn)?;
            sweep.backlog.removed_indexed();
            sweep.backlog.freed(bytes);
            sweep.indexed.settled(bytes);
        }
        if numbers.is_empty() {
            sweep.indexed = Indexed::default();
        }
        self.chunks.write_counts(tables, sweep.recipient, sweep.indexed)?;
        Ok(sweep)
    }
}
