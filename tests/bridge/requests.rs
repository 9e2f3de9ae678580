//! What a target gets of a message, from PUBLISH to the request: filters, templates, batches and signatures.

use std::sync::Arc;

use axum::{Router, body::Bytes, extract::State};
use causeway::broker::Replay;
use causeway::codec::Qos;
use causeway::config::Config;
use causeway::record::DeadLetterReason;
use http::{HeaderMap, Method, Uri};
use parking_lot::Mutex;
use serde_json::Value as Json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::world::{NOW, World, eventually};

/// A request, whatever it was.
#[derive(Clone, Debug)]
struct Seen {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: String,
}

/// A target that takes everything.
struct Target {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Target {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/base", listener.local_addr().unwrap());
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let take = |State(seen): State<Arc<Mutex<Vec<Seen>>>>, method, uri, headers, body: Bytes| async move {
            let body = String::from_utf8_lossy(&body).into_owned();
            seen.lock().push(Seen { method, uri, headers, body });
        };
        let router = Router::new().fallback(take).with_state(Arc::clone(&seen));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, seen, task }
    }

    async fn requests(&self, count: usize) -> Vec<Seen> {
        eventually("requests", || self.seen.lock().len() >= count).await;
        let seen = self.seen.lock().clone();
        assert_eq!(seen.len(), count, "{seen:#?}");
        seen
    }

    /// A route `r` from `plant/+/#` to it, with these keys.
    fn config(&self, keys: &str) -> Config {
        let text = format!(
            "[targets.t]\nurl = \"{}\"\n[[routes]]\nname = \"r\"\ntopics = [\"plant/+/#\"]\ntarget = \"t\"\n{keys}\n",
            self.url
        );
        Config::parse(&text, "a.toml").unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn a_template_knows_message_and_publisher() {
    let target = Target::new().await;
    let keys = "[routes.request]\nmethod = \"PUT\"\npath = \"/{{ captures[0] }}/{{ user_name }}/{{ id }}\"\n\
                query = { v = \"{{ payload.v }}\" }\nheaders = { x-client = \"{{ client_id }}\" }";
    let world = World::new(&target.config(keys)).await;
    let lsn = world.publish_as("ada", Qos::AtLeastOnce, "plant/a b/x", "{\"v\": 1}").await;
    let Seen { method, uri, headers, body } = target.requests(1).await.remove(0);
    assert_eq!(method, Method::PUT);
    let key = headers["idempotency-key"].to_str().unwrap();
    assert!(key.ends_with(&format!("-{}", lsn.0)));
    assert_eq!(uri.to_string(), format!("/base/a%20b/ada/{key}?v=1"));
    assert_eq!(headers["x-client"], "publisher");
    assert_eq!(body, "{\"v\": 1}");
    world.nothing_owed().await;
    world.bridge.shutdown(NOW).await;
}

#[tokio::test]
async fn a_message_that_a_template_has_no_text_for_is_a_dead_letter() {
    let target = Target::new().await;
    let world = World::new(&target.config("[routes.request]\npath = \"/{{ payload.v }}\"")).await;
    for body in ["{}", "{\"v\": \"..\"}", "{\"v\": \"ok\"}"] {
        world.publish(Qos::AtLeastOnce, "plant/1/x", body).await;
    }
    let letters = world.dead_letters(2).await;
    let reasons = letters.iter().map(|filed| filed.letter.reason);
    assert!(reasons.into_iter().all(|reason| reason == DeadLetterReason::Unrenderable));
    assert_eq!(target.requests(1).await[0].uri, "/base/ok");
    world.nothing_owed().await;
    world.bridge.shutdown(NOW).await;
}

#[tokio::test]
async fn a_filter_decides_what_is_sent() {
    let target = Target::new().await;
    let world = World::new(&target.config("filter = \"payload.v > 1 && user_name != 'eve'\"")).await;
    for body in ["{\"v\": 1}", "{\"w\": 2}", "{\"v\": 2}"] {
        world.publish(Qos::AtLeastOnce, "plant/1/x", body).await;
    }
    world.publish_as("eve", Qos::AtLeastOnce, "plant/1/x", "{\"v\": 3}").await;
    world.publish(Qos::AtMostOnce, "plant/1/x", "{\"v\": 0}").await;
    world.publish(Qos::AtMostOnce, "plant/1/x", "{\"v\": 4}").await;
    let letters = world.dead_letters(1).await;
    assert_eq!(letters[0].letter.reason, DeadLetterReason::FilterError);
    assert_eq!(letters[0].letter.message.payload(), b"{\"w\": 2}");
    let mut bodies: Vec<_> = target.requests(2).await.into_iter().map(|seen| seen.body).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, ["{\"v\": 2}", "{\"v\": 4}"]);
    world.nothing_owed().await;
    world.bridge.shutdown(NOW).await;
}

/// All of a backlog that waits goes in one request, once, with an id that stands for exactly these messages.
#[tokio::test]
async fn a_batch_is_lines_of_json() {
    let target = Target::new().await;
    let keys =
        "order = \"none\"\n[routes.batch]\ncount = 10\nlinger = \"10m\"\n[routes.request]\nbody = \"json\"";
    let world = World::new(&target.config(keys)).await;
    for number in 0..10 {
        world.publish_as("ada", Qos::AtLeastOnce, "plant/1/x", &number.to_string()).await;
    }
    let seen = target.requests(1).await.remove(0);
    assert_eq!(seen.headers["content-type"], "application/x-ndjson");
    assert!(seen.headers["webhook-id"].to_str().unwrap().starts_with("batch-"));
    let lines: Vec<Json> = seen.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let payloads: Vec<_> = lines.iter().map(|line| line["payload"].as_u64().unwrap()).collect();
    assert_eq!(payloads, (0..10).collect::<Vec<_>>());
    assert!(lines.iter().all(|line| line["user_name"] == "ada" && line["id"].is_string()));
    world.nothing_owed().await;
    world.bridge.shutdown(NOW).await;
}

/// A dead letter has the user name of its publisher, and a replay sends what the first attempt sent.
#[tokio::test]
async fn a_replay_sends_the_same_request() {
    let target = Target::new().await;
    let refusing = target.config("[routes.request]\nbody = \"json\"\npath = \"/{{ payload.missing }}\"");
    let world = World::new(&refusing).await;
    world.publish_as("ada", Qos::AtLeastOnce, "plant/1/x", "{}").await;
    let letter = world.dead_letters(1).await.remove(0);
    let key = causeway::record::Lsn(letter.letter.message_no.0);
    let world = world.restart(&target.config("[routes.request]\nbody = \"json\""), NOW).await;
    world.letters.replay(letter.id, &Replay::default()).await.unwrap();
    let seen = target.requests(1).await.remove(0);
    let json: Json = serde_json::from_str(&seen.body).unwrap();
    assert_eq!(json["user_name"], "ada");
    assert!(json["id"].as_str().unwrap().ends_with(&format!("-{}", key.0)));
    assert_eq!(json["id"], seen.headers["idempotency-key"].to_str().unwrap());
    world.nothing_owed().await;
    world.bridge.shutdown(NOW).await;
}

/// What `+` stands for is that of the filters that a reload has put in force, in the path and in the content filter.
#[tokio::test]
async fn captures_are_those_of_the_filters_of_now() {
    let target = Target::new().await;
    let keys = "filter = 'captures[0] != \"\"'\n[routes.request]\npath = \"/{{ captures[0] }}\"";
    let mut config = target.config(keys);
    let world = World::new(&config).await;
    world.publish(Qos::AtLeastOnce, "plant/1/x", "a").await;
    target.requests(1).await;
    config.routes[0].topics = vec!["site/plant/+".into()];
    world.bridge.change(&config, None).unwrap();
    world.publish(Qos::AtLeastOnce, "site/plant/7", "b").await;
    world.nothing_owed().await;
    world.dead_letters(0).await;
    assert_eq!(target.requests(2).await[1].uri.path(), "/base/7");
    world.bridge.shutdown(NOW).await;
}
