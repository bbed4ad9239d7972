//! The fence: nothing that was begun before an invalidation is stored after it.
//!
//! One counter, `epoch`, goes up with each invalidation, and its shard of keys or of tags, or the
//! whole, notes the new value. Who loads or reads notes the epoch before it begins, and may store
//! what it got only if no shard that concerns it has noted a later one. Shards are shared, so it
//! errs, towards not storing.

use tokio::sync::watch;

use crate::options::Tag;
use crate::table::Table;
use crate::tiered::load::Outcome;

/// Of keys, and of tags.
const SHARDS: usize = 1024;

pub(crate) struct Control<K, V> {
    epoch: u64,
    cleared: u64,
    keys: Box<[u64]>,
    tags: Box<[u64]>,
    pub(crate) flights: Table<K, Flight<V>>,
    next_id: u64,
    #[cfg(test)]
    pub(crate) guards: crate::controls::Guards,
}

/// A load under way that others can join.
pub(crate) struct Flight<V> {
    pub(crate) id: u64,
    pub(crate) tags: Vec<Tag>,
    pub(crate) outcome: watch::Receiver<Option<Outcome<V>>>,
}

impl<K, V> Default for Control<K, V> {
    fn default() -> Self {
        Self {
            epoch: 0,
            cleared: 0,
            keys: vec![0; SHARDS].into(),
            tags: vec![0; SHARDS].into(),
            flights: Table::default(),
            next_id: 0,
            #[cfg(test)]
            guards: crate::controls::Guards::default(),
        }
    }
}

impl<K: Eq, V> Control<K, V> {
    /// To be noted before anything is read or loaded.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Whether nothing was invalidated since that concerns this key, if one is given, and these
    /// tags.
    pub(crate) fn allows(
        &self,
        since: u64,
        key: Option<u64>,
        tags: impl IntoIterator<Item = u64>,
    ) -> bool {
        let key = key.map(|key| self.keys[shard(key)]);
        let tags = tags.into_iter().map(|tag| self.tags[shard(tag)]);
        #[cfg(test)]
        if !self.guards.fence.is_in_place() {
            return true;
        }
        let mut noted = std::iter::once(self.cleared).chain(key).chain(tags);
        noted.all(|epoch| epoch <= since)
    }

    /// Nothing of this key begun so far is stored from now on. The load that is to be dropped
    /// without the lock: nobody joins it from now on.
    #[must_use]
    pub(crate) fn supersede_key(&mut self, hash: u64, key: &K) -> Option<(K, Flight<V>)> {
        self.epoch += 1;
        self.keys[shard(hash)] = self.epoch;
        self.flights.remove_if(hash, key, |_| true)
    }

    /// As [`supersede_key`](Self::supersede_key), of all keys with this tag.
    #[must_use]
    pub(crate) fn supersede_tag(&mut self, hash: u64, tag: &str) -> Vec<(K, Flight<V>)> {
        self.epoch += 1;
        self.tags[shard(hash)] = self.epoch;
        let tagged = |flight: &Flight<V>| flight.tags.iter().any(|t| **t == *tag);
        self.flights.take_all(tagged)
    }

    /// As [`supersede_key`](Self::supersede_key), of all keys.
    #[must_use]
    pub(crate) fn supersede_all(&mut self) -> Vec<(K, Flight<V>)> {
        self.epoch += 1;
        self.cleared = self.epoch;
        self.flights.take_all(|_| true)
    }
}

fn shard(hash: u64) -> usize {
    hash as usize % SHARDS
}
