//! The admin listener: health, metrics, and an API for sessions, routes, dead letters and backups, as JSON over HTTP.
//!
//! It asks nobody for a password, and is safe by three rules instead: it is bound to loopback (the
//! configuration sees to that), it answers only requests that name a loopback host, and nothing changes at
//! the word of a web page from elsewhere.
//!
//! Invariant: it owns no state. What it answers is read when it is asked for (expensive scans at most once
//! at a time), and what it changes is durable before it says so.

mod backup;
mod dead_letters;
mod error;
mod explain;
mod gauges;
mod guard;
mod health;
mod letter_query;
mod listener;
mod reload;
mod routes;
mod sessions;
#[cfg(test)]
pub(crate) mod tests;

use std::{path::PathBuf, sync::Arc};

use axum::{
    Router,
    extract::State,
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{StatusCode, header};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
};

pub use backup::{BackupPhase, BackupState};
pub use dead_letters::Done;
pub use explain::Explanation;
pub use health::{Phase, Readiness};
pub use letter_query::ReplayChanges;
pub use reload::{ReloadError, ReloadRequest, Reloaded};
pub use routes::{RouteDetail, RouteList, TargetList};
pub use sessions::{SessionDetail, SessionList};

use crate::{
    bridge::{Bridge, DeadLetters},
    broker::Broker,
};
use backup::Backups;
use error::ApiError;
use gauges::Gauges;

/// What the admin listener looks at.
#[derive(Clone)]
pub struct AdminState {
    /// The switchboard, and through it the store.
    pub broker: Arc<Broker>,
    /// The routes.
    pub bridge: Arc<Bridge>,
    /// What [`crate::telemetry::install_metrics`] gave.
    pub metrics: PrometheusHandle,
    /// Where wishes to have the files read again go.
    pub reload: mpsc::Sender<ReloadRequest>,
    /// How far the server is, as the server says.
    pub readiness: Arc<Readiness>,
    /// The folder of the store, whose disk is measured.
    pub data: PathBuf,
    /// Free bytes that a backup leaves on that disk.
    pub free_space_min: u64,
}

/// What the handlers share.
struct App {
    state: AdminState,
    dead_letters: DeadLetters,
    gauges: Gauges,
    backups: Backups,
    /// One permit: a million sessions are not gone through twice at a time.
    scans: Arc<Semaphore>,
}

type Shared = State<Arc<App>>;

/// Answers requests until `shutdown` is ready; those that have begun then may finish within a few seconds.
pub async fn serve(listener: TcpListener, state: AdminState, shutdown: impl Future<Output = ()>) {
    let app = App {
        dead_letters: DeadLetters::new(Arc::clone(&state.broker)),
        backups: Backups::of(&state.data),
        state,
        gauges: Gauges::new(),
        scans: Arc::new(Semaphore::new(1)),
    };
    listener::serve(listener, router(Arc::new(app)), shutdown).await;
}

fn router(app: Arc<App>) -> Router {
    let api = Router::new()
        .route("/sessions", get(sessions::list))
        .route("/sessions/{client_id}", get(sessions::show).delete(sessions::delete))
        .route("/explain", get(explain::explain))
        .route("/reload", post(reload::reload))
        .route("/routes", get(routes::list))
        .route("/routes/{name}", get(routes::show))
        .route("/routes/{name}/dead-letter", post(routes::dead_letter))
        .route("/routes/{name}/discard", post(routes::discard))
        .route("/routes/{name}/pause", post(routes::pause))
        .route("/routes/{name}/resume", post(routes::resume))
        .route("/targets", get(routes::targets))
        .route("/targets/{name}", get(routes::target))
        .route("/targets/{name}/pause", post(routes::pause))
        .route("/targets/{name}/resume", post(routes::resume))
        .route("/store/backup", get(backup::state).post(backup::begin))
        .route("/dead-letters", get(dead_letters::list))
        .route("/dead-letters/import", post(dead_letters::import))
        .route("/dead-letters/replay-all", post(dead_letters::replay_all))
        .route("/dead-letters/discard-all", post(dead_letters::discard_all))
        .route("/dead-letters/{id}", get(dead_letters::show).delete(dead_letters::discard))
        .route("/dead-letters/{id}/replay", post(dead_letters::replay));
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics_page))
        .nest("/api/v1", api)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(guard::check))
        .with_state(app)
}

async fn metrics_page(State(app): Shared) -> Response {
    app.gauges.refresh(&app.state).await;
    let text = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (text, app.state.metrics.render()).into_response()
}

async fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "there is nothing at this path")
        .help("there are /healthz, /readyz, /metrics, and /api/v1/ with sessions, routes, targets, explain, reload, dead-letters and store/backup")
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
        .help("the Allow header says which ones it takes")
}

impl App {
    /// Runs what reads from the disk, or goes through all sessions, where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Broker) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        // It is never closed.
        let permit = Arc::clone(&self.scans).acquire_owned().await;
        let broker = Arc::clone(&self.state.broker);
        let work = move || {
            // Kept until the work is done, also when its client has gone.
            let _permit = permit;
            work(&broker)
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the request failed inside the broker")
                .help("the log of the broker says more")
        })
    }

    /// Waits until everything that was submitted so far is durable.
    async fn durable(&self) -> Result<(), ApiError> {
        let store = &self.state.broker.store;
        // A record with nothing in it is never written, but its number comes after those of all others.
        let last = store.submit(crate::record::Record::default())?.lsn;
        Ok(store.durable(last).await?)
    }
}
