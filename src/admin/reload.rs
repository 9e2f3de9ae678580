//! `/api/v1/reload`: the files are read again, as SIGHUP has them read, and the answer says what came of it.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::{ApiError, Shared};
use crate::bridge::{BridgeError, Changed, Leftover};

/// A wish to have the files read again. Whoever builds everything fulfills it.
#[derive(Debug)]
pub struct ReloadRequest {
    /// What becomes of messages that wait for routes which are gone, when somebody has said so.
    pub leftover: Option<Leftover>,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<Reloaded, ReloadError>>,
}

/// What came of reading the files again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// What was read, and is in force now.
    pub read: Vec<String>,
    /// What stays as it was, and why.
    pub kept: Vec<String>,
    /// Which routes are others than before.
    pub routes: Changed,
}

/// Why the configuration stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file is wrong; the text names each mistake.
    #[error("{0}")]
    Configuration(String),
    /// The bridge cannot be changed so.
    #[error(transparent)]
    Bridge(#[from] BridgeError),
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ReloadQuery {
    removed: Option<Leftover>,
}

pub(super) async fn reload(
    State(app): Shared,
    query: Result<Query<ReloadQuery>, QueryRejection>,
) -> Result<Json<Reloaded>, ApiError> {
    let Query(ReloadQuery { removed }) = query?;
    let (answer, answered) = oneshot::channel();
    let asked = app.state.reload.send(ReloadRequest { leftover: removed, answer }).await;
    asked.map_err(|_: mpsc::error::SendError<_>| shutting_down())?;
    Ok(Json(answered.await.map_err(|_| shutting_down())??))
}

fn shutting_down() -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the broker is shutting down")
        .help("ask again when it has started")
}

impl From<ReloadError> for ApiError {
    fn from(error: ReloadError) -> Self {
        let message = error.to_string();
        match error {
            ReloadError::Configuration(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
                .help("the configuration in force stays; `causeway check` says the same without a broker"),
            ReloadError::Bridge(error) => error.into(),
        }
    }
}

impl From<BridgeError> for ApiError {
    fn from(error: BridgeError) -> Self {
        let message = error.to_string();
        match error {
            BridgeError::Leftover(_) => Self::new(StatusCode::CONFLICT, message).help(
                "nothing has changed: say --removed keep (they stay on disk), --removed dead-letter or \
                 --removed discard, or put the routes back",
            ),
            BridgeError::ShuttingDown => shutting_down(),
            _ => Self::new(StatusCode::UNPROCESSABLE_ENTITY, message)
                .help("the configuration in force stays: correct the file and reload again"),
        }
    }
}
