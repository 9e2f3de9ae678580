//! Order: messages of a lane come one after the other, and lanes do not wait for each other.

use std::collections::BTreeSet;
use std::time::Duration;

use causeway::codec::Qos;
use causeway::config::{Config, Jitter, Order};
use causeway::record::DeadLetterReason;

use crate::world::{Answer, Server, World, config, eventually, target};

const DELAY: Duration = Duration::from_millis(400);

fn ordered(server: &Server, order: Order) -> Config {
    let mut config = config(target(&server.url));
    config.routes[0].order = order;
    config
}

/// The bodies that came for a topic; each once, in the order of the first.
fn bodies_of(server: &Server, topic: &str) -> Vec<String> {
    let seen = server.seen.lock();
    let mut bodies: Vec<_> =
        seen.iter().filter(|seen| seen.header("mqtt-topic") == topic).map(|seen| seen.body.clone()).collect();
    bodies.dedup();
    bodies
}

#[tokio::test]
async fn one_lane_keeps_the_order_also_over_retries() {
    let server = Server::new(|seen, before| match (seen.body.as_str(), before) {
        ("1", 0 | 1) => Answer::Status(500),
        ("3", 0..5) => Answer::Status(503),
        _ => Answer::Status(200),
    })
    .await;
    let world = World::new(&ordered(&server, Order::All)).await;
    for number in 0..6 {
        world.publish(Qos::AtLeastOnce, &format!("plant/{}", number % 2), &number.to_string()).await;
    }
    world.nothing_owed().await;
    let mut bodies = server.bodies();
    bodies.dedup();
    assert_eq!(bodies, ["0", "1", "2", "3", "4", "5"]);
    assert!(server.seen.lock().iter().all(|seen| seen.under_way == 1));
}

#[tokio::test]
async fn a_lane_that_waits_does_not_delay_another() {
    let server = Server::new(|seen, _| match seen.body.as_str() {
        "bad" => Answer::Status(500),
        "hang" => Answer::Hold,
        _ => Answer::Status(200),
    })
    .await;
    let mut config = ordered(&server, Order::Topic);
    config.targets.get_mut("t").unwrap().retry.attempts = u32::MAX;
    let world = World::new(&config).await;
    world.publish(Qos::AtLeastOnce, "plant/1", "bad").await;
    world.publish(Qos::AtLeastOnce, "plant/2", "hang").await;
    for number in 0..40 {
        world.publish(Qos::AtLeastOnce, &format!("plant/{}", number % 4), &number.to_string()).await;
    }
    eventually("the other lanes are through", || {
        bodies_of(&server, "plant/0").len() == 10 && bodies_of(&server, "plant/3").len() == 10
    })
    .await;
    assert_eq!(bodies_of(&server, "plant/1"), ["bad"], "nothing overtakes what waits");
    assert_eq!(bodies_of(&server, "plant/2"), ["hang"], "nor what is in flight");
    server.now_answers(|_, _| Answer::Status(200));
    world.nothing_owed().await;
    for lane in 0..4 {
        let of = bodies_of(&server, &format!("plant/{lane}"));
        let numbers: Vec<usize> = of.iter().filter_map(|body| body.parse().ok()).collect();
        assert_eq!(numbers, (0..10).map(|place| place * 4 + lane).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn lanes_by_client_and_by_what_a_message_says() {
    for (order, same, lanes) in [
        (Order::Client, "{}", 1),
        (Order::Json("/device/id".into()), r#"{"device": {"id": 7}}"#, 1),
        (Order::Json("/device/id".into()), "no json", 3),
        (Order::UserProperty("absent".into()), "", 3),
        (Order::None, "", 12),
    ] {
        let server = Server::new(|_, _| Answer::Hold).await;
        let world = World::new(&ordered(&server, order.clone())).await;
        for number in 0..12 {
            world.publish(Qos::AtLeastOnce, &format!("plant/{}", number % 3), same).await;
        }
        eventually("one of each lane is in flight", || server.count() == lanes).await;
        eventually("and the rest waits", || world.bridge.states()[0].waiting_for_target == 12 - lanes).await;
        server.now_answers(|_, _| Answer::Status(200));
        world.nothing_owed().await;
        assert_eq!(server.count(), 12, "{order}");
    }
}

/// `poison_message`: one that the target refuses for ever keeps its lane waiting for a configured time at most.
#[tokio::test]
async fn poison_message_is_given_up_for_those_behind_it() {
    let server = Server::new(|seen, _| Answer::Status(if seen.body == "poison" { 500 } else { 200 })).await;
    let mut config = ordered(&server, Order::Topic);
    config.routes[0].block_max = Duration::from_millis(200);
    config.targets.get_mut("t").unwrap().retry.attempts = u32::MAX;
    let world = World::new(&config).await;
    world.publish(Qos::AtLeastOnce, "plant/1", "poison").await;
    world.publish(Qos::AtLeastOnce, "plant/1", "behind").await;
    world.nothing_owed().await;
    let letters = world.dead_letters(1).await;
    assert_eq!(letters[0].letter.reason, DeadLetterReason::Blocked);
    assert_eq!(letters[0].letter.message.payload(), b"poison");
    assert_eq!(bodies_of(&server, "plant/1"), ["poison", "behind"]);
}

#[tokio::test]
async fn a_message_that_keeps_nobody_waiting_is_not_given_up_for_it() {
    let server = Server::new(|_, before| Answer::Status(if before < 12 { 500 } else { 200 })).await;
    let mut config = ordered(&server, Order::Topic);
    config.routes[0].block_max = Duration::from_millis(1);
    config.targets.get_mut("t").unwrap().retry.attempts = u32::MAX;
    let world = World::new(&config).await;
    world.publish(Qos::AtLeastOnce, "plant/1", "alone").await;
    world.nothing_owed().await;
    assert_eq!((server.count(), world.dead_letters(0).await.len()), (13, 0));
}

/// A target that is down is no poison: what waits for it keeps its order and its place.
#[tokio::test]
async fn a_target_that_is_down_gives_nothing_up() {
    let server = Server::answering(503).await;
    let mut config = ordered(&server, Order::Topic);
    config.routes[0].block_max = Duration::from_millis(1);
    let world = World::new(&config).await;
    for number in 0..20 {
        world.publish(Qos::AtLeastOnce, &format!("plant/{}", number % 2), &number.to_string()).await;
    }
    eventually("some probes", || server.count() > 8).await;
    server.now_answers(|_, _| Answer::Status(200));
    world.nothing_owed().await;
    world.dead_letters(0).await;
    let all: BTreeSet<_> = server.bodies().into_iter().collect();
    assert_eq!(all.len(), 20);
    for lane in 0..2 {
        let of: Vec<usize> =
            bodies_of(&server, &format!("plant/{lane}")).iter().map(|body| body.parse().unwrap()).collect();
        assert!(of.is_sorted(), "{of:?}");
    }
}

/// `block_max` is for the sake of those behind, and on a route without an order nothing is behind anything.
#[tokio::test]
async fn what_keeps_nobody_waiting_is_tried_again_when_its_policy_says_so() {
    let server = Server::answering(500).await;
    let mut config = ordered(&server, Order::None);
    config.routes[0].block_max = Duration::from_millis(20);
    let retry = &mut config.targets.get_mut("t").unwrap().retry;
    (retry.initial, retry.max, retry.jitter) = (DELAY, DELAY, Jitter::None);
    let world = World::new(&config).await;
    world.publish(Qos::AtLeastOnce, "plant/1", "x").await;
    eventually("a second try", || server.count() == 2).await;
    let seen = server.seen.lock();
    let waited = seen[1].at - seen[0].at;
    assert!(waited >= DELAY, "{waited:?}");
}
