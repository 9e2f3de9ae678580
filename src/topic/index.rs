//! The subscription index: which subscriptions match a topic; for many threads at once.
//!
//! Filters are spread over shards by their first level, those that begin with a wildcard have a shard of
//! their own, so a topic is looked for in two shards, and a storm of subscriptions under one first level
//! leaves the others alone. Each shard counts its changes, for those who remember matches.
//!
//! Invariant: a shard's count rises under its write lock, together with the change.

use std::{
    hash::{BuildHasher, Hash},
    sync::atomic::{AtomicU64, Ordering},
};

use foldhash::fast::RandomState;
use parking_lot::RwLock;

use super::{TopicFilter, TopicName, trie::Trie};

/// How many shards share the first levels.
const SHARDS: usize = 64;

/// Topic filters, each with the keys that subscribed with it and a value for each key. Keys are dropped
/// under a shard's lock: dropping one must not come back to the index.
#[derive(Debug)]
pub struct SubscriptionIndex<K, V> {
    by_first_level: Box<[Shard<K, V>]>,
    wildcard_first: Shard<K, V>,
    hasher: RandomState,
}

/// A point in the history of the filters that a topic's first level concerns. While the stamp of a topic
/// is equal, its matches are the same.
///
/// A cache must take the stamp *before* it matches: what is changed between the two then makes the cache
/// miss once too often. The other way round it would keep what is no longer true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    first_level: u64,
    wildcard_first: u64,
}

/// Aligned, so that readers of one shard do not share a cache line with the next.
#[derive(Debug)]
#[repr(align(128))]
struct Shard<K, V> {
    changes: AtomicU64,
    trie: RwLock<Trie<K, V>>,
}

impl<K: Clone + Eq + Hash, V> SubscriptionIndex<K, V> {
    /// An empty index.
    pub fn new() -> Self {
        Self {
            by_first_level: (0..SHARDS).map(|_| Shard::new()).collect(),
            wildcard_first: Shard::new(),
            hasher: RandomState::default(),
        }
    }

    /// Sets the value of `key` under `filter`; what it was before.
    pub fn insert(&self, filter: &TopicFilter, key: K, value: V) -> Option<V> {
        let shard = self.shard_of_filter(filter);
        let mut trie = shard.trie.write();
        let replaced = trie.insert(filter, key, value);
        shard.changes.fetch_add(1, Ordering::Release);
        replaced
    }

    /// Takes `key` under `filter` out; what its value was, if it was there.
    pub fn remove(&self, filter: &TopicFilter, key: &K) -> Option<V> {
        let shard = self.shard_of_filter(filter);
        let mut trie = shard.trie.write();
        let removed = trie.remove(filter, key)?;
        shard.changes.fetch_add(1, Ordering::Release);
        Some(removed)
    }

    /// Calls `visit` with every entry (filter and key) that matches `topic`, each once; a key comes as often
    /// as it has matching filters. The order follows from the calls made before, not from chance.
    ///
    /// The work is bounded by the nodes that match a beginning of the topic: with `+` beside a name at each
    /// of n levels 2^n, and never more than there are. The index is locked for reading meanwhile: `visit`
    /// must be short and must not come back to the index.
    pub fn for_each_match(&self, topic: &TopicName<'_>, mut visit: impl FnMut(&K, &V)) {
        self.shard_of_level(topic.first_level()).trie.read().for_each_match(*topic, &mut visit);
        // [MQTT-4.7.2-1]
        if !topic.is_system() {
            self.wildcard_first.trie.read().for_each_match(*topic, &mut visit);
        }
    }

    /// The stamp of `topic`: a hash of its first level and two loads. Take it before matching (see
    /// [`Stamp`]). Whoever has seen an insert or a remove return, or has taken a lock after the one who
    /// did, gets another stamp than before.
    pub fn stamp(&self, topic: &TopicName<'_>) -> Stamp {
        let first_level = self.shard_of_level(topic.first_level()).changes.load(Ordering::Acquire);
        let wildcard_first =
            if topic.is_system() { 0 } else { self.wildcard_first.changes.load(Ordering::Acquire) };
        Stamp { first_level, wildcard_first }
    }

    /// How many entries there are: pairs of filter and key. Asks every shard: for metrics, not for the
    /// hot path.
    pub fn len(&self) -> usize {
        self.shards().map(|shard| shard.trie.read().len()).sum()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shards(&self) -> impl Iterator<Item = &Shard<K, V>> {
        self.by_first_level.iter().chain([&self.wildcard_first])
    }

    fn shard_of_filter(&self, filter: &TopicFilter) -> &Shard<K, V> {
        if filter.starts_with_wildcard() {
            return &self.wildcard_first;
        }
        self.shard_of_level(filter.first_level())
    }

    fn shard_of_level(&self, level: &str) -> &Shard<K, V> {
        // In range: there are as many shards as the remainder has values.
        &self.by_first_level[self.hasher.hash_one(level) as usize % SHARDS]
    }
}

impl<K: Clone + Eq + Hash, V> Default for SubscriptionIndex<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Clone + Eq + Hash, V> Shard<K, V> {
    fn new() -> Self {
        Self { changes: AtomicU64::new(0), trie: RwLock::new(Trie::new()) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Model = BTreeMap<(String, u8), u16>;

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::parse(text, u16::MAX).unwrap()
    }

    fn topic(text: &str) -> TopicName<'_> {
        TopicName::parse(text, u16::MAX).unwrap()
    }

    fn matches(index: &SubscriptionIndex<u8, u16>, text: &str) -> Vec<(u8, u16)> {
        let mut found = Vec::new();
        index.for_each_match(&topic(text), |key, value| found.push((*key, *value)));
        found.sort_unstable();
        found
    }

    fn naive(model: &Model, text: &str) -> Vec<(u8, u16)> {
        let matching = model.iter().filter(|((filter_text, _), _)| filter(filter_text).matches(&topic(text)));
        let mut found: Vec<_> = matching.map(|((_, key), value)| (*key, *value)).collect();
        found.sort_unstable();
        found
    }

    fn assert_no_nodes(index: &SubscriptionIndex<u8, u16>) {
        assert!(index.is_empty());
        assert!(index.shards().all(|shard| shard.trie.read().check() == 1), "only roots are left");
    }

    /// Few names, so that filters and topics often meet.
    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(&["a", "b", "", "$x", "a-", "é"][..])
    }

    fn topics() -> impl Strategy<Value = String> {
        prop::collection::vec(level(), 1..6)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("not empty", |text| !text.is_empty())
    }

    fn filters() -> impl Strategy<Value = String> {
        let levels = prop::collection::vec(prop_oneof![2 => level(), 1 => Just("+")], 1..6);
        (levels, any::<bool>())
            .prop_map(|(levels, multi)| levels.join("/") + if multi { "/#" } else { "" })
            .prop_map(|text| if text == "+/#" { "#".to_owned() } else { text })
            .prop_filter("not empty", |text| !text.is_empty())
    }

    fn ops() -> impl Strategy<Value = Vec<(String, u8, u16, bool)>> {
        prop::collection::vec((filters(), 0_u8..4, any::<u16>(), prop::bool::weighted(0.7)), 0..80)
    }

    fn apply(
        index: &SubscriptionIndex<u8, u16>,
        model: &mut Model,
        op: (String, u8, u16, bool),
    ) -> Result<(), TestCaseError> {
        let (text, key, value, insert) = op;
        if insert {
            prop_assert_eq!(index.insert(&filter(&text), key, value), model.insert((text, key), value));
        } else {
            prop_assert_eq!(index.remove(&filter(&text), &key), model.remove(&(text, key)));
        }
        prop_assert_eq!(index.len(), model.len());
        index.shards().for_each(|shard| assert!(shard.trie.read().check() >= 1));
        Ok(())
    }

    proptest! {
        #[test]
        fn matches_as_the_naive_way_and_returns_to_empty(
            ops in ops(),
            texts in prop::collection::vec(topics(), 1..20),
        ) {
            let index = SubscriptionIndex::new();
            let mut model = Model::new();
            for op in ops {
                apply(&index, &mut model, op)?;
            }
            for text in &texts {
                prop_assert_eq!(matches(&index, text), naive(&model, text), "{}", text);
            }
            for (text, key) in model.into_keys() {
                prop_assert!(index.remove(&filter(&text), &key).is_some());
            }
            assert_no_nodes(&index);
        }

        #[test]
        fn the_same_stamp_means_the_same_matches(ops in ops(), texts in prop::collection::vec(topics(), 1..8)) {
            let index = SubscriptionIndex::new();
            let mut model = Model::new();
            let mut known: Vec<_> =
                texts.iter().map(|text| (index.stamp(&topic(text)), matches(&index, text))).collect();
            for op in ops {
                apply(&index, &mut model, op)?;
                for (text, (stamp, found)) in texts.iter().zip(&mut known) {
                    let now = index.stamp(&topic(text));
                    if now == *stamp {
                        prop_assert_eq!(&*found, &matches(&index, text));
                    }
                    (*stamp, *found) = (now, matches(&index, text));
                }
            }
        }
    }

    #[test]
    fn a_key_comes_once_for_each_of_its_filters() {
        let index = SubscriptionIndex::new();
        for (value, text) in ["a/b", "a/+", "a/b/#", "#", "+/b", "a/c"].into_iter().enumerate() {
            assert_eq!(index.insert(&filter(text), 7, value as u16), None);
        }
        assert_eq!(matches(&index, "a/b"), [(7, 0), (7, 1), (7, 2), (7, 3), (7, 4)]);
        assert_eq!(index.insert(&filter("a/b"), 7, 9), Some(0), "a second SUBSCRIBE replaces");
        assert_eq!(index.len(), 6);
    }

    #[test]
    fn system_topics_are_left_alone_by_leading_wildcards() {
        let index = SubscriptionIndex::new();
        for (key, text) in ["#", "+/x", "$SYS/#", "$SYS/+"].into_iter().enumerate() {
            index.insert(&filter(text), key as u8, 0);
        }
        assert_eq!(matches(&index, "$SYS/x"), [(2, 0), (3, 0)]);
        assert_eq!(matches(&index, "a/x"), [(0, 0), (1, 0)]);
        assert_eq!(matches(&index, "$other/x"), []);
    }

    #[test]
    fn stamps_move_only_for_those_concerned() {
        let index = SubscriptionIndex::new();
        let stamps = || (index.stamp(&topic("a/b")), index.stamp(&topic("$SYS/b")));
        let (ordinary, system) = stamps();
        index.insert(&filter("+/c"), 1, 0_u16);
        assert_ne!(stamps().0, ordinary);
        assert_eq!(stamps().1, system, "a leading wildcard does not concern system topics");
        let before = stamps();
        assert_eq!(index.remove(&filter("a/b"), &1_u8), None);
        assert_eq!(stamps(), before, "nothing was removed");
        index.insert(&filter("a/b"), 1, 0);
        assert_ne!(stamps().0, before.0);
        let before = stamps();
        index.insert(&filter("a/b"), 1, 5);
        assert_ne!(stamps().0, before.0, "a new value is a change");
    }

    #[test]
    fn work_is_bounded_by_the_nodes_that_exist() {
        // 2^10 filters that all match: `+` or a name at each of ten levels.
        let index = SubscriptionIndex::new();
        for bits in 0..1024_u16 {
            let levels: Vec<_> = (0..10).map(|bit| if bits >> bit & 1 == 1 { "+" } else { "a" }).collect();
            index.insert(&filter(&levels.join("/")), 0, bits);
        }
        let found = matches(&index, &["a"; 10].join("/"));
        assert_eq!(found, (0..1024).map(|bits| (0, bits)).collect::<Vec<_>>());
    }

    #[test]
    fn the_deepest_topic_needs_no_stack() {
        let deep = || {
            let name = "/".repeat(65_534);
            let index = SubscriptionIndex::new();
            let texts = [name.clone(), "+/".repeat(32_767) + "#", format!("{}#", "/".repeat(65_534))];
            for (key, text) in texts.iter().enumerate() {
                index.insert(&filter(text), key as u8, 0);
            }
            assert_eq!(matches(&index, &name), naive_keys(&texts, &name));
            for (key, text) in texts.iter().enumerate() {
                assert_eq!(index.remove(&filter(text), &(key as u8)), Some(0));
            }
            assert_no_nodes(&index);
            // Dropping a deep trie that is not empty.
            index.insert(&filter(&name), 0, 0);
        };
        std::thread::Builder::new().stack_size(64 * 1024).spawn(deep).unwrap().join().unwrap();
    }

    fn naive_keys(texts: &[String], name: &str) -> Vec<(u8, u16)> {
        let keys = (0_u8..).zip(texts).filter(|(_, text)| filter(text).matches(&topic(name)));
        keys.map(|(key, _)| (key, 0)).collect()
    }
}
