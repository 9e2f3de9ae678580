//! Every metric the broker counts. Handles are kept; nothing is looked up by name where messages pass, and
//! no label holds a client id, a topic or a user name.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, describe_histogram, gauge};

use crate::codec::Qos;
use crate::record::DeadLetterReason;

/// Handles of the broker's metrics.
#[derive(Debug)]
pub struct Metrics {
    /// Connections that have a session.
    pub connections: Gauge,
    /// Subscriptions of all sessions.
    pub subscriptions: Gauge,
    /// CONNECTs that were refused.
    pub connects_refused: Counter,
    /// Connections that were accepted by a listener.
    pub accepted: Counter,
    /// What came in.
    pub inbound: Traffic,
    /// What went out.
    pub outbound: Traffic,
    /// What was dropped, by reason.
    pub dropped: Dropped,
    retained_messages: Gauge,
    retained_bytes: Gauge,
    dead_letters: Vec<(DeadLetterReason, Counter)>,
}

/// Messages by QoS, and bytes of all packets.
#[derive(Debug)]
pub struct Traffic {
    messages: [Counter; 3],
    bytes: Counter,
}

/// What a connection has counted since it last told.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByQos {
    /// Messages by QoS.
    pub messages: [u64; 3],
    /// Bytes.
    pub bytes: u64,
}

/// Messages that were not delivered to somebody, by reason.
#[derive(Debug)]
pub struct Dropped {
    /// The publisher or the receiver had no right.
    pub not_authorized: Counter,
    /// A QoS 0 message found the outbox full, or nobody online.
    pub outbox_full: Counter,
    /// The client did not read, and its session ended with its connection.
    pub slow_client: Counter,
    /// Too many retained messages.
    pub retained_full: Counter,
    /// A QoS 0 message found the route's queue full.
    pub route_full: Counter,
    /// The one try of a QoS 0 message at its target failed.
    pub target_failed: Counter,
    /// Its Message Expiry Interval has passed.
    pub expired: Counter,
    /// It exceeds the client's Maximum Packet Size.
    pub too_large: Counter,
    /// Too many dead letters.
    pub dead_letters_full: Counter,
}

impl Metrics {
    /// Makes the handles with the recorder that is installed.
    pub fn new() -> Self {
        describe();
        let dropped = |reason: &'static str| counter!("causeway_messages_dropped_total", "reason" => reason);
        Self {
            connections: gauge!("causeway_connections"),
            subscriptions: gauge!("causeway_subscriptions"),
            connects_refused: counter!("causeway_connects_refused_total"),
            accepted: counter!("causeway_connections_accepted_total"),
            inbound: Traffic::new("in"),
            outbound: Traffic::new("out"),
            dropped: Dropped {
                not_authorized: dropped("not_authorized"),
                outbox_full: dropped("outbox_full"),
                slow_client: dropped("slow_client"),
                retained_full: dropped("retained_full"),
                route_full: dropped("route_full"),
                target_failed: dropped("target_failed"),
                expired: dropped("expired"),
                too_large: dropped("too_large"),
                dead_letters_full: dropped("dead_letters_full"),
            },
            retained_messages: gauge!("causeway_retained_messages"),
            retained_bytes: gauge!("causeway_retained_bytes"),
            dead_letters: DeadLetterReason::ALL
                .iter()
                .map(|reason| (*reason, counter!("causeway_dead_letters_total", "reason" => reason.as_str())))
                .collect(),
        }
    }

    /// Sets what is retained in all.
    pub fn retained(&self, messages: u64, bytes: u64) {
        self.retained_messages.set(messages as f64);
        self.retained_bytes.set(bytes as f64);
    }

    /// Counts a dead letter.
    pub fn dead_letter(&self, reason: DeadLetterReason) {
        let known = self.dead_letters.iter().find(|(known, _)| *known == reason);
        if let Some((_, counter)) = known {
            counter.increment(1);
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Traffic {
    fn new(direction: &'static str) -> Self {
        let messages = |qos| counter!("causeway_messages_total", "direction" => direction, "qos" => qos);
        Self {
            messages: [messages("0"), messages("1"), messages("2")],
            bytes: counter!("causeway_bytes_total", "direction" => direction),
        }
    }

    /// Adds what a connection has counted, and lets it begin anew.
    pub fn add(&self, counted: &mut ByQos) {
        for (counter, count) in self.messages.iter().zip(counted.messages) {
            if count > 0 {
                counter.increment(count);
            }
        }
        if counted.bytes > 0 {
            self.bytes.increment(counted.bytes);
        }
        *counted = ByQos::default();
    }
}

impl ByQos {
    /// Counts a message.
    pub fn message(&mut self, qos: Qos) {
        if let Some(count) = self.messages.get_mut(qos as usize) {
            *count += 1;
        }
    }
}

fn describe() {
    describe_gauge!("causeway_connections", "Clients that are connected");
    describe_gauge!("causeway_subscriptions", "Subscriptions of all sessions");
    describe_counter!("causeway_connects_refused_total", "CONNECT packets that were refused");
    describe_counter!("causeway_connections_accepted_total", "Network connections accepted");
    describe_counter!("causeway_messages_total", "Messages by direction and QoS");
    describe_counter!("causeway_bytes_total", "Bytes of MQTT packets by direction");
    describe_counter!("causeway_messages_dropped_total", "Messages not delivered to somebody, by reason");
    describe_gauge!("causeway_retained_messages", "Retained messages");
    describe_gauge!("causeway_retained_bytes", "Bytes of retained messages");
    describe_counter!("causeway_dead_letters_total", "Messages that became dead letters, by reason");
    describe_counter!("causeway_store_commits_total", "Commits of the store");
    describe_counter!("causeway_store_records_skipped_total", "Records of which nothing was left to write");
    describe_histogram!("causeway_store_commit_seconds", "Time of a commit, fsync included");
    describe_histogram!("causeway_store_commit_records", "Records in one commit");
}
