//! The retained tree against a sorted list that is filtered, with scans that are interrupted by changes.

use std::collections::{BTreeMap, BTreeSet};

use causeway::topic::{RetainedTree, TopicFilter, TopicName};

use super::{Input, topics};

type Model = BTreeMap<String, u16>;

/// A scan that goes on chunk by chunk.
struct Scan {
    filter: String,
    cursor: Option<String>,
    max: usize,
    /// What matched at the beginning and was not removed since: it has to be seen.
    owed: BTreeSet<String>,
    last: Option<String>,
}

pub fn run(input: &[u8]) {
    let mut input = Input(input);
    let tree = RetainedTree::new();
    let mut model = Model::new();
    let mut scans: Vec<Scan> = Vec::new();
    while !input.is_empty() {
        match input.below(8) {
            0..3 => put(&tree, &mut model, topics::name(&mut input), input.u16()),
            3 => remove(&tree, &mut model, &mut scans, &topics::name(&mut input)),
            4 => put_many(&tree, &mut model, &mut input),
            5 => begin(&model, &mut scans, &mut input),
            6 => scans.retain_mut(|scan| !step(&tree, &model, scan)),
            _ => scan_at_once(&tree, &model, &topics::filter(&mut input)),
        }
        assert_eq!(tree.len(), model.len());
    }
    while !scans.is_empty() {
        scans.retain_mut(|scan| !step(&tree, &model, scan));
    }
    scan_at_once(&tree, &model, "#");
}

fn put(tree: &RetainedTree<u16>, model: &mut Model, name: String, value: u16) {
    if let Ok(topic) = TopicName::parse(&name, u16::MAX) {
        assert_eq!(tree.put(&topic, value), model.get(&name).copied());
        assert_eq!(tree.get(&topic), Some(value));
        model.insert(name, value);
    }
}

/// Long siblings, so that a scan has to examine more than it may at once.
fn put_many(tree: &RetainedTree<u16>, model: &mut Model, input: &mut Input<'_>) {
    let (parent, count) = (topics::name(input), input.below(32));
    let padding = "p".repeat(usize::from(input.byte()) * 32);
    if model.len() < 500 {
        (0..count).for_each(|n| put(tree, model, format!("{parent}/{padding}{n}"), n.into()));
    }
}

fn remove(tree: &RetainedTree<u16>, model: &mut Model, scans: &mut [Scan], name: &str) {
    if let Ok(topic) = TopicName::parse(name, u16::MAX) {
        assert_eq!(tree.remove(&topic), model.remove(name));
        assert_eq!(tree.get(&topic), None);
        for scan in scans {
            scan.owed.remove(name);
        }
    }
}

fn begin(model: &Model, scans: &mut Vec<Scan>, input: &mut Input<'_>) {
    let (filter, max) = (topics::filter(input), usize::from(input.below(8)));
    if scans.len() < 4 && topics::is_filter(&filter) {
        let owed = matching(model, &filter).collect();
        scans.push(Scan { filter, cursor: None, max, owed, last: None });
    }
}

/// The next chunk; true when it was the last.
fn step(tree: &RetainedTree<u16>, model: &Model, scan: &mut Scan) -> bool {
    let filter = TopicFilter::parse(&scan.filter, u16::MAX).unwrap();
    let mut visited = 0;
    let cursor = tree.scan(&filter, scan.cursor.as_deref(), scan.max, |name, value| {
        visited += 1;
        assert!(scan.last.as_deref().is_none_or(|last| last < name), "{name:?} after {:?}", scan.last);
        assert!(topics::matches(&scan.filter, name), "{name:?} for {:?}", scan.filter);
        assert_eq!(model.get(name), Some(value), "{name:?}");
        scan.owed.remove(name);
        scan.last = Some(name.to_owned());
        true
    });
    assert!(visited <= scan.max.max(1));
    assert!(cursor.is_none() || cursor > scan.cursor, "a scan goes forward");
    scan.cursor = cursor;
    if scan.cursor.is_none() {
        assert!(scan.owed.is_empty(), "{:?} has missed {:?}", scan.filter, scan.owed);
    }
    scan.cursor.is_none()
}

/// With nothing changed in between a scan finds what there is, in order.
fn scan_at_once(tree: &RetainedTree<u16>, model: &Model, filter: &str) {
    let Ok(parsed) = TopicFilter::parse(filter, u16::MAX) else { return };
    let (mut found, mut cursor, mut calls) = (Vec::new(), None, 0);
    loop {
        cursor = tree.scan(&parsed, cursor.as_deref(), usize::MAX, |name, _| {
            found.push(name.to_owned());
            true
        });
        calls += 1;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(found, matching(model, filter).collect::<Vec<_>>(), "{filter:?}");
    assert!(calls <= 2 + model.len() / 8, "{calls} calls for {} topics", model.len());
}

fn matching<'a>(model: &'a Model, filter: &'a str) -> impl Iterator<Item = String> + 'a {
    model.keys().filter(move |name| topics::matches(filter, name)).cloned()
}
