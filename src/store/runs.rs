//! Numbers as runs of consecutive ones: however many of them, a run is two numbers.

use std::collections::VecDeque;

use crate::record::Lsn;

/// A run of consecutive numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) last: u64,
}

/// A rising list of numbers as runs. Numbers are appended at the end and mostly removed at the front.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PendingList {
    runs: VecDeque<Run>,
}

impl PendingList {
    pub(super) fn first(&self) -> Option<Lsn> {
        self.runs.front().map(|run| Lsn(run.first))
    }

    pub(super) fn last(&self) -> Option<Lsn> {
        self.runs.back().map(|run| Lsn(run.last))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub(super) fn runs(&self) -> impl ExactSizeIterator<Item = Run> {
        self.runs.iter().copied()
    }

    pub(super) fn contains(&self, lsn: Lsn) -> bool {
        self.range(Lsn(lsn.0.saturating_sub(1)), lsn).next().is_some()
    }

    /// The numbers after `cursor`, up to `last`.
    pub(super) fn range(&self, Lsn(cursor): Lsn, Lsn(last): Lsn) -> impl Iterator<Item = Lsn> {
        let index = self.runs.partition_point(|run| run.last <= cursor);
        let numbers = self.runs.range(index..).flat_map(move |run| run.first.max(cursor + 1)..=run.last);
        numbers.take_while(move |n| *n <= last).map(Lsn)
    }

    /// Appends a run above all others; one that follows the last without a gap becomes part of it.
    pub(super) fn push_run(&mut self, run: Run) {
        match self.runs.back_mut() {
            Some(last) if last.last + 1 == run.first => last.last = run.last,
            _ => self.runs.push_back(run),
        }
    }

    /// Appends a number above all others; one that is not is there already and is ignored.
    pub(super) fn push(&mut self, Lsn(n): Lsn) {
        match self.runs.back_mut() {
            Some(run) if n <= run.last => {}
            Some(run) if n == run.last + 1 => run.last = n,
            _ => self.runs.push_back(Run { first: n, last: n }),
        }
    }

    pub(super) fn remove(&mut self, Lsn(n): Lsn) -> bool {
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

    /// The nearest numbers below and above one that is not there.
    pub(super) fn around(&self, Lsn(n): Lsn) -> (Option<Lsn>, Option<Lsn>) {
        let index = self.runs.partition_point(|run| run.last < n);
        let below = index.checked_sub(1).and_then(|index| self.runs.get(index));
        (below.map(|run| Lsn(run.last)), self.runs.get(index).map(|run| Lsn(run.first)))
    }

    /// Forgets every number up to this one.
    pub(super) fn forget_to(&mut self, Lsn(n): Lsn) {
        let whole = self.runs.partition_point(|run| run.last <= n);
        self.runs.drain(..whole);
        if let Some(run) = self.runs.front_mut() {
            run.first = run.first.max(n + 1);
        }
        self.shrink();
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
                let page: Vec<_> = list.range(Lsn(n), Lsn(n + 20)).take(7).collect();
                let expected: Vec<_> = set.range(n + 1..=n + 20).take(7).copied().map(Lsn).collect();
                prop_assert_eq!(page, expected);
                prop_assert_eq!(list.contains(Lsn(n)), set.contains(&n));
                if !set.contains(&n) {
                    let below = set.range(..n).next_back().copied().map(Lsn);
                    prop_assert_eq!(list.around(Lsn(n)), (below, set.range(n..).next().copied().map(Lsn)));
                }
                prop_assert_eq!(list.first(), set.first().copied().map(Lsn));
                prop_assert_eq!(list.last(), set.last().copied().map(Lsn));
                if n == 7 {
                    list.forget_to(Lsn(next / 2));
                    set = set.split_off(&(next / 2 + 1));
                }
            }
        }
    }
}
