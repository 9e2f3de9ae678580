//! The store against a model of it, against crashes, and rule by rule.

mod bell;
mod by_hand;
mod checked;
mod compacted;
mod crash;
mod disk;
mod full;
mod index;
pub(crate) mod interleavings;
mod model;
mod open;
mod pauses;
mod queue;
mod restart;
mod row_forms;
mod rules;

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redb::ReadableTable as _;
use smallvec::SmallVec;

use super::*;
use crate::codec::Qos;
use crate::record::{
    Change, Epoch, Leg, Message, MessageParts, Publication, SessionOpened, SubscriptionIds, UnixMillis,
};
pub(crate) use by_hand::{ByHand, Step};
pub(crate) use disk::{Disk, Fault, Unsynced};

const SETTINGS: StoreSettings = StoreSettings {
    cache_size: 1 << 20,
    commit_interval: Duration::ZERO,
    batch_bytes_max: 1 << 20,
    queue_bytes_max: 1 << 20,
    compact_at_start: false,
    // So few that what a test writes goes through the index.
    recent_max: 12,
};

/// Numbers that nobody can guess and everybody can draw again.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// Below `sides`.
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut drawn = self.0;
        drawn = (drawn ^ (drawn >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        drawn = (drawn ^ (drawn >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((drawn ^ (drawn >> 31)) % sides.max(1) as u64) as usize
    }

    pub(crate) fn one_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.roll(all.len()))
    }
}

fn open_in(directory: &Path) -> (Store, Recovered) {
    Store::open(directory, &SETTINGS).unwrap()
}

/// An open database, which is made when the disk is empty.
fn database(disk: &Disk) -> Result<redb::Database, StoreError> {
    let database = redb::Database::builder().set_cache_size(1 << 20).create_with_backend(disk.clone());
    database.map_err(|e| StoreError::Failed(e.to_string()))
}

/// What [`Store::open`] does with a file.
fn load(database: redb::Database) -> Result<(recover::Opened, Registry), StoreError> {
    let registry = Registry::default();
    Ok((recover::load(database, Path::new("test"), &registry)?, registry))
}

/// A store on a disk that a test has in its hands.
pub(crate) fn open_on(disk: &Disk, settings: &StoreSettings) -> Result<(Store, Recovered), StoreError> {
    let (opened, registry) = load(database(disk)?)?;
    Store::start(opened, registry, settings)
}

/// Runs a future to its end; one that hangs is a failed test.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), future).await.unwrap() })
}

fn wait(store: &Store, lsn: Lsn) {
    block_on(store.durable(lsn)).unwrap();
}

fn submit(store: &Store, record: Record) -> Lsn {
    store.submit(record).unwrap().lsn
}

/// Submits and waits.
fn write(store: &Store, record: Record) -> Lsn {
    let lsn = submit(store, record);
    wait(store, lsn);
    lsn
}

fn message(topic: &str, payload: &[u8]) -> Message {
    let parts = MessageParts {
        qos: Qos::AtLeastOnce,
        retain: false,
        published_at: UnixMillis(1_700_000_000_000),
        expires_at: UnixMillis::NEVER,
        topic,
        properties: b"\x03\0\x01x",
        payload,
        publisher: "boat",
    };
    Message::new(&parts, &mut Vec::new())
}

fn leg(recipient: RecipientNo) -> Leg {
    Leg { recipient, qos: Qos::AtLeastOnce, retain: false, subscription_ids: SubscriptionIds::new() }
}

fn publication(payload: &[u8], recipients: &[RecipientNo]) -> Record {
    let legs: SmallVec<[Leg; 1]> = recipients.iter().copied().map(leg).collect();
    let publication =
        Publication { message: message("a/b", payload), legs, inbound: None, retain: false, origin: None };
    Record { publication: Some(publication), changes: Vec::new() }
}

fn opened(recipient: RecipientNo, epoch: u64) -> Change {
    Change::SessionOpened(Box::new(SessionOpened {
        recipient,
        epoch: Epoch(epoch),
        client_id: format!("client-{}", recipient.0).into(),
        user_name: None,
        expiry: 3_600,
        will: None,
        at: UnixMillis(1_700_000_000_000),
    }))
}

/// A session that is there and durable.
fn session(store: &Store) -> RecipientNo {
    let (number, _) = store.new_recipient();
    write(store, Record::of([opened(number, 1)]));
    number
}

/// The numbers of what a recipient is owed, up to the watermark.
pub(crate) fn owed(store: &Store, recipient: RecipientNo) -> Vec<Lsn> {
    stored_for(store, recipient).into_iter().map(|stored| stored.lsn).collect()
}

/// What a recipient is owed, read page by page.
fn stored_for(store: &Store, recipient: RecipientNo) -> Vec<Stored> {
    let (mut all, mut cursor, durable) = (Vec::new(), Lsn::ZERO, store.watermark());
    while store.backlog(recipient).may_have(cursor, durable) {
        let page = store.read_after(recipient, (cursor, durable), 7, |_| false).unwrap();
        assert!(page.cursor > cursor && page.cursor <= durable, "{page:?} after {cursor:?}");
        cursor = page.cursor;
        all.extend(page.messages);
    }
    all
}

/// The numbers of the rows of messages.
fn message_rows(store: &Store) -> Vec<u64> {
    use redb::ReadableDatabase as _;
    let table = store.database.begin_read().unwrap().open_table(tables::MESSAGES).unwrap();
    table.iter().unwrap().map(|row| row.unwrap().0.value()).collect()
}
