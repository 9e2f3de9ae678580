//! Topic names, topic filters and share names as types; the index of subscriptions; the retained tree.
//!
//! A string of the wire or of the configuration becomes a type here once, and is never judged again.
//! This room knows nothing of sessions, rights or delivery, and it never touches a clock or a socket.
//! Hash seeds differ between processes, against crafted collisions, but no order that a caller can see
//! depends on them.
//!
//! Invariant: nothing here recurses over `/`, so a topic of 65 535 levels needs no stack.

mod entries;
mod error;
mod filter;
mod index;
mod name;
mod retained;
mod share;
mod symbols;
mod trie;

#[cfg(test)]
mod tests;

pub use error::TopicError;
pub use filter::TopicFilter;
pub use index::{Stamp, SubscriptionIndex};
pub use name::TopicName;
pub use retained::RetainedTree;
pub use share::{ShareName, SubscriptionFilter};

/// The longest topic name or filter: the length of an MQTT string has two bytes [MQTT-4.7.3-3].
pub const TOPIC_BYTES_MAX: usize = 65_535;
