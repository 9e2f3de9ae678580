//! A bell, heard by one thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use crate::store::Bell;

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
