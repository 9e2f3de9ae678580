//! One life of the broker's process: its connection tasks, its timers and its store, on one thread that does
//! nothing unless it is told to.
//!
//! The executor is the simulation's own: it says which of the tasks that were woken runs next. Of tokio there is
//! a runtime with a clock that stands still until it is turned.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;

use super::history::History;
use super::network::BrokerEnd;
use super::plan::Plan;
use super::target::Target;
use crate::auth::Authenticator;
use crate::broker::{Broker, WALL_TIME};
use crate::config::Config;
use crate::connection::{ConnectionContext, serve};
use crate::record::UnixMillis;
use crate::store::StoreError;
use crate::store::tests::{ByHand, Disk, Step};
use crate::telemetry::Metrics;
use crate::transport::Stream;

/// The task of the timers; those of connections come after it.
pub const TIMERS: u64 = 0;

pub struct Process {
    pub broker: Arc<Broker>,
    writer: ByHand,
    context: Arc<ConnectionContext>,
    target: Option<Target>,
    tasks: BTreeMap<u64, Task>,
    woken: Woken,
    pub next: u64,
    runtime: Runtime,
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    waker: Waker,
}

type Woken = Arc<Mutex<BTreeSet<u64>>>;

/// Notes that a task wants to run.
struct Alarm {
    task: u64,
    woken: Woken,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.woken.lock().insert(self.task);
    }
}

impl Process {
    /// Starts the broker on what is on the disk. Its connections' tasks are numbered from `first` on.
    ///
    /// # Errors
    /// When the disk does not let it.
    pub fn start(disk: &Disk, plan: &Plan, now: UnixMillis, first: u64) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without threads");
        WALL_TIME.set(Some(now));
        let (store, recovered, writer) = ByHand::open(disk, &plan.store)?;
        let auth = Arc::new(Authenticator::load(Config::default().auth).expect("no files are named"));
        let inside = runtime.enter();
        let broker = Broker::new(store, recovered, auth, Arc::new(Metrics::new()), plan.limits.clone());
        drop(inside);
        let target = plan.has_route.then(|| Target::enter(&broker));
        let context = ConnectionContext {
            broker: Arc::clone(&broker),
            listener: address(),
            connect_timeout: Duration::from_secs(10),
            packet_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(20),
            password_checks: Arc::new(Semaphore::new(1)),
        };
        let (tasks, woken) = (BTreeMap::new(), Woken::default());
        let context = Arc::new(context);
        let mut process = Self { broker, writer, context, target, tasks, woken, next: first, runtime };
        let broker = Arc::clone(&process.broker);
        process.spawn(TIMERS, Box::pin(async move { broker.run_timers().await }));
        Ok(process)
    }

    /// Accepts a connection; gives its task.
    pub fn accept(&mut self, end: BrokerEnd) -> u64 {
        let served = serve(Arc::clone(&self.context), Stream::Simulated(Box::new(end)), address());
        let task = self.next;
        self.next += 1;
        self.spawn(task, Box::pin(served));
        task
    }

    fn spawn(&mut self, task: u64, future: Pin<Box<dyn Future<Output = ()>>>) {
        let waker = Waker::from(Arc::new(Alarm { task, woken: Arc::clone(&self.woken) }));
        waker.wake_by_ref();
        self.tasks.insert(task, Task { future, waker });
    }

    /// Tasks that want to run.
    pub fn ready(&self) -> Vec<u64> {
        self.woken.lock().iter().copied().collect()
    }

    /// Lets a task run until it waits. True when it has ended.
    pub fn run(&mut self, task: u64) -> bool {
        self.woken.lock().remove(&task);
        let Some(Task { future, waker }) = self.tasks.get_mut(&task) else { return false };
        let mut cx = Context::from_waker(waker);
        let polled = poll_fn(|_| Poll::Ready(future.as_mut().poll(&mut cx).is_ready()));
        let has_ended = self.runtime.block_on(tokio::task::unconstrained(polled));
        if has_ended {
            let _inside = self.runtime.enter();
            self.tasks.remove(&task);
        }
        has_ended
    }

    /// Turns the clock on; what reads beside the tasks has its turn as well.
    pub fn advance(&self, by: Duration) {
        self.runtime.block_on(async {
            tokio::time::advance(by).await;
            tokio::task::yield_now().await;
        });
    }

    /// Lets the store's writer go on by a third of a commit.
    pub fn step_store(&mut self) -> Step {
        self.writer.step()
    }

    /// Lets the route's target do something. False when there is nothing to do.
    pub fn act_as_target(&mut self, settles: bool, history: &mut History) -> Result<bool, String> {
        let Some(target) = &mut self.target else { return Ok(false) };
        target.act(&self.broker, settles, history)
    }

    /// Whether a connection has the session of this client.
    pub fn is_online(&self, client_id: &str) -> bool {
        self.broker.find(client_id).is_some_and(|slot| slot.is_online())
    }

    /// Whether no connection has a task any more.
    pub fn is_alone(&self) -> bool {
        self.tasks.keys().all(|task| *task == TIMERS)
    }

    /// The process is gone. What it would still do while it falls to pieces reaches nobody: its disk must
    /// have crashed before.
    pub fn kill(mut self) {
        let _inside = self.runtime.enter();
        self.tasks.clear();
    }
}

/// Where the listener is, and where its clients come from.
fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1883))
}
