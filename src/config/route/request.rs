//! `[routes.request]`: what a request of a route looks like.

use http::{HeaderName, HeaderValue, Method, header};
use toml::Spanned;
use toml::de::DeValue;

use super::template::{Place, Template};
use crate::config::report::Wrong;
use crate::config::section::Section;
use crate::config::target::header_name;
use crate::config::values;

const METHODS: [Method; 5] = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::GET];
const BODIES: [&str; 5] = ["raw", "json", "template", "cloudevents", "none"];
const EVENT_TYPE: &str = "com.causeway.mqtt.message";
/// In front of the name of a user property.
const USER_PROPERTY: &str = "user_property:";
/// Names that are the same for all messages of a batch.
const SHARED: [&str; 4] = ["id", "attempt", "route", "target"];

/// What the requests of a route look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestConfig {
    /// POST unless said otherwise.
    pub method: Method,
    /// Follows the path of the target's URL.
    pub path: Option<Template>,
    /// Follow the query of the target's URL, in this order; names are as they are written there.
    pub query: Vec<(String, Template)>,
    /// Take the place of the target's headers of the same name. One that renders to nothing is left out.
    pub headers: Vec<(HeaderName, Template)>,
    /// What is in the request.
    pub body: Body,
    /// What several messages in one request look like.
    pub batch_form: BatchForm,
    /// What a message is known by.
    pub id: IdSource,
}

/// What is in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nothing.
    None,
    /// The payload, byte for byte.
    Raw,
    /// Everything that is known of the message, as a JSON object.
    Json,
    /// Text with parts of the message filled in.
    Template {
        /// The text.
        template: Template,
        /// What kind of text.
        content_type: HeaderValue,
    },
    /// A CloudEvent.
    CloudEvents(CloudEventsConfig),
}

/// How several messages are put into one request. CloudEvents have a form of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchForm {
    /// One on each line.
    #[default]
    Lines,
    /// One array in JSON.
    Array,
}

/// `[routes.request.cloudevents]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudEventsConfig {
    /// Where the attributes are.
    pub mode: CloudEventsMode,
    /// The attribute `source` of messages that are no events yet; `None` is the name of the route.
    pub source: Option<Template>,
    /// The attribute `type` of messages that are no events yet.
    pub event_type: Template,
}

/// Where the attributes of a CloudEvent are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CloudEventsMode {
    /// In headers; the body is the payload.
    #[default]
    Binary,
    /// In the body, with the payload.
    Structured,
}

/// What a message is known by to its target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum IdSource {
    /// Its number in the store.
    #[default]
    Broker,
    /// What its publisher says in this user property, with the publisher's client id; its number without it.
    UserProperty(String),
}

impl Default for RequestConfig {
    fn default() -> Self {
        Self {
            method: Method::POST,
            path: None,
            query: Vec::new(),
            headers: Vec::new(),
            body: Body::Raw,
            batch_form: BatchForm::default(),
            id: IdSource::default(),
        }
    }
}

impl RequestConfig {
    /// Whether several messages can be in one request.
    pub(super) fn check_batch(&self) -> Result<(), Wrong> {
        let wrong = match &self.body {
            Body::None => Wrong::new("is of no use: the requests have no body").help("leave it out"),
            Body::Raw => Wrong::new("cannot be: the body of a request is one payload")
                .help("write body = \"json\", \"template\" or \"cloudevents\" in [routes.request]"),
            Body::CloudEvents(config) if config.mode == CloudEventsMode::Binary => {
                Wrong::new("cannot be: in binary mode a request is one event")
                    .help("write mode = \"structured\" in [routes.request.cloudevents]")
            }
            Body::Json | Body::Template { .. } | Body::CloudEvents(_) => return self.check_shared(),
        };
        Err(wrong)
    }

    /// What stands in the head of a request is of all messages in it.
    fn check_shared(&self) -> Result<(), Wrong> {
        let head = self.path.iter().chain(self.query.iter().map(|(_, template)| template));
        let mut head = head.chain(self.headers.iter().map(|(_, template)| template));
        let own = head.find_map(|template| template.variables().find(|name| !SHARED.contains(name)));
        own.map_or(Ok(()), |name| {
            let message =
                format!("cannot be: path, query or headers have \"{name}\", which is of one message");
            Err(Wrong::new(message).help(format!("they can have {}", SHARED.join(", "))))
        })
    }

    /// Reads the section.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let default = Self::default();
        let method = section.take("method", method).map_or(default.method, Spanned::into_inner);
        Self {
            path: section.take("path", path).map(Spanned::into_inner),
            query: read_query(section),
            headers: read_headers(section),
            body: read_body(section, &method),
            batch_form: section
                .take("batch_format", batch_form)
                .map_or(default.batch_form, Spanned::into_inner),
            id: section.take("id", id_source).map_or(default.id, Spanned::into_inner),
            method,
        }
    }
}

/// Whether this can be (a part of) the path of a URL, with no segment that leads back.
///
/// # Errors
/// What cannot, as the end of a sentence about the path.
pub fn check_path(path: &str) -> Result<(), String> {
    check_url_text(path)?;
    let is_dots = |segment: &str| {
        let decoded = segment.replace("%2e", ".").replace("%2E", ".");
        decoded == "." || decoded == ".."
    };
    match path.split('/').find(|segment| is_dots(segment)) {
        Some(segment) => Err(format!("has the segment \"{segment}\", which leads back")),
        None => Ok(()),
    }
}

/// RFC 3986, pchar and "/".
fn check_url_text(text: &str) -> Result<(), String> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/%".contains(c);
    match text.chars().find(|c| !is_allowed(*c)) {
        Some(c) => Err(format!("has \"{}\", which is not part of a path", c.escape_debug())),
        None => Ok(()),
    }
}

fn method(value: &DeValue<'_>) -> Result<Method, Wrong> {
    let known = value.as_str().and_then(|text| METHODS.iter().find(|method| method.as_str() == text));
    known.cloned().ok_or_else(|| {
        let names: Vec<_> = METHODS.iter().map(Method::as_str).collect();
        values::unexpected(&format!("one of {}", names.join(", ")), value)
    })
}

fn path(value: &DeValue<'_>) -> Result<Template, Wrong> {
    let template = template(value, Place::Path)?;
    let help = "it follows the path of the target's url: \"/things/{{ client_id }}\"";
    if !template.source().starts_with('/') {
        return Err(Wrong::new("must begin with \"/\"").help(help));
    }
    let checked = match template.constant() {
        Some(path) => check_path(path),
        None => literals(template.source()).try_for_each(check_url_text),
    };
    checked.map_err(|why| {
        let help = match why.contains("segment") {
            true => "write the path without it",
            false => "percent-encode it; what follows a \"?\" belongs into query = { name = \"value\" }",
        };
        Wrong::new(why).help(help)
    })?;
    Ok(template)
}

/// The text between the places where something is filled in.
fn literals(source: &str) -> impl Iterator<Item = &str> {
    const BRACKETS: [(&str, &str); 3] = [("{{", "}}"), ("{%", "%}"), ("{#", "#}")];
    let mut rest = Some(source);
    std::iter::from_fn(move || {
        let text = rest?;
        let opens = BRACKETS.iter().filter_map(|(open, close)| Some((text.find(open)?, *close)));
        let Some((start, close)) = opens.min() else {
            rest = None;
            return Some(text);
        };
        let (literal, inside) = text.split_at(start);
        rest = inside.split_once(close).map(|(_, after)| after);
        Some(literal)
    })
}

fn template(value: &DeValue<'_>, place: Place) -> Result<Template, Wrong> {
    let text = value.as_str().ok_or_else(|| values::unexpected("text in quotes", value))?;
    Template::compile(text, place)
}

fn read_query(section: &mut Section<'_>) -> Vec<(String, Template)> {
    let mut query = Vec::new();
    for (name, value) in section.entries("query") {
        match template(value.get_ref(), Place::Query) {
            Ok(template) => query.push((name.get_ref().to_string(), template)),
            Err(wrong) => section.wrong_at(
                "query",
                value.span(),
                wrong.about(&name.get_ref().escape_debug().to_string()),
            ),
        }
    }
    query
}

fn read_headers(section: &mut Section<'_>) -> Vec<(HeaderName, Template)> {
    let mut headers: Vec<(HeaderName, Template)> = Vec::new();
    for (name, value) in section.entries("headers") {
        let header = header_name(name.get_ref()).and_then(own_header);
        match header.and_then(|header| Ok((header, template(value.get_ref(), Place::Header)?))) {
            Ok((header, _)) if headers.iter().any(|(known, _)| *known == header) => {
                let wrong = Wrong::new("has this header twice, in upper and lower case");
                section.wrong_at("headers", name.span(), wrong.help("keep one of them"));
            }
            Ok(header) => headers.push(header),
            Err(wrong) => section.wrong_at("headers", name.span(), wrong),
        }
    }
    headers
}

/// The kind of the body is not for a template to say.
fn own_header(header: HeaderName) -> Result<HeaderName, Wrong> {
    if header == header::CONTENT_TYPE {
        let help = "it is that of the message, or of the body; a template has content_type beside it";
        return Err(Wrong::new("has \"content-type\"").help(help));
    }
    Ok(header)
}

fn read_body(section: &mut Section<'_>, method: &Method) -> Body {
    let word = section.take("body", |value| {
        let known = BODIES.iter().find(|name| value.as_str() == Some(name));
        known.ok_or_else(|| values::unexpected(&format!("one of {}", BODIES.join(", ")), value))
    });
    let content_type = section.take("content_type", content_type);
    let content_type = content_type.map_or(HeaderValue::from_static("application/json"), Spanned::into_inner);
    let cloud_events = section.optional_section("cloudevents", CloudEventsConfig::read);
    let default = if matches!(*method, Method::GET | Method::DELETE) { "none" } else { "raw" };
    let word = word.map_or(default, |word| *word.into_inner());
    let read = |value: &DeValue<'_>| body_template(value, place_of(&content_type));
    if word == "template" {
        let text = section.require("template", "'{\"value\": {{ payload.value }}}'", read);
        return text.map_or(Body::None, |text| Body::Template { template: text.into_inner(), content_type });
    }
    if let Some(text) = section.take("template", read) {
        let help = "write body = \"template\", or leave it out";
        let wrong = Wrong::new(format!("is of no use with body = \"{word}\"")).help(help);
        section.wrong_at("template", text.span(), wrong);
    }
    if word != "cloudevents" && cloud_events.is_some() {
        let help = "write body = \"cloudevents\", or leave it out";
        section.wrong("cloudevents", Wrong::new(format!("is of no use with body = \"{word}\"")).help(help));
    }
    match word {
        "raw" => Body::Raw,
        "json" => Body::Json,
        "cloudevents" => Body::CloudEvents(cloud_events.unwrap_or_default()),
        _ => Body::None,
    }
}

/// The bytes of a body are the same at every attempt.
fn body_template(value: &DeValue<'_>, place: Place) -> Result<Template, Wrong> {
    let template = template(value, place)?;
    if template.variables().any(|name| name == "attempt") {
        let help = "every attempt has the same body; the header X-Delivery-Attempt says which one it is";
        return Err(Wrong::new("uses \"attempt\"").help(help));
    }
    Ok(template)
}

fn content_type(value: &DeValue<'_>) -> Result<HeaderValue, Wrong> {
    let text = values::text(value)?;
    let header = HeaderValue::from_str(&text).ok().filter(|_| text.contains('/'));
    header.ok_or_else(|| values::unexpected("a media type such as \"application/json\"", value))
}

/// How values are written in text of this kind.
fn place_of(content_type: &HeaderValue) -> Place {
    let text = content_type.to_str().unwrap_or_default().to_ascii_lowercase();
    let essence = text.split(';').next().unwrap_or_default().trim();
    if essence.ends_with("json") {
        Place::Json
    } else if essence.ends_with("html") || essence.ends_with("xml") {
        Place::Html
    } else {
        Place::Text
    }
}

impl Default for CloudEventsConfig {
    fn default() -> Self {
        Self { mode: CloudEventsMode::default(), source: None, event_type: Template::text(EVENT_TYPE) }
    }
}

impl CloudEventsConfig {
    fn read(section: &mut Section<'_>) -> Self {
        let mode = section.take("mode", |value| match value.as_str() {
            Some("binary") => Ok(CloudEventsMode::Binary),
            Some("structured") => Ok(CloudEventsMode::Structured),
            _ => Err(values::unexpected("\"binary\" or \"structured\"", value)),
        });
        let default = Self::default();
        Self {
            mode: mode.map_or(default.mode, Spanned::into_inner),
            source: section.take("source", source).map(Spanned::into_inner),
            event_type: section.take("type", event_type).map_or(default.event_type, Spanned::into_inner),
        }
    }
}

/// A URI reference: what is filled in is percent-encoded.
fn source(value: &DeValue<'_>) -> Result<Template, Wrong> {
    let template = template(value, Place::Path)?;
    let is_allowed = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c);
    if template.source().is_empty() || !literals(template.source()).all(|text| text.chars().all(is_allowed)) {
        let help = "write it like \"https://plant.example/line/{{ captures[0] }}\" or \"/plant\"";
        return Err(values::unexpected("a URI reference", value).help(help));
    }
    Ok(template)
}

fn event_type(value: &DeValue<'_>) -> Result<Template, Wrong> {
    values::text(value)?;
    template(value, Place::Header)
}

fn batch_form(value: &DeValue<'_>) -> Result<BatchForm, Wrong> {
    match value.as_str() {
        Some("ndjson") => Ok(BatchForm::Lines),
        Some("array") => Ok(BatchForm::Array),
        _ => Err(values::unexpected("\"ndjson\" or \"array\"", value)),
    }
}

fn id_source(value: &DeValue<'_>) -> Result<IdSource, Wrong> {
    match value.as_str() {
        Some("broker") => Ok(IdSource::Broker),
        Some(text) if text.len() > USER_PROPERTY.len() && text.starts_with(USER_PROPERTY) => {
            Ok(IdSource::UserProperty(text.split_at(USER_PROPERTY.len()).1.to_owned()))
        }
        _ => Err(values::unexpected("\"broker\" or \"user_property:NAME\"", value)),
    }
}
