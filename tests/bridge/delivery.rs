//! What is delivered, how often, and what is left on disk afterwards.

use std::collections::BTreeSet;
use std::time::Duration;

use causeway::codec::Qos;

use crate::world::{Answer, NOW, Server, World, config, eventually, route, target};

/// What has expired while it waited is of no use to anybody.
#[tokio::test]
async fn a_message_of_qos_0_that_has_expired_is_not_posted() {
    let server = Server::answering(200).await;
    let world = World::new(&config(target(&server.url))).await;
    world.bridge.pause("t", "for a while").unwrap();
    for (body, expiry) in [("first", None), ("expired", Some(0)), ("last", None)] {
        world.publish_expiring(Qos::AtMostOnce, "plant/1", body, expiry).await;
    }
    world.bridge.resume("t").unwrap();
    eventually("the last has come", || !server.of("last").is_empty()).await;
    assert!(server.of("expired").is_empty());
}

#[tokio::test]
async fn everything_is_delivered_and_leaves_the_store() {
    let server = Server::answering(200).await;
    let config = config(target(&server.url));
    let world = World::new(&config).await;
    for number in 0..100 {
        let qos = if number % 2 == 0 { Qos::AtLeastOnce } else { Qos::ExactlyOnce };
        world.publish(qos, "plant/1", &number.to_string()).await;
    }
    eventually("100 requests", || server.count() == 100).await;
    world.nothing_owed().await;
    let keys: BTreeSet<_> =
        server.seen.lock().iter().map(|seen| seen.header("idempotency-key").to_owned()).collect();
    assert_eq!(keys.len(), 100, "each message has a key of its own");
    let first = server.of("0").pop().unwrap();
    assert_eq!((first.header("mqtt-topic"), first.header("mqtt-qos")), ("plant/1", "1"));
    assert_eq!(first.header("x-delivery-attempt"), "1");

    let world = world.restart(&config, NOW).await;
    assert_eq!(world.recovered_messages, 0, "settled messages are gone from the disk");
    assert_eq!(server.count(), 100);
}

#[tokio::test]
async fn messages_start_in_the_order_of_their_numbers() {
    let server = Server::new(|_, _| Answer::Hold).await;
    let mut target = target(&server.url);
    target.concurrency = 4;
    let world = World::new(&config(target)).await;
    world.publish_many(20).await;
    eventually("as many requests as may be in flight", || server.count() == 4).await;
    assert_eq!(
        server.bodies().into_iter().collect::<BTreeSet<_>>(),
        ["0", "1", "2", "3"].map(Into::into).into()
    );
    assert_eq!(world.bridge.states()[0].in_flight, 4);
    server.now_answers(|_, _| Answer::Status(200));
    world.nothing_owed().await;
    assert_eq!(server.count(), 20);
    assert!(server.seen.lock().iter().all(|seen| seen.under_way <= 4));
}

#[tokio::test]
async fn slow_target_isolation() {
    let slow = Server::new(|_, _| Answer::Hold).await;
    let fast = Server::answering(200).await;
    let mut config = config(target(&slow.url));
    config.targets.insert("fast".into(), target(&fast.url));
    config.routes.push(route("other", "plant/#", "fast"));
    let world = World::new(&config).await;
    world.publish_many(50).await;
    eventually("the fast target has all", || fast.count() == 50).await;
    eventually("nothing owed to it", || world.bridge.states()[1].queued_messages == 0).await;
    assert_eq!(world.owed(), 50, "the slow one is still owed everything");
    slow.now_answers(|_, _| Answer::Status(200));
    world.nothing_owed().await;
    assert_eq!(slow.count(), 50);
}

#[tokio::test]
async fn a_message_of_qos_0_is_tried_once() {
    let server = Server::new(|seen, _| Answer::Status(if seen.body == "bad" { 500 } else { 200 })).await;
    let world = World::new(&config(target(&server.url))).await;
    world.publish(Qos::AtMostOnce, "plant/1", "bad").await;
    world.publish(Qos::AtMostOnce, "plant/1", "good").await;
    world.publish(Qos::AtLeastOnce, "plant/1", "last").await;
    eventually("three requests", || server.count() == 3).await;
    world.nothing_owed().await;
    assert_eq!((server.of("bad").len(), server.of("good").len()), (1, 1));
    assert_eq!(server.of("good")[0].header("idempotency-key"), "", "it has no number to make one from");
    assert_eq!(world.broker.store.dead_letters().0, 0);
}

#[tokio::test]
async fn a_shutdown_settles_what_is_answered_in_time() {
    let server = Server::new(|_, _| Answer::Hold).await;
    let config = config(target(&server.url));
    let world = World::new(&config).await;
    world.publish_many(10).await;
    eventually("all are in flight", || server.count() == 10).await;
    let answer = async { server.now_answers(|_, _| Answer::Status(200)) };
    let (world, ()) = tokio::join!(world.restart(&config, Duration::from_secs(30)), answer);
    assert_eq!(world.recovered_messages, 0);
    assert_eq!(server.count(), 10, "nothing was sent twice");
}

#[tokio::test]
async fn what_a_shutdown_breaks_off_is_delivered_after_the_start() {
    let server = Server::new(|_, _| Answer::Hold).await;
    let config = config(target(&server.url));
    let world = World::new(&config).await;
    world.publish_many(40).await;
    eventually("16 are in flight", || server.count() == 16).await;
    let world = world.restart(&config, NOW).await;
    assert_eq!(world.recovered_messages, 40);
    server.now_answers(|_, _| Answer::Status(200));
    world.nothing_owed().await;
    let bodies: BTreeSet<_> = server.bodies().into_iter().collect();
    assert_eq!(bodies.len(), 40);
    let repeated = server.of("0");
    assert_eq!(repeated.len(), 2);
    assert_eq!(repeated[0].header("idempotency-key"), repeated[1].header("idempotency-key"));
}

#[tokio::test]
async fn a_route_that_is_not_configured_for_a_while_keeps_its_backlog() {
    let server = Server::new(|_, _| Answer::Hold).await;
    let with = config(target(&server.url));
    let mut without = with.clone();
    without.routes = vec![route("another", "x", "t")];
    let world = World::new(&with).await;
    world.publish_many(3).await;
    let world = world.restart(&without, NOW).await;
    server.now_answers(|_, _| Answer::Status(200));
    assert_eq!(world.recovered_messages, 3);
    let world = world.restart(&with, NOW).await;
    world.nothing_owed().await;
    assert_eq!(server.bodies().into_iter().collect::<BTreeSet<_>>().len(), 3);
}
