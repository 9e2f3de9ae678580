//! The bridge as a whole: it enters the routes of the configuration and has a task for each.
//!
//! Invariant: every task that is started here is joined by [`Bridge::shutdown`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::client::ClientError;
use super::delivery::target::Target;
use super::delivery::worker::{Stop, Worker};
use super::delivery::{Monitor, RouteState, TargetState};
use super::policy::breaker::State;
use super::request::Shape;
use crate::broker::{Broker, Route};
use crate::config::{Config, RouteConfig};
use crate::record::{Lsn, RecipientNo};
use crate::store::{Store, StoreError, SubmitError};
use crate::topic::{TopicError, TopicFilter};

/// How often the gauges of the backlogs are set.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);

/// Why the bridge cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// The client of a target cannot be made.
    #[error("target \"{target}\": {error}")]
    Target {
        /// Its name, as in the configuration.
        target: String,
        /// What its TLS settings lack.
        error: ClientError,
    },
    /// A route names a target that there is none of.
    #[error("route \"{route}\" names target \"{target}\", but there is no [targets.{target}]")]
    NoTarget {
        /// Its name, as in the configuration.
        route: String,
        /// What it says in `target`.
        target: String,
    },
    /// A filter of a route is none.
    #[error("route \"{route}\": topic filter \"{filter}\": {error}")]
    Filter {
        /// Its name, as in the configuration.
        route: String,
        /// As in the configuration.
        filter: String,
        /// Which rule of topic filters it breaks.
        error: TopicError,
    },
    /// A route cannot be entered in the store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All routes, each with the task that carries its messages.
pub struct Bridge {
    store: Store,
    lines: Arc<Vec<Line>>,
    stop: watch::Sender<Option<Instant>>,
    tasks: Mutex<JoinSet<()>>,
}

/// A route, where it leads, and what is known of it.
struct Line {
    route: Arc<Route>,
    target: Arc<Target>,
    monitor: Arc<Monitor>,
}

impl Bridge {
    /// Enters the routes, in the order of the configuration, and starts to carry what they are owed. Comes
    /// before the first client is let in, so that no message misses its route. `known` are the routes that
    /// the store has: one of the same name goes on with its backlog. Reads certificate authorities from
    /// disk, so it blocks; needs a runtime of Tokio.
    ///
    /// # Errors
    /// When a target's client cannot be made, or the store has failed.
    pub fn start(
        broker: &Arc<Broker>,
        config: &Config,
        known: &[(Box<str>, RecipientNo)],
    ) -> Result<Self, BridgeError> {
        let mut targets = BTreeMap::new();
        for (name, target) in &config.targets {
            let made = Target::new(name, target, broker);
            let made = made.map_err(|error| BridgeError::Target { target: name.clone(), error })?;
            made.remain_paused()?;
            targets.insert(name.as_str(), Arc::new(made));
        }
        let mut lines = Vec::with_capacity(config.routes.len());
        for route in &config.routes {
            let target = targets.get(route.target.as_str()).ok_or_else(|| BridgeError::NoTarget {
                route: route.name.clone(),
                target: route.target.clone(),
            })?;
            let known = known.iter().find(|(name, _)| **name == *route.name).map(|(_, number)| *number);
            let route = enter(broker, config, route, known)?;
            target.tell(&route.bell);
            let monitor = Arc::new(Monitor::new(&route.name));
            lines.push(Line { target: Arc::clone(target), route, monitor });
        }
        warn_of_abandoned(broker, config, known);
        let (stop, stopped) = watch::channel(None);
        let lines = Arc::new(lines);
        let mut tasks = JoinSet::new();
        for (Line { route, target, monitor }, config) in lines.iter().zip(&config.routes) {
            let shape = Shape::new(config, &target.config);
            tasks.spawn(Worker::new(broker, route, (target, shape), monitor, stopped.clone()).run());
        }
        tasks.spawn(measure(Arc::clone(&lines), stopped));
        Ok(Self { store: broker.store.clone(), lines, stop, tasks: Mutex::new(tasks) })
    }

    /// What each route is doing, in the order of the configuration. Blocks on the disk.
    pub fn states(&self) -> Vec<RouteState> {
        self.lines.iter().map(|line| line.state(&self.store)).collect()
    }

    /// What each target that a route leads to is doing, by name.
    pub fn targets(&self) -> Vec<TargetState> {
        self.by_name().values().map(|target| target.view()).collect()
    }

    /// Has nothing sent to a target until it is [resumed](Bridge::resume), also after a restart. Gives the record
    /// that has to be durable for that; `None` when no route leads to a target of this name.
    ///
    /// # Errors
    /// When the store has failed.
    pub fn pause(&self, target: &str, why: &str) -> Result<Option<Lsn>, SubmitError> {
        self.by_name().get(target).map(|target| target.pause(why)).transpose()
    }

    /// Ends a pause, as [`Bridge::pause`] begins one.
    ///
    /// # Errors
    /// When the store has failed.
    pub fn resume(&self, target: &str) -> Result<Option<Lsn>, SubmitError> {
        self.by_name().get(target).map(|target| target.resume()).transpose()
    }

    fn by_name(&self) -> BTreeMap<&str, &Arc<Target>> {
        self.lines.iter().map(|line| (&*line.target.name, &line.target)).collect()
    }

    /// Starts no attempt any more, and waits for those under way, so long at most: what is broken off then
    /// is carried again after the next start. What was settled is with the store when this returns.
    pub async fn shutdown(&self, within: Duration) {
        self.stop.send_replace(Some(Instant::now() + within));
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of the bridge has panicked");
            }
        }
    }
}

impl Line {
    fn state(&self, store: &Store) -> RouteState {
        let Self { route, target, monitor } = self;
        let url = &target.config.url;
        monitor.fill(RouteState {
            name: route.name.to_string(),
            target: route.target.to_string(),
            url: format!(
                "{}://{}{}",
                url.scheme_str().unwrap_or("http"),
                url.authority().map_or("", |authority| authority.as_str()),
                url.path()
            ),
            queued_messages: route.backlog.count(),
            queued_bytes: route.backlog.bytes(),
            queue: route.queue.into(),
            oldest: store.oldest(route.recipient).ok().flatten().map(|lsn| lsn.0),
            in_flight: 0,
            waiting_for_target: 0,
            waiting_for_retry: 0,
            breaker: match target.state() {
                State::Closed => "closed",
                State::Open => "open",
                State::HalfOpen => "half_open",
            },
            last_error: None,
            last_taken_at: None,
        })
    }
}

fn enter(
    broker: &Broker,
    config: &Config,
    route: &RouteConfig,
    known: Option<RecipientNo>,
) -> Result<Arc<Route>, BridgeError> {
    let parse = |filters: &[String]| -> Result<Vec<TopicFilter>, BridgeError> {
        let parsed = filters.iter().map(|filter| {
            TopicFilter::parse(filter, config.limits.topic_levels).map_err(|error| BridgeError::Filter {
                route: route.name.clone(),
                filter: filter.clone(),
                error,
            })
        });
        parsed.collect()
    };
    let (topics, exclude) = (parse(&route.topics)?, parse(&route.exclude)?);
    Ok(broker.add_route(route, &topics, exclude, known)?)
}

/// A route that is no longer configured keeps what it is owed: somebody may have renamed it by mistake.
fn warn_of_abandoned(broker: &Broker, config: &Config, known: &[(Box<str>, RecipientNo)]) {
    for (name, recipient) in known {
        let messages = broker.store.backlog(*recipient).count();
        if messages > 0 && !config.routes.iter().any(|route| *route.name == **name) {
            tracing::warn!(
                route = &**name,
                messages,
                "messages wait on disk for a route that is not configured any more: add [[routes]] with \
                 this name again to have them delivered; until then they stay where they are"
            );
        }
    }
}

/// Sets the gauges of the backlogs, which the store's writer changes whenever it commits.
async fn measure(lines: Arc<Vec<Line>>, mut stop: Stop) {
    let mut ticks = interval(MEASURE_INTERVAL);
    while stop.borrow().is_none() {
        tokio::select! {
            _ = ticks.tick() => lines.iter().for_each(|line| line.monitor.measure(&line.route.backlog)),
            _ = stop.changed() => {}
        }
    }
}
