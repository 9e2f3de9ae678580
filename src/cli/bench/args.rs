//! The options of `causeway bench`, and what they are turned into.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use tokio::sync::Semaphore;

use super::client::Target;
use super::error::BenchError;
use super::message::HEADER_BYTES;
use super::stream::{Tls, Trust};
use crate::codec::{Qos, Version};

/// Handshakes at a time: more than a listener's backlog holds would only wait for retransmissions.
const HANDSHAKES_MAX: usize = 100;

/// How long a load lasts that is limited by neither count nor duration.
const DURATION_DEFAULT: Duration = Duration::from_secs(10);

/// Puts load on an MQTT broker and measures what comes of it.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 when the run went through (also with losses, which are reported), \
    1 when a client could not connect or go on, 2 for wrong options, 3 with --strict when a run stalled or messages were refused, lost, \
    duplicated or out of order.")]
pub struct BenchArgs {
    /// What to do.
    #[command(subcommand)]
    pub mode: BenchMode,
}

/// The kinds of load.
#[derive(Debug, Subcommand)]
pub enum BenchMode {
    /// Publishers only: throughput and the latency of acknowledgements
    Pub(PubArgs),
    /// Subscribers only: receives what others (or `bench pub`) publish
    Sub(SubArgs),
    /// Publishers and their subscribers: both sides measured, every message accounted for
    Pair(PairArgs),
    /// Connections only: opens them at a rate and holds them
    Connect(ConnectArgs),
}

/// Options of `bench pub`.
#[derive(Debug, Args)]
pub struct PubArgs {
    /// Where the broker is, and how the run is shown.
    #[command(flatten)]
    pub common: CommonArgs,
    /// How much to publish, and how fast.
    #[command(flatten)]
    pub load: LoadArgs,
    /// Publishers
    #[arg(long, short = 'c', default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub clients: u32,
    /// Topic; {i} stands for the publisher's number, {t} for the topic's (see --topics)
    #[arg(long, short, default_value = "bench/{i}")]
    pub topic: String,
    /// How many topics {t} goes through in turn
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub topics: u32,
    /// Publish retained messages
    #[arg(long)]
    pub retain: bool,
}

/// Options of `bench sub`.
#[derive(Debug, Args)]
pub struct SubArgs {
    /// Where the broker is, and how the run is shown.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Subscribers
    #[arg(long, short = 'c', default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub clients: u32,
    /// Topic filter; {i} stands for the subscriber's number
    #[arg(long, short, default_value = "bench/#")]
    pub topic: String,
    /// Quality of service asked for
    #[arg(long, short, value_enum, default_value_t = QosArg::Qos0)]
    pub qos: QosArg,
    /// End after so many messages, of all subscribers together
    #[arg(long, short = 'n')]
    pub count: Option<u64>,
    /// End after this time; 0s leaves as soon as all have subscribed [default: 10s without --count]
    #[arg(long, short, value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// What becomes of a session after its connection.
    #[command(flatten)]
    pub durable: DurableArgs,
}

/// Options of `bench pair`.
#[derive(Debug, Args)]
pub struct PairArgs {
    /// Where the broker is, and how the run is shown.
    #[command(flatten)]
    pub common: CommonArgs,
    /// How much to publish, and how fast.
    #[command(flatten)]
    pub load: LoadArgs,
    /// So many publishers, each with a subscriber and a topic of its own
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub pairs: u32,
    /// Instead: one publisher, so many subscribers
    #[arg(long, conflicts_with_all = ["pairs", "fanin"], value_parser = clap::value_parser!(u32).range(1..))]
    pub fanout: Option<u32>,
    /// Instead: so many publishers on one topic, one subscriber
    #[arg(long, conflicts_with = "pairs", value_parser = clap::value_parser!(u32).range(1..))]
    pub fanin: Option<u32>,
    /// Deliveries that may be under way per publisher, so that no queue of the broker overflows; 0 is no limit
    #[arg(long, default_value_t = 10_000)]
    pub outstanding: u64,
    /// Topic; {i} stands for the pair's number
    #[arg(long, short, default_value = "bench/pair/{i}")]
    pub topic: String,
    /// What becomes of a session after its connection.
    #[command(flatten)]
    pub durable: DurableArgs,
}

/// Options of `bench connect`.
#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// Where the broker is, and how the run is shown.
    #[command(flatten)]
    pub common: CommonArgs,
    /// Connections to open
    #[arg(long, short = 'c', default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub clients: u32,
    /// Connections to open per second; 0 is as fast as they come
    #[arg(long, short, default_value_t = 1000)]
    pub rate: u64,
    /// How long to hold them
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    pub hold: Duration,
    /// Local addresses to connect from, in turn: each has ports for about 28 000 connections
    #[arg(long, value_delimiter = ',')]
    pub bind: Vec<IpAddr>,
}

/// Options that every kind of load has.
#[derive(Debug, Args)]
pub struct CommonArgs {
    /// Broker to connect to
    #[arg(long, short = 'H', default_value = "127.0.0.1")]
    pub host: String,
    /// Port of the broker [default: 1883, with --tls 8883]
    #[arg(long, short)]
    pub port: Option<u16>,
    /// Version of MQTT
    #[arg(long, short = 'V', value_enum, default_value_t = VersionArg::V5)]
    pub mqtt_version: VersionArg,
    /// Connect over TLS
    #[arg(long)]
    pub tls: bool,
    /// Trust the certificate authorities in this PEM file instead of the system's
    #[arg(long, value_name = "FILE", requires = "tls", conflicts_with = "insecure")]
    pub ca: Option<PathBuf>,
    /// Trust any certificate
    #[arg(long, requires = "tls")]
    pub insecure: bool,
    /// Name that the certificate has to bear [default: the host]
    #[arg(long, value_name = "NAME", requires = "tls")]
    pub server_name: Option<String>,
    /// User name
    #[arg(long, short)]
    pub username: Option<String>,
    /// Password; others on this machine can see it in the process list, unlike --password-file
    #[arg(long, short = 'P')]
    pub password: Option<String>,
    /// File whose first line is the password
    #[arg(long, value_name = "FILE", conflicts_with = "password")]
    pub password_file: Option<PathBuf>,
    /// What client identifiers begin with [default: bench and a random number]
    #[arg(long, value_name = "PREFIX")]
    pub client_id: Option<String>,
    /// Keep-alive in seconds; 0 is off
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub keep_alive: u16,
    /// Give up when a connection takes, or nothing moves for, so long
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    /// Threads to generate load with
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// Process of the broker: measures its CPU time, bytes written and memory
    #[arg(long)]
    pub pid: Option<u32>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Show no progress
    #[arg(long)]
    pub quiet: bool,
    /// Exit with status 3 when the run stalled or messages were refused, lost, duplicated or out of order
    #[arg(long)]
    pub strict: bool,
}

/// Options of whatever publishes.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Quality of service
    #[arg(long, short, value_enum, default_value_t = QosArg::Qos0)]
    pub qos: QosArg,
    /// Messages to publish, by all publishers together
    #[arg(long, short = 'n')]
    pub count: Option<u64>,
    /// Publish for this time [default: 10s without --count]
    #[arg(long, short, value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// QoS 1 and 2: unacknowledged messages per publisher, at most the broker's Receive Maximum
    #[arg(long, short, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..))]
    pub window: u16,
    /// Messages per second of all publishers together, in bursts of a millisecond; 0 is flat out
    #[arg(long, short, default_value_t = 0)]
    pub rate: u64,
    /// Bytes of payload; the first 24 number and stamp the message
    #[arg(long, short = 's', default_value_t = 64, value_parser = payload_bytes)]
    pub payload: usize,
}

/// Options of whatever subscribes.
#[derive(Debug, Args)]
pub struct DurableArgs {
    /// Subscribe in sessions that outlive their connections
    #[arg(long)]
    pub durable: bool,
    /// MQTT 5.0: how long such a session lives without a connection
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    pub session_expiry: Duration,
}

/// A protocol version on the command line.
// Not in --help: one value with a text of its own spreads every option over several lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VersionArg {
    /// Protocol level 3.
    #[value(name = "3.1", help = None::<&str>)]
    V31,
    /// Protocol level 4, as in its alias.
    #[value(name = "3.1.1", alias = "4", help = None::<&str>)]
    V311,
    /// Protocol level 5, as in its alias.
    #[value(name = "5.0", alias = "5", help = None::<&str>)]
    V5,
}

/// A quality of service on the command line.
// Not in --help: one value with a text of its own spreads every option over several lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum QosArg {
    /// At most once.
    #[value(name = "0", help = None::<&str>)]
    Qos0,
    /// At least once.
    #[value(name = "1", help = None::<&str>)]
    Qos1,
    /// Exactly once.
    #[value(name = "2", help = None::<&str>)]
    Qos2,
}

impl BenchMode {
    /// The options that every kind of load has.
    pub fn common(&self) -> &CommonArgs {
        match self {
            Self::Pub(args) => &args.common,
            Self::Sub(args) => &args.common,
            Self::Pair(args) => &args.common,
            Self::Connect(args) => &args.common,
        }
    }
}

impl CommonArgs {
    /// The broker that is meant.
    ///
    /// # Errors
    /// When the host has no address, or a file cannot be read.
    pub async fn target(&self) -> Result<Target, BenchError> {
        let port = self.port.unwrap_or(if self.tls { 8883 } else { 1883 });
        let tls = if self.tls { Some(self.tls()?) } else { None };
        Ok(Target {
            address: resolve(&self.host, port).await?,
            version: self.mqtt_version.into(),
            tls,
            user_name: self.username.clone(),
            password: self.password()?,
            keep_alive: self.keep_alive,
            timeout: self.timeout,
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
        })
    }

    /// What the client identifiers of this run begin with.
    pub fn client_id_prefix(&self, run: u16) -> String {
        self.client_id.clone().unwrap_or_else(|| format!("bench{run:04x}"))
    }

    fn tls(&self) -> Result<Tls, BenchError> {
        let trust = match &self.ca {
            _ if self.insecure => Trust::Anyone,
            Some(path) => Trust::File(path),
            None => Trust::System,
        };
        Tls::new(self.server_name.as_deref().unwrap_or(&self.host), trust)
    }

    fn password(&self) -> Result<Option<String>, BenchError> {
        let Some(path) = &self.password_file else {
            return Ok(self.password.clone());
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| BenchError::File { path: path.clone(), reason: error.to_string() })?;
        Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
    }
}

impl LoadArgs {
    /// How long to publish at most.
    pub fn duration(&self) -> Option<Duration> {
        limit(self.count, self.duration)
    }
}

impl SubArgs {
    /// How long to receive at most.
    pub fn duration(&self) -> Option<Duration> {
        limit(self.count, self.duration)
    }
}

impl DurableArgs {
    /// The Session Expiry Interval in seconds, for a session that is durable.
    pub fn session_expiry(&self) -> Option<u32> {
        let seconds = u32::try_from(self.session_expiry.as_secs()).unwrap_or(u32::MAX);
        self.durable.then_some(seconds)
    }
}

impl From<VersionArg> for Version {
    fn from(version: VersionArg) -> Self {
        match version {
            VersionArg::V31 => Self::V31,
            VersionArg::V311 => Self::V311,
            VersionArg::V5 => Self::V5,
        }
    }
}

impl From<QosArg> for Qos {
    fn from(qos: QosArg) -> Self {
        match qos {
            QosArg::Qos0 => Self::AtMostOnce,
            QosArg::Qos1 => Self::AtLeastOnce,
            QosArg::Qos2 => Self::ExactlyOnce,
        }
    }
}

/// Every run is finite: without a limit, the default duration is one.
fn limit(count: Option<u64>, duration: Option<Duration>) -> Option<Duration> {
    duration.or(if count.is_none() { Some(DURATION_DEFAULT) } else { None })
}

fn payload_bytes(text: &str) -> Result<usize, String> {
    const MAX: usize = 256 * 1024 * 1024 - 128 * 1024;
    match text.parse() {
        Ok(bytes) if (HEADER_BYTES..=MAX).contains(&bytes) => Ok(bytes),
        _ => Err(format!("a payload has {HEADER_BYTES} to {MAX} bytes")),
    }
}

async fn resolve(host: &str, port: u16) -> Result<SocketAddr, BenchError> {
    let failed = |source| BenchError::Resolve { host: host.to_owned(), source };
    let mut addresses = tokio::net::lookup_host((host, port)).await.map_err(failed)?;
    let none = || failed(std::io::Error::other("it has no address"));
    addresses.next().ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        bench: BenchArgs,
    }

    fn parse(line: &str) -> Result<BenchMode, String> {
        let words = std::iter::once("bench").chain(line.split_whitespace());
        Command::try_parse_from(words).map(|command| command.bench.mode).map_err(|error| error.to_string())
    }

    #[test]
    fn every_mode_has_defaults_that_end() {
        for mode in ["pub", "sub", "pair", "connect"] {
            let parsed = parse(mode).unwrap();
            assert_eq!(parsed.common().host, "127.0.0.1");
            let ends = match &parsed {
                BenchMode::Pub(args) => args.load.duration(),
                BenchMode::Sub(args) => args.duration(),
                BenchMode::Pair(args) => args.load.duration(),
                BenchMode::Connect(args) => Some(args.hold),
            };
            assert!(ends.is_some(), "{mode}");
        }
    }

    #[test]
    fn a_count_needs_no_duration() {
        let BenchMode::Pub(args) = parse("pub --count 5").unwrap() else { unreachable!() };
        assert_eq!(args.load.duration(), None);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        for line in [
            "pub --payload 8",
            "pub --clients 0",
            "pub --qos 3",
            "pair --fanout 2 --fanin 3",
            "pair --pairs 2 --fanout 3",
            "pub --ca file",
            "pub --tls --ca file --insecure",
            "pub --window 0",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn versions_and_levels_have_the_usual_names() {
        let BenchMode::Pub(args) = parse("pub -V 3.1.1 -q 2").unwrap() else { unreachable!() };
        assert_eq!(Version::from(args.common.mqtt_version), Version::V311);
        assert_eq!(Qos::from(args.load.qos), Qos::ExactlyOnce);
    }
}
