//! Takes secrets out of what a target says: some repeat the headers of a request in their answer.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use memchr::memmem;

/// Shorter ones cannot be told from what is no secret.
const SECRET_LEN_MIN: usize = 5;
/// Stands where a secret stood.
const MASK: &[u8] = b"****";

/// The bytes with each of these secrets masked.
pub(super) fn redact<'a>(bytes: &'a [u8], secrets: &[impl AsRef<[u8]>]) -> Cow<'a, [u8]> {
    let mut redacted = Cow::Borrowed(bytes);
    let secrets = secrets.iter().map(AsRef::as_ref).filter(|secret| secret.len() >= SECRET_LEN_MIN);
    for secret in secrets {
        if memmem::find(&redacted, secret).is_some() || broken_off(&redacted, secret).is_some() {
            redacted = Cow::Owned(masked(&redacted, secret));
        }
    }
    redacted
}

/// What of these headers of the operator may be secret: a value, and what follows the scheme in one like
/// `Bearer abc`. Any header may hold a key, but for a few that say what they are for.
pub(super) fn secrets_of(headers: &HeaderMap) -> Vec<Box<[u8]>> {
    let harmless = [ACCEPT, CONTENT_TYPE, USER_AGENT];
    let values =
        headers.iter().filter(|(name, _)| !harmless.contains(name)).map(|(_, value)| value.as_bytes());
    let parts = values.map(|value| match memchr::memchr(b' ', value) {
        Some(space) => value.get(space + 1..).unwrap_or_default(),
        None => value,
    });
    parts.map(Into::into).collect()
}

fn masked(bytes: &[u8], secret: &[u8]) -> Vec<u8> {
    let mut masked = Vec::with_capacity(bytes.len());
    let mut rest = 0;
    for at in memmem::find_iter(bytes, secret) {
        masked.extend_from_slice(bytes.get(rest..at).unwrap_or_default());
        masked.extend_from_slice(MASK);
        rest = at + secret.len();
    }
    let rest = bytes.get(rest..).unwrap_or_default();
    let cut = broken_off(rest, secret);
    masked.extend_from_slice(rest.get(..cut.unwrap_or(rest.len())).unwrap_or_default());
    masked.extend_from_slice(if cut.is_some() { MASK } else { &[] });
    masked
}

/// Where the beginning of a secret stands that the bytes break off in: not all of an answer is kept.
fn broken_off(bytes: &[u8], secret: &[u8]) -> Option<usize> {
    let longest = bytes.len().min(secret.len().saturating_sub(1));
    let is_end = |len: &usize| secret.get(..*len).is_some_and(|beginning| bytes.ends_with(beginning));
    Some(bytes.len() - (SECRET_LEN_MIN..=longest).rev().find(is_end)?)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn secrets_are_masked_wherever_they_stand() {
        let secrets = ["hunter2", "abc", "k3y-k3y"];
        assert_eq!(&*redact(b"hunter2 and hunter2, k3y-k3y!", &secrets), b"**** and ****, ****!");
        assert_eq!(&*redact(b"k3y-k3y is cut: hunter", &secrets), b"**** is cut: ****");
        assert_eq!(&*redact(b"too little: hunt", &secrets), b"too little: hunt");
        assert!(matches!(redact(b"abc", &secrets), Cow::Borrowed(b"abc")), "too short to be told apart");
    }

    #[test]
    fn the_scheme_of_a_login_is_no_secret() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static("Bearer hunter2"));
        headers.insert("x-api-key", HeaderValue::from_static("k3y-k3y"));
        headers.insert("accept", HeaderValue::from_static("application/json"));
        let secrets = secrets_of(&headers);
        assert_eq!(
            &*redact(b"Bearer hunter2 k3y-k3y application/json", &secrets),
            b"Bearer **** **** application/json"
        );
    }
}
