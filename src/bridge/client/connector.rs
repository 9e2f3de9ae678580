//! Opens connections for a target: address, TCP, proxy and TLS under one deadline, with errors that say which of
//! them failed.
//!
//! Invariant: no connection is made to an address that was not judged. A proxy looks names up itself: behind one
//! only addresses that stand in a URL are.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use super::failure::{BoxError, Failure};
use super::resolver::{LookUp, Resolver};
use super::tls::{ClientError, tls_config};
use crate::config::{Addresses, HttpVersion, Login, ProxyConfig, ProxyKind, Said, TargetConfig};

/// How long a connection says nothing before TCP asks whether the other side is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Opens connections to one target.
#[derive(Clone)]
pub(super) struct Connector {
    inner: HttpsConnector<Dialer>,
    timeout: Duration,
}

/// A connection, with TLS to the proxy where it is one of those, and inside of that TLS to the target.
type Connected = MaybeHttpsStream<Dialed>;
type Dialed = MaybeHttpsStream<TokioIo<TcpStream>>;

impl Connector {
    /// A connector for this target that offers these versions of HTTP. Reads files, so it blocks.
    pub(super) fn new(
        config: &TargetConfig,
        version: HttpVersion,
        look_up: LookUp,
    ) -> Result<Self, ClientError> {
        let tls = tls_config(config)?;
        let dialer = Dialer::new(config, &tls, look_up);
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let inner = match version {
            HttpVersion::Auto => builder.enable_all_versions().wrap_connector(dialer),
            HttpVersion::Http1 => builder.enable_http1().wrap_connector(dialer),
            HttpVersion::Http2 => builder.enable_http2().wrap_connector(dialer),
        };
        Ok(Self { inner, timeout: config.connect_timeout })
    }
}

impl Service<Uri> for Connector {
    type Response = Connected;
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Failure>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let limit = self.timeout;
        self.inner.poll_ready(context).map_err(|error| Failure::from_connector(error.as_ref(), limit))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let limit = self.timeout;
        let connecting = timeout(limit, self.inner.call(uri));
        Box::pin(async move {
            match connecting.await {
                Ok(connected) => connected.map_err(|error| Failure::from_connector(error.as_ref(), limit)),
                Err(_) => Err(Failure::ConnectTimeout(limit)),
            }
        })
    }
}

/// Opens connections to the target, through a proxy where there is one.
#[derive(Clone)]
struct Dialer {
    way: Way,
    addresses: Arc<Addresses>,
}

type Tcp = HttpConnector<Resolver>;

#[derive(Clone)]
enum Way {
    Direct(Tcp),
    Tunnel(Tunnel<HttpsConnector<Tcp>>),
    Socks(SocksV5<HttpsConnector<Tcp>>),
}

impl Dialer {
    fn new(config: &TargetConfig, tls: &ClientConfig, look_up: LookUp) -> Self {
        let addresses = Arc::new(config.addresses.clone());
        // The name of a proxy is the operator's own, and a proxy is mostly inside.
        let said = if config.proxy.is_some() { Said::Configured } else { Said::Name };
        let mut tcp = HttpConnector::new_with_resolver(Resolver::new(look_up, Arc::clone(&addresses), said));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEP_ALIVE));
        // Shared out among the addresses of a name, so that one that is dead leaves time for the next.
        tcp.set_connect_timeout(Some(config.connect_timeout));
        let way = match &config.proxy {
            None => Way::Direct(tcp),
            Some(proxy) => {
                let builder = HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http();
                Way::through(proxy, builder.enable_http1().wrap_connector(tcp))
            }
        };
        Self { way, addresses }
    }
}

impl Way {
    fn through(proxy: &ProxyConfig, connector: HttpsConnector<Tcp>) -> Self {
        let ProxyConfig { kind, uri, login } = proxy;
        match kind {
            ProxyKind::Http => {
                let tunnel = Tunnel::new(uri.clone(), connector);
                Self::Tunnel(match login.as_ref().and_then(basic) {
                    Some(value) => tunnel.with_auth(value),
                    None => tunnel,
                })
            }
            ProxyKind::Socks5 => {
                let socks = SocksV5::new(uri.clone(), connector);
                Self::Socks(match login {
                    Some(login) => socks.with_auth(login.user.clone(), login.password.expose().to_owned()),
                    None => socks,
                })
            }
        }
    }
}

impl Service<Uri> for Dialer {
    type Response = Dialed;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match &mut self.way {
            Way::Direct(tcp) => tcp.poll_ready(context).map_err(Into::into),
            Way::Tunnel(tunnel) => tunnel.poll_ready(context).map_err(Failure::from_proxy),
            Way::Socks(socks) => socks.poll_ready(context).map_err(Failure::from_proxy),
        }
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        // What stands in the URL is connected to without a lookup, and so without a resolver that judges it.
        if let Err(refused) = self.addresses.judge_host(uri.host().unwrap_or_default()) {
            let remedy = refused.remedy();
            let text = format!("the URL leads to {refused}; if it is meant to, add {remedy} to the target");
            return Box::pin(async { Err(Failure::Refused(text).into()) });
        }
        match &mut self.way {
            Way::Direct(tcp) => {
                let dialing = tcp.call(uri);
                Box::pin(async { dialing.await.map(MaybeHttpsStream::Http).map_err(Into::into) })
            }
            Way::Tunnel(tunnel) => {
                let dialing = tunnel.call(with_port(uri));
                Box::pin(async { dialing.await.map_err(Failure::from_proxy) })
            }
            Way::Socks(socks) => {
                let dialing = socks.call(with_port(uri));
                Box::pin(async { dialing.await.map_err(Failure::from_proxy) })
            }
        }
    }
}

/// A proxy has to be told the port, and would be told that of https when there is none.
fn with_port(uri: Uri) -> Uri {
    let is_plain = uri.scheme() == Some(&Scheme::HTTP);
    let mut parts = uri.clone().into_parts();
    let port = if is_plain { 80 } else { 443 };
    parts.authority = match parts.authority {
        Some(at) if at.port().is_none() => format!("{}:{port}", at.host()).parse::<Authority>().ok(),
        at => at,
    };
    Uri::from_parts(parts).unwrap_or(uri)
}

fn basic(login: &Login) -> Option<HeaderValue> {
    let login = format!("{}:{}", login.user, login.password.expose());
    HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(login))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_told_the_port() {
        for (uri, expected) in [
            ("http://h/x", "http://h:80/x"),
            ("https://h/x", "https://h:443/x"),
            ("http://[::1]/", "http://[::1]:80/"),
            ("https://h:1/", "https://h:1/"),
        ] {
            assert_eq!(with_port(Uri::from_static(uri)), expected);
        }
    }
}
