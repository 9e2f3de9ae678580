//! What an HTTP status means for the message it answers.

use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::DeValue;

use crate::config::report::Wrong;
use crate::config::section::Section;
use crate::config::values;

const GONE: u16 = 410;

/// What becomes of a message after an answer with a certain status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusClass {
    /// Delivered.
    Complete,
    /// Tried again later.
    Retry,
    /// Trying again would not help: the message becomes a dead letter at once.
    DeadLetter,
    /// Trying again would not help, and nobody wants to see it: counted and gone.
    Drop,
    /// The message stays, and the target is sent nothing until somebody lets it go on.
    Pause,
}

/// Which status means what: the operator's ranges, and the defaults for everything else.
///
/// By default 2xx completes; 404, 408, 409, 425, 429 and 5xx without 501 and 505 are retried; the rest,
/// redirects among them, is a dead letter. 401 and 403 are not retried: the same credentials fail again. After a
/// 410 the target is paused, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusRules {
    /// Ranges that do not overlap.
    pub overrides: Vec<(RangeInclusive<u16>, StatusClass)>,
}

impl StatusRules {
    /// What this status means.
    pub fn class(&self, status: u16) -> StatusClass {
        self.overridden(status).unwrap_or_else(|| default_class(status))
    }

    /// Whether the target is paused after an answer with this status: as the operator says, and by default when
    /// the target says that it is gone for good.
    pub fn pauses(&self, status: u16) -> bool {
        self.overridden(status).map_or(status == GONE, |class| class == StatusClass::Pause)
    }

    /// What the operator says that this status means, if anything.
    pub fn overridden(&self, status: u16) -> Option<StatusClass> {
        let found = self.overrides.iter().find(|(range, _)| range.contains(&status));
        found.map(|(_, class)| *class)
    }
}

impl StatusRules {
    /// Reads the section.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let classes = [
            ("complete", StatusClass::Complete),
            ("retry", StatusClass::Retry),
            ("dead_letter", StatusClass::DeadLetter),
            ("drop", StatusClass::Drop),
            ("pause", StatusClass::Pause),
        ];
        let mut ranges: Vec<(Spanned<RangeInclusive<u16>>, StatusClass)> = Vec::new();
        for (key, class) in classes {
            for range in section.list(key, status_range) {
                let overlaps = |other: &RangeInclusive<u16>| {
                    other.start() <= range.get_ref().end() && range.get_ref().start() <= other.end()
                };
                if let Some((other, _)) = ranges.iter().find(|(other, _)| overlaps(other.get_ref())) {
                    let line = section.report().line(other.span());
                    let message = format!("overlaps with what stands on line {line}");
                    let help = "each status can mean one thing only";
                    section.wrong_at(key, range.span(), Wrong::new(message).help(help));
                }
                ranges.push((range, class));
            }
        }
        StatusRules {
            overrides: ranges.into_iter().map(|(range, class)| (range.into_inner(), class)).collect(),
        }
    }
}

fn default_class(status: u16) -> StatusClass {
    match status {
        200..=299 => StatusClass::Complete,
        501 | 505 => StatusClass::DeadLetter,
        404 | 408 | 409 | 425 | 429 | 500..=599 => StatusClass::Retry,
        _ => StatusClass::DeadLetter,
    }
}

/// `404`, `"404"`, `"500-599"` or `"5xx"`.
fn status_range(value: &DeValue<'_>) -> Result<RangeInclusive<u16>, Wrong> {
    let status = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (200..=999).contains(status));
    let range = match value {
        DeValue::Integer(number) => status(&number.to_string()).map(|status| status..=status),
        DeValue::String(text) => match text.split_once('-') {
            Some((first, last)) => status(first).zip(status(last)).map(|(first, last)| first..=last),
            None => match text.strip_suffix("xx") {
                Some(hundreds) => status(&format!("{hundreds}00")).map(|first| first..=first + 99),
                None => status(text).map(|status| status..=status),
            },
        },
        _ => None,
    };
    let help = "write \"404\", \"500-599\" or \"5xx\"; a final status is 200 or more";
    range
        .filter(|range| !range.is_empty())
        .ok_or_else(|| values::unexpected("an HTTP status or a range of them", value).help(help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_classes() {
        let rules = StatusRules::default();
        for status in [200, 202, 204, 299] {
            assert_eq!(rules.class(status), StatusClass::Complete, "{status}");
        }
        for status in [404, 408, 409, 425, 429, 500, 502, 503, 504, 599] {
            assert_eq!(rules.class(status), StatusClass::Retry, "{status}");
        }
        for status in [100, 301, 307, 400, 401, 403, 410, 413, 415, 422, 501, 505, 600] {
            assert_eq!(rules.class(status), StatusClass::DeadLetter, "{status}");
        }
    }

    #[test]
    fn an_override_wins_and_leaves_the_rest() {
        let rules = StatusRules { overrides: vec![(401..=403, StatusClass::Complete)] };
        assert_eq!(rules.class(401), StatusClass::Complete);
        assert_eq!(rules.class(403), StatusClass::Complete);
        assert_eq!(rules.class(400), StatusClass::DeadLetter);
        assert_eq!(rules.class(404), StatusClass::Retry);
    }

    #[test]
    fn a_target_that_is_gone_is_paused_unless_the_operator_says_what_410_means() {
        assert!(StatusRules::default().pauses(410));
        assert!(!StatusRules::default().pauses(404));
        let rules = |range, class| StatusRules { overrides: vec![(range, class)] };
        assert!(!rules(410..=410, StatusClass::DeadLetter).pauses(410));
        assert!(rules(500..=599, StatusClass::Pause).pauses(507));
        assert!(rules(500..=599, StatusClass::Pause).pauses(410));
    }
}
