//! A session's place in the broker: where messages for it are put, whether or not it has a connection.
//!
//! Invariant: a frame is put into the outbox in live mode only. What does not become a frame is owed by the
//! store, and is read back before the slot is live again, so that nothing newer overtakes it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::sync::Notify;

use super::sync::{AtomicBool, AtomicU8, Mutex, MutexGuard, Ordering};
use super::turn::Room;
use super::{Bell, Group, Memory, MemoryShare};
use crate::codec::{Qos, ReasonCode, SubscribeOptions};
use crate::record::{Addressee, Epoch, Lsn, Message, RecipientNo, UnixMillis, WillRecord};
use crate::session::Delivery;
use crate::store::{Backlog, Page};
use crate::topic::SubscriptionFilter;

/// Messages that a session may be owed before no more retained ones are added, while it reads its backlog.
const RETAINED_OWED_MAX: u64 = 1024;

/// What a subscription asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The options of the SUBSCRIBE.
    pub options: SubscribeOptions,
    /// The Subscription Identifier.
    pub id: Option<u32>,
}

/// A session's place.
#[derive(Debug)]
pub struct Slot {
    /// The client id.
    pub client_id: Arc<str>,
    /// Tells slots apart, also those of one client id.
    pub(super) id: u64,
    /// What makes the session durable; `None` when it ends with its connection.
    pub(super) durable: Option<DurableSlot>,
    /// Told when a connection has left.
    pub(super) left: Notify,
    inner: Mutex<SlotInner>,
}

/// The durable side of a slot.
#[derive(Clone, Debug)]
pub struct DurableSlot {
    /// The session's number in the store.
    pub recipient: RecipientNo,
    /// What the session is owed.
    pub backlog: Arc<Backlog>,
}

/// How a connection is reached from outside.
#[derive(Debug, Default)]
pub struct Link {
    /// Wakes the connection's task.
    pub bell: Arc<Bell>,
    /// The reason code to leave with; 0 to stay.
    evicted: AtomicU8,
    /// The session is not this connection's any more.
    unseated: AtomicBool,
}

/// What is behind the slot's mutex.
#[derive(Debug)]
pub(super) struct SlotInner {
    pub(super) mode: Mode,
    outbox: VecDeque<Delivery>,
    outbox_bytes: usize,
    /// What the outbox, and the frames that the connection took last, have of the common budget.
    share: MemoryShare,
    /// Messages that the connection has taken from here and that its client has not acknowledged.
    in_hand: usize,
    /// How many the client may have unacknowledged.
    pub(super) window: usize,
    /// Publishers that wait until the outbox was emptied. One enters with a message that it has put there, so
    /// that the limit of the outbox is that of this list.
    waiting: Vec<Arc<Link>>,
    /// The highest number that was put here, as a frame or not.
    last_pushed: Lsn,
    /// The highest number that was put here as a frame.
    framed: Lsn,
    /// The highest number that the connection has taken from here or from the store: what it has in hand is
    /// not above.
    hand: Lsn,
    /// What is owed up to here, and was not in hand, was given up.
    gone: Lsn,
    /// With this number that is durable: until then it can be read.
    gone_at: Lsn,
    /// With this number everything that a connection which has left had to say is durable.
    told_at: Lsn,
    /// Up to here everything was read from the store: what is pushed later with such a number was seen.
    floor: Lsn,
    /// The connection sleeps; whoever clears this owes it the bell.
    parked: bool,
    pub(super) link: Option<Arc<Link>>,
    /// Drawn at each CONNECT; the newest wins.
    pub(super) epoch: Epoch,
    /// The epoch of the connection that has, or last had, the session.
    pub(super) seat_epoch: Epoch,
    pub(super) subscriptions: HashMap<SubscriptionFilter, Subscription, RandomState>,
    pub(super) will: Option<SlotWill>,
    /// Seconds that the session outlives its connection.
    pub(super) expiry: u32,
    /// When the last connection ended, while there is none.
    pub(super) closed_at: Option<UnixMillis>,
    /// When the timers look at the slot next.
    pub(super) wakes_at: Option<UnixMillis>,
    /// The last connection did not end in order, so that its last reports may be missing.
    pub(super) torn: bool,
    /// The store has the session: there is something to resume.
    pub(super) opened: bool,
    /// The shared groups it takes part in.
    pub(super) groups: Vec<Arc<Group>>,
}

/// A will and whose it is: rights are asked for again when it is published.
#[derive(Clone, Debug)]
pub(super) struct SlotWill {
    pub(super) record: WillRecord,
    pub(super) user_name: Option<Arc<str>>,
    /// The connection that left it.
    pub(super) epoch: Epoch,
    /// When it is due; `None` while the connection is open.
    pub(super) due: Option<UnixMillis>,
}

/// What of a session's queue nobody has in hand, at a look at it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Untouched {
    /// Everything above this.
    pub(super) above: Lsn,
    /// The connection that had drawn the session last.
    pub(super) epoch: Epoch,
    /// Whether a connection has it.
    pub(super) online: bool,
}

/// Where a message for the session goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Into the outbox.
    Live,
    /// To the store only: the connection reads its backlog.
    Backlog,
    /// To the store only: there is no connection.
    Offline,
    /// Nowhere: the session is over.
    Ended,
}

/// Who has to be told, or waited for, when a batch of messages was put into slots.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Connections that slept.
    pub(super) links: Vec<Arc<Link>>,
    /// A session whose outbox is more than half full.
    pub(super) crowded: Option<Arc<Slot>>,
}

impl Touched {
    /// Rings for everyone.
    pub(super) fn ring(&mut self) {
        self.links.drain(..).for_each(|link| link.bell.ring());
    }
}

/// What became of a message that was put into a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// In the outbox, or owed by the store.
    Kept,
    /// In an outbox that is more than half full, and not owed by the store to this session: who publishes
    /// should wait a little.
    Crowded,
    /// A QoS 0 message, or one of a shared group, that found no room, or nobody.
    Dropped,
    /// The client does not read and its session ends with the connection: the connection is told to go.
    Overflow,
}

impl Link {
    /// Tells the connection to leave with this reason code.
    pub fn evict(&self, reason: ReasonCode) {
        self.evicted.store(reason as u8, Ordering::Release);
        self.bell.ring();
    }

    /// The reason to leave, if the connection was told to.
    pub fn eviction(&self) -> Option<ReasonCode> {
        match self.evicted.load(Ordering::Acquire) {
            0 => None,
            code => ReasonCode::from_u8(code),
        }
    }

    /// Whether the connection has given its session back, or was too slow to: then it does nothing more for it.
    pub fn is_unseated(&self) -> bool {
        self.unseated.load(Ordering::Acquire)
    }

    pub(super) fn unseat(&self) {
        self.unseated.store(true, Ordering::Release);
    }
}

impl Slot {
    pub(super) fn new(
        client_id: Arc<str>,
        id: u64,
        durable: Option<DurableSlot>,
        expiry: u32,
        memory: &Arc<Memory>,
    ) -> Self {
        let inner = SlotInner {
            mode: Mode::Offline,
            outbox: VecDeque::new(),
            outbox_bytes: 0,
            share: MemoryShare::of(memory),
            in_hand: 0,
            window: 0,
            waiting: Vec::new(),
            last_pushed: Lsn::ZERO,
            framed: Lsn::ZERO,
            hand: Lsn::ZERO,
            gone: Lsn::ZERO,
            gone_at: Lsn::ZERO,
            told_at: Lsn::ZERO,
            floor: Lsn::ZERO,
            parked: false,
            link: None,
            epoch: Epoch::default(),
            seat_epoch: Epoch::default(),
            subscriptions: HashMap::default(),
            will: None,
            expiry,
            closed_at: None,
            wakes_at: None,
            torn: false,
            opened: false,
            groups: Vec::new(),
        };
        Self { client_id, id, durable, left: Notify::new(), inner: Mutex::new(inner) }
    }

    /// The durable side, when the session outlives its connection.
    pub fn durable(&self) -> Option<&DurableSlot> {
        self.durable.as_ref()
    }

    /// Whom a dead letter of this session was for.
    pub(super) fn addressee(&self) -> Addressee {
        Addressee::Session { client_id: self.client_id.to_string() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, SlotInner> {
        self.inner.lock()
    }

    /// Puts a message here. The link of a connection that sleeps is added to `touched`: the caller owes it
    /// the bell, and pays after its batch.
    pub(super) fn push(&self, delivery: Delivery, bytes_max: usize, touched: &mut Touched) -> Pushed {
        let mut inner = self.inner.lock();
        let own = self.durable.as_ref().map(|durable| durable.recipient);
        // A claim of a shared group is the group's to look after.
        let number = delivery.claim.as_ref().filter(|claim| Some(claim.owner) == own).map(|claim| claim.lsn);
        let pushed = match (inner.mode, number) {
            (Mode::Live, Some(lsn)) if lsn <= inner.floor.max(inner.gone) => return Pushed::Kept,
            (Mode::Live, _) | (Mode::Backlog, None) => {
                inner.push_frame(delivery, bytes_max, number.is_some())
            }
            (_, Some(_)) => Pushed::Kept,
            (_, None) => Pushed::Dropped,
        };
        if let Some(lsn) = number {
            inner.last_pushed = inner.last_pushed.max(lsn);
            if inner.mode == Mode::Live {
                inner.framed = inner.framed.max(lsn);
            }
        }
        if pushed != Pushed::Dropped && std::mem::take(&mut inner.parked) {
            touched.links.extend(inner.link.clone());
        }
        pushed
    }

    /// The connection of this link takes nothing any more. It keeps the seat until it has given back what it
    /// had in hand.
    pub fn quiet(&self, link: &Arc<Link>) {
        let mut inner = self.inner.lock();
        let is_seated = inner.link.as_ref().is_some_and(|seated| Arc::ptr_eq(seated, link));
        if is_seated && inner.mode != Mode::Ended {
            inner.mode = Mode::Offline;
        }
    }

    /// Takes what is in the outbox, all at once; `frames` has to be empty. `unacknowledged` is how many messages
    /// the client has not acknowledged. Gives the mode.
    pub fn take_frames(&self, frames: &mut VecDeque<Delivery>, unacknowledged: usize) -> Mode {
        let mut inner = self.inner.lock();
        inner.in_hand = unacknowledged + inner.outbox.len();
        inner.hand = inner.hand.max(inner.framed);
        // The frames that were taken before are gone; those that are taken now are still there.
        let bytes = std::mem::take(&mut inner.outbox_bytes);
        inner.share.shrink(bytes);
        std::mem::swap(&mut inner.outbox, frames);
        let (mode, waiting) = (inner.mode, std::mem::take(&mut inner.waiting));
        drop(inner);
        waiting.iter().for_each(|link| link.bell.ring());
        mode
    }

    /// The connection has read what it is owed next, and takes it in hand. What was given up meanwhile is taken
    /// out.
    pub fn take_in_hand(&self, page: &mut Page) {
        let mut inner = self.inner.lock();
        let (hand, gone) = (inner.hand, inner.gone);
        page.messages.retain(|stored| stored.lsn <= hand || stored.lsn > gone);
        inner.hand = hand.max(page.cursor);
    }

    /// Above which number nobody has in hand what the session is owed. `None` while that is not known, or when
    /// the session is over.
    pub(super) fn untouched(&self, durable: Lsn) -> Option<Untouched> {
        let inner = self.inner.lock();
        let online = inner.link.is_some();
        // Also when the next one is there: what the last one has settled is still counted until then.
        let is_known = inner.told_at <= durable;
        let above = if online { inner.hand } else { Lsn::ZERO };
        let untouched = Untouched { above, epoch: inner.epoch, online };
        (is_known && inner.mode != Mode::Ended).then_some(untouched)
    }

    /// Gives up what is owed up to `last` and is not in hand, by records that `submit` submits: it is told
    /// above which number that is, and gives the last record. Frames that were not taken yet are read back from
    /// the store, without what is given up. Does nothing when the connection is another one by now.
    pub(super) fn let_go_above<E>(
        &self,
        seen: &Untouched,
        last: Lsn,
        submit: impl FnOnce(Lsn) -> Result<Lsn, E>,
    ) -> Option<Result<(), E>> {
        let mut inner = self.inner.lock();
        let is_same = inner.epoch == seen.epoch && inner.link.is_some() == seen.online;
        let above = if seen.online { inner.hand } else { Lsn::ZERO };
        if !is_same || inner.mode == Mode::Ended || last <= above {
            return None;
        }
        inner.retreat(self.durable.as_ref()?.recipient);
        inner.gone = inner.gone.max(last);
        let submitted = submit(above).map(|record| inner.gone_at = inner.gone_at.max(record));
        let link = inner.link.clone();
        drop(inner);
        link.into_iter().for_each(|link| link.bell.ring());
        Some(submitted)
    }

    /// Whether the outbox is more than half full.
    pub fn is_crowded(&self, bytes_max: usize) -> bool {
        self.inner.lock().is_crowded(bytes_max)
    }

    /// Rings for `link` when the outbox was emptied. False when it is not crowded any more.
    pub fn wait_for_room(&self, link: &Arc<Link>, bytes_max: usize) -> bool {
        let mut inner = self.inner.lock();
        let crowded = inner.is_crowded(bytes_max);
        if crowded {
            inner.waiting.push(Arc::clone(link));
        }
        crowded
    }

    /// Goes to sleep unless there is something in the outbox. The connection named its waker to its bell
    /// before.
    pub fn park(&self) -> bool {
        let mut inner = self.inner.lock();
        inner.parked = inner.outbox.is_empty();
        inner.parked
    }

    /// Goes live when the connection has read everything up to `durable` from the store, nothing later was put
    /// here meanwhile, and what was given up cannot be read any more. Otherwise gives the number to wait for.
    pub fn go_live(&self, durable: Lsn) -> Result<(), Lsn> {
        let mut inner = self.inner.lock();
        if inner.mode != Mode::Backlog {
            return Ok(());
        }
        let awaited = inner.last_pushed.max(inner.gone_at);
        if awaited > durable {
            return Err(awaited);
        }
        inner.mode = Mode::Live;
        inner.floor = durable;
        Ok(())
    }

    /// What room there is for a message of this size, when it would be taken now. One that a group has stored
    /// is for members who have nothing of their own to read first.
    pub(super) fn room(&self, size: usize, bytes_max: usize, is_stored: bool) -> Option<Room> {
        let inner = self.inner.lock();
        let fits = inner.outbox_bytes + size <= bytes_max || inner.outbox.is_empty();
        let room = || Room {
            in_hand: inner.in_hand + inner.outbox.len(),
            window: inner.window,
            crowded: inner.is_crowded(bytes_max),
        };
        let takes = inner.mode == Mode::Live || (inner.mode == Mode::Backlog && !is_stored);
        (takes && fits).then(room)
    }

    /// Whether more retained messages may be handed over: they wait for the client like everything else.
    pub fn has_room_for_retained(&self, bytes_max: usize) -> bool {
        let owed = self.durable.as_ref().map_or(0, |durable| durable.backlog.count());
        let inner = self.inner.lock();
        inner.outbox_bytes <= bytes_max / 2 && (inner.mode == Mode::Live || owed < RETAINED_OWED_MAX)
    }

    /// Whether a retained message can be handed over without being lost: it fits into the outbox, or the store owes
    /// it to the session.
    pub(super) fn has_room_for(&self, message: &Message, qos: Qos, bytes_max: usize) -> bool {
        let is_owed = self.durable.is_some() && qos.min(message.head().qos) > Qos::AtMostOnce;
        let inner = self.inner.lock();
        is_owed || inner.outbox.is_empty() || inner.outbox_bytes + Delivery::size_of(message) <= bytes_max
    }

    /// The shared groups that the session takes part in.
    pub fn groups(&self) -> Vec<Arc<Group>> {
        self.inner.lock().groups.clone()
    }

    /// Messages in the outbox, and their bytes.
    #[cfg(test)]
    pub(crate) fn buffered(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.outbox.len(), inner.outbox_bytes)
    }

    /// How the connection is reached, when there is one.
    pub(super) fn link(&self) -> Option<Arc<Link>> {
        self.inner.lock().link.clone()
    }

    /// Whether a connection has the session.
    pub fn is_online(&self) -> bool {
        self.inner.lock().link.is_some()
    }
}

impl SlotInner {
    fn is_crowded(&self, bytes_max: usize) -> bool {
        self.mode == Mode::Live && self.outbox_bytes > bytes_max / 2
    }

    /// A frame that does not fit sends a durable session to its backlog when that has the message, and ends a
    /// session that is not durable. A shared group finds somebody else.
    fn push_frame(&mut self, delivery: Delivery, bytes_max: usize, is_own: bool) -> Pushed {
        let size = delivery.size();
        let fits = self.outbox_bytes + size <= bytes_max || self.outbox.is_empty();
        if fits && self.share.grow(self.outbox_bytes + size) {
            self.outbox_bytes += size;
            let must_arrive = delivery.qos > Qos::AtMostOnce && !is_own;
            self.outbox.push_back(delivery);
            return if must_arrive && self.is_crowded(bytes_max) { Pushed::Crowded } else { Pushed::Kept };
        }
        if is_own {
            self.mode = Mode::Backlog;
            return Pushed::Kept;
        }
        if delivery.qos == Qos::AtMostOnce || delivery.claim.is_some() {
            return Pushed::Dropped;
        }
        if let Some(link) = &self.link {
            link.evict(ReasonCode::QuotaExceeded);
        }
        Pushed::Overflow
    }

    /// Goes back to the backlog, and leaves to it the frames of this owner that wait.
    fn retreat(&mut self, own: RecipientNo) {
        if self.mode != Mode::Live {
            return;
        }
        self.mode = Mode::Backlog;
        self.outbox.retain(|frame| frame.claim.as_ref().is_none_or(|claim| claim.owner != own));
        self.outbox_bytes = self.outbox.iter().map(Delivery::size).sum();
        self.framed = self.hand;
    }

    /// A connection takes the seat, with nothing in hand.
    pub(super) fn empty_hand(&mut self) {
        (self.framed, self.hand, self.gone) = (Lsn::ZERO, Lsn::ZERO, Lsn::ZERO);
    }

    /// The connection has left; with this number what it had to say is durable.
    pub(super) fn tells_until(&mut self, lsn: Lsn) {
        self.told_at = lsn;
    }

    /// When the session ends, while there is no connection.
    pub(super) fn expires_at(&self) -> Option<UnixMillis> {
        let kept = Duration::from_secs(self.expiry.into());
        self.closed_at.map(|closed_at| closed_at.plus(kept))
    }

    /// Takes the will out when its delay has passed: whoever takes it publishes it.
    pub(super) fn take_due_will(&mut self, now: UnixMillis) -> Option<SlotWill> {
        self.will.take_if(|will| will.due.is_some_and(|due| due <= now))
    }

    /// Forgets the frames: what is durable is owed by the store.
    pub(super) fn drop_frames(&mut self) {
        self.in_hand = 0;
        self.outbox_bytes = 0;
        self.share.shrink(0);
        self.outbox = VecDeque::new();
    }
}
