//! What texts on delivery guarantees ask of a bridge, statement by statement; each test has the name of one. The
//! others are where their subject is: `retry_matrix`, `same_key_every_attempt`, `three_then_dlq`, `max_age_dlq`,
//! `no_steal`, `bulkhead`, `partial_success_no_dup`, `loop_guard`, `rule_reload`, `status_matrix` beside this one,
//! `crash_after_2xx`, `dlq_atomic` and `at0_kill9_after_puback` with the kills in `tests/crash`.

use std::collections::BTreeMap;
use std::time::Duration;

use causeway::codec::Qos;
use causeway::config::Config;

use crate::world::{Answer, NOW, Seen, Server, World, config, eventually, route, target};

/// Routes by these filters, each to a target of its own, which all are this server and say which they are.
fn routes(server: &Server, filters: &[&str]) -> Config {
    let mut config = config(target(&server.url));
    config.routes.clear();
    for (number, filter) in filters.iter().enumerate() {
        let name = format!("r{number}");
        let mut target = target(&server.url);
        target.headers.insert("x-route", name.parse().unwrap());
        config.routes.push(route(&name, filter, &name));
        config.targets.insert(name, target);
    }
    config
}

/// How often each route has posted.
fn by_route(server: &Server) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    server
        .seen
        .lock()
        .iter()
        .for_each(|seen| *counts.entry(seen.header("x-route").to_owned()).or_default() += 1);
    counts
}

/// Every event is evaluated against all routes, and what matches is owed to all of them or to none.
#[tokio::test]
async fn fanout_rules() {
    let server = Server::new(|_, _| Answer::Hold).await;
    let config = routes(&server, &["plant/#", "plant/+", "ship/#", "#", "plant/2"]);
    let world = World::new(&config).await;
    world.publish(Qos::AtLeastOnce, "plant/1", "x").await;
    eventually("three are on their way", || server.count() == 3).await;
    let world = world.restart(&config, NOW).await;
    assert_eq!(world.recovered_messages, 1, "one message");
    let owed: Vec<u64> = world.bridge.states().iter().map(|state| state.queued_messages).collect();
    assert_eq!(owed, [1, 1, 0, 1, 0]);
    server.now_answers(|_, _| Answer::Status(200));
    eventually("nothing is owed", || world.bridge.states().iter().all(|s| s.queued_messages == 0)).await;
    assert_eq!(by_route(&server).into_keys().collect::<Vec<_>>(), ["r0", "r1", "r3"]);
}

/// A message stays until the last one that is owed it is done, and is gone then.
#[tokio::test]
async fn refcount() {
    let server = Server::new(|seen, _| match seen.header("x-route") {
        "r0" => Answer::Status(200),
        _ => Answer::Hold,
    })
    .await;
    let config = routes(&server, &["plant/#", "plant/+"]);
    let world = World::new(&config).await;
    world.publish(Qos::ExactlyOnce, "plant/1", "x").await;
    eventually("one is done", || world.bridge.states()[0].queued_messages == 0).await;
    let world = world.restart(&config, NOW).await;
    assert_eq!(world.recovered_messages, 1, "the other is owed it still");
    server.now_answers(|_, _| Answer::Status(200));
    eventually("both are done", || world.bridge.states()[1].queued_messages == 0).await;
    let world = world.restart(&config, NOW).await;
    assert_eq!(world.recovered_messages, 0);
}

/// One target that gives no answer in time: it alone is tried again.
#[tokio::test]
async fn timeout_isolated() {
    let (silent, well) = (Server::new(|_, _| Answer::Hold).await, Server::answering(200).await);
    let mut config = config(target(&silent.url));
    config.targets.get_mut("t").unwrap().timeout = Duration::from_millis(50);
    config.targets.insert("well".into(), target(&well.url));
    config.routes.push(route("well", "plant/#", "well"));
    let world = World::new(&config).await;
    world.publish(Qos::AtLeastOnce, "plant/1", "x").await;
    eventually("it is tried several times", || silent.count() > 2).await;
    assert_eq!(well.count(), 1);
}

/// An attempt that the broker did not see the end of is made once more.
#[tokio::test]
async fn lease_expires() {
    let server = Server::new(|_, _| Answer::Hold).await;
    let config = config(target(&server.url));
    let world = World::new(&config).await;
    world.publish(Qos::AtLeastOnce, "plant/1", "x").await;
    eventually("it is under way", || server.count() == 1).await;
    let world = world.restart(&config, NOW).await;
    eventually("it is made again", || server.count() == 2).await;
    server.now_answers(|_, _| Answer::Status(200));
    world.nothing_owed().await;
    assert_eq!(server.count(), 2);
    let keys: Vec<_> = server.seen.lock().iter().map(|s| s.header("idempotency-key").to_owned()).collect();
    assert_eq!(keys[0], keys[1]);
}

/// What the target does is nothing to the publisher: its message is safe, and that is all it waits for.
#[tokio::test]
async fn sender_retry_invisible() {
    for answer in [Answer::Hold, Answer::Status(500), Answer::Status(503), Answer::Status(200)] {
        let server = Server::new(move |_, _| answer.clone()).await;
        let world = World::new(&config(target(&server.url))).await;
        // Returns when it is acknowledged.
        world.publish(Qos::ExactlyOnce, "plant/1", "x").await;
    }
}

/// The number of an attempt goes on counting over a restart, as long as the tries before it are on disk.
#[tokio::test]
async fn delivery_count_monotonic() {
    let server = Server::answering(500).await;
    let mut config = config(target(&server.url));
    config.targets.get_mut("t").unwrap().retry.attempts = u32::MAX;
    let world = World::new(&config).await;
    world.publish(Qos::AtLeastOnce, "plant/1", "x").await;
    let attempts = |seen: &[Seen]| -> Vec<u32> {
        seen.iter().map(|seen| seen.header("x-delivery-attempt").parse().unwrap()).collect()
    };
    eventually("three attempts", || server.count() > 2).await;
    let world = world.restart(&config, Duration::from_secs(5)).await;
    let before = server.count();
    eventually("more attempts", || server.count() > before + 1).await;
    server.now_answers(|_, _| Answer::Status(200));
    world.nothing_owed().await;
    let attempts = attempts(&server.seen.lock());
    assert_eq!(attempts, (1..=attempts.len() as u32).collect::<Vec<_>>());
}
