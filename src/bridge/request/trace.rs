//! W3C trace context: from the user properties `traceparent` and `tracestate` of a message to headers.
//!
//! The trace goes on, with a span of its own for each attempt. What is not a trace context by the rules is not
//! handed on: targets believe these headers.

use sha2::{Digest, Sha256};

use crate::codec::PublishProperties;

/// The name of the user property and of the header.
pub const TRACEPARENT: &str = "traceparent";
/// The name of the user property and of the header.
pub const TRACESTATE: &str = "tracestate";

const STATE_LEN_MAX: usize = 512;
const STATE_MEMBERS_MAX: usize = 32;

/// A trace that a publisher has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext<'a> {
    /// 32 hexadecimal digits.
    trace_id: &'a str,
    /// 16 hexadecimal digits.
    parent_id: &'a str,
    /// Two hexadecimal digits.
    flags: &'a str,
    /// What the systems on the way have to say, if it can be handed on.
    pub state: Option<&'a str>,
}

impl<'a> TraceContext<'a> {
    /// That of a message; `None` without one, or when it is not valid.
    pub fn of(properties: &PublishProperties<'a>) -> Option<Self> {
        let find = |wanted: &str| {
            let mut found = properties.user_properties().filter(|(name, _)| *name == wanted);
            // Which of two would it be?
            found.next().filter(|_| found.next().is_none()).map(|(_, value)| value)
        };
        let parent = find(TRACEPARENT)?;
        let state = find(TRACESTATE).filter(|state| is_state(state));
        Self::parse(parent, state)
    }

    /// The `traceparent` of what follows from this message. The same `seed` gives the same span: it names the
    /// message, whom it goes to, and the attempt.
    pub fn child(&self, seed: &str) -> String {
        let mut hash = Sha256::new();
        for part in [self.trace_id, self.parent_id, seed] {
            hash.update(part);
            hash.update([0]);
        }
        let hash = hash.finalize();
        let span = hash.iter().take(8).fold(0u64, |span, byte| span << 8 | u64::from(*byte)).max(1);
        format!("00-{}-{span:016x}-{}", self.trace_id, self.flags)
    }

    /// Version 00 has exactly these parts; a later one may have more behind them.
    fn parse(parent: &'a str, state: Option<&'a str>) -> Option<Self> {
        let mut parts = parent.splitn(5, '-');
        let (version, trace_id) = (parts.next()?, parts.next()?);
        let (parent_id, flags) = (parts.next()?, parts.next()?);
        let has_more = parts.next().is_some();
        let is_valid = is_hex(version, 2)
            && version != "ff"
            && (version != "00" || !has_more)
            && is_id(trace_id, 32)
            && is_id(parent_id, 16)
            && is_hex(flags, 2);
        is_valid.then_some(Self { trace_id, parent_id, flags, state })
    }
}

/// An id of nothing but zeros is none.
fn is_id(text: &str, len: usize) -> bool {
    is_hex(text, len) && text.bytes().any(|byte| byte != b'0')
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A list of `key=value`, in visible ASCII.
fn is_state(state: &str) -> bool {
    let is_member = |member: &str| match member.trim_matches([' ', '\t']).split_once('=') {
        Some((key, value)) => {
            let is_key =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte);
            !key.is_empty() && key.bytes().all(is_key) && !value.is_empty() && !value.contains('=')
        }
        None => member.trim_matches([' ', '\t']).is_empty(),
    };
    !state.is_empty()
        && state.len() <= STATE_LEN_MAX
        && state.bytes().all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte))
        && state.split(',').count() <= STATE_MEMBERS_MAX
        && state.split(',').all(is_member)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn properties(pairs: &[(&str, &str)]) -> Vec<u8> {
        let text = |text: &str| [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat();
        pairs.iter().flat_map(|(name, value)| [vec![0x26], text(name), text(value)].concat()).collect()
    }

    fn of(raw: &[u8]) -> Option<TraceContext<'_>> {
        TraceContext::of(&PublishProperties::from_forwarded(raw))
    }

    #[test]
    fn a_trace_goes_on_with_a_span_of_its_own() {
        let raw = properties(&[(TRACEPARENT, PARENT), (TRACESTATE, "a=1, b@c=2,")]);
        let context = of(&raw).unwrap();
        assert_eq!(context.state, Some("a=1, b@c=2,"));
        let child = context.child("m/r/1");
        assert!(
            child.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && child.ends_with("-01"),
            "{child}"
        );
        assert!(TraceContext::parse(&child, None).is_some());
        assert_eq!(child, context.child("m/r/1"));
        assert_ne!(child, context.child("m/r/2"));
        assert_ne!(child, PARENT);
    }

    #[test]
    fn what_is_no_trace_context_is_not_handed_on() {
        for parent in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0g",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\nx: y",
        ] {
            assert_eq!(of(&properties(&[(TRACEPARENT, parent), (TRACESTATE, "a=1")])), None, "{parent:?}");
        }
        assert_eq!(of(&properties(&[(TRACEPARENT, PARENT), (TRACEPARENT, PARENT)])), None, "which one?");
        assert_eq!(of(&properties(&[(TRACESTATE, "a=1")])), None);
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more";
        assert!(of(&properties(&[(TRACEPARENT, later)])).unwrap().child("x").starts_with("00-"));
        let long = format!("a={}", "x".repeat(511));
        for state in ["", "a", "a=", "=b", "A=1", "a=1\r\nx: y", "a=1\0", "a=ä", "a=b=c", &long] {
            let raw = properties(&[(TRACEPARENT, PARENT), (TRACESTATE, state)]);
            assert_eq!(of(&raw).unwrap().state, None, "{state:?}");
        }
    }
}
