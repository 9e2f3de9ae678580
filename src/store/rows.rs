//! The rows: how messages, sessions and their progress look on disk.
//!
//! Every row begins with what cannot change its meaning later; a change of layout is a new schema version
//! (`tables::SCHEMA`), never a new meaning of old bytes.

use std::collections::{BTreeMap, BTreeSet};

use super::StoreError;
use super::bytes::{RowReader, put_bytes, put_varint};
use super::runs::{PendingList, Run};
use crate::codec::{PacketId, Qos, RetainHandling, SubscribeOptions};
use crate::record::{
    Change, Epoch, Exchange, ExchangeState, Leg, Lsn, Message, MessageParts, RecipientNo, SavedTries,
    SessionOpened, SubscriptionIds, SubscriptionRow, UnixMillis, WillRecord,
};

/// A message as it is stored.
#[derive(Debug)]
pub(super) struct MessageRow {
    pub(super) message: Message,
    /// The number it had before it was replayed.
    pub(super) origin: Option<Lsn>,
}

/// What stands in front of the legs of a message.
struct Head {
    parts: MessageParts<'static>,
    lengths: [u32; 3],
    origin: Option<Lsn>,
}

/// A session as its row tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// What its last CONNECT said.
    pub opened: SessionOpened,
    /// When its connection ended; `None` while a connection has it (or had it at a crash).
    pub closed_at: Option<UnixMillis>,
    /// That connection did not end in order.
    pub torn: bool,
}

impl SessionRow {
    /// A session that a connection has just opened.
    pub(super) fn of(opened: SessionOpened) -> Self {
        Self { opened, closed_at: None, torn: false }
    }

    /// The connection has ended, as a [`Change::SessionClosed`] says; other changes are none of its concern.
    pub(super) fn close(&mut self, change: &Change) {
        let Change::SessionClosed { at, expiry, keep_will, torn, .. } = change else { return };
        self.closed_at = Some(*at);
        self.torn = *torn;
        self.opened.expiry = *expiry;
        self.opened.will.take_if(|_| !keep_will);
    }
}

/// How far a session is with the packets of its exchanges, and a recipient with its messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Every leg up to this number is settled, or in the index.
    pub(super) cursor: Lsn,
    /// Ranges above the cursor, first to last number, in which no leg is open: as many at most as there are
    /// open legs between them, however long the oldest stays open.
    pub(super) settled: BTreeMap<u64, u64>,
    /// Inbound QoS 2 identifiers between PUBREC and PUBCOMP.
    pub inbound: BTreeSet<u16>,
    /// Outbound exchanges that have begun, by packet identifier.
    pub exchanges: BTreeMap<u16, Exchange>,
    /// The packet identifier to continue with; 0 when none was used yet.
    pub next_packet_id: u16,
    /// Messages with lower numbers may have been sent by a connection that did not end in order, without a trace
    /// of it in here. By number and not by time: the next start may have another clock.
    pub doubtful_before: Lsn,
}

impl Progress {
    /// Outbound exchanges in the order of their messages, which is the order they began in for each
    /// publisher.
    pub fn exchanges_in_order(&self) -> Vec<Exchange> {
        let mut exchanges: Vec<_> = self.exchanges.values().copied().collect();
        exchanges.sort_unstable_by_key(|exchange| exchange.lsn);
        exchanges
    }
}

pub(super) fn put_message(out: &mut Vec<u8>, message: &Message, legs: &[Leg], origin: Option<Lsn>) {
    let head = message.head();
    out.push(head.qos as u8 | (u8::from(head.retain) << 2) | (u8::from(origin.is_some()) << 3));
    if let Some(origin) = origin {
        put_varint(out, origin.0);
    }
    put_varint(out, head.published_at.0);
    put_varint(out, head.expires_at.0.wrapping_add(1));
    message.lengths().into_iter().for_each(|len| put_varint(out, len.into()));
    put_legs(out, legs);
    out.extend_from_slice(message.bytes());
}

/// The message, and each of the legs it was stored with.
pub(super) fn message(bytes: &[u8], each_leg: impl FnMut(Leg)) -> Result<MessageRow, StoreError> {
    let mut row = RowReader::new("message", bytes);
    let Head { parts, lengths, origin } = head(&mut row)?;
    legs(&mut row, each_leg)?;
    let damaged = row.damaged();
    let message = Message::restore(&parts, lengths, row.rest()).ok_or(damaged)?;
    Ok(MessageRow { message, origin })
}

/// The legs only: a start looks at many messages and needs none of them.
pub(super) fn message_legs(bytes: &[u8], each_leg: impl FnMut(Leg)) -> Result<(), StoreError> {
    let mut row = RowReader::new("message", bytes);
    head(&mut row)?;
    legs(&mut row, each_leg)
}

fn head(row: &mut RowReader<'_>) -> Result<Head, StoreError> {
    let flags = row.u8()?;
    if flags > 15 {
        return Err(row.damaged());
    }
    let origin = if flags & 8 != 0 { Some(Lsn(row.varint()?)) } else { None };
    let parts = MessageParts {
        qos: qos(row, flags & 3)?,
        retain: flags & 4 != 0,
        published_at: UnixMillis(row.varint()?),
        expires_at: UnixMillis(row.varint()?.wrapping_sub(1)),
        topic: "",
        properties: &[],
        payload: &[],
        publisher: "",
    };
    Ok(Head { parts, lengths: [row.u32()?, row.u32()?, row.u32()?], origin })
}

/// Legs sorted by recipient, each number as its distance from the one before.
fn put_legs(out: &mut Vec<u8>, legs: &[Leg]) {
    put_varint(out, legs.len() as u64);
    let mut previous = 0;
    for leg in legs {
        put_varint(out, leg.recipient.0 - previous);
        previous = leg.recipient.0;
        let ids = leg.subscription_ids.len() as u64;
        out.push(leg.qos as u8 | (u8::from(leg.retain) << 2) | (u8::from(ids > 0) << 3));
        if ids > 0 {
            put_varint(out, ids);
            leg.subscription_ids.iter().for_each(|id| put_varint(out, (*id).into()));
        }
    }
}

fn legs(row: &mut RowReader<'_>, mut each: impl FnMut(Leg)) -> Result<(), StoreError> {
    let count = row.varint()?;
    let mut previous = 0u64;
    for _ in 0..count {
        previous = previous.checked_add(row.varint()?).ok_or_else(|| row.damaged())?;
        let flags = row.u8()?;
        let ids = if flags & 8 != 0 { row.varint()? } else { 0 };
        let mut leg = Leg {
            recipient: RecipientNo(previous),
            qos: qos(row, flags & 3)?,
            retain: flags & 4 != 0,
            subscription_ids: SubscriptionIds::new(),
        };
        for _ in 0..ids {
            leg.subscription_ids.push(row.u32()?);
        }
        each(leg);
    }
    Ok(())
}

pub(super) fn put_session(out: &mut Vec<u8>, session: &SessionRow) {
    let opened = &session.opened;
    put_varint(out, opened.epoch.0);
    put_bytes(out, opened.client_id.as_bytes());
    put_optional(out, opened.user_name.as_deref().map(str::as_bytes));
    put_varint(out, opened.expiry.into());
    put_varint(out, opened.at.0);
    put_varint(out, session.closed_at.map_or(0, |at| at.0.saturating_add(1)));
    out.push(session.torn.into());
    let Some(will) = &opened.will else { return out.push(0) };
    out.push(1);
    put_varint(out, will.delay.into());
    put_varint(out, will.message_expiry.map_or(0, |seconds| u64::from(seconds) + 1));
    put_message(out, &will.message, &[], None);
}

pub(super) fn session(recipient: RecipientNo, bytes: &[u8]) -> Result<SessionRow, StoreError> {
    let mut row = RowReader::new("session", bytes);
    let mut opened = SessionOpened {
        recipient,
        epoch: Epoch(row.varint()?),
        client_id: row.str()?.into(),
        user_name: optional(&mut row)?.map(Into::into),
        expiry: row.u32()?,
        at: UnixMillis(row.varint()?),
        will: None,
    };
    let closed_at = row.varint()?.checked_sub(1).map(UnixMillis);
    let torn = row.bool()?;
    if row.bool()? {
        let delay = row.u32()?;
        let message_expiry = match row.varint()?.checked_sub(1) {
            Some(seconds) => Some(u32::try_from(seconds).map_err(|_| row.damaged())?),
            None => None,
        };
        opened.will = Some(WillRecord { delay, message_expiry, message: message(row.rest(), drop)?.message });
    } else {
        row.finish()?;
    }
    Ok(SessionRow { opened, closed_at, torn })
}

pub(super) fn put_progress(out: &mut Vec<u8>, progress: &Progress) {
    put_varint(out, progress.cursor.0);
    put_varint(out, progress.settled.len() as u64);
    let mut previous = progress.cursor.0;
    for (first, last) in &progress.settled {
        put_varint(out, first - previous);
        put_varint(out, last - first);
        previous = *last;
    }
    put_varint(out, progress.next_packet_id.into());
    put_varint(out, progress.doubtful_before.0);
    put_varint(out, progress.inbound.len() as u64);
    progress.inbound.iter().for_each(|id| put_varint(out, (*id).into()));
    put_varint(out, progress.exchanges.len() as u64);
    for exchange in progress.exchanges.values() {
        put_varint(out, exchange.packet_id.get().into());
        put_varint(out, exchange.lsn.0);
        put_varint(out, exchange.owner.0);
        out.push(exchange.state as u8);
    }
}

pub(super) fn progress(bytes: &[u8]) -> Result<Progress, StoreError> {
    let mut row = RowReader::new("progress", bytes);
    let mut progress = Progress { cursor: Lsn(row.varint()?), ..Progress::default() };
    let mut previous = progress.cursor.0;
    for _ in 0..row.varint()? {
        let first = previous.checked_add(row.varint()?).ok_or_else(|| row.damaged())?;
        let last = first.checked_add(row.varint()?).ok_or_else(|| row.damaged())?;
        progress.settled.insert(first, last);
        previous = last;
    }
    progress.next_packet_id = row.u16()?;
    progress.doubtful_before = Lsn(row.varint()?);
    for _ in 0..row.varint()? {
        progress.inbound.insert(row.u16()?);
    }
    for _ in 0..row.varint()? {
        let packet_id = PacketId::new(row.u16()?).ok_or_else(|| row.damaged())?;
        let (lsn, owner) = (Lsn(row.varint()?), RecipientNo(row.varint()?));
        let state = match row.u8()? {
            1 => ExchangeState::AwaitingPuback,
            2 => ExchangeState::AwaitingPubrec,
            3 => ExchangeState::AwaitingPubcomp,
            _ => return Err(row.damaged()),
        };
        progress.exchanges.insert(packet_id.get(), Exchange { packet_id, lsn, owner, state });
    }
    row.finish()?;
    Ok(progress)
}

/// Runs of numbers, each by its distance from the one before.
pub(super) fn put_chunk(out: &mut Vec<u8>, list: &PendingList) {
    let mut previous = 0;
    for run in list.runs() {
        put_varint(out, run.first - previous);
        put_varint(out, run.last - run.first);
        previous = run.last;
    }
}

pub(super) fn chunk(bytes: &[u8]) -> Result<PendingList, StoreError> {
    let mut row = RowReader::new("index", bytes);
    let (mut list, mut previous) = (PendingList::default(), 0u64);
    while !row.is_empty() {
        let gap = Some(row.varint()?).filter(|gap| *gap > 0);
        let first = gap.and_then(|gap| previous.checked_add(gap)).ok_or_else(|| row.damaged())?;
        let last = first.checked_add(row.varint()?).ok_or_else(|| row.damaged())?;
        list.push_run(Run { first, last });
        previous = last;
    }
    Ok(list)
}

/// How much of what a recipient is owed is in the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexed {
    pub(super) count: u64,
    pub(super) bytes: u64,
}

impl Indexed {
    /// One message less.
    pub(super) fn settled(&mut self, bytes: u64) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

pub(super) fn put_indexed(out: &mut Vec<u8>, indexed: Indexed) {
    put_varint(out, indexed.count);
    put_varint(out, indexed.bytes);
}

pub(super) fn indexed(bytes: &[u8]) -> Result<Indexed, StoreError> {
    let mut row = RowReader::new("index", bytes);
    let indexed = Indexed { count: row.varint()?, bytes: row.varint()? };
    row.finish()?;
    Ok(indexed)
}

pub(super) fn put_tries(out: &mut Vec<u8>, tries: &SavedTries) {
    let SavedTries { count, answers, first_at, last_at } = *tries;
    put_varint(out, count.into());
    put_varint(out, answers.into());
    put_varint(out, first_at.0);
    put_varint(out, last_at.0);
}

pub(super) fn tries(bytes: &[u8]) -> Result<SavedTries, StoreError> {
    let mut row = RowReader::new("tries", bytes);
    let (count, answers) = (row.u32()?, row.u32()?);
    let (first_at, last_at) = (UnixMillis(row.varint()?), UnixMillis(row.varint()?));
    row.finish()?;
    Ok(SavedTries { count, answers, first_at, last_at })
}

pub(super) fn put_subscription(out: &mut Vec<u8>, options: SubscribeOptions, id: Option<u32>) {
    let flags = options.qos as u8
        | (u8::from(options.no_local) << 2)
        | (u8::from(options.retain_as_published) << 3)
        | ((options.retain_handling as u8) << 4);
    out.push(flags);
    put_varint(out, id.unwrap_or(0).into());
}

pub(super) fn subscription(filter: &str, bytes: &[u8]) -> Result<SubscriptionRow, StoreError> {
    let mut row = RowReader::new("subscription", bytes);
    let flags = row.u8()?;
    let options = SubscribeOptions {
        qos: qos(&row, flags & 3)?,
        no_local: flags & 4 != 0,
        retain_as_published: flags & 8 != 0,
        retain_handling: match flags >> 4 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(row.damaged()),
        },
    };
    let id = Some(row.u32()?).filter(|id| *id > 0);
    row.finish()?;
    Ok(SubscriptionRow { filter: filter.into(), options, id })
}

fn qos(row: &RowReader<'_>, value: u8) -> Result<Qos, StoreError> {
    Qos::from_u8(value).ok_or_else(|| row.damaged())
}

fn put_optional(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    out.push(u8::from(bytes.is_some()));
    if let Some(bytes) = bytes {
        put_bytes(out, bytes);
    }
}

fn optional<'a>(row: &mut RowReader<'a>) -> Result<Option<&'a str>, StoreError> {
    Ok(if row.bool()? { Some(row.str()?) } else { None })
}
