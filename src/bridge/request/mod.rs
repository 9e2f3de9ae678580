//! From a message, or several, to the request that carries them.
//!
//! Everything that does not depend on a message is made once, in [`Shape::new`]. With the defaults the body is
//! the payload, byte for byte, and what else the target may want to know is in headers; text from MQTT clients
//! gets into a URL, a header or JSON only in a form that cannot leave its place.
//!
//! Invariant: every attempt at a message has the same body and the same idempotency key.

use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, header::USER_AGENT};
use http_body_util::Full;
use minijinja::Value;

use self::address::Address;
use self::body::{Content, Part, asks_view};
use self::signature::Signer;
use self::trace::{TRACEPARENT, TRACESTATE, TraceContext};
use self::view::RouteView;
use crate::codec::PublishProperties;
use crate::config::{Body, RequestConfig, RouteConfig, TargetConfig, Template};
use crate::record::{Lsn, Message, UnixMillis};

mod address;
mod body;
mod cloud_event;
mod envelope;
mod ids;
mod signature;
#[cfg(test)]
mod tests;
pub(crate) mod trace;
mod view;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const DELIVERY_ATTEMPT: HeaderName = HeaderName::from_static("x-delivery-attempt");
/// Headers that a request has beside those that the operator set, mostly.
const OWN_HEADERS_MAX: usize = 11;
const MQTT_TOPIC: HeaderName = HeaderName::from_static("mqtt-topic");
const MQTT_QOS: HeaderName = HeaderName::from_static("mqtt-qos");
const MQTT_RETAIN: HeaderName = HeaderName::from_static("mqtt-retain");
const MQTT_PUBLISHER: HeaderName = HeaderName::from_static("mqtt-publisher");

/// One attempt to deliver a message.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// The random id that the store had when it gave out the number.
    pub store_id: u64,
    /// The number of the message in that store; `None` for QoS 0, which has none and is tried once.
    pub number: Option<Lsn>,
    /// Counted from 1, over every attempt that was made.
    pub attempt: u32,
}

/// One message of a request, and the attempt that it is.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// The message.
    pub message: &'a Message,
    /// Its number, and which attempt this is.
    pub delivery: Delivery,
}

/// A message that no request can be made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// Which of the messages that were to be in the request.
    pub index: usize,
    /// What does not fit, in one line, safe to print.
    pub why: String,
}

/// What the requests of a route look like.
#[derive(Debug)]
pub struct Shape {
    address: Address,
    /// What every request has.
    headers: HeaderMap,
    request: RequestConfig,
    route: Arc<RouteView>,
    signer: Option<Signer>,
    asks_view: bool,
    /// A request has the form of several messages even when there is one in it.
    is_batched: bool,
}

impl Shape {
    /// That of a route to this target. Its configured headers come before the default user agent and the
    /// content type of a message, not before the headers that identify it.
    pub fn new(route: &RouteConfig, target: &TargetConfig) -> Self {
        let user_agent = HeaderValue::from_static(concat!("causeway/", env!("CARGO_PKG_VERSION")));
        let mut headers = target.headers.clone();
        headers.entry(USER_AGENT).or_insert(user_agent);
        let request = route.request.clone();
        let address = Address::new(&target.url, &request);
        Self {
            asks_view: address.is_filled_in() || !request.headers.is_empty() || asks_view(&request.body),
            address,
            headers,
            request,
            route: Arc::new(RouteView::new(route)),
            signer: Signer::new(&target.signing),
            is_batched: route.batch.is_some(),
        }
    }

    /// The request of one attempt at these messages, made at this time. The payload of a single one is shared
    /// with it where the body is the payload, not copied.
    ///
    /// # Errors
    /// When one of the messages cannot be put into a request, now or ever.
    pub fn build(&self, items: &[Item<'_>], now: UnixMillis) -> Result<Request<Full<Bytes>>, Unfit> {
        match items {
            [item] if !self.is_batched => self.one(item, now).map_err(|why| Unfit { index: 0, why }),
            [] => Err(Unfit { index: 0, why: "there is no message".into() }),
            items => self.several(items, now),
        }
    }

    fn one(&self, item: &Item<'_>, now: UnixMillis) -> Result<Request<Full<Bytes>>, String> {
        let message = item.message;
        let known = ids::message_id(&self.request.id, item);
        let key = header_of(known.as_deref());
        let needs_id = self.signer.is_some() || matches!(self.request.body, Body::CloudEvents(_));
        let id = known.or_else(|| needs_id.then(ids::once));
        let attempt = item.delivery.attempt;
        let view = self.asks_view.then(|| self.route.of(Some(message), id.as_deref(), attempt));
        let mut request = self.begin(view.as_ref())?;
        let headers = request.headers_mut();
        put_message(headers, message);
        self.put_trace(headers, item, id.as_deref().unwrap_or_default());
        let part = Part { item, id, view: view.unwrap_or_default() };
        let content = body::of_one(&self.request.body, &part, headers)?;
        put(headers, WEBHOOK_ID, key.clone().or_else(|| header_of(part.id.as_deref())));
        put(headers, IDEMPOTENCY_KEY, key);
        Ok(self.finish(request, content, (part.id.as_deref(), attempt), now))
    }

    fn several(&self, items: &[Item<'_>], now: UnixMillis) -> Result<Request<Full<Bytes>>, Unfit> {
        let part = |item| {
            // Each needs one, for that of all of them.
            let id = ids::message_id(&self.request.id, item).unwrap_or_else(ids::once);
            let asks = asks_view(&self.request.body);
            let view = asks.then(|| self.route.of(Some(item.message), Some(&id), item.delivery.attempt));
            Part { item, id: Some(id), view: view.unwrap_or_default() }
        };
        let parts: Vec<_> = items.iter().map(part).collect();
        let id = ids::batch_id(parts.iter().filter_map(|part| part.id.as_deref()));
        let attempt = items.iter().map(|item| item.delivery.attempt).max().unwrap_or_default();
        let view = self.asks_view.then(|| self.route.of(None, Some(&id), attempt));
        let mut request = self.begin(view.as_ref()).map_err(|why| Unfit { index: 0, why })?;
        let headers = request.headers_mut();
        let content = body::of_several(&self.request, &parts, headers);
        let content = content.map_err(|(index, why)| Unfit { index, why })?;
        let key = header_of(Some(&id));
        put(headers, WEBHOOK_ID, key.clone());
        put(headers, IDEMPOTENCY_KEY, key);
        Ok(self.finish(request, content, (Some(&id), attempt), now))
    }

    /// Method, URL, and the headers that the operator has set.
    fn begin(&self, view: Option<&Value>) -> Result<Request<Full<Bytes>>, String> {
        let mut request = Request::new(Full::default());
        *request.method_mut() = self.request.method.clone();
        *request.uri_mut() = self.address.uri(view)?;
        // With room for all: a map that grows moves everything several times.
        let mut headers = HeaderMap::with_capacity(self.headers.len() + OWN_HEADERS_MAX);
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        for (name, template) in &self.request.headers {
            put_template(&mut headers, name, template, view)?;
        }
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// The trace that the publisher has begun, if it has.
    fn put_trace(&self, headers: &mut HeaderMap, item: &Item<'_>, id: &str) {
        if item.message.properties().is_empty() {
            return;
        }
        let properties = PublishProperties::from_forwarded(item.message.properties());
        let Some(context) = TraceContext::of(&properties) else { return };
        let seed = format!("{}/{id}/{}", self.route.route, item.delivery.attempt);
        put(headers, HeaderName::from_static(TRACEPARENT), header_of(Some(&context.child(&seed))));
        put(headers, HeaderName::from_static(TRACESTATE), header_of(context.state));
    }

    /// The attempt, the signature and the body.
    fn finish(
        &self,
        mut request: Request<Full<Bytes>>,
        content: Content,
        (id, attempt): (Option<&str>, u32),
        now: UnixMillis,
    ) -> Request<Full<Bytes>> {
        let headers = request.headers_mut();
        headers.insert(DELIVERY_ATTEMPT, attempt.into());
        if let (Some(signer), Some(id)) = (&self.signer, id) {
            let seconds = now.0 / 1000;
            headers.insert(WEBHOOK_TIMESTAMP, seconds.into());
            let signature = signer.sign(id, seconds, content.bytes());
            signature.map(|signature| headers.insert(WEBHOOK_SIGNATURE, signature));
        }
        *request.body_mut() = Full::new(content.into_bytes());
        request
    }
}

/// Where from, how, and from whom a message came.
fn put_message(headers: &mut HeaderMap, message: &Message) {
    let head = message.head();
    put_encoded(headers, MQTT_TOPIC, message.topic());
    headers.insert(MQTT_QOS, u16::from(head.qos as u8).into());
    let retain = if head.retain { "true" } else { "false" };
    headers.insert(MQTT_RETAIN, HeaderValue::from_static(retain));
    put_encoded(headers, MQTT_PUBLISHER, message.publisher());
}

/// Sets a header that a message has a say in. An empty one is none.
fn put_template(
    headers: &mut HeaderMap,
    name: &HeaderName,
    template: &Template,
    view: Option<&Value>,
) -> Result<(), String> {
    let text =
        template.render(view.cloned().unwrap_or_default()).map_err(|why| format!("header {name}: {why}"))?;
    if text.is_empty() {
        headers.remove(name);
        return Ok(());
    }
    let value = HeaderValue::try_from(text).map_err(|_| format!("header {name}: it cannot carry this"))?;
    headers.insert(name, value);
    Ok(())
}

/// Sets a header, or takes it away: nobody else may set it.
fn put(headers: &mut HeaderMap, name: HeaderName, value: Option<HeaderValue>) {
    match value {
        Some(value) => drop(headers.insert(name, value)),
        None => drop(headers.remove(name)),
    }
}

fn header_of(text: Option<&str>) -> Option<HeaderValue> {
    text.and_then(|text| HeaderValue::from_str(text).ok())
}

/// Sets a header to a text of MQTT; an empty text sets none.
fn put_encoded(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if text.is_empty() {
        return;
    }
    let value = if text.bytes().all(stands_for_itself) {
        HeaderValue::from_str(text)
    } else {
        HeaderValue::try_from(percent_encode(text))
    };
    if let Ok(value) = value {
        headers.insert(name, value);
    }
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if stands_for_itself(byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Visible ASCII. The percent sign is not, so that a target can always decode what it gets.
fn stands_for_itself(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'%'
}
