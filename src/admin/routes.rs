//! `/api/v1/routes` and `/api/v1/targets`: what waits for each target, how it fares, and what becomes of what a
//! removed route leaves.

use std::sync::Arc;

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{ApiError, App, Shared};
use crate::{
    bridge::{RemovedError, RemovedRoute, RouteState, TargetState},
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

/// The answer to a list of targets.
#[derive(Debug, Serialize, Deserialize)]
pub struct TargetList {
    /// By name.
    pub targets: Vec<TargetState>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct PauseQuery {
    why: Option<String>,
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

/// A pause is that of the target: all its routes wait.
pub(super) async fn pause(
    State(app): Shared,
    name: Name,
    query: Result<Query<PauseQuery>, QueryRejection>,
) -> Result<Json<TargetState>, ApiError> {
    let (Path(name), Query(PauseQuery { why })) = (name?, query?);
    let target = app.target_of(&name)?;
    let why = why.as_deref().unwrap_or("an operator has paused it");
    app.wait_for(app.state.bridge.pause(&target, why)?).await?;
    app.target(&target)
}

pub(super) async fn resume(State(app): Shared, name: Name) -> Result<Json<TargetState>, ApiError> {
    let Path(name) = name?;
    let target = app.target_of(&name)?;
    app.wait_for(app.state.bridge.resume(&target)?).await?;
    app.target(&target)
}

pub(super) async fn targets(State(app): Shared) -> Json<TargetList> {
    Json(TargetList { targets: app.state.bridge.targets() })
}

pub(super) async fn target(State(app): Shared, name: Name) -> Result<Json<TargetState>, ApiError> {
    let Path(name) = name?;
    app.target(&name)
}

impl App {
    /// The target of this name, or that of the route of this name.
    fn target_of(&self, name: &str) -> Result<String, ApiError> {
        let bridge = &self.state.bridge;
        if bridge.targets().iter().any(|target| target.name == name) {
            return Ok(name.to_owned());
        }
        bridge.target_of(name).ok_or_else(|| no_target(name))
    }

    fn target(&self, name: &str) -> Result<Json<TargetState>, ApiError> {
        let found = self.state.bridge.targets().into_iter().find(|target| target.name == name);
        found.map(Json).ok_or_else(|| no_target(name))
    }

    /// What is changed is durable before it is said.
    async fn wait_for(&self, record: Option<Lsn>) -> Result<(), ApiError> {
        Ok(self.state.broker.store.durable(record.unwrap_or_default()).await?)
    }

    async fn routes(&self) -> Result<Vec<RouteDetail>, ApiError> {
        let bridge = Arc::clone(&self.state.bridge);
        self.blocking(move |broker| {
            bridge.states().into_iter().map(|state| RouteDetail::of(broker, state)).collect()
        })
        .await
    }
}

fn no_target(name: &str) -> ApiError {
    let message = format!("there is no target \"{}\", and no route of this name", name.escape_debug());
    ApiError::new(StatusCode::NOT_FOUND, message).help("`causeway routes` shows those that are configured")
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
                .help("`causeway routes` (GET /api/v1/routes) shows those that are configured or still owed something"),
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
