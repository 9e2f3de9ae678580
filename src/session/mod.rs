//! The protocol state machine of one client: no socket, no clock, no task, no lock.
//!
//! The connection feeds it what happened and carries out what it answers:
//!
//! 1. packets go to the `handle_*` method of their kind, with the time of the batch;
//! 2. what a PUBLISH needs (to be routed) and what a SUBSCRIBE needs (to be entered) is the answer of the
//!    call, and its outcome comes back through [`Session::published`] and [`Session::answer_later`];
//! 3. messages for the client go in by [`Session::deliver`] while [`Session::has_window`];
//! 4. after each batch, and once before the first: [`Session::take_settled`], then [`Session::take_report`]
//!    when [`Session::must_report`], which is submitted and comes back by [`Session::reported`] at once;
//!    then [`Session::write_replies`] and [`Session::write_held`] with the watermark, also when it has
//!    reached [`Session::reply_waits_for`] or [`Session::held_waits_for`];
//! 5. at [`Session::deadline`] at the latest, [`Session::handle_time`], and 4 again;
//! 6. after a resume, [`Session::take_resend`] until there are no more, before anything newer;
//! 7. at the end, 4 once more, with whatever is held back.
//!
//! Bytes for the client are appended to an [`Outgoing`] that the caller owns.
//!
//! Invariant: no PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK or UNSUBACK is written before the record it
//! acknowledges is below the watermark, or nothing of it is left to write.

mod acks;
mod aliases;
mod authentication;
mod close;
mod connect;
mod inbound;
mod offer;
mod outbound;
mod outgoing;
mod packet_ids;
mod replies;
mod report;
mod subscribe;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use authentication::{AuthStep, Authentication};
pub use close::Close;
pub use connect::{SessionLimits, Terms, assigned_client_id};
pub use inbound::{Incoming, Receipt, Topic};
pub use offer::Offer;
pub use outbound::{Claim, Delivery, Dropped, Outcome};
pub use outgoing::Outgoing;
pub use replies::ReplyPacket;
pub use subscribe::SubscribeRequest;

use crate::codec::{ReasonCode, Version};
use crate::record::{Epoch, RecipientNo, UnixMillis};
use crate::store::Progress;
use inbound::Inbound;
use outbound::Outbound;
use replies::Replies;
use report::Report;

/// The name of a session that outlives its connection, and of the connection that speaks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// The session.
    pub recipient: RecipientNo,
    /// The connection.
    pub epoch: Epoch,
}

/// One client's protocol state while it is connected.
#[derive(Debug)]
pub struct Session {
    version: Version,
    client_id: Arc<str>,
    durable: Option<Durable>,
    max_packet_size: u32,
    topic_levels: u16,
    offer: Offer,
    /// One and a half times the keep-alive; `None` when it is off [MQTT-3.1.2-22].
    silence_max: Option<Duration>,
    heard_at: UnixMillis,
    inbound: Inbound,
    outbound: Outbound,
    replies: Replies,
    /// PINGREQs that were not answered yet.
    pings_owed: u16,
    /// Seconds that the session outlives its connection.
    session_expiry: u32,
    /// Seconds that a DISCONNECT may raise it to.
    session_expiry_max: u32,
    report: Report,
}

impl Session {
    /// The state of a connection that was just accepted. `progress` is what an earlier connection of the
    /// session left; `torn` says that it did not end in order, so that its last reports may be missing.
    pub fn new(
        terms: &Terms,
        durable: Option<Durable>,
        progress: Option<&Progress>,
        torn: bool,
        now: UnixMillis,
    ) -> Self {
        let mut session = Self {
            version: terms.version,
            client_id: Arc::clone(&terms.client_id),
            durable,
            max_packet_size: terms.max_packet_size,
            topic_levels: terms.topic_levels,
            offer: terms.offer,
            silence_max: silence_max(terms.keep_alive),
            heard_at: now,
            inbound: Inbound::new(terms),
            outbound: Outbound::new(terms),
            replies: Replies::default(),
            pings_owed: 0,
            session_expiry: terms.session_expiry,
            session_expiry_max: terms.session_expiry_max,
            report: Report::default(),
        };
        if let Some(progress) = progress {
            session.resume(progress, torn);
        }
        session
    }

    /// The protocol version that was agreed on.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The client id.
    pub fn client_id(&self) -> &Arc<str> {
        &self.client_id
    }

    /// Who the session is to the store, when it outlives its connection.
    pub fn durable(&self) -> Option<Durable> {
        self.durable
    }

    /// Notes that a packet has arrived, or much of one: whatever it is, the client is alive.
    pub fn heard(&mut self, now: UnixMillis) {
        self.heard_at = now;
    }

    /// The largest packet the client takes, in bytes.
    pub fn max_packet_size(&self) -> u32 {
        self.max_packet_size
    }

    /// Answers a PINGREQ [MQTT-3.12.4-1].
    pub fn handle_pingreq(&mut self) {
        self.pings_owed = self.pings_owed.saturating_add(1);
    }

    /// Judges the Session Expiry Interval of a DISCONNECT: it may be changed, but not raised from 0.
    ///
    /// # Errors
    /// When it is raised from 0.
    pub fn expiry_at_disconnect(&self, asked: Option<u32>) -> Result<Option<u32>, Close> {
        match asked {
            // Where the maximum is 0 the client may have asked for more at CONNECT, and raises nothing.
            Some(1..) if self.session_expiry == 0 && self.session_expiry_max > 0 => {
                Err(Close::protocol_error("DISCONNECT raises the Session Expiry Interval from 0"))
            }
            asked => Ok(asked.map(|seconds| seconds.min(self.session_expiry_max))),
        }
    }

    /// When [`Session::handle_time`] has to be called at the latest.
    pub fn deadline(&self) -> Option<UnixMillis> {
        let silence = self.silence_max.map(|max| self.heard_at.plus(max));
        [silence, self.report.deadline()].into_iter().flatten().min()
    }

    /// Judges how long the client has been silent. A report that is due shows in [`Session::must_report`].
    ///
    /// # Errors
    /// When the client has been silent for too long [MQTT-3.1.2-22].
    pub fn handle_time(&mut self, now: UnixMillis) -> Result<(), Close> {
        match self.silence_max {
            Some(max) if now >= self.heard_at.plus(max) => Err(Close::because(
                ReasonCode::KeepAliveTimeout,
                "nothing was heard for 1.5 times the keep-alive",
            )),
            _ => Ok(()),
        }
    }

    /// Whether so many replies wait for the disk that no more packets should be read.
    pub fn is_behind(&self) -> bool {
        self.replies.len() >= replies::REPLIES_MAX
    }

    /// Takes up what an earlier connection left [MQTT-4.4.0-1].
    fn resume(&mut self, progress: &Progress, torn: bool) {
        self.inbound.resume(progress);
        for packet_id in self.outbound.resume(progress, torn) {
            self.replies.push_now(ReplyPacket::Pubrel(packet_id, ReasonCode::Success));
        }
    }
}

/// How long a client may be silent.
fn silence_max(keep_alive: u16) -> Option<Duration> {
    (keep_alive > 0).then(|| Duration::from_millis(u64::from(keep_alive) * 1500))
}
