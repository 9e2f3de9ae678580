//! When a message is tried again, and when it is given up.
//!
//! Two limits end the tries: answers that spent an attempt are counted, and the age of the message is
//! measured. A target that is down spends no attempts, so only the age ends those tries.
//!
//! Invariant: a delay is never longer than the largest of `max`, of the schedule and of `retry_after_max`, whatever
//! a target asks for.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::{Backoff, Jitter, RetryConfig};
use crate::record::{DeadLetterReason, MessageHead, UnixMillis};

/// The delay after the `attempt`-th attempt (counted from 1), less what is left to chance. `random` is uniform over
/// all of `u64`.
pub fn delay(attempt: u32, policy: &RetryConfig, random: u64) -> Duration {
    let longest = longest(attempt, policy);
    match policy.jitter {
        Jitter::None => longest,
        Jitter::Full => share(longest, random),
        Jitter::Equal => longest.saturating_sub(share(longest / 2, random)),
    }
}

/// `initial`, doubled for each attempt after the first, and at most `max`.
pub fn backoff(attempt: u32, initial: Duration, max: Duration) -> Duration {
    let factor = 1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
    initial.saturating_mul(factor).min(max)
}

/// The delay when the target asked for one: what it asked for, but neither shorter than our own `delay`
/// nor longer than `retry_after_max`.
pub fn delay_as_asked(delay: Duration, asked: Option<Duration>, policy: &RetryConfig) -> Duration {
    match asked {
        Some(asked) => asked.min(policy.retry_after_max).max(delay),
        None => delay,
    }
}

/// Reads a Retry-After: seconds, or an HTTP date, of which one in the past is zero. `None` when it is
/// neither, so that garbage changes nothing.
pub fn parse_retry_after(value: &str, now: UnixMillis) -> Option<Duration> {
    let value = value.trim_matches([' ', '\t']);
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only the size can be wrong with a run of digits: too many seconds are as many as there are.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(wall_time(now)).unwrap_or(Duration::ZERO))
}

/// When a message is too old: at its own expiry, or at the policy's maximum age if that comes first.
pub fn deadline(policy: &RetryConfig, message: &MessageHead) -> UnixMillis {
    message.published_at.plus(policy.max_age).min(message.expires_at)
}

/// Why a message is given up now, if it is. `answers` counts the answers that spent an attempt.
pub fn give_up(
    answers: u32,
    policy: &RetryConfig,
    message: &MessageHead,
    now: UnixMillis,
) -> Option<DeadLetterReason> {
    if message.expires_at <= now {
        Some(DeadLetterReason::Expired)
    } else if answers >= policy.attempts {
        Some(DeadLetterReason::AttemptsExhausted)
    } else if now.since(message.published_at) >= policy.max_age {
        Some(DeadLetterReason::MaxAge)
    } else {
        None
    }
}

/// The delay after the `attempt`-th attempt when nothing is left to chance.
fn longest(attempt: u32, policy: &RetryConfig) -> Duration {
    let retry = attempt.max(1);
    let grown = match &policy.backoff {
        Backoff::Exponential { factor } => {
            // At some point the power is infinite, and too long for a duration before: both are the maximum.
            let power = factor.powi(i32::try_from(retry - 1).unwrap_or(i32::MAX));
            Duration::try_from_secs_f64(policy.initial.as_secs_f64() * power).unwrap_or(policy.max)
        }
        Backoff::Linear { from_zero } => policy.initial.saturating_mul(retry - u32::from(*from_zero)),
        Backoff::Constant => policy.initial,
        Backoff::Fibonacci => policy.initial.saturating_mul(fibonacci(retry)),
        // An operator who wrote down every delay means these.
        Backoff::Schedule(delays) => {
            let nth = usize::try_from(retry - 1).ok().and_then(|nth| delays.get(nth)).or(delays.last());
            return nth.copied().unwrap_or(policy.max);
        }
    };
    grown.min(policy.max)
}

/// 1, 1, 2, 3, 5, 8 for 1 to 6; the largest number there is where it would be larger.
fn fibonacci(n: u32) -> u32 {
    let (mut this, mut next) = (1u32, 1u32);
    // The 48th does not fit any more.
    for _ in 1..n.min(48) {
        (this, next) = (next, this.saturating_add(next));
    }
    this
}

/// A share of the duration, from nothing to all of it.
fn share(of: Duration, random: u64) -> Duration {
    // A 64-bit fraction. In 128 bits the product cannot overflow, because a duration of more than u64::MAX
    // nanoseconds (584 years) is cut to that.
    let nanos = of.as_nanos().min(u64::MAX.into());
    let share = (nanos * u128::from(random)) >> 64;
    Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX))
}

fn wall_time(at: UnixMillis) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(at.0)).unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Qos;
    use crate::record::{Message, MessageParts};

    const SECOND: Duration = Duration::from_secs(1);
    /// Sun, 06 Nov 1994 08:49:37 GMT, the date that RFC 9110 uses.
    const NOVEMBER: UnixMillis = UnixMillis(784_111_777_000);

    fn policy() -> RetryConfig {
        RetryConfig {
            attempts: 3,
            initial: SECOND,
            max: 60 * SECOND,
            max_age: 3600 * SECOND,
            retry_after_max: 300 * SECOND,
            ..RetryConfig::default()
        }
    }

    fn message(published_at: u64, expires_at: UnixMillis) -> Message {
        let parts = MessageParts {
            qos: Qos::AtLeastOnce,
            retain: false,
            published_at: UnixMillis(published_at),
            expires_at,
            topic: "a/b",
            properties: b"",
            payload: b"x",
            publisher: "p",
        };
        Message::new(&parts, &mut Vec::new())
    }

    #[test]
    fn the_backoff_doubles_up_to_its_maximum() {
        let seconds = |attempt| backoff(attempt, SECOND, 60 * SECOND).as_secs();
        let first: Vec<u64> = (0..=9).map(seconds).collect();
        assert_eq!(first, [1, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        for attempt in [32, 33, 64, 65, u32::MAX] {
            assert_eq!(seconds(attempt), 60, "attempt {attempt}");
        }
        assert_eq!(backoff(u32::MAX, Duration::MAX, Duration::MAX), Duration::MAX);
    }

    #[test]
    fn full_jitter_spans_zero_to_the_backoff() {
        let policy = policy();
        assert_eq!(delay(3, &policy, 0), Duration::ZERO);
        assert_eq!(delay(3, &policy, 1 << 63), 2 * SECOND, "half the random numbers, half the backoff");
        let longest = delay(3, &policy, u64::MAX);
        assert!(longest <= 4 * SECOND && longest > 4 * SECOND - Duration::from_micros(1), "{longest:?}");
    }

    #[test]
    fn equal_jitter_spans_the_upper_half() {
        let policy = RetryConfig { jitter: Jitter::Equal, ..policy() };
        assert_eq!(delay(3, &policy, 0), 4 * SECOND);
        assert_eq!(delay(3, &policy, 1 << 63), 3 * SECOND);
        assert!(delay(3, &policy, u64::MAX) >= 2 * SECOND);
        let policy = RetryConfig { jitter: Jitter::None, ..policy };
        assert_eq!(delay(3, &policy, 1 << 63), 4 * SECOND);
    }

    /// The first delays in seconds, with nothing left to chance, of 60 s at most.
    fn delays(backoff: Backoff, initial: u64) -> Vec<f64> {
        let initial = Duration::from_secs(initial);
        let policy = RetryConfig { backoff, initial, jitter: Jitter::None, ..policy() };
        (1..=7).map(|attempt| delay(attempt, &policy, 1 << 63).as_secs_f64()).collect()
    }

    #[test]
    fn delays_grow_as_the_policy_says() {
        let schedule = Backoff::Schedule([5, 300, 90].map(Duration::from_secs).to_vec());
        assert_eq!(delays(Backoff::Exponential { factor: 2.0 }, 1), [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]);
        assert_eq!(
            delays(Backoff::Exponential { factor: 1.5 }, 4),
            [4.0, 6.0, 9.0, 13.5, 20.25, 30.375, 45.5625]
        );
        assert_eq!(
            delays(Backoff::Linear { from_zero: false }, 10),
            [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 60.0]
        );
        assert_eq!(
            delays(Backoff::Linear { from_zero: true }, 10),
            [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
        );
        assert_eq!(delays(Backoff::Constant, 5), [5.0; 7]);
        assert_eq!(delays(Backoff::Fibonacci, 5), [5.0, 5.0, 10.0, 15.0, 25.0, 40.0, 60.0]);
        assert_eq!(
            delays(schedule, 1),
            [5.0, 300.0, 90.0, 90.0, 90.0, 90.0, 90.0],
            "whatever initial and max say"
        );
    }

    #[test]
    fn no_attempt_is_too_late_for_a_delay() {
        let backoffs = [
            Backoff::Exponential { factor: 100.0 },
            Backoff::Linear { from_zero: false },
            Backoff::Linear { from_zero: true },
            Backoff::Fibonacci,
        ];
        for backoff in backoffs {
            let policy = RetryConfig { backoff, jitter: Jitter::None, ..policy() };
            for attempt in [1000, i32::MAX as u32, u32::MAX] {
                assert_eq!(delay(attempt, &policy, 0), 60 * SECOND, "{policy:?} {attempt}");
            }
        }
        assert_eq!([1, 2, 6, 46, 48, u32::MAX].map(fibonacci), [1, 1, 8, 1_836_311_903, u32::MAX, u32::MAX]);
    }

    #[test]
    fn a_delay_without_bounds_does_not_overflow() {
        let policy = RetryConfig { initial: Duration::MAX, max: Duration::MAX, ..policy() };
        assert!(delay(u32::MAX, &policy, u64::MAX) > Duration::from_secs(500 * 365 * 86_400));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let parsed = |value| parse_retry_after(value, NOVEMBER);
        assert_eq!(parsed("0"), Some(Duration::ZERO));
        assert_eq!(parsed("120"), Some(120 * SECOND));
        assert_eq!(parsed(" 7\t"), Some(7 * SECOND));
        assert_eq!(parsed("Sun, 06 Nov 1994 08:49:57 GMT"), Some(20 * SECOND));
        assert_eq!(parsed("Sunday, 06-Nov-94 08:49:57 GMT"), Some(20 * SECOND), "RFC 850 form");
        assert_eq!(parsed("Sun, 06 Nov 1994 08:49:36 GMT"), Some(Duration::ZERO), "past");
        let digits = "9".repeat(40);
        assert_eq!(parsed(&digits), Some(Duration::from_secs(u64::MAX)), "huge");
    }

    #[test]
    fn a_retry_after_that_is_neither_is_ignored() {
        for garbage in
            ["", " ", "-1", "+1", "1.5", "1s", "0x10", "soon", "Sun, 99 Nov 1994 08:49:57 GMT", "٣"]
        {
            assert_eq!(parse_retry_after(garbage, NOVEMBER), None, "{garbage:?}");
        }
    }

    #[test]
    fn what_a_target_asks_for_is_kept_within_bounds() {
        let policy = policy();
        let asked = |seconds: u64| delay_as_asked(8 * SECOND, Some(Duration::from_secs(seconds)), &policy);
        assert_eq!(asked(0), 8 * SECOND, "never sooner than our own backoff");
        assert_eq!(asked(30), 30 * SECOND);
        assert_eq!(asked(u64::MAX), 300 * SECOND, "never later than the maximum");
        assert_eq!(delay_as_asked(8 * SECOND, None, &policy), 8 * SECOND);
    }

    /// Every form of the header, from its text to the delay.
    #[test]
    fn retry_after() {
        let policy = policy();
        let (own, most) = (8 * SECOND, 300 * SECOND);
        for (value, expected) in [
            ("120", 120 * SECOND),
            ("0", own),
            ("3", own),
            ("301", most),
            ("99999999999999999999999", most),
            ("Sun, 06 Nov 1994 08:50:37 GMT", 60 * SECOND),
            ("Sun, 06 Nov 1994 08:49:36 GMT", own),
            ("Thu, 01 Jan 1970 00:00:00 GMT", own),
            ("Fri, 31 Dec 9999 23:59:59 GMT", most),
            ("Sun, 06 Nov 1994", own),
            ("-5", own),
            ("1e3", own),
            ("tomorrow", own),
            ("", own),
        ] {
            let asked = parse_retry_after(value, NOVEMBER);
            assert_eq!(delay_as_asked(own, asked, &policy), expected, "{value:?}");
        }
        let deaf = RetryConfig { retry_after_max: Duration::ZERO, ..policy };
        assert_eq!(delay_as_asked(own, Some(60 * SECOND), &deaf), own, "zero is not to listen");
    }

    #[test]
    fn our_own_delay_wins_when_it_is_above_the_maximum() {
        let policy = RetryConfig { retry_after_max: SECOND, ..policy() };
        assert_eq!(delay_as_asked(8 * SECOND, Some(4 * SECOND), &policy), 8 * SECOND);
    }

    #[test]
    fn a_message_is_given_up_for_one_reason_at_a_time() {
        let policy = policy();
        let hour = 3_600_000;
        let fresh = message(1000, UnixMillis::NEVER);
        let expiring = message(1000, UnixMillis(5000));
        let reason =
            |answers, message: &Message, now| give_up(answers, &policy, message.head(), UnixMillis(now));
        assert_eq!(reason(0, &fresh, 1000), None);
        assert_eq!(reason(2, &fresh, 999 + hour), None, "one answer and one millisecond to go");
        assert_eq!(reason(3, &fresh, 1000), Some(DeadLetterReason::AttemptsExhausted));
        assert_eq!(reason(0, &fresh, 1000 + hour), Some(DeadLetterReason::MaxAge));
        assert_eq!(reason(0, &expiring, 4999), None);
        assert_eq!(reason(3, &expiring, 5000), Some(DeadLetterReason::Expired));
        assert_eq!(reason(0, &fresh, 0), None, "a clock before the publish gives nothing up");
    }
}
