//! `/api/v1/routes`: what waits for each HTTP target.

use axum::{Json, extract::State};
use serde::Serialize;

use super::{ApiError, Shared};
use crate::broker::{Broker, Route};

#[derive(Debug, Serialize)]
pub(super) struct RouteList {
    routes: Vec<RouteSummary>,
}

#[derive(Debug, Serialize)]
struct RouteSummary {
    name: String,
    target: String,
    queued_messages: u64,
    queued_bytes: u64,
    oldest: Option<u64>,
    oldest_age_seconds: Option<u64>,
}

/// In the order of the configuration.
pub(super) async fn list(State(app): Shared) -> Result<Json<RouteList>, ApiError> {
    let routes = app.blocking(|broker| broker.routes().iter().map(|route| summary(broker, route)).collect());
    Ok(Json(RouteList { routes: routes.await? }))
}

fn summary(broker: &Broker, route: &Route) -> RouteSummary {
    let oldest = route.backlog.oldest();
    let published = oldest.and_then(|oldest| broker.store.published_at(oldest).ok().flatten());
    RouteSummary {
        name: route.name.to_string(),
        target: route.target.to_string(),
        queued_messages: route.backlog.count(),
        queued_bytes: route.backlog.bytes(),
        oldest: oldest.map(|oldest| oldest.0),
        oldest_age_seconds: published.map(|at| broker.clock.now().since(at).as_secs()),
    }
}
