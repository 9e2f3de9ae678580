//! From the first byte to CONNACK.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Poll, ready};

use super::backlog::BacklogReader;
use super::{Connection, ConnectionContext, scratch};
use crate::auth::{Escaped, Identity, Rights};
use crate::broker::{AttachRequest, Attachment, Departure, Link, MemoryShare, PublishContext};
use crate::codec::{
    Connack, ConnackProperties, Connect, DecodeError, Decoder, MAX_PACKET_SIZE, Packet, ReasonCode, Version,
    Will, encode,
};
use crate::record::{Lsn, Message, MessageParts, UnixMillis, WillRecord};
use crate::session::{Session, Terms, assigned_client_id};
use crate::telemetry::ByQos;
use crate::topic::TopicName;
use crate::transport::Stream;

/// Bytes that are read at once before the client has said who it is.
const FIRST_READ: usize = 4096;

/// Reads CONNECT, decides, and answers. `None` when the connection is over.
pub(super) async fn establish(
    context: Arc<ConnectionContext>,
    mut stream: Stream,
    peer: SocketAddr,
) -> Option<Box<Connection>> {
    let mut decoder = Decoder::server(context.broker.limits().session.packet_size);
    let mut buffer = Vec::new();
    let received = receive_connect(&mut stream, &mut decoder, &mut buffer);
    match tokio::time::timeout(context.connect_timeout, received).await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => return None,
        Ok(Err(error)) => {
            tracing::info!(%peer, reason = ?error.reason, detail = error.detail, "CONNECT refused");
            refuse(&mut stream, &context, decoder.version(), error.reason).await;
            return None;
        }
        Err(_) => {
            tracing::debug!(%peer, "no CONNECT in time");
            return None;
        }
    }
    // Decoded again from the start: the packet borrows from the buffer, which has grown until now.
    let mut decoder = Decoder::server(context.broker.limits().session.packet_size);
    let Ok(Some((Packet::Connect(connect), consumed))) = decoder.decode(&buffer) else { return None };
    let version = connect.version;
    let accepted = accept(&context, &connect, peer).await;
    buffer.drain(..consumed);
    match accepted {
        Ok(accepted) => accepted.into_connection(context, stream, peer, decoder, buffer).await,
        Err(reason) => {
            refuse(&mut stream, &context, Some(version), reason).await;
            None
        }
    }
}

/// A client that may come in, with its session.
struct Accepted {
    terms: Terms,
    identity: Identity,
    rights: Rights,
    attachment: Attachment,
    link: Arc<Link>,
}

/// Reads until CONNECT is complete; false when the connection ended before.
async fn receive_connect(
    stream: &mut Stream,
    decoder: &mut Decoder,
    buffer: &mut Vec<u8>,
) -> Result<bool, DecodeError> {
    loop {
        let read = std::future::poll_fn(|cx| {
            scratch::with(|scratch| {
                let chunk = scratch.read.get_mut(..FIRST_READ).unwrap_or_default();
                let read = ready!(stream.poll_read(cx, chunk))?;
                buffer.extend_from_slice(chunk.get(..read).unwrap_or_default());
                Poll::Ready(std::io::Result::Ok(read))
            })
        });
        let Ok(1..) = read.await else { return Ok(false) };
        if decoder.decode(buffer)?.is_some() {
            return Ok(true);
        }
    }
}

async fn accept(
    context: &ConnectionContext,
    connect: &Connect<'_>,
    peer: SocketAddr,
) -> Result<Accepted, ReasonCode> {
    let client_id = Escaped(connect.client_id);
    let broker = &context.broker;
    let refused = |reason| {
        tracing::info!(%client_id, %peer, ?reason, "CONNECT refused");
        reason
    };
    if broker.memory.is_exhausted() {
        return Err(refused(ReasonCode::ServerBusy));
    }
    let terms = Terms::agree(connect, &broker.limits().session, || assigned_client_id(rand::random()));
    let terms = terms.map_err(refused)?;
    let identity = authenticate(context, connect).await.map_err(refused)?;
    let rights = broker.auth.rights(&identity, &terms.client_id).map_err(refused)?;
    let will = connect.will.as_ref().map(|will| will_record(will, &terms, &rights));
    let will = will.transpose().map_err(refused)?;
    let link = Arc::new(Link::default());
    // Only now: a client that is not let in disturbs nobody's session.
    let request = AttachRequest {
        terms: &terms,
        user_name: identity.verified_user().map(Into::into),
        will,
        link: Arc::clone(&link),
    };
    let attachment = broker.attach(request).await.map_err(refused)?;
    let resumed = attachment.session_present();
    broker.metrics.connects_accepted.increment(1);
    tracing::debug!(%client_id, %peer, version = ?terms.version, resumed, "client connected");
    Ok(Accepted { terms, identity, rights, attachment, link })
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

/// A will is judged like a PUBLISH, and its rights at once, not only when it goes out.
fn will_record(will: &Will<'_>, terms: &Terms, rights: &Rights) -> Result<WillRecord, ReasonCode> {
    let topic = TopicName::parse(will.topic, terms.topic_levels).map_err(|_| ReasonCode::TopicNameInvalid)?;
    if topic.is_system() || !rights.may_publish(&topic) {
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
    Ok(WillRecord { message, delay: will.delay, message_expiry: will.properties.message_expiry })
}

/// Sends the CONNACK that refuses, where the version has one for the reason.
async fn refuse(
    stream: &mut Stream,
    context: &ConnectionContext,
    version: Option<Version>,
    reason: ReasonCode,
) {
    context.broker.metrics.connects_refused.increment(1);
    // Overtaken before it was let in: no CONNACK has a reason code for that [MQTT-3.2.2-8].
    let Some(version) = version.filter(|_| reason != ReasonCode::SessionTakenOver) else { return };
    let connack = Connack { session_present: false, reason, properties: ConnackProperties::default() };
    let mut bytes = Vec::new();
    if encode::connack(version, &connack, MAX_PACKET_SIZE, &mut bytes).is_ok() {
        // A client that does not take it in time goes without: the connection ends either way.
        let _ = tokio::time::timeout(context.write_timeout, write_all(stream, &bytes)).await;
        stream.close().await;
    }
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
    /// not take it in time, or takes no packet of its size.
    async fn send_connack(&self, context: &ConnectionContext, stream: &mut Stream) -> bool {
        let connack = self.terms.connack(self.attachment.session_present());
        let (version, size_max) = (self.terms.version, self.terms.max_packet_size);
        let mut bytes = Vec::new();
        if encode::connack(version, &connack, size_max, &mut bytes).is_err() {
            return false;
        }
        let sent = tokio::time::timeout(context.write_timeout, write_all(stream, &bytes)).await;
        matches!(sent, Ok(Ok(())))
    }

    /// Answers CONNECT, and begins the connection; without one the session is given back.
    async fn into_connection(
        self,
        context: Arc<ConnectionContext>,
        mut stream: Stream,
        peer: SocketAddr,
        decoder: Decoder,
        partial: Vec<u8>,
    ) -> Option<Box<Connection>> {
        let is_answered = self.send_connack(&context, &mut stream).await;
        let Self { terms, identity, rights, attachment, link } = self;
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
            rights,
            publishing: PublishContext::default(),
            came_with_connect: !partial.is_empty(),
            partial,
            unsent: None,
            blocked_since: None,
            needs_flush: false,
            partial_share: MemoryShare::of(&context.broker.memory),
            gives_way: None,
            leaves_at: None,
            frames: Default::default(),
            scans: Default::default(),
            backlog: BacklogReader::default(),
            settling: Vec::new(),
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
