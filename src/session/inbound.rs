//! Messages from the client: aliases, the receive window, and the receiving side of QoS 1 and 2.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::aliases::InboundAliases;
use super::replies::{ReplyPacket, Wait};
use super::{Close, Session, Terms};
use crate::codec::{Ack, Publish, Qos, ReasonCode, Version};
use crate::record::Lsn;
use crate::store::{Entry, Progress};
use crate::topic::TopicName;

/// What is to be done with a PUBLISH.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// Route it, then tell the outcome with [`Session::published`].
    Route(Topic<'a>),
    /// Nothing: it is a repeat, or goes where clients do not publish. The reply is on its way.
    Nothing,
}

/// The topic of a PUBLISH, as sent or as its alias says.
#[derive(Debug)]
pub enum Topic<'a> {
    /// From the packet.
    Sent(&'a str),
    /// From the alias table.
    Alias(Arc<str>),
}

/// What became of a message that was handed to the broker.
#[derive(Clone, Debug)]
pub enum Receipt {
    /// Nothing of it needs the disk: it may be acknowledged at once.
    Safe(ReasonCode),
    /// It is safe when the watermark has reached this number.
    SafeAt(Lsn, ReasonCode),
    /// It is safe when the watermark has reached the record, or when everyone who was to get it has it.
    SafeWith(Arc<Entry>, ReasonCode),
    /// It was refused: nobody gets it.
    Refused(ReasonCode),
}

/// The receiving side.
#[derive(Debug)]
pub(super) struct Inbound {
    /// Open QoS 2 exchanges: packet identifier to the number that made it safe. Known from submit on, so
    /// that a repeat before the commit is not routed again.
    exchanges: HashMap<u16, Lsn, RandomState>,
    /// QoS 1 and 2 messages of this connection that are not fully acknowledged: the mirror of the client's
    /// send quota, which begins anew with each connection (section 4.9).
    open: u16,
    open_max: u16,
    aliases: InboundAliases,
}

impl Inbound {
    pub(super) fn new(terms: &Terms) -> Self {
        Self {
            exchanges: HashMap::default(),
            open: 0,
            open_max: terms.receive_maximum,
            aliases: InboundAliases::new(terms.topic_alias_in),
        }
    }

    pub(super) fn resume(&mut self, progress: &Progress) {
        self.exchanges = progress.inbound.iter().map(|id| (*id, Lsn::ZERO)).collect();
    }

    /// An exchange is over: the client may open another one.
    pub(super) fn closed(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    fn resolve<'a>(&mut self, publish: &Publish<'a>) -> Result<Topic<'a>, Close> {
        let Some(alias) = publish.properties.topic_alias else {
            return Ok(Topic::Sent(publish.topic));
        };
        let known = self.aliases.resolve(alias, publish.topic)?;
        Ok(known.map_or(Topic::Sent(publish.topic), Topic::Alias))
    }

    /// Whether the client has as many messages open as it may. Exchanges of earlier connections do not count
    /// against its quota, but no more of them are kept than one connection can leave.
    fn is_full(&self) -> bool {
        self.open >= self.open_max || self.exchanges.len() >= 2 * usize::from(self.open_max)
    }
}

impl Session {
    /// Judges a PUBLISH.
    ///
    /// # Errors
    /// When the client broke a rule that ends the connection.
    pub fn handle_publish<'a>(&mut self, publish: &Publish<'a>) -> Result<Incoming<'a>, Close> {
        self.offer.judge_message(publish.qos, publish.retain)?;
        let topic = self.inbound.resolve(publish)?;
        if TopicName::parse(&topic, self.topic_levels).is_err() {
            return Err(Close::because(ReasonCode::MalformedPacket, "the topic has too many levels"));
        }
        if let Some(packet_id) = publish.packet_id {
            if let Some(lsn) = self.inbound.exchanges.get(&packet_id.get()).copied()
                && publish.qos == Qos::ExactlyOnce
            {
                // [MQTT-4.3.3-10]
                let pubrec = ReplyPacket::Pubrec(packet_id, ReasonCode::Success);
                self.replies.push(Wait::For(lsn), pubrec);
                return Ok(Incoming::Nothing);
            }
            self.open_exchange()?;
        }
        if topic.starts_with('$') {
            // Clients do not publish where the broker speaks.
            self.published(publish, Receipt::Safe(ReasonCode::Success))?;
            return Ok(Incoming::Nothing);
        }
        Ok(Incoming::Route(topic))
    }

    /// Tells what became of a message that [`Session::handle_publish`] said to route.
    ///
    /// # Errors
    /// When it was refused and the client's version has no way to be told but the end of the connection.
    pub fn published(&mut self, publish: &Publish<'_>, receipt: Receipt) -> Result<(), Close> {
        let (wait, reason) = match receipt {
            Receipt::Safe(reason) => (Wait::NOTHING, reason),
            Receipt::SafeAt(lsn, reason) => (Wait::For(lsn), reason),
            Receipt::SafeWith(entry, reason) => (Wait::With(entry), reason),
            Receipt::Refused(reason) => (Wait::NOTHING, self.refusal(publish.qos, reason)?),
        };
        let Some(packet_id) = publish.packet_id else { return Ok(()) };
        if publish.qos == Qos::AtLeastOnce {
            self.replies.push(wait, ReplyPacket::Puback(packet_id, reason));
            return Ok(());
        }
        if !reason.is_error() {
            self.inbound.exchanges.insert(packet_id.get(), wait.number().unwrap_or_default());
        }
        self.replies.push(wait, ReplyPacket::Pubrec(packet_id, reason));
        Ok(())
    }

    /// Handles a PUBREL: the identifier is free again once that is durable [MQTT-4.3.3-11].
    pub fn handle_pubrel(&mut self, ack: Ack) {
        let packet_id = ack.packet_id;
        if self.inbound.exchanges.remove(&packet_id.get()).is_none() {
            let reason = ReasonCode::PacketIdentifierNotFound;
            return self.replies.push_now(ReplyPacket::Pubcomp(packet_id, reason));
        }
        let pubcomp = ReplyPacket::Pubcomp(packet_id, ReasonCode::Success);
        if self.durable.is_some() {
            self.report.released(packet_id);
            self.replies.push(Wait::Report, pubcomp);
        } else {
            self.replies.push_now(pubcomp);
        }
    }

    /// Whether the session has this inbound QoS 2 exchange open.
    #[cfg(test)]
    pub(super) fn has_inbound(&self, packet_id: crate::codec::PacketId) -> bool {
        self.inbound.exchanges.contains_key(&packet_id.get())
    }

    fn open_exchange(&mut self) -> Result<(), Close> {
        if self.version == Version::V5 && self.inbound.is_full() {
            return Err(Close::because(
                ReasonCode::ReceiveMaximumExceeded,
                "more QoS 1 and 2 messages are open than the Receive Maximum allows",
            ));
        }
        self.inbound.open = self.inbound.open.saturating_add(1);
        Ok(())
    }

    /// What a refused publisher is told. Before 5.0 a missing right is acknowledged like a success
    /// [MQTT-3.3.5-2]; anything else would be a promise that is not kept, so the connection ends.
    fn refusal(&self, qos: Qos, reason: ReasonCode) -> Result<ReasonCode, Close> {
        match (self.version, reason) {
            // The store has failed. That is for the next connection to try again, and no acknowledgement may say
            // otherwise: none has a reason code for it.
            (_, ReasonCode::ServerUnavailable) if qos > Qos::AtMostOnce => {
                Err(Close::because(reason, "the store has failed"))
            }
            (Version::V5, _) | (_, ReasonCode::NotAuthorized) => Ok(reason),
            _ if qos == Qos::AtMostOnce => Ok(reason),
            _ => Err(Close::because(reason, "the message was refused")),
        }
    }
}

impl Deref for Topic<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Sent(topic) => topic,
            Self::Alias(topic) => topic,
        }
    }
}
