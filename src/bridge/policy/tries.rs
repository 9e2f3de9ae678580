//! The tries of one message at one target, and what follows from each.
//!
//! They live in memory, beside the message in the target's window: a restart begins to count again, and
//! only the age of the message goes on.
//!
//! Invariant: a retry is never set later than the moment at which the message has to be given up.

use super::{
    breaker::Health,
    retry::{deadline, delay, delay_as_asked, give_up, parse_retry_after},
    status::{Class, Outcome, classify},
};
use crate::{
    bridge::client::AttemptResult,
    config::TargetConfig,
    record::{Attempt, AttemptOutcome, Attempts, DeadLetterReason, MessageHead, UnixMillis},
};

/// What was tried with one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tries {
    /// Every attempt that has ended.
    pub count: u32,
    /// Those that the target answered and that are spent.
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
        if class == Class::RetryMessage {
            self.answers = self.answers.saturating_add(1);
        }
        let asked = result.retry_after.as_deref().and_then(|value| parse_retry_after(value, now));
        let next = match class {
            Class::Complete | Class::Drop => Next::Settle,
            Class::DeadLetter => Next::DeadLetter(DeadLetterReason::Rejected),
            Class::RetryMessage | Class::TargetFailure => {
                match give_up(self.answers, &target.retry, message, now) {
                    Some(reason) => Next::DeadLetter(reason),
                    None => {
                        let delay =
                            delay_as_asked(delay(self.count, &target.retry, random), asked, &target.retry);
                        Next::RetryAt(now.plus(delay).min(deadline(&target.retry, message)))
                    }
                }
            }
        };
        let health = match class {
            Class::TargetFailure => {
                Health::Failed { retry_after: asked.map(|asked| asked.min(target.retry.retry_after_max)) }
            }
            _ => Health::Answered,
        };
        Verdict { next, health, class }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        bridge::client::Failure,
        codec::Qos,
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
