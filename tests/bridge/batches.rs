//! Several messages in one request, and how the one that is to blame is found.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use causeway::codec::Qos;
use causeway::config::{BatchConfig, Body, Config, Order, RateConfig};
use causeway::record::DeadLetterReason;

use crate::world::{Answer, Seen, Server, World, config, eventually, target};

fn batched(server: &Server, count: u32) -> Config {
    let mut config = config(target(&server.url));
    let route = &mut config.routes[0];
    route.order = Order::Topic;
    route.request.body = Body::Json;
    route.batch = Some(BatchConfig { count, linger: Duration::from_millis(20), ..BatchConfig::default() });
    config
}

/// What the lines of a request say.
fn payloads(seen: &Seen) -> Vec<serde_json::Value> {
    seen.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn has(seen: &Seen, payload: &str) -> bool {
    payloads(seen).iter().any(|line| line["payload"] == payload)
}

async fn publish(world: &World, count: usize) {
    for number in 0..count {
        world.publish(Qos::AtLeastOnce, &format!("plant/{}", number % 2), &format!("\"{number}\"")).await;
    }
}

#[tokio::test]
async fn a_request_carries_what_waits_in_the_order_of_its_lanes() {
    let server = Server::new(|_, _| Answer::Hold).await;
    let world = World::new(&batched(&server, 8)).await;
    publish(&world, 50).await;
    eventually("a batch is under way", || server.count() > 0).await;
    server.now_answers(|_, _| Answer::Status(200));
    world.nothing_owed().await;
    let seen = server.seen.lock();
    assert!(seen.iter().all(|seen| payloads(seen).len() <= 8));
    assert!(seen.len() < 15, "{} requests", seen.len());
    for lane in 0..2 {
        let topic = format!("plant/{lane}");
        let of = seen.iter().flat_map(payloads).filter(|line| line["topic"] == topic);
        let numbers: Vec<usize> = of.map(|line| line["payload"].as_str().unwrap().parse().unwrap()).collect();
        assert_eq!(numbers, (0..25).map(|place| place * 2 + lane).collect::<Vec<_>>());
    }
}

/// The message that is to blame stands alone in the end, and nothing else is given up.
#[tokio::test]
async fn a_batch_that_is_refused_is_bisected() {
    for status in [400, 413] {
        let server =
            Server::new(move |seen, _| Answer::Status(if has(seen, "13") { status } else { 200 })).await;
        let world = World::new(&batched(&server, 16)).await;
        publish(&world, 32).await;
        world.nothing_owed().await;
        let letters = world.dead_letters(1).await;
        assert_eq!(letters[0].letter.reason, DeadLetterReason::Rejected);
        assert_eq!(letters[0].letter.message.payload(), b"\"13\"");
        let taken =
            server.seen.lock().iter().filter(|seen| !has(seen, "13")).flat_map(payloads).collect::<Vec<_>>();
        let ids: BTreeSet<_> = taken.iter().map(|line| line["id"].to_string()).collect();
        assert_eq!((taken.len(), ids.len()), (31, 31), "each of the others once");
    }
}

#[tokio::test]
async fn a_batch_that_waits_for_its_turn_is_full_when_that_comes() {
    let server = Server::answering(200).await;
    let mut config = batched(&server, 100);
    let target = config.targets.get_mut("t").unwrap();
    target.concurrency = 1;
    let one = NonZeroU32::MIN;
    target.rate = Some(RateConfig { requests: one, per: Duration::from_millis(300), burst: one });
    let world = World::new(&config).await;
    world.bridge.pause("t", "until all are there").unwrap();
    publish(&world, 200).await;
    world.bridge.resume("t").unwrap();
    world.nothing_owed().await;
    let sizes: Vec<_> = server.seen.lock().iter().map(|seen| payloads(seen).len()).collect();
    assert_eq!(sizes, [100, 100]);
}

/// QoS 0 has no second try: a request that the target finds too large would lose all that is in it.
#[tokio::test]
async fn a_request_of_qos_0_is_no_larger_than_a_batch_may_be() {
    let server = Server::new(|_, _| Answer::Hold).await;
    let mut config = batched(&server, 100);
    config.routes[0].batch.as_mut().unwrap().bytes = 1000;
    config.targets.get_mut("t").unwrap().concurrency = 1;
    let world = World::new(&config).await;
    world.publish(Qos::AtMostOnce, "plant/1", "\"first\"").await;
    eventually("the first is under way", || server.count() == 1).await;
    let large = format!("\"{}\"", "x".repeat(400));
    for _ in 0..10 {
        world.publish(Qos::AtMostOnce, "plant/1", &large).await;
    }
    server.now_answers(|_, _| Answer::Status(200));
    let sizes = || server.seen.lock().iter().map(|seen| payloads(seen).len()).collect::<Vec<_>>();
    eventually("all have come", || sizes().iter().sum::<usize>() == 11).await;
    assert!(sizes().iter().all(|size| *size <= 2), "{:?}", sizes());
}

/// One that makes the target fail costs the others some repeats, not their delivery.
#[tokio::test]
async fn a_message_that_makes_the_target_fail_is_found_by_halves() {
    let server = Server::new(|seen, _| Answer::Status(if has(seen, "5") { 500 } else { 200 })).await;
    let mut config = batched(&server, 8);
    config.targets.get_mut("t").unwrap().retry.attempts = 8;
    let world = World::new(&config).await;
    publish(&world, 24).await;
    world.nothing_owed().await;
    let letters = world.dead_letters(1).await;
    assert_eq!(letters[0].letter.reason, DeadLetterReason::AttemptsExhausted);
    assert_eq!(letters[0].letter.message.payload(), b"\"5\"");
}

#[tokio::test]
async fn the_same_batch_has_the_same_id_and_its_messages_keep_theirs() {
    let server = Server::new(|_, _| Answer::Status(503)).await;
    let world = World::new(&batched(&server, 100)).await;
    publish(&world, 4).await;
    eventually("three tries of all", || {
        server.seen.lock().iter().filter(|seen| payloads(seen).len() == 4).count() >= 3
    })
    .await;
    server.now_answers(|_, _| Answer::Status(200));
    world.nothing_owed().await;
    let seen = server.seen.lock();
    let whole: Vec<_> = seen.iter().filter(|seen| payloads(seen).len() == 4).collect();
    let keys: BTreeSet<_> = whole.iter().map(|seen| seen.header("idempotency-key")).collect();
    assert_eq!(keys.len(), 1);
    let bodies: BTreeSet<_> = whole.iter().map(|seen| &seen.body).collect();
    assert_eq!(bodies.len(), 1, "and the same bytes");
}
