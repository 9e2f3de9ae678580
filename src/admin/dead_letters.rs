//! `/api/v1/dead-letters`: the messages that were given up, and what becomes of them.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::{
    Json,
    body::{Body, Bytes},
    extract::{
        Path, Query, State,
        rejection::{BytesRejection, PathRejection, QueryRejection},
    },
    response::{IntoResponse, Response},
};
use http::StatusCode;
use http_body_util::BodyExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::letter_query::{LetterQuery, ReplayChanges};
use super::{ApiError, App, Shared};
use crate::{
    bridge::{
        DeadLetterFilter, DeadLetterPage, DeadLettersError, FiledLetter, Import, ImportError, Imported,
    },
    broker::ReplayError,
    record::{DeadLetterView, Lsn},
};

/// Letters of one page at most, and of one commit when something is done to many.
const PAGE_MAX: usize = 1000;
/// Letters of a list for which nobody says how many.
const PAGE: usize = 100;
/// A request that does something to many ends after so long, and says where to go on.
const SLICE: Duration = Duration::from_secs(5);
/// Pauses of a replay with a rate in each second.
const PAUSES: u32 = 4;

type Id = Result<Path<u64>, PathRejection>;
type ReadQuery = Result<Query<LetterQuery>, QueryRejection>;
type ReadBody = Result<Bytes, BytesRejection>;

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
    /// What to name as `after` to go on with the others; `None` when it was done to all.
    pub next: Option<u64>,
    /// What to name as `last` with that.
    pub last: u64,
}

impl Done {
    /// Counts a letter that it could not be done to.
    pub fn leave(&mut self, why: impl Into<String>) {
        self.left += 1;
        self.why.get_or_insert_with(|| why.into());
    }
}

/// The oldest first. A page can be short without being the last: it ends after some bytes, too.
pub(super) async fn list(State(app): Shared, query: ReadQuery) -> Result<Response, ApiError> {
    let Query(query) = query?;
    let (after, limit) = (Lsn(query.after), query.limit.unwrap_or(PAGE).clamp(1, PAGE_MAX));
    let page = app.letters(after, limit, query.filter()?).await?;
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

pub(super) async fn replay(State(app): Shared, id: Id, body: ReadBody) -> Result<StatusCode, ApiError> {
    let Path(id) = id?;
    app.dead_letters.replay(Lsn(id), &ReplayChanges::read(&body?)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn discard_all(State(app): Shared, query: ReadQuery) -> Result<Json<Done>, ApiError> {
    let mut meant = Meant::new(&app, query?.0)?;
    let mut done = Done::default();
    while let Some(ids) = meant.next_page(PAGE_MAX).await? {
        done.done += app.dead_letters.discard(ids).await? as u64;
    }
    Ok(Json(meant.told(done)))
}

/// Those that could not be replayed stay, and are passed over.
pub(super) async fn replay_all(
    State(app): Shared,
    query: ReadQuery,
    body: ReadBody,
) -> Result<Json<Done>, ApiError> {
    let Query(query) = query?;
    let (replay, rate) = (ReplayChanges::read(&body?)?, query.rate.map(|rate| rate.max(1)));
    let page_max = rate.map_or(PAGE_MAX, |rate| (rate / PAUSES).clamp(1, PAGE_MAX as u32) as usize);
    let mut meant = Meant::new(&app, query)?;
    let mut done = Done::default();
    while let Some(ids) = meant.next_page(page_max).await? {
        let ids = BTreeSet::from_iter(ids);
        let count = ids.len();
        let begun = Instant::now();
        let left = app.dead_letters.replay_each(&ids, &replay).await?;
        done.done += (count - left.len()) as u64;
        left.iter().for_each(|(_, error)| done.leave(error.to_string()));
        if let Some(rate) = rate {
            tokio::time::sleep_until(begun + Duration::from_secs(1) * count as u32 / rate).await;
        }
    }
    Ok(Json(meant.told(done)))
}

/// Lines of an export. What comes before a line that is wrong is filed.
pub(super) async fn import(State(app): Shared, body: Body) -> Result<Json<Imported>, ApiError> {
    let (mut import, mut body) = (Import::begin(&app.dead_letters).await?, body);
    // The largest payload as base64, and room for the rest.
    let line_max = app.state.broker.limits().session.packet_size as usize * 2 + PAGE_MAX * 1024;
    let read = read_lines(&mut body, line_max, &mut import).await;
    let imported = import.finish().await?;
    // Who still sends does not see an answer before the connection breaks.
    while let Some(Ok(_)) = body.frame().await {}
    match read {
        Ok(()) => Ok(Json(imported)),
        Err(error) => {
            let Imported { imported, known, .. } = imported;
            let before = format!("{imported} before it were imported, and {known} were there already");
            let ApiError { status, error, help } = error;
            let help = help.map(|help| format!("{help}; {before}")).unwrap_or(before);
            Err(ApiError { status, error, help: Some(help.into()) })
        }
    }
}

async fn read_lines(body: &mut Body, line_max: usize, import: &mut Import<'_>) -> Result<(), ApiError> {
    let mut line = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            ApiError::new(StatusCode::BAD_REQUEST, format!("the body has broken off: {error}"))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if line.len() > line_max {
                return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "a line is too long")
                    .help("each dead letter is one line, as `causeway dead-letters export` writes it"));
            }
            if line.ends_with(b"\n") {
                import.line(&line).await?;
                line.clear();
            }
        }
    }
    Ok(import.line(&line).await?)
}

/// Goes through all letters that are meant, page by page, for as long as a request may take.
struct Meant<'a> {
    app: &'a App,
    filter: DeadLetterFilter,
    /// Letters that are filed after the beginning are not meant: a replay can end in a new one.
    last: Lsn,
    next: Option<Lsn>,
    ends_at: Instant,
}

impl<'a> Meant<'a> {
    fn new(app: &'a App, query: LetterQuery) -> Result<Self, ApiError> {
        let last = query.last.map_or_else(|| app.state.broker.store.watermark(), Lsn);
        let next = Some(Lsn(query.after));
        Ok(Self { app, filter: query.filter()?, last, next, ends_at: Instant::now() + SLICE })
    }

    /// The numbers of some of the letters; `None` when all were given, or it is time to answer.
    async fn next_page(&mut self, max: usize) -> Result<Option<Vec<Lsn>>, ApiError> {
        self.next = self.next.filter(|after| *after < self.last);
        let Some(after) = self.next.filter(|_| Instant::now() < self.ends_at) else { return Ok(None) };
        let page = self.app.letters(after, max, self.filter.clone()).await?;
        self.next = page.next;
        Ok(Some(page.letters.iter().map(|filed| filed.id).filter(|id| *id <= self.last).collect()))
    }

    fn told(&self, done: Done) -> Done {
        Done { next: self.next.map(|next| next.0), last: self.last.0, ..done }
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

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<ImportError> for ApiError {
    fn from(error: ImportError) -> Self {
        let message = error.to_string();
        match error {
            ImportError::Line { .. } => Self::new(StatusCode::BAD_REQUEST, message)
                .help("each line is a dead letter as `causeway dead-letters export` writes it"),
            ImportError::Full(_) => Self::new(StatusCode::INSUFFICIENT_STORAGE, message)
                .help("discard some, or raise limits.dead_letters and limits.dead_letter_bytes"),
            ImportError::Letters(error) => error.into(),
        }
    }
}

impl From<DeadLettersError> for ApiError {
    fn from(error: DeadLettersError) -> Self {
        let message = error.to_string();
        match error {
            DeadLettersError::NotFound(_) => Self::new(StatusCode::NOT_FOUND, message)
                .help("`causeway dead-letters list` (GET /api/v1/dead-letters) shows those there are"),
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
