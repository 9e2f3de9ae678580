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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Qos;
    use crate::record::{MessageParts, UnixMillis};

    const FREE: Option<Room> = Some(Room { in_hand: 0, window: 10, crowded: false });
    const WAITS: Option<Room> = Some(Room { in_hand: 10, window: 10, crowded: false });
    const CROWDED: Option<Room> = Some(Room { in_hand: 10, window: 10, crowded: true });
    const ALL: [ShareStrategy; 6] = [
        ShareStrategy::RoundRobin,
        ShareStrategy::Random,
        ShareStrategy::Sticky,
        ShareStrategy::HashClient,
        ShareStrategy::HashTopic,
        ShareStrategy::LeastInflight,
    ];

    fn message(topic: &str, publisher: &str) -> Message {
        let parts = MessageParts {
            qos: Qos::AtLeastOnce,
            retain: false,
            published_at: UnixMillis(1),
            expires_at: UnixMillis::NEVER,
            topic,
            properties: &[],
            payload: b"x",
            publisher,
        };
        Message::new(&parts, &mut Vec::new())
    }

    fn choose(turn: &mut Turn, message: &Message, rooms: &[Option<Room>]) -> Option<usize> {
        turn.choose(rooms.len(), message, |index| hash(&[index as u8]), |index| rooms[index])
    }

    #[test]
    fn whoever_can_take_it_is_found_and_nobody_else() {
        let message = message("t", "p");
        for strategy in ALL {
            let mut turn = Turn::new(strategy);
            assert_eq!(choose(&mut turn, &message, &[]), None, "{strategy:?}");
            assert_eq!(choose(&mut turn, &message, &[None, None, None]), None, "{strategy:?}");
            for able in (0..5).chain((0..5).rev()) {
                let mut rooms = [None; 5];
                rooms[able] = CROWDED;
                assert_eq!(choose(&mut turn, &message, &rooms), Some(able), "{strategy:?}");
            }
        }
    }

    #[test]
    fn who_can_send_at_once_comes_before_who_has_to_wait() {
        let message = message("t", "p");
        for strategy in [ShareStrategy::RoundRobin, ShareStrategy::Random, ShareStrategy::LeastInflight] {
            let mut turn = Turn::new(strategy);
            for _ in 0..20 {
                assert_eq!(choose(&mut turn, &message, &[WAITS, CROWDED, FREE]), Some(2), "{strategy:?}");
                assert_eq!(choose(&mut turn, &message, &[CROWDED, WAITS, None]), Some(1), "{strategy:?}");
            }
        }
    }

    #[test]
    fn where_all_wait_the_one_with_the_least_for_its_window_gets_it() {
        let waits = |in_hand, window| Some(Room { in_hand, window, crowded: false });
        let mut turn = Turn::new(ShareStrategy::RoundRobin);
        let rooms = [waits(20, 10), waits(120, 100), waits(5, 2)];
        assert_eq!(choose(&mut turn, &message("t", "p"), &rooms), Some(1));
    }

    #[test]
    fn round_robin_goes_on_when_somebody_leaves() {
        let mut turn = Turn::new(ShareStrategy::RoundRobin);
        let message = message("t", "p");
        let next = |turn: &mut Turn, len| choose(turn, &message, &vec![FREE; len]);
        assert_eq!([next(&mut turn, 3), next(&mut turn, 3)], [Some(0), Some(1)]);
        turn.removed(0);
        assert_eq!([next(&mut turn, 2), next(&mut turn, 2)], [Some(1), Some(0)]);
    }

    #[test]
    fn who_has_a_key_or_everything_keeps_it_while_its_outbox_takes_it() {
        for strategy in [ShareStrategy::Sticky, ShareStrategy::HashClient, ShareStrategy::HashTopic] {
            let mut turn = Turn::new(strategy);
            let message = message("t", "p");
            let owner = choose(&mut turn, &message, &[FREE; 4]).unwrap();
            let mut rooms = [FREE; 4];
            rooms[owner] = WAITS;
            assert_eq!(choose(&mut turn, &message, &rooms), Some(owner), "{strategy:?}");
            rooms[owner] = None;
            let other = choose(&mut turn, &message, &rooms).unwrap();
            assert_ne!(other, owner, "{strategy:?}");
            // A key goes back to whom it leads to; who is stuck to stays until it goes, too.
            let back = choose(&mut turn, &message, &[FREE; 4]).unwrap();
            assert_eq!(back, if strategy == ShareStrategy::Sticky { other } else { owner });
        }
    }

    #[test]
    fn keys_and_chance_reach_everyone() {
        for strategy in [ShareStrategy::Random, ShareStrategy::HashClient, ShareStrategy::HashTopic] {
            let mut turn = Turn::new(strategy);
            let mut counts = [0; 4];
            for n in 0..1000 {
                let message = message(&format!("t/{n}"), &format!("p{n}"));
                counts[choose(&mut turn, &message, &[FREE; 4]).unwrap()] += 1;
            }
            assert!(counts.iter().all(|count| (150..350).contains(count)), "{strategy:?}: {counts:?}");
        }
    }
}
