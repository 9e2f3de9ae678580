//! From the first byte to CONNACK.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Poll, ready};

use tokio::time::{Instant, timeout, timeout_at};

use super::backlog::BacklogReader;
use super::{Connection, ConnectionContext, log_broken_rule, scratch};
use crate::auth::{Escaped, Identity, Rights};
use crate::broker::{AttachRequest, Attachment, Departure, Link, MemoryShare, PublishContext};
use crate::codec::{
    Connack, ConnackProperties, Connect, Decoder, MAX_PACKET_SIZE, Packet, ReasonCode, Will, encode,
};
use crate::record::{Lsn, Message, MessageParts, UnixMillis, WillRecord};
use crate::session::{Authentication, Close, Session, Terms, assigned_client_id};
use crate::telemetry::ByQos;
use crate::topic::TopicName;
use crate::transport::{Farewell, Stream};

/// Bytes that are read at once before the client has said who it is.
const FIRST_READ: usize = 4096;

/// A connection before its CONNACK.
pub(super) struct Opening {
    stream: Stream,
    peer: SocketAddr,
    pub decoder: Decoder,
    /// What has arrived and was not looked at.
    pub partial: Vec<u8>,
    /// What it has of the common budget.
    partial_share: MemoryShare,
    /// When there has to be a decision.
    until: Instant,
    /// The largest packet the client takes.
    pub size_max: u32,
}

/// Why no connection comes of it.
pub(super) enum Refusal {
    /// The client has left.
    Gone,
    /// Its time is over.
    Late,
    /// It may not come in.
    Because(Close),
}

impl From<Close> for Refusal {
    fn from(close: Close) -> Self {
        Self::Because(close)
    }
}

/// Reads CONNECT, decides, and answers. `None` when the connection is over.
pub(super) async fn establish(
    context: Arc<ConnectionContext>,
    stream: Stream,
    peer: SocketAddr,
) -> Option<Box<Connection>> {
    let decoder = Decoder::server(context.broker.limits().session.packet_size);
    let until = Instant::now() + context.connect_timeout;
    let partial_share = MemoryShare::of(&context.broker.memory);
    let mut opening = Opening {
        stream,
        peer,
        decoder,
        partial: Vec::new(),
        partial_share,
        until,
        size_max: MAX_PACKET_SIZE,
    };
    match opening.decide(&context).await {
        Ok(accepted) => accepted.into_connection(context, opening).await,
        Err(Refusal::Gone) => {
            opening.stream.leave(Farewell::Done).await;
            None
        }
        Err(Refusal::Late) => {
            tracing::debug!(%peer, "CONNECT, or the authentication, took too long");
            opening.stream.leave(Farewell::Refused).await;
            None
        }
        Err(Refusal::Because(close)) => {
            opening.refuse(&context, close.reason).await;
            None
        }
    }
}

/// A client that may come in, with its session.
struct Accepted {
    terms: Terms,
    identity: Identity,
    authentication: Authentication,
    /// What the client is to check, where it has named an authentication method.
    proof: Vec<u8>,
    rights: Rights,
    attachment: Attachment,
    link: Arc<Link>,
}

impl Opening {
    /// Reads CONNECT and whatever else it takes to decide.
    async fn decide(&mut self, context: &ConnectionContext) -> Result<Accepted, Refusal> {
        let connect = match self.receive_connect().await {
            Ok(connect) => connect,
            Err(refusal) => {
                self.log_refusal(None, &refusal);
                return Err(refusal);
            }
        };
        // Decoded again: the packet borrows from its bytes, which have grown until now.
        let mut decoder = Decoder::server(context.broker.limits().session.packet_size);
        let Ok(Some((Packet::Connect(connect), _))) = decoder.decode(&connect) else {
            return Err(Refusal::Gone);
        };
        self.size_max = connect.maximum_packet_size.unwrap_or(MAX_PACKET_SIZE);
        let accepted = self.accept(context, &connect).await;
        if let Err(refusal) = &accepted {
            self.log_refusal(Some(&connect), refusal);
        }
        accepted
    }

    /// The bytes of CONNECT.
    async fn receive_connect(&mut self) -> Result<Vec<u8>, Refusal> {
        loop {
            self.read_more().await?;
            let decoded = self.decoder.decode(&self.partial).map_err(|error| {
                let Close { reason, detail } = Close::from(error);
                Close::because(reason, another_protocol(&self.partial).unwrap_or(detail))
            });
            if let Some((_, len)) = decoded? {
                let rest = self.partial.split_off(len);
                return Ok(std::mem::replace(&mut self.partial, rest));
            }
        }
    }

    /// Waits until something more has arrived.
    pub async fn read_more(&mut self) -> Result<(), Refusal> {
        let (stream, partial) = (&mut self.stream, &mut self.partial);
        let read = std::future::poll_fn(|cx| {
            scratch::with(|scratch| {
                let chunk = scratch.read.get_mut(..FIRST_READ).unwrap_or_default();
                let read = ready!(stream.poll_read(cx, chunk))?;
                partial.extend_from_slice(chunk.get(..read).unwrap_or_default());
                Poll::Ready(std::io::Result::Ok(read))
            })
        });
        match timeout_at(self.until, read).await {
            Ok(Ok(1..)) if self.partial_share.grow(self.partial.len()) => Ok(()),
            Ok(Ok(1..)) => {
                let detail = "the broker has no memory for a large CONNECT";
                Err(Close::because(ReasonCode::QuotaExceeded, detail).into())
            }
            Ok(Ok(0)) => Err(Refusal::Gone),
            Ok(Err(error)) => {
                log_broken_rule(self.peer, &error);
                Err(Refusal::Gone)
            }
            Err(_) => Err(Refusal::Late),
        }
    }

    /// Sends a packet, while there is time.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        match timeout_at(self.until, write_all(&mut self.stream, bytes)).await {
            Ok(sent) => sent.map_err(|_| Refusal::Gone),
            Err(_) => Err(Refusal::Late),
        }
    }

    async fn accept(
        &mut self,
        context: &ConnectionContext,
        connect: &Connect<'_>,
    ) -> Result<Accepted, Refusal> {
        let broker = &context.broker;
        let because = |detail| move |reason| Close::because(reason, detail);
        if let Some(reason) = broker.redirect_reason() {
            return Err(because("clients are sent to another server")(reason).into());
        }
        if broker.memory.is_exhausted() {
            return Err(because("limits.memory is used up")(ReasonCode::ServerBusy).into());
        }
        let terms = Terms::agree(connect, &broker.limits().session, || assigned_client_id(rand::random()));
        let terms = terms.map_err(because("what CONNECT asks for cannot be agreed on"))?;
        let mut authentication = Authentication::of(connect);
        let (identity, proof) = match authentication.method() {
            Some(_) => self.authenticate(broker, connect, &mut authentication).await?,
            None => {
                let identity = authenticate(context, connect).await;
                (identity.map_err(because("user name and password do not let it in"))?, Vec::new())
            }
        };
        let rights = broker.auth.rights(&identity, &terms.client_id);
        let rights = rights.map_err(because("the users have changed meanwhile"))?;
        let will = connect.will.as_ref().map(|will| will_record(will, &terms, &rights));
        let will = will.transpose().map_err(because("the client may not publish its will"))?.flatten();
        let link = Arc::new(Link::default());
        // Only now: a client that is not let in disturbs nobody's session.
        let request = AttachRequest {
            terms: &terms,
            user_name: identity.verified_user().map(Into::into),
            will,
            link: Arc::clone(&link),
        };
        let attachment = broker.attach(request).await.map_err(because("there is no session for it"))?;
        broker.metrics.connects_accepted.increment(1);
        let (client_id, resumed) = (Escaped(&terms.client_id), attachment.session_present());
        tracing::debug!(%client_id, peer = %self.peer, version = ?terms.version, resumed, "client connected");
        Ok(Accepted { terms, identity, authentication, proof, rights, attachment, link })
    }

    /// Says no, in the client's version if that is known, and closes.
    async fn refuse(&mut self, context: &ConnectionContext, reason: ReasonCode) {
        context.broker.metrics.connects_refused.increment(1);
        // Overtaken before it was let in: no CONNACK has a reason code for that [MQTT-3.2.2-8].
        let version = self.decoder.version().filter(|_| reason != ReasonCode::SessionTakenOver);
        let Some(version) = version else { return self.stream.leave(Farewell::Refused).await };
        let server_reference = context.broker.server_reference(reason);
        let properties = ConnackProperties { server_reference, ..ConnackProperties::default() };
        let connack = Connack { session_present: false, reason, properties };
        let mut bytes = Vec::new();
        if encode::connack(version, &connack, self.size_max, &mut bytes).is_ok() {
            // A client that does not take it in time goes without: the connection ends either way.
            let _ = timeout(context.write_timeout, write_all(&mut self.stream, &bytes)).await;
            self.stream.close(Farewell::Refused).await;
        }
    }

    fn log_refusal(&self, connect: Option<&Connect<'_>>, refusal: &Refusal) {
        let Refusal::Because(Close { reason, detail }) = refusal else { return };
        let client_id = Escaped(connect.map_or("", |connect| connect.client_id));
        let user =
            connect.and_then(|connect| connect.user_name).map(|user| tracing::field::display(Escaped(user)));
        tracing::info!(%client_id, user, peer = %self.peer, ?reason, detail, "CONNECT refused");
    }
}

/// What a client speaks that begins in another way than any CONNECT: it has come to the wrong port.
fn another_protocol(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x16, 0x03, ..] => Some("the client speaks TLS, and this listener does not"),
        [b'G', b'E', b'T', b' ', ..] => {
            Some("the client speaks HTTP, and this listener is not for WebSocket")
        }
        _ => None,
    }
}

/// Checking a password takes some 20 ms of a core: it runs beside the workers, a few at once.
async fn authenticate(context: &ConnectionContext, connect: &Connect<'_>) -> Result<Identity, ReasonCode> {
    let auth = &context.broker.auth;
    if !auth.checks_password(connect.user_name) {
        return auth.authenticate(context.listener, connect.user_name, connect.password);
    }
    let permit = context.password_checks.acquire().await;
    let (auth, listener) = (Arc::clone(auth), context.listener);
    let (user, password) = (connect.user_name.map(str::to_owned), connect.password.map(<[u8]>::to_vec));
    let check = move || auth.authenticate(listener, user.as_deref(), password.as_deref());
    let checked = tokio::task::spawn_blocking(check).await;
    drop(permit);
    checked.unwrap_or(Err(ReasonCode::UnspecifiedError))
}

/// A will is judged like a PUBLISH, and its rights at once, not only when it goes out. As with a PUBLISH one to
/// where clients do not publish is taken, and nobody gets it.
fn will_record(will: &Will<'_>, terms: &Terms, rights: &Rights) -> Result<Option<WillRecord>, ReasonCode> {
    let topic = TopicName::parse(will.topic, terms.topic_levels).map_err(|_| ReasonCode::TopicNameInvalid)?;
    if topic.is_system() {
        return Ok(None);
    }
    if !rights.may_publish(&topic) {
        return Err(ReasonCode::NotAuthorized);
    }
    let mut properties = Vec::with_capacity(will.properties.forwarded_len);
    will.properties.forwarded(|bytes| properties.extend_from_slice(bytes));
    let parts = MessageParts {
        qos: will.qos,
        retain: will.retain,
        published_at: UnixMillis::default(),
        expires_at: UnixMillis::NEVER,
        topic: will.topic,
        properties: &properties,
        payload: will.payload,
        publisher: &terms.client_id,
    };
    let message = Message::new(&parts, &mut Vec::new());
    Ok(Some(WillRecord { message, delay: will.delay, message_expiry: will.properties.message_expiry }))
}

async fn write_all(stream: &mut Stream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let slices = [std::io::IoSlice::new(bytes)];
        let written = std::future::poll_fn(|cx| stream.poll_write_vectored(cx, &slices)).await?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    std::future::poll_fn(|cx| stream.poll_flush(cx)).await
}

impl Accepted {
    /// Sends the CONNACK that accepts; everything else follows it [MQTT-3.2.0-1]. False when the client did
    /// not take it in time, or takes no packet of its size, and is told so if it takes at least that.
    async fn send_connack(&mut self, context: &ConnectionContext, opening: &mut Opening) -> bool {
        let mut connack = self.terms.connack(self.attachment.session_present());
        self.authentication.accept(std::mem::take(&mut self.proof), &mut connack);
        let (version, size_max) = (self.terms.version, self.terms.max_packet_size);
        let mut bytes = Vec::new();
        if encode::connack(version, &connack, size_max, &mut bytes).is_err() {
            opening.refuse(context, ReasonCode::PacketTooLarge).await;
            return false;
        }
        let sent = timeout(context.write_timeout, write_all(&mut opening.stream, &bytes)).await;
        matches!(sent, Ok(Ok(())))
    }

    /// Answers CONNECT, and begins the connection; without one the session is given back.
    async fn into_connection(
        mut self,
        context: Arc<ConnectionContext>,
        mut opening: Opening,
    ) -> Option<Box<Connection>> {
        let is_answered = self.send_connack(&context, &mut opening).await;
        let Opening { stream, peer, decoder, partial, mut partial_share, .. } = opening;
        partial_share.shrink(partial.len());
        let Self { terms, identity, authentication, rights, attachment, link, .. } = self;
        let broker = &context.broker;
        if !is_answered {
            let departure = Departure { torn: attachment.torn, ..Departure::default() };
            broker.detach(&attachment.slot, &link, departure);
            return None;
        }
        let now = broker.clock.now();
        let progress = attachment.progress.as_ref();
        let session = Session::new(&terms, attachment.durable, progress, attachment.torn, now);
        Some(Box::new(Connection {
            stream,
            peer,
            decoder,
            slot: attachment.slot,
            link,
            session,
            identity,
            authentication,
            exchange: None,
            rights,
            publishing: PublishContext::default(),
            came_with_connect: !partial.is_empty(),
            partial,
            partial_since: None,
            unsent: None,
            unsent_replies: 0,
            blocked_since: None,
            needs_flush: false,
            partial_share,
            gives_way: None,
            leaves_at: None,
            frames: Default::default(),
            scans: Default::default(),
            backlog: BacklogReader::default(),
            settling: Vec::new(),
            letters: Vec::new(),
            last_report: Lsn::ZERO,
            watermark: Lsn::ZERO,
            rings_at: Lsn::ZERO,
            reading_paused: false,
            timer: None,
            // CONNECT and CONNACK.
            inbound: ByQos { packets: 1, ..ByQos::default() },
            outbound: ByQos { packets: 1, ..ByQos::default() },
            departure: Default::default(),
            has_left: false,
            context,
        }))
    }
}
