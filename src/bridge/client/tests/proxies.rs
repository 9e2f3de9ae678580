//! Connections that a proxy makes.

use tokio::io::copy_bidirectional;
use tokio_rustls::TlsAcceptor;

use super::tls::{authority, server_config, trusting};
use super::*;
use crate::config::{Login, ProxyConfig, ProxyKind, Secret};

/// A proxy for CONNECT that tells what it was asked, answers with this status, and connects to `to` whatever it was
/// asked.
async fn http_proxy(status: &'static str, to: SocketAddr) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(socket.read_u8().await.unwrap());
            }
            let _ = seen.send(String::from_utf8(asked).unwrap());
            socket.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await.unwrap();
            if status.starts_with("200") {
                let mut target = TcpStream::connect(to).await.unwrap();
                tokio::spawn(async move { copy_bidirectional(&mut socket, &mut target).await });
            }
        }
    });
    (address, receiver)
}

#[tokio::test]
async fn tls_with_a_proxy_is_not_tls_with_the_target() {
    let (target_at, mut requests) = serve("HTTP/1.1 204 No Content\r\n\r\n", Then::KeepOpen).await;
    let (proxy, mut asked) = http_proxy("200 OK", target_at).await;
    let folder = tempfile::tempdir().unwrap();
    let authority = authority();
    let tls = TlsAcceptor::from(Arc::new(server_config(&authority, None, &[&rustls::version::TLS13])));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tls_at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut inside = TcpStream::connect(proxy).await.unwrap();
        copy_bidirectional(&mut tls.accept(socket).await.unwrap(), &mut inside).await
    });
    let mut config = trusting(tls_at, &folder.path().join("ca.pem"), &authority);
    config.url = "http://shore.example/in".parse().unwrap();
    config.proxy = through(ProxyKind::Http, tls_at, None);
    config.proxy.as_mut().unwrap().uri = format!("https://{tls_at}/").parse().unwrap();
    assert_eq!(post(&config).await.outcome, Outcome::Status(204));
    assert!(asked.recv().await.unwrap().starts_with("CONNECT shore.example:80 "));
    assert!(requests.recv().await.unwrap().1.starts_with("POST /in HTTP/1.1\r\n"));
}

fn through(kind: ProxyKind, address: SocketAddr, login: Option<(&str, &str)>) -> Option<ProxyConfig> {
    let login = login.map(|(user, password)| Login { user: user.into(), password: Secret::new(password) });
    Some(ProxyConfig { kind, uri: format!("http://{address}/").parse().unwrap(), login })
}

/// Names are the proxy's to look up.
fn no_lookup() -> LookUp {
    Arc::new(|name: &str| panic!("{name} is looked up here"))
}

#[tokio::test]
async fn a_plain_target_is_reached_through_a_tunnel() {
    let (target_at, mut requests) = serve("HTTP/1.1 204 No Content\r\n\r\n", Then::KeepOpen).await;
    let (proxy, mut asked) = http_proxy("200 OK", target_at).await;
    let mut config = target("http://shore.example/in");
    config.proxy = through(ProxyKind::Http, proxy, Some(("Aladdin", "open sesame")));
    let client = Client::looking_up(&config, no_lookup()).unwrap();
    assert_eq!(client.post(request(&config), None).await.outcome, Outcome::Status(204));
    let asked = asked.recv().await.unwrap();
    assert!(asked.starts_with("CONNECT shore.example:80 HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n"), "{asked}");
    let (_, request) = requests.recv().await.unwrap();
    assert!(request.starts_with("POST /in HTTP/1.1\r\n") && request.contains("host: shore.example\r\n"));
    assert!(!request.to_lowercase().contains("proxy"), "the login is for the proxy only: {request}");
}

#[tokio::test]
async fn tls_is_spoken_with_the_target_and_not_with_the_proxy() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority();
    let tls = TlsAcceptor::from(Arc::new(server_config(&authority, None, &[&rustls::version::TLS13])));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target_at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut stream = tls.accept(socket).await.unwrap();
        read_request(&mut stream).await.unwrap();
        stream.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    });
    let (proxy, mut asked) = http_proxy("200 OK", target_at).await;
    let mut config = trusting(target_at, &folder.path().join("ca.pem"), &authority);
    config.proxy = through(ProxyKind::Http, proxy, None);
    assert_eq!(post(&config).await.outcome, Outcome::Status(202));
    let asked = asked.recv().await.unwrap();
    assert!(asked.starts_with(&format!("CONNECT {target_at} HTTP/1.1\r\n")), "{asked}");
    assert!(!asked.contains("Proxy-Authorization"), "{asked}");
}

#[tokio::test]
async fn what_a_proxy_refuses_is_a_failure_that_says_so() {
    let (nowhere, _) = serve("", Then::Close).await;
    for (status, said) in
        [("407 Proxy Authentication Required", "authorization required"), ("502 No", "unsuccessful")]
    {
        let (proxy, _asked) = http_proxy(status, nowhere).await;
        let mut config = target("http://shore.example/");
        config.proxy = through(ProxyKind::Http, proxy, Some(("u", "hunter2")));
        let failure = failure(post(&config).await);
        assert_eq!(failure.kind(), "proxy");
        assert!(failure.to_string().contains(said) && !failure.to_string().contains("hunter2"), "{failure}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_or_hangs() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = target("http://shore.example/");
    config.proxy = through(ProxyKind::Http, listener.local_addr().unwrap(), None);
    config.connect_timeout = BRIEFLY;
    assert_eq!(failure(post(&config).await), Failure::ConnectTimeout(BRIEFLY));
    config.connect_timeout = PATIENCE;
    drop(listener);
    let failure = failure(post(&config).await);
    assert!(failure.kind() == "proxy" && failure.to_string().contains("onnection refused"), "{failure}");
}

#[tokio::test]
async fn a_proxy_is_not_asked_for_an_address_that_is_always_refused() {
    let (nowhere, _) = serve("", Then::Close).await;
    let (proxy, mut asked) = http_proxy("200 OK", nowhere).await;
    let mut config = target("http://169.254.169.254/latest");
    config.proxy = through(ProxyKind::Http, proxy, None);
    assert_eq!(failure(post(&config).await).kind(), "refused");
    assert!(asked.try_recv().is_err());
}

#[tokio::test]
async fn socks_proxies_look_the_name_up() {
    let (target_at, mut requests) = serve("HTTP/1.1 204 No Content\r\n\r\n", Then::KeepOpen).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = target("http://shore.example/in");
    config.proxy = through(ProxyKind::Socks5, listener.local_addr().unwrap(), Some(("user", "pass")));
    let proxy = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut expect = async |expected: &[u8], answer: &[u8]| {
            let mut asked = vec![0; expected.len()];
            socket.read_exact(&mut asked).await.unwrap();
            assert_eq!(asked, expected);
            socket.write_all(answer).await.unwrap();
        };
        expect(b"\x05\x01\x02", b"\x05\x02").await;
        expect(b"\x01\x04user\x04pass", b"\x01\x00").await;
        let connected = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50";
        expect(b"\x05\x01\x00\x03\x0dshore.example\x00\x50", connected).await;
        let mut target = TcpStream::connect(target_at).await.unwrap();
        let _ = copy_bidirectional(&mut socket, &mut target).await;
    });
    let client = Client::looking_up(&config, no_lookup()).unwrap();
    assert_eq!(client.post(request(&config), None).await.outcome, Outcome::Status(204));
    assert!(requests.recv().await.unwrap().1.contains("host: shore.example\r\n"));
    drop(client);
    proxy.await.unwrap();
}
