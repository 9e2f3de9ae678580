//! HTTP/1.1 and HTTP/2, as both sides want it.

use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::version::TLS13;
use tokio::sync::Barrier;
use tokio_rustls::TlsAcceptor;

use super::tls::{authority, server_config, trusting};
use super::*;

/// A server that counts connections and answers each request with the version that it came in. With a barrier it
/// answers only when so many are waiting.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Server {
    async fn start(tls: Option<TlsAcceptor>, together: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let (counted, barrier) = (Arc::clone(&connections), Arc::new(Barrier::new(together)));
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(connection(socket, tls.clone(), Arc::clone(&barrier)));
            }
        });
        Self { address, connections }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn connection(socket: TcpStream, tls: Option<TlsAcceptor>, barrier: Arc<Barrier>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let barrier = Arc::clone(&barrier);
        async move {
            barrier.wait().await;
            let version = format!("{:?} {}", request.version(), request.uri().path());
            Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from(version))))
        }
    });
    let Some(tls) = tls else {
        let mut start = [0; 3];
        socket.peek(&mut start).await.unwrap();
        let io = TokioIo::new(socket);
        let _ = match &start {
            b"PRI" => http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await,
            _ => http1::Builder::new().serve_connection(io, service).await,
        };
        return;
    };
    let Ok(stream) = tls.accept(socket).await else { return };
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let io = TokioIo::new(stream);
    let _ = match is_http2 {
        true => http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await,
        false => http1::Builder::new().serve_connection(io, service).await,
    };
}

/// A target over TLS that prefers these protocols.
async fn over_tls(protocols: &[&str]) -> (Server, TargetConfig, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority();
    let mut config = server_config(&authority, None, &[&TLS13]);
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let server = Server::start(Some(TlsAcceptor::from(Arc::new(config))), 1).await;
    let target = trusting(server.address, &folder.path().join("ca.pem"), &authority);
    (server, target, folder)
}

async fn version_of(config: &TargetConfig) -> String {
    let result = post(config).await;
    assert_eq!(result.outcome, Outcome::Status(200), "{result:?}");
    result.excerpt
}

#[tokio::test]
async fn over_tls_the_target_chooses() {
    let (_server, mut config, _folder) = over_tls(&["h2", "http/1.1"]).await;
    assert_eq!(version_of(&config).await, format!("{:?} /", Version::HTTP_2));
    config.http_version = HttpVersion::Http1;
    assert_eq!(version_of(&config).await, format!("{:?} /", Version::HTTP_11));
    config.http_version = HttpVersion::Http2;
    assert_eq!(version_of(&config).await, format!("{:?} /", Version::HTTP_2));
    for protocols in [&["http/1.1"][..], &[]] {
        let (_server, config, _folder) = over_tls(protocols).await;
        assert_eq!(version_of(&config).await, format!("{:?} /", Version::HTTP_11));
    }
}

#[tokio::test]
async fn a_target_that_cannot_speak_what_it_has_to_is_not_understood() {
    let (_server, mut config, _folder) = over_tls(&["http/1.1"]).await;
    config.http_version = HttpVersion::Http2;
    let failure = failure(post(&config).await);
    assert_eq!(failure.kind(), "tls", "{failure}");
}

#[tokio::test]
async fn without_tls_it_is_as_configured() {
    let server = Server::start(None, 1).await;
    let mut config = target(&format!("http://{}/in", server.address));
    assert_eq!(version_of(&config).await, format!("{:?} /in", Version::HTTP_11));
    config.http_version = HttpVersion::Http2;
    assert_eq!(version_of(&config).await, format!("{:?} /in", Version::HTTP_2));
}

#[tokio::test]
async fn requests_of_http_2_share_a_connection() {
    let together = 8;
    let server = Server::start(None, together).await;
    let mut config = target(&format!("http://{}/", server.address));
    config.http_version = HttpVersion::Http2;
    let client = Client::new(&config).unwrap();
    let posts: Vec<_> = (0..together)
        .map(|_| {
            let (client, request) = (client.clone(), request(&config));
            tokio::spawn(async move { client.post(request, None).await })
        })
        .collect();
    for post in posts {
        assert_eq!(post.await.unwrap().outcome, Outcome::Status(200));
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_of_http_2_that_is_dead_is_replaced() {
    // The clock only moves when nothing else does, so the connection is made before it counts.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = target(&format!("http://{}/", listener.local_addr().unwrap()));
    config.http_version = HttpVersion::Http2;
    config.timeout = Duration::from_secs(3600);
    let (accepted, dead) = tokio::sync::oneshot::channel();
    tokio::spawn(async move { accepted.send(listener.accept().await.unwrap().0).unwrap() });
    let started = Instant::now();
    let failure = failure(post(&config).await);
    assert_eq!(failure.kind(), "broken", "{failure}");
    assert!(started.elapsed() < Duration::from_secs(15), "pings that are not answered ended it");
    drop(dead.await);
}

#[tokio::test]
async fn a_request_that_http_2_resets_is_not_answered() {
    // A preface, settings and a reset of the first stream with INTERNAL_ERROR.
    const RESET: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x04\x03\0\0\0\0\x01\0\0\0\x02";
    // Settings and GOAWAY, with no stream taken.
    const GOAWAY: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x02";
    for frames in [RESET, GOAWAY, b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = target(&format!("http://{}/", listener.local_addr().unwrap()));
        config.http_version = HttpVersion::Http2;
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            while !seen.ends_with(b"hello") {
                seen.push(socket.read_u8().await.unwrap());
            }
            socket.write_all(frames).await.unwrap();
            std::future::pending::<()>().await;
        });
        let failure = failure(post(&config).await);
        assert_eq!(failure.kind(), "broken", "{failure}");
    }
}
