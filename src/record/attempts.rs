//! What was tried with a message: every attempt since the broker started, as many as are kept, and how many there
//! were over all starts.
//!
//! Invariant: it is bounded, by [`ATTEMPTS_MAX`] attempts and the lengths of their texts, and smaller still while the
//! message waits for another try ([`Attempts::rest`]): a route may have tens of thousands of these, which share what
//! room there is.

use std::sync::Arc;

use super::UnixMillis;

/// Attempts that are kept of one message: the last ones.
pub const ATTEMPTS_MAX: usize = 32;
/// Bytes of an answer that are kept of an attempt that is not the newest, and of every one while the message waits.
pub const EXCERPT_KEPT_MAX: usize = 256;
/// Most bytes of texts that are kept of all attempts while the message waits; the oldest lose theirs.
const RESTING_BYTES_MAX: usize = 1024;

/// What was tried with one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempts {
    /// All attempts over all starts, whether or not they counted against the limit.
    pub count: u32,
    /// When the first attempt began.
    pub first_at: UnixMillis,
    /// When the last attempt ended.
    pub last_at: UnixMillis,
    /// Those since the broker started, the oldest first: [`ATTEMPTS_MAX`] at most. A dead letter of an earlier
    /// version has the last one only.
    pub list: Vec<Attempt>,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it began.
    pub at: UnixMillis,
    /// How long it took, in milliseconds; `None` when an earlier version did not write it down.
    pub latency_ms: Option<u32>,
    /// How it ended.
    pub outcome: AttemptOutcome,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    /// With an answer.
    Answered {
        /// The HTTP status.
        status: u16,
        /// The beginning of the answer's body, redacted and safe to print.
        excerpt: Arc<str>,
    },
    /// Without one; the text says why.
    Failed(Arc<str>),
}

/// What is stored of the attempts at a message that waits for another one, so that a restart goes on counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedTries {
    /// Every attempt that has ended.
    pub count: u32,
    /// Those that the target answered and that are spent.
    pub answers: u32,
    /// When the first attempt began.
    pub first_at: UnixMillis,
    /// When the last attempt ended.
    pub last_at: UnixMillis,
}

impl Attempts {
    /// No attempt has ended; the first begins now.
    pub fn begin(now: UnixMillis) -> Self {
        Self { count: 0, first_at: now, last_at: now, list: Vec::new() }
    }

    /// Goes on after a restart.
    pub fn resume(saved: &SavedTries) -> Self {
        let SavedTries { count, first_at, last_at, .. } = *saved;
        Self { count, first_at, last_at, list: Vec::new() }
    }

    /// Adds one that has ended at `ended_at`.
    pub fn add(&mut self, attempt: Attempt, ended_at: UnixMillis) {
        self.shorten_newest();
        if self.list.len() >= ATTEMPTS_MAX {
            self.list.remove(0);
        }
        self.list.push(attempt);
        self.count = self.count.saturating_add(1);
        self.last_at = ended_at;
    }

    /// The last one, if it was made since the start.
    pub fn last(&self) -> Option<&Attempt> {
        self.list.last()
    }

    /// Gives back memory while the message waits for another try, until it is so many bytes: texts first, then
    /// attempts, the oldest first; the newest stays.
    pub fn rest(&mut self, bytes_max: usize) {
        self.shorten_newest();
        let stay = (bytes_max.saturating_sub(EXCERPT_KEPT_MAX) / size_of::<Attempt>()).max(1);
        self.list.drain(..self.list.len().saturating_sub(stay));
        let texts_max = bytes_max.saturating_sub(self.list.len() * size_of::<Attempt>());
        let mut left = texts_max.min(RESTING_BYTES_MAX);
        for at in (0..self.list.len()).rev() {
            let is_shared =
                self.list.get(at + 1).zip(self.list.get(at)).is_some_and(|(newer, attempt)| {
                    Arc::ptr_eq(newer.outcome.text(), attempt.outcome.text())
                });
            let Some(attempt) = self.list.get_mut(at).filter(|_| !is_shared) else { continue };
            let text = attempt.outcome.text_mut();
            match left.checked_sub(text.len()) {
                Some(rest) => left = rest,
                None => *text = Arc::from(""),
            }
        }
        self.list.shrink_to_fit();
    }

    /// The newest is about to be one of many: its text becomes short, and that of the one before it when it says
    /// the same.
    fn shorten_newest(&mut self) {
        let (newest, before) = match self.list.as_mut_slice() {
            [.., before, newest] => (newest, Some(before)),
            [newest] => (newest, None),
            [] => return,
        };
        let text = newest.outcome.text_mut();
        let short = text.get(..text.floor_char_boundary(EXCERPT_KEPT_MAX)).unwrap_or_default();
        match before.map(|before| before.outcome.text()).filter(|before| ***before == *short) {
            Some(same) => *text = Arc::clone(same),
            None if short.len() < text.len() => *text = Arc::from(short),
            None => {}
        }
    }
}

impl AttemptOutcome {
    /// The excerpt of the answer, or why there is none.
    pub fn text(&self) -> &Arc<str> {
        match self {
            Self::Answered { excerpt: text, .. } | Self::Failed(text) => text,
        }
    }

    fn text_mut(&mut self) -> &mut Arc<str> {
        match self {
            Self::Answered { excerpt: text, .. } | Self::Failed(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(at: u64, text: &str) -> Attempt {
        let outcome = AttemptOutcome::Answered { status: 500, excerpt: text.into() };
        Attempt { at: UnixMillis(at), latency_ms: Some(1), outcome }
    }

    fn of(texts: &[&str]) -> Attempts {
        let mut attempts = Attempts::begin(UnixMillis(1));
        for (at, text) in texts.iter().enumerate() {
            attempts.add(answered(at as u64, text), UnixMillis(at as u64 + 1));
        }
        attempts
    }

    fn lengths(attempts: &Attempts) -> Vec<usize> {
        attempts.list.iter().map(|attempt| attempt.outcome.text().len()).collect()
    }

    #[test]
    fn the_last_ones_are_kept_and_all_are_counted() {
        let attempts = of(&["x"; 40]);
        assert_eq!((attempts.count, attempts.list.len(), attempts.list[0].at), (40, 32, UnixMillis(8)));
        assert_eq!((attempts.first_at, attempts.last_at), (UnixMillis(1), UnixMillis(40)));
    }

    #[test]
    fn the_newest_has_the_long_answer() {
        let long = "ä".repeat(2000);
        assert_eq!(lengths(&of(&[&long, &long, &long])), [256, 256, 4000]);
    }

    #[test]
    fn what_waits_is_small_however_much_was_answered() {
        let long: Vec<_> = (0..32).map(|n| format!("{n:02}{}", "x".repeat(3000))).collect();
        let mut attempts = of(&long.iter().map(String::as_str).collect::<Vec<_>>());
        attempts.rest(usize::MAX);
        assert_eq!(lengths(&attempts).iter().sum::<usize>(), 1024, "four of 256 bytes");
        assert_eq!(lengths(&attempts)[28..], [256; 4], "the newest");
        let mut same = of(&["the same each time"; 32]);
        same.rest(usize::MAX);
        let first = same.list[0].outcome.text();
        assert!(
            same.list.iter().all(|attempt| Arc::ptr_eq(attempt.outcome.text(), first)),
            "one text for all"
        );
    }

    #[test]
    fn where_there_is_little_room_the_newest_stay() {
        let texts: Vec<_> = (0..32).map(|n| format!("{n:02}{}", "x".repeat(100))).collect();
        let mut attempts = of(&texts.iter().map(String::as_str).collect::<Vec<_>>());
        attempts.rest(512);
        assert!(attempts.list.len() > 1);
        assert_eq!((attempts.count, attempts.list.last().unwrap().at), (32, UnixMillis(31)));
        let bytes = attempts.list.len() * size_of::<Attempt>() + lengths(&attempts).iter().sum::<usize>();
        assert!((256..=512).contains(&bytes), "{bytes}");
        attempts.rest(0);
        assert_eq!(attempts.list.len(), 1);
    }
}
