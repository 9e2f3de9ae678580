//! A client that keeps its side of every exchange, over as many connections as it takes, and lets the broker get
//! away with nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::history::{Arrival, History, SHARE, Subscribed, Verdict, payload};
use super::network::Pipe;
use super::packets::{self, Ack, Connect, Publish, Said, V5, Will};
use super::plan::Profile;
use super::trace::Trace;
use crate::store::tests::Dice;

pub struct Client {
    pub number: usize,
    pub profile: Profile,
    pub link: Option<Link>,
    /// Without a connection: when it comes back.
    pub returns_at: u64,
    /// Its session was there, and may only be gone when it has expired.
    pub is_known: bool,
    /// The last connection had a CONNACK.
    was_accepted: bool,
    /// It discards the session it had.
    pub begins_anew: bool,
    /// Its own exchanges, in the order of their first PUBLISH.
    open: VecDeque<Exchange>,
    next_id: u16,
    left_to_publish: usize,
    /// QoS 2: what came under identifiers that were not released yet.
    received: BTreeMap<u16, String>,
    /// Answers that it has not given yet, in order.
    answers: VecDeque<(Ack, u16)>,
    /// SUBSCRIBE or UNSUBSCRIBE that is not answered: identifier and place of the subscription.
    asked: Option<(u16, usize)>,
    /// Subscriptions that the session has.
    subscribed: BTreeSet<usize>,
}

/// A connection as the client sees it.
pub struct Link {
    pub pipe: Pipe,
    /// The broker's task.
    pub task: u64,
    pub inbox: Vec<u8>,
    /// CONNACK has come, and what it said about the session.
    pub accepted: Option<Accepted>,
    pub connected_at: u64,
    /// The connection breaks after so many bytes, in either direction.
    pub breaks_after: usize,
    /// Nothing moves until then.
    pub stalled_until: u64,
    /// Identifiers of messages that came on this connection and that the client has not acknowledged.
    unacknowledged: BTreeSet<u16>,
    /// Identifiers that were acknowledged before their message was repeated: to the broker they are free.
    acknowledged_before: BTreeSet<u16>,
}

/// What a CONNACK said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub present: bool,
    /// There was a session to find.
    pub was_known: bool,
}

#[derive(Debug)]
struct Exchange {
    id: u16,
    message: usize,
    stage: Stage,
    publish: Publish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Published,
    Released,
}

/// What a client may do in a turn.
pub struct Turn<'a> {
    pub dice: &'a mut Dice,
    pub history: &'a mut History,
    pub trace: &'a mut Trace,
    pub now: u64,
    /// The broker's Receive Maximum.
    pub window: usize,
    /// What the broker may have open towards a client.
    pub inflight: usize,
    /// Nothing new: what was begun is brought to its end.
    pub is_winding_up: bool,
}

/// Why a broker may tell a client to go that has done nothing wrong: another connection has the session, it does not
/// read, the store has failed, the broker stops, or a packet took too long to arrive.
const GOOD_REASONS: [u8; 5] = [0x8e, 0x97, 0x88, 0x8b, 0x83];

/// What came of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    Nothing,
    Something,
    /// It has said DISCONNECT, after which a will is void.
    Goodbye,
}

impl Link {
    pub fn new(pipe: Pipe, task: u64, connected_at: u64, breaks_after: usize) -> Self {
        Self {
            pipe,
            task,
            inbox: Vec::new(),
            accepted: None,
            connected_at,
            breaks_after,
            stalled_until: 0,
            unacknowledged: BTreeSet::new(),
            acknowledged_before: BTreeSet::new(),
        }
    }
}

impl Client {
    pub fn new(number: usize, profile: Profile) -> Self {
        let left_to_publish = profile.messages;
        Self {
            number,
            profile,
            link: None,
            returns_at: 0,
            is_known: false,
            was_accepted: true,
            begins_anew: false,
            open: VecDeque::new(),
            next_id: 1,
            left_to_publish,
            received: BTreeMap::new(),
            answers: VecDeque::new(),
            asked: None,
            subscribed: BTreeSet::new(),
        }
    }

    /// Begins a connection; gives the number of the will that it leaves. Until it is accepted, one that wants to begin
    /// anew goes on wanting it.
    pub fn connect(&mut self, link: Link, begins_anew: bool, history: &mut History) -> Option<usize> {
        // A session that expires may have been replaced by one whose CONNACK never came: who goes on with that one
        // would not know.
        let is_in_doubt = self.is_known && !self.was_accepted && self.profile.may_expire();
        self.begins_anew |= begins_anew || is_in_doubt;
        self.was_accepted = false;
        let clean = !self.profile.is_durable || self.begins_anew;
        if clean {
            self.forget(history);
        }
        let topic = format!("w/{}", self.number);
        let will = self.profile.will.map(|(qos, delay)| {
            let will = Publish { qos, topic: topic.clone(), ..Publish::default() };
            let number = history.published(self.number, &will, true);
            history.sent(number, false, false);
            (number, payload(number, 3), qos, delay)
        });
        let as_sent = |(_, payload, qos, delay): &(usize, String, u8, u32)| (payload.clone(), *qos, *delay);
        let sent = will.as_ref().map(as_sent);
        let connect = Connect {
            version: self.profile.version,
            client_id: &self.profile.name,
            clean,
            expiry: if self.profile.is_durable { self.profile.expiry } else { 0 },
            receive_maximum: self.profile.receive_maximum,
            will: sent.as_ref().map(|(payload, qos, delay)| Will {
                topic: &topic,
                payload,
                qos: *qos,
                delay: *delay,
            }),
        };
        link.pipe.send(&packets::connect(&connect));
        // Some clients give the answers of the connection before.
        let keeps = self.profile.is_durable && self.profile.answers_late;
        self.answers.retain(|(ack, _)| keeps && *ack == Ack::Puback);
        self.asked = None;
        self.link = Some(link);
        will.map(|(number, ..)| number)
    }

    /// The connection is gone.
    pub fn disconnected(&mut self, returns_at: u64) {
        self.link = None;
        self.returns_at = returns_at;
    }

    /// Nothing is left to do, as far as this client knows.
    pub fn is_done(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.accepted.is_some() && link.inbox.is_empty())
            && self.open.is_empty()
            && self.answers.is_empty()
            && self.received.is_empty()
            && self.asked.is_none()
            && self.subscribed.len() == self.profile.subscriptions.len()
    }

    /// What keeps it from being done.
    pub fn state(&self) -> String {
        let Self { number, open, answers, received, asked, .. } = self;
        let link = self.link.as_ref().map(|link| (link.accepted, &link.inbox));
        format!(
            "c{number}: {link:?}, open {open:?}, answers {answers:?}, received {received:?}, asked {asked:?}"
        )
    }

    /// The session is over: nothing of it counts any more.
    fn forget(&mut self, history: &mut History) {
        history.session_begins(self.number);
        self.is_known = false;
        self.open.clear();
        self.received.clear();
        self.subscribed.clear();
    }

    /// Hears one packet, or says something.
    pub fn act(&mut self, turn: &mut Turn<'_>) -> Result<Did, String> {
        let version = self.profile.version;
        let Some(link) = &mut self.link else { return Ok(Did::Nothing) };
        if turn.is_winding_up || !turn.dice.one_in(3) {
            let said = packets::take(&mut link.inbox, version);
            if let Some(said) = said.map_err(|wrong| format!("c{}: {wrong}", self.number))? {
                turn.trace.add(turn.now, format_args!("c{} hears {said:?}", self.number));
                self.hear(said, turn)?;
                return Ok(Did::Something);
            }
        }
        if link.accepted.is_none() {
            return Ok(Did::Nothing);
        }
        if let Some((ack, id)) = self.answers.pop_front() {
            if matches!(ack, Ack::Puback | Ack::Pubcomp) {
                if link.unacknowledged.remove(&id) {
                    link.acknowledged_before.remove(&id);
                } else {
                    link.acknowledged_before.insert(id);
                }
            }
            turn.trace.add(turn.now, format_args!("c{} says {ack:?} {id}", self.number));
            link.pipe.send(&packets::ack(ack, id));
            return Ok(Did::Something);
        }
        Ok(self.begin_something(turn))
    }

    fn begin_something(&mut self, turn: &mut Turn<'_>) -> Did {
        let places = self.profile.subscriptions.len();
        if self.asked.is_none() {
            if let Some(place) = (0..places).find(|at| !self.subscribed.contains(at)) {
                self.subscribe(place, turn);
                return Did::Something;
            }
            if !turn.is_winding_up && self.profile.is_fickle && turn.dice.one_in(20) && places > 0 {
                self.unsubscribe(turn.dice.roll(places), turn);
                return Did::Something;
            }
        }
        if turn.is_winding_up {
            return Did::Nothing;
        }
        if turn.dice.one_in(2 * self.profile.restless) {
            turn.trace.add(turn.now, format_args!("c{} says goodbye", self.number));
            self.send(&packets::disconnect(self.profile.version, None));
            return Did::Goodbye;
        }
        if self.left_to_publish > 0 && self.open.len() < turn.window {
            self.publish(turn);
            return Did::Something;
        }
        Did::Nothing
    }

    /// Ends its session for good.
    pub fn leave_for_good(&self) {
        self.send(&packets::disconnect(self.profile.version, None));
        self.link.iter().for_each(|link| link.pipe.close());
    }

    fn send(&self, bytes: &[u8]) {
        self.link.iter().for_each(|link| link.pipe.send(bytes));
    }

    fn subscribe(&mut self, place: usize, turn: &mut Turn<'_>) {
        let id = self.unused_id();
        let (filter, qos) = &self.profile.subscriptions[place];
        turn.trace.add(turn.now, format_args!("c{} subscribes {id} to {filter} with {qos}", self.number));
        turn.history.subscription(self.number, filter, *qos, Subscribed::Asked);
        self.send(&packets::subscribe(self.profile.version, id, filter, *qos));
        self.asked = Some((id, place));
    }

    /// Leaves a subscription, unless it has to stay.
    fn unsubscribe(&mut self, place: usize, turn: &mut Turn<'_>) {
        let id = self.unused_id();
        let (filter, qos) = &self.profile.subscriptions[place];
        if filter.starts_with(SHARE) && self.profile.must_stay {
            return;
        }
        turn.trace.add(turn.now, format_args!("c{} unsubscribes {id} from {filter}", self.number));
        turn.history.subscription(self.number, filter, *qos, Subscribed::Left);
        self.send(&packets::unsubscribe(self.profile.version, id, filter));
        self.subscribed.remove(&place);
        self.asked = Some((id, place));
    }

    fn publish(&mut self, turn: &mut Turn<'_>) {
        self.left_to_publish -= 1;
        let qos = turn.dice.roll(3) as u8;
        let topic = turn.dice.pick(&self.profile.topics).cloned().unwrap_or_default();
        let retain = topic.starts_with("r/");
        let expires = !retain && self.profile.version == V5 && turn.dice.one_in(self.profile.perishable);
        let expiry = expires.then(|| 1 + turn.dice.roll(30) as u32);
        let mut publish = Publish { qos, topic, retain, expiry, ..Publish::default() };
        let message = turn.history.published(self.number, &publish, false);
        let removes = retain && turn.dice.one_in(4);
        if !removes {
            publish.payload = payload(message, turn.dice.roll(self.profile.payload_max));
        }
        publish.id = if qos > 0 { self.unused_id() } else { 0 };
        turn.trace.add(turn.now, format_args!("c{} says {publish:?}", self.number));
        turn.history.sent(message, retain, removes);
        self.send(&packets::publish(self.profile.version, &publish));
        if qos > 0 {
            self.open.push_back(Exchange { id: publish.id, message, stage: Stage::Published, publish });
        }
    }

    fn unused_id(&mut self) -> u16 {
        loop {
            let id = self.next_id;
            self.next_id = self.next_id % 30 + 1;
            if self.open.iter().all(|exchange| exchange.id != id) {
                return id;
            }
        }
    }

    fn hear(&mut self, said: Said, turn: &mut Turn<'_>) -> Verdict {
        let is_open = self.link.as_ref().is_some_and(|link| link.accepted.is_some());
        match said {
            Said::Connack { present, reason } if !is_open => self.hear_connack(present, reason, turn),
            Said::Publish(publish) if is_open => self.hear_publish(publish, turn),
            Said::Puback(id, reason) => self.hear_ack(id, 1, reason, turn),
            Said::Pubrec(id, reason) => self.hear_ack(id, 2, reason, turn),
            Said::Pubrel(id, reason) if is_open => self.hear_pubrel(id, reason),
            Said::Pubcomp(id, reason) => self.hear_pubcomp(id, reason),
            Said::Suback(id, reasons) => self.hear_suback(id, &reasons, turn.history),
            Said::Unsuback(id) if self.asked.is_some_and(|(asked, _)| asked == id) => {
                self.asked = None;
                Ok(())
            }
            Said::Disconnect(reason) if is_open && GOOD_REASONS.contains(&reason) => Ok(()),
            other => Err(format!("c{}: {other:?} does not belong here", self.number)),
        }
    }

    fn hear_connack(&mut self, present: bool, reason: u8, turn: &mut Turn<'_>) -> Verdict {
        if reason != 0 {
            // The broker closes the connection.
            return Ok(());
        }
        if present && (!self.profile.is_durable || self.begins_anew) {
            return Err(format!("c{}: a clean session is present", self.number));
        }
        let was_known = self.is_known;
        if !present {
            self.forget(turn.history);
        }
        self.is_known = self.profile.is_durable;
        self.begins_anew = false;
        self.was_accepted = true;
        let Some(link) = &mut self.link else { return Ok(()) };
        link.accepted = Some(Accepted { present, was_known });
        // [MQTT-4.4.0-1]
        for exchange in &mut self.open {
            turn.trace.add(turn.now, format_args!("c{} repeats {exchange:?}", self.number));
            let bytes = match exchange.stage {
                Stage::Released => packets::ack(Ack::Pubrel, exchange.id),
                Stage::Published => {
                    exchange.publish.dup = true;
                    let Publish { retain, payload, .. } = &exchange.publish;
                    turn.history.sent(exchange.message, *retain, payload.is_empty());
                    packets::publish(self.profile.version, &exchange.publish)
                }
            };
            link.pipe.send(&bytes);
        }
        Ok(())
    }

    fn hear_publish(&mut self, publish: Publish, turn: &mut Turn<'_>) -> Verdict {
        let (number, id) = (self.number, publish.id);
        let Some(link) = &mut self.link else { return Ok(()) };
        let at = Arrival { now: turn.now, connected_at: link.connected_at };
        if publish.qos == 0 {
            return turn.history.received(number, &publish, at);
        }
        if !link.unacknowledged.insert(id) {
            return Err(format!("c{number}: {id} comes a second time without having been acknowledged"));
        }
        let window = match self.profile.version {
            V5 => turn.inflight.min(self.profile.receive_maximum.into()),
            _ => turn.inflight,
        };
        let open = link.unacknowledged.difference(&link.acknowledged_before).count();
        if open > window {
            return Err(format!("c{number}: {open} messages at once, {window} at most: {publish:?}"));
        }
        if publish.qos == 1 {
            if self.received.contains_key(&id) {
                return Err(format!("c{number}: {id} has a QoS 2 exchange, and comes with {publish:?}"));
            }
            self.answers.push_back((Ack::Puback, id));
            return turn.history.received(number, &publish, at);
        }
        self.answers.push_back((Ack::Pubrec, id));
        match self.received.get(&id) {
            // [MQTT-4.3.3-10]
            Some(known) if *known == publish.payload && publish.dup => Ok(()),
            Some(known) => Err(format!("c{number}: {id} is in use for {known}, and comes with {publish:?}")),
            None => {
                self.received.insert(id, publish.payload.clone());
                turn.history.received(number, &publish, at)
            }
        }
    }

    fn hear_pubrel(&mut self, id: u16, reason: u8) -> Verdict {
        if reason != 0 {
            return Err(format!("c{}: PUBREL {id} says {reason:#x}", self.number));
        }
        self.received.remove(&id);
        self.answers.push_back((Ack::Pubcomp, id));
        Ok(())
    }

    fn hear_ack(&mut self, id: u16, qos: u8, reason: u8, turn: &mut Turn<'_>) -> Verdict {
        let number = self.number;
        let place = self.open.iter().position(|exchange| exchange.id == id);
        let Some(place) = place else { return Err(format!("c{number}: {id} is acknowledged and not open")) };
        let exchange = &mut self.open[place];
        if exchange.publish.qos != qos || exchange.stage == Stage::Released {
            return Err(format!("c{number}: the wrong acknowledgement for {exchange:?}"));
        }
        turn.history.acknowledged(exchange.message, reason, turn.now)?;
        if qos == 1 || reason >= 0x80 {
            self.open.remove(place);
        } else {
            exchange.stage = Stage::Released;
            self.send(&packets::ack(Ack::Pubrel, id));
        }
        Ok(())
    }

    fn hear_pubcomp(&mut self, id: u16, reason: u8) -> Verdict {
        let is_released = |exchange: &Exchange| exchange.id == id && exchange.stage == Stage::Released;
        let Some(place) = self.open.iter().position(is_released) else {
            return Err(format!("c{}: PUBCOMP {id} was not asked for", self.number));
        };
        self.open.remove(place);
        // 0x92: released before, and its PUBCOMP was lost.
        if reason == 0 || reason == 0x92 { Ok(()) } else { Err(format!("PUBCOMP {id} says {reason:#x}")) }
    }

    fn hear_suback(&mut self, id: u16, reasons: &[u8], history: &mut History) -> Verdict {
        let Some((_, place)) = self.asked.take().filter(|(asked, _)| *asked == id) else {
            return Err(format!("c{}: SUBACK {id} was not asked for", self.number));
        };
        let (filter, qos) = &self.profile.subscriptions[place];
        if reasons != [*qos] {
            return Err(format!("c{}: {filter} with QoS {qos} is answered by {reasons:?}", self.number));
        }
        self.subscribed.insert(place);
        history.subscription(self.number, filter, *qos, Subscribed::Granted);
        Ok(())
    }
}
