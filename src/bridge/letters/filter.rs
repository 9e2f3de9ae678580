//! Which dead letters are meant.

use std::ops::RangeInclusive;

use crate::record::{Addressee, AttemptOutcome, DeadLetter, DeadLetterReason, UnixMillis};
use crate::topic::{TopicFilter, TopicName};

/// Which letters are asked for; what is not said lets all through.
#[derive(Clone, Debug, Default)]
pub struct DeadLetterFilter {
    /// Those of this route.
    pub route: Option<String>,
    /// Those of a route to this target.
    pub target: Option<String>,
    /// Those of this session, or of this shared group.
    pub client_id: Option<String>,
    /// Those of messages that this client has published.
    pub publisher: Option<String>,
    /// Those with this reason.
    pub reason: Option<DeadLetterReason>,
    /// Those of messages whose topics match.
    pub topics: Option<TopicFilter>,
    /// Those that were given up then or later.
    pub since: Option<UnixMillis>,
    /// Those that were given up before then.
    pub until: Option<UnixMillis>,
    /// Those whose last attempt was answered so.
    pub status: Option<RangeInclusive<u16>>,
}

impl DeadLetterFilter {
    /// Whether this letter is meant.
    pub fn lets_through(&self, letter: &DeadLetter) -> bool {
        let (route, target, client_id) = match &letter.addressee {
            Addressee::Route { route, target } => (Some(route), Some(target), None),
            Addressee::Session { client_id } => (None, None, Some(client_id)),
            Addressee::Nobody => (None, None, None),
        };
        let is = |wanted: &Option<String>, has: Option<&String>| wanted.is_none() || wanted.as_ref() == has;
        is(&self.route, route)
            && is(&self.target, target)
            && is(&self.client_id, client_id)
            && self.publisher.as_ref().is_none_or(|publisher| publisher == letter.message.publisher())
            && self.reason.is_none_or(|reason| reason == letter.reason)
            && self.since.is_none_or(|since| letter.created_at >= since)
            && self.until.is_none_or(|until| letter.created_at < until)
            && self.status.as_ref().is_none_or(|range| status(letter).is_some_and(|it| range.contains(&it)))
            && self.topics.as_ref().is_none_or(|filter| matches(filter, letter.message.topic()))
    }
}

/// How the last attempt was answered.
fn status(letter: &DeadLetter) -> Option<u16> {
    match letter.attempts.as_ref()?.last()?.outcome {
        AttemptOutcome::Answered { status, .. } => Some(status),
        AttemptOutcome::Failed(_) => None,
    }
}

fn matches(filter: &TopicFilter, topic: &str) -> bool {
    TopicName::parse(topic, u16::MAX).is_ok_and(|topic| filter.matches(&topic))
}
