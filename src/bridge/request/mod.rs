//! From a message to the POST that carries it.
//!
//! The body is the payload, byte for byte. What else the target may want to know is in headers; text
//! from MQTT clients gets into a header only in a form that cannot end it.
//!
//! Invariant: every attempt at a message has the same body and the same idempotency key.

use std::fmt::Write;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri,
    header::{CONTENT_TYPE, USER_AGENT},
};
use http_body_util::Full;

use crate::{
    codec::PublishProperties,
    config::{RouteConfig, TargetConfig},
    record::{Lsn, Message},
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const DELIVERY_ATTEMPT: HeaderName = HeaderName::from_static("x-delivery-attempt");
const MQTT_TOPIC: HeaderName = HeaderName::from_static("mqtt-topic");
const MQTT_QOS: HeaderName = HeaderName::from_static("mqtt-qos");
const MQTT_RETAIN: HeaderName = HeaderName::from_static("mqtt-retain");
const MQTT_PUBLISHER: HeaderName = HeaderName::from_static("mqtt-publisher");

/// One attempt to deliver a message.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// The random id that the store had when it gave out the number.
    pub store_id: u64,
    /// The number of the message in that store; `None` for QoS 0, which has none and is tried once.
    pub number: Option<Lsn>,
    /// Counted from 1, over every attempt that was made.
    pub attempt: u32,
}

/// One message of a request, and the attempt that it is.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// The message.
    pub message: &'a Message,
    /// Its number, and which attempt this is.
    pub delivery: Delivery,
}

/// A message that no request can be made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// Which of the messages that were to be in the request.
    pub index: usize,
    /// What does not fit, in one line, safe to print.
    pub why: String,
}

/// What the requests of a route look like.
#[derive(Clone, Debug)]
pub struct Shape {
    uri: Uri,
    headers: HeaderMap,
}

impl Shape {
    /// That of a route to this target. Its configured headers come before the default user agent and the
    /// content type of a message, not before the headers that identify it.
    pub fn new(_route: &RouteConfig, target: &TargetConfig) -> Self {
        let user_agent = HeaderValue::from_static(concat!("causeway/", env!("CARGO_PKG_VERSION")));
        let mut headers = target.headers.clone();
        headers.entry(USER_AGENT).or_insert(user_agent);
        Self { uri: target.url.clone(), headers }
    }

    /// The request of one attempt. The payload is shared with the message, not copied.
    ///
    /// # Errors
    /// When one of the messages cannot be put into a request, now or ever.
    pub fn build(&self, items: &[Item<'_>]) -> Result<Request<Full<Bytes>>, Unfit> {
        let [Item { message, delivery }] = items else {
            return Err(Unfit { index: 0, why: "one message at a time".into() });
        };
        let mut headers = self.headers.clone();
        headers.entry(CONTENT_TYPE).or_insert_with(|| content_type(message));
        let key = delivery.number.map(|number| idempotency_key(delivery.store_id, number));
        if let Some(Ok(key)) = key.map(HeaderValue::try_from) {
            headers.insert(IDEMPOTENCY_KEY, key.clone());
            headers.insert(WEBHOOK_ID, key);
        }
        headers.insert(DELIVERY_ATTEMPT, delivery.attempt.into());
        insert_text(&mut headers, MQTT_TOPIC, message.topic());
        headers.insert(MQTT_QOS, u16::from(message.head().qos as u8).into());
        let retain = if message.head().retain { "true" } else { "false" };
        headers.insert(MQTT_RETAIN, HeaderValue::from_static(retain));
        insert_text(&mut headers, MQTT_PUBLISHER, message.publisher());

        let body = Bytes::from_owner(SharedPayload(Message::clone(message)));
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// The key that a target can tell repeats by: unique over all stores and all their messages.
pub fn idempotency_key(store_id: u64, number: Lsn) -> String {
    format!("{store_id:016x}-{}", number.0)
}

/// The payload of a message that lives for as long as the HTTP client needs it.
struct SharedPayload(Message);

impl AsRef<[u8]> for SharedPayload {
    fn as_ref(&self) -> &[u8] {
        self.0.payload()
    }
}

/// What the publisher said, unless a header cannot carry it; otherwise what is known of the payload.
fn content_type(message: &Message) -> HeaderValue {
    let properties = PublishProperties::from_forwarded(message.properties());
    let said = properties.content_type().map(str::trim);
    let usable = said.filter(|text| !text.is_empty() && text.is_ascii());
    usable.and_then(|text| HeaderValue::from_str(text).ok()).unwrap_or_else(|| {
        HeaderValue::from_static(if properties.payload_format_is_utf8() {
            "text/plain; charset=utf-8"
        } else {
            "application/octet-stream"
        })
    })
}

/// Sets a header to a text of MQTT; an empty text sets none.
fn insert_text(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if text.is_empty() {
        return;
    }
    let value = if text.bytes().all(stands_for_itself) {
        HeaderValue::from_str(text)
    } else {
        HeaderValue::try_from(percent_encode(text))
    };
    if let Ok(value) = value {
        headers.insert(name, value);
    }
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if stands_for_itself(byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Visible ASCII. The percent sign is not, so that a target can always decode what it gets.
fn stands_for_itself(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'%'
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::{
        codec::Qos,
        record::{MessageParts, UnixMillis},
    };

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
        shape(&config()).build(&[Item { message, delivery }]).unwrap()
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
        let request = shape(&config).build(&[Item { message: &message, delivery: delivery(1) }]).unwrap();
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
}
