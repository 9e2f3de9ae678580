//! `/api/v1/dead-letters`: the messages that were given up, and what becomes of them.

use std::collections::BTreeSet;

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{ApiError, App, Shared};
use crate::{
    bridge::{DeadLetterFilter, DeadLetterPage, DeadLettersError, FiledLetter},
    broker::{Replay, ReplayError},
    record::{DeadLetterReason, DeadLetterView, Lsn},
};

/// Letters of one page at most, and of one commit when something is done to many.
const PAGE_MAX: usize = 1000;

type Id = Result<Path<u64>, PathRejection>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ListQuery {
    after: u64,
    limit: usize,
    route: Option<String>,
    client_id: Option<String>,
    reason: Option<String>,
}

/// Which letters something is done to; without any, to all.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FilterQuery {
    route: Option<String>,
    client_id: Option<String>,
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct PageView<'a> {
    dead_letters: Vec<DeadLetterView<'a>>,
    /// What to name as `after` to go on; null at the end.
    next: Option<u64>,
}

/// How many letters something was done to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Letters that are gone, or on their way again.
    pub done: u64,
    /// Letters that are still there because it could not be done.
    pub left: u64,
    /// Why, for the first of those.
    pub why: Option<String>,
}

impl Done {
    /// Counts a letter that it could not be done to.
    pub fn leave(&mut self, why: impl Into<String>) {
        self.left += 1;
        self.why.get_or_insert_with(|| why.into());
    }
}

impl Default for ListQuery {
    fn default() -> Self {
        Self { after: 0, limit: 100, route: None, client_id: None, reason: None }
    }
}

/// The oldest first. A page can be short without being the last: it ends after some bytes, too.
pub(super) async fn list(
    State(app): Shared,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(ListQuery { after, limit, route, client_id, reason }) = query?;
    let filter = FilterQuery { route, client_id, reason }.parse()?;
    let page = app.letters(Lsn(after), limit.clamp(1, PAGE_MAX), filter).await?;
    let view = PageView {
        dead_letters: page.letters.iter().map(FiledLetter::view).collect(),
        next: page.next.map(|next| next.0),
    };
    Ok(Json(view).into_response())
}

pub(super) async fn show(State(app): Shared, id: Id) -> Result<Response, ApiError> {
    let Path(id) = id?;
    Ok(Json(app.dead_letters.get(Lsn(id)).await?.view()).into_response())
}

pub(super) async fn discard(State(app): Shared, id: Id) -> Result<StatusCode, ApiError> {
    let Path(id) = id?;
    match app.dead_letters.discard(vec![Lsn(id)]).await? {
        0 => Err(DeadLettersError::NotFound(Lsn(id)).into()),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

pub(super) async fn replay(State(app): Shared, id: Id) -> Result<StatusCode, ApiError> {
    let Path(id) = id?;
    app.dead_letters.replay(Lsn(id), &Replay::default()).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn discard_all(
    State(app): Shared,
    query: Result<Query<FilterQuery>, QueryRejection>,
) -> Result<Json<Done>, ApiError> {
    let mut meant = Meant::new(&app, query?.0.parse()?);
    let mut done = Done::default();
    while let Some(ids) = meant.next_page().await? {
        done.done += app.dead_letters.discard(ids).await? as u64;
    }
    Ok(Json(done))
}

pub(super) async fn replay_all(
    State(app): Shared,
    query: Result<Query<FilterQuery>, QueryRejection>,
) -> Result<Json<Done>, ApiError> {
    let mut meant = Meant::new(&app, query?.0.parse()?);
    let mut done = Done::default();
    while let Some(ids) = meant.next_page().await? {
        let ids = BTreeSet::from_iter(ids);
        let count = ids.len();
        let left = app.dead_letters.replay_each(&ids, &Replay::default()).await?;
        done.done += (count - left.len()) as u64;
        left.iter().for_each(|(_, error)| done.leave(error.to_string()));
    }
    Ok(Json(done))
}

/// Goes through all letters that are meant, page by page.
struct Meant<'a> {
    app: &'a App,
    filter: DeadLetterFilter,
    /// Letters that are filed after the beginning are not meant: a replay can end in a new one.
    last: Lsn,
    next: Option<Lsn>,
}

impl<'a> Meant<'a> {
    fn new(app: &'a App, filter: DeadLetterFilter) -> Self {
        Self { app, filter, last: app.state.broker.store.watermark(), next: Some(Lsn::ZERO) }
    }

    /// The numbers of some of the letters; `None` when all were given.
    async fn next_page(&mut self) -> Result<Option<Vec<Lsn>>, ApiError> {
        let Some(after) = self.next.filter(|after| *after < self.last) else { return Ok(None) };
        let page = self.app.letters(after, PAGE_MAX, self.filter.clone()).await?;
        self.next = page.next;
        Ok(Some(page.letters.iter().map(|filed| filed.id).filter(|id| *id <= self.last).collect()))
    }
}

impl App {
    /// One page at a time, because each can hold many megabytes.
    async fn letters(
        &self,
        after: Lsn,
        max: usize,
        filter: DeadLetterFilter,
    ) -> Result<DeadLetterPage, ApiError> {
        // It is never closed.
        let _permit = self.scans.acquire().await;
        Ok(self.dead_letters.list(after, max, filter).await?)
    }
}

impl FilterQuery {
    fn parse(self) -> Result<DeadLetterFilter, ApiError> {
        let Self { route, client_id, reason } = self;
        let reason = reason.map(|word| find_reason(&word)).transpose()?;
        Ok(DeadLetterFilter { route, client_id, reason, ..DeadLetterFilter::default() })
    }
}

fn find_reason(word: &str) -> Result<DeadLetterReason, ApiError> {
    let known = DeadLetterReason::ALL.iter().find(|reason| reason.as_str() == word);
    known.copied().ok_or_else(|| {
        let words: Vec<_> = DeadLetterReason::ALL.iter().map(|reason| reason.as_str()).collect();
        ApiError::new(StatusCode::BAD_REQUEST, "no dead letter has this reason")
            .help(format!("a reason is one of {}", words.join(", ")))
    })
}

impl From<DeadLettersError> for ApiError {
    fn from(error: DeadLettersError) -> Self {
        let message = error.to_string();
        match error {
            DeadLettersError::NotFound(_) => Self::new(StatusCode::NOT_FOUND, message)
                .help("GET /api/v1/dead-letters lists those there are"),
            DeadLettersError::Unreadable { .. } => Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
                .help("it can only be discarded, or read by the version of Causeway that filed it"),
            DeadLettersError::Replay(ReplayError::Refused) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
                    .help("the letter is still there; GET /readyz says what is wrong")
            }
            DeadLettersError::Replay(_) => {
                Self::new(StatusCode::CONFLICT, message).help("the letter is still there")
            }
            DeadLettersError::Store(error) => error.into(),
            DeadLettersError::Submit(error) => error.into(),
            DeadLettersError::ShuttingDown => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, message).help("ask again when it has started")
            }
        }
    }
}
