//! The properties that a message is forwarded with, made anew from those it came with.

use super::properties::{PropertyId, Value, entries};
use super::{EncodeError, write};

/// What is to be different about the properties of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertyChanges {
    /// The Content Type; `None` leaves it as it is.
    pub content_type: Option<String>,
    /// User properties, each in place of all of its name.
    pub set: Vec<(String, String)>,
    /// Names of user properties that go.
    pub remove: Vec<String>,
}

impl PropertyChanges {
    /// Whether nothing is to be different.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The properties in wire form, made from `wire`: those that stay, in their order, then the new ones.
    ///
    /// # Errors
    /// When a text is longer than 65,535 bytes.
    pub fn apply(&self, wire: &[u8]) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::with_capacity(wire.len());
        let mut rest = wire;
        for entry in entries(wire) {
            let (bytes, behind) = rest.split_at_checked(entry.wire_len).unwrap_or((rest, &[]));
            rest = behind;
            let goes = match (entry.id, entry.value()) {
                (PropertyId::ContentType, _) => self.content_type.is_some(),
                (_, Ok(Value::Pair(name, _))) => self.replaces(name),
                _ => false,
            };
            if !goes {
                out.extend_from_slice(bytes);
            }
        }
        write::property_text(&mut out, PropertyId::ContentType, self.content_type.as_deref())?;
        for (name, value) in &self.set {
            out.push(PropertyId::UserProperty as u8);
            write::text(&mut out, name)?;
            write::text(&mut out, value)?;
        }
        Ok(out)
    }

    fn replaces(&self, name: &str) -> bool {
        self.remove.iter().any(|removed| removed == name) || self.set.iter().any(|(set, _)| set == name)
    }
}

/// Whether bytes are properties that a message can be forwarded with: whole, each of them allowed there, and each
/// value right.
pub fn are_forwarded(wire: &[u8]) -> bool {
    let mut len = 0;
    for entry in entries(wire) {
        if !entry.id.is_forwarded() || !entry.id.is_of_publish() || entry.value().is_err() {
            return false;
        }
        len += entry.wire_len;
    }
    len == wire.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Content type "x", correlation data, user properties k=1 twice and l=2.
    const WIRE: &[u8] = b"\x03\0\x01x\x09\0\x01\xff\x26\0\x01k\0\x011\x26\0\x01k\0\x011\x26\0\x01l\0\x012";

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.into(), value.into())
    }

    #[test]
    fn what_is_not_named_stays_as_it_came() {
        assert_eq!(PropertyChanges::default().apply(WIRE).unwrap(), WIRE);
        let all = PropertyChanges {
            content_type: Some("y".into()),
            set: vec![pair("k", "3"), pair("m", "")],
            remove: vec!["l".into(), "none".into()],
        };
        let expected = b"\x09\0\x01\xff\x03\0\x01y\x26\0\x01k\0\x013\x26\0\x01m\0\0";
        assert_eq!(all.apply(WIRE).unwrap(), expected);
        assert!(are_forwarded(expected));
    }

    #[test]
    fn a_text_that_no_packet_holds_is_refused() {
        let changes = PropertyChanges { set: vec![pair("k", &"x".repeat(65_536))], ..Default::default() };
        assert!(changes.apply(WIRE).is_err());
    }

    #[test]
    fn only_what_may_be_forwarded_is() {
        assert!(are_forwarded(b"") && are_forwarded(WIRE));
        for bad in [&WIRE[..5], b"\x03\0\x01", b"\x23\0\x01", b"\x02\0\0\0\x01", b"\x21\0\x01", b"\x7f"] {
            assert!(!are_forwarded(bad), "{bad:?}");
        }
    }
}
