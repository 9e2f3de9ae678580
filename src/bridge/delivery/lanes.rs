//! Lanes: messages that must not overtake each other, in their order. Only the first of a lane may be sent.
//!
//! A lane exists for as long as a message of it is in the window.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasher;

use foldhash::fast::{FixedState, RandomState};

use crate::codec::PublishProperties;
use crate::config::Order;
use crate::record::{Lsn, Message};

/// Which lane a message is in. Two keys with the same hash share a lane, which costs time and no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lane(u64);

impl Lane {
    /// The lane of a message under this order; `None` when it may overtake any other.
    pub(super) fn of(message: &Message, order: &Order) -> Option<Self> {
        let topic = || Self::named(message.topic_bytes());
        Some(match order {
            Order::None => return None,
            Order::All => Self(0),
            Order::Topic => topic(),
            Order::Client => Self::named(message.publisher().as_bytes()),
            Order::UserProperty(name) => {
                let properties = PublishProperties::from_forwarded(message.properties());
                let value = properties.user_properties().find(|(known, _)| *known == name.as_str());
                value.map_or_else(topic, |(_, value)| Self::named(value.as_bytes()))
            }
            Order::Json(pointer) => {
                let payload: Option<serde_json::Value> = serde_json::from_slice(message.payload()).ok();
                let value = payload.as_ref().and_then(|payload| payload.pointer(pointer));
                value.map_or_else(topic, |value| Self::named(value.to_string().as_bytes()))
            }
        })
    }

    fn named(key: &[u8]) -> Self {
        Self(FixedState::default().hash_one(key))
    }
}

/// The lanes of a window.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    queues: HashMap<Lane, VecDeque<Lsn>, RandomState>,
}

impl Lanes {
    /// Puts a message at the end of its lane.
    pub(super) fn enter(&mut self, lane: Option<Lane>, lsn: Lsn) {
        if let Some(lane) = lane {
            self.queues.entry(lane).or_default().push_back(lsn);
        }
    }

    /// Whether nothing is ahead of a message.
    pub(super) fn is_first(&self, lane: Option<Lane>, lsn: Lsn) -> bool {
        self.queue(lane).is_none_or(|queue| queue.front() == Some(&lsn))
    }

    /// Whether something is behind a message.
    pub(super) fn has_behind(&self, lane: Option<Lane>, lsn: Lsn) -> bool {
        self.queue(lane).is_some_and(|queue| queue.back() != Some(&lsn))
    }

    /// The messages behind this one, from the next one on.
    pub(super) fn behind(&self, lane: Option<Lane>, lsn: Lsn) -> impl Iterator<Item = Lsn> {
        let queue = self.queue(lane);
        let at = queue.and_then(|queue| queue.binary_search(&lsn).ok());
        queue.into_iter().zip(at).flat_map(|(queue, at)| queue.range(at + 1..)).copied()
    }

    /// Takes a message out. Gives the one that is first from now on, if that was this one.
    pub(super) fn leave(&mut self, lane: Option<Lane>, lsn: Lsn) -> Option<Lsn> {
        let lane = lane?;
        let queue = self.queues.get_mut(&lane)?;
        let at = queue.binary_search(&lsn).ok()?;
        queue.remove(at);
        let first = queue.front().copied();
        if first.is_none() {
            self.queues.remove(&lane);
        }
        first.filter(|_| at == 0)
    }

    fn queue(&self, lane: Option<Lane>) -> Option<&VecDeque<Lsn>> {
        self.queues.get(&lane?)
    }
}
