//! `/api/v1/dead-letters`: the messages that were given up, and what becomes of them.
//!
//! Invariant: a letter goes only by a record that discards it, or that also hands its message over again.

use axum::{
    Json,
    body::Bytes,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};

use super::{ApiError, App, Shared};
use crate::{
    record::{Addressee, Change, DeadLetter, DeadLetterError, DeadLetterReason, DeadLetterView, Lsn, Record},
    store::{Store, StoreError},
};

/// Letters of one page at most, and of one record that discards them.
const PAGE_MAX: usize = 1000;
/// Bytes of letters after which a page ends.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// Bytes and letters that are looked at for one page when a filter keeps few of them.
const SCANNED_BYTES_MAX: usize = 64 << 20;
const SCANNED_MAX: usize = 10_000;
/// Letters that are read at once: each can be as long as the longest packet.
const READ_AT_ONCE: usize = 16;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ListQuery {
    after: u64,
    limit: usize,
    route: Option<String>,
    reason: Option<String>,
}

/// Which letters are meant, for what is done to many.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FilterQuery {
    route: Option<String>,
    reason: Option<String>,
}

/// Which letters are meant.
#[derive(Clone, Debug, Default)]
struct Filter {
    route: Option<String>,
    reason: Option<DeadLetterReason>,
}

/// A letter and its number.
type Filed = (Lsn, Result<DeadLetter, DeadLetterError>);

/// A part of the letters, oldest first.
#[derive(Debug)]
struct Page {
    letters: Vec<Filed>,
    /// Where to go on; `None` when all were looked at.
    next: Option<Lsn>,
}

#[derive(Debug, Serialize)]
struct PageView<'a> {
    dead_letters: Vec<LetterView<'a>>,
    next: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum LetterView<'a> {
    Letter(Box<DeadLetterView<'a>>),
    Unreadable { id: u64, error: String },
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
    pub fn leave(&mut self, why: &str) {
        self.left += 1;
        self.why.get_or_insert_with(|| why.to_owned());
    }
}

impl Default for ListQuery {
    fn default() -> Self {
        Self { after: 0, limit: 100, route: None, reason: None }
    }
}

pub(super) async fn list(
    State(app): Shared,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(ListQuery { after, limit, route, reason }) = query?;
    let filter = Filter::new(route, reason)?;
    let json = app.blocking(move |broker| {
        let page = read_page(&broker.store, &filter, Lsn(after), limit.clamp(1, PAGE_MAX))?;
        to_json(&PageView::new(&page))
    });
    Ok(answer(json.await??))
}

pub(super) async fn show(
    State(app): Shared,
    id: Result<Path<u64>, PathRejection>,
) -> Result<Response, ApiError> {
    let Path(id) = id?;
    let json = app.blocking(move |broker| {
        let letter = find(&broker.store, Lsn(id))?;
        to_json(&DeadLetterView::new(Lsn(id), &letter))
    });
    Ok(answer(json.await??))
}

pub(super) async fn discard(
    State(app): Shared,
    id: Result<Path<u64>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let Path(id) = id?;
    match app.blocking(move |broker| find(&broker.store, Lsn(id))).await? {
        Err(error) if error.status == StatusCode::NOT_FOUND => return Err(error),
        // One that cannot be read can still be discarded.
        Ok(_) | Err(_) => app.discard(vec![Lsn(id)]).await?,
    }
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn replay(
    State(app): Shared,
    id: Result<Path<u64>, PathRejection>,
) -> Result<StatusCode, ApiError> {
    let Path(id) = id?;
    let replayed = app.blocking(move |broker| {
        let letter = find(&broker.store, Lsn(id))?;
        Ok::<_, ApiError>(owe_again(broker, Lsn(id), &letter)?)
    });
    app.state.broker.store.durable(replayed.await??).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn discard_all(
    State(app): Shared,
    query: Result<Query<FilterQuery>, QueryRejection>,
) -> Result<Json<Done>, ApiError> {
    let filter = Filter::try_from(query?.0)?;
    let mut done = Done::default();
    let mut meant = Meant::new(&app, filter);
    while let Some(letters) = meant.next_page().await? {
        let ids: Vec<_> = letters.iter().map(|(id, _)| *id).collect();
        done.done += ids.len() as u64;
        app.discard(ids).await?;
    }
    Ok(Json(done))
}

pub(super) async fn replay_all(
    State(app): Shared,
    query: Result<Query<FilterQuery>, QueryRejection>,
) -> Result<Json<Done>, ApiError> {
    let filter = Filter::try_from(query?.0)?;
    let mut done = Done::default();
    let mut meant = Meant::new(&app, filter);
    while let Some(letters) = meant.next_page().await? {
        let mut last = Lsn::ZERO;
        for (id, letter) in &letters {
            match letter {
                Ok(letter) => match owe_again(&app.state.broker, *id, letter) {
                    Ok(replayed) => (last, done.done) = (last.max(replayed), done.done + 1),
                    Err(error) => done.leave(&error.to_string()),
                },
                Err(error) => done.leave(&error.to_string()),
            }
        }
        app.state.broker.store.durable(last).await?;
    }
    Ok(Json(done))
}

/// Goes through all letters that are meant, page by page.
struct Meant<'a> {
    app: &'a App,
    filter: Filter,
    /// Letters that are filed after the beginning are not meant: a replay can end in a new one.
    last: Lsn,
    next: Option<Lsn>,
}

impl<'a> Meant<'a> {
    fn new(app: &'a App, filter: Filter) -> Self {
        Self { app, filter, last: app.state.broker.store.watermark(), next: Some(Lsn::ZERO) }
    }

    /// Some of the letters; `None` when all were given.
    async fn next_page(&mut self) -> Result<Option<Vec<Filed>>, ApiError> {
        let Some(after) = self.next.filter(|after| *after < self.last) else { return Ok(None) };
        let (filter, last) = (self.filter.clone(), self.last);
        let page = self.app.blocking(move |broker| read_page(&broker.store, &filter, after, PAGE_MAX));
        let Page { mut letters, next } = page.await??;
        self.next = next;
        letters.retain(|(id, _)| *id <= last);
        Ok(Some(letters))
    }
}

impl App {
    async fn discard(&self, ids: Vec<Lsn>) -> Result<(), ApiError> {
        let store = &self.state.broker.store;
        let discarded = store.submit(Record::of([Change::DeadLettersDiscarded(ids)]))?.lsn;
        Ok(store.durable(discarded).await?)
    }
}

impl Filter {
    fn new(route: Option<String>, reason: Option<String>) -> Result<Self, ApiError> {
        let reason = reason.map(|word| find_reason(&word)).transpose()?;
        Ok(Self { route, reason })
    }

    fn is_everything(&self) -> bool {
        self.route.is_none() && self.reason.is_none()
    }

    fn keeps(&self, letter: &DeadLetter) -> bool {
        let route = match &letter.addressee {
            Addressee::Route { route, .. } => Some(route),
            Addressee::Session { .. } => None,
        };
        self.route.as_ref().is_none_or(|wanted| route == Some(wanted))
            && self.reason.is_none_or(|wanted| letter.reason == wanted)
    }
}

impl TryFrom<FilterQuery> for Filter {
    type Error = ApiError;

    fn try_from(FilterQuery { route, reason }: FilterQuery) -> Result<Self, ApiError> {
        Self::new(route, reason)
    }
}

impl<'a> PageView<'a> {
    fn new(page: &'a Page) -> Self {
        let view = |(id, letter): &'a Filed| match letter {
            Ok(letter) => LetterView::Letter(Box::new(DeadLetterView::new(*id, letter))),
            Err(error) => LetterView::Unreadable { id: id.0, error: error.to_string() },
        };
        Self { dead_letters: page.letters.iter().map(view).collect(), next: page.next.map(|next| next.0) }
    }
}

/// The letters after `after` that the filter keeps. Blocks on the disk.
fn read_page(store: &Store, filter: &Filter, after: Lsn, limit: usize) -> Result<Page, StoreError> {
    let (mut letters, mut cursor) = (Vec::new(), after);
    let (mut bytes, mut scanned, mut scanned_bytes) = (0, 0, 0);
    loop {
        let batch = store.read_dead_letters(cursor, READ_AT_ONCE)?;
        if batch.is_empty() {
            return Ok(Page { letters, next: None });
        }
        for stored in batch {
            cursor = stored.id;
            scanned += 1;
            scanned_bytes += stored.bytes.len();
            let letter = DeadLetter::decode(&stored.bytes);
            if letter.as_ref().map_or(filter.is_everything(), |letter| filter.keeps(letter)) {
                bytes += stored.bytes.len();
                letters.push((stored.id, letter));
            }
            let page_is_full = letters.len() >= limit || bytes >= PAGE_BYTES_MAX;
            if page_is_full || scanned >= SCANNED_MAX || scanned_bytes >= SCANNED_BYTES_MAX {
                return Ok(Page { letters, next: Some(cursor) });
            }
        }
    }
}

/// The letter with this number. Blocks on the disk.
fn find(store: &Store, id: Lsn) -> Result<DeadLetter, ApiError> {
    let before = Lsn(id.0.saturating_sub(1));
    let stored = store.read_dead_letters(before, 1)?.pop().filter(|stored| stored.id == id);
    let stored = stored.ok_or_else(|| {
        ApiError::new(StatusCode::NOT_FOUND, format!("there is no dead letter {}", id.0)).help(
            "it was replayed or discarded, or never there; GET /api/v1/dead-letters lists those there are",
        )
    })?;
    DeadLetter::decode(&stored.bytes).map_err(|error| {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("dead letter {} is damaged: {error}", id.0))
    })
}

fn find_reason(word: &str) -> Result<DeadLetterReason, ApiError> {
    let known = DeadLetterReason::ALL.iter().find(|reason| reason.as_str() == word);
    known.copied().ok_or_else(|| {
        let words: Vec<_> = DeadLetterReason::ALL.iter().map(|reason| reason.as_str()).collect();
        ApiError::new(StatusCode::BAD_REQUEST, "no dead letter has this reason")
            .help(format!("a reason is one of {}", words.join(", ")))
    })
}

fn to_json(value: &impl Serialize) -> Result<Bytes, ApiError> {
    let json = serde_json::to_vec(value);
    json.map(Bytes::from).map_err(|error| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

fn answer(json: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}
