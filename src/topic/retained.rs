//! The retained messages by topic, in the byte order of the topics; read in chunks.
//!
//! A scan leaps: where a topic does not match, it seeks the next one that could. All topics below a
//! prefix lie side by side (from `prefix/` to `prefix0`, since `0` follows `/`), so whatever a level
//! rules out is left by one seek.
//!
//! Invariant: a seek goes forward and leaps over no topic that matches.

use std::{collections::BTreeMap, ops::Bound};

use parking_lot::RwLock;

use super::{TopicFilter, TopicName};

/// How much a single call of [`RetainedTree::scan`] examines, in bytes of topic names: at most a thousand
/// names, some hundred microseconds.
const EXAMINED_BYTES_MAX: usize = 128 * 1024;

/// What a name costs beside its bytes, in the same measure: a seek.
const EXAMINED_BYTES_EACH: usize = 128;

/// What is retained, by topic, behind a lock of its own.
#[derive(Debug)]
pub struct RetainedTree<T> {
    topics: RwLock<BTreeMap<Box<str>, T>>,
}

/// What a scan does with the topic it has come to.
enum Judgement {
    Matches,
    /// The one after it may match.
    Next,
    /// Nothing before the seek target matches.
    Seek,
    /// Nothing after it matches.
    Finished,
}

/// A filter, prepared for a scan.
struct Scan<'f> {
    filter: &'f TopicFilter,
    /// How many levels stand before the first wildcard.
    literal_levels: usize,
    /// Where to go on, when the judgement is to seek.
    target: String,
}

impl<T: Clone> RetainedTree<T> {
    /// An empty tree.
    pub fn new() -> Self {
        Self { topics: RwLock::new(BTreeMap::new()) }
    }

    /// Retains `value` on `topic`; what was there before.
    pub fn put(&self, topic: &TopicName<'_>, value: T) -> Option<T> {
        let mut topics = self.topics.write();
        // Looked for first: a topic that is there needs no new key.
        if let Some(retained) = topics.get_mut(topic.as_str()) {
            return Some(std::mem::replace(retained, value));
        }
        topics.insert(topic.as_str().into(), value)
    }

    /// Retains nothing on `topic`; what was there before.
    pub fn remove(&self, topic: &TopicName<'_>) -> Option<T> {
        self.topics.write().remove(topic.as_str())
    }

    /// What is retained on `topic`.
    pub fn get(&self, topic: &TopicName<'_>) -> Option<T> {
        self.topics.read().get(topic.as_str()).cloned()
    }

    /// How many topics have something retained.
    pub fn len(&self) -> usize {
        self.topics.read().len()
    }

    /// Whether nothing is retained.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Visits up to `max` (at least one) topics that match `filter`, from the first or from behind
    /// `cursor`, in byte order. Returns the cursor to go on with, or `None` when there is no more. A call
    /// may end early, and without a visit, when it had to examine much: the cursor alone says whether the
    /// scan is finished. It also ends when `visit` returns false, behind the topic just visited.
    ///
    /// A topic that is there from the first call to the last is visited once; one put or removed between
    /// calls may be visited or not.
    ///
    /// `visit` runs under the lock on purpose: a caller that pushes into an outbox there cannot be
    /// overtaken by a publish, which changes this tree before it looks for subscribers. So it must be
    /// short, and must not come back to the tree.
    pub fn scan(
        &self,
        filter: &TopicFilter,
        cursor: Option<&str>,
        max: usize,
        mut visit: impl FnMut(&str, &T) -> bool,
    ) -> Option<String> {
        let mut scan = Scan::new(filter);
        let topics = self.topics.read();
        let mut found = topics.range::<str, _>((scan.start(cursor), Bound::Unbounded));
        let (mut visited, mut examined_bytes) = (0, 0);
        while let Some((topic, value)) = found.next() {
            match scan.judge(topic) {
                Judgement::Matches => {
                    visited += 1;
                    if !visit(topic, value) || visited >= max {
                        return Some(topic.to_string());
                    }
                }
                Judgement::Next => {}
                Judgement::Seek => {
                    found = topics.range::<str, _>((Bound::Included(scan.target.as_str()), Bound::Unbounded));
                }
                Judgement::Finished => return None,
            }
            examined_bytes += topic.len() + EXAMINED_BYTES_EACH;
            if examined_bytes >= EXAMINED_BYTES_MAX {
                return Some(topic.to_string());
            }
        }
        None
    }
}

impl<T: Clone> Default for RetainedTree<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<'f> Scan<'f> {
    fn new(filter: &'f TopicFilter) -> Self {
        let literal_levels = filter.levels().take_while(|level| !matches!(*level, "+" | "#")).count();
        Self { filter, literal_levels, target: String::new() }
    }

    /// The first place where a match can be, at or behind the cursor.
    fn start<'a>(&self, cursor: Option<&'a str>) -> Bound<&'a str>
    where
        'f: 'a,
    {
        let prefix = self.filter.literal_prefix();
        // `a/#` also matches `a`.
        let parent = prefix.strip_suffix('/').filter(|_| self.filter.as_str().ends_with('#'));
        let first = parent.unwrap_or(prefix);
        match cursor {
            Some(cursor) if cursor >= first => Bound::Excluded(cursor),
            _ => Bound::Included(first),
        }
    }

    /// Compares `topic` with the filter, level by level, and sets the target when that is to be sought.
    fn judge(&mut self, topic: &str) -> Judgement {
        // [MQTT-4.7.2-1]; `%` follows `$`.
        if topic.starts_with('$') && self.filter.starts_with_wildcard() {
            return self.seek(&["%"]);
        }
        let mut start = 0;
        for (depth, wanted) in self.filter.levels().enumerate() {
            // Asked before the topic's next level: `a/#` matches `a` too.
            if wanted == "#" {
                return Judgement::Matches;
            }
            // Past the end of a topic that has fewer levels than the filter.
            let Some((before, rest)) = topic.split_at_checked(start) else { return Judgement::Next };
            let level = rest.split_once('/').map_or(rest, |(level, _)| level);
            if wanted != "+" && wanted != level {
                return self.leave_level(depth, before, rest, wanted);
            }
            start += level.len() + 1;
        }
        match topic.split_at_checked(start) {
            None => Judgement::Matches,
            // The topic has more levels than the filter, as have all that share these.
            Some((before, _)) => self.leave_prefix(before),
        }
    }

    /// `before` fits the filter, and then `wanted` should come but `rest` does.
    fn leave_level(&mut self, depth: usize, before: &str, rest: &str, wanted: &str) -> Judgement {
        if rest < wanted {
            return self.seek(&[before, wanted]);
        }
        // Characters such as `-` are before `/`: then `wanted/` is still to come.
        if rest.strip_prefix(wanted).is_some_and(|tail| tail < "/") {
            return self.seek(&[before, wanted, "/"]);
        }
        // What fits the filter up to here and is not below `before` differs from it under a `+`.
        if depth <= self.literal_levels {
            return Judgement::Finished;
        }
        self.leave_prefix(before)
    }

    /// Seeks the first topic that is not below `prefix`, which ends with `/`.
    fn leave_prefix(&mut self, prefix: &str) -> Judgement {
        let parent = prefix.strip_suffix('/').unwrap_or(prefix);
        self.seek(&[parent, "0"])
    }

    fn seek(&mut self, target: &[&str]) -> Judgement {
        self.target.clear();
        self.target.extend(target.iter().copied());
        Judgement::Seek
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::parse(text, u16::MAX).unwrap()
    }

    fn topic(text: &str) -> TopicName<'_> {
        TopicName::parse(text, u16::MAX).unwrap()
    }

    fn tree<'a>(texts: impl IntoIterator<Item = &'a str>) -> RetainedTree<()> {
        let tree = RetainedTree::new();
        texts.into_iter().for_each(|text| assert_eq!(tree.put(&topic(text), ()), None));
        tree
    }

    /// All topics that match, in chunks of `max`, and how many calls that took.
    fn scan_all(tree: &RetainedTree<()>, text: &str, max: usize) -> (Vec<String>, usize) {
        let (mut found, mut cursor, mut calls) = (Vec::new(), None, 0);
        loop {
            calls += 1;
            let before = found.len();
            cursor = tree.scan(&filter(text), cursor.as_deref(), max, |topic, ()| {
                found.push(topic.to_owned());
                true
            });
            assert!(found.len() - before <= max.max(1));
            if cursor.is_none() {
                return (found, calls);
            }
        }
    }

    #[test]
    fn keeps_the_last_value_of_each_topic() {
        let tree = RetainedTree::new();
        assert!(tree.is_empty());
        assert_eq!(tree.put(&topic("a/b"), 1), None);
        assert_eq!(tree.put(&topic("a/b"), 2), Some(1));
        assert_eq!((tree.get(&topic("a/b")), tree.get(&topic("a"))), (Some(2), None));
        assert_eq!(tree.len(), 1);
        assert_eq!((tree.remove(&topic("a/b")), tree.remove(&topic("a/b"))), (Some(2), None));
        assert!(tree.is_empty());
    }

    #[test]
    fn siblings_that_sort_before_the_slash_do_not_hide_a_subtree() {
        let tree = tree(["a", "a-b", "a-b/c", "a/b", "a/b-c", "a/b/c", "a0", "a0/b"]);
        assert_eq!(scan_all(&tree, "a/#", 99).0, ["a", "a/b", "a/b-c", "a/b/c"]);
        assert_eq!(scan_all(&tree, "+/b", 99).0, ["a/b", "a0/b"]);
        assert_eq!(scan_all(&tree, "a/b/+", 99).0, ["a/b/c"]);
        assert_eq!(scan_all(&tree, "+/c", 99).0, ["a-b/c"]);
        assert_eq!(scan_all(&tree, "+/b/#", 99).0, ["a/b", "a/b/c", "a0/b"]);
    }

    #[test]
    fn system_topics_are_left_alone_by_leading_wildcards() {
        let tree = tree(["!", "$", "$SYS/x", "$y", "%", "a/x"]);
        assert_eq!(scan_all(&tree, "#", 1).0, ["!", "%", "a/x"]);
        assert_eq!(scan_all(&tree, "+/x", 1).0, ["a/x"]);
        assert_eq!(scan_all(&tree, "$SYS/#", 1).0, ["$SYS/x"]);
        assert_eq!(scan_all(&tree, "$SYS/+", 1).0, ["$SYS/x"]);
    }

    #[test]
    fn a_visit_that_returns_false_ends_the_chunk() {
        let tree = tree(["a/1", "a/2", "a/3"]);
        let mut seen = Vec::new();
        let cursor = tree.scan(&filter("a/+"), None, 99, |topic, ()| {
            seen.push(topic.to_owned());
            topic != "a/2"
        });
        assert_eq!((seen.len(), cursor.as_deref()), (2, Some("a/2")));
        let cursor = tree.scan(&filter("a/+"), cursor.as_deref(), 0, |topic, ()| topic == "a/3");
        assert_eq!(cursor.as_deref(), Some("a/3"), "zero counts as one");
        assert_eq!(tree.scan(&filter("a/+"), cursor.as_deref(), 1, |_, ()| false), None);
    }

    #[test]
    fn what_a_filter_rules_out_is_not_walked_through() {
        let tree = RetainedTree::new();
        for number in 0..2_000 {
            for text in ["a/a/{}/c", "a/b/x/d/{}", "a/b/y/b/{}", "a/c/{}", "b/{}/c", "$SYS/{}"] {
                tree.put(&topic(&text.replace("{}", &number.to_string())), ());
            }
        }
        for text in ["a/b/x/c", "a/b/y/c", "a/b/z/c"] {
            tree.put(&topic(text), ());
        }
        // One call: about a thousand of the 12 000 names would have ended it.
        assert_eq!(
            scan_all(&tree, "a/b/+/c", 99),
            (["a/b/x/c", "a/b/y/c", "a/b/z/c"].map(String::from).into(), 1)
        );
        assert_eq!(scan_all(&tree, "+/b/z/c", 99), (vec!["a/b/z/c".to_owned()], 1));
        assert_eq!(scan_all(&tree, "a/b/z/c", 99), (vec!["a/b/z/c".to_owned()], 1));
        assert_eq!(scan_all(&tree, "+/none", 99), (vec![], 1));
    }

    #[test]
    fn a_call_that_finds_nothing_ends_too() {
        let texts: Vec<_> = (0..5_000).map(|number| format!("a/{number}")).collect();
        let tree = tree(texts.iter().map(String::as_str));
        let (found, calls) = scan_all(&tree, "a/+/c", 99);
        assert_eq!(found, [""; 0]);
        assert!((2..10).contains(&calls), "{calls} calls");
    }

    #[test]
    fn the_deepest_topic_needs_no_stack() {
        let deep = || {
            let name = "/".repeat(65_534);
            let tree = tree([name.as_str(), "/", "a"]);
            let single_first = "+/".repeat(32_767) + "#";
            for text in [name.as_str(), single_first.as_str(), "#"] {
                assert!(scan_all(&tree, text, 1).0.contains(&name));
            }
            assert_eq!(tree.remove(&topic(&name)), Some(()));
        };
        std::thread::Builder::new().stack_size(64 * 1024).spawn(deep).unwrap().join().unwrap();
    }

    /// Few names, some of them around `/` in byte order, so that filters and topics often meet.
    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(&["a", "b", "", "$x", "a.", "-", "a0", "0", "é"][..])
    }

    fn topics() -> impl Strategy<Value = String> {
        prop::collection::vec(level(), 1..5)
            .prop_map(|levels| levels.join("/"))
            .prop_filter("not empty", |text| !text.is_empty())
    }

    fn filters() -> impl Strategy<Value = String> {
        let levels = prop::collection::vec(prop_oneof![3 => level(), 2 => Just("+")], 1..5);
        let text = (levels, any::<bool>())
            .prop_map(|(levels, multi)| levels.join("/") + if multi { "/#" } else { "" });
        prop_oneof![1 => Just("#".to_owned()), 9 => text].prop_filter("not empty", |text| !text.is_empty())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn finds_what_the_naive_way_finds(
            texts in prop::collection::btree_set(topics(), 0..60),
            wanted in filters(),
            max in 1_usize..8,
        ) {
            let tree = tree(texts.iter().map(String::as_str));
            let naive: Vec<_> =
                texts.iter().filter(|text| filter(&wanted).matches(&topic(text))).cloned().collect();
            prop_assert_eq!(&scan_all(&tree, &wanted, max).0, &naive);
            prop_assert_eq!(scan_all(&tree, &wanted, usize::MAX), (naive, 1));
        }

        #[test]
        fn changes_between_chunks_hide_and_repeat_nothing(
            texts in prop::collection::btree_set(topics(), 0..40),
            wanted in filters(),
            max in 1_usize..4,
            changes in prop::collection::vec((topics(), any::<bool>()), 0..40),
        ) {
            let tree = tree(texts.iter().map(String::as_str));
            let mut throughout: BTreeSet<_> =
                texts.into_iter().filter(|text| filter(&wanted).matches(&topic(text))).collect();
            let (mut seen, mut cursor) = (Vec::new(), None);
            let mut changes = changes.into_iter();
            loop {
                cursor = tree.scan(&filter(&wanted), cursor.as_deref(), max, |topic, ()| {
                    seen.push(topic.to_owned());
                    true
                });
                if cursor.is_none() {
                    break;
                }
                for (text, put) in changes.by_ref().take(3) {
                    if put {
                        tree.put(&topic(&text), ());
                    } else {
                        tree.remove(&topic(&text));
                        throughout.remove(&text);
                    }
                }
            }
            prop_assert!(seen.is_sorted_by(|a, b| a < b), "once each, in order: {:?}", seen);
            prop_assert!(seen.iter().all(|text| filter(&wanted).matches(&topic(text))));
            throughout.retain(|text| !seen.contains(text));
            prop_assert!(throughout.is_empty(), "missed {:?}", throughout);
        }
    }
}
