//! MQTT over WebSocket: section 6 of both versions, and RFC 6455 where it is about what a server is sent.
//! How a connection begins is in `websocket_request.rs`.

use std::{
    io::Write as _,
    net::{Shutdown, SocketAddr},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::aws_lc_rs};

use crate::harness::{
    Broker, Connect, Publish, Version, WebSocket, ack, packet, suback, suback_v311, subscribe,
    subscribe_v311, unique,
};

/// A listener for WebSocket, with every default.
pub const LISTENER: &str = "[[listeners]]\naddress = \"127.0.0.1:0\"\n[listeners.websocket]\n";

/// CONNACK of 3.1.1 for a new session, PINGREQ, PINGRESP.
const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
pub const PINGREQ: [u8; 2] = [0xC0, 0];
const PINGRESP: [u8; 2] = [0xD0, 0];

/// The broker that most tests share.
fn broker() -> &'static Broker {
    static SHARED: OnceLock<Broker> = OnceLock::new();
    SHARED.get_or_init(|| Broker::start(LISTENER))
}

/// Where it listens for WebSocket.
pub fn address() -> SocketAddr {
    broker().websocket_address()
}

/// A client whose CONNECT was accepted, with the rest of CONNACK read.
pub fn connected(connect: &Connect) -> WebSocket {
    let mut client = WebSocket::open(address());
    client.send(&connect.bytes());
    let (first, connack) = client.next_frame().unwrap();
    assert!(first == WebSocket::BINARY && connack[0] == 0x20 && connack[3] == 0, "{connack:02x?}");
    client
}

#[test]
fn ws_text_frame() {
    proves!("5.0 MQTT-6.0.0-1", "3.1.1 MQTT-6.0.0-1");
    let topic = unique("text");
    let mut witness = broker().connect(&Connect::v5(&unique("witness")));
    witness.ask(&subscribe(1, &[(&topic, 0)]), &suback(0x90, 1, &[0]));
    for version in [Version::V31, Version::V311, Version::V5] {
        let id = unique("text");
        let mut early = WebSocket::open(address());
        early.send_frame(WebSocket::TEXT, &Connect::new(version, &id).bytes());
        early.expect_close(1003);

        let mut late = connected(&Connect::new(version, &id));
        late.send_frame(WebSocket::TEXT, &Publish::new(&topic, "text").bytes(version));
        late.expect_close(1003);

        // In the first fragment, and with good data around it.
        let mut mixed = connected(&Connect::new(version, &id));
        let good = WebSocket::frame(WebSocket::BINARY, &PINGREQ);
        let text = WebSocket::frame(0x01, b"");
        let after = WebSocket::frame(WebSocket::BINARY, &Publish::new(&topic, "after").bytes(version));
        mixed.send_raw(&[good, text, after].concat());
        mixed.expect(&PINGRESP);
        mixed.expect_close(1003);
    }
    witness.expect_nothing();
}

/// What a client of a version says, and what follows CONNACK: delivery and PUBACK in one order or the other.
fn conversation(version: Version) -> (Vec<u8>, [Vec<u8>; 2]) {
    let topic = unique("fragments");
    let publish = Publish::new(&topic, "payload").qos(1, 7).bytes(version);
    let connect = Connect::new(version, &unique("fragments")).bytes();
    let (subscribe, suback) = match version {
        Version::V5 => (subscribe(1, &[(&topic, 0)]), suback(0x90, 1, &[0])),
        _ => (subscribe_v311(1, &[(&topic, 0)]), suback_v311(1, &[0])),
    };
    let (delivery, puback) = (Publish::new(&topic, "payload").bytes(version), ack(0x40, 7));
    let answers = [[&suback[..], &delivery, &puback].concat(), [&suback[..], &puback, &delivery].concat()];
    ([connect, subscribe, publish].concat(), answers)
}

/// Sends pieces of the conversation, each after the broker has read the one before it, and checks the answer.
fn converse(how: &str, pieces: &[Vec<u8>], answers: &[Vec<u8>; 2]) {
    let mut client = WebSocket::open(address());
    let mut received = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        if index + 1 == pieces.len() {
            client.send_raw(piece);
            break;
        }
        // Ping and piece are read at once, so that the pong says that both were.
        client.send_raw(&[&WebSocket::frame(WebSocket::PING, b"read?"), &piece[..]].concat());
        loop {
            match client.next_frame().unwrap_or_else(|| panic!("{how}: closed")) {
                (WebSocket::PONG, _) => break,
                (_, payload) => received.extend(payload),
            }
        }
    }
    let after_connack = |bytes: &[u8]| bytes.get(1).map_or(usize::MAX, |len| 2 + usize::from(*len));
    while received.len() < after_connack(&received).saturating_add(answers[0].len()) {
        let (first, payload) = client.next_frame().unwrap_or_else(|| panic!("{how}: closed"));
        assert_eq!(first, WebSocket::BINARY, "{how}");
        received.extend(payload);
    }
    let (connack, rest) = received.split_at(after_connack(&received));
    assert_eq!((connack[0], connack[3]), (0x20, 0), "{how}: {connack:02x?}");
    assert!(answers.iter().any(|answer| answer == rest), "{how}: {rest:02x?} instead of {answers:02x?}");
}

#[test]
fn ws_fragment_matrix() {
    proves!("5.0 MQTT-6.0.0-2", "3.1.1 MQTT-6.0.0-2");
    let binary = |bytes: &[u8]| WebSocket::frame(WebSocket::BINARY, bytes);
    for version in [Version::V311, Version::V5] {
        let (asked, answers) = conversation(version);
        converse("all packets in one frame", &[binary(&asked)], &answers);
        let frames: Vec<_> = asked.chunks(1).map(binary).collect();
        converse("each byte in a frame", &frames, &answers);
        converse("each byte in a frame, at once", &[frames.concat()], &answers);
        let last = asked.len() - 1;
        let fragments = asked.chunks(1).enumerate().map(|(index, byte)| {
            let first = if index == 0 { WebSocket::FIRST } else { WebSocket::NEXT };
            WebSocket::frame(if index == last { WebSocket::LAST } else { first }, byte)
        });
        let fragments: Vec<_> = fragments.collect();
        converse("each byte in a fragment", &fragments, &answers);
        converse("each byte in a fragment, at once", &[fragments.concat()], &answers);
        for cut in 1..asked.len() {
            let (front, back) = asked.split_at(cut);
            converse(&format!("two frames, cut at {cut}"), &[binary(front), binary(back)], &answers);
            let front = WebSocket::frame(WebSocket::FIRST, front);
            let back = WebSocket::frame(WebSocket::LAST, back);
            converse(&format!("two fragments, cut at {cut}"), &[front, back], &answers);
        }
        let frame = binary(&asked);
        for cut in 1..frame.len() {
            let (front, back) = frame.split_at(cut);
            converse(&format!("a frame cut at {cut}"), &[front.to_vec(), back.to_vec()], &answers);
        }
    }
}

#[test]
fn frames_that_break_rfc_6455() {
    let good = WebSocket::frame(WebSocket::BINARY, &PINGREQ);
    let begun = WebSocket::frame(WebSocket::FIRST, b"");
    let cases = [
        ("unmasked", [&[WebSocket::BINARY, 2][..], &PINGREQ].concat()),
        ("an unmasked ping", vec![WebSocket::PING, 0]),
        ("an opcode that does not exist", WebSocket::frame(0x83, b"")),
        ("a control opcode that does not exist", WebSocket::frame(0x8B, b"")),
        ("reserved bit 2", WebSocket::frame(0xA2, &PINGREQ)),
        ("reserved bit 3", WebSocket::frame(0x92, &PINGREQ)),
        ("a continuation of nothing", WebSocket::frame(WebSocket::LAST, &PINGREQ)),
        ("a message inside another", [begun, good.clone()].concat()),
        ("a long ping", WebSocket::frame(WebSocket::PING, &[0; 126])),
        ("a ping in fragments", WebSocket::frame(0x09, b"")),
        ("a length that could be shorter", [&[0x82, 0xFE, 0, 2, 0, 0, 0, 0][..], &PINGREQ].concat()),
        ("a negative length", vec![0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("a Close of one byte", WebSocket::frame(WebSocket::CLOSE, &[3])),
        ("a Close with a code that is not sent", WebSocket::frame(WebSocket::CLOSE, &[0x03, 0xED])),
    ];
    for (what, bytes) in cases {
        let mut client = connected(&Connect::v311(&unique("frames")));
        client.send_raw(&[&good[..], &bytes, &good].concat());
        client.expect(&PINGRESP);
        let (first, payload) = client.next_frame().unwrap_or_else(|| panic!("{what}: no Close frame"));
        assert_eq!((first, &payload[..2]), (WebSocket::CLOSE, &1002_u16.to_be_bytes()[..]), "{what}");
        client.expect_end();
    }
}

#[test]
fn ping_and_pong() {
    let mut client = WebSocket::open(address());
    client.send_frame(WebSocket::PING, b"before CONNECT");
    assert_eq!(client.next_frame(), Some((WebSocket::PONG, b"before CONNECT".to_vec())));
    client.send(&Connect::v311(&unique("ping")).bytes());
    client.expect(&CONNACK);
    for payload in [&b""[..], b"x", &[7; 125]] {
        client.send_frame(WebSocket::PING, payload);
        assert_eq!(client.next_frame(), Some((WebSocket::PONG, payload.to_vec())));
    }
    client.send_frame(WebSocket::PONG, b"nobody has asked");
    // Between two fragments of a packet.
    client.send_frame(WebSocket::FIRST, &PINGREQ[..1]);
    client.send_frame(WebSocket::PING, b"between");
    assert_eq!(client.next_frame(), Some((WebSocket::PONG, b"between".to_vec())));
    client.send_frame(WebSocket::LAST, &PINGREQ[1..]);
    client.expect(&PINGRESP);
}

#[test]
fn a_flood_of_pings_holds_up_nobody() {
    let mut flood = connected(&Connect::v311(&unique("flood")));
    let pings = WebSocket::frame(WebSocket::PING, &[7; 125]).repeat(1000);
    flood.stream().set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut other = connected(&Connect::v311(&unique("other")));
    // The answers are not read.
    for _ in 0..100 {
        let written = flood.stream().write(&pings);
        other.ask_mqtt(&PINGREQ, &PINGRESP);
        if written.is_err() {
            break;
        }
    }
    other.ask_mqtt(&PINGREQ, &PINGRESP);
}

#[test]
fn pings_do_not_keep_a_session_alive() {
    let mut client = connected(&Connect::v5(&unique("ping")).keep_alive(1));
    let since = Instant::now();
    client.stream().set_nonblocking(true).unwrap();
    while client.stream().peek(&mut [0; 8]).is_err() {
        assert!(since.elapsed() < Duration::from_secs(10));
        // A pong needs no answer, so that the next to come is the end.
        client.send_frame(WebSocket::PONG, b"");
        std::thread::sleep(Duration::from_millis(100));
    }
    client.stream().set_nonblocking(false).unwrap();
    assert!(since.elapsed() >= Duration::from_millis(1450));
    client.expect_disconnect(0x8D);
}

#[test]
fn both_ends_can_close() {
    let mut client = connected(&Connect::v311(&unique("close")));
    client.send(&[0xE0, 0]);
    client.expect_close(1000);

    for code in [1000, 1001, 4711_u16] {
        let mut client = connected(&Connect::v311(&unique("close")));
        client.send_frame(WebSocket::CLOSE, &[&code.to_be_bytes()[..], b"bye"].concat());
        client.expect_close(code);
    }
    let mut client = WebSocket::open(address());
    client.send_frame(WebSocket::CLOSE, b"");
    client.expect_close(1000);

    // MQTT's reason first, then the end.
    let mut client = connected(&Connect::v5(&unique("close")));
    client.send(&[0x20, 2, 0, 0]);
    client.expect_disconnect(0x82);

    let mut client = WebSocket::open(address());
    client.send(&PINGREQ);
    client.expect_close(1008);
}

#[test]
fn an_end_without_disconnect_publishes_the_will() {
    let topic = unique("will");
    let mut witness = broker().connect(&Connect::v5(&unique("witness")));
    witness.ask(&subscribe(1, &[(&topic, 0)]), &suback(0x90, 1, &[0]));
    let connect = |payload: &str| connected(&Connect::v5(&unique("will")).will(&topic, payload, 0));
    connect("closed").send_frame(WebSocket::CLOSE, &1000_u16.to_be_bytes());
    assert_eq!(witness.message().payload, b"closed");
    connect("cut").stream().shutdown(Shutdown::Both).unwrap();
    assert_eq!(witness.message().payload, b"cut");
    connect("text").send_frame(WebSocket::TEXT, b"");
    assert_eq!(witness.message().payload, b"text");
    let mut polite = connect("never");
    polite.send(&[0xE0, 0]);
    polite.expect_close(1000);
    witness.expect_nothing();
}

#[test]
fn oversize() {
    let broker = Broker::start(&format!("{LISTENER}[limits]\npacket_size = \"64 KiB\"\n"));
    // A frame may be longer than a packet: what is in it counts, and nothing waits for its end.
    let mut endless = WebSocket::open(broker.websocket_address());
    endless.send_raw(&[WebSocket::BINARY, 0xFF, 0x7F, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    endless.send_raw(&Connect::v5("c").bytes());
    let (_, connack) = endless.next_frame().unwrap();
    assert_eq!((connack[0], connack[3]), (0x20, 0));
    for _ in 0..10 {
        endless.send_raw(&Publish::new("a", [0; 30_000]).qos(1, 1).v5());
        endless.expect(&[0x40, 3, 0, 1, 0x10]);
    }
    endless.send_raw(&[0x30, 0x80, 0x80, 0x04]);
    endless.expect_disconnect(0x95);

    // Before CONNECT nothing is waited for either.
    let mut early = WebSocket::open(broker.websocket_address());
    early.send_frame(WebSocket::FIRST, &[0x10, 0xFF, 0xFF, 0xFF, 0x7F]);
    early.expect_close(1008);
}

#[test]
fn large_packets_both_ways() {
    let topic = unique("large");
    let mut client = connected(&Connect::v311(&unique("large")));
    client.ask_mqtt(&subscribe_v311(1, &[(&topic, 0)]), &suback_v311(1, &[0]));
    let payload: Vec<u8> = (0..1_000_000_u32).map(|number| (number >> 8 ^ number) as u8).collect();
    let publish = Publish::new(&topic, &payload).v311();
    for chunk in [publish.len(), 65_536, 1_000] {
        publish.chunks(chunk).for_each(|chunk| client.send(chunk));
        client.expect(&publish);
    }
    client.ask_mqtt(&PINGREQ, &PINGRESP);
}

#[test]
fn a_websocket_client_and_a_plain_one_share_the_broker() {
    let topic = unique("both");
    let id = unique("roams");
    let mut here = connected(&Connect::v5(&id).durable());
    here.ask_mqtt(&subscribe(1, &[(&topic, 2)]), &suback(0x90, 1, &[2]));
    let mut there = broker().connect(&Connect::v5(&unique("plain")));
    there.send(&Publish::new(&topic, "two").qos(2, 1).v5());
    there.expect(&ack(0x50, 1));
    here.expect(&packet(0x34, &[&crate::harness::string(&topic)[..], &[0, 1, 0], b"two"].concat()));
    // The session goes on over TCP, and the old connection is told so.
    let mut moved = broker().resume(&Connect::v5(&id).durable());
    here.expect_disconnect(0x8E);
    let again = moved.message();
    assert_eq!((again.dup, again.id, &again.payload[..]), (true, 1, &b"two"[..]));
}

#[test]
fn a_client_that_takes_nothing_is_closed() {
    let broker = Broker::start(&format!("{LISTENER}[limits]\nwrite_timeout = \"1s\"\n"));
    let mut witness = broker.connect(&Connect::v5("witness"));
    witness.ask(&subscribe(1, &[("will", 0)]), &suback(0x90, 1, &[0]));
    let mut stuck = WebSocket::open(broker.websocket_address());
    stuck.send(&Connect::v311("stuck").will("will", "stuck", 0).bytes());
    stuck.expect(&CONNACK);
    stuck.ask_mqtt(&subscribe_v311(1, &[("flood", 0)]), &suback_v311(1, &[0]));
    let mut publisher = broker.connect(&Connect::v5("publisher"));
    let flood = Publish::new("flood", [0; 64 * 1024]).v5().repeat(10);
    (0..50).for_each(|_| publisher.send(&flood));
    assert_eq!(witness.message().payload, b"stuck");
}

#[test]
fn wss() {
    let folder = tempfile::tempdir().unwrap();
    causeway::transport::dev_certs::ensure(folder.path()).unwrap();
    let path = |name| folder.path().join(name);
    let (certificate, key) = (path("server.pem"), path("server.key"));
    let tls = format!("[listeners.tls]\ncertificate = {certificate:?}\nkey = {key:?}\n");
    let broker = Broker::start(&format!("{LISTENER}{tls}"));
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(path("ca.pem")).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // As browsers do.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let tls = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
    let tcp = WebSocket::dial(broker.websocket_address());
    let mut client = WebSocket::over(StreamOwned::new(tls, tcp));
    client.send(&Connect::v311("c").bytes());
    client.expect(&CONNACK);
    client.ask_mqtt(&subscribe_v311(1, &[("t", 1)]), &suback_v311(1, &[1]));
    client.send_frame(WebSocket::PING, b"hello");
    assert_eq!(client.next_frame(), Some((WebSocket::PONG, b"hello".to_vec())));
    let large = Publish::new("t", vec![7; 300_000]).v311();
    client.ask_mqtt(&large, &large);
    client.send(&[0xE0, 0]);
    client.expect_close(1000);
}
