//! The delivery settings of a target by the names that Knative Eventing has for them, for those who bring
//! theirs along: `retry`, `backoff_policy`, `backoff_delay`, `retry_after_max` beside `timeout`.
//!
//! They mean what they mean there: `retry` counts what comes after the first attempt, every attempt counts, and
//! nothing is left to chance. `retry` is also the name of our own table, which says the same in more words.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;

use super::retry::{Backoff, Counted, Jitter, RetryConfig};
use crate::config::report::Wrong;
use crate::config::section::Section;
use crate::config::values::TIMEOUT;

/// How often something may be tried again.
const RETRIES: RangeInclusive<u32> = 0..=999_999;
/// The delay when only a policy stands there.
const DELAY: Duration = Duration::from_secs(1);
const POLICIES: &[(&str, Backoff)] = &[
    ("exponential", Backoff::Exponential { factor: 2.0 }),
    ("linear", Backoff::Linear { from_zero: true }),
    ("constant", Backoff::Constant),
];

/// Reads `[targets.NAME.retry]`, or these keys of `[targets.NAME]`.
pub(super) fn read_retry(section: &mut Section<'_>) -> RetryConfig {
    let is_table = section.take("retry", |value| Ok(value.is_table())).map(Spanned::into_inner);
    let longest = *TIMEOUT.end();
    let policy = section.choice("backoff_policy", POLICIES);
    let delay = section.optional_duration("backoff_delay", Duration::ZERO..=longest);
    let asked_max = section.optional_duration("retry_after_max", Duration::ZERO..=longest);
    let said = [
        ("backoff_policy", policy.is_some()),
        ("backoff_delay", delay.is_some()),
        ("retry_after_max", asked_max.is_some()),
    ];
    let said = said.iter().find(|(_, is_there)| *is_there).map(|(key, _)| *key);
    if is_table != Some(false) {
        if let Some(key) = said {
            let wrong = Wrong::new("is Knative's name, and needs retry = 5 or another number beside it");
            section.wrong(key, wrong.help("or say it in a table of its own: [targets.NAME.retry]"));
        }
        return section.section("retry", RetryConfig::read);
    }
    let default = RetryConfig::default();
    RetryConfig {
        attempts: section.number("retry", RETRIES, default.attempts).saturating_add(1),
        not_found_attempts: u32::MAX,
        counted: Counted::All,
        backoff: policy.unwrap_or(Backoff::Exponential { factor: 2.0 }),
        initial: delay.unwrap_or(DELAY),
        max: longest,
        jitter: Jitter::None,
        retry_after_max: asked_max.unwrap_or(default.retry_after_max),
        max_age: default.max_age,
    }
}
