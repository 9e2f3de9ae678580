//! The places of a target for requests in flight, whose number can change while they are taken.
//!
//! Invariant: when as many as were too many have come back, no more are taken than there are to be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// The places. Who waits longest is next, whatever route it is of.
pub(in crate::bridge) struct Slots {
    free: Arc<Semaphore>,
    /// So many that are taken go when they come back.
    surplus: AtomicUsize,
}

/// One that is taken, until it is dropped.
pub(in crate::bridge) struct Slot {
    permit: Option<OwnedSemaphorePermit>,
    slots: Arc<Slots>,
}

impl Slots {
    pub(in crate::bridge) fn new(count: u32) -> Arc<Self> {
        let free = Arc::new(Semaphore::new(count as usize));
        Arc::new(Self { free, surplus: AtomicUsize::new(0) })
    }

    /// One, if one is free.
    pub(in crate::bridge) fn try_acquire_owned(self: Arc<Self>) -> Result<Slot, TryAcquireError> {
        let permit = Arc::clone(&self.free).try_acquire_owned()?;
        Ok(Slot { permit: Some(permit), slots: self })
    }

    /// One, as soon as one is free.
    pub(in crate::bridge) async fn acquire_owned(self: Arc<Self>) -> Result<Slot, AcquireError> {
        let permit = Arc::clone(&self.free).acquire_owned().await?;
        Ok(Slot { permit: Some(permit), slots: self })
    }

    /// There were so many, and there are to be so many. One change at a time.
    pub(super) fn change(&self, from: u32, to: u32) {
        if to < from {
            let fewer = (from - to) as usize;
            let gone = self.free.forget_permits(fewer);
            self.surplus.fetch_add(fewer - gone, Ordering::AcqRel);
        }
        for _ in from..to {
            if !self.take_surplus() {
                self.free.add_permits(1);
            }
        }
    }

    /// Takes one off those that are too many, if there is any.
    fn take_surplus(&self) -> bool {
        let fewer = |surplus: usize| surplus.checked_sub(1);
        self.surplus.fetch_update(Ordering::AcqRel, Ordering::Acquire, fewer).is_ok()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.slots.take_surplus()
            && let Some(permit) = self.permit.take()
        {
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(slots: &Arc<Slots>) -> Option<Slot> {
        Arc::clone(slots).try_acquire_owned().ok()
    }

    #[test]
    fn what_is_too_much_goes_when_it_comes_back() {
        let slots = Slots::new(4);
        let mut taken: Vec<Slot> = (0..3).map(|_| take(&slots).unwrap()).collect();
        slots.change(4, 1);
        assert!(take(&slots).is_none(), "the free one is gone");
        taken.truncate(1);
        assert!(take(&slots).is_none(), "two came back, and were too many");
        taken.clear();
        assert!(take(&slots).is_some());
    }

    #[test]
    fn what_is_to_go_can_stay_after_all() {
        let slots = Slots::new(4);
        let taken: Vec<Slot> = (0..4).map(|_| take(&slots).unwrap()).collect();
        slots.change(4, 2);
        slots.change(2, 5);
        let fifth = take(&slots);
        assert!(fifth.is_some() && take(&slots).is_none());
        drop((taken, fifth));
        assert_eq!((0..9).map_while(|_| take(&slots)).collect::<Vec<_>>().len(), 5);
    }

    #[tokio::test]
    async fn who_waits_gets_nothing_that_is_to_go() {
        let slots = Slots::new(2);
        let taken = [take(&slots).unwrap(), take(&slots).unwrap()];
        slots.change(2, 1);
        let waits = tokio::spawn(Arc::clone(&slots).acquire_owned());
        tokio::task::yield_now().await;
        let [first, second] = taken;
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        drop(second);
        assert!(waits.await.unwrap().is_ok());
    }
}
