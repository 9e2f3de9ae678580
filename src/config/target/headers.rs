//! Headers that the operator adds to requests.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use toml::de::DeValue;

use crate::config::report::Wrong;
use crate::config::section::Section;
use crate::config::{secret, values};

/// Headers that describe the request as it is sent; the client writes them itself.
const OWN_HEADERS: [HeaderName; 9] = [
    header::ACCEPT_ENCODING,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Headers that say which message it is: what identifies a message is Causeway's to say.
const IDENTITY: [&str; 7] = [
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
    "idempotency-key",
    "x-delivery-attempt",
    "traceparent",
    "tracestate",
];

/// Every value may hold a secret, so that none of them is ever shown.
pub(super) fn read(section: &mut Section<'_>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in section.entries("headers") {
        let header = match header_name(name.get_ref()) {
            Ok(header) => header,
            Err(wrong) => {
                section.wrong_at("headers", name.span(), wrong);
                continue;
            }
        };
        match header_value(value.get_ref(), "") {
            Ok(value) => {
                if headers.insert(header, value).is_some() {
                    let wrong = Wrong::new("has this header twice, in upper and lower case");
                    section.wrong_at("headers", name.span(), wrong.help("keep one of them"));
                }
            }
            Err(wrong) => section.wrong_at("headers", value.span(), wrong.about(header.as_str())),
        }
    }
    headers
}

/// A name that neither the client nor Causeway sets itself.
pub(in crate::config) fn header_name(name: &str) -> Result<HeaderName, Wrong> {
    let shown = name.escape_debug();
    let header = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Wrong::new(format!("has \"{shown}\", which cannot be the name of a header")))?;
    if OWN_HEADERS.contains(&header) {
        let wrong = Wrong::new(format!("has \"{header}\", which the HTTP client sets itself"));
        return Err(wrong.help("leave it out"));
    }
    let name = header.as_str();
    if IDENTITY.contains(&name) || name.starts_with("mqtt-") || name.starts_with("ce-") {
        let wrong = Wrong::new(format!("has \"{name}\", which says which message it is"));
        return Err(wrong.help("leave it out"));
    }
    Ok(header)
}

/// Text with its references resolved, and what stands before it.
pub(super) fn header_value(value: &DeValue<'_>, prefix: &str) -> Result<HeaderValue, Wrong> {
    let text = value.as_str().ok_or_else(|| values::unexpected("text in quotes", value))?;
    let resolved = secret::resolve(text)?;
    let mut header = HeaderValue::try_from(format!("{prefix}{resolved}")).map_err(|_| {
        Wrong::new("has characters that a header cannot carry (a line end, perhaps)").secret()
    })?;
    header.set_sensitive(true);
    Ok(header)
}
