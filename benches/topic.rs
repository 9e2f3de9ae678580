//! What the topic room costs: matching among 400 000 filters, changing them, scanning retained topics.
//!
//! `cargo bench --bench topic`. Prints nanoseconds per operation. "Cold" asks for another topic each time,
//! in an order that no cache can guess; "hot" asks for the same one again.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use causeway::topic::{RetainedTree, SubscriptionIndex, TopicFilter, TopicName};

const SITES: u32 = 400;
const DEVICES: u32 = 1_000;
const FILTERS: u32 = SITES * DEVICES;
const RETAINED: u32 = 1_000_000;
const LEVELS_MAX: u16 = 200;

type Index = SubscriptionIndex<u32, u8>;

fn main() {
    println!("{FILTERS} filters, a first level for each site");
    index(
        |site, device| match device {
            0..10 => format!("+/device/{site}-{device}/alarm"),
            10..20 => format!("site-{site}/+/{device}/#"),
            _ => format!("site-{site}/device/{device}/temperature"),
        },
        |site, device| format!("site-{site}/device/{device}/temperature"),
        &[],
    );
    // One shard has everything, and one node very many children.
    println!("{FILTERS} filters below one first level, and three that match every topic");
    index(
        |site, device| format!("fleet/{site}-{device}/command/#"),
        |site, device| format!("fleet/{site}-{device}/command/stop"),
        &["#", "fleet/+/command/stop", "+/+/command/#"],
    );
    retained();
}

fn index(filter_of: fn(u32, u32) -> String, topic_of: fn(u32, u32) -> String, others: &[&str]) {
    let index = Index::new();
    let filters: Vec<_> = (0..FILTERS).map(|n| filter(&filter_of(n / DEVICES, n % DEVICES))).collect();
    let mut order = Order(1);
    let topics: Vec<_> = (0..FILTERS).map(|_| topic_of(order.below(SITES), order.below(DEVICES))).collect();
    for text in others {
        index.insert(&filter(text), u32::MAX, 0);
    }
    each("insert with its nodes", &filters, |key, filter| index.insert(filter, key, 0));
    let mut found = 0_u64;
    each("parse and match, cold", &topics, |_, text| index.for_each_match(&name(text), |_, _| found += 1));
    println!("    {:.2} matches each", found as f64 / f64::from(FILTERS));
    let hot = [name(&topics[0])].repeat(topics.len());
    each("match, hot", &hot, |_, topic| {
        index.for_each_match(topic, |key, _| found += u64::from(*black_box(key)))
    });
    each("stamp, hot", &hot, |_, topic| index.stamp(topic));
    each("insert beside another", &filters, |key, filter| index.insert(filter, key + FILTERS, 0));
    each("remove beside another", &filters, |key, filter| index.remove(filter, &(key + FILTERS)));
    each("remove with its nodes", &filters, |key, filter| index.remove(filter, &key));
    assert_eq!(index.len(), others.len());
}

fn retained() {
    println!("{RETAINED} retained topics");
    let tree = RetainedTree::new();
    let texts: Vec<_> =
        (0..RETAINED).map(|n| format!("site-{}/device/{}/state", n % SITES, n / SITES)).collect();
    each("put, new", &texts, |number, text| tree.put(&name(text), number));
    each("put, again", &texts, |number, text| tree.put(&name(text), number));
    for text in ["site-7/device/3/state", "site-7/device/+/state", "site-7/#", "+/device/3/state", "#"] {
        scan(&tree, text, 256);
    }
    each("remove", &texts, |_, text| tree.remove(&name(text)));
    assert!(tree.is_empty());
}

fn scan(tree: &RetainedTree<u32>, text: &str, max: usize) {
    let wanted = filter(text);
    let (mut cursor, mut found, mut calls) = (None, 0_u32, 0_u32);
    let (mut total, mut slowest) = (Duration::ZERO, Duration::ZERO);
    loop {
        let start = Instant::now();
        cursor = tree.scan(&wanted, cursor.as_deref(), max, |_, value| {
            found += u32::from(*value < RETAINED);
            true
        });
        (total, slowest, calls) = (total + start.elapsed(), slowest.max(start.elapsed()), calls + 1);
        if cursor.is_none() {
            break;
        }
    }
    report(&format!("scan {text}"), total, found);
    println!("    {found} found in {calls} calls, the slowest {slowest:?}");
}

/// Times `run` over all `items`, each with its number.
fn each<T, R>(what: &str, items: &[T], mut run: impl FnMut(u32, &T) -> R) {
    let start = Instant::now();
    (0..).zip(items).for_each(|(number, item)| drop(black_box(run(number, black_box(item)))));
    report(what, start.elapsed(), items.len() as u32);
}

fn report(what: &str, total: Duration, count: u32) {
    println!("  {what:32} {:8.1} ns", total.as_nanos() as f64 / f64::from(count.max(1)));
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text, LEVELS_MAX).expect("a filter of this file")
}

fn name(text: &str) -> TopicName<'_> {
    TopicName::parse(text, LEVELS_MAX).expect("a topic of this file")
}

/// A sequence without a pattern, the same in every run.
struct Order(u64);

impl Order {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32 % limit
    }
}
