//! `[targets.NAME.breaker]`: when a target counts as down.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::TIMES;
use crate::config::report::Wrong;
use crate::config::section::Section;
use crate::config::values::{self, TIMEOUT};

/// A share of the attempts. None at all is no share that something can be done about.
const SHARE: RangeInclusive<f64> = 0.01..=1.0;
/// So long a time is looked back over.
const WINDOW: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(1);
const PROBES: RangeInclusive<u32> = 1..=100;

/// `[targets.NAME.breaker]`: when to stop trying messages and probe the target instead.
#[derive(Clone, Debug, PartialEq)]
pub struct BreakerConfig {
    /// Failures of the target in a row after which only probes are sent.
    pub failures: u32,
    /// The share of failures among the attempts of the last while after which only probes are sent.
    pub failure_rate: f64,
    /// An attempt that takes longer is a slow one; `None` is that none is.
    pub slow_call: Option<Duration>,
    /// The share of slow attempts after which only probes are sent.
    pub slow_call_rate: f64,
    /// How long that while is.
    pub window: Duration,
    /// Fewest attempts of which a share is taken.
    pub minimum_calls: u32,
    /// Delay before the first probe; it doubles with each one that fails.
    pub probe_interval: Duration,
    /// Where the doubling ends.
    pub probe_interval_max: Duration,
    /// Probes that have to be answered, one after the other, before messages flow again.
    pub probes: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failures: 5,
            failure_rate: 0.5,
            slow_call: None,
            slow_call_rate: 0.8,
            window: Duration::from_mins(1),
            minimum_calls: 20,
            probe_interval: Duration::from_secs(1),
            probe_interval_max: Duration::from_secs(30),
            probes: 1,
        }
    }
}

impl BreakerConfig {
    /// Reads the section.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let default = BreakerConfig::default();
        let breaker = BreakerConfig {
            failures: section.number("failures", TIMES, default.failures),
            failure_rate: section.decimal("failure_rate", SHARE).unwrap_or(default.failure_rate),
            slow_call: section.optional_duration("slow_call", TIMEOUT),
            slow_call_rate: section.decimal("slow_call_rate", SHARE).unwrap_or(default.slow_call_rate),
            window: section.duration("window", WINDOW, default.window),
            minimum_calls: section.number("minimum_calls", TIMES, default.minimum_calls),
            probe_interval: section.duration("probe_interval", TIMEOUT, default.probe_interval),
            probe_interval_max: section.duration("probe_interval_max", TIMEOUT, default.probe_interval_max),
            probes: section.number("probes", PROBES, default.probes),
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
