//! `[dead_letters]`: what becomes one beside what a queue or a target gives up, and how long they are kept.

use std::{ops::RangeInclusive, time::Duration};

use toml::{Spanned, de::DeValue};

use super::report::Wrong;
use super::section::Section;
use super::values;
use crate::topic::TopicFilter;

/// Zero is no limit.
const KEPT: RangeInclusive<Duration> = Duration::ZERO..=*values::AGE.end();
const WHEN_FULL: [(&str, WhenFull); 2] =
    [("keep_oldest", WhenFull::KeepOldest), ("drop_oldest", WhenFull::DropOldest)];

/// What is kept of messages that nobody got, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLettersConfig {
    /// Dead letters that are older are discarded; `None` keeps them.
    pub age: Option<Duration>,
    /// What happens at the limits of their number and bytes.
    pub when_full: WhenFull,
    /// Topic filters: messages that expire in the queue of a session or shared group become dead letters.
    pub expired: Vec<String>,
    /// Topic filters: messages that are larger than their client takes become dead letters.
    pub oversize: Vec<String>,
    /// Topic filters: messages that nobody takes become dead letters.
    pub unroutable: Vec<String>,
}

/// What happens when there are as many dead letters as there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// Those there are stay: publishers are refused where a message would become one, and what a target rejects is
    /// lost, which is counted and logged.
    #[default]
    KeepOldest,
    /// The oldest go, which is counted and logged.
    DropOldest,
}

impl Default for DeadLettersConfig {
    fn default() -> Self {
        Self {
            age: None,
            when_full: WhenFull::default(),
            expired: Vec::new(),
            oversize: vec!["#".to_owned()],
            unroutable: Vec::new(),
        }
    }
}

impl DeadLettersConfig {
    pub(super) fn read(section: &mut Section<'_>, levels_max: u16) -> Self {
        let default = Self::default();
        let age = section.duration("age", KEPT, default.age.unwrap_or_default());
        if !age.is_zero() && age < *values::AGE.start() {
            section.wrong("age", Wrong::new("must be at least 1s").help("or \"0s\", for no limit"));
        }
        let mut filters = |key, default: Vec<String>| {
            let is_there = section.take(key, |_| Ok(())).is_some();
            let read = section.list(key, |value| topic_filter(value, levels_max));
            if is_there { read.into_iter().map(Spanned::into_inner).collect() } else { default }
        };
        Self {
            age: Some(age).filter(|age| !age.is_zero()),
            expired: filters("expired", default.expired),
            oversize: filters("oversize", default.oversize),
            unroutable: filters("unroutable", default.unroutable),
            when_full: section.take("when_full", when_full).map_or(default.when_full, Spanned::into_inner),
        }
    }
}

fn topic_filter(value: &DeValue<'_>, levels_max: u16) -> Result<String, Wrong> {
    let filter = value.as_str().ok_or_else(|| values::unexpected("a topic filter in quotes", value))?;
    match TopicFilter::parse(filter, levels_max) {
        Ok(_) => Ok(filter.to_owned()),
        Err(error) => {
            let wrong = format!("has {}, which is no topic filter: it {error}", values::describe(value));
            Err(Wrong::new(wrong).help("write \"orders/#\", or \"#\" for every topic"))
        }
    }
}

fn when_full(value: &DeValue<'_>) -> Result<WhenFull, Wrong> {
    let known = WHEN_FULL.iter().find(|(name, _)| value.as_str() == Some(*name));
    known.map(|(_, when_full)| *when_full).ok_or_else(|| {
        values::unexpected(&format!("one of {}", WHEN_FULL.map(|(name, _)| name).join(", ")), value)
    })
}
