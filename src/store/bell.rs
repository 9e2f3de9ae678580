//! A bell: how somebody who sleeps is told that there is something to look at.

use std::task::{Context, Poll, Waker};

use super::sync::{AtomicBool, AtomicWaker, Ordering};

/// One sleeper, many who ring. Ringing a bell that was rung and not yet heard costs one atomic operation,
/// so that a batch of rings wakes its sleeper once.
///
/// Invariant: a ring is never lost; it is heard by the first [`Bell::poll_heard`] after it.
#[derive(Debug, Default)]
pub struct Bell {
    rung: AtomicBool,
    waker: AtomicWaker,
}

impl Bell {
    /// Wakes the sleeper, unless it has a ring to hear already.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Names who is to be woken, and says whether the bell was rung since it was last heard.
    pub fn poll_heard(&self, waker: &Waker) -> bool {
        self.waker.register(waker);
        self.rung.swap(false, Ordering::AcqRel)
    }

    /// Waits for the next ring.
    pub async fn heard(&self) {
        std::future::poll_fn(
            |cx: &mut Context<'_>| {
                if self.poll_heard(cx.waker()) { Poll::Ready(()) } else { Poll::Pending }
            },
        )
        .await;
    }
}
