//! `[[routes]]`: which messages go to which target.

mod batch;
mod dead_letters;
mod filter;
mod order;
mod reply;
mod request;
mod template;
#[cfg(test)]
mod tests;

use std::time::Duration;

use toml::{Spanned, de::DeValue};

use super::report::Wrong;
use super::section::Section;
use super::values::AGE;
use super::{Limits, QueueConfig, queue, values};
use crate::topic::TopicFilter;
pub use batch::BatchConfig;
pub use dead_letters::SinkConfig;
pub use filter::{Expression, FILTER_VARIABLES, FilterConfig, LOOPED_VALUES_MAX, OnFilterError};
pub use order::Order;
pub use request::{BatchForm, Body, CloudEventsConfig, CloudEventsMode, IdSource, RequestConfig, check_path};
pub use template::{Template, VARIABLES};

/// How long a message keeps those behind it waiting, where nothing else is said.
const BLOCK_MAX: Duration = Duration::from_mins(5);

/// One of `[[routes]]`: messages whose topic matches go to a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteConfig {
    /// Its name in the store, in metrics and on the command line; unique.
    pub name: String,
    /// Topic filters; a message that matches one of them is taken. At least one.
    pub topics: Vec<String>,
    /// Topic filters; a message that matches one of them is not taken after all.
    pub exclude: Vec<String>,
    /// Which of those messages are taken; `None` is all of them.
    pub filter: Option<FilterConfig>,
    /// The name of a target in [`Config::targets`](super::Config::targets).
    pub target: String,
    /// What its requests look like.
    pub request: RequestConfig,
    /// Which messages must not overtake each other.
    pub order: Order,
    /// How long a message that its target answers but does not take may keep those behind it waiting. Then it is
    /// given up.
    pub block_max: Duration,
    /// With this a request carries several messages.
    pub batch: Option<BatchConfig>,
    /// With this the answer to a message is published to its Response Topic, up to so many bytes of it.
    pub reply_max: Option<usize>,
    /// What waits on disk for it: [`Limits::queue`] where it says nothing else.
    pub queue: QueueConfig,
    /// Where its dead letters go beside the store.
    pub dead_letters: SinkConfig,
}

impl RouteConfig {
    /// A route of this name that takes what one filter matches, with every default.
    pub fn new(name: &str, topic: &str, target: &str) -> Self {
        Self {
            name: name.to_owned(),
            topics: vec![topic.to_owned()],
            exclude: Vec::new(),
            filter: None,
            target: target.to_owned(),
            request: RequestConfig::default(),
            order: Order::default(),
            block_max: BLOCK_MAX,
            batch: None,
            reply_max: None,
            queue: QueueConfig::default(),
            dead_letters: SinkConfig::default(),
        }
    }
}

/// Reads each `[[routes]]`; `targets` are the names that there are, and `limits` what applies to all of them.
pub(super) fn read_routes(root: &mut Section<'_>, targets: &[String], limits: &Limits) -> Vec<RouteConfig> {
    let mut names: Vec<Spanned<String>> = Vec::new();
    // Those that have a second target.
    let mut sinks = Vec::new();
    let routes = root.sections("routes", |section| {
        let name = section.require("name", "\"a-name\"", values::text);
        if let Some(name) = &name {
            check_route_name(section, name, &names);
        }
        let filter = |value: &DeValue<'_>| topic_filter(value, limits.topic_levels);
        let topics = section.require_list("topics", "[\"plant/#\"]", filter);
        let exclude = section.list("exclude", filter);
        let target = section.require("target", "\"the name of one of [targets.NAME]\"", values::text);
        if let Some(target) = &target {
            check_target(section, "target", target.get_ref(), targets);
        }
        let message_filter = FilterConfig::read(section);
        let request = section.section("request", RequestConfig::read);
        let queue = queue::read_queue(section, &limits.queue);
        if queue.bytes != limits.queue.bytes {
            queue::check_room(section, "queued_bytes", queue.bytes, limits.packet_size);
        }
        let order = section.take("order", Order::parse).map(Spanned::into_inner).unwrap_or_default();
        let block_max = section.duration("block_max", AGE, BLOCK_MAX);
        let batch = section.optional_section("batch", BatchConfig::read);
        if let (Some(_), Err(why)) = (&batch, request.check_batch()) {
            section.wrong("batch", why);
        }
        let reply_max = reply::read(section, batch.is_some());
        let (dead_letters, sink) = SinkConfig::read(section);
        if let Some(sink) = &sink {
            check_target(section, "dead_letter_sink", sink.get_ref(), targets);
            sinks.extend(name.clone());
        }
        if let Some(name) = &name {
            dead_letters::check_name(section, name.get_ref(), &names, &sinks);
        }
        names.extend(name.clone());
        let plain = |filters: Vec<Spanned<String>>| filters.into_iter().map(Spanned::into_inner).collect();
        let (topics, exclude) = (plain(topics), plain(exclude));
        let (name, target) = (name?.into_inner(), target?.into_inner());
        Some(RouteConfig {
            name,
            topics,
            exclude,
            filter: message_filter,
            target,
            request,
            order,
            block_max,
            batch,
            reply_max,
            queue,
            dead_letters,
        })
    });
    dead_letters::with_sinks(routes.into_iter().flatten().flatten().collect())
}

fn check_route_name(section: &Section<'_>, name: &Spanned<String>, names: &[Spanned<String>]) {
    if let Err(wrong) = values::check_name(name.get_ref()) {
        section.wrong("name", wrong);
    }
    if let Some(other) = names.iter().find(|other| other.get_ref() == name.get_ref()) {
        let line = section.report().line(other.span());
        let message = format!("\"{}\" is used already, on line {line}", name.get_ref().escape_debug());
        section.wrong("name", Wrong::new(message).help("give each route a name of its own"));
    }
}

fn check_target(section: &Section<'_>, key: &str, target: &str, targets: &[String]) {
    if targets.iter().any(|known| known == target) {
        return;
    }
    let shown = target.escape_debug();
    let help = match values::nearest(target, targets.iter().map(String::as_str)) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None if targets.is_empty() => format!("add [targets.{shown}] with a url"),
        None => format!("there are: {}", targets.join(", ")),
    };
    section.wrong(key, Wrong::new(format!("names \"{shown}\", but there is no such target")).help(help));
}

fn topic_filter(value: &DeValue<'_>, levels_max: u16) -> Result<String, Wrong> {
    let filter = value.as_str().ok_or_else(|| values::unexpected("a topic filter in quotes", value))?;
    check_filter(filter, levels_max).map_err(|why| {
        let message = format!("has {}, which a route cannot have: {why}", values::describe(value));
        Wrong::new(message).help("write a topic filter like \"plant/+/temperature\" or \"plant/#\"")
    })?;
    Ok(filter.to_owned())
}

/// Why a route cannot have this topic filter.
fn check_filter(filter: &str, levels_max: u16) -> Result<(), String> {
    if filter.starts_with("$share/") {
        return Err("a route takes every message itself and shares none".into());
    }
    match TopicFilter::parse(filter, levels_max) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("it {error}")),
    }
}
