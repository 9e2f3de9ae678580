//! Which dead letters a request means, and what is to be different about those that are replayed.

use std::ops::RangeInclusive;

use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::ApiError;
use crate::bridge::DeadLetterFilter;
use crate::broker::Replay;
use crate::codec::PropertyChanges;
use crate::record::{DeadLetterReason, UnixMillis};
use crate::topic::TopicFilter;

/// The query of a list, and of what is done to many.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LetterQuery {
    /// Begin after this one.
    pub(super) after: u64,
    /// Letters of a list at most.
    pub(super) limit: Option<usize>,
    /// The last one that is meant when something is done to many: what is filed later is another matter. Whoever
    /// begins leaves it out.
    pub(super) last: Option<u64>,
    /// Letters in a second at most, when they are replayed.
    pub(super) rate: Option<u32>,
    route: Option<String>,
    target: Option<String>,
    client_id: Option<String>,
    publisher: Option<String>,
    reason: Option<String>,
    topic: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    status: Option<String>,
}

/// The body of a request that replays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReplayChanges {
    /// The route that gets it, instead of the one it was for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The Content Type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// User properties, each in place of all of its name.
    pub set_properties: Vec<(String, String)>,
    /// Names of user properties that go.
    pub remove_properties: Vec<String>,
}

impl LetterQuery {
    pub(super) fn filter(self) -> Result<DeadLetterFilter, ApiError> {
        let Self { route, target, client_id, publisher, reason, topic, since, until, status, .. } = self;
        Ok(DeadLetterFilter {
            route,
            target,
            client_id,
            publisher,
            reason: reason.map(|word| find_reason(&word)).transpose()?,
            topics: topic.map(|topic| topic_filter(&topic)).transpose()?,
            since: since.map(millis),
            until: until.map(millis),
            status: status.map(|status| statuses(&status)).transpose()?,
        })
    }
}

impl ReplayChanges {
    /// From the body of a request; an empty one changes nothing.
    pub(super) fn read(body: &[u8]) -> Result<Replay, ApiError> {
        let changes: Self = match body {
            [] => Self::default(),
            _ => serde_json::from_slice(body).map_err(|error| {
                ApiError::new(StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}")).help(
                    "it may be empty, or JSON with to, content_type, set_properties and remove_properties",
                )
            })?,
        };
        let Self { to, content_type, set_properties: set, remove_properties: remove } = changes;
        let has_nul = |text: &String| text.contains('\0');
        if set.iter().any(|(name, value)| has_nul(name) || has_nul(value))
            || content_type.as_ref().is_some_and(has_nul)
        {
            return Err(ApiError::new(StatusCode::BAD_REQUEST, "a text of MQTT has no U+0000"));
        }
        Ok(Replay { to, properties: PropertyChanges { content_type, set, remove } })
    }
}

fn find_reason(word: &str) -> Result<DeadLetterReason, ApiError> {
    DeadLetterReason::from_word(word).ok_or_else(|| {
        let words: Vec<_> = DeadLetterReason::ALL.iter().map(|reason| reason.as_str()).collect();
        ApiError::new(StatusCode::BAD_REQUEST, "no dead letter has this reason")
            .help(format!("a reason is one of {}", words.join(", ")))
    })
}

fn topic_filter(filter: &str) -> Result<TopicFilter, ApiError> {
    TopicFilter::parse(filter, u16::MAX).map_err(|error| {
        ApiError::new(StatusCode::BAD_REQUEST, format!("the topic filter {error}"))
            .help("write a topic, or a filter like plant/+/temperature or plant/#")
    })
}

/// `422`, `4xx`, `500-599`.
fn statuses(text: &str) -> Result<RangeInclusive<u16>, ApiError> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|status| (100..=599).contains(status));
    let class = |text: &str| number(&format!("{}00", text.strip_suffix("xx")?));
    let range = match (text.split_once('-'), class(text)) {
        (Some((first, last)), _) => number(first).zip(number(last)).map(|(first, last)| first..=last),
        (None, Some(first)) => Some(first..=first + 99),
        (None, None) => number(text).map(|status| status..=status),
    };
    range.filter(|range| !range.is_empty()).ok_or_else(|| {
        ApiError::new(StatusCode::BAD_REQUEST, "this is no HTTP status").help("write 422, 4xx or 500-599")
    })
}

fn millis(at: Timestamp) -> UnixMillis {
    UnixMillis(u64::try_from(at.as_millisecond()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_one_a_class_or_a_range() {
        let read = |text| statuses(text).ok();
        assert_eq!(
            (read("422"), read("4xx"), read("500-599")),
            (Some(422..=422), Some(400..=499), Some(500..=599))
        );
        for bad in ["", "x", "99", "600", "xx", "9xx", "500-400", "4x", "-", "200-"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
