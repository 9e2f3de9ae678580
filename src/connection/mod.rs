//! One task for each client: bytes in, session, bytes out.
//!
//! It decides no protocol question: packets go to the session, messages to the broker, and what both answer
//! is carried out. An idle connection owns no buffers; bytes pass through those of the worker thread.
//!
//! Invariant: nothing the client sent is processed after the session said to close, or after another
//! connection took the session over.

mod authentication;
mod backlog;
mod delivery;
mod drive;
mod handshake;
mod input;
mod output;
mod scratch;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Sleep;

use crate::auth::{Escaped, Exchange, Identity, Rights};
use crate::broker::{Broker, Departure, Group, Link, MemoryShare, PublishContext, RetainedScan, Slot};
use crate::codec::{Decoder, ReasonCode};
use crate::record::{Change, Lsn, UnixMillis};
use crate::session::{Authentication, Close, Delivery, Outgoing, Session};
use crate::telemetry::ByQos;
use crate::transport::{Farewell, Stream};
use backlog::BacklogReader;

/// What all connections of a listener share.
pub struct ConnectionContext {
    /// The switchboard.
    pub broker: Arc<Broker>,
    /// The address that the listener is bound to: it decides who may come in without a name.
    pub listener: SocketAddr,
    /// How long a client may take for the handshakes of TLS and WebSocket, and from there until its CONNECT is
    /// complete and, where it names an authentication method, the exchange has ended.
    pub connect_timeout: Duration,
    /// How long a packet may take from its first byte to its last.
    pub packet_timeout: Duration,
    /// How long a write may make no progress.
    pub write_timeout: Duration,
    /// Password checks that may run at once, each on a thread of its own for some 20 ms.
    pub password_checks: Arc<Semaphore>,
}

/// A client that is connected.
pub(crate) struct Connection {
    context: Arc<ConnectionContext>,
    stream: Stream,
    peer: SocketAddr,
    decoder: Decoder,
    slot: Arc<Slot>,
    link: Arc<Link>,
    session: Session,
    identity: Identity,
    authentication: Authentication,
    /// A re-authentication under way.
    exchange: Option<Exchange>,
    rights: Rights,
    publishing: PublishContext,
    /// The beginning of a packet that is not complete.
    partial: Vec<u8>,
    /// When it came.
    partial_since: Option<UnixMillis>,
    /// What it has of the common budget.
    partial_share: MemoryShare,
    /// Nothing is read until this outbox was emptied, or this time has come.
    gives_way: Option<(Arc<Slot>, UnixMillis)>,
    /// What came together with CONNECT was not looked at yet.
    came_with_connect: bool,
    /// What the socket did not take yet.
    unsent: Option<Box<Outgoing>>,
    /// Bytes at the end of that which are replies to what was read since.
    unsent_replies: usize,
    /// Since when the socket has taken nothing.
    blocked_since: Option<UnixMillis>,
    needs_flush: bool,
    /// When it obeys an eviction.
    leaves_at: Option<UnixMillis>,
    /// Messages taken from the outbox, or read from the store.
    frames: VecDeque<Delivery>,
    /// Retained messages to hand over, each once its SUBACK may have left.
    scans: VecDeque<(Lsn, RetainedScan)>,
    backlog: BacklogReader,
    /// Messages of shared groups that the next report settles.
    settling: Vec<(Arc<Group>, Lsn)>,
    /// Dead letters that go to disk with the report that settles their messages.
    letters: Vec<Change>,
    /// The number of the session's last report.
    last_report: Lsn,
    /// How far the disk was when this round began. A round goes by one watermark: nothing becomes durable
    /// unnoticed between a look at it and the sleep.
    watermark: Lsn,
    /// The number the bell will be rung at.
    rings_at: Lsn,
    /// This round did not look at the socket.
    reading_paused: bool,
    timer: Option<Pin<Box<Sleep>>>,
    inbound: ByQos,
    outbound: ByQos,
    departure: Departure,
    /// The session was given back.
    has_left: bool,
}

/// A task that panicked or was cut off gives its session back all the same: its will and its expiry begin.
impl Drop for Connection {
    fn drop(&mut self) {
        if !self.has_left {
            self.give_back(Departure { torn: true, ..Departure::default() });
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The client said DISCONNECT.
    Goodbye,
    /// The network connection ended without one.
    Lost,
    /// The client is told to go.
    Closed(Close),
}

impl End {
    fn farewell(self) -> Farewell {
        match self {
            Self::Goodbye | Self::Lost => Farewell::Done,
            Self::Closed(Close { reason: ReasonCode::ServerShuttingDown, .. }) => Farewell::GoingAway,
            Self::Closed(_) => Farewell::Refused,
        }
    }
}

impl From<Close> for End {
    fn from(close: Close) -> Self {
        Self::Closed(close)
    }
}

/// Serves one client from its first byte to its last.
pub async fn serve(context: Arc<ConnectionContext>, stream: Stream, peer: SocketAddr) {
    context.broker.metrics.accepted.increment(1);
    // Boxed, like the end: an idle connection carries the memory of neither.
    let Some(mut connection) = Box::pin(handshake::establish(context, stream, peer)).await else { return };
    let end = std::future::poll_fn(|cx| connection.poll(cx)).await;
    Box::pin(connection.finish(end)).await;
}

impl Connection {
    /// Says goodbye if there is somebody to hear it, and gives the session back.
    async fn finish(mut self: Box<Self>, end: End) {
        self.log_end(end);
        self.report_at_end();
        let closed_by_us = matches!(end, End::Closed(_));
        self.departure.without_will &= matches!(end, End::Goodbye);
        self.give_back(self.departure);
        self.count();
        if let End::Closed(close) = end {
            self.say_goodbye(close).await;
        }
        if closed_by_us {
            self.stream.close(end.farewell()).await;
        } else {
            self.stream.leave(end.farewell()).await;
        }
    }

    /// Gives the session back, and what was in hand of its groups, and pays the bells that are owed. The seat
    /// goes last: what the next connection has in hand must not be taken for what was left here.
    fn give_back(&mut self, departure: Departure) {
        self.has_left = true;
        let (broker, groups) = (&self.context.broker, self.slot.groups());
        self.slot.quiet(&self.link);
        broker.release_shared(&self.slot, &self.link, &groups, &self.session, &mut self.publishing);
        broker.detach(&self.slot, &self.link, departure);
        broker.settle_ended(&self.slot, &groups);
        self.publishing.wake();
    }

    fn log_end(&self, end: End) {
        let client_id = Escaped(self.session.client_id());
        match end {
            End::Goodbye => tracing::debug!(%client_id, peer = %self.peer, "client disconnected"),
            End::Lost => tracing::debug!(%client_id, peer = %self.peer, "connection lost"),
            End::Closed(Close { reason: ReasonCode::SessionTakenOver, .. }) => {
                tracing::debug!(%client_id, peer = %self.peer, "session taken over");
            }
            End::Closed(Close { reason, detail }) => {
                tracing::info!(%client_id, peer = %self.peer, reason = ?reason, detail, "connection closed");
            }
        }
    }

    /// Tells the counters what this connection has seen since the last time.
    fn count(&mut self) {
        let metrics = &self.context.broker.metrics;
        metrics.inbound.add(&mut self.inbound);
        metrics.outbound.add(&mut self.outbound);
    }
}

/// That a connection has ended is nothing to tell; that its client breaks a rule is for somebody to mend.
fn log_broken_rule(peer: SocketAddr, error: &io::Error) {
    if error.kind() == io::ErrorKind::InvalidData {
        tracing::info!(%peer, %error, "a rule of TLS or WebSocket was broken");
    }
}
