//! What comes in and goes out as lines of JSON; ../README.md has the names.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// What one connection is asked to do.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Request {
    Connect { options: Box<Options> },
    Subscribe(Subscribe),
    Unsubscribe { filter: String },
    Publish(Publish),
    Disconnect,
    Abort,
}

#[derive(Deserialize)]
pub struct Options {
    pub version: String,
    pub transport: String,
    pub host: String,
    pub port: u16,
    pub path: String,
    pub ca: Option<String>,
    pub client_id: String,
    pub clean: bool,
    pub session_expiry: Option<u32>,
    pub receive_maximum: Option<u16>,
    pub username: Option<String>,
    pub password: Option<String>,
    pub will: Option<Will>,
}

#[derive(Deserialize)]
pub struct Will {
    pub topic: String,
    pub payload: Payload,
    pub qos: u8,
    pub retain: bool,
    #[serde(default)]
    pub properties: Properties,
}

#[derive(Deserialize)]
pub struct Subscribe {
    pub filter: String,
    pub qos: u8,
    pub subscription_id: Option<usize>,
    #[serde(default)]
    pub no_local: bool,
    #[serde(default)]
    pub retain_as_published: bool,
    #[serde(default)]
    pub retain_handling: u8,
}

#[derive(Deserialize)]
pub struct Publish {
    pub topic: String,
    pub payloads: Vec<Payload>,
    pub qos: u8,
    pub retain: bool,
    #[serde(default)]
    pub properties: Properties,
}

/// A message that has arrived.
#[derive(Serialize)]
pub struct Message {
    pub topic: String,
    pub payload: Payload,
    pub qos: u8,
    pub retain: bool,
    pub properties: Properties,
}

#[derive(Default, Deserialize, Serialize)]
pub struct Properties {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_topic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_data: Option<Payload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_expiry: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_format: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic_alias: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub will_delay: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub user_properties: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subscription_ids: Vec<usize>,
}

/// Bytes, in base64 on the line.
#[derive(Clone)]
pub struct Payload(pub Vec<u8>);

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        BASE64_STANDARD.decode(String::deserialize(from)?).map(Self).map_err(D::Error::custom)
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}
