//! The switchboard: who is there, what they subscribe to, and where a message goes.
//!
//! It touches no socket, and the disk only through the store: it hands records to that and messages to
//! outboxes. Connections call it from their own tasks; it has no tasks of its own but the one that keeps the
//! timers and the one that publishes `$SYS`.
//!
//! Invariant: a message is handed to the store and to every outbox by the same call, without an await in
//! between, and a record is submitted before any of its legs is delivered.

mod admin;
mod clock;
mod clock_watch;
mod dead_letters;
mod directory;
mod explain;
mod fan_out;
mod give_up;
mod groups;
mod matching;
mod membership;
mod memory;
mod overflow;
mod publish;
mod recovery;
mod redirect;
mod replay;
mod retained;
mod retention;
mod route;
mod slot;
mod space;
mod subscriptions;
mod sys;
#[cfg(test)]
pub(crate) mod tests;
mod timers;
mod turn;
mod unstored;
mod wills;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use dashmap::DashMap;
use foldhash::fast::RandomState;
use parking_lot::Mutex;

pub use admin::{SessionCounts, SessionSummary};
pub use clock::Clock;
#[cfg(test)]
pub(crate) use clock::simulated::WALL_TIME;
pub use dead_letters::DeadLetterRules;
pub use directory::{AttachRequest, Attachment, Departure};
pub(crate) use explain::full_reason;
pub use explain::{
    Guarantee, Kept, Path, PathCounts, Reach, ReachedGroup, ReachedMember, ReachedSession, RetainedSummary,
    Thought, WeakLink, Weakness,
};
pub use groups::{Fetch, Group};
pub use memory::{Memory, MemoryShare};
pub use overflow::Excess;
pub use publish::{PublishContext, Source};
pub use replay::{Replay, ReplayError};
pub use retained::RetainedScan;
pub use route::{Route, RouteFilters};
pub use slot::{DurableSlot, Link, Mode, Slot, Subscription};
pub use space::SpaceUse;

use crate::auth::Authenticator;
use crate::codec::ReasonCode;
use crate::config::{QueueConfig, RedirectConfig, SharedConfig};
use crate::record::{Change, RecipientNo, Record};
use crate::session::SessionLimits;
use crate::store::{Bell, Recovered, Store, sync};
use crate::telemetry::Metrics;
use crate::topic::{RetainedTree, SubscriptionIndex};
use clock::{Beginning, wall_time};
use dead_letters::LetterRoom;
use give_up::Watched;
use matching::Target;
use overflow::OverflowLog;
use retained::{Retained, RetainedTotals};
use timers::Timers;

/// Limits that the broker enforces beyond those of a single session, and what an operator may choose.
#[derive(Clone, Debug)]
pub struct BrokerLimits {
    /// What one client may do.
    pub session: SessionLimits,
    /// Bytes of messages that are buffered in all, beyond the first 64 KiB of each client.
    pub memory: usize,
    /// Bytes of frames that wait in memory for one client.
    pub outbox_bytes: usize,
    /// What waits on disk for one session or shared group.
    pub queue: QueueConfig,
    /// Whether a message that several subscriptions of a session match is one delivery and not several.
    pub merge_overlapping: bool,
    /// Sessions.
    pub sessions: u64,
    /// Subscriptions of one session.
    pub subscriptions_per_session: usize,
    /// Retained messages.
    pub retained_messages: u64,
    /// Bytes of retained messages.
    pub retained_bytes: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Bytes of dead letters.
    pub dead_letter_bytes: u64,
    /// What becomes one, and how long they are kept.
    pub letters: DeadLetterRules,
    /// How long a new connection waits for the old one of its session to leave.
    pub takeover_timeout: Duration,
    /// Which member of a shared group gets a message.
    pub shared: SharedConfig,
    /// Whether a retained message is sent only while its author may publish it.
    pub checks_retained_source: bool,
    /// How long nothing expires after a start with a clock that may be wrong.
    pub clock_grace: Duration,
}

/// The switchboard.
pub struct Broker {
    /// Durable state.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// How it began.
    beginning: Beginning,
    /// Who may do what.
    pub auth: Arc<Authenticator>,
    /// Counters and gauges.
    pub metrics: Arc<Metrics>,
    /// What buffered messages may occupy in all.
    pub memory: Arc<Memory>,
    limits: BrokerLimits,
    directory: DashMap<Arc<str>, Arc<Slot>, RandomState>,
    /// Slots in the directory, counted beside it: counting them would lock one shard after the other.
    sessions: AtomicU64,
    index: SubscriptionIndex<Target, Subscription>,
    groups: DashMap<Box<str>, Arc<Group>, RandomState>,
    routes: Mutex<Vec<Arc<Route>>>,
    /// How often one of them was given other filters.
    route_changes: AtomicU64,
    /// Those that the store has, configured or not.
    known_routes: Mutex<BTreeMap<Box<str>, RecipientNo>>,
    retained: RetainedTree<Retained>,
    retained_totals: Mutex<RetainedTotals>,
    timers: Timers,
    watched: Watched,
    overflow_log: Mutex<OverflowLog>,
    letter_room: LetterRoom,
    /// Why everybody has to leave, once that is so.
    leaving: OnceLock<ReasonCode>,
    /// Where everybody is sent instead.
    redirect: ArcSwapOption<RedirectConfig>,
    /// For slots, groups and routes alike: the index tells its targets apart by it.
    next_id: AtomicU64,
}

impl Broker {
    /// Builds the switchboard from what was found on disk. Sessions can be reached before the first
    /// connection is accepted.
    pub fn new(
        store: Store,
        recovered: Recovered,
        auth: Arc<Authenticator>,
        metrics: Arc<Metrics>,
        limits: BrokerLimits,
    ) -> Arc<Self> {
        let beginning = Beginning::of(store.timeline().newest(), wall_time());
        store.timeline().begin(beginning.at, beginning.last_behind, beginning.behind);
        let broker = Self {
            store,
            clock: Clock::starting_at(beginning.at),
            beginning,
            auth,
            metrics,
            memory: Memory::new(limits.memory),
            limits,
            directory: DashMap::default(),
            sessions: AtomicU64::new(0),
            index: SubscriptionIndex::new(),
            groups: DashMap::default(),
            routes: Mutex::default(),
            route_changes: AtomicU64::new(0),
            known_routes: Mutex::new(recovered.routes.iter().cloned().collect()),
            retained: RetainedTree::new(),
            retained_totals: Mutex::default(),
            timers: Timers::default(),
            watched: Watched::default(),
            overflow_log: Mutex::default(),
            letter_room: LetterRoom::default(),
            leaving: OnceLock::new(),
            redirect: ArcSwapOption::empty(),
            next_id: AtomicU64::new(1),
        };
        if let Some(doubt) = broker.beginning.doubt {
            broker.hold(doubt);
        }
        broker.recover(recovered);
        Arc::new(broker)
    }

    /// The limits in force.
    pub fn limits(&self) -> &BrokerLimits {
        &self.limits
    }

    /// Submits changes that nobody waits for. They are refused only when the store has failed, and then
    /// nothing is acknowledged any more.
    fn submit_unawaited(&self, changes: Vec<Change>) {
        if !changes.is_empty() {
            drop(self.store.submit(Record::of(changes)));
        }
    }

    /// How many sessions there are, with a connection or without.
    fn session_count(&self) -> u64 {
        self.sessions.load(Ordering::Relaxed)
    }

    fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }
}
