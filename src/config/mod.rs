//! What an operator can set, as plain types, and how it is read from TOML.
//!
//! A configuration is parsed once, checked as a whole and never changed afterwards; a reload makes a new
//! one. Paths are relative to the working directory of the process. `config/causeway.toml` shows every
//! key with its default.
//!
//! Invariant: a [`Config`] that [`Config::load`] gave out has passed every check in this room, so that
//! nobody above has to ask again (a route names a target that exists, no limit is zero by mistake).

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, time::Duration};

use crate::codec::Qos;

mod dead_letters;
mod defaults;
mod error;
mod files;
mod hidden;
mod load;
mod mqtt;
mod queue;
mod report;
mod route;
mod secret;
mod section;
mod shared;
mod target;
#[cfg(test)]
mod tests;
mod values;

pub use dead_letters::{DeadLettersConfig, WhenFull};
pub use error::{ConfigError, Mistake, Place};
pub use mqtt::CLIENT_ID_PLACEHOLDER;
pub use queue::{Overflow, QueueConfig, QueueView};
pub use route::{
    BatchConfig, BatchForm, Body, CloudEventsConfig, CloudEventsMode, Expression, FILTER_VARIABLES,
    FilterConfig, IdSource, LOOPED_VALUES_MAX, OnFilterError, Order, RequestConfig, RouteConfig, SinkConfig,
    Template, VARIABLES, check_path,
};
pub use secret::Secret;
pub use target::{
    Addresses, Backoff, BreakerConfig, Compress, Counted, HttpVersion, Jitter, Login, OAuth2Config,
    ProxyConfig, ProxyKind, RateConfig, RefusedAddress, RetryConfig, Said, SigningKey, StatusClass,
    StatusRules, TargetAuth, TargetConfig, TargetTls, TlsIdentity, TlsVersion,
};

/// Everything that an operator can set. [`Config::default`] is what serves without a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where and how messages are made durable.
    pub store: StoreConfig,
    /// The sockets that MQTT clients connect to; at least one.
    pub listeners: Vec<ListenerConfig>,
    /// Who may connect.
    pub auth: AuthConfig,
    /// What of the protocol is offered.
    pub mqtt: MqttConfig,
    /// Where clients are sent instead; `None` lets them in.
    pub redirect: Option<RedirectConfig>,
    /// What each client, and all of them together, may use.
    pub limits: Limits,
    /// What becomes a dead letter, and how long they are kept.
    pub dead_letters: DeadLettersConfig,
    /// HTTP targets by name.
    pub targets: BTreeMap<String, TargetConfig>,
    /// Which topics go to which target.
    pub routes: Vec<RouteConfig>,
    /// Which member of a shared subscription gets a message.
    pub shared: SharedConfig,
    /// What is asked before a retained message is sent.
    pub retain: RetainConfig,
    /// What the broker says of itself.
    pub sys: SysConfig,
    /// The admin listener.
    pub admin: AdminConfig,
    /// What is logged, and how.
    pub log: LogConfig,
}

/// `[store]`: the embedded database and its writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreConfig {
    /// The folder of the database; made on first start.
    pub path: PathBuf,
    /// How long the writer waits for more records before it commits. Zero commits at once; more spares
    /// flash storage and delays every acknowledgement by as much.
    pub commit_interval: Duration,
    /// Bytes of memory for database pages.
    pub cache_size: u64,
    /// Most bytes of records in one commit.
    pub batch_bytes_max: u64,
    /// Most bytes of records that wait for the writer; above it publishers are read more slowly.
    pub queue_bytes_max: u64,
    /// Free bytes on the disk below which publishes that need the disk are refused.
    pub free_space_min: u64,
    /// How long nothing expires after a start with a clock that may be wrong; zero believes every clock.
    pub clock_grace: Duration,
    /// Bytes of the disk that the database may occupy; near them publishes that need the disk are refused. `None` is
    /// no limit but the disk.
    pub size_max: Option<u64>,
    /// Whether a database of which more than half is free is compacted before the broker starts.
    pub compact_at_start: bool,
}

/// One of `[[listeners]]`: MQTT over TCP, TLS, WebSocket, or WebSocket over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Where to listen; port 0 takes any free port.
    pub address: SocketAddr,
    /// With this the listener speaks TLS, and nothing else.
    pub tls: Option<TlsConfig>,
    /// With this the listener speaks WebSocket, inside TLS if there is that, and nothing else.
    pub websocket: Option<WebSocketConfig>,
    /// Most connections of this listener; [`Limits::connections`] counts all listeners together.
    pub connections_max: Option<u32>,
}

/// The files of a TLS listener, all in PEM form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// The certificate chain, the server's own certificate first.
    pub certificate: PathBuf,
    /// The private key of the first certificate.
    pub key: PathBuf,
    /// With this a client must present a certificate that one of these authorities has signed.
    pub client_ca: Option<PathBuf>,
}

/// `[listeners.websocket]`: which HTTP requests become connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketConfig {
    /// The paths that clients connect to; at least one.
    pub paths: Vec<String>,
    /// Origins of web pages that may connect, as a browser writes them (`https://app.example`), or `*` for all.
    /// Pages from this machine, or from the same IP address as the listener, need not be named.
    pub origins: Vec<String>,
}

/// `[auth]`: who may connect, and what they may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthConfig {
    /// Whether clients without a user name may connect. Left out: on loopback listeners, and only as long
    /// as there is no password file (see [`AuthConfig::anonymous_at`]).
    pub anonymous: Option<bool>,
    /// User names and password hashes, as `causeway passwd` writes them.
    pub password_file: Option<PathBuf>,
    /// Who may publish and subscribe where; without it everyone who may connect may do everything.
    pub acl_file: Option<PathBuf>,
    /// Whether a subscription that is not allowed is refused with 0x80, which gives no reason, and not with
    /// 0x87, not authorized.
    pub vague_refusals: bool,
}

/// `[mqtt]`: what of the protocol clients are offered. CONNACK tells 5.0 clients what they are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttConfig {
    /// Highest QoS that a client may publish with and that a subscription is granted.
    pub maximum_qos: Qos,
    /// Whether clients may publish retained messages, and get those there are.
    pub retain: bool,
    /// Whether topic filters may have wildcards.
    pub wildcard_subscriptions: bool,
    /// Whether a subscription may have an identifier.
    pub subscription_identifiers: bool,
    /// Whether subscriptions may be shared.
    pub shared_subscriptions: bool,
    /// Whether a message that several subscriptions of a client match is sent to it once.
    pub merge_overlapping: bool,
    /// Response Information for 5.0 clients that ask for it, with [`CLIENT_ID_PLACEHOLDER`] in it or not.
    pub response_information: Option<String>,
}

/// `[redirect]`: every client is sent to another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedirectConfig {
    /// The Server Reference: hosts with or without a port, with spaces between them.
    pub to: String,
    /// Whether 5.0 clients are told to stay there (0x9D, server moved) or to try again here some time (0x9C,
    /// use another server).
    pub permanent: bool,
}

/// `[limits]`: every queue, buffer and table has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest packet a client may send, in bytes (Maximum Packet Size in CONNACK).
    pub packet_size: u32,
    /// Most connections on all listeners together.
    pub connections: u32,
    /// How long a new connection may take for the handshakes of TLS and WebSocket, and then until its CONNECT
    /// is complete and the exchange of enhanced authentication has ended.
    pub connect_timeout: Duration,
    /// How long a packet may take from its first byte to its last.
    pub packet_timeout: Duration,
    /// Longest Keep Alive that an MQTT 5.0 client may ask for (Server Keep Alive); `None` is no limit.
    pub keep_alive_max: Option<Duration>,
    /// QoS 1 and 2 PUBLISH packets that a client may have open towards us (Receive Maximum in CONNACK).
    pub receive_maximum: u16,
    /// QoS 1 and 2 PUBLISH packets that we have open towards a client that allows as many or names no number.
    pub inflight: u16,
    /// Topic aliases that a client may use; 0 is none (Topic Alias Maximum in CONNACK).
    pub topic_alias_maximum: u16,
    /// Most levels of a topic name or topic filter.
    pub topic_levels: u16,
    /// Most subscriptions of one session.
    pub subscriptions_per_session: u32,
    /// Most bytes of frames that wait in memory for one connected client.
    pub outbox_bytes: u64,
    /// What waits on disk for one durable session or shared group, and for a route that says nothing else.
    pub queue: QueueConfig,
    /// Most sessions, connected or not.
    pub sessions: u32,
    /// Longest time that a session is kept after its client has left; what a 3.1.1 session gets.
    pub session_expiry: Duration,
    /// Most retained messages.
    pub retained_messages: u64,
    /// Most bytes of retained messages.
    pub retained_bytes: u64,
    /// Most bytes that wait in memory for all clients together, beyond the first 64 KiB of each.
    pub memory: u64,
    /// A client that takes not one byte for so long while we write to it is closed.
    pub write_timeout: Duration,
    /// How long a shutdown waits for clients and targets before it closes them.
    pub shutdown_timeout: Duration,
    /// How long a takeover waits for the old connection to hand over the session.
    pub takeover_timeout: Duration,
    /// Most dead letters.
    pub dead_letters: u64,
    /// Most bytes of dead letters.
    pub dead_letter_bytes: u64,
}

/// `[shared]`: which member of a shared subscription gets a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedConfig {
    /// For every group that is not named in `groups`.
    pub strategy: ShareStrategy,
    /// By share name: for all groups `$share/<name>/...`.
    pub groups: BTreeMap<String, ShareStrategy>,
}

/// How a shared group chooses among the members that can take a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShareStrategy {
    /// One after the other.
    #[default]
    RoundRobin,
    /// Any of them.
    Random,
    /// One of them gets everything, as long as it takes it.
    Sticky,
    /// The one that the publisher's client id leads to, as long as it takes it.
    HashClient,
    /// The one that the topic leads to, as long as it takes it.
    HashTopic,
    /// The one with the fewest messages that it has not acknowledged.
    LeastInflight,
}

/// `[retain]`: what is asked before a retained message is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetainConfig {
    /// Whether whoever published it must still have the right to.
    pub check_source: bool,
}

/// `[sys]`: what the broker says of itself below `$SYS/broker`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SysConfig {
    /// How often; zero for never.
    pub interval: Duration,
}

/// `[admin]`: HTTP API, health and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Whether there is an admin listener at all.
    pub enabled: bool,
    /// Where it listens: a loopback address.
    pub address: SocketAddr,
}

/// `[log]`: what is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A level, or directives per module, as `tracing_subscriber::EnvFilter` reads them.
    pub level: String,
    /// The form of a log line.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl SharedConfig {
    /// The strategy for groups of this share name.
    pub fn strategy_of(&self, share_name: &str) -> ShareStrategy {
        self.groups.get(share_name).copied().unwrap_or(self.strategy)
    }
}

impl AuthConfig {
    /// Whether a client without a user name may connect at a listener with this address.
    pub fn anonymous_at(&self, listener: SocketAddr) -> bool {
        let unless_said = self.password_file.is_none() && listener.ip().is_loopback();
        self.anonymous.unwrap_or(unless_said)
    }
}
