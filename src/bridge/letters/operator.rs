//! Dead letters for the operator: looked through, discarded, and replayed.
//!
//! Invariant: between reading a letter and the commit that removes it nobody else changes letters.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::Mutex;
use tokio::task::JoinError;

use super::DeadLetterFilter;
use crate::broker::{Broker, Replay, ReplayError};
use crate::record::{Change, DeadLetter, DeadLetterError, DeadLetterView, GlobalNo, Lsn, Record};
use crate::store::{Store, StoreError, StoredDeadLetter, SubmitError};

/// Letters that one listing looks at, whether or not its filter lets them through.
const LOOKED_AT_MAX: usize = 10_000;
/// Letters that are read at once; each can be as large as the largest packet.
const PAGE_MAX: usize = 32;
/// Bytes of messages in one listing (one letter at least).
const LISTED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why something cannot be done with a dead letter.
#[derive(Debug, thiserror::Error)]
pub enum DeadLettersError {
    /// There is none with this number.
    #[error("there is no dead letter {}: it was discarded or replayed, or it never was", .0.0)]
    NotFound(Lsn),
    /// What is stored cannot be understood.
    #[error("dead letter {} cannot be read: {error}", id.0)]
    Unreadable {
        /// The number it is filed under.
        id: Lsn,
        /// Where its bytes stop making sense.
        error: DeadLetterError,
    },
    /// It cannot be delivered again.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The database cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The change was not taken.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The process is about to end.
    #[error("the broker is shutting down")]
    ShuttingDown,
}

/// A dead letter and the number it is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FiledLetter {
    /// The number of the record that stored it.
    pub id: Lsn,
    /// As it was stored.
    pub letter: DeadLetter,
    /// The id that the database had when it filed it.
    store_id: u64,
    /// The same for the number of its message.
    message_store_id: u64,
}

/// Some letters, the oldest first.
#[derive(Clone, Debug)]
pub struct DeadLetterPage {
    /// At most as many as were asked for.
    pub letters: Vec<FiledLetter>,
    /// Where to go on; `None` at the end. A page may be short, or empty, and not be the last.
    pub next: Option<Lsn>,
}

/// The dead letters of a broker.
pub struct DeadLetters {
    pub(super) broker: Arc<Broker>,
    /// Held from reading a letter to the commit that removes it.
    changing: Mutex<()>,
}

impl FiledLetter {
    /// The letter as people and scripts see it.
    pub fn view(&self) -> DeadLetterView<'_> {
        let number = self.letter.message_no;
        let message_no = GlobalNo { store_id: self.message_store_id, number };
        DeadLetterView::new(self.filed_as(), Some(message_no).filter(|_| number != Lsn::ZERO), &self.letter)
    }

    /// Its name outside of this database.
    pub fn filed_as(&self) -> GlobalNo {
        GlobalNo { store_id: self.store_id, number: self.id }
    }
}

impl DeadLetters {
    /// Access to the letters in this broker's store.
    pub fn new(broker: Arc<Broker>) -> Self {
        Self { broker, changing: Mutex::default() }
    }

    /// Letters after `cursor` ([`Lsn::ZERO`] begins), `max` at most.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn list(
        &self,
        cursor: Lsn,
        max: usize,
        filter: DeadLetterFilter,
    ) -> Result<DeadLetterPage, DeadLettersError> {
        self.blocking(move |store| list(store, cursor, max, &filter)).await
    }

    /// One letter.
    ///
    /// # Errors
    /// When there is none of this number, or it cannot be read.
    pub async fn get(&self, id: Lsn) -> Result<FiledLetter, DeadLettersError> {
        let stored = self.blocking(move |store| find(store, id)).await?;
        decode(&self.broker.store, stored.ok_or(DeadLettersError::NotFound(id))?)
    }

    /// Removes letters for good, and gives how many of them there were. They are gone from the disk when
    /// this returns.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub async fn discard(&self, ids: Vec<Lsn>) -> Result<usize, DeadLettersError> {
        let _changing = self.changing.lock().await;
        let found = self.blocking(move |store| {
            let mut found = Vec::new();
            for id in BTreeSet::from_iter(ids) {
                if find(store, id)?.is_some() {
                    found.push(id);
                }
            }
            Ok(found)
        });
        let found = found.await?;
        let count = found.len();
        if count > 0 {
            let entry = self.broker.store.submit(Record::of([Change::DeadLettersDiscarded(found)]))?;
            self.broker.store.durable(entry.lsn).await?;
        }
        Ok(count)
    }

    /// Owes the message of a letter to its addressee again, and removes the letter, both in one record.
    /// Gives the number the message has now; it is durable when this returns.
    ///
    /// # Errors
    /// When there is no such letter, its addressee is gone or has no room, or the store refuses. The letter
    /// stays then.
    pub async fn replay(&self, id: Lsn, replay: &Replay) -> Result<Lsn, DeadLettersError> {
        let _changing = self.changing.lock().await;
        let lsn = self.owe_again(id, replay).await?;
        self.broker.store.durable(lsn).await?;
        Ok(lsn)
    }

    /// Replays several letters, the oldest first, and waits for the disk once. Gives those that could not
    /// be replayed, with the reason; they stay.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn replay_each(
        &self,
        ids: &BTreeSet<Lsn>,
        replay: &Replay,
    ) -> Result<Vec<(Lsn, DeadLettersError)>, DeadLettersError> {
        let _changing = self.changing.lock().await;
        let (mut left, mut last) = (Vec::new(), Lsn::ZERO);
        for id in ids {
            match self.owe_again(*id, replay).await {
                Ok(lsn) => last = lsn,
                Err(error) => left.push((*id, error)),
            }
        }
        self.broker.store.durable(last).await?;
        Ok(left)
    }

    async fn owe_again(&self, id: Lsn, replay: &Replay) -> Result<Lsn, DeadLettersError> {
        let FiledLetter { letter, .. } = self.get(id).await?;
        Ok(self.broker.owe_again(id, &letter, replay)?)
    }

    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, DeadLettersError> {
        let store = self.broker.store.clone();
        let done: Result<_, JoinError> = tokio::task::spawn_blocking(move || read(&store)).await;
        Ok(done.map_err(|_| DeadLettersError::ShuttingDown)??)
    }
}

fn list(
    store: &Store,
    cursor: Lsn,
    max: usize,
    filter: &DeadLetterFilter,
) -> Result<DeadLetterPage, StoreError> {
    let (mut letters, mut cursor, mut looked_at, mut bytes) = (Vec::new(), cursor, 0, 0);
    while letters.len() < max && looked_at < LOOKED_AT_MAX && bytes < LISTED_BYTES_MAX {
        let page = store.read_dead_letters(cursor, PAGE_MAX)?;
        if page.is_empty() {
            return Ok(DeadLetterPage { letters, next: None });
        }
        for stored in page {
            if letters.len() == max || bytes >= LISTED_BYTES_MAX {
                break;
            }
            looked_at += 1;
            cursor = stored.id;
            match decode(store, stored) {
                Ok(filed) if filter.lets_through(&filed.letter) => {
                    bytes += filed.letter.message.size();
                    letters.push(filed);
                }
                Ok(_) => {}
                // It is not shown, but neither does it hide the others.
                Err(error) => tracing::error!(%error, "a dead letter is left out of a list"),
            }
        }
    }
    Ok(DeadLetterPage { letters, next: Some(cursor) })
}

pub(super) fn find(store: &Store, id: Lsn) -> Result<Option<StoredDeadLetter>, StoreError> {
    let Some(before) = id.0.checked_sub(1) else { return Ok(None) };
    let found = store.read_dead_letters(Lsn(before), 1)?.pop();
    Ok(found.filter(|stored| stored.id == id))
}

pub(super) fn decode(store: &Store, stored: StoredDeadLetter) -> Result<FiledLetter, DeadLettersError> {
    let id = stored.id;
    let letter = DeadLetter::decode(&stored.bytes);
    let letter = letter.map_err(|error| DeadLettersError::Unreadable { id, error })?;
    let (store_id, message_store_id) = (store.id_of(id), store.id_of(letter.message_no));
    Ok(FiledLetter { id, letter, store_id, message_store_id })
}
