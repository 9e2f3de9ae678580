//! What a route has in hand of its backlog: what was read and may start, what waits for another try, and
//! how far it has looked.
//!
//! A message that waits for another try is not in memory, only its number and its history: it is read
//! again when it is due. Pure: the time comes in, and the messages come from whoever reads the store.
//!
//! Invariant: a number is in one place only (being read, ready, in flight, waiting), and at most
//! [`SPAN_MAX`] messages are looked at past the oldest that is not settled.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::bridge::policy::retry::deadline;
use crate::bridge::policy::tries::Tries;
use crate::config::{RetryConfig, TargetConfig};
use crate::record::{Attempts, Lsn, UnixMillis};
use crate::store::{Page, Stored};

/// Most messages that are looked at past the oldest that is not settled. It bounds the memory of a route
/// whose messages all wait for another try: some 10 MB.
const SPAN_MAX: usize = 65_536;
/// Fewest and most messages that are read at once.
const PAGE_MIN: usize = 16;
const PAGE_MAX: usize = 1024;

/// What was tried with a message so far.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub(super) tries: Tries,
    /// As a dead letter would tell it.
    pub(super) attempts: Attempts,
}

/// A message that may start.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) stored: Stored,
    /// `None` before the first attempt.
    pub(super) history: Option<Box<History>>,
}

/// What is to be read.
#[derive(Debug)]
pub(super) enum Wanted {
    /// What is due for another try.
    Again(Retries),
    /// What is owed after a number, so many messages at most.
    New { after: Lsn, max: usize },
}

/// Messages that are due for another try, in this order.
#[derive(Debug)]
pub(super) struct Retries {
    pub(super) numbers: Vec<Lsn>,
    histories: HashMap<Lsn, Box<History>, RandomState>,
}

/// The window.
#[derive(Debug)]
pub(super) struct Window {
    /// Every number up to here was taken from the backlog.
    cursor: Lsn,
    /// From the oldest unsettled on: every number taken, and whether it is settled.
    taken: VecDeque<(Lsn, bool)>,
    ready: VecDeque<Work>,
    /// Nothing in `ready` is too old before this time.
    ready_until: UnixMillis,
    waiting: BTreeMap<(UnixMillis, Lsn), Box<History>>,
    /// One message at a time, so that none overtakes another.
    in_order: bool,
    /// So many are ready before no more are read.
    enough: usize,
    policy: RetryConfig,
}

impl Window {
    /// An empty window of a route to this target, in whose queue a message may become so old.
    pub(super) fn new(target: &TargetConfig, queued_age: Option<Duration>) -> Self {
        let mut policy = target.retry.clone();
        policy.max_age = queued_age.map_or(policy.max_age, |age| age.min(policy.max_age));
        let concurrency = usize::try_from(target.concurrency).unwrap_or(PAGE_MAX);
        Self {
            cursor: Lsn::ZERO,
            taken: VecDeque::new(),
            ready: VecDeque::new(),
            ready_until: UnixMillis::NEVER,
            waiting: BTreeMap::new(),
            in_order: concurrency == 1,
            enough: concurrency.clamp(PAGE_MIN, PAGE_MAX),
            policy,
        }
    }

    /// What to read now, if anything: what is due for another try before what is new. `may_have` says whether
    /// something may be owed after a number.
    pub(super) fn wanted(&mut self, now: UnixMillis, may_have: impl FnOnce(Lsn) -> bool) -> Option<Wanted> {
        let mut retries = Retries { numbers: Vec::new(), histories: HashMap::default() };
        while self.reads_retries()
            && retries.numbers.len() < self.enough
            && let Some(entry) = self.waiting.first_entry().filter(|entry| entry.key().0 <= now)
        {
            let ((_, lsn), history) = entry.remove_entry();
            retries.numbers.push(lsn);
            retries.histories.insert(lsn, history);
        }
        if !retries.numbers.is_empty() {
            return Some(Wanted::Again(retries));
        }
        let max = self.enough.min(SPAN_MAX.saturating_sub(self.taken.len()));
        let wants_new = max > 0 && self.ready.len() < self.enough && may_have(self.cursor);
        wants_new.then_some(Wanted::New { after: self.cursor, max })
    }

    /// When there is something to read again, if nothing else happens.
    pub(super) fn due(&self) -> UnixMillis {
        let first = self.waiting.first_key_value().map(|((at, _), _)| *at);
        first.filter(|_| self.reads_retries()).unwrap_or(UnixMillis::NEVER)
    }

    /// What was wanted was read, or as much of it as one reading gives: the rest is for later.
    pub(super) fn arrived(&mut self, now: UnixMillis, wanted: Wanted, page: Page) {
        match wanted {
            Wanted::New { .. } => {
                self.cursor = page.cursor;
                for stored in page.messages {
                    self.taken.push_back((stored.lsn, false));
                    self.put(Work { stored, history: None });
                }
            }
            Wanted::Again(mut retries) => {
                for stored in page.messages {
                    let history = retries.histories.remove(&stored.lsn);
                    self.put(Work { stored, history });
                }
                if page.is_whole {
                    // Somebody else has settled them.
                    retries.histories.into_keys().for_each(|lsn| self.settled(lsn));
                } else {
                    self.not_arrived(now, Wanted::Again(retries));
                }
            }
        }
    }

    /// What was wanted could not be read: it is wanted still.
    pub(super) fn not_arrived(&mut self, now: UnixMillis, wanted: Wanted) {
        if let Wanted::Again(Retries { histories, .. }) = wanted {
            self.waiting.extend(histories.into_iter().map(|(lsn, history)| ((now, lsn), history)));
        }
    }

    /// The message that starts next. In order, that is the oldest that is not settled, or none.
    pub(super) fn peek(&self) -> Option<&Work> {
        let oldest = self.taken.front().map(|(lsn, _)| *lsn);
        self.ready.front().filter(|work| !self.in_order || oldest == Some(work.stored.lsn))
    }

    /// Takes the message that starts next. It is owed a [`Window::settled`], a [`Window::wait`] or a
    /// [`Window::hold`].
    pub(super) fn start(&mut self) -> Option<Work> {
        self.peek()?;
        self.ready.pop_front()
    }

    /// Takes the oldest message that is neither in flight nor waits for another try, as [`Window::start`] does;
    /// but not the newest of all. `has_more` says whether something may be owed after a number.
    pub(super) fn shed(&mut self, has_more: impl FnOnce(Lsn) -> bool) -> Option<Work> {
        let is_newest = self.ready.len() == 1 && !has_more(self.cursor);
        if is_newest { None } else { self.ready.pop_front() }
    }

    /// Takes what is too old by now out of what is ready, as [`Window::start`] does.
    pub(super) fn overdue(&mut self, now: UnixMillis) -> Vec<Work> {
        let mut overdue = Vec::new();
        if now < self.ready_until {
            return overdue;
        }
        for work in std::mem::take(&mut self.ready) {
            if deadline(&self.policy, work.stored.message.head()) <= now {
                overdue.push(work);
            } else {
                self.ready.push_back(work);
            }
        }
        let deadlines = self.ready.iter().map(|work| deadline(&self.policy, work.stored.message.head()));
        self.ready_until = deadlines.min().unwrap_or(UnixMillis::NEVER);
        overdue
    }

    /// When [`Window::overdue`] may find something.
    pub(super) fn ready_until(&self) -> UnixMillis {
        self.ready_until
    }

    /// A message that was started is settled.
    pub(super) fn settled(&mut self, lsn: Lsn) {
        if let Ok(at) = self.taken.binary_search_by_key(&lsn, |(taken, _)| *taken)
            && let Some((_, settled)) = self.taken.get_mut(at)
        {
            *settled = true;
        }
        while self.taken.front().is_some_and(|(_, settled)| *settled) {
            self.taken.pop_front();
        }
    }

    /// A message that was started is tried again at this time.
    pub(super) fn wait(&mut self, lsn: Lsn, mut history: Box<History>, at: UnixMillis) {
        history.attempts.rest();
        self.waiting.insert((at, lsn), history);
    }

    /// A message that was started met a target that is down: it may start as soon as the breaker lets it,
    /// but after the others, so that each probe is made with another message. One that the target chokes
    /// on does not keep the others waiting.
    pub(super) fn hold(&mut self, work: Work) {
        if self.in_order {
            return self.put(work);
        }
        self.note_deadline(&work);
        self.ready.push_back(work);
    }

    /// Messages that may start.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Messages that wait for another try.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// In order, the one that waits is what all that is ready waits for.
    fn reads_retries(&self) -> bool {
        self.in_order || self.ready.len() < self.enough
    }

    fn put(&mut self, work: Work) {
        self.note_deadline(&work);
        let at = self.ready.partition_point(|other| other.stored.lsn < work.stored.lsn);
        self.ready.insert(at, work);
    }

    fn note_deadline(&mut self, work: &Work) {
        self.ready_until = self.ready_until.min(deadline(&self.policy, work.stored.message.head()));
    }
}

#[cfg(test)]
mod tests;
