//! The client against real servers on loopback that answer, hang, break off and lie.

use std::{io, net::SocketAddr, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

use super::*;

/// Long enough for a busy machine; only tests of timeouts wait for one.
const PATIENCE: Duration = Duration::from_secs(20);
const BRIEFLY: Duration = Duration::from_millis(100);

type Issuer = CertifiedIssuer<'static, KeyPair>;

fn target(url: &str) -> TargetConfig {
    let mut config = TargetConfig::new(url.parse().unwrap());
    config.timeout = PATIENCE;
    config.connect_timeout = PATIENCE;
    config
}

fn request(config: &TargetConfig) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(Bytes::from_static(b"hello")));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = config.url.clone();
    request
}

async fn post(config: &TargetConfig) -> AttemptResult {
    Client::new(config).unwrap().post(request(config), None).await
}

fn failure(result: AttemptResult) -> Failure {
    match result.outcome {
        Outcome::Failed(failure) => failure,
        Outcome::Status(status) => panic!("answered with {status}"),
    }
}

/// What a server does after it has read a request.
#[derive(Clone, Copy)]
enum Then {
    KeepOpen,
    Close,
    /// Resets the connection instead of ending it.
    Reset,
    /// Goes on writing until nobody reads any more.
    Flood,
}

/// A server that reads requests with the body `hello` and answers each with `answer`. The receiver gets
/// the text of each request, before it the number of its connection.
async fn serve(answer: &'static str, then: Then) -> (SocketAddr, mpsc::UnboundedReceiver<(u32, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for number in 1.. {
            let (mut socket, _) = listener.accept().await.unwrap();
            let seen = seen.clone();
            tokio::spawn(async move {
                while let Ok(request) = read_request(&mut socket).await {
                    let _ = seen.send((number, request));
                    if answer_one(&mut socket, answer, then).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, receiver)
}

async fn answer_one(socket: &mut TcpStream, answer: &str, then: Then) -> io::Result<()> {
    socket.write_all(answer.as_bytes()).await?;
    match then {
        Then::KeepOpen => return Ok(()),
        Then::Close => (),
        Then::Reset => socket2::SockRef::from(&*socket).set_linger(Some(Duration::ZERO))?,
        Then::Flood => loop {
            socket.write_all(&[b'x'; 8192]).await?;
        },
    }
    Err(io::ErrorKind::ConnectionAborted.into())
}

async fn read_request(socket: &mut (impl AsyncReadExt + Unpin)) -> io::Result<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\nhello") {
        text.push(socket.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

async fn answer_of(answer: &'static str, then: Then) -> AttemptResult {
    let (address, _seen) = serve(answer, then).await;
    post(&target(&format!("http://{address}/in"))).await
}

#[tokio::test]
async fn an_answer_comes_with_the_beginning_of_its_body() {
    let ok = answer_of("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\ndone\n", Then::KeepOpen).await;
    assert_eq!((ok.outcome, ok.excerpt.as_str()), (Outcome::Status(200), "done\\n"));
    assert_eq!(ok.retry_after, None);
    let missing = answer_of("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", Then::Close).await;
    assert_eq!((missing.outcome, missing.excerpt.as_str()), (Outcome::Status(404), ""));
}

#[tokio::test]
async fn an_answer_is_kept_for_whoever_asks() {
    let answer = "HTTP/1.1 500 Oops\r\ncontent-type: application/json\r\ncontent-length: 4\r\n\r\n\"\0\n\"";
    let (address, _seen) = serve(answer, Then::KeepOpen).await;
    let config = target(&format!("http://{address}/"));
    let client = Client::new(&config).unwrap();
    for (bytes_max, body, is_cut) in [(4, "\"\0\n\"", false), (3, "\"\0\n", true), (0, "", true)] {
        let result = client.post(request(&config), Some(bytes_max)).await;
        let content_type = Some("application/json".to_owned());
        assert_eq!(result.reply, Some(Reply { content_type, body: body.into(), is_cut }), "{bytes_max}");
        assert_eq!(result.excerpt, "\"\\u{0}\\n\"");
    }
    assert_eq!(client.post(request(&config), None).await.reply, None);
    let broken = answer_for_reply("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart", Then::Close).await;
    assert_eq!(broken, Reply { content_type: None, body: "part".into(), is_cut: true });
    let empty = answer_for_reply("HTTP/1.1 204 No Content\r\n\r\n", Then::Close).await;
    assert_eq!(empty, Reply { content_type: None, body: Bytes::new(), is_cut: false });
    let large = answer_for_reply("HTTP/1.1 200 OK\r\n\r\n", Then::Flood).await;
    assert_eq!((large.body.len(), large.is_cut), (100_000, true));
}

async fn answer_for_reply(answer: &'static str, then: Then) -> Reply {
    let (address, _seen) = serve(answer, then).await;
    let config = target(&format!("http://{address}/"));
    let result = Client::new(&config).unwrap().post(request(&config), Some(100_000)).await;
    result.reply.unwrap()
}

#[tokio::test]
async fn a_request_has_host_and_length_and_its_path() {
    let (address, mut seen) = serve("HTTP/1.1 204 No Content\r\n\r\n", Then::KeepOpen).await;
    let config = target(&format!("http://{address}/in?a=b"));
    assert_eq!(post(&config).await.outcome, Outcome::Status(204));
    let (_, request) = seen.recv().await.unwrap();
    assert!(request.starts_with("POST /in?a=b HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("host: {address}\r\n")), "{request}");
    assert!(request.contains("content-length: 5\r\n"), "{request}");
    assert!(!request.contains("accept-encoding"), "nothing is decompressed, so nothing is asked for");
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let (address, mut seen) = serve("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Then::KeepOpen).await;
    let config = target(&format!("http://{address}/"));
    let client = Client::new(&config).unwrap();
    for _ in 0..3 {
        assert_eq!(client.post(request(&config), None).await.outcome, Outcome::Status(200));
        assert_eq!(seen.recv().await.unwrap().0, 1);
    }
}

#[tokio::test]
async fn retry_after_is_passed_on() {
    let asked = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 120\r\ncontent-length: 0\r\n\r\n";
    let result = answer_of(asked, Then::KeepOpen).await;
    assert_eq!((result.outcome, result.retry_after.as_deref()), (Outcome::Status(429), Some("120")));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (elsewhere, mut visited) = serve("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Then::Close).await;
    let answer = format!("HTTP/1.1 301 Moved\r\nlocation: http://{elsewhere}/\r\ncontent-length: 0\r\n\r\n");
    let result = answer_of(answer.leak(), Then::Close).await;
    assert_eq!(result.outcome, Outcome::Status(301));
    assert!(visited.try_recv().is_err());
}

#[tokio::test]
async fn a_target_that_does_not_answer_times_out() {
    let (address, _seen) = serve("", Then::KeepOpen).await;
    let mut config = target(&format!("http://{address}/"));
    config.timeout = BRIEFLY;
    let result = post(&config).await;
    assert!(result.latency >= BRIEFLY);
    assert_eq!(failure(result), Failure::Timeout(BRIEFLY));
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let failure = failure(post(&target(&format!("http://{address}/"))).await);
    assert_eq!(failure.kind(), "connect");
    assert!(failure.to_string().to_lowercase().contains("connection refused"), "{failure}");
}

#[tokio::test]
async fn a_name_that_does_not_exist() {
    // RFC 6761 keeps `.invalid` for names that never resolve.
    let failure = failure(post(&target("http://target.invalid/")).await);
    assert_eq!(failure.kind(), "connect", "{failure}");
}

#[tokio::test]
async fn a_body_without_end_is_left() {
    let result = answer_of("HTTP/1.1 500 Oops\r\n\r\n", Then::Flood).await;
    assert_eq!(result.outcome, Outcome::Status(500));
    assert_eq!(result.excerpt, "x".repeat(EXCERPT_BYTES_MAX));
    assert!(result.latency < PATIENCE / 2, "the size ended it, not the timeout");
}

#[tokio::test]
async fn a_body_that_breaks_off_leaves_the_status() {
    for then in [Then::Close, Then::Reset] {
        let result = answer_of("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart", then).await;
        assert_eq!(result.outcome, Outcome::Status(200));
    }
}

#[tokio::test]
async fn a_body_that_hangs_leaves_the_status() {
    let (address, _seen) = serve("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart", Then::KeepOpen).await;
    let mut config = target(&format!("http://{address}/"));
    config.timeout = BRIEFLY;
    let result = post(&config).await;
    assert_eq!((result.outcome, result.excerpt.as_str()), (Outcome::Status(200), "part"));
}

#[tokio::test]
async fn a_connection_that_ends_before_an_answer() {
    for (answer, then) in [("", Then::Close), ("", Then::Reset), ("HTTP/1.1 20", Then::Close)] {
        assert_eq!(failure(answer_of(answer, then).await).kind(), "broken", "{answer:?}");
    }
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_counts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = target(&format!("http://{}/", listener.local_addr().unwrap()));
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        socket.read_u8().await.unwrap();
        socket.write_all(b"HTTP/1.1 413 Too Large\r\nconnection: close\r\n\r\ntoo large").await.unwrap();
        // The target reads no more, but lets the client finish reading, as HTTP asks of it.
        let _ = socket.shutdown().await;
        std::future::pending::<()>().await;
    });
    let mut request = request(&config);
    *request.body_mut() = Full::new(Bytes::from(vec![0; 32 * 1024 * 1024]));
    let result = Client::new(&config).unwrap().post(request, None).await;
    assert_eq!(result.outcome, Outcome::Status(413));
}

#[tokio::test]
async fn an_answer_that_is_not_http() {
    assert_eq!(failure(answer_of("SSH-2.0-OpenSSH\r\n\r\n", Then::Close).await).kind(), "broken");
}

#[tokio::test]
async fn a_head_without_end_is_left() {
    assert_eq!(failure(answer_of("HTTP/1.1 200 OK\r\nx: ", Then::Flood).await).kind(), "broken");
}

#[tokio::test]
async fn a_handshake_that_hangs_is_a_connect_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = authority();
    let folder = tempfile::tempdir().unwrap();
    let mut config = target(&format!("https://{}/", listener.local_addr().unwrap()));
    config.ca_file = Some(folder.path().join("ca.pem"));
    config.connect_timeout = BRIEFLY;
    std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    // The kernel accepts for the listener, and nobody ever answers the ClientHello.
    assert_eq!(failure(post(&config).await), Failure::ConnectTimeout(BRIEFLY));
}

fn authority() -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// An HTTPS server for one connection, with a certificate for 127.0.0.1 by this authority.
async fn serve_tls(authority: &Issuer) -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        if let Ok(mut stream) = TlsAcceptor::from(Arc::new(config)).accept(socket).await {
            read_request(&mut stream).await.unwrap();
            stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        }
    });
    address
}

fn trusting(address: SocketAddr, ca_file: &Path, authority: &Issuer) -> TargetConfig {
    std::fs::write(ca_file, authority.pem()).unwrap();
    let mut config = target(&format!("https://{address}/"));
    config.ca_file = Some(ca_file.to_owned());
    config
}

#[tokio::test]
async fn a_private_authority_is_trusted_through_ca_file() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority();
    let address = serve_tls(&authority).await;
    let config = trusting(address, &folder.path().join("ca.pem"), &authority);
    assert_eq!(post(&config).await.outcome, Outcome::Status(202));
}

#[tokio::test]
async fn another_authority_is_not_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let address = serve_tls(&authority()).await;
    let config = trusting(address, &folder.path().join("ca.pem"), &authority());
    let failure = failure(post(&config).await);
    assert_eq!(failure.kind(), "tls", "{failure}");
    assert!(failure.to_string().contains("certificate"), "{failure}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_not_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority();
    let mut config = trusting(serve_tls(&authority).await, &folder.path().join("ca.pem"), &authority);
    let port = config.url.port_u16().unwrap();
    config.url = format!("https://localhost:{port}/").parse().unwrap();
    assert_eq!(failure(post(&config).await).kind(), "tls");
}

#[tokio::test]
async fn a_ca_file_without_a_certificate_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let mut config = target("https://127.0.0.1/");
    config.ca_file = Some(file.clone());
    assert!(matches!(Client::new(&config), Err(ClientError::CaFile { .. })), "no such file");
    std::fs::write(&file, "not PEM").unwrap();
    assert!(matches!(Client::new(&config), Err(ClientError::NoCertificate { .. })));
    std::fs::write(&file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let error = Client::new(&config).err().unwrap();
    assert!(matches!(error, ClientError::BadCertificate { .. }), "{error}");
    assert!(error.to_string().contains("ca.pem"), "{error}");
}
