//! What a target answers, as a device sees it that has asked over MQTT.

use causeway::codec::{PublishProperties, Qos};
use causeway::config::Config;
use causeway::record::{DeadLetterReason, Lsn};

use crate::world::{Answer, NOW, Server, World, config, eventually, route, target};

/// A route `r` from `plant/#` that replies, and a route `seen` that carries what is published below `re`.
fn asking(asked: &Server, seen: &Server) -> Config {
    let mut config = config(target(&asked.url));
    config.routes[0].reply_max = Some(1024);
    config.targets.insert("seen".into(), target(&seen.url));
    config.routes.push(route("seen", "re/#", "seen"));
    config
}

/// Response Topic, Correlation Data, and a user property for the hops.
fn properties(topic: &str, hops: Option<u32>) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat();
    let mut properties = [&[0x08][..], &text(topic), &[0x09], &text("id7")].concat();
    if let Some(hops) = hops {
        properties.extend([&[0x26][..], &text("causeway-hops"), &text(&hops.to_string())].concat());
    }
    properties
}

async fn ask(world: &World, qos: Qos, body: &str, raw: &[u8]) -> Lsn {
    let properties = PublishProperties::from_forwarded(raw);
    world.publish_with(qos, "plant/1", body, properties).await
}

#[tokio::test]
async fn every_final_answer_is_published_and_settles_its_request() {
    let asked = Server::new(|seen, before| match (&*seen.body, before) {
        ("no", _) => Answer::Status(422),
        ("later", 0..2) => Answer::Status(500),
        _ => Answer::Status(201),
    })
    .await;
    let seen = Server::answering(200).await;
    let world = World::new(&asking(&asked, &seen)).await;
    for (qos, body) in [
        (Qos::AtMostOnce, "zero"),
        (Qos::AtLeastOnce, "one"),
        (Qos::ExactlyOnce, "later"),
        (Qos::AtLeastOnce, "no"),
    ] {
        let before = seen.count();
        ask(&world, qos, body, &properties(&format!("re/{body}"), None)).await;
        eventually("a reply", || seen.count() == before + 1).await;
        let reply = seen.seen.lock()[before].clone();
        assert_eq!(reply.header("mqtt-topic"), format!("re/{body}"));
        assert_eq!(reply.header("mqtt-qos"), (qos as u8).to_string());
        assert_eq!(reply.header("mqtt-publisher"), "publisher");
    }
    world.dead_letters(1).await;
    world.nothing_owed().await;
    assert_eq!(
        (asked.count(), seen.count()),
        (6, 4),
        "one reply for each request, none for what is tried again"
    );
}

#[tokio::test]
async fn who_asks_for_no_reply_gets_none() {
    let (asked, seen) = (Server::answering(200).await, Server::answering(200).await);
    let world = World::new(&asking(&asked, &seen)).await;
    world.publish(Qos::AtLeastOnce, "plant/1", "a").await;
    ask(&world, Qos::AtLeastOnce, "b", &properties("re/#", None)).await;
    ask(&world, Qos::AtLeastOnce, "c", &properties("$SYS/x", None)).await;
    ask(&world, Qos::AtLeastOnce, "d", &properties("re/d", None)).await;
    eventually("the last has its reply", || seen.count() == 1).await;
    world.nothing_owed().await;
    assert_eq!((asked.count(), seen.seen.lock()[0].header("mqtt-topic").to_owned()), (4, "re/d".to_owned()));
}

#[tokio::test]
async fn loop_guard() {
    // The replies of the route match its own filter.
    let server = Server::answering(200).await;
    let mut config = config(target(&server.url));
    config.routes[0].reply_max = Some(1024);
    let world = World::new(&config).await;
    for hops in [None, Some(6), Some(7), Some(8), Some(u32::MAX)] {
        ask(&world, Qos::AtLeastOnce, "round", &properties("plant/1", hops)).await;
    }
    let letters = world.dead_letters(3).await;
    assert!(letters.iter().all(|filed| filed.letter.reason == DeadLetterReason::Loop));
    let replies = letters.iter().filter(|filed| filed.letter.message.payload().is_empty()).count();
    assert_eq!(replies, 1, "the reply to the seventh hop");
    world.nothing_owed().await;
    assert_eq!(server.count(), 5, "three requests, and the replies to two of them");
}

#[tokio::test]
async fn a_reply_that_waits_outlives_a_restart_and_its_request_is_not_sent_again() {
    let (asked, seen) = (Server::answering(200).await, Server::new(|_, _| Answer::Hold).await);
    let config = asking(&asked, &seen);
    let world = World::new(&config).await;
    ask(&world, Qos::AtLeastOnce, "a", &properties("re/a", None)).await;
    eventually("the reply is on its way", || seen.count() == 1).await;
    let world = world.restart(&config, NOW).await;
    assert_eq!(world.recovered_messages, 1, "the reply, and not the request");
    seen.now_answers(|_, _| Answer::Status(200));
    eventually("the reply comes again", || seen.count() == 2).await;
    assert_eq!(asked.count(), 1);
}
