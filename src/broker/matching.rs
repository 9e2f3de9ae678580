//! Who gets a message: matches of a topic, and a small memory of them for each publisher.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use foldhash::fast::FixedState;

use super::groups::Group;
use super::{Broker, Route, Slot, Source, Subscription};
use crate::codec::Qos;
use crate::record::SubscriptionIds;
use crate::topic::{Stamp, TopicName};

/// Topics whose matches a publisher remembers.
const REMEMBERED: usize = 8;

/// Matching sessions that are remembered for a topic from one batch to the next.
const REMEMBERED_SESSIONS_MAX: usize = 1024;

/// Further copies that are remembered: those of clients whose subscriptions overlap a little.
const REMEMBERED_COPIES_MAX: usize = 16;

/// Above so many matching sessions, those of one client are found by hash instead of by looking.
const LOOKED_THROUGH_MAX: usize = 16;

/// What a subscription in the index leads to.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// A session.
    Session(Arc<Slot>),
    /// A shared group.
    Group(Arc<Group>),
    /// A route to an HTTP target.
    Route(Arc<Route>),
}

/// A session that a topic matches, by one or several subscriptions: one copy with the highest QoS and all
/// identifiers [MQTT-3.3.4-2] [MQTT-3.3.4-4].
#[derive(Clone, Debug)]
pub(super) struct SessionMatch {
    pub(super) slot: Arc<Slot>,
    pub(super) qos: Qos,
    pub(super) retain_as_published: bool,
    pub(super) ids: SubscriptionIds,
}

/// Everyone that a topic matches.
#[derive(Debug, Default)]
pub(super) struct Matches {
    pub(super) sessions: Vec<SessionMatch>,
    pub(super) groups: Vec<Arc<Group>>,
    pub(super) routes: Vec<Arc<Route>>,
    /// For sessions that get one copy for each subscription that matches: who gets a second one, a third one,
    /// and so on. A list, and none in another: how many there are is the subscribers' choice.
    pub(super) again: Vec<Self>,
}

/// The matches of the topics a connection publishes to. It holds slots, never connections, so that it stays
/// right over reconnects.
#[derive(Debug, Default)]
pub(super) struct MatchMemory {
    places: Vec<Place>,
}

#[derive(Debug, Default)]
struct Place {
    topic: String,
    stamp: Option<Stamp>,
    rights_version: u64,
    allowed: bool,
    matches: Matches,
}

impl MatchMemory {
    /// Forgets the matches that are many: each publisher would hold a list of all subscribers.
    pub(super) fn forget_large(&mut self) {
        let is_large = |place: &&mut Place| {
            let Matches { sessions, again, .. } = &place.matches;
            sessions.capacity() > REMEMBERED_SESSIONS_MAX || again.len() > REMEMBERED_COPIES_MAX
        };
        self.places.iter_mut().filter(is_large).for_each(|place| *place = Place::default());
    }

    /// The matches of a topic, remembered or looked up, and whether the publisher may publish there.
    pub(super) fn look_up(
        &mut self,
        broker: &Broker,
        source: &Source<'_>,
        topic: &TopicName<'_>,
    ) -> (&Matches, bool) {
        if self.places.is_empty() {
            self.places.resize_with(REMEMBERED, Place::default);
        }
        let hash = FixedState::default().hash_one(topic.as_str()) as usize;
        let index = hash % self.places.len();
        let place = &mut self.places[index];
        // Before the matching: what changes meanwhile makes the memory void.
        let stamp = broker.index.stamp(topic);
        let same_topic = place.topic == topic.as_str();
        let rights_version = source.rights.version();
        if !same_topic || place.rights_version != rights_version || place.stamp.is_none() {
            place.allowed = source.rights.may_publish(topic);
            place.rights_version = rights_version;
        }
        if !same_topic || place.stamp != Some(stamp) {
            place.topic.clear();
            place.topic.push_str(topic.as_str());
            place.stamp = Some(stamp);
            place.matches.find(broker, topic, Some(source.slot));
        }
        (&place.matches, place.allowed)
    }
}

impl SessionMatch {
    fn new(slot: &Arc<Slot>, subscription: &Subscription) -> Self {
        Self {
            slot: Arc::clone(slot),
            qos: subscription.options.qos,
            retain_as_published: subscription.options.retain_as_published,
            ids: subscription.id.into_iter().collect(),
        }
    }
}

impl Matches {
    /// Finds everyone the topic matches, in place of who was in here. `publisher` is left out where it asked
    /// for No Local [MQTT-3.8.3-3].
    pub(super) fn find(&mut self, broker: &Broker, topic: &TopicName<'_>, publisher: Option<&Slot>) {
        loop {
            let changes = broker.route_changes.load(Ordering::Acquire);
            self.look(broker, topic, publisher);
            // A route that moves from one filter to another meanwhile may have been at neither.
            if broker.route_changes.load(Ordering::Acquire) == changes {
                return;
            }
        }
    }

    fn look(&mut self, broker: &Broker, topic: &TopicName<'_>, publisher: Option<&Slot>) {
        self.sessions.clear();
        self.groups.clear();
        self.routes.clear();
        self.again.clear();
        let is_publisher = |slot: &Slot| publisher.is_some_and(|publisher| publisher.id == slot.id);
        let is_merged = broker.limits.merge_overlapping;
        let mut by_slot = HashMap::new();
        broker.index.for_each_match(topic, |target, subscription| match target {
            Target::Session(slot) if subscription.options.no_local && is_publisher(slot) => {}
            Target::Session(slot) if is_merged => self.add_session(slot, subscription, &mut by_slot),
            Target::Session(slot) => self.sessions.push(SessionMatch::new(slot, subscription)),
            Target::Group(group) => self.groups.push(Arc::clone(group)),
            // While a route is changed, it is here with its old filters and with its new ones.
            Target::Route(route) => {
                let is_known = self.routes.iter().any(|known| known.recipient == route.recipient);
                if !is_known && !route.excludes(topic) {
                    self.routes.push(Arc::clone(route));
                }
            }
        });
        if !is_merged {
            self.split_copies();
        }
    }

    /// Leaves each session here once, by the subscription with the highest QoS, and moves the others on: the
    /// first copy is the one that is promised [MQTT-3.3.4-2].
    fn split_copies(&mut self) {
        let mut copies = HashMap::<u64, usize>::new();
        let mut sessions = std::mem::take(&mut self.sessions);
        sessions.sort_by_key(|session| std::cmp::Reverse(session.qos));
        for session in sessions {
            let copy = copies.entry(session.slot.id).or_default();
            let matches = match copy.checked_sub(1) {
                None => &mut *self,
                Some(further) => {
                    self.again.resize_with(self.again.len().max(further + 1), Self::default);
                    &mut self.again[further]
                }
            };
            matches.sessions.push(session);
            *copy += 1;
        }
    }

    /// Adds a subscription of a session that may be in here already. `by_slot` has the places of all sessions
    /// once they are too many to look through.
    fn add_session(
        &mut self,
        slot: &Arc<Slot>,
        subscription: &Subscription,
        by_slot: &mut HashMap<u64, usize>,
    ) {
        let known = if self.sessions.len() <= LOOKED_THROUGH_MAX {
            self.sessions.iter().position(|session| session.slot.id == slot.id)
        } else {
            if by_slot.is_empty() {
                by_slot.extend(self.sessions.iter().enumerate().map(|(at, session)| (session.slot.id, at)));
            }
            by_slot.get(&slot.id).copied()
        };
        if let Some(session) = known.and_then(|at| self.sessions.get_mut(at)) {
            session.qos = session.qos.max(subscription.options.qos);
            session.retain_as_published |= subscription.options.retain_as_published;
            session.ids.extend(subscription.id);
            return;
        }
        if !by_slot.is_empty() {
            by_slot.insert(slot.id, self.sessions.len());
        }
        self.sessions.push(SessionMatch::new(slot, subscription));
    }

    /// Whether nobody at all matches.
    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.groups.is_empty() && self.routes.is_empty()
    }
}

impl Target {
    fn id(&self) -> u64 {
        match self {
            Self::Session(slot) => slot.id,
            Self::Group(group) => group.id,
            Self::Route(route) => route.id,
        }
    }
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for Target {}

impl Hash for Target {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}
