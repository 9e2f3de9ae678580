//! What requests carry to prove who sends them, and who never gets to see it.

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::post as route_post;
use axum::{Json, Router};
use http::HeaderName;
use http::header::AUTHORIZATION;
use parking_lot::Mutex;
use serde_json::json;

use super::*;
use crate::config::{OAuth2Config, Secret};

fn sensitive(value: &str) -> HeaderValue {
    let mut value = HeaderValue::from_str(value).unwrap();
    value.set_sensitive(true);
    value
}

#[tokio::test]
async fn a_login_goes_with_each_request_and_into_no_excerpt() {
    let answer =
        "HTTP/1.1 403 No\r\ncontent-length: 44\r\n\r\n{\"authorization\":\"Bearer hunter2\",\"x\":\"k3y\"}";
    let (address, mut seen) = serve(answer, Then::KeepOpen).await;
    let mut config = target(&format!("http://{address}/"));
    for (name, value) in [("authorization", "Bearer hunter2"), ("x-api-key", "hunter2")] {
        config.auth = TargetAuth::Header(HeaderName::from_static(name), sensitive(value));
        let result = post(&config).await;
        assert_eq!(result.outcome, Outcome::Status(403));
        assert!(!result.excerpt.contains("hunter2") && result.excerpt.contains("****"), "{}", result.excerpt);
        let (_, request) = seen.recv().await.unwrap();
        assert!(request.contains(&format!("{name}: {value}\r\n")), "{request}");
    }
}

#[tokio::test]
async fn a_secret_is_masked_also_where_the_excerpt_ends() {
    let mut answer = "HTTP/1.1 500 No\r\n\r\n".to_owned();
    answer.push_str(&"x".repeat(EXCERPT_BYTES_MAX - 3));
    answer.push_str("hunter2");
    let (address, _seen) = serve(answer.leak(), Then::Close).await;
    let mut config = target(&format!("http://{address}/"));
    config.headers.insert("x-key", sensitive("hunter2"));
    let excerpt = post(&config).await.excerpt;
    assert!(!excerpt.contains('h'), "{excerpt}");
}

/// A service that gives tokens and takes requests with the newest of them.
#[derive(Clone, Default)]
struct Service {
    tokens: Arc<AtomicUsize>,
    /// What it answers when it is asked for a token, `None` for a token.
    refuses: Arc<Mutex<Option<(u16, serde_json::Value)>>>,
    /// Seconds that a token is good for.
    expires_in: Arc<Mutex<Option<u64>>>,
    asked: Arc<Mutex<Vec<(String, String)>>>,
    posts: Arc<Mutex<Vec<(u16, String)>>>,
    /// Taken while it must not answer who asks for a token.
    gate: Arc<tokio::sync::Mutex<()>>,
}

impl Service {
    async fn start(&self) -> TargetConfig {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/token", route_post(give_token))
            .route("/in", route_post(take))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let mut config = target(&format!("http://{address}/in"));
        config.auth = TargetAuth::OAuth2(Box::new(OAuth2Config {
            token_url: format!("http://{address}/token?k=hunter3").parse().unwrap(),
            client_id: "causeway".into(),
            client_secret: Secret::new("hunter2"),
            secret_in_body: false,
            scopes: vec!["a".into(), "b".into()],
            params: vec![("audience".into(), Secret::new("https://shore.example"))],
        }));
        config
    }

    /// From now on the newest token is not good any more.
    fn revoke(&self) {
        self.tokens.fetch_add(1000, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.asked.lock().len()
    }
}

async fn give_token(
    State(service): State<Service>,
    headers: HeaderMap,
    form: String,
) -> axum::response::Response {
    let login = headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    service.asked.lock().push((login.unwrap_or_default(), form));
    drop(service.gate.lock().await);
    if let Some((status, body)) = service.refuses.lock().clone() {
        return (StatusCode::from_u16(status).unwrap(), Json(body)).into_response();
    }
    let number = service.tokens.fetch_add(1, Ordering::SeqCst) + 1;
    let mut body = json!({ "access_token": format!("t0ken-{number}"), "token_type": "Bearer" });
    if let Some(seconds) = *service.expires_in.lock() {
        body["expires_in"] = seconds.into();
    }
    Json(body).into_response()
}

async fn take(State(service): State<Service>, headers: HeaderMap) -> impl IntoResponse {
    let token = headers[AUTHORIZATION].to_str().unwrap().to_owned();
    let good = format!("Bearer t0ken-{}", service.tokens.load(Ordering::SeqCst));
    let status = if token == good { 200 } else { 401 };
    service.posts.lock().push((status, token.clone()));
    (StatusCode::from_u16(status).unwrap(), format!("you sent {token}"))
}

#[tokio::test]
async fn a_token_is_asked_for_once_and_used_again() {
    let service = Service::default();
    let config = service.start().await;
    let client = Client::new(&config).unwrap();
    let posts: Vec<_> = (0..8)
        .map(|_| {
            let (client, request) = (client.clone(), request(&config));
            tokio::spawn(async move { client.post(request, None).await })
        })
        .collect();
    for post in posts {
        let result = post.await.unwrap();
        assert_eq!((result.outcome, result.excerpt.as_str()), (Outcome::Status(200), "you sent Bearer ****"));
    }
    let asked = service.asked.lock().clone();
    assert_eq!(asked.len(), 1, "whoever asks waits for the one who asked first");
    let (login, form) = &asked[0];
    assert_eq!(login, "Basic Y2F1c2V3YXk6aHVudGVyMg==");
    for param in ["grant_type=client_credentials", "scope=a+b", "audience=https%3A%2F%2Fshore.example"] {
        assert!(form.contains(param), "{form}");
    }
}

#[tokio::test]
async fn why_there_is_no_token_is_for_all_who_wait_for_it() {
    let service = Service::default();
    let config = service.start().await;
    *service.refuses.lock() = Some((400, json!({ "error": "invalid_scope" })));
    let closed = service.gate.lock().await;
    let client = Client::new(&config).unwrap();
    let posts: Vec<_> = (0..8)
        .map(|_| {
            let (client, request) = (client.clone(), request(&config));
            tokio::spawn(async move { client.post(request, None).await })
        })
        .collect();
    // One thread has all tasks: when the first has asked, the others wait.
    while service.asked() == 0 {
        tokio::task::yield_now().await;
    }
    drop(closed);
    for post in posts {
        assert!(failure(post.await.unwrap()).to_string().contains("invalid_scope"));
    }
    assert_eq!(service.asked(), 1);
}

#[tokio::test]
async fn a_secret_can_go_into_the_body() {
    let service = Service::default();
    let mut config = service.start().await;
    let TargetAuth::OAuth2(oauth2) = &mut config.auth else { panic!() };
    oauth2.secret_in_body = true;
    assert_eq!(post(&config).await.outcome, Outcome::Status(200));
    let (login, form) = service.asked.lock().remove(0);
    assert_eq!(login, "");
    assert!(form.contains("client_id=causeway&client_secret=hunter2"), "{form}");
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once() {
    let service = Service::default();
    let config = service.start().await;
    let client = Client::new(&config).unwrap();
    assert_eq!(client.post(request(&config), None).await.outcome, Outcome::Status(200));
    service.revoke();
    assert_eq!(client.post(request(&config), None).await.outcome, Outcome::Status(200));
    assert_eq!((service.asked(), service.posts.lock().len()), (2, 3), "one attempt, made once more");

    // A target that takes none of these tokens: its answer counts, after one more try.
    let stranger = Service::default();
    let config = TargetConfig { auth: config.auth, ..stranger.start().await };
    assert_eq!(post(&config).await.outcome, Outcome::Status(401));
    assert_eq!((service.asked(), stranger.posts.lock().len()), (4, 2));
}

#[tokio::test]
async fn a_token_is_replaced_shortly_before_it_expires() {
    let service = Service::default();
    let config = service.start().await;
    let client = Client::new(&config).unwrap();
    for (expires_in, asked) in [(Some(0), 1), (Some(3600), 2), (Some(3600), 2), (None, 2)] {
        *service.expires_in.lock() = expires_in;
        assert_eq!(client.post(request(&config), None).await.outcome, Outcome::Status(200));
        assert_eq!(service.asked(), asked);
    }
}

#[tokio::test]
async fn without_a_token_the_target_has_failed() {
    let service = Service::default();
    let config = service.start().await;
    let client = Client::new(&config).unwrap();
    for (status, body, said) in [
        (
            401,
            json!({ "error": "invalid_client", "error_description": "no hunter2" }),
            "/token answered 401, invalid_client: no ****",
        ),
        (503, json!("down"), "/token answered 503, without a token"),
        (200, json!({ "access_token": 5 }), "/token answered 200, without a token"),
        (200, json!({ "access_token": "x", "token_type": "mac" }), "of type Bearer"),
        (200, json!({ "access_token": "a\nb", "token_type": "bearer" }), "no header can carry"),
        (302, json!({}), "/token answered 302, without a token"),
    ] {
        *service.refuses.lock() = Some((status, body));
        let failure = failure(client.post(request(&config), None).await);
        let text = failure.to_string();
        assert_eq!(failure.kind(), "token");
        assert!(text.contains(said) && !text.contains("hunter"), "{text}");
    }
    assert!(service.posts.lock().is_empty(), "nothing was sent without a token");
    *service.refuses.lock() = None;
    assert_eq!(client.post(request(&config), None).await.outcome, Outcome::Status(200));
}

#[tokio::test]
async fn the_token_endpoint_is_guarded_and_waited_for_like_the_target() {
    let service = Service::default();
    let mut config = service.start().await;
    let set = |config: &mut TargetConfig, url: &str| {
        let TargetAuth::OAuth2(oauth2) = &mut config.auth else { panic!() };
        oauth2.token_url = url.parse().unwrap();
    };
    set(&mut config, "http://169.254.169.254/token");
    let refused = failure(post(&config).await);
    assert!(refused.kind() == "token" && refused.to_string().contains("addresses = "), "{refused}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    set(&mut config, &format!("http://{}/token", listener.local_addr().unwrap()));
    config.timeout = BRIEFLY;
    let hung = failure(post(&config).await);
    assert!(hung.kind() == "token" && hung.to_string().contains("no answer within 100ms"), "{hung}");
}
