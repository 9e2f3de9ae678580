//! What applies where an operator says nothing. The same values stand in `config/causeway.toml`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{
    AdminConfig, AuthConfig, Config, DeadLettersConfig, Limits, ListenerConfig, LogConfig, LogFormat,
    MqttConfig, Overflow, QueueConfig, RetainConfig, SharedConfig, StoreConfig, SysConfig, TlsConfig,
    WebSocketConfig,
};
use crate::codec::Qos;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

impl Default for Config {
    fn default() -> Self {
        let [plain, tls, websocket] = [1883, 8883, 8083].map(|port| ListenerConfig::plain(loopback(port)));
        let tls = ListenerConfig { tls: Some(TlsConfig::default()), ..tls };
        let websocket = ListenerConfig { websocket: Some(WebSocketConfig::default()), ..websocket };
        Self {
            store: StoreConfig::default(),
            listeners: vec![plain, tls, websocket],
            auth: AuthConfig::default(),
            mqtt: MqttConfig::default(),
            redirect: None,
            limits: Limits::default(),
            dead_letters: DeadLettersConfig::default(),
            targets: Default::default(),
            routes: Vec::new(),
            shared: SharedConfig::default(),
            retain: RetainConfig::default(),
            sys: SysConfig::default(),
            admin: AdminConfig::default(),
            log: LogConfig::default(),
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            path: PathBuf::from("data"),
            commit_interval: Duration::ZERO,
            cache_size: 64 * MIB,
            batch_bytes_max: 4 * MIB,
            queue_bytes_max: 64 * MIB,
            free_space_min: 256 * MIB,
            clock_grace: Duration::from_hours(1),
            size_max: None,
            compact_at_start: true,
        }
    }
}

impl ListenerConfig {
    /// MQTT over TCP, with every default.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None, websocket: None, connections_max: None }
    }
}

impl Default for WebSocketConfig {
    fn default() -> Self {
        Self { paths: vec!["/mqtt".to_owned(), "/".to_owned()], origins: Vec::new() }
    }
}

/// Where the development certificate is made on first start.
impl Default for TlsConfig {
    fn default() -> Self {
        Self { certificate: "certs/server.pem".into(), key: "certs/server.key".into(), client_ca: None }
    }
}

impl Default for MqttConfig {
    fn default() -> Self {
        Self {
            maximum_qos: Qos::ExactlyOnce,
            retain: true,
            wildcard_subscriptions: true,
            subscription_identifiers: true,
            shared_subscriptions: true,
            merge_overlapping: true,
            response_information: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_size: MIB as u32,
            connections: 100_000,
            connect_timeout: Duration::from_secs(10),
            packet_timeout: Duration::from_mins(5),
            keep_alive_max: None,
            receive_maximum: 1024,
            inflight: 512,
            topic_alias_maximum: 64,
            topic_levels: 200,
            subscriptions_per_session: 10_000,
            outbox_bytes: 4 * MIB,
            queue: QueueConfig::default(),
            sessions: 1_000_000,
            session_expiry: Duration::from_hours(90 * 24),
            retained_messages: 1_000_000,
            retained_bytes: GIB,
            memory: 2 * GIB,
            write_timeout: Duration::from_secs(20),
            shutdown_timeout: Duration::from_secs(10),
            takeover_timeout: Duration::from_secs(2),
            dead_letters: 1_000_000,
            dead_letter_bytes: GIB,
        }
    }
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { messages: 10_000_000, bytes: 4 * GIB, age: None, overflow: Overflow::DropNewest }
    }
}

impl Default for SysConfig {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10) }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { enabled: true, address: loopback(9883) }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
