//! The numbers a recipient is still owed, and the running count of what they occupy.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Watch;
use crate::record::Lsn;

/// What one recipient (a durable session, a shared group, a route) is owed: numbers only, the messages are
/// on disk. The writer adds and removes; whoever delivers reads.
///
/// Invariant: holds exactly the open legs of the records the writer has applied. Numbers above the
/// watermark may be in it, so readers name the watermark they have seen.
#[derive(Debug, Default)]
pub struct Backlog {
    numbers: Mutex<PendingList>,
    count: AtomicU64,
    bytes: AtomicU64,
    watch: OnceLock<Box<Watch>>,
}

impl Backlog {
    /// Messages owed.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Bytes on disk that are kept for this recipient (a message for several counts for each).
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The oldest number owed.
    pub fn oldest(&self) -> Option<Lsn> {
        self.numbers.lock().first()
    }

    /// Has somebody told when it grows, from now on. The first watch stays.
    pub fn watch(&self, watch: Watch) {
        self.watch.get_or_init(|| Box::new(watch)).grown(self.count(), self.bytes());
    }

    /// The watch, when there is one.
    pub fn watched(&self) -> Option<&Watch> {
        self.watch.get().map(|watch| &**watch)
    }

    /// Appends to `page` the next numbers after `cursor` and not above `durable`, `max` at most.
    pub fn after(&self, cursor: Lsn, durable: Lsn, max: usize, page: &mut Vec<Lsn>) {
        self.numbers.lock().after(cursor, durable, max, page);
    }

    /// Whether a number is owed still.
    pub(super) fn contains(&self, lsn: Lsn) -> bool {
        let (mut page, before) = (Vec::new(), Lsn(lsn.0.saturating_sub(1)));
        self.after(before, lsn, 1, &mut page);
        !page.is_empty()
    }

    /// The nearest numbers owed below and above one that is not.
    pub(super) fn around(&self, lsn: Lsn) -> (Option<Lsn>, Option<Lsn>) {
        self.numbers.lock().around(lsn)
    }

    pub(super) fn add(&self, lsn: Lsn, bytes: u64) {
        self.numbers.lock().push(lsn);
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(watch) = self.watch.get() {
            watch.grown(count, bytes);
        }
    }

    /// Strikes a number out; false when it was not owed.
    pub(super) fn remove(&self, lsn: Lsn) -> bool {
        let removed = self.numbers.lock().remove(lsn);
        if removed {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        removed
    }

    pub(super) fn freed(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A run of consecutive numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    first: u64,
    last: u64,
}

/// A rising list of numbers as runs. Numbers are appended at the end and mostly removed at the front.
#[derive(Debug, Default)]
struct PendingList {
    runs: VecDeque<Run>,
}

impl PendingList {
    fn first(&self) -> Option<Lsn> {
        self.runs.front().map(|run| Lsn(run.first))
    }

    /// Appends a number above all others; one that is not is there already and is ignored.
    fn push(&mut self, Lsn(n): Lsn) {
        match self.runs.back_mut() {
            Some(run) if n <= run.last => {}
            Some(run) if n == run.last + 1 => run.last = n,
            _ => self.runs.push_back(Run { first: n, last: n }),
        }
    }

    fn remove(&mut self, Lsn(n): Lsn) -> bool {
        let index = self.runs.partition_point(|run| run.last < n);
        let Some(run) = self.runs.get_mut(index).filter(|run| run.first <= n) else {
            return false;
        };
        match (n == run.first, n == run.last) {
            (true, true) => {
                self.runs.remove(index);
                self.shrink();
            }
            (true, false) => run.first += 1,
            (false, true) => run.last -= 1,
            (false, false) => {
                let tail = Run { first: n + 1, last: run.last };
                run.last = n - 1;
                self.runs.insert(index + 1, tail);
            }
        }
        true
    }

    fn around(&self, Lsn(n): Lsn) -> (Option<Lsn>, Option<Lsn>) {
        let index = self.runs.partition_point(|run| run.last < n);
        let below = index.checked_sub(1).and_then(|index| self.runs.get(index));
        (below.map(|run| Lsn(run.last)), self.runs.get(index).map(|run| Lsn(run.first)))
    }

    fn after(&self, Lsn(cursor): Lsn, Lsn(durable): Lsn, max: usize, page: &mut Vec<Lsn>) {
        let index = self.runs.partition_point(|run| run.last <= cursor);
        let numbers = self.runs.range(index..).flat_map(|run| run.first.max(cursor + 1)..=run.last);
        page.extend(numbers.take_while(|n| *n <= durable).take(max).map(Lsn));
    }

    /// An emptied list gives its memory back: most sessions are owed nothing most of the time.
    fn shrink(&mut self) {
        if self.runs.is_empty() {
            self.runs = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn runs_agree_with_a_set(ops in prop::collection::vec((any::<bool>(), 0u64..60), 1..200)) {
            let (mut list, mut set, mut next) = (PendingList::default(), BTreeSet::new(), 1);
            for (append, n) in ops {
                if append {
                    next += 1 + n % 3;
                    list.push(Lsn(next));
                    set.insert(next);
                } else {
                    prop_assert_eq!(list.remove(Lsn(n)), set.remove(&n));
                }
                let mut page = Vec::new();
                list.after(Lsn(n), Lsn(n + 20), 7, &mut page);
                let expected: Vec<_> = set.range(n + 1..=n + 20).take(7).copied().map(Lsn).collect();
                prop_assert_eq!(page, expected);
                if !set.contains(&n) {
                    let below = set.range(..n).next_back().copied().map(Lsn);
                    prop_assert_eq!(list.around(Lsn(n)), (below, set.range(n..).next().copied().map(Lsn)));
                }
                prop_assert_eq!(list.first(), set.first().copied().map(Lsn));
            }
        }
    }
}
