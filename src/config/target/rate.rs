//! `rate` and `burst` of a target: how many requests it is sent in which time.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use crate::config::report::Wrong;
use crate::config::section::Section;
use crate::config::values;

const REQUESTS: RangeInclusive<u32> = 1..=1_000_000;

/// Most requests over time: a bucket of so many tokens, one for each request, that fills again steadily.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateConfig {
    /// So many tokens come ...
    pub requests: NonZeroU32,
    /// ... in this time.
    pub per: Duration,
    /// So many fit: most requests at once after a pause.
    pub burst: NonZeroU32,
}

impl RateConfig {
    /// Reads `rate` and `burst`. By default the bucket holds what comes within a second, one token at least.
    pub(super) fn read(section: &mut Section<'_>) -> Option<Self> {
        let rate = section.take("rate", parse).map(Spanned::into_inner);
        let burst: Option<u32> = section.optional_number("burst", REQUESTS);
        let Some((requests, per)) = rate else {
            if burst.is_some() {
                section.wrong("burst", Wrong::new("needs rate beside it").help("add rate = \"100/s\""));
            }
            return None;
        };
        let in_a_second = requests.get() / u32::try_from(per.as_secs()).unwrap_or(u32::MAX).max(1);
        let burst = NonZeroU32::new(burst.unwrap_or(in_a_second)).unwrap_or(NonZeroU32::MIN);
        Some(Self { requests, per, burst })
    }
}

/// `"100/s"`, `"600/m"`, `"1000/h"`.
fn parse(value: &DeValue<'_>) -> Result<(NonZeroU32, Duration), Wrong> {
    let read = |text: &str| {
        let (requests, unit) = text.split_once('/')?;
        let per = match unit.trim() {
            "s" => Duration::from_secs(1),
            "m" | "min" => Duration::from_mins(1),
            "h" => Duration::from_hours(1),
            _ => return None,
        };
        let requests = requests.trim().parse().ok().filter(|requests| REQUESTS.contains(requests))?;
        Some((NonZeroU32::new(requests)?, per))
    };
    value.as_str().and_then(read).ok_or_else(|| {
        let help = "write \"100/s\", \"600/m\" or \"1000/h\", with 1 to 1000000 requests";
        values::unexpected("so many requests in a time", value).help(help)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_and_a_unit() {
        let read = |text: &str| parse(&DeValue::String(text.into())).map(|(n, per)| (n.get(), per.as_secs()));
        assert_eq!(read("100/s"), Ok((100, 1)));
        assert_eq!(read("600 / m"), Ok((600, 60)));
        assert_eq!(read("1/h"), Ok((1, 3600)));
        for text in ["", "100", "/s", "0/s", "-1/s", "1.5/s", "100/d", "1000001/s", "100/s/s"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
