//! What an operator asks when the disk fills: who it is kept for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Broker;
use crate::record::RecipientNo;
use crate::store::{Amount, Pin, PinKind};

/// Groups and routes that are listed at most.
const PINS_MAX: usize = 100;

/// What is stored, whoever it is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceUse {
    /// Messages that somebody is owed, each once.
    pub messages: Amount,
    /// Dead letters.
    pub dead_letters: Amount,
    /// Retained messages.
    pub retained: Amount,
    /// Shared groups and routes that are owed something, those first that pin the most bytes: routes, too, that
    /// are not configured any more.
    pub others: Vec<Pin>,
}

impl Broker {
    /// What is stored, but for what each session is owed. Blocks on the disk.
    pub fn space_use(&self) -> SpaceUse {
        let amount = |(count, bytes)| Amount { count, bytes };
        let retained = {
            let totals = self.retained_totals.lock();
            Amount { count: totals.messages, bytes: totals.bytes }
        };
        let mut others: Vec<_> = self.others().into_iter().filter(|(_, pin)| pin.owed.count > 0).collect();
        others.sort_by(|(_, a), (_, b)| b.owed.bytes.cmp(&a.owed.bytes).then_with(|| a.name.cmp(&b.name)));
        others.truncate(PINS_MAX);
        for (recipient, pin) in &mut others {
            let oldest = self.store.oldest(*recipient).ok().flatten();
            let published = oldest.and_then(|lsn| self.store.published_at(lsn).ok().flatten());
            pin.oldest_at = published.map(|at| at.0);
        }
        SpaceUse {
            messages: amount(self.store.messages()),
            dead_letters: amount(self.store.dead_letters()),
            retained,
            others: others.into_iter().map(|(_, pin)| pin).collect(),
        }
    }

    /// Groups and routes, and what they are owed.
    fn others(&self) -> BTreeMap<RecipientNo, Pin> {
        let mut names = BTreeMap::new();
        for group in &self.groups {
            if let Some(durable) = group.durable() {
                names.insert(durable.recipient, (PinKind::Group, group.name.to_string()));
            }
        }
        for (name, recipient) in self.known_routes() {
            names.insert(recipient, (PinKind::Route, name.into_string()));
        }
        let pin = |(recipient, (kind, name))| {
            let backlog = self.store.backlog(recipient);
            let owed = Amount { count: backlog.count(), bytes: backlog.bytes() };
            (recipient, Pin { kind, name, owed, oldest_at: None })
        };
        names.into_iter().map(pin).collect()
    }
}
