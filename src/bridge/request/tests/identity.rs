//! What requests are known by, and what they are signed with.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use standardwebhooks::Webhook;

use super::*;
use crate::config::SigningKey;

const OLD: &str = "C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const NEW: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn id(parts: &MessageParts<'_>) -> String {
    let request = request_of(&shaped("id = \"user_property:order-id\""), parts).unwrap();
    assert_eq!(header(&request, "webhook-id"), header(&request, "idempotency-key"));
    header(&request, "webhook-id")
}

#[test]
fn producer_id_preferred() {
    let of = |value: &str, publisher: &'static str| {
        let properties = user_properties(&[("order-id", value), ("order-id", "second")]);
        id(&MessageParts { properties: &properties, publisher, ..parts() })
    };
    assert_eq!(of("42", "pump-1"), "pump-1:42");
    assert_eq!(of("42", "pump-1\0ada"), "pump-1:42");
    assert_eq!(of("a.b c\r\nX: ä", "p:1"), "p%3A1:a%2Eb%20c%0D%0AX%3A%20%C3%A4");
    assert_ne!(of("b:c", "a"), of("c", "a:b"));
    let long = of(&"x".repeat(500), "c");
    assert!(long.starts_with("sha256-") && long.len() < 60, "{long}");
    assert_ne!(long, of(&"x".repeat(501), "c"));
    assert_eq!(id(&parts()), "00000000000000ab-7", "it says none");
    let empty = user_properties(&[("order-id", "")]);
    assert_eq!(id(&MessageParts { properties: &empty, ..parts() }), "00000000000000ab-7");
}

#[test]
fn a_batch_is_known_by_what_is_in_it() {
    let shape = batched("body = \"json\"");
    let messages = [made(&parts()), made(&parts()), made(&parts())];
    let of = |numbers: &[u64], attempt: u32| {
        let items = numbers.iter().zip(&messages).map(|(number, message)| {
            let delivery = Delivery { store_id: 0xab, number: Some(Lsn(*number)), attempt };
            Item { message, delivery }
        });
        header(&shape.build(&items.collect::<Vec<_>>(), NOW).unwrap(), "idempotency-key")
    };
    assert_eq!(of(&[1, 2, 3], 1), of(&[1, 2, 3], 2));
    let mut ids = [&[1, 2, 3][..], &[1, 2], &[1, 3], &[2, 1], &[12], &[1]].map(|numbers| of(numbers, 1));
    ids.sort_unstable();
    assert!(ids.iter().zip(ids.iter().skip(1)).all(|(one, next)| one != next), "{ids:?}");
    assert!(ids.iter().all(|id| id.len() == 38), "{ids:?}");
}

fn signed(keys: &[SigningKey], now: UnixMillis) -> Request<Full<Bytes>> {
    let (route, mut target) = configured("");
    target.signing = keys.to_vec();
    let message = made(&parts());
    Shape::new(&route, &target).build(&[Item { message: &message, delivery: delivery(1) }], now).unwrap()
}

fn hmac(text: &str) -> SigningKey {
    SigningKey::Hmac(BASE64_STANDARD.decode(text).unwrap().into())
}

/// Those of the reference implementations: HMAC from the one in Rust, ed25519 from the one in Go.
#[test]
fn signature_vectors() {
    let signer = Signer::new(&[hmac(OLD)]).unwrap();
    let body = br#"{"email":"test@example.com","username":"test_user"}"#;
    let header = signer.sign("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, body).unwrap();
    assert_eq!(header, "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
    let seed = BASE64_STANDARD.decode("VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk=").unwrap();
    let signer = Signer::new(&[SigningKey::Ed25519(seed.into())]).unwrap();
    let header =
        signer.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b"{\"test\": 2432232314}").unwrap();
    let expected =
        "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag==";
    assert_eq!(header, expected);
}

#[test]
fn either_key_verifies_while_they_change() {
    let now = UnixMillis(Timestamp::now().as_millisecond().cast_unsigned());
    let request = signed(&[hmac(OLD), hmac(NEW)], now);
    let headers = request.headers().clone();
    let body = body(request);
    for key in [OLD, NEW] {
        Webhook::new(key).unwrap().verify(body.as_bytes(), &headers).unwrap();
    }
    let other = Webhook::new("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap();
    assert!(other.verify(body.as_bytes(), &headers).is_err());
    assert!(Webhook::new(OLD).unwrap().verify(b"other", &headers).is_err());
}

#[test]
fn each_attempt_is_signed_with_its_time_and_the_same_id() {
    let first = signed(&[hmac(OLD)], UnixMillis(1_700_000_000_999));
    let second = signed(&[hmac(OLD)], UnixMillis(1_700_000_001_000));
    assert_eq!(header(&first, "webhook-timestamp"), "1700000000");
    assert_eq!(header(&second, "webhook-timestamp"), "1700000001");
    assert_eq!(header(&first, "webhook-id"), header(&second, "webhook-id"));
    assert_ne!(first.headers()["webhook-signature"], second.headers()["webhook-signature"]);
    assert!(!format!("{:?}", first.headers()).contains("v1,"));
    assert!(!request_of(&shaped(""), &parts()).unwrap().headers().contains_key("webhook-signature"));
}

#[test]
fn a_trace_goes_on_with_a_span_for_each_attempt() {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let shape = shaped("");
    let of = |parent: &str, attempt| {
        let properties = user_properties(&[("traceparent", parent), ("tracestate", "a=1")]);
        let message = made(&MessageParts { properties: &properties, ..parts() });
        shape.build(&[Item { message: &message, delivery: delivery(attempt) }], NOW).unwrap()
    };
    let (first, second) = (of(parent, 1), of(parent, 2));
    let (one, two) = (header(&first, "traceparent"), header(&second, "traceparent"));
    assert!(
        one.starts_with(&parent[..36]) && one.ends_with("-01") && one != parent && one != two,
        "{one} {two}"
    );
    assert_eq!(header(&first, "tracestate"), "a=1");
    let invalid = of("00-x", 1);
    assert!(!invalid.headers().contains_key("traceparent") && !invalid.headers().contains_key("tracestate"));
}
