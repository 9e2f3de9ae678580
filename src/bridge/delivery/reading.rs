//! Reading of the backlog, beside the task of the route: what a message is sorted by is found there, too, because
//! it may take parsing.

use std::sync::Arc;

use tokio::task::{JoinError, JoinHandle, spawn_blocking};

use super::lanes::Lane;
use super::window::{Arrived, Wanted};
use crate::config::RouteConfig;
use crate::record::{Lsn, RecipientNo};
use crate::store::{Page, Store, StoreError};

/// A reading under way.
pub(super) struct Reading {
    pub(super) wanted: Wanted,
    pub(super) read: JoinHandle<Result<Arrived, StoreError>>,
}

/// How a reading ended.
pub(super) type Read = Result<Result<Arrived, StoreError>, JoinError>;

impl Reading {
    /// Begins to read what is wanted of what a route is owed, and not above `durable`.
    pub(super) fn begin(
        store: &Store,
        (recipient, config): (RecipientNo, &Arc<RouteConfig>),
        wanted: Wanted,
        durable: Lsn,
    ) -> Self {
        let (store, config) = (store.clone(), Arc::clone(config));
        let sort = move |page: Page| {
            let with_lane = |stored: crate::store::Stored| {
                let lane = Lane::of(&stored.message, &config.order);
                (stored, lane)
            };
            Arrived {
                messages: page.messages.into_iter().map(with_lane).collect(),
                cursor: page.cursor,
                is_whole: page.is_whole,
            }
        };
        let read = match &wanted {
            Wanted::New { after, max } => {
                let (after, max) = (*after, *max);
                spawn_blocking(move || {
                    store.read_after(recipient, (after, durable), max, |_| false).map(sort)
                })
            }
            Wanted::Again(again) => {
                let numbers = again.numbers.clone();
                spawn_blocking(move || store.read(recipient, &numbers).map(sort))
            }
        };
        Self { wanted, read }
    }
}
