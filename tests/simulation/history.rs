//! What was published and received, and what must be true of it at every moment.

use std::collections::{BTreeMap, BTreeSet};

use super::packets::Publish;
use super::plan::Plan;
use crate::record::Addressee;

/// What went wrong, in words.
pub type Verdict = Result<(), String>;

/// A message as its publisher knows it.
#[derive(Clone, Debug)]
pub struct Message {
    publisher: usize,
    topic: String,
    qos: u8,
    /// A will: the broker publishes it, and order says nothing about it.
    is_will: bool,
    /// Message Expiry Interval, seconds.
    expiry: Option<u32>,
    /// How often its PUBLISH may have reached the broker.
    sends: usize,
    /// When PUBACK or PUBREC came, with success; anything when a will is due.
    safe_since: Option<u64>,
    /// It was refused, or is a will that was cancelled.
    is_void: bool,
    /// It was on its way while the disk was full.
    may_be_refused: bool,
    /// The process ended before it was acknowledged: what the broker had made of it may be on disk in part.
    is_in_doubt: bool,
    /// Nobody gets it before.
    not_before: u64,
}

/// What a client's session is owed, and was given. It begins anew when the session does. A shared group and a
/// route have one, too.
#[derive(Clone, Debug, Default)]
struct Session {
    is_durable: bool,
    /// It may have expired, of which its client does not know yet.
    may_be_gone: bool,
    /// Its queue may be full.
    is_short: bool,
    subscriptions: BTreeMap<String, Subscription>,
    /// By message: the QoS it has to come with.
    owed: BTreeMap<usize, u8>,
    got: BTreeMap<usize, Got>,
    /// The newest message that has come of a publisher, on a topic, with a QoS at both ends.
    newest: BTreeMap<(usize, String, u8, u8), usize>,
    /// Retained messages that came because of a SUBSCRIBE, the last of each topic.
    retained: BTreeMap<String, usize>,
}

#[derive(Clone, Debug)]
struct Subscription {
    qos: u8,
    state: Subscribed,
    /// By topic: nothing that was retained before this place of its log is sent for the subscription.
    floors: BTreeMap<String, usize>,
}

/// How far a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscribed {
    /// SUBSCRIBE was sent, or is about to be.
    Asked,
    /// SUBACK has come.
    Granted,
    /// UNSUBSCRIBE was sent.
    Left,
}

#[derive(Clone, Copy, Debug, Default)]
struct Got {
    copies: usize,
    /// Copies without DUP.
    originals: usize,
}

/// Every sending of a retained message to one topic. `None` takes it away.
type Log = Vec<(Option<usize>, usize)>;

/// Everything that happened between the clients and the broker.
#[derive(Debug)]
pub struct History {
    messages: Vec<Message>,
    /// Of clients, by number; then the shared group's and the route's.
    sessions: Vec<Session>,
    clients: usize,
    /// Members of the group may leave: QoS 2 that one of them has begun goes with it [MQTT-4.8.2-5], unless a crash
    /// comes between.
    is_group_loose: bool,
    retained: BTreeMap<String, Log>,
    is_disk_full: bool,
    /// By session: messages that became dead letters.
    dead: BTreeSet<(usize, usize)>,
    /// What the route has under its numbers.
    routed: BTreeMap<u64, usize>,
}

/// A client's view of the connection a message came on.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    pub now: u64,
    /// When the connection began.
    pub connected_at: u64,
}

/// What the shared group is called.
pub const SHARE: &str = "$share/g/";

impl History {
    /// Of clients with durable sessions, or not.
    pub fn new(are_durable: impl Iterator<Item = bool>, plan: &Plan) -> Self {
        let is_short = plan.has_short_queues();
        let session = |is_durable| Session { is_durable, is_short, ..Session::default() };
        let mut sessions: Vec<_> = are_durable.map(session).collect();
        let clients = sessions.len();
        sessions.extend([session(true), session(true)]);
        let mut history = Self {
            messages: Vec::new(),
            sessions,
            clients,
            is_group_loose: plan.is_group_loose,
            retained: BTreeMap::new(),
            is_disk_full: false,
            dead: BTreeSet::new(),
            routed: BTreeMap::new(),
        };
        if plan.has_route {
            history.subscription(clients + 1, "t/#", 2, Subscribed::Granted);
        }
        history
    }

    /// A PUBLISH is about to be sent for the first time, or a will to be left. From now on every session that has
    /// the SUBACK is owed it.
    pub fn published(&mut self, publisher: usize, publish: &Publish, is_will: bool) -> usize {
        let number = self.messages.len();
        self.messages.push(Message {
            publisher,
            topic: publish.topic.clone(),
            qos: publish.qos,
            is_will,
            expiry: publish.expiry,
            sends: 0,
            safe_since: None,
            is_void: false,
            may_be_refused: false,
            is_in_doubt: false,
            not_before: if is_will { u64::MAX } else { 0 },
        });
        for (place, session) in self.sessions.iter_mut().enumerate() {
            let granted = session.qos_of(&publish.topic, |state| state == Subscribed::Granted);
            let qos = granted.map_or(0, |granted| granted.min(publish.qos));
            let goes_with_member = place == self.clients && self.is_group_loose && qos == 2;
            if qos > 0 && !goes_with_member {
                session.owed.insert(number, qos);
            }
        }
        number
    }

    /// It is sent, for the first time or again. `removes` says that its payload is empty.
    pub fn sent(&mut self, number: usize, retain: bool, removes: bool) {
        let message = &mut self.messages[number];
        message.sends += 1;
        message.may_be_refused |= self.is_disk_full;
        if removes {
            // Nobody can tell by its payload that it has come.
            for session in &mut self.sessions {
                session.owed.remove(&number);
            }
        }
        if retain {
            let log = self.retained.entry(message.topic.clone()).or_default();
            log.push(((!removes).then_some(number), number));
        }
    }

    /// The broker has the message, or does not want it.
    pub fn acknowledged(&mut self, number: usize, reason: u8, now: u64) -> Verdict {
        let message = &mut self.messages[number];
        if reason >= 0x80 {
            message.is_void = message.sends == 1;
            return Ok(());
        }
        message.safe_since.get_or_insert(now);
        // Of a session that is not durable, or was left long enough, only the broker knows when it ends.
        let mut present = self.sessions.iter().filter(|session| session.is_durable && !session.may_be_gone);
        let is_owed = present.any(|session| session.owed.contains_key(&number));
        if reason == 0x10 && is_owed {
            return Err(format!("m{number}: no matching subscribers, and somebody is owed it"));
        }
        Ok(())
    }

    /// A will is not published before this time.
    pub fn will_not_before(&mut self, number: usize, at: u64) {
        self.messages[number].not_before = at;
    }

    /// The process has started again, and a will is not published before this time, unless it was due before: a
    /// copy may be on its way since then.
    pub fn will_is_left_again(&mut self, number: usize, now: u64, at: u64) {
        let not_before = &mut self.messages[number].not_before;
        if *not_before > now {
            *not_before = at;
        }
    }

    /// A will was published, or is about to be.
    pub fn will_is_due(&mut self, number: usize) {
        self.messages[number].safe_since = Some(0);
    }

    /// A will was cancelled.
    ///
    /// # Errors
    /// When somebody has it.
    pub fn will_is_void(&mut self, number: usize) -> Verdict {
        self.messages[number].is_void = true;
        match self.sessions.iter().position(|session| session.got.contains_key(&number)) {
            Some(client) => Err(format!("c{client} has the will m{number}, which was cancelled")),
            None => Ok(()),
        }
    }

    /// That a will was cancelled was not on disk when the process ended.
    pub fn will_may_come(&mut self, number: usize) {
        let will = &mut self.messages[number];
        // The session is as it was before, until somebody begins anew.
        (will.is_void, will.not_before) = (false, 0);
    }

    /// The disk has no room, or has again.
    pub fn disk_is_full(&mut self, is_full: bool) {
        self.is_disk_full = is_full;
        let open = self.messages.iter_mut().filter(|message| is_full && message.safe_since.is_none());
        open.for_each(|message| message.may_be_refused = true);
    }

    /// The process has ended.
    pub fn process_ended(&mut self) {
        let open = self.messages.iter_mut().filter(|message| message.safe_since.is_none());
        open.for_each(|message| message.is_in_doubt = true);
    }

    /// The process has ended, and what it published was not on disk.
    pub fn will_may_come_again(&mut self, number: usize) {
        self.messages[number].sends += 1;
    }

    /// A session begins: nothing is owed from before.
    pub fn session_begins(&mut self, client: usize) {
        let session = &mut self.sessions[client];
        *session =
            Session { is_durable: session.is_durable, is_short: session.is_short, ..Session::default() };
    }

    /// Nobody has come back to a session in time; or it was there after all.
    pub fn session_may_be_gone(&mut self, client: usize, may_be_gone: bool) {
        self.sessions[client].may_be_gone = may_be_gone;
    }

    pub fn subscription(&mut self, client: usize, filter: &str, qos: u8, state: Subscribed) {
        if let Some(filter) = filter.strip_prefix(SHARE)
            && state == Subscribed::Granted
            && (client == 0 || !self.is_group_loose)
        {
            self.subscription(self.clients, filter, qos, state);
        }
        let floors =
            self.retained.iter().map(|(topic, log)| (topic.clone(), self.last_safe(log).unwrap_or(0)));
        let floors = floors.collect();
        let session = &mut self.sessions[client];
        let known = session.subscriptions.entry(filter.to_owned());
        let known = known.or_insert(Subscription { qos, state, floors });
        known.state = state;
        if state == Subscribed::Left {
            let messages = &self.messages;
            session.owed.retain(|number, _| !matches(filter, &messages[*number].topic));
        }
    }

    /// A client was given a message; repeats under an open QoS 2 identifier are none.
    pub fn received(&mut self, client: usize, publish: &Publish, at: Arrival) -> Verdict {
        if publish.payload.is_empty() {
            return self.judge_removal(client, publish);
        }
        let number = number_of(&publish.payload)?;
        let name = format!("c{client}: m{number} ({publish:?})");
        let Some(message) = self.messages.get(number) else { return Err(format!("{name} out of nowhere")) };
        let asked = self.sessions[client].qos_of_any(&message.topic);
        if asked.is_none_or(|asked| publish.qos > asked.min(message.qos)) {
            return Err(format!("{name} was asked for with {asked:?} and published with {}", message.qos));
        }
        message.judge(&name, publish, at)?;
        if publish.retain {
            return self.judge_retained(client, &name, number);
        }
        let is_shared = message.topic.starts_with("s/");
        let session = &mut self.sessions[if is_shared { self.clients } else { client }];
        if session.owed.get(&number).is_some_and(|qos| publish.qos < *qos) {
            return Err(format!("{name} is owed with a higher QoS"));
        }
        let copies = session.judge_copies(&name, number, message, publish, is_shared);
        match (is_shared, self.is_group_loose) {
            (false, _) => copies.and_then(|()| session.judge_order(&name, number, message, publish)),
            (true, false) => copies,
            (true, true) => Ok(()),
        }
    }

    /// The route's target was given a message under a number.
    pub fn routed(&mut self, lsn: u64, publish: &Publish) -> Verdict {
        let number = number_of(&publish.payload)?;
        let name = format!("route: m{number} as {lsn}");
        if *self.routed.entry(lsn).or_insert(number) != number {
            return Err(format!("{name}, which was m{}", self.routed[&lsn]));
        }
        let Some(message) = self.messages.get(number) else { return Err(format!("{name} out of nowhere")) };
        let names = self.routed.values().filter(|known| **known == number).count();
        if names > message.originals() {
            return Err(format!("{name} has {names} numbers, and was sent {} times", message.sends));
        }
        if message.is_void {
            return Err(format!("{name} was refused"));
        }
        self.sessions[self.clients + 1].got.entry(number).or_default().copies += 1;
        Ok(())
    }

    /// A message has become a dead letter for this session, group or route.
    ///
    /// # Errors
    /// When it was delivered as well.
    pub fn died(&mut self, addressee: &Addressee, payload: &str) -> Verdict {
        let session = match addressee {
            Addressee::Route { .. } => self.clients + 1,
            Addressee::Nobody => return Err(format!("m{payload} is a dead letter for nobody")),
            Addressee::Session { client_id } if client_id.starts_with(SHARE) => self.clients,
            Addressee::Session { client_id } => {
                let number = client_id.strip_prefix('c').and_then(|number| number.parse().ok());
                number.ok_or_else(|| format!("a dead letter for {client_id}"))?
            }
        };
        // What takes a retained message away has no number.
        let Ok(number) = number_of(payload) else { return Ok(()) };
        self.dead.insert((session, number));
        let was_given = self.sessions[session].got.contains_key(&number);
        let message = &self.messages[number];
        if was_given && message.originals() == 1 {
            return Err(format!("{addressee:?} was given m{number}, which is a dead letter"));
        }
        Ok(())
    }

    /// What is acknowledged and has not come to everyone who is owed it. A message that may have expired, or is
    /// a dead letter, is not missed.
    pub fn missing(&self) -> Vec<String> {
        let is_missed = |number: &usize| {
            let message = &self.messages[*number];
            message.safe_since.is_some() && message.expiry.is_none()
        };
        let missing = |(client, session): (usize, &Session)| {
            let numbers = session.owed.keys().filter(|number| !session.got.contains_key(number));
            let numbers =
                numbers.filter(|number| is_missed(number) && !self.dead.contains(&(client, **number)));
            let numbers: Vec<_> = numbers.copied().collect();
            (!numbers.is_empty()).then(|| format!("c{client} has not got {numbers:?}"))
        };
        self.sessions.iter().enumerate().filter_map(missing).collect()
    }

    /// That a client which has just subscribed was given the last acknowledged state of every topic, or one that
    /// was sent later and never acknowledged.
    pub fn judge_retained_state(&self, client: usize) -> Verdict {
        for (topic, log) in &self.retained {
            let got = self.sessions[client].retained.get(topic).copied();
            let floor = self.last_safe(log);
            let mut possible: BTreeSet<_> =
                log[floor.unwrap_or(0)..].iter().map(|(state, _)| *state).collect();
            if floor.is_none() {
                possible.insert(None);
            }
            if !possible.contains(&got) {
                return Err(format!("{topic} holds {got:?} and not one of {possible:?}"));
            }
        }
        Ok(())
    }

    /// The last place of which it is sure that the broker has come to it. A QoS 2 PUBLISH that is sent again may have
    /// been taken the first time.
    fn last_safe(&self, log: &Log) -> Option<usize> {
        let is_sure = |place: &usize| {
            let number = log[*place].1;
            let message = &self.messages[number];
            let is_first = log[..*place].iter().all(|(_, before)| *before != number);
            message.safe_since.is_some() && (message.qos < 2 || is_first)
        };
        (0..log.len()).rev().find(is_sure)
    }

    fn judge_removal(&self, client: usize, publish: &Publish) -> Verdict {
        let is_known = self.retained.contains_key(&publish.topic);
        if !is_known || publish.retain {
            return Err(format!("c{client}: {publish:?} has no payload"));
        }
        Ok(())
    }

    /// A retained message that comes because of a SUBSCRIBE is at least as new as what was acknowledged then.
    fn judge_retained(&mut self, client: usize, name: &str, number: usize) -> Verdict {
        let topic = &self.messages[number].topic;
        let log = self.retained.get(topic).map(Vec::as_slice).unwrap_or_default();
        let place = log.iter().rposition(|(state, _)| *state == Some(number));
        let session = &mut self.sessions[client];
        let matching = session.subscriptions.iter().filter(|(filter, _)| matches(filter, topic));
        let floor = matching.map(|(_, known)| known.floors.get(topic).copied().unwrap_or(0)).min();
        if place < floor {
            return Err(format!("{name} at {place:?} is older than what was retained, at {floor:?}"));
        }
        session.retained.insert(topic.clone(), number);
        Ok(())
    }
}

impl Message {
    /// How many messages it may be to the broker: a QoS 1 PUBLISH that is sent again is another one.
    fn originals(&self) -> usize {
        if self.qos == 2 && !self.is_will { 1 } else { self.sends.max(1) }
    }

    /// What is true of every copy, whoever gets it.
    fn judge(&self, name: &str, publish: &Publish, at: Arrival) -> Verdict {
        if publish.topic != self.topic {
            return Err(format!("{name} was published to {}", self.topic));
        }
        if self.is_void {
            return Err(format!("{name} was refused or cancelled"));
        }
        if at.now < self.not_before {
            return Err(format!("{name} comes before {}", self.not_before));
        }
        let Some(expiry) = self.expiry else { return Ok(()) };
        // The broker has had it since then at the latest, and sent it no earlier than the connection began.
        let waited = self.safe_since.map_or(0, |since| at.connected_at.saturating_sub(since));
        let left = (u64::from(expiry) * 1000).saturating_sub(waited);
        if left == 0 && !publish.dup {
            return Err(format!("{name} had expired when the connection began"));
        }
        if publish.expiry.is_some_and(|told| told == 0 || u64::from(told) * 1000 > left + 1000) {
            return Err(format!("{name} has at most {left} ms left"));
        }
        Ok(())
    }
}

impl Session {
    /// The highest QoS of the plain subscriptions that match.
    fn qos_of(&self, topic: &str, counts: impl Fn(Subscribed) -> bool) -> Option<u8> {
        let matching = self.subscriptions.iter().filter(|(filter, _)| matches(filter, topic));
        matching.filter(|(_, known)| counts(known.state)).map(|(_, known)| known.qos).max()
    }

    /// The highest QoS of all that match and were asked for, shared ones as well.
    fn qos_of_any(&self, topic: &str) -> Option<u8> {
        let plain = |filter: &str| filter.strip_prefix(SHARE).unwrap_or(filter).to_owned();
        let matching = self.subscriptions.iter().filter(|(filter, _)| matches(&plain(filter), topic));
        matching.map(|(_, known)| known.qos).max()
    }

    fn judge_copies(
        &mut self,
        name: &str,
        number: usize,
        message: &Message,
        publish: &Publish,
        is_shared: bool,
    ) -> Verdict {
        let got = self.got.entry(number).or_default();
        got.copies += 1;
        got.originals += usize::from(!publish.dup);
        if publish.qos == 2 && got.copies > message.originals() {
            return Err(format!("{name} comes {} times with QoS 2", got.copies));
        }
        // What a member of a group has not acknowledged is new to the next one.
        if got.originals > message.originals() && !is_shared {
            let (sends, times) = (message.originals(), got.originals);
            return Err(format!("{name}, sent {sends} times, comes {times} times without DUP"));
        }
        Ok(())
    }

    /// First copies come in the order in which they were published.
    fn judge_order(&mut self, name: &str, number: usize, message: &Message, publish: &Publish) -> Verdict {
        // What was not owed when it was first sent may have passed, was refused, has expired or became a dead letter,
        // and comes when it is sent again.
        let gave_way = message.may_be_refused || message.expiry.is_some() || self.is_short;
        let passed = gave_way || !self.owed.contains_key(&number);
        let came_late = message.sends > 1 && passed;
        if message.is_will || came_late || self.got.get(&number).is_some_and(|got| got.copies > 1) {
            return Ok(());
        }
        let stream = (message.publisher, message.topic.clone(), message.qos, publish.qos);
        match self.newest.insert(stream, number) {
            Some(newest) if newest > number => Err(format!("{name} comes after m{newest}")),
            _ => Ok(()),
        }
    }
}

/// The payload of a message: its number, and as many bytes as it shall have.
pub fn payload(number: usize, len: usize) -> String {
    format!("m{number};{}", "x".repeat(len))
}

/// The message that a payload belongs to.
pub fn number_of(payload: &str) -> Result<usize, String> {
    let number = payload.strip_prefix('m').and_then(|rest| rest.split(';').next()?.parse().ok());
    number.ok_or_else(|| format!("{payload:?} was published by nobody"))
}

/// Whether a filter matches a topic, as simply as it can be said.
fn matches(filter: &str, topic: &str) -> bool {
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(level), Some(name)) if level == name => {}
            _ => return false,
        }
    }
}
