//! Records: everything that has to become durable together.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{Epoch, Lsn, Message, RecipientNo, SavedTries, UnixMillis};
use crate::codec::{PacketId, Qos, SubscribeOptions};

/// Subscription identifiers that a delivery carries. Most carry none, some one.
pub type SubscriptionIds = SmallVec<[u32; 2]>;

/// Everything that has to become durable together. It is applied whole or not at all, under one number.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// The message, when the record holds one. Its number is that of the record.
    pub publication: Option<Publication>,
    /// What else changes with it.
    pub changes: Vec<Change>,
}

impl Record {
    /// A record of changes without a message.
    pub fn of(changes: impl Into<Vec<Change>>) -> Self {
        Self { publication: None, changes: changes.into() }
    }

    /// How many dead letters it files. Each has a number of its own: a record with several takes as many, and the
    /// last of them is its own and that of its message.
    pub fn letters(&self) -> u64 {
        self.changes.iter().filter(|change| matches!(change, Change::DeadLetter(_))).count() as u64
    }

    /// Whether there is something to write even when nobody is owed the message any more.
    pub fn holds_more_than_legs(&self) -> bool {
        let held = self.publication.as_ref().is_some_and(|p| p.retain || p.inbound.is_some());
        held || !self.changes.is_empty()
    }

    /// Roughly what the record occupies while it waits for the writer, in bytes.
    pub fn size(&self) -> usize {
        let message =
            self.publication.as_ref().map_or(0, |p| p.message.size() + p.legs.len() * size_of::<Leg>());
        size_of::<Self>() + message + self.changes.iter().map(Change::size).sum::<usize>()
    }
}

/// A message and everyone it is durably owed to.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The message.
    pub message: Message,
    /// Whom it is owed to, each recipient once.
    pub legs: SmallVec<[Leg; 1]>,
    /// The QoS 2 exchange it came in by, when its publisher's session is durable: stored with the message,
    /// so that a repeat is known also after a crash [MQTT-4.3.3-10].
    pub inbound: Option<InboundExchange>,
    /// Whether it becomes (or, with an empty payload, removes) the retained message of its topic.
    pub retain: bool,
    /// The number it had before, when it is a dead letter that is replayed: targets know it by that.
    pub origin: Option<Lsn>,
}

/// A QoS 2 exchange of a publisher, between PUBREC and PUBCOMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboundExchange {
    /// The publisher's session.
    pub recipient: RecipientNo,
    /// Its connection.
    pub epoch: Epoch,
    /// The packet identifier.
    pub packet_id: PacketId,
}

/// One recipient of a message, and how it gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    /// Who is owed the message.
    pub recipient: RecipientNo,
    /// The lower of published and granted QoS [MQTT-3.8.4-8].
    pub qos: Qos,
    /// The RETAIN flag of the delivery.
    pub retain: bool,
    /// The identifiers of the subscriptions that matched.
    pub subscription_ids: SubscriptionIds,
}

/// A durable change beside a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A session was created or resumed by a connection.
    SessionOpened(Box<SessionOpened>),
    /// The connection of a session ended. A later epoch makes this void.
    SessionClosed {
        /// The session.
        recipient: RecipientNo,
        /// The connection that ended.
        epoch: Epoch,
        /// When it ended.
        at: UnixMillis,
        /// Seconds that the session is kept from then on.
        expiry: u32,
        /// Whether the will is still to be published.
        keep_will: bool,
        /// Whether it did not end in order, so that its last reports may be missing.
        torn: bool,
    },
    /// A session, shared group or route is gone, and everything owed to it is void. Its number is never opened
    /// again: what is left of its legs in messages for several would be owed once more.
    Discarded(RecipientNo),
    /// A subscription was made or replaced.
    Subscribed(RecipientNo, Box<SubscriptionRow>),
    /// A subscription was removed; the filter as the client wrote it.
    Unsubscribed(RecipientNo, Box<str>),
    /// What a connection reports about its own session.
    Progress(Box<SessionDelta>),
    /// A group or a route has no further claim to these messages; a session that has none to them because they
    /// were given up.
    Settled(RecipientNo, Vec<Lsn>),
    /// The will that this connection left is gone from the session: it was published. That of a later one
    /// stays.
    WillRemoved(RecipientNo, Epoch),
    /// The retained message of this topic expired.
    RetainedRemoved(Box<str>),
    /// The retained message of this topic, in the same record, is by a client with this user name.
    RetainedBy(Box<str>, Arc<str>),
    /// A shared group exists: `$share/<name>/<filter>`.
    GroupOpened(RecipientNo, Box<str>),
    /// What was tried with messages that wait for another try: it counts on after a restart. It goes when they are
    /// settled.
    Tried(RecipientNo, Vec<(Lsn, SavedTries)>),
    /// A route exists under this name.
    RouteOpened(RecipientNo, Box<str>),
    /// A delivery was given up; the encoded dead letter, filed under a number of its record
    /// ([`Record::letters`]).
    DeadLetter(Arc<[u8]>),
    /// Dead letters were discarded, or replayed by the same record.
    DeadLettersDiscarded(Vec<Lsn>),
    /// The target of this name is sent nothing until it is resumed.
    TargetPaused(Box<str>, Box<Pause>),
    /// The target of this name is no longer paused.
    TargetResumed(Box<str>),
    /// It is so late now, and nothing else says so: the next start knows how long the broker was gone.
    TimePassed(UnixMillis),
}

impl Change {
    /// As [`Record::size`].
    fn size(&self) -> usize {
        let behind = match self {
            Self::DeadLetter(letter) => letter.len(),
            Self::Settled(_, numbers) | Self::DeadLettersDiscarded(numbers) => {
                size_of_val(numbers.as_slice())
            }
            Self::Tried(_, tries) => size_of_val(tries.as_slice()),
            Self::Progress(delta) => {
                size_of_val(delta.settled.as_slice())
                    + size_of_val(delta.settled_shared.as_slice())
                    + size_of_val(delta.exchanges.as_slice())
            }
            Self::SessionOpened(opened) => opened.will.as_ref().map_or(0, |will| will.message.size()),
            _ => 0,
        };
        size_of::<Self>() + behind
    }
}

/// Why a target is sent nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// In the words of whoever paused it; safe to print.
    pub why: Box<str>,
    /// When that was.
    pub since: UnixMillis,
}

/// What is known of a session from its CONNECT on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOpened {
    /// The session.
    pub recipient: RecipientNo,
    /// The connection that speaks for it from now on.
    pub epoch: Epoch,
    /// The client id.
    pub client_id: Arc<str>,
    /// The user name, if there was one.
    pub user_name: Option<Arc<str>>,
    /// Seconds that the session outlives its connection.
    pub expiry: u32,
    /// The will, when the client left one.
    pub will: Option<WillRecord>,
    /// When the connection was accepted.
    pub at: UnixMillis,
}

/// A will as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WillRecord {
    /// The message; its expiry counts from the moment it is published.
    pub message: Message,
    /// Will Delay Interval, seconds.
    pub delay: u32,
    /// Message Expiry Interval, seconds.
    pub message_expiry: Option<u32>,
}

/// A subscription as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionRow {
    /// As the client wrote it, `$share/...` included.
    pub filter: Box<str>,
    /// The options.
    pub options: SubscribeOptions,
    /// The Subscription Identifier.
    pub id: Option<u32>,
}

/// What a connection reports about its own session, gathered over a batch of packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionDelta {
    /// The session.
    pub recipient: RecipientNo,
    /// The connection; a report of an older one is void.
    pub epoch: Epoch,
    /// Messages that the session has no further claim to.
    pub settled: Vec<Lsn>,
    /// Messages of a shared group that this session has settled on the group's behalf.
    pub settled_shared: Vec<(RecipientNo, Lsn)>,
    /// Outbound exchanges that began, or moved on to PUBREL.
    pub exchanges: Vec<Exchange>,
    /// Outbound exchanges that ended.
    pub ended: Vec<PacketId>,
    /// Inbound QoS 2 identifiers that PUBREL released.
    pub released: Vec<PacketId>,
    /// The identifier that the session would use next; 0 when it has not moved.
    pub next_packet_id: u16,
}

impl SessionDelta {
    /// Whether there is nothing to report.
    pub fn is_empty(&self) -> bool {
        self.settled.is_empty()
            && self.settled_shared.is_empty()
            && self.exchanges.is_empty()
            && self.ended.is_empty()
            && self.released.is_empty()
    }
}

/// An outbound QoS 1 or 2 exchange: which message has which packet identifier, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The packet identifier.
    pub packet_id: PacketId,
    /// The message.
    pub lsn: Lsn,
    /// Who is owed the message: the session, or a shared group it acts for.
    pub owner: RecipientNo,
    /// How far it is.
    pub state: ExchangeState,
}

/// How far an outbound exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExchangeState {
    /// QoS 1: PUBLISH may have been sent.
    AwaitingPuback = 1,
    /// QoS 2: PUBLISH may have been sent.
    AwaitingPubrec = 2,
    /// QoS 2: PUBREC was received, PUBREL is owed.
    AwaitingPubcomp = 3,
}
