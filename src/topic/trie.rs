//! The trie of one shard of the subscription index; single-threaded.
//!
//! Nodes lie in one vector and name each other by number: no recursion, also not when it is dropped.
//! The edges of all nodes are one hash map; the two wildcards are fields of the node.
//!
//! Invariant: every node but the root has an entry or a child, so an empty trie is a root alone.

use std::{collections::HashMap, hash::Hash, num::NonZeroU32, str::Split};

use foldhash::fast::RandomState;
use smallvec::{SmallVec, smallvec};

use super::{
    TopicFilter, TopicName,
    entries::Entries,
    symbols::{Symbol, Symbols},
};

/// Filters and who subscribed with them. Topics that begin with `$` are the caller's business: the index
/// keeps the filters that begin with a wildcard in a trie of their own.
#[derive(Debug)]
pub(super) struct Trie<K, V> {
    /// The first is the root.
    nodes: Vec<Node<K, V>>,
    vacant: Vec<NodeId>,
    edges: HashMap<(NodeId, Symbol), NodeId, RandomState>,
    symbols: Symbols,
    len: usize,
}

/// The place of a node in the vector, plus one: an `Option` of it has four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct NodeId(NonZeroU32);

const ROOT: NodeId = NodeId(NonZeroU32::MIN);

#[derive(Debug)]
struct Node<K, V> {
    /// The child under `+`.
    single: Option<NodeId>,
    /// The child under `#`.
    multi: Option<NodeId>,
    /// How many children there are under literal levels.
    literals: u32,
    entries: Entries<K, V>,
}

/// The levels of a topic as symbols, looked up when a node of that depth is met first.
struct TopicLevels<'t> {
    unread: Split<'t, char>,
    /// `None` for a level that is in no filter.
    read: SmallVec<[Option<Symbol>; 16]>,
}

/// One step on the way of a filter, from the root down.
struct Step<'f> {
    parent: NodeId,
    level: &'f str,
    child: NodeId,
}

impl<K: Clone + Eq + Hash, V> Trie<K, V> {
    pub fn new() -> Self {
        Self {
            nodes: vec![Node::new()],
            vacant: Vec::new(),
            edges: HashMap::default(),
            symbols: Symbols::default(),
            len: 0,
        }
    }

    /// How many entries there are: pairs of filter and key.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Sets the value of `key` under `filter`; what it was before.
    pub fn insert(&mut self, filter: &TopicFilter, key: K, value: V) -> Option<V> {
        let mut id = ROOT;
        for level in filter.levels() {
            id = match self.child(id, level) {
                Some(child) => child,
                None => self.add_child(id, level),
            };
        }
        let replaced = self.node_mut(id).entries.insert(key, value);
        self.len += usize::from(replaced.is_none());
        replaced
    }

    /// Takes `key` under `filter` out, with the nodes that nobody needs any more; what its value was.
    pub fn remove(&mut self, filter: &TopicFilter, key: &K) -> Option<V> {
        let mut id = ROOT;
        let mut path: SmallVec<[Step<'_>; 16]> = SmallVec::new();
        for level in filter.levels() {
            let child = self.child(id, level)?;
            path.push(Step { parent: id, level, child });
            id = child;
        }
        let removed = self.node_mut(id).entries.remove(key)?;
        self.len -= 1;
        while let Some(step) = path.pop()
            && self.node(step.child).is_unused()
        {
            self.remove_child(&step);
        }
        if self.len == 0 {
            // Also gives back the memory of a storm that has passed.
            *self = Self::new();
        }
        Some(removed)
    }

    /// Calls `visit` with each entry whose filter matches `topic`. Time: at most the number of nodes that
    /// match a beginning of the topic (each is met once; in theory 2^levels, never more than exist).
    /// Memory: at most one open node per level.
    pub fn for_each_match(&self, topic: TopicName<'_>, visit: &mut impl FnMut(&K, &V)) {
        let mut levels = TopicLevels { unread: topic.levels(), read: SmallVec::new() };
        let mut open: SmallVec<[(NodeId, usize); 16]> = smallvec![(ROOT, 0)];
        while let Some((id, depth)) = open.pop() {
            let node = self.node(id);
            if let Some(multi) = node.multi {
                self.node(multi).entries.for_each(visit);
            }
            let Some(level) = levels.at(depth, &self.symbols) else {
                node.entries.for_each(visit);
                continue;
            };
            if let Some(single) = node.single {
                open.push((single, depth + 1));
            }
            if node.literals > 0
                && let Some(symbol) = level
                && let Some(child) = self.edges.get(&(id, symbol))
            {
                open.push((*child, depth + 1));
            }
        }
    }

    /// Panics unless nodes, edges and symbols agree with each other. How many nodes are in use, with the root.
    #[cfg(test)]
    pub fn check(&self) -> usize {
        let in_use = self.nodes.len() - self.vacant.len();
        let used = self.nodes.iter().filter(|node| !node.is_unused()).count();
        assert_eq!(used.max(1), in_use, "every node but the root has an entry or a child");
        let literals: u32 = self.nodes.iter().map(|node| node.literals).sum();
        assert_eq!(literals as usize, self.edges.len());
        assert_eq!(self.symbols.edges(), self.edges.len());
        let wildcards = self.nodes.iter().flat_map(|node| [node.single, node.multi]).flatten().count();
        assert_eq!(self.edges.len() + wildcards + 1, in_use, "every node but the root has one parent");
        assert!(self.len > 0 || self.edges.capacity() == 0, "an empty trie has given its memory back");
        in_use
    }

    fn child(&self, id: NodeId, level: &str) -> Option<NodeId> {
        match level {
            "+" => self.node(id).single,
            "#" => self.node(id).multi,
            _ => self.edges.get(&(id, self.symbols.find(level)?)).copied(),
        }
    }

    fn add_child(&mut self, id: NodeId, level: &str) -> NodeId {
        let child = self.new_node();
        match level {
            "+" => self.node_mut(id).single = Some(child),
            "#" => self.node_mut(id).multi = Some(child),
            _ => {
                let symbol = self.symbols.acquire(level);
                self.edges.insert((id, symbol), child);
                self.node_mut(id).literals += 1;
            }
        }
        child
    }

    fn remove_child(&mut self, step: &Step<'_>) {
        match step.level {
            "+" => self.node_mut(step.parent).single = None,
            "#" => self.node_mut(step.parent).multi = None,
            level => {
                if let Some(symbol) = self.symbols.find(level) {
                    self.edges.remove(&(step.parent, symbol));
                }
                self.symbols.release(level);
                self.node_mut(step.parent).literals -= 1;
            }
        }
        // An unused node is as good as new.
        self.vacant.push(step.child);
    }

    fn new_node(&mut self) -> NodeId {
        if let Some(id) = self.vacant.pop() {
            return id;
        }
        self.nodes.push(Node::new());
        NodeId::last_of(self.nodes.len())
    }

    // Numbers of nodes come from this trie only, and a node is vacant only when none names it.
    fn node(&self, id: NodeId) -> &Node<K, V> {
        &self.nodes[id.place()]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node<K, V> {
        &mut self.nodes[id.place()]
    }
}

impl NodeId {
    /// The number of the last of `len` nodes.
    fn last_of(len: usize) -> Self {
        // Four thousand million nodes are 200 GB: the limits on subscriptions end long before.
        let number = u32::try_from(len).ok().and_then(NonZeroU32::new);
        Self(number.expect("a trie has between 1 and 2^32 - 1 nodes"))
    }

    fn place(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl<K: Clone + Eq + Hash, V> Node<K, V> {
    fn new() -> Self {
        Self { single: None, multi: None, literals: 0, entries: Entries::None }
    }

    fn is_unused(&self) -> bool {
        self.single.is_none() && self.multi.is_none() && self.literals == 0 && self.entries.is_empty()
    }
}

impl TopicLevels<'_> {
    /// The level at `depth`, or `None` when the topic has ended. Depths are asked for without a gap.
    fn at(&mut self, depth: usize, symbols: &Symbols) -> Option<Option<Symbol>> {
        if depth == self.read.len() {
            self.read.push(symbols.find(self.unread.next()?));
        }
        self.read.get(depth).copied()
    }
}
