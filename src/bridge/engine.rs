//! The bridge as a whole: the routes there are, the targets they lead to, and a task for each route.
//!
//! What is configured can change while it runs (`change`). A task is never replaced in haste: its successor
//! begins when the attempts in flight have ended and what they settled is durable, so that nothing is posted
//! twice without need. Routes that are not configured any more keep what they are owed (`removed`).
//!
//! Invariant: every task that is started here is joined by [`Bridge::shutdown`].

mod change;
mod explain;
mod removed;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use super::client::ClientError;
use super::delivery::target::Target;
use super::delivery::worker::{Job, Stop, Worker};
use super::delivery::{Monitor, RouteState, RouteStatus, TargetState};
use super::letters;
use crate::broker::{Broker, Route};
use crate::config::{Config, RouteConfig};
use crate::record::{Lsn, RecipientNo};
use crate::store::{Store, StoreError, SubmitError};
use crate::topic::TopicError;

pub use change::{Changed, Leftover, RemovedRoute};
pub use explain::ReachedRoute;
use removed::Removed;
pub use removed::RemovedError;

/// How often the gauges of the backlogs are set.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);

/// Why the bridge cannot start, or stays as it was.
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
    /// Routes are to go that are still owed messages, and nobody said what becomes of those.
    #[error("messages wait for routes that are not configured any more: {}", removed::list(.0))]
    Leftover(Vec<RemovedRoute>),
    /// A route cannot be entered in the store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The process is about to end.
    #[error("the broker is shutting down")]
    ShuttingDown,
}

/// All routes, each with the task that carries its messages.
pub struct Bridge {
    shared: Arc<Shared>,
    /// One change after the other.
    changing: Mutex<()>,
}

/// What the bridge and its tasks have in common.
struct Shared {
    broker: Arc<Broker>,
    lines: Mutex<Lines>,
    tasks: Mutex<JoinSet<()>>,
}

/// Who is there. What is decided about a route is decided under the lock of this.
#[derive(Default)]
struct Lines {
    targets: BTreeMap<String, Arc<Target>>,
    /// In the order of the configuration.
    active: Vec<Line>,
    /// Known to the store, and not configured.
    removed: BTreeMap<Box<str>, Removed>,
    /// What stops tasks that nobody else can stop, as long as they run.
    leaving: Vec<watch::Sender<Option<Instant>>>,
    is_shutting_down: bool,
}

/// A route, where it leads, what is known of it, and its task.
struct Line {
    config: Arc<RouteConfig>,
    route: Arc<Route>,
    target: Arc<Target>,
    monitor: Arc<Monitor>,
    task: Task,
}

/// A task that can be stopped, and waited for.
struct Task {
    stop: watch::Sender<Option<Instant>>,
    ended: Ended,
}

/// Says that a task has ended, however: its other side is dropped then.
type Ended = watch::Receiver<()>;

/// Dropped when a task ends, also by a panic. That is said at once: whatever it was for stands still.
struct Ending(#[expect(dead_code, reason = "that it is dropped is what counts")] watch::Sender<()>);

impl Drop for Ending {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(
                "a task of the bridge has panicked: its route stands still, and loses nothing, until \
                 `causeway reload` with other settings for it, or a restart"
            );
        }
    }
}

impl Bridge {
    /// Enters the routes, in the order of the configuration, and starts to carry what they are owed. Comes
    /// before the first client is let in, so that no message misses its route. One of a name that the store
    /// knows goes on with its backlog. Reads certificate authorities from disk, so it blocks; needs a runtime
    /// of Tokio.
    ///
    /// # Errors
    /// When a target's client cannot be made, or the store has failed.
    pub fn start(broker: &Arc<Broker>, config: &Config) -> Result<Self, BridgeError> {
        let shared = Shared { broker: Arc::clone(broker), lines: Mutex::default(), tasks: Mutex::default() };
        let bridge = Self { shared: Arc::new(shared), changing: Mutex::default() };
        bridge.shared.find_removed();
        bridge.change(config, Some(Leftover::Keep))?;
        bridge.shared.warn_of_removed();
        let mut lines = bridge.shared.lines.lock();
        let shared = Arc::clone(&bridge.shared);
        let measuring = bridge.shared.spawn(|stop| async move { shared.measure(stop).await });
        lines.leaving.push(measuring.stop);
        let broker = Arc::clone(broker);
        lines.leaving.push(bridge.shared.spawn(|stop| letters::file::run(broker, stop)).stop);
        drop(lines);
        Ok(bridge)
    }

    /// What each route is doing, in the order of the configuration; behind them those that are not configured
    /// and are still owed something. Blocks on the disk.
    pub fn states(&self) -> Vec<RouteState> {
        let mut states = self.shared.lines.lock().states();
        for (recipient, state) in &mut states {
            state.oldest = self.shared.broker.store.oldest(*recipient).ok().flatten().map(|lsn| lsn.0);
        }
        states.into_iter().map(|(_, state)| state).collect()
    }

    /// Sets the gauges that the disk has to be asked for. Blocks on it.
    pub fn measure_age(&self) {
        let lines = self.shared.lines.lock();
        let active = lines.active.iter().map(|line| (line.route.recipient, &line.monitor.metrics));
        let removed = lines.removed.values().map(Removed::metrics);
        let gauges =
            active.chain(removed).map(|(recipient, metrics)| (recipient, metrics.outbox_oldest.clone()));
        let gauges: Vec<_> = gauges.collect();
        drop(lines);
        let broker = &self.shared.broker;
        for (recipient, gauge) in gauges {
            let oldest = broker.store.oldest(recipient).ok().flatten();
            let published = oldest.and_then(|lsn| broker.store.published_at(lsn).ok().flatten());
            let age = published.map_or(Duration::ZERO, |at| broker.clock.now().since(at));
            gauge.set(age.as_secs_f64());
        }
    }

    /// What each target is doing, by name.
    pub fn targets(&self) -> Vec<TargetState> {
        self.shared.lines.lock().targets.values().map(|target| target.view()).collect()
    }

    /// The target of a route that is configured.
    pub fn target_of(&self, route: &str) -> Option<String> {
        let lines = self.shared.lines.lock();
        let line = lines.active.iter().find(|line| line.config.name == route)?;
        Some(line.config.target.clone())
    }

    /// Has nothing sent to a target until it is [resumed](Bridge::resume), also after a restart. Gives the record
    /// that has to be durable for that; `None` when there is no target of this name.
    ///
    /// # Errors
    /// When the store has failed.
    pub fn pause(&self, target: &str, why: &str) -> Result<Option<Lsn>, SubmitError> {
        self.shared.lines.lock().targets.get(target).map(|target| target.pause(why)).transpose()
    }

    /// Ends a pause, as [`Bridge::pause`] begins one.
    ///
    /// # Errors
    /// When the store has failed.
    pub fn resume(&self, target: &str) -> Result<Option<Lsn>, SubmitError> {
        self.shared.lines.lock().targets.get(target).map(|target| target.resume()).transpose()
    }

    /// Starts no attempt any more, and waits for those under way, so long at most: what is broken off then
    /// is carried again after the next start. What was settled is with the store when this returns.
    pub async fn shutdown(&self, within: Duration) {
        self.shared.lines.lock().stop_all(Instant::now() + within);
        let mut tasks = std::mem::take(&mut *self.shared.tasks.lock());
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of the bridge has panicked");
            }
        }
    }
}

/// Whoever drops it without a shutdown does not want its tasks to go on.
impl Drop for Bridge {
    fn drop(&mut self) {
        self.shared.tasks.lock().abort_all();
    }
}

impl Shared {
    /// Starts a task.
    fn spawn<F: Future<Output = ()> + Send + 'static>(&self, task: impl FnOnce(Stop) -> F) -> Task {
        let (stop, stopped) = watch::channel(None);
        let (ending, ended) = watch::channel(());
        let work = task(stopped);
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            let _ending = Ending(ending);
            work.await;
        });
        Task { stop, ended }
    }

    /// Starts the task of a route, behind the one that had the route before.
    fn carry(&self, job: Job, before: Option<Ended>) -> Task {
        job.target.tell(&job.route.bell);
        let store = self.broker.store.clone();
        self.spawn(|stop| {
            let worker = Worker::new(&self.broker, job, stop);
            async move {
                wait_for(before, &store).await;
                worker.run().await;
            }
        })
    }

    /// Sets the gauges of the backlogs, which the store's writer changes whenever it commits.
    async fn measure(self: Arc<Self>, mut stop: Stop) {
        let mut ticks = interval(MEASURE_INTERVAL);
        while stop.borrow().is_none() {
            tokio::select! {
                _ = ticks.tick() => {
                    let lines = self.lines.lock();
                    lines.active.iter().for_each(|line| line.monitor.measure(&line.route));
                    lines.removed.values().for_each(Removed::measure);
                    lines.targets.values().for_each(|target| target.metrics.circuit(target.state()));
                }
                _ = stop.changed() => {}
            }
        }
    }
}

impl Lines {
    fn states(&self) -> Vec<(RecipientNo, RouteState)> {
        let active = self.active.iter().map(|line| (line.route.recipient, line.state()));
        let removed = self.removed.iter().filter(|(_, removed)| removed.is_of_interest());
        active.chain(removed.map(|(name, removed)| removed.state(name))).collect()
    }

    /// Tells a task to stop: attempts that have not ended by then are broken off. Gives what says that it has
    /// ended.
    fn stop(&mut self, task: Task, at: Instant) -> Ended {
        self.leaving.retain(|stop| !stop.is_closed());
        task.stop.send_if_modified(|known| known.replace(known.unwrap_or(at)).is_none());
        self.leaving.push(task.stop);
        task.ended
    }

    fn stop_all(&mut self, at: Instant) {
        self.is_shutting_down = true;
        let active = self.active.iter().map(|line| &line.task.stop);
        let removed = self.removed.values().filter_map(|removed| removed.task.as_ref());
        let stops = active.chain(removed.map(|task| &task.stop)).chain(&self.leaving);
        for stop in stops {
            // One that has to end earlier still does.
            stop.send_if_modified(|known| {
                let is_sooner = known.is_none_or(|known| at < known);
                *known = Some(at).filter(|_| is_sooner).or(*known);
                is_sooner
            });
        }
    }
}

impl Line {
    fn state(&self) -> RouteState {
        let Self { config, route, target, monitor, .. } = self;
        let url = &target.config.url;
        let TargetState { breaker, paused, .. } = target.view();
        monitor.fill(RouteState {
            name: route.name.to_string(),
            target: route.target.to_string(),
            topics: config.topics.clone(),
            exclude: config.exclude.clone(),
            filter: config.filter.as_ref().map(|filter| filter.expression.source().to_owned()),
            status: if paused.is_some() { RouteStatus::Paused } else { RouteStatus::Active },
            paused,
            url: format!(
                "{}://{}{}",
                url.scheme_str().unwrap_or("http"),
                url.authority().map_or("", |authority| authority.as_str()),
                url.path()
            ),
            queued_messages: route.backlog.count(),
            queued_bytes: route.backlog.bytes(),
            queue: Some(route.queue.into()),
            breaker,
            dead_letters: route.dead_letters(),
            ..RouteState::default()
        })
    }
}

/// Waits until a task has ended and what it settled is durable: whoever reads the backlog then finds nothing
/// that was done.
async fn wait_for(before: Option<Ended>, store: &Store) {
    let Some(mut ended) = before else { return };
    // An error is how its end is told.
    while ended.changed().await.is_ok() {}
    // Fails only when the store has, and then nothing is carried any more.
    let _ = store.durable(store.last_submitted()).await;
}
