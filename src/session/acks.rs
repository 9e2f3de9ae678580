//! The client's acknowledgements of what it was sent.

use super::replies::{ReplyPacket, Wait};
use super::{Claim, Close, Session};
use crate::codec::{Ack, PacketId, ReasonCode};
use crate::record::{Exchange, ExchangeState};

impl Session {
    /// Handles a PUBACK. One for an identifier that is not in use is ignored.
    ///
    /// # Errors
    /// When the identifier belongs to a QoS 2 exchange.
    pub fn handle_puback(&mut self, ack: Ack) -> Result<(), Close> {
        match self.state(ack.packet_id) {
            Some(ExchangeState::AwaitingPuback) => self.finish(ack.packet_id),
            Some(_) => return Err(Close::protocol_error("PUBACK for a QoS 2 message")),
            None => {}
        }
        Ok(())
    }

    /// Handles a PUBREC: PUBREL follows once that is durable [MQTT-4.3.3-4].
    ///
    /// # Errors
    /// When the identifier belongs to a QoS 1 message.
    pub fn handle_pubrec(&mut self, ack: Ack) -> Result<(), Close> {
        let packet_id = ack.packet_id;
        let pubrel = ReplyPacket::Pubrel(packet_id, ReasonCode::Success);
        match self.state(packet_id) {
            // [MQTT-4.4.0-2]
            Some(ExchangeState::AwaitingPubrec) if ack.reason.is_error() => self.finish(packet_id),
            Some(ExchangeState::AwaitingPubrec) => self.release(packet_id, pubrel),
            Some(ExchangeState::AwaitingPubcomp) => self.release_again(pubrel),
            Some(ExchangeState::AwaitingPuback) => {
                return Err(Close::protocol_error("PUBREC for a QoS 1 message"));
            }
            // Nothing is owed to a client that refuses what it was not sent.
            None if ack.reason.is_error() => {}
            None => {
                let reason = ReasonCode::PacketIdentifierNotFound;
                self.release_again(ReplyPacket::Pubrel(packet_id, reason));
            }
        }
        Ok(())
    }

    /// Handles a PUBCOMP. One for an identifier that is not in use is ignored.
    ///
    /// # Errors
    /// When the identifier belongs to a message that was not released: one of QoS 1, or one whose PUBREC is
    /// missing.
    pub fn handle_pubcomp(&mut self, ack: Ack) -> Result<(), Close> {
        let state = self.state(ack.packet_id);
        if state == Some(ExchangeState::AwaitingPubcomp) {
            self.finish(ack.packet_id);
        } else if self.outbound.extra_releases > 0 {
            // It answers one of those, whose identifier may stand for another message by now.
            self.outbound.extra_releases -= 1;
        } else if state.is_some() {
            return Err(Close::protocol_error("PUBCOMP for a message that was not released"));
        }
        Ok(())
    }

    /// Ends an exchange whose message is not to be had any more. It is not settled: whoever has it now does
    /// that.
    pub fn abandon(&mut self, packet_id: PacketId) {
        if self.outbound.end(packet_id).is_some_and(|ended| ended.saved) {
            self.report.ended(packet_id, self.heard_at);
        }
    }

    /// Ends an exchange: its place in the window is free, and its message is settled.
    pub(super) fn finish(&mut self, packet_id: PacketId) {
        let claim = self.end_exchange(packet_id);
        self.outbound.settled.extend(claim);
    }

    /// Ends an exchange, and gives what is to be settled by that.
    pub(super) fn end_exchange(&mut self, packet_id: PacketId) -> Option<Claim> {
        let ended = self.outbound.end(packet_id)?;
        if ended.saved {
            self.report.ended(packet_id, self.heard_at);
        }
        ended.claim
    }

    fn state(&mut self, packet_id: PacketId) -> Option<ExchangeState> {
        self.outbound.known(packet_id).map(|known| known.state)
    }

    /// Answers a PUBREC for which nothing is to be done: its PUBCOMP ends nothing.
    fn release_again(&mut self, pubrel: ReplyPacket) {
        self.outbound.extra_releases = self.outbound.extra_releases.saturating_add(1);
        self.replies.push_now(pubrel);
    }

    fn release(&mut self, packet_id: PacketId, pubrel: ReplyPacket) {
        self.outbound.hand_over(packet_id);
        let Some(known) = self.outbound.known(packet_id) else { return };
        known.state = ExchangeState::AwaitingPubcomp;
        match &known.claim {
            Some(claim) if known.saved => {
                let (lsn, owner) = (claim.lsn, claim.owner);
                let exchange = Exchange { packet_id, lsn, owner, state: ExchangeState::AwaitingPubcomp };
                self.report.exchange_first(exchange);
                self.replies.push(Wait::Report, pubrel);
            }
            _ => self.replies.push_now(pubrel),
        }
    }
}
