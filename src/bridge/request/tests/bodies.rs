//! What is in requests with one message, and with several.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::header::CONTENT_TYPE;
use serde_json::{Value as Json, json};

use super::*;

fn json_of(request: Request<Full<Bytes>>) -> Json {
    let text = body(request);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn an_envelope_has_everything_and_the_payload_byte_for_byte() {
    let shape = shaped("body = \"json\"");
    let properties = [user_properties(&[("a\"", "ü")]), content_type_property("application/json")].concat();
    let request = request_of(&shape, &MessageParts { properties: &properties, ..parts() }).unwrap();
    assert_eq!(header(&request, "content-type"), "application/json");
    let text = body(request);
    assert!(text.ends_with(r#""payload":{"v": 1.50, "a": [1, 2], "s": "x"}}"#), "{text}");
    let expected = json!({
        "id": "00000000000000ab-7",
        "topic": "plant/7/line/3",
        "client_id": "pump-1",
        "user_name": "ada",
        "qos": 1,
        "retain": false,
        "published_at": "2023-11-14T22:13:20.123Z",
        "content_type": "application/json",
        "properties": {"a\"": "ü"},
        "payload": {"v": 1.5, "a": [1, 2], "s": "x"},
    });
    assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), expected);
}

#[test]
fn a_payload_that_is_not_json_is_in_base64() {
    let of = |payload: &[u8]| {
        json_of(request_of(&shaped("body = \"json\""), &MessageParts { payload, ..parts() }).unwrap())
    };
    for payload in [&b""[..], b"\xff\0", b"{\"a\": ", b"text", b"{\"a\": \"\xff\"}", b"1 2"] {
        let json = of(payload);
        assert_eq!(json["payload_base64"], BASE64_STANDARD.encode(payload));
        assert_eq!(json.get("payload"), None);
    }
    for (payload, value) in [("null", json!(null)), (" \n[1]\n", json!([1])), ("\"a\\nb\"", json!("a\nb"))] {
        assert_eq!(of(payload.as_bytes())["payload"], value);
    }
}

#[test]
fn values_in_a_template_of_json_are_json() {
    let template = r#"{"t": {{ topic }}, "p": {{ payload }}, "u": {{ user_name }}}"#;
    let shape = shaped(&format!("body = \"template\"\ntemplate = '{template}'"));
    let evil = "x\", \"admin\": \"1\n";
    let request = request_of(&shape, &MessageParts { topic: evil, ..parts() }).unwrap();
    assert_eq!(header(&request, "content-type"), "application/json");
    assert_eq!(json_of(request), json!({"t": evil, "p": {"v": 1.5, "a": [1, 2], "s": "x"}, "u": "ada"}));
    let broken = shaped("body = \"template\"\ntemplate = '{\"t\": \"{{ topic }}\"}'");
    assert!(request_of(&broken, &parts()).unwrap_err().why.contains("not JSON"));
}

#[test]
fn other_templates_are_text_of_their_kind() {
    let of = |content_type: &str, template: &str, parts: &MessageParts<'_>| {
        let keys = format!("body = \"template\"\ncontent_type = \"{content_type}\"\ntemplate = '{template}'");
        let request = request_of(&shaped(&keys), parts).unwrap();
        assert_eq!(header(&request, "content-type"), content_type);
        body(request)
    };
    let line = of("text/plain", "temp,line={{ captures[1] }} v={{ payload.v }}", &parts());
    assert_eq!(line, "temp,line=line/3 v=1.5");
    let html = of("text/html", "<b>{{ topic }}</b>", &MessageParts { topic: "<i>", ..parts() });
    assert_eq!(html, "<b>&lt;i&gt;</b>");
}

#[test]
fn what_has_no_body_says_nothing_of_one() {
    for (request, method) in [("method = \"GET\"", Method::GET), ("method = \"DELETE\"", Method::DELETE)] {
        let request = request_of(&shaped(request), &parts()).unwrap();
        assert_eq!(request.method(), method);
        assert!(!request.headers().contains_key(CONTENT_TYPE));
        assert_eq!(body(request), "");
    }
    let asked = request_of(&shaped("method = \"DELETE\"\nbody = \"raw\""), &parts()).unwrap();
    assert!(body(asked).starts_with('{'));
}

#[test]
fn several_messages_are_lines_or_an_array() {
    let spread = MessageParts { payload: b"{\"a\":\r\n 1}", ..parts() };
    let all = [parts(), spread, MessageParts { payload: b"x", ..parts() }];
    let request = batch_of(&shaped("body = \"json\""), &all).unwrap();
    assert_eq!(header(&request, "content-type"), "application/x-ndjson");
    assert_eq!(header(&request, "x-delivery-attempt"), "3");
    assert!(!request.headers().contains_key("mqtt-topic"));
    let text = body(request);
    let lines: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert!(text.ends_with("}\n"));
    assert_eq!(lines[1]["id"], "00000000000000ab-2");
    assert_eq!(lines[1]["payload"], json!({"a": 1}));
    let request = batch_of(&shaped("body = \"json\"\nbatch_format = \"array\""), &all).unwrap();
    assert_eq!(header(&request, "content-type"), "application/json");
    assert_eq!(json_of(request), Json::from(lines));
}

#[test]
fn a_template_makes_one_line_of_each_message() {
    let json = shaped("body = \"template\"\ntemplate = '''{\n\"v\": {{ payload }}\n}\n'''");
    let request = batch_of(&json, &[parts(), MessageParts { payload: b"2", ..parts() }]).unwrap();
    assert_eq!(header(&request, "content-type"), "application/x-ndjson");
    let text = body(request);
    assert_eq!(text.lines().count(), 2, "{text}");
    assert_eq!(text.lines().nth(1), Some("{ \"v\": 2 }"));
    let text = shaped("body = \"template\"\ncontent_type = \"text/plain\"\ntemplate = 'v={{ payload }}'");
    let all = [MessageParts { payload: b"1", ..parts() }, MessageParts { payload: b"1\n2", ..parts() }];
    let unfit = batch_of(&text, &all).unwrap_err();
    assert_eq!((unfit.index, unfit.why.contains("more than one line")), (1, true), "{}", unfit.why);
    let pair = [all[0], MessageParts { payload: b"2", ..parts() }];
    assert_eq!(body(batch_of(&text, &pair).unwrap()), "v=1\nv=2\n");
}

#[test]
fn a_batch_of_one_is_a_batch_where_batches_are_wanted() {
    let shape = batched("body = \"json\"");
    let request = batch_of(&shape, &[parts()]).unwrap();
    assert_eq!(header(&request, "content-type"), "application/x-ndjson");
    assert!(header(&request, "webhook-id").starts_with("batch-"));
    assert_eq!(shape.build(&[], NOW).unwrap_err().index, 0);
}

#[test]
fn the_message_that_does_not_fit_is_named() {
    let shape = shaped("body = \"template\"\ntemplate = '{{ payload.v }}'");
    let all = [parts(), parts(), MessageParts { payload: b"{}", ..parts() }];
    assert_eq!(batch_of(&shape, &all).unwrap_err().index, 2);
}
