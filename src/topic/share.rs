//! What stands in a SUBSCRIBE or UNSUBSCRIBE: a topic filter, alone or shared under a name.

use std::{fmt, sync::Arc};

use super::{
    TopicError, TopicFilter,
    name::{check_text, first_level},
};

/// The name of a shared subscription: at least one character, none of them `+`, `#` or `/`.
/// Cloning counts a reference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareName(Arc<str>);

/// One entry of a SUBSCRIBE or UNSUBSCRIBE, parsed. Its `Display` is the string it came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionFilter {
    /// Present for `$share/<name>/<filter>` (section 4.8.2 of MQTT 5.0).
    pub share: Option<ShareName>,
    /// What is matched: without the `$share/<name>/` of a shared subscription.
    pub filter: TopicFilter,
}

/// How a shared subscription begins; only as a whole level, and only in this case.
const SHARE_LEVEL: &str = "$share";

impl ShareName {
    /// Judges `text` as the name of a shared subscription.
    pub fn parse(text: &str) -> Result<Self, TopicError> {
        // [MQTT-4.8.2-1]
        if text.is_empty() {
            return Err(TopicError::ShareNameMissing);
        }
        check_text(text)?;
        // [MQTT-4.8.2-2]
        match text.char_indices().find(|(_, character)| matches!(character, '+' | '#' | '/')) {
            Some((at, character)) => Err(TopicError::ShareNameCharacter { character, at }),
            None => Ok(Self(text.into())),
        }
    }

    /// The text of the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SubscriptionFilter {
    /// Parses the string of a SUBSCRIBE or UNSUBSCRIBE. The filter may have at most `levels_max` levels,
    /// not counting `$share/<name>/`.
    pub fn parse(text: &str, levels_max: u16) -> Result<Self, TopicError> {
        check_text(text)?;
        if first_level(text) != SHARE_LEVEL {
            return Ok(Self { share: None, filter: TopicFilter::parse(text, levels_max)? });
        }
        let Some((_, shared)) = text.split_once('/') else {
            return Err(TopicError::ShareNameMissing);
        };
        let share =
            ShareName::parse(first_level(shared)).map_err(|error| error.shifted(SHARE_LEVEL.len() + 1))?;
        match shared.split_once('/') {
            None | Some((_, "")) => Err(TopicError::ShareFilterMissing),
            Some((_, filter)) => {
                let offset = text.len() - filter.len();
                let filter = TopicFilter::parse(filter, levels_max).map_err(|error| error.shifted(offset))?;
                Ok(Self { share: Some(share), filter })
            }
        }
    }

    /// Whether the messages are shared among the members of a group.
    pub fn is_shared(&self) -> bool {
        self.share.is_some()
    }
}

impl fmt::Display for ShareName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SubscriptionFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(share) = &self.share {
            write!(f, "{SHARE_LEVEL}/{share}/")?;
        }
        self.filter.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_and_ordinary_filters() {
        for (text, share, filter) in [
            ("$share/g/t", Some("g"), "t"),
            ("$share/g/a/+/#", Some("g"), "a/+/#"),
            ("$share/g//", Some("g"), "/"),
            ("$share/g/$SYS/#", Some("g"), "$SYS/#"),
            ("$share/$g ä/#", Some("$g ä"), "#"),
            ("$SHARE/g/t", None, "$SHARE/g/t"),
            ("$shared/g/t", None, "$shared/g/t"),
            ("/$share/g/t", None, "/$share/g/t"),
            ("share/g/t", None, "share/g/t"),
            ("#", None, "#"),
        ] {
            let parsed = SubscriptionFilter::parse(text, 9).unwrap();
            assert_eq!(parsed.share.as_ref().map(ShareName::as_str), share, "{text}");
            assert_eq!(parsed.filter.as_str(), filter, "{text}");
            assert_eq!(parsed.is_shared(), share.is_some());
            assert_eq!(parsed.to_string(), text);
        }
    }

    #[test]
    fn malformed_shares_are_refused() {
        for (text, want) in [
            ("$share", TopicError::ShareNameMissing),
            ("$share/", TopicError::ShareNameMissing),
            ("$share//t", TopicError::ShareNameMissing),
            ("$share//", TopicError::ShareNameMissing),
            ("$share/g", TopicError::ShareFilterMissing),
            ("$share/g/", TopicError::ShareFilterMissing),
            ("$share/g+/t", TopicError::ShareNameCharacter { character: '+', at: 8 }),
            ("$share/#/t", TopicError::ShareNameCharacter { character: '#', at: 7 }),
            ("$share/+", TopicError::ShareNameCharacter { character: '+', at: 7 }),
            ("$share/g\0/t", TopicError::Nul { at: 8 }),
            ("$share/g/a#", TopicError::WildcardNotAlone { wildcard: '#', at: 10 }),
            ("$share/g/1/2/3", TopicError::TooManyLevels { levels: 3, max: 2 }),
            ("", TopicError::Empty),
        ] {
            assert_eq!(SubscriptionFilter::parse(text, 2), Err(want), "{text:?}");
        }
        assert_eq!(ShareName::parse("a/b"), Err(TopicError::ShareNameCharacter { character: '/', at: 1 }));
    }

    #[test]
    fn messages_say_what_would_be_right() {
        let error = SubscriptionFilter::parse("$share/g/a+/b", 9).unwrap_err().to_string();
        assert_eq!(
            error,
            "has a '+' at byte 10 that shares its level with other characters; it must stand alone, as in a/+"
        );
    }

    #[test]
    fn the_limit_on_bytes_counts_the_share() {
        let text = format!("$share/g/{}", "a".repeat(65_530));
        assert_eq!(SubscriptionFilter::parse(&text, 9), Err(TopicError::TooLong { len: 65_539 }));
    }
}
