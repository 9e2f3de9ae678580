//! `/api/v1/sessions`: who is there, what is kept for whom, and how to end it.

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{ApiError, Shared};
use crate::broker::{SessionSummary, SpaceUse};

/// Sessions of one page at most.
const PAGE_MAX: usize = 1000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Page {
    limit: usize,
    offset: usize,
}

/// The answer to a list of sessions.
#[derive(Debug, Serialize, Deserialize)]
pub struct SessionList {
    /// How many sessions there are in all.
    pub total: usize,
    /// Those of the page; what pins the most bytes comes first.
    pub sessions: Vec<SessionSummary>,
    /// What else is kept, and how much it is in all.
    pub space: SpaceUse,
}

/// The answer for one session.
#[derive(Debug, Serialize, Deserialize)]
pub struct SessionDetail {
    /// As it is listed.
    #[serde(flatten)]
    pub summary: SessionSummary,
    /// The filters of its subscriptions, as the client wrote them.
    pub filters: Vec<String>,
}

impl Default for Page {
    fn default() -> Self {
        Self { limit: 100, offset: 0 }
    }
}

pub(super) async fn list(
    State(app): Shared,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<SessionList>, ApiError> {
    let Query(Page { limit, offset }) = page?;
    let list = app.blocking(move |broker| {
        let (sessions, total) = broker.session_page(offset, limit.min(PAGE_MAX));
        SessionList { total, sessions, space: broker.space_use() }
    });
    Ok(Json(list.await?))
}

pub(super) async fn show(
    State(app): Shared,
    client_id: Result<Path<String>, PathRejection>,
) -> Result<Json<SessionDetail>, ApiError> {
    let Path(client_id) = client_id?;
    let detail = app.blocking(move |broker| {
        let slot = broker.find(&client_id)?;
        let summary = broker.with_oldest(&slot, broker.summary(&slot));
        Some(SessionDetail { summary, filters: broker.subscription_filters(&slot) })
    });
    detail.await?.map(Json).ok_or_else(unknown)
}

pub(super) async fn delete(
    State(app): Shared,
    client_id: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let Path(client_id) = client_id?;
    if !app.state.broker.delete_session(&client_id) {
        return Err(unknown());
    }
    app.durable().await?;
    tracing::info!(client_id, "the session was deleted by an operator");
    Ok(StatusCode::NO_CONTENT)
}

fn unknown() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "no session has this client id").help(
        "the list of sessions has every client id; in a path, percent-encode what is no letter or digit",
    )
}
