//! What was published and received, and what must be true of it at every moment.

use std::collections::BTreeMap;

use super::packets::Publish;

/// What went wrong, in words.
pub type Verdict = Result<(), String>;

/// A message as its publisher knows it.
#[derive(Clone, Debug)]
pub struct Message {
    pub publisher: usize,
    pub topic: String,
    pub qos: u8,
    pub retain: bool,
    /// How often its PUBLISH was sent.
    pub sends: usize,
    /// PUBACK or PUBREC has come, with success.
    pub is_acknowledged: bool,
    /// It was refused.
    pub is_refused: bool,
}

/// What a client's session is owed, and was given. It begins anew when the session does.
#[derive(Clone, Debug, Default)]
struct Session {
    is_durable: bool,
    subscriptions: BTreeMap<String, Subscription>,
    /// By message: the QoS it has to come with.
    owed: BTreeMap<usize, u8>,
    got: BTreeMap<usize, Got>,
    /// The newest message that has come of a publisher, on a topic, with a QoS at both ends.
    newest: BTreeMap<(usize, String, u8, u8), usize>,
}

#[derive(Clone, Copy, Debug)]
struct Subscription {
    qos: u8,
    state: Subscribed,
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

/// Everything that happened between the clients and the broker.
#[derive(Debug)]
pub struct History {
    pub messages: Vec<Message>,
    sessions: Vec<Session>,
}

impl History {
    /// Of clients with durable sessions, or not.
    pub fn new(are_durable: impl Iterator<Item = bool>) -> Self {
        let session = |is_durable| Session { is_durable, ..Session::default() };
        Self { messages: Vec::new(), sessions: are_durable.map(session).collect() }
    }

    /// A PUBLISH is about to be sent for the first time. From now on every session that has the SUBACK is owed it.
    pub fn published(&mut self, publisher: usize, topic: &str, qos: u8, retain: bool) -> usize {
        let number = self.messages.len();
        self.messages.push(Message {
            publisher,
            topic: topic.to_owned(),
            qos,
            retain,
            sends: 1,
            is_acknowledged: false,
            is_refused: false,
        });
        for session in &mut self.sessions {
            let granted = session.qos_of(topic, |state| state == Subscribed::Granted);
            if let Some(qos) = granted.map(|granted| granted.min(qos)).filter(|qos| *qos > 0) {
                session.owed.insert(number, qos);
            }
        }
        number
    }

    /// The broker has the message, or does not want it.
    pub fn acknowledged(&mut self, number: usize, reason: u8) -> Verdict {
        let message = &mut self.messages[number];
        if reason >= 0x80 {
            message.is_refused = !message.is_acknowledged;
            return Ok(());
        }
        message.is_acknowledged = true;
        // Of a session that is not durable only the broker knows when it ends.
        let mut durable = self.sessions.iter().filter(|session| session.is_durable);
        let is_owed = durable.any(|session| session.owed.contains_key(&number));
        if reason == 0x10 && is_owed {
            return Err(format!("m{number}: no matching subscribers, and somebody is owed it"));
        }
        Ok(())
    }

    /// A session begins: nothing is owed from before.
    pub fn session_begins(&mut self, client: usize) {
        let session = &mut self.sessions[client];
        *session = Session { is_durable: session.is_durable, ..Session::default() };
    }

    pub fn subscription(&mut self, client: usize, filter: &str, qos: u8, state: Subscribed) {
        let session = &mut self.sessions[client];
        session.subscriptions.insert(filter.to_owned(), Subscription { qos, state });
        if state == Subscribed::Left {
            let messages = &self.messages;
            session.owed.retain(|number, _| !matches(filter, &messages[*number].topic));
        }
    }

    /// A client was given a message; repeats under an open QoS 2 identifier are none.
    pub fn received(&mut self, client: usize, publish: &Publish) -> Verdict {
        let number = number_of(&publish.payload)?;
        let Some(message) = self.messages.get(number) else {
            return Err(format!("m{number} out of nowhere"));
        };
        let session = &mut self.sessions[client];
        let name = format!("c{client}: m{number} ({publish:?})");
        if publish.topic != message.topic {
            return Err(format!("{name} was published to {}", message.topic));
        }
        let granted = session.qos_of(&message.topic, |_| true);
        if granted.is_none_or(|granted| publish.qos > granted.min(message.qos)) {
            return Err(format!("{name} was asked for with {granted:?} and published with {}", message.qos));
        }
        if session.owed.get(&number).is_some_and(|qos| publish.qos < *qos) {
            return Err(format!("{name} is owed with a higher QoS"));
        }
        if message.is_refused && message.sends == 1 {
            return Err(format!("{name} was refused"));
        }
        session.judge_copies(&name, number, message, publish)?;
        session.judge_order(&name, number, message, publish)
    }

    /// What is acknowledged and has not come to everyone who is owed it.
    pub fn missing(&self) -> Vec<String> {
        let missing = |(client, session): (usize, &Session)| {
            let numbers = session.owed.keys().filter(|number| !session.got.contains_key(number));
            let numbers: Vec<_> =
                numbers.filter(|number| self.messages[**number].is_acknowledged).copied().collect();
            (!numbers.is_empty()).then(|| format!("c{client} has not got {numbers:?}"))
        };
        self.sessions.iter().enumerate().filter_map(missing).collect()
    }
}

impl Session {
    /// The highest QoS that was asked for with a filter that matches.
    fn qos_of(&self, topic: &str, counts: impl Fn(Subscribed) -> bool) -> Option<u8> {
        let matching = self.subscriptions.iter().filter(|(filter, _)| matches(filter, topic));
        matching.filter(|(_, known)| counts(known.state)).map(|(_, known)| known.qos).max()
    }

    fn judge_copies(&mut self, name: &str, number: usize, message: &Message, publish: &Publish) -> Verdict {
        let got = self.got.entry(number).or_default();
        got.copies += 1;
        got.originals += usize::from(!publish.dup);
        if publish.qos == 2 && got.copies > 1 {
            return Err(format!("{name} comes {} times with QoS 2", got.copies));
        }
        // A QoS 1 PUBLISH that is sent again is another message to the broker.
        let sends = if message.qos == 2 { 1 } else { message.sends };
        if got.originals > sends {
            return Err(format!("{name}, sent {sends} times, comes {} times without DUP", got.originals));
        }
        Ok(())
    }

    /// First copies come in the order in which they were published.
    fn judge_order(&mut self, name: &str, number: usize, message: &Message, publish: &Publish) -> Verdict {
        // What was not owed when it was first sent may have passed, and come when it was sent again.
        let came_late = message.sends > 1 && !self.owed.contains_key(&number);
        if came_late || self.got.get(&number).is_some_and(|got| got.copies > 1) {
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

fn number_of(payload: &str) -> Result<usize, String> {
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
