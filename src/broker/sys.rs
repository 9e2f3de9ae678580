//! `$SYS`: what the broker says of itself, to those who subscribe to it and may receive it.
//!
//! The messages are QoS 0 and retained in memory alone: no disk has them, they count against no limit, and
//! no client can publish among them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::Broker;
use super::matching::Matches;
use super::publish::Routed;
use super::retained::Retained;
use super::slot::Touched;
use crate::codec::Qos;
use crate::record::{Message, MessageParts, UnixMillis};
use crate::telemetry::{SysSample, SysTree, resident_bytes};
use crate::topic::TopicName;

impl Broker {
    /// Publishes what has changed, now and each time the interval has passed. Runs for as long as the broker.
    pub async fn run_sys(self: Arc<Self>, interval: Duration) {
        let mut tree = SysTree::default();
        let mut interval = tokio::time::interval(interval);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let broker = Arc::clone(&self);
            let sample = tokio::task::spawn_blocking(move || broker.sys_sample()).await;
            let Ok(sample) = sample else { continue };
            let mut touched = Touched::default();
            for (topic, payload) in tree.update(&sample) {
                self.publish_sys(&topic, &payload, &mut touched);
            }
            touched.ring();
        }
    }

    /// Retained first, matched afterwards, as with every retained message.
    fn publish_sys(&self, topic: &str, payload: &str, touched: &mut Touched) {
        let parts = MessageParts {
            qos: Qos::AtMostOnce,
            retain: true,
            published_at: self.clock.now(),
            expires_at: UnixMillis::NEVER,
            topic,
            properties: &[],
            payload: payload.as_bytes(),
            publisher: "",
        };
        let Ok(topic) = TopicName::parse(topic, u16::MAX) else { return };
        let message = Message::new(&parts, &mut Vec::new());
        let order = self.retained_totals.lock();
        self.retained.put(&topic, Retained { message: message.clone(), author: None });
        let mut matches = Matches::default();
        matches.find(self, &topic, None);
        // QoS 0 and not to be stored: nothing can refuse it.
        self.route(&matches, Routed::of(message), touched);
        drop(order);
    }

    fn sys_sample(&self) -> SysSample {
        let metrics = &self.metrics;
        let [messages, publish_messages, publish_bytes, bytes] = metrics.traffic();
        let (stored_messages, stored_bytes) = self.store.messages();
        // Copied: nothing is locked under the table of groups.
        let groups: Vec<_> = self.groups.iter().map(|group| Arc::clone(group.value())).collect();
        SysSample {
            uptime: self.clock.uptime(),
            clients_connected: metrics.connections.get(),
            clients_total: self.session_count(),
            clients_expired: metrics.sessions_expired.get(),
            messages,
            publish_messages,
            publish_dropped: metrics.dropped.all(),
            publish_bytes,
            bytes,
            sockets: metrics.accepted.get(),
            connections: metrics.connects_accepted.get() + metrics.connects_refused.get(),
            stored_messages,
            stored_bytes,
            retained_messages: self.retained_totals.lock().messages,
            subscriptions: metrics.subscriptions.get(),
            shared_subscriptions: groups.iter().map(|group| group.member_count() as u64).sum(),
            memory: resident_bytes(),
        }
    }
}
