//! The promises of the breaker, one by one and over random histories.

use super::*;
use proptest::prelude::*;

const FAILED: Health = Health::Failed { retry_after: None };

fn config() -> BreakerConfig {
    BreakerConfig {
        failures: 3,
        probe_interval: Duration::from_millis(100),
        probe_interval_max: Duration::from_millis(400),
        minimum_calls: u32::MAX,
        ..BreakerConfig::default()
    }
}

/// A breaker that three failures have opened at time 0.
fn opened() -> Breaker {
    let mut breaker = Breaker::new(config());
    for _ in 0..3 {
        assert_eq!(breaker.admit(UnixMillis(0)), Admit::Go(Permit::Regular));
        breaker.record(UnixMillis(0), Permit::Regular, FAILED, Duration::ZERO);
    }
    breaker
}

fn wait(at: u64) -> Admit {
    Admit::WaitUntil(UnixMillis(at))
}

#[test]
fn it_opens_after_failures_in_a_row_only() {
    let mut breaker = Breaker::new(config());
    for health in [FAILED, FAILED, Health::Answered, FAILED, FAILED] {
        breaker.record(UnixMillis(0), Permit::Regular, health, Duration::ZERO);
        assert_eq!(breaker.state(), State::Closed);
    }
    breaker.record(UnixMillis(0), Permit::Regular, FAILED, Duration::ZERO);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn a_threshold_of_zero_opens_at_the_first_failure() {
    let mut breaker = Breaker::new(BreakerConfig { failures: 0, ..config() });
    breaker.record(UnixMillis(0), Permit::Regular, FAILED, Duration::ZERO);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn one_probe_at_a_time() {
    let mut breaker = opened();
    assert_eq!(breaker.admit(UnixMillis(99)), wait(100));
    assert_eq!(breaker.admit(UnixMillis(100)), Admit::Go(Permit::Probe));
    assert_eq!(breaker.state(), State::HalfOpen);
    assert_eq!(breaker.admit(UnixMillis(5000)), Admit::WaitUntil(UnixMillis::NEVER));
    breaker.record(UnixMillis(5000), Permit::Probe, Health::Answered, Duration::ZERO);
    assert_eq!(breaker.admit(UnixMillis(5000)), Admit::Go(Permit::Regular));
}

#[test]
fn each_failed_probe_doubles_the_wait_up_to_the_maximum() {
    let mut breaker = opened();
    let mut now = 100;
    for next in [200, 400, 400, 400] {
        assert_eq!(breaker.admit(UnixMillis(now)), Admit::Go(Permit::Probe));
        breaker.record(UnixMillis(now), Permit::Probe, FAILED, Duration::ZERO);
        assert_eq!(breaker.admit(UnixMillis(now)), wait(now + next));
        now += next;
    }
}

#[test]
fn an_answer_starts_the_waits_from_the_beginning() {
    let mut breaker = opened();
    breaker.admit(UnixMillis(100));
    breaker.record(UnixMillis(100), Permit::Probe, FAILED, Duration::ZERO);
    breaker.admit(UnixMillis(300));
    breaker.record(UnixMillis(300), Permit::Probe, Health::Answered, Duration::ZERO);
    for _ in 0..3 {
        breaker.record(UnixMillis(300), Permit::Regular, FAILED, Duration::ZERO);
    }
    assert_eq!(breaker.admit(UnixMillis(300)), wait(400));
}

#[test]
fn late_failures_of_earlier_attempts_do_not_stretch_the_wait() {
    let mut breaker = opened();
    for at in 1..50 {
        breaker.record(UnixMillis(at), Permit::Regular, FAILED, Duration::ZERO);
    }
    assert_eq!(breaker.admit(UnixMillis(50)), wait(100));
    assert_eq!(breaker.admit(UnixMillis(100)), Admit::Go(Permit::Probe));
    breaker.record(UnixMillis(101), Permit::Regular, FAILED, Duration::ZERO);
    assert_eq!(breaker.state(), State::HalfOpen, "the probe is still under way");
}

#[test]
fn a_late_answer_of_an_earlier_attempt_closes_it() {
    let mut breaker = opened();
    breaker.record(UnixMillis(1), Permit::Regular, Health::Answered, Duration::ZERO);
    assert_eq!(breaker.admit(UnixMillis(1)), Admit::Go(Permit::Regular));
}

#[test]
fn retry_after_holds_the_whole_target() {
    let mut breaker = Breaker::new(config());
    let asked = Health::Failed { retry_after: Some(Duration::from_millis(50)) };
    breaker.record(UnixMillis(10), Permit::Regular, asked, Duration::ZERO);
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.admit(UnixMillis(59)), wait(60));
    breaker.record(UnixMillis(20), Permit::Regular, Health::Answered, Duration::ZERO);
    assert_eq!(breaker.admit(UnixMillis(59)), wait(60), "an answer to another request changes nothing");
    assert_eq!(breaker.admit(UnixMillis(60)), Admit::Go(Permit::Regular));
}

#[test]
fn retry_after_delays_a_probe_but_never_hastens_it() {
    for (asked, due) in [(1, 100), (700, 700)] {
        let mut breaker = opened();
        let health = Health::Failed { retry_after: Some(Duration::from_millis(asked)) };
        breaker.record(UnixMillis(0), Permit::Regular, health, Duration::ZERO);
        assert!(matches!(breaker.admit(UnixMillis(due - 1)), Admit::WaitUntil(_)));
        assert_eq!(breaker.admit(UnixMillis(due)), Admit::Go(Permit::Probe));
    }
}

/// A breaker that looks at shares only, of ten attempts at least, and takes two probes to close.
fn by_shares() -> Breaker {
    Breaker::new(BreakerConfig {
        failures: u32::MAX,
        failure_rate: 0.5,
        slow_call: Some(Duration::from_secs(1)),
        slow_call_rate: 0.8,
        window: Duration::from_secs(60),
        minimum_calls: 10,
        probes: 2,
        ..config()
    })
}

/// Records attempts at this time, each of which fails or not, and takes so many seconds.
fn record_all(breaker: &mut Breaker, at: u64, calls: &[(bool, u64)]) {
    for (failed, seconds) in calls {
        let health = if *failed { FAILED } else { Health::Answered };
        breaker.record(UnixMillis(at), Permit::Regular, health, Duration::from_secs(*seconds));
    }
}

#[test]
fn it_opens_when_too_large_a_share_fails() {
    let mut breaker = by_shares();
    record_all(&mut breaker, 0, &[(true, 0), (false, 0)].repeat(4));
    record_all(&mut breaker, 0, &[(false, 0)]);
    assert_eq!(breaker.state(), State::Closed, "four of nine");
    record_all(&mut breaker, 0, &[(true, 0)]);
    assert_eq!((breaker.state(), breaker.cause()), (State::Open, Some(Cause::FailureRate)), "five of ten");
    record_all(&mut breaker, 0, &[(false, 0); 20]);
    assert_eq!(breaker.state(), State::Open, "late answers are no news");
}

#[test]
fn what_failed_long_ago_does_not_count() {
    let mut breaker = by_shares();
    record_all(&mut breaker, 0, &[(true, 0); 9]);
    record_all(&mut breaker, 61_000, &[(false, 0); 8]);
    record_all(&mut breaker, 61_000, &[(true, 0)]);
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn it_opens_when_too_large_a_share_is_slow() {
    let mut breaker = by_shares();
    record_all(&mut breaker, 0, &[(false, 0), (false, 0)]);
    record_all(&mut breaker, 0, &[(false, 2); 7]);
    assert_eq!(breaker.state(), State::Closed);
    record_all(&mut breaker, 0, &[(false, 2)]);
    assert_eq!(breaker.cause(), Some(Cause::SlowCalls), "eight of ten");
    assert_eq!(breaker.admit(UnixMillis(100)), Admit::Go(Permit::Probe));
    breaker.record(UnixMillis(100), Permit::Probe, Health::Answered, Duration::from_secs(2));
    assert_eq!(breaker.admit(UnixMillis(100)), wait(300), "a probe that is slow, too, is a failed one");
    assert_eq!(breaker.admit(UnixMillis(300)), Admit::Go(Permit::Probe));
    breaker.record(UnixMillis(300), Permit::Probe, Health::Answered, Duration::ZERO);
    assert_eq!(breaker.state(), State::HalfOpen, "one of two");
    assert_eq!(breaker.admit(UnixMillis(300)), Admit::Go(Permit::Probe), "the next one at once");
    breaker.record(UnixMillis(300), Permit::Probe, Health::Answered, Duration::ZERO);
    assert_eq!(breaker.state(), State::Closed);
    record_all(&mut breaker, 300, &[(false, 2); 9]);
    assert_eq!(breaker.state(), State::Closed, "it begins to count again");
}

#[test]
fn a_target_that_is_not_who_it_should_be_is_probed_seldom() {
    let mut breaker = Breaker::new(config());
    breaker.record(UnixMillis(0), Permit::Regular, Health::Misconfigured, Duration::ZERO);
    assert_eq!(breaker.cause(), Some(Cause::Misconfigured), "at once");
    assert_eq!(breaker.admit(UnixMillis(0)), wait(400), "the longest wait there is");
    assert_eq!(breaker.admit(UnixMillis(400)), Admit::Go(Permit::Probe));
    breaker.record(UnixMillis(400), Permit::Probe, FAILED, Duration::ZERO);
    assert_eq!(breaker.admit(UnixMillis(400)), wait(500), "that is another failure, and may pass");
}

#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Admit,
    Finish { which: usize, health: Health },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let retry_after = proptest::option::of((0u64..600).prop_map(Duration::from_millis));
    let health = prop_oneof![
        1 => Just(Health::Answered),
        3 => retry_after.prop_map(|retry_after| Health::Failed { retry_after }),
    ];
    let step = prop_oneof![
        1 => (0u64..300).prop_map(Step::Pass),
        3 => Just(Step::Admit),
        2 => (any::<usize>(), health).prop_map(|(which, health)| Step::Finish { which, health }),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    /// Against a model that knows only the promises, not the phases.
    #[test]
    fn the_promises_hold_over_any_history(steps in steps()) {
        let mut breaker = Breaker::new(config());
        let mut now = UnixMillis(1000);
        let mut under_way: Vec<Permit> = Vec::new();
        let mut asked_until = UnixMillis(0);
        let mut failures_in_a_row = 0;
        for step in steps {
            match step {
                Step::Pass(millis) => now = now.plus(Duration::from_millis(millis)),
                Step::Finish { which, health } => {
                    if under_way.is_empty() { continue; }
                    let permit = under_way.swap_remove(which % under_way.len());
                    breaker.record(now, permit, health, Duration::ZERO);
                    match health {
                        Health::Answered | Health::Misconfigured => failures_in_a_row = 0,
                        Health::Failed { retry_after } => {
                            failures_in_a_row += 1;
                            asked_until = asked_until.max(now.plus(retry_after.unwrap_or_default()));
                        }
                    }
                    prop_assert_eq!(breaker.state() == State::Closed, failures_in_a_row < 3);
                }
                Step::Admit => match breaker.admit(now) {
                    Admit::Go(permit) => {
                        prop_assert!(now >= asked_until);
                        prop_assert_eq!(permit == Permit::Probe, failures_in_a_row >= 3);
                        prop_assert!(permit == Permit::Regular || !under_way.contains(&Permit::Probe));
                        under_way.push(permit);
                    }
                    Admit::WaitUntil(at) if at == UnixMillis::NEVER => {
                        prop_assert!(under_way.contains(&Permit::Probe), "a wait that nobody ends");
                    }
                    Admit::WaitUntil(at) => {
                        prop_assert!(at > now);
                        let longest = config().probe_interval_max.max(Duration::from_millis(600));
                        prop_assert!(at.since(now) <= longest, "a wait longer than any limit");
                    }
                },
            }
        }
    }
}
