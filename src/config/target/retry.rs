//! `[targets.NAME.retry]`: when a message is tried again, and when it is given up.

use std::time::Duration;

use super::TIMES;
use crate::config::report::Wrong;
use crate::config::section::Section;
use crate::config::values::{self, AGE, TIMEOUT};

/// `[targets.NAME.retry]`: exponential backoff with full jitter, and its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryConfig {
    /// Most attempts for one message, the first one included.
    pub attempts: u32,
    /// Upper bound of the delay before the second attempt; it doubles with each one.
    pub initial: Duration,
    /// Where the doubling ends.
    pub max: Duration,
    /// A message older than this is given up, however few attempts it had.
    pub max_age: Duration,
    /// Longest delay that a Retry-After header can ask for.
    pub retry_after_max: Duration,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            attempts: 10,
            initial: Duration::from_secs(1),
            max: Duration::from_mins(5),
            max_age: Duration::from_hours(24),
            retry_after_max: Duration::from_hours(1),
        }
    }
}

impl RetryConfig {
    /// Reads the section.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let default = RetryConfig::default();
        let retry = RetryConfig {
            attempts: section.number("attempts", TIMES, default.attempts),
            initial: section.duration("initial", TIMEOUT, default.initial),
            max: section.duration("max", TIMEOUT, default.max),
            max_age: section.duration("max_age", AGE, default.max_age),
            retry_after_max: section.duration("retry_after_max", TIMEOUT, default.retry_after_max),
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
