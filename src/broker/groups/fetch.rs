//! Members read what their group could give to nobody when it came: one at a time, so that no number is in two
//! hands.
//!
//! Invariant: whoever finds somebody reading is woken when that has ended, or cannot go on.

use std::collections::HashSet;

use foldhash::fast::RandomState;

use super::{Group, Members};
use crate::broker::slot::Touched;
use crate::broker::{Slot, Subscription};
use crate::record::{Lsn, RecipientNo};
use crate::store::{Page, Stored};

/// What a member finds when it wants to read.
#[derive(Debug)]
pub enum Fetch {
    /// Nothing, or somebody else reads.
    Nothing,
    /// Nothing before this number is durable.
    WaitFor(Lsn),
    /// What the group is owed after a number, without what is in somebody's hand.
    Read {
        /// The group's number in the store.
        recipient: RecipientNo,
        /// The number.
        after: Lsn,
        /// What is in somebody's hand beyond it.
        in_hand: HashSet<Lsn, RandomState>,
    },
}

impl Group {
    /// Begins to read what nobody has in hand, for `slot`, oldest first. It ends with [`Group::end_fetch`], with
    /// the member, or when another one begins after [`Group::yield_fetch`]. When there is nothing to read the group
    /// is no longer behind, unless something is still on its way to the disk.
    pub fn begin_fetch(&self, slot: &Slot, durable: Lsn) -> Fetch {
        let Some(queue) = self.durable.get() else { return Fetch::Nothing };
        let mut members = self.members.lock();
        members.forget_settled(&queue.backlog, durable);
        if !members.behind || !members.has(slot) {
            return Fetch::Nothing;
        }
        if members.fetcher.is_some() && !members.fetcher_yields {
            if !members.turned_away.contains(&slot.id) {
                members.turned_away.push(slot.id);
            }
            return Fetch::Nothing;
        }
        let after = members.fetched_to;
        if queue.backlog.may_have(after, durable) {
            (members.fetcher, members.fetcher_yields) = (Some(slot.id), false);
            members.given_back = None;
            let in_hand = members.in_hand.keys().copied().filter(|lsn| *lsn > after).collect();
            return Fetch::Read { recipient: queue.recipient, after, in_hand };
        }
        if members.last_pushed > durable {
            return Fetch::WaitFor(members.last_pushed);
        }
        members.behind = false;
        // Another member may have read with a later watermark.
        members.floor = members.floor.max(durable);
        Fetch::Nothing
    }

    /// What was read goes into the hand of `slot`, with the subscription it has. `None` when it is a member no
    /// more, or another one reads instead: then it is for the others.
    pub fn end_fetch(&self, slot: &Slot, page: Page) -> Option<(Subscription, Vec<Stored>)> {
        let (mut members, mut touched) = (self.members.lock(), Touched::default());
        members.fetcher.take_if(|fetcher| *fetcher == slot.id)?;
        let subscription = members.list.iter().find(|member| member.slot.id == slot.id)?.subscription;
        // But for what was given back meanwhile: it was in somebody's hand when the reading began.
        let given_back = members.given_back.take().map_or(page.cursor, |lsn| Lsn(lsn.0 - 1));
        members.fetched_to = page.cursor.min(given_back);
        members.floor = members.floor.max(page.cursor);
        let mut taken = page.messages;
        taken.retain(|stored| !members.in_hand.contains_key(&stored.lsn));
        members.in_hand.extend(taken.iter().map(|stored| (stored.lsn, slot.id)));
        // The rest is for those who came while this one was reading.
        if !members.ring_turned_away(&mut touched) {
            members.ring_one(&mut touched);
        }
        drop(members);
        touched.ring();
        Some((subscription, taken))
    }

    /// A member that has begun to read cannot take anything for now: until it does, another one may read instead.
    pub fn yield_fetch(&self, slot: &Slot) {
        let (mut members, mut touched) = (self.members.lock(), Touched::default());
        if members.fetcher == Some(slot.id) && !members.fetcher_yields {
            members.fetcher_yields = true;
            members.ring_turned_away(&mut touched);
        }
        drop(members);
        touched.ring();
    }
}

impl Members {
    /// Wakes everyone who came to read while somebody else did. False when nobody has.
    fn ring_turned_away(&mut self, touched: &mut Touched) -> bool {
        let came = std::mem::take(&mut self.turned_away);
        let members = self.list.iter().filter(|member| came.contains(&member.slot.id));
        touched.links.extend(members.filter_map(|member| member.slot.link()));
        !came.is_empty()
    }
}
