//! Opening the database: its checks, and what the broker is told of what was there.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use redb::{Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, ReadableTableMetadata as _};

use super::check_rows::schema_of;
use super::error::is_damage;
use super::rows::{self, SessionRow};
use super::shared_rows::SharedRow;
use super::state::State;
use super::sweep::Sweep;
use super::tables::{SCHEMA, Tables, key};
use super::timeline::Times;
use super::writer::NUMBERS_RESERVED;
use super::{Backlog, Registry, Secret, StoreError, StoreIds, index, overlay};
use crate::record::{Lsn, Message, RecipientNo, SubscriptionRow};

/// What was found on disk.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Durable sessions with their subscriptions.
    pub sessions: Vec<(SessionRow, Vec<SubscriptionRow>)>,
    /// Shared groups: `$share/<name>/<filter>` and number.
    pub groups: Vec<(Box<str>, RecipientNo)>,
    /// Routes: name and number.
    pub routes: Vec<(Box<str>, RecipientNo)>,
    /// Retained messages, each with the user name of its author if that had one.
    pub retained: Vec<(Message, Option<Arc<str>>)>,
    /// Messages that are still owed to somebody.
    pub messages: u64,
}

/// An open database and everything that is made from it.
pub(super) struct Opened {
    pub(super) database: Arc<Database>,
    pub(super) state: State,
    pub(super) recovered: Recovered,
    pub(super) ids: StoreIds,
    pub(super) secret: Secret,
    /// The first number of this start.
    pub(super) first: Lsn,
    pub(super) reserved: Lsn,
    pub(super) times: Times,
}

/// Turns a panic into an error: redb trusts a file that was closed in order, and panics on one that somebody
/// else has damaged.
pub(super) fn guarded<T>(open: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(StoreError::Damaged(text.unwrap_or_else(|| "it cannot be read".into())))
    })
}

/// Files up to this size are verified whole before they are opened, which takes well under a second. redb itself
/// trusts what it finds, so that it opens in no time: damage to a larger file is found by `store check`, or where
/// it is read.
const VERIFIED_MAX: u64 = 64 << 20;

/// Opens the file, or makes it.
pub(super) fn open(path: &Path, cache_size: usize) -> Result<Database, StoreError> {
    let length = make(path).and_then(|()| Ok(fs::metadata(path)?.len())).map_err(|e| explain(path, e))?;
    if length <= VERIFIED_MAX {
        let looked_at = overlay::open(path)?;
        schema_of(&looked_at.begin_read()?, path)?;
    }
    Database::builder().set_cache_size(cache_size).open(path).map_err(|e| explain(path, e))
}

/// Makes an empty database when there is none. It gets its name when it is whole: one that was begun when the
/// power went would be refused as damaged.
fn make(path: &Path) -> Result<(), DatabaseError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = File::open(directory.unwrap_or(Path::new(".")))?;
    // Held while this function runs: two processes that start at once do not make it twice.
    directory.lock()?;
    if path.try_exists()? {
        return Ok(());
    }
    let begun = path.with_extension("redb.new");
    match fs::remove_file(&begun) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    // The database is for its owner alone.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&begun)?;
    drop(Database::create(&begun)?);
    fs::rename(&begun, path)?;
    // After a power failure the file is there only when its directory says so.
    directory.sync_all()?;
    Ok(())
}

/// Checks what the database holds, and makes everything from it. `path` is for messages.
pub(super) fn load(database: Database, path: &Path, registry: &Registry) -> Result<Opened, StoreError> {
    let mut txn = database.begin_write()?;
    txn.set_quick_repair(true);
    let (mut state, mut recovered) = (State::default(), Recovered::default());
    let (ids, secret, first, reserved, times);
    {
        let mut tables = Tables::open(&txn)?;
        check_schema(path, &mut tables)?;
        ids = ids_of(&mut tables)?;
        secret = secret_of(&mut tables)?;
        times = tables.meta.get(key::CLOCK)?.map(|row| Times::from_row(row.value())).transpose()?;
        first = Lsn(tables.meta_number(key::RESERVED)?.unwrap_or(1));
        reserved = Lsn(first.0.saturating_add(NUMBERS_RESERVED));
        if first == Lsn::ZERO {
            return Err(StoreError::Damaged("\"reserved\" in meta is 0".into()));
        }
        tables.set_meta_number(key::RESERVED, reserved.0)?;
        state.next_recipient = tables.meta_number(key::RECIPIENTS)?.unwrap_or(1);
        recipients(&tables, registry, &mut state, &mut recovered)?;
        indexed(&mut tables, &mut state)?;
        messages(&mut tables, &mut state)?;
        recovered.messages = tables.messages.len()?;
        state.stored.restore(recovered.messages, state.indexing.bytes_in_all());
        retained(&tables, &mut recovered)?;
        dead_letters(&tables, registry)?;
    }
    txn.commit()?;
    let times = times.unwrap_or_default();
    Ok(Opened { database: Arc::new(database), state, recovered, ids, secret, first, reserved, times })
}

pub(super) fn explain(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse(path.to_owned()),
        DatabaseError::Storage(redb::StorageError::Corrupted(what)) => StoreError::Damaged(what),
        DatabaseError::Storage(redb::StorageError::Io(error)) if is_damage(&error) => {
            StoreError::Damaged(format!("{}: {error}", path.display()))
        }
        other => StoreError::Failed(format!("{}: {other}", path.display())),
    }
}

fn check_schema(path: &Path, tables: &mut Tables<'_>) -> Result<(), StoreError> {
    match tables.meta_number(key::SCHEMA)? {
        Some(SCHEMA) => Ok(()),
        Some(found) if found > SCHEMA => {
            Err(StoreError::Newer { path: path.to_owned(), found, known: SCHEMA })
        }
        // A new file, or one of a version that this one reads as it is.
        _ => tables.set_meta_number(key::SCHEMA, SCHEMA),
    }
}

fn ids_of(tables: &mut Tables<'_>) -> Result<StoreIds, StoreError> {
    let former = former_ids(tables)?.into();
    if let Some(current) = tables.meta_number(key::STORE_ID)? {
        return Ok(StoreIds { current, former });
    }
    let current = rand::random();
    tables.set_meta_number(key::STORE_ID, current)?;
    Ok(StoreIds { current, former })
}

/// The ids before each time that the database was restored, with the end of their numbers.
pub(super) fn former_ids(tables: &Tables<'_>) -> Result<Vec<(u64, u64)>, StoreError> {
    let Some(bytes) = tables.meta.get(key::FORMER_IDS)? else { return Ok(Vec::new()) };
    let (pairs, rest) = bytes.value().as_chunks::<16>();
    if !rest.is_empty() {
        return Err(StoreError::Damaged("\"former_ids\" in meta is cut".into()));
    }
    let pair = |pair: &[u8; 16]| {
        let pair = u128::from_be_bytes(*pair);
        ((pair >> 64) as u64, pair as u64)
    };
    Ok(pairs.iter().map(pair).collect())
}

fn secret_of(tables: &mut Tables<'_>) -> Result<Secret, StoreError> {
    if let Some(bytes) = tables.meta.get(key::SECRET)? {
        let secret = bytes.value().try_into();
        return secret.map(Secret).map_err(|_| StoreError::Damaged("\"secret\" in meta is cut".into()));
    }
    let secret = Secret(rand::random());
    tables.meta.insert(key::SECRET, secret.0.as_slice())?;
    Ok(secret)
}

fn recipients(
    tables: &Tables<'_>,
    registry: &Registry,
    state: &mut State,
    recovered: &mut Recovered,
) -> Result<(), StoreError> {
    let mut subscriptions = subscriptions(tables)?;
    for row in tables.sessions.iter()? {
        let (number, row) = row?;
        let number = RecipientNo(number.value());
        let session = rows::session(number, row.value())?;
        let recipient = state.enter(registry, number);
        recipient.epoch = session.opened.epoch;
        recipient.session = Some(session.clone());
        recovered.sessions.push((session, subscriptions.remove(&number.0).unwrap_or_default()));
    }
    for row in tables.groups.iter()? {
        let (name, number) = row?;
        state.enter(registry, RecipientNo(number.value())).name = Some(name.value().into());
        recovered.groups.push((name.value().into(), RecipientNo(number.value())));
    }
    for row in tables.routes.iter()? {
        let (name, number) = row?;
        state.enter(registry, RecipientNo(number.value())).name = Some(name.value().into());
        recovered.routes.push((name.value().into(), RecipientNo(number.value())));
    }
    for row in tables.tries.iter()? {
        let (recipient, number) = row?.0.value();
        if let Some(recipient) = state.recipients.get_mut(&RecipientNo(recipient)) {
            recipient.tried.insert(Lsn(number));
        }
    }
    for row in tables.progress.iter()? {
        let (number, row) = row?;
        state.enter(registry, RecipientNo(number.value())).progress = rows::progress(row.value())?;
    }
    Ok(())
}

fn subscriptions(tables: &Tables<'_>) -> Result<HashMap<u64, Vec<SubscriptionRow>>, StoreError> {
    let mut all: HashMap<u64, Vec<SubscriptionRow>> = HashMap::new();
    for row in tables.subscriptions.iter()? {
        let (key, row) = row?;
        let (number, filter) = key.value();
        all.entry(number).or_default().push(rows::subscription(filter, row.value())?);
    }
    Ok(all)
}

/// What the index knows: only how much, until somebody reads it. What is in there for nobody is swept.
fn indexed(tables: &mut Tables<'_>, state: &mut State) -> Result<(), StoreError> {
    state.indexing.to = Lsn(tables.meta_number(key::INDEXED)?.unwrap_or(0));
    state.indexing.bytes = tables.meta_number(key::INDEXED_BYTES)?.unwrap_or(0);
    // Those above are counted again with what is newer than the index.
    tables.shared.retain_in(state.indexing.to.0 + 1.., |_, _| false)?;
    state.shared.restore(tables)?;
    for (number, indexed) in index::recipients(&tables.index)? {
        match state.recipients.get_mut(&number) {
            Some(recipient) => {
                recipient.indexed = indexed;
                recipient.counted = indexed;
                recipient.backlog.restore(recipient.progress.cursor, indexed.count, indexed.bytes);
            }
            None => {
                let backlog = Arc::<Backlog>::default();
                backlog.restore(Lsn::ZERO, indexed.count, indexed.bytes);
                state.sweeps.push_back(Sweep { recipient: number, backlog, indexed });
            }
        }
    }
    Ok(())
}

/// Rebuilds who is owed what of that which is newer than the index, and drops the messages that nobody is
/// owed any more: those whose last leg was settled in memory only when the process ended.
fn messages(tables: &mut Tables<'_>, state: &mut State) -> Result<(), StoreError> {
    let mut nobodys = Vec::new();
    for row in tables.messages.range(state.indexing.to.0 + 1..)? {
        let (number, row) = row?;
        let (lsn, bytes) = (Lsn(number.value()), row.value());
        let mut legs = Vec::new();
        rows::message_legs(bytes, |leg| legs.push(leg.recipient))?;
        let mut open = 0;
        for recipient in &legs {
            open += u32::from(owe(tables, state, *recipient, lsn, bytes.len())?);
        }
        match open {
            0 => nobodys.push(lsn.0),
            // One of several: which one is left is not in the row, so that it has to be counted.
            _ if legs.len() > 1 => {
                state.shared.insert(lsn, SharedRow { open, bytes: bytes.len() as u32 });
            }
            _ => {}
        }
        if open > 0 {
            state.indexing.published(open as usize, bytes.len() as u64);
        }
    }
    for number in nobodys {
        tables.messages.remove(number)?;
    }
    Ok(())
}

/// Whether somebody is owed a message that is newer than the index as a whole: a pass may have been under way
/// when the process ended.
fn owe(
    tables: &Tables<'_>,
    state: &mut State,
    number: RecipientNo,
    lsn: Lsn,
    bytes: usize,
) -> Result<bool, StoreError> {
    match state.recipients.get(&number) {
        Some(recipient) if lsn > recipient.progress.cursor => {
            let owed = !recipient.progress.has_settled(lsn);
            if owed {
                state.owe(number, lsn, bytes as u64);
            }
            Ok(owed)
        }
        Some(recipient) if recipient.indexed.count == 0 => Ok(false),
        // Also of somebody who is gone: what the index has is swept.
        _ => index::contains(&tables.index, number, lsn),
    }
}

/// How many dead letters there are, and their bytes: a file of version 1 does not tell these.
fn dead_letters(tables: &Tables<'_>, registry: &Registry) -> Result<(), StoreError> {
    if let Some(bytes) = tables.meta_number(key::DEAD_LETTER_BYTES)? {
        registry.dead_letters.restore(tables.dead_letters.len()?, bytes);
        return Ok(());
    }
    for row in tables.dead_letters.iter()? {
        registry.dead_letters.added(row?.1.value().len());
    }
    Ok(())
}

fn retained(tables: &Tables<'_>, recovered: &mut Recovered) -> Result<(), StoreError> {
    for row in tables.retained.iter()? {
        let (topic, row) = row?;
        let author = tables.authors.get(topic.value())?.map(|author| author.value().into());
        recovered.retained.push((rows::message(row.value(), drop)?.message, author));
    }
    Ok(())
}
