//! The buffers of a worker thread: connections borrow them for the length of one poll.

use std::cell::RefCell;

use crate::session::Outgoing;

/// Bytes that one read takes at most.
pub(super) const READ_MAX: usize = 64 * 1024;

/// Above this the write buffer is given back after use.
const KEPT_MAX: usize = 1024 * 1024;

/// Buffers that belong to the thread.
pub(super) struct Scratch {
    pub(super) read: Box<[u8]>,
    /// Empty between polls.
    pub(super) out: Outgoing,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        RefCell::new(Scratch { read: vec![0; READ_MAX].into_boxed_slice(), out: Outgoing::default() });
}

/// Lends the thread's buffers. Not to be called again inside `work`.
pub(super) fn with<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| {
        // A connection that panicked here has left bytes that are for nobody else.
        scratch.out.clear();
        let result = work(scratch);
        scratch.out.clear();
        if scratch.out.bytes.capacity() > KEPT_MAX {
            scratch.out = Outgoing::default();
        }
        result
    })
}
