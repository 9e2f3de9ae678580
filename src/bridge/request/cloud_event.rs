//! CloudEvents 1.0: a message as an event, in binary, structured and batched form.
//!
//! A message that its publisher made an event, by the MQTT binding of CloudEvents, stays that event: it keeps
//! its id, source, type and extensions. Any other message becomes one.
//!
//! Invariant: every event has `specversion`, `id`, `source` and `type`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use minijinja::Value;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::{Map, Value as Json};

use super::body::{Content, content_type};
use super::envelope::{json, put_member, put_object, quoted};
use super::view::rfc3339;
use crate::codec::PublishProperties;
use crate::config::CloudEventsConfig;
use crate::record::Message;

/// An event in the body.
pub(super) const STRUCTURED: &str = "application/cloudevents+json";
/// Events in the body.
pub(super) const BATCH: &str = "application/cloudevents-batch+json";
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];
/// The names that are no attributes in the MQTT binding.
const NOT_EXTENSIONS: [&str; 3] = ["data", "data_base64", "datacontenttype"];
const NAME_LEN_MAX: usize = 64;
/// Attributes that go into headers, and bytes of them: servers take a hundred headers and some KiB, and what answers
/// such a request by closing the connection looks like a target that is down.
const IN_HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 8 << 10;
/// What the HTTP binding has percent-encoded in a header.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// An event.
struct Event<'m> {
    /// Without `datacontenttype`.
    attributes: BTreeMap<Cow<'m, str>, Cow<'m, str>>,
    /// What the publisher says that the data is.
    data_type: Option<Cow<'m, str>>,
    data: Cow<'m, [u8]>,
}

/// Puts the attributes into headers and gives the data.
///
/// # Errors
/// Why the message cannot become an event.
pub(super) fn binary(
    config: &CloudEventsConfig,
    message: &Message,
    (id, view): (&str, &Value),
    headers: &mut HeaderMap,
) -> Result<Content, String> {
    let event = Event::of(config, message, (id, view))?;
    if event.attributes.len() > IN_HEADERS_MAX {
        return Err(format!("the event has more than {IN_HEADERS_MAX} attributes, too many for headers"));
    }
    let mut bytes = 0;
    for (name, value) in &event.attributes {
        let value = utf8_percent_encode(value, ENCODED).to_string();
        bytes += name.len() + value.len();
        if bytes > HEADER_BYTES_MAX {
            return Err(format!(
                "the attributes of the event have more than {HEADER_BYTES_MAX} bytes in headers"
            ));
        }
        let name = HeaderName::try_from(format!("ce-{name}"));
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    let said = event.data_type.as_deref().map(HeaderValue::from_str);
    headers.insert(CONTENT_TYPE, said.and_then(Result::ok).unwrap_or_else(|| content_type(message)));
    Ok(match event.data {
        Cow::Borrowed(_) => Content::Payload(message.clone()),
        Cow::Owned(data) => Content::Made(data),
    })
}

/// Appends the event as a JSON object.
///
/// # Errors
/// Why the message cannot become an event.
pub(super) fn put_structured(
    out: &mut Vec<u8>,
    config: &CloudEventsConfig,
    message: &Message,
    (id, view): (&str, &Value),
) -> Result<(), String> {
    if structured(message).is_some() {
        out.extend_from_slice(json(message.payload()).unwrap_or_default().as_bytes());
        return Ok(());
    }
    let mut event = Event::of(config, message, (id, view))?;
    let text = std::str::from_utf8(&event.data).ok();
    let data = json(&event.data);
    let is_json = event.data_type.as_deref().map(is_json_type);
    let (member, data, data_type) = match (is_json, data, text) {
        (None | Some(true), Some(data), _) => ("data", data.to_owned(), "application/json"),
        // What a JSON type stands at would be taken for a JSON text.
        (Some(true), None, _) | (_, _, None) => {
            ("data_base64", quoted(&BASE64_STANDARD.encode(&event.data)), "application/octet-stream")
        }
        (_, _, Some(text)) => ("data", quoted(text), "text/plain"),
    };
    let data_type = event.data_type.take().unwrap_or(data_type.into());
    let has_data = !event.data.is_empty();
    if has_data {
        event.attributes.insert("datacontenttype".into(), data_type.into_owned().into());
    }
    put_object(out, &event.attributes);
    if has_data {
        put_member(out, member, &data);
    }
    Ok(())
}

impl<'m> Event<'m> {
    fn of(
        config: &CloudEventsConfig,
        message: &'m Message,
        (id, view): (&str, &Value),
    ) -> Result<Self, String> {
        if let Some(event) = structured(message) {
            return Ok(Self::from_json(event));
        }
        let properties = PublishProperties::from_forwarded(message.properties());
        let data_type = properties.content_type().filter(|text| HeaderValue::from_str(text).is_ok());
        let data_type = data_type.map(Cow::Borrowed);
        let data = Cow::Borrowed(message.payload());
        if let Some(attributes) = in_properties(&properties) {
            return Ok(Self { attributes, data_type, data });
        }
        let fill_in = |what: &str, template: &crate::config::Template| match template.render(view.clone()) {
            Ok(text) if text.is_empty() => Err(format!("the {what} of the event is empty")),
            rendered => rendered.map_err(|why| format!("{what}: {why}")),
        };
        let source = match &config.source {
            Some(template) => fill_in("source", template)?,
            None => format!("causeway://{}", view.get_attr("route").unwrap_or_default()),
        };
        let attributes = [
            ("specversion", Cow::Borrowed("1.0")),
            ("id", id.to_owned().into()),
            ("source", source.into()),
            ("type", fill_in("type", &config.event_type)?.into()),
            ("subject", message.topic().into()),
            ("time", rfc3339(message.head().published_at).into()),
        ];
        let attributes = attributes.into_iter().map(|(name, value)| (name.into(), value)).collect();
        Ok(Self { attributes, data_type, data })
    }

    /// That of an event in JSON, taken apart.
    fn from_json(mut event: Map<String, Json>) -> Event<'static> {
        let data_type = match event.remove("datacontenttype") {
            Some(Json::String(text)) => text,
            _ => "application/json".to_owned(),
        };
        let base64 = event.remove("data_base64");
        let data = match (event.remove("data"), base64) {
            (None | Some(Json::Null), Some(Json::String(text))) => {
                BASE64_STANDARD.decode(text).unwrap_or_default()
            }
            (Some(Json::String(text)), _) if !is_json_type(&data_type) => text.into_bytes(),
            (Some(value), _) => value.to_string().into_bytes(),
            (None, _) => Vec::new(),
        };
        let attributes = event.into_iter().filter(|(name, _)| is_name(name)).filter_map(|(name, value)| {
            let value = match value {
                Json::String(text) => text,
                Json::Bool(_) | Json::Number(_) => value.to_string(),
                _ => return None,
            };
            Some((name.into(), value.into()))
        });
        Event { attributes: attributes.collect(), data_type: Some(data_type.into()), data: Cow::Owned(data) }
    }
}

/// The attributes in the user properties of a message, when it is an event in binary form.
fn in_properties<'m>(properties: &PublishProperties<'m>) -> Option<BTreeMap<Cow<'m, str>, Cow<'m, str>>> {
    let mut attributes = BTreeMap::new();
    for (name, value) in properties.user_properties().filter(|(name, _)| is_name(name)) {
        attributes.entry(Cow::Borrowed(name)).or_insert(Cow::Borrowed(value));
    }
    let has = |name: &&str| attributes.get(*name).is_some_and(|value: &Cow<'_, str>| !value.is_empty());
    let is_event =
        REQUIRED.iter().all(has) && attributes.get("specversion").is_some_and(|version| version == "1.0");
    is_event.then_some(attributes)
}

/// The event in the payload of a message, when it is one in structured form.
fn structured(message: &Message) -> Option<Map<String, Json>> {
    let properties = PublishProperties::from_forwarded(message.properties());
    let is_event = match properties.content_type() {
        Some(said) => said.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(STRUCTURED),
        // Before MQTT 5.0 nobody could say so.
        None => memchr::memmem::find(message.payload(), b"specversion").is_some(),
    };
    if !is_event {
        return None;
    }
    let event: Map<String, Json> = serde_json::from_slice(message.payload()).ok()?;
    let text = |name: &str| event.get(name).and_then(Json::as_str).filter(|text| !text.is_empty());
    let is_event = REQUIRED.iter().all(|name| text(name).is_some()) && text("specversion") == Some("1.0");
    is_event.then_some(event)
}

/// The name of an attribute.
fn is_name(name: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && !NOT_EXTENSIONS.contains(&name)
}

fn is_json_type(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}
