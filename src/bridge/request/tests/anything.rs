//! Whatever clients publish: a request that is one, to where it belongs, or a reason why there is none.

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;

/// Each puts text of clients into every place there is.
const SHAPES: [&str; 7] = [
    "",
    "body = \"json\"\nid = \"user_property:id\"",
    "body = \"template\"\ntemplate = '{\"a\": {{ topic }}, \"b\": [{{ payload }}], {{ client_id }}: {{ properties }}}'",
    "body = \"cloudevents\"",
    "body = \"cloudevents\"\ncloudevents = { mode = \"structured\", source = \"/{{ client_id }}\" }",
    "path = \"/a/{{ topic }}/{{ client_id }}\"\nquery = { q = \"{{ payload_base64 }}\", t = \"{{ topic }}\" }",
    "headers = { x-a = \"{{ topic }}\", x-b = \"{{ properties.id or client_id }}\" }\nbody = \"none\"",
];

/// Text of MQTT: no U+0000.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[^\0]{1,12}",
        "[a-z/.%?#&=:@\\\\]{1,12}",
        Just("..".to_owned()),
        Just("../..".to_owned()),
        Just("a\r\nX-Evil: 1".to_owned()),
        Just("\", \"x\": \"".to_owned()),
        Just("{{ route }}".to_owned()),
    ]
}

fn names() -> impl Strategy<Value = String> {
    let known = ["id", "source", "type", "specversion", "traceparent", "tracestate", "data", "subject"];
    prop_oneof![text(), prop::sample::select(known.to_vec()).prop_map(str::to_owned)]
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        text().prop_map(|text| serde_json::to_vec(&text).unwrap()),
        Just(br#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":1,"x":{"y":[]}}"#.to_vec()),
        Just(b"{\"a\":\n[1, null, {}]}".to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_message_leaves_its_place(
        topic in text(),
        publisher in text(),
        pairs in prop::collection::vec((names(), text()), 0..5),
        payload in payload(),
        keys in prop::sample::select(SHAPES.to_vec()),
    ) {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let properties = user_properties(&pairs);
        let parts = MessageParts { topic: &topic, publisher: &publisher, properties: &properties, payload: &payload, ..parts() };
        let request = match request_of(&shaped(keys), &parts) {
            Ok(request) => request,
            Err(unfit) => {
                prop_assert!(!unfit.why.is_empty() && !unfit.why.contains(char::is_control), "{}", unfit.why);
                return Ok(());
            }
        };
        prop_assert_eq!(request.uri().authority().unwrap().as_str(), "h.example");
        let path = request.uri().path();
        prop_assert!(path.starts_with("/base") && path.matches('/').count() == if keys.contains("path") { 4 } else { 1 }, "{}", path);
        prop_assert!(!path.split('/').any(|segment| segment == ".." || segment == "."), "{}", path);
        prop_assert!(request.uri().query().unwrap().starts_with("a=b"));
        prop_assert!(!request.headers().contains_key("x-evil"));
        let made = keys.contains("body") && !keys.contains("none") && keys != SHAPES[3];
        if made {
            let json: Json = serde_json::from_str(&body(request)).unwrap();
            prop_assert!(json.get("x").is_none_or(|x| x.is_object()), "{json}");
            if keys.contains("\"json\"") {
                prop_assert_eq!(&json["topic"], &topic);
                prop_assert_eq!(&json["client_id"], &publisher);
            }
            if keys.contains("template") {
                prop_assert_eq!(&json["a"], &topic);
            }
        }
    }

    /// A batch is as many lines, or elements, as there are messages.
    #[test]
    fn no_message_leaves_its_line(payloads in prop::collection::vec(payload(), 1..6), is_array in any::<bool>()) {
        let form = if is_array { "array" } else { "ndjson" };
        let shape = batched(&format!("body = \"json\"\nbatch_format = \"{form}\""));
        let all: Vec<_> = payloads.iter().map(|payload| MessageParts { payload, ..parts() }).collect();
        let text = body(batch_of(&shape, &all).unwrap());
        let made: Vec<Json> = if is_array {
            serde_json::from_str(&text).unwrap()
        } else {
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        prop_assert_eq!(made.len(), payloads.len());
        for (json, payload) in made.iter().zip(&payloads) {
            let expected = serde_json::from_slice::<Json>(payload).ok();
            prop_assert_eq!(json.get("payload"), expected.as_ref());
        }
    }
}
