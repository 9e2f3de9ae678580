//! The bridge's metrics, as handles that are looked up once.

use std::array::from_fn;
use std::sync::{Once, OnceLock};

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};

use super::client::Failure;
use super::policy::breaker::State;
use super::policy::status::{Class, Outcome};

/// What an attempt brought: a status by its hundreds, or why there is none.
const CLASSES: [&str; 14] = [
    "1xx",
    "2xx",
    "3xx",
    "4xx",
    "5xx",
    "other",
    "connect",
    "refused",
    "proxy",
    "token",
    "tls",
    "connect_timeout",
    "timeout",
    "broken",
];

/// What followed from it.
const OUTCOMES: [&str; 5] = ["completed", "retry", "target_failure", "dead_letter", "dropped"];

/// Handles of one target.
pub(super) struct TargetMetrics {
    /// Attempts under way.
    pub(super) in_flight: Gauge,
    /// 1 while nothing is sent by order.
    pub(super) paused: Gauge,
    /// Most requests in flight, now.
    pub(super) concurrency: Gauge,
    /// How often a request had to wait for a token.
    pub(super) rate_limited: Counter,
    /// How long attempts take.
    pub(super) seconds: Histogram,
    /// From the publish of a message until the target has taken it.
    pub(super) delivery_seconds: Histogram,
    circuit: Gauge,
    target: Box<str>,
    /// By outcome and class: each is looked up when it is counted first, so that the page has no lines of zeros.
    attempts: [[OnceLock<Counter>; CLASSES.len()]; OUTCOMES.len()],
}

/// Handles of one route.
pub(super) struct RouteMetrics {
    /// Messages on disk that are owed to it.
    pub(super) outbox_messages: Gauge,
    /// Bytes on disk that are kept for it.
    pub(super) outbox_bytes: Gauge,
    /// Age of the oldest of them.
    pub(super) outbox_oldest: Gauge,
    /// Messages that wait for another try.
    pub(super) retry_scheduled: Gauge,
    /// Messages that became dead letters.
    pub(super) dead_letters: Counter,
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
        let label = || ("target", target.to_owned());
        Self {
            in_flight: gauge!("causeway_bridge_inflight", &[label()]),
            paused: gauge!("causeway_bridge_paused", &[label()]),
            concurrency: gauge!("causeway_bridge_concurrency", &[label()]),
            rate_limited: counter!("causeway_bridge_rate_limited_total", &[label()]),
            seconds: histogram!("causeway_bridge_attempt_seconds", &[label()]),
            delivery_seconds: histogram!("causeway_bridge_delivery_seconds", &[label()]),
            circuit: gauge!("causeway_bridge_circuit_state", &[label()]),
            target: target.into(),
            attempts: from_fn(|_| from_fn(|_| OnceLock::new())),
        }
    }

    /// Counts an attempt that has ended.
    pub(super) fn ended(&self, class: Class, outcome: &Outcome) {
        let (followed, brought) = (followed(class), brought(outcome));
        // In range, all of them.
        let (counter, outcome, class) =
            (&self.attempts[followed][brought], OUTCOMES[followed], CLASSES[brought]);
        let target = &*self.target;
        let look_up = || counter!("causeway_bridge_attempts_total", "target" => target.to_owned(), "outcome" => outcome, "class" => class);
        counter.get_or_init(look_up).increment(1);
    }

    /// Tells what the breaker is doing.
    pub(super) fn circuit(&self, state: State) {
        self.circuit.set(match state {
            State::Closed => 0.0,
            State::HalfOpen => 1.0,
            State::Open => 2.0,
        });
    }
}

fn followed(class: Class) -> usize {
    match class {
        Class::Complete => 0,
        Class::RetryMessage => 1,
        Class::TargetFailure => 2,
        Class::DeadLetter => 3,
        Class::Drop => 4,
    }
}

fn brought(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Status(status @ 100..=599) => usize::from(status / 100) - 1,
        Outcome::Status(_) => 5,
        Outcome::Failed(Failure::Connect(_)) => 6,
        Outcome::Failed(Failure::Refused(_)) => 7,
        Outcome::Failed(Failure::Proxy(_)) => 8,
        Outcome::Failed(Failure::Token(_)) => 9,
        Outcome::Failed(Failure::Tls(_)) => 10,
        Outcome::Failed(Failure::ConnectTimeout(_)) => 11,
        Outcome::Failed(Failure::Timeout(_)) => 12,
        Outcome::Failed(Failure::Broken(_)) => 13,
    }
}

impl RouteMetrics {
    pub(super) fn new(route: &str) -> Self {
        describe();
        let label = || ("route", route.to_owned());
        let reply = |outcome: &'static str| counter!("causeway_bridge_replies_total", "route" => route.to_owned(), "outcome" => outcome);
        Self {
            outbox_messages: gauge!("causeway_bridge_outbox_messages", &[label()]),
            outbox_bytes: gauge!("causeway_bridge_outbox_bytes", &[label()]),
            outbox_oldest: gauge!("causeway_bridge_outbox_oldest_seconds", &[label()]),
            retry_scheduled: gauge!("causeway_bridge_retry_scheduled", &[label()]),
            dead_letters: counter!("causeway_bridge_dead_letters_total", &[label()]),
            replied: reply("published"),
            reply_cut: reply("too_large"),
            reply_loop: reply("loop"),
            reply_no_topic: reply("no_topic"),
            reply_not_authorized: reply("not_authorized"),
        }
    }
}

fn describe() {
    static DESCRIBED: Once = Once::new();
    DESCRIBED.call_once(|| {
        describe_counter!("causeway_bridge_attempts_total", "HTTP attempts by target, outcome and class");
        describe_histogram!("causeway_bridge_attempt_seconds", "Time of an HTTP attempt");
        describe_histogram!(
            "causeway_bridge_delivery_seconds",
            "From the publish of a message until its target has taken it"
        );
        describe_gauge!("causeway_bridge_inflight", "HTTP attempts under way");
        describe_gauge!("causeway_bridge_circuit_state", "0 closed, 1 half-open, 2 open: the target is down");
        describe_gauge!("causeway_bridge_paused", "1 while a target is sent nothing by order");
        describe_gauge!("causeway_bridge_concurrency", "Most HTTP attempts of a target under way, now");
        describe_counter!("causeway_bridge_rate_limited_total", "Waits for the rate of a target");
        describe_gauge!("causeway_bridge_outbox_messages", "Messages on disk that a route is owed");
        describe_gauge!("causeway_bridge_outbox_bytes", "Bytes on disk that are kept for a route");
        describe_gauge!(
            "causeway_bridge_outbox_oldest_seconds",
            "Age of the oldest message that a route is owed"
        );
        describe_gauge!("causeway_bridge_retry_scheduled", "Messages of a route that wait for another try");
        describe_counter!(
            "causeway_bridge_dead_letters_total",
            "Messages of a route that became dead letters"
        );
        describe_counter!("causeway_bridge_replies_total", "Answers of targets to be published, by outcome");
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attempt_has_a_class() {
        for status in 0..1000 {
            let class = CLASSES[brought(&Outcome::Status(status))];
            let expected = match status {
                100..=599 => format!("{}xx", status / 100),
                _ => "other".to_owned(),
            };
            assert_eq!(class, expected, "{status}");
        }
        let why = String::new;
        for failure in [
            Failure::Connect(why()),
            Failure::Refused(why()),
            Failure::Proxy(why()),
            Failure::Token(why()),
            Failure::Tls(why()),
            Failure::ConnectTimeout(Default::default()),
            Failure::Timeout(Default::default()),
            Failure::Broken(why()),
        ] {
            let kind = failure.kind();
            assert_eq!(CLASSES[brought(&Outcome::Failed(failure))], kind);
        }
    }
}
