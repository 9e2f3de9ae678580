//! Dead letters for people.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde::Deserialize;

use crate::auth::Escaped;
use crate::bridge::excerpt;
use crate::cli::show::{Align, age_at, count, details, or_dash, size, table};

/// Bytes of a payload that fit on a line of a list, and on one of a single letter.
const LISTED_LEN_MAX: usize = 32;
const SHOWN_LEN_MAX: usize = 1000;

/// What is shown of a letter. What does not apply to it is not there.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Letter {
    id: u64,
    reason: String,
    detail: Option<String>,
    idempotency_key: Option<String>,
    imported_from: Option<String>,
    created_at: Option<String>,
    published_at: Option<String>,
    expires_at: Option<String>,
    route: Option<String>,
    target: Option<String>,
    client_id: Option<String>,
    topic: String,
    publisher: String,
    user_name: Option<String>,
    qos: u8,
    attempts: Option<u32>,
    first_attempt_at: Option<String>,
    last_attempt_at: Option<String>,
    last_status: Option<u16>,
    last_error: Option<String>,
    tries: Vec<Try>,
    user_properties: Vec<(String, String)>,
    content_type: Option<String>,
    payload_len: u64,
    payload_base64: String,
}

/// An attempt.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Try {
    at: Option<String>,
    latency_ms: Option<u32>,
    status: Option<u16>,
    answer: Option<String>,
    error: Option<String>,
}

pub(super) fn show_list(letters: &[Letter], next: Option<u64>, now: Timestamp) -> String {
    let columns = [
        ("ID", Align::Right),
        ("AGE", Align::Right),
        ("REASON", Align::Left),
        ("FOR", Align::Left),
        ("TOPIC", Align::Left),
        ("TRIES", Align::Right),
        ("LAST", Align::Left),
        ("SIZE", Align::Right),
        ("PAYLOAD", Align::Left),
    ];
    if letters.is_empty() {
        return "no dead letters".to_owned();
    }
    let rows: Vec<_> = letters.iter().map(|letter| row(letter, now)).collect();
    let more = next.map(|next| format!("; there may be more: --after {next}")).unwrap_or_default();
    format!("{}\n{}{more}", table(columns, &rows), count(letters.len() as u64, "dead letter"))
}

fn row(letter: &Letter, now: Timestamp) -> [String; 9] {
    [
        letter.id.to_string(),
        or_dash(letter.created_at().map(|at| age_at(now, at))),
        letter.reason.clone(),
        letter.addressee(),
        Escaped(&letter.topic).to_string(),
        letter.attempts.unwrap_or_default().to_string(),
        or_dash(letter.last().map(|last| excerpt(last.as_bytes(), LISTED_LEN_MAX))),
        size(letter.payload_len),
        letter.payload(LISTED_LEN_MAX),
    ]
}

pub(super) fn show_one(letter: &Letter) -> String {
    let safe = |text: &str| excerpt(text.as_bytes(), SHOWN_LEN_MAX);
    let said = |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(safe);
    let tries = letter.attempts.map(|attempts| {
        let at = |at: &Option<String>| or_dash(at.clone());
        format!("{attempts}, from {} to {}", at(&letter.first_attempt_at), at(&letter.last_attempt_at))
    });
    let properties =
        letter.user_properties.iter().map(|(name, value)| format!("{}={}", safe(name), safe(value)));
    let properties = properties.collect::<Vec<_>>().join(" ");
    let pairs = [
        ("id", Some(letter.id.to_string())),
        ("reason", Some(letter.reason.clone())),
        ("detail", said(&letter.detail)),
        ("given up", letter.created_at.clone()),
        ("for", Some(letter.addressee())),
        ("topic", Some(safe(&letter.topic))),
        ("publisher", Some(Escaped(&letter.publisher).to_string())),
        ("user name", said(&letter.user_name)),
        ("qos", Some(letter.qos.to_string())),
        ("published", letter.published_at.clone()),
        ("expires", letter.expires_at.clone()),
        ("key", said(&letter.idempotency_key)),
        ("imported from", said(&letter.imported_from)),
        ("tries", tries.or_else(|| Some("none".to_owned()))),
        ("content type", said(&letter.content_type)),
        ("properties", Some(properties).filter(|text| !text.is_empty())),
        ("size", Some(size(letter.payload_len))),
        ("payload", Some(letter.payload(SHOWN_LEN_MAX))),
    ];
    let known = pairs.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let details = details(&known.collect::<Vec<_>>());
    if letter.tries.is_empty() {
        return details;
    }
    let columns = [("AT", Align::Left), ("TOOK", Align::Right), ("STATUS", Align::Left), ("", Align::Left)];
    let rows: Vec<_> = letter.tries.iter().map(Try::row).collect();
    format!("{details}\n{}", table(columns, &rows))
}

impl Try {
    fn row(&self) -> [String; 4] {
        let text = self.answer.as_ref().or(self.error.as_ref());
        [
            or_dash(self.at.clone()),
            or_dash(self.latency_ms.map(|latency| format!("{latency} ms"))),
            or_dash(self.status.map(|status| status.to_string())),
            text.map(|text| excerpt(text.as_bytes(), SHOWN_LEN_MAX)).unwrap_or_default(),
        ]
    }
}

impl Letter {
    fn created_at(&self) -> Option<Timestamp> {
        self.created_at.as_ref()?.parse().ok()
    }

    fn addressee(&self) -> String {
        match (&self.route, &self.target, &self.client_id) {
            (Some(route), Some(target), _) => format!("{} -> {}", Escaped(route), Escaped(target)),
            (_, _, Some(client_id)) => format!("client {}", Escaped(client_id)),
            _ => "nobody".to_owned(),
        }
    }

    /// How the last attempt ended, in a word or a few.
    fn last(&self) -> Option<String> {
        self.last_status.map(|status| status.to_string()).or_else(|| self.last_error.clone())
    }

    fn payload(&self, len_max: usize) -> String {
        let payload = BASE64_STANDARD.decode(&self.payload_base64).unwrap_or_default();
        let shown = excerpt(&payload, len_max);
        if payload.len() > len_max { format!("{shown}...") } else { shown }
    }
}
