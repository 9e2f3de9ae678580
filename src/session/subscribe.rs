//! SUBSCRIBE and UNSUBSCRIBE: their filters, parsed once.

use super::{Close, Session};
use crate::codec::{ReasonCode, Subscribe, SubscribeOptions, Unsubscribe, Version};
use crate::topic::{SubscriptionFilter, TopicError};

/// One entry of a SUBSCRIBE that can be entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeRequest {
    /// What is matched, and for which group.
    pub filter: SubscriptionFilter,
    /// The options.
    pub options: SubscribeOptions,
    /// The Subscription Identifier.
    pub id: Option<u32>,
}

impl Session {
    /// Judges the filters of a SUBSCRIBE, one by one [MQTT-3.8.4-6].
    ///
    /// # Errors
    /// When the client broke a rule that ends the connection.
    pub fn handle_subscribe(
        &self,
        subscribe: &Subscribe,
    ) -> Result<Vec<Result<SubscribeRequest, ReasonCode>>, Close> {
        self.offer.judge_identifier(subscribe.subscription_id)?;
        let mut requests = Vec::with_capacity(subscribe.filters.len());
        for entry in &subscribe.filters {
            // [MQTT-3.2.2-10] A higher QoS is no reason to refuse.
            let qos = entry.options.qos.min(self.offer.maximum_qos);
            let options = SubscribeOptions { qos, ..entry.options };
            let filter = match self.parse_filter(&entry.filter)? {
                Ok(filter) => self.offer.judge_filter(filter, self.version)?,
                refused => refused,
            };
            let request =
                filter.map(|filter| SubscribeRequest { filter, options, id: subscribe.subscription_id });
            if options.no_local && request.as_ref().is_ok_and(|request| request.filter.is_shared()) {
                // [MQTT-3.8.3-4]
                return Err(Close::protocol_error("No Local on a shared subscription"));
            }
            requests.push(request);
        }
        Ok(requests)
    }

    /// Parses the filters of an UNSUBSCRIBE.
    ///
    /// # Errors
    /// When the client broke a rule that ends the connection.
    pub fn handle_unsubscribe(
        &self,
        unsubscribe: &Unsubscribe,
    ) -> Result<Vec<Result<SubscriptionFilter, ReasonCode>>, Close> {
        unsubscribe.filters.iter().map(|filter| self.parse_filter(filter)).collect()
    }

    /// A client before 5.0 knows no shared subscriptions, but those of 5.0 are of use to it all the same.
    ///
    /// What is no topic filter at all is malformed. What is only no shared subscription is refused by itself:
    /// the code for that says "correctly formed, but not accepted" (3.9.3 of 5.0).
    fn parse_filter(&self, filter: &str) -> Result<Result<SubscriptionFilter, ReasonCode>, Close> {
        let refused = if self.version == Version::V5 {
            ReasonCode::TopicFilterInvalid
        } else {
            ReasonCode::UnspecifiedError
        };
        match SubscriptionFilter::parse(filter, self.topic_levels) {
            Ok(filter) => Ok(Ok(filter)),
            Err(
                TopicError::ShareNameMissing
                | TopicError::ShareNameCharacter { .. }
                | TopicError::ShareFilterMissing,
            ) => Ok(Err(refused)),
            Err(_) => Err(Close::because(ReasonCode::MalformedPacket, "a topic filter is not well-formed")),
        }
    }
}
