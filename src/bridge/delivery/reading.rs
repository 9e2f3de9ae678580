//! Reading of the backlog, beside the task of the route: what a message is judged and sorted by is found there,
//! too, because it may take parsing.

use std::sync::Arc;

use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use super::lanes::Lane;
use super::window::{Arrived, Wanted};
use crate::bridge::filter::{Filter, Judgement};
use crate::config::RouteConfig;
use crate::record::{Lsn, RecipientNo};
use crate::store::{Page, Store, StoreError, Stored};

/// A reading under way.
pub(super) struct Reading {
    pub(super) wanted: Wanted,
    pub(super) read: JoinHandle<Result<Judged, StoreError>>,
}

/// How a reading ended.
pub(super) type Read = Result<Result<Judged, StoreError>, JoinError>;

/// What was read, and what the filter of the route does not take of it.
#[derive(Default)]
pub(super) struct Judged {
    pub(super) arrived: Arrived,
    /// Nothing is owed to the route.
    pub(super) dropped: Vec<Lsn>,
    /// The filter has no answer, and why.
    pub(super) unclear: Vec<(Stored, String)>,
}

/// What decides about the messages of a route.
pub(super) struct Sorter {
    pub(super) config: Arc<RouteConfig>,
    pub(super) filter: Filter,
}

impl Reading {
    /// Begins to read what is wanted of what a route is owed, and not above `durable`.
    pub(super) fn begin(
        store: &Store,
        (recipient, sorter): (RecipientNo, &Arc<Sorter>),
        wanted: Wanted,
        durable: Lsn,
    ) -> Self {
        let (store, sorter) = (store.clone(), Arc::clone(sorter));
        let read = match &wanted {
            Wanted::New { after, max } => {
                let (after, max) = (*after, *max);
                spawn_blocking(move || {
                    let page = store.read_after(recipient, (after, durable), max, |_| false)?;
                    Ok(sorter.judge(page))
                })
            }
            Wanted::Again(again) => {
                let numbers = again.numbers.clone();
                // The filter has let them through.
                spawn_blocking(move || Ok(sorter.sort(store.read(recipient, &numbers)?)))
            }
        };
        Self { wanted, read }
    }
}

impl Sorter {
    fn judge(&self, mut page: Page) -> Judged {
        let mut judged = Judged::default();
        let passed = page.messages.drain(..).filter_map(|stored| match self.filter.judge(&stored.message) {
            Judgement::Pass => Some(stored),
            Judgement::Drop => {
                judged.dropped.push(stored.lsn);
                None
            }
            Judgement::Error(why) => {
                judged.unclear.push((stored, why));
                None
            }
        });
        let messages = passed.collect();
        Judged { arrived: self.sort(Page { messages, ..page }).arrived, ..judged }
    }

    fn sort(&self, page: Page) -> Judged {
        let with_lane = |stored: Stored| {
            let lane = Lane::of(&stored.message, &self.config.order);
            (stored, lane)
        };
        let messages = page.messages.into_iter().map(with_lane).collect();
        let arrived = Arrived { messages, cursor: page.cursor, is_whole: page.is_whole };
        Judged { arrived, ..Judged::default() }
    }
}
