//! From the text of a configuration file to a checked [`Config`].
//!
//! Sections are read in an order in which each finds what it refers to: limits before the topic filters
//! of routes, `[auth]` before the listeners that it must protect, targets before routes.

use std::{collections::BTreeMap, net::SocketAddr, ops::RangeInclusive, path::Path, time::Duration};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use tracing_subscriber::EnvFilter;

use super::{
    AdminConfig, AuthConfig, Config, DeadLettersConfig, Limits, ListenerConfig, LogConfig, LogFormat,
    RetainConfig, StoreConfig, SysConfig, TlsConfig, WebSocketConfig,
    error::{ConfigError, Mistake},
    files, hidden, mqtt, queue,
    report::{Report, Span, Wrong},
    route,
    section::Section,
    shared, target,
    values::{self, AGE, TIMEOUT},
};

/// Largest configuration file.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Keep Alive travels as 16 bits of seconds.
const KEEP_ALIVE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(u16::MAX as u64);
/// One page of the database at least, and a number that nobody reaches by mistake.
pub(super) const BYTES: RangeInclusive<u64> = 4096..=1 << 50;
/// An empty database has a few pages for each table.
const STORE_BYTES: RangeInclusive<u64> = 16 << 20..=1 << 50;
/// The largest MQTT packet: five bytes of fixed header and 28 bits of length.
const PACKET_BYTES: RangeInclusive<u64> = 20..=5 + 0x0FFF_FFFF;
/// Zero is never; more than a day says nothing of the last minute.
const CLOCK_GRACE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(30 * 24);

const SYS_INTERVAL: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(24);
const COUNT: RangeInclusive<u32> = 1..=u32::MAX;
pub(super) const STORED: RangeInclusive<u64> = 1..=1 << 40;
const LISTENER: &str = "listeners.address";
const ADMIN: &str = "admin.address";
const LOG_LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// An address that is listened at, and where the file says so (nowhere, for a default).
struct Bound {
    key: &'static str,
    address: SocketAddr,
    span: Option<Span>,
}

impl Bound {
    fn by_default(key: &'static str, address: SocketAddr) -> Self {
        Self { key, address, span: None }
    }
}

impl Config {
    /// Reads and checks a configuration file, and that the files it names can be read.
    ///
    /// # Errors
    /// Every mistake that was found, with its place.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = files::read_text(path, FILE_BYTES_MAX).map_err(|error| {
            let message = format!("cannot be read: {error}");
            let help = "without --config the built-in defaults serve; config/causeway.toml shows every key";
            ConfigError {
                mistakes: vec![Mistake { file: name.clone(), place: None, message, help: Some(help.into()) }],
            }
        })?;
        parse(Report::new(&name, &text).checking_files(), &text)
    }

    /// Reads and checks the text of a configuration file; `name` stands for the file in messages.
    ///
    /// Secrets are resolved; whether other files exist is not asked.
    ///
    /// # Errors
    /// Every mistake that was found, with its place.
    pub fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        parse(Report::new(name, text), text)
    }
}

fn parse(report: Report<'_>, text: &str) -> Result<Config, ConfigError> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut hidden = hidden::spans(table.get_ref());
    let broken = errors.iter().filter_map(|error| hidden::span_of_broken_line(text, error.span()?.start));
    hidden.extend(broken);
    let report = report.hiding(hidden);
    if !errors.is_empty() {
        // What the parser made of the rest would only bring mistakes that nobody has made.
        for error in errors {
            let end = text.len()..text.len();
            report.add(error.span().unwrap_or(end), Wrong::new(error.message()));
        }
        return report.finish(Config::default());
    }
    let config = Section::root(&table, &report, read_config);
    report.finish(config)
}

fn read_config(root: &mut Section<'_>) -> Config {
    let store = root.section("store", read_store);
    let limits = root.section("limits", read_limits);
    let dead_letters =
        root.section("dead_letters", |section| DeadLettersConfig::read(section, limits.topic_levels));
    let mqtt = root.section("mqtt", |section| mqtt::read_mqtt(section, limits.topic_levels));
    let redirect = root.optional_section("redirect", mqtt::read_redirect).flatten();
    let auth = root.section("auth", read_auth);
    let mut bound = Vec::new();
    let listeners = read_listeners(root, &auth, &mut bound);
    let admin = root.section("admin", |section| read_admin(section, &mut bound));
    check_addresses(root.report(), &bound);
    let (names, targets): (Vec<_>, Vec<_>) = target::read_targets(root).into_iter().unzip();
    let routes = route::read_routes(root, &names, &limits);
    let targets = names.into_iter().zip(targets).filter_map(|(name, target)| Some((name, target?)));
    let targets: BTreeMap<_, _> = targets.collect();
    let shared = root.section("shared", shared::read_shared);
    let retain = root.section("retain", read_retain);
    let sys = root.section("sys", read_sys);
    let log = root.section("log", read_log);
    Config {
        store,
        listeners,
        auth,
        mqtt,
        redirect,
        limits,
        dead_letters,
        targets,
        routes,
        shared,
        retain,
        sys,
        admin,
        log,
    }
}

fn read_store(section: &mut Section<'_>) -> StoreConfig {
    let default = StoreConfig::default();
    let interval = Duration::ZERO..=Duration::from_mins(1);
    let path = section.take("path", values::path).map_or(default.path, Spanned::into_inner);
    section.check_file("path", &path, files::check_folder);
    StoreConfig {
        path,
        commit_interval: section.duration("commit_interval", interval, default.commit_interval),
        cache_size: section.bytes("cache_size", BYTES, default.cache_size),
        batch_bytes_max: section.bytes("batch_bytes_max", BYTES, default.batch_bytes_max),
        queue_bytes_max: section.bytes("queue_bytes_max", BYTES, default.queue_bytes_max),
        free_space_min: section.bytes("free_space_min", BYTES, default.free_space_min),
        clock_grace: section.duration("clock_grace", CLOCK_GRACE, default.clock_grace),
        size_max: section.optional_bytes("size_max", STORE_BYTES),
        compact_at_start: section
            .take("compact_at_start", values::flag)
            .map_or(default.compact_at_start, Spanned::into_inner),
    }
}

fn read_limits(section: &mut Section<'_>) -> Limits {
    let default = Limits::default();
    let ids = 1..=u16::MAX;
    let keep_alive = section.duration("keep_alive_max", KEEP_ALIVE, Duration::ZERO);
    if !keep_alive.is_zero() && keep_alive < Duration::from_secs(1) {
        // In whole seconds this would be 0, which is no limit.
        section.wrong("keep_alive_max", Wrong::new("must be at least 1s").help("or \"0s\", for no limit"));
    }
    let subscriptions = section.number("subscriptions_per_session", COUNT, default.subscriptions_per_session);
    let packet_size = section.bytes("packet_size", PACKET_BYTES, default.packet_size.into());
    let limits = Limits {
        packet_size: u32::try_from(packet_size).unwrap_or(default.packet_size),
        connections: section.number("connections", COUNT, default.connections),
        connect_timeout: section.duration("connect_timeout", TIMEOUT, default.connect_timeout),
        packet_timeout: section.duration("packet_timeout", TIMEOUT, default.packet_timeout),
        keep_alive_max: Some(keep_alive).filter(|longest| !longest.is_zero()),
        receive_maximum: section.number("receive_maximum", ids.clone(), default.receive_maximum),
        inflight: section.number("inflight", ids.clone(), default.inflight),
        topic_alias_maximum: section.number("topic_alias_maximum", 0..=u16::MAX, default.topic_alias_maximum),
        topic_levels: section.number("topic_levels", ids, default.topic_levels),
        subscriptions_per_session: subscriptions,
        outbox_bytes: section.bytes("outbox_bytes", BYTES, default.outbox_bytes),
        queue: queue::read_queue(section, &default.queue),
        sessions: section.number("sessions", COUNT, default.sessions),
        session_expiry: section.duration("session_expiry", AGE, default.session_expiry),
        retained_messages: section.number("retained_messages", STORED, default.retained_messages),
        retained_bytes: section.bytes("retained_bytes", BYTES, default.retained_bytes),
        memory: section.bytes("memory", BYTES, default.memory),
        write_timeout: section.duration("write_timeout", TIMEOUT, default.write_timeout),
        shutdown_timeout: section.duration("shutdown_timeout", TIMEOUT, default.shutdown_timeout),
        takeover_timeout: section.duration("takeover_timeout", TIMEOUT, default.takeover_timeout),
        dead_letters: section.number("dead_letters", STORED, default.dead_letters),
        dead_letter_bytes: section.bytes("dead_letter_bytes", BYTES, default.dead_letter_bytes),
    };
    check_room_for_a_packet(section, &limits);
    limits
}

/// A queue that cannot hold the largest packet would refuse it for ever.
fn check_room_for_a_packet(section: &Section<'_>, limits: &Limits) {
    let queues = [
        ("outbox_bytes", limits.outbox_bytes),
        ("queued_bytes", limits.queue.bytes),
        ("retained_bytes", limits.retained_bytes),
        ("memory", limits.memory),
        ("dead_letter_bytes", limits.dead_letter_bytes),
    ];
    for (key, bytes) in queues {
        queue::check_room(section, key, bytes, limits.packet_size);
    }
}

fn read_auth(section: &mut Section<'_>) -> AuthConfig {
    let anonymous = section.take("anonymous", values::flag);
    let password_file = section.readable_file("password_file");
    let acl_file = section.readable_file("acl_file");
    if anonymous.as_ref().is_some_and(|said| !said.get_ref()) && password_file.is_none() {
        let wrong = Wrong::new("is false and there is no password_file: no client could ever connect");
        section.wrong("anonymous", wrong.help("name a password_file, or leave anonymous out"));
    }
    let vague_refusals = section.take("vague_refusals", values::flag).is_some_and(Spanned::into_inner);
    AuthConfig { anonymous: anonymous.map(Spanned::into_inner), password_file, acl_file, vague_refusals }
}

fn read_listeners(root: &mut Section<'_>, auth: &AuthConfig, bound: &mut Vec<Bound>) -> Vec<ListenerConfig> {
    let Some(listeners) = root.sections("listeners", |section| read_listener(section, auth, bound)) else {
        let listeners = Config::default().listeners;
        bound.extend(listeners.iter().map(|listener| Bound::by_default(LISTENER, listener.address)));
        return listeners;
    };
    let none_named = root.take("listeners", |value| Ok(value.as_array().is_some_and(|list| list.is_empty())));
    if none_named.is_some_and(Spanned::into_inner) {
        let help = "add [[listeners]] with an address, or leave listeners out for the default ones";
        root.wrong("listeners", Wrong::new("is empty: no client could ever connect").help(help));
    }
    listeners.into_iter().flatten().collect()
}

/// `None` when there is no address to listen at; that is reported.
fn read_listener(
    section: &mut Section<'_>,
    auth: &AuthConfig,
    bound: &mut Vec<Bound>,
) -> Option<ListenerConfig> {
    let tls = section.optional_section("tls", read_tls);
    let websocket = section.optional_section("websocket", read_websocket);
    let connections_max = section.optional_number("connections_max", COUNT);
    let address = section.require("address", "\"127.0.0.1:1883\"", values::address)?;
    let at = *address.get_ref();
    let open = !at.ip().is_loopback() && auth.password_file.is_none() && auth.anonymous != Some(true);
    if open {
        let wrong = Wrong::new(format!("{at} is open to the network, and nothing says who may connect"));
        let help = "name a password_file in [auth], or write anonymous = true there to let everyone in";
        section.wrong("address", wrong.help(help));
    }
    bound.push(Bound { key: LISTENER, address: at, span: Some(address.span()) });
    Some(ListenerConfig { address: at, tls: tls.flatten(), websocket, connections_max })
}

/// `None` when a file is not named; that is reported.
fn read_tls(section: &mut Section<'_>) -> Option<TlsConfig> {
    let default = TlsConfig::default();
    let certificate = section.require("certificate", "\"certs/server.pem\"", values::path);
    let key = section.require("key", "\"certs/server.key\"", values::path);
    let client_ca = section.readable_file("client_ca");
    let (certificate, key) = (certificate?.into_inner(), key?.into_inner());
    let tls = TlsConfig { certificate, key, client_ca };
    // The development certificate is made on first start.
    let made_later = tls.certificate == default.certificate && tls.key == default.key;
    if !(made_later && !tls.certificate.exists() && !tls.key.exists()) {
        section.check_file("certificate", &tls.certificate, files::check_readable);
        section.check_file("key", &tls.key, files::check_readable);
    }
    Some(tls)
}

fn read_websocket(section: &mut Section<'_>) -> WebSocketConfig {
    let default = WebSocketConfig::default();
    let none_named = section.take("paths", |value| Ok(value.as_array().is_some_and(|list| list.is_empty())));
    if none_named.is_some_and(Spanned::into_inner) {
        let help = "name one, or leave paths out for \"/mqtt\" and \"/\"";
        section.wrong("paths", Wrong::new("is empty: no client could ever connect").help(help));
    }
    let paths = section.list("paths", values::url_path).into_iter().map(Spanned::into_inner);
    let paths: Vec<_> = paths.collect();
    let origins = section.list("origins", values::origin).into_iter().map(Spanned::into_inner);
    WebSocketConfig {
        paths: if paths.is_empty() { default.paths } else { paths },
        origins: origins.collect(),
    }
}

fn read_admin(section: &mut Section<'_>, bound: &mut Vec<Bound>) -> AdminConfig {
    let default = AdminConfig::default();
    let enabled = section.take("enabled", values::flag).map_or(default.enabled, Spanned::into_inner);
    let Some(address) = section.take("address", values::address) else {
        bound.extend(enabled.then(|| Bound::by_default(ADMIN, default.address)));
        return AdminConfig { enabled, ..default };
    };
    let at = *address.get_ref();
    if !at.ip().is_loopback() {
        let help = "write 127.0.0.1 or [::1], and put a proxy that asks for a login in front";
        section.wrong("address", Wrong::new("must be a loopback address").not(&at).help(help));
    }
    bound.extend(enabled.then(|| Bound { key: ADMIN, address: at, span: Some(address.span()) }));
    AdminConfig { enabled, address: at }
}

/// Port 0 is always free: each listener gets a port of its own.
fn check_addresses(report: &Report<'_>, bound: &[Bound]) {
    for (index, second) in bound.iter().enumerate().filter(|(_, second)| second.address.port() != 0) {
        let Some(first) = bound.iter().take(index).find(|first| first.address == second.address) else {
            continue;
        };
        // A default has no place in the file: then the other one is shown.
        let (shown, other) = if second.span.is_some() { (second, first) } else { (first, second) };
        let Some(span) = shown.span.clone() else { continue };
        let by = match other.span.clone() {
            Some(span) => format!("on line {}", report.line(span)),
            None => format!("by the default of {}", other.key),
        };
        let wrong = Wrong::new(format!("{} is taken already, {by}", shown.address));
        report.add(span, wrong.about(shown.key).help("give each listener an address of its own"));
    }
}

fn read_retain(section: &mut Section<'_>) -> RetainConfig {
    let check_source = section.take("check_source", values::flag).is_some_and(Spanned::into_inner);
    RetainConfig { check_source }
}

fn read_sys(section: &mut Section<'_>) -> SysConfig {
    let interval = section.duration("interval", SYS_INTERVAL, SysConfig::default().interval);
    if !interval.is_zero() && interval < Duration::from_secs(1) {
        section.wrong("interval", Wrong::new("must be at least 1s").help("or \"0s\", for never"));
    }
    SysConfig { interval }
}

fn read_log(section: &mut Section<'_>) -> LogConfig {
    let default = LogConfig::default();
    LogConfig {
        level: section.take("level", log_level).map_or(default.level, Spanned::into_inner),
        format: section.take("format", log_format).map_or(default.format, Spanned::into_inner),
    }
}

fn log_format(value: &DeValue<'_>) -> Result<LogFormat, Wrong> {
    match value.as_str() {
        Some("text") => Ok(LogFormat::Text),
        Some("json") => Ok(LogFormat::Json),
        _ => Err(values::unexpected("\"text\" or \"json\"", value)),
    }
}

/// A lone word that is not a level would be taken for the name of a module, and silence everything else.
fn log_level(value: &DeValue<'_>) -> Result<String, Wrong> {
    let text = values::text(value)?;
    let help = "write \"info\", or levels per module: \"info,causeway::bridge=debug\"";
    let is_word = |directive: &&str| directive.trim().chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    for word in text.split(',').filter(is_word) {
        if !LOG_LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word.trim())) {
            let near = values::nearest(word.trim(), LOG_LEVELS.into_iter());
            let help = near.map_or(help.to_owned(), |near| format!("did you mean \"{near}\"?"));
            let wrong = Wrong::new(format!("must be one of {}", LOG_LEVELS.join(", ")));
            return Err(wrong.not(&format!("\"{}\"", word.escape_debug())).help(help));
        }
    }
    match EnvFilter::builder().parse(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(Wrong::new(format!("cannot be used: {error}")).help(help)),
    }
}
