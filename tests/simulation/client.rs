//! A client that keeps its side of every exchange, over as many connections as it takes, and lets the broker get
//! away with nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::history::{History, Subscribed, Verdict, payload};
use super::network::Pipe;
use super::packets::{self, Ack, Connect, Publish, Said, V5};
use super::plan::Profile;
use super::trace::Trace;
use crate::store::tests::Dice;

pub struct Client {
    pub number: usize,
    pub profile: Profile,
    pub link: Option<Link>,
    /// Without a connection: when it comes back.
    pub returns_at: u64,
    /// It has had a CONNACK in the life of its session.
    is_known: bool,
    /// Its own exchanges, in the order of their first PUBLISH.
    open: VecDeque<Exchange>,
    next_id: u16,
    left_to_publish: usize,
    /// QoS 2: what came under identifiers that were not released yet.
    received: BTreeMap<u16, String>,
    /// Answers that it has not given yet, in order.
    answers: VecDeque<(Ack, u16)>,
    /// SUBSCRIBE without SUBACK: identifier and place of the subscription.
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
    /// CONNACK has come.
    pub is_open: bool,
    /// The connection breaks after so many bytes, in either direction.
    pub breaks_after: usize,
    /// Nothing moves until then.
    pub stalled_until: u64,
    /// Identifiers of messages that came on this connection and that the client has not acknowledged.
    unacknowledged: BTreeSet<u16>,
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

impl Link {
    pub fn new(pipe: Pipe, task: u64, breaks_after: usize) -> Self {
        Self {
            pipe,
            task,
            inbox: Vec::new(),
            is_open: false,
            breaks_after,
            stalled_until: 0,
            unacknowledged: BTreeSet::new(),
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
            open: VecDeque::new(),
            next_id: 1,
            left_to_publish,
            received: BTreeMap::new(),
            answers: VecDeque::new(),
            asked: None,
            subscribed: BTreeSet::new(),
        }
    }

    /// Begins a connection.
    pub fn connect(&mut self, link: Link, history: &mut History) {
        let clean = !self.profile.is_durable;
        if clean {
            self.forget(history);
        }
        let connect = Connect {
            version: self.profile.version,
            client_id: &self.profile.name,
            clean,
            expiry: if clean { 0 } else { self.profile.expiry },
            receive_maximum: self.profile.receive_maximum,
            will: None,
        };
        link.pipe.send(&packets::connect(&connect));
        self.answers.clear();
        self.asked = None;
        self.link = Some(link);
    }

    /// The connection is gone.
    pub fn disconnected(&mut self, returns_at: u64) {
        self.link = None;
        self.returns_at = returns_at;
    }

    /// Nothing is left to do, as far as this client knows.
    pub fn is_done(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.is_open && link.inbox.is_empty())
            && self.open.is_empty()
            && self.answers.is_empty()
            && self.received.is_empty()
            && self.asked.is_none()
            && self.subscribed.len() == self.profile.subscriptions.len()
    }

    /// What keeps it from being done.
    pub fn state(&self) -> String {
        let Self { number, open, answers, received, asked, .. } = self;
        let link = self.link.as_ref().map(|link| (link.is_open, &link.inbox));
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

    /// Hears one packet, or says something. False when there is nothing to do.
    pub fn act(&mut self, turn: &mut Turn<'_>) -> Result<bool, String> {
        let version = self.profile.version;
        let Some(link) = &mut self.link else { return Ok(false) };
        if turn.is_winding_up || !turn.dice.one_in(3) {
            let said = packets::take(&mut link.inbox, version);
            if let Some(said) = said.map_err(|wrong| format!("c{}: {wrong}", self.number))? {
                turn.trace.add(turn.now, format_args!("c{} hears {said:?}", self.number));
                self.hear(said, turn)?;
                return Ok(true);
            }
        }
        if !link.is_open {
            return Ok(false);
        }
        if let Some((ack, id)) = self.answers.pop_front() {
            if matches!(ack, Ack::Puback | Ack::Pubcomp) {
                link.unacknowledged.remove(&id);
            }
            turn.trace.add(turn.now, format_args!("c{} says {ack:?} {id}", self.number));
            link.pipe.send(&packets::ack(ack, id));
            return Ok(true);
        }
        if self.asked.is_none()
            && let Some(place) =
                (0..self.profile.subscriptions.len()).find(|at| !self.subscribed.contains(at))
        {
            self.subscribe(place, turn);
            return Ok(true);
        }
        if !turn.is_winding_up && self.left_to_publish > 0 && self.open.len() < turn.window {
            self.publish(turn);
            return Ok(true);
        }
        Ok(false)
    }

    fn send(&self, bytes: &[u8]) {
        self.link.iter().for_each(|link| link.pipe.send(bytes));
    }

    fn subscribe(&mut self, place: usize, turn: &mut Turn<'_>) {
        let id = self.unused_id();
        let Some((filter, qos)) = self.profile.subscriptions.get(place) else { return };
        turn.trace.add(turn.now, format_args!("c{} subscribes {id} to {filter} with {qos}", self.number));
        turn.history.subscription(self.number, filter, *qos, Subscribed::Asked);
        self.send(&packets::subscribe(self.profile.version, id, filter, *qos));
        self.asked = Some((id, place));
    }

    fn publish(&mut self, turn: &mut Turn<'_>) {
        self.left_to_publish -= 1;
        let qos = turn.dice.roll(3) as u8;
        let topic = turn.dice.pick(&self.profile.topics).cloned().unwrap_or_default();
        let message = turn.history.published(self.number, &topic, qos, false);
        let id = if qos > 0 { self.unused_id() } else { 0 };
        let payload = payload(message, turn.dice.roll(self.profile.payload_max));
        let publish = Publish { qos, id, topic, payload, ..Publish::default() };
        turn.trace.add(turn.now, format_args!("c{} says {publish:?}", self.number));
        self.send(&packets::publish(self.profile.version, &publish));
        if qos > 0 {
            self.open.push_back(Exchange { id, message, stage: Stage::Published, publish });
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
        let is_open = self.link.as_ref().is_some_and(|link| link.is_open);
        match said {
            Said::Connack { present, reason } if !is_open => self.hear_connack(present, reason, turn),
            Said::Publish(publish) if is_open => self.hear_publish(publish, turn),
            Said::Puback(id, reason) => self.hear_ack(id, 1, reason, turn),
            Said::Pubrec(id, reason) => self.hear_ack(id, 2, reason, turn),
            Said::Pubrel(id, reason) if is_open => self.hear_pubrel(id, reason),
            Said::Pubcomp(id, reason) => self.hear_pubcomp(id, reason),
            Said::Suback(id, reasons) => self.hear_suback(id, &reasons, turn.history),
            Said::Disconnect(_) if is_open && self.profile.version == V5 => Ok(()),
            other => Err(format!("c{}: {other:?} does not belong here", self.number)),
        }
    }

    fn hear_connack(&mut self, present: bool, reason: u8, turn: &mut Turn<'_>) -> Verdict {
        if reason != 0 {
            // The broker closes the connection.
            return Ok(());
        }
        if present && !self.profile.is_durable {
            return Err(format!("c{}: a clean session is present", self.number));
        }
        if !present && self.is_known {
            return Err(format!("c{}: its session is lost", self.number));
        }
        if !present {
            self.forget(turn.history);
        }
        self.is_known = self.profile.is_durable;
        let Some(link) = &mut self.link else { return Ok(()) };
        link.is_open = true;
        // [MQTT-4.4.0-1]
        for exchange in &mut self.open {
            turn.trace.add(turn.now, format_args!("c{} repeats {exchange:?}", self.number));
            let bytes = match exchange.stage {
                Stage::Released => packets::ack(Ack::Pubrel, exchange.id),
                Stage::Published => {
                    turn.history.messages[exchange.message].sends += 1;
                    exchange.publish.dup = true;
                    packets::publish(self.profile.version, &exchange.publish)
                }
            };
            link.pipe.send(&bytes);
        }
        Ok(())
    }

    fn hear_publish(&mut self, publish: Publish, turn: &mut Turn<'_>) -> Verdict {
        let (number, id) = (self.number, publish.id);
        if publish.qos == 0 {
            return turn.history.received(number, &publish);
        }
        let Some(link) = &mut self.link else { return Ok(()) };
        if !link.unacknowledged.insert(id) {
            return Err(format!("c{number}: {id} comes a second time without having been acknowledged"));
        }
        let window = match self.profile.version {
            V5 => turn.inflight.min(self.profile.receive_maximum.into()),
            _ => turn.inflight,
        };
        if link.unacknowledged.len() > window {
            let open = link.unacknowledged.len();
            return Err(format!("c{number}: {open} messages at once, {window} at most: {publish:?}"));
        }
        if publish.qos == 1 {
            if self.received.contains_key(&id) {
                return Err(format!("c{number}: {id} has a QoS 2 exchange, and comes with {publish:?}"));
            }
            self.answers.push_back((Ack::Puback, id));
            return turn.history.received(number, &publish);
        }
        self.answers.push_back((Ack::Pubrec, id));
        match self.received.get(&id) {
            // [MQTT-4.3.3-10]
            Some(known) if *known == publish.payload && publish.dup => Ok(()),
            Some(known) => Err(format!("c{number}: {id} is in use for {known}, and comes with {publish:?}")),
            None => {
                self.received.insert(id, publish.payload.clone());
                turn.history.received(number, &publish)
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
        turn.history.acknowledged(exchange.message, reason)?;
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
