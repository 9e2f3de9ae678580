//! A message as templates see it: names and values that are made when they are asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use minijinja::Value;
use minijinja::value::Object;

use crate::bridge::captures::Captures;
use crate::codec::PublishProperties;
use crate::config::RouteConfig;
use crate::record::{Message, UnixMillis};

/// What is the same for all messages of a route.
#[derive(Debug)]
pub(super) struct RouteView {
    pub(super) route: String,
    target: String,
    captures: Captures,
}

/// A message, or several of them, for templates: `config::VARIABLES` has the names.
#[derive(Debug)]
struct View {
    route: Arc<RouteView>,
    /// Several messages share no more than the other fields.
    message: Option<Message>,
    id: Option<String>,
    attempt: u32,
    payload: OnceLock<Option<Value>>,
}

impl RouteView {
    pub(super) fn new(route: &RouteConfig) -> Self {
        let captures = Captures::new(route);
        Self { route: route.name.clone(), target: route.target.clone(), captures }
    }

    /// A request for templates. `message` when there is one of them in it.
    pub(super) fn of(self: &Arc<Self>, message: Option<&Message>, id: Option<&str>, attempt: u32) -> Value {
        Value::from_object(View {
            route: Arc::clone(self),
            message: message.cloned(),
            id: id.map(str::to_owned),
            attempt,
            payload: OnceLock::new(),
        })
    }
}

/// As in RFC 3339, in UTC.
pub(super) fn rfc3339(time: UnixMillis) -> String {
    let time = i64::try_from(time.0).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok());
    time.unwrap_or(Timestamp::MAX).to_string()
}

impl Object for View {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    /// What a message does not have is not defined.
    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        match key {
            "id" => self.id.as_deref().map(Value::from),
            "attempt" => Some(self.attempt.into()),
            "route" => Some(self.route.route.as_str().into()),
            "target" => Some(self.route.target.as_str().into()),
            _ => self.of_message(self.message.as_ref()?, key),
        }
    }
}

impl View {
    fn of_message(&self, message: &Message, key: &str) -> Option<Value> {
        let head = message.head();
        let properties = || PublishProperties::from_forwarded(message.properties());
        Some(match key {
            "topic" => message.topic().into(),
            "levels" => message.topic().split('/').map(Value::from).collect(),
            "captures" => self.route.captures.of(message).into_iter().map(Value::from).collect(),
            "client_id" => message.publisher().into(),
            "user_name" => message.user_name()?.into(),
            "qos" => (head.qos as u8).into(),
            "retain" => head.retain.into(),
            "payload" => self.payload.get_or_init(|| payload(message)).clone()?,
            "payload_text" => std::str::from_utf8(message.payload()).ok()?.into(),
            "payload_base64" => BASE64_STANDARD.encode(message.payload()).into(),
            "properties" => Value::from_pairs(user_properties(&properties())),
            "content_type" => properties().content_type()?.into(),
            "response_topic" => properties().response_topic()?.into(),
            "correlation_data_base64" => BASE64_STANDARD.encode(properties().correlation_data()?).into(),
            "published_at" => rfc3339(head.published_at).into(),
            "published_at_ms" => head.published_at.0.into(),
            _ => return None,
        })
    }
}

/// By name; the first of those with the same name.
pub(super) fn user_properties<'m>(properties: &PublishProperties<'m>) -> BTreeMap<&'m str, &'m str> {
    let mut map = BTreeMap::new();
    for (name, value) in properties.user_properties() {
        map.entry(name).or_insert(value);
    }
    map
}

/// JSON as what it says, other text as text.
fn payload(message: &Message) -> Option<Value> {
    let json = serde_json::from_slice(message.payload()).ok();
    json.or_else(|| std::str::from_utf8(message.payload()).ok().map(Value::from))
}
