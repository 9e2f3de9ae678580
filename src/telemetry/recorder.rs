//! Where metrics are gathered for the page that Prometheus reads.
//!
//! Histograms are shown with buckets, never as quantiles: those of several brokers can be added up.

use std::{sync::OnceLock, time::Duration};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// How often samples of histograms are gathered into their buckets; between scrapes they occupy memory.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Seconds of a commit: a fast disk syncs in a tenth of a millisecond, a sick one in a second.
const COMMIT_SECONDS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];
const COMMIT_RECORDS: &[f64] =
    &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0];
/// Any other time, up to that of an attempt that ends in a timeout.
const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// From a publish to the answer of a target, which may be down for a day.
const DELIVERY_SECONDS: &[f64] =
    &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 60.0, 300.0, 3600.0, 21_600.0, 86_400.0];

/// Makes this process gather its metrics, and gives the handle that shows them. A second call gives the
/// same handle. Handles of metrics that were made before count nothing.
pub fn install_metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(install).clone()
}

/// Gathers what histograms have recorded, every five seconds, for as long as it is polled.
pub async fn upkeep(handle: PrometheusHandle) {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        interval.tick().await;
        handle.run_upkeep();
    }
}

fn install() -> PrometheusHandle {
    // An error means an empty list of buckets; then the recorder's own forms serve.
    let recorder = with_buckets(PrometheusBuilder::new()).unwrap_or_default().build_recorder();
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::warn!("another recorder of metrics was installed before: the metrics page stays empty");
    }
    handle
}

fn with_buckets(builder: PrometheusBuilder) -> Result<PrometheusBuilder, BuildError> {
    builder
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
        .set_buckets_for_metric(
            Matcher::Full("causeway_bridge_delivery_seconds".to_owned()),
            DELIVERY_SECONDS,
        )?
        .set_buckets_for_metric(Matcher::Full("causeway_store_commit_seconds".to_owned()), COMMIT_SECONDS)?
        .set_buckets_for_metric(Matcher::Full("causeway_store_commit_records".to_owned()), COMMIT_RECORDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_have_buckets() {
        let recorder = with_buckets(PrometheusBuilder::new()).unwrap().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!("causeway_store_commit_seconds").record(0.0003);
            metrics::histogram!("causeway_store_commit_records").record(7.0);
            metrics::histogram!("causeway_anything_seconds").record(20.0);
        });
        let page = recorder.handle().render();
        for line in [
            "causeway_store_commit_seconds_bucket{le=\"0.00025\"} 0",
            "causeway_store_commit_seconds_bucket{le=\"0.0005\"} 1",
            "causeway_store_commit_records_bucket{le=\"5\"} 0",
            "causeway_store_commit_records_bucket{le=\"10\"} 1",
            "causeway_anything_seconds_bucket{le=\"30\"} 1",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    }
}
