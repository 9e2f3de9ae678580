//! `/api/v1/routes`: what waits for each HTTP target, how it fares, and what becomes of what a removed route leaves.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{ApiError, App, Shared};
use crate::{
    bridge::{RemovedError, RemovedRoute, RouteState},
    broker::Broker,
    record::{Lsn, UnixMillis},
};

type Name = Result<Path<String>, PathRejection>;

/// The answer to a list of routes.
#[derive(Debug, Serialize, Deserialize)]
pub struct RouteList {
    /// In the order of the configuration; behind them those that are not configured and are still owed something.
    pub routes: Vec<RouteDetail>,
}

/// The answer for one route.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RouteDetail {
    /// What it is doing.
    #[serde(flatten)]
    pub state: RouteState,
    /// How long ago the oldest message that waits was published.
    pub oldest_age_seconds: Option<u64>,
    /// How long ago the last error was.
    pub last_error_age_seconds: Option<u64>,
}

pub(super) async fn list(State(app): Shared) -> Result<Json<RouteList>, ApiError> {
    Ok(Json(RouteList { routes: app.routes().await? }))
}

pub(super) async fn show(State(app): Shared, name: Name) -> Result<Json<RouteDetail>, ApiError> {
    let Path(name) = name?;
    let found = app.routes().await?.into_iter().find(|route| route.state.name == name);
    found.map(Json).ok_or_else(|| RemovedError::Unknown(name).into())
}

pub(super) async fn dead_letter(State(app): Shared, name: Name) -> Result<Json<RemovedRoute>, ApiError> {
    let Path(name) = name?;
    let owed = app.state.bridge.dead_letter_removed(&name)?;
    tracing::info!(
        route = name,
        owed.messages,
        "an operator makes dead letters of what a removed route is owed"
    );
    Ok(Json(owed))
}

pub(super) async fn discard(State(app): Shared, name: Name) -> Result<Json<RemovedRoute>, ApiError> {
    let Path(name) = name?;
    let owed = app.state.bridge.discard_removed(&name)?;
    tracing::info!(route = name, owed.messages, "an operator discards a removed route");
    Ok(Json(owed))
}

impl App {
    async fn routes(&self) -> Result<Vec<RouteDetail>, ApiError> {
        let bridge = Arc::clone(&self.state.bridge);
        self.blocking(move |broker| {
            bridge.states().into_iter().map(|state| RouteDetail::of(broker, state)).collect()
        })
        .await
    }
}

impl RouteDetail {
    fn of(broker: &Broker, state: RouteState) -> Self {
        let now = broker.clock.now();
        let published = state.oldest.and_then(|oldest| broker.store.published_at(Lsn(oldest)).ok().flatten());
        Self {
            oldest_age_seconds: published.map(|at| now.since(at).as_secs()),
            last_error_age_seconds: state
                .last_error
                .as_ref()
                .map(|error| now.since(UnixMillis(error.at)).as_secs()),
            state,
        }
    }
}

impl From<RemovedError> for ApiError {
    fn from(error: RemovedError) -> Self {
        let message = error.to_string();
        match error {
            RemovedError::Unknown(_) => Self::new(StatusCode::NOT_FOUND, message)
                .help("GET /api/v1/routes lists those that are configured or still owed something"),
            RemovedError::Configured(_) => Self::new(StatusCode::CONFLICT, message)
                .help("what a route is owed that carries messages is not touched"),
            RemovedError::UnderWay(_) => {
                Self::new(StatusCode::CONFLICT, message).help("GET /api/v1/routes says how much is left")
            }
            RemovedError::ShuttingDown => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, message).help("ask again when it has started")
            }
        }
    }
}
