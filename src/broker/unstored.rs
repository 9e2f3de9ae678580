//! What the members of a shared group have in hand that is not on disk.
//!
//! A group whose members all end with their connections has no queue in the store. Its QoS 1 and 2 messages
//! are kept here from the moment a member gets them until it has acknowledged them, so that they can go to
//! another member when it leaves. They count against the common budget of memory.
//!
//! Invariant: a message is in here at most once, in the hands of one member.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::{Memory, MemoryShare};
use crate::record::{Lsn, Message, RecipientNo};
use crate::session::Claim;

/// Groups without a queue are numbered from here: the store would need ages to come as far.
const FIRST_OWNER: u64 = 1 << 63;

/// The messages of one group, by numbers of its own.
#[derive(Debug)]
pub(super) struct Unstored {
    owner: RecipientNo,
    last: Lsn,
    held: HashMap<Lsn, Held, RandomState>,
    bytes: usize,
    share: MemoryShare,
}

/// A message that a member has in hand.
#[derive(Debug)]
pub(super) struct Held {
    /// The slot of the member.
    holder: u64,
    pub(super) message: Message,
    /// Not sent before the watermark has reached this number.
    pub(super) not_before: Lsn,
}

/// Who stands in the claims of the group with this id.
pub(super) fn owner(group: u64) -> RecipientNo {
    RecipientNo(FIRST_OWNER | group)
}

/// Whether this stands in claims of messages that are not on disk.
pub(super) fn is_owner(owner: RecipientNo) -> bool {
    owner.0 >= FIRST_OWNER
}

impl Unstored {
    /// Nothing yet, for the group with this id.
    pub(super) fn new(group: u64, memory: &Arc<Memory>) -> Self {
        Self {
            owner: owner(group),
            last: Lsn::ZERO,
            held: HashMap::default(),
            bytes: 0,
            share: MemoryShare::of(memory),
        }
    }

    /// Who stands in the claims.
    pub(super) fn owner(&self) -> RecipientNo {
        self.owner
    }

    /// Keeps a message for the member that is about to get it. `None` when there is no memory for it.
    pub(super) fn hold(&mut self, holder: u64, message: &Message, not_before: Lsn) -> Option<Claim> {
        if !self.share.grow(self.bytes + message.size()) {
            return None;
        }
        self.bytes += message.size();
        self.last.0 += 1;
        self.held.insert(self.last, Held { holder, message: message.clone(), not_before });
        Some(Claim { lsn: self.last, owner: self.owner, entry: None })
    }

    /// A member has settled a message, or did not take it after all.
    pub(super) fn settle(&mut self, lsn: Lsn) {
        let Some(held) = self.held.remove(&lsn) else { return };
        self.bytes -= held.message.size();
        self.share.shrink(self.bytes);
        if self.held.is_empty() {
            // A group that rests gives back what a burst has taken.
            self.held = HashMap::default();
        }
    }

    /// Takes out what a member has left, in the order it came; what is in `begun` is nobody's any more.
    pub(super) fn take(&mut self, holder: u64, begun: &[Lsn]) -> Vec<Held> {
        let is_left = |(lsn, held): (&Lsn, &Held)| (held.holder == holder).then_some(*lsn);
        let mut numbers: Vec<_> = self.held.iter().filter_map(is_left).collect();
        numbers.sort_unstable();
        let mut taken: Vec<_> =
            numbers.iter().filter_map(|lsn| Some((*lsn, self.held.remove(lsn)?))).collect();
        self.bytes -= taken.iter().map(|(_, held)| held.message.size()).sum::<usize>();
        self.share.shrink(self.bytes);
        taken.retain(|(lsn, _)| !begun.contains(lsn));
        taken.into_iter().map(|(_, held)| held).collect()
    }

    /// Whether a member has something in hand.
    pub(super) fn has(&self, holder: u64) -> bool {
        self.held.values().any(|held| held.holder == holder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Qos;
    use crate::record::{MessageParts, UnixMillis};

    fn message(payload: &[u8]) -> Message {
        let parts = MessageParts {
            qos: Qos::AtLeastOnce,
            retain: false,
            published_at: UnixMillis(1),
            expires_at: UnixMillis::NEVER,
            topic: "t",
            properties: &[],
            payload,
            publisher: "p",
        };
        Message::new(&parts, &mut Vec::new())
    }

    #[test]
    fn what_is_left_comes_in_order_and_once_but_for_what_has_begun() {
        let mut unstored = Unstored::new(7, &Memory::new(1 << 20));
        let numbers: Vec<_> = [1, 2, 1, 1, 1]
            .into_iter()
            .zip(0_u8..)
            .map(|(holder, n)| unstored.hold(holder, &message(&[n]), Lsn::ZERO).unwrap().lsn)
            .collect();
        unstored.settle(numbers[2]);
        let left = unstored.take(1, &[numbers[3]]);
        let payloads: Vec<_> = left.iter().map(|held| held.message.payload()[0]).collect();
        assert_eq!(payloads, [0, 4]);
        assert!(unstored.take(1, &[]).is_empty() && !unstored.has(1) && unstored.has(2));
        unstored.settle(numbers[1]);
        assert_eq!(unstored.bytes, 0);
    }

    #[test]
    fn it_keeps_no_more_than_memory_allows_and_gives_it_back() {
        let memory = Memory::new(256 * 1024);
        let mut unstored = Unstored::new(7, &memory);
        let large = message(&[0; 100_000]);
        let held: Vec<_> = (0..9).map_while(|_| unstored.hold(1, &large, Lsn::ZERO)).collect();
        assert!((2..=3).contains(&held.len()), "{}", held.len());
        held.iter().for_each(|claim| unstored.settle(claim.lsn));
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn its_claims_are_told_from_those_of_the_store() {
        assert!(is_owner(owner(1)) && owner(1) != owner(2));
        assert!(!is_owner(RecipientNo(1)));
    }
}
