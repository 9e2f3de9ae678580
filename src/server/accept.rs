//! The doors: a task for each listener, which owns the tasks of its connections.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::StartError;
use crate::auth::Escaped;
use crate::broker::Broker;
use crate::config::{Config, ListenerConfig};
use crate::connection::{self, ConnectionContext};
use crate::transport::{
    Accepted, Application, BindError, ConnectionLimit, HandshakeError, Listener, TlsError, TlsSettings,
    handshake, websocket::RefusedRequest,
};

/// The listeners, bound, and once they are started their tasks.
pub(super) struct Acceptors {
    bound: Vec<(Listener, Arc<ConnectionContext>)>,
    /// Where they listen: each as it is configured, with its real port.
    pub(super) listeners: Vec<ListenerConfig>,
    tasks: Vec<JoinHandle<JoinSet<()>>>,
    stopping: watch::Sender<bool>,
}

impl Acceptors {
    /// Binds all listeners: nothing is served unless all are there. Gives the TLS settings for reloading.
    pub(super) fn bind(
        config: &Config,
        broker: &Arc<Broker>,
        everywhere: ConnectionLimit,
        spare: bool,
    ) -> Result<(Self, Vec<Arc<TlsSettings>>), StartError> {
        let checks = std::thread::available_parallelism().map_or(1, usize::from);
        let password_checks = Arc::new(Semaphore::new(checks));
        let mut acceptors = Self {
            bound: Vec::new(),
            listeners: Vec::new(),
            tasks: Vec::new(),
            stopping: watch::channel(false).0,
        };
        let mut all_tls = Vec::new();
        for listener in &config.listeners {
            let tls = load_tls(listener)?;
            all_tls.extend(tls.clone());
            let bound = match bind_one(listener, tls.clone(), &everywhere) {
                Err(BindError::InUse(address)) if spare && !acceptors.bound.is_empty() => {
                    tracing::warn!(%address, "the address is in use: the broker does without this listener");
                    continue;
                }
                bound => bound?,
            };
            let context = ConnectionContext {
                broker: Arc::clone(broker),
                listener: bound.address(),
                connect_timeout: config.limits.connect_timeout,
                packet_timeout: config.limits.packet_timeout,
                write_timeout: config.limits.write_timeout,
                password_checks: Arc::clone(&password_checks),
            };
            acceptors.listeners.push(ListenerConfig { address: bound.address(), ..listener.clone() });
            acceptors.bound.push((bound, Arc::new(context)));
        }
        Ok((acceptors, all_tls))
    }

    /// Begins to accept.
    pub(super) fn start(&mut self) {
        for (listener, context) in self.bound.drain(..) {
            let stopping = self.stopping.subscribe();
            self.tasks.push(tokio::spawn(accept(listener, context, stopping)));
        }
    }

    /// Stops accepting and waits for the connections to end; at the deadline they are ended.
    pub(super) async fn stop(&mut self, deadline: Duration) {
        self.stopping.send_replace(true);
        let connections = async {
            for task in self.tasks.drain(..) {
                let Ok(mut connections) = task.await else { continue };
                while connections.join_next().await.is_some() {}
            }
        };
        if timeout(deadline, connections).await.is_err() {
            tracing::warn!("some connections did not end in time and were cut");
        }
    }
}

fn load_tls(listener: &ListenerConfig) -> Result<Option<Arc<TlsSettings>>, TlsError> {
    let application = if listener.websocket.is_some() { Application::Http } else { Application::Mqtt };
    let settings = listener.tls.clone().map(|files| TlsSettings::load(files, application));
    Ok(settings.transpose()?.map(Arc::new))
}

fn bind_one(
    listener: &ListenerConfig,
    tls: Option<Arc<TlsSettings>>,
    everywhere: &ConnectionLimit,
) -> Result<Listener, BindError> {
    let here = ConnectionLimit::new(listener.connections_max.unwrap_or(u32::MAX));
    let bound = Listener::bind(listener.address, tls, everywhere.clone(), here)?;
    Ok(match listener.websocket.clone() {
        Some(websocket) => bound.with_websocket(websocket),
        None => bound,
    })
}

async fn accept(
    mut listener: Listener,
    context: Arc<ConnectionContext>,
    mut stopping: watch::Receiver<bool>,
) -> JoinSet<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                connections.spawn(serve(accepted, Arc::clone(&context)));
            }
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended
                    && error.is_panic()
                {
                    tracing::error!(%error, "a connection's task has panicked; the others go on");
                }
            }
            _ = stopping.changed() => return connections,
        }
    }
}

async fn serve(accepted: Accepted, context: Arc<ConnectionContext>) {
    let Accepted { tcp, peer, layers, permit } = accepted;
    let deadline = context.connect_timeout;
    // Boxed: a connection that is in carries the memory of no handshake.
    match Box::pin(timeout(deadline, handshake(tcp, &layers))).await {
        Ok(Ok(stream)) => connection::serve(context, stream, peer).await,
        Ok(Err(HandshakeError::Refused(refused))) => {
            let RefusedRequest { why, path, origin } = &*refused;
            let (status, path, origin) = (why.status().as_u16(), Escaped(path), Escaped(origin));
            tracing::info!(%peer, status, %path, %origin, %why, "WebSocket request refused");
        }
        Ok(Err(error)) if error.is_mismatch() => tracing::info!(%peer, %error, "handshake failed"),
        Ok(Err(error)) => tracing::debug!(%peer, %error, "handshake failed"),
        Err(_) => tracing::debug!(%peer, "no handshake in time"),
    }
    drop(permit);
}
