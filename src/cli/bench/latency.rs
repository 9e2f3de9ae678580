//! Latencies, counted exactly and cheaply.
//!
//! Messages of one write and one read have the same latency, so a whole run of them is one entry of the
//! histogram. Histograms are shared by the clients of a thread: one per client would need more memory than
//! thousands of connections do.

use hdrhistogram::Histogram;
use parking_lot::Mutex;
use serde::Serialize;

/// Three significant figures: an error of at most 0.1 %.
const SIGNIFICANT_FIGURES: u8 = 3;

/// Histograms of nanoseconds, one for each thread.
#[derive(Debug)]
pub struct Latencies {
    shards: Vec<Mutex<Histogram<u64>>>,
}

/// What is reported of a histogram, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LatencySummary {
    /// How many messages were measured.
    pub count: u64,
    /// The arithmetic mean.
    pub mean_us: f64,
    /// The median.
    pub p50_us: f64,
    /// 99 % took no longer.
    pub p99_us: f64,
    /// 99.9 % took no longer.
    pub p999_us: f64,
    /// The longest of all.
    pub max_us: f64,
}

impl Latencies {
    /// Empty histograms for so many threads.
    pub fn new(threads: usize) -> Self {
        Self { shards: (0..threads.max(1)).filter_map(|_| histogram()).map(Mutex::new).collect() }
    }

    /// Notes `count` messages that took `nanos`. `client` spreads clients over the histograms.
    pub fn record(&self, client: u32, nanos: u64, count: u64) {
        let at = client as usize % self.shards.len().max(1);
        if let Some(shard) = self.shards.get(at) {
            // A histogram without bounds resizes itself: there is no value that it refuses.
            let _ = shard.lock().record_n(nanos, count);
        }
    }

    /// The summary over all threads; `None` when nothing was measured.
    pub fn summary(&self) -> Option<LatencySummary> {
        let mut all = histogram()?;
        for shard in &self.shards {
            // Both resize themselves, so there is no range that could not be added.
            all.add(&*shard.lock()).ok()?;
        }
        let us = |nanos: u64| nanos as f64 / 1000.0;
        (!all.is_empty()).then(|| LatencySummary {
            count: all.len(),
            mean_us: all.mean() / 1000.0,
            p50_us: us(all.value_at_quantile(0.5)),
            p99_us: us(all.value_at_quantile(0.99)),
            p999_us: us(all.value_at_quantile(0.999)),
            max_us: us(all.max()),
        })
    }
}

fn histogram() -> Option<Histogram<u64>> {
    Histogram::new(SIGNIFICANT_FIGURES).ok()
}

/// Equal latencies in a row, not yet in a histogram.
#[derive(Clone, Copy, Debug, Default)]
pub struct LatencyRun {
    nanos: u64,
    count: u64,
}

impl LatencyRun {
    /// Adds one message; a run that ends with it goes into `latencies`.
    pub fn add(&mut self, nanos: u64, client: u32, latencies: &Latencies) {
        if nanos != self.nanos {
            self.flush(client, latencies);
            self.nanos = nanos;
        }
        self.count += 1;
    }

    /// Puts what was gathered into `latencies`.
    pub fn flush(&mut self, client: u32, latencies: &Latencies) {
        if self.count > 0 {
            latencies.record(client, self.nanos, self.count);
            self.count = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_measured_is_not_reported_as_zero() {
        assert_eq!(Latencies::new(2).summary(), None);
    }

    #[test]
    fn quantiles_are_taken_over_all_threads() {
        let latencies = Latencies::new(2);
        latencies.record(0, 1_000, 990);
        latencies.record(1, 50_000, 9);
        latencies.record(2, 7_000_000, 1);
        let summary = latencies.summary().unwrap();
        assert_eq!(summary.count, 1_000);
        let near = |value: f64, expected: f64| (value / expected - 1.0).abs() < 0.002;
        assert!(near(summary.p50_us, 1.0), "{summary:?}");
        assert!(near(summary.p99_us, 1.0), "{summary:?}");
        assert!(near(summary.p999_us, 50.0), "{summary:?}");
        assert!(near(summary.max_us, 7_000.0), "{summary:?}");
    }

    #[test]
    fn a_run_counts_every_message() {
        let latencies = Latencies::new(1);
        let mut run = LatencyRun::default();
        for nanos in [500, 500, 500, 900] {
            run.add(nanos, 0, &latencies);
        }
        assert_eq!(latencies.summary().unwrap().count, 3, "the last run is still open");
        run.flush(0, &latencies);
        run.flush(0, &latencies);
        assert_eq!(latencies.summary().unwrap().count, 4);
    }
}
