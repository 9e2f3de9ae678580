//! Every metric the broker counts. Handles are kept; nothing is looked up by name where messages pass, and
//! no label holds a client id, a topic or a user name.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, describe_histogram, gauge};

use super::sys::Both;
use super::tally::{Level, Tally};
use crate::codec::Qos;
use crate::record::DeadLetterReason;

/// Handles of the broker's metrics.
#[derive(Debug)]
pub struct Metrics {
    /// Connections that have a session.
    pub connections: Level,
    /// Subscriptions of all sessions.
    pub subscriptions: Level,
    /// CONNECTs that were accepted.
    pub connects_accepted: Tally,
    /// CONNECTs that were refused.
    pub connects_refused: Tally,
    /// Connections that were accepted by a listener.
    pub accepted: Tally,
    /// Sessions whose time had come while their client was away.
    pub sessions_expired: Tally,
    /// What came in.
    pub inbound: Traffic,
    /// What went out.
    pub outbound: Traffic,
    /// What was dropped, by reason.
    pub dropped: Dropped,
    /// Publishes that were refused on every leg, by reason.
    pub refused: Refused,
    retained_messages: Gauge,
    retained_bytes: Gauge,
    dead_letters: Vec<(DeadLetterReason, Counter)>,
}

/// Messages by QoS, and bytes of all packets.
#[derive(Debug)]
pub struct Traffic {
    messages: [Tally; 3],
    bytes: Tally,
    payload_bytes: AtomicU64,
    packets: AtomicU64,
}

/// What a connection has counted since it last told.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByQos {
    /// Messages by QoS.
    pub messages: [u64; 3],
    /// Bytes.
    pub bytes: u64,
    /// Bytes of the payloads of messages.
    pub payload_bytes: u64,
    /// Packets of all kinds.
    pub packets: u64,
}

/// Messages that were not delivered to somebody, by reason.
#[derive(Debug)]
pub struct Dropped {
    /// The publisher or the receiver had no right.
    pub not_authorized: Tally,
    /// A QoS 0 message found the outbox full, or nobody online.
    pub outbox_full: Tally,
    /// The client did not read, and its session ended with its connection.
    pub slow_client: Tally,
    /// Too many retained messages.
    pub retained_full: Tally,
    /// A QoS 0 message found the route's queue full.
    pub route_full: Tally,
    /// The one try of a QoS 0 message at its target failed.
    pub target_failed: Tally,
    /// Its Message Expiry Interval has passed.
    pub expired: Tally,
    /// It exceeds the client's Maximum Packet Size.
    pub too_large: Tally,
    /// Too many dead letters.
    pub dead_letters_full: Tally,
}

/// Publishes that nobody got because of one who had no room, by reason.
#[derive(Debug)]
pub struct Refused {
    /// A queue that refuses held its most messages.
    pub queue_full: Counter,
    /// A queue that refuses held its most bytes.
    pub queue_bytes_full: Counter,
    /// Something would have to be given up, and there are too many dead letters.
    pub dead_letters_full: Counter,
}

impl Metrics {
    /// Makes the handles with the recorder that is installed.
    pub fn new() -> Self {
        describe();
        let dropped =
            |reason: &'static str| Tally::of(counter!("causeway_messages_dropped_total", "reason" => reason));
        let refused = |reason: &'static str| counter!("causeway_publishes_refused_total", "reason" => reason);
        Self {
            connections: Level::of(gauge!("causeway_connections")),
            subscriptions: Level::of(gauge!("causeway_subscriptions")),
            connects_accepted: Tally::of(counter!("causeway_connects_accepted_total")),
            connects_refused: Tally::of(counter!("causeway_connects_refused_total")),
            accepted: Tally::of(counter!("causeway_connections_accepted_total")),
            sessions_expired: Tally::of(counter!("causeway_sessions_expired_total")),
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
            refused: Refused {
                queue_full: refused("queue_full"),
                queue_bytes_full: refused("queue_bytes_full"),
                dead_letters_full: refused("dead_letters_full"),
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

    /// Packets, messages, bytes of payloads and bytes, in and out.
    pub fn traffic(&self) -> [Both; 4] {
        let both =
            |count: fn(&Traffic) -> u64| Both { received: count(&self.inbound), sent: count(&self.outbound) };
        [
            both(|traffic| traffic.packets.load(Ordering::Relaxed)),
            both(|traffic| traffic.messages.iter().map(Tally::get).sum()),
            both(|traffic| traffic.payload_bytes.load(Ordering::Relaxed)),
            both(|traffic| traffic.bytes.get()),
        ]
    }

    /// Counts dead letters that were discarded, and why: for their `age` or their `count`.
    pub fn dead_letters_discarded(&self, why: &'static str, count: u64) {
        counter!("causeway_dead_letters_discarded_total", "why" => why).increment(count);
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
        let messages =
            |qos| Tally::of(counter!("causeway_messages_total", "direction" => direction, "qos" => qos));
        Self {
            messages: [messages("0"), messages("1"), messages("2")],
            bytes: Tally::of(counter!("causeway_bytes_total", "direction" => direction)),
            payload_bytes: AtomicU64::new(0),
            packets: AtomicU64::new(0),
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
        if counted.packets > 0 {
            self.packets.fetch_add(counted.packets, Ordering::Relaxed);
            self.payload_bytes.fetch_add(counted.payload_bytes, Ordering::Relaxed);
        }
        *counted = ByQos::default();
    }
}

impl ByQos {
    /// Counts a message with a payload of so many bytes. Its packet is counted beside.
    pub fn message(&mut self, qos: Qos, payload: usize) {
        self.payload_bytes += payload as u64;
        if let Some(count) = self.messages.get_mut(qos as usize) {
            *count += 1;
        }
    }
}

impl Dropped {
    /// How many, for whatever reason.
    pub fn all(&self) -> u64 {
        let reasons = [
            &self.not_authorized,
            &self.outbox_full,
            &self.slow_client,
            &self.retained_full,
            &self.route_full,
            &self.target_failed,
            &self.expired,
            &self.too_large,
            &self.dead_letters_full,
        ];
        reasons.into_iter().map(Tally::get).sum()
    }
}

fn describe() {
    describe_gauge!("causeway_connections", "Clients that are connected");
    describe_gauge!("causeway_subscriptions", "Subscriptions of all sessions");
    describe_counter!("causeway_connects_accepted_total", "CONNECT packets that were accepted");
    describe_counter!("causeway_sessions_expired_total", "Sessions that ended while their client was away");
    describe_counter!("causeway_connects_refused_total", "CONNECT packets that were refused");
    describe_counter!("causeway_connections_accepted_total", "Network connections accepted");
    describe_counter!("causeway_messages_total", "Messages by direction and QoS");
    describe_counter!("causeway_bytes_total", "Bytes of MQTT packets by direction");
    describe_counter!("causeway_messages_dropped_total", "Messages not delivered to somebody, by reason");
    describe_counter!("causeway_publishes_refused_total", "Publishes refused for want of room, by reason");
    describe_gauge!("causeway_retained_messages", "Retained messages");
    describe_gauge!("causeway_retained_bytes", "Bytes of retained messages");
    describe_counter!("causeway_dead_letters_total", "Messages that became dead letters, by reason");
    describe_counter!(
        "causeway_dead_letters_discarded_total",
        "Dead letters that went by themselves: for age or count"
    );
    describe_counter!("causeway_store_commits_total", "Commits of the store");
    describe_counter!("causeway_store_records_skipped_total", "Records of which nothing was left to write");
    describe_counter!(
        "causeway_store_messages_missing_total",
        "Times that a message which somebody is owed was not there: damage"
    );
    describe_histogram!("causeway_store_commit_seconds", "Time of a commit, fsync included");
    describe_histogram!("causeway_store_commit_records", "Records in one commit");
}
