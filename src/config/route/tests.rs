//! What can be said of requests and filters, and what is said of mistakes in them.

use super::*;
use crate::config::{Config, ConfigError};

fn parse(keys: &str) -> Result<RouteConfig, ConfigError> {
    let text = format!(
        "[targets.t]\nurl = \"http://h\"\n[[routes]]\nname = \"r\"\ntopics = [\"#\"]\ntarget = \"t\"\n{keys}\n"
    );
    Config::parse(&text, "a.toml").map(|mut config| config.routes.remove(0))
}

fn request(keys: &str) -> Result<RequestConfig, ConfigError> {
    parse(&format!("[routes.request]\n{keys}")).map(|route| route.request)
}

/// The one mistake in these keys: the line it is on, what it says, and what would be right.
fn mistake(result: Result<impl Sized, ConfigError>) -> (usize, String, String) {
    let error = result.err().unwrap();
    assert_eq!(error.mistakes.len(), 1, "{error}");
    let mistake = error.mistakes.into_iter().next().unwrap();
    (mistake.place.unwrap().line, mistake.message, mistake.help.unwrap_or_default())
}

#[test]
fn a_route_that_says_nothing_posts_the_payload() {
    let route = parse("").unwrap();
    assert_eq!((route.request, route.filter), (RequestConfig::default(), None));
}

#[test]
fn the_body_follows_from_the_method() {
    for (keys, body) in [
        ("method = \"PUT\"", Body::Raw),
        ("method = \"GET\"", Body::None),
        ("method = \"DELETE\"\nbody = \"json\"", Body::Json),
        ("body = \"none\"", Body::None),
        ("body = \"cloudevents\"", Body::CloudEvents(CloudEventsConfig::default())),
    ] {
        assert_eq!(request(keys).unwrap().body, body, "{keys}");
    }
}

#[test]
fn ids_and_forms() {
    assert_eq!(request("id = \"broker\"").unwrap().id, IdSource::Broker);
    assert_eq!(request("id = \"user_property:a b\"").unwrap().id, IdSource::UserProperty("a b".into()));
    assert_eq!(request("batch_format = \"array\"").unwrap().batch_form, BatchForm::Array);
}

#[test]
fn what_is_wrong_with_a_request_is_said_kindly() {
    for (keys, message, help) in [
        ("method = \"HEAD\"", "method must be one of POST, PUT", ""),
        ("path = \"things\"", "path must begin with \"/\"", "follows the path"),
        ("path = \"/a b\"", "path has \" \", which is not part of a path", "percent-encode"),
        ("path = \"/a?b={{ topic }}\"", "path has \"?\"", "query = {"),
        ("path = \"/a/../b\"", "path has the segment \"..\"", "without it"),
        ("path = \"/a/${env:KEY}\"", "path cannot have references", "of the target"),
        ("headers = { x = \"${file:key}\" }", "headers cannot have references", "of the target"),
        ("cloudevents = {}", "cloudevents is of no use with body = \"raw\"", "body = \"cloudevents\""),
        ("path = \"/a/%2E/b\"", "path has the segment \"%2E\"", ""),
        (
            "path = \"/{{ client_di }}\"",
            "uses \"client_di\", which a message does not have",
            "\"client_id\"?",
        ),
        ("path = \"/{{ client_id\"", "path is not a template: syntax error", ""),
        ("path = \"/{{ topic | uper }}\"", "path is not a template: unknown filter", ""),
        ("path = \"/{{ now() }}\"", "uses \"now\"", "there are: topic"),
        ("query = { a = 1 }", "query a must be text in quotes", ""),
        ("headers = { \"a b\" = \"x\" }", "headers has \"a b\", which cannot be", ""),
        ("headers = { host = \"x\" }", "headers has \"host\"", "leave it out"),
        ("headers = { Webhook-Id = \"x\" }", "headers has \"webhook-id\", which says which", "leave it out"),
        ("headers = { mqtt-topic = \"x\" }", "headers has \"mqtt-topic\"", "leave it out"),
        ("headers = { Content-Type = \"a/b\" }", "headers has \"content-type\"", "content_type beside"),
        ("headers = { x-a = \"1\", X-A = \"2\" }", "has this header twice", "keep one"),
        ("body = \"xml\"", "body must be one of raw, json, template, cloudevents, none", ""),
        ("body = \"template\"", "routes.request needs template", "add template ="),
        ("template = \"x\"", "template is of no use with body = \"raw\"", "body = \"template\""),
        ("body = \"template\"\ntemplate = '{{ attempt }}'", "template uses \"attempt\"", "same body"),
        ("body = \"template\"\ntemplate = '{% if %}'", "template is not a template: syntax error", ""),
        ("content_type = \"json\"", "content_type must be a media type", ""),
        ("batch_format = \"csv\"", "batch_format must be \"ndjson\" or \"array\"", ""),
        ("id = \"user_property:\"", "id must be \"broker\" or \"user_property:NAME\"", ""),
        (
            "body = \"cloudevents\"\ncloudevents = { mode = \"batch\" }",
            "mode must be \"binary\" or \"structured\"",
            "",
        ),
        (
            "body = \"cloudevents\"\ncloudevents = { source = \"a b\" }",
            "source must be a URI reference",
            "https://",
        ),
        ("body = \"cloudevents\"\ncloudevents = { type = \"\" }", "type must not be empty", ""),
    ] {
        let (line, said, helped) = mistake(request(keys));
        assert!((7..=9).contains(&line), "{keys}: line {line}");
        assert!(said.starts_with("routes.request") && said.contains(message), "{keys}: {said}");
        assert!(helped.contains(help), "{keys}: {helped}");
    }
}

#[test]
fn the_line_of_a_long_template_is_named() {
    let keys = "body = \"template\"\ntemplate = '''{\n  \"a\": 1,\n  \"b\": {{ payload. }}\n}'''";
    let (_, message, _) = mistake(request(keys));
    assert!(message.contains("(its line 3)"), "{message}");
}

#[test]
fn a_filter_has_its_defaults() {
    let filter = parse("filter = 'payload.t > 30.0'").unwrap().filter.unwrap();
    assert_eq!((filter.on_error, filter.payload_max), (OnFilterError::DeadLetter, 65536));
    let keys = "filter = 'qos == 1'\nfilter_error = \"pass\"\nfilter_payload_max = \"1 MiB\"";
    let filter = parse(keys).unwrap().filter.unwrap();
    assert_eq!((filter.on_error, filter.payload_max), (OnFilterError::Pass, 1 << 20));
}

#[test]
fn what_is_wrong_with_a_filter_is_said_kindly() {
    let long = format!("qos == {}1", "1 + ".repeat(200));
    let deep = format!("{}qos{} == 1", "(".repeat(200), ")".repeat(200));
    let chain = format!("payload{} == 1", ".a".repeat(500));
    let nots = format!("{}retain", "!".repeat(2001));
    for (expression, message, help) in [
        ("", "is empty", "every message is taken"),
        ("payload.t >", "at its character", "in CEL"),
        ("payload.t > 30.0 &&& x", "is not an expression", "in CEL"),
        ("paylod.t > 1", "uses \"paylod\", which a message does not have", "\"payload\"?"),
        ("qos == 1 && now() > 3", "calls now(), which there is not", "size"),
        ("topic.matches('a')", "calls matches(), which there is not", "size"),
        ("payload.map(x, x + 1).size() > 1", "uses map()", "exists()"),
        ("payload.a.exists(x, payload.b.exists(y, x == y))", "a loop in a loop", "x.b.exists"),
        ("payload.exists(x, x.exists(y, y.exists(z, z == 1)))", "more than 2 loops", ""),
        ("payload.filter(x, x > 1)[0] == 1", "whose order is not always", "size()"),
        ("[payload.filter(x, x > 1)] == [[1]]", "whose order is not always", "size()"),
        ("a.B{c: 1} == 1", "of a type that there is not", ""),
        (&long, "is too large", "simpler"),
        (&deep, "is not an expression", ""),
        (&chain, "is too large", ""),
        (&"x".repeat(5000), "is longer than 4096 bytes", ""),
    ] {
        let (line, said, helped) = mistake(parse(&format!("filter = {expression:?}")));
        assert_eq!(line, 7, "{expression}");
        assert!(said.starts_with("routes.filter ") && said.contains(message), "{expression}: {said}");
        assert!(helped.contains(help), "{expression}: {helped}");
    }
    // An even number of them cancels out before anything is nested.
    assert!(parse(&format!("filter = {nots:?}")).is_ok());
    let (_, message, _) = mistake(parse("filter = 5"));
    assert!(message.contains("an expression in quotes"), "{message}");
    let (_, message, _) = mistake(parse("filter = 'qos == 1'\nfilter_error = \"retry\""));
    assert!(message.contains("filter_error must be one of dead_letter, drop, pass"), "{message}");
}

#[test]
fn what_asks_for_a_part_of_an_element_is_a_loop_in_a_loop() {
    for expression in [
        "payload.a.exists(x, x.b.exists(y, y == 1))",
        "payload.a.all(x, x[0].b.all(y, y in payload.c))",
        "payload.filter(x, x > 1).filter(x, x < 5).size() == 2",
        "payload.exists_one(x, has(x.b))",
    ] {
        let filter = FilterConfig::of(expression).unwrap_or_else(|why| panic!("{expression} {why}"));
        assert!(filter.expression.has_loops() && filter.expression.uses_payload());
    }
    let filter = FilterConfig::of("topic == 'a'").unwrap();
    assert!(!filter.expression.has_loops() && !filter.expression.uses_payload());
}

#[test]
fn what_can_be_a_batch_is_known_before() {
    let batch = |keys: &str| parse(&format!("[routes.batch]\n[routes.request]\n{keys}"));
    for keys in [
        "body = \"json\"",
        "body = \"template\"\ntemplate = '{{ payload }}'",
        "body = \"cloudevents\"\ncloudevents = { mode = \"structured\" }",
        "body = \"json\"\npath = \"/{{ route }}/{{ id }}\"\nheaders = { x = \"{{ attempt }}\" }",
    ] {
        assert!(batch(keys).is_ok(), "{keys}");
    }
    for (keys, message, help) in [
        ("", "the body of a request is one payload", "body = \"json\""),
        ("method = \"GET\"", "the requests have no body", ""),
        ("body = \"cloudevents\"", "a request is one event", "mode = \"structured\""),
        ("body = \"json\"\npath = \"/{{ client_id }}\"", "have \"client_id\"", "id, attempt, route, target"),
        ("body = \"json\"\nquery = { x = \"{{ topic }}\" }", "have \"topic\"", ""),
    ] {
        let (line, said, helped) = mistake(batch(keys));
        assert_eq!(line, 7, "{keys}");
        assert!(
            said.starts_with("routes.batch cannot be") || said.starts_with("routes.batch is of no use"),
            "{said}"
        );
        assert!(said.contains(message) && helped.contains(help), "{keys}: {said} {helped}");
    }
}

/// What is shown to people is right.
#[test]
fn the_examples_of_the_documentation_parse() {
    let page = include_str!("../../../docs/http-requests.md");
    let blocks: Vec<_> =
        page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(blocks.len(), 5);
    for block in blocks {
        Config::parse(block, "http-requests.md").unwrap_or_else(|error| panic!("{error}"));
    }
}
