//! Who hears of a backlog that grows: whoever gives messages up when there are too many, or when they are too
//! old.
//!
//! The writer tells, because only it knows what a backlog has. It does not look at policies: it compares two
//! numbers, and says whose backlog it is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use parking_lot::Mutex;

use super::Bell;
use crate::record::RecipientNo;

/// Backlogs to be looked at: as many at most as are watched.
#[derive(Debug, Default)]
pub struct Notices {
    waiting: Mutex<BTreeSet<RecipientNo>>,
    /// Rung when there is one more.
    pub bell: Bell,
}

/// What the owner of a backlog wants to hear of.
#[derive(Debug)]
pub struct Watch {
    /// Whose backlog it is.
    pub recipient: RecipientNo,
    /// More messages than this.
    pub messages_max: u64,
    /// More bytes than this.
    pub bytes_max: u64,
    /// Any message, while nobody has said that they look again by themselves.
    pub any: bool,
    /// Where to say so.
    pub notices: Arc<Notices>,
    awaited: AtomicBool,
    told: AtomicBool,
}

impl Notices {
    /// Takes some of those that wait, `max` at most.
    pub fn take(&self, max: usize) -> Vec<RecipientNo> {
        let mut waiting = self.waiting.lock();
        std::iter::from_fn(|| waiting.pop_first()).take(max).collect()
    }

    fn add(&self, recipient: RecipientNo) {
        self.waiting.lock().insert(recipient);
        self.bell.ring();
    }
}

impl Watch {
    /// Tells of more than `messages_max` and `bytes_max`, and with `any` of every message.
    pub fn new(recipient: RecipientNo, notices: &Arc<Notices>) -> Self {
        Self {
            recipient,
            messages_max: u64::MAX,
            bytes_max: u64::MAX,
            any: false,
            notices: Arc::clone(notices),
            awaited: AtomicBool::new(false),
            told: AtomicBool::new(false),
        }
    }

    /// Somebody looks now: what comes from here on is told again.
    pub fn looked(&self) {
        self.awaited.store(false, Ordering::Relaxed);
        self.told.store(false, Ordering::Relaxed);
        // With that in `grown`: what this look does not see finds these flags as they are now.
        fence(Ordering::SeqCst);
    }

    /// Whoever looks will look again, and need not hear of messages as such until then.
    pub fn awaits(&self) {
        self.awaited.store(true, Ordering::Relaxed);
    }

    /// A backlog has grown, or is there when the watch begins.
    pub(super) fn grown(&self, messages: u64, bytes: u64) {
        fence(Ordering::SeqCst);
        let any = self.any && messages > 0 && !self.awaited.load(Ordering::Relaxed);
        let is_due = any || messages > self.messages_max || bytes > self.bytes_max;
        if is_due && !self.told.swap(true, Ordering::Relaxed) {
            self.notices.add(self.recipient);
        }
    }
}
