//! Whether the process is well, and whether it takes work.

use std::sync::atomic::{AtomicU8, Ordering};

use axum::extract::State;
use http::StatusCode;

use super::{ApiError, Shared};
use crate::store::{Store, SubmitError};

/// How far the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Not every listener is up yet.
    Starting,
    /// Every listener is up.
    Up,
    /// Clients are being sent away.
    ShuttingDown,
}

/// The phase, as the server sets it and the health checks read it.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

impl Readiness {
    /// Says how far the server is; it begins with [`Phase::Starting`].
    pub fn set(&self, phase: Phase) {
        self.0.store(phase as u8, Ordering::Release);
    }

    /// How far the server is.
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Up,
            _ => Phase::ShuttingDown,
        }
    }
}

/// For who restarts a process that is beyond help: red only when the store has failed.
pub(super) async fn alive(State(app): Shared) -> Result<&'static str, ApiError> {
    if app.state.broker.store.has_failed() { Err(failed(&app.state.broker.store).await) } else { Ok("ok\n") }
}

/// For who sends clients here: green only when they would be served.
pub(super) async fn ready(State(app): Shared) -> Result<&'static str, ApiError> {
    let store = &app.state.broker.store;
    match (store.admits_publish(), app.state.readiness.phase()) {
        (Err(SubmitError::Failed), _) => Err(failed(store).await),
        (_, Phase::Starting) => Err(unavailable("the broker is starting")),
        (_, Phase::ShuttingDown) => Err(unavailable("the broker is shutting down")),
        (Err(SubmitError::Full), Phase::Up) => Err(unavailable("the disk is nearly full")
            .help("make room: publishes that need the disk are refused until store.free_space_min is free")),
        (Err(SubmitError::OverBudget), Phase::Up) => Err(unavailable(
            "the database is nearly as large as it may be (store.size_max)",
        )
        .help("publishes that need the disk are refused: /api/v1/sessions shows what is kept for whom")),
        (Ok(()), Phase::Up) => Ok("ready\n"),
    }
}

/// Does not wait: a failed store knows why.
async fn failed(store: &Store) -> ApiError {
    unavailable(format!("the store has failed: {}", store.failure().await))
        .help("nothing is acknowledged any more; what was acknowledged is there after a restart")
}

fn unavailable(error: impl Into<std::borrow::Cow<'static, str>>) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error)
}
