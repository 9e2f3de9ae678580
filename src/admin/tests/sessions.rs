//! Sessions: listed, shown and deleted, whatever their client is called.

use std::num::NonZeroU16;

use serde_json::json;

use super::*;
use crate::{
    broker::{AttachRequest, Attachment, Departure, Link, PublishContext, Source},
    codec::{Connect, PacketId, Publish, PublishProperties, Qos, SubscribeOptions, Version},
    record::Record,
    session::{SubscribeRequest, Terms},
    topic::{SubscriptionFilter, TopicName},
};

/// A durable session with a subscription to `filter`, and its connection.
pub(crate) async fn attach(admin: &Admin, client_id: &str, filter: Option<&str>) -> (Attachment, Arc<Link>) {
    let connect = Connect { session_expiry: Some(60), ..Connect::new(Version::V5, client_id) };
    let terms = Terms::agree(&connect, &LIMITS.session, String::new).unwrap();
    let link = Arc::new(Link::default());
    let request = AttachRequest { terms: &terms, user_name: None, will: None, link: Arc::clone(&link) };
    let attachment = admin.broker.attach(request).await.unwrap();
    if let Some(filter) = filter {
        let filter = SubscriptionFilter::parse(filter, 10).unwrap();
        let options = SubscribeOptions { qos: Qos::AtLeastOnce, ..Default::default() };
        let rights = admin.broker.auth.rights_of_absent(None, client_id).unwrap();
        let request = SubscribeRequest { filter, options, id: None };
        admin.broker.subscribe(&attachment.slot, vec![Ok(request)], &rights).unwrap();
    }
    (attachment, link)
}

/// Publishes to `topic` as this session, and waits until it is durable.
async fn publish(admin: &Admin, publisher: &Attachment, topic: &str, payload: &[u8]) {
    let publish = Publish {
        dup: false,
        qos: Qos::AtLeastOnce,
        retain: false,
        topic,
        packet_id: NonZeroU16::new(1).map(PacketId),
        properties: PublishProperties::default(),
        payload,
    };
    let broker = &admin.broker;
    let rights = broker.auth.rights_of_absent(None, &publisher.slot.client_id).unwrap();
    let source =
        Source { slot: &publisher.slot, durable: publisher.durable, rights: &rights, user_name: None };
    let topic = TopicName::parse(topic, 10).unwrap();
    broker.publish(&mut PublishContext::default(), &source, &publish, &topic, broker.clock.now());
    let last = broker.store.submit(Record::default()).unwrap().lsn;
    broker.store.durable(last).await.unwrap();
}

fn ids(list: &Value) -> Vec<&str> {
    let sessions = list["sessions"].as_array().unwrap();
    sessions.iter().map(|session| session["client_id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_pins_the_most_bytes_comes_first() {
    let admin = Admin::start().await;
    let (small, link) = attach(&admin, "small", Some("a/+")).await;
    admin.broker.detach(&small.slot, &link, Departure::default());
    let (large, link) = attach(&admin, "large", Some("#")).await;
    admin.broker.detach(&large.slot, &link, Departure::default());
    let (publisher, _link) = attach(&admin, "publisher", None).await;
    publish(&admin, &publisher, "a/b", &[0; 100]).await;
    publish(&admin, &publisher, "b", &[0; 100]).await;

    let list = admin.get("/api/v1/sessions").await.json();
    assert_eq!(list["total"], 3);
    assert_eq!(ids(&list), ["large", "small", "publisher"]);
    let large = &list["sessions"][0];
    assert_eq!((&large["queued_messages"], &large["online"]), (&json!(2), &json!(false)));
    assert!(large["queued_bytes"].as_u64().unwrap() > 200);
    assert_eq!(large["oldest_age_seconds"], 0);
    assert_eq!(list["sessions"][2]["oldest_age_seconds"], Value::Null);

    assert_eq!(ids(&admin.get("/api/v1/sessions?limit=1").await.json()), ["large"]);
    assert_eq!(ids(&admin.get("/api/v1/sessions?limit=1&offset=1").await.json()), ["small"]);
    assert_eq!(ids(&admin.get("/api/v1/sessions?offset=2").await.json()), ["publisher"]);
    assert_eq!(admin.get("/api/v1/sessions?offset=9&limit=0").await.json()["sessions"], json!([]));
    assert_eq!(admin.get("/api/v1/sessions?limt=1").await.status, 400);
    assert_eq!(admin.get("/api/v1/sessions?limit=-1").await.status, 400);

    let detail = admin.get("/api/v1/sessions/large").await.json();
    assert_eq!((&detail["filters"], &detail["subscriptions"]), (&json!(["#"]), &json!(1)));
}

#[tokio::test]
async fn any_client_id_can_be_shown_and_deleted() {
    let admin = Admin::start().await;
    let strange = ["a/b", "..", "Zoë 船", "100%", "a?b#c", "a+b&c=d", "\u{1b}[2J", "replay-all", "%2F"];
    for client_id in strange {
        let (_attachment, link) = attach(&admin, client_id, Some("t")).await;
        let encoded = percent_encoding::utf8_percent_encode(client_id, percent_encoding::NON_ALPHANUMERIC);
        let path = format!("/api/v1/sessions/{encoded}");
        let shown = admin.get(&path).await.json();
        assert_eq!((&shown["client_id"], &shown["online"]), (&json!(client_id), &json!(true)));
        assert_eq!(admin.ask(Method::DELETE, &path, &[]).await.status, 204);
        assert!(link.eviction().is_some(), "the connection of {client_id} was not told to go");
        assert_eq!(admin.get(&path).await.refusal().0, 404);
        assert_eq!(admin.ask(Method::DELETE, &path, &[]).await.refusal().0, 404);
    }
    assert_eq!(admin.get("/api/v1/sessions/%ff").await.refusal().0, 400);
    assert_eq!(admin.get("/api/v1/sessions").await.json()["total"], 0);
}

#[tokio::test]
async fn the_gauges_count_sessions_and_the_age_of_what_they_are_owed() {
    let admin = Admin::start().await;
    let (offline, link) = attach(&admin, "offline", Some("a")).await;
    admin.broker.detach(&offline.slot, &link, Departure::default());
    let (publisher, _link) = attach(&admin, "online", None).await;
    assert_eq!(admin.broker.oldest_unsettled(), None);
    publish(&admin, &publisher, "a", b"x").await;
    let counts = admin.broker.session_counts();
    assert_eq!((counts.all, counts.offline), (2, 1));
    let at = admin.broker.oldest_unsettled().unwrap();
    assert!(admin.broker.clock.now().since(at) < Duration::from_secs(60));
}
