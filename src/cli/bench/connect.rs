//! `bench connect`: opens connections at a rate and holds them.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::time::Duration;

use super::args::ConnectArgs;
use super::client::{Client, Due, Identity, Role, Target, unexpected};
use super::clock::nanos;
use super::error::BenchError;
use super::fleet::{Bench, Fleet};
use super::latency::Latencies;
use super::pace::Pace;
use super::process::Meter;
use super::report::{ConnectReport, Report, Scenario, ratio, seconds};
use super::stage::{Ended, Limits, Phase, Stage};
use crate::codec::Packet;

/// Runs `bench connect`.
///
/// # Errors
/// When no connection succeeds, or the broker's process cannot be observed.
pub async fn run(mut bench: Bench, args: &ConnectArgs) -> Result<Report, BenchError> {
    let latencies = Arc::new(Latencies::new(bench.threads));
    let meter = Meter::start(bench.pid)?;
    let fleet = start_clients(&bench, args, &latencies);
    let stage = Arc::clone(&bench.stage);
    stage.advance(Phase::Run);

    let asked = u64::from(args.clients);
    let connected = || stage.counters.connected.load(Ordering::Acquire);
    let limits = Limits { failures_end: false, ..bench.limits(None) };
    let opened = stage.wait(limits, &mut bench.progress, || stage.ready() + stage.failed() >= asked).await;
    if connected() == 0
        && let Some(error) = stage.take_failures().first
    {
        return Err(error);
    }
    let (opened_count, refused) = (connected(), stage.failed());
    let ended = match opened {
        Ended::Complete => hold(&mut bench, args.hold).await,
        other => other,
    };
    let lost = stage.failed().saturating_sub(refused);
    let mut report = bench.report(Scenario::new("connect", &bench.target), ended, &meter, opened_count);
    fleet.join().await;

    let span = &stage.counters.connected_span;
    let elapsed = seconds(stage.started_ns(), span.last_ns());
    report.connect = Some(ConnectReport {
        asked,
        connected: opened_count,
        lost,
        seconds: elapsed,
        per_second: ratio(opened_count as f64, elapsed).unwrap_or(0.0),
        latency: latencies.summary(),
        rss_bytes_per_connection: report.broker.as_ref().and_then(|broker| {
            let grown = broker.usage.rss_bytes.saturating_sub(broker.usage.rss_before_bytes);
            ratio(grown as f64, opened_count.saturating_sub(lost) as f64)
        }),
    });
    Ok(report)
}

/// Holds what is open; that a connection is lost meanwhile is a result, not a reason to end.
async fn hold(bench: &mut Bench, duration: Duration) -> Ended {
    let stage = Arc::clone(&bench.stage);
    let until_ns = Some(stage.clock.now_ns().saturating_add(nanos(duration)));
    let limits = Limits { until_ns, stall: None, failures_end: false };
    stage.wait(limits, &mut bench.progress, || false).await
}

fn start_clients(bench: &Bench, args: &ConnectArgs, latencies: &Arc<Latencies>) -> Fleet<()> {
    let mut fleet = Fleet::new(&bench.stage);
    let pace = Pace::new(args.rate, 0, 1);
    for number in 0..args.clients {
        let after_ns = if args.rate > 0 { pace.due_at_ns(number.into()) } else { 0 };
        let from = source(&args.bind, number);
        let identity = Identity { from, ..bench.identity('c', number) };
        let client = Holder { number, after_ns, identity, latencies: Arc::clone(latencies) };
        fleet.spawn(client.run(Arc::clone(&bench.stage), Arc::clone(&bench.target)));
    }
    fleet
}

/// The local address that client `number` connects from.
fn source(addresses: &[IpAddr], number: u32) -> Option<IpAddr> {
    let at = (number as usize).checked_rem(addresses.len())?;
    addresses.get(at).copied()
}

/// A client that connects when its time has come, and does nothing with its connection.
struct Holder {
    number: u32,
    after_ns: u64,
    identity: Identity,
    latencies: Arc<Latencies>,
}

impl Holder {
    async fn run(self, stage: Arc<Stage>, target: Arc<Target>) -> Result<(), BenchError> {
        if !stage.started().await || !self.wait(&stage).await {
            return Ok(());
        }
        let mut client = Client::open(&target, &self.identity, &stage).await?;
        self.latencies.record(self.number, client.opened_in_ns(), 1);
        stage.client_ready();
        client.drive(&stage, &mut Idle).await?;
        client.close().await;
        Ok(())
    }

    /// Waits for its turn; gives false when the run ends before.
    async fn wait(&self, stage: &Stage) -> bool {
        let at = stage.started_ns().saturating_add(self.after_ns);
        let wait = Duration::from_nanos(at.saturating_sub(stage.clock.now_ns()));
        let changed = stage.changed();
        if stage.phase() == Phase::End {
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => stage.phase() != Phase::End,
            () = changed => false,
        }
    }
}

/// A role without anything to say.
struct Idle;

impl Role for Idle {
    fn handle(&mut self, packet: &Packet<'_>, _: u64, _: &mut Vec<u8>) -> Result<(), BenchError> {
        match packet {
            Packet::Pingresp => Ok(()),
            packet => Err(unexpected(packet, "for a client that only holds its connection")),
        }
    }

    fn handled(&mut self, _: u64) {}

    fn fill(&mut self, _: &Context<'_>, _: u64, _: &mut Vec<u8>) -> Result<Due, BenchError> {
        Ok(Due::Input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_addresses_are_used_in_turn() {
        let addresses = ["127.0.0.2", "127.0.0.3"].map(|text| text.parse().unwrap());
        assert_eq!(source(&addresses, 0), Some(addresses[0]));
        assert_eq!(source(&addresses, 3), Some(addresses[1]));
        assert_eq!(source(&[], 3), None);
    }
}
