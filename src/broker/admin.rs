//! What an operator asks about sessions.

use std::cmp::Reverse;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Broker, Mode, Slot};
use crate::codec::ReasonCode;
use crate::config::QueueView;
use crate::record::UnixMillis;

/// A session as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSummary {
    /// The client id.
    pub client_id: String,
    /// Whether a connection has it.
    pub online: bool,
    /// Whether it outlives its connection.
    pub durable: bool,
    /// Messages on disk that it is owed.
    pub queued_messages: u64,
    /// Bytes on disk that are kept for it.
    pub queued_bytes: u64,
    /// How much that may be; `null` when it ends with its connection.
    pub queue: Option<QueueView>,
    /// The number of the oldest of them.
    pub oldest: Option<u64>,
    /// How long ago the oldest was published, in seconds.
    pub oldest_age_seconds: Option<u64>,
    /// How many subscriptions it has.
    pub subscriptions: u64,
    /// When its last connection ended, in milliseconds since 1970.
    pub disconnected_at: Option<u64>,
    /// Seconds that it outlives its connection.
    pub expiry_seconds: u32,
}

/// How many sessions there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounts {
    /// All of them.
    pub all: u64,
    /// Those without a connection.
    pub offline: u64,
    /// Those whose connection reads from the disk what it is owed.
    pub in_backlog: u64,
}

impl Broker {
    /// Some of the sessions, and how many there are in all. Those that pin the most bytes come first. Blocks
    /// on the disk.
    pub fn session_page(&self, offset: usize, limit: usize) -> (Vec<SessionSummary>, usize) {
        type Key = (Reverse<u64>, Arc<Slot>);
        let order = |a: &Key, b: &Key| a.0.cmp(&b.0).then_with(|| a.1.client_id.cmp(&b.1.client_id));
        let pinned = |slot: &Slot| slot.durable().map_or(0, |durable| durable.backlog.bytes());
        // The bytes are read once: they move, and an order that moves is none.
        let mut keys: Vec<Key> =
            self.slots().into_iter().map(|slot| (Reverse(pinned(&slot)), slot)).collect();
        let (total, end) = (keys.len(), offset.saturating_add(limit));
        if end < total {
            keys.select_nth_unstable_by(end, order);
            keys.truncate(end);
        }
        keys.sort_unstable_by(order);
        let page =
            keys.iter().skip(offset).map(|(_, slot)| self.with_oldest(slot, self.summary(slot))).collect();
        (page, total)
    }

    /// One session.
    pub fn summary(&self, slot: &Slot) -> SessionSummary {
        let backlog = slot.durable().map(|durable| &durable.backlog);
        let inner = slot.lock();
        SessionSummary {
            client_id: slot.client_id.to_string(),
            online: inner.link.is_some(),
            durable: backlog.is_some(),
            queued_messages: backlog.map_or(0, |backlog| backlog.count()),
            queued_bytes: backlog.map_or(0, |backlog| backlog.bytes()),
            queue: backlog.map(|_| self.limits.queue.into()),
            oldest: None,
            oldest_age_seconds: None,
            subscriptions: inner.subscriptions.len() as u64,
            disconnected_at: inner.closed_at.map(|at| at.0),
            expiry_seconds: inner.expiry,
        }
    }

    /// The filters of a session's subscriptions, as the client wrote them, in order.
    pub fn subscription_filters(&self, slot: &Slot) -> Vec<String> {
        let mut filters: Vec<_> = slot.lock().subscriptions.keys().map(ToString::to_string).collect();
        filters.sort_unstable();
        filters
    }

    /// Reads which is the oldest message of a session, and how old it is. Blocks on the disk.
    pub fn with_oldest(&self, slot: &Slot, mut summary: SessionSummary) -> SessionSummary {
        let oldest = slot.durable().and_then(|durable| self.store.oldest(durable.recipient).ok().flatten());
        summary.oldest = oldest.map(|lsn| lsn.0);
        let published = oldest.and_then(|lsn| self.store.published_at(lsn).ok().flatten());
        summary.oldest_age_seconds = published.map(|at| self.clock.now().since(at).as_secs());
        summary
    }

    /// Ends a session, with its connection if it has one. False when there is none of that name.
    pub fn delete_session(&self, client_id: &str) -> bool {
        let Some(slot) = self.find(client_id) else { return false };
        if let Some(link) = slot.link() {
            link.evict(ReasonCode::AdministrativeAction);
        }
        self.end_session(&slot);
        true
    }

    /// Counts the sessions.
    pub fn session_counts(&self) -> SessionCounts {
        let mut counts = SessionCounts::default();
        for slot in self.slots() {
            let mode = slot.lock().mode;
            counts.all += 1;
            counts.offline += u64::from(mode == Mode::Offline);
            counts.in_backlog += u64::from(mode == Mode::Backlog);
        }
        counts
    }

    /// When the oldest message that anybody is owed was published, for the age of the backlog. Blocks on the
    /// disk.
    pub fn oldest_unsettled(&self) -> Option<UnixMillis> {
        self.store.oldest_published_at().ok().flatten()
    }
}
