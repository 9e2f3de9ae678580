//! What the writer knows in memory, and how a record changes it and the tables.
//!
//! Invariant: memory and tables change together; after a failed commit neither is used again.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;
use redb::ReadableTable as _;
use smallvec::SmallVec;

use super::given_up::first_letter;
use super::index::OpenChunks;
use super::indexing::Indexing;
use super::rows::Indexed;
use super::shared_rows::{SharedRow, SharedRows};
use super::sweep::Sweep;
use super::tables::{Tables, key};
use super::{Backlog, Occupancy, Progress, Registry, SessionRow, StoreError, pauses, rows};
use crate::record::{
    Change, Epoch, ExchangeState, InboundExchange, Leg, Lsn, Publication, RecipientNo, Record, SessionDelta,
};

/// The writer's memory.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) recipients: HashMap<RecipientNo, Recipient, RandomState>,
    pub(super) shared: SharedRows,
    /// What of the index this batch works with.
    pub(super) chunks: OpenChunks,
    pub(super) indexing: Indexing,
    /// Legs that are kept in memory before they go into the index.
    pub(super) recent_max: u64,
    /// What discarded recipients were owed and is still to be let go.
    pub(super) sweeps: VecDeque<Sweep>,
    /// Recipient numbers from here on were never used.
    pub(super) next_recipient: u64,
    /// The messages there are.
    pub(super) stored: Arc<Occupancy>,
    /// Whose progress the batch has changed.
    dirty: Vec<RecipientNo>,
    /// Recent deliveries that were settled.
    settled: usize,
    /// Whether the batch has changed the dead letters.
    pub(super) letters_changed: bool,
    /// The row in the making: one buffer for all.
    pub(super) row: Vec<u8>,
}

/// A session, group or route, as the writer sees it.
#[derive(Debug, Default)]
pub(super) struct Recipient {
    pub(super) backlog: Arc<Backlog>,
    pub(super) progress: Progress,
    /// How much of it is in the index.
    pub(super) indexed: Indexed,
    /// The same as the index tells it.
    pub(super) counted: Indexed,
    /// [`Indexing`] knows that it is owed something recent.
    pub(super) is_listed: bool,
    pub(super) epoch: Epoch,
    /// The session's row, as it was last written; `None` for groups and routes.
    pub(super) session: Option<SessionRow>,
    /// The name of a group or route, which its row is found by.
    pub(super) name: Option<Box<str>>,
    /// Messages of which is known what was tried with them: rows that go when they are settled.
    pub(super) tried: BTreeSet<Lsn>,
    dirty: bool,
}

impl State {
    /// Applies one record. `legs` are those of its publication that were open when it was taken.
    pub(super) fn apply(
        &mut self,
        tables: &mut Tables<'_>,
        registry: &Registry,
        lsn: Lsn,
        record: &Record,
        legs: SmallVec<[Leg; 1]>,
    ) -> Result<(), StoreError> {
        if let Some(publication) = &record.publication {
            self.publish(tables, lsn, publication, legs)?;
        }
        let mut letter_no = first_letter(lsn, record);
        for change in &record.changes {
            match change {
                Change::DeadLetter(letter) => {
                    self.file(tables, registry, letter_no, letter)?;
                    letter_no.0 += 1;
                }
                _ => self.change(tables, registry, lsn, change)?,
            }
        }
        Ok(())
    }

    /// Ends a batch whose records were applied: lets go of what discarded recipients were owed, moves on with
    /// the index, and writes what is written once for each batch. `last` is the last number that was applied.
    pub(super) fn finish(
        &mut self,
        tables: &mut Tables<'_>,
        registry: &Registry,
        last: Lsn,
    ) -> Result<(), StoreError> {
        self.sweep(tables)?;
        self.index_some(tables, last)?;
        self.chunks.close_all(tables)?;
        self.shared.write(tables)?;
        if std::mem::take(&mut self.letters_changed) {
            tables.set_meta_number(key::DEAD_LETTER_BYTES, registry.dead_letters.get().1)?;
        }
        self.write_progress(tables)
    }

    /// How many recent deliveries were settled since the last call.
    pub(super) fn take_settled(&mut self) -> usize {
        std::mem::take(&mut self.settled)
    }

    /// Whether there is something to do without new records.
    pub(super) fn has_work(&self) -> bool {
        !self.sweeps.is_empty() || self.indexing.is_under_way()
    }

    /// Writes what the batch has changed of each recipient's progress: one row each, however many messages.
    fn write_progress(&mut self, tables: &mut Tables<'_>) -> Result<(), StoreError> {
        for number in std::mem::take(&mut self.dirty) {
            let Some(recipient) = self.recipients.get_mut(&number) else { continue };
            recipient.dirty = false;
            self.row.clear();
            rows::put_progress(&mut self.row, &recipient.progress);
            tables.progress.insert(number.0, self.row.as_slice())?;
            if recipient.indexed != recipient.counted {
                recipient.counted = recipient.indexed;
                self.chunks.write_counts(tables, number, recipient.indexed)?;
            }
        }
        Ok(())
    }

    /// The recipient with this number, which is made when it is new.
    pub(super) fn enter(&mut self, registry: &Registry, number: RecipientNo) -> &mut Recipient {
        let fresh = || Recipient { backlog: registry.enter(number), ..Recipient::default() };
        self.recipients.entry(number).or_insert_with(fresh)
    }

    fn publish(
        &mut self,
        tables: &mut Tables<'_>,
        lsn: Lsn,
        publication: &Publication,
        mut legs: SmallVec<[Leg; 1]>,
    ) -> Result<(), StoreError> {
        // A recipient that was discarded since is owed nothing.
        legs.retain(|leg| self.recipients.contains_key(&leg.recipient));
        legs.sort_unstable_by_key(|leg| leg.recipient);
        // A settlement names no leg: one for each recipient.
        legs.dedup_by_key(|leg| leg.recipient);
        if !legs.is_empty() {
            self.row.clear();
            rows::put_message(&mut self.row, &publication.message, &legs, publication.origin);
            tables.messages.insert(lsn.0, self.row.as_slice())?;
            self.stored.added(self.row.len());
            let bytes = self.row.len() as u32;
            self.indexing.published(legs.len(), bytes.into());
            if legs.len() > 1 {
                self.shared.insert(lsn, SharedRow { open: legs.len() as u32, bytes });
            }
            for leg in &legs {
                self.owe(leg.recipient, lsn, bytes.into());
            }
        }
        if let Some(InboundExchange { recipient, epoch, packet_id }) = publication.inbound {
            self.with_session(recipient, epoch, |progress| {
                progress.inbound.insert(packet_id.get());
            });
        }
        if publication.retain {
            self.retain(tables, publication)?;
        }
        Ok(())
    }

    /// Notes that somebody is owed a message that is not in the index.
    pub(super) fn owe(&mut self, number: RecipientNo, lsn: Lsn, bytes: u64) {
        let Some(recipient) = self.recipients.get_mut(&number) else { return };
        recipient.backlog.add(lsn, bytes);
        if !std::mem::replace(&mut recipient.is_listed, true) {
            self.indexing.owed_to(number);
        }
    }

    fn retain(&mut self, tables: &mut Tables<'_>, publication: &Publication) -> Result<(), StoreError> {
        let message = &publication.message;
        // The author of the last one; that of this one comes with the changes of its record.
        tables.authors.remove(message.topic())?;
        if message.payload().is_empty() {
            tables.retained.remove(message.topic())?;
            return Ok(());
        }
        self.row.clear();
        rows::put_message(&mut self.row, message, &[], None);
        tables.retained.insert(message.topic(), self.row.as_slice())?;
        Ok(())
    }

    fn change(
        &mut self,
        tables: &mut Tables<'_>,
        registry: &Registry,
        lsn: Lsn,
        change: &Change,
    ) -> Result<(), StoreError> {
        match change {
            Change::SessionOpened(opened) => {
                let recipient = self.admit(tables, registry, opened.recipient)?;
                if opened.epoch < recipient.epoch {
                    return Ok(());
                }
                recipient.epoch = opened.epoch;
                recipient.session = Some(SessionRow::of((**opened).clone()));
                self.write_session(tables, opened.recipient)?;
            }
            Change::SessionClosed { .. } => self.close_session(tables, lsn, change)?,
            Change::Discarded(recipient) => self.discard(tables, registry, *recipient)?,
            Change::Subscribed(recipient, row) if self.recipients.contains_key(recipient) => {
                self.row.clear();
                rows::put_subscription(&mut self.row, row.options, row.id);
                tables.subscriptions.insert((recipient.0, &*row.filter), self.row.as_slice())?;
            }
            Change::Subscribed(..) | Change::TimePassed(_) => {}
            Change::TargetPaused(..) | Change::TargetResumed(_) => pauses::apply(tables, change)?,
            Change::Unsubscribed(recipient, filter) => {
                tables.subscriptions.remove((recipient.0, &**filter))?;
            }
            Change::Progress(delta) => self.progress(tables, delta)?,
            Change::Settled(recipient, numbers) => {
                for number in numbers {
                    self.settle(tables, *recipient, *number)?;
                }
            }
            Change::WillRemoved(recipient, epoch) => self.remove_will(tables, *recipient, *epoch)?,
            Change::RetainedRemoved(topic) => {
                tables.retained.remove(&**topic)?;
                tables.authors.remove(&**topic)?;
            }
            Change::RetainedBy(topic, user_name) => {
                tables.authors.insert(&**topic, &**user_name)?;
            }
            Change::GroupOpened(recipient, name) => {
                self.admit(tables, registry, *recipient)?.name = Some(name.clone());
                tables.groups.insert(&**name, recipient.0)?;
            }
            Change::RouteOpened(recipient, name) => {
                self.admit(tables, registry, *recipient)?.name = Some(name.clone());
                tables.routes.insert(&**name, recipient.0)?;
            }
            Change::Tried(recipient, tries) => self.tried(tables, *recipient, tries)?,
            // Filed by whoever knows its number.
            Change::DeadLetter(_) => {}
            Change::DeadLettersDiscarded(numbers) => self.discard_letters(tables, registry, numbers)?,
        }
        Ok(())
    }

    /// A recipient enters: its number is reserved with it, so that it is never given out again.
    fn admit(
        &mut self,
        tables: &mut Tables<'_>,
        registry: &Registry,
        number: RecipientNo,
    ) -> Result<&mut Recipient, StoreError> {
        if number.0 >= self.next_recipient {
            self.next_recipient = number.0 + 1;
            tables.set_meta_number(key::RECIPIENTS, self.next_recipient)?;
        }
        Ok(self.enter(registry, number))
    }

    /// The connection of a session has ended, as a [`Change::SessionClosed`] says.
    fn close_session(
        &mut self,
        tables: &mut Tables<'_>,
        lsn: Lsn,
        change: &Change,
    ) -> Result<(), StoreError> {
        let Change::SessionClosed { recipient, epoch, torn, .. } = change else { return Ok(()) };
        let known = self.recipients.get_mut(recipient).filter(|known| known.epoch == *epoch);
        let Some(session) = known.and_then(|known| known.session.as_mut()) else { return Ok(()) };
        session.close(change);
        self.write_session(tables, *recipient)?;
        if *torn {
            self.with_session(*recipient, *epoch, |progress| progress.doubtful_before = lsn);
        }
        Ok(())
    }

    fn remove_will(
        &mut self,
        tables: &mut Tables<'_>,
        number: RecipientNo,
        epoch: Epoch,
    ) -> Result<(), StoreError> {
        let recipient = self.recipients.get_mut(&number).filter(|r| r.epoch == epoch);
        let session = recipient.and_then(|r| r.session.as_mut());
        match session.and_then(|session| session.opened.will.take()) {
            Some(_) => self.write_session(tables, number),
            None => Ok(()),
        }
    }

    fn write_session(&mut self, tables: &mut Tables<'_>, number: RecipientNo) -> Result<(), StoreError> {
        if let Some(session) = self.recipients.get(&number).and_then(|r| r.session.as_ref()) {
            self.row.clear();
            rows::put_session(&mut self.row, session);
            tables.sessions.insert(number.0, self.row.as_slice())?;
        }
        Ok(())
    }

    fn discard(
        &mut self,
        tables: &mut Tables<'_>,
        registry: &Registry,
        number: RecipientNo,
    ) -> Result<(), StoreError> {
        // Also of one that was never opened.
        registry.forget(number);
        let Some(recipient) = self.recipients.remove(&number) else { return Ok(()) };
        tables.sessions.remove(number.0)?;
        tables.progress.remove(number.0)?;
        for lsn in &recipient.tried {
            tables.tries.remove((number.0, lsn.0))?;
        }
        let range = (number.0, "")..(number.0 + 1, "");
        tables.subscriptions.retain_in(range, |_, _| false)?;
        if let Some(name) = &recipient.name {
            remove_if(&mut tables.groups, name, number)?;
            remove_if(&mut tables.routes, name, number)?;
        }
        // It may be long until the sweep comes to it.
        if recipient.indexed != recipient.counted {
            self.chunks.write_counts(tables, number, recipient.indexed)?;
        }
        self.sweeps.push_back(Sweep {
            recipient: number,
            backlog: recipient.backlog,
            indexed: recipient.indexed,
        });
        for exchange in recipient.progress.exchanges.values() {
            // QoS 2 that a member of a group has begun goes to no other [MQTT-4.8.2-5].
            if exchange.owner != number && exchange.state != ExchangeState::AwaitingPuback {
                self.settle(tables, exchange.owner, exchange.lsn)?;
            }
        }
        Ok(())
    }

    fn progress(&mut self, tables: &mut Tables<'_>, delta: &SessionDelta) -> Result<(), StoreError> {
        let current = self.recipients.get(&delta.recipient).is_some_and(|r| r.epoch == delta.epoch);
        if !current {
            return Ok(());
        }
        for number in &delta.settled {
            self.settle(tables, delta.recipient, *number)?;
        }
        for (group, number) in &delta.settled_shared {
            self.settle(tables, *group, *number)?;
        }
        self.with_session(delta.recipient, delta.epoch, |progress| progress.report(delta));
        Ok(())
    }

    /// A recipient has no further claim to a message. One that it never had a claim to is ignored.
    fn settle(&mut self, tables: &mut Tables<'_>, number: RecipientNo, lsn: Lsn) -> Result<(), StoreError> {
        let Some(recipient) = self.recipients.get_mut(&number) else { return Ok(()) };
        if recipient.tried.remove(&lsn) {
            tables.tries.remove((number.0, lsn.0))?;
        }
        if lsn <= recipient.progress.cursor {
            return self.settle_indexed(tables, number, lsn);
        }
        if !recipient.backlog.remove_recent(lsn) {
            return Ok(());
        }
        self.settled += 1;
        let backlog = Arc::clone(&recipient.backlog);
        // With the row of a message for one, its settlement is told. While ranges stand they are kept whole.
        if self.shared.has_recent(lsn) || !recipient.progress.settled.is_empty() {
            recipient.progress.settle(lsn, backlog.around(lsn));
            self.mark(number);
        }
        backlog.freed(self.let_go(tables, lsn)?);
        Ok(())
    }

    /// As [`State::settle`], when the claim would be in the index.
    fn settle_indexed(
        &mut self,
        tables: &mut Tables<'_>,
        number: RecipientNo,
        lsn: Lsn,
    ) -> Result<(), StoreError> {
        let is_indexed = self.recipients.get(&number).is_some_and(|recipient| recipient.indexed.count > 0);
        if !is_indexed || !self.chunks.strike(tables, number, lsn)? {
            return Ok(());
        }
        let bytes = self.let_go(tables, lsn)?;
        let Some(recipient) = self.recipients.get_mut(&number) else { return Ok(()) };
        recipient.backlog.removed_indexed();
        recipient.backlog.freed(bytes);
        recipient.indexed.settled(bytes);
        if recipient.indexed.count == 0 {
            recipient.backlog.index_is_empty();
        }
        self.mark(number);
        Ok(())
    }

    /// One leg less; with the last one the message goes. Gives the bytes that the message occupies.
    pub(super) fn let_go(&mut self, tables: &mut Tables<'_>, lsn: Lsn) -> Result<u64, StoreError> {
        match self.shared.release(tables, lsn)? {
            Some(SharedRow { open: 1.., bytes }) => Ok(bytes.into()),
            _ => self.remove_message(tables, lsn),
        }
    }

    /// Gives the bytes that it occupied.
    fn remove_message(&mut self, tables: &mut Tables<'_>, lsn: Lsn) -> Result<u64, StoreError> {
        let Some(row) = tables.messages.remove(lsn.0)? else { return Ok(0) };
        let bytes = row.value().len();
        self.stored.removed(bytes);
        self.indexing.removed(lsn, bytes as u64);
        Ok(bytes as u64)
    }

    /// Changes the progress of a session, unless a later connection speaks for it by now.
    fn with_session(&mut self, number: RecipientNo, epoch: Epoch, change: impl FnOnce(&mut Progress)) {
        if let Some(recipient) = self.recipients.get_mut(&number).filter(|r| r.epoch == epoch) {
            change(&mut recipient.progress);
            self.mark(number);
        }
    }

    /// Has the recipient's progress written at the end of the batch.
    pub(super) fn mark(&mut self, number: RecipientNo) {
        if let Some(recipient) = self.recipients.get_mut(&number)
            && !std::mem::replace(&mut recipient.dirty, true)
        {
            self.dirty.push(number);
        }
    }
}

impl Progress {
    /// Notes that a leg is settled. `below` and `above` are the nearest that are not: all between them is.
    pub(super) fn settle(&mut self, Lsn(lsn): Lsn, (below, above): (Option<Lsn>, Option<Lsn>)) {
        let last = match (above, self.settled.last_key_value()) {
            (Some(above), _) => above.0 - 1,
            (None, Some((_, last))) => lsn.max(*last),
            (None, None) => lsn,
        };
        let Some(below) = below else {
            self.cursor = self.cursor.max(Lsn(last));
            self.settled = self.settled.split_off(&(last + 1));
            return;
        };
        let first = below.0 + 1;
        while let Some((&inside, _)) = self.settled.range(first..=last).next() {
            self.settled.remove(&inside);
        }
        self.settled.insert(first, last);
    }

    /// What is owed is in the index, up to this number.
    pub(super) fn indexed(&mut self, to: Lsn) {
        self.cursor = self.cursor.max(to);
        self.settled.clear();
    }

    /// Whether a leg of this recipient is settled, or in the index, as far as its progress tells.
    pub(super) fn has_settled(&self, lsn: Lsn) -> bool {
        lsn <= self.cursor || self.settled.range(..=lsn.0).next_back().is_some_and(|(_, last)| lsn.0 <= *last)
    }

    fn report(&mut self, delta: &SessionDelta) {
        for exchange in &delta.exchanges {
            self.exchanges.insert(exchange.packet_id.get(), *exchange);
        }
        for packet_id in &delta.ended {
            self.exchanges.remove(&packet_id.get());
        }
        delta.released.iter().for_each(|id| {
            self.inbound.remove(&id.get());
        });
        if delta.next_packet_id != 0 {
            self.next_packet_id = delta.next_packet_id;
        }
    }
}

/// Removes the row of this name when it is this recipient's: another one may have the name by now.
fn remove_if(
    table: &mut redb::Table<'_, &'static str, u64>,
    name: &str,
    number: RecipientNo,
) -> Result<(), StoreError> {
    let is_its = table.get(name)?.is_some_and(|row| row.value() == number.0);
    if is_its {
        table.remove(name)?;
    }
    Ok(())
}
