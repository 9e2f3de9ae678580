//! What a message is known by to its target: the same at every attempt, over restarts and replays.
//!
//! Invariant: an id is ASCII without white space, control characters and full stops: it ends no header, and
//! cannot run into the time that is signed behind it.

use std::fmt::Write;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::Item;
use crate::codec::PublishProperties;
use crate::config::IdSource;
use crate::record::Lsn;

/// A colon in a client id must not be taken for the one behind it.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');
/// Longer ids are hashed: a target may not take any header.
const ID_LEN_MAX: usize = 200;
/// Bytes of a hash that stand in an id.
const HASH_LEN: usize = 16;

/// The key that a target can tell repeats by: unique over all stores and all their messages.
pub fn idempotency_key(store_id: u64, number: Lsn) -> String {
    format!("{store_id:016x}-{}", number.0)
}

/// The id of a message. `None` for a QoS 0 message whose publisher gave it none: it is tried once.
pub(super) fn message_id(source: &IdSource, item: &Item<'_>) -> Option<String> {
    let own = match source {
        IdSource::Broker => None,
        IdSource::UserProperty(name) => publishers_id(name, item),
    };
    let delivery = &item.delivery;
    own.or_else(|| delivery.number.map(|number| idempotency_key(delivery.store_id, number)))
}

/// The id of a message that is given away once, and needs one all the same.
pub(super) fn once() -> String {
    format!("once-{:032x}", rand::random::<u128>())
}

/// The id of several messages together: of the same ones in the same order, and of no others.
pub(super) fn batch_id<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    let mut hash = Sha256::new();
    for id in ids {
        hash.update(id);
        // No id has it.
        hash.update([0]);
    }
    format!("batch-{}", hex(&hash.finalize()))
}

/// What the publisher says, with its client id: two publishers may say the same.
fn publishers_id(name: &str, item: &Item<'_>) -> Option<String> {
    let properties = PublishProperties::from_forwarded(item.message.properties());
    let (_, value) =
        properties.user_properties().find(|(known, value)| *known == name && !value.is_empty())?;
    let client_id = item.message.publisher();
    let id = format!("{}:{}", utf8_percent_encode(client_id, ENCODED), utf8_percent_encode(value, ENCODED));
    if id.len() <= ID_LEN_MAX {
        return Some(id);
    }
    Some(format!("sha256-{}", hex(&Sha256::digest(&id))))
}

/// The beginning of a hash: of 128 bits no two are the same by chance.
fn hex(hash: &[u8]) -> String {
    hash.iter().take(HASH_LEN).fold(String::with_capacity(2 * HASH_LEN), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
