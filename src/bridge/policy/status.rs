//! What the outcome of one attempt means for the message and for its target.
//!
//! Whether a status is retried is the operator's choice (the table of [`StatusRules`]). Whether an attempt
//! says something about the message or about the target is decided here: an overloaded service or a proxy
//! without one behind it would answer any message the same way, and so would a network without a route.
//!
//! Invariant: every status has exactly one class, also those that HTTP does not define.

use crate::bridge::client::Failure;
use crate::config::{StatusClass, StatusRules};

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The target answered with this status.
    Status(u16),
    /// No answer came.
    Failed(Failure),
}

/// What follows from an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The target has taken the message: its leg is settled.
    Complete,
    /// The target answered, but not for good: one attempt of this message is spent.
    RetryMessage,
    /// The target is in trouble, whatever the message: no attempt is spent, the breaker counts, and the
    /// message is tried again until its maximum age.
    TargetFailure,
    /// The target will never take this message: it becomes a dead letter now.
    DeadLetter,
    /// The leg is settled and nothing is kept. Only a rule of the operator says so.
    Drop,
}

/// The class of an outcome under the rules of its target.
pub fn classify(outcome: &Outcome, rules: &StatusRules) -> Class {
    let status = match outcome {
        Outcome::Failed(_) => return Class::TargetFailure,
        Outcome::Status(status) => *status,
    };
    match rules.class(status) {
        StatusClass::Complete => Class::Complete,
        StatusClass::Retry if speaks_of_the_target(status) => Class::TargetFailure,
        StatusClass::Retry => Class::RetryMessage,
        StatusClass::DeadLetter => Class::DeadLetter,
        StatusClass::Drop => Class::Drop,
        StatusClass::Pause => Class::TargetFailure,
    }
}

/// Whether the target says that it gets too much at once: Too Many Requests, Service Unavailable.
pub fn throttles(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Status(429 | 503))
}

/// Whether the target does not take who we are, whatever the message: Unauthorized, Forbidden; unless the operator
/// says what these mean.
pub fn refuses_us(outcome: &Outcome, rules: &StatusRules) -> bool {
    matches!(outcome, Outcome::Status(status @ (401 | 403)) if rules.overridden(*status).is_none())
}

/// Too Many Requests, Bad Gateway, Service Unavailable, Gateway Timeout.
fn speaks_of_the_target(status: u16) -> bool {
    matches!(status, 429 | 502 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use std::{ops::RangeInclusive, time::Duration};

    use super::*;

    /// The documented table, written out as data and independently of the code.
    const TABLE: &[(RangeInclusive<u16>, Class)] = &[
        (100..=199, Class::DeadLetter),
        (200..=299, Class::Complete),
        (300..=403, Class::DeadLetter),
        (404..=404, Class::RetryMessage),
        (405..=407, Class::DeadLetter),
        (408..=409, Class::RetryMessage),
        (410..=424, Class::DeadLetter),
        (425..=425, Class::RetryMessage),
        (426..=428, Class::DeadLetter),
        (429..=429, Class::TargetFailure),
        (430..=499, Class::DeadLetter),
        (500..=500, Class::RetryMessage),
        (501..=501, Class::DeadLetter),
        (502..=504, Class::TargetFailure),
        (505..=505, Class::DeadLetter),
        (506..=599, Class::RetryMessage),
        (600..=999, Class::DeadLetter),
    ];

    fn class(status: u16, rules: &StatusRules) -> Class {
        classify(&Outcome::Status(status), rules)
    }

    #[test]
    fn every_status_has_the_class_of_the_table() {
        let mut next = 100;
        for (statuses, expected) in TABLE {
            assert_eq!(*statuses.start(), next, "the table has a gap or an overlap");
            next = statuses.end() + 1;
            for status in statuses.clone() {
                assert_eq!(class(status, &StatusRules::default()), *expected, "status {status}");
            }
        }
        assert_eq!(next, 1000);
    }

    /// `404`, `506-599` or `5xx`.
    fn statuses(text: &str) -> Option<RangeInclusive<u16>> {
        match (text.split_once('-'), text.strip_suffix("xx")) {
            (Some((first, last)), _) => Some(first.parse().ok()?..=last.parse().ok()?),
            (_, Some(hundreds)) => hundreds.parse::<u16>().ok().map(|n| n * 100..=n * 100 + 99),
            _ => text.parse().ok().map(|status| status..=status),
        }
    }

    #[test]
    fn the_documented_table_is_this_one() {
        let docs = include_str!("../../../docs/http-routes.md");
        let section = docs.split("## What an answer means").nth(1).unwrap();
        let mut documented = [Class::DeadLetter; 600];
        let mut named = 0;
        for row in section.lines().skip_while(|line| !line.starts_with("|---")).skip(1) {
            let Some((first, rest)) = row.strip_prefix("| ").and_then(|row| row.split_once(" | ")) else {
                break;
            };
            let class = match rest.split(" | ").next().unwrap() {
                "complete" => Class::Complete,
                "retry" => Class::RetryMessage,
                "target failure" => Class::TargetFailure,
                "dead letter" => Class::DeadLetter,
                other => panic!("{other} is no class"),
            };
            for status in first.split(", ").filter_map(statuses).flatten() {
                documented[usize::from(status)] = class;
                named += 1;
            }
        }
        assert!(named > 300, "{named}");
        for status in 100..600 {
            let class = class(status, &StatusRules::default());
            assert_eq!(documented[usize::from(status)], class, "status {status}");
        }
    }

    #[test]
    fn a_rule_of_the_operator_overrules_the_table() {
        let rules = StatusRules {
            overrides: vec![
                (401..=401, StatusClass::Complete),
                (409..=409, StatusClass::Drop),
                (422..=422, StatusClass::Retry),
                (503..=503, StatusClass::DeadLetter),
            ],
        };
        assert_eq!(class(401, &rules), Class::Complete);
        assert_eq!(class(409, &rules), Class::Drop);
        assert_eq!(class(422, &rules), Class::RetryMessage);
        assert_eq!(class(503, &rules), Class::DeadLetter);
        assert_eq!(class(502, &rules), Class::TargetFailure, "the rest keeps its default");
    }

    #[test]
    fn a_retry_of_429_stays_the_targets_affair() {
        let rules = StatusRules { overrides: vec![(400..=599, StatusClass::Retry)] };
        assert_eq!(class(429, &rules), Class::TargetFailure);
        assert_eq!(class(400, &rules), Class::RetryMessage);
    }

    #[test]
    fn an_attempt_without_an_answer_is_the_targets_failure() {
        let rules = StatusRules { overrides: vec![(0..=u16::MAX, StatusClass::Drop)] };
        for failure in [
            Failure::Connect("refused".into()),
            Failure::Tls("unknown issuer".into()),
            Failure::ConnectTimeout(Duration::from_secs(1)),
            Failure::Timeout(Duration::from_secs(1)),
            Failure::Broken("reset".into()),
        ] {
            assert_eq!(classify(&Outcome::Failed(failure), &rules), Class::TargetFailure);
        }
    }
}
