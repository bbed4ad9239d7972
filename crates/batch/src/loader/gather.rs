//! From the keys of a batch to its unique keys, and from their values back.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use overdrive_core::unwind::survive;

use crate::loader::LoadCache;
use crate::loader::stats::LoaderStats;
use crate::stats::BatchStats;

/// A place of the table without a key.
const EMPTY: u32 = u32::MAX;

/// What all handles and workers of a loader share.
pub(super) struct Desk<K, V> {
    cache: Option<Box<dyn LoadCache<K, V>>>,
    /// Moves on with every change of the cache from outside.
    epoch: AtomicU64,
    hasher: RandomState,
    /// Indices of batches that have ended: as many as ran at the same time.
    spare: Mutex<Vec<Index>>,
    loads: AtomicU64,
    cache_hits: AtomicU64,
    calls: AtomicU64,
    unique_keys: AtomicU64,
    duplicates: AtomicU64,
}

/// Which key of a batch is which unique one.
#[derive(Default)]
struct Index {
    /// Open addressing over the unique keys, at most half full.
    table: Vec<u32>,
    /// For each key of the batch its unique one.
    of: Vec<u32>,
    /// How many keys of the batch each unique one stands for.
    uses: Vec<u32>,
}

/// A batch under way.
pub(super) struct Gathered {
    /// None if no key is there twice.
    index: Option<Index>,
    epoch: u64,
}

impl<K, V> Desk<K, V> {
    pub(super) fn new(cache: Option<Box<dyn LoadCache<K, V>>>) -> Self {
        Self {
            cache,
            epoch: AtomicU64::new(0),
            hasher: RandomState::new(),
            spare: Mutex::default(),
            loads: AtomicU64::new(0),
            cache_hits: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            unique_keys: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
        }
    }

    /// Asks the cache, and counts.
    pub(super) fn look_up(&self, key: &K) -> Option<V> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        let value = self.cache.as_ref()?.get(key)?;
        self.cache_hits.fetch_add(1, Ordering::Relaxed);
        Some(value)
    }

    /// The values that the cache has, in order, and the keys of the others.
    pub(super) fn look_all_up(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> (Vec<Option<V>>, Vec<K>) {
        let mut missing = Vec::new();
        let known = keys.into_iter().map(|key| {
            let value = self.look_up(&key);
            if value.is_none() {
                missing.push(key);
            }
            value
        });
        (known.collect(), missing)
    }

    /// Changes the cache, if there is one, so that no running batch undoes it.
    pub(super) fn change(&self, f: impl FnOnce(&dyn LoadCache<K, V>)) {
        if let Some(cache) = &self.cache {
            self.epoch.fetch_add(1, Ordering::SeqCst);
            f(&**cache);
        }
    }

    pub(super) fn has_cache(&self) -> bool {
        self.cache.is_some()
    }

    pub(super) fn stats(&self, batches: BatchStats) -> LoaderStats {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        LoaderStats {
            cache_hits: read(&self.cache_hits),
            loads: read(&self.loads),
            calls: read(&self.calls),
            unique_keys: read(&self.unique_keys),
            duplicates: read(&self.duplicates),
            batches,
        }
    }

    fn spare(&self) -> MutexGuard<'_, Vec<Index>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash, V: Clone> Desk<K, V> {
    /// Leaves each key once, in the order in which they first came.
    pub(super) fn gather(&self, keys: &mut Vec<K>) -> Gathered {
        let all = keys.len();
        let index = (all > 1).then(|| {
            let mut index = self.spare().pop().unwrap_or_default();
            index.fill(keys, &self.hasher);
            index
        });
        let count = |count: &AtomicU64, n: usize| count.fetch_add(n as u64, Ordering::Relaxed);
        count(&self.calls, 1);
        count(&self.unique_keys, keys.len());
        count(&self.duplicates, all - keys.len());
        Gathered {
            index,
            epoch: self.epoch.load(Ordering::SeqCst),
        }
    }

    /// Puts what was found in the cache, unless the cache was changed from outside since the batch
    /// began: then what was read may be older than that change.
    pub(super) fn keep(&self, gathered: &Gathered, keys: Vec<K>, values: &[Option<V>])
    where
        K: Clone,
    {
        let Some(cache) = &self.cache else {
            return;
        };
        let is_fresh = || self.epoch.load(Ordering::SeqCst) == gathered.epoch;
        if !is_fresh() {
            return survive(|| drop(keys));
        }
        // A cache that panics costs nobody a value.
        survive(|| {
            for (key, value) in keys.iter().zip(values) {
                if let Some(value) = value {
                    cache.insert(key.clone(), value.clone());
                }
            }
        });
        // Whoever changes it after this look takes out what was put in before.
        if !is_fresh() {
            for key in &keys {
                survive(|| cache.remove(key));
            }
        }
        survive(|| drop(keys));
    }

    /// To each key of the batch its value; clones for all but one of those with the same key.
    pub(super) fn spread(&self, gathered: Gathered, mut values: Vec<Option<V>>) -> Vec<Option<V>> {
        let Some(mut index) = gathered.index else {
            return values;
        };
        if index.of.len() > values.len() {
            let Index { of, uses, .. } = &mut index;
            let value = |&unique: &u32| {
                let unique = unique as usize;
                uses[unique] -= 1;
                match uses[unique] {
                    0 => values[unique].take(),
                    _ => values[unique].clone(),
                }
            };
            values = of.iter().map(value).collect();
        }
        self.spare().push(index);
        values
    }
}

impl Index {
    fn fill<K: Eq + Hash>(&mut self, keys: &mut Vec<K>, hasher: &RandomState) {
        let Self { table, of, uses } = self;
        let places = (keys.len() * 2).next_power_of_two();
        table.clear();
        table.resize(places, EMPTY);
        of.clear();
        uses.clear();
        let mut unique = 0;
        for next in 0..keys.len() {
            let mut place = hasher.hash_one(&keys[next]) as usize & (places - 1);
            // There are twice as many places as keys.
            while table[place] != EMPTY && keys[table[place] as usize] != keys[next] {
                place = (place + 1) & (places - 1);
            }
            if table[place] == EMPTY {
                table[place] = unique as u32;
                uses.push(0);
                // Those between are duplicates.
                keys.swap(unique, next);
                unique += 1;
            }
            of.push(table[place]);
            uses[table[place] as usize] += 1;
        }
        keys.truncate(unique);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_left_once_and_finds_its_value_again() {
        let desk = Desk::<u32, String>::new(None);
        let mut state = 1_u32;
        for size in [1, 2, 3, 10, 100, 1000] {
            let keys: Vec<u32> = (0..size)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 16) % (size / 2 + 1)
                })
                .collect();
            let mut unique = keys.clone();
            let gathered = desk.gather(&mut unique);
            let mut first = Vec::new();
            for &key in &keys {
                if !first.contains(&key) {
                    first.push(key);
                }
            }
            assert_eq!(unique, first);
            let found = |key: &u32| (key % 3 > 0).then(|| key.to_string());
            let values = unique.iter().map(found).collect();
            let spread = desk.spread(gathered, values);
            assert_eq!(spread, keys.iter().map(found).collect::<Vec<_>>());
        }
        let stats = desk.stats(BatchStats::default());
        assert_eq!(stats.calls, 6);
        assert_eq!(stats.unique_keys + stats.duplicates, 1116);
        assert_eq!(desk.spare().len(), 1, "it was used again");
    }
}
