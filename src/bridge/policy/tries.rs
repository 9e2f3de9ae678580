//! The tries of one message at one target, and what follows from each.
//!
//! They live in memory, beside the message in the window of its route, and are saved while it waits: a restart goes
//! on counting.
//!
//! Invariant: a retry is never set later than the moment at which the message has to be given up.

use super::{
    breaker::Health,
    retry::{deadline, delay, delay_as_asked, give_up, parse_retry_after},
    status::{Class, Outcome, classify, refuses_us},
};
use crate::{
    bridge::client::AttemptResult,
    config::{Counted, TargetConfig},
    record::{Attempt, AttemptOutcome, Attempts, DeadLetterReason, MessageHead, UnixMillis},
};

/// What was tried with one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tries {
    /// Every attempt that has ended.
    pub count: u32,
    /// Those that are spent: that the target answered, or all of them, as the policy counts.
    pub answers: u32,
    /// When the first attempt began.
    pub first_at: UnixMillis,
}

/// What follows from an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// For the message.
    pub next: Next,
    /// For the breaker of the target.
    pub health: Health,
    /// For metrics and logs.
    pub class: Class,
}

/// What happens to the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Its leg is settled.
    Settle,
    /// Its leg is settled by the record of its dead letter.
    DeadLetter(DeadLetterReason),
    /// It is tried again at this time, if [`give_up`] and the breaker then still let it.
    RetryAt(UnixMillis),
}

impl Tries {
    /// No attempt has ended; the first begins now.
    pub fn begin(now: UnixMillis) -> Self {
        Self { count: 0, answers: 0, first_at: now }
    }

    /// Counts an attempt that ended now and says what follows. `random` is uniform over all of `u64`.
    pub fn judge(
        &mut self,
        result: &AttemptResult,
        message: &MessageHead,
        target: &TargetConfig,
        now: UnixMillis,
        random: u64,
    ) -> Verdict {
        let class = classify(&result.outcome, &target.status);
        self.count = self.count.saturating_add(1);
        let pauses = pauses(result, target);
        let is_spent = class == Class::RetryMessage || target.retry.counted == Counted::All;
        if is_spent && !pauses {
            self.answers = self.answers.saturating_add(1);
        }
        // A failure of the target is its own affair: the breaker finds out when it is back, and a message that had
        // many of them must not wait for longer than that.
        let nth = if is_spent { self.answers } else { 1 };
        let asked = result.retry_after.as_deref().and_then(|value| parse_retry_after(value, now));
        let next = match class {
            Class::Complete | Class::Drop => Next::Settle,
            Class::DeadLetter => Next::DeadLetter(DeadLetterReason::Rejected),
            Class::RetryMessage | Class::TargetFailure => match self.give_up(result, target, message, now) {
                Some(reason) => Next::DeadLetter(reason),
                None => {
                    let delay = delay_as_asked(delay(nth, &target.retry, random), asked, &target.retry);
                    Next::RetryAt(now.plus(delay).min(deadline(&target.retry, message)))
                }
            },
        };
        let health = match (class, &result.outcome) {
            _ if pauses => Health::Answered,
            (Class::TargetFailure, Outcome::Failed(failure)) if failure.stays_until_changed() => {
                Health::Misconfigured
            }
            (Class::TargetFailure, _) => {
                Health::Failed { retry_after: asked.map(|asked| asked.min(target.retry.retry_after_max)) }
            }
            // So it goes to every message, until somebody has changed the credentials.
            (Class::DeadLetter, outcome) if refuses_us(outcome, &target.status) => {
                Health::Failed { retry_after: None }
            }
            _ => Health::Answered,
        };
        Verdict { next, health, class }
    }

    /// Why the message is given up now that this attempt has ended, if it is.
    fn give_up(
        &self,
        result: &AttemptResult,
        target: &TargetConfig,
        message: &MessageHead,
        now: UnixMillis,
    ) -> Option<DeadLetterReason> {
        let is_lost =
            result.outcome == Outcome::Status(404) && self.answers >= target.retry.not_found_attempts;
        let reason = give_up(self.answers, &target.retry, message, now);
        reason.or(is_lost.then_some(DeadLetterReason::AttemptsExhausted))
    }

    /// What a dead letter says of these tries, the last of which ended so at this time. `before` are those before
    /// it.
    pub fn attempts(&self, before: Option<Attempts>, last: &AttemptResult, last_at: UnixMillis) -> Attempts {
        let outcome = match &last.outcome {
            Outcome::Status(status) => {
                AttemptOutcome::Answered { status: *status, excerpt: last.excerpt.as_str().into() }
            }
            Outcome::Failed(failure) => AttemptOutcome::Failed(failure.to_string().into()),
        };
        let latency = u32::try_from(last.latency.as_millis()).unwrap_or(u32::MAX - 1);
        let at = UnixMillis(last_at.0.saturating_sub(latency.into()));
        let mut attempts = before.unwrap_or_else(|| Attempts::begin(self.first_at));
        attempts.add(Attempt { at, latency_ms: Some(latency), outcome }, last_at);
        attempts
    }
}

/// Whether the target is to be paused after this attempt.
fn pauses(result: &AttemptResult, target: &TargetConfig) -> bool {
    matches!(result.outcome, Outcome::Status(status) if target.status.pauses(status))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        bridge::client::Failure,
        codec::Qos,
        config::{Config, Jitter, StatusClass},
        record::{Message, MessageParts},
    };

    const FAILED: Health = Health::Failed { retry_after: None };

    fn target() -> TargetConfig {
        let mut target = TargetConfig::new(http::Uri::from_static("http://127.0.0.1/"));
        target.retry.attempts = 2;
        target.retry.initial = Duration::from_secs(8);
        target.retry.max_age = Duration::from_secs(100);
        target.retry.retry_after_max = Duration::from_secs(50);
        target
    }

    fn message() -> Message {
        let parts = MessageParts {
            qos: Qos::AtLeastOnce,
            retain: false,
            published_at: UnixMillis(0),
            expires_at: UnixMillis::NEVER,
            topic: "a",
            properties: b"",
            payload: b"",
            publisher: "p",
        };
        Message::new(&parts, &mut Vec::new())
    }

    fn result(outcome: Outcome, retry_after: Option<&str>) -> AttemptResult {
        let retry_after = retry_after.map(str::to_owned);
        AttemptResult { outcome, retry_after, excerpt: "why".into(), reply: None, latency: Duration::ZERO }
    }

    fn status(status: u16) -> AttemptResult {
        result(Outcome::Status(status), None)
    }

    /// The verdict on an attempt that ended at this second, with half of the backoff as its delay.
    fn judge(tries: &mut Tries, result: &AttemptResult, second: u64) -> Verdict {
        tries.judge(result, message().head(), &target(), UnixMillis(second * 1000), 1 << 63)
    }

    fn retry_at(second: u64) -> Next {
        Next::RetryAt(UnixMillis(second * 1000))
    }

    #[test]
    fn an_answer_that_decides_ends_the_tries() {
        let next = |code| judge(&mut Tries::begin(UnixMillis(0)), &status(code), 1).next;
        assert_eq!(next(204), Next::Settle);
        assert_eq!(next(422), Next::DeadLetter(DeadLetterReason::Rejected));
        assert_eq!(next(302), Next::DeadLetter(DeadLetterReason::Rejected));
    }

    #[test]
    fn answers_spend_attempts_until_none_is_left() {
        let mut tries = Tries::begin(UnixMillis(0));
        let first = judge(&mut tries, &status(500), 1);
        assert_eq!((first.next, first.health), (retry_at(5), Health::Answered));
        let second = judge(&mut tries, &status(500), 5);
        assert_eq!(second.next, Next::DeadLetter(DeadLetterReason::AttemptsExhausted));
    }

    #[test]
    fn failures_of_the_target_spend_none_until_the_age_is_reached() {
        let mut tries = Tries::begin(UnixMillis(0));
        let refused = result(Outcome::Failed(Failure::Connect("refused".into())), None);
        for second in 1..=20 {
            let verdict = judge(&mut tries, &refused, second);
            assert!(matches!(verdict.next, Next::RetryAt(_)), "{verdict:?}");
            assert_eq!(verdict.health, FAILED);
        }
        assert_eq!((tries.count, tries.answers), (20, 0));
        assert_eq!(judge(&mut tries, &refused, 99).next, retry_at(100), "not past the age");
        assert_eq!(judge(&mut tries, &refused, 100).next, Next::DeadLetter(DeadLetterReason::MaxAge));
    }

    #[test]
    fn the_delay_grows_with_what_is_spent_only() {
        let mut target = target();
        (target.retry.attempts, target.retry.jitter) = (10, Jitter::None);
        let mut tries = Tries::begin(UnixMillis(0));
        let delays = [503, 503, 503, 500, 500, 503, 500].map(|code| {
            let verdict = tries.judge(&status(code), message().head(), &target, UnixMillis(1000), 0);
            let Next::RetryAt(at) = verdict.next else { panic!("{verdict:?}") };
            at.since(UnixMillis(1000)).as_secs()
        });
        assert_eq!(delays, [8, 8, 8, 8, 16, 8, 32]);
    }

    #[test]
    fn retry_after_is_for_the_target_when_the_target_failed() {
        let busy = |asked| result(Outcome::Status(429), Some(asked));
        let verdict = judge(&mut Tries::begin(UnixMillis(0)), &busy("30"), 1);
        assert_eq!(verdict.next, retry_at(31));
        assert_eq!(verdict.health, Health::Failed { retry_after: Some(Duration::from_secs(30)) });
        let verdict = judge(&mut Tries::begin(UnixMillis(0)), &busy("86400"), 1);
        assert_eq!(verdict.health, Health::Failed { retry_after: Some(Duration::from_secs(50)) });
        assert_eq!(judge(&mut Tries::begin(UnixMillis(0)), &busy("soon"), 1).health, FAILED);
    }

    #[test]
    fn retry_after_is_for_the_message_alone_when_the_target_answered() {
        let verdict = judge(&mut Tries::begin(UnixMillis(0)), &result(Outcome::Status(409), Some("30")), 1);
        assert_eq!((verdict.next, verdict.health), (retry_at(31), Health::Answered));
    }

    #[test]
    fn what_is_not_found_is_given_up_sooner() {
        let mut target = target();
        (target.retry.attempts, target.retry.not_found_attempts) = (10, 2);
        let mut tries = Tries::begin(UnixMillis(0));
        let mut next = |code| tries.judge(&status(code), message().head(), &target, UnixMillis(1000), 0).next;
        assert!(matches!(next(404), Next::RetryAt(_)));
        assert!(matches!(next(500), Next::RetryAt(_)), "the third would be allowed");
        assert_eq!(next(404), Next::DeadLetter(DeadLetterReason::AttemptsExhausted));
    }

    #[test]
    fn a_policy_that_counts_everything_counts_failures_of_the_target() {
        let mut target = target();
        (target.retry.attempts, target.retry.counted) = (3, Counted::All);
        let mut tries = Tries::begin(UnixMillis(0));
        let refused = result(Outcome::Failed(Failure::Connect("refused".into())), None);
        let mut next =
            |result: &AttemptResult| tries.judge(result, message().head(), &target, UnixMillis(1000), 0).next;
        assert!(matches!(next(&refused), Next::RetryAt(_)));
        assert!(matches!(next(&status(503)), Next::RetryAt(_)));
        assert_eq!(next(&refused), Next::DeadLetter(DeadLetterReason::AttemptsExhausted));
    }

    /// Knative's delivery specification, word for word: five retries, five seconds apart, then the dead letter.
    #[test]
    fn cfg_knative_names() {
        let text = "[targets.t]\nurl = \"http://h/\"\nretry = 5\nbackoff_policy = \"constant\"\n\
                    backoff_delay = \"PT5S\"\ntimeout = \"PT10S\"\nretry_after_max = \"PT30S\"";
        let target = &Config::parse(text, "a.toml").unwrap().targets["t"];
        assert_eq!(target.timeout, Duration::from_secs(10));
        let attempts = [
            status(500),
            status(404),
            result(Outcome::Failed(Failure::Connect("refused".into())), None),
            result(Outcome::Status(503), Some("3")),
            status(500),
            status(500),
        ];
        let (mut tries, mut now) = (Tries::begin(UnixMillis(0)), UnixMillis(0));
        let mut delays = Vec::new();
        for attempt in attempts {
            match tries.judge(&attempt, message().head(), target, now, rand::random()).next {
                Next::RetryAt(at) => {
                    delays.push(at.since(now).as_secs());
                    now = at;
                }
                other => assert_eq!(other, Next::DeadLetter(DeadLetterReason::AttemptsExhausted)),
            }
        }
        assert_eq!(delays, [5; 5]);
        let delays = |policy: &str| {
            let text = text.replace("constant", policy);
            let target = &Config::parse(&text, "a.toml").unwrap().targets["t"];
            let (mut tries, mut delays) = (Tries::begin(UnixMillis(0)), Vec::new());
            while let Next::RetryAt(at) =
                tries.judge(&status(500), message().head(), target, UnixMillis(0), rand::random()).next
            {
                delays.push(at.0 / 1000);
            }
            delays
        };
        assert_eq!(delays("exponential"), [5, 10, 20, 40, 80]);
        assert_eq!(delays("linear"), [0, 5, 10, 15, 20]);
    }

    #[test]
    fn a_status_that_pauses_spends_nothing_and_says_nothing_against_the_target() {
        let mut target = target();
        target.retry.attempts = 1;
        target.status.overrides = vec![(402..=402, StatusClass::Pause)];
        let mut tries = Tries::begin(UnixMillis(0));
        let verdict = tries.judge(&status(402), message().head(), &target, UnixMillis(1000), 0);
        assert!(matches!(verdict.next, Next::RetryAt(_)), "{verdict:?}");
        assert_eq!((verdict.health, tries.answers), (Health::Answered, 0));
    }

    #[test]
    fn who_is_refused_has_a_dead_letter_and_a_failure_of_the_target() {
        for code in [401, 403] {
            let verdict = judge(&mut Tries::begin(UnixMillis(0)), &status(code), 1);
            assert_eq!(verdict.next, Next::DeadLetter(DeadLetterReason::Rejected));
            assert_eq!(verdict.health, FAILED, "{code}");
        }
        assert_eq!(judge(&mut Tries::begin(UnixMillis(0)), &status(422), 1).health, Health::Answered);
        let mut target = target();
        target.status.overrides = vec![(401..=401, StatusClass::DeadLetter)];
        let mut tries = Tries::begin(UnixMillis(0));
        let verdict = tries.judge(&status(401), message().head(), &target, UnixMillis(1000), 0);
        assert_eq!(verdict.health, Health::Answered, "the operator says that this is about the message");
    }

    #[test]
    fn a_certificate_or_an_address_that_is_not_accepted_spends_nothing() {
        for failure in [Failure::Tls("unknown issuer".into()), Failure::Refused("h leads to 10.0.0.1".into())]
        {
            let mut tries = Tries::begin(UnixMillis(0));
            let verdict = judge(&mut tries, &result(Outcome::Failed(failure), None), 1);
            assert_eq!((verdict.health, tries.answers), (Health::Misconfigured, 0));
            assert!(matches!(verdict.next, Next::RetryAt(_)));
        }
    }

    #[test]
    fn a_dead_letter_says_what_was_tried() {
        let mut tries = Tries::begin(UnixMillis(7));
        judge(&mut tries, &status(503), 1);
        judge(&mut tries, &status(422), 2);
        let busy = AttemptResult { latency: Duration::from_millis(400), ..status(503) };
        let attempts = tries.attempts(None, &busy, UnixMillis(1000));
        let attempts = tries.attempts(Some(attempts), &status(422), UnixMillis(2000));
        let answered = |at, latency_ms, status| Attempt {
            at: UnixMillis(at),
            latency_ms: Some(latency_ms),
            outcome: AttemptOutcome::Answered { status, excerpt: "why".into() },
        };
        let list = vec![answered(600, 400, 503), answered(2000, 0, 422)];
        let (first_at, last_at) = (UnixMillis(7), UnixMillis(2000));
        assert_eq!(attempts, Attempts { count: 2, first_at, last_at, list });
        let timed_out = result(Outcome::Failed(Failure::Timeout(Duration::from_secs(10))), None);
        let failed = AttemptOutcome::Failed("no answer within 10s".into());
        assert_eq!(tries.attempts(None, &timed_out, UnixMillis(1)).list[0].outcome, failed);
    }
}
