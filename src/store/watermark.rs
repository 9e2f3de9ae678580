//! The durable watermark: every number up to it is on disk, or was skipped as completed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Bell;
use crate::record::Lsn;

/// The watermark and who waits for it.
///
/// Invariant: it only rises, and only after the commit that made it true.
#[derive(Debug, Default)]
pub(super) struct Watermark {
    durable: AtomicU64,
    waiting: Mutex<Vec<(Lsn, Arc<Bell>)>>,
}

impl Watermark {
    /// Starts at a number that is durable already.
    pub(super) fn starting_at(lsn: Lsn) -> Self {
        Self { durable: AtomicU64::new(lsn.0), waiting: Mutex::default() }
    }

    pub(super) fn get(&self) -> Lsn {
        Lsn(self.durable.load(Ordering::Acquire))
    }

    /// Moves the watermark and rings for everyone whose number it has passed.
    pub(super) fn advance(&self, to: Lsn) {
        let due = {
            let mut waiting = self.waiting.lock();
            self.durable.store(to.0, Ordering::Release);
            extract(&mut waiting, |lsn| lsn <= to)
        };
        due.iter().for_each(|bell| bell.ring());
    }

    /// Rings for everyone: the store has failed and no number will pass any more.
    pub(super) fn give_up(&self) {
        let all = extract(&mut self.waiting.lock(), |_| true);
        all.iter().for_each(|bell| bell.ring());
    }

    /// Rings once when the watermark reaches `lsn`; at once when it has already.
    pub(super) fn ring_at(&self, lsn: Lsn, bell: &Arc<Bell>) {
        {
            let mut waiting = self.waiting.lock();
            if self.get() < lsn {
                return waiting.push((lsn, Arc::clone(bell)));
            }
        }
        bell.ring();
    }
}

fn extract(waiting: &mut Vec<(Lsn, Arc<Bell>)>, due: impl Fn(Lsn) -> bool) -> Vec<Arc<Bell>> {
    let mut bells = Vec::new();
    waiting.retain(|(lsn, bell)| {
        let ready = due(*lsn);
        if ready {
            bells.push(Arc::clone(bell));
        }
        !ready
    });
    bells
}
