//! The bridge's metrics, as handles that are looked up once.

use std::sync::Once;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

use super::policy::status::Class;

/// Handles of one target.
pub(super) struct TargetMetrics {
    /// Attempts under way.
    pub(super) in_flight: Gauge,
    /// 1 while only probes are sent.
    pub(super) breaker_open: Gauge,
    /// 1 while nothing is sent by order.
    pub(super) paused: Gauge,
    /// Most requests in flight, now.
    pub(super) concurrency: Gauge,
    /// How often a request had to wait for a token.
    pub(super) rate_limited: Counter,
    /// How long attempts take.
    pub(super) seconds: Histogram,
    completed: Counter,
    retry: Counter,
    target_failure: Counter,
    dead_letter: Counter,
    dropped: Counter,
}

/// Handles of one route.
pub(super) struct RouteMetrics {
    /// Messages on disk that are owed to it.
    pub(super) backlog_messages: Gauge,
    /// Bytes on disk that are kept for it.
    pub(super) backlog_bytes: Gauge,
    /// Answers that were published.
    pub(super) replied: Counter,
    /// Answers of which the status alone was published.
    pub(super) reply_cut: Counter,
    /// Messages that were replies too often to get another one.
    pub(super) reply_loop: Counter,
    /// Answers that have no topic to go to.
    pub(super) reply_no_topic: Counter,
    /// Answers that the publisher of their request may not have there.
    pub(super) reply_not_authorized: Counter,
}

impl TargetMetrics {
    pub(super) fn new(target: &str) -> Self {
        describe();
        let ended = |outcome: &'static str| counter!("causeway_bridge_attempts_total", "target" => target.to_owned(), "outcome" => outcome);
        Self {
            in_flight: gauge!("causeway_bridge_in_flight", "target" => target.to_owned()),
            breaker_open: gauge!("causeway_bridge_breaker_open", "target" => target.to_owned()),
            paused: gauge!("causeway_bridge_paused", "target" => target.to_owned()),
            concurrency: gauge!("causeway_bridge_concurrency", "target" => target.to_owned()),
            rate_limited: counter!("causeway_bridge_rate_limited_total", "target" => target.to_owned()),
            seconds: histogram!("causeway_bridge_attempt_seconds", "target" => target.to_owned()),
            completed: ended("completed"),
            retry: ended("retry"),
            target_failure: ended("target_failure"),
            dead_letter: ended("dead_letter"),
            dropped: ended("dropped"),
        }
    }

    /// The counter of attempts that ended so.
    pub(super) fn ended(&self, class: Class) -> &Counter {
        match class {
            Class::Complete => &self.completed,
            Class::RetryMessage => &self.retry,
            Class::TargetFailure => &self.target_failure,
            Class::DeadLetter => &self.dead_letter,
            Class::Drop => &self.dropped,
        }
    }
}

impl RouteMetrics {
    pub(super) fn new(route: &str) -> Self {
        let reply = |outcome: &'static str| counter!("causeway_bridge_replies_total", "route" => route.to_owned(), "outcome" => outcome);
        Self {
            replied: reply("published"),
            reply_cut: reply("too_large"),
            reply_loop: reply("loop"),
            reply_no_topic: reply("no_topic"),
            reply_not_authorized: reply("not_authorized"),
            backlog_messages: gauge!("causeway_bridge_backlog_messages", "route" => route.to_owned()),
            backlog_bytes: gauge!("causeway_bridge_backlog_bytes", "route" => route.to_owned()),
        }
    }
}

fn describe() {
    static DESCRIBED: Once = Once::new();
    DESCRIBED.call_once(|| {
        describe_counter!("causeway_bridge_attempts_total", "HTTP attempts by target and outcome");
        describe_counter!(
            "causeway_bridge_replies_total",
            "Answers of targets to be published, by route and outcome"
        );
        describe_histogram!("causeway_bridge_attempt_seconds", "Time of an HTTP attempt");
        describe_gauge!("causeway_bridge_in_flight", "HTTP attempts under way");
        describe_gauge!("causeway_bridge_breaker_open", "1 while the target fails and only probes are sent");
        describe_gauge!("causeway_bridge_paused", "1 while a target is sent nothing by order");
        describe_gauge!("causeway_bridge_concurrency", "Most HTTP attempts of a target under way, now");
        describe_counter!("causeway_bridge_rate_limited_total", "Waits for the rate of a target");
        describe_gauge!("causeway_bridge_backlog_messages", "Messages on disk that a route is owed");
        describe_gauge!("causeway_bridge_backlog_bytes", "Bytes on disk that are kept for a route");
    });
}
