//! Another configuration while messages flow: nothing is lost, nothing is posted twice, and what is as before is
//! left alone.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use causeway::bridge::{BreakerState, BridgeError, Leftover, RemovedError, RemovedRoute, RouteStatus};
use causeway::codec::Qos;
use causeway::config::Config;
use causeway::record::{Addressee, DeadLetterReason};

use crate::world::{Answer, NOW, Server, World, config, eventually, route, target};

/// Without its routes.
fn without_routes(config: &Config) -> Config {
    Config { routes: Vec::new(), ..config.clone() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_reload() {
    const MESSAGES: usize = 1000;
    let (first, second) = (Server::answering(200).await, Server::answering(200).await);
    let start = config(target(&first.url));
    let world = World::new(&start).await;
    let other_filters = {
        let mut config = start.clone();
        config.routes[0].topics = vec!["+/1".into(), "plant/1".into()];
        config.routes[0].exclude = vec!["plant/2".into()];
        config
    };
    let other_settings = {
        let mut config = other_filters.clone();
        config.targets.insert("t".into(), target(&second.url));
        config
    };
    let other_target = {
        let mut config = start.clone();
        config.targets.insert("u".into(), target(&second.url));
        config.routes[0].target = "u".into();
        config.routes[0].queue.messages = 1_000_000;
        config
    };
    let world = Arc::new(world);
    let publishing = Arc::new(());
    let changing = tokio::task::spawn_blocking({
        let (world, publishing) = (Arc::clone(&world), Arc::downgrade(&publishing));
        let configs = [start, other_filters, other_settings, other_target];
        move || {
            let mut changes = 0;
            for config in configs.iter().cycle().take_while(|_| publishing.strong_count() > 0) {
                changes += usize::from(!world.bridge.change(config, None).unwrap().is_empty());
                std::thread::sleep(Duration::from_millis(1));
            }
            changes
        }
    });
    world.publish_many(MESSAGES).await;
    drop(publishing);
    let changes = changing.await.unwrap();
    assert!(changes > 20, "{changes}");
    world.nothing_owed().await;
    let bodies = [first.bodies(), second.bodies()].concat();
    assert!(first.count() > 0 && second.count() > 0, "both had their turn");
    let missing: Vec<_> = (0..MESSAGES).filter(|number| !bodies.contains(&number.to_string())).collect();
    assert!(missing.is_empty(), "lost: {missing:?}");
    let different: BTreeSet<_> = bodies.iter().collect();
    assert_eq!(bodies.len(), different.len(), "nothing was posted twice");
}

#[tokio::test]
async fn attempts_in_flight_end_before_the_new_settings_begin() {
    let (first, second) = (Server::new(|_, _| Answer::Hold).await, Server::answering(200).await);
    let before = config(target(&first.url));
    let world = World::new(&before).await;
    world.publish_many(3).await;
    eventually("three attempts", || first.under_way() == 3).await;
    let after = config(target(&second.url));
    assert_eq!(world.bridge.change(&after, None).unwrap().changed, ["r"]);
    world.publish(Qos::AtLeastOnce, "plant/1", "new").await;
    assert_eq!(second.count(), 0, "the attempts at the old target are under way");
    first.now_answers(|_, _| Answer::Status(200));
    world.nothing_owed().await;
    assert_eq!(second.bodies(), ["new"]);
    assert_eq!(first.count(), 3);
}

#[tokio::test]
async fn qos_0_messages_that_wait_are_sent_by_the_new_settings_in_their_order() {
    let (first, second) = (Server::new(|_, _| Answer::Hold).await, Server::answering(200).await);
    let one_at_a_time = |server: &Server| {
        let mut target = target(&server.url);
        target.concurrency = 1;
        config(target)
    };
    let world = World::new(&one_at_a_time(&first)).await;
    for body in ["a", "b", "c"] {
        world.publish(Qos::AtMostOnce, "plant/1", body).await;
        eventually("one attempt", || first.under_way() == 1).await;
    }
    world.bridge.change(&one_at_a_time(&second), None).unwrap();
    first.now_answers(|_, _| Answer::Status(200));
    eventually("the others", || second.count() == 2).await;
    assert_eq!((first.bodies(), second.bodies()), (vec!["a".into()], vec!["b".into(), "c".into()]));
}

#[tokio::test]
async fn what_is_as_before_is_left_alone() {
    let down = Server::new(|_, _| Answer::Status(503)).await;
    let up = Server::answering(200).await;
    let mut config = config(target(&down.url));
    let world = World::new(&config).await;
    world.publish_many(3).await;
    let breaker = || world.bridge.states()[0].breaker;
    eventually("the breaker opens", || breaker() != BreakerState::Closed).await;
    let probe = Duration::from_secs(3600);
    config.targets.get_mut("t").unwrap().breaker.probe_interval = probe;
    config.targets.get_mut("t").unwrap().breaker.probe_interval_max = probe;
    world.bridge.change(&config, None).unwrap();
    eventually("the breaker of the new target opens", || breaker() == BreakerState::Open).await;
    let seen = down.count();

    config.targets.insert("up".into(), target(&up.url));
    config.routes.push(route("new", "plant/#", "up"));
    let changed = world.bridge.change(&config, None).unwrap();
    assert_eq!((changed.added, changed.changed, changed.removed), (vec!["new".into()], vec![], vec![]));
    world.publish(Qos::AtLeastOnce, "plant/1", "later").await;
    eventually("the new route carries", || up.bodies() == ["later"]).await;
    assert_eq!(breaker(), BreakerState::Open, "the old target keeps its breaker");
    assert_eq!(down.count(), seen);
    assert!(world.bridge.change(&config, None).unwrap().is_empty());
}

#[tokio::test]
async fn other_filters_alone_leave_the_task_its_attempts() {
    let server = Server::new(|_, _| Answer::Hold).await;
    let mut config = config(target(&server.url));
    let world = World::new(&config).await;
    world.publish(Qos::AtLeastOnce, "plant/1", "a").await;
    eventually("an attempt", || server.under_way() == 1).await;
    config.routes[0].topics = vec!["other/#".into()];
    world.bridge.change(&config, None).unwrap();
    world.publish(Qos::AtLeastOnce, "other/1", "b").await;
    eventually("the attempt goes on beside a new one", || server.under_way() == 2).await;
    assert_eq!(server.bodies(), ["a", "b"]);
}

#[tokio::test]
async fn a_certificate_that_was_renewed_under_its_name_is_read_again() {
    let server = Server::answering(200).await;
    let folder = tempfile::tempdir().unwrap();
    let (ca, mut config) = (folder.path().join("ca.pem"), config(target(&server.url)));
    let renew = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap();
        std::fs::write(&ca, certificate.pem()).unwrap();
    };
    renew();
    config.targets.get_mut("t").unwrap().tls.ca_file = Some(ca.clone());
    let world = World::new(&config).await;
    assert!(world.bridge.change(&config, None).unwrap().is_empty());
    renew();
    assert_eq!(world.bridge.change(&config, None).unwrap().changed, ["r"]);
    std::fs::write(&ca, "nothing").unwrap();
    assert!(world.bridge.change(&config, None).unwrap_err().to_string().contains("ca.pem"));
    world.publish(Qos::AtLeastOnce, "plant/1", "a").await;
    world.nothing_owed().await;
}

#[tokio::test]
async fn a_wrong_configuration_changes_nothing() {
    let server = Server::answering(200).await;
    let right = config(target(&server.url));
    let world = World::new(&right).await;
    let mut wrong = right.clone();
    wrong.routes[0].topics = vec!["other/#".into()];
    wrong.targets.get_mut("t").unwrap().tls.ca_file = Some("not/there.pem".into());
    let error = world.bridge.change(&wrong, None).unwrap_err();
    assert!(error.to_string().contains("not/there.pem"), "{error}");
    world.publish(Qos::AtLeastOnce, "plant/1", "a").await;
    eventually("delivered as before", || server.count() == 1).await;
}

#[tokio::test]
async fn a_route_with_a_backlog_is_not_removed_without_a_word() {
    let server = Server::new(|_, _| Answer::Status(503)).await;
    let with = config(target(&server.url));
    let without = without_routes(&with);
    let world = World::new(&with).await;
    world.publish_many(3).await;
    let Err(BridgeError::Leftover(routes)) = world.bridge.change(&without, None) else {
        panic!("nobody said what becomes of three messages");
    };
    let bytes = routes[0].bytes;
    assert_eq!(routes, [RemovedRoute { name: "r".into(), messages: 3, bytes }]);
    world.publish(Qos::AtLeastOnce, "plant/1", "3").await;
    assert_eq!(world.owed(), 4, "it still takes messages");

    world.bridge.change(&without, Some(Leftover::Keep)).unwrap();
    let state = &world.bridge.states()[0];
    assert_eq!((state.status, state.queued_messages), (RouteStatus::Removed, 4));
    assert_eq!(world.broker.routes().len(), 0, "it takes none any more");

    // Put back, also over a restart.
    let world = world.restart(&without, NOW).await;
    assert_eq!(world.bridge.states()[0].status, RouteStatus::Removed);
    server.now_answers(|_, _| Answer::Status(200));
    let seen = server.count();
    world.bridge.change(&with, None).unwrap();
    world.nothing_owed().await;
    assert_eq!(server.count() - seen, 4);
}

#[tokio::test]
async fn what_a_removed_route_is_owed_becomes_dead_letters() {
    let server = Server::new(|_, _| Answer::Status(503)).await;
    let with = config(target(&server.url));
    let world = World::new(&with).await;
    world.publish_many(300).await;
    let configured = world.bridge.dead_letter_removed("r").unwrap_err();
    assert_eq!(configured, RemovedError::Configured("r".into()));
    world.bridge.change(&without_routes(&with), Some(Leftover::DeadLetter)).unwrap();
    let letters = world.dead_letters(300).await;
    assert!(letters.iter().all(|filed| filed.letter.reason == DeadLetterReason::TargetRemoved));
    let addressee = Addressee::Route { route: "r".into(), target: "t".into() };
    assert_eq!(letters[0].letter.addressee, addressee);
    eventually("the route is settled", || world.bridge.states().is_empty()).await;
    let numbers: BTreeSet<_> = letters.iter().map(|filed| filed.letter.message_no).collect();
    assert_eq!(numbers.len(), 300, "each message once");

    let world = world.restart(&without_routes(&with), NOW).await;
    assert_eq!((world.recovered_messages, world.bridge.states().len()), (0, 0));
}

#[tokio::test]
async fn dead_letters_that_have_no_room_leave_the_rest_where_it_is() {
    let server = Server::new(|_, _| Answer::Status(503)).await;
    let mut with = config(target(&server.url));
    with.limits.dead_letters = 100;
    let world = World::new(&with).await;
    world.publish_many(600).await;
    world.bridge.change(&without_routes(&with), Some(Leftover::DeadLetter)).unwrap();
    let state = || world.bridge.states()[0].clone();
    eventually("it says why", || state().last_error.is_some()).await;
    let filed = world.broker.store.dead_letters().0;
    assert_eq!((state().status, state().queued_messages), (RouteStatus::Removed, 600 - filed));
    assert!((100..600).contains(&filed), "{filed}");
    assert!(state().last_error.unwrap().error.contains("no room among the dead letters"));
}

#[tokio::test]
async fn a_removed_route_is_discarded_for_good() {
    let server = Server::new(|_, _| Answer::Status(503)).await;
    let with = config(target(&server.url));
    let world = World::new(&with).await;
    world.publish_many(3).await;
    let world = world.restart(&without_routes(&with), NOW).await;
    assert_eq!(world.bridge.discard_removed("x").unwrap_err(), RemovedError::Unknown("x".into()));
    assert_eq!(world.bridge.discard_removed("r").unwrap().messages, 3);
    eventually("it is gone", || world.bridge.states().is_empty()).await;
    assert!(world.broker.known_routes().is_empty());

    let world = world.restart(&with, NOW).await;
    assert_eq!((world.recovered_messages, world.owed()), (0, 0));
    server.now_answers(|_, _| Answer::Status(200));
    world.publish(Qos::AtLeastOnce, "plant/1", "new").await;
    world.nothing_owed().await;
    assert_eq!(server.of("new").len(), 1);
}
