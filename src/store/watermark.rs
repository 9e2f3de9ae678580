//! The durable watermark: every number up to it is on disk, or was skipped as completed.

use std::sync::Arc;

use super::Bell;
use super::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use crate::record::Lsn;

/// The watermark and who waits for it.
///
/// Invariant: it only rises, and only after the commit that made it true.
#[derive(Debug, Default)]
pub(super) struct Watermark {
    durable: AtomicU64,
    /// It rises no more: the store has failed.
    given_up: AtomicBool,
    waiting: Mutex<Vec<(Lsn, Arc<Bell>)>>,
}

impl Watermark {
    /// Starts at a number that is durable already.
    pub(super) fn starting_at(lsn: Lsn) -> Self {
        Self { durable: AtomicU64::new(lsn.0), ..Self::default() }
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

    /// Rings for everyone, and for whoever comes later: the store has failed and no number will pass any more.
    pub(super) fn give_up(&self) {
        // Before the lock: who enters the list after it was emptied sees it.
        self.given_up.store(true, Ordering::Release);
        let all = extract(&mut self.waiting.lock(), |_| true);
        all.iter().for_each(|bell| bell.ring());
    }

    pub(super) fn has_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    /// Rings once when the watermark reaches `lsn`; at once when it has already, or never will.
    pub(super) fn ring_at(&self, lsn: Lsn, bell: &Arc<Bell>) {
        {
            let mut waiting = self.waiting.lock();
            if self.get() < lsn && !self.has_given_up() {
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
