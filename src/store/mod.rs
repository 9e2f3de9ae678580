//! Durable state in redb: records in, a watermark out.
//!
//! Whoever needs something to be durable submits a [`Record`] and gets its number; once
//! [`Store::watermark`] has reached it, the record is on disk, or every leg of it was completed before the
//! writer came to it. Reading goes page by page and never beyond the watermark.
//!
//! Invariant: no redb type leaves this room, and nothing is acknowledged after a write has failed.

mod backup;
mod bell;
mod beside;
mod bytes;
mod check;
mod check_rows;
mod compact;
mod error;
mod given_up;
mod index;
mod indexing;
mod metrics;
mod notices;
mod overlay;
mod patience;
mod pauses;
mod pending;
mod queue;
mod read;
mod recover;
mod restore;
mod room;
mod rows;
mod runs;
mod shared_rows;
mod state;
mod sweep;
pub(crate) mod sync;
mod tables;
#[cfg(test)]
pub(crate) mod tests;
mod timeline;
mod watermark;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use dashmap::DashMap;
use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::watch;

pub use backup::{BackupProgress, backup};
pub use bell::Bell;
pub(crate) use beside::beside;
#[cfg(test)]
pub(crate) use beside::simulated::set_delay;
pub use check::{Amount, CheckReport, Pin, PinKind, Space, check, check_file};
pub use compact::{Compacted, compact};
pub use error::{StoreError, SubmitError};
pub use notices::{Notices, Watch};
pub use pending::Backlog;
pub use queue::{Entry, Strike};
pub use read::{Page, Stored, StoredDeadLetter};
pub use recover::Recovered;
pub use restore::{RestoreError, Restored, restore};
pub use rows::{Progress, SessionRow};
pub use timeline::Timeline;

use crate::record::{Lsn, RecipientNo, Record};

/// The name of the database in its folder.
pub const FILE: &str = "causeway.redb";

/// How the store is opened.
#[derive(Clone, Copy, Debug)]
pub struct StoreSettings {
    /// Bytes of page cache.
    pub cache_size: usize,
    /// Time between commits at least; zero commits as soon as the last one is done.
    pub commit_interval: Duration,
    /// Bytes of records that go into one commit.
    pub batch_bytes_max: usize,
    /// Bytes of records that may wait before readers are slowed.
    pub queue_bytes_max: usize,
    /// Whether a file of which more than half is free is compacted.
    pub compact_at_start: bool,
    /// Deliveries that are known in memory before they go into the index on disk; a start reads as many.
    pub recent_max: u64,
}

impl StoreSettings {
    /// What [`StoreSettings::recent_max`] is for a broker: some 10 MB of memory, and a tenth of a second of
    /// each start.
    pub const RECENT_MAX: u64 = 262_144;
}

/// The store. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
    database: Arc<redb::Database>,
    writer: Arc<Mutex<Option<JoinHandle<()>>>>,
    ids: StoreIds,
    secret: Secret,
    queue_bytes_max: usize,
}

/// The ids of this database, each for the numbers that were given out while it had it.
#[derive(Clone, Debug)]
struct StoreIds {
    current: u64,
    /// Rising: the numbers below belong to the id, those from there on to the next one.
    former: Arc<[(u64, u64)]>,
}

/// Random bytes that no log shows.
#[derive(Clone, Copy)]
struct Secret([u8; 32]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What the writer and its customers have in common.
#[derive(Debug)]
struct Shared {
    queue: queue::Queue,
    watermark: watermark::Watermark,
    registry: Registry,
    metrics: metrics::StoreMetrics,
    failure: watch::Sender<Option<String>>,
    room: room::Room,
    timeline: Timeline,
    over_budget: AtomicBool,
}

/// Recipients by number, for those outside the writer.
#[derive(Debug, Default)]
struct Registry {
    backlogs: DashMap<RecipientNo, Arc<Backlog>, RandomState>,
    next_recipient: AtomicU64,
    dead_letters: Occupancy,
    /// Messages that somebody is owed. The writer's state counts them.
    messages: Arc<Occupancy>,
}

/// How many rows there are, and how much they occupy.
#[derive(Debug, Default)]
struct Occupancy {
    count: AtomicU64,
    bytes: AtomicU64,
}

impl Store {
    /// Opens the database in `directory`, making it if there is none, and starts the writer.
    ///
    /// # Errors
    /// When another process has it, a later version wrote it, it is damaged, or the disk says no. Nothing
    /// is changed then.
    pub fn open(directory: &Path, settings: &StoreSettings) -> Result<(Self, Recovered), StoreError> {
        let path = directory.join(FILE);
        let registry = Registry::default();
        let opened = recover::guarded(|| {
            let database = recover::open(&path, settings.cache_size)?;
            let mut opened = recover::load(database, &path, &registry)?;
            if let Some(database) = Arc::get_mut(&mut opened.database).filter(|_| settings.compact_at_start) {
                let stored = opened.state.stored.get().1 + registry.dead_letters.get().1;
                compact::at_start(database, &path, stored)?;
            }
            Ok(opened)
        })?;
        Self::start(opened, registry, settings)
    }

    fn start(
        opened: recover::Opened,
        registry: Registry,
        settings: &StoreSettings,
    ) -> Result<(Self, Recovered), StoreError> {
        let (store, writer, recovered) = Self::assemble(opened, registry, settings);
        let thread = std::thread::Builder::new().name("store".into()).spawn(move || writer.run());
        let thread = thread.map_err(|e| StoreError::Failed(format!("no thread for the writer: {e}")))?;
        *store.writer.lock() = Some(thread);
        Ok((store, recovered))
    }

    /// A store, and its writer, which does not run yet.
    fn assemble(
        mut opened: recover::Opened,
        mut registry: Registry,
        settings: &StoreSettings,
    ) -> (Self, writer::Writer, Recovered) {
        opened.state.recent_max = settings.recent_max;
        registry.messages = Arc::clone(&opened.state.stored);
        registry.next_recipient.store(opened.state.next_recipient, Ordering::Relaxed);
        let shared = Arc::new(Shared {
            queue: queue::Queue::new(opened.first, opened.reserved),
            watermark: watermark::Watermark::starting_at(Lsn(opened.first.0 - 1)),
            registry,
            metrics: metrics::StoreMetrics::new(),
            failure: watch::Sender::default(),
            room: room::Room::default(),
            timeline: Timeline::new(opened.times),
            over_budget: AtomicBool::new(false),
        });
        let writer = writer::Writer {
            database: Arc::clone(&opened.database),
            shared: Arc::clone(&shared),
            state: opened.state,
            reserved: opened.reserved,
            commit_interval: settings.commit_interval,
            batch_bytes_max: settings.batch_bytes_max,
        };
        let store = Self {
            shared,
            database: opened.database,
            writer: Arc::default(),
            ids: opened.ids,
            secret: opened.secret,
            queue_bytes_max: settings.queue_bytes_max,
        };
        (store, writer, opened.recovered)
    }

    /// Drawn when the database was made, and again when it is restored from a backup: with a message number it
    /// names a message for ever.
    pub fn id_of(&self, number: Lsn) -> u64 {
        self.ids.of(number)
    }

    /// Drawn once for this database, and told to nobody: what is derived from it stays the same over restarts.
    pub fn secret(&self) -> [u8; 32] {
        self.secret.0
    }

    /// Gives the record a number and a place in the writer's queue. Never blocks.
    ///
    /// # Errors
    /// When the store has failed or was closed.
    pub fn submit(&self, record: Record) -> Result<Arc<Entry>, SubmitError> {
        self.shared.queue.submit(record)
    }

    /// The number of the record that was submitted last, by whoever.
    pub fn last_submitted(&self) -> Lsn {
        self.shared.queue.last()
    }

    /// Whether a publish that needs the disk may be accepted.
    ///
    /// # Errors
    /// When the store has failed, the disk is nearly full, or the database is nearly as large as it may be.
    /// Settlements, releases and resumes go through all the same.
    pub fn admits_publish(&self) -> Result<(), SubmitError> {
        if self.has_failed() {
            return Err(SubmitError::Failed);
        }
        if !self.shared.room.is_left(self.shared.queue.bytes_ever()) {
            return Err(SubmitError::Full);
        }
        if self.shared.over_budget.load(Ordering::Relaxed) {
            return Err(SubmitError::OverBudget);
        }
        Ok(())
    }

    /// Says whether the disk has room, from whoever looks at it.
    pub fn set_disk_full(&self, full: bool) {
        self.shared.room.set_full(full);
    }

    /// Whether publishes are refused: somebody has said that the disk is full, or more was taken since than
    /// there was room for.
    pub fn is_disk_full(&self) -> bool {
        self.shared.room.is_full()
    }

    /// Waits until half of the room is used that was seen last: time to look again.
    pub async fn room_shrinks(&self) {
        self.shared.room.bell.heard().await;
    }

    /// Says how many bytes may be written before the disk counts as full, and how many with what is kept free
    /// for commits, from whoever looks at it. Until it is said again, publishes are admitted as long as they fit
    /// in.
    pub fn set_room(&self, bytes: u64, for_commits: u64) {
        self.shared.room.set_for_commits(for_commits);
        // In this order: a record that comes in between counts as waiting.
        let ever = self.shared.queue.bytes_ever();
        self.shared.room.set_left(bytes, ever, self.shared.queue.bytes() as u64);
    }

    /// What the times that are stored count for.
    pub fn timeline(&self) -> &Timeline {
        &self.shared.timeline
    }

    /// Says whether the database is nearly as large as it may be, from whoever looks at it.
    pub fn set_over_budget(&self, over: bool) {
        self.shared.over_budget.store(over, Ordering::Relaxed);
    }

    /// Every number up to this one is durable, or was skipped as completed.
    pub fn watermark(&self) -> Lsn {
        self.shared.watermark.get()
    }

    /// Rings `bell` once when the watermark has reached `lsn`, or when the store fails.
    pub fn ring_at(&self, lsn: Lsn, bell: &Arc<Bell>) {
        self.shared.watermark.ring_at(lsn, bell);
    }

    /// Waits until `lsn` is durable.
    ///
    /// # Errors
    /// When the store fails before.
    pub async fn durable(&self, lsn: Lsn) -> Result<(), SubmitError> {
        let bell = Arc::new(Bell::default());
        while self.watermark() < lsn {
            if self.has_failed() {
                return Err(SubmitError::Failed);
            }
            self.ring_at(lsn, &bell);
            bell.heard().await;
        }
        Ok(())
    }

    /// Whether more waits for the writer than it should: whoever reads from a network stops for a while.
    pub fn is_congested(&self) -> bool {
        self.shared.queue.bytes() > self.queue_bytes_max
    }

    /// A number for a new session, group or route, and what it will be owed. It becomes durable with the
    /// record that opens the recipient.
    pub fn new_recipient(&self) -> (RecipientNo, Arc<Backlog>) {
        let number = RecipientNo(self.shared.registry.next_recipient.fetch_add(1, Ordering::Relaxed));
        (number, self.shared.registry.enter(number))
    }

    /// What a recipient is owed: nothing when it was discarded.
    pub fn backlog(&self, number: RecipientNo) -> Arc<Backlog> {
        self.shared.registry.backlog(number)
    }

    /// Dead letters kept: how many, and their bytes.
    pub fn dead_letters(&self) -> (u64, u64) {
        self.shared.registry.dead_letters.get()
    }

    /// Messages that somebody is owed, retained ones apart: how many, and their bytes.
    pub fn messages(&self) -> (u64, u64) {
        self.shared.registry.messages.get()
    }

    /// Whether a write has failed. From then on nothing is acknowledged.
    pub fn has_failed(&self) -> bool {
        self.shared.watermark.has_given_up()
    }

    /// Waits for the store to fail and says why.
    pub async fn failure(&self) -> String {
        let mut failure = self.shared.failure.subscribe();
        let known = failure.wait_for(Option::is_some).await;
        known.ok().and_then(|text| text.clone()).unwrap_or_default()
    }

    /// Writes what waits and ends the writer; what is submitted later is refused. The files are free when the
    /// last clone is dropped, too.
    pub fn close(&self) {
        self.shared.queue.close();
        let thread = self.writer.lock().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the store's writer has panicked");
        }
    }
}

impl StoreIds {
    fn of(&self, Lsn(number): Lsn) -> u64 {
        let former = self.former.iter().find(|(below, _)| number < *below);
        former.map_or(self.current, |(_, id)| *id)
    }
}

impl Shared {
    /// Poisons the store: a failed fsync may have dropped pages, so that no later one can be trusted.
    fn fail(&self, error: &StoreError) {
        self.queue.fail();
        self.watermark.give_up();
        self.failure.send_replace(Some(error.to_string()));
    }
}

impl Registry {
    /// The backlog of a recipient that is to be made, or is there.
    fn enter(&self, number: RecipientNo) -> Arc<Backlog> {
        Arc::clone(self.backlogs.entry(number).or_default().value())
    }

    /// The backlog of a recipient; an empty one when it is gone.
    fn backlog(&self, number: RecipientNo) -> Arc<Backlog> {
        self.backlogs.get(&number).map(|known| Arc::clone(known.value())).unwrap_or_default()
    }

    fn forget(&self, number: RecipientNo) {
        self.backlogs.remove(&number);
    }
}

impl Occupancy {
    fn get(&self) -> (u64, u64) {
        (self.count.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// What a start finds.
    fn restore(&self, count: u64, bytes: u64) {
        self.count.store(count, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    fn added(&self, bytes: usize) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn removed(&self, bytes: usize) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
    }
}
