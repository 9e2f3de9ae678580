//! What templates fill in, and that it stays in its place.

use super::*;

fn uri(request: &str, parts: &MessageParts<'_>) -> Result<String, String> {
    request_of(&shaped(request), parts).map(|request| request.uri().to_string()).map_err(|unfit| unfit.why)
}

#[test]
fn put_idempotent_path() {
    let shape = shaped("method = \"PUT\"\npath = \"/things/{{ client_id }}/{{ id }}\"");
    let message = made(&parts());
    let of = |attempt| shape.build(&[Item { message: &message, delivery: delivery(attempt) }], NOW).unwrap();
    let (first, second) = (of(1), of(2));
    assert_eq!(first.method(), Method::PUT);
    assert_eq!(first.uri(), "http://h.example/base/things/pump-1/00000000000000ab-7?a=b");
    assert_eq!(first.uri(), second.uri());
    assert_eq!(header(&first, "idempotency-key"), "00000000000000ab-7");
    assert_eq!(body(first), r#"{"v": 1.50, "a": [1, 2], "s": "x"}"#);
}

#[test]
fn everything_that_is_known_of_a_message_can_be_filled_in() {
    let site = user_properties(&[("site", "north"), ("site", "south")]);
    let properties = [site, content_type_property("a/b")].concat();
    let parts = MessageParts { properties: &properties, ..parts() };
    for (template, expected) in [
        ("{{ topic }}", "plant/7/line/3"),
        ("{{ levels[1] }}-{{ levels | length }}", "7-4"),
        ("{{ captures[0] }} {{ captures[1] }}", "7 line/3"),
        ("{{ client_id }} {{ user_name }}", "pump-1 ada"),
        ("{{ qos }} {{ retain }}", "1 false"),
        ("{{ payload.v }} {{ payload.a[1] }} {{ payload.s | upper }}", "1.5 2 X"),
        ("{{ payload_text | length }}", "34"),
        ("{{ payload_base64[:4] }}", "eyJ2"),
        ("{{ properties.site }}", "north"),
        ("{{ content_type }}", "a/b"),
        ("{{ response_topic or '-' }}", "-"),
        ("{{ published_at }} {{ published_at_ms }}", "2023-11-14T22:13:20.123Z 1700000000123"),
        ("{{ id }} {{ attempt }} {{ route }} {{ target }}", "00000000000000ab-7 1 r t"),
        ("{% if payload.v > 1 %}high{% else %}low{% endif %}", "high"),
        ("{% for level in levels %}{{ level }}.{% endfor %}", "plant.7.line.3."),
    ] {
        let request = request_of(&shaped(&format!("headers = {{ x-it = {template:?} }}")), &parts);
        let request = request.unwrap_or_else(|unfit| panic!("{template}: {}", unfit.why));
        assert_eq!(header(&request, "x-it"), expected, "{template}");
    }
}

#[test]
fn constant_paths_and_queries() {
    let expected = "http://h.example/base/x%20y?a=b&q=1%262&z=";
    assert_eq!(uri("path = \"/x%20y\"\nquery = { q = \"1&2\", z = \"\" }", &parts()).unwrap(), expected);
}

#[test]
fn template_injection() {
    let path = "path = \"/x/{{ topic }}/y\"";
    let topic = |topic| MessageParts { topic, ..parts() };
    for (text, encoded) in [
        ("../../admin", "..%2F..%2Fadmin"),
        ("a/../b", "a%2F..%2Fb"),
        ("a?b=c", "a%3Fb%3Dc"),
        ("a#b", "a%23b"),
        ("%2e%2e", "%252e%252e"),
        ("a%0d%0aX-Evil: 1", "a%250d%250aX-Evil%3A%201"),
        ("a\r\nX-Evil: 1", "a%0D%0AX-Evil%3A%201"),
        ("größe", "gr%C3%B6%C3%9Fe"),
        ("\\\\h.example\\x", "%5C%5Ch.example%5Cx"),
        ("//evil.example/x", "%2F%2Fevil.example%2Fx"),
        ("http://evil.example", "http%3A%2F%2Fevil.example"),
        ("@evil.example", "%40evil.example"),
        ("a;b&c", "a%3Bb%26c"),
        ("{{ route }}", "%7B%7B%20route%20%7D%7D"),
    ] {
        let expected = format!("http://h.example/base/x/{encoded}/y?a=b");
        assert_eq!(uri(path, &topic(text)), Ok(expected), "{text}");
    }
    // What cannot be encoded away: a segment that leads back, and one that is not there.
    for text in ["..", "."] {
        assert!(uri(path, &topic(text)).unwrap_err().contains("leads back"), "{text}");
    }
    let path = "path = \"/{{ user_name }}/{{ levels[0] }}\"";
    assert!(uri(path, &MessageParts { publisher: "c\0", ..parts() }).unwrap_err().contains("empty value"));
    assert!(uri(path, &MessageParts { topic: "/x", ..parts() }).unwrap_err().contains("empty value"));
    let error = uri(path, &MessageParts { publisher: "c", ..parts() }).unwrap_err();
    assert!(error.contains("not in the message"), "{error}");
}

#[test]
fn template_injection_into_queries_and_headers() {
    let query = "query = { q = \"{{ topic }}\" }";
    let evil = "x&admin=1#f\r\nX: 1?%41ä";
    let expected = "http://h.example/base?a=b&q=x%26admin%3D1%23f%0D%0AX%3A%201%3F%2541%C3%A4";
    assert_eq!(uri(query, &MessageParts { topic: evil, ..parts() }).unwrap(), expected);
    let shape = shaped("headers = { x-topic = \"{{ topic }}\" }");
    for evil in ["a\r\nX-Evil: 1", "a\nb", "a\0b", "a\x7fb", "a\u{85}b"] {
        let unfit = request_of(&shape, &MessageParts { topic: evil, ..parts() }).unwrap_err();
        assert!(unfit.why.contains("control character"), "{evil:?}: {}", unfit.why);
    }
    let request = request_of(&shape, &MessageParts { topic: "größe %0d%0a", ..parts() }).unwrap();
    assert_eq!(request.headers()["x-topic"].as_bytes(), "größe %0d%0a".as_bytes());
}

#[test]
fn what_a_message_lacks_makes_it_unfit_always() {
    let shape = shaped("headers = { x-it = \"{{ payload.missing }}\" }");
    let unfit = request_of(&shape, &parts()).unwrap_err();
    assert_eq!(unfit.index, 0);
    assert!(unfit.why.starts_with("header x-it: "), "{}", unfit.why);
    assert_eq!(request_of(&shape, &parts()).unwrap_err(), unfit);
    for template in ["{{ payload }}", "{{ payload.a }}", "{{ levels }}"] {
        let shape = shaped(&format!("headers = {{ x-it = {template:?} }}"));
        assert!(request_of(&shape, &parts()).unwrap_err().why.contains("where text or a number belongs"));
    }
    let shape = shaped("headers = { x-it = \"{{ payload_text }}\" }");
    assert!(request_of(&shape, &MessageParts { payload: b"\xff", ..parts() }).is_err());
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    let shape = shaped(&format!("headers = {{ x-it = \"{endless}\" }}"));
    assert!(request_of(&shape, &parts()).unwrap_err().why.contains("too many steps"));
}

#[test]
fn a_header_that_becomes_nothing_is_left_out() {
    let headers = "{ x-user = \"{{ user_name if user_name }}\", x-site = \"{{ properties.site or '' }}\" }";
    let shape = shaped(&format!("headers = {headers}"));
    let request = request_of(&shape, &MessageParts { publisher: "c", ..parts() }).unwrap();
    assert!(!request.headers().contains_key("x-user") && !request.headers().contains_key("x-site"));
}

#[test]
fn headers_of_a_route_come_before_those_of_its_target() {
    let (route, mut target) = configured("headers = { x-a = \"route\", user-agent = \"mine\" }");
    target.headers.insert("x-a", HeaderValue::from_static("target"));
    target.headers.insert("x-b", HeaderValue::from_static("target"));
    let request = request_of(&Shape::new(&route, &target), &parts()).unwrap();
    let shown = ["x-a", "x-b", "user-agent"].map(|name| header(&request, name));
    assert_eq!(shown, ["route", "target", "mine"]);
}

/// A short payload and a long topic must not become gigabytes.
#[test]
fn a_body_has_an_end() {
    let shape = shaped(
        "body = \"template\"\ncontent_type = \"text/plain\"\ntemplate = \"{% for x in payload %}{{ topic }}{% endfor %}\"",
    );
    let (topic, payload) = ("t".repeat(60_000), format!("[0{}]", ",0".repeat(4999)));
    let parts = MessageParts { topic: &topic, payload: payload.as_bytes(), ..parts() };
    let unfit = request_of(&shape, &parts).map(|request| body(request).len()).unwrap_err();
    assert_eq!(unfit.why, "template: becomes longer than 16777216 bytes");
    let parts = MessageParts { payload: b"[0,0]", ..parts };
    assert_eq!(body(request_of(&shape, &parts).unwrap()).len(), 120_000);
}
