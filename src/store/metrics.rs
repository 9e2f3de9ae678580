//! The store's own counters, as handles that are looked up once.

use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};

/// Handles of the store's metrics.
#[derive(Debug)]
pub(super) struct StoreMetrics {
    /// Records of which nothing was left to write.
    pub(super) skipped: Counter,
    /// Messages that somebody is owed and that are nowhere.
    pub(super) missing: Counter,
    commits: Counter,
    seconds: Histogram,
    records: Histogram,
}

impl StoreMetrics {
    pub(super) fn new() -> Self {
        Self {
            skipped: counter!("causeway_store_records_skipped_total"),
            missing: counter!("causeway_store_messages_missing_total"),
            commits: counter!("causeway_store_commits_total"),
            seconds: histogram!("causeway_store_commit_seconds"),
            records: histogram!("causeway_store_commit_records"),
        }
    }

    pub(super) fn committed(&self, records: usize, took: Duration) {
        self.commits.increment(1);
        self.seconds.record(took.as_secs_f64());
        self.records.record(records as f64);
    }
}
