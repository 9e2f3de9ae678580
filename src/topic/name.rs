//! Topic names: what a message is published to.

use std::{fmt, str::Split};

use memchr::{memchr, memchr_iter, memchr2};

use super::{TOPIC_BYTES_MAX, TopicError};

/// A topic name that was judged: 1 to 65 535 bytes, no U+0000, no wildcard, not too many levels.
/// It borrows its text, so that a PUBLISH is judged where its bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName<'a>(&'a str);

impl<'a> TopicName<'a> {
    /// Judges `text`, which may have at most `levels_max` levels (a name has one more than it has `/`).
    pub fn parse(text: &'a str, levels_max: u16) -> Result<Self, TopicError> {
        check_text(text)?;
        // Names have no wildcards [MQTT-4.7.0-1].
        if let Some((at, wildcard)) = find_wildcard(text) {
            return Err(TopicError::WildcardInName { wildcard, at });
        }
        check_levels(text, levels_max)?;
        Ok(Self(text))
    }

    /// The text of the name.
    pub fn as_str(self) -> &'a str {
        self.0
    }

    /// The levels in their order: at least one, and each may be empty.
    pub fn levels(self) -> Split<'a, char> {
        self.0.split('/')
    }

    /// The text before the first `/`, or all of it.
    pub fn first_level(self) -> &'a str {
        first_level(self.0)
    }

    /// Whether the name begins with `$`: no filter that begins with a wildcard matches it [MQTT-4.7.2-1].
    pub fn is_system(self) -> bool {
        self.0.starts_with('$')
    }
}

impl fmt::Display for TopicName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The rules that names and filters share, but for the number of levels.
pub(super) fn check_text(text: &str) -> Result<(), TopicError> {
    match text.len() {
        0 => return Err(TopicError::Empty),
        len if len > TOPIC_BYTES_MAX => return Err(TopicError::TooLong { len }),
        _ => {}
    }
    match memchr(0, text.as_bytes()) {
        Some(at) => Err(TopicError::Nul { at }),
        None => Ok(()),
    }
}

/// Whether `text` has at most `levels_max` levels.
pub(super) fn check_levels(text: &str, levels_max: u16) -> Result<(), TopicError> {
    let levels = memchr_iter(b'/', text.as_bytes()).count() + 1;
    if levels > usize::from(levels_max) {
        return Err(TopicError::TooManyLevels { levels, max: levels_max });
    }
    Ok(())
}

/// The first wildcard of `text` and where it is.
pub(super) fn find_wildcard(text: &str) -> Option<(usize, char)> {
    let at = memchr2(b'+', b'#', text.as_bytes())?;
    let wildcard = text.as_bytes().get(at).copied()?;
    Some((at, wildcard.into()))
}

/// The text before the first `/`, or all of it.
pub(super) fn first_level(text: &str) -> &str {
    text.split_once('/').map_or(text, |(first, _)| first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged() {
        let cases: &[(&str, Result<(), TopicError>)] = &[
            ("a", Ok(())),
            ("/", Ok(())),
            ("a//b", Ok(())),
            ("$SYS/broker", Ok(())),
            ("sport/Äpfel/東京", Ok(())),
            ("a b", Ok(())),
            ("", Err(TopicError::Empty)),
            ("a/\0", Err(TopicError::Nul { at: 2 })),
            ("a/+", Err(TopicError::WildcardInName { wildcard: '+', at: 2 })),
            ("a#", Err(TopicError::WildcardInName { wildcard: '#', at: 1 })),
            ("1/2/3/4", Ok(())),
            ("1/2/3/4/", Err(TopicError::TooManyLevels { levels: 5, max: 4 })),
        ];
        for (text, want) in cases {
            assert_eq!(TopicName::parse(text, 4).map(|_| ()), *want, "{text:?}");
        }
    }

    #[test]
    fn length_is_limited_in_bytes() {
        let longest = "ä".repeat(TOPIC_BYTES_MAX / 2) + "a";
        assert!(TopicName::parse(&longest, 1).is_ok());
        let longer = longest + "a";
        assert_eq!(TopicName::parse(&longer, 1), Err(TopicError::TooLong { len: 65_536 }));
    }

    #[test]
    fn levels_may_be_empty() {
        let name = TopicName::parse("/a//", 4).unwrap();
        assert_eq!(name.levels().collect::<Vec<_>>(), ["", "a", "", ""]);
        assert_eq!(name.first_level(), "");
        assert_eq!(TopicName::parse("a/b", 4).unwrap().first_level(), "a");
        assert_eq!(TopicName::parse("a", 4).unwrap().first_level(), "a");
    }

    #[test]
    fn system_topics_begin_with_a_dollar() {
        assert!(TopicName::parse("$SYS/x", 9).unwrap().is_system());
        assert!(TopicName::parse("$", 9).unwrap().is_system());
        assert!(!TopicName::parse("a/$SYS", 9).unwrap().is_system());
    }
}
