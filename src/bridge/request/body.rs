//! What is in a request.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use minijinja::Value;

use super::cloud_event::{self, BATCH, STRUCTURED};
use super::{Item, envelope};
use crate::codec::PublishProperties;
use crate::config::{BatchForm, Body, CloudEventsMode, RequestConfig, Template};
use crate::record::Message;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const LINES: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// The bytes of a body.
#[derive(Debug)]
pub(super) enum Content {
    Nothing,
    /// Those of the payload, shared with the message.
    Payload(Message),
    Made(Vec<u8>),
}

/// One message, with what it is known by and what templates see of it.
pub(super) struct Part<'a> {
    pub(super) item: &'a Item<'a>,
    pub(super) id: Option<String>,
    /// `UNDEFINED` where no template asks.
    pub(super) view: Value,
}

impl Content {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Nothing => &[],
            Self::Payload(message) => message.payload(),
            Self::Made(bytes) => bytes,
        }
    }

    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Self::Nothing => Bytes::new(),
            Self::Payload(message) => Bytes::from_owner(SharedPayload(message)),
            Self::Made(bytes) => bytes.into(),
        }
    }
}

/// The body of a request with one message; its content type goes to the headers.
///
/// # Errors
/// Why the message has none.
pub(super) fn of_one(body: &Body, part: &Part<'_>, headers: &mut HeaderMap) -> Result<Content, String> {
    let message = part.item.message;
    match body {
        Body::None => {
            headers.remove(CONTENT_TYPE);
            Ok(Content::Nothing)
        }
        Body::Raw => {
            headers.entry(CONTENT_TYPE).or_insert_with(|| content_type(message));
            Ok(Content::Payload(message.clone()))
        }
        Body::CloudEvents(config) if config.mode == CloudEventsMode::Binary => {
            let id = part.id.as_deref().unwrap_or_default();
            cloud_event::binary(config, message, (id, &part.view), headers)
        }
        Body::Json | Body::Template { .. } | Body::CloudEvents(_) => {
            let mut bytes = Vec::with_capacity(message.bytes().len() + 512);
            put(&mut bytes, body, part)?;
            headers.insert(CONTENT_TYPE, type_of_one(body));
            Ok(Content::Made(bytes))
        }
    }
}

/// The body of a request with several messages.
///
/// # Errors
/// Which of them has none, and why.
pub(super) fn of_several(
    request: &RequestConfig,
    parts: &[Part<'_>],
    headers: &mut HeaderMap,
) -> Result<Content, (usize, String)> {
    let is_array = matches!(request.body, Body::CloudEvents(_)) || request.batch_form == BatchForm::Array;
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.item.message.bytes().len() + 512).sum());
    if is_array {
        bytes.push(b'[');
    }
    for (index, part) in parts.iter().enumerate() {
        if is_array && index > 0 {
            bytes.push(b',');
        }
        let start = bytes.len();
        put(&mut bytes, &request.body, part).map_err(|why| (index, why))?;
        if !is_array {
            end_line(&mut bytes, start, &request.body).map_err(|why| (index, why))?;
        }
    }
    if is_array {
        bytes.push(b']');
    }
    headers.insert(CONTENT_TYPE, type_of_several(request, is_array));
    Ok(Content::Made(bytes))
}

/// What the publisher said, unless a header cannot carry it; otherwise what is known of the payload.
pub(super) fn content_type(message: &Message) -> HeaderValue {
    let properties = PublishProperties::from_forwarded(message.properties());
    let said = properties.content_type().map(str::trim);
    let usable = said.filter(|text| !text.is_empty() && text.is_ascii());
    usable.and_then(|text| HeaderValue::from_str(text).ok()).unwrap_or_else(|| {
        HeaderValue::from_static(if properties.payload_format_is_utf8() {
            "text/plain; charset=utf-8"
        } else {
            "application/octet-stream"
        })
    })
}

/// Appends what a message is in a body that is made.
fn put(bytes: &mut Vec<u8>, body: &Body, part: &Part<'_>) -> Result<(), String> {
    let (message, id) = (part.item.message, part.id.as_deref());
    match body {
        Body::Json => envelope::put(bytes, message, id),
        Body::Template { template, .. } => {
            let text = template.render(part.view.clone()).map_err(|why| format!("template: {why}"))?;
            if template.is_json() && envelope::json(text.as_bytes()).is_none() {
                return Err("template: the result is not JSON".into());
            }
            bytes.extend_from_slice(text.as_bytes());
        }
        Body::CloudEvents(config) => {
            cloud_event::put_structured(bytes, config, message, (id.unwrap_or_default(), &part.view))?;
        }
        // Nothing is made of the payload as it is.
        Body::None | Body::Raw => {}
    }
    Ok(())
}

/// One message is one line. JSON may be written over several; between its words, a space is as good.
fn end_line(bytes: &mut Vec<u8>, start: usize, body: &Body) -> Result<(), String> {
    while bytes.len() > start && bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        bytes.pop();
    }
    let is_json = match body {
        Body::Template { template, .. } => template.is_json(),
        _ => true,
    };
    let mut line_ends = bytes.iter_mut().skip(start).filter(|byte| matches!(byte, b'\n' | b'\r'));
    if is_json {
        line_ends.for_each(|byte| *byte = b' ');
    } else if line_ends.next().is_some() {
        return Err("template: the result has more than one line".into());
    }
    bytes.push(b'\n');
    Ok(())
}

fn type_of_one(body: &Body) -> HeaderValue {
    match body {
        Body::Template { content_type, .. } => content_type.clone(),
        Body::CloudEvents(_) => HeaderValue::from_static(STRUCTURED),
        Body::Json | Body::None | Body::Raw => JSON,
    }
}

fn type_of_several(request: &RequestConfig, is_array: bool) -> HeaderValue {
    match &request.body {
        Body::CloudEvents(_) => HeaderValue::from_static(BATCH),
        Body::Template { template, content_type } if !template.is_json() => content_type.clone(),
        _ if is_array => JSON,
        _ => LINES,
    }
}

/// The payload of a message that lives for as long as the HTTP client needs it.
struct SharedPayload(Message);

impl AsRef<[u8]> for SharedPayload {
    fn as_ref(&self) -> &[u8] {
        self.0.payload()
    }
}

/// Whether a body asks what a template can see of a message.
pub(super) fn asks_view(body: &Body) -> bool {
    let fills_in = |template: &Template| template.constant().is_none();
    match body {
        Body::Template { template, .. } => fills_in(template),
        Body::CloudEvents(_) => true,
        Body::None | Body::Raw | Body::Json => false,
    }
}
