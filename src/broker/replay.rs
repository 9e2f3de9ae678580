//! A dead letter that is delivered after all: the same message, owed again to the one it was for.

use super::Broker;
use super::matching::Matches;
use super::publish::Routed;
use super::slot::Touched;
use crate::codec::{EncodeError, PropertyChanges};
use crate::record::{Addressee, Change, DeadLetter, Lsn, Message, UnixMillis};
use crate::session::Receipt;
use crate::topic::TopicName;

/// Why a dead letter cannot be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The route is not configured.
    #[error("route \"{0}\" is not configured: add [[routes]] with this name, then replay")]
    RouteGone(String),
    /// The session has ended, or has no subscription that matches with QoS 1 or 2.
    #[error(
        "client \"{0}\" has no durable session with a subscription that matches: let it connect and \
         subscribe, then replay"
    )]
    SessionGone(String),
    /// Nobody takes a message that nobody took.
    #[error(
        "no route and no durable session takes topic \"{0}\": add a route or a subscription, then replay"
    )]
    Unroutable(String),
    /// There is no room where it would wait.
    #[error("the queue it would wait in is full: replay again when it is shorter")]
    QueueFull,
    /// The properties that it was to have are none.
    #[error("the message cannot have these properties: {0}")]
    Properties(#[from] EncodeError),
    /// The store took nothing.
    #[error("the store takes no message now: the disk is nearly full, or the store has failed")]
    Refused,
}

/// What is different about a message when it is replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// The route that gets it, instead of the one it was for.
    pub to: Option<String>,
    /// Its properties.
    pub properties: PropertyChanges,
}

impl Broker {
    /// Owes the message of a dead letter to its addressee again, and removes the letter, in one record
    /// whose number is given. The message counts as published now: its age and its expiry begin anew. A
    /// target sees the idempotency key that it knows the message by.
    ///
    /// # Errors
    /// When the addressee is gone or has no room, or the store refuses. Nothing has changed then.
    pub fn owe_again(&self, id: Lsn, letter: &DeadLetter, replay: &Replay) -> Result<Lsn, ReplayError> {
        let mut message = published_now(&letter.message, self.clock.now());
        if !replay.properties.is_empty() {
            let properties = replay.properties.apply(message.properties())?;
            message = message.with(message.topic(), &properties);
        }
        let matches = self.addressees(letter, replay.to.as_deref())?;
        let plan = self.plan(&matches, &message);
        if !plan.full.is_empty() || plan.gives_up {
            return Err(ReplayError::QueueFull);
        }
        if plan.legs.is_empty() {
            return Err(gone(letter));
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
    /// subscriptions of now allow, and so does everyone when it was for nobody.
    fn addressees(&self, letter: &DeadLetter, to: Option<&str>) -> Result<Matches, ReplayError> {
        let mut matches = Matches::default();
        let route = match (to, &letter.addressee) {
            (Some(to), _) => Some(to),
            (None, Addressee::Route { route, .. }) => Some(route.as_str()),
            (None, _) => None,
        };
        if let Some(name) = route {
            let known = self.routes().into_iter().find(|known| *known.name == *name);
            matches.routes.push(known.ok_or_else(|| ReplayError::RouteGone(name.to_owned()))?);
            return Ok(matches);
        }
        let topic = TopicName::parse(letter.message.topic(), u16::MAX);
        matches.find(self, &topic.map_err(|_| gone(letter))?, None);
        // One letter is one copy; the others had places, or letters, of their own.
        matches.again.clear();
        if let Addressee::Session { client_id } = &letter.addressee {
            matches.routes.clear();
            matches.sessions.retain(|session| *session.slot.client_id == **client_id);
            matches.groups.retain(|group| *group.name == **client_id);
        }
        if matches.is_empty() { Err(gone(letter)) } else { Ok(matches) }
    }
}

fn gone(letter: &DeadLetter) -> ReplayError {
    match &letter.addressee {
        Addressee::Route { route, .. } => ReplayError::RouteGone(route.clone()),
        Addressee::Session { client_id } => ReplayError::SessionGone(client_id.clone()),
        Addressee::Nobody => ReplayError::Unroutable(letter.message.topic().to_owned()),
    }
}

/// The message with the time to live that it had when it was published.
fn published_now(message: &Message, now: UnixMillis) -> Message {
    let head = message.head();
    let expires_at = match head.expires_at {
        UnixMillis::NEVER => UnixMillis::NEVER,
        at => now.plus(at.since(head.published_at)),
    };
    message.at(now, expires_at)
}
