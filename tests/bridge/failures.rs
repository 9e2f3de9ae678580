//! What a message costs when it fails, and what it does not cost when its target does.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use causeway::bridge::BreakerState;
use causeway::codec::Qos;
use causeway::record::{AttemptOutcome, DeadLetterReason};
use tokio::net::TcpListener;

use crate::world::{Answer, Server, World, config, eventually, route, target};

#[tokio::test]
async fn same_key_every_attempt() {
    let server = Server::new(|_, before| Answer::Status(if before < 3 { 500 } else { 200 })).await;
    let world = World::new(&config(target(&server.url))).await;
    world.publish(Qos::AtLeastOnce, "plant/1", "m").await;
    eventually("four requests", || server.count() == 4).await;
    world.nothing_owed().await;
    let seen = server.of("m");
    let attempts: Vec<_> = seen.iter().map(|seen| seen.header("x-delivery-attempt")).collect();
    assert_eq!(attempts, ["1", "2", "3", "4"]);
    let keys: BTreeSet<_> = seen.iter().map(|seen| seen.header("idempotency-key")).collect();
    assert_eq!(keys.len(), 1);
    let state = &world.bridge.states()[0];
    assert_eq!(state.last_error.as_ref().unwrap().error, "answered 500");
    assert!(state.last_taken_at.is_some());
    assert_eq!(state.breaker, BreakerState::Closed, "a target that answers is not down");
}

#[tokio::test]
async fn a_message_that_fails_does_not_delay_the_others() {
    let server = Server::new(|seen, _| Answer::Status(if seen.body == "0" { 500 } else { 200 })).await;
    let mut target = target(&server.url);
    target.retry.attempts = 1000;
    target.retry.initial = Duration::from_secs(3600);
    target.retry.max = Duration::from_secs(3600);
    let world = World::new(&config(target)).await;
    world.publish_many(200).await;
    eventually("only the bad one is left", || world.owed() == 1).await;
    eventually("it waits", || world.bridge.states()[0].waiting_for_retry == 1).await;
}

#[tokio::test]
async fn a_refusal_makes_a_dead_letter_at_once() {
    let server = Server::answering(422).await;
    let world = World::new(&config(target(&server.url))).await;
    let lsn = world.publish(Qos::AtLeastOnce, "plant/1", "m").await;
    let filed = world.dead_letters(1).await.remove(0);
    assert_eq!(filed.letter.reason, DeadLetterReason::Rejected);
    assert_eq!(filed.letter.message_no, lsn);
    assert_eq!(filed.letter.message.payload(), b"m");
    let attempts = filed.letter.attempts.unwrap();
    assert_eq!(attempts.count, 1);
    let last = attempts.last().map(|last| &last.outcome);
    assert!(matches!(last, Some(AttemptOutcome::Answered { status: 422, .. })));
    assert_eq!(world.owed(), 0, "the dead letter and the settlement are one record");
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn three_then_dlq() {
    let server = Server::answering(500).await;
    let mut target = target(&server.url);
    target.retry.attempts = 3;
    let world = World::new(&config(target)).await;
    world.publish(Qos::AtLeastOnce, "plant/1", "m").await;
    let letter = world.dead_letters(1).await.remove(0).letter;
    assert_eq!(letter.reason, DeadLetterReason::AttemptsExhausted);
    assert_eq!(letter.attempts.unwrap().count, 3);
    assert_eq!(server.count(), 3);
}

#[tokio::test]
async fn a_target_that_is_down_costs_no_attempts_and_gets_one_probe_at_a_time() {
    let server = Server::answering(503).await;
    let mut target = target(&server.url);
    target.retry.attempts = 1;
    let world = World::new(&config(target)).await;
    world.publish_many(60).await;
    let state = || world.bridge.states().remove(0);
    eventually("the breaker opens", || state().breaker != BreakerState::Closed).await;
    eventually("what was under way has ended", || state().in_flight <= 1).await;
    let opened = server.count();
    eventually("twenty probes", || server.count() >= opened + 20).await;
    assert!(server.seen.lock()[opened..].iter().all(|seen| seen.under_way == 1), "one at a time");
    let tried: BTreeSet<_> = server.bodies()[opened..].iter().cloned().collect();
    assert!(tried.len() > 1, "not always with the same message: {tried:?}");
    assert!(world.owed() >= 59);

    server.now_answers(|_, _| Answer::Status(200));
    world.nothing_owed().await;
    assert_eq!(server.bodies().into_iter().collect::<BTreeSet<_>>().len(), 60);
    assert_eq!(world.broker.store.dead_letters().0, 0);
    assert_eq!(state().breaker, BreakerState::Closed);
}

#[tokio::test]
async fn a_route_that_waits_for_the_probe_of_another_goes_on_with_it() {
    let server = Server::answering(503).await;
    let mut target = target(&server.url);
    // The second one is for the other route to make.
    target.breaker.probes = 2;
    let mut config = config(target);
    config.routes.push(route("other", "office/#", "t"));
    let world = World::new(&config).await;
    world.publish(Qos::AtLeastOnce, "plant/1", "probe").await;
    let breaker = || world.bridge.states()[0].breaker;
    eventually("the breaker opens", || breaker() != BreakerState::Closed).await;
    server.now_answers(|_, _| Answer::Hold);
    let held = || breaker() == BreakerState::HalfOpen && server.under_way() == 1;
    eventually("a probe is held", held).await;
    world.publish(Qos::AtLeastOnce, "office/1", "waits").await;
    eventually("it waits", || world.bridge.states()[1].waiting_for_target == 1).await;
    server.now_answers(|_, _| Answer::Status(200));
    eventually("it is sent", || world.bridge.states()[1].queued_messages == 0).await;
    assert_eq!(server.of("waits").len(), 1);
}

#[tokio::test]
async fn a_target_that_nobody_listens_at_gets_everything_when_it_is_back() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    drop(taken);
    let world = World::new(&config(target(&format!("http://{address}/in")))).await;
    world.publish_many(30).await;
    eventually("the breaker opens", || world.bridge.states()[0].breaker != BreakerState::Closed).await;
    let error = world.bridge.states().remove(0).last_error.unwrap().error;
    assert!(error.starts_with("cannot connect"), "{error}");
    let server = Server::at(address, |_, _| Answer::Status(200)).await;
    world.nothing_owed().await;
    assert_eq!(server.count(), 30, "no message was sent twice");
}

#[tokio::test]
async fn retry_after_pauses_the_whole_target() {
    let server = Server::new(|seen, before| match (seen.body.as_str(), before) {
        ("first", 0) => Answer::Busy(1),
        _ => Answer::Status(200),
    })
    .await;
    let mut config = config(target(&server.url));
    config.routes.push(route("other", "office/#", "t"));
    let world = World::new(&config).await;
    world.publish(Qos::AtLeastOnce, "plant/1", "first").await;
    eventually("it was answered", || world.bridge.states()[0].last_error.is_some()).await;
    for number in 0..5 {
        world.publish(Qos::AtLeastOnce, "office/1", &number.to_string()).await;
    }
    eventually("all are delivered", || server.count() == 7).await;
    let seen = server.seen.lock().clone();
    let pauses: Vec<Duration> = seen[1..].iter().map(|later| later.at.duration_since(seen[0].at)).collect();
    assert!(pauses.iter().all(|pause| *pause >= Duration::from_millis(950)), "{pauses:?}");
}

#[tokio::test]
async fn max_age_dlq() {
    let server = Server::answering(503).await;
    let mut target = target(&server.url);
    target.retry.max_age = Duration::from_millis(300);
    let world = World::new(&config(target)).await;
    let began = Instant::now();
    world.publish_many(100).await;
    let letters = world.dead_letters(100).await;
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert!(letters.iter().all(|filed| filed.letter.reason == DeadLetterReason::MaxAge));
    assert!(letters.iter().any(|filed| filed.letter.attempts.is_none()), "most were never tried");
    assert_eq!(world.owed(), 0);
}

#[tokio::test]
async fn a_message_that_expires_before_its_try_is_not_sent() {
    let server = Server::new(|_, _| Answer::Hold).await;
    let mut target = target(&server.url);
    target.concurrency = 1;
    let world = World::new(&config(target)).await;
    world.publish(Qos::AtLeastOnce, "plant/1", "holds up the others").await;
    world.publish_expiring(Qos::AtLeastOnce, "plant/1", "short-lived", Some(1)).await;
    let letter = world.dead_letters(1).await.remove(0).letter;
    assert_eq!(letter.reason, DeadLetterReason::Expired);
    assert_eq!((letter.message.payload(), letter.attempts), (&b"short-lived"[..], None));
    server.now_answers(|_, _| Answer::Status(200));
    world.nothing_owed().await;
    assert_eq!(server.count(), 1);
}
