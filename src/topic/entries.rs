//! Who subscribed with one and the same filter: usually nobody or one, sometimes a hundred thousand.
//!
//! Invariant: the order of the entries follows from the calls alone, never from a hash seed.

use std::{collections::HashMap, hash::Hash};

use foldhash::fast::RandomState;

/// Above this number of entries a key is found by hash instead of by comparing.
const COMPARED_MAX: usize = 16;

/// The keys of one filter with their values; each key once. A node of the trie without subscribers, and
/// one with a single subscriber, need no allocation.
#[derive(Debug)]
pub(super) enum Entries<K, V> {
    None,
    One(K, V),
    /// At least two.
    Many(Box<Group<K, V>>),
}

#[derive(Debug)]
pub(super) struct Group<K, V> {
    items: Vec<(K, V)>,
    /// Where each key is in `items`; empty while there are few.
    places: HashMap<K, usize, RandomState>,
}

impl<K: Clone + Eq + Hash, V> Entries<K, V> {
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    pub fn for_each(&self, visit: &mut impl FnMut(&K, &V)) {
        match self {
            Self::None => {}
            Self::One(key, value) => visit(key, value),
            Self::Many(group) => group.items.iter().for_each(|(key, value)| visit(key, value)),
        }
    }

    /// Sets the value of `key`; what it was before.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match std::mem::replace(self, Self::None) {
            Self::None => {
                *self = Self::One(key, value);
                None
            }
            Self::One(old_key, old_value) if old_key == key => {
                *self = Self::One(key, value);
                Some(old_value)
            }
            Self::One(old_key, old_value) => {
                let items = vec![(old_key, old_value), (key, value)];
                *self = Self::Many(Box::new(Group { items, places: HashMap::default() }));
                None
            }
            Self::Many(mut group) => {
                let replaced = group.insert(key, value);
                *self = Self::Many(group);
                replaced
            }
        }
    }

    /// Takes `key` out; what its value was.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        match std::mem::replace(self, Self::None) {
            Self::One(own_key, value) if own_key == *key => Some(value),
            Self::Many(mut group) => {
                let removed = group.remove(key);
                *self = match group.items.len() {
                    1 => group.items.pop().map_or(Self::None, |(key, value)| Self::One(key, value)),
                    _ => Self::Many(group),
                };
                removed
            }
            unchanged => {
                *self = unchanged;
                None
            }
        }
    }
}

impl<K: Clone + Eq + Hash, V> Group<K, V> {
    fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some((_, old_value)) = self.place(&key).and_then(|place| self.items.get_mut(place)) {
            return Some(std::mem::replace(old_value, value));
        }
        if !self.places.is_empty() {
            self.places.insert(key.clone(), self.items.len());
        }
        self.items.push((key, value));
        if self.places.is_empty() && self.items.len() > COMPARED_MAX {
            self.places =
                self.items.iter().enumerate().map(|(place, (key, _))| (key.clone(), place)).collect();
        }
        None
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.place(key)?;
        let (_, value) = self.items.swap_remove(place);
        self.places.remove(key);
        // The last item has moved to the gap.
        if let Some((moved, _)) = self.items.get(place)
            && let Some(moved_place) = self.places.get_mut(moved)
        {
            *moved_place = place;
        }
        self.give_back();
        Some(value)
    }

    fn place(&self, key: &K) -> Option<usize> {
        if self.places.is_empty() {
            return self.items.iter().position(|(own_key, _)| own_key == key);
        }
        self.places.get(key).copied()
    }

    /// Returns memory when three quarters of it are unused.
    fn give_back(&mut self) {
        let len = self.items.len();
        if self.items.capacity() > COMPARED_MAX && len < self.items.capacity() / 4 {
            self.items.shrink_to(len * 2);
            self.places.shrink_to(len * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_a_map(ops in prop::collection::vec((0_u8..40, any::<u16>(), 0_u8..3), 0..300)) {
            let mut entries = Entries::None;
            let mut model = std::collections::BTreeMap::new();
            for (key, value, op) in ops {
                if op == 0 {
                    prop_assert_eq!(entries.remove(&key), model.remove(&key));
                } else {
                    prop_assert_eq!(entries.insert(key, value), model.insert(key, value));
                }
                let mut seen = Vec::new();
                entries.for_each(&mut |key, value| seen.push((*key, *value)));
                seen.sort_unstable();
                prop_assert_eq!(seen, model.iter().map(|(key, value)| (*key, *value)).collect::<Vec<_>>());
                prop_assert_eq!(entries.is_empty(), model.is_empty());
            }
        }
    }

    #[test]
    fn a_large_group_gives_its_memory_back() {
        let mut entries = Entries::None;
        assert!((0..10_000).all(|key| entries.insert(key, ()).is_none()));
        assert!((2..10_000).all(|key| entries.remove(&key).is_some()));
        let Entries::Many(group) = &entries else { panic!("two entries are a group") };
        assert!(group.items.capacity() <= COMPARED_MAX && group.places.capacity() <= 2 * COMPARED_MAX);
        entries.remove(&0);
        assert!(matches!(entries, Entries::One(1, ())));
    }
}
