//! Gauges that are computed when the metrics page is asked for.

use std::{path::Path, sync::Arc, time::Duration};

use metrics::{Gauge, describe_gauge, gauge};
use tokio::sync::Mutex;

use super::AdminState;
use crate::{broker::Broker, record::UnixMillis, telemetry};

/// They go through all sessions: not more often than this, however many scrape.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// The gauges, and when they were last computed.
#[derive(Debug)]
pub(super) struct Gauges {
    handles: Arc<Handles>,
    refreshed_at: Mutex<Option<UnixMillis>>,
}

#[derive(Debug)]
struct Handles {
    disk_used: Gauge,
    disk_free: Gauge,
    oldest_unsettled: Gauge,
    sessions: Gauge,
    sessions_offline: Gauge,
    sessions_in_backlog: Gauge,
    dead_letters: Gauge,
    dead_letter_bytes: Gauge,
    oldest_dead_letter: Gauge,
    resident_memory: Gauge,
    open_files: Gauge,
}

impl Gauges {
    pub(super) fn new() -> Self {
        Self { handles: Arc::new(Handles::new()), refreshed_at: Mutex::default() }
    }

    /// Computes the gauges, unless that was done less than a second ago. Scrapes that come meanwhile wait
    /// for the one that computes.
    pub(super) async fn refresh(&self, state: &AdminState) {
        let mut refreshed_at = self.refreshed_at.lock().await;
        let now = state.broker.clock.now();
        if refreshed_at.is_some_and(|at| now.since(at) < REFRESH_INTERVAL) {
            return;
        }
        let (handles, broker) = (Arc::clone(&self.handles), Arc::clone(&state.broker));
        let data = state.data.clone();
        let bridge = Arc::clone(&state.bridge);
        let compute = move || {
            handles.compute(&broker, &data);
            bridge.measure_age();
        };
        let computed = tokio::task::spawn_blocking(compute).await;
        if computed.is_ok() {
            *refreshed_at = Some(now);
        }
    }
}

impl Handles {
    fn new() -> Self {
        describe();
        Self {
            disk_used: gauge!("causeway_disk_used_bytes"),
            disk_free: gauge!("causeway_disk_free_bytes"),
            oldest_unsettled: gauge!("causeway_oldest_unsettled_seconds"),
            sessions: gauge!("causeway_sessions"),
            sessions_offline: gauge!("causeway_sessions_offline"),
            sessions_in_backlog: gauge!("causeway_sessions_in_backlog"),
            dead_letters: gauge!("causeway_dead_letters"),
            dead_letter_bytes: gauge!("causeway_dead_letter_bytes"),
            oldest_dead_letter: gauge!("causeway_dead_letter_oldest_seconds"),
            resident_memory: gauge!("process_resident_memory_bytes"),
            open_files: gauge!("process_open_fds"),
        }
    }

    /// What cannot be measured keeps its last value.
    fn compute(&self, broker: &Broker, data: &Path) {
        let sessions = broker.session_counts();
        set(&self.sessions, sessions.all);
        set(&self.sessions_offline, sessions.offline);
        set(&self.sessions_in_backlog, sessions.in_backlog);
        let (dead_letters, dead_letter_bytes) = broker.store.dead_letters();
        set(&self.dead_letters, dead_letters);
        set(&self.dead_letter_bytes, dead_letter_bytes);
        let age = broker.oldest_dead_letter().map_or(Duration::ZERO, |at| broker.clock.now().since(at));
        self.oldest_dead_letter.set(age.as_secs_f64());
        let age = broker.oldest_unsettled().map_or(Duration::ZERO, |at| broker.clock.now().since(at));
        self.oldest_unsettled.set(age.as_secs_f64());
        if let Ok(space) = telemetry::disk_space(data) {
            set(&self.disk_used, space.used);
            set(&self.disk_free, space.free);
        }
        if let Some(bytes) = telemetry::resident_bytes() {
            set(&self.resident_memory, bytes);
        }
        if let Some(files) = telemetry::open_files() {
            set(&self.open_files, files);
        }
    }
}

fn set(gauge: &Gauge, value: u64) {
    gauge.set(value as f64);
}

fn describe() {
    describe_gauge!("causeway_disk_used_bytes", "Bytes that the files of the store occupy");
    describe_gauge!("causeway_disk_free_bytes", "Bytes that are free on the disk of the store");
    describe_gauge!(
        "causeway_oldest_unsettled_seconds",
        "Age of the oldest message that a session or a route is still owed; 0 when there is none"
    );
    describe_gauge!("causeway_sessions", "Sessions, with a connection or without");
    describe_gauge!("causeway_sessions_offline", "Sessions without a connection");
    describe_gauge!(
        "causeway_sessions_in_backlog",
        "Connected sessions that read what they are owed from the disk"
    );
    describe_gauge!("causeway_dead_letters", "Dead letters that are kept");
    describe_gauge!("causeway_dead_letter_bytes", "Bytes of the dead letters that are kept");
    describe_gauge!(
        "causeway_dead_letter_oldest_seconds",
        "Time since the oldest dead letter was given up; 0 when there is none"
    );
    describe_gauge!("process_resident_memory_bytes", "Bytes of memory in use");
    describe_gauge!("process_open_fds", "Files and sockets that are open");
}
