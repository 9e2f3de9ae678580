//! Builds everything from a configuration, starts it, and stops it in order.

mod accept;
mod background;
mod banner;
mod budget;
mod disk_watch;
mod reload;
mod settings;

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::admin::{AdminState, Phase, Readiness};
use crate::auth::Authenticator;
use crate::bridge::Bridge;
use crate::broker::Broker;
use crate::codec::ReasonCode;
use crate::config::{Config, TlsConfig};
use crate::store::Store;
use crate::telemetry::{self, Metrics};
use crate::transport::{ConnectionLimit, dev_certs, raise_nofile};
use accept::Acceptors;
use background::Background;
use reload::Reloader;

/// How the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: it was told to stop, and did.
    Stopped,
    /// 1: it could not start.
    CannotStart,
    /// 2: the configuration or the command line is wrong.
    Configuration,
    /// 3: the disk failed. Everything acknowledged is there after a restart.
    StoreFailed,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why the broker could not start.
type StartError = Box<dyn std::error::Error>;

/// Runs the broker until SIGTERM or SIGINT, or until the store fails. `file` is where the configuration came
/// from, to be read again on SIGHUP. `spare` says that listeners beside the first may be left out when their
/// address is taken.
pub fn run(config: Config, file: Option<PathBuf>, spare: bool) -> Exit {
    telemetry::init_log(&config.log);
    // Before anything counts: handles belong to the recorder that is there when they are made.
    let metrics = telemetry::install_metrics();
    let descriptors = raise_nofile();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return cannot_start(&error),
    };
    let exit = runtime.block_on(async {
        let _ignored = ignore_file_size_signal();
        match Server::start(config, file, metrics, spare).await {
            Ok(server) => server.serve(descriptors).await,
            Err(error) => cannot_start(&*error),
        }
    });
    runtime.shutdown_background();
    exit
}

/// A limit on the length of files makes a write fail, which is said and ends the process in order; without a
/// handler the signal that comes with it would end it without a word. It is handled for as long as the process
/// lives.
fn ignore_file_size_signal() -> std::io::Result<Signal> {
    signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))
}

fn cannot_start(error: &dyn std::error::Error) -> Exit {
    eprintln!("causeway cannot start: {error}");
    Exit::CannotStart
}

/// Everything that runs.
struct Server {
    config: Arc<Config>,
    broker: Arc<Broker>,
    bridge: Arc<Bridge>,
    acceptors: Acceptors,
    background: Background,
    readiness: Arc<Readiness>,
    reloader: Reloader,
    has_dev_certificate: bool,
}

impl Server {
    /// Opens the store, enters sessions and routes, and binds every address. Nothing is accepted yet.
    async fn start(
        config: Config,
        file: Option<PathBuf>,
        recorder: PrometheusHandle,
        spare: bool,
    ) -> Result<Self, StartError> {
        let auth = Authenticator::load(config.auth.clone())?;
        make_data_directory(&config.store.path)?;
        let (store, recovered) = Store::open(&config.store.path, &settings::store(&config))?;
        let auth = Arc::new(auth.with_secret(store.secret()));
        let limits = settings::broker(&config);
        let broker = Broker::new(store, recovered, Arc::clone(&auth), Arc::new(Metrics::new()), limits);
        broker.set_redirect(config.redirect.clone());
        let has_dev_certificate = config.listeners.iter().any(|l| l.tls == Some(TlsConfig::default()));
        if has_dev_certificate {
            dev_certs::ensure(Path::new("certs"))?;
        }
        let everywhere = ConnectionLimit::new(config.limits.connections);
        let (acceptors, tls) = Acceptors::bind(&config, &broker, everywhere, spare)?;
        let bridge = Arc::new(Bridge::start(&broker, &config)?);
        let readiness = Arc::new(Readiness::default());
        let (reload, requests) = mpsc::channel(1);
        let admin = AdminState {
            broker: Arc::clone(&broker),
            bridge: Arc::clone(&bridge),
            metrics: recorder,
            reload,
            readiness: Arc::clone(&readiness),
            data: config.store.path.clone(),
            free_space_min: config.store.free_space_min,
        };
        let background = Background::start(&config, admin, spare).await?;
        let (of_broker, of_bridge) = (Arc::clone(&broker), Arc::clone(&bridge));
        let reloader = Reloader { auth, tls, broker: of_broker, bridge: of_bridge, file, requests };
        let config = Arc::new(config);
        Ok(Self { config, broker, bridge, acceptors, background, readiness, reloader, has_dev_certificate })
    }

    /// Serves until it is told to stop.
    async fn serve(mut self, descriptors: u64) -> Exit {
        let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
        else {
            eprintln!("causeway cannot start: signals cannot be listened for");
            return Exit::CannotStart;
        };
        self.acceptors.start();
        self.readiness.set(Phase::Up);
        // Whoever reads it may send a signal at once.
        banner::print(&self, descriptors);
        let exit = loop {
            tokio::select! {
                _ = terminate.recv() => break Exit::Stopped,
                _ = interrupt.recv() => break Exit::Stopped,
                _ = hangup.recv() => self.reloader.reload().await,
                Some(request) = self.reloader.requests.recv() => self.reloader.answer(request).await,
                why = self.broker.store.failure() => {
                    tracing::error!(%why, "the store has failed: nothing is acknowledged any more, the broker ends");
                    break Exit::StoreFailed;
                }
            }
        };
        self.stop(exit).await;
        exit
    }

    /// Stops in order: no new connections, goodbye to those there are, attempts in flight end, what waits
    /// goes to disk.
    async fn stop(&mut self, exit: Exit) {
        tracing::info!("stopping");
        self.readiness.set(Phase::ShuttingDown);
        self.broker.evict_all(ReasonCode::ServerShuttingDown);
        let within = self.config.limits.shutdown_timeout;
        tokio::join!(self.acceptors.stop(within), self.bridge.shutdown(within));
        self.background.stop().await;
        if exit != Exit::StoreFailed {
            self.broker.store_time();
            let store = self.broker.store.clone();
            // Fails only when the writer has panicked, which was said.
            let _ = tokio::task::spawn_blocking(move || store.close()).await;
        }
        tracing::info!("stopped");
    }
}

/// What is stored is for its owner alone: nobody else enters the folder.
fn make_data_directory(path: &Path) -> Result<(), StartError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| format!("the data folder {} cannot be made: {error}", path.display()).into())
}
