//! What was looked up lately, bounded in number and in time.
//!
//! Two generations instead of a list in order of use: what is found in the older one moves to the
//! younger one; when that is full it becomes the older one, and what nobody asked for meanwhile is
//! gone. Every step takes constant time.

use std::collections::HashMap;
use std::hash::Hash;

pub(super) struct Cache<K, V> {
    young: HashMap<K, (V, u64)>,
    old: HashMap<K, (V, u64)>,
    /// Of one generation.
    most: usize,
    ttl_ms: u64,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    /// Holds up to `entries`; 0 keeps nothing.
    pub(super) fn new(entries: usize, ttl_ms: u64) -> Cache<K, V> {
        Cache { young: HashMap::new(), old: HashMap::new(), most: entries / 2, ttl_ms }
    }

    pub(super) fn get(&mut self, key: &K, now_ms: u64) -> Option<V> {
        let fresh = |(value, until_ms): &(V, u64)| (now_ms < *until_ms).then(|| value.clone());
        if let Some(found) = self.young.get(key) {
            return fresh(found);
        }
        let (key, found) = self.old.remove_entry(key)?;
        let value = fresh(&found)?;
        self.put(key, found);
        Some(value)
    }

    pub(super) fn insert(&mut self, key: K, value: V, now_ms: u64) {
        self.put(key, (value, now_ms.saturating_add(self.ttl_ms)));
    }

    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    fn put(&mut self, key: K, entry: (V, u64)) {
        if self.most == 0 {
            return;
        }
        if self.young.len() >= self.most && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_forgotten_in_time() {
        let mut cache = Cache::new(10, 1000);
        cache.insert("a", 1, 5000);
        assert_eq!(cache.get(&"a", 5999), Some(1));
        assert_eq!(cache.get(&"a", 6000), None);
        cache.insert("a", 2, 6000);
        assert_eq!(cache.get(&"a", 6999), Some(2));
        cache.clear();
        assert_eq!(cache.get(&"a", 6999), None);
    }

    #[test]
    fn what_is_asked_for_stays_and_the_rest_makes_room() {
        let mut cache = Cache::new(100, u64::MAX);
        for i in 0..10_000 {
            cache.insert(i, i, 0);
            assert_eq!(cache.get(&0, 0), Some(0), "after {i}");
            assert!(cache.young.len() + cache.old.len() <= 100);
        }
        assert_eq!(cache.get(&9_999, 0), Some(9_999));
        assert_eq!(cache.get(&5_000, 0), None);
        let mut none = Cache::new(0, u64::MAX);
        none.insert(1, 1, 0);
        assert_eq!(none.get(&1, 0), None);
    }
}
