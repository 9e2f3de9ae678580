//! `/api/v1/routes`: what waits for each HTTP target, and how it fares.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Serialize;

use super::{ApiError, Shared};
use crate::{bridge::RouteState, broker::Broker, record::Lsn};

#[derive(Debug, Serialize)]
pub(super) struct RouteList {
    routes: Vec<RouteView>,
}

#[derive(Debug, Serialize)]
struct RouteView {
    #[serde(flatten)]
    state: RouteState,
    /// How long ago the oldest message that waits was published.
    oldest_age_seconds: Option<u64>,
}

/// In the order of the configuration.
pub(super) async fn list(State(app): Shared) -> Result<Json<RouteList>, ApiError> {
    let bridge = Arc::clone(&app.state.bridge);
    let view = |broker: &Broker, state: RouteState| {
        let published = state.oldest.and_then(|oldest| broker.store.published_at(Lsn(oldest)).ok().flatten());
        let age = published.map(|at| broker.clock.now().since(at).as_secs());
        RouteView { state, oldest_age_seconds: age }
    };
    let routes =
        app.blocking(move |broker| bridge.states().into_iter().map(|state| view(broker, state)).collect());
    Ok(Json(RouteList { routes: routes.await? }))
}
