//! What the wildcards of a route stand for in the topic of a message.

use std::sync::Arc;

use crate::config::RouteConfig;
use crate::record::Message;
use crate::topic::{TopicFilter, TopicName};

/// The topic filters of a route. Cloning counts a reference.
#[derive(Clone, Debug)]
pub struct Captures(Arc<[TopicFilter]>);

impl Captures {
    /// Those of this route. A filter that is none captures nothing; a route with one does not start.
    pub fn new(route: &RouteConfig) -> Self {
        Self(route.topics.iter().filter_map(|text| TopicFilter::parse(text, u16::MAX).ok()).collect())
    }

    /// What `+` and `#` stand for in the first filter that matches, in their order; nothing when none does.
    pub fn of<'m>(&self, message: &'m Message) -> Vec<&'m str> {
        let topic = TopicName::parse(message.topic(), u16::MAX);
        let Ok(topic) = topic else { return Vec::new() };
        self.0.iter().find_map(|filter| filter.captures(&topic)).unwrap_or_default()
    }
}
