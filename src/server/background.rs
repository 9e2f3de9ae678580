//! What runs beside the listeners: timers, the admin listener, the look at the disk, upkeep of the metrics.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::{StartError, budget, disk_watch};
use crate::admin::{self, AdminState};
use crate::config::Config;
use crate::telemetry;

/// Tasks that end with the server.
pub(super) struct Background {
    tasks: JoinSet<()>,
    stopping: watch::Sender<bool>,
    /// Where the admin listener is, if there is one.
    pub(super) admin: Option<SocketAddr>,
    admin_task: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts everything. `spare` says that the admin listener may be left out when its address is taken.
    pub(super) async fn start(config: &Config, state: AdminState, spare: bool) -> Result<Self, StartError> {
        let mut background =
            Self { tasks: JoinSet::new(), stopping: watch::channel(false).0, admin: None, admin_task: None };
        let broker = Arc::clone(&state.broker);
        background.tasks.spawn(async move { broker.run_timers().await });
        background.tasks.spawn(Arc::clone(&state.broker).run_give_up());
        background.tasks.spawn(Arc::clone(&state.broker).run_retention());
        if !config.sys.interval.is_zero() {
            background.tasks.spawn(Arc::clone(&state.broker).run_sys(config.sys.interval));
        }
        let broker = Arc::clone(&state.broker);
        background.tasks.spawn(async move { broker.run_clock().await });
        let (broker, data) = (Arc::clone(&state.broker), config.store.path.clone());
        background.tasks.spawn(disk_watch::watch(broker, data, config.store.free_space_min));
        if let Some(size_max) = config.store.size_max {
            let broker = Arc::clone(&state.broker);
            background.tasks.spawn(budget::watch(broker, config.store.path.clone(), size_max));
        }
        background.tasks.spawn(telemetry::upkeep(state.metrics.clone()));
        if config.admin.enabled {
            background.start_admin(config.admin.address, state, spare).await?;
        }
        Ok(background)
    }

    async fn start_admin(
        &mut self,
        address: SocketAddr,
        state: AdminState,
        spare: bool,
    ) -> Result<(), StartError> {
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            Err(error) if spare && error.kind() == std::io::ErrorKind::AddrInUse => {
                tracing::warn!(%address, "the address is in use: the broker does without its admin listener");
                return Ok(());
            }
            Err(error) => {
                return Err(format!(
                    "the admin listener cannot use {address}: {error}. Set another [admin] address"
                )
                .into());
            }
        };
        self.admin = Some(listener.local_addr()?);
        let mut stopping = self.stopping.subscribe();
        let stopped = async move {
            // Fails only when the server is gone, which is the same.
            let _ = stopping.wait_for(|stopping| *stopping).await;
        };
        self.admin_task = Some(tokio::spawn(admin::serve(listener, state, stopped)));
        Ok(())
    }

    /// Ends everything. The admin listener goes last, so that health can be seen until then.
    pub(super) async fn stop(&mut self) {
        self.tasks.shutdown().await;
        self.stopping.send_replace(true);
        if let Some(admin) = self.admin_task.take() {
            // Fails only when it has panicked, and then it has ended too.
            let _ = admin.await;
        }
    }
}
