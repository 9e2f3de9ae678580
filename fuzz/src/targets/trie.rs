//! The subscription index against a list that is searched from end to end.

use std::collections::BTreeMap;

use causeway::topic::{Stamp, SubscriptionFilter, SubscriptionIndex, TopicFilter, TopicName};

use super::{Input, topics};

/// Filters by text and key, with their values.
type Model = BTreeMap<(String, u8), u16>;

/// A topic that somebody remembers the matches of.
struct Remembered {
    name: String,
    stamp: Stamp,
    matches: Vec<(u8, u16)>,
}

pub fn run(input: &[u8]) {
    let mut input = Input(input);
    let index = SubscriptionIndex::new();
    let mut model = Model::new();
    let mut remembered = Vec::new();
    while !input.is_empty() {
        match input.below(8) {
            0..3 => insert(&index, &mut model, &mut input),
            3 => remove(&index, &mut model, &mut input),
            4 => judge(&mut input),
            5 => remember(&index, &mut remembered, &mut input),
            _ => look(&index, &model, &topics::name(&mut input)),
        }
        assert_eq!(index.len(), model.len());
        check_remembered(&index, &mut remembered);
    }
    for (text, key) in model.into_keys() {
        assert!(index.remove(&TopicFilter::parse(&text, u16::MAX).unwrap(), &key).is_some(), "{text:?}");
    }
    assert!(index.is_empty());
}

fn insert(index: &SubscriptionIndex<u8, u16>, model: &mut Model, input: &mut Input<'_>) {
    let (text, key, value) = (topics::filter(input), input.below(4), input.u16());
    if let Some(filter) = parse(&text) {
        assert_eq!(index.insert(&filter, key, value), model.insert((text, key), value));
    }
}

fn remove(index: &SubscriptionIndex<u8, u16>, model: &mut Model, input: &mut Input<'_>) {
    let (text, key) = (topics::filter(input), input.below(4));
    if let Some(filter) = parse(&text) {
        assert_eq!(index.remove(&filter, &key), model.remove(&(text, key)));
    }
}

/// Any text: the types and the plain rules agree on what it is.
fn judge(input: &mut Input<'_>) {
    let len = usize::from(input.byte());
    let Ok(text) = std::str::from_utf8(input.bytes(len)) else { return };
    parse(text);
    let name = TopicName::parse(text, u16::MAX);
    assert_eq!(name.is_ok(), topics::is_name(text), "{text:?}: {name:?}");
    let levels = text.split('/').count() as u16;
    assert!(TopicName::parse(text, levels - 1).is_err(), "{text:?} has {levels} levels");
    judge_shared(text);
}

/// `$share/<name>/<filter>` (section 4.8.2).
fn judge_shared(text: &str) {
    let parsed = SubscriptionFilter::parse(text, u16::MAX);
    let Some(shared) = text.strip_prefix("$share").filter(|rest| rest.is_empty() || rest.starts_with('/'))
    else {
        assert_eq!(parsed.is_ok(), topics::is_filter(text), "{text:?}: {parsed:?}");
        return;
    };
    let mut parts = shared.splitn(3, '/').skip(1);
    let (name, filter) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let is_right = !name.is_empty() && topics::is_name(name) && topics::is_filter(filter);
    assert_eq!(parsed.is_ok(), is_right, "{text:?}: {parsed:?}");
    if let Ok(parsed) = parsed {
        assert_eq!(parsed.to_string(), text);
        assert_eq!((parsed.share.unwrap().as_str(), parsed.filter.as_str()), (name, filter));
    }
}

fn remember(index: &SubscriptionIndex<u8, u16>, remembered: &mut Vec<Remembered>, input: &mut Input<'_>) {
    let name = topics::name(input);
    if let Ok(topic) = TopicName::parse(&name, u16::MAX) {
        // The stamp first, as its documentation asks for.
        let (stamp, matches) = (index.stamp(&topic), found(index, &topic));
        remembered.truncate(7);
        remembered.insert(0, Remembered { name, stamp, matches });
    }
}

/// While the stamp is the same, so are the matches.
fn check_remembered(index: &SubscriptionIndex<u8, u16>, remembered: &mut [Remembered]) {
    for one in remembered {
        let topic = TopicName::parse(&one.name, u16::MAX).unwrap();
        let stamp = index.stamp(&topic);
        let matches = found(index, &topic);
        if stamp == one.stamp {
            assert_eq!(matches, one.matches, "{:?} has changed unseen", one.name);
        }
        (one.stamp, one.matches) = (stamp, matches);
    }
}

fn look(index: &SubscriptionIndex<u8, u16>, model: &Model, name: &str) {
    let Ok(topic) = TopicName::parse(name, u16::MAX) else {
        assert!(!topics::is_name(name), "{name:?}");
        return;
    };
    let matching = model.iter().filter(|((filter, _), _)| topics::matches(filter, name));
    let mut wanted: Vec<_> = matching.map(|((_, key), value)| (*key, *value)).collect();
    wanted.sort_unstable();
    assert_eq!(found(index, &topic), wanted, "{name:?} among {model:?}");
    for (filter, _) in model.keys() {
        let one = TopicFilter::parse(filter, u16::MAX).unwrap();
        assert_eq!(one.matches(&topic), topics::matches(filter, name), "{filter:?} and {name:?}");
    }
}

fn found(index: &SubscriptionIndex<u8, u16>, topic: &TopicName<'_>) -> Vec<(u8, u16)> {
    let mut found = Vec::new();
    index.for_each_match(topic, |key, value| found.push((*key, *value)));
    found.sort_unstable();
    found
}

fn parse(text: &str) -> Option<TopicFilter> {
    let filter = TopicFilter::parse(text, u16::MAX);
    assert_eq!(filter.is_ok(), topics::is_filter(text), "{text:?}: {filter:?}");
    filter.ok()
}
