//! Another configuration while the bridge runs: judged as a whole, then put in force route by route.
//!
//! What is as before is not touched: a target keeps its breaker, its connections and its limits, a route keeps
//! its task. A route whose filters alone differ keeps its task, too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::removed::{Doing, Removed};
use super::{Bridge, BridgeError, Line, Lines, Shared};
use crate::bridge::delivery::Monitor;
use crate::bridge::delivery::target::Target;
use crate::bridge::delivery::worker::Job;
use crate::bridge::policy::breaker::State;
use crate::bridge::request::Shape;
use crate::broker::{Broker, RouteFilters};
use crate::config::{Config, RequestConfig, RouteConfig, TargetConfig};
use crate::topic::TopicFilter;

/// How much longer than its target allows an attempt may take before it is broken off for a change.
const PATIENCE: Duration = Duration::from_secs(1);

/// What becomes of messages that wait for a route which is not configured any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leftover {
    /// They stay on disk, until somebody says otherwise or the route is configured again.
    Keep,
    /// They become dead letters.
    DeadLetter,
    /// They are deleted.
    Discard,
}

/// A route that is not configured any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedRoute {
    /// Its name.
    pub name: String,
    /// Messages that it is owed.
    pub messages: u64,
    /// Bytes on disk that are kept for it.
    pub bytes: u64,
}

/// What a change has changed, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Routes that are new, or configured again.
    pub added: Vec<String>,
    /// Routes that have other filters, other settings or a target with other settings.
    pub changed: Vec<String>,
    /// Routes that are closed.
    pub removed: Vec<RemovedRoute>,
}

/// What a configuration asks for: everything that can be wrong with it has been tried.
struct Plan {
    targets: BTreeMap<String, Arc<Target>>,
    routes: Vec<Planned>,
}

/// A route that is to be.
struct Planned {
    config: Arc<RouteConfig>,
    filters: RouteFilters,
    target: Arc<Target>,
    shape: Shape,
}

impl Changed {
    /// Whether everything is as before.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Bridge {
    /// Puts the targets and routes of another configuration in force. `leftover` says what becomes of messages
    /// that wait for routes which are not in it. Reads certificate authorities from disk, so it blocks; needs a
    /// runtime of Tokio.
    ///
    /// # Errors
    /// When a target's client cannot be made, when `leftover` is not said and is needed, or when the store has
    /// failed. But for the last, everything is as before then.
    pub fn change(&self, config: &Config, leftover: Option<Leftover>) -> Result<Changed, BridgeError> {
        let _changing = self.changing.lock();
        let targets = self.shared.lines.lock().targets.clone();
        let plan = Plan::of(config, &targets, &self.shared.broker)?;
        let mut lines = self.shared.lines.lock();
        if lines.is_shutting_down {
            return Err(BridgeError::ShuttingDown);
        }
        let owed: Vec<_> = lines.not_in(&plan).filter(|route| route.messages > 0).collect();
        if leftover.is_none() && !owed.is_empty() {
            return Err(BridgeError::Leftover(owed));
        }
        self.shared.apply(&mut lines, plan, leftover.unwrap_or(Leftover::Keep))
    }
}

impl Plan {
    /// Targets that are as before are taken over.
    fn of(
        config: &Config,
        before: &BTreeMap<String, Arc<Target>>,
        broker: &Broker,
    ) -> Result<Self, BridgeError> {
        let mut targets = BTreeMap::new();
        for (name, settings) in &config.targets {
            targets.insert(name.clone(), target((name, settings), before.get(name), broker)?);
        }
        let mut routes = Vec::with_capacity(config.routes.len());
        for route in &config.routes {
            let target = targets.get(&route.target).ok_or_else(|| BridgeError::NoTarget {
                route: route.name.clone(),
                target: route.target.clone(),
            })?;
            routes.push(Planned {
                filters: filters(route, config.limits.topic_levels)?,
                shape: Shape::new(route, &target.config),
                target: Arc::clone(target),
                config: Arc::new(route.clone()),
            });
        }
        Ok(Self { targets, routes })
    }
}

impl Lines {
    /// The routes that a plan does not have.
    fn not_in<'a>(&'a self, plan: &'a Plan) -> impl Iterator<Item = RemovedRoute> + 'a {
        let is_gone =
            |line: &&Line| !plan.routes.iter().any(|planned| planned.config.name == line.config.name);
        self.active.iter().filter(is_gone).map(|line| RemovedRoute {
            name: line.config.name.clone(),
            messages: line.route.backlog.count(),
            bytes: line.route.backlog.bytes(),
        })
    }
}

impl Shared {
    fn apply(
        self: &Arc<Self>,
        lines: &mut Lines,
        plan: Plan,
        leftover: Leftover,
    ) -> Result<Changed, BridgeError> {
        let mut changed = Changed { removed: lines.not_in(&plan).collect(), ..Changed::default() };
        let mut before = std::mem::take(&mut lines.active);
        for (name, target) in std::mem::replace(&mut lines.targets, plan.targets) {
            if !lines.targets.contains_key(&name) {
                // What is gone is not down for ever.
                target.metrics.circuit(State::Closed);
            }
        }
        for planned in plan.routes {
            let known = before.iter().position(|line| line.config.name == planned.config.name);
            let name = planned.config.name.clone();
            let line = match known.map(|at| before.swap_remove(at)) {
                None => {
                    changed.added.push(name);
                    match self.enter(lines, planned) {
                        Ok(line) => line,
                        Err(error) => {
                            lines.active.extend(before);
                            return Err(error);
                        }
                    }
                }
                Some(line) if line.is_as(&planned) => line,
                Some(line) => {
                    changed.changed.push(name);
                    self.replace(lines, line, planned)
                }
            };
            lines.active.push(line);
        }
        for line in before {
            self.remove(lines, line, leftover);
        }
        Ok(changed)
    }

    /// A route that is new, or was not configured for a while.
    fn enter(&self, lines: &mut Lines, planned: Planned) -> Result<Line, BridgeError> {
        let Planned { config, filters, target, shape } = planned;
        let route = self.broker.add_route(&config, filters)?;
        let removed = lines.removed.remove(config.name.as_str());
        let before = removed.and_then(|removed| removed.task);
        let before = before.map(|task| lines.stop(task, Instant::now() + PATIENCE));
        let monitor = Arc::new(Monitor::new(&route.name));
        let job = Job {
            route: Arc::clone(&route),
            config: Arc::clone(&config),
            target: Arc::clone(&target),
            shape,
            monitor: Arc::clone(&monitor),
        };
        let task = self.carry(job, before);
        Ok(Line { config, route, target, monitor, task })
    }

    /// A route that is configured otherwise.
    fn replace(&self, lines: &mut Lines, line: Line, planned: Planned) -> Line {
        let keeps_task = line.keeps_task(&planned);
        let Planned { config, filters, target, shape } = planned;
        let route = self.broker.change_route(&line.route, &config, filters);
        if keeps_task {
            return Line { config, route, ..line };
        }
        let before = lines.stop(line.task, line.target.last_moment());
        let monitor = Arc::clone(&line.monitor);
        let job = Job {
            route: Arc::clone(&route),
            config: Arc::clone(&config),
            target: Arc::clone(&target),
            shape,
            monitor,
        };
        let task = self.carry(job, Some(before));
        Line { config, route, target, monitor: line.monitor, task }
    }

    /// A route that is not configured any more.
    fn remove(self: &Arc<Self>, lines: &mut Lines, line: Line, leftover: Leftover) {
        self.broker.close_route(&line.route);
        line.task.stop.send_replace(Some(line.target.last_moment()));
        let removed = Removed::of(&line.route, line.task);
        let name = line.route.name.clone();
        if leftover == Leftover::Keep {
            removed.warn(&name);
        }
        lines.removed.insert(name.clone(), removed);
        match leftover {
            Leftover::Keep => {}
            Leftover::DeadLetter => self.begin(lines, &name, Doing::DeadLettering),
            Leftover::Discard => self.begin(lines, &name, Doing::Discarding),
        }
    }
}

impl Line {
    fn is_as(&self, planned: &Planned) -> bool {
        self.config == planned.config && Arc::ptr_eq(&self.target, &planned.target)
    }

    /// Whether its task goes on: only its filters are others, and its requests and its content filter do not depend on
    /// them. What `+` and `#` of a topic filter stand for is filled in there.
    fn keeps_task(&self, planned: &Planned) -> bool {
        let RouteConfig { topics, exclude, .. } = RouteConfig::clone(&self.config);
        let has_captures = self.config.filter.is_some() || self.config.request != RequestConfig::default();
        let may_keep = topics == planned.config.topics || !has_captures;
        let with_these = RouteConfig { topics, exclude, ..RouteConfig::clone(&planned.config) };
        may_keep && *self.config == with_these && Arc::ptr_eq(&self.target, &planned.target)
    }
}

impl Target {
    /// When an attempt that begins now has surely ended.
    fn last_moment(&self) -> Instant {
        Instant::now() + self.config.timeout + PATIENCE
    }
}

/// The target of this name and these settings: the one there is, or a new one, which is paused if that is.
fn target(
    (name, settings): (&str, &TargetConfig),
    before: Option<&Arc<Target>>,
    broker: &Broker,
) -> Result<Arc<Target>, BridgeError> {
    if let Some(known) = before.filter(|known| known.is_as(settings)) {
        return Ok(Arc::clone(known));
    }
    let mut made = Target::new(name, settings, broker)
        .map_err(|error| BridgeError::Target { target: name.to_owned(), error })?;
    match before {
        Some(before) => made.share_pause(before),
        None => made.remain_paused()?,
    }
    Ok(Arc::new(made))
}

fn filters(route: &RouteConfig, levels_max: u16) -> Result<RouteFilters, BridgeError> {
    let parse = |filters: &[String]| -> Result<Vec<TopicFilter>, BridgeError> {
        let parsed = filters.iter().map(|filter| {
            TopicFilter::parse(filter, levels_max).map_err(|error| BridgeError::Filter {
                route: route.name.clone(),
                filter: filter.clone(),
                error,
            })
        });
        parsed.collect()
    };
    Ok(RouteFilters { topics: parse(&route.topics)?, exclude: parse(&route.exclude)? })
}
