//! The admin listener as its clients see it: over a socket, in front of a real store.

pub(crate) mod dead_letters;
mod health;
mod routes;
pub(crate) mod sessions;

use std::{net::SocketAddr, time::Duration};

use http::{HeaderValue, Method, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use tokio::sync::oneshot;

use super::*;
use crate::{
    auth::Authenticator,
    broker::tests::{LIMITS, STORE},
    config::Config,
    store::Store,
    telemetry::{self, Metrics},
};

/// An admin listener in front of a broker without clients.
pub(crate) struct Admin {
    pub(crate) broker: Arc<Broker>,
    pub(crate) address: SocketAddr,
    readiness: Arc<Readiness>,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: String,
}

impl Admin {
    pub(crate) async fn start() -> Self {
        Self::with(&Config::default()).await
    }

    /// With the routes and targets of a configuration.
    async fn with(config: &Config) -> Self {
        let metrics = telemetry::install_metrics();
        let folder = tempfile::tempdir().unwrap();
        let (store, recovered) = Store::open(folder.path(), &STORE).unwrap();
        let auth = Arc::new(Authenticator::load(Default::default()).unwrap());
        let broker = Broker::new(store, recovered, auth, Arc::new(Metrics::new()), LIMITS);
        let bridge = Arc::new(Bridge::start(&broker, config).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let readiness = Arc::new(Readiness::default());
        let state = AdminState {
            broker: Arc::clone(&broker),
            bridge,
            metrics,
            reload: mpsc::channel(1).0,
            readiness: Arc::clone(&readiness),
            data: folder.path().to_owned(),
            free_space_min: 0,
        };
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(serve(listener, state, async { drop(stopped.await) }));
        Self { broker, readiness, address, stop: Some(stop), served, _folder: folder }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, &[]).await
    }

    async fn ask(&self, method: Method, path: &str, headers: &[(&'static str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_str(value).unwrap());
        }
        let client = Client::builder(TokioExecutor::new()).build_http();
        let answer = client.request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Answer { status: head.status.as_u16(), headers: head.headers, body }
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.broker.store.close();
    }
}

impl Answer {
    fn json(&self) -> Value {
        assert_eq!(self.headers["content-type"], "application/json", "{}", self.body);
        serde_json::from_str(&self.body).unwrap()
    }

    /// The error of a request that was not done; every one says what would be right.
    fn refusal(&self) -> (u16, String) {
        let json = self.json();
        assert!(json["help"].is_string(), "no help in {json}");
        (self.status, json["error"].as_str().unwrap().to_owned())
    }
}

#[tokio::test]
async fn what_is_not_there_is_said_in_json() {
    let admin = Admin::start().await;
    assert_eq!(admin.get("/api/v1/none").await.refusal().0, 404);
    let answer = admin.ask(Method::PUT, "/api/v1/sessions/a", &[]).await;
    assert_eq!(answer.refusal().0, 405);
    assert_eq!(answer.headers["allow"], "GET,HEAD,DELETE");
}

#[tokio::test]
async fn a_shutdown_ends_idle_connections_and_the_listener() {
    let mut admin = Admin::start().await;
    let mut idle = tokio::net::TcpStream::connect(admin.address).await.unwrap();
    assert_eq!(admin.get("/healthz").await.status, 200);
    admin.stop.take().unwrap().send(()).unwrap();
    (&mut admin.served).await.unwrap();
    let ended = tokio::io::AsyncReadExt::read(&mut idle, &mut [0; 16]).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}
