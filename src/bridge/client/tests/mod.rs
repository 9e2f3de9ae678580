//! The client against real servers on loopback that answer, hang, break off and lie.

mod auth;
mod proxies;
mod tls;
mod versions;

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::*;

/// Long enough for a busy machine; only tests of timeouts wait for one.
const PATIENCE: Duration = Duration::from_secs(20);
const BRIEFLY: Duration = Duration::from_millis(100);

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
    assert!(request.contains("accept-encoding: identity\r\n"), "nothing is decompressed: {request}");
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
async fn a_redirect_to_a_metadata_service_is_not_followed() {
    let answer =
        "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/latest/\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(answer_of(answer, Then::KeepOpen).await.outcome, Outcome::Status(302));
}

#[tokio::test]
async fn an_address_in_the_url_that_is_always_refused_is_not_connected_to() {
    for host in ["169.254.169.254", "[fd00:ec2::254]", "0.0.0.0", "[::ffff:169.254.169.254]"] {
        let failure = failure(post(&target(&format!("http://{host}/"))).await);
        assert_eq!(failure.kind(), "refused", "{host}: {failure}");
        assert!(failure.to_string().contains("addresses = ["), "{failure}");
    }
}

#[tokio::test]
async fn the_address_that_was_judged_is_the_one_that_is_connected_to() {
    let (address, mut seen) = serve("HTTP/1.1 204 No Content\r\n\r\n", Then::KeepOpen).await;
    let lookups = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&lookups);
    // A name that leads to the internet at first, and to this machine when it is asked for again.
    let look_up: LookUp =
        Arc::new(move |_: &str| match counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Ok(vec!["127.0.0.1".parse().unwrap()]),
            _ => Ok(vec!["8.8.8.8".parse().unwrap()]),
        });
    let mut config = target(&format!("http://shore.example:{}/", address.port()));
    let client = Client::looking_up(&config, Arc::clone(&look_up)).unwrap();
    let refused = failure(client.post(request(&config), None).await);
    assert_eq!(refused.kind(), "refused");
    assert!(seen.try_recv().is_err(), "no connection was made");

    lookups.store(0, std::sync::atomic::Ordering::SeqCst);
    config.addresses.listed = vec!["127.0.0.0/8".parse().unwrap()];
    let client = Client::looking_up(&config, look_up).unwrap();
    assert_eq!(client.post(request(&config), None).await.outcome, Outcome::Status(204));
    assert_eq!(lookups.load(std::sync::atomic::Ordering::SeqCst), 1, "one lookup for one connection");
    assert!(seen.recv().await.unwrap().1.contains("host: shore.example"));
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_is_not_taken_for_the_next() {
    let answer = "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    let (address, mut seen) = serve(answer, Then::KeepOpen).await;
    let config = target(&format!("http://{address}/"));
    let client = Client::new(&config).unwrap();
    for connection in 1..=3 {
        assert_eq!(client.post(request(&config), None).await.outcome, Outcome::Status(500));
        assert_eq!(seen.recv().await.unwrap().0, connection);
    }
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
    config.timeout = Duration::from_secs(1);
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
