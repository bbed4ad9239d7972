//! What the scenarios ask of a cache.

use std::hash::Hash;

/// Equal for all, so that the hash function decides nothing.
pub(crate) type Hasher = foldhash::fast::FixedState;

pub(crate) trait Key: Hash + Eq + Clone + Send + Sync + 'static {}
impl<K: Hash + Eq + Clone + Send + Sync + 'static> Key for K {}

pub(crate) trait Value: Clone + Send + Sync + 'static {}
impl<V: Clone + Send + Sync + 'static> Value for V {}

/// How large, and in how many parts where a cache lets one say that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) capacity: usize,
    pub(crate) shards: Option<usize>,
}

impl Size {
    pub(crate) fn of(capacity: usize) -> Self {
        Self {
            capacity,
            shards: None,
        }
    }

    pub(crate) fn in_shards(capacity: usize, shards: usize) -> Self {
        Self {
            capacity,
            shards: Some(shards),
        }
    }
}

/// A cache in memory.
pub(crate) trait Memory<K, V>: Send + Sync + Sized + 'static {
    fn new(size: Size) -> Self;
    fn get(&self, key: &K) -> Option<V>;
    fn insert(&self, key: K, value: V);
    /// Finishes what it has put off.
    fn settle(&self) {}
}

pub(crate) fn get_or_insert<C: Memory<u64, u64>>(cache: &C, key: u64) -> u64 {
    cache.get(&key).unwrap_or_else(|| {
        let value = value_of(key);
        cache.insert(key, value);
        value
    })
}

pub(crate) fn value_of(key: u64) -> u64 {
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}
