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
    DeadLetter {
        message_no: Lsn(1),
        reason,
        addressee,
        message: Message::new(&parts, &mut Vec::new()),
        attempts: None,
        created_at: admin.broker.clock.now(),
    }
}

/// Files three letters of route `orders`, of which one was rejected, and one of a session.
async fn file(admin: &Admin) -> Vec<u64> {
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
        admin.ask(Method::POST, &format!("/api/v1/dead-letters/discard-all{query}"), &[]).await.json()["done"].clone()
    };
    assert_eq!(discard("?route=orders&reason=max_age").await, 2);
    assert_eq!(ids(&admin.get("/api/v1/dead-letters").await.json()), [filed[1], filed[2]]);
    assert_eq!(discard("").await, 2);
    assert_eq!(discard("").await, 0);
    assert_eq!(admin.broker.store.dead_letters(), (0, 0));
}
