//! Bytes that somebody else chose, as text that is safe to print, log and store.
//!
//! [`Secrets`] takes out what must not be kept of them.
//!
//! Invariant: the result has no control character and no character that only changes how its
//! neighbours are shown, and it is never longer than asked for.

use std::borrow::Cow;
use std::fmt;

use http::HeaderMap;
use memchr::memmem;

/// The beginning of `bytes` as text of at most `max_len` bytes. What is not UTF-8 becomes U+FFFD; control
/// and formatting characters are escaped, so that no terminal or log acts on them.
pub fn excerpt(bytes: &[u8], max_len: usize) -> String {
    // No character becomes shorter than its bytes, so the rest could not fit anyway. One character that
    // this cuts in two is replaced by U+FFFD.
    let bytes = bytes.get(..max_len).unwrap_or(bytes);
    let mut text = String::with_capacity(bytes.len());
    for character in String::from_utf8_lossy(bytes).chars() {
        let len_before = text.len();
        if changes_its_surroundings(character) {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
        if text.len() > max_len {
            text.truncate(len_before);
            break;
        }
    }
    text
}

/// Control characters; line and paragraph separators; zero-width and bidirectional formatting, with
/// which a text can be made to look like another one.
fn changes_its_surroundings(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(character, '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// What must not be in an excerpt: credentials that a target may send back.
#[derive(Clone, Default)]
pub struct Secrets(Vec<Vec<u8>>);

/// Shorter ones are not looked for: they would stand in every other text.
const SECRET_LEN_MIN: usize = 6;
const REDACTED: &[u8] = b"[redacted]";

impl Secrets {
    /// The values of headers that are marked sensitive, each also without the scheme in front of it.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut secrets = Self::default();
        headers.values().filter(|value| value.is_sensitive()).for_each(|value| secrets.add(value.as_bytes()));
        secrets
    }

    /// One more: a password, a token, or a header with one in it.
    pub fn add(&mut self, secret: &[u8]) {
        let without_scheme = secret.iter().position(|byte| *byte == b' ').and_then(|at| secret.get(at + 1..));
        for text in [Some(secret), without_scheme].into_iter().flatten() {
            let text = text.trim_ascii();
            if text.len() >= SECRET_LEN_MIN && !self.0.iter().any(|known| known == text) {
                self.0.push(text.to_vec());
            }
        }
        // The longest first: the token alone would leave the scheme.
        self.0.sort_by_key(|text| std::cmp::Reverse(text.len()));
    }

    /// The bytes with each secret replaced, also one that they break off in.
    pub fn redact<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let mut redacted = Cow::Borrowed(bytes);
        for secret in &self.0 {
            if memmem::find(&redacted, secret).is_some() || broken_off(&redacted, secret).is_some() {
                redacted = Cow::Owned(without(&redacted, secret));
            }
        }
        redacted
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

fn without(bytes: &[u8], secret: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
    while let Some(at) = memmem::find(rest, secret) {
        let (before, from) = rest.split_at(at);
        out.extend_from_slice(before);
        out.extend_from_slice(REDACTED);
        rest = from.get(secret.len()..).unwrap_or_default();
    }
    let kept = broken_off(rest, secret);
    out.extend_from_slice(rest.get(..kept.unwrap_or(rest.len())).unwrap_or_default());
    out.extend_from_slice(if kept.is_some() { REDACTED } else { &[] });
    out
}

/// Where the beginning of a secret stands that the bytes end in.
fn broken_off(bytes: &[u8], secret: &[u8]) -> Option<usize> {
    let longest = bytes.len().min(secret.len().saturating_sub(1));
    let len = (SECRET_LEN_MIN..=longest)
        .rev()
        .find(|len| secret.get(..*len).is_some_and(|s| bytes.ends_with(s)))?;
    Some(bytes.len() - len)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_a_target_sends_back_of_our_credentials_is_not_kept() {
        let mut token = HeaderValue::from_static("Bearer abc-123-def");
        token.set_sensitive(true);
        let headers = HeaderMap::from_iter([
            (http::header::AUTHORIZATION, token),
            (http::header::ACCEPT, HeaderValue::from_static("text/plain")),
        ]);
        let mut secrets = Secrets::of(&headers);
        let redacted = |secrets: &Secrets, text: &str| {
            String::from_utf8(secrets.redact(text.as_bytes()).into_owned()).unwrap()
        };
        let echoed = "got Bearer abc-123-def (abc-123-def), text/plain";
        assert_eq!(redacted(&secrets, echoed), "got [redacted] ([redacted]), text/plain");
        assert_eq!(redacted(&secrets, "cut: abc-123-d"), "cut: [redacted]");
        assert_eq!(redacted(&secrets, "cut: Bearer abc-"), "cut: [redacted]");
        assert_eq!(redacted(&secrets, "nothing: abc-"), "nothing: abc-");
        secrets.add(b"short");
        secrets.add(b"hunter22");
        assert_eq!(redacted(&secrets, "short hunter22hunter22"), "short [redacted][redacted]");
        assert_eq!(format!("{secrets:?}"), "Secrets(3)");
    }

    #[test]
    fn what_acts_on_a_terminal_is_escaped() {
        assert_eq!(excerpt(b"a\r\nb\tc\0\x1b[31m", 100), "a\\r\\nb\\tc\\u{0}\\u{1b}[31m");
        assert_eq!(excerpt("\u{9b}2J \u{202e}txt".as_bytes(), 100), "\\u{9b}2J \\u{202e}txt");
    }

    #[test]
    fn other_text_is_kept() {
        assert_eq!(excerpt("Größe: 3 µm \\ \"ok\"".as_bytes(), 100), "Größe: 3 µm \\ \"ok\"");
        assert_eq!(excerpt(b"", 100), "");
        assert_eq!(excerpt(b"\xff\xfeab", 100), "\u{fffd}\u{fffd}ab");
    }

    #[test]
    fn the_result_is_never_longer_than_asked_for() {
        for input in [&[0u8; 50][..], &[0xff; 50], "ää".repeat(25).as_bytes(), b"plain text of some length"]
        {
            for max_len in 0..40 {
                let text = excerpt(input, max_len);
                assert!(text.len() <= max_len, "{} > {max_len}: {text}", text.len());
            }
        }
        assert_eq!(excerpt(b"\0\0", 10), "\\u{0}\\u{0}");
        assert_eq!(excerpt(b"\0\0", 9), "\\u{0}", "an escape is whole or not there");
    }
}
