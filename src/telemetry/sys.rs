//! What the broker says of itself below `$SYS/broker`, under the names that mosquitto uses.
//!
//! From numbers that were counted anyway to topics and payloads. It counts nothing and publishes nothing.
//!
//! Invariant: a value is told when it differs from the one told last, and then once.

use std::collections::HashMap;
use std::time::Duration;

/// What was counted, from the start to now, or is so now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the topics")]
pub struct SysSample {
    pub uptime: Duration,
    pub clients_connected: u64,
    pub clients_total: u64,
    pub clients_expired: u64,
    /// MQTT packets of any kind.
    pub messages: Both,
    pub publish_messages: Both,
    pub publish_dropped: u64,
    /// Bytes of payloads.
    pub publish_bytes: Both,
    pub bytes: Both,
    /// Network connections accepted.
    pub sockets: u64,
    /// CONNECT packets.
    pub connections: u64,
    /// Messages on disk that somebody is owed.
    pub stored_messages: u64,
    pub stored_bytes: u64,
    pub retained_messages: u64,
    pub subscriptions: u64,
    pub shared_subscriptions: u64,
    /// Bytes of memory that the process uses, where the operating system says so.
    pub memory: Option<u64>,
}

/// In and out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the topics")]
pub struct Both {
    pub received: u64,
    pub sent: u64,
}

/// One of the totals.
type Total = fn(&SysSample) -> u64;

/// What was told, and what averages and maxima remember.
#[derive(Debug, Default)]
pub struct SysTree {
    told: HashMap<String, String>,
    last: SysSample,
    loads: [[f64; 3]; LOADS.len()],
    clients_maximum: u64,
    memory_maximum: u64,
}

/// Totals whose rate per minute is told, as a moving average.
const LOADS: [(&str, Total); 9] = [
    ("messages/received", |sample| sample.messages.received),
    ("messages/sent", |sample| sample.messages.sent),
    ("publish/dropped", |sample| sample.publish_dropped),
    ("publish/received", |sample| sample.publish_messages.received),
    ("publish/sent", |sample| sample.publish_messages.sent),
    ("bytes/received", |sample| sample.bytes.received),
    ("bytes/sent", |sample| sample.bytes.sent),
    ("sockets", |sample| sample.sockets),
    ("connections", |sample| sample.connections),
];

/// Over how many minutes an average forgets.
const SPANS: [(&str, f64); 3] = [("1min", 1.0), ("5min", 5.0), ("15min", 15.0)];

impl SysTree {
    /// Topics and payloads that differ from those told last.
    pub fn update(&mut self, sample: &SysSample) -> Vec<(String, String)> {
        let minutes = (sample.uptime.saturating_sub(self.last.uptime)).as_secs_f64() / 60.0;
        if minutes > 0.0 {
            self.average(sample, minutes);
        }
        self.clients_maximum = self.clients_maximum.max(sample.clients_connected);
        self.memory_maximum = self.memory_maximum.max(sample.memory.unwrap_or(0));
        self.last = *sample;
        let mut changed = Vec::new();
        for (name, payload) in self.facts(sample).into_iter().chain(self.shown_loads()) {
            let topic = format!("$SYS/broker/{name}");
            if self.told.get(&topic) != Some(&payload) {
                self.told.insert(topic.clone(), payload.clone());
                changed.push((topic, payload));
            }
        }
        changed
    }

    /// Moves the averages on by what was counted since the last time.
    fn average(&mut self, sample: &SysSample, minutes: f64) {
        for ((_, total), averages) in LOADS.iter().zip(&mut self.loads) {
            let rate = total(sample).saturating_sub(total(&self.last)) as f64 / minutes;
            for ((_, span), average) in SPANS.iter().zip(averages) {
                *average = rate + (*average - rate) * (-minutes / span).exp();
            }
        }
    }

    fn shown_loads(&self) -> Vec<(String, String)> {
        let mut shown = Vec::with_capacity(LOADS.len() * SPANS.len());
        for ((name, _), averages) in LOADS.iter().zip(&self.loads) {
            let spans = SPANS.iter().zip(averages);
            shown.extend(
                spans.map(|((span, _), average)| (format!("load/{name}/{span}"), format!("{average:.2}"))),
            );
        }
        shown
    }

    fn facts(&self, sample: &SysSample) -> Vec<(String, String)> {
        let disconnected = sample.clients_total.saturating_sub(sample.clients_connected);
        let numbers = [
            ("clients/total", sample.clients_total),
            ("clients/maximum", self.clients_maximum),
            ("clients/connected", sample.clients_connected),
            ("clients/active", sample.clients_connected),
            ("clients/disconnected", disconnected),
            ("clients/inactive", disconnected),
            ("clients/expired", sample.clients_expired),
            ("messages/received", sample.messages.received),
            ("messages/sent", sample.messages.sent),
            ("messages/stored", sample.stored_messages),
            ("store/messages/count", sample.stored_messages),
            ("store/messages/bytes", sample.stored_bytes),
            ("subscriptions/count", sample.subscriptions),
            ("shared_subscriptions/count", sample.shared_subscriptions),
            ("retained messages/count", sample.retained_messages),
            ("publish/messages/received", sample.publish_messages.received),
            ("publish/messages/sent", sample.publish_messages.sent),
            ("publish/messages/dropped", sample.publish_dropped),
            ("publish/bytes/received", sample.publish_bytes.received),
            ("publish/bytes/sent", sample.publish_bytes.sent),
            ("bytes/received", sample.bytes.received),
            ("bytes/sent", sample.bytes.sent),
        ];
        let memory = sample.memory.map(|now| [("heap/current", now), ("heap/maximum", self.memory_maximum)]);
        let numbers = numbers.into_iter().chain(memory.into_iter().flatten());
        let texts = [
            ("version".to_owned(), format!("causeway version {}", env!("CARGO_PKG_VERSION"))),
            ("uptime".to_owned(), format!("{} seconds", sample.uptime.as_secs())),
        ];
        let numbers = numbers.map(|(name, number)| (name.to_owned(), number.to_string()));
        texts.into_iter().chain(numbers).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told<'a>(told: &'a [(String, String)], name: &str) -> Option<&'a str> {
        told.iter().find(|(topic, _)| topic == name).map(|(_, payload)| payload.as_str())
    }

    #[test]
    fn only_what_has_changed_is_told_again() {
        let mut tree = SysTree::default();
        let mut sample = SysSample { clients_connected: 3, clients_total: 5, ..SysSample::default() };
        let first = tree.update(&sample);
        assert_eq!(first.len(), 51, "everything but memory, which is not known");
        assert_eq!(told(&first, "$SYS/broker/clients/disconnected"), Some("2"));
        assert_eq!(tree.update(&sample), []);
        (sample.clients_connected, sample.clients_total) = (2, 4);
        let second = tree.update(&sample);
        let names: Vec<_> = second.iter().map(|(topic, _)| topic.as_str()).collect();
        assert_eq!(
            names,
            ["$SYS/broker/clients/total", "$SYS/broker/clients/connected", "$SYS/broker/clients/active"]
        );
    }

    #[test]
    fn loads_are_rates_per_minute_that_fade() {
        let mut tree = SysTree::default();
        let mut sample = SysSample { sockets: 60, uptime: Duration::from_secs(60), ..SysSample::default() };
        let first = tree.update(&sample);
        let one_minute = 60.0 * (1.0 - (-1.0_f64).exp());
        assert_eq!(told(&first, "$SYS/broker/load/sockets/1min"), Some(&*format!("{one_minute:.2}")));
        sample.uptime = Duration::from_hours(1);
        let later = tree.update(&sample);
        assert_eq!(told(&later, "$SYS/broker/load/sockets/1min"), Some("0.00"));
        assert_eq!(told(&later, "$SYS/broker/uptime"), Some("3600 seconds"));
    }
}
