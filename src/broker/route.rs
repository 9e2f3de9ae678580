//! A route as the switchboard sees it: filters that lead to a queue of its own.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::matching::Target;
use super::{Broker, Subscription};
use crate::codec::SubscribeOptions;
use crate::config::{QueueConfig, RouteConfig};
use crate::record::{Addressee, Change, Lsn, Message, RecipientNo, Record};
use crate::store::{Backlog, Bell, StoreError};
use crate::topic::{TopicFilter, TopicName};

/// QoS 0 messages that wait in memory for the route's target; more are dropped and counted.
const UNSTORED_MAX: usize = 1024;

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
    pub(super) id: u64,
    exclude: Vec<TopicFilter>,
    last_pushed: AtomicU64,
    /// QoS 0: one try, in memory only.
    unstored: Mutex<VecDeque<Message>>,
}

impl Route {
    /// The highest number that was given to the route. It is owed once the watermark has reached it.
    pub fn last_pushed(&self) -> Lsn {
        Lsn(self.last_pushed.load(Ordering::Acquire))
    }

    /// Takes a QoS 0 message that waits.
    pub fn take_unstored(&self) -> Option<Message> {
        self.unstored.lock().pop_front()
    }

    /// Whom a dead letter of this route was for.
    pub fn addressee(&self) -> Addressee {
        Addressee::Route { route: self.name.to_string(), target: self.target.to_string() }
    }

    pub(super) fn excludes(&self, topic: &TopicName<'_>) -> bool {
        self.exclude.iter().any(|filter| filter.matches(topic))
    }

    /// Notes a message that is stored for the route.
    pub(super) fn push(&self, lsn: Lsn) {
        self.last_pushed.fetch_max(lsn.0, Ordering::Release);
        self.bell.ring();
    }

    /// Gives the route a QoS 0 message; false when it has too many.
    pub(super) fn push_unstored(&self, message: &Message) -> bool {
        let mut unstored = self.unstored.lock();
        let fits = unstored.len() < UNSTORED_MAX;
        if fits {
            unstored.push_back(message.clone());
        }
        drop(unstored);
        self.bell.ring();
        fits
    }
}

impl Broker {
    /// Enters a route: from now on what its filters match is owed to it. A route that was there before the
    /// start keeps its backlog.
    ///
    /// # Errors
    /// When the store has failed.
    pub fn add_route(
        &self,
        config: &RouteConfig,
        filters: &[TopicFilter],
        exclude: Vec<TopicFilter>,
        known: Option<RecipientNo>,
    ) -> Result<Arc<Route>, StoreError> {
        let (recipient, backlog) = match known {
            Some(recipient) => (recipient, self.store.backlog(recipient)),
            None => self.open_route(&config.name)?,
        };
        let route = Arc::new(Route {
            name: config.name.as_str().into(),
            target: config.target.as_str().into(),
            queue: config.queue,
            recipient,
            last_pushed: AtomicU64::new(0),
            backlog,
            bell: Arc::new(Bell::default()),
            id: self.new_id(),
            exclude,
            unstored: Mutex::default(),
        });
        let subscription = Subscription { options: SubscribeOptions::default(), id: None };
        for filter in filters {
            self.index.insert(filter, Target::Route(Arc::clone(&route)), subscription);
        }
        self.routes.lock().push(Arc::clone(&route));
        Ok(route)
    }

    /// The routes, in the order of the configuration.
    pub fn routes(&self) -> Vec<Arc<Route>> {
        self.routes.lock().clone()
    }

    fn open_route(&self, name: &str) -> Result<(RecipientNo, Arc<Backlog>), StoreError> {
        let (recipient, backlog) = self.store.new_recipient();
        let opened = Change::RouteOpened(recipient, name.into());
        self.store.submit(Record::of([opened])).map_err(|e| StoreError::Failed(e.to_string()))?;
        Ok((recipient, backlog))
    }
}
