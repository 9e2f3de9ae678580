//! A client that keeps to the specification, also over reconnects: it answers what it gets, in order and
//! sooner or later, and judges what it was given.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use causeway::codec::{Ack, Packet, PacketId, Publish, PublishProperties, Qos, ReasonCode};
use causeway::record::{RecipientNo, UnixMillis};

use super::store::Item;

/// What a client sends again until it is acknowledged.
#[derive(Clone, Debug)]
struct Sending {
    qos: Qos,
    payload: String,
    /// PUBREC has come.
    released: bool,
}

/// An answer that the client owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Puback(PacketId),
    Pubrec(PacketId),
    Pubrel(PacketId),
    Pubcomp(PacketId),
}

#[derive(Debug, Default)]
pub struct Client {
    sending: BTreeMap<u16, Sending>,
    /// Identifiers of QoS 2 messages that were not released.
    receiving: BTreeSet<u16>,
    answers: VecDeque<Answer>,
    /// Messages it was given, by number, with their QoS.
    got: BTreeMap<u64, Qos>,
    /// The last message of each owner and QoS that was given for the first time.
    newest: BTreeMap<(Option<RecipientNo>, Qos), u64>,
    /// Messages that were acknowledged to it as success.
    pub acknowledged: BTreeSet<String>,
    /// QoS 1 and 2 messages that it may still begin on this connection.
    quota: u16,
    quota_max: u16,
    /// What is still to be sent again on this connection.
    again: VecDeque<u16>,
    next: u64,
}

impl Answer {
    pub fn packet(self) -> Packet<'static> {
        let ack = |packet_id| Ack { packet_id, reason: ReasonCode::Success };
        match self {
            Self::Puback(id) => Packet::Puback(ack(id)),
            Self::Pubrec(id) => Packet::Pubrec(ack(id)),
            Self::Pubrel(id) => Packet::Pubrel(ack(id)),
            Self::Pubcomp(id) => Packet::Pubcomp(ack(id)),
        }
    }
}

impl Client {
    /// A new connection. The session is either the one from before, and what is open has to be sent again
    /// first, or both sides have forgotten it.
    pub fn connected(&mut self, session_present: bool, receive_maximum: u16) {
        self.answers.clear();
        (self.quota, self.quota_max) = (receive_maximum, receive_maximum);
        if !session_present {
            self.sending.clear();
            self.receiving.clear();
        }
        self.again = self.sending.keys().copied().collect();
    }

    /// The next identifier that is sent again. A PUBLISH waits for its place in the receiver's quota.
    pub fn next_again(&mut self) -> Option<u16> {
        let is_released = self.sending.get(self.again.front()?).is_none_or(|sending| sending.released);
        if is_released || self.quota > 0 { self.again.pop_front() } else { None }
    }

    /// Begins a message; gives its identifier. `None` when the receiver's quota is used up.
    pub fn begin(&mut self, qos: Qos) -> Option<u16> {
        let id = (1..=u16::MAX).find(|id| !self.sending.contains_key(id))?;
        if self.quota == 0 || self.sending.len() >= 20 || !self.again.is_empty() {
            return None;
        }
        self.next += 1;
        let payload = format!("{}-{}", qos as u8, self.next);
        self.sending.insert(id, Sending { qos, payload, released: false });
        Some(id)
    }

    /// Calls `send` with what goes out for an open message: its PUBLISH, or its PUBREL.
    pub fn send<R>(&mut self, id: u16, dup: bool, send: impl FnOnce(Packet<'_>) -> R) -> Option<R> {
        let packet_id = PacketId::new(id)?;
        let Sending { qos, payload, released } = self.sending.get(&id)?.clone();
        if released {
            return Some(send(Answer::Pubrel(packet_id).packet()));
        }
        self.quota = self.quota.checked_sub(1)?;
        let (packet_id, properties) = (Some(packet_id), PublishProperties::default());
        let payload = payload.as_bytes();
        let publish = Publish { dup, qos, retain: false, topic: "c", packet_id, properties, payload };
        Some(send(Packet::Publish(publish)))
    }

    /// The next answer it owes.
    pub fn answer(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    /// Takes a message of QoS 1 or 2. One of QoS 1 may have come before; then it says so by DUP.
    pub fn take_message(&mut self, id: PacketId, publish: &Publish<'_>, item: &Item) {
        let number = item.number;
        let qos = publish.qos;
        let is_new = qos == Qos::AtLeastOnce || self.receiving.insert(id.get());
        self.answers.push_back(if qos == Qos::AtLeastOnce { Answer::Puback(id) } else { Answer::Pubrec(id) });
        if !is_new {
            return;
        }
        let known = self.got.insert(number, qos).is_some();
        assert!(!known || (qos == Qos::AtLeastOnce && publish.dup), "message {number} of {qos:?} came again");
        // One that has expired while it waited for its identifier is repeated after a crash all the same: the
        // store has lost that it was never sent.
        if !known && item.expires_at == UnixMillis::NEVER {
            let newest = self.newest.entry((item.owner, qos)).or_default();
            assert!(*newest < number, "message {number} of {qos:?} came after {newest}");
            *newest = number;
        }
    }

    /// Takes an acknowledgement.
    pub fn take(&mut self, packet: &Packet<'_>) {
        match packet {
            Packet::Puback(ack) | Packet::Pubcomp(ack) => self.end(ack),
            Packet::Pubrec(ack) if ack.reason.is_error() => self.end(ack),
            Packet::Pubrec(ack) => {
                let known = self.sending.get_mut(&ack.packet_id.get()).expect("a PUBREC without its PUBLISH");
                known.released = true;
                self.answers.push_back(Answer::Pubrel(ack.packet_id));
            }
            Packet::Pubrel(ack) => {
                self.receiving.remove(&ack.packet_id.get());
                self.answers.push_back(Answer::Pubcomp(ack.packet_id));
            }
            _ => {}
        }
    }

    /// Whether it was given this message.
    pub fn has(&self, number: u64) -> bool {
        self.got.contains_key(&number)
    }

    /// Whether nothing is open on its side.
    pub fn is_idle(&self) -> bool {
        self.sending.is_empty() && self.receiving.is_empty() && self.answers.is_empty()
    }

    fn end(&mut self, ack: &Ack) {
        // A PUBREC that came twice was answered twice.
        let Some(ended) = self.sending.remove(&ack.packet_id.get()) else { return };
        // A PUBREL that was sent again took no place (section 4.9).
        self.quota = self.quota_max.min(self.quota.saturating_add(1));
        // A PUBCOMP may say that the identifier is not known any more: it was released before.
        if ended.released || !ack.reason.is_error() {
            self.acknowledged.insert(ended.payload);
        }
    }
}
