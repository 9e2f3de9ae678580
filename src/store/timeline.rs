//! What the times in the database count for.
//!
//! Times are stored as the one clock of their run gave them. That clock never jumps while it runs, and it never
//! begins before the newest time that is stored; but it may have been behind the time that it really was, when
//! the machine woke without knowing the time, or slept. A run whose clock was behind is an *era*. What was
//! stored in another run is moved to the present clock when it is read, so that nothing that has an end has it
//! early, however often the clock of the machine was wrong.
//!
//! Invariant: a time that this run has stored is never moved.

use std::time::Duration;

use parking_lot::RwLock;

use super::StoreError;
use crate::record::{Change, Message, Record, UnixMillis};

/// The newest time is written with a batch when the one on disk is so much older.
const WRITTEN_EVERY: Duration = Duration::from_secs(10);

/// Runs whose clocks were behind that are remembered. Of the oldest two the larger error counts for both: what
/// they have stored ends late rather than early.
const ERAS_MAX: usize = 16;

/// Times of earlier runs, and what they count for now.
#[derive(Debug, Default)]
pub struct Timeline(RwLock<View>);

/// What is known of the times in a database when it is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Times {
    /// The newest that was stored; zero when there is none.
    pub(super) newest: UnixMillis,
    /// By their beginning.
    eras: Vec<Era>,
}

/// From when to when a clock was behind: until the next era.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Era {
    from: UnixMillis,
    behind: Duration,
}

#[derive(Debug, Default)]
struct View {
    times: Times,
    /// Where the clock of this run began; zero before it did.
    begun: UnixMillis,
    /// By how much it is behind, as far as that is known.
    behind: Duration,
    /// How much longer everything older is kept, while nobody knows what time it is.
    grace: Duration,
    written: UnixMillis,
    is_changed: bool,
}

impl Timeline {
    pub(super) fn new(times: Times) -> Self {
        let written = times.newest;
        Self(RwLock::new(View { times, written, ..View::default() }))
    }

    /// The newest time that was stored when the database was opened or since, and by how much the clock that
    /// gave it was behind. `None` when no time is stored.
    pub fn newest(&self) -> Option<(UnixMillis, Duration)> {
        let view = self.0.read();
        let behind = view.times.eras.last().map_or(Duration::ZERO, |era| era.behind);
        (view.times.newest > UnixMillis(0)).then_some((view.times.newest, behind))
    }

    /// A run begins at `at`. The last one's clock was behind by `last_behind`, and this one's by `behind`, as far
    /// as that is known.
    pub fn begin(&self, at: UnixMillis, last_behind: Duration, behind: Duration) {
        let mut view = self.0.write();
        if let Some(last) = view.times.eras.last_mut() {
            last.behind = last_behind;
        }
        (view.begun, view.behind) = (at, behind);
        view.times.note(Era { from: at, behind });
        view.is_changed = true;
    }

    /// From now on everything that was there before this run expires so much later than it would.
    pub fn hold(&self, grace: Duration) {
        self.0.write().grace = grace;
    }

    /// From now on it is known by how much the clock of this run is behind.
    pub fn settle(&self, behind: Duration) {
        self.0.write().behind = behind;
    }

    /// Notes for later runs by how much the clock of this one is behind.
    pub fn note_behind(&self, behind: Duration) {
        let mut view = self.0.write();
        let from = view.begun;
        view.times.eras.retain(|era| era.from < from);
        view.times.note(Era { from, behind });
        view.is_changed = true;
    }

    /// What a stored time counts for, on the clock of this run.
    pub fn counts_as(&self, stored: UnixMillis) -> UnixMillis {
        let (later, earlier) = self.0.read().shift(stored);
        UnixMillis(stored.0.saturating_add(later).saturating_sub(earlier))
    }

    /// By which time something is judged, whether it has expired, that was stored at `stored`: the clock is
    /// moved instead of its deadline.
    pub fn now_for(&self, stored: UnixMillis, now: UnixMillis) -> UnixMillis {
        let view = self.0.read();
        let (later, earlier) = view.shift(stored);
        UnixMillis(now.0.saturating_add(earlier).saturating_sub(later + view.grace_for(stored)))
    }

    /// When something is due on the clock of this run, that was stored at `stored` and is due at `due` by the
    /// clock of then.
    pub fn due(&self, stored: UnixMillis, due: UnixMillis) -> UnixMillis {
        if due == UnixMillis::NEVER {
            return due;
        }
        let view = self.0.read();
        let (later, earlier) = view.shift(stored);
        UnixMillis(due.0.saturating_add(later + view.grace_for(stored)).saturating_sub(earlier))
    }

    /// The message with its times on the clock of this run.
    pub fn current(&self, message: Message) -> Message {
        let (published_at, expires_at) = (message.head().published_at, message.head().expires_at);
        let current = (self.counts_as(published_at), self.due(published_at, expires_at));
        if current == (published_at, expires_at) { message } else { message.at(current.0, current.1) }
    }

    /// Notes the times of a record that is written.
    pub(super) fn saw(&self, record: &Record) {
        let published =
            record.publication.as_ref().map(|publication| publication.message.head().published_at);
        let changed = record.changes.iter().filter_map(|change| match change {
            Change::SessionOpened(opened) => Some(opened.at),
            Change::SessionClosed { at, .. } | Change::TimePassed(at) => Some(*at),
            _ => None,
        });
        if let Some(newest) = changed.chain(published).max()
            && newest > self.0.read().times.newest
        {
            self.0.write().times.newest = newest;
        }
    }

    /// The row to write with a batch that is written anyway, when it is due.
    pub(super) fn due_row(&self) -> Option<Vec<u8>> {
        let is_due = |view: &View| view.is_changed || view.times.newest >= view.written.plus(WRITTEN_EVERY);
        if !is_due(&self.0.read()) {
            return None;
        }
        let mut view = self.0.write();
        (view.written, view.is_changed) = (view.times.newest, false);
        Some(view.times.row())
    }
}

impl View {
    /// By how many milliseconds what was stored at this time counts as later, or as earlier.
    fn shift(&self, stored: UnixMillis) -> (u64, u64) {
        if stored >= self.begun {
            return (0, 0);
        }
        let era = self.times.eras.iter().rev().find(|era| era.from <= stored);
        let was_behind = era.map_or(Duration::ZERO, |era| era.behind);
        (millis(was_behind.saturating_sub(self.behind)), millis(self.behind.saturating_sub(was_behind)))
    }

    fn grace_for(&self, stored: UnixMillis) -> u64 {
        if stored < self.begun { millis(self.grace) } else { 0 }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Times {
    /// Reads a row.
    pub(super) fn from_row(row: &[u8]) -> Result<Self, StoreError> {
        let damaged = || StoreError::Damaged("\"clock\" in meta is cut".into());
        let (numbers, rest) = row.as_chunks::<8>();
        let mut numbers = numbers.iter().map(|bytes| u64::from_be_bytes(*bytes));
        let newest = UnixMillis(numbers.next().ok_or_else(damaged)?);
        let mut eras = Vec::new();
        while let Some(from) = numbers.next() {
            let behind = Duration::from_millis(numbers.next().ok_or_else(damaged)?);
            eras.push(Era { from: UnixMillis(from), behind });
        }
        if rest.is_empty() { Ok(Self { newest, eras }) } else { Err(damaged()) }
    }

    fn row(&self) -> Vec<u8> {
        let eras = self.eras.iter().flat_map(|era| [era.from.0, millis(era.behind)]);
        std::iter::once(self.newest.0).chain(eras).flat_map(u64::to_be_bytes).collect()
    }

    /// Adds an era, and forgets what makes no difference.
    fn note(&mut self, era: Era) {
        self.eras.push(era);
        self.eras.dedup_by_key(|era| era.behind);
        if self.eras.first().is_some_and(|first| first.behind.is_zero()) {
            self.eras.remove(0);
        }
        while self.eras.len() > ERAS_MAX {
            let oldest = self.eras.remove(0);
            if let Some(next) = self.eras.first_mut() {
                *next = Era { from: oldest.from, behind: oldest.behind.max(next.behind) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Duration = Duration::ZERO;

    const fn at(seconds: u64) -> UnixMillis {
        UnixMillis(seconds * 1000)
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn saw(timeline: &Timeline, time: UnixMillis) {
        timeline.saw(&Record::of([Change::TimePassed(time)]));
    }

    /// The same after a restart.
    fn reopened(timeline: &Timeline) -> Timeline {
        Timeline::new(Times::from_row(&timeline.0.read().times.row()).unwrap())
    }

    #[test]
    fn times_of_clocks_that_were_right_are_not_moved() {
        let timeline = Timeline::default();
        assert_eq!(timeline.newest(), None);
        timeline.begin(at(1000), NONE, NONE);
        saw(&timeline, at(1100));
        let timeline = reopened(&timeline);
        assert_eq!(timeline.newest(), Some((at(1100), NONE)));
        timeline.begin(at(5000), NONE, NONE);
        assert_eq!(timeline.counts_as(at(1050)), at(1050));
        assert_eq!(timeline.now_for(at(1050), at(6000)), at(6000));
        assert_eq!(timeline.0.read().times.eras, []);
    }

    #[test]
    fn what_a_clock_that_was_behind_has_stored_counts_as_later_in_the_next_run() {
        let timeline = Timeline::default();
        timeline.begin(at(1000), NONE, NONE);
        saw(&timeline, at(1100));
        let timeline = reopened(&timeline);
        // It begins where the last one ended, and 5000 seconds were lost.
        timeline.begin(at(1100), NONE, NONE);
        timeline.hold(seconds(60));
        assert_eq!(
            (timeline.due(at(1050), at(1070)), timeline.due(at(1150), at(1170))),
            (at(1130), at(1170))
        );
        assert_eq!(
            (timeline.counts_as(at(1050)), timeline.now_for(at(1050), at(1200))),
            (at(1050), at(1140))
        );
        timeline.hold(NONE);
        timeline.settle(seconds(5000));
        timeline.note_behind(seconds(5000));
        assert_eq!(timeline.now_for(at(1050), at(1200)), at(6200), "older by what was lost");
        assert_eq!(timeline.now_for(at(1150), at(1200)), at(1200), "its own are right");
        saw(&timeline, at(1300));
        let timeline = reopened(&timeline);
        assert_eq!(timeline.newest(), Some((at(1300), seconds(5000))));
        timeline.begin(at(7000), seconds(5000), NONE);
        assert_eq!(timeline.due(at(1150), at(1250)), at(6250));
        assert_eq!(timeline.due(at(1050), at(1250)), at(1250), "what is older than that was stored in time");
        assert_eq!(timeline.due(at(1150), UnixMillis::NEVER), UnixMillis::NEVER);
    }

    #[test]
    fn a_message_is_moved_with_both_of_its_times() {
        let timeline = Timeline::default();
        timeline.begin(at(1000), NONE, NONE);
        timeline.note_behind(seconds(500));
        saw(&timeline, at(1100));
        let timeline = reopened(&timeline);
        timeline.begin(at(2000), seconds(500), NONE);
        let parts = crate::record::MessageParts {
            qos: crate::codec::Qos::AtLeastOnce,
            retain: false,
            published_at: at(1050),
            expires_at: at(1060),
            topic: "a",
            properties: b"",
            payload: b"x",
            publisher: "p",
        };
        let message = timeline.current(Message::new(&parts, &mut Vec::new()));
        assert_eq!((message.head().published_at, message.head().expires_at), (at(1550), at(1560)));
        assert_eq!((message.topic(), message.payload()), ("a", &b"x"[..]));
    }

    #[test]
    fn only_so_many_eras_are_kept_and_the_oldest_end_late() {
        let mut times = Times::default();
        for number in 1..=40 {
            times.note(Era { from: at(number * 10), behind: seconds(100 - number) });
        }
        assert_eq!(times.eras.len(), ERAS_MAX);
        assert_eq!(times.eras[0], Era { from: at(10), behind: seconds(99) });
        assert_eq!(Times::from_row(&times.row()).unwrap(), times);
        assert!(Times::from_row(&times.row()[1..]).is_err() && Times::from_row(b"").is_err());
    }

    #[test]
    fn the_newest_time_is_written_now_and_then() {
        let timeline = Timeline::default();
        timeline.begin(at(1000), NONE, NONE);
        assert!(timeline.due_row().is_some() && timeline.due_row().is_none());
        saw(&timeline, at(1009));
        let first = timeline.due_row();
        saw(&timeline, at(1018));
        let second = timeline.due_row();
        saw(&timeline, at(1020));
        assert!(first.is_some() && second.is_none() && timeline.due_row().is_some());
    }
}
