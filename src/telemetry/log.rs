//! The log: lines for people, or JSON for machines, on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

/// Starts the log. A second call does nothing.
pub fn init(config: &LogConfig) {
    // The TLS library warns of every client that names an IP address as its host; it can be asked for.
    let directives = format!("rustls=error,{}", config.level);
    let filter = EnvFilter::try_new(directives).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match config.format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    if let Err(error) = started {
        eprintln!("the log was started before: {error}");
    }
}
