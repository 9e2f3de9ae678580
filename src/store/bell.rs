//! A bell: how somebody who sleeps is told that there is something to look at.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use atomic_waker::AtomicWaker;

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn many_rings_wake_once_and_none_is_lost() {
        let (bell, woken) = (Bell::default(), Arc::new(Woken::default()));
        let waker = Waker::from(Arc::clone(&woken));
        bell.ring();
        assert!(bell.poll_heard(&waker), "rung before anybody listened");
        assert!(!bell.poll_heard(&waker), "heard once");
        (0..5).for_each(|_| bell.ring());
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert!(bell.poll_heard(&waker));
        bell.ring();
        assert!(bell.poll_heard(&waker));
    }
}
