//! What of MQTT clients are offered, where the protocol lets a server offer less, and what is said to one that
//! asks for more all the same.

use super::Close;
use crate::codec::{ConnackProperties, Qos, ReasonCode, Version};
use crate::topic::SubscriptionFilter;

/// What of MQTT clients are offered. What is stored from a time when it was more stays in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Highest QoS of a PUBLISH or will, and what a subscription is granted at most.
    pub maximum_qos: Qos,
    /// Retained messages.
    pub retain: bool,
    /// Topic filters with wildcards.
    pub wildcard_subscriptions: bool,
    /// Subscription Identifiers.
    pub subscription_identifiers: bool,
    /// Shared subscriptions.
    pub shared_subscriptions: bool,
}

impl Offer {
    /// All of it.
    pub const EVERYTHING: Self = Self {
        maximum_qos: Qos::ExactlyOnce,
        retain: true,
        wildcard_subscriptions: true,
        subscription_identifiers: true,
        shared_subscriptions: true,
    };

    /// Tells a 5.0 client what it is not offered [MQTT-3.2.2-9].
    pub(super) fn tell(&self, properties: &mut ConnackProperties) {
        let missing = |offered: bool| (!offered).then_some(false);
        properties.maximum_qos = Some(self.maximum_qos as u8).filter(|qos| *qos < Qos::ExactlyOnce as u8);
        properties.retain_available = missing(self.retain);
        properties.wildcard_subscription_available = missing(self.wildcard_subscriptions);
        properties.subscription_identifiers_available = missing(self.subscription_identifiers);
        properties.shared_subscription_available = missing(self.shared_subscriptions);
    }

    /// Judges the QoS and the RETAIN flag of a PUBLISH (3.2.2.3.4, 3.2.2.3.5) or a will [MQTT-3.2.2-12]
    /// [MQTT-3.2.2-13].
    ///
    /// # Errors
    /// When the message cannot be taken. A client before 5.0 was not told, and has no other way to learn it.
    pub(super) fn judge_message(&self, qos: Qos, retain: bool) -> Result<(), Close> {
        if qos > self.maximum_qos {
            let detail = "the QoS is above mqtt.maximum_qos";
            return Err(Close::because(ReasonCode::QosNotSupported, detail));
        }
        if retain && !self.retain {
            let detail = "RETAIN is set, and retained messages are switched off by mqtt.retain";
            return Err(Close::because(ReasonCode::RetainNotSupported, detail));
        }
        Ok(())
    }

    /// Judges a topic filter. A 5.0 client was told, so that asking is a protocol error (3.2.2.3.11,
    /// 3.2.2.3.13); for another one that subscription alone is refused.
    pub(super) fn judge_filter(
        &self,
        filter: SubscriptionFilter,
        version: Version,
    ) -> Result<Result<SubscriptionFilter, ReasonCode>, Close> {
        let reason = if filter.is_shared() && !self.shared_subscriptions {
            ReasonCode::SharedSubscriptionsNotSupported
        } else if filter.filter.has_wildcards() && !self.wildcard_subscriptions {
            ReasonCode::WildcardSubscriptionsNotSupported
        } else {
            return Ok(Ok(filter));
        };
        if version == Version::V5 {
            return Err(Close::because(reason, "a kind of subscription that [mqtt] has switched off"));
        }
        Ok(Err(ReasonCode::UnspecifiedError))
    }

    /// Judges the Subscription Identifier of a SUBSCRIBE (3.2.2.3.12).
    ///
    /// # Errors
    /// When there is one and none is offered.
    pub(super) fn judge_identifier(&self, id: Option<u32>) -> Result<(), Close> {
        if id.is_some() && !self.subscription_identifiers {
            let detail = "Subscription Identifiers are switched off by mqtt.subscription_identifiers";
            return Err(Close::because(ReasonCode::SubscriptionIdentifiersNotSupported, detail));
        }
        Ok(())
    }
}
