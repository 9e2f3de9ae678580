//! What every kind of load begins and ends with: clients as tasks, and the waits between the phases.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::args::{CommonArgs, DurableArgs};
use super::client::{Identity, Target};
use super::clock::nanos;
use super::error::BenchError;
use super::process::Meter;
use super::progress::Progress;
use super::report::{Report, Scenario};
use super::stage::{Ended, Limits, Phase, Stage};

/// Descriptors that are not connections: the runtime's, the terminal's, those of `/proc`.
const DESCRIPTORS_SPARE: u64 = 32;

/// One load run: the broker it is put on, what its clients share, and how it is shown.
pub struct Bench {
    /// The clock, the counters and the phase of the run.
    pub stage: Arc<Stage>,
    /// The broker, and how to connect to it.
    pub target: Arc<Target>,
    /// Shows the counters while the run waits; nothing with `--quiet`.
    pub progress: Progress,
    /// Threads that run clients.
    pub threads: usize,
    /// The broker's process.
    pub pid: Option<u32>,
    client_id_prefix: String,
}

impl Bench {
    /// Resolves the broker and raises what limits the number of connections.
    ///
    /// # Errors
    /// When options make no sense, the broker cannot be found, or `clients` are too many for this machine.
    pub async fn new(common: &CommonArgs, clients: u64) -> Result<Self, BenchError> {
        let run = rand::random();
        let descriptors = rlimit::increase_nofile_limit(u64::MAX)?;
        if clients.saturating_add(DESCRIPTORS_SPARE) > descriptors {
            return Err(BenchError::Argument(format!(
                "{clients} connections are asked for, and {descriptors} open files allowed: raise `ulimit -n`"
            )));
        }
        let target = common.target().await?;
        // Fails now rather than after the run when the process cannot be observed.
        Meter::start(common.pid)?;
        Ok(Self {
            stage: Arc::new(Stage::new(run)),
            target: Arc::new(target),
            progress: Progress::new(common.quiet),
            threads: common.threads.into(),
            pid: common.pid,
            client_id_prefix: common.client_id_prefix(run),
        })
    }

    /// The identity of client `number` in its role: a letter that keeps roles apart.
    pub fn identity(&self, role: char, number: u32) -> Identity {
        Identity {
            client_id: format!("{}{role}{number}", self.client_id_prefix),
            session_expiry: None,
            clean_start: true,
            from: None,
        }
    }

    /// The identity of subscriber `number`, in a session that outlives its connection if `durable` says so.
    pub fn durable_identity(&self, number: u32, durable: &DurableArgs) -> Identity {
        let session_expiry = durable.session_expiry();
        Identity { session_expiry, clean_start: session_expiry.is_none(), ..self.identity('s', number) }
    }

    /// Waits until `clients` are connected and subscribed.
    ///
    /// # Errors
    /// The first client's failure, or that nothing moved for too long.
    pub async fn prepare(&mut self, clients: u64) -> Result<(), BenchError> {
        let limits = self.limits(None);
        let stage = Arc::clone(&self.stage);
        let ended = stage.wait(limits, &mut self.progress, || stage.ready() >= clients).await;
        match (ended, stage.take_failures().first) {
            (_, Some(error)) => Err(error),
            (Ended::Complete, None) => Ok(()),
            (Ended::Interrupted, None) => Err(BenchError::Interrupted),
            (_, None) => Err(BenchError::Timeout { what: "SUBACK", after: self.target.timeout }),
        }
    }

    /// Lets clients send for `duration` or until `done`, then waits for what is under way until `done`.
    pub async fn load(&mut self, duration: Option<Duration>, done: impl Fn() -> bool) -> Ended {
        let stage = Arc::clone(&self.stage);
        stage.advance(Phase::Run);
        let until = duration.map(|duration| stage.started_ns().saturating_add(nanos(duration)));
        let ended = stage.wait(self.limits(until), &mut self.progress, &done).await;
        if !matches!(ended, Ended::Duration | Ended::Interrupted) {
            return ended;
        }
        stage.advance(Phase::Drain);
        match stage.wait(self.limits(None), &mut self.progress, &done).await {
            Ended::Complete => ended,
            drained => drained,
        }
    }

    /// Lets subscribers receive for `duration`, or until `enough` has come or nothing more comes.
    pub async fn listen(&mut self, duration: Option<Duration>, enough: impl Fn() -> bool) -> Ended {
        let stage = Arc::clone(&self.stage);
        stage.advance(Phase::Run);
        let until = duration.map(|duration| stage.started_ns().saturating_add(nanos(duration)));
        let mut limits = self.limits(until);
        if until.is_some() {
            limits.stall = None;
        }
        stage.wait(limits, &mut self.progress, enough).await
    }

    /// Sends every client home and reports. `messages` is what the CPU time is divided by.
    pub fn report(&mut self, scenario: Scenario, ended: Ended, meter: &Meter, messages: u64) -> Report {
        let (broker, generator) = meter.finish(messages);
        self.stage.advance(Phase::End);
        self.progress.clear();
        let failures = self.stage.take_failures().into();
        Report { scenario, ended, connect: None, publish: None, receive: None, broker, generator, failures }
    }

    /// What ends a wait of this run early.
    pub fn limits(&self, until_ns: Option<u64>) -> Limits {
        Limits { until_ns, stall: Some(self.target.timeout), failures_end: true }
    }
}

/// Clients that run as tasks. Dropping it ends them.
pub struct Fleet<T> {
    stage: Arc<Stage>,
    tasks: JoinSet<Option<T>>,
    running: Arc<AtomicU64>,
}

impl<T: Send + 'static> Fleet<T> {
    /// No clients yet.
    pub fn new(stage: &Arc<Stage>) -> Self {
        Self { stage: Arc::clone(stage), tasks: JoinSet::new(), running: Arc::new(AtomicU64::new(0)) }
    }

    /// Starts a client; its failure is noted on the stage.
    pub fn spawn(&mut self, client: impl Future<Output = Result<T, BenchError>> + Send + 'static) {
        let (stage, running) = (Arc::clone(&self.stage), Arc::clone(&self.running));
        running.fetch_add(1, Ordering::AcqRel);
        self.tasks.spawn(async move {
            let result = client.await;
            running.fetch_sub(1, Ordering::AcqRel);
            result.map_err(|error| stage.client_failed(error)).ok()
        });
    }

    /// How many clients have not ended.
    pub fn running(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.running)
    }

    /// Waits for all clients and gives what those that did not fail have to say.
    pub async fn join(self) -> Vec<T> {
        self.tasks.join_all().await.into_iter().flatten().collect()
    }
}
