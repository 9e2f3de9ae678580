//! Routes and targets: what is told of them, pauses, and the metrics.

use serde_json::json;

use super::*;
use crate::config::{RouteConfig, TargetConfig};

/// A route `r` to a target `t` that nobody listens at.
fn config() -> Config {
    let mut config = Config::default();
    config.targets.insert("t".into(), TargetConfig::new("http://127.0.0.1:9/in".parse().unwrap()));
    config.routes = vec![RouteConfig::new("r", "plant/#", "t")];
    config
}

#[tokio::test]
async fn a_pause_is_known_by_target_and_by_route() {
    let admin = Admin::with(&config()).await;
    let route = async || admin.get("/api/v1/routes/r").await.json();
    assert_eq!(route().await["status"], "active");
    let paused = admin.ask(Method::POST, "/api/v1/routes/r/pause?why=works", &[]).await.json();
    assert_eq!((&paused["name"], &paused["paused"]), (&json!("t"), &json!("works")));
    assert_eq!((&route().await["status"], &route().await["paused"]), (&json!("paused"), &json!("works")));
    let resumed = admin.ask(Method::POST, "/api/v1/targets/t/resume", &[]).await.json();
    assert_eq!(resumed["paused"], Value::Null);
    assert_eq!(route().await["status"], "active");
    assert_eq!(admin.get("/api/v1/targets").await.json()["targets"][0]["url"], "http://127.0.0.1:9");
    assert_eq!(admin.get("/api/v1/targets/t").await.json()["breaker"], "closed");
    assert_eq!(admin.get("/api/v1/targets/x").await.refusal().0, 404);
    assert_eq!(admin.ask(Method::POST, "/api/v1/routes/x/pause", &[]).await.refusal().0, 404);
    let evil = [("origin", "http://evil.example")];
    assert_eq!(admin.ask(Method::POST, "/api/v1/routes/r/pause", &evil).await.refusal().0, 403);
}

#[tokio::test]
async fn what_carries_messages_is_not_settled_by_hand() {
    let admin = Admin::with(&config()).await;
    for verb in ["discard", "dead-letter"] {
        let refused = admin.ask(Method::POST, &format!("/api/v1/routes/r/{verb}"), &[]).await.refusal();
        assert_eq!(refused.0, 409, "{}", refused.1);
    }
    assert_eq!(admin.get("/api/v1/routes/x").await.refusal().0, 404);
    let reload = admin.ask(Method::POST, "/api/v1/reload?removed=perhaps", &[]).await;
    assert_eq!(reload.status, 400, "{}", reload.body);
    // Nobody listens for it here, as when the broker ends.
    assert_eq!(admin.ask(Method::POST, "/api/v1/reload", &[]).await.refusal().0, 503);
}

#[tokio::test]
async fn an_explanation_names_routes() {
    let admin = Admin::with(&config()).await;
    let explained = admin.get("/api/v1/explain?topic=plant/1&qos=2").await.json();
    let route = &explained["routes"][0];
    assert_eq!((&route["name"], &route["filters"]), (&json!("r"), &json!(["plant/#"])));
    assert_eq!(route["path"]["guarantee"], "at_least_once");
    assert_eq!(route["path"]["weakest_link"]["link"], "http");
    assert_eq!(admin.get("/api/v1/explain?topic=other").await.json()["routes"], json!([]));
    assert_eq!(admin.get("/api/v1/explain?topic=a/%23").await.refusal().0, 400);
    assert_eq!(admin.get("/api/v1/explain?topic=a&qos=3").await.refusal().0, 400);
}

#[tokio::test]
async fn the_metrics_page_has_the_names_of_the_bridge() {
    let admin = Admin::with(&config()).await;
    let names = [
        "causeway_bridge_outbox_messages{route=\"r\"}",
        "causeway_bridge_outbox_bytes{route=\"r\"}",
        "causeway_bridge_outbox_oldest_seconds{route=\"r\"}",
        "causeway_bridge_retry_scheduled{route=\"r\"}",
        "causeway_bridge_dead_letters_total{route=\"r\"}",
        "causeway_bridge_replies_total{route=\"r\",outcome=\"published\"}",
        "causeway_bridge_inflight{target=\"t\"}",
        "causeway_bridge_concurrency{target=\"t\"}",
        "causeway_bridge_circuit_state{target=\"t\"}",
        "causeway_bridge_paused{target=\"t\"}",
        "causeway_bridge_rate_limited_total{target=\"t\"}",
        "# HELP causeway_bridge_outbox_oldest_seconds",
    ];
    let page = admin.get("/metrics").await.body;
    for name in names {
        assert!(page.lines().any(|line| line.starts_with(name)), "{name} is not in\n{page}");
    }
}
