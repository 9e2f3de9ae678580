//! A dead letter as people and scripts see it: one JSON object.
//!
//! The keys are part of the interface, and nothing of the letter is missing: a line of an export is this object, and
//! an import reads it. Times are RFC 3339 in UTC; a payload is always there as base64, and as text too when it is
//! text.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Serialize, Serializer};

use super::{Addressee, Attempt, AttemptOutcome, Attempts, DeadLetter, GlobalNo, UnixMillis};
use crate::codec::PublishProperties;

/// What a dead letter shows of itself. Fields that do not apply to it are left out.
#[derive(Clone, Debug, Serialize)]
pub struct DeadLetterView<'a> {
    /// The number it is filed under, by which it is asked for.
    pub id: u64,
    /// The same number with the id of the database, unique everywhere.
    pub filed_as: String,
    /// What it was filed as before it was exported and imported again; left out when it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub imported_from: Option<String>,
    /// The number of the message; a replay goes on using it. 0 when it had none yet.
    pub message_no: u64,
    /// What targets know the message by; left out when it had no number yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// A word of [`DeadLetterReason`](super::DeadLetterReason).
    pub reason: &'static str,
    /// What exactly, where there is more to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<&'a str>,
    /// When the message was given up.
    #[serde(serialize_with = "rfc3339")]
    pub created_at: UnixMillis,
    /// Its fields stand beside these ones.
    #[serde(flatten)]
    pub addressee: AddresseeView<'a>,
    /// Left out when the message was given up before it was tried.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<AttemptsView<'a>>,
    /// The whole Topic Name.
    pub topic: &'a str,
    /// The Client Identifier of whoever published it.
    pub publisher: &'a str,
    /// Its user name, when it is known; left out when it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_name: Option<&'a str>,
    /// 0 to 2, as it was published.
    pub qos: u8,
    /// The RETAIN flag it was published with.
    pub retain: bool,
    /// When the broker took it, from its publisher or from a replay.
    #[serde(serialize_with = "rfc3339")]
    pub published_at: UnixMillis,
    /// Left out when the message does not expire.
    #[serde(serialize_with = "rfc3339", skip_serializing_if = "is_never")]
    pub expires_at: UnixMillis,
    /// Its fields stand beside these ones.
    #[serde(flatten)]
    pub properties: PropertiesView<'a>,
    /// In bytes, before base64.
    pub payload_len: usize,
    /// The whole payload, with padding; empty for an empty one.
    pub payload_base64: String,
    /// Left out when the payload is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_text: Option<&'a str>,
}

/// Whom the letter was for.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum AddresseeView<'a> {
    /// A route and the target it named then.
    Route {
        /// Its name, as in the configuration.
        route: &'a str,
        /// Its name, as in the configuration.
        target: &'a str,
    },
    /// A durable session, or a shared group.
    Session {
        /// The Client Identifier, or the group's name.
        client_id: &'a str,
    },
    /// Nobody was there to take it.
    Nobody {},
}

/// What was tried.
#[derive(Clone, Debug, Serialize)]
pub struct AttemptsView<'a> {
    /// All of them, whether or not they counted against the limit.
    pub attempts: u32,
    /// When the first one began.
    #[serde(serialize_with = "rfc3339")]
    pub first_attempt_at: UnixMillis,
    /// When the last one ended.
    #[serde(serialize_with = "rfc3339")]
    pub last_attempt_at: UnixMillis,
    /// The HTTP status; left out when no answer came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_status: Option<u16>,
    /// The beginning of the answer's body; left out when no answer came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_answer: Option<&'a str>,
    /// Why no answer came; left out when one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<&'a str>,
    /// Those since the broker started, the oldest first; the last ones when they were many.
    pub tries: Vec<AttemptView<'a>>,
}

/// One attempt.
#[derive(Clone, Debug, Serialize)]
pub struct AttemptView<'a> {
    /// When it began.
    #[serde(serialize_with = "rfc3339")]
    pub at: UnixMillis,
    /// How long it took; left out when that was not written down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u32>,
    /// The HTTP status; left out when no answer came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The beginning of the answer's body; left out when no answer came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<&'a str>,
    /// Why no answer came; left out when one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
}

/// The MQTT 5 properties of the message.
#[derive(Clone, Debug, Serialize)]
pub struct PropertiesView<'a> {
    /// Left out when the publisher set none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<&'a str>,
    /// Left out when the message is no request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_topic: Option<&'a str>,
    /// Bytes that mean something to the requester only; left out when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_data_base64: Option<String>,
    /// Pairs of name and value in their order; a name can occur more than once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub user_properties: Vec<(&'a str, &'a str)>,
    /// All that are forwarded, as in a packet and without their length; left out when there are none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub properties_base64: String,
}

impl<'a> DeadLetterView<'a> {
    /// The view of the letter that is filed under a number. `message_no` is that of the message, if it has one.
    pub fn new(filed_as: GlobalNo, message_no: Option<GlobalNo>, letter: &'a DeadLetter) -> Self {
        let message = &letter.message;
        let head = message.head();
        Self {
            id: filed_as.number.0,
            filed_as: filed_as.to_string(),
            imported_from: letter.imported_from.map(|origin| origin.to_string()),
            message_no: letter.message_no.0,
            idempotency_key: message_no.map(|number| number.to_string()),
            reason: letter.reason.as_str(),
            detail: letter.detail.as_deref(),
            created_at: letter.created_at,
            addressee: match &letter.addressee {
                Addressee::Route { route, target } => AddresseeView::Route { route, target },
                Addressee::Session { client_id } => AddresseeView::Session { client_id },
                Addressee::Nobody => AddresseeView::Nobody {},
            },
            attempts: letter.attempts.as_ref().map(AttemptsView::from),
            topic: message.topic(),
            publisher: message.publisher(),
            user_name: message.user_name(),
            qos: head.qos as u8,
            retain: head.retain,
            published_at: head.published_at,
            expires_at: head.expires_at,
            properties: PropertiesView::new(message.properties()),
            payload_len: message.payload().len(),
            payload_base64: BASE64_STANDARD.encode(message.payload()),
            payload_text: std::str::from_utf8(message.payload()).ok(),
        }
    }
}

impl<'a> From<&'a Attempts> for AttemptsView<'a> {
    fn from(attempts: &'a Attempts) -> Self {
        let tries: Vec<_> = attempts.list.iter().map(AttemptView::from).collect();
        let last = tries.last();
        Self {
            attempts: attempts.count,
            first_attempt_at: attempts.first_at,
            last_attempt_at: attempts.last_at,
            last_status: last.and_then(|last| last.status),
            last_answer: last.and_then(|last| last.answer),
            last_error: last.and_then(|last| last.error),
            tries,
        }
    }
}

impl<'a> From<&'a Attempt> for AttemptView<'a> {
    fn from(attempt: &'a Attempt) -> Self {
        let Attempt { at, latency_ms, outcome } = attempt;
        let (status, answer, error) = match outcome {
            AttemptOutcome::Answered { status, excerpt } => (Some(*status), Some(&**excerpt), None),
            AttemptOutcome::Failed(error) => (None, None, Some(&**error)),
        };
        Self { at: *at, latency_ms: *latency_ms, status, answer, error }
    }
}

impl<'a> PropertiesView<'a> {
    fn new(wire: &'a [u8]) -> Self {
        let properties = PublishProperties::from_forwarded(wire);
        Self {
            content_type: properties.content_type(),
            response_topic: properties.response_topic(),
            correlation_data_base64: properties.correlation_data().map(|data| BASE64_STANDARD.encode(data)),
            user_properties: properties.user_properties().collect(),
            properties_base64: BASE64_STANDARD.encode(wire),
        }
    }
}

fn is_never(at: &UnixMillis) -> bool {
    *at == UnixMillis::NEVER
}

/// The time as RFC 3339 in UTC; `null` for one beyond the year 9999.
fn rfc3339<S: Serializer>(at: &UnixMillis, serializer: S) -> Result<S::Ok, S::Error> {
    let time = i64::try_from(at.0).ok().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    match time {
        Some(time) => serializer.collect_str(&time),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, to_value};

    use super::*;
    use crate::record::{Lsn, MessageParts, dead_letter_form::tests::rejected_letter};

    fn view(letter: &DeadLetter) -> Value {
        let no = |number| GlobalNo { store_id: 0xab, number: Lsn(number) };
        to_value(DeadLetterView::new(no(9), Some(no(8)), letter)).unwrap()
    }

    #[test]
    fn a_letter_of_a_route() {
        let expected = json!({
            "id": 9,
            "filed_as": "00000000000000ab-9",
            "imported_from": "00000000000000cd-4",
            "message_no": 8,
            "idempotency_key": "00000000000000ab-8",
            "reason": "rejected",
            "detail": "why",
            "created_at": "2023-11-14T22:13:22.6Z",
            "route": "orders",
            "target": "erp",
            "attempts": 2,
            "first_attempt_at": "2023-11-14T22:13:21Z",
            "last_attempt_at": "2023-11-14T22:13:22.5Z",
            "last_status": 422,
            "last_answer": "no such order",
            "tries": [
                { "at": "2023-11-14T22:13:21Z", "latency_ms": 900, "error": "no answer" },
                { "at": "2023-11-14T22:13:22Z", "status": 422, "answer": "no such order" },
            ],
            "topic": "a/ö",
            "publisher": "boat",
            "qos": 1,
            "retain": true,
            "published_at": "2023-11-14T22:13:20Z",
            "content_type": "x",
            "response_topic": "r",
            "correlation_data_base64": "/w==",
            "user_properties": [["k", "1"], ["k", "2"]],
            "properties_base64": "AwABeAgAAXIJAAH/JgABawABMSYAAWsAATI=",
            "payload_len": 7,
            "payload_base64": "cGF5bG9hZA==",
            "payload_text": "payload",
        });
        assert_eq!(view(&rejected_letter()), expected);
    }

    #[test]
    fn a_letter_of_a_session_that_was_never_tried() {
        let letter = DeadLetter {
            addressee: Addressee::Session { client_id: "c".into() },
            attempts: None,
            ..rejected_letter()
        };
        let view = view(&letter);
        assert_eq!(view["client_id"], "c");
        for absent in ["route", "target", "attempts", "last_status", "last_error", "expires_at"] {
            assert_eq!(view.get(absent), None, "{absent}");
        }
    }

    #[test]
    fn a_failure_shows_its_error_and_no_status() {
        let mut letter = rejected_letter();
        let last = AttemptOutcome::Failed("no answer within 10s".into());
        letter.attempts.as_mut().unwrap().list[1].outcome = last;
        let view = view(&letter);
        assert_eq!(view["last_error"], "no answer within 10s");
        assert_eq!((view.get("last_status"), view.get("last_answer")), (None, None));
    }

    #[test]
    fn a_payload_that_is_not_text_is_base64_only() {
        let mut letter = rejected_letter();
        let parts = MessageParts {
            qos: letter.message.head().qos,
            retain: false,
            published_at: UnixMillis(u64::MAX - 1),
            expires_at: UnixMillis(1_700_000_000_000),
            topic: "a",
            properties: b"",
            payload: b"\xff\x00",
            publisher: "p",
        };
        letter.message = crate::record::Message::new(&parts, &mut Vec::new());
        let view = view(&letter);
        assert_eq!(view["payload_base64"], "/wA=");
        assert_eq!(view["expires_at"], "2023-11-14T22:13:20Z");
        assert_eq!(view["published_at"], Value::Null, "a time that no calendar has");
        assert_eq!((view.get("payload_text"), view.get("user_properties")), (None, None));
    }
}
