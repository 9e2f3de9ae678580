//! What a route has in hand of its backlog: what was read and may start, what waits behind another message of
//! its lane, what waits for another try, and how far it has looked.
//!
//! A message that waits for another try is not in memory, only its number and its history: it is read again
//! when it is due. So is one whose lane is blocked, when there is no room for it. Pure: the time comes in, and
//! the messages come from whoever reads the store.
//!
//! Invariant: a number that was taken and is not settled is in one place only (being read, held, absent, in
//! flight, waiting), only the first of a lane starts without those ahead of it, and at most [`SPAN_MAX`] messages
//! are looked at past the oldest that is not settled.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use foldhash::fast::RandomState;

use super::lanes::{Lane, Lanes};
use crate::bridge::policy::retry::deadline;
use crate::bridge::policy::tries::Tries;
use crate::config::{Order, RetryConfig, RouteConfig, TargetConfig};
use crate::record::{Attempts, Lsn, MessageHead, SavedTries, UnixMillis};
use crate::store::Stored;

/// Most messages that are looked at past the oldest that is not settled. It bounds the memory of a route
/// whose messages all wait for another try, or for one that does: their numbers, their lanes, and histories up to
/// [`HISTORIES_BYTES_MAX`].
const SPAN_MAX: usize = 65_536;
/// Fewest and most messages that are read at once: each reading costs a transaction and a change of threads.
const PAGE_MIN: usize = 128;
const PAGE_MAX: usize = 2048;
/// Bytes of messages in memory from which on no more are read, and those that wait for others of their lanes are
/// left out.
const HELD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// About how many bytes of attempts are kept of all messages that wait: the more there are, the less of each.
const HISTORIES_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What was tried with a message so far.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) tries: Tries,
    /// As a dead letter would tell it.
    pub(super) attempts: Attempts,
    /// Since when the target answers and does not take it, which is what those behind it wait for.
    pub(super) blocks_since: Option<UnixMillis>,
    /// Most messages that it may share a request with, itself included: fewer after each that was refused.
    pub(super) batch_max: usize,
}

/// A message that may start.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) stored: Stored,
    pub(super) lane: Option<Lane>,
    /// `None` before the first attempt.
    pub(super) history: Option<Box<History>>,
}

/// What is to be read.
#[derive(Debug)]
pub(super) enum Wanted {
    /// What was read before.
    Again(Again),
    /// What is owed after a number, so many messages at most.
    New { after: Lsn, max: usize },
}

/// Messages that are read again, in this order: what is due for another try, and what there was no room for.
#[derive(Debug, Default)]
pub(super) struct Again {
    pub(super) numbers: Vec<Lsn>,
    histories: HashMap<Lsn, Box<History>, RandomState>,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    /// Each with its lane.
    pub(super) messages: Vec<(Stored, Option<Lane>)>,
    /// How far was looked.
    pub(super) cursor: Lsn,
    /// Whether what was asked for and is not here is not owed any more.
    pub(super) is_whole: bool,
}

/// When the next request may start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    Now,
    /// A batch waits for more until then.
    At(UnixMillis),
    /// Nothing may start.
    Never,
}

impl History {
    /// Goes on after a restart.
    fn of(saved: SavedTries) -> Box<Self> {
        let SavedTries { count, answers, first_at, .. } = saved;
        let tries = Tries { count, answers, first_at };
        let attempts = Attempts::resume(&saved);
        Box::new(Self { tries, attempts, blocks_since: None, batch_max: usize::MAX })
    }
}

/// The window.
#[derive(Debug)]
pub(super) struct Window {
    /// Every number up to here was taken from the backlog.
    cursor: Lsn,
    /// From the oldest unsettled on: every number taken.
    taken: VecDeque<Taken>,
    lanes: Lanes,
    /// In memory, and neither in flight nor waiting.
    held: BTreeMap<Lsn, Held>,
    held_bytes: usize,
    /// Those of `held` that may start, in the order in which they do.
    eligible: BTreeSet<(u64, Lsn)>,
    /// Taken, and not in memory for want of room.
    absent: BTreeSet<Lsn>,
    /// Those of `absent` that are the first of their lane.
    missed: BTreeSet<Lsn>,
    waiting: BTreeMap<(UnixMillis, Lsn), Box<History>>,
    /// Of messages that were not read yet since the start.
    recalled: BTreeMap<Lsn, SavedTries>,
    /// Later turns start later.
    turn: u64,
    /// Nothing that is held is too old before this time.
    held_until: UnixMillis,
    /// So many may start before no more are read.
    enough: usize,
    /// All messages are in the same lane.
    is_one_lane: bool,
    batch: BatchLimits,
    policy: RetryConfig,
}

#[derive(Clone, Copy, Debug)]
struct Taken {
    lsn: Lsn,
    lane: Option<Lane>,
    is_settled: bool,
}

#[derive(Debug)]
struct Held {
    work: Work,
    /// A batch that begins with it waits for more until then.
    lingers_until: UnixMillis,
    /// Its place among what is eligible, when it is.
    turn: Option<u64>,
}

/// What one request carries.
#[derive(Clone, Copy, Debug)]
struct BatchLimits {
    count: usize,
    bytes: usize,
    linger: Duration,
}

impl Window {
    /// An empty window of a route to this target.
    pub(super) fn new(route: &RouteConfig, target: &TargetConfig) -> Self {
        let mut policy = target.retry.clone();
        policy.max_age = route.queue.age.map_or(policy.max_age, |age| age.min(policy.max_age));
        let batch = BatchLimits::of(route);
        let concurrency = usize::try_from(target.concurrency).unwrap_or(PAGE_MAX);
        Self {
            cursor: Lsn::ZERO,
            taken: VecDeque::new(),
            lanes: Lanes::default(),
            held: BTreeMap::new(),
            held_bytes: 0,
            eligible: BTreeSet::new(),
            absent: BTreeSet::new(),
            missed: BTreeSet::new(),
            waiting: BTreeMap::new(),
            recalled: BTreeMap::new(),
            turn: 0,
            held_until: UnixMillis::NEVER,
            enough: concurrency.saturating_mul(batch.count).clamp(PAGE_MIN, PAGE_MAX),
            is_one_lane: route.order == Order::All,
            batch,
            policy,
        }
    }

    /// What was tried with messages before the start.
    pub(super) fn recall(&mut self, tries: BTreeMap<Lsn, SavedTries>) {
        self.recalled = tries;
    }

    /// What to read now, if anything: what is due before what is missed, and that before what is new. `may_have`
    /// says whether something may be owed after a number.
    pub(super) fn wanted(&mut self, now: UnixMillis, may_have: impl FnOnce(Lsn) -> bool) -> Option<Wanted> {
        if self.has_enough() {
            return None;
        }
        let again = self.take_due(now).or_else(|| self.take_missed());
        if let Some(again) = again {
            return Some(Wanted::Again(again));
        }
        let max = self.enough.min(SPAN_MAX.saturating_sub(self.taken.len()));
        // A window that is full gets room one by one: that is gathered, for the sake of fewer pages. And where all
        // wait for each other there is nothing to look for further on.
        let is_full = max < self.enough || (self.is_one_lane && self.held.len() >= self.enough);
        let is_wanted = max > 0 && (!is_full || self.held.is_empty()) && may_have(self.cursor);
        is_wanted.then_some(Wanted::New { after: self.cursor, max })
    }

    /// When there is something to read again, if nothing else happens.
    pub(super) fn due(&self) -> UnixMillis {
        let first = self.waiting.first_key_value().map(|((at, _), _)| *at);
        first.filter(|_| !self.has_enough()).unwrap_or(UnixMillis::NEVER)
    }

    /// What was wanted was read, or as much of it as one reading gives: the rest is for later.
    pub(super) fn arrived(&mut self, now: UnixMillis, wanted: Wanted, arrived: Arrived) {
        let Arrived { messages, cursor, is_whole } = arrived;
        match wanted {
            Wanted::New { .. } => {
                self.cursor = cursor;
                for (stored, lane) in messages {
                    self.taken.push_back(Taken { lsn: stored.lsn, lane, is_settled: false });
                    self.lanes.enter(lane, stored.lsn);
                    self.put_new(Work { stored, lane, history: None }, now);
                }
            }
            Wanted::Again(mut again) => {
                let mut missing: BTreeSet<_> = again.numbers.iter().copied().collect();
                for (stored, lane) in messages {
                    missing.remove(&stored.lsn);
                    let history = again.histories.remove(&stored.lsn);
                    self.put(Work { stored, lane, history }, now);
                }
                if is_whole {
                    // Somebody else has settled them.
                    missing.into_iter().for_each(|lsn| self.settled(lsn));
                } else {
                    again.numbers.retain(|lsn| missing.contains(lsn));
                    self.not_arrived(now, Wanted::Again(again));
                }
            }
        }
    }

    /// What was wanted could not be read: it is wanted still.
    pub(super) fn not_arrived(&mut self, now: UnixMillis, wanted: Wanted) {
        let Wanted::Again(Again { numbers, mut histories }) = wanted else { return };
        for lsn in numbers {
            match histories.remove(&lsn) {
                Some(history) => drop(self.waiting.insert((now, lsn), history)),
                None => self.leave_out(lsn),
            }
        }
    }

    /// When [`Window::start`] has something.
    pub(super) fn next_start(&self, now: UnixMillis) -> Start {
        let Some((_, lsn)) = self.eligible.first() else { return Start::Never };
        let at = self.held.get(lsn).map_or(now, |held| held.lingers_until);
        if self.has_batch() || at <= now { Start::Now } else { Start::At(at) }
    }

    /// Whether a request would be full with what is held.
    pub(super) fn has_batch(&self) -> bool {
        self.held.len() >= self.batch.count || (self.held_bytes >= self.batch.bytes && !self.held.is_empty())
    }

    /// Takes the messages of the next request: those of one lane behind each other. Each is owed a
    /// [`Window::settled`], a [`Window::wait`] or a [`Window::put_back`].
    pub(super) fn start(&mut self) -> Vec<Work> {
        let (mut batch, mut bytes, mut max): (Vec<Work>, _, _) = (Vec::new(), 0, self.batch.count);
        let mut lent = Vec::new();
        while let Some((_, lsn)) = self.eligible.first().copied()
            && let Some(Held { work, .. }) = self.held.get(&lsn)
        {
            max = max.min(work.batch_max());
            let size = work.stored.message.size();
            if !batch.is_empty() && (batch.len() >= max || bytes + size > self.batch.bytes) {
                break;
            }
            let Some(work) = self.take(lsn) else { break };
            let next = (self.batch.count > 1).then(|| self.lanes.behind(work.lane, lsn).next()).flatten();
            if let Some(next) = next.filter(|next| self.held.contains_key(next)) {
                self.make_eligible(next);
                lent.push(next);
            }
            bytes += size;
            batch.push(work);
        }
        lent.into_iter().for_each(|lsn| self.make_ineligible(lsn));
        batch
    }

    /// Takes the oldest message that is neither in flight nor waits for another try, as [`Window::start`] does;
    /// but not the newest of all. `has_more` says whether something may be owed after a number.
    pub(super) fn shed(&mut self, has_more: impl FnOnce(Lsn) -> bool) -> Option<Work> {
        let oldest = self.held.keys().next().copied()?;
        let is_last = self.held.len() == 1 && self.absent.last().is_none_or(|absent| *absent < oldest);
        let is_newest = is_last && !has_more(self.cursor);
        if is_newest { None } else { self.take(oldest) }
    }

    /// Takes what is too old by now out of what is held, as [`Window::start`] does.
    pub(super) fn overdue(&mut self, now: UnixMillis) -> Vec<Work> {
        if now < self.held_until {
            return Vec::new();
        }
        let until = |held: &Held| self.deadline(held.work.stored.message.head());
        let overdue: Vec<_> =
            self.held.iter().filter(|(_, held)| until(held) <= now).map(|(lsn, _)| *lsn).collect();
        let left = self.held.values().map(until).filter(|until| *until > now);
        self.held_until = left.min().unwrap_or(UnixMillis::NEVER);
        overdue.into_iter().filter_map(|lsn| self.take(lsn)).collect()
    }

    /// When [`Window::overdue`] may find something.
    pub(super) fn held_until(&self) -> UnixMillis {
        self.held_until
    }

    /// When a message is too old for the target, or for the queue of the route.
    pub(super) fn deadline(&self, message: &MessageHead) -> UnixMillis {
        deadline(&self.policy, message)
    }

    /// A message that was started is settled.
    pub(super) fn settled(&mut self, lsn: Lsn) {
        let Ok(at) = self.taken.binary_search_by_key(&lsn, |taken| taken.lsn) else { return };
        let Some(taken) = self.taken.get_mut(at) else { return };
        taken.is_settled = true;
        let lane = taken.lane;
        while self.taken.front().is_some_and(|taken| taken.is_settled) {
            self.taken.pop_front();
        }
        if let Some(first) = self.lanes.leave(lane, lsn) {
            if self.held.contains_key(&first) {
                self.make_eligible(first);
            } else if self.absent.contains(&first) {
                self.missed.insert(first);
            }
        }
    }

    /// A message that was started is tried again at this time.
    pub(super) fn wait(&mut self, lsn: Lsn, mut history: Box<History>, at: UnixMillis) {
        self.rest(&mut history);
        self.waiting.insert((at, lsn), history);
    }

    /// Messages that were started may start again, but after the others, so that each probe of a target that is
    /// down is made with another message: one that the target chokes on does not keep the others waiting.
    pub(super) fn put_back(&mut self, batch: Vec<Work>, now: UnixMillis) {
        self.turn += 1;
        for mut work in batch {
            work.history.iter_mut().for_each(|history| self.rest(history));
            self.put(work, now);
        }
    }

    /// Whether messages of its lane wait for this one.
    pub(super) fn blocks_others(&self, work: &Work) -> bool {
        self.lanes.has_behind(work.lane, work.stored.lsn)
    }

    /// Messages that are in memory and not in flight.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// Messages that wait for another try.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The lane of a message that was taken.
    pub(super) fn lane_of(&self, lsn: Lsn) -> Option<Lane> {
        let at = self.taken.binary_search_by_key(&lsn, |taken| taken.lsn).ok()?;
        self.taken.get(at)?.lane
    }

    /// Whether there is something to start with for a while.
    fn has_enough(&self) -> bool {
        let is_much = self.eligible.len() >= self.enough || self.held_bytes >= HELD_BYTES_MAX;
        is_much && !self.eligible.is_empty()
    }

    fn take_due(&mut self, now: UnixMillis) -> Option<Again> {
        let mut again = Again::default();
        while again.numbers.len() < self.enough
            && let Some(entry) = self.waiting.first_entry().filter(|entry| entry.key().0 <= now)
        {
            let ((_, lsn), history) = entry.remove_entry();
            again.numbers.push(lsn);
            again.histories.insert(lsn, history);
        }
        (!again.numbers.is_empty()).then_some(again)
    }

    /// The first of lanes, each with some of what is behind it. When nothing is in memory at all the oldest are
    /// read, though they may not start: they may be too old, or have to go for others.
    fn take_missed(&mut self) -> Option<Again> {
        let mut again = Again::default();
        while again.numbers.len() < self.enough
            && let Some(first) = self.missed.pop_first()
        {
            self.absent.remove(&first);
            again.numbers.push(first);
            let behind = self.lanes.behind(self.lane_of(first), first);
            let behind =
                behind.take_while(|lsn| self.absent.contains(lsn)).take(self.batch.count.max(PAGE_MIN));
            let behind: Vec<_> = behind.collect();
            for lsn in &behind {
                self.absent.remove(lsn);
            }
            again.numbers.extend(behind);
        }
        while self.held.is_empty()
            && again.numbers.len() < PAGE_MIN
            && let Some(oldest) = self.absent.pop_first()
        {
            again.numbers.push(oldest);
        }
        (!again.numbers.is_empty()).then_some(again)
    }

    fn put_new(&mut self, work: Work, now: UnixMillis) {
        let has_room = self.held.len() < 4 * self.enough && self.held_bytes < HELD_BYTES_MAX;
        if has_room || self.lanes.is_first(work.lane, work.stored.lsn) {
            self.put(work, now);
        } else {
            self.leave_out(work.stored.lsn);
        }
    }

    fn put(&mut self, mut work: Work, now: UnixMillis) {
        if work.history.is_none() && !self.recalled.is_empty() {
            work.history = self.recalled.remove(&work.stored.lsn).map(History::of);
        }
        let (lsn, is_first) = (work.stored.lsn, self.lanes.is_first(work.lane, work.stored.lsn));
        self.held_until = self.held_until.min(self.deadline(work.stored.message.head()));
        self.held_bytes += work.stored.message.size();
        // What was tried has waited for others to join it already.
        let lingers_until = if work.history.is_some() { now } else { now.plus(self.batch.linger) };
        self.held.insert(lsn, Held { work, lingers_until, turn: None });
        if is_first {
            self.make_eligible(lsn);
        }
    }

    fn rest(&self, history: &mut History) {
        history.attempts.rest(HISTORIES_BYTES_MAX / (self.waiting.len() + self.held.len()).max(1));
    }

    fn leave_out(&mut self, lsn: Lsn) {
        self.absent.insert(lsn);
        if self.lanes.is_first(self.lane_of(lsn), lsn) {
            self.missed.insert(lsn);
        }
    }

    fn take(&mut self, lsn: Lsn) -> Option<Work> {
        self.make_ineligible(lsn);
        let work = self.held.remove(&lsn)?.work;
        self.held_bytes = self.held_bytes.saturating_sub(work.stored.message.size());
        Some(work)
    }

    fn make_eligible(&mut self, lsn: Lsn) {
        if let Some(held) = self.held.get_mut(&lsn) {
            let turn = *held.turn.get_or_insert(self.turn);
            self.eligible.insert((turn, lsn));
        }
    }

    fn make_ineligible(&mut self, lsn: Lsn) {
        if let Some(turn) = self.held.get_mut(&lsn).and_then(|held| held.turn.take()) {
            self.eligible.remove(&(turn, lsn));
        }
    }
}

impl Work {
    fn batch_max(&self) -> usize {
        self.history.as_ref().map_or(usize::MAX, |history| history.batch_max)
    }
}

impl BatchLimits {
    fn of(route: &RouteConfig) -> Self {
        let Some(batch) = &route.batch else { return Self { count: 1, bytes: 0, linger: Duration::ZERO } };
        Self {
            count: usize::try_from(batch.count).unwrap_or(1).max(1),
            bytes: usize::try_from(batch.bytes).unwrap_or(usize::MAX),
            linger: batch.linger,
        }
    }
}

#[cfg(test)]
mod tests;
