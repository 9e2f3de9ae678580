//! CONNECT: what the client asks for, and what it gets.

use std::num::NonZeroU16;
use std::sync::Arc;

use super::Offer;
use crate::codec::{Connack, ConnackProperties, Connect, MAX_PACKET_SIZE, ReasonCode, Version};
use crate::config::CLIENT_ID_PLACEHOLDER;

/// What the broker allows one client.
#[derive(Clone, Debug)]
pub struct SessionLimits {
    /// Receive Maximum we announce: QoS 1 and 2 messages a client may have open towards us.
    pub receive_maximum: u16,
    /// QoS 1 and 2 messages we have open towards a client that allows more.
    pub inflight: u16,
    /// Topic Alias Maximum we announce, and aliases we use towards a client that allows more.
    pub topic_alias_maximum: u16,
    /// Levels of a topic.
    pub topic_levels: u16,
    /// Largest packet we take, in bytes.
    pub packet_size: u32,
    /// Longest keep-alive of a 5.0 client, seconds; 0 for any.
    pub keep_alive_max: u16,
    /// Seconds that a session outlives its connection at most; what 3.1.1 sessions get.
    pub session_expiry: u32,
    /// What of MQTT is offered.
    pub offer: Offer,
    /// What a 5.0 client that asks for it puts in front of its response topics, with
    /// [`CLIENT_ID_PLACEHOLDER`] in it or not.
    pub response_information: Option<Arc<str>>,
}

/// What both sides have agreed on.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Protocol version.
    pub version: Version,
    /// The client id, assigned or as sent.
    pub client_id: Arc<str>,
    /// Whether the server made up the client id.
    pub assigned: bool,
    /// Whether an existing session is to be dropped.
    pub clean_start: bool,
    /// Seconds that the session outlives its connection; 0 ends with it.
    pub session_expiry: u32,
    /// Seconds that any session outlives its connection at most.
    pub session_expiry_max: u32,
    /// Seconds; 0 is off.
    pub keep_alive: u16,
    /// QoS 1 and 2 messages we may have open towards the client.
    pub send_window: u16,
    /// Largest packet the client takes.
    pub max_packet_size: u32,
    /// Highest alias we use towards the client.
    pub topic_alias_out: u16,
    /// Highest alias we take from the client.
    pub topic_alias_in: u16,
    /// QoS 1 and 2 messages the client may have open towards us.
    pub receive_maximum: u16,
    /// Levels of a topic.
    pub topic_levels: u16,
    /// What of MQTT is offered.
    pub offer: Offer,
    /// Differences to what a 5.0 client asked for, to be told in CONNACK.
    told: ConnackProperties,
}

impl Terms {
    /// Judges a CONNECT whose client is who it says. `client_id` makes up an id for a client without one.
    ///
    /// # Errors
    /// The reason code for the CONNACK that refuses.
    pub fn agree(
        connect: &Connect<'_>,
        limits: &SessionLimits,
        client_id: impl FnOnce() -> String,
    ) -> Result<Self, ReasonCode> {
        let assigned = connect.client_id.is_empty();
        let is_v5 = connect.version == Version::V5;
        if assigned && !is_v5 && (!connect.clean_start || connect.version == Version::V31) {
            // [MQTT-3.1.3-8] of 3.1.1; 3.1 knows no empty client id.
            return Err(ReasonCode::ClientIdentifierNotValid);
        }
        if let Some(will) = &connect.will {
            limits.offer.judge_message(will.qos, will.retain).map_err(|close| close.reason)?;
        }
        let session_expiry = match (is_v5, connect.clean_start) {
            (true, _) => connect.session_expiry.unwrap_or(0).min(limits.session_expiry),
            (false, true) => 0,
            (false, false) => limits.session_expiry,
        };
        let keep_alive = keep_alive(connect, limits);
        let client_id: Arc<str> = if assigned { client_id().into() } else { connect.client_id.into() };
        let window = connect.receive_maximum.map_or(u16::MAX, NonZeroU16::get).min(limits.inflight);
        let mut terms = Self {
            version: connect.version,
            client_id,
            assigned,
            clean_start: connect.clean_start,
            session_expiry,
            session_expiry_max: limits.session_expiry,
            keep_alive,
            send_window: window,
            max_packet_size: connect.maximum_packet_size.unwrap_or(MAX_PACKET_SIZE).min(MAX_PACKET_SIZE),
            topic_alias_out: connect.topic_alias_maximum.min(limits.topic_alias_maximum),
            topic_alias_in: if is_v5 { limits.topic_alias_maximum } else { 0 },
            receive_maximum: limits.receive_maximum,
            topic_levels: limits.topic_levels,
            offer: limits.offer,
            told: ConnackProperties::default(),
        };
        terms.tell(connect, limits);
        Ok(terms)
    }

    /// The CONNACK that accepts [MQTT-3.1.4-5].
    pub fn connack(&self, session_present: bool) -> Connack {
        Connack { session_present, reason: ReasonCode::Success, properties: self.told.clone() }
    }

    /// Notes what a 5.0 client has to be told: our limits, and where it gets other than it asked for.
    fn tell(&mut self, connect: &Connect<'_>, limits: &SessionLimits) {
        if self.version != Version::V5 {
            return;
        }
        let differs = connect.session_expiry.unwrap_or(0) != self.session_expiry;
        self.told = ConnackProperties {
            session_expiry: differs.then_some(self.session_expiry),
            receive_maximum: Some(limits.receive_maximum),
            maximum_packet_size: Some(limits.packet_size),
            assigned_client_id: self.assigned.then(|| self.client_id.to_string()),
            topic_alias_maximum: Some(limits.topic_alias_maximum).filter(|max| *max > 0),
            server_keep_alive: Some(self.keep_alive).filter(|seconds| *seconds != connect.keep_alive),
            // [MQTT-3.1.2-28]
            response_information: limits
                .response_information
                .as_deref()
                .filter(|_| connect.request_response_information)
                .and_then(|template| response_information(template, &self.client_id)),
            ..ConnackProperties::default()
        };
        self.offer.tell(&mut self.told);
    }
}

/// A client id for a client that sent none, from 16 random bytes: unique and not to be guessed. It looks as those of
/// mosquitto do: "auto-" and a UUID.
pub fn assigned_client_id(random: [u8; 16]) -> String {
    use std::fmt::Write as _;
    let mut id = String::with_capacity(41);
    id.push_str("auto");
    for (at, byte) in random.into_iter().enumerate() {
        let hyphen = if matches!(at, 0 | 4 | 6 | 8 | 10) { "-" } else { "" };
        let _never_fails = write!(id, "{hyphen}{byte:02x}");
    }
    id
}

/// `None` for a client whose id would lead out of its own level of the topic.
fn response_information(template: &str, client_id: &str) -> Option<String> {
    let fits = !template.contains(CLIENT_ID_PLACEHOLDER) || !client_id.contains(['+', '#', '/']);
    fits.then(|| template.replace(CLIENT_ID_PLACEHOLDER, client_id))
}

fn keep_alive(connect: &Connect<'_>, limits: &SessionLimits) -> u16 {
    let imposed = connect.version == Version::V5 && limits.keep_alive_max > 0;
    match connect.keep_alive {
        0 if imposed => limits.keep_alive_max,
        asked if imposed => asked.min(limits.keep_alive_max),
        asked => asked,
    }
}
