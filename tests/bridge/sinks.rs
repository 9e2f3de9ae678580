//! Where dead letters go beside the store, and where they come back from.

use std::path::Path;

use causeway::bridge::{Import, ImportError, Imported};
use causeway::broker::Replay;
use causeway::codec::{PropertyChanges, PublishProperties, Qos, SubscribeOptions};
use causeway::config::{Config, QueueConfig, RouteConfig, SinkConfig};
use causeway::record::{DeadLetterReason, Lsn};
use causeway::session::SubscribeRequest;
use causeway::topic::SubscriptionFilter;
use serde_json::Value;

use crate::world::{NOW, Server, World, attach, config, eventually, route, target};

/// A durable session that subscribes to this filter with QoS 1, and is not there.
async fn subscriber(world: &World, client_id: &str, filter: &str) -> causeway::record::RecipientNo {
    let slot = attach(&world.broker, client_id, Some(3600)).await;
    let request = SubscribeRequest {
        filter: SubscriptionFilter::parse(filter, 10).unwrap(),
        options: SubscribeOptions { qos: Qos::AtLeastOnce, ..Default::default() },
        id: None,
    };
    let rights = world.broker.auth.rights_of_absent(None, client_id).unwrap();
    world.broker.subscribe(&slot, vec![Ok(request)], &rights).unwrap();
    slot.durable().unwrap().recipient
}

/// Topic, payload and user properties.
type Told = (String, String, Vec<(String, String)>);

/// What a session is owed.
fn owed(world: &World, recipient: causeway::record::RecipientNo) -> Vec<Told> {
    let store = &world.broker.store;
    let page = store.read_after(recipient, (Lsn::ZERO, store.watermark()), 100, |_| false).unwrap();
    let told = |message: &causeway::record::Message| {
        let properties = PublishProperties::from_forwarded(message.properties());
        let pairs = properties.user_properties().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let payload = String::from_utf8(message.payload().to_vec()).unwrap();
        (message.topic().to_owned(), payload, pairs.collect())
    };
    page.messages.iter().map(|stored| told(&stored.message)).collect()
}

fn with_sink(url: &str, dead_letters: SinkConfig) -> Config {
    let mut config = config(target(url));
    config.routes = vec![RouteConfig { dead_letters, ..route("r", "plant/#", "t") }];
    config
}

fn topic_sink() -> SinkConfig {
    SinkConfig { topic: Some("$dead".into()), ..Default::default() }
}

#[tokio::test]
async fn a_dead_letter_is_published_with_what_went_wrong() {
    let server = Server::answering(422).await;
    let world = World::new(&with_sink(&server.url, topic_sink())).await;
    let of_dead = subscriber(&world, "of-dead", "$dead/r/#").await;
    let of_all = subscriber(&world, "of-all", "#").await;
    let lsn = world.publish(Qos::AtLeastOnce, "plant/1", "m").await;
    let letters = world.dead_letters(1).await;
    let owed_dead = owed(&world, of_dead);
    let (topic, payload, told) = &owed_dead[0];
    assert_eq!((owed_dead.len(), topic.as_str(), payload.as_str()), (1, "$dead/r/plant/1", "m"));
    let key = world.broker.store.id_of(lsn);
    let expected = [
        ("dead-letter-reason", "rejected"),
        ("dead-letter-route", "r"),
        ("dead-letter-target", "t"),
        ("dead-letter-key", &format!("{key:016x}-{}", lsn.0)),
        ("dead-letter-attempts", "1"),
        ("dead-letter-status", "422"),
    ];
    assert_eq!(told.iter().map(|(name, value)| (&**name, &**value)).collect::<Vec<_>>(), expected);
    // One record holds the letter, the settlement and what is published.
    let store = &world.broker.store;
    assert_eq!(store.oldest(of_dead).unwrap(), Some(letters[0].id));
    // [MQTT-4.7.2-1] No wildcard at the beginning matches it.
    let topics: Vec<_> = owed(&world, of_all).into_iter().map(|(topic, ..)| topic).collect();
    assert_eq!(topics, ["plant/1"]);
}

#[tokio::test]
async fn a_second_target_gets_what_the_first_does_not_and_its_own_letters_go_nowhere_else() {
    let (first, second) = (Server::answering(400).await, Server::answering(200).await);
    let text = format!(
        "[targets.t]\nurl = \"{}\"\n[targets.u]\nurl = \"{}\"\n[[routes]]\nname = \"r\"\ntopics = [\"plant/#\"]\n\
         target = \"t\"\ndead_letter_sink = \"u\"\n",
        first.url, second.url
    );
    let config = Config::parse(&text, "c.toml").unwrap();
    assert_eq!(config.routes[1].name, "r.dead");
    let world = World::new(&config).await;
    world.publish(Qos::AtLeastOnce, "plant/1", "m").await;
    eventually("the second target has it", || second.count() == 1).await;
    let got = &second.of("m")[0];
    assert_eq!(got.header("mqtt-topic"), "$dead/r/plant/1");
    // Without an answer there is no status; everything else is always there.
    let told = ["dead-letter-reason", "dead-letter-route", "dead-letter-target", "dead-letter-attempts"];
    assert_eq!(told.map(|name| got.header(name)), ["rejected", "r", "t", "1"]);
    assert_eq!(got.header("dead-letter-status"), "400");
    world.dead_letters(1).await;
    // A failing sink loses nothing, and makes no loop.
    second.now_answers(|_, _| crate::world::Answer::Status(400));
    world.publish(Qos::AtLeastOnce, "plant/2", "n").await;
    let letters = world.dead_letters(3).await;
    let topics: Vec<_> = letters.iter().map(|filed| filed.letter.message.topic()).collect();
    assert_eq!(topics, ["plant/1", "plant/2", "$dead/r/plant/2"]);
    assert_eq!((first.count(), second.count()), (2, 2));
}

#[tokio::test]
async fn what_a_full_queue_gives_up_is_published_too() {
    let server = Server::new(|_, _| crate::world::Answer::Hold).await;
    let mut config = with_sink(&server.url, topic_sink());
    config.routes[0].queue = QueueConfig { messages: 1, ..QueueConfig::default() };
    let world = World::new(&config).await;
    let of_dead = subscriber(&world, "of-dead", "$dead/#").await;
    world.publish(Qos::AtLeastOnce, "plant/1", "0").await;
    let receipt = world.offer(Qos::AtLeastOnce, "plant/1", "1").await;
    world.broker.store.durable(receipt).await.unwrap();
    assert_eq!(world.dead_letters(1).await[0].letter.reason, DeadLetterReason::QueueFull);
    let told = owed(&world, of_dead);
    assert_eq!((told.len(), told[0].0.as_str(), told[0].1.as_str()), (1, "$dead/r/plant/1", "1"));
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test]
async fn a_file_gets_every_letter_once_also_over_a_restart_that_cut_it() {
    let server = Server::answering(400).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.ndjson");
    let config = with_sink(&server.url, SinkConfig { file: Some(path.clone()), ..Default::default() });
    let world = World::new(&config).await;
    world.publish_many(3).await;
    eventually("three lines", || lines(&path).len() == 3).await;
    let bodies = |path: &Path| -> Vec<String> {
        lines(path).iter().map(|line| line["payload_text"].as_str().unwrap().to_owned()).collect()
    };
    let before = bodies(&path);
    // As a crash leaves it: the last line is cut, and was not told of.
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 20]).unwrap();
    let world = world.restart(&config, NOW).await;
    world.publish(Qos::AtLeastOnce, "plant/1", "3").await;
    eventually("four lines", || lines(&path).len() == 4).await;
    assert_eq!(bodies(&path), [&before[..], &["3".to_owned()]].concat());
}

/// [dead_letter_replay] Exported, discarded, imported and replayed: the target sees the same under the same key.
#[tokio::test]
async fn what_was_exported_comes_back_as_it_was() {
    let server = Server::answering(422).await;
    let world = World::new(&config(target(&server.url))).await;
    world.publish_many(2).await;
    let filed = world.dead_letters(2).await;
    let export: Vec<_> = filed.iter().map(|filed| serde_json::to_string(&filed.view()).unwrap()).collect();
    let import = async |lines: &[String]| {
        let mut import = Import::begin(&world.letters).await?;
        for line in lines {
            import.line(line.as_bytes()).await?;
        }
        import.finish().await
    };
    let counted = |imported, known| Imported { imported, known, new_keys: 0 };
    assert_eq!(import(&export).await.unwrap(), counted(0, 2), "they are there");
    world.letters.discard(filed.iter().map(|filed| filed.id).collect()).await.unwrap();
    assert_eq!(import(&export).await.unwrap(), counted(2, 0));
    assert_eq!(import(&export).await.unwrap(), counted(0, 2), "twice is harmless");

    let again = world.dead_letters(2).await;
    for (filed, before) in again.iter().zip(&filed) {
        assert!(filed.id > before.id);
        let mut letter = filed.letter.clone();
        assert_eq!(letter.imported_from.take(), Some(before.filed_as()));
        assert_eq!(letter, before.letter, "nothing is missing");
    }
    // What is exported once more is the same letter.
    let second: Vec<_> = again.iter().map(|filed| serde_json::to_string(&filed.view()).unwrap()).collect();
    assert_eq!(import(&second).await.unwrap(), counted(0, 2));

    server.now_answers(|_, _| crate::world::Answer::Status(200));
    world.letters.replay(again[0].id, &Replay::default()).await.unwrap();
    eventually("it is taken", || server.of("0").len() == 2).await;
    let keys: Vec<_> = server.of("0").iter().map(|seen| seen.header("idempotency-key").to_owned()).collect();
    assert_eq!(keys[0], keys[1]);
    world.nothing_owed().await;
}

#[tokio::test]
async fn a_line_that_is_no_letter_is_named_and_what_is_before_it_is_filed() {
    let server = Server::answering(422).await;
    let world = World::new(&config(target(&server.url))).await;
    world.publish_many(1).await;
    let filed = world.dead_letters(1).await.remove(0);
    world.letters.discard(vec![filed.id]).await.unwrap();
    let good = serde_json::to_value(filed.view()).unwrap();
    let with = |key: &str, value: Value| {
        let mut line = good.clone();
        line[key] = value;
        line.to_string()
    };
    let mut import = Import::begin(&world.letters).await.unwrap();
    import.line(good.to_string().as_bytes()).await.unwrap();
    import.line(b"\n").await.unwrap();
    for (line, why) in [
        ("{".to_owned(), "EOF while parsing an object"),
        ("{}".to_owned(), "missing field `filed_as`"),
        (with("qos", 0.into()), "its qos is not 1 or 2"),
        (with("reason", "bored".into()), "no reason is \"bored\""),
        (with("payload_base64", "*".into()), "payload_base64 is no base64: Invalid symbol 42, offset 0."),
        (
            with("properties_base64", "/w==".into()),
            "properties_base64 holds what is no property of a message",
        ),
        (with("topic", "a/#".into()), "its topic"),
        (with("filed_as", "7".into()), "filed_as is \"7\""),
        (with("client_id", "c".into()), "it is for a route and its target, or for a client_id"),
    ] {
        let number = import.line(line.as_bytes()).await;
        let Err(ImportError::Line { why: said, .. }) = number else { panic!("{line}: {number:?}") };
        assert!(said.starts_with(why), "{said}");
    }
    assert_eq!(import.finish().await.unwrap().imported, 1);
    let of_another = with("idempotency_key", "00000000000000ab-7".into());
    let of_another: Value = serde_json::from_str(&of_another).unwrap();
    let mut line = of_another;
    line["filed_as"] = "00000000000000ab-9".into();
    let mut import = Import::begin(&world.letters).await.unwrap();
    import.line(line.to_string().as_bytes()).await.unwrap();
    let imported = import.finish().await.unwrap();
    assert_eq!(imported, Imported { imported: 1, known: 0, new_keys: 1 });
    assert_eq!(world.dead_letters(2).await[1].letter.message_no, Lsn::ZERO, "its number means nothing here");
}

#[tokio::test]
async fn a_replay_may_go_elsewhere_with_other_properties() {
    let (first, second) = (Server::answering(400).await, Server::answering(200).await);
    let mut config = config(target(&first.url));
    config.targets.insert("u".into(), target(&second.url));
    config.routes.push(route("other", "other/#", "u"));
    let world = World::new(&config).await;
    world.publish(Qos::AtLeastOnce, "plant/1", "m").await;
    let id = world.dead_letters(1).await[0].id;
    let properties = PropertyChanges { content_type: Some("text/x-m".into()), ..Default::default() };
    let replay = Replay { to: Some("other".into()), properties };
    world.letters.replay(id, &replay).await.unwrap();
    eventually("the other target has it", || second.count() == 1).await;
    let (seen, before) = (&second.of("m")[0], &first.of("m")[0]);
    assert_eq!(seen.header("content-type"), "text/x-m");
    assert_eq!(seen.header("idempotency-key"), before.header("idempotency-key"));
    assert_eq!((world.broker.store.dead_letters().0, first.count()), (0, 1));
}
