//! The HTTP request that begins a WebSocket connection: who is let in, and what everyone else is told.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    harness::{Broker, Connect, WebSocket, unique},
    websocket::{LISTENER, PINGREQ, address, connected},
};

#[test]
fn ws_subprotocol() {
    proves!("5.0 MQTT-6.0.0-3", "3.1.1 MQTT-6.0.0-3", "5.0 MQTT-6.0.0-4", "3.1.1 MQTT-6.0.0-4");
    let offers = [
        ("Sec-WebSocket-Protocol: mqtt", "mqtt"),
        ("Sec-WebSocket-Protocol: chat, mqtt,other", "mqtt"),
        ("Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: mqtt", "mqtt"),
        ("Sec-WebSocket-Protocol: mqttv3.1, mqtt", "mqtt"),
        ("Sec-WebSocket-Protocol: mqttv3.1", "mqttv3.1"),
    ];
    for (offer, chosen) in offers {
        let answer = head(&WebSocket::header(offer));
        assert!(answer.starts_with("http/1.1 101 "), "{offer}: {answer}");
        assert!(answer.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{answer}");
        assert!(answer.contains(&format!("\r\nsec-websocket-protocol: {chosen}\r\n")), "{offer}: {answer}");
    }
    for offer in ["X-Nothing: 1", "Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: MQTT, mqtt5"] {
        let answer = refusal(&WebSocket::header(offer));
        assert!(answer.starts_with("HTTP/1.1 400 "), "{offer}: {answer}");
        assert!(answer.contains("subprotocol \"mqtt\""), "the answer says what is right: {answer}");
    }
}

#[test]
fn ws_origin() {
    let offer =
        |origin: &str| WebSocket::header(&format!("Sec-WebSocket-Protocol: mqtt\r\nOrigin: {origin}"));
    for origin in ["http://localhost", "http://127.0.0.1:3000", "https://[::1]:8443"] {
        assert!(head(&offer(origin)).starts_with("http/1.1 101 "), "{origin}");
    }
    for origin in ["https://app.example", "http://192.0.2.1", "null", "http://localhost.app.example"] {
        let answer = refusal(&offer(origin));
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("\"origins\""), "{origin}: {answer}");
    }
    let listed = Broker::start(&format!("{LISTENER}origins = [\"https://app.example\", \"null\"]\n"));
    for (origin, accepted) in [
        ("https://app.example", true),
        ("null", true),
        ("https://other.example", false),
        ("http://localhost", true),
    ] {
        let answer = head_at(listed.websocket_address(), "/mqtt", &offer(origin));
        assert_eq!(answer.starts_with("http/1.1 101 "), accepted, "{origin}: {answer}");
    }
    let open = Broker::start(&format!("{LISTENER}origins = [\"*\"]\n"));
    let answer = head_at(open.websocket_address(), "/mqtt", &offer("https://any.example"));
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
}

#[test]
fn ws_no_compression() {
    let offer = "Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits";
    let answer = head(&WebSocket::header(offer));
    assert!(answer.starts_with("http/1.1 101 ") && !answer.contains("sec-websocket-extensions"), "{answer}");
    let mut client = connected(&Connect::v311(&unique("deflate")));
    client.send_frame(0xC2, &PINGREQ);
    client.expect_close(1002);
}

#[test]
fn requests_that_are_no_websocket() {
    let offer = "Sec-WebSocket-Protocol: mqtt";
    let good = WebSocket::header(offer);
    let cases = [
        ("GET /other HTTP/1.1", good.clone(), 404, "paths"),
        ("GET /mqtt/ HTTP/1.1", good.clone(), 404, "paths"),
        ("POST /mqtt HTTP/1.1", good.clone(), 405, "GET"),
        ("GET /mqtt HTTP/1.0", good.clone(), 505, "HTTP/1.1"),
        ("GET / HTTP/1.1", String::new(), 426, "MQTT client"),
        ("GET /mqtt HTTP/1.1", String::new(), 426, "ws://"),
        ("GET /mqtt HTTP/1.1", good.replace("Version: 13", "Version: 8"), 426, "13"),
        ("GET /mqtt HTTP/1.1", good.replace("websocket\r\n", "h2c\r\n"), 426, "ws://"),
        ("GET /mqtt HTTP/1.1", good.replace("Key: dGhl", "Key: dG"), 400, "16 bytes"),
        ("GET /mqtt HTTP/1.1", format!("{good}X: {}\r\n", "x".repeat(20_000)), 431, ""),
    ];
    for (first_line, header, status, says) in cases {
        let answer = WebSocket::ask(address(), first_line, &header);
        assert!(answer[8..].starts_with(&format!(" {status} ")), "{first_line}\n{header}: {answer}");
        assert!(answer.contains(says), "{first_line}: {answer}");
        if status == 426 {
            let answer = answer.to_lowercase();
            assert!(answer.contains("\r\nupgrade: websocket\r\n"), "{answer}");
            assert!(answer.contains("\r\nsec-websocket-version: 13\r\n"), "{answer}");
        }
    }
    // A client that was given the wrong port.
    let mut plain = WebSocket::dial(address());
    plain.write_all(&Connect::v311("c").bytes()).unwrap();
    plain.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 "), "{answer:?}");
    // Both default paths, and a query that somebody adds.
    for path in ["/mqtt", "/", "/mqtt?token=1"] {
        assert!(head_at(address(), path, &good).starts_with("http/1.1 101 "), "{path}");
    }
    let moved = Broker::start(&format!("{LISTENER}paths = [\"/broker\"]\n"));
    assert!(head_at(moved.websocket_address(), "/broker", &good).starts_with("http/1.1 101 "));
    assert!(head_at(moved.websocket_address(), "/mqtt", &good).starts_with("http/1.1 404 "));
}

#[test]
fn slowloris_ws() {
    let broker = Broker::start(&format!("{LISTENER}[limits]\nconnect_timeout = \"1s\"\n"));
    let address = broker.websocket_address();
    let request =
        format!("GET /mqtt HTTP/1.1\r\nHost: h\r\n{}", WebSocket::header("Sec-WebSocket-Protocol: mqtt"));
    let since = Instant::now();
    let silent = WebSocket::dial(address);
    let mut half = WebSocket::dial(address);
    half.write_all(request.as_bytes()).unwrap();
    let mut dribble = WebSocket::dial(address);
    let mut no_connect = WebSocket::open(address);
    let mut half_connect = WebSocket::open(address);
    half_connect.send_frame(WebSocket::FIRST, &Connect::v5("c").bytes()[..5]);
    let mut half_header = WebSocket::open(address);
    half_header.send_raw(&[WebSocket::BINARY]);
    // Each byte comes in time, the whole does not.
    while dribble.write_all(b"G").is_ok() && since.elapsed() < Duration::from_secs(3) {
        std::thread::sleep(Duration::from_millis(100));
    }
    for mut stream in [silent, half, dribble] {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"), "{rest:?}");
    }
    for socket in [&mut no_connect, &mut half_connect, &mut half_header] {
        socket.expect_close(1008);
    }
    assert!(since.elapsed() < Duration::from_secs(6), "{:?}", since.elapsed());
}

/// The head of the answer to a request with this header, in lower case.
fn head(header: &str) -> String {
    head_at(address(), "/mqtt", header)
}

fn head_at(address: SocketAddr, path: &str, header: &str) -> String {
    let answer = WebSocket::ask(address, &format!("GET {path} HTTP/1.1"), header);
    answer.split_inclusive("\r\n\r\n").next().unwrap_or_default().to_lowercase()
}

/// The whole answer to a request that is refused.
fn refusal(header: &str) -> String {
    WebSocket::ask(address(), "GET /mqtt HTTP/1.1", header)
}
