//! `[routes.batch]`: how many messages one request carries.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::section::Section;

const COUNT: RangeInclusive<u32> = 1..=10_000;
const BYTES: RangeInclusive<u64> = 1..=64 * 1024 * 1024;
const LINGER: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_mins(10);

/// How many messages one request carries: as many as wait, up to the first limit that is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchConfig {
    /// Most messages.
    pub count: u32,
    /// Most bytes of topics, properties and payloads; one message at least goes, however large it is.
    pub bytes: u64,
    /// How long a batch that is not full waits for more. Zero sends what there is.
    pub linger: Duration,
}

impl Default for BatchConfig {
    fn default() -> Self {
        Self { count: 100, bytes: 1024 * 1024, linger: Duration::ZERO }
    }
}

impl BatchConfig {
    /// Reads the section.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let default = Self::default();
        Self {
            count: section.number("count", COUNT, default.count),
            bytes: section.bytes("bytes", BYTES, default.bytes),
            linger: section.duration("linger", LINGER, default.linger),
        }
    }
}
