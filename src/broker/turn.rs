//! Which member of a shared group gets the next message.
//!
//! Looking at a member locks its slot. So each strategy names a favourite by itself, and only when that one
//! cannot take the message are the others looked at, all of them once.
//!
//! Invariant: a member that cannot take the message is never chosen, and one that can is always found.

use std::hash::BuildHasher as _;

use foldhash::quality::FixedState;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::config::ShareStrategy;
use crate::record::Message;

/// What a member could take now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// Messages that it has not acknowledged, or was not even sent.
    pub(super) in_hand: usize,
    /// How many it may have unacknowledged; more would wait in its outbox.
    pub(super) window: usize,
    /// Its outbox is more than half full.
    pub(super) crowded: bool,
}

/// Whose turn it is.
#[derive(Debug)]
pub(super) struct Turn {
    strategy: ShareStrategy,
    /// The place that the turn has come to.
    at: usize,
    random: SmallRng,
}

/// How well a member suits; the least is the best. First those that can send at once, then those where the
/// message waits, then those whose outbox fills; among these the one that has the least for its size.
type Rank = (u8, u64);

impl Turn {
    pub(super) fn new(strategy: ShareStrategy) -> Self {
        Self { strategy, at: 0, random: SmallRng::seed_from_u64(rand::random()) }
    }

    /// Chooses one of `len` members. `hash_of` gives the hash of a member's client id, `room_of` what it could
    /// take, which is nothing for a member that is not there.
    pub(super) fn choose(
        &mut self,
        len: usize,
        message: &Message,
        hash_of: impl Fn(usize) -> u64,
        room_of: impl Fn(usize) -> Option<Room>,
    ) -> Option<usize> {
        let key = match self.strategy {
            ShareStrategy::Random => self.random.random(),
            ShareStrategy::HashClient => hash(message.publisher().as_bytes()),
            ShareStrategy::HashTopic => hash(message.topic_bytes()),
            ShareStrategy::RoundRobin | ShareStrategy::Sticky | ShareStrategy::LeastInflight => 0,
        };
        // The member with the highest score has the key: when one comes or goes, only its own keys move.
        let score = |index| FixedState::with_seed(key).hash_one(hash_of(index));
        let favourite = match self.strategy {
            ShareStrategy::RoundRobin | ShareStrategy::Sticky => self.at.checked_rem(len),
            ShareStrategy::Random => (len > 0).then(|| self.random.random_range(0..len)),
            ShareStrategy::HashClient | ShareStrategy::HashTopic => {
                (0..len).max_by_key(|index| score(*index))
            }
            ShareStrategy::LeastInflight => None,
        };
        let is_open = |index: &usize| room_of(*index).is_some_and(|room| self.class(&room) == 0);
        let chosen = favourite.filter(is_open).or_else(|| {
            let rank = |index| Some((self.rank(index, len, &score, &room_of(index)?), index));
            (0..len).filter_map(rank).min().map(|(_, index)| index)
        })?;
        self.at = if self.strategy == ShareStrategy::Sticky { chosen } else { chosen + 1 };
        Some(chosen)
    }

    /// The place of a member that left is taken by those behind it.
    pub(super) fn removed(&mut self, index: usize) {
        if index < self.at {
            self.at -= 1;
        }
    }

    fn rank(&self, index: usize, len: usize, score: &impl Fn(usize) -> u64, room: &Room) -> Rank {
        let class = self.class(room);
        if class > 0 {
            return (class, room.in_hand as u64 * 1024 / room.window.max(1) as u64);
        }
        let distance = ((index + len - self.at % len) % len) as u64;
        let rank = match self.strategy {
            ShareStrategy::RoundRobin | ShareStrategy::Sticky => distance,
            ShareStrategy::Random | ShareStrategy::HashClient | ShareStrategy::HashTopic => !score(index),
            ShareStrategy::LeastInflight => (room.in_hand as u64) << 32 | distance,
        };
        (class, rank)
    }

    /// Who has a key, or everything, keeps it as long as its outbox takes it: what came before is there, too.
    fn class(&self, room: &Room) -> u8 {
        let keeps = matches!(
            self.strategy,
            ShareStrategy::Sticky | ShareStrategy::HashClient | ShareStrategy::HashTopic
        );
        match room {
            _ if keeps => 0,
            Room { crowded: true, .. } => 2,
            Room { in_hand, window, .. } => u8::from(in_hand >= window),
        }
    }
}

/// The hash of a client id or a key: the same after a restart, so that whoever comes back has its keys again.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    FixedState::default().hash_one(bytes)
}
