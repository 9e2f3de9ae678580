//! When wills and session expiries are due. The slot owns them; this only knows when to look.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::slot::SlotInner;
use super::{Broker, Mode, Slot};
use crate::record::UnixMillis;
use crate::store::Bell;

/// How long the timers sleep at most, so that a machine that was suspended is noticed.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Slots to look at, by time. A slot is in here once, and perhaps for nothing.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: Mutex<BTreeMap<(UnixMillis, u64), Weak<Slot>>>,
    bell: Bell,
}

impl Timers {
    /// Has the slot looked at by this time. A client that comes and goes has one place in
    /// here, not one for each time.
    fn schedule(&self, slot: &Arc<Slot>, inner: &mut SlotInner, at: UnixMillis) {
        if inner.wakes_at.is_some_and(|known| known <= at) {
            return;
        }
        self.forget(slot, inner);
        inner.wakes_at = Some(at);
        let mut due = self.due.lock();
        let is_first = due.first_key_value().is_none_or(|((first, _), _)| at < *first);
        due.insert((at, slot.id), Arc::downgrade(slot));
        drop(due);
        if is_first {
            self.bell.ring();
        }
    }

    /// Takes the slot out.
    pub(super) fn forget(&self, slot: &Slot, inner: &mut SlotInner) {
        if let Some(at) = inner.wakes_at.take() {
            self.due.lock().remove(&(at, slot.id));
        }
    }

    fn take_due(&self, now: UnixMillis) -> Vec<Arc<Slot>> {
        let mut due = self.due.lock();
        let later = due.split_off(&(UnixMillis(now.0 + 1), 0));
        let now_due = std::mem::replace(&mut *due, later);
        now_due.into_values().filter_map(|slot| slot.upgrade()).collect()
    }

    /// How many slots are looked at some time.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.due.lock().len()
    }

    fn first(&self) -> Option<UnixMillis> {
        self.due.lock().first_key_value().map(|((at, _), _)| *at)
    }
}

impl Broker {
    /// Has the slot looked at when its will or its end is due.
    pub(super) fn schedule(&self, slot: &Arc<Slot>, inner: &mut SlotInner) {
        let will = inner.will.as_ref().and_then(|will| will.due);
        let first = [inner.expires_at(), will].into_iter().flatten().min();
        let Some((closed_at, due)) = inner.closed_at.zip(first) else { return };
        self.timers.schedule(slot, inner, self.store.timeline().due(closed_at, due));
    }

    /// Looks at all slots again, because deadlines from before the start count for something else now.
    pub(super) fn reschedule_all(&self) {
        for slot in self.directory.iter() {
            let mut inner = slot.lock();
            if inner.link.is_none() && inner.mode != Mode::Ended {
                self.schedule(&slot, &mut inner);
            }
        }
    }

    /// Publishes wills and ends sessions when they are due: never early, and within a second. Runs for as
    /// long as the broker.
    pub async fn run_timers(&self) {
        loop {
            let now = self.clock.now();
            for slot in self.timers.take_due(now) {
                self.handle_time(&slot, now);
            }
            let sleep = self.timers.first().map_or(SLEEP_MAX, |at| at.since(now).min(SLEEP_MAX));
            // A bell that rings before the time says that something earlier was scheduled.
            let _ = tokio::time::timeout(sleep, self.timers.bell.heard()).await;
        }
    }
}
