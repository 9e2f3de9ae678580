//! What requests look like, and that text of clients cannot leave its place in them.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use http::{Method, Uri};
use http_body_util::BodyExt;

mod anything;
mod bodies;
mod events;
mod identity;
mod templates;

use super::*;
use crate::{
    codec::Qos,
    config::Config,
    record::{MessageParts, UnixMillis},
};

const NOW: UnixMillis = UnixMillis(1_700_000_000_123);

fn message(topic: &str, publisher: &str, properties: &[u8]) -> Message {
    let parts = MessageParts {
        qos: Qos::ExactlyOnce,
        retain: true,
        published_at: UnixMillis(1),
        expires_at: UnixMillis::NEVER,
        topic,
        properties,
        payload: b"\0\xff\r\n",
        publisher,
    };
    Message::new(&parts, &mut Vec::new())
}

/// A Content Type property (0x03) in wire form.
fn content_type_property(text: &str) -> Vec<u8> {
    [&[3][..], &(text.len() as u16).to_be_bytes(), text.as_bytes()].concat()
}

fn delivery(attempt: u32) -> Delivery {
    Delivery { store_id: 0xab, number: Some(Lsn(7)), attempt }
}

fn config() -> TargetConfig {
    TargetConfig::new(Uri::from_static("http://127.0.0.1/in?a=b"))
}

fn shape(config: &TargetConfig) -> Shape {
    Shape::new(&RouteConfig::new("r", "#", "t"), config)
}

fn build(message: &Message, delivery: Delivery) -> Request<Full<Bytes>> {
    shape(&config()).build(&[Item { message, delivery }], NOW).unwrap()
}

fn built(message: &Message) -> Request<Full<Bytes>> {
    build(message, delivery(1))
}

fn header(request: &Request<Full<Bytes>>, name: &str) -> String {
    let value = request.headers().get(name).unwrap_or_else(|| panic!("no header {name}"));
    value.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_message_becomes_a_post() {
    let request = build(&message("a/b", "boat-1", &[]), delivery(3));
    assert_eq!(request.method(), Method::POST);
    assert_eq!(request.uri(), "http://127.0.0.1/in?a=b");
    let expected = [
        ("content-type", "application/octet-stream"),
        ("idempotency-key", "00000000000000ab-7"),
        ("webhook-id", "00000000000000ab-7"),
        ("x-delivery-attempt", "3"),
        ("mqtt-topic", "a/b"),
        ("mqtt-qos", "2"),
        ("mqtt-retain", "true"),
        ("mqtt-publisher", "boat-1"),
        ("user-agent", concat!("causeway/", env!("CARGO_PKG_VERSION"))),
    ];
    for (name, value) in expected {
        assert_eq!(header(&request, name), value, "{name}");
    }
    assert_eq!(request.headers().len(), expected.len());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&body[..], b"\0\xff\r\n");
}

#[test]
fn only_the_attempt_differs_between_attempts() {
    let message = message("a", "p", &[]);
    let mut first = build(&message, delivery(1));
    let mut second = build(&message, delivery(2));
    assert_ne!(first.headers(), second.headers());
    first.headers_mut().remove(DELIVERY_ATTEMPT);
    second.headers_mut().remove(DELIVERY_ATTEMPT);
    assert_eq!(first.headers(), second.headers());
}

#[test]
fn text_of_clients_cannot_end_a_header() {
    let evil = "a\r\nx-evil: 1\n\x7f/ä %";
    let request = built(&message(evil, evil, &content_type_property(evil)));
    let encoded = "a%0D%0Ax-evil:%201%0A%7F/%C3%A4%20%25";
    assert_eq!(header(&request, "mqtt-topic"), encoded);
    assert_eq!(header(&request, "mqtt-publisher"), encoded);
    assert_eq!(header(&request, "content-type"), "application/octet-stream");
    assert!(!request.headers().contains_key("x-evil"));
}

#[test]
fn every_character_is_either_itself_or_encoded() {
    for character in (0..=0x2ff).filter_map(char::from_u32) {
        let request = built(&message(&character.to_string(), "p", &[]));
        let value = header(&request, "mqtt-topic");
        assert!(value.bytes().all(|byte| byte.is_ascii_graphic()), "{character:?} became {value:?}");
        assert_eq!(value.starts_with('%'), !character.is_ascii_graphic() || character == '%');
    }
}

#[test]
fn the_content_type_is_the_publishers_when_a_header_can_carry_it() {
    let of = |properties: &[u8]| header(&built(&message("a", "p", properties)), "content-type");
    let said = |text| content_type_property(text);
    const UTF8: &[u8] = &[1, 1];
    assert_eq!(of(&[UTF8, &said("application/json")].concat()), "application/json");
    assert_eq!(of(&said(" text/csv ")), "text/csv");
    assert_eq!(of(UTF8), "text/plain; charset=utf-8");
    assert_eq!(of(&[1, 0]), "application/octet-stream");
    for unusable in ["", " ", "a/b\r\nx: y", "a/b\nx", "a\0b", "größe/b", "a/b\u{7f}"] {
        assert_eq!(of(&said(unusable)), "application/octet-stream", "{unusable:?}");
    }
}

#[test]
fn configured_headers_are_sent_but_never_forge_a_message() {
    let mut config = config();
    for (name, value) in [
        ("authorization", "Bearer x"),
        ("user-agent", "mine"),
        ("content-type", "a/b"),
        ("mqtt-topic", "forged"),
    ] {
        config.headers.insert(name, HeaderValue::from_static(value));
    }
    config.headers.append("idempotency-key", HeaderValue::from_static("forged"));
    let message = message("a", "p", &[]);
    let request = shape(&config).build(&[Item { message: &message, delivery: delivery(1) }], NOW).unwrap();
    assert_eq!(header(&request, "authorization"), "Bearer x");
    assert_eq!(header(&request, "user-agent"), "mine");
    assert_eq!(header(&request, "content-type"), "a/b");
    assert_eq!(header(&request, "mqtt-topic"), "a");
    assert_eq!(request.headers().get_all("idempotency-key").iter().count(), 1);
    assert_ne!(header(&request, "idempotency-key"), "forged");
}

#[test]
fn a_publisher_without_a_name_sends_no_header() {
    assert!(!built(&message("a", "", &[])).headers().contains_key("mqtt-publisher"));
}

/// A route with these keys of `[routes.request]`, and its target.
fn configured(request: &str) -> (RouteConfig, TargetConfig) {
    let text = format!(
        "[targets.t]\nurl = \"http://h.example/base?a=b\"\n[[routes]]\nname = \"r\"\n\
         topics = [\"plant/+/#\", \"#\"]\ntarget = \"t\"\n[routes.request]\n{request}\n"
    );
    let mut config = Config::parse(&text, "a.toml").unwrap_or_else(|error| panic!("{error}"));
    (config.routes.remove(0), config.targets.remove("t").unwrap())
}

fn shaped(request: &str) -> Shape {
    let (route, target) = configured(request);
    Shape::new(&route, &target)
}

/// With batches.
fn batched(request: &str) -> Shape {
    shaped(&format!("{request}\n[routes.batch]\n"))
}

fn parts() -> MessageParts<'static> {
    MessageParts {
        qos: Qos::AtLeastOnce,
        retain: false,
        published_at: UnixMillis(1_700_000_000_123),
        expires_at: UnixMillis::NEVER,
        topic: "plant/7/line/3",
        properties: &[],
        payload: br#"{"v": 1.50, "a": [1, 2], "s": "x"}"#,
        publisher: "pump-1\0ada",
    }
}

fn made(parts: &MessageParts<'_>) -> Message {
    Message::new(parts, &mut Vec::new())
}

/// User properties (0x26) in wire form.
fn user_properties(pairs: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat();
    pairs.iter().flat_map(|(name, value)| [vec![0x26], text(name), text(value)].concat()).collect()
}

/// The request of the first attempt.
fn request_of(shape: &Shape, parts: &MessageParts<'_>) -> Result<Request<Full<Bytes>>, Unfit> {
    let message = made(parts);
    shape.build(&[Item { message: &message, delivery: delivery(1) }], NOW)
}

/// Several messages in one request, numbered from 1, each at as many attempts.
fn batch_of(shape: &Shape, all: &[MessageParts<'_>]) -> Result<Request<Full<Bytes>>, Unfit> {
    let messages: Vec<_> = all.iter().map(made).collect();
    let items = messages.iter().zip(1..).map(|(message, number)| {
        let delivery = Delivery { store_id: 0xab, number: Some(Lsn(number)), attempt: number as u32 };
        Item { message, delivery }
    });
    shape.build(&items.collect::<Vec<_>>(), NOW)
}

/// It is in memory: nothing has to be waited for.
fn body(request: Request<Full<Bytes>>) -> String {
    let collected = pin!(request.into_body().collect()).poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(Ok(body)) = collected else { panic!("{collected:?}") };
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}
