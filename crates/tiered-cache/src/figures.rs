//! What a cache says of itself.

use std::hash::{BuildHasher, Hash};

use crate::cache::Cache;
use crate::garbage::Cause;
use crate::state::Shard;
use crate::stats::{CacheStats, Counts};

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// Drops the expired entries, and says how many. Linear in all entries.
    pub fn purge_expired(&self) -> usize {
        let now = self.now();
        let mut garbage = self.garbage();
        let purge = |shard: &Shard<K, V>| {
            let mut state = shard.state.write();
            let expired = state.slots.expired(now);
            for &slot in &expired {
                let weight = state.discard(slot, Cause::Expired, &mut garbage);
                self.inner.budget.give(weight);
            }
            expired.len()
        };
        self.inner.shards.iter().map(purge).sum()
    }

    /// How many entries it holds, expired ones that nobody has met yet included. Takes the locks
    /// of all shards, one after the other, for reading.
    #[must_use]
    pub fn len(&self) -> usize {
        let len = |shard: &Shard<K, V>| shard.state.read().slots.len();
        self.inner.shards.iter().map(len).sum()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the entries weigh, room that is being made for another included; without a weigher,
    /// one each. Never more than [`max_weight`](Self::max_weight), but while
    /// [`set_max_weight`](Self::set_max_weight) evicts for a lower one.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.inner.budget.taken()
    }

    /// What they may weigh at most.
    #[must_use]
    pub fn max_weight(&self) -> u64 {
        self.inner.budget.max()
    }

    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its figures. Takes the locks of all shards, one after the other, for reading: with nobody
    /// else at work they are of one moment.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let mut counts = Counts::default();
        let (mut entries, mut weight) = (0, 0);
        for shard in &self.inner.shards {
            let state = shard.state.read();
            counts.add(&state.counts);
            entries += state.slots.len();
            weight += state.slots.weight();
        }
        (counts.hits, counts.misses) = self.inner.tally.sums();
        CacheStats::new(counts, entries, weight)
    }
}
