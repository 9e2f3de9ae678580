//! `reply` and `reply_max` of a route: whether the answer of its target is published, and how much of it.

use std::ops::RangeInclusive;

use toml::Spanned;

use crate::config::{report::Wrong, section::Section, values};

const BYTES: RangeInclusive<u64> = 1..=16 * 1024 * 1024;
const DEFAULT: u64 = 64 * 1024;

/// Most bytes of an answer that are published; `None` when none is.
pub(super) fn read(section: &mut Section<'_>, is_batched: bool) -> Option<usize> {
    let replies = section.take("reply", values::flag).is_some_and(Spanned::into_inner);
    let max = section.optional_bytes("reply_max", BYTES);
    if replies && is_batched {
        let wrong = Wrong::new("goes with no [routes.batch]: one answer would be for many messages");
        section.wrong("reply", wrong.help("leave out one of the two"));
    }
    if !replies && max.is_some() {
        section.wrong("reply_max", Wrong::new("is of no use without a reply").help("add reply = true"));
    }
    replies.then(|| usize::try_from(max.unwrap_or(DEFAULT)).unwrap_or(usize::MAX))
}
