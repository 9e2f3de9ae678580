//! A route as the switchboard sees it: filters that lead to a queue of its own.
//!
//! A route that is changed becomes a new [`Route`] with the queue of the old one. Both are in the index for a
//! moment, so that no message falls between them; whoever is found by both is owed a message once.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::matching::Target;
use super::{Broker, Subscription};
use crate::codec::SubscribeOptions;
use crate::config::{QueueConfig, RouteConfig};
use crate::record::{Addressee, Change, Lsn, Message, RecipientNo, Record};
use crate::store::{Backlog, Bell, StoreError, SubmitError};
use crate::topic::{TopicFilter, TopicName};

/// QoS 0 messages that wait in memory for the route's target, in as many bytes as an outbox has; more are dropped and
/// counted.
const UNSTORED_MAX: usize = 1024;

/// Which messages a route takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteFilters {
    /// A message that matches one of them is taken.
    pub topics: Vec<TopicFilter>,
    /// A message that matches one of them is not taken after all.
    pub exclude: Vec<TopicFilter>,
}

/// An internal subscriber: every message its filters match is owed to it, as to any durable session.
#[derive(Debug)]
pub struct Route {
    /// The name in the configuration.
    pub name: Box<str>,
    /// The target's name.
    pub target: Box<str>,
    /// The route's number in the store.
    pub recipient: RecipientNo,
    /// What the route is owed.
    pub backlog: Arc<Backlog>,
    /// How much that may be.
    pub queue: QueueConfig,
    /// Rung when there is something to deliver.
    pub bell: Arc<Bell>,
    /// Where its dead letters are published: the first level of their topics.
    pub dead_letter_topic: Option<Box<str>>,
    /// A file that they are appended to.
    pub dead_letter_file: Option<PathBuf>,
    pub(super) id: u64,
    filters: RouteFilters,
    inbox: Arc<Inbox>,
}

/// What stays when a route is changed.
#[derive(Debug, Default)]
struct Inbox {
    last_pushed: AtomicU64,
    /// QoS 0: one try, in memory only.
    unstored: Mutex<Unstored>,
    /// Messages that became dead letters since the start.
    dead_letters: AtomicU64,
}

/// Messages that wait in memory.
#[derive(Debug, Default)]
struct Unstored {
    messages: VecDeque<Message>,
    bytes: usize,
}

impl Route {
    /// The highest number that was given to the route. It is owed once the watermark has reached it.
    pub fn last_pushed(&self) -> Lsn {
        Lsn(self.inbox.last_pushed.load(Ordering::Acquire))
    }

    /// Takes a QoS 0 message that waits.
    pub fn take_unstored(&self) -> Option<Message> {
        let mut unstored = self.inbox.unstored.lock();
        let message = unstored.messages.pop_front()?;
        unstored.bytes -= message.size();
        Some(message)
    }

    /// Puts back what was taken and not sent: it is the oldest.
    pub fn put_back_unstored(&self, messages: Vec<Message>) {
        let mut unstored = self.inbox.unstored.lock();
        for message in messages.into_iter().rev() {
            unstored.bytes += message.size();
            unstored.messages.push_front(message);
        }
    }

    /// Whom a dead letter of this route was for.
    pub fn addressee(&self) -> Addressee {
        Addressee::Route { route: self.name.to_string(), target: self.target.to_string() }
    }

    /// How many of its messages became dead letters since the start.
    pub fn dead_letters(&self) -> u64 {
        self.inbox.dead_letters.load(Ordering::Relaxed)
    }

    /// Which messages it takes.
    pub fn filters(&self) -> &RouteFilters {
        &self.filters
    }

    /// The filters of its own that a topic matches; none when it excludes the topic.
    pub fn matching<'a>(&'a self, topic: &'a TopicName<'_>) -> impl Iterator<Item = &'a TopicFilter> {
        let taken = !self.excludes(topic);
        self.filters.topics.iter().filter(move |filter| taken && filter.matches(topic))
    }

    pub(super) fn excludes(&self, topic: &TopicName<'_>) -> bool {
        self.filters.exclude.iter().any(|filter| filter.matches(topic))
    }

    /// Notes a message that is stored for the route.
    pub(super) fn push(&self, lsn: Lsn) {
        self.inbox.last_pushed.fetch_max(lsn.0, Ordering::Release);
        self.bell.ring();
    }

    /// Gives the route a QoS 0 message; false when it has too many, or too many bytes of them.
    pub(super) fn push_unstored(&self, message: &Message, bytes_max: usize) -> bool {
        let mut unstored = self.inbox.unstored.lock();
        let has_room = unstored.messages.is_empty() || unstored.bytes + message.size() <= bytes_max;
        let fits = has_room && unstored.messages.len() < UNSTORED_MAX;
        if fits {
            unstored.bytes += message.size();
            unstored.messages.push_back(message.clone());
        }
        drop(unstored);
        self.bell.ring();
        fits
    }
}

impl Broker {
    /// Enters a route: from now on what its filters match is owed to it. A route of a name that the store
    /// knows goes on with its backlog.
    ///
    /// # Errors
    /// When the store has failed.
    pub fn add_route(&self, config: &RouteConfig, filters: RouteFilters) -> Result<Arc<Route>, StoreError> {
        let known = self.known_routes.lock().get(config.name.as_str()).copied();
        let (recipient, backlog) = match known {
            Some(recipient) => (recipient, self.store.backlog(recipient)),
            None => self.open_route(&config.name)?,
        };
        let (bell, inbox) = Default::default();
        let route = self.route_of(config, filters, (recipient, backlog, bell, inbox));
        self.enter_route(&route);
        self.routes.lock().push(Arc::clone(&route));
        Ok(route)
    }

    /// Gives a route other filters, another queue or another target. A message that both the old and the new
    /// filters match is never missed, and owed once.
    pub fn change_route(
        &self,
        route: &Arc<Route>,
        config: &RouteConfig,
        filters: RouteFilters,
    ) -> Arc<Route> {
        let kept =
            (route.recipient, Arc::clone(&route.backlog), Arc::clone(&route.bell), Arc::clone(&route.inbox));
        let changed = self.route_of(config, filters, kept);
        self.enter_route(&changed);
        // Between the two: the index is looked through in two steps, which may fall on either side of them.
        self.route_changes.fetch_add(1, Ordering::Release);
        self.leave_route(route);
        for known in self.routes.lock().iter_mut().filter(|known| Arc::ptr_eq(known, route)) {
            *known = Arc::clone(&changed);
        }
        changed
    }

    /// Closes a route for new messages. What it is owed stays; what waits in memory is dropped and counted. A
    /// publisher that has found the route just before can still owe it a message.
    pub fn close_route(&self, route: &Arc<Route>) {
        self.leave_route(route);
        self.routes.lock().retain(|known| !Arc::ptr_eq(known, route));
        let dropped = std::mem::take(&mut *route.inbox.unstored.lock());
        self.metrics.dropped.route_full.increment(dropped.messages.len() as u64);
    }

    /// Removes a route that is closed for good, with all that it is owed. Gives the number of the record that
    /// makes this durable; `None` when the store knows no such route.
    ///
    /// # Errors
    /// When the store has failed.
    pub fn discard_route(&self, name: &str) -> Result<Option<Lsn>, SubmitError> {
        let Some(recipient) = self.known_routes.lock().remove(name) else { return Ok(None) };
        Ok(Some(self.store.submit(Record::of([Change::Discarded(recipient)]))?.lsn))
    }

    /// The routes that messages are taken for.
    pub fn routes(&self) -> Vec<Arc<Route>> {
        self.routes.lock().clone()
    }

    /// Every route that the store knows, configured or not, and its number there.
    pub fn known_routes(&self) -> BTreeMap<Box<str>, RecipientNo> {
        self.known_routes.lock().clone()
    }

    /// Counts a dead letter at the route that it was for.
    pub(super) fn count_dead_letter(&self, addressee: &Addressee) {
        let Addressee::Route { route: name, .. } = addressee else { return };
        if let Some(route) = self.routes.lock().iter().find(|route| *route.name == **name) {
            route.inbox.dead_letters.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn route_of(
        &self,
        config: &RouteConfig,
        filters: RouteFilters,
        (recipient, backlog, bell, inbox): (RecipientNo, Arc<Backlog>, Arc<Bell>, Arc<Inbox>),
    ) -> Arc<Route> {
        Arc::new(Route {
            name: config.name.as_str().into(),
            target: config.target.as_str().into(),
            queue: config.queue,
            recipient,
            backlog,
            bell,
            dead_letter_topic: config.dead_letters.topic.as_deref().map(Into::into),
            dead_letter_file: config.dead_letters.file.clone(),
            id: self.new_id(),
            filters,
            inbox,
        })
    }

    fn enter_route(&self, route: &Arc<Route>) {
        let subscription = Subscription { options: SubscribeOptions::default(), id: None };
        for filter in &route.filters.topics {
            self.index.insert(filter, Target::Route(Arc::clone(route)), subscription);
        }
    }

    fn leave_route(&self, route: &Arc<Route>) {
        let target = Target::Route(Arc::clone(route));
        for filter in &route.filters.topics {
            self.index.remove(filter, &target);
        }
    }

    fn open_route(&self, name: &str) -> Result<(RecipientNo, Arc<Backlog>), StoreError> {
        let (recipient, backlog) = self.store.new_recipient();
        let opened = Change::RouteOpened(recipient, name.into());
        self.store.submit(Record::of([opened])).map_err(|e| StoreError::Failed(e.to_string()))?;
        self.known_routes.lock().insert(name.into(), recipient);
        Ok((recipient, backlog))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::auth::Authenticator;
    use crate::broker::matching::Matches;
    use crate::broker::tests::{LIMITS, STORE};
    use crate::codec::Qos;
    use crate::record::{MessageParts, UnixMillis};
    use crate::store::Store;
    use crate::telemetry::Metrics;

    #[test]
    fn what_waits_in_memory_has_few_bytes_however_few_messages_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (store, recovered) = Store::open(folder.path(), &STORE).unwrap();
        let auth = Arc::new(Authenticator::load(Default::default()).unwrap());
        let broker = Broker::new(store, recovered, auth, Arc::new(Metrics::new()), LIMITS);
        let route = broker.add_route(&RouteConfig::new("r", "#", "target"), RouteFilters::default()).unwrap();
        let parts = MessageParts {
            qos: Qos::AtMostOnce,
            retain: false,
            published_at: UnixMillis(0),
            expires_at: UnixMillis::NEVER,
            topic: "t",
            properties: b"",
            payload: &[0; 1000],
            publisher: "p",
        };
        let message = Message::new(&parts, &mut Vec::new());
        let bytes_max = 3 * message.size();
        let push = || (0..9).filter(|_| route.push_unstored(&message, bytes_max)).count();
        assert_eq!(push(), 3);
        let taken = route.take_unstored().into_iter().collect();
        assert_eq!(push(), 1);
        route.put_back_unstored(taken);
        assert_eq!(push(), 0);
        while route.take_unstored().is_some() {}
        assert!(route.push_unstored(&message, 1), "one always, however large");
        broker.store.close();
    }

    #[test]
    fn a_route_that_is_changed_is_found_at_every_moment() {
        let folder = tempfile::tempdir().unwrap();
        let (store, recovered) = Store::open(folder.path(), &STORE).unwrap();
        let auth = Arc::new(Authenticator::load(Default::default()).unwrap());
        let broker = Broker::new(store, recovered, auth, Arc::new(Metrics::new()), LIMITS);
        let filters = |filter: &str| RouteFilters {
            topics: vec![TopicFilter::parse(filter, 9).unwrap()],
            exclude: Vec::new(),
        };
        // Each in another shard of the index.
        let places = ["+/1", "t/#"];
        let config = RouteConfig::new("r", places[0], "target");
        let mut route = broker.add_route(&config, filters(places[0])).unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let topic = TopicName::parse("t/1", 9).unwrap();
                let mut matches = Matches::default();
                while !is_over.load(Ordering::Relaxed) {
                    matches.find(&broker, &topic, None);
                    assert_eq!(matches.routes.len(), 1, "missed, or owed twice");
                }
            });
            for round in 1..20_000 {
                route = broker.change_route(&route, &config, filters(places[round % 2]));
            }
            is_over.store(true, Ordering::Relaxed);
        });
        broker.store.close();
    }
}
