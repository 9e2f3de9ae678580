//! What became of numbered messages: lost, duplicated, out of order.
//!
//! A stream is one publisher's messages on one topic, numbered from zero. Each stream is followed by the
//! next number that is expected and the gaps below it, so that memory depends on how broken the order is
//! and not on how many messages came.
//!
//! Invariant: the gaps of a stream are sorted, disjoint, not empty, and all below `next`.

use foldhash::{HashMap, HashMapExt};

/// Gaps that one stream remembers. Beyond it the oldest counts as lost for good, and what still arrives
/// for it as a duplicate.
const GAPS_MAX: usize = 1024;

/// Streams that one subscriber follows; messages of further ones are counted as untracked.
const STREAMS_MAX: usize = 1 << 20;

/// Where the numbers of a stream begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The whole stream is expected: its first number is zero.
    Zero,
    /// The subscriber joined at some point: the first number seen is where it begins.
    FirstSeen,
}

/// What was counted over all streams of one subscriber.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SequenceTotals {
    /// Messages that came for the first time.
    pub unique: u64,
    /// Numbers below the highest seen that never came.
    pub gaps: u64,
    /// Messages that had come before.
    pub duplicates: u64,
    /// Messages that came after a later one of their stream.
    pub reordered: u64,
    /// Messages that carry no number, or belong to more streams than are followed.
    pub untracked: u64,
}

/// Follows every stream that one subscriber receives.
#[derive(Debug)]
pub struct SequenceBook {
    origin: Origin,
    index: HashMap<u64, usize>,
    streams: Vec<Stream>,
    /// The stream of the last message: brokers deliver in batches, so it is mostly the next one's too.
    last: Option<(u64, usize)>,
    totals: SequenceTotals,
}

impl SequenceBook {
    /// An empty book.
    pub fn new(origin: Origin) -> Self {
        let index = HashMap::new();
        Self { origin, index, streams: Vec::new(), last: None, totals: SequenceTotals::default() }
    }

    /// Notes that number `sequence` of the stream `key` has arrived, and says whether for the first time.
    pub fn record(&mut self, key: u64, sequence: u64) -> bool {
        let Some(stream) = self.stream(key, sequence) else {
            self.totals.untracked += 1;
            return false;
        };
        let arrival = stream.record(sequence);
        match arrival {
            Arrival::First => self.totals.unique += 1,
            Arrival::Late => {
                self.totals.unique += 1;
                self.totals.reordered += 1;
            }
            Arrival::Duplicate => self.totals.duplicates += 1,
        }
        arrival != Arrival::Duplicate
    }

    /// Notes a message without a number.
    pub fn record_untracked(&mut self) {
        self.totals.untracked += 1;
    }

    /// The counts so far.
    pub fn totals(&self) -> SequenceTotals {
        let gaps = self.streams.iter().map(Stream::missing).sum();
        SequenceTotals { gaps, ..self.totals }
    }

    fn stream(&mut self, key: u64, sequence: u64) -> Option<&mut Stream> {
        let at = match self.last {
            Some((last, at)) if last == key => at,
            _ => self.find(key, sequence)?,
        };
        self.last = Some((key, at));
        self.streams.get_mut(at)
    }

    fn find(&mut self, key: u64, sequence: u64) -> Option<usize> {
        if let Some(at) = self.index.get(&key) {
            return Some(*at);
        }
        if self.streams.len() >= STREAMS_MAX {
            return None;
        }
        let next = if self.origin == Origin::Zero { 0 } else { sequence };
        self.streams.push(Stream { next, gaps: Vec::new(), forgotten: 0 });
        self.index.insert(key, self.streams.len() - 1);
        Some(self.streams.len() - 1)
    }
}

impl SequenceTotals {
    /// What several subscribers counted together.
    pub fn sum(all: &[Self]) -> Self {
        all.iter().fold(Self::default(), |sum, one| Self {
            unique: sum.unique + one.unique,
            gaps: sum.gaps + one.gaps,
            duplicates: sum.duplicates + one.duplicates,
            reordered: sum.reordered + one.reordered,
            untracked: sum.untracked + one.untracked,
        })
    }
}

/// How a message arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    First,
    Late,
    Duplicate,
}

/// Numbers `from..to` that have not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gap {
    from: u64,
    to: u64,
}

#[derive(Debug)]
struct Stream {
    next: u64,
    gaps: Vec<Gap>,
    /// Numbers of gaps that are no longer remembered.
    forgotten: u64,
}

impl Stream {
    fn record(&mut self, sequence: u64) -> Arrival {
        if sequence < self.next {
            return self.fill(sequence);
        }
        if sequence > self.next {
            self.open(Gap { from: self.next, to: sequence });
        }
        self.next = sequence.saturating_add(1);
        Arrival::First
    }

    fn open(&mut self, gap: Gap) {
        if self.gaps.len() >= GAPS_MAX {
            let oldest = self.gaps.remove(0);
            self.forgotten += oldest.to - oldest.from;
        }
        self.gaps.push(gap);
    }

    /// Takes a number below `next` out of the gap that misses it, if one does.
    fn fill(&mut self, sequence: u64) -> Arrival {
        let at = self.gaps.partition_point(|gap| gap.to <= sequence);
        let Some(gap) = self.gaps.get_mut(at).filter(|gap| gap.from <= sequence) else {
            return Arrival::Duplicate;
        };
        let rest = Gap { from: sequence + 1, to: gap.to };
        gap.to = sequence;
        let emptied = gap.from == gap.to;
        match (emptied, rest.from == rest.to) {
            (true, true) => drop(self.gaps.remove(at)),
            (true, false) => *gap = rest,
            (false, true) => {}
            (false, false) => self.gaps.insert(at + 1, rest),
        }
        Arrival::Late
    }

    fn missing(&self) -> u64 {
        self.forgotten + self.gaps.iter().map(|gap| gap.to - gap.from).sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(origin: Origin, numbers: &[u64]) -> SequenceTotals {
        let mut book = SequenceBook::new(origin);
        for number in numbers {
            book.record(7, *number);
        }
        book.totals()
    }

    #[test]
    fn order_kept_counts_nothing_but_messages() {
        let totals = counted(Origin::Zero, &[0, 1, 2, 3]);
        assert_eq!(totals, SequenceTotals { unique: 4, ..SequenceTotals::default() });
    }

    #[test]
    fn a_number_that_never_comes_is_a_gap() {
        let totals = counted(Origin::Zero, &[0, 1, 5, 6]);
        assert_eq!(totals, SequenceTotals { unique: 4, gaps: 3, ..SequenceTotals::default() });
    }

    #[test]
    fn a_late_number_is_reordered_and_no_longer_missing() {
        let totals = counted(Origin::Zero, &[0, 4, 2, 1, 3]);
        assert_eq!(totals, SequenceTotals { unique: 5, reordered: 3, ..SequenceTotals::default() });
    }

    #[test]
    fn a_number_seen_twice_is_a_duplicate_in_order_or_late() {
        let totals = counted(Origin::Zero, &[0, 0, 3, 1, 1, 3]);
        let expected = SequenceTotals { unique: 3, gaps: 1, duplicates: 3, reordered: 1, untracked: 0 };
        assert_eq!(totals, expected);
    }

    #[test]
    fn a_late_join_misses_nothing_from_before() {
        assert_eq!(counted(Origin::FirstSeen, &[100, 101]).gaps, 0);
        assert_eq!(counted(Origin::Zero, &[100, 101]).gaps, 100);
    }

    #[test]
    fn streams_are_counted_apart() {
        let mut book = SequenceBook::new(Origin::Zero);
        for number in 0..3 {
            book.record(1, number);
            book.record(2, number);
        }
        assert_eq!(book.totals(), SequenceTotals { unique: 6, ..SequenceTotals::default() });
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_gap_is_given_up() {
        let mut book = SequenceBook::new(Origin::Zero);
        let evens = GAPS_MAX as u64 + 10;
        for number in 0..=evens {
            book.record(1, number * 2);
        }
        assert_eq!(book.totals().gaps, evens);
        assert!(book.streams.iter().all(|stream| stream.gaps.len() <= GAPS_MAX));
        book.record(1, 1);
        assert_eq!(book.totals().duplicates, 1, "the gap at 1 was forgotten");
    }

    #[test]
    fn the_largest_number_does_not_overflow() {
        let totals = counted(Origin::FirstSeen, &[u64::MAX, u64::MAX]);
        assert_eq!(totals.unique, 2, "held at the end of the range");
    }
}
