//! What an operator asks about sessions.

use std::sync::Arc;

use serde::Serialize;

use super::{Broker, Mode, Slot};
use crate::record::{Lsn, UnixMillis};

/// A session as it is listed.
#[derive(Clone, Debug, Serialize)]
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
    /// The number of the oldest of them.
    pub oldest: Option<u64>,
    /// How long ago the oldest was published, in seconds.
    pub oldest_age_seconds: Option<u64>,
    /// Its subscriptions.
    pub subscriptions: Vec<String>,
    /// When its last connection ended, in milliseconds since 1970.
    pub disconnected_at: Option<u64>,
    /// Seconds that it outlives its connection.
    pub expiry_seconds: u32,
}

impl Broker {
    /// All sessions, those that pin the most bytes first.
    pub fn session_summaries(&self) -> Vec<SessionSummary> {
        let mut summaries: Vec<_> = self.slots().iter().map(|slot| self.summary(slot)).collect();
        summaries
            .sort_by(|a, b| b.queued_bytes.cmp(&a.queued_bytes).then_with(|| a.client_id.cmp(&b.client_id)));
        summaries
    }

    /// One session.
    pub fn summary(&self, slot: &Slot) -> SessionSummary {
        let backlog = slot.durable().map(|durable| &durable.backlog);
        let oldest = backlog.and_then(|backlog| backlog.oldest());
        let inner = slot.lock();
        let mut subscriptions: Vec<_> = inner.subscriptions.keys().map(ToString::to_string).collect();
        subscriptions.sort();
        SessionSummary {
            client_id: slot.client_id.to_string(),
            online: inner.link.is_some(),
            durable: backlog.is_some(),
            queued_messages: backlog.map_or(0, |backlog| backlog.count()),
            queued_bytes: backlog.map_or(0, |backlog| backlog.bytes()),
            oldest: oldest.map(|lsn| lsn.0),
            oldest_age_seconds: None,
            subscriptions,
            disconnected_at: inner.closed_at.map(|at| at.0),
            expiry_seconds: inner.expiry,
        }
    }

    /// Reads how old the oldest message of a session is. Blocks on the disk.
    pub fn with_age(&self, mut summary: SessionSummary) -> SessionSummary {
        let published = summary.oldest.and_then(|lsn| self.store.published_at(Lsn(lsn)).ok().flatten());
        summary.oldest_age_seconds = published.map(|at| self.clock.now().since(at).as_secs());
        summary
    }

    /// Ends a session, with its connection if it has one. False when there is none of that name.
    pub fn delete_session(&self, client_id: &str) -> bool {
        let Some(slot) = self.find(client_id) else { return false };
        let link = slot.link();
        if let Some(link) = link {
            link.evict(crate::codec::ReasonCode::AdministrativeAction);
        }
        self.end_session(&slot);
        true
    }

    /// How many sessions there are, and how many of them have no connection.
    pub fn session_counts(&self) -> (u64, u64) {
        let slots = self.slots();
        let offline = slots.iter().filter(|slot| slot.lock().mode == Mode::Offline).count();
        (slots.len() as u64, offline as u64)
    }

    /// When the oldest message that anybody is owed was published, for the age of the backlog.
    pub fn oldest_unsettled(&self) -> Option<UnixMillis> {
        let slots = self.slots();
        let sessions = slots.iter().filter_map(|slot| slot.durable()?.backlog.oldest());
        let routes = self.routes();
        let routes = routes.iter().filter_map(|route: &Arc<super::Route>| route.backlog.oldest());
        let oldest = sessions.chain(routes).min()?;
        self.store.published_at(oldest).ok().flatten()
    }
}
