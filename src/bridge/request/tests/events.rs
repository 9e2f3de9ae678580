//! Messages as CloudEvents.

use serde_json::{Value as Json, json};

use super::*;

const BINARY: &str = "body = \"cloudevents\"";
const STRUCTURED: &str = "body = \"cloudevents\"\ncloudevents = { mode = \"structured\" }";

fn structured(parts: &MessageParts<'_>) -> Json {
    let request = request_of(&shaped(STRUCTURED), parts).unwrap();
    assert_eq!(header(&request, "content-type"), "application/cloudevents+json");
    serde_json::from_str(&body(request)).unwrap()
}

/// As the MQTT binding has it.
fn event_properties() -> Vec<u8> {
    let attributes = [
        ("specversion", "1.0"),
        ("id", "e 1"),
        ("source", "/pumps/1"),
        ("type", "com.example.alarm"),
        ("severity", "hi\"gh%"),
        ("Not-An-Attribute", "x"),
    ];
    [user_properties(&attributes), content_type_property("application/json")].concat()
}

#[test]
fn a_message_becomes_an_event_in_headers() {
    let properties = content_type_property("application/json");
    let parts = MessageParts { topic: "plant/7 ä", properties: &properties, ..parts() };
    let request = request_of(&shaped(BINARY), &parts).unwrap();
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", "00000000000000ab-7"),
        ("ce-source", "causeway://r"),
        ("ce-type", "com.causeway.mqtt.message"),
        ("ce-subject", "plant/7%20%C3%A4"),
        ("ce-time", "2023-11-14T22:13:20.123Z"),
        ("content-type", "application/json"),
        ("webhook-id", "00000000000000ab-7"),
    ] {
        assert_eq!(header(&request, name), value, "{name}");
    }
    assert_eq!(body(request), r#"{"v": 1.50, "a": [1, 2], "s": "x"}"#);
}

#[test]
fn a_message_becomes_an_event_in_json() {
    let expected = json!({
        "specversion": "1.0",
        "id": "00000000000000ab-7",
        "source": "causeway://r",
        "type": "com.causeway.mqtt.message",
        "subject": "plant/7/line/3",
        "time": "2023-11-14T22:13:20.123Z",
        "datacontenttype": "application/json",
        "data": {"v": 1.5, "a": [1, 2], "s": "x"},
    });
    assert_eq!(structured(&parts()), expected);
    let of = |payload: &'static [u8], content_type: Option<&str>| {
        let properties = content_type.map(content_type_property).unwrap_or_default();
        let event = structured(&MessageParts { payload, properties: &properties, ..parts() });
        ["datacontenttype", "data", "data_base64"].map(|name| event.get(name).cloned().unwrap_or_default())
    };
    assert_eq!(of(b"hi", None), [json!("text/plain"), json!("hi"), json!(null)]);
    assert_eq!(of(b"hi", Some("text/csv")), [json!("text/csv"), json!("hi"), json!(null)]);
    assert_eq!(of(b"1", Some("text/csv")), [json!("text/csv"), json!("1"), json!(null)]);
    assert_eq!(of(b"{", Some("a/x+json")), [json!("a/x+json"), json!(null), json!("ew==")]);
    assert_eq!(of(b"\xff", None), [json!("application/octet-stream"), json!(null), json!("/w==")]);
    assert_eq!(of(b"", None), [json!(null), json!(null), json!(null)]);
}

#[test]
fn source_and_type_are_the_operators_to_choose() {
    let request = "body = \"cloudevents\"\n[routes.request.cloudevents]\n\
                   source = \"//plant.example/{{ captures[0] }}\"\ntype = \"com.example.{{ levels[2] }}\"";
    let request = request_of(&shaped(request), &MessageParts { topic: "plant/7?x/line", ..parts() }).unwrap();
    assert_eq!(header(&request, "ce-source"), "//plant.example/7%253Fx");
    assert_eq!(header(&request, "ce-type"), "com.example.line");
}

#[test]
fn an_event_in_user_properties_stays_what_it_is() {
    let properties = event_properties();
    let parts = MessageParts { properties: &properties, payload: b"{\"x\": 1}", ..parts() };
    let request = request_of(&shaped(BINARY), &parts).unwrap();
    for (name, value) in [
        ("ce-id", "e%201"),
        ("ce-source", "/pumps/1"),
        ("ce-type", "com.example.alarm"),
        ("ce-severity", "hi%22gh%25"),
        ("content-type", "application/json"),
        ("webhook-id", "00000000000000ab-7"),
    ] {
        assert_eq!(header(&request, name), value, "{name}");
    }
    for absent in ["ce-subject", "ce-time", "ce-not-an-attribute"] {
        assert!(!request.headers().contains_key(absent), "{absent}");
    }
    assert_eq!(body(request), "{\"x\": 1}");
    let expected = json!({
        "specversion": "1.0", "id": "e 1", "source": "/pumps/1", "type": "com.example.alarm",
        "severity": "hi\"gh%", "datacontenttype": "application/json", "data": {"x": 1},
    });
    assert_eq!(structured(&parts), expected);
}

#[test]
fn an_event_in_json_stays_what_it_is() {
    let event = br#"{"specversion":"1.0","id":"1","source":"/s","type":"t","n":5,"data":{"b":1.50,"a":2}}"#;
    let said = content_type_property("application/cloudevents+json; charset=utf-8");
    // Before MQTT 5.0 it cannot be said.
    for properties in [&said[..], &[]] {
        let parts = MessageParts { properties, payload: event, ..parts() };
        let request = request_of(&shaped(STRUCTURED), &parts).unwrap();
        assert_eq!(body(request).as_bytes(), event);
        let request = request_of(&shaped(BINARY), &parts).unwrap();
        let names = ["ce-id", "ce-source", "ce-type", "ce-n", "content-type"];
        assert_eq!(names.map(|name| header(&request, name)), ["1", "/s", "t", "5", "application/json"]);
        assert_eq!(serde_json::from_str::<Json>(&body(request)).unwrap(), json!({"b": 1.5, "a": 2}));
    }
    let data = |rest: &str| {
        let event = format!(r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t",{rest}}}"#);
        let parts = MessageParts { properties: &said, payload: event.as_bytes(), ..parts() };
        body(request_of(&shaped(BINARY), &parts).unwrap())
    };
    assert_eq!(data(r#""datacontenttype":"text/plain","data":"hi""#), "hi");
    assert_eq!(data(r#""datacontenttype":"application/json","data":"hi""#), "\"hi\"");
    assert_eq!(data(r#""datacontenttype":"text/plain","data_base64":"aGk=""#), "hi");
    assert_eq!(data(r#""x":null"#), "");
}

#[test]
fn what_is_not_quite_an_event_becomes_one() {
    let said = content_type_property("application/cloudevents+json");
    for payload in [&b"{}"[..], b"x", br#"{"specversion":"0.3","id":"1","source":"/s","type":"t"}"#] {
        let event = structured(&MessageParts { properties: &said, payload, ..parts() });
        assert_eq!(event["type"], "com.causeway.mqtt.message");
    }
    let properties = user_properties(&[("specversion", "1.0"), ("id", "1"), ("source", ""), ("type", "t")]);
    let event = structured(&MessageParts { properties: &properties, ..parts() });
    assert_eq!(event["source"], "causeway://r");
}

#[test]
fn several_events_are_a_batch() {
    let properties = event_properties();
    let event = MessageParts { properties: &properties, payload: b"1", ..parts() };
    let request = batch_of(&shaped(STRUCTURED), &[parts(), event]).unwrap();
    assert_eq!(header(&request, "content-type"), "application/cloudevents-batch+json");
    let events: Vec<Json> = serde_json::from_str(&body(request)).unwrap();
    let ids: Vec<_> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["00000000000000ab-1", "e 1"]);
}

#[test]
fn a_message_without_a_number_is_an_event_with_an_id() {
    let message = made(&parts());
    let delivery = Delivery { store_id: 1, number: None, attempt: 1 };
    let request = shaped(BINARY).build(&[Item { message: &message, delivery }], NOW).unwrap();
    assert!(header(&request, "ce-id").starts_with("once-"));
    assert!(!request.headers().contains_key("idempotency-key"));
}

/// Whatever a publisher says, its attributes fit into the head of a request, or there is none.
#[test]
fn an_event_with_too_many_attributes_is_no_request() {
    let attributes = |count: usize, value: &str| {
        let more: String = (0..count).map(|number| format!(", \"a{number}\": \"{value}\"")).collect();
        format!(r#"{{"specversion": "1.0", "id": "1", "source": "s", "type": "t"{more}}}"#)
    };
    for (payload, fits) in [
        (attributes(50, "x"), true),
        (attributes(100, "x"), false),
        (attributes(40_000, "x"), false),
        (attributes(1, &"x".repeat(9000)), false),
    ] {
        let parts = MessageParts { payload: payload.as_bytes(), ..parts() };
        let built = request_of(&shaped(BINARY), &parts);
        assert_eq!(built.is_ok(), fits, "{} bytes", payload.len());
        assert_eq!(structured(&parts)["id"], "1", "a body has room for more");
    }
}
