//! What filters say of messages, and that they say something of every message.

use proptest::prelude::*;

use super::*;
use crate::codec::Qos;
use crate::record::{MessageParts, UnixMillis};

/// User properties (0x26) and a content type (0x03) in wire form.
fn properties() -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat();
    let pair = |name: &str, value: &str| [vec![0x26], text(name), text(value)].concat();
    [vec![3], text("application/json"), pair("site", "north"), pair("site", "south"), pair("a b", "c")]
        .concat()
}

fn message(payload: &[u8]) -> Message {
    let parts = MessageParts {
        qos: Qos::AtLeastOnce,
        retain: true,
        published_at: UnixMillis(1_700_000_000_000),
        expires_at: UnixMillis::NEVER,
        topic: "plant/7/line/3",
        properties: &properties(),
        payload,
        publisher: "pump-1\0ada",
    };
    Message::new(&parts, &mut Vec::new())
}

fn filter(expression: &str, on_error: OnFilterError) -> Filter {
    let config = FilterConfig::of(expression).unwrap_or_else(|why| panic!("{expression} {why}"));
    let mut route = RouteConfig::new("r", "plant/+/#", "t");
    route.filter = Some(FilterConfig { on_error, ..config });
    Filter::new(&route)
}

fn ask(expression: &str, payload: &[u8]) -> Result<bool, String> {
    filter(expression, OnFilterError::DeadLetter).ask(&message(payload)).unwrap()
}

const PAYLOAD: &str = r#"{"temperature": 31, "unit": "C", "on": true, "none": null, "big": 18446744073709551615,
    "ratio": 0.5, "readings": [{"v": 1, "tags": ["a"]}, {"v": 40, "tags": ["b", "c"]}], "nested": {"a": {"b": 2}}}"#;

#[test]
fn what_a_message_has() {
    for (expression, expected) in [
        ("payload.temperature > 30.0 && client_id.startsWith(\"pump\")", true),
        ("payload.temperature > 30", true),
        ("payload.temperature == 31.0", true),
        ("payload.temperature < 31", false),
        ("payload.unit == 'C' && payload.on", true),
        ("payload.none == null", true),
        ("payload.big > 18446744073709551614u", true),
        ("payload.ratio * 2.0 == 1.0", true),
        ("payload['nested'].a.b == 2", true),
        ("has(payload.missing) && payload.missing > 3", false),
        ("!has(payload.missing)", true),
        ("payload.readings.exists(r, r.v > 30)", true),
        ("payload.readings.all(r, r.v > 30)", false),
        ("payload.readings.exists(r, r.tags.exists(t, t == 'c'))", true),
        ("payload.readings.filter(r, r.v > 30).size() == 1", true),
        ("payload.readings[0].v == 1", true),
        ("'a' in payload.readings[0].tags", true),
        ("topic == 'plant/7/line/3' && levels[3] == '3' && levels.size() == 4", true),
        ("captures == ['7', 'line/3']", true),
        ("user_name == 'ada' && client_id == 'pump-1'", true),
        ("qos == 1 && retain", true),
        ("properties.site == 'north' && properties['a b'] == 'c'", true),
        ("'site' in properties && !('x' in properties)", true),
        ("content_type == 'application/json'", true),
        ("payload_text.contains('temperature') && payload_size > 100", true),
        ("published_at_ms == 1700000000000", true),
        ("payload_text.size() < 10 || qos == 1", true),
        ("int(string(payload.temperature)) == 31", true),
        ("topic.endsWith('/3') ? qos == 1 : false", true),
    ] {
        assert_eq!(ask(expression, PAYLOAD.as_bytes()), Ok(expected), "{expression}");
    }
}

#[test]
fn a_payload_that_is_not_json_is_null_and_its_text_is_text() {
    assert_eq!(ask("payload == null && payload_text == '{'", b"{"), Ok(true));
    assert_eq!(ask("payload == null && payload_text == null", b"\xff"), Ok(true));
    assert_eq!(ask("payload == 'x'", b"\"x\""), Ok(true));
    assert_eq!(ask("payload == 3", b"3"), Ok(true));
}

#[test]
fn what_has_no_answer_is_an_error_that_says_why() {
    for (expression, why) in [
        ("payload.missing > 3", "missing"),
        ("payload.unit > 3", "there is no > for string and int"),
        ("payload.unit.x > 3", "a string has nothing in it to ask for"),
        ("size(payload.temperature) > 3", "there is no size for "),
        ("payload.temperature", "true or false"),
        ("'x'", "true or false"),
        ("payload.temperature / 0 == 1", "by zero"),
        ("payload.readings[9].v == 1", "out of bounds"),
        ("9223372036854775807 + payload.temperature > 0", "too large"),
    ] {
        let error = ask(expression, PAYLOAD.as_bytes()).unwrap_err();
        assert!(error.contains(why), "{expression}: {error}");
        assert!(error.len() <= WHY_LEN_MAX + 8 && !error.contains(char::is_control), "{error}");
    }
}

#[test]
fn an_error_says_when_the_payload_is_not_json() {
    assert!(ask("payload.x > 3", b"x").unwrap_err().ends_with("(the payload is not JSON)"));
    assert!(!ask("payload.x > 3", b"null").unwrap_err().contains("JSON"));
    assert!(!ask("levels[9] == 'x'", b"x").unwrap_err().contains("JSON"));
}

#[test]
fn an_error_is_what_the_operator_wants_it_to_be() {
    let judge = |on_error| filter("payload.missing", on_error).judge(&message(b"{}"));
    assert_eq!(judge(OnFilterError::Pass), Judgement::Pass);
    assert_eq!(judge(OnFilterError::Drop), Judgement::Drop);
    assert!(matches!(judge(OnFilterError::DeadLetter), Judgement::Error(why) if why.contains("missing")));
    let judge = |expression: &str| filter(expression, OnFilterError::Pass).judge(&message(b"{}"));
    assert_eq!(judge("qos == 1"), Judgement::Pass);
    assert_eq!(judge("qos == 2"), Judgement::Drop);
    assert_eq!(Filter::new(&RouteConfig::new("r", "#", "t")).judge(&message(b"")), Judgement::Pass);
}

#[test]
fn filter_deterministic() {
    let filter = filter(
        "properties.exists(name, name == 'site') && payload.nested.a == {'b': 2}",
        OnFilterError::DeadLetter,
    );
    let message = message(PAYLOAD.as_bytes());
    let first = filter.judge(&message);
    for _ in 0..100 {
        assert_eq!(filter.judge(&message), first);
    }
    assert_eq!(first, Judgement::Pass);
}

#[test]
fn large_messages_are_not_gone_over() {
    let large = vec![b'1'; 65 << 10];
    let why = ask("payload.x == 1", &large).unwrap_err();
    assert!(why.contains("66560 bytes") && why.contains("filter_payload_max"), "{why}");
    assert_eq!(ask("qos == 1 && payload_size > 65536", &large), Ok(true), "it does not ask for the payload");
    let many = format!("[{}1]", "1,".repeat(5000));
    assert!(ask("payload.exists(x, x == 2)", many.as_bytes()).unwrap_err().contains("values"));
    assert_eq!(ask("payload[0] == 1", many.as_bytes()), Ok(true), "it has no loop");
}

/// The worst that a message can make of an expression that was let through: each takes well under a second on a
/// machine of today, unoptimized.
#[test]
fn the_most_work_is_bounded() {
    let numbers: Vec<u32> = (0..2000).collect();
    let payload = serde_json::json!({"a": numbers, "b": numbers, "s": "x".repeat(40_000)}).to_string();
    for expression in [
        "payload.a.exists(x, (x + 5000) in payload.b)",
        "payload.a.exists(x, payload.s.contains('y'))",
        "payload.a.all(x, payload.a == payload.b) && payload.a.exists(x, payload.s + 'y' == '')",
        "payload.a.exists(x, payload.s + x > 0)",
    ] {
        let started = std::time::Instant::now();
        let _ = ask(expression, payload.as_bytes());
        let took = started.elapsed();
        assert!(took.as_secs() < 20, "{expression}: {took:?}");
        eprintln!("{expression}: {took:?}");
    }
}

/// JSON of every shape, some of it large.
fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        ".{0,20}".prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::btree_map("[abc]", inner, 0..4)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

/// Expressions over all operators and functions, with the types of their operands not known.
const EXPRESSIONS: [&str; 22] = [
    "payload.a + payload.b == payload.c",
    "payload.a - payload.b > payload.c",
    "payload.a * payload.b < payload.c",
    "payload.a / payload.b >= payload.c",
    "payload.a % payload.b != payload.c",
    "-payload.a == payload.b",
    "!payload.a",
    "payload.a[payload.b] == payload.c",
    "payload.a in payload.b",
    "payload.a.exists(x, x == payload.b) || payload.b.all(x, x > 0)",
    "payload.a.exists_one(x, x in payload.b)",
    "payload.a.filter(x, x > 1).size() > 0",
    "payload.a.exists(x, x.exists(y, y == 1))",
    "int(payload.a) == 1 || uint(payload.b) == 1u || double(payload.c) > 0.0",
    "string(payload.a) == payload.b || bool(payload.c)",
    "string(bytes(payload.a)) == payload.a",
    "size(payload.a) > 0 && type(payload.b) == int",
    "payload.a.startsWith(payload.b) || payload.a.endsWith(payload.c) || payload.a.contains('x')",
    "payload.a ? payload.b : payload.c",
    "has(payload.a.b) ? payload.a.b.c : payload.b['a']",
    "{payload.a: 1, payload.b: 2}.size() == 2",
    "[payload.a, payload.b] == [payload.b, payload.a] || payload.a == payload_text",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is in a message, a filter has an answer or says why not; and says it again.
    #[test]
    fn no_payload_breaks_a_filter(payload in json(), index in 0..EXPRESSIONS.len()) {
        let text = payload.to_string();
        let answer = ask(EXPRESSIONS[index], text.as_bytes());
        prop_assert_eq!(answer.ok(), ask(EXPRESSIONS[index], text.as_bytes()).ok());
    }

    #[test]
    fn no_bytes_break_a_filter(payload in prop::collection::vec(any::<u8>(), 0..200), index in 0..EXPRESSIONS.len()) {
        let answer = ask(EXPRESSIONS[index], &payload);
        prop_assert!(answer.is_ok() || answer.is_err());
    }
}
