//! What a run came to: for people, and as JSON for machines.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::client::Target;
use super::latency::LatencySummary;
use super::process::Usage;
use super::publisher::Published;
use super::sequence::SequenceTotals;
use super::stage::{Ended, Failures, Span, Stage};
use crate::codec::Version;

/// Everything that is known at the end of a run. Parts that a mode does not have are absent.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was asked for.
    pub scenario: Scenario,
    /// Why it ended.
    pub ended: Ended,
    /// `bench connect` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect: Option<ConnectReport>,
    /// `bench pub` and `bench pair`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish: Option<PublishReport>,
    /// `bench sub` and `bench pair`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receive: Option<ReceiveReport>,
    /// With `--pid`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broker: Option<ProcessReport>,
    /// This process.
    pub generator: ProcessReport,
    /// Clients that could not go on.
    pub failures: FailureReport,
}

/// What was run.
#[derive(Debug, Serialize)]
pub struct Scenario {
    /// The subcommand: `pub`, `sub`, `pair` or `connect`.
    pub mode: &'static str,
    /// Its address, after the host name was resolved.
    pub broker: SocketAddr,
    /// Version of the protocol: `3.1`, `3.1.1` or `5.0`.
    pub mqtt: &'static str,
    /// Whether the connections were secured.
    pub tls: bool,
    /// 0 where nothing is published by this process.
    pub publishers: u32,
    /// 0 where nothing is received by this process.
    pub subscribers: u32,
    /// Of what is published, or of the subscription; absent for `connect`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<u8>,
    /// Header included; absent where nothing is published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_bytes: Option<usize>,
    /// Messages per second asked for; 0 is flat out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// Whether the subscribers' sessions outlive their connections.
    pub durable: bool,
}

/// Failures of clients: how many, and the first in words.
#[derive(Debug, Serialize)]
pub struct FailureReport {
    /// Clients that could not connect or go on.
    pub count: u64,
    /// `None` when nobody failed.
    pub first: Option<String>,
}

/// Connections.
#[derive(Debug, Serialize)]
pub struct ConnectReport {
    /// Connections to open.
    pub asked: u64,
    /// CONNACKs that accept.
    pub connected: u64,
    /// Connected, and gone before the end.
    pub lost: u64,
    /// From the start to the last CONNACK.
    pub seconds: f64,
    /// CONNACKs; 0 when there was none.
    pub per_second: f64,
    /// From the first packet of TCP to the CONNACK.
    pub latency: Option<LatencySummary>,
    /// Growth of the broker's resident memory.
    pub rss_bytes_per_connection: Option<f64>,
}

/// Publishing.
#[derive(Debug, Serialize)]
pub struct PublishReport {
    /// Messages handed to their connections.
    pub sent: u64,
    /// By PUBACK or PUBCOMP; QoS 0: known to have been taken by the broker.
    pub acknowledged: u64,
    /// By a reason code of 0x80 or more.
    pub refused: u64,
    /// Neither.
    pub unacknowledged: u64,
    /// From the start to the last acknowledgement.
    pub seconds: f64,
    /// Acknowledged messages.
    pub per_second: f64,
    /// QoS 1 and 2: how many were allowed to be unacknowledged, for the publisher that was allowed least.
    pub window: Option<u16>,
    /// From PUBLISH to PUBACK or PUBCOMP.
    pub latency: Option<LatencySummary>,
}

/// Receiving.
#[derive(Debug, Serialize)]
pub struct ReceiveReport {
    /// PUBLISH packets, duplicates included.
    pub received: u64,
    /// Deliveries that should have come, where the publishers are known.
    pub expected: Option<u64>,
    /// Deliveries that never came: of those expected, or else the gaps in what came.
    pub lost: u64,
    /// Messages that had come before, to the same subscriber.
    pub duplicates: u64,
    /// Came after a later message of the same publisher and topic.
    pub reordered: u64,
    /// Carry no number of ours.
    pub untracked: u64,
    /// Up to the last message, from the start (`pair`) or from the first message (`sub`).
    pub seconds: f64,
    /// PUBLISH packets, duplicates included.
    pub per_second: f64,
    /// From the publisher to the subscriber.
    pub latency: Option<LatencySummary>,
}

/// What a process used during the run.
#[derive(Debug, Serialize)]
pub struct ProcessReport {
    /// The system's number for it.
    pub pid: u32,
    /// User and system time per message (or connection).
    pub cpu_us_per_message: Option<f64>,
    /// Bytes sent to storage per message.
    pub written_bytes_per_message: Option<f64>,
    /// The totals, beside the shares above.
    #[serde(flatten)]
    pub usage: Usage,
}

impl Report {
    /// Whether nothing stalled, every message was taken, and came once and in order.
    pub fn is_flawless(&self) -> bool {
        let publish = self.publish.as_ref();
        let receive = self.receive.as_ref();
        self.ended != Ended::Stalled
            && publish.is_none_or(|report| report.refused + report.unacknowledged == 0)
            && receive.is_none_or(|report| report.lost + report.duplicates + report.reordered == 0)
    }
}

impl Scenario {
    /// A run of `mode` against `target`, in which nothing is published or received.
    pub fn new(mode: &'static str, target: &Target) -> Self {
        let mqtt = match target.version {
            Version::V31 => "3.1",
            Version::V311 => "3.1.1",
            Version::V5 => "5.0",
        };
        Self {
            mode,
            broker: target.address,
            mqtt,
            tls: target.tls.is_some(),
            publishers: 0,
            subscribers: 0,
            qos: None,
            payload_bytes: None,
            rate: None,
            durable: false,
        }
    }
}

impl From<Failures> for FailureReport {
    fn from(failures: Failures) -> Self {
        Self { count: failures.count, first: failures.first.map(|error| error.to_string()) }
    }
}

impl PublishReport {
    /// What the publishers of `stage` did, from the start of the run on.
    pub fn new(stage: &Stage, published: &[Published], latency: Option<LatencySummary>) -> Self {
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Acquire);
        let counters = &stage.counters;
        let (sent, acknowledged) = (count(&counters.sent), count(&counters.acknowledged));
        let refused = count(&counters.refused);
        let seconds = seconds(stage.started_ns(), counters.acknowledged_span.last_ns());
        Self {
            sent,
            acknowledged,
            refused,
            unacknowledged: sent.saturating_sub(acknowledged + refused),
            seconds,
            per_second: ratio(acknowledged as f64, seconds).unwrap_or(0.0),
            window: latency.and_then(|_| published.iter().map(|publisher| publisher.window).min()),
            latency,
        }
    }
}

impl ReceiveReport {
    /// What the subscribers counted between `since_ns` and the last message.
    pub fn new(
        totals: &SequenceTotals,
        expected: Option<u64>,
        since_ns: u64,
        span: &Span,
        latency: Option<LatencySummary>,
    ) -> Self {
        let received = totals.unique + totals.duplicates + totals.untracked;
        let seconds = seconds(since_ns, span.last_ns());
        Self {
            received,
            expected,
            lost: expected.map_or(totals.gaps, |expected| expected.saturating_sub(totals.unique)),
            duplicates: totals.duplicates,
            reordered: totals.reordered,
            untracked: totals.untracked,
            seconds,
            per_second: ratio(received as f64, seconds).unwrap_or(0.0),
            latency,
        }
    }
}

impl ProcessReport {
    /// The usage of process `pid`, in which it handled `messages`.
    pub fn new(pid: u32, usage: Usage, messages: u64) -> Self {
        let messages = messages as f64;
        let cpu_us = (usage.user_seconds + usage.system_seconds) * 1e6;
        Self {
            pid,
            cpu_us_per_message: ratio(cpu_us, messages),
            written_bytes_per_message: usage.written_bytes.and_then(|bytes| ratio(bytes as f64, messages)),
            usage,
        }
    }
}

/// Seconds between two times in nanoseconds.
pub fn seconds(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 / 1e9
}

/// A quotient, where there is one.
pub fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

/// A number with its thousands apart.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", self.scenario)?;
        if let Some(connect) = &self.connect {
            connect.write(out)?;
        }
        if let Some(publish) = &self.publish {
            publish.write(out)?;
        }
        if let Some(receive) = &self.receive {
            receive.write(out)?;
        }
        if let Some(broker) = &self.broker {
            broker.write("broker", out)?;
        }
        self.generator.write("generator", out)?;
        match self.ended {
            Ended::Complete | Ended::Duration => {}
            Ended::Stalled => {
                writeln!(out, "  gave up        nothing moved any more for the time that --timeout allows")?
            }
            Ended::Failed => writeln!(out, "  ended early    a client failed")?,
            Ended::Interrupted => writeln!(out, "  ended early    interrupted")?,
        }
        if let Some(first) = &self.failures.first {
            writeln!(out, "  failed         {} clients; the first: {first}", thousands(self.failures.count))?;
        }
        Ok(())
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tls = if self.tls { " over TLS" } else { "" };
        write!(out, "{}: MQTT {}{tls} to {}", self.mode, self.mqtt, self.broker)?;
        if self.publishers > 0 {
            write!(out, ", {} publishing", self.publishers)?;
        }
        if self.subscribers > 0 {
            let durable = if self.durable { " (durable)" } else { "" };
            write!(out, ", {} subscribing{durable}", self.subscribers)?;
        }
        if let Some(qos) = self.qos {
            write!(out, ", QoS {qos}")?;
        }
        if let Some(bytes) = self.payload_bytes {
            write!(out, ", {bytes} B payload")?;
        }
        match self.rate {
            Some(0) => write!(out, ", flat out"),
            Some(rate) => write!(out, ", {} per second", thousands(rate)),
            None => Ok(()),
        }
    }
}

impl ConnectReport {
    fn write(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (connected, asked) = (thousands(self.connected), thousands(self.asked));
        let rate = thousands(self.per_second.round() as u64);
        writeln!(out, "  connected      {connected} of {asked} in {:.2} s: {rate}/s", self.seconds)?;
        write_latency(out, "CONNACK", self.latency.as_ref())?;
        writeln!(out, "  lost           {}", thousands(self.lost))?;
        match self.rss_bytes_per_connection {
            Some(bytes) => writeln!(out, "  memory         {:.2} KiB RSS per connection", bytes / 1024.0),
            None => Ok(()),
        }
    }
}

impl PublishReport {
    fn write(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = thousands(self.per_second.round() as u64);
        writeln!(
            out,
            "  published      {} of {} sent in {:.2} s: {rate}/s",
            thousands(self.acknowledged),
            thousands(self.sent),
            self.seconds
        )?;
        if self.refused + self.unacknowledged > 0 {
            let (refused, open) = (thousands(self.refused), thousands(self.unacknowledged));
            writeln!(out, "                 {refused} refused, {open} unacknowledged")?;
        }
        if let Some(window) = self.window {
            writeln!(out, "  window         {window} per publisher")?;
        }
        write_latency(out, "acknowledged", self.latency.as_ref())
    }
}

impl ReceiveReport {
    fn write(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = thousands(self.per_second.round() as u64);
        let expected = self.expected.map_or(String::new(), |count| format!(" of {}", thousands(count)));
        let received = thousands(self.received);
        writeln!(out, "  received       {received}{expected} in {:.2} s: {rate}/s", self.seconds)?;
        write_latency(out, "end to end", self.latency.as_ref())?;
        writeln!(
            out,
            "  lost           {}, duplicates {}, out of order {}, not ours {}",
            thousands(self.lost),
            thousands(self.duplicates),
            thousands(self.reordered),
            thousands(self.untracked)
        )
    }
}

impl ProcessReport {
    fn write(&self, name: &str, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = self.usage.user_seconds + self.usage.system_seconds;
        write!(out, "  {name:<15}")?;
        match self.cpu_us_per_message {
            Some(each) => write!(
                out,
                "{each:.2} us CPU each ({cpu:.2} s, {:.2} of it system)",
                self.usage.system_seconds
            )?,
            None => write!(out, "{cpu:.2} s CPU")?,
        }
        if let Some(bytes) = self.written_bytes_per_message.filter(|bytes| *bytes > 0.0) {
            write!(out, ", {bytes:.0} B written each")?;
        }
        let mib = |bytes: u64| bytes as f64 / (1024.0 * 1024.0);
        let (now, peak) = (mib(self.usage.rss_bytes), mib(self.usage.rss_peak_bytes));
        writeln!(out, ", RSS {now:.1} MiB (peak {peak:.1})")
    }
}

fn write_latency(out: &mut fmt::Formatter<'_>, what: &str, latency: Option<&LatencySummary>) -> fmt::Result {
    let Some(latency) = latency else {
        return Ok(());
    };
    let ms = |us: f64| us / 1000.0;
    writeln!(
        out,
        "  {what:<15}p50 {:.3} ms, p99 {:.3} ms, p999 {:.3} ms, max {:.3} ms",
        ms(latency.p50_us),
        ms(latency.p99_us),
        ms(latency.p999_us),
        ms(latency.max_us)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(totals: SequenceTotals, expected: Option<u64>) -> ReceiveReport {
        let span = Span::default();
        span.note(3_000_000_000);
        ReceiveReport::new(&totals, expected, 1_000_000_000, &span, None)
    }

    fn report(receive: ReceiveReport) -> Report {
        let usage = Usage {
            user_seconds: 1.0,
            system_seconds: 3.0,
            written_bytes: Some(4_000),
            rss_before_bytes: 0,
            rss_bytes: 1024 * 1024,
            rss_peak_bytes: 2 * 1024 * 1024,
        };
        let scenario = Scenario {
            mode: "pair",
            broker: SocketAddr::from(([127, 0, 0, 1], 1883)),
            mqtt: "5.0",
            tls: false,
            publishers: 2,
            subscribers: 2,
            qos: Some(1),
            payload_bytes: Some(64),
            rate: Some(0),
            durable: true,
        };
        Report {
            scenario,
            ended: Ended::Complete,
            connect: None,
            publish: None,
            receive: Some(receive),
            broker: Some(ProcessReport::new(7, usage, 2_000)),
            generator: ProcessReport::new(8, usage, 0),
            failures: Failures::default().into(),
        }
    }

    #[test]
    fn loss_is_what_was_expected_and_never_came() {
        let totals = SequenceTotals { unique: 90, gaps: 4, duplicates: 5, reordered: 2, untracked: 1 };
        let known = receive(totals, Some(100));
        assert_eq!((known.lost, known.received), (10, 96), "also the end of a stream, where no gap shows");
        assert!((known.per_second - 48.0).abs() < 1e-9);
        assert_eq!(receive(totals, None).lost, 4, "only gaps, where the publishers are not known");
    }

    #[test]
    fn each_kind_of_flaw_counts_and_untracked_messages_do_not() {
        let good = SequenceTotals { unique: 10, untracked: 3, ..SequenceTotals::default() };
        assert!(report(receive(good, Some(10))).is_flawless());
        assert!(!report(receive(good, Some(11))).is_flawless());
        assert!(!report(receive(SequenceTotals { duplicates: 1, ..good }, Some(10))).is_flawless());
        assert!(!report(receive(SequenceTotals { reordered: 1, ..good }, Some(10))).is_flawless());
        let stalled = Report { ended: Ended::Stalled, ..report(receive(good, Some(10))) };
        assert!(!stalled.is_flawless());
    }

    #[test]
    fn people_read_costs_per_message() {
        let totals = SequenceTotals { unique: 1_234_567, ..SequenceTotals::default() };
        let text = report(receive(totals, Some(1_234_567))).to_string();
        assert!(
            text.contains("2 publishing, 2 subscribing (durable), QoS 1, 64 B payload, flat out"),
            "{text}"
        );
        assert!(text.contains("received       1 234 567 of 1 234 567 in 2.00 s: 617 284/s"), "{text}");
        assert!(text.contains("2000.00 us CPU each (4.00 s, 3.00 of it system), 2 B written each"), "{text}");
        assert!(text.contains("generator      4.00 s CPU, RSS 1.0 MiB (peak 2.0)"), "{text}");
        assert!(!text.contains("ended early"), "{text}");
    }

    #[test]
    fn machines_read_the_same_figures() {
        let totals = SequenceTotals { unique: 8, gaps: 2, ..SequenceTotals::default() };
        let json = serde_json::to_value(report(receive(totals, None))).unwrap();
        assert_eq!(json["receive"]["lost"], 2);
        assert_eq!(json["broker"]["cpu_us_per_message"], 2000.0);
        assert_eq!(json["broker"]["rss_bytes"], 1024 * 1024);
        assert_eq!(json["ended"], "complete");
        assert!(json.get("publish").is_none());
        assert!(json["generator"]["cpu_us_per_message"].is_null(), "no messages, no quotient");
    }

    #[test]
    fn thousands_are_apart() {
        assert_eq!(thousands(7), "7");
        assert_eq!(thousands(1_000), "1 000");
        assert_eq!(thousands(123_456_789), "123 456 789");
    }
}
