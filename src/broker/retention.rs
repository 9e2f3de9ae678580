//! How long dead letters are kept: the oldest go when they are too old, or too many.
//!
//! Invariant: what goes is counted and logged, and with `keep_oldest` nothing goes for want of room.

use std::sync::Arc;
use std::time::Duration;

use super::Broker;
use crate::record::{Change, DeadLetter, Lsn, Record, UnixMillis};
use crate::store::{StoreError, StoredDeadLetter};

/// How often ages are looked at, at most: otherwise when the oldest is too old.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// Letters that are discarded in one record.
const ROUND_MAX: usize = 256;
/// It is said that letters are about to go when so much of their time is left: a tenth.
const WARN_BEFORE: u32 = 10;

/// What one look has found.
#[derive(Debug, Default)]
struct Look {
    too_many: Vec<Lsn>,
    too_old: Vec<Lsn>,
    /// Whether more may have to go.
    goes_on: bool,
    /// When the oldest that stays is too old.
    next: Option<UnixMillis>,
}

impl Broker {
    /// Discards dead letters that are too old, or too many. Runs for as long as the broker, if anything is to go.
    pub async fn run_retention(self: Arc<Self>) {
        let rules = &self.limits.letters;
        if rules.age.is_none() && !rules.drops_oldest {
            return;
        }
        let mut has_warned = false;
        loop {
            let mut pause = INTERVAL_MAX;
            match self.discard_oldest().await {
                Ok(Look { goes_on: true, .. }) => continue,
                Ok(Look { next, .. }) => {
                    self.warn_of_age(next, &mut has_warned);
                    let now = self.clock.now();
                    // One that is filed now may be the next.
                    let next = next.or(rules.age.map(|age| now.plus(age)));
                    pause = next.map_or(pause, |next| next.since(now).clamp(INTERVAL_MIN, INTERVAL_MAX));
                    if rules.drops_oldest && self.is_at_letter_limit() {
                        // What was filed just now is not counted yet.
                        pause = INTERVAL_MIN;
                    }
                }
                Err(error) => tracing::error!(%error, "dead letters cannot be looked through for old ones"),
            }
            if self.store.has_failed() {
                return;
            }
            let _ = tokio::time::timeout(pause, self.letter_room.bell.heard()).await;
        }
    }

    async fn discard_oldest(self: &Arc<Self>) -> Result<Look, StoreError> {
        let broker = Arc::clone(self);
        let looked = tokio::task::spawn_blocking(move || broker.look_at_oldest()).await;
        let look = looked.map_err(|error| StoreError::Failed(error.to_string()))??;
        for (discarded, why) in [(&look.too_old, "age"), (&look.too_many, "count")] {
            if discarded.is_empty() {
                continue;
            }
            self.metrics.dead_letters_discarded(why, discarded.len() as u64);
            tracing::warn!(letters = discarded.len(), why, "the oldest dead letters are discarded");
            let submitted = self.store.submit(Record::of([Change::DeadLettersDiscarded(discarded.clone())]));
            let submitted = submitted.map_err(|error| StoreError::Failed(error.to_string()))?;
            let durable = self.store.durable(submitted.lsn).await;
            durable.map_err(|error| StoreError::Failed(error.to_string()))?;
        }
        Ok(look)
    }

    /// Blocks on the disk.
    fn look_at_oldest(&self) -> Result<Look, StoreError> {
        let rules = &self.limits.letters;
        let (mut count, mut bytes) = self.store.dead_letters();
        let (count_max, bytes_max) = (self.limits.dead_letters, self.limits.dead_letter_bytes);
        let now = self.clock.now();
        let (mut look, mut cursor) = (Look::default(), Lsn::ZERO);
        if rules.age.is_none() && count <= count_max && bytes <= bytes_max {
            return Ok(look);
        }
        while look.too_old.len() + look.too_many.len() < ROUND_MAX {
            let page = self.store.read_dead_letters(cursor, ROUND_MAX)?;
            let Some(last) = page.last().map(|last| last.id) else { return Ok(look) };
            cursor = last;
            for StoredDeadLetter { id, bytes: stored } in page {
                let too_old_at = rules.age.and_then(|age| self.too_old_at(&stored, age));
                if too_old_at.is_some_and(|at| at <= now) {
                    look.too_old.push(id);
                } else if rules.drops_oldest && (count > count_max || bytes > bytes_max) {
                    look.too_many.push(id);
                } else {
                    look.next = too_old_at;
                    return Ok(look);
                }
                (count, bytes) = (count.saturating_sub(1), bytes.saturating_sub(stored.len() as u64));
            }
        }
        look.goes_on = true;
        Ok(look)
    }

    /// When the oldest dead letter that can be read was given up. Blocks on the disk.
    pub fn oldest_dead_letter(&self) -> Option<UnixMillis> {
        let oldest = self.store.read_dead_letters(Lsn::ZERO, 1).ok()?.pop()?;
        let letter = DeadLetter::decode(&oldest.bytes).ok()?;
        Some(self.store.timeline().counts_as(letter.created_at))
    }

    /// What was imported was old when it came, and stays until somebody discards it. What cannot be read is left to
    /// the operator.
    fn too_old_at(&self, stored: &[u8], age: Duration) -> Option<UnixMillis> {
        let letter = DeadLetter::decode(stored).ok().filter(|letter| letter.imported_from.is_none())?;
        Some(self.store.timeline().due(letter.created_at, letter.created_at.plus(age)))
    }

    fn warn_of_age(&self, next: Option<UnixMillis>, has_warned: &mut bool) {
        let Some((next, age)) = next.zip(self.limits.letters.age) else { return };
        let left = next.since(self.clock.now());
        let is_near = left <= age / WARN_BEFORE;
        if is_near && !*has_warned {
            tracing::warn!(
                "the oldest dead letters will be discarded within {}: replay or export them with `causeway \
                 dead-letters`, or raise dead_letters.age",
                humantime::format_duration(Duration::from_secs(left.as_secs()))
            );
        }
        *has_warned = is_near;
    }
}
