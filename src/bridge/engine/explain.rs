//! Which routes a publish would reach, and what each of them promises.

use serde::{Deserialize, Serialize};

use super::{Bridge, Line};
use crate::bridge::delivery::{BreakerState, RouteState, RouteStatus};
use crate::broker::{Guarantee, Kept, Path, WeakLink, Weakness, full_reason};
use crate::codec::Qos;
use crate::config::QueueView;
use crate::topic::TopicName;

/// A route whose filters match a topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReachedRoute {
    /// Its name.
    pub name: String,
    /// The name of its target.
    pub target: String,
    /// Whether it carries messages.
    pub status: RouteStatus,
    /// Whether its target is down.
    pub breaker: BreakerState,
    /// Messages that wait for it already.
    pub queued_messages: u64,
    /// The filters that match.
    pub filters: Vec<String>,
    /// The filter that excludes the topic; with it the route does not take the message.
    pub excluded_by: Option<String>,
    /// The expression that a message has to fulfill as well, if there is one.
    pub content_filter: Option<String>,
    /// What it promises; `null` when it does not take the message.
    pub path: Option<Path>,
}

impl Bridge {
    /// The routes whose filters match a topic, in the order of the configuration.
    pub fn reach(&self, topic: &TopicName<'_>, qos: Qos) -> Vec<ReachedRoute> {
        let lines = self.shared.lines.lock();
        lines.active.iter().filter_map(|line| line.reach(topic, qos)).collect()
    }
}

impl Line {
    fn reach(&self, topic: &TopicName<'_>, qos: Qos) -> Option<ReachedRoute> {
        let filters = self.route.filters();
        let matching = filters.topics.iter().filter(|filter| filter.matches(topic));
        let matching: Vec<_> = matching.map(|filter| filter.as_str().to_owned()).collect();
        if matching.is_empty() {
            return None;
        }
        let excluded_by = filters.exclude.iter().find(|filter| filter.matches(topic));
        let state = self.state();
        Some(ReachedRoute {
            path: excluded_by.is_none().then(|| path(&state, qos)),
            excluded_by: excluded_by.map(|filter| filter.as_str().to_owned()),
            filters: matching,
            content_filter: state.filter,
            name: state.name,
            target: state.target,
            status: state.status,
            breaker: state.breaker,
            queued_messages: state.queued_messages,
        })
    }
}

fn path(state: &RouteState, qos: Qos) -> Path {
    if qos == Qos::AtMostOnce {
        let reason = "the route takes QoS 0 input: tried once, memory only".to_owned();
        let weakest_link = Some(WeakLink { link: Weakness::Qos0Input, reason });
        return Path { guarantee: Guarantee::AtMostOnce, kept: Kept::Memory, weakest_link };
    }
    let full = state.queue.as_ref().filter(|queue| is_full(queue, state));
    let link = match full {
        Some(queue) => Some((Weakness::QueueFull, full_reason(queue.overflow).to_owned())),
        None if state.status == RouteStatus::Paused => {
            Some((Weakness::Paused, format!("target {} is paused: the message waits", state.target)))
        }
        None if state.breaker != BreakerState::Closed => {
            let reason = format!("breaker open: target {} is down, the message waits", state.target);
            Some((Weakness::BreakerOpen, reason))
        }
        None if state.filter.is_some() => {
            let reason = "the content filter decides whether the route takes the message".to_owned();
            Some((Weakness::ContentFilter, reason))
        }
        None if qos == Qos::ExactlyOnce => {
            let reason = "HTTP knows no exactly once: a repeat has the same idempotency key".to_owned();
            Some((Weakness::Http, reason))
        }
        None => None,
    };
    let weakest_link = link.map(|(link, reason)| WeakLink { link, reason });
    Path { guarantee: Guarantee::AtLeastOnce, kept: Kept::Disk, weakest_link }
}

fn is_full(queue: &QueueView, state: &RouteState) -> bool {
    state.queued_messages >= queue.messages || state.queued_bytes >= queue.bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overflow, QueueConfig};

    #[test]
    fn explain_weakest_link_of_a_route() {
        let state = RouteState {
            target: "erp".into(),
            queue: Some(
                QueueConfig { messages: 10, overflow: Overflow::Refuse, ..QueueConfig::default() }.into(),
            ),
            ..RouteState::default()
        };
        let weakest = |state: &RouteState, qos| path(state, qos).weakest_link.map(|weak| weak.link);
        assert_eq!(weakest(&state, Qos::AtMostOnce), Some(Weakness::Qos0Input));
        assert_eq!(path(&state, Qos::AtMostOnce).kept, Kept::Memory);
        assert_eq!(weakest(&state, Qos::AtLeastOnce), None);
        assert_eq!(weakest(&state, Qos::ExactlyOnce), Some(Weakness::Http));
        assert_eq!(path(&state, Qos::ExactlyOnce).guarantee, Guarantee::AtLeastOnce);
        let down = RouteState { breaker: BreakerState::Open, ..state.clone() };
        assert_eq!(weakest(&down, Qos::AtLeastOnce), Some(Weakness::BreakerOpen));
        let filtered = RouteState { filter: Some("qos > 1".into()), ..state.clone() };
        assert_eq!(weakest(&filtered, Qos::AtLeastOnce), Some(Weakness::ContentFilter));
        let paused = RouteState { status: RouteStatus::Paused, ..down.clone() };
        assert_eq!(weakest(&paused, Qos::AtLeastOnce), Some(Weakness::Paused));
        let full = RouteState { queued_messages: 10, ..paused };
        let Some(weak) = path(&full, Qos::AtLeastOnce).weakest_link else { panic!("a full queue") };
        assert_eq!((weak.link, weak.reason.contains("refused")), (Weakness::QueueFull, true));
    }
}
