//! What a store holds, told a second time and as simply as it can be said.

use std::collections::{BTreeMap, BTreeSet};

use redb::{ReadableDatabase as _, ReadableTable as _};

use super::*;
use crate::codec::{PacketId, RetainHandling, SubscribeOptions};
use crate::record::{
    Exchange, ExchangeState, InboundExchange, SavedTries, SessionDelta, SubscriptionRow, WillRecord,
};
use crate::store::{rows, tables};

/// What one recipient is and is owed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Party {
    /// `None` for groups and routes.
    session: Option<SessionRow>,
    /// The name of a group or a route.
    name: Option<String>,
    subscriptions: BTreeMap<String, SubscriptionRow>,
    owed: BTreeMap<u64, (Leg, Message)>,
    tries: BTreeMap<u64, SavedTries>,
    inbound: BTreeSet<u16>,
    exchanges: BTreeMap<u16, Exchange>,
    next_packet_id: u16,
    doubtful_before: Lsn,
}

/// Everything a store holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    parties: BTreeMap<u64, Party>,
    retained: BTreeMap<String, Message>,
    letters: BTreeMap<u64, Vec<u8>>,
}

impl Model {
    pub(super) fn apply(&mut self, lsn: Lsn, record: &Record) {
        if let Some(publication) = &record.publication {
            self.publish(lsn, publication);
        }
        record.changes.iter().for_each(|change| self.change(lsn, change));
        let letters = record.changes.iter().rev().filter_map(|change| match change {
            Change::DeadLetter(letter) => Some(letter.to_vec()),
            _ => None,
        });
        // The last one has the number of the record.
        self.letters.extend(letters.enumerate().map(|(at, letter)| (lsn.0 - at as u64, letter)));
    }

    /// A leg was completed before the writer came to it.
    pub(super) fn strike(&mut self, recipient: RecipientNo, lsn: Lsn) {
        self.settle(recipient, &[lsn]);
    }

    fn publish(&mut self, lsn: Lsn, publication: &Publication) {
        let message = &publication.message;
        for leg in &publication.legs {
            if let Some(party) = self.parties.get_mut(&leg.recipient.0) {
                party.owed.insert(lsn.0, (leg.clone(), message.clone()));
            }
        }
        if let Some(InboundExchange { recipient, epoch, packet_id }) = publication.inbound
            && let Some(party) = self.speaker(recipient, epoch)
        {
            party.inbound.insert(packet_id.get());
        }
        match (publication.retain, message.payload().is_empty()) {
            (false, _) => {}
            (true, true) => drop(self.retained.remove(message.topic())),
            (true, false) => drop(self.retained.insert(message.topic().into(), message.clone())),
        }
    }

    fn change(&mut self, lsn: Lsn, change: &Change) {
        match change {
            Change::SessionOpened(opened) => {
                let party = self.parties.entry(opened.recipient.0).or_default();
                party.session = Some(SessionRow { opened: (**opened).clone(), closed_at: None, torn: false });
            }
            Change::SessionClosed { recipient, epoch, at, expiry, keep_will, torn } => {
                if let Some(party) = self.speaker(*recipient, *epoch)
                    && let Some(row) = &mut party.session
                {
                    if *torn {
                        party.doubtful_before = lsn;
                    }
                    row.closed_at = Some(*at);
                    row.torn = *torn;
                    row.opened.expiry = *expiry;
                    row.opened.will = row.opened.will.take().filter(|_| *keep_will);
                }
            }
            Change::Discarded(number) => drop(self.parties.remove(&number.0)),
            Change::Subscribed(number, row) => {
                if let Some(party) = self.parties.get_mut(&number.0) {
                    party.subscriptions.insert(row.filter.to_string(), (**row).clone());
                }
            }
            Change::Unsubscribed(number, filter) => {
                if let Some(party) = self.parties.get_mut(&number.0) {
                    party.subscriptions.remove(&**filter);
                }
            }
            Change::Progress(delta) => self.progress(delta),
            Change::Settled(number, numbers) => self.settle(*number, numbers),
            Change::WillRemoved(number, epoch) => {
                let row = self.speaker(*number, *epoch).and_then(|party| party.session.as_mut());
                row.into_iter().for_each(|row| row.opened.will = None);
            }
            Change::RetainedRemoved(topic) => drop(self.retained.remove(&**topic)),
            // Comes with a retained message, which the random records here do not do.
            Change::RetainedBy(..)
            | Change::TimePassed(_)
            | Change::TargetPaused(..)
            | Change::TargetResumed(_) => {}
            Change::GroupOpened(number, name) | Change::RouteOpened(number, name) => {
                self.parties.entry(number.0).or_default().name = Some(name.to_string());
            }
            Change::DeadLetter(_) => {}
            Change::Tried(number, tries) => {
                if let Some(party) = self.parties.get_mut(&number.0) {
                    let owed = tries.iter().filter(|(lsn, _)| party.owed.contains_key(&lsn.0));
                    party.tries.extend(owed.map(|(lsn, tries)| (lsn.0, *tries)));
                }
            }
            Change::DeadLettersDiscarded(numbers) => {
                numbers.iter().for_each(|number| drop(self.letters.remove(&number.0)));
            }
        }
    }

    fn progress(&mut self, delta: &SessionDelta) {
        if self.speaker(delta.recipient, delta.epoch).is_none() {
            return;
        }
        self.settle(delta.recipient, &delta.settled);
        delta.settled_shared.iter().for_each(|(group, lsn)| self.settle(*group, &[*lsn]));
        let Some(party) = self.parties.get_mut(&delta.recipient.0) else { return };
        party.exchanges.extend(delta.exchanges.iter().map(|exchange| (exchange.packet_id.get(), *exchange)));
        party.exchanges.retain(|id, _| delta.ended.iter().all(|ended| ended.get() != *id));
        party.inbound.retain(|id| delta.released.iter().all(|released| released.get() != *id));
        if delta.next_packet_id > 0 {
            party.next_packet_id = delta.next_packet_id;
        }
    }

    fn settle(&mut self, number: RecipientNo, numbers: &[Lsn]) {
        if let Some(party) = self.parties.get_mut(&number.0) {
            for lsn in numbers {
                party.owed.remove(&lsn.0);
                party.tries.remove(&lsn.0);
            }
        }
    }

    fn speaker(&mut self, number: RecipientNo, epoch: Epoch) -> Option<&mut Party> {
        let party = self.parties.get_mut(&number.0)?;
        let current = party.session.as_ref().map_or(Epoch(0), |row| row.opened.epoch);
        (current == epoch).then_some(party)
    }

    /// The numbers of the messages somebody is owed.
    pub(super) fn owed(&self) -> BTreeSet<u64> {
        self.parties.values().flat_map(|party| party.owed.keys().copied()).collect()
    }

    /// A record for everyone that settles everything that is owed.
    pub(super) fn settle_all(&self) -> Record {
        let all = |party: &Party| party.owed.keys().map(|lsn| Lsn(*lsn)).collect::<Vec<_>>();
        let settled = |(number, party): (&u64, &Party)| Change::Settled(RecipientNo(*number), all(party));
        Record::of(self.parties.iter().map(settled).collect::<Vec<_>>())
    }
}

/// What a store holds; and that its counts, and its rows of messages, agree with it.
pub(super) fn held_by(store: &Store) -> Model {
    let txn = store.database.begin_read().unwrap();
    let mut model = Model::default();
    for row in txn.open_table(tables::SESSIONS).unwrap().iter().unwrap() {
        let (number, row) = row.unwrap();
        let row = rows::session(RecipientNo(number.value()), row.value()).unwrap();
        model.parties.insert(number.value(), Party { session: Some(row), ..Party::default() });
    }
    for table in [tables::GROUPS, tables::ROUTES] {
        for row in txn.open_table(table).unwrap().iter().unwrap() {
            let (name, number) = row.unwrap();
            let party = Party { name: Some(name.value().into()), ..Party::default() };
            assert!(model.parties.insert(number.value(), party).is_none(), "a number for two");
        }
    }
    for row in txn.open_table(tables::SUBSCRIPTIONS).unwrap().iter().unwrap() {
        let (key, row) = row.unwrap();
        let (number, filter) = key.value();
        let party = model.parties.get_mut(&number).expect("a subscription of nobody");
        party.subscriptions.insert(filter.into(), rows::subscription(filter, row.value()).unwrap());
    }
    for row in txn.open_table(tables::RETAINED).unwrap().iter().unwrap() {
        let (topic, row) = row.unwrap();
        model.retained.insert(topic.value().into(), rows::message(row.value(), drop).unwrap().message);
    }
    for letter in store.read_dead_letters(Lsn::ZERO, usize::MAX).unwrap() {
        model.letters.insert(letter.id.0, letter.bytes);
    }
    let letters = (model.letters.len() as u64, model.letters.values().map(|bytes| bytes.len() as u64).sum());
    assert_eq!(store.dead_letters(), letters);
    for (number, party) in &mut model.parties {
        read_party(store, RecipientNo(*number), party);
    }
    assert_eq!(message_rows(store), model.owed().into_iter().collect::<Vec<_>>());
    model
}

fn read_party(store: &Store, number: RecipientNo, party: &mut Party) {
    let stored = stored_for(store, number);
    let backlog = store.backlog(number);
    assert_eq!(backlog.count(), stored.len() as u64);
    assert_eq!(backlog.bytes() == 0, stored.is_empty(), "{} bytes", backlog.bytes());
    assert_eq!(store.oldest(number).unwrap(), stored.first().map(|stored| stored.lsn));
    party.owed.extend(stored.into_iter().map(|stored| (stored.lsn.0, (stored.leg, stored.message))));
    party.tries.extend(store.tries(number).unwrap().into_iter().map(|(lsn, tries)| (lsn.0, tries)));
    let progress = store.progress(number).unwrap();
    let below_ranges = |lsn: &&u64| progress.settled.keys().any(|first| *lsn < first);
    let open_below_ranges = party.owed.keys().filter(below_ranges);
    assert!(progress.settled.len() <= open_below_ranges.count(), "{progress:?}");
    party.inbound = progress.inbound;
    party.exchanges = progress.exchanges;
    party.next_packet_id = progress.next_packet_id;
    party.doubtful_before = progress.doubtful_before;
}

/// That what a start tells the broker is what the store holds.
pub(super) fn assert_recovered(recovered: &Recovered, model: &Model) {
    let mut told: BTreeMap<_, _> = recovered
        .sessions
        .iter()
        .map(|(row, subscriptions)| {
            let subscriptions = subscriptions.iter().map(|row| (row.filter.to_string(), row.clone()));
            (row.opened.recipient.0, (Some(row.clone()), None, subscriptions.collect::<BTreeMap<_, _>>()))
        })
        .collect();
    for (name, number) in recovered.groups.iter().chain(&recovered.routes) {
        told.insert(number.0, (None, Some(name.to_string()), BTreeMap::new()));
    }
    let held = model.parties.iter().map(|(number, party)| {
        (*number, (party.session.clone(), party.name.clone(), party.subscriptions.clone()))
    });
    assert_eq!(told, held.collect());
    let retained = recovered.retained.iter().map(|(message, _)| (message.topic().into(), message.clone()));
    assert_eq!(retained.collect::<BTreeMap<_, _>>(), model.retained);
    assert_eq!(recovered.messages, model.owed().len() as u64);
}

/// A record that a broker might submit, or that comes too late, twice or from somebody without a say.
pub(super) fn random_record(dice: &mut Dice, model: &Model, store: &Store) -> Record {
    let mut record = Record::default();
    if dice.one_in(2) {
        record.publication = Some(random_publication(dice, model));
    }
    if record.publication.is_none() || dice.one_in(4) {
        for _ in 0..=dice.roll(2) {
            record.changes.push(random_change(dice, model, store));
        }
    }
    // A number that was discarded is never opened again.
    let mut discarded = Vec::new();
    record.changes.retain(|change| match change {
        Change::Discarded(number) => {
            discarded.push(*number);
            true
        }
        Change::SessionOpened(opened) => !discarded.contains(&opened.recipient),
        _ => true,
    });
    record
}

fn random_publication(dice: &mut Dice, model: &Model) -> Publication {
    let size = if dice.one_in(10) { 9_000 } else { dice.roll(300) };
    let payload: Vec<_> = (0..size).map(|_| dice.roll(256) as u8).collect();
    let retain = dice.one_in(5);
    let payload = if retain && dice.one_in(3) { &[] } else { payload.as_slice() };
    let mut legs = SmallVec::<[Leg; 1]>::new();
    for _ in 0..dice.roll(5) {
        let recipient = anybody(dice, model);
        if legs.iter().all(|leg| leg.recipient != recipient) {
            let subscription_ids = (0..dice.roll(3)).map(|_| 1 + dice.roll(1 << 28) as u32).collect();
            let qos = if dice.one_in(2) { Qos::AtLeastOnce } else { Qos::ExactlyOnce };
            legs.push(Leg { recipient, qos, retain: dice.one_in(2), subscription_ids });
        }
    }
    let inbound = dice.one_in(4).then(|| {
        let recipient = anybody(dice, model);
        InboundExchange { recipient, epoch: epoch_of(dice, model, recipient), packet_id: packet_id(dice) }
    });
    let message = message(["a", "a/b", "ö"][dice.roll(3)], payload);
    Publication { message, legs, inbound, retain, origin: None }
}

fn random_change(dice: &mut Dice, model: &Model, store: &Store) -> Change {
    let number = anybody(dice, model);
    let at = UnixMillis(dice.roll(1 << 40) as u64);
    match dice.roll(26) {
        0..=1 if model.parties.len() < 9 => random_opening(dice, store.new_recipient().0, Epoch(1)),
        0..=1 => Change::Discarded(number),
        2 => match model.parties.get(&number.0).and_then(|party| party.session.as_ref()) {
            Some(row) => random_opening(dice, number, Epoch(row.opened.epoch.0 + 1)),
            None => Change::Discarded(number),
        },
        3..=4 => Change::SessionClosed {
            recipient: number,
            epoch: epoch_of(dice, model, number),
            at,
            expiry: dice.roll(1 << 32) as u32,
            keep_will: dice.one_in(2),
            torn: dice.one_in(2),
        },
        5..=6 if is_session(model, number) => {
            let options = SubscribeOptions {
                qos: Qos::ExactlyOnce,
                no_local: dice.one_in(2),
                retain_as_published: dice.one_in(2),
                retain_handling: RetainHandling::SendIfNew,
            };
            let id = dice.one_in(2).then_some(1 + dice.roll(1 << 28) as u32);
            Change::Subscribed(number, Box::new(SubscriptionRow { filter: filter(dice), options, id }))
        }
        5..=7 => Change::Unsubscribed(number, filter(dice)),
        8..=14 => Change::Progress(Box::new(random_delta(dice, model, number))),
        15..=18 => Change::Settled(number, some_owed(dice, model, number)),
        19 => Change::WillRemoved(number, epoch_of(dice, model, number)),
        20 => Change::RetainedRemoved(["a", "a/b", "ö"][dice.roll(3)].into()),
        21 => match (model.parties.len() < 9, dice.one_in(2)) {
            (false, _) => Change::WillRemoved(number, epoch_of(dice, model, number)),
            (true, group) => {
                let (number, _) = store.new_recipient();
                let name = format!("name-{}", number.0).into();
                if group { Change::GroupOpened(number, name) } else { Change::RouteOpened(number, name) }
            }
        },
        22 => Change::DeadLetter((0..dice.roll(200)).map(|n| n as u8).collect::<Vec<_>>().into()),
        23..=24 => Change::Tried(number, some_tries(dice, model, number)),
        _ => {
            let letters: Vec<_> = model.letters.keys().map(|lsn| Lsn(*lsn)).collect();
            let letters = letters.into_iter().filter(|_| dice.one_in(2));
            Change::DeadLettersDiscarded(letters.chain([Lsn(3)]).collect())
        }
    }
}

fn random_opening(dice: &mut Dice, number: RecipientNo, epoch: Epoch) -> Change {
    let Change::SessionOpened(mut session) = opened(number, epoch.0) else { unreachable!() };
    session.user_name = dice.one_in(2).then(|| "usér".into());
    session.will = dice.one_in(2).then(|| WillRecord {
        message: message("will", b"gone"),
        delay: dice.roll(100) as u32,
        message_expiry: dice.one_in(2).then_some(u32::MAX),
    });
    Change::SessionOpened(session)
}

fn random_delta(dice: &mut Dice, model: &Model, number: RecipientNo) -> SessionDelta {
    let mut delta = SessionDelta {
        recipient: number,
        epoch: epoch_of(dice, model, number),
        settled: some_owed(dice, model, number),
        ..SessionDelta::default()
    };
    if dice.one_in(3) {
        let group = anybody(dice, model);
        delta.settled_shared = some_owed(dice, model, group).into_iter().map(|lsn| (group, lsn)).collect();
    }
    for _ in 0..dice.roll(3) {
        let states =
            [ExchangeState::AwaitingPuback, ExchangeState::AwaitingPubrec, ExchangeState::AwaitingPubcomp];
        let state = states[dice.roll(3)];
        let lsn = Lsn(dice.roll(1 << 40) as u64);
        delta.exchanges.push(Exchange { packet_id: packet_id(dice), lsn, owner: number, state });
    }
    delta.ended = (0..dice.roll(3)).map(|_| packet_id(dice)).collect();
    delta.released = (0..dice.roll(3)).map(|_| packet_id(dice)).collect();
    delta.next_packet_id = dice.roll(1 << 16) as u16;
    delta
}

/// Somebody the model knows, or, now and then, a number that stands for nobody (any more).
fn anybody(dice: &mut Dice, model: &Model) -> RecipientNo {
    let known: Vec<_> = model.parties.keys().copied().collect();
    match dice.pick(&known) {
        Some(number) if !dice.one_in(12) => RecipientNo(*number),
        _ => RecipientNo(1 + dice.roll(30) as u64),
    }
}

fn is_session(model: &Model, number: RecipientNo) -> bool {
    model.parties.get(&number.0).is_some_and(|party| party.session.is_some())
}

/// Mostly the epoch that has the say.
fn epoch_of(dice: &mut Dice, model: &Model, number: RecipientNo) -> Epoch {
    let row = model.parties.get(&number.0).and_then(|party| party.session.as_ref());
    let current = row.map_or(0, |row| row.opened.epoch.0);
    Epoch(if dice.one_in(5) { current.saturating_sub(1) } else { current })
}

/// Some of what is owed, in no order, some of it twice, and now and then a number that is not owed.
fn some_owed(dice: &mut Dice, model: &Model, number: RecipientNo) -> Vec<Lsn> {
    let all: Vec<_> =
        model.parties.get(&number.0).map(|party| party.owed.keys().copied().collect()).unwrap_or_default();
    let count = if dice.one_in(4) { all.len() } else { dice.roll(4) };
    let mut some: Vec<_> = (0..count).filter_map(|_| dice.pick(&all).map(|lsn| Lsn(*lsn))).collect();
    if dice.one_in(6) {
        some.push(Lsn(dice.roll(100) as u64));
    }
    some
}

fn some_tries(dice: &mut Dice, model: &Model, number: RecipientNo) -> Vec<(Lsn, SavedTries)> {
    let some = some_owed(dice, model, number);
    let tries = some.into_iter().map(|lsn| {
        let (count, answers) = (dice.roll(1 << 32) as u32, dice.roll(1 << 32) as u32);
        let [first_at, last_at] = [0; 2].map(|_| UnixMillis(dice.roll(1 << 40) as u64));
        (lsn, SavedTries { count, answers, first_at, last_at })
    });
    tries.collect()
}

fn packet_id(dice: &mut Dice) -> PacketId {
    PacketId::new(1 + dice.roll(6) as u16).unwrap()
}

fn filter(dice: &mut Dice) -> Box<str> {
    ["a/#", "+/b", "$share/g/ö"][dice.roll(3)].into()
}
