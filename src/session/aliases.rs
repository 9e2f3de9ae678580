//! Topic aliases, one table for each direction. They end with the connection [MQTT-3.3.2-7].

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::Close;
use crate::codec::ReasonCode;

/// Bytes of topics that a table may hold for each alias it may have. A topic of usual length takes a tenth of
/// this; without a limit the tables of one client could hold megabytes of the longest ones.
const BYTES_PER_ALIAS: usize = 1024;

/// Bytes of topics that any table may hold: the longest topic fits.
const BYTES_MIN: usize = 64 * 1024;

/// What the client has said its aliases stand for.
#[derive(Debug)]
pub(super) struct InboundAliases {
    topics: Vec<Option<Arc<str>>>,
    bytes: usize,
    max: u16,
}

/// What we have said ours stand for. An alias that was given to a topic stays with it.
#[derive(Debug)]
pub(super) struct OutboundAliases {
    numbers: HashMap<Box<str>, u16, RandomState>,
    bytes: usize,
    max: u16,
}

/// How a topic is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AliasUse {
    /// By its name.
    Without,
    /// By an alias that the client knows.
    Known(u16),
    /// With an alias that the client learns from this packet, if that is sent.
    New(u16),
}

impl InboundAliases {
    pub(super) fn new(max: u16) -> Self {
        Self { topics: Vec::new(), bytes: 0, max }
    }

    /// Notes what `alias` stands for; with an empty `topic` it is asked for instead, and that is the answer.
    pub(super) fn resolve(&mut self, alias: NonZeroU16, topic: &str) -> Result<Option<Arc<str>>, Close> {
        if alias.get() > self.max {
            let detail = "the topic alias is above the maximum";
            return Err(Close::because(ReasonCode::TopicAliasInvalid, detail));
        }
        let index = usize::from(alias.get()) - 1;
        if topic.is_empty() {
            let known = self.topics.get(index).cloned().flatten();
            return known.map(Some).ok_or(Close::protocol_error("the topic alias was never set"));
        }
        if self.topics.len() <= index {
            self.topics.resize(index + 1, None);
        }
        if let Some(entry) = self.topics.get_mut(index) {
            let replaced = entry.replace(topic.into());
            self.bytes = self.bytes + topic.len() - replaced.map_or(0, |old| old.len());
        }
        if self.bytes > bytes_max(self.max) {
            let detail = "the topics that aliases stand for are too long in all";
            return Err(Close::because(ReasonCode::QuotaExceeded, detail));
        }
        Ok(None)
    }
}

impl OutboundAliases {
    pub(super) fn new(max: u16) -> Self {
        Self { numbers: HashMap::default(), bytes: 0, max }
    }

    pub(super) fn choose(&self, topic: &str) -> AliasUse {
        if self.max == 0 {
            return AliasUse::Without;
        }
        match self.numbers.get(topic) {
            Some(alias) => AliasUse::Known(*alias),
            None if self.has_room_for(topic) => AliasUse::New(self.numbers.len() as u16 + 1),
            None => AliasUse::Without,
        }
    }

    /// The client was told.
    pub(super) fn told(&mut self, topic: &str, alias: u16) {
        self.bytes += topic.len();
        self.numbers.insert(topic.into(), alias);
    }

    fn has_room_for(&self, topic: &str) -> bool {
        self.numbers.len() < usize::from(self.max) && self.bytes + topic.len() <= bytes_max(self.max)
    }
}

fn bytes_max(aliases_max: u16) -> usize {
    BYTES_MIN.max(usize::from(aliases_max) * BYTES_PER_ALIAS)
}
