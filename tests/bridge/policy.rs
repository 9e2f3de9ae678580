//! What each answer leads to, and what a target is spared: pauses, rates, fewer requests at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use causeway::bridge::{BreakerState, TargetState};
use causeway::codec::Qos;
use causeway::config::{RateConfig, StatusClass};
use causeway::record::DeadLetterReason;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::world::{Answer, NOW, Server, World, config, eventually, route, target};

/// What becomes of a message that is always answered so, when it may be tried twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// One request, and it is delivered.
    Complete,
    /// One request, and it is a dead letter.
    DeadLetter,
    /// Two requests, and then a dead letter.
    Retry,
    /// As many requests as its age allows, and then a dead letter.
    TargetFailure,
}

const STATUSES: &[(RangeInclusive<u16>, Fate)] = &[
    (200..=299, Fate::Complete),
    (300..=403, Fate::DeadLetter),
    (404..=404, Fate::Retry),
    (405..=407, Fate::DeadLetter),
    (408..=409, Fate::Retry),
    // 410 pauses the target, too: it has a test of its own.
    (411..=424, Fate::DeadLetter),
    (425..=425, Fate::Retry),
    (426..=428, Fate::DeadLetter),
    (429..=429, Fate::TargetFailure),
    (430..=499, Fate::DeadLetter),
    (500..=500, Fate::Retry),
    (501..=501, Fate::DeadLetter),
    (502..=504, Fate::TargetFailure),
    (505..=505, Fate::DeadLetter),
    (506..=599, Fate::Retry),
];

/// The body of a message says how it is answered.
#[tokio::test]
async fn status_matrix() {
    let server = Server::new(|seen, _| Answer::Status(seen.body.parse().unwrap())).await;
    let mut target = target(&server.url);
    (target.retry.attempts, target.retry.max_age) = (2, Duration::from_secs(2));
    (target.breaker.failures, target.breaker.minimum_calls) = (u32::MAX, u32::MAX);
    let world = World::new(&config(target)).await;
    let fates: BTreeMap<u16, Fate> = STATUSES
        .iter()
        .flat_map(|(statuses, fate)| statuses.clone().map(move |status| (status, *fate)))
        .collect();
    assert_eq!(fates.len(), 399, "every final status but 410");
    for status in fates.keys() {
        world.publish(Qos::AtLeastOnce, "plant/1", &status.to_string()).await;
    }
    world.nothing_owed().await;
    let completed = fates.values().filter(|fate| **fate == Fate::Complete).count();
    let letters: BTreeMap<u16, DeadLetterReason> = world
        .dead_letters(fates.len() - completed)
        .await
        .into_iter()
        .map(|filed| {
            (String::from_utf8_lossy(filed.letter.message.payload()).parse().unwrap(), filed.letter.reason)
        })
        .collect();
    for (status, fate) in fates {
        let requests = server.of(&status.to_string()).len();
        let expected = match fate {
            Fate::Complete => (1, None),
            Fate::DeadLetter => (1, Some(DeadLetterReason::Rejected)),
            Fate::Retry => (2, Some(DeadLetterReason::AttemptsExhausted)),
            Fate::TargetFailure => (requests.max(3), Some(DeadLetterReason::MaxAge)),
        };
        assert_eq!((requests, letters.get(&status).copied()), expected, "{status}");
    }
}

fn state(world: &World) -> TargetState {
    world.bridge.targets().into_iter().find(|target| target.name == "t").unwrap()
}

#[tokio::test]
async fn a_target_that_is_gone_is_paused_and_stays_so_over_a_restart() {
    let server = Server::answering(410).await;
    let config = config(target(&server.url));
    let world = World::new(&config).await;
    world.publish(Qos::AtLeastOnce, "plant/1", "first").await;
    assert_eq!(world.dead_letters(1).await[0].letter.reason, DeadLetterReason::Rejected);
    eventually("it is paused", || state(&world).paused.is_some()).await;
    assert_eq!(state(&world).paused.unwrap(), "it answered 410");
    let since = state(&world).changed_at;
    world.publish(Qos::AtLeastOnce, "plant/1", "second").await;

    server.now_answers(|_, _| Answer::Status(200));
    let world = world.restart(&config, NOW).await;
    assert_eq!(state(&world).paused.unwrap(), "it answered 410");
    assert_eq!(state(&world).changed_at, since);
    eventually("it is read", || world.bridge.states()[0].waiting_for_target == 1).await;
    assert_eq!((server.count(), world.owed()), (1, 1));
    let record = world.bridge.resume("t").unwrap().unwrap();
    world.nothing_owed().await;
    assert_eq!(server.of("second").len(), 1);

    world.broker.store.durable(record).await.unwrap();
    let world = world.restart(&config, NOW).await;
    assert_eq!(state(&world).paused, None);
}

#[tokio::test]
async fn pause_and_resume_by_hand() {
    let server = Server::answering(200).await;
    let other = Server::answering(200).await;
    let mut config = config(target(&server.url));
    config.targets.insert("other".into(), target(&other.url));
    config.routes.push(route("other", "plant/#", "other"));
    let world = World::new(&config).await;
    assert_eq!(world.bridge.pause("none", "why").unwrap(), None);
    world.bridge.pause("t", "maintenance until four").unwrap();
    world.bridge.pause("t", "another reason").unwrap();
    assert_eq!(state(&world).paused.unwrap(), "maintenance until four", "the first one stays");
    world.publish_many(40).await;
    eventually("the other target has all", || other.count() == 40).await;
    eventually("some are read", || world.bridge.states()[0].waiting_for_target > 0).await;
    assert_eq!((server.count(), world.owed()), (0, 40));
    // Another target of this name, because of a reload, is paused as well.
    let mut changed = config.clone();
    changed.targets.get_mut("t").unwrap().concurrency = 3;
    world.bridge.change(&changed, None).unwrap();
    assert_eq!(state(&world).paused.unwrap(), "maintenance until four");
    world.bridge.resume("t").unwrap();
    world.nothing_owed().await;
    assert_eq!(server.count(), 40);
    assert!(server.seen.lock().iter().all(|seen| seen.under_way <= 3));
}

#[tokio::test]
async fn an_answer_that_pauses_costs_the_message_nothing() {
    let server = Server::answering(402).await;
    let mut target = target(&server.url);
    target.retry.attempts = 1;
    target.status.overrides = vec![(402..=402, StatusClass::Pause)];
    let world = World::new(&config(target)).await;
    world.publish(Qos::AtLeastOnce, "plant/1", "m").await;
    eventually("it is paused", || state(&world).paused.is_some()).await;
    server.now_answers(|_, _| Answer::Status(200));
    world.bridge.resume("t").unwrap();
    world.nothing_owed().await;
    let keys: BTreeSet<_> =
        server.of("m").iter().map(|seen| seen.header("idempotency-key").to_owned()).collect();
    assert_eq!((server.count(), keys.len()), (2, 1));
    assert_eq!(world.broker.store.dead_letters().0, 0);
}

#[tokio::test]
async fn who_is_refused_loses_a_few_messages_to_dead_letters_and_not_all() {
    let server = Server::answering(401).await;
    let mut target = target(&server.url);
    target.concurrency = 1;
    (target.breaker.probe_interval, target.breaker.probe_interval_max) = (NEVER, NEVER);
    let world = World::new(&config(target)).await;
    world.publish_many(100).await;
    eventually("the breaker opens", || state(&world).breaker == BreakerState::Open).await;
    assert_eq!(world.dead_letters(3).await.len(), 3);
    assert_eq!((server.count(), world.owed()), (3, 97));
}

/// No message is lost to a certificate that nobody accepts, and it is not asked for again and again.
#[tokio::test]
async fn a_certificate_that_is_not_accepted_opens_the_breaker_at_once() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let tls = rustls::ServerConfig::builder().with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(tls.with_single_cert(vec![made.cert.into()], key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/in", listener.local_addr().unwrap().port());
    let counted = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&counted);
    let accepting = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counts.fetch_add(1, Ordering::SeqCst);
            drop(acceptor.accept(stream).await);
        }
    });
    let mut target = target(&url);
    (target.breaker.failures, target.breaker.probe_interval_max) = (1000, NEVER);
    let world = World::new(&config(target)).await;
    world.publish_many(50).await;
    eventually("the breaker opens", || state(&world).breaker == BreakerState::Open).await;
    assert_eq!(state(&world).cause.as_deref(), Some("misconfigured"));
    eventually("what was under way has ended", || state(&world).in_flight == 0).await;
    assert!((1..=16).contains(&counted.load(Ordering::SeqCst)), "no more than were under way");
    assert_eq!((world.owed(), world.broker.store.dead_letters().0), (50, 0));
    accepting.abort();
}

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn breaker() {
    let server = Server::answering(503).await;
    let mut target = target(&server.url);
    target.breaker.probes = 3;
    let world = World::new(&config(target)).await;
    assert_eq!((state(&world).breaker, state(&world).cause), (BreakerState::Closed, None));
    let began = state(&world).changed_at;
    world.publish_many(10).await;
    eventually("it opens", || state(&world).breaker != BreakerState::Closed).await;
    assert_eq!(state(&world).cause.as_deref(), Some("failures"));
    assert!(state(&world).changed_at >= began);
    // The third probe is held: two answers have not closed it.
    server.now_answers(|_, _| Answer::Hold);
    eventually("a probe is held", || server.under_way() == 1).await;
    let before = server.count();
    server.now_answers(move |_, _| Answer::Status(200));
    world.nothing_owed().await;
    let probes = &server.seen.lock()[before - 1..];
    assert!(probes[..3].iter().all(|probe| probe.under_way == 1), "three probes, one after the other");
    assert_eq!((state(&world).breaker, state(&world).cause), (BreakerState::Closed, None));
}

#[tokio::test]
async fn a_target_that_throttles_has_fewer_requests_at_once_for_a_while() {
    let server = Server::new(|_, _| Answer::Hold).await;
    let mut target = target(&server.url);
    target.concurrency = 8;
    target.breaker.failures = u32::MAX;
    let world = World::new(&config(target)).await;
    assert_eq!(state(&world).concurrency, 8);
    world.publish_many(400).await;
    eventually("eight at once", || server.under_way() == 8).await;
    // All of these answers are to requests of the same moment: they count once.
    server.now_answers(|seen, before| match (seen.body.parse(), before) {
        (Ok(0..8), 0) => Answer::Status(429),
        _ => Answer::Hold,
    });
    eventually("four at once", || server.under_way() == 4 && server.count() == 12).await;
    assert_eq!((state(&world).concurrency, state(&world).in_flight), (4, 4));
    server.now_answers(|_, _| Answer::Status(200));
    world.nothing_owed().await;
    assert_eq!(state(&world).concurrency, 8, "some hundred answers have brought it back");
}

#[tokio::test]
async fn a_target_that_keeps_up_gets_more_at_once() {
    let server = Server::new(|_, _| Answer::Hold).await;
    let mut target = target(&server.url);
    (target.concurrency, target.concurrency_min) = (4, Some(1));
    let world = World::new(&config(target)).await;
    world.publish_many(100).await;
    eventually("one at first", || server.under_way() == 1).await;
    assert_eq!(state(&world).concurrency, 1);
    // One by one. What is slower than usual shows only when there is something usual.
    while state(&world).concurrency < 2 {
        let known: BTreeSet<String> = server.bodies().into_iter().collect();
        let before = known.len();
        server.now_answers(move |seen, _| match known.contains(&seen.body) {
            true => Answer::Status(200),
            false => Answer::Hold,
        });
        eventually("the next ones come", || {
            server.count() > before && server.under_way() as u32 == state(&world).concurrency
        })
        .await;
    }
    server.now_answers(|_, _| Answer::Status(200));
    world.nothing_owed().await;
    assert!(server.seen.lock().iter().all(|seen| seen.under_way <= 4));
}

#[tokio::test]
async fn a_rate_is_kept() {
    let server = Server::answering(200).await;
    let mut target = target(&server.url);
    let [requests, burst] = [100, 10].map(|number| std::num::NonZeroU32::new(number).unwrap());
    target.rate = Some(RateConfig { requests, per: Duration::from_secs(1), burst });
    let mut config = config(target);
    config.routes.push(route("other", "office/#", "t"));
    let world = World::new(&config).await;
    let began = Instant::now();
    for number in 0..30 {
        world.publish(Qos::AtLeastOnce, "plant/1", &format!("a{number}")).await;
        world.publish(Qos::AtLeastOnce, "office/1", &format!("b{number}")).await;
    }
    eventually("all are delivered", || server.count() == 60).await;
    assert!(
        began.elapsed() >= Duration::from_millis(490),
        "{:?}: ten at once, fifty in half a second",
        began.elapsed()
    );
    let seen = server.seen.lock().clone();
    for (index, first) in seen.iter().enumerate() {
        let within = seen[index..].iter().filter(|later| later.at - first.at < Duration::from_millis(100));
        // What comes late makes room for no more than what was late: some slack for a busy machine.
        assert!(within.count() <= 10 + 10 + 10, "too many at once after {index}");
    }
}

/// One target refuses connections, one takes five seconds for each answer (here: does not answer while anybody
/// looks), and neither is noticed by the others or by who publishes.
#[tokio::test]
async fn bulkhead() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let slow = Server::new(|_, _| Answer::Hold).await;
    let mut config = config(target(&format!("http://{nobody}/in")));
    config.targets.insert("slow".into(), target(&slow.url));
    config.routes.push(route("slow", "plant/#", "slow"));
    let mut healthy = Vec::new();
    for number in 0..10 {
        let (server, name) = (Server::answering(200).await, format!("healthy-{number}"));
        config.targets.insert(name.clone(), target(&server.url));
        config.routes.push(route(&name, "plant/#", &name));
        healthy.push(server);
    }
    let world = World::new(&config).await;
    // Each is acknowledged when it is safe, and never waits for a target.
    world.publish_many(200).await;
    for server in &healthy {
        eventually("a healthy target has all", || server.count() == 200).await;
    }
    let states = world.bridge.states();
    assert_eq!((states[0].queued_messages, states[1].queued_messages), (200, 200));
    assert_eq!(slow.under_way(), 16, "no more than its own concurrency");
    for (server, state) in healthy.iter().zip(&states[2..]) {
        eventually("nothing is owed", || {
            world.bridge.states().iter().any(|s| s.name == state.name && s.queued_messages == 0)
        })
        .await;
        assert_eq!(server.bodies().into_iter().collect::<BTreeSet<_>>().len(), 200, "each once");
    }
}

/// A leg that fails fast takes nothing away from one that succeeds late.
#[tokio::test]
async fn no_steal() {
    let refuses = Server::answering(422).await;
    let late = Server::new(|_, _| Answer::Hold).await;
    let mut config = config(target(&late.url));
    config.targets.insert("refuses".into(), target(&refuses.url));
    config.routes.insert(0, route("refuses", "plant/#", "refuses"));
    let world = World::new(&config).await;
    world.publish_many(300).await;
    world.dead_letters(300).await;
    assert_eq!(refuses.count(), 300);
    assert_eq!(world.bridge.states()[1].queued_messages, 300);
    late.now_answers(|_, _| Answer::Status(200));
    eventually("the late one is owed nothing", || world.bridge.states()[1].queued_messages == 0).await;
    assert_eq!(late.bodies().into_iter().collect::<BTreeSet<_>>().len(), 300);
    assert_eq!(late.count(), 300);
}

/// What one target takes is not sent to it again because another one fails.
#[tokio::test]
async fn partial_success_no_dup() {
    let takes = Server::answering(200).await;
    let fails = Server::answering(500).await;
    let mut failing = target(&fails.url);
    failing.retry.attempts = 3;
    let mut config = config(failing);
    config.targets.insert("takes".into(), target(&takes.url));
    config.routes.push(route("takes", "plant/#", "takes"));
    let world = World::new(&config).await;
    world.publish_many(20).await;
    world.dead_letters(20).await;
    eventually("nothing is owed", || world.bridge.states().iter().all(|state| state.queued_messages == 0))
        .await;
    assert_eq!((takes.count(), fails.count()), (20, 60));
}

#[tokio::test]
async fn what_grows_too_old_in_a_pause_becomes_a_dead_letter() {
    let server = Server::answering(200).await;
    let mut target = target(&server.url);
    target.retry.max_age = Duration::from_millis(200);
    let world = World::new(&config(target)).await;
    world.bridge.pause("t", "by hand").unwrap();
    world.publish(Qos::AtLeastOnce, "plant/1", "m").await;
    assert_eq!(world.dead_letters(1).await[0].letter.reason, DeadLetterReason::MaxAge);
    assert_eq!(server.count(), 0);
}
