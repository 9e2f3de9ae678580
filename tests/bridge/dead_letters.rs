//! What an operator does with dead letters.

use std::time::Duration;

use causeway::bridge::{DeadLetterFilter, DeadLettersError};

use causeway::broker::{Replay, ReplayError};
use causeway::codec::{Qos, SubscribeOptions};
use causeway::config::Jitter;
use causeway::record::{Addressee, DeadLetter, DeadLetterReason, Lsn, Message, MessageParts, UnixMillis};
use causeway::session::SubscribeRequest;
use causeway::topic::SubscriptionFilter;

use crate::world::{Answer, NOW, Server, World, attach, config, eventually, target};

fn letter(addressee: Addressee) -> DeadLetter {
    let parts = MessageParts {
        qos: Qos::AtLeastOnce,
        retain: false,
        published_at: UnixMillis(1000),
        expires_at: UnixMillis(2000),
        topic: "plant/1",
        properties: &[],
        payload: b"m",
        publisher: "p",
    };
    let message = Message::new(&parts, &mut Vec::new());
    let letter = DeadLetter::new(DeadLetterReason::Expired, addressee, message, UnixMillis(3000));
    DeadLetter { message_no: Lsn(77), ..letter }
}

async fn filed(world: &World, addressee: Addressee) -> Lsn {
    let lsn = world.broker.file_dead_letter(&letter(addressee), Vec::new()).unwrap();
    world.broker.store.durable(lsn).await.unwrap();
    lsn
}

/// `queued_age` is a limit, whatever the next try waits for.
#[tokio::test]
async fn what_is_too_old_for_its_queue_does_not_wait_for_another_try() {
    let server = Server::answering(500).await;
    let mut config = config(target(&server.url));
    config.routes[0].queue.age = Some(Duration::from_millis(100));
    let retry = &mut config.targets.get_mut("t").unwrap().retry;
    let hour = Duration::from_hours(1);
    (retry.initial, retry.max, retry.jitter) = (hour, hour, Jitter::None);
    let world = World::new(&config).await;
    world.publish(Qos::AtLeastOnce, "plant/1", "x").await;
    let letters = world.dead_letters(1).await;
    assert_eq!(letters[0].letter.reason, DeadLetterReason::QueueAge);
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn a_replay_delivers_the_message_under_its_old_key_and_removes_the_letter() {
    let server = Server::answering(400).await;
    let config = config(target(&server.url));
    let world = World::new(&config).await;
    world.publish(Qos::AtLeastOnce, "plant/1", "m").await;
    let id = world.dead_letters(1).await[0].id;

    // Also when it has to wait over a restart.
    server.now_answers(|_, _| Answer::Hold);
    let replayed = world.letters.replay(id, &Replay::default()).await.unwrap();
    assert!(replayed > id);
    assert_eq!((world.owed(), world.broker.store.dead_letters().0), (1, 0));
    let world = world.restart(&config, NOW).await;
    server.now_answers(|_, _| Answer::Status(200));
    world.nothing_owed().await;
    let seen = server.of("m");
    assert!(seen.len() >= 2);
    assert!(seen.iter().all(|again| again.header("idempotency-key") == seen[0].header("idempotency-key")));
}

#[tokio::test]
async fn a_letter_is_replayed_once_however_many_ask() {
    let server = Server::answering(200).await;
    let world = World::new(&config(target(&server.url))).await;
    let addressee = Addressee::Route { route: "r".into(), target: "t".into() };
    let id = filed(&world, addressee).await;
    let as_it_is = Replay::default();
    let (one, other) = tokio::join!(world.letters.replay(id, &as_it_is), world.letters.replay(id, &as_it_is));
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    let refused = if one.is_ok() { other } else { one };
    assert!(matches!(refused, Err(DeadLettersError::NotFound(_))), "{refused:?}");
    world.nothing_owed().await;
    eventually("it is delivered, although it had expired", || server.count() == 1).await;
}

#[tokio::test]
async fn a_replay_without_an_addressee_says_so_and_keeps_the_letter() {
    let server = Server::answering(200).await;
    let world = World::new(&config(target(&server.url))).await;
    let route = filed(&world, Addressee::Route { route: "gone".into(), target: "t".into() }).await;
    let session = filed(&world, Addressee::Session { client_id: "gone".into() }).await;
    let refused = world.letters.replay(route, &Replay::default()).await;
    assert!(matches!(refused, Err(DeadLettersError::Replay(ReplayError::RouteGone(_)))), "{refused:?}");
    let refused = world.letters.replay(session, &Replay::default()).await;
    assert!(matches!(refused, Err(DeadLettersError::Replay(ReplayError::SessionGone(_)))), "{refused:?}");
    assert_eq!(world.dead_letters(2).await.len(), 2);
}

#[tokio::test]
async fn a_letter_of_a_session_is_owed_to_it_again() {
    let server = Server::answering(200).await;
    let world = World::new(&config(target(&server.url))).await;
    let slot = attach(&world.broker, "c", Some(3600)).await;
    let request = SubscribeRequest {
        filter: SubscriptionFilter::parse("plant/+", 10).unwrap(),
        options: SubscribeOptions { qos: Qos::AtLeastOnce, ..Default::default() },
        id: None,
    };
    let rights = world.broker.auth.rights_of_absent(None, "c").unwrap();
    world.broker.subscribe(&slot, vec![Ok(request)], &rights).unwrap();
    let id = filed(&world, Addressee::Session { client_id: "c".into() }).await;
    let replayed = world.letters.replay(id, &Replay::default()).await.unwrap();
    let (store, durable) = (&world.broker.store, slot.durable().unwrap());
    let oldest = store.oldest(durable.recipient).unwrap();
    assert_eq!((durable.backlog.count(), oldest), (1, Some(replayed)));
    let read = store.read(durable.recipient, &[replayed]).unwrap();
    assert_eq!(read.messages[0].message.payload(), b"m");
    assert_eq!(server.count(), 0, "the route had nothing to do with it");
}

#[tokio::test]
async fn letters_are_listed_page_by_page_and_discarded() {
    let server = Server::answering(400).await;
    let world = World::new(&config(target(&server.url))).await;
    world.publish_many(5).await;
    let ids: Vec<_> = world.dead_letters(5).await.iter().map(|filed| filed.id).collect();
    let list = async |cursor, max, filter| world.letters.list(cursor, max, filter).await.unwrap();

    let first = list(Lsn::ZERO, 2, DeadLetterFilter::default()).await;
    assert_eq!(first.letters.iter().map(|filed| filed.id).collect::<Vec<_>>(), ids[..2]);
    let rest = list(first.next.unwrap(), 100, DeadLetterFilter::default()).await;
    assert_eq!(rest.letters.iter().map(|filed| filed.id).collect::<Vec<_>>(), ids[2..]);
    assert_eq!(rest.next, None);
    let of = |route: &str| DeadLetterFilter { route: Some(route.into()), ..Default::default() };
    assert_eq!(list(Lsn::ZERO, 100, of("r")).await.letters.len(), 5);
    assert_eq!(list(Lsn::ZERO, 100, of("s")).await.letters.len(), 0);
    let expired = DeadLetterFilter { reason: Some(DeadLetterReason::Expired), ..Default::default() };
    assert_eq!(list(Lsn::ZERO, 100, expired).await.letters.len(), 0);

    assert_eq!(world.letters.discard(vec![ids[0], ids[1], ids[1], Lsn(1)]).await.unwrap(), 2);
    assert!(matches!(world.letters.get(ids[0]).await, Err(DeadLettersError::NotFound(_))));
    assert_eq!(world.letters.get(ids[2]).await.unwrap().view().reason, "rejected");
    assert_eq!(world.broker.store.dead_letters().0, 3);
}

#[tokio::test]
async fn tries_are_counted_on_over_a_restart_and_forgotten_with_the_message() {
    let server = Server::new(|_, before| if before < 2 { Answer::Status(500) } else { Answer::Hold }).await;
    let mut target = target(&server.url);
    target.retry.attempts = 4;
    let config = config(target);
    let world = World::new(&config).await;
    world.publish(Qos::AtLeastOnce, "plant/1", "m").await;
    eventually("the third is under way", || server.count() == 3).await;
    let world = world.restart(&config, NOW).await;
    server.now_answers(|_, _| Answer::Status(500));
    let letter = &world.dead_letters(1).await[0].letter;
    let attempts: Vec<_> =
        server.of("m").iter().map(|seen| seen.header("x-delivery-attempt").to_owned()).collect();
    assert_eq!(attempts, ["1", "2", "3", "3", "4"], "the third was broken off");
    let told = letter.attempts.as_ref().unwrap();
    assert_eq!((letter.reason, told.count), (DeadLetterReason::AttemptsExhausted, 4));
    assert_eq!(told.list.len(), 2, "those since the start: {told:?}");
    assert!(told.first_at <= told.list[0].at && told.list[0].at <= told.list[1].at);
    let recipient = world.broker.routes()[0].recipient;
    assert!(world.broker.store.tries(recipient).unwrap().is_empty());
}
