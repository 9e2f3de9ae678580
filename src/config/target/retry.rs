//! `[targets.NAME.retry]`: when a message is tried again, and when it is given up.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use super::TIMES;
use crate::config::report::Wrong;
use crate::config::section::Section;
use crate::config::values::{self, AGE, TIMEOUT};

/// Most entries of a schedule.
const SCHEDULE_MAX: usize = 100;
/// What a delay may be multiplied with from one attempt to the next.
const FACTOR: RangeInclusive<f64> = 1.0..=100.0;

/// `[targets.NAME.retry]`: how long until a message is tried again, and how often it is.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryConfig {
    /// Most attempts for one message, the first one included.
    pub attempts: u32,
    /// Which attempts count among these.
    pub counted: Counted,
    /// Most attempts for a message whose last answer was 404.
    pub not_found_attempts: u32,
    /// How the delay grows.
    pub backoff: Backoff,
    /// The delay before the second attempt.
    pub initial: Duration,
    /// Where the growing ends.
    pub max: Duration,
    /// How much of the delay is left to chance.
    pub jitter: Jitter,
    /// A message older than this is given up, however few attempts it had.
    pub max_age: Duration,
    /// Longest delay that a Retry-After header can ask for.
    pub retry_after_max: Duration,
}

/// Which attempts are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Those that the target answered, and not with a failure of its own.
    Answers,
    /// Every one.
    All,
}

/// How the delay grows from one attempt to the next: from `initial` to `max`.
#[derive(Clone, Debug, PartialEq)]
pub enum Backoff {
    /// It is multiplied.
    Exponential {
        /// With this, 1 or more.
        factor: f64,
    },
    /// It is `initial` times 1, 2, 3 and so on.
    Linear {
        /// Times 0, 1, 2 and so on instead, as with Knative: the first retry comes at once.
        from_zero: bool,
    },
    /// It does not.
    Constant,
    /// It is `initial` times 1, 1, 2, 3, 5, 8 and so on.
    Fibonacci,
    /// It is what stands here, one for each retry, and the last one for all that follow. Not empty.
    Schedule(Vec<Duration>),
}

/// How much of a delay is left to chance, so that messages that failed together do not come again together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jitter {
    /// All of it: anything from zero to the delay.
    Full,
    /// Half of it: at least half of the delay.
    Equal,
    /// Nothing.
    None,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts: 10,
            counted: Counted::Answers,
            not_found_attempts: 5,
            backoff: Backoff::Exponential { factor: 2.0 },
            initial: Duration::from_secs(1),
            max: Duration::from_mins(5),
            jitter: Jitter::Full,
            max_age: Duration::from_hours(24),
            retry_after_max: Duration::from_hours(1),
        }
    }
}

impl RetryConfig {
    /// Reads the section.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let default = RetryConfig::default();
        let schedule = read_schedule(section);
        let times = schedule.as_ref().map_or(default.attempts, |delays| delays.len() as u32 + 1);
        let jitter = if schedule.is_some() { Jitter::None } else { default.jitter };
        let retry = RetryConfig {
            attempts: section.number("attempts", TIMES, times),
            counted: section.choice("counted", COUNTED).unwrap_or(default.counted),
            not_found_attempts: section.number("not_found_attempts", TIMES, default.not_found_attempts),
            backoff: read_backoff(section, schedule),
            initial: section.duration("initial", TIMEOUT, default.initial),
            max: section.duration("max", TIMEOUT, default.max),
            jitter: section.choice("jitter", JITTER).unwrap_or(jitter),
            max_age: section.duration("max_age", AGE, default.max_age),
            retry_after_max: section.duration(
                "retry_after_max",
                Duration::ZERO..=*TIMEOUT.end(),
                default.retry_after_max,
            ),
        };
        if retry.initial > retry.max {
            let max = format!("longer than max ({})", values::show_duration(retry.max));
            section.wrong(
                "initial",
                Wrong::new(format!("is {max}")).help("make max longer, or initial shorter"),
            );
        }
        retry
    }
}

const COUNTED: &[(&str, Counted)] = &[("answers", Counted::Answers), ("all", Counted::All)];
const JITTER: &[(&str, Jitter)] = &[("full", Jitter::Full), ("equal", Jitter::Equal), ("none", Jitter::None)];
const BACKOFF: &[(&str, Backoff)] = &[
    ("exponential", Backoff::Exponential { factor: 2.0 }),
    ("linear", Backoff::Linear { from_zero: false }),
    ("constant", Backoff::Constant),
    ("fibonacci", Backoff::Fibonacci),
];

/// The delays of `schedule`; `None` when it was left out or is empty.
fn read_schedule(section: &mut Section<'_>) -> Option<Vec<Duration>> {
    let read = |value: &DeValue<'_>| {
        values::duration(value).and_then(|delay| {
            let fits = delay <= *TIMEOUT.end();
            let longest = values::show_duration(*TIMEOUT.end());
            fits.then_some(delay).ok_or_else(|| {
                Wrong::new(format!("must not have a delay of more than {longest}"))
                    .not(&values::show_duration(delay))
            })
        })
    };
    let delays: Vec<Duration> =
        section.list("schedule", read).into_iter().map(toml::Spanned::into_inner).collect();
    if delays.len() > SCHEDULE_MAX {
        section.wrong("schedule", Wrong::new(format!("must not have more than {SCHEDULE_MAX} delays")));
    }
    (!delays.is_empty()).then_some(delays)
}

fn read_backoff(section: &mut Section<'_>, schedule: Option<Vec<Duration>>) -> Backoff {
    let factor = section.decimal("factor", FACTOR);
    let chosen = section.choice("backoff", BACKOFF);
    if let Some(delays) = schedule {
        if chosen.is_some() {
            let wrong = Wrong::new("does not go together with schedule, which says every delay itself");
            section.wrong("backoff", wrong.help("leave one of them out"));
        }
        return Backoff::Schedule(delays);
    }
    match (chosen.unwrap_or(Backoff::Exponential { factor: 2.0 }), factor) {
        (Backoff::Exponential { .. }, Some(factor)) => Backoff::Exponential { factor },
        (other, None) => other,
        (other, Some(_)) => {
            let wrong = Wrong::new("is for backoff = \"exponential\" only");
            section.wrong("factor", wrong.help("leave it out"));
            other
        }
    }
}
