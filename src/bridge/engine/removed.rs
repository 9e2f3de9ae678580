//! Routes that are not configured any more: what they are owed stays on disk until somebody says what becomes
//! of it.
//!
//! Invariant: what is made a dead letter is settled by the record that files it, so that a crash in between
//! finds every message in one of the two places.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::change::RemovedRoute;
use super::{Bridge, Ended, Lines, Shared, Task, wait_for};
use crate::bridge::delivery::worker::Stop;
use crate::bridge::delivery::{LastError, RouteState, RouteStatus};
use crate::bridge::metrics::RouteMetrics;
use crate::broker::Route;
use crate::record::{Addressee, Change, DeadLetter, DeadLetterReason, Lsn, RecipientNo};
use crate::store::{Backlog, Page, Stored};

/// Messages that become dead letters between two commits that are waited for.
const CHUNK: usize = 256;

/// Why nothing is done about a route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemovedError {
    /// The store knows none of this name.
    #[error("there is no route \"{0}\"")]
    Unknown(String),
    /// It is configured, and carries messages.
    #[error("route \"{0}\" is configured: take it out of the configuration and reload first")]
    Configured(String),
    /// Somebody has asked before.
    #[error("route \"{0}\" is being settled already")]
    UnderWay(String),
    /// The process is about to end.
    #[error("the broker is shutting down")]
    ShuttingDown,
}

/// A route that the store knows and that is not configured.
pub(super) struct Removed {
    recipient: RecipientNo,
    /// Where it led; nothing when it was gone before the start.
    target: Box<str>,
    backlog: Arc<Backlog>,
    metrics: RouteMetrics,
    doing: Doing,
    /// Why it was not settled to the end.
    problem: Option<LastError>,
    /// The task that settles it, or that carries its last messages.
    pub(super) task: Option<Task>,
}

/// What is done with the messages of a removed route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    Nothing,
    DeadLettering,
    Discarding,
}

impl Removed {
    /// What a route leaves, whose task was told to stop.
    pub(super) fn of(route: &Route, task: Task) -> Self {
        Self {
            recipient: route.recipient,
            target: route.target.clone(),
            backlog: Arc::clone(&route.backlog),
            metrics: RouteMetrics::new(&route.name),
            doing: Doing::Nothing,
            problem: None,
            task: Some(task),
        }
    }

    /// As an operator sees it.
    pub(super) fn state(&self, name: &str) -> (RecipientNo, RouteState) {
        let status = match self.doing {
            Doing::Nothing => RouteStatus::Removed,
            Doing::DeadLettering => RouteStatus::DeadLettering,
            Doing::Discarding => RouteStatus::Discarding,
        };
        let state = RouteState {
            name: name.to_owned(),
            target: self.target.to_string(),
            status,
            queued_messages: self.backlog.count(),
            queued_bytes: self.backlog.bytes(),
            last_error: self.problem.clone(),
            ..RouteState::default()
        };
        (self.recipient, state)
    }

    /// Sets the gauges of its backlog.
    pub(super) fn measure(&self) {
        self.metrics.outbox_messages.set(self.backlog.count() as f64);
        self.metrics.outbox_bytes.set(self.backlog.bytes() as f64);
        self.metrics.retry_scheduled.set(0.0);
    }

    /// Its backlog is gone.
    fn measure_nothing(&self) {
        let metrics = &self.metrics;
        let gauges = [&metrics.outbox_messages, &metrics.outbox_bytes, &metrics.outbox_oldest];
        gauges.into_iter().for_each(|gauge| gauge.set(0.0));
    }

    /// Its number in the store, and its handles.
    pub(super) fn metrics(&self) -> (RecipientNo, &RouteMetrics) {
        (self.recipient, &self.metrics)
    }

    /// Whether somebody has to know of it.
    pub(super) fn is_of_interest(&self) -> bool {
        self.backlog.count() > 0 || self.doing != Doing::Nothing
    }
}

impl Bridge {
    /// Makes dead letters of what a route is owed that is not configured any more. What it is owed now is
    /// given at once, and [`Bridge::states`] tells what is left of it.
    ///
    /// # Errors
    /// When there is no such route, or it is configured.
    pub fn dead_letter_removed(&self, name: &str) -> Result<RemovedRoute, RemovedError> {
        self.shared.settle(name, Doing::DeadLettering)
    }

    /// Deletes a route that is not configured any more, and all that it is owed. What that is now is given at
    /// once; it is gone when [`Bridge::states`] does not tell it any more.
    ///
    /// # Errors
    /// When there is no such route, or it is configured.
    pub fn discard_removed(&self, name: &str) -> Result<RemovedRoute, RemovedError> {
        self.shared.settle(name, Doing::Discarding)
    }
}

impl Shared {
    /// Notes which routes the store knows: those that are configured are taken out again.
    pub(super) fn find_removed(&self) {
        let mut lines = self.lines.lock();
        for (name, recipient) in self.broker.known_routes() {
            let removed = Removed {
                recipient,
                target: Box::default(),
                backlog: self.broker.store.backlog(recipient),
                metrics: RouteMetrics::new(&name),
                doing: Doing::Nothing,
                problem: None,
                task: None,
            };
            lines.removed.insert(name, removed);
        }
    }

    fn settle(self: &Arc<Self>, name: &str, doing: Doing) -> Result<RemovedRoute, RemovedError> {
        let mut lines = self.lines.lock();
        if lines.is_shutting_down {
            return Err(RemovedError::ShuttingDown);
        }
        let Some(removed) = lines.removed.get(name) else {
            let is_configured = lines.active.iter().any(|line| line.config.name == name);
            let name = name.to_owned();
            return Err(if is_configured {
                RemovedError::Configured(name)
            } else {
                RemovedError::Unknown(name)
            });
        };
        if removed.doing != Doing::Nothing {
            return Err(RemovedError::UnderWay(name.to_owned()));
        }
        let (messages, bytes) = (removed.backlog.count(), removed.backlog.bytes());
        self.begin(&mut lines, name, doing);
        Ok(RemovedRoute { name: name.to_owned(), messages, bytes })
    }

    /// Begins to settle a removed route, once nobody carries its messages any more.
    pub(super) fn begin(self: &Arc<Self>, lines: &mut Lines, name: &str, doing: Doing) {
        let Lines { removed, leaving, .. } = lines;
        let Some(removed) = removed.get_mut(name) else { return };
        (removed.doing, removed.problem) = (doing, None);
        let before = removed.task.take().map(|Task { stop, ended }| {
            leaving.push(stop);
            ended
        });
        let job = Job {
            shared: Arc::clone(self),
            name: name.into(),
            target: removed.target.clone(),
            recipient: removed.recipient,
        };
        removed.task = Some(self.spawn(|stop| job.run(doing, before, stop)));
    }

    /// Says which routes are owed something and are not configured.
    pub(super) fn warn_of_removed(&self) {
        for (name, removed) in &self.lines.lock().removed {
            removed.warn(name);
        }
    }
}

impl Removed {
    /// It keeps what it is owed: somebody may have renamed it by mistake.
    pub(super) fn warn(&self, name: &str) {
        let messages = self.backlog.count();
        if messages > 0 {
            tracing::warn!(
                route = name,
                messages,
                "messages wait on disk for a route that is not configured any more, and stay there: add \
                 [[routes]] with this name again to have them delivered, or settle them with `causeway routes \
                 dead-letter` or `causeway routes discard`"
            );
        }
    }
}

/// What settles a removed route.
struct Job {
    shared: Arc<Shared>,
    name: Box<str>,
    target: Box<str>,
    recipient: RecipientNo,
}

impl Job {
    async fn run(self, doing: Doing, before: Option<Ended>, stop: Stop) {
        wait_for(before, &self.shared.broker.store).await;
        let done = match doing {
            Doing::Nothing => Ok(0),
            Doing::DeadLettering => self.dead_letter(&stop).await,
            Doing::Discarding => self.discard(&stop).await,
        };
        let route = &*self.name;
        match &done {
            // It is configured again, or the broker ends.
            _ if stop.borrow().is_some() => return,
            Ok(messages) if doing == Doing::DeadLettering => {
                tracing::info!(route, messages, "what waited for a removed route became dead letters");
            }
            Ok(messages) => {
                tracing::info!(route, messages, "a removed route was discarded with what waited for it")
            }
            Err(error) => {
                tracing::error!(route, error, "a removed route is not settled: the rest still waits")
            }
        }
        let mut lines = self.shared.lines.lock();
        if let Some(removed) = lines.removed.get_mut(route).filter(|_| stop.borrow().is_none()) {
            removed.doing = Doing::Nothing;
            let at = self.shared.broker.clock.now().0;
            removed.problem = done.err().map(|error| LastError { error, at });
        }
    }

    /// One record. Whoever configures the route again either stops this before, or begins with a new one.
    async fn discard(&self, stop: &Stop) -> Result<u64, String> {
        let broker = &self.shared.broker;
        let messages = broker.store.backlog(self.recipient).count();
        let discarded = {
            let mut lines = self.shared.lines.lock();
            if stop.borrow().is_some() {
                return Ok(0);
            }
            if let Some(removed) = lines.removed.remove(&self.name) {
                removed.measure_nothing();
            }
            broker.discard_route(&self.name).map_err(|error| error.to_string())?
        };
        let durable = broker.store.durable(discarded.unwrap_or_default());
        durable.await.map_err(|error| error.to_string())?;
        Ok(messages)
    }

    /// The route itself stays in the store: a publisher that found it just before it was closed may owe it one
    /// more message.
    async fn dead_letter(&self, stop: &Stop) -> Result<u64, String> {
        let store = &self.shared.broker.store;
        let (mut done, mut cursor) = (0, Lsn::ZERO);
        while stop.borrow().is_none() {
            let page = self.read_after(cursor).await?;
            cursor = page.cursor;
            let mut last = Lsn::ZERO;
            for stored in page.messages {
                last = self.file(stored)?;
                done += 1;
            }
            store.durable(last).await.map_err(|error| error.to_string())?;
            if page.is_last {
                break;
            }
        }
        Ok(done)
    }

    async fn read_after(&self, cursor: Lsn) -> Result<Page, String> {
        let (store, recipient) = (self.shared.broker.store.clone(), self.recipient);
        let read = spawn_blocking(move || {
            let durable = store.watermark();
            store.read_after(recipient, (cursor, durable), CHUNK, |_| false)
        });
        read.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    fn file(&self, stored: Stored) -> Result<Lsn, String> {
        let Stored { lsn, message, origin, .. } = stored;
        let broker = &self.shared.broker;
        let addressee = Addressee::Route { route: self.name.to_string(), target: self.target.to_string() };
        let letter = DeadLetter::new(DeadLetterReason::TargetRemoved, addressee, message, broker.clock.now());
        let letter = DeadLetter { message_no: origin.unwrap_or(lsn), ..letter };
        let filed = broker.file_if_room(&letter, vec![Change::Settled(self.recipient, vec![lsn])]);
        let filed = filed.map_err(|error| error.to_string())?;
        filed.ok_or_else(|| {
            "there is no room among the dead letters: discard some, or raise limits.dead_letters".into()
        })
    }
}

/// Routes in one line, with what they are owed.
pub(super) fn list(routes: &[RemovedRoute]) -> String {
    let shown = routes.iter().map(|route| match route.messages {
        1 => format!("{} (1 message)", route.name),
        messages => format!("{} ({messages} messages)", route.name),
    });
    shown.collect::<Vec<_>>().join(", ")
}
