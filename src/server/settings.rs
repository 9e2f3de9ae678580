//! From the configuration to what each room asks for.

use std::time::Duration;

use crate::broker::{BrokerLimits, DeadLetterRules};
use crate::config::{Config, MqttConfig, WhenFull};
use crate::session::{Offer, SessionLimits};
use crate::store::StoreSettings;
use crate::topic::TopicFilter;

pub(super) fn store(config: &Config) -> StoreSettings {
    StoreSettings {
        cache_size: bytes(config.store.cache_size),
        commit_interval: config.store.commit_interval,
        batch_bytes_max: bytes(config.store.batch_bytes_max),
        queue_bytes_max: bytes(config.store.queue_bytes_max),
        compact_at_start: config.store.compact_at_start,
        recent_max: StoreSettings::RECENT_MAX,
    }
}

pub(super) fn broker(config: &Config) -> BrokerLimits {
    let limits = &config.limits;
    BrokerLimits {
        session: SessionLimits {
            receive_maximum: limits.receive_maximum,
            inflight: limits.inflight,
            topic_alias_maximum: limits.topic_alias_maximum,
            topic_levels: limits.topic_levels,
            packet_size: limits.packet_size,
            keep_alive_max: limits.keep_alive_max.map_or(0, |max| seconds(max).min(u16::MAX.into()) as u16),
            session_expiry: seconds(limits.session_expiry),
            offer: offer(&config.mqtt),
            response_information: config.mqtt.response_information.as_deref().map(Into::into),
        },
        memory: bytes(limits.memory),
        outbox_bytes: bytes(limits.outbox_bytes),
        queue: limits.queue,
        merge_overlapping: config.mqtt.merge_overlapping,
        sessions: limits.sessions.into(),
        subscriptions_per_session: limits.subscriptions_per_session as usize,
        retained_messages: limits.retained_messages,
        retained_bytes: limits.retained_bytes,
        dead_letters: limits.dead_letters,
        dead_letter_bytes: limits.dead_letter_bytes,
        letters: letters(config),
        takeover_timeout: limits.takeover_timeout,
        shared: config.shared.clone(),
        checks_retained_source: config.retain.check_source,
        clock_grace: config.store.clock_grace,
    }
}

fn letters(config: &Config) -> DeadLetterRules {
    let rules = &config.dead_letters;
    // The configuration has looked at them.
    let parse = |filters: &[String]| -> Vec<TopicFilter> {
        filters.iter().filter_map(|filter| TopicFilter::parse(filter, u16::MAX).ok()).collect()
    };
    DeadLetterRules {
        age: rules.age,
        drops_oldest: rules.when_full == WhenFull::DropOldest,
        expired: parse(&rules.expired),
        oversize: parse(&rules.oversize),
        unroutable: parse(&rules.unroutable),
    }
}

fn offer(mqtt: &MqttConfig) -> Offer {
    Offer {
        maximum_qos: mqtt.maximum_qos,
        retain: mqtt.retain,
        wildcard_subscriptions: mqtt.wildcard_subscriptions,
        subscription_identifiers: mqtt.subscription_identifiers,
        shared_subscriptions: mqtt.shared_subscriptions,
    }
}

fn bytes(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

fn seconds(value: Duration) -> u32 {
    u32::try_from(value.as_secs()).unwrap_or(u32::MAX)
}
