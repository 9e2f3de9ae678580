//! `[targets.NAME.breaker]`: when a target counts as down.

use std::time::Duration;

use super::TIMES;
use crate::config::report::Wrong;
use crate::config::section::Section;
use crate::config::values::{self, TIMEOUT};

/// `[targets.NAME.breaker]`: when to stop trying messages and probe the target instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Failures of the target in a row after which only probes are sent.
    pub failures: u32,
    /// Delay before the first probe; it doubles with each one that fails.
    pub probe_interval: Duration,
    /// Where the doubling ends.
    pub probe_interval_max: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failures: 5,
            probe_interval: Duration::from_secs(1),
            probe_interval_max: Duration::from_secs(30),
        }
    }
}

impl BreakerConfig {
    /// Reads the section.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let default = BreakerConfig::default();
        let breaker = BreakerConfig {
            failures: section.number("failures", TIMES, default.failures),
            probe_interval: section.duration("probe_interval", TIMEOUT, default.probe_interval),
            probe_interval_max: section.duration("probe_interval_max", TIMEOUT, default.probe_interval_max),
        };
        if breaker.probe_interval > breaker.probe_interval_max {
            let max = values::show_duration(breaker.probe_interval_max);
            let wrong = Wrong::new(format!("is longer than probe_interval_max ({max})"));
            section.wrong(
                "probe_interval",
                wrong.help("make probe_interval_max longer, or probe_interval shorter"),
            );
        }
        breaker
    }
}
