//! `causeway routes test`: what a route would do with a message, without a broker and without sending anything.

use std::fmt::{self, Write as _};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::Request;
use http_body_util::{BodyExt, Full};
use jiff::Timestamp;
use serde::Serialize;

use super::show::details;
use crate::auth::Escaped;
use crate::bridge::filter::{Filter, Judgement};
use crate::bridge::request::{Delivery, Item, Shape};
use crate::codec::Qos;
use crate::config::{Config, ConfigError, RouteConfig, TargetConfig};
use crate::record::{Lsn, Message, MessageParts, UnixMillis};
use crate::topic::{TopicError, TopicFilter, TopicName};

/// The route could be asked, and does not send the message.
const EXIT_NOT_SENT: u8 = 1;
/// The question cannot be answered.
const EXIT_FAILED: u8 = 2;
/// What stands in the place of a secret.
const HIDDEN: &str = "***";

/// Ask a route what it would do with a message. Nothing is sent, and no broker has to run.
///
/// Ends with 0 when there is a request that it would send, with 1 when it would send none, and with 2 when the
/// question cannot be answered.
#[derive(Clone, Debug, clap::Args)]
pub struct RouteTestArgs {
    /// The route.
    name: String,
    /// The topic of the message.
    #[arg(long, value_name = "TOPIC")]
    topic: String,
    /// Its payload.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        allow_hyphen_values = true,
        conflicts_with = "payload_file"
    )]
    payload: String,
    /// Its payload, from a file.
    #[arg(long, value_name = "FILE")]
    payload_file: Option<PathBuf>,
    /// Its QoS.
    #[arg(long, value_name = "QOS", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    qos: u8,
    /// With the RETAIN flag.
    #[arg(long)]
    retain: bool,
    /// The client id of its publisher.
    #[arg(long, value_name = "ID", default_value = "client")]
    client_id: String,
    /// The user name of its publisher.
    #[arg(long, value_name = "NAME")]
    user_name: Option<String>,
    /// A user property; as often as there are some.
    #[arg(long = "property", value_name = "NAME=VALUE", value_parser = pair)]
    properties: Vec<(String, String)>,
    /// Its content type.
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Its response topic.
    #[arg(long, value_name = "TOPIC")]
    response_topic: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum RouteTestError {
    #[error("name the configuration file with --config")]
    NoConfig,
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{} has no route \"{name}\"; there are: {}", file.display(), known.join(", "))]
    NoRoute { file: PathBuf, name: String, known: Vec<String> },
    #[error("the topic {0}")]
    Topic(TopicError),
    #[error("the payload cannot be read: {}: {error}", file.display())]
    Payload { file: PathBuf, error: io::Error },
    #[error("a text of the message is longer than 65535 bytes")]
    TooLong,
}

/// What a route would do.
#[derive(Debug, PartialEq, Serialize)]
struct Answer {
    route: String,
    target: String,
    /// The topic filter that matches; `None` when none does.
    matched: Option<String>,
    /// The topic filter that takes the message out again.
    excluded: Option<String>,
    /// What the wildcards stand for.
    captures: Vec<String>,
    /// `None` when it is not asked.
    filter: Option<FilterAnswer>,
    request: Option<RequestView>,
    /// Why no request is sent.
    why_not: Option<String>,
}

#[derive(Debug, PartialEq, Serialize)]
struct FilterAnswer {
    expression: String,
    /// `None` when there is an error.
    result: Option<bool>,
    error: Option<String>,
}

#[derive(Debug, PartialEq, Serialize)]
struct RequestView {
    method: String,
    url: String,
    /// In the order of their names. Secrets are hidden.
    headers: Vec<(String, String)>,
    body_bytes: usize,
    /// When it is text.
    body: Option<String>,
    /// When it is not.
    body_base64: Option<String>,
}

/// Runs the command.
pub fn run(args: &RouteTestArgs, config: Option<&Path>, json: bool) -> ExitCode {
    // Whoever closed the output still gets the exit code.
    match ask(args, config) {
        Ok(answer) => {
            let text = if json { json_text(&answer) } else { answer.to_text() };
            let _ = writeln!(io::stdout(), "{}", text.trim_end());
            if answer.request.is_some() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_NOT_SENT) }
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "causeway routes test: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn ask(args: &RouteTestArgs, file: Option<&Path>) -> Result<Answer, RouteTestError> {
    let file = file.ok_or(RouteTestError::NoConfig)?;
    let config = Config::load(file)?;
    let found = config.routes.iter().find(|route| route.name == args.name);
    let found = found.and_then(|route| Some((route, config.targets.get(&route.target)?)));
    let (route, target) = found.ok_or_else(|| RouteTestError::NoRoute {
        file: file.to_owned(),
        name: args.name.clone(),
        known: config.routes.iter().map(|route| route.name.clone()).collect(),
    })?;
    let topic = TopicName::parse(&args.topic, config.limits.topic_levels).map_err(RouteTestError::Topic)?;
    let payload = match &args.payload_file {
        Some(file) => read(file)?,
        None => args.payload.clone().into_bytes(),
    };
    let message = message(args, &payload)?;
    Ok(answer((route, target), topic, &message))
}

fn read(file: &Path) -> Result<Vec<u8>, RouteTestError> {
    fs::read(file).map_err(|error| RouteTestError::Payload { file: file.to_owned(), error })
}

/// The message as it would be stored.
fn message(args: &RouteTestArgs, payload: &[u8]) -> Result<Message, RouteTestError> {
    let mut properties = Vec::new();
    if let Some(text) = &args.content_type {
        put(&mut properties, 0x03, &[text])?;
    }
    if let Some(text) = &args.response_topic {
        put(&mut properties, 0x08, &[text])?;
    }
    for (name, value) in &args.properties {
        put(&mut properties, 0x26, &[name, value])?;
    }
    let parts = MessageParts {
        qos: Qos::from_u8(args.qos).unwrap_or_default(),
        retain: args.retain,
        published_at: now(),
        expires_at: UnixMillis::NEVER,
        topic: &args.topic,
        properties: &properties,
        payload,
        publisher: &args.client_id,
    };
    let message = Message::new(&parts, &mut Vec::new());
    Ok(args.user_name.iter().fold(message, |message, name| message.published_by(name)))
}

/// Appends a property in wire form.
fn put(out: &mut Vec<u8>, id: u8, texts: &[&str]) -> Result<(), RouteTestError> {
    out.push(id);
    for text in texts {
        let len = u16::try_from(text.len()).map_err(|_| RouteTestError::TooLong)?;
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(text.as_bytes());
    }
    Ok(())
}

fn now() -> UnixMillis {
    UnixMillis(u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default())
}

fn answer((route, target): (&RouteConfig, &TargetConfig), topic: TopicName<'_>, message: &Message) -> Answer {
    let find = |filters: &[String]| {
        let mut parsed = filters.iter().filter_map(|text| TopicFilter::parse(text, u16::MAX).ok());
        parsed.find(|filter| filter.matches(&topic))
    };
    let (matched, excluded) = (find(&route.topics), find(&route.exclude));
    let captures = matched.as_ref().and_then(|filter| filter.captures(&topic)).unwrap_or_default();
    let mut answer = Answer {
        route: route.name.clone(),
        target: route.target.clone(),
        captures: captures.into_iter().map(str::to_owned).collect(),
        matched: matched.map(|filter| filter.to_string()),
        excluded: excluded.map(|filter| filter.to_string()),
        filter: None,
        request: None,
        why_not: None,
    };
    match judge(&mut answer, (route, target), message) {
        Ok(request) => answer.request = Some(request),
        Err(why) => answer.why_not = Some(why),
    }
    answer
}

/// The request, or why there is none.
fn judge(
    answer: &mut Answer,
    (route, target): (&RouteConfig, &TargetConfig),
    message: &Message,
) -> Result<RequestView, String> {
    if answer.matched.is_none() {
        return Err("none of the topic filters matches".into());
    }
    if let Some(excluded) = &answer.excluded {
        return Err(format!("{excluded} excludes the topic"));
    }
    let filter = Filter::new(route);
    if let (Some(config), Some(result)) = (&route.filter, filter.ask(message)) {
        let expression = config.expression.source().to_owned();
        let error = result.as_ref().err().cloned();
        answer.filter = Some(FilterAnswer { expression, result: result.ok(), error });
    }
    match filter.judge(message) {
        Judgement::Pass => {}
        Judgement::Drop => return Err("the filter does not take it".into()),
        Judgement::Error(why) => {
            return Err(format!("it becomes a dead letter: the filter has no answer: {why}"));
        }
    }
    // A number as the store could have given it.
    let number = Some(Lsn(1)).filter(|_| message.head().qos > Qos::AtMostOnce);
    let delivery = Delivery { store_id: 0, number, attempt: 1 };
    let request = Shape::new(route, target).build(&[Item { message, delivery }], now());
    let request = request.map_err(|unfit| format!("it becomes a dead letter: {}", unfit.why))?;
    Ok(RequestView::new(request, target))
}

impl RequestView {
    fn new(request: Request<Full<bytes::Bytes>>, target: &TargetConfig) -> Self {
        let (head, body) = request.into_parts();
        let mut headers: Vec<_> = head
            .headers
            .iter()
            .map(|(name, value)| {
                let shown = if value.is_sensitive() {
                    HIDDEN.to_owned()
                } else {
                    String::from_utf8_lossy(value.as_bytes()).into_owned()
                };
                (name.to_string(), shown)
            })
            .collect();
        headers.sort();
        let body = in_memory(body);
        let text = std::str::from_utf8(&body).ok().map(str::to_owned);
        Self {
            method: head.method.to_string(),
            url: without_query_of(target, head.uri.to_string()),
            headers,
            body_bytes: body.len(),
            body_base64: text.is_none().then(|| BASE64_STANDARD.encode(&body)),
            body: text,
        }
    }

    /// As it goes over the wire.
    fn put_text(&self, text: &mut String) -> fmt::Result {
        write!(text, "\n{} {}\n", self.method, self.url)?;
        for (name, value) in &self.headers {
            writeln!(text, "{name}: {}", Escaped(value))?;
        }
        match (&self.body, &self.body_base64) {
            (Some(body), _) if !body.is_empty() => write!(text, "\n{}\n", printable(body)),
            (None, Some(base64)) => write!(text, "\n({} bytes, in base64)\n{base64}\n", self.body_bytes),
            _ => Ok(()),
        }
    }
}

/// The URL without the values in the query of the target's own: keys stand there.
fn without_query_of(target: &TargetConfig, url: String) -> String {
    let (Some(query), Some((before, all))) = (target.url.query(), url.split_once('?')) else { return url };
    let names = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) => format!("{name}={HIDDEN}"),
        None => HIDDEN.to_owned(),
    });
    format!("{before}?{}", all.replacen(query, &names.collect::<Vec<_>>().join("&"), 1))
}

/// A body that is there as a whole: nothing is waited for.
fn in_memory(body: Full<bytes::Bytes>) -> bytes::Bytes {
    use std::task::{Context, Poll, Waker};
    let collected = std::pin::pin!(body.collect()).poll(&mut Context::from_waker(Waker::noop()));
    match collected {
        Poll::Ready(Ok(body)) => body.to_bytes(),
        Poll::Pending => bytes::Bytes::new(),
    }
}

impl Answer {
    fn to_text(&self) -> String {
        let mut rows = vec![("route", format!("{} -> {}", self.route, self.target))];
        rows.push(("topic filter", self.matched.clone().unwrap_or_else(|| "none matches".into())));
        if !self.captures.is_empty() {
            rows.push((
                "captures",
                self.captures.iter().map(|c| format!("{c:?}")).collect::<Vec<_>>().join(", "),
            ));
        }
        if let Some(filter) = &self.filter {
            let result = match (&filter.error, filter.result) {
                (Some(error), _) => format!("no answer: {error}"),
                (None, Some(result)) => result.to_string(),
                (None, None) => String::new(),
            };
            rows.push(("filter", format!("{}: {result}", filter.expression)));
        }
        if let Some(why) = &self.why_not {
            rows.push(("not sent", why.clone()));
        }
        let mut text = details(&rows);
        if let Some(request) = &self.request {
            // Writing to a String does not fail.
            let _ = request.put_text(&mut text);
        }
        text
    }
}

/// Lines stay lines; nothing else can rewrite what the terminal shows.
fn printable(body: &str) -> String {
    body.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

fn json_text(answer: &Answer) -> String {
    // Texts and numbers always have a form in JSON.
    serde_json::to_string_pretty(answer).unwrap_or_default()
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    const CONFIG: &str = r#"
        [targets.t]
        url = "http://h.example/base"
        headers = { authorization = "Bearer s3cret" }
        signing = { keys = ["whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] }
        [[routes]]
        name = "r"
        topics = ["plant/+/#"]
        exclude = ["plant/x/#"]
        target = "t"
        filter = "payload.v > 1"
        [routes.request]
        path = "/{{ captures[0] }}/{{ user_name }}"
        body = "json"
    "#;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: RouteTestArgs,
    }

    fn asked(line: &[&str]) -> Result<Answer, RouteTestError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        fs::write(&file, CONFIG).unwrap();
        ask(&Line::parse_from(["test"].iter().chain(line)).args, Some(&file))
    }

    #[test]
    fn the_request_is_shown_without_its_secrets() {
        let line = [
            "r",
            "--topic",
            "plant/7/a",
            "--payload",
            "{\"v\": 2}",
            "--user-name",
            "ada",
            "--property",
            "a=b=c",
        ];
        let answer = asked(&line).unwrap();
        assert_eq!(answer.matched.as_deref(), Some("plant/+/#"));
        assert_eq!(answer.captures, ["7", "a"]);
        let text = answer.to_text();
        assert!(text.contains("\nPOST http://h.example/base/7/ada\n"), "{text}");
        assert!(text.contains("captures      \"7\", \"a\"\nfilter        payload.v > 1: true\n"), "{text}");
        for header in ["authorization: ***", "webhook-signature: ***", "mqtt-topic: plant/7/a"] {
            assert!(text.contains(header), "{text}");
        }
        assert!(!text.contains("s3cret") && text.contains("\"properties\":{\"a\":\"b=c\"}"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&json_text(&answer)).unwrap();
        assert_eq!(json["request"]["method"], "POST");
        assert_eq!(json["why_not"], serde_json::Value::Null);
    }

    #[test]
    fn what_is_not_sent_says_why() {
        for (topic, payload, why) in [
            ("other", "", "none of the topic filters matches"),
            ("plant/x/y", "", "plant/x/# excludes the topic"),
            ("plant/7/a", "{\"v\": 1}", "the filter does not take it"),
            ("plant/7/a", "{}", "dead letter: the filter has no answer: there is no v"),
            ("plant/7/a", "{\"v\": 2}", "dead letter: path: something that is not in the message"),
        ] {
            let answer = asked(&["r", "--topic", topic, "--payload", payload]).unwrap();
            assert!(answer.request.is_none());
            let said = answer.why_not.as_deref().unwrap();
            assert!(said.contains(why), "{topic} {payload}: {said}");
            assert!(answer.to_text().contains(why));
        }
    }

    #[test]
    fn what_cannot_be_asked() {
        let error = |line: &[&str]| asked(line).unwrap_err().to_string();
        assert!(error(&["other", "--topic", "a"]).ends_with("has no route \"other\"; there are: r"));
        assert!(error(&["r", "--topic", "a/#"]).starts_with("the topic "));
        assert!(error(&["r", "--topic", "a", "--payload-file", "no/such"]).contains("no/such"));
        let args = Line::parse_from(["test", "r", "--topic", "a"]).args;
        assert!(ask(&args, None).unwrap_err().to_string().contains("--config"));
        assert!(error(&["r", "--topic", "a", "--content-type", &"x".repeat(70_000)]).contains("65535"));
    }

    #[test]
    fn keys_in_the_query_of_a_target_are_hidden() {
        let target = TargetConfig::new("http://h/a=1?key=a=1&b".parse().unwrap());
        let shown = without_query_of(&target, "http://h/a=1/x?key=a=1&b&from=me".into());
        assert_eq!(shown, "http://h/a=1/x?key=***&***&from=me");
        let target = TargetConfig::new("http://h/".parse().unwrap());
        assert_eq!(without_query_of(&target, "http://h/?from=me".into()), "http://h/?from=me");
    }

    #[test]
    fn bytes_are_shown_in_base64() {
        let request = Request::new(Full::new(bytes::Bytes::from_static(b"\xff\0")));
        let view = RequestView::new(request, &TargetConfig::new(Default::default()));
        assert_eq!((view.body, view.body_base64.as_deref(), view.body_bytes), (None, Some("/wA="), 2));
        assert_eq!(printable("a\nb\x1b[2J"), "a\nb\u{fffd}[2J");
    }
}
