//! A map with a budget in bytes: what was not asked for the longest goes first.

use std::borrow::Borrow;
use std::hash::Hash;

use lru::LruCache;

/// What an entry costs beside its own bytes: the slot in the table and the links of the order.
const OVERHEAD: usize = 96;

/// The map.
#[derive(Debug)]
pub(crate) struct Budgeted<K: Hash + Eq, V> {
    entries: LruCache<K, (V, usize)>,
    bytes: usize,
    limit: usize,
    evicted: u64,
}

impl<K: Hash + Eq, V> Budgeted<K, V> {
    /// An empty one that never holds more than `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self { entries: LruCache::unbounded(), bytes: 0, limit, evicted: 0 }
    }

    /// Puts in a value that takes so many bytes, key included. One that is larger than the budget is not kept.
    pub(crate) fn insert(&mut self, key: K, value: V, bytes: usize) {
        let bytes = bytes + OVERHEAD;
        self.remove(&key);
        if bytes > self.limit {
            self.evicted += 1;
            return;
        }
        while self.bytes + bytes > self.limit
            && let Some((_, (_, freed))) = self.entries.pop_lru()
        {
            self.bytes -= freed;
            self.evicted += 1;
        }
        self.bytes += bytes;
        self.entries.put(key, (value, bytes));
    }

    /// The value, which now counts as used.
    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map(|(value, _)| value)
    }

    /// The value, which counts as used no more than before.
    pub(crate) fn peek<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.peek(key).map(|(value, _)| value)
    }

    /// Takes a value out.
    pub(crate) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (value, bytes) = self.entries.pop(key)?;
        self.bytes -= bytes;
        Some(value)
    }

    /// Keeps those of which this is true.
    pub(crate) fn retain(&mut self, keep: impl Fn(&K, &V) -> bool)
    where
        K: Clone,
    {
        let gone: Vec<K> = self
            .entries
            .iter()
            .filter(|(key, (value, _))| !keep(key, value))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.remove(&key);
        }
    }

    /// Every entry, the one used last first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, (value, _))| (key, value))
    }

    /// How many entries.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What they take, bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many were thrown out, or not let in, since the beginning.
    pub(crate) fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_for_the_longest_goes_first() {
        let mut map = Budgeted::new(3 * (OVERHEAD + 10));
        for key in ["a", "b", "c"] {
            map.insert(key, (), 10);
        }
        assert!(map.get("a").is_some());
        map.insert("d", (), 10);
        let left: Vec<_> = map.iter().map(|(key, ())| *key).collect();
        assert_eq!(left, ["d", "a", "c"]);
        assert_eq!((map.evicted(), map.bytes(), map.len()), (1, 3 * (OVERHEAD + 10), 3));
    }

    #[test]
    fn a_value_larger_than_the_budget_leaves_the_others_alone() {
        let mut map = Budgeted::new(1_000);
        map.insert("a", 1, 10);
        map.insert("b", 2, 2_000);
        assert_eq!((map.peek("a"), map.peek("b"), map.evicted()), (Some(&1), None, 1));
    }

    #[test]
    fn a_value_put_in_again_is_counted_once() {
        let mut map = Budgeted::new(1_000);
        map.insert("a", 1, 100);
        map.insert("a", 2, 10);
        assert_eq!((map.bytes(), map.len(), map.get("a")), (OVERHEAD + 10, 1, Some(&2)));
        map.retain(|_, value| *value != 2);
        assert_eq!((map.bytes(), map.len(), map.evicted()), (0, 0, 0));
    }
}
