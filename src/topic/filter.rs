//! Topic filters: what a subscription, a rule of the ACL or a route is about.

use std::{fmt, str::Split, sync::Arc};

use super::{
    TopicError, TopicName,
    name::{check_levels, check_text, find_wildcard, first_level},
};

/// A topic filter that was judged: 1 to 65 535 bytes, no U+0000, `+` a whole level, `#` the whole last
/// level, not too many levels. Cloning counts a reference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicFilter(Arc<str>);

impl TopicFilter {
    /// Judges `text`, which may have at most `levels_max` levels. A leading `$share/` means nothing here:
    /// [`SubscriptionFilter`](super::SubscriptionFilter) takes it off first.
    pub fn parse(text: &str, levels_max: u16) -> Result<Self, TopicError> {
        check_text(text)?;
        check_levels(text, levels_max)?;
        check_wildcards(text)?;
        Ok(Self(text.into()))
    }

    /// The text of the filter.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels in their order: at least one, and each may be empty.
    pub fn levels(&self) -> Split<'_, char> {
        self.0.split('/')
    }

    /// The text before the first `/`, or all of it.
    pub fn first_level(&self) -> &str {
        first_level(&self.0)
    }

    /// Whether the first level is a wildcard: such a filter matches no topic with a leading `$`.
    pub fn starts_with_wildcard(&self) -> bool {
        self.0.starts_with(['+', '#'])
    }

    /// Whether any level is a wildcard.
    pub fn has_wildcards(&self) -> bool {
        // They stand for whole levels, and are in no other.
        self.0.contains(['+', '#'])
    }

    /// Whether a message on `topic` is for this filter. Levels are compared byte by byte: nothing is
    /// normalized [MQTT-4.7.3-4]. For one filter; many are matched by the
    /// [`SubscriptionIndex`](super::SubscriptionIndex).
    pub fn matches(&self, topic: &TopicName<'_>) -> bool {
        // [MQTT-4.7.2-1]
        if topic.is_system() && self.starts_with_wildcard() {
            return false;
        }
        let mut topic_levels = topic.levels();
        for wanted in self.levels() {
            // Asked before the topic's next level: `a/#` matches `a` too.
            if wanted == "#" {
                return true;
            }
            match topic_levels.next() {
                Some(level) if wanted == "+" || wanted == level => {}
                _ => return false,
            }
        }
        topic_levels.next().is_none()
    }

    /// What the wildcards stand for in a topic that the filter matches: a level for each `+`, and for `#` all
    /// levels that are left, with `/` between them (nothing for the parent level). `None` when it does not match.
    pub fn captures<'t>(&self, topic: &TopicName<'t>) -> Option<Vec<&'t str>> {
        if !self.matches(topic) {
            return None;
        }
        let mut captures = Vec::new();
        let mut rest = topic.as_str();
        for wanted in self.levels() {
            if wanted == "#" {
                captures.push(rest);
                break;
            }
            let (level, after) = rest.split_once('/').unwrap_or((rest, ""));
            if wanted == "+" {
                captures.push(level);
            }
            rest = after;
        }
        Some(captures)
    }

    /// The text before the first level that is a wildcard, with its last `/`; all of it without one.
    pub(super) fn literal_prefix(&self) -> &str {
        let end = find_wildcard(&self.0).map_or(self.0.len(), |(at, _)| at);
        self.0.get(..end).unwrap_or_default()
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `+` fills a level [MQTT-4.7.1-2]; `#` fills the last one [MQTT-4.7.1-1].
fn check_wildcards(text: &str) -> Result<(), TopicError> {
    let mut start = 0;
    for level in text.split('/') {
        let end = start + level.len();
        if let Some((at, wildcard)) = find_wildcard(level) {
            if level.len() > 1 {
                return Err(TopicError::WildcardNotAlone { wildcard, at: start + at });
            }
            if wildcard == '#' && end < text.len() {
                return Err(TopicError::MultiLevelNotLast { at: start });
            }
        }
        start = end + 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::parse(text, u16::MAX).unwrap()
    }

    fn matches(text: &str, topic: &str) -> bool {
        filter(text).matches(&TopicName::parse(topic, u16::MAX).unwrap())
    }

    #[test]
    fn wildcards_stand_alone_and_multi_level_comes_last() {
        for text in ["#", "+", "/", "a/#", "+/+/#", "a/+/b", "/+", "+/", "//#", "$SYS/#", "a b/ä"] {
            assert_eq!(TopicFilter::parse(text, 9).unwrap().to_string(), text);
        }
        let not_alone = |wildcard, at| Err(TopicError::WildcardNotAlone { wildcard, at });
        let not_last = |at| Err(TopicError::MultiLevelNotLast { at });
        let cases = [
            ("", Err(TopicError::Empty)),
            ("a\0", Err(TopicError::Nul { at: 1 })),
            ("a#", not_alone('#', 1)),
            ("a/#b", not_alone('#', 2)),
            ("##", not_alone('#', 0)),
            ("#+", not_alone('#', 0)),
            ("a+/b", not_alone('+', 1)),
            ("a/++", not_alone('+', 2)),
            ("#/", not_last(0)),
            ("a/#/b", not_last(2)),
            ("1/2/3/4", Err(TopicError::TooManyLevels { levels: 4, max: 3 })),
        ];
        for (text, want) in cases {
            assert_eq!(TopicFilter::parse(text, 3), want, "{text:?}");
        }
    }

    #[test]
    fn examples_of_the_specification() {
        for (text, topic, want) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "a/b/c", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("+/tennis/#", "sport/tennis", true),
            ("ACCOUNTS", "Accounts", false),
            ("a", "a/", false),
            ("a/", "a", false),
        ] {
            assert_eq!(matches(text, topic), want, "{text} {topic}");
        }
    }

    #[test]
    fn leading_wildcards_do_not_match_system_topics() {
        for (text, topic, want) in [
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("+", "$", false),
            ("$SYS/#", "$SYS/x", true),
            ("$SYS/+", "$SYS/x", true),
            ("a/#", "a/$SYS", true),
            ("+/#", "a/$b", true),
        ] {
            assert_eq!(matches(text, topic), want, "{text} {topic}");
        }
    }

    #[test]
    fn wildcards_stand_for_levels_and_for_what_is_left() {
        let captures = |text, topic| filter(text).captures(&TopicName::parse(topic, u16::MAX).unwrap());
        for (text, topic, want) in [
            ("plant/+/line/+", "plant/7/line/a b", Some(vec!["7", "a b"])),
            ("plant/+/#", "plant/7/line/3", Some(vec!["7", "line/3"])),
            ("plant/#", "plant", Some(vec![""])),
            ("plant/#", "plant/", Some(vec![""])),
            ("plant/+/#", "plant/7", Some(vec!["7", ""])),
            ("#", "a/b", Some(vec!["a/b"])),
            ("+/+", "/", Some(vec!["", ""])),
            ("a/b", "a/b", Some(vec![])),
            ("a/+", "b/c", None),
            ("#", "$SYS/a", None),
        ] {
            assert_eq!(captures(text, topic), want, "{text} {topic}");
        }
    }

    #[test]
    fn says_what_it_holds() {
        assert!(!filter("a/+").starts_with_wildcard());
        assert!(filter("#").starts_with_wildcard() && filter("+/a").starts_with_wildcard());
        assert_eq!(filter("a/b/+/c").literal_prefix(), "a/b/");
        assert_eq!(filter("a/b").literal_prefix(), "a/b");
        assert_eq!(filter("#").literal_prefix(), "");
    }
}
