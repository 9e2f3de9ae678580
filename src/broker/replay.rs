//! A dead letter that is delivered after all: the same message, owed again to the one it was for.

use super::Broker;
use super::matching::Matches;
use super::publish::Routed;
use super::slot::Touched;
use crate::record::{Addressee, Change, DeadLetter, Lsn, Message, MessageParts, UnixMillis};
use crate::session::Receipt;
use crate::topic::TopicName;

/// Why a dead letter cannot be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The route is not configured.
    #[error("route \"{0}\" is not configured any more: add [[routes]] with this name, then replay")]
    RouteGone(String),
    /// The session has ended, or has no subscription that matches with QoS 1 or 2.
    #[error(
        "client \"{0}\" has no durable session with a subscription that matches: let it connect and \
         subscribe, then replay"
    )]
    SessionGone(String),
    /// There is no room where it would wait.
    #[error("the queue it would wait in is full: replay again when it is shorter")]
    QueueFull,
    /// The store took nothing.
    #[error("the store takes no message now: the disk is nearly full, or the store has failed")]
    Refused,
}

impl Broker {
    /// Owes the message of a dead letter to its addressee again, and removes the letter, in one record
    /// whose number is given. The message counts as published now: its age and its expiry begin anew. A
    /// target sees the idempotency key that it knows the message by.
    ///
    /// # Errors
    /// When the addressee is gone or has no room, or the store refuses. Nothing has changed then.
    pub fn owe_again(&self, id: Lsn, letter: &DeadLetter) -> Result<Lsn, ReplayError> {
        let message = published_now(&letter.message, self.clock.now());
        let matches = self.addressees(letter)?;
        let plan = self.plan(&matches, &message);
        if !plan.full.is_empty() || plan.gives_up {
            return Err(ReplayError::QueueFull);
        }
        if plan.legs.is_empty() {
            return Err(gone(&letter.addressee));
        }
        let origin = Some(letter.message_no).filter(|number| *number != Lsn::ZERO);
        let changes = vec![Change::DeadLettersDiscarded(vec![id])];
        let routed = Routed { changes, origin, ..Routed::of(message) };
        let mut touched = Touched::default();
        let receipt = self.route(&matches, routed, &mut touched);
        touched.ring();
        match receipt {
            Receipt::SafeAt(lsn, _) => Ok(lsn),
            Receipt::SafeWith(entry, _) => Ok(entry.lsn),
            Receipt::Safe(_) | Receipt::Refused(_) => Err(ReplayError::Refused),
        }
    }

    /// A route is found by its name, whatever its filters are by now. A session gets what its
    /// subscriptions of now allow.
    fn addressees(&self, letter: &DeadLetter) -> Result<Matches, ReplayError> {
        let mut matches = Matches::default();
        match &letter.addressee {
            Addressee::Route { route, .. } => {
                matches.routes.extend(self.routes().into_iter().find(|known| *known.name == **route));
            }
            Addressee::Session { client_id } => {
                let topic = TopicName::parse(letter.message.topic(), u16::MAX);
                matches.find(self, &topic.map_err(|_| gone(&letter.addressee))?, None);
                matches.routes.clear();
                // One letter is one copy; the others had places, or letters, of their own.
                matches.again.clear();
                matches.sessions.retain(|session| *session.slot.client_id == **client_id);
                matches.groups.retain(|group| *group.name == **client_id);
            }
        }
        if matches.is_empty() { Err(gone(&letter.addressee)) } else { Ok(matches) }
    }
}

fn gone(addressee: &Addressee) -> ReplayError {
    match addressee {
        Addressee::Route { route, .. } => ReplayError::RouteGone(route.clone()),
        Addressee::Session { client_id } => ReplayError::SessionGone(client_id.clone()),
    }
}

/// The message with the time to live that it had when it was published.
fn published_now(message: &Message, now: UnixMillis) -> Message {
    let head = message.head();
    let parts = MessageParts {
        qos: head.qos,
        retain: head.retain,
        published_at: now,
        expires_at: match head.expires_at {
            UnixMillis::NEVER => UnixMillis::NEVER,
            at => now.plus(at.since(head.published_at)),
        },
        topic: message.topic(),
        properties: message.properties(),
        payload: message.payload(),
        // As it came: with the user name, if there is one.
        publisher: std::str::from_utf8(message.publisher_bytes()).unwrap_or_default(),
    };
    Message::new(&parts, &mut Vec::new())
}
