//! One connection: a socket, the codec, and a role that decides what to say.
//!
//! A role sees every packet of a read at once and is then asked what is due, so that one `read` and one
//! `write` serve as many messages as fit. The read buffer belongs to the thread; a connection keeps only
//! the beginning of a packet whose rest has not come.

use std::cell::RefCell;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::clock::nanos;
use super::error::BenchError;
use super::stage::{Phase, Stage};
use super::stream::{Stream, Tls};
use crate::codec::{
    Connack, Connect, Decoder, Disconnect, MAX_PACKET_SIZE, Packet, ReasonCode, Version, encode,
};

/// Bytes that are gathered before a write.
pub const BATCH_BYTES: usize = 64 * 1024;

/// Bytes that one read takes at most.
const READ_BYTES: usize = 64 * 1024;

/// Unsent acknowledgements beyond which a connection reads nothing more.
const UNSENT_MAX: usize = 1024 * 1024;

/// Reads and writes of one connection before others get their turn.
const TURNS_MAX: usize = 16;

/// How long a DISCONNECT may take to leave.
const GOODBYE: Duration = Duration::from_secs(1);

/// A time that no run reaches.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Which broker, and how to connect to it.
#[derive(Clone)]
pub struct Target {
    /// Resolved once, before the run begins.
    pub address: SocketAddr,
    /// The protocol version in CONNECT.
    pub version: Version,
    /// `None` for plain TCP.
    pub tls: Option<Tls>,
    /// `None` leaves the User Name out of CONNECT.
    pub user_name: Option<String>,
    /// `None` leaves the Password out of CONNECT.
    pub password: Option<String>,
    /// Seconds; 0 is off.
    pub keep_alive: u16,
    /// For a handshake, and for a run in which nothing moves.
    pub timeout: Duration,
    /// Bounds how many handshakes go on at a time.
    pub handshakes: Arc<Semaphore>,
}

/// Who a client is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Unlike that of any other client of the run: equal ones would take over each other's session.
    pub client_id: String,
    /// Whether the session outlives the connection: for so many seconds in 5.0, else without end.
    pub session_expiry: Option<u32>,
    /// Whether a session that is there already is discarded.
    pub clean_start: bool,
    /// The local address to connect from.
    pub from: Option<IpAddr>,
}

/// When a role has more to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// As soon as the last batch is written.
    Now,
    /// At this time (ns).
    At(u64),
    /// After something was received, or its waker was called.
    Input,
    /// It wants a PINGREQ sent, and is told of the PINGRESP. Asked once.
    Ping,
    /// Never: the connection may end.
    Finished,
}

/// What a client does with its connection.
pub trait Role {
    /// Takes one packet; what it answers goes into `out`.
    ///
    /// # Errors
    /// When the packet does not belong there.
    fn handle(&mut self, packet: &Packet<'_>, now_ns: u64, out: &mut Vec<u8>) -> Result<(), BenchError>;

    /// All packets of one read have been handled.
    fn handled(&mut self, now_ns: u64);

    /// Appends what is due, about [`BATCH_BYTES`] at most, and says when there is more.
    ///
    /// # Errors
    /// When what is due cannot be encoded.
    fn fill(&mut self, context: &Context<'_>, now_ns: u64, out: &mut Vec<u8>) -> Result<Due, BenchError>;
}

/// A connected client.
pub struct Client {
    stream: Stream,
    decoder: Decoder,
    version: Version,
    /// Received, and not handled: the beginning of a packet.
    held: Vec<u8>,
    out: Vec<u8>,
    /// How much of `out` is written.
    written: usize,
    ping_every_ns: u64,
    next_ping_ns: u64,
    pings_open: u32,
    connack: Connack,
    opened_in_ns: u64,
}

impl Client {
    /// Connects and waits for the CONNACK.
    ///
    /// # Errors
    /// When there is no connection, no CONNACK in time, or one that refuses.
    pub async fn open(target: &Target, identity: &Identity, stage: &Stage) -> Result<Self, BenchError> {
        // The semaphore is never closed, so there is always a permit to wait for.
        let _permit = target.handshakes.acquire().await;
        let began = stage.clock.now_ns();
        let handshake = Self::handshake(target, identity);
        let late = BenchError::Timeout { what: "CONNACK", after: target.timeout };
        let mut client = timeout(target.timeout, handshake).await.map_err(|_| late)??;
        if client.connack.reason != ReasonCode::Success {
            return Err(BenchError::Refused(client.connack.reason));
        }
        let keep_alive = client.connack.properties.server_keep_alive.unwrap_or(target.keep_alive);
        let now = stage.clock.now_ns();
        client.ping_every_ns = nanos(Duration::from_secs(keep_alive.into()) / 2);
        client.next_ping_ns = now.saturating_add(client.ping_every_ns);
        client.opened_in_ns = now.saturating_sub(began);
        stage.counters.connected.fetch_add(1, Ordering::Relaxed);
        stage.counters.connected_span.note(now);
        Ok(client)
    }

    /// What the broker said when the client connected.
    pub fn connack(&self) -> &Connack {
        &self.connack
    }

    /// How long it took from the first packet of TCP to the CONNACK.
    pub fn opened_in_ns(&self) -> u64 {
        self.opened_in_ns
    }

    /// Bytes that wait to be written; what is appended goes out when the client is driven.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Lets `role` use the connection until it is finished or the run ends.
    ///
    /// # Errors
    /// When the connection or the role fails.
    pub async fn drive<R: Role>(&mut self, stage: &Stage, role: &mut R) -> Result<(), BenchError> {
        self.handle_held(stage.clock.now_ns(), role)?;
        let mut alarm = Alarm::new();
        let mut changed = pin!(stage.changed());
        poll_fn(|context| {
            while changed.as_mut().poll(context).is_ready() {
                changed.set(stage.changed());
            }
            self.poll_turns(context, stage, role, &mut alarm)
        })
        .await
    }

    /// Says goodbye. A connection that cannot be told is closed all the same.
    pub async fn close(mut self) {
        let mut bytes = self.out.split_off(self.written.min(self.out.len()));
        if encode::disconnect(self.version, &Disconnect::default(), MAX_PACKET_SIZE, &mut bytes).is_ok() {
            let write = async {
                self.stream.write_all(&bytes).await?;
                self.stream.shutdown().await
            };
            // Whether the broker still listens makes no difference to what was measured.
            let _ = timeout(GOODBYE, write).await;
        }
    }

    async fn handshake(target: &Target, identity: &Identity) -> Result<Self, BenchError> {
        let mut stream = Stream::dial(target.address, identity.from, target.tls.as_ref()).await?;
        let mut out = Vec::new();
        encode::connect(&connect_packet(target, identity), &mut out)?;
        stream.write_all(&out).await?;
        stream.flush().await?;
        let mut decoder = Decoder::client(target.version, MAX_PACKET_SIZE);
        let mut held = Vec::new();
        let (connack, len) = loop {
            if let Some((packet, len)) = decoder.decode(&held)? {
                let Packet::Connack(connack) = packet else {
                    return Err(unexpected(&packet, "before the CONNACK"));
                };
                break (*connack, len);
            }
            if stream.read_buf(&mut held).await? == 0 {
                return Err(BenchError::Closed);
            }
        };
        held.drain(..len);
        held.shrink_to_fit();
        Ok(Self {
            stream,
            decoder,
            version: target.version,
            held,
            out: Vec::new(),
            written: 0,
            ping_every_ns: 0,
            next_ping_ns: 0,
            pings_open: 0,
            connack,
            opened_in_ns: 0,
        })
    }

    fn poll_turns<R: Role>(
        &mut self,
        context: &mut Context<'_>,
        stage: &Stage,
        role: &mut R,
        alarm: &mut Alarm,
    ) -> Poll<Result<(), BenchError>> {
        for _ in 0..TURNS_MAX {
            if stage.phase() == Phase::End {
                return Poll::Ready(Ok(()));
            }
            let may_read = self.unsent() < UNSENT_MAX;
            let read = if may_read { self.poll_read(context, stage, role)? } else { Poll::Pending };
            let now = stage.clock.now_ns();
            let due = self.fill(context, now, role)?;
            let wrote = self.poll_write(context)?;
            if due == Due::Finished && wrote.is_ready() {
                return Poll::Ready(Ok(()));
            }
            let more = wrote.is_ready() && due == Due::Now;
            if read.is_ready() || more || alarm.poll(context, now, self.wake_at(due)).is_ready() {
                continue;
            }
            return Poll::Pending;
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn unsent(&self) -> usize {
        self.out.len().saturating_sub(self.written)
    }

    /// Asks the role for more once the last batch is on its way.
    fn fill<R: Role>(&mut self, context: &Context<'_>, now: u64, role: &mut R) -> Result<Due, BenchError> {
        if self.written > 0 || self.out.len() >= BATCH_BYTES {
            return Ok(Due::Now);
        }
        let due = role.fill(context, now, &mut self.out)?;
        let keep_alive = self.ping_every_ns > 0 && now >= self.next_ping_ns;
        if keep_alive || due == Due::Ping {
            self.ping(now)?;
        }
        Ok(due)
    }

    fn ping(&mut self, now: u64) -> Result<(), BenchError> {
        encode::pingreq(&mut self.out)?;
        self.pings_open += 1;
        self.next_ping_ns = now.saturating_add(self.ping_every_ns);
        Ok(())
    }

    fn wake_at(&self, due: Due) -> u64 {
        // A PINGREQ cannot overtake what is still unwritten; when that is written, this is asked again.
        let may_ping = self.ping_every_ns > 0 && self.out.is_empty();
        let ping = if may_ping { self.next_ping_ns } else { u64::MAX };
        match due {
            Due::At(at) => at.min(ping),
            _ => ping,
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Result<Poll<()>, BenchError> {
        while let Some(rest) = self.out.get(self.written..).filter(|rest| !rest.is_empty()) {
            match Pin::new(&mut self.stream).poll_write(context, rest)? {
                Poll::Ready(0) => return Err(BenchError::Closed),
                Poll::Ready(count) => self.written += count,
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(Pin::new(&mut self.stream).poll_flush(context)?)
    }

    /// Reads once and handles every whole packet. Ready means that there may be more.
    fn poll_read<R: Role>(
        &mut self,
        context: &mut Context<'_>,
        stage: &Stage,
        role: &mut R,
    ) -> Result<Poll<()>, BenchError> {
        SCRATCH.with_borrow_mut(|scratch| {
            let held = self.held.len();
            if scratch.len() < 2 * held + READ_BYTES {
                scratch.resize(2 * held + READ_BYTES, 0);
            }
            let (start, room) = scratch.split_at_mut(held);
            start.copy_from_slice(&self.held);
            let mut buffer = ReadBuf::new(room);
            if Pin::new(&mut self.stream).poll_read(context, &mut buffer)?.is_pending() {
                return Ok(Poll::Pending);
            }
            let count = buffer.filled().len();
            if count == 0 {
                return Err(BenchError::Closed);
            }
            let bytes = scratch.get(..held + count).unwrap_or_default();
            let rest = self.handle(bytes, stage.clock.now_ns(), role)?;
            self.held.clear();
            self.held.extend_from_slice(rest);
            Ok(Poll::Ready(()))
        })
    }

    /// What came together with the CONNACK.
    fn handle_held<R: Role>(&mut self, now: u64, role: &mut R) -> Result<(), BenchError> {
        let bytes = std::mem::take(&mut self.held);
        let rest = self.handle(&bytes, now, role)?;
        self.held = rest.to_vec();
        Ok(())
    }

    /// Handles every whole packet in `bytes` and gives back the rest.
    fn handle<'a, R: Role>(
        &mut self,
        mut bytes: &'a [u8],
        now: u64,
        role: &mut R,
    ) -> Result<&'a [u8], BenchError> {
        while let Some((packet, len)) = self.decoder.decode(bytes)? {
            match &packet {
                Packet::Disconnect(goodbye) => return Err(BenchError::Disconnected(goodbye.reason)),
                Packet::Pingresp => {
                    self.pings_open = self.pings_open.saturating_sub(1);
                    // A role that asked for a ping waits for its own answer, not for an earlier one.
                    if self.pings_open == 0 {
                        role.handle(&packet, now, &mut self.out)?;
                    }
                }
                packet => role.handle(packet, now, &mut self.out)?,
            }
            bytes = bytes.get(len..).unwrap_or_default();
        }
        role.handled(now);
        Ok(bytes)
    }
}

/// The error for a packet that has no business where it came.
pub fn unexpected(packet: &Packet<'_>, place: &str) -> BenchError {
    let text = format!("{packet:?}");
    let name = text.split(['(', ' ']).next().unwrap_or_default();
    BenchError::Protocol(format!("{name} {place}"))
}

fn connect_packet<'a>(target: &'a Target, identity: &'a Identity) -> Connect<'a> {
    let is_v5 = target.version == Version::V5;
    Connect {
        clean_start: identity.clean_start,
        keep_alive: target.keep_alive,
        user_name: target.user_name.as_deref(),
        password: target.password.as_deref().map(str::as_bytes),
        session_expiry: identity.session_expiry.filter(|_| is_v5),
        ..Connect::new(target.version, &identity.client_id)
    }
}

/// A timer that is moved only when the time it waits for changes.
struct Alarm {
    sleep: Pin<Box<Sleep>>,
    at_ns: u64,
}

impl Alarm {
    fn new() -> Self {
        Self { sleep: Box::pin(sleep(NEVER)), at_ns: u64::MAX }
    }

    fn poll(&mut self, context: &mut Context<'_>, now_ns: u64, at_ns: u64) -> Poll<()> {
        if at_ns != self.at_ns {
            let wait = Duration::from_nanos(at_ns.saturating_sub(now_ns)).min(NEVER);
            self.sleep.as_mut().reset(Instant::now() + wait);
            self.at_ns = at_ns;
        }
        ready!(self.sleep.as_mut().poll(context));
        self.at_ns = 0;
        Poll::Ready(())
    }
}
