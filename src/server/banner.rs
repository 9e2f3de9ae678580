//! What a person sees when the broker starts.

use super::Server;

/// Prints where it listens, where the data is, and what to try.
pub(super) fn print(server: &Server, descriptors: u64) {
    println!("causeway {}", env!("CARGO_PKG_VERSION"));
    for (address, is_tls) in &server.acceptors.addresses {
        let name = if *is_tls { "MQTT over TLS" } else { "MQTT" };
        println!("  {name:<14} {address}");
    }
    if server.has_dev_certificate {
        println!("  certificate    for development only; clients trust certs/ca.pem");
    }
    if let Some(admin) = server.background.admin {
        println!("  admin          http://{admin}  (healthz, readyz, metrics)");
    }
    for route in server.bridge.states() {
        println!("  route          {} to {}", route.name, route.url);
    }
    let sessions = server.broker.session_counts().all;
    println!("  data           {} ({sessions} sessions)", server.config.store.path.display());
    println!("  descriptors    {descriptors}");
    let plain = server.acceptors.addresses.iter().find(|(_, is_tls)| !is_tls);
    if let Some((address, _)) = plain {
        let (host, port) = (address.ip(), address.port());
        println!("Try in two other terminals:");
        println!("  mosquitto_sub -h {host} -p {port} -t 'demo/#' -v");
        println!("  mosquitto_pub -h {host} -p {port} -t demo/hello -m 'hello' -q 1");
    }
}
