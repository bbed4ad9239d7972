//! What the figures of a cache at rest say of each other.

use std::hash::{BuildHasher, Hash};

use overdrive_tiered_cache::Cache;

pub(crate) fn consistent<K: Hash + Eq + Clone, V: Clone>(cache: &Cache<K, V, impl BuildHasher>) {
    let stats = cache.stats();
    let left = stats.replaced + stats.evicted + stats.expired + stats.removed;
    assert_eq!(stats.inserted, stats.entries as u64 + left);
    assert_eq!(cache.weight(), stats.weight);
    assert!(cache.weight() <= cache.max_weight());
}
