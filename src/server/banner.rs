//! What a person sees when the broker starts.

use std::io::{self, Write as _};
use std::net::IpAddr;

use super::Server;
use crate::config::ListenerConfig;

/// Prints where it listens, where the data is, and what to try. That nobody reads it is no reason to end.
pub(super) fn print(server: &Server, descriptors: u64) {
    let _ = write(server, descriptors);
}

fn write(server: &Server, descriptors: u64) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "causeway {}", env!("CARGO_PKG_VERSION"))?;
    for listener in &server.acceptors.listeners {
        let (address, is_tls) = (listener.address, listener.tls.is_some());
        let name = if is_tls { "MQTT over TLS" } else { "MQTT" };
        match listener.websocket.as_ref().and_then(|websocket| websocket.paths.first()) {
            None => writeln!(out, "  {name:<14} {address}")?,
            Some(path) => {
                let scheme = if is_tls { "wss" } else { "ws" };
                writeln!(out, "  {:<14} {scheme}://{address}{path}", "WebSocket")?;
            }
        }
    }
    if server.has_dev_certificate {
        writeln!(out, "  certificate    for development only; clients trust certs/ca.pem")?;
    }
    if let Some(admin) = server.background.admin {
        writeln!(out, "  admin          http://{admin}  (healthz, readyz, metrics)")?;
    }
    for route in server.bridge.states() {
        writeln!(out, "  route          {} to {}", route.name, route.url)?;
    }
    let sessions = server.broker.session_counts().all;
    writeln!(out, "  data           {} ({sessions} sessions)", server.config.store.path.display())?;
    writeln!(out, "  descriptors    {descriptors}")?;
    let mut plain = server.acceptors.listeners.iter();
    let plain = plain.find(|listener| listener.tls.is_none() && listener.websocket.is_none());
    if let Some(ListenerConfig { address, .. }) = plain {
        // Every address of the machine includes its own.
        let host = if address.ip().is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { address.ip() };
        let port = address.port();
        // Who needs a password should not be told to try without.
        let anonymous = server.config.auth.anonymous_at(*address);
        let user = if anonymous { "" } else { " -u USER -P PASSWORD" };
        writeln!(out, "Try in two other terminals:")?;
        writeln!(out, "  mosquitto_sub -h {host} -p {port}{user} -t 'demo/#' -v")?;
        writeln!(out, "  mosquitto_pub -h {host} -p {port}{user} -t demo/hello -m 'hello' -q 1")?;
    }
    Ok(())
}
