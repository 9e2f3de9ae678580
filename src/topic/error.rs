//! What can be wrong with a topic name, a topic filter or a share name.

use thiserror::Error;

use super::TOPIC_BYTES_MAX;

/// Why a string is no topic name or no topic filter. Positions are bytes from the start of the string
/// that was parsed, counted from 0. The messages are predicates: what was parsed goes before them, as in
/// "the topic filter of route 3 is empty; ...". The string itself is not repeated: it may be 64 KiB of a
/// stranger's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TopicError {
    /// [MQTT-4.7.3-1].
    #[error("is empty; a topic name or filter has at least one character")]
    Empty,
    /// [MQTT-4.7.3-3].
    #[error("has {len} bytes; at most {TOPIC_BYTES_MAX} are allowed")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// [MQTT-4.7.3-2].
    #[error("has the character U+0000 at byte {at}; leave it out")]
    Nul {
        /// Where it is.
        at: usize,
    },
    /// More levels than the configuration allows.
    #[error("has {levels} levels; at most {max} are allowed, so use fewer '/'")]
    TooManyLevels {
        /// How many it has.
        levels: usize,
        /// How many it may have.
        max: u16,
    },
    /// [MQTT-4.7.0-1]: a wildcard in a topic name.
    #[error("has the wildcard '{wildcard}' at byte {at}; wildcards belong in filters, not in topic names")]
    WildcardInName {
        /// `+` or `#`.
        wildcard: char,
        /// Where it is.
        at: usize,
    },
    /// [MQTT-4.7.1-1], [MQTT-4.7.1-2]: a wildcard beside other characters.
    #[error(
        "has a '{wildcard}' at byte {at} that shares its level with other characters; it must stand alone, as in a/{wildcard}"
    )]
    WildcardNotAlone {
        /// `+` or `#`.
        wildcard: char,
        /// Where it is.
        at: usize,
    },
    /// [MQTT-4.7.1-1]: levels after `#`.
    #[error(
        "has a '#' at byte {at} with levels after it; it must be the last level, and '+' stands for a single one"
    )]
    MultiLevelNotLast {
        /// Where it is.
        at: usize,
    },
    /// `$share` without anything, or with an empty name [MQTT-4.8.2-1].
    #[error("has no share name after $share/; a shared subscription is $share/NAME/FILTER")]
    ShareNameMissing,
    /// [MQTT-4.8.2-2].
    #[error(
        "has a '{character}' at byte {at}, in the share name; the NAME of $share/NAME/FILTER has no '+', '#' or '/'"
    )]
    ShareNameCharacter {
        /// `+`, `#` or `/`.
        character: char,
        /// Where it is.
        at: usize,
    },
    /// `$share/name` or `$share/name/` [MQTT-4.8.2-2].
    #[error("has no topic filter after the share name; a shared subscription is $share/NAME/FILTER")]
    ShareFilterMissing,
}

impl TopicError {
    /// The same error in a string that has `offset` bytes before the part that was judged.
    pub(super) fn shifted(mut self, offset: usize) -> Self {
        match &mut self {
            Self::Nul { at }
            | Self::WildcardInName { at, .. }
            | Self::WildcardNotAlone { at, .. }
            | Self::MultiLevelNotLast { at }
            | Self::ShareNameCharacter { at, .. } => *at += offset,
            Self::Empty
            | Self::TooLong { .. }
            | Self::TooManyLevels { .. }
            | Self::ShareNameMissing
            | Self::ShareFilterMissing => {}
        }
        self
    }
}
