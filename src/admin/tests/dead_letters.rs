//! Dead letters: listed page by page, shown and discarded.

use serde_json::json;

use super::*;
use crate::{
    codec::Qos,
    record::{Addressee, DeadLetter, DeadLetterReason, Lsn, Message, MessageParts, UnixMillis},
};

fn letter(admin: &Admin, route: Option<&str>, reason: DeadLetterReason, payload: &[u8]) -> DeadLetter {
    let parts = MessageParts {
        qos: Qos::AtLeastOnce,
        retain: false,
        published_at: UnixMillis(1_700_000_000_000),
        expires_at: UnixMillis::NEVER,
        topic: "a/b",
        properties: &[],
        payload,
        publisher: "boat",
    };
    let addressee = match route {
        Some(route) => Addressee::Route { route: route.into(), target: "erp".into() },
        None => Addressee::Session { client_id: "c".into() },
    };
    let message = Message::new(&parts, &mut Vec::new());
    let letter = DeadLetter::new(reason, addressee, message, admin.broker.clock.now());
    DeadLetter { message_no: Lsn(1), ..letter }
}

/// Files three letters of route `orders`, of which one was rejected, and one of a session.
pub(crate) async fn file(admin: &Admin) -> Vec<u64> {
    let of = [
        (Some("orders"), DeadLetterReason::MaxAge),
        (Some("orders"), DeadLetterReason::Rejected),
        (None, DeadLetterReason::QueueFull),
        (Some("orders"), DeadLetterReason::MaxAge),
    ];
    let mut filed = Vec::new();
    for (route, reason) in of {
        let letter = letter(admin, route, reason, b"\x01payload");
        let id = admin.broker.file_dead_letter(&letter, Vec::new()).unwrap();
        admin.broker.store.durable(id).await.unwrap();
        filed.push(id.0);
    }
    filed
}

fn ids(list: &Value) -> Vec<u64> {
    list["dead_letters"].as_array().unwrap().iter().map(|letter| letter["id"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn letters_are_listed_page_by_page_and_by_route_and_reason() {
    let admin = Admin::start().await;
    let filed = file(&admin).await;
    let list = admin.get("/api/v1/dead-letters").await.json();
    assert_eq!((ids(&list), &list["next"]), (filed.clone(), &Value::Null));
    assert_eq!(list["dead_letters"][0]["payload_text"], "\u{1}payload");

    let page = admin.get("/api/v1/dead-letters?limit=3").await.json();
    assert_eq!((ids(&page), &page["next"]), (filed[..3].to_vec(), &json!(filed[2])));
    let page = admin.get(&format!("/api/v1/dead-letters?limit=3&after={}", filed[2])).await.json();
    assert_eq!((ids(&page), &page["next"]), (filed[3..].to_vec(), &Value::Null));

    let found = async |query: &str| ids(&admin.get(&format!("/api/v1/dead-letters?{query}")).await.json());
    assert_eq!(found("route=orders").await, [filed[0], filed[1], filed[3]]);
    assert_eq!(found("reason=max_age").await, [filed[0], filed[3]]);
    assert_eq!(found("route=orders&reason=rejected").await, [filed[1]]);
    assert_eq!(found("client_id=c").await, [filed[2]]);
    assert_eq!(found("route=none").await, [0; 0]);
    let (status, error) = admin.get("/api/v1/dead-letters?reason=bad").await.refusal();
    assert_eq!((status, error.as_str()), (400, "no dead letter has this reason"));
}

#[tokio::test]
async fn a_page_ends_when_it_has_enough_bytes() {
    let admin = Admin::start().await;
    for _ in 0..5 {
        let letter = letter(&admin, None, DeadLetterReason::QueueFull, &[0; 1 << 20]);
        let id = admin.broker.file_dead_letter(&letter, Vec::new()).unwrap();
        admin.broker.store.durable(id).await.unwrap();
    }
    let page = admin.get("/api/v1/dead-letters").await.json();
    assert_eq!(ids(&page).len(), 4);
    let rest = admin.get(&format!("/api/v1/dead-letters?after={}", page["next"])).await.json();
    assert_eq!((ids(&rest).len(), &rest["next"]), (1, &Value::Null));
}

#[tokio::test]
async fn one_letter_is_shown_and_discarded() {
    let admin = Admin::start().await;
    let filed = file(&admin).await;
    let path = format!("/api/v1/dead-letters/{}", filed[1]);
    assert_eq!(admin.get(&path).await.json()["reason"], "rejected");
    assert_eq!(admin.ask(Method::DELETE, &path, &[]).await.status, 204);
    assert_eq!(admin.get(&path).await.refusal().0, 404);
    assert_eq!(admin.ask(Method::DELETE, &path, &[]).await.refusal().0, 404);
    assert_eq!(admin.broker.store.dead_letters().0, 3);
    assert_eq!(admin.get("/api/v1/dead-letters/0").await.refusal().0, 404);
    assert_eq!(admin.get("/api/v1/dead-letters/x").await.refusal().0, 400);
}

#[tokio::test]
async fn all_that_a_filter_keeps_are_discarded() {
    let admin = Admin::start().await;
    let filed = file(&admin).await;
    let discard = async |query: &str| {
        admin.ask(Method::POST, &format!("/api/v1/dead-letters/discard-all{query}"), &[]).await.json()["done"]
            .clone()
    };
    assert_eq!(discard("?route=orders&reason=max_age").await, 2);
    assert_eq!(ids(&admin.get("/api/v1/dead-letters").await.json()), [filed[1], filed[2]]);
    assert_eq!(discard("").await, 2);
    assert_eq!(discard("").await, 0);
    assert_eq!(admin.broker.store.dead_letters(), (0, 0));
}

#[tokio::test]
async fn a_letter_is_replayed_to_its_route_and_stays_when_that_is_gone() {
    // A target that nobody listens at: what is replayed waits.
    let config = "[targets.erp]\nurl = \"http://127.0.0.1:1/\"\n\
                  [[routes]]\nname = \"orders\"\ntopics = [\"orders/#\"]\ntarget = \"erp\"\n";
    let admin = Admin::with(&Config::parse(config, "c.toml").unwrap()).await;
    let filed = file(&admin).await;
    let replay = async |id: u64| {
        let path = format!("/api/v1/dead-letters/{id}/replay");
        admin.ask(Method::POST, &path, &[]).await
    };
    assert_eq!(replay(filed[0]).await.status, 204);
    assert_eq!(replay(filed[0]).await.refusal().0, 404);
    let (status, error) = replay(filed[2]).await.refusal();
    assert_eq!(status, 409);
    assert!(error.starts_with("client \"c\" has no durable session"), "{error}");

    let done = admin.ask(Method::POST, "/api/v1/dead-letters/replay-all", &[]).await.json();
    assert_eq!((&done["done"], &done["left"]), (&json!(2), &json!(1)));
    assert!(done["why"].as_str().unwrap().starts_with("client \"c\""));
    assert_eq!(ids(&admin.get("/api/v1/dead-letters").await.json()), [filed[2]]);

    let routes = admin.get("/api/v1/routes").await.json();
    let route = &routes["routes"][0];
    assert_eq!((&route["name"], &route["target"]), (&json!("orders"), &json!("erp")));
    assert_eq!((&route["queued_messages"], &route["oldest_age_seconds"]), (&json!(3), &json!(0)));
}
