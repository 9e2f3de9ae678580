//! Topics and filters that are made to hurt.

use std::time::{Duration, Instant};

use super::*;

/// More than any of this takes on the slowest machine, less than something exponential takes on the fastest.
const BOUND: Duration = Duration::from_secs(10);

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text, u16::MAX).unwrap()
}

fn topic(text: &str) -> TopicName<'_> {
    TopicName::parse(text, u16::MAX).unwrap()
}

fn count(index: &SubscriptionIndex<u32, ()>, text: &str) -> usize {
    let mut found = 0;
    index.for_each_match(&topic(text), |_, ()| found += 1);
    found
}

#[test]
fn level_depth() {
    let everything = || {
        let deepest = "/".repeat(65_534);
        let above = "/".repeat(65_535);
        for refused in [&above, &deepest] {
            assert!(TopicName::parse(refused, 200).is_err() && TopicFilter::parse(refused, 200).is_err());
        }
        let index = SubscriptionIndex::new();
        let filters = [deepest.clone(), format!("{}#", &deepest[1..]), ["+"; 32_768].join("/")];
        for filter_text in &filters {
            index.insert(&filter(filter_text), 1, ());
        }
        assert_eq!(count(&index, &deepest), 2);
        assert!(filter(&filters[1]).matches(&topic(&deepest)));
        let tree = RetainedTree::new();
        assert_eq!(tree.put(&topic(&deepest), ()), None);
        let mut found = 0;
        let mut cursor = tree.scan(&filter(&filters[1]), None, 10, |_, ()| {
            found += 1;
            true
        });
        while let Some(behind) = cursor {
            cursor = tree.scan(&filter("#"), Some(&behind), 10, |_, ()| true);
        }
        assert_eq!(found, 1);
        assert_eq!(tree.remove(&topic(&deepest)), Some(()));
        for filter_text in &filters[1..] {
            assert_eq!(index.remove(&filter(filter_text), &1), Some(()));
        }
        // With the first still in it.
        drop(index);
    };
    let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn(everything).unwrap();
    thread.join().unwrap();
}

#[test]
fn wildcard_storm() {
    let index = SubscriptionIndex::new();
    let mut next = 0;
    let mut insert = |text: &str| {
        next += 1;
        assert_eq!(index.insert(&filter(text), next, ()), None);
    };
    // Every mixture of `a` and `+` on 13 levels, with `#` behind it: all of them match.
    for bits in 0..1 << 13 {
        let levels: Vec<_> = (0..13).map(|level| if bits >> level & 1 == 1 { "+" } else { "a" }).collect();
        insert(&format!("{}/#", levels.join("/")));
    }
    // And as many levels of nothing but `+` as there may be.
    for depth in 1..=2000 {
        insert(&format!("{}/#", vec!["+"; depth].join("/")).replacen("+/#", "b/#", usize::from(depth == 13)));
    }
    let since = Instant::now();
    for _ in 0..10 {
        assert_eq!(count(&index, &vec!["a"; 13].join("/")), (1 << 13) + 12);
        // On the last level none of them goes on: all were walked for nothing.
        assert_eq!(count(&index, &vec!["a"; 2500].join("/")), (1 << 13) + 1999);
        assert_eq!(count(&index, &vec!["c"; 13].join("/")), 1 + 12);
    }
    assert!(since.elapsed() < BOUND, "{:?}", since.elapsed());
}
