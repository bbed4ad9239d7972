//! The floor: tables that never evict, each behind a lock for many readers; a key is hashed once.

use std::hash::BuildHasher;
use std::sync::{PoisonError, RwLock};

use hashbrown::HashTable;

use crate::memory::{Hasher, Key, Memory, Size, Value};

#[repr(align(128))]
struct Shard<K, V>(RwLock<HashTable<(K, V)>>);

/// As many locks as the others have shards.
pub(crate) struct RwLockMap<K, V> {
    hasher: Hasher,
    shards: Box<[Shard<K, V>]>,
}

impl<K: Key, V: Value> RwLockMap<K, V> {
    fn shard(&self, hash: u64) -> &RwLock<HashTable<(K, V)>> {
        // Of the bits that the table does not use.
        &self.shards[(hash >> 40) as usize & (self.shards.len() - 1)].0
    }
}

impl<K: Key, V: Value> Memory<K, V> for RwLockMap<K, V> {
    fn new(size: Size) -> Self {
        let shards = size.shards.unwrap_or(1).next_power_of_two();
        let shard = |_| {
            Shard(RwLock::new(HashTable::with_capacity(
                size.capacity / shards,
            )))
        };
        Self {
            hasher: Hasher::default(),
            shards: (0..shards).map(shard).collect(),
        }
    }

    fn get(&self, key: &K) -> Option<V> {
        let hash = self.hasher.hash_one(key);
        let table = self.shard(hash).read();
        let table = table.unwrap_or_else(PoisonError::into_inner);
        let row = table.find(hash, |(other, _)| other == key);
        row.map(|(_, value)| value.clone())
    }

    fn insert(&self, key: K, value: V) {
        let hash = self.hasher.hash_one(&key);
        let table = self.shard(hash).write();
        let mut table = table.unwrap_or_else(PoisonError::into_inner);
        let hasher = |(key, _): &(K, V)| self.hasher.hash_one(key);
        match table.find_mut(hash, |(other, _)| *other == key) {
            Some(row) => row.1 = value,
            None => {
                table.insert_unique(hash, (key, value), hasher);
            }
        }
    }
}
