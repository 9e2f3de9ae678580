//! Everything that is known of a message, as a JSON object.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Serialize;
use serde::de::IgnoredAny;

use super::view::{rfc3339, user_properties};
use crate::codec::PublishProperties;
use crate::record::Message;

/// All but the payload.
#[derive(Serialize)]
struct Envelope<'m> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'m str>,
    topic: &'m str,
    #[serde(skip_serializing_if = "str::is_empty")]
    client_id: &'m str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_name: Option<&'m str>,
    qos: u8,
    retain: bool,
    published_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_topic: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_data_base64: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    properties: BTreeMap<&'m str, &'m str>,
}

/// Appends the object. The payload is in it as `payload`, byte for byte, when it is JSON, and as
/// `payload_base64` when it is not.
pub(super) fn put(out: &mut Vec<u8>, message: &Message, id: Option<&str>) {
    let head = message.head();
    let properties = PublishProperties::from_forwarded(message.properties());
    let envelope = Envelope {
        id,
        topic: message.topic(),
        client_id: message.publisher(),
        user_name: message.user_name(),
        qos: head.qos as u8,
        retain: head.retain,
        published_at: rfc3339(head.published_at),
        content_type: properties.content_type(),
        response_topic: properties.response_topic(),
        correlation_data_base64: properties.correlation_data().map(|data| BASE64_STANDARD.encode(data)),
        properties: user_properties(&properties),
    };
    put_object(out, &envelope);
    match json(message.payload()) {
        Some(json) => put_member(out, "payload", json),
        None => put_member(out, "payload_base64", &quoted(&BASE64_STANDARD.encode(message.payload()))),
    }
}

/// These bytes, when they are one JSON value: numbers and the order of names stay as they are.
pub(super) fn json(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    serde_json::from_str::<IgnoredAny>(text).ok().map(|_| text.trim_matches([' ', '\t', '\r', '\n']))
}

/// A text in JSON.
pub(super) fn quoted(text: &str) -> String {
    // A text always has a form in JSON.
    serde_json::to_string(text).unwrap_or_default()
}

/// Appends an object with at least one member.
pub(super) fn put_object(out: &mut Vec<u8>, object: &impl Serialize) {
    // Writing to a Vec does not fail, and names are texts.
    let _ = serde_json::to_writer(out, object);
}

/// Adds a member to the object that `out` ends with; `value` is in JSON.
pub(super) fn put_member(out: &mut Vec<u8>, name: &str, value: &str) {
    out.pop();
    out.push(b',');
    out.extend_from_slice(quoted(name).as_bytes());
    out.push(b':');
    out.extend_from_slice(value.as_bytes());
    out.push(b'}');
}
