//! Bytes in: whole packets to the session, the rest kept until it is whole.

use std::collections::HashSet;
use std::task::{Context, Poll};
use std::time::Duration;

use foldhash::fast::RandomState;

use super::drive::store_failed;
use super::scratch::{READ_MAX, Scratch};
use super::{Connection, End, log_broken_rule};
use crate::broker::{RetainedScan, Source};
use crate::codec::{Disconnect, Packet, Publish, ReasonCode, Suback, Subscribe, Unsubscribe, Version};
use crate::record::{Lsn, UnixMillis};
use crate::session::{Close, Incoming, ReplyPacket};
use crate::topic::TopicName;

/// Replies that may wait for a socket that takes nothing before reading stops, in bytes. Below this a client
/// that writes before it reads does not lock up with us. Messages that wait there do not count: it may have
/// acknowledged none of them yet for the same reason.
const UNSENT_REPLIES_MAX: usize = 64 * 1024;

/// A packet that is so many bytes short is long, and each piece of it shows that the client is alive.
const LONG_REST: usize = 1000;

/// How long a publisher waits for a crowded outbox.
const GIVES_WAY_MAX: Duration = Duration::from_millis(50);

impl Connection {
    /// Reads once and handles every whole packet. True when something was read.
    pub(super) fn read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut Scratch,
        now: UnixMillis,
    ) -> Result<bool, End> {
        self.reading_paused = !self.may_read();
        if self.reading_paused {
            // Who is not read from cannot be silent, or slow.
            self.session.heard(now);
            self.partial_since = self.partial_since.map(|_| now);
            return Ok(false);
        }
        if std::mem::take(&mut self.came_with_connect) {
            self.read_in_partial(now)?;
            return Ok(true);
        }
        // What is kept goes in front of what is read, unless it is large.
        let kept = if self.partial.len() < READ_MAX / 2 { self.partial.len() } else { 0 };
        let Some(room) = scratch.read.get_mut(kept..) else { return Ok(false) };
        let read = match self.stream.poll_read(cx, room) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(0)) => return Err(End::Lost),
            Poll::Ready(Err(error)) => {
                log_broken_rule(self.peer, &error);
                return Err(End::Lost);
            }
            Poll::Ready(Ok(read)) => read,
        };
        self.inbound.bytes += read as u64;
        if kept == self.partial.len() {
            self.read_in_scratch(scratch, kept + read, now)?;
        } else {
            self.partial.extend_from_slice(scratch.read.get(..read).unwrap_or_default());
            self.read_in_partial(now)?;
        }
        Ok(true)
    }

    /// A client whose session ends with its connection loses it when its outbox is full. Whoever fills that
    /// outbox, and has nothing to wait for itself, reads on only when it was emptied, or a moment later: a
    /// client that is merely slower than the others is not lost, and one that is stuck holds up nobody.
    pub(super) fn give_way(&mut self, now: UnixMillis) {
        let bytes_max = self.context.broker.limits().outbox_bytes;
        if self.gives_way.as_ref().is_some_and(|(slot, until)| *until <= now || !slot.is_crowded(bytes_max)) {
            self.gives_way = None;
        }
        let Some(slot) = self.publishing.take_crowded() else { return };
        let waits_itself = self.session.in_flight().next().is_some() || !self.frames.is_empty();
        if !waits_itself && slot.wait_for_room(&self.link, bytes_max) {
            self.gives_way = Some((slot, now.plus(GIVES_WAY_MAX)));
        }
    }

    /// Whether the client is read from now. What is not read stays with the kernel, which slows the client.
    pub(super) fn may_read(&self) -> bool {
        self.unsent_replies < UNSENT_REPLIES_MAX
            && self.gives_way.is_none()
            && !self.session.is_behind()
            && !self.is_store_congested()
    }

    /// The usual case: packets are whole in the thread's buffer, and what is left of the last is kept.
    fn read_in_scratch(&mut self, scratch: &mut Scratch, len: usize, now: UnixMillis) -> Result<(), End> {
        let kept = std::mem::take(&mut self.partial);
        if let Some(front) = scratch.read.get_mut(..kept.len()) {
            front.copy_from_slice(&kept);
        }
        let bytes = scratch.read.get(..len).unwrap_or_default();
        let consumed = self.handle_packets(bytes, now)?;
        let rest = bytes.get(consumed..).unwrap_or_default();
        if !rest.is_empty() {
            self.partial = rest.to_vec();
        }
        self.await_rest(consumed > 0, now)
    }

    /// A packet larger than the thread's buffer: it gathers in a buffer that grows with what has arrived,
    /// never with what was announced.
    fn read_in_partial(&mut self, now: UnixMillis) -> Result<(), End> {
        if !self.partial_share.grow(self.partial.len()) {
            return Err(Close::because(
                ReasonCode::QuotaExceeded,
                "the broker has no memory for large packets",
            )
            .into());
        }
        let whole = self.decoder.frame_len(&self.partial).map_err(Close::from)?;
        if whole.is_none_or(|whole| self.partial.len() < whole) {
            return self.await_rest(false, now);
        }
        let bytes = std::mem::take(&mut self.partial);
        self.partial_share.shrink(0);
        let consumed = self.handle_packets(&bytes, now)?;
        self.partial = bytes.get(consumed..).unwrap_or_default().to_vec();
        self.await_rest(consumed > 0, now)
    }

    /// Notes since when the rest of a packet is awaited. A packet shows that the client is alive, not each of
    /// its bytes [MQTT-3.1.2-22]; but one that is long may take longer than the keep-alive.
    fn await_rest(&mut self, is_new: bool, now: UnixMillis) -> Result<(), End> {
        if self.partial.is_empty() {
            self.partial_since = None;
            return Ok(());
        }
        self.partial_since = self.partial_since.filter(|_| !is_new).or(Some(now));
        let whole = self.decoder.frame_len(&self.partial).map_err(Close::from)?;
        if whole.is_some_and(|whole| whole - self.partial.len() > LONG_REST) {
            self.session.heard(now);
        }
        Ok(())
    }

    /// When the packet that is awaited has to be complete.
    pub(super) fn packet_due(&self) -> Option<UnixMillis> {
        self.partial_since.map(|since| since.plus(self.context.packet_timeout))
    }

    /// Handles every whole packet; gives the bytes they had. Whoever is told to leave leaves after them, but for
    /// one that was too slow to: its session is another connection's by now.
    fn handle_packets(&mut self, bytes: &[u8], now: UnixMillis) -> Result<usize, End> {
        let mut consumed = 0;
        while let Some((packet, len)) =
            self.decoder.decode(bytes.get(consumed..).unwrap_or_default()).map_err(Close::from)?
        {
            if consumed == 0 {
                self.session.heard(now);
            }
            self.check_seat()?;
            self.inbound.packets += 1;
            self.handle_packet(packet, now)?;
            consumed += len;
        }
        Ok(consumed)
    }

    fn handle_packet(&mut self, packet: Packet<'_>, now: UnixMillis) -> Result<(), End> {
        match packet {
            Packet::Publish(publish) => self.handle_publish(&publish, now)?,
            Packet::Puback(ack) => self.session.handle_puback(ack)?,
            Packet::Pubrec(ack) => self.session.handle_pubrec(ack)?,
            Packet::Pubrel(ack) => self.session.handle_pubrel(ack),
            Packet::Pubcomp(ack) => self.session.handle_pubcomp(ack)?,
            Packet::Subscribe(subscribe) => self.handle_subscribe(&subscribe)?,
            Packet::Unsubscribe(unsubscribe) => self.handle_unsubscribe(&unsubscribe)?,
            Packet::Pingreq => self.session.handle_pingreq(),
            Packet::Disconnect(disconnect) => return Err(self.handle_disconnect(&disconnect)),
            Packet::Auth(auth) => self.handle_auth(auth)?,
            Packet::Connect(_)
            | Packet::Connack(_)
            | Packet::Suback(_)
            | Packet::Unsuback(_)
            | Packet::Pingresp => {
                return Err(Close::protocol_error("a packet that clients do not send here").into());
            }
        }
        Ok(())
    }

    fn handle_publish(&mut self, publish: &Publish<'_>, now: UnixMillis) -> Result<(), Close> {
        self.inbound.message(publish.qos, publish.payload.len());
        let Incoming::Route(topic) = self.session.handle_publish(publish)? else { return Ok(()) };
        let levels_max = self.context.broker.limits().session.topic_levels;
        let Ok(topic) = TopicName::parse(&topic, levels_max) else {
            return Err(Close::because(ReasonCode::MalformedPacket, "the topic has too many levels"));
        };
        self.refresh_rights()?;
        let source = Source {
            slot: &self.slot,
            durable: self.session.durable(),
            rights: &self.rights,
            user_name: self.identity.verified_user(),
        };
        let broker = &self.context.broker;
        let receipt = broker.publish(&mut self.publishing, &source, publish, &topic, now);
        self.session.published(publish, receipt)
    }

    fn handle_subscribe(&mut self, subscribe: &Subscribe) -> Result<(), Close> {
        let requests = self.session.handle_subscribe(subscribe)?;
        self.refresh_rights()?;
        let subscribed = self.context.broker.subscribe(&self.slot, requests, &self.rights);
        let subscribed = subscribed.map_err(|_| store_failed())?;
        let suback = Suback { packet_id: subscribe.packet_id, reasons: subscribed.reasons };
        self.session.answer_later(subscribed.safe_at, ReplyPacket::Suback(suback));
        self.queue_scans(subscribed.safe_at, subscribed.scans);
        Ok(())
    }

    /// One scan for each subscription at most, however often a client repeats itself, and the newest. Those
    /// that wait are looked at once for all filters: how many there are of both is the client's choice.
    fn queue_scans(&mut self, safe_at: Lsn, scans: Vec<RetainedScan>) {
        let mut replaced = HashSet::with_hasher(RandomState::default());
        let is_last = |scan: &RetainedScan| replaced.insert(scan.filter().clone());
        let newest: Vec<_> = scans.into_iter().rev().filter(is_last).collect();
        self.scans.retain(|(_, known)| !replaced.contains(known.filter()));
        self.scans.extend(newest.into_iter().rev().map(|scan| (safe_at, scan)));
    }

    fn handle_unsubscribe(&mut self, unsubscribe: &Unsubscribe) -> Result<(), Close> {
        let filters = self.session.handle_unsubscribe(unsubscribe)?;
        if !self.scans.is_empty() {
            let plain = filters.iter().flatten().filter(|filter| !filter.is_shared());
            let gone: HashSet<_, RandomState> = plain.map(|filter| &filter.filter).collect();
            self.scans.retain(|(_, scan)| !gone.contains(scan.filter()));
        }
        let unsubscribed =
            self.context.broker.unsubscribe(&self.slot, filters).map_err(|_| store_failed())?;
        let unsuback = Suback { packet_id: unsubscribe.packet_id, reasons: unsubscribed.reasons };
        self.session.answer_later(unsubscribed.safe_at, ReplyPacket::Unsuback(unsuback));
        Ok(())
    }

    fn handle_disconnect(&mut self, disconnect: &Disconnect) -> End {
        match self.session.expiry_at_disconnect(disconnect.session_expiry) {
            Ok(expiry) => self.departure.expiry = expiry,
            Err(close) => return close.into(),
        }
        // [MQTT-3.14.4-3] Any other reason is for the will to tell.
        let version = self.session.version();
        // Before 5.0 there is no reason: any DISCONNECT makes the will void.
        self.departure.without_will = version != Version::V5 || disconnect.reason == ReasonCode::Success;
        End::Goodbye
    }

    /// Rights are asked for again when the rules have changed; a client that may not stay leaves.
    pub(super) fn refresh_rights(&mut self) -> Result<(), Close> {
        if self.context.broker.auth.version() == self.rights.version() {
            return Ok(());
        }
        self.renew_rights()
    }

    pub(super) fn renew_rights(&mut self) -> Result<(), Close> {
        let auth = &self.context.broker.auth;
        self.rights = auth.rights(&self.identity, self.session.client_id()).map_err(|reason| {
            Close::because(reason, "the client may not stay after the rules have changed")
        })?;
        Ok(())
    }
}
