//! What stands for a route and its HTTP target: it reads what the route is owed, as committed, takes each message once
//! or more often, and settles it some time later.

use std::collections::VecDeque;
use std::sync::Arc;

use super::history::{History, Verdict};
use super::packets::Publish;
use crate::broker::{Broker, Route, RouteFilters};
use crate::config::RouteConfig;
use crate::record::{Change, Lsn, Record};
use crate::topic::TopicFilter;

pub struct Target {
    route: Arc<Route>,
    /// Everything up to here was looked at.
    cursor: Lsn,
    /// Posted, and not settled.
    posted: VecDeque<Lsn>,
}

const NAME: &str = "route";

impl Target {
    pub fn enter(broker: &Broker) -> Self {
        let filter = TopicFilter::parse("t/#", 10).expect("a filter");
        let config = RouteConfig { queue: broker.limits().queue, ..RouteConfig::new(NAME, "t/#", "target") };
        let filters = RouteFilters { topics: vec![filter], exclude: Vec::new() };
        let route = broker.add_route(&config, filters).expect("the store is open");
        Self { route, cursor: Lsn::ZERO, posted: VecDeque::new() }
    }

    /// Posts the next message, or settles the oldest.
    pub fn act(&mut self, broker: &Broker, settles: bool, history: &mut History) -> Result<bool, String> {
        if settles && let Some(lsn) = self.posted.pop_front() {
            let settled = Change::Settled(self.route.recipient, vec![lsn]);
            return Ok(broker.store.submit(Record::of([settled])).is_ok());
        }
        let from = (self.cursor, broker.store.watermark());
        let page = broker.store.read_after(self.route.recipient, from, 1, |_| false);
        let page = page.map_err(|error| format!("the route cannot read after {:?}: {error}", self.cursor))?;
        self.cursor = page.cursor;
        for stored in &page.messages {
            let payload = String::from_utf8_lossy(stored.message.payload()).into_owned();
            self.post(stored.lsn, stored.message.topic(), payload, history)?;
            self.posted.push_back(stored.lsn);
        }
        Ok(!page.messages.is_empty())
    }

    fn post(&self, lsn: Lsn, topic: &str, payload: String, history: &mut History) -> Verdict {
        history.routed(lsn.0, &Publish { topic: topic.to_owned(), payload, ..Publish::default() })
    }
}
