//! Health, readiness, metrics, and who is answered at all.

use super::*;

#[tokio::test]
async fn readiness_follows_the_server_and_the_disk_and_health_does_not() {
    let admin = Admin::start().await;
    let expect = async |status, text: &str| {
        let answer = admin.get("/readyz").await;
        assert_eq!(answer.status, status, "{}", answer.body);
        assert!(answer.body.contains(text), "{text} is not in {}", answer.body);
        assert_eq!(admin.get("/healthz").await.body, "ok\n");
    };
    expect(503, "starting").await;
    admin.readiness.set(Phase::Up);
    expect(200, "ready").await;
    admin.broker.store.set_disk_full(true);
    expect(503, "the disk is nearly full").await;
    admin.broker.store.set_disk_full(false);
    expect(200, "ready").await;
    admin.readiness.set(Phase::ShuttingDown);
    expect(503, "shutting down").await;
}

#[tokio::test]
async fn the_metrics_page_has_every_name() {
    let admin = Admin::start().await;
    let page = admin.get("/metrics").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    for name in [
        "causeway_connections",
        "causeway_messages_total",
        "causeway_messages_dropped_total",
        "causeway_store_commits_total",
        "causeway_disk_used_bytes",
        "causeway_disk_free_bytes",
        "causeway_oldest_unsettled_seconds",
        "causeway_sessions",
        "causeway_sessions_offline",
        "causeway_sessions_in_backlog",
        "causeway_dead_letters",
        "causeway_dead_letter_bytes",
    ] {
        let is_sample = |line: &str| line.split([' ', '{']).next() == Some(name);
        assert!(page.body.lines().any(is_sample), "{name} is not in\n{}", page.body);
        let described = format!("# HELP {name} ");
        assert!(page.body.contains(&described), "{name} is not described in\n{}", page.body);
    }
}

#[tokio::test]
async fn names_of_other_machines_are_refused_everywhere() {
    let admin = Admin::start().await;
    for path in ["/healthz", "/metrics", "/api/v1/sessions", "/none"] {
        let answer = admin.ask(Method::GET, path, &[("host", "evil.example:9883")]).await;
        assert_eq!(answer.refusal(), (403, "the Host header does not name this machine".to_owned()));
    }
    assert_eq!(admin.ask(Method::GET, "/healthz", &[("host", "localhost:1")]).await.status, 200);
}

#[tokio::test]
async fn pages_of_other_sites_may_look_but_not_change() {
    let admin = Admin::start().await;
    let evil = [("origin", "http://evil.example")];
    assert_eq!(admin.ask(Method::GET, "/healthz", &evil).await.status, 200);
    assert_eq!(admin.ask(Method::DELETE, "/api/v1/sessions/a", &evil).await.refusal().0, 403);
    let own = format!("http://{}", admin.address);
    let own = [("origin", own.as_str())];
    assert_eq!(admin.ask(Method::DELETE, "/api/v1/sessions/a", &own).await.refusal().0, 404);
}
