//! Binding an address and accepting connections, whatever goes wrong.
//!
//! Invariant: [`Listener::accept`] ends with a connection or not at all. A process that has run out of
//! descriptors, or a client that has left already, never closes the door for the others.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use super::{ConnectionLimit, ConnectionPermit, Layers, TlsSettings};
use crate::config::WebSocketConfig;

/// Connections that the system completes before they are accepted; after a restart all clients come back.
const BACKLOG: i32 = 4096;

/// How long nothing is accepted after a failure; doubled while it lasts.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Trouble that repeats is logged so often.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// A bound address that accepts connections.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<TlsSettings>>,
    websocket: Option<Arc<WebSocketConfig>>,
    everywhere: ConnectionLimit,
    here: ConnectionLimit,
    refused: Repeated,
    failed: Repeated,
}

/// A connection that nothing was read from yet.
#[derive(Debug)]
pub struct Accepted {
    /// The socket, with TCP_NODELAY. Give it to [`handshake`](super::handshake) with `layers`.
    pub tcp: TcpStream,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// What is spoken before MQTT, with the settings in force when the connection was accepted.
    pub layers: Layers,
    /// The connection's place in the limits; to be kept as long as the connection.
    pub permit: ConnectionPermit,
}

/// Why an address was not bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process listens there.
    #[error(
        "{0} is in use: another broker? Name another address in the configuration, or with --listen ADDR"
    )]
    InUse(SocketAddr),
    /// A port below 1024, mostly.
    #[error(
        "{0} is not allowed for this user: ports below 1024 need a privilege; the ports of MQTT are 1883 \
         and 8883"
    )]
    NotPermitted(SocketAddr),
    /// The machine has no such address.
    #[error(
        "{0} is not an address of this machine: 127.0.0.1 is for itself only, 0.0.0.0 for all its networks"
    )]
    NotHere(SocketAddr),
    /// Something else.
    #[error("cannot listen on {address}: {source}")]
    Other {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
}

impl Listener {
    /// Binds an address (port 0 takes any free port) and begins to listen. `everywhere` counts the
    /// connections of all listeners together, `here` those of this one. Needs a runtime of tokio.
    pub fn bind(
        address: SocketAddr,
        tls: Option<Arc<TlsSettings>>,
        everywhere: ConnectionLimit,
        here: ConnectionLimit,
    ) -> Result<Self, BindError> {
        let (socket, address) = bind(address).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(address),
            io::ErrorKind::PermissionDenied => BindError::NotPermitted(address),
            io::ErrorKind::AddrNotAvailable => BindError::NotHere(address),
            _ => BindError::Other { address, source },
        })?;
        let (refused, failed) = (Repeated::default(), Repeated::default());
        Ok(Self { socket, address, tls, websocket: None, everywhere, here, refused, failed })
    }

    /// Speaks MQTT over WebSocket from now on.
    #[must_use]
    pub fn with_websocket(self, config: WebSocketConfig) -> Self {
        Self { websocket: Some(Arc::new(config)), ..self }
    }

    /// The address with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the next connection that has a place in both limits; others are closed at once. May be
    /// dropped and called again without losing a connection.
    pub async fn accept(&mut self) -> Accepted {
        let mut pause = PAUSE_MIN;
        loop {
            match self.socket.accept().await {
                Ok((tcp, peer)) => {
                    if let Some(accepted) = self.admit(tcp, peer) {
                        return accepted;
                    }
                }
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => {
                    if let Some(times) = self.failed.due(Instant::now()) {
                        let address = self.address;
                        tracing::warn!(%address, times, "cannot accept connections: {error}");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    fn admit(&mut self, tcp: TcpStream, peer: SocketAddr) -> Option<Accepted> {
        let Some(permit) = ConnectionPermit::take(&self.everywhere, &self.here) else {
            if let Some(times) = self.refused.due(Instant::now()) {
                let address = self.address;
                tracing::warn!(%address, times, %peer, "connection limit reached: closed new connections");
            }
            return None;
        };
        // Fails only when the client has left already, which the first read will tell.
        let _ = tcp.set_nodelay(true);
        let tls = self.tls.as_ref().map(|settings| settings.current());
        let layers = Layers { tls, websocket: self.websocket.clone() };
        Some(Accepted { tcp, peer, layers, permit })
    }
}

fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Otherwise a restart would have to wait until the connections of the last run are forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Whether the error says that one client is gone, and nothing about the next one.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Counts something that repeats, and says when it is time to log it.
#[derive(Debug, Default)]
struct Repeated {
    times: u64,
    next: Option<Instant>,
}

impl Repeated {
    /// Counts once more. When a log line is due: how often since the last one.
    fn due(&mut self, now: Instant) -> Option<u64> {
        self.times += 1;
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        self.next = Some(now + LOG_INTERVAL);
        Some(std::mem::take(&mut self.times))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;
    use crate::{
        config::TlsConfig,
        transport::{Application, dev_certs},
    };

    fn listener(everywhere: &ConnectionLimit, here: u32) -> Listener {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Listener::bind(any, None, everywhere.clone(), ConnectionLimit::new(here)).unwrap()
    }

    #[tokio::test]
    async fn accepts_with_no_delay_and_frees_the_place() {
        let limit = ConnectionLimit::new(10);
        let mut listener = listener(&limit, 10);
        assert_ne!(listener.address().port(), 0);
        let client = TcpStream::connect(listener.address()).await.unwrap();
        let accepted = listener.accept().await;
        assert_eq!(accepted.peer, client.local_addr().unwrap());
        assert!(accepted.tcp.nodelay().unwrap() && accepted.layers.tls.is_none());
        assert_eq!(limit.in_use(), 1);
        drop(accepted);
        assert_eq!(limit.in_use(), 0);
    }

    #[tokio::test]
    async fn closes_what_is_over_the_limit_and_goes_on() {
        let limit = ConnectionLimit::new(10);
        let mut listener = listener(&limit, 1);
        let address = listener.address();
        let _first_client = TcpStream::connect(address).await.unwrap();
        let first = listener.accept().await;

        let mut over = TcpStream::connect(address).await.unwrap();
        let read = async { over.read(&mut [0; 1]).await };
        tokio::select! {
            _ = listener.accept() => panic!("there was no place for it"),
            end = read => assert_eq!(end.unwrap(), 0),
        }
        assert_eq!(limit.in_use(), 1);

        drop(first);
        let third = TcpStream::connect(address).await.unwrap();
        assert_eq!(listener.accept().await.peer, third.local_addr().unwrap());
    }

    #[tokio::test]
    async fn a_tls_listener_gives_each_connection_the_settings_in_force() {
        let folder = tempfile::tempdir().unwrap();
        dev_certs::ensure(folder.path()).unwrap();
        let path = |name| folder.path().join(name);
        let files = TlsConfig { certificate: path("server.pem"), key: path("server.key"), client_ca: None };
        let settings = Arc::new(TlsSettings::load(files, Application::Mqtt).unwrap());
        let limit = ConnectionLimit::new(2);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut listener =
            Listener::bind(any, Some(Arc::clone(&settings)), limit.clone(), limit.clone()).unwrap();
        let before = settings.current();
        let _one = TcpStream::connect(listener.address()).await.unwrap();
        assert!(Arc::ptr_eq(&listener.accept().await.layers.tls.unwrap(), &before));
        settings.reload().unwrap();
        let _two = TcpStream::connect(listener.address()).await.unwrap();
        assert!(!Arc::ptr_eq(&listener.accept().await.layers.tls.unwrap(), &before));
    }

    #[tokio::test]
    async fn says_what_is_wrong_with_an_address() {
        let limit = ConnectionLimit::new(1);
        let holder = listener(&limit, 1);
        let bind = |address| Listener::bind(address, None, limit.clone(), limit.clone()).map(|_| ());
        let error = bind(holder.address()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "{} is in use: another broker? Name another address in the configuration, or with --listen ADDR",
                holder.address()
            )
        );
        let error = bind(SocketAddr::from(([192, 0, 2, 1], 0))).unwrap_err();
        assert!(matches!(error, BindError::NotHere(_)), "{error}");
    }

    #[test]
    fn trouble_is_logged_once_a_second_with_its_count() {
        let (mut trouble, start) = (Repeated::default(), Instant::now());
        assert_eq!(trouble.due(start), Some(1));
        assert_eq!(trouble.due(start + LOG_INTERVAL / 2), None);
        assert_eq!(trouble.due(start + LOG_INTERVAL * 9 / 10), None);
        assert_eq!(trouble.due(start + LOG_INTERVAL), Some(3));
    }
}
