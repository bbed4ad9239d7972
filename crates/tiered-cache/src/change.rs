//! Changes by the user's code, which runs on copies, outside of the locks.

use std::borrow::Borrow;
use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::iter::FusedIterator;
use std::sync::{Arc, PoisonError};

use overdrive_core::ConfigError;
use overdrive_core::unwind::survive;

use crate::builder::MAX_MAX_ENTRIES;
use crate::cache::{Cache, Hashed, Inner};
use crate::entry::Tick;
use crate::flight::Flight;
use crate::garbage::{Cause, Garbage};
use crate::index::MAX_SLOTS;
use crate::options::{EntryOptions, Ttl};
use crate::slots::New;
use crate::state::{Shard, State};
use crate::sync::thread;

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// Changes the value at the key in place, and gives what `change` returns; `None` without a
    /// value. What is left of its life and its tags stay, and it counts as use. It is weighed
    /// anew: if it has become heavier and there is no room, others are evicted as for an insertion,
    /// and it takes another place in the order and is fresh again; if it weighs more than the whole
    /// cache may, it is removed.
    ///
    /// `change` gets a copy, outside of the lock; it is asked again if another value was stored
    /// meanwhile, for ever if it stores one itself each time. A value being made for the key
    /// meanwhile is not stored.
    ///
    /// # Panics
    /// If `change` or the weigher does; nothing is changed then.
    pub fn update<Q, R>(&self, key: &Q, mut change: impl FnMut(&mut V) -> R) -> Option<R>
    where
        K: Borrow<Q> + Clone,
        Q: Hash + Eq + ?Sized,
        V: Clone,
    {
        let hashed = self.hash(key);
        loop {
            let (watch, own, mut value) = self.copy(hashed, key, self.now())?;
            let result = change(&mut value);
            let mut garbage = self.garbage();
            match self.put_back(hashed, key, watch, (own, value), &mut garbage) {
                Back::Stored => return Some(result),
                Back::Gone => return None,
                Back::Replaced => {}
            }
        }
    }

    /// Stores a changed copy in the place of its original.
    fn put_back<Q>(
        &self,
        hashed: Hashed,
        key: &Q,
        watch: Watching<'_, K, V>,
        (own, value): (K, V),
        garbage: &mut Garbage<'_, K, V>,
    ) -> Back
    where
        K: Borrow<Q> + Clone,
        Q: Eq + ?Sized,
        V: Clone,
    {
        let (weight, now) = (self.weigh(&own, &value), self.now());
        let budget = &self.inner.budget;
        let mut state = self.shard(hashed).state.write();
        if !watch.end(&mut state.watches).is_empty() {
            drop(state);
            garbage.push_both(own, value);
            return Back::Replaced;
        }
        let Some(slot) = state.find(hashed.key, key, now).0 else {
            drop(state);
            garbage.push_both(own, value);
            return Back::Gone;
        };
        if let Some((key, _)) = (state.flights).remove_if(hashed.whole(), key, |_| true) {
            garbage.push_key(key);
        }
        let old_weight = state.slots.extra(slot).map_or(1, |extra| extra.weight);
        let lacks = weight.saturating_sub(old_weight);
        if lacks > 0 && weight > budget.max() {
            let freed = state.discard(slot, Cause::Removed, garbage);
            budget.give(freed);
            drop(state);
            garbage.push_both(own, value);
            return Back::Stored;
        }
        let end = state.slots.entry(slot).map_or(Tick::NEVER, |e| e.end());
        if lacks > 0 && !budget.take(lacks) {
            // The old one goes first. Whatever removes the key, or invalidates one of its tags, until
            // the new one is there finds the flight instead.
            let for_table = own.clone();
            let options = EntryOptions {
                ttl: Some(end.since(now).map_or(Ttl::Forever, Ttl::After)),
                tags: state.tags(slot),
            };
            let flight = Arc::new(Flight::new(Some(thread::current().id())));
            let for_state = Arc::clone(&flight);
            state.flights.insert(hashed.whole(), for_table, for_state);
            let old = state.detach(slot, Cause::Replaced);
            budget.give(old.as_ref().map_or(0, |old| old.weight));
            drop(state);
            garbage.push_left(old, Cause::Replaced);
            let reservation = self.reservation(hashed, own, flight);
            let stored = reservation.insert_with(value, options);
            survive(|| drop(stored));
            return Back::Stored;
        }
        let stale = (state.slots.extra(slot)).map_or(Tick::NEVER, |extra| extra.stale);
        let new = New {
            key: own,
            value,
            hash: hashed.key,
            end,
            weight,
            now,
            stale,
        };
        let old = state.slots.replace(slot, new);
        budget.give(old_weight.saturating_sub(weight));
        state.changed(slot, hashed.key);
        drop(state);
        if let Some((key, value)) = old {
            garbage.push(key, value, Cause::Replaced);
        }
        Back::Stored
    }

    /// Removes the entry if `condition` holds of its value, and gives it.
    ///
    /// `condition` gets a copy, outside of the lock; it is asked again if another value was stored
    /// meanwhile.
    ///
    /// # Panics
    /// If `condition` does; nothing is removed then.
    pub fn remove_if<Q>(&self, key: &Q, mut condition: impl FnMut(&V) -> bool) -> Option<(K, V)>
    where
        K: Borrow<Q> + Clone,
        Q: Hash + Eq + ?Sized,
        V: Clone,
    {
        let hashed = self.hash(key);
        loop {
            let (watch, own, value) = self.copy(hashed, key, self.now())?;
            let mut garbage = self.garbage();
            let holds = condition(&value);
            garbage.push_both(own, value);
            // It may have expired meanwhile.
            let now = self.now();
            let mut state = self.shard(hashed).state.write();
            if !watch.end(&mut state.watches).is_empty() {
                continue;
            }
            if !holds {
                return None;
            }
            let left = self.take_in(&mut state, hashed, key, now, &mut garbage, |_| true)?;
            drop(state);
            garbage.tell(&left.key, &left.value, Cause::Removed);
            return Some((left.key, left.value));
        }
    }

    /// Copies of key and value, and the watch over them.
    fn copy<Q>(&self, hashed: Hashed, key: &Q, now: Tick) -> Option<(Watching<'_, K, V>, K, V)>
    where
        K: Borrow<Q> + Clone,
        Q: Hash + Eq + ?Sized,
        V: Clone,
    {
        let shard = self.shard(hashed);
        let mut state = shard.state.write();
        let (live, _) = state.find(hashed.key, key, now);
        let entry = state.slots.entry(live?)?;
        let (key, value) = (entry.key.clone(), entry.value.clone());
        let watch = Watching::begin(shard, &mut state, Some(hashed.key));
        drop(state);
        Some((watch, key, value))
    }

    /// Removes the entries of which `keep` says false, and says how many.
    ///
    /// `keep` sees copies, outside of the lock; an entry that is replaced meanwhile stays. Linear
    /// in the entries. Values being made meanwhile are not asked about.
    ///
    /// # Panics
    /// If `keep` does; of the shard that it was asked about nothing is removed then.
    pub fn retain(&self, mut keep: impl FnMut(&K, &V) -> bool) -> usize
    where
        K: Clone,
        V: Clone,
    {
        let now = self.now();
        let mut removed = 0;
        for shard in &self.inner.shards {
            let mut garbage = self.garbage();
            // Outlives the lock, also if a `Clone` panics.
            let mut copies: Vec<(u32, K, V)> = Vec::new();
            let mut state = shard.state.write();
            let live = state.slots.live(now);
            copies.extend(live.map(|(_, entry)| {
                let (key, value) = (entry.key.clone(), entry.value.clone());
                (entry.hash, key, value)
            }));
            let watch = Watching::begin(shard, &mut state, None);
            drop(state);
            let gone: Vec<(u32, K)> = copies
                .into_iter()
                .filter_map(|(hash, key, value)| (!keep(&key, &value)).then_some((hash, key)))
                .collect();
            let mut state = shard.state.write();
            let changed = watch.end(&mut state.watches);
            for (hash, key) in &gone {
                let found = state.slots.find(*hash, key).map(|(slot, _)| slot);
                if let Some(slot) = found.filter(|slot| !changed.contains(slot)) {
                    let weight = state.discard(slot, Cause::Removed, &mut garbage);
                    self.inner.budget.give(weight);
                    removed += 1;
                }
            }
            drop(state);
        }
        removed
    }

    /// Copies of all entries, in no order. Each shard is copied as of one moment, when the
    /// iterator comes to it; this does not count as use.
    ///
    /// ```
    /// # use overdrive_tiered_cache::Cache;
    /// let cache = Cache::builder().max_entries(10).build()?;
    /// cache.insert("a", 1)?;
    /// assert_eq!(cache.iter().collect::<Vec<_>>(), [("a", 1)]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> Iter<'_, K, V, S>
    where
        K: Clone,
        V: Clone,
    {
        Iter {
            cache: self,
            shard: 0,
            copies: VecDeque::new(),
        }
    }

    /// Sets what the cache may weigh at most; of a cache set up with `max_entries` the most
    /// entries. With a lower bound it evicts until all fits in, which is done when this returns; the
    /// memory of their places is kept for later entries, until [`clear`](Self::clear).
    ///
    /// # Errors
    /// Zero; for a cache of entries more than [`MAX_MAX_ENTRIES`], or than its shards have places.
    pub fn set_max_weight(&self, max: u64) -> Result<(), ConfigError> {
        let inner = &self.inner;
        let field = "max_weight";
        if max == 0 {
            return Err(ConfigError::Zero { field });
        }
        let weighted = inner.weigher.is_some();
        let most = (inner.shards.len() * MAX_SLOTS).min(MAX_MAX_ENTRIES) as u64;
        if !weighted && max > most {
            return Err(ConfigError::TooLarge {
                field,
                value: max,
                max: most,
            });
        }
        let now = self.now();
        let mut garbage = self.garbage();
        let spread = inner.spread.lock();
        let _spread = spread.unwrap_or_else(PoisonError::into_inner);
        inner.budget.set_max(max);
        let share = Inner::<K, V, S>::share(max, inner.shards.len(), weighted);
        for shard in &inner.shards {
            shard.state.write().slots.resize(share);
        }
        while inner.budget.taken() > max {
            let before = inner.budget.taken();
            for shard in &inner.shards {
                if inner.budget.taken() <= max {
                    break;
                }
                let freed = shard.state.write().evict(now, &mut garbage);
                inner.budget.give(freed.unwrap_or(0));
            }
            if inner.budget.taken() == before {
                // The rest is with those who are about to store it.
                thread::yield_now();
            }
        }
        Ok(())
    }
}

/// What became of a changed copy.
enum Back {
    /// It was stored, or is too heavy.
    Stored,
    /// Its original was gone.
    Gone,
    /// Another value had taken the place of its original.
    Replaced,
}

/// A watch that ends in any case.
struct Watching<'a, K, V> {
    shard: &'a Shard<K, V>,
    id: Option<u64>,
}

impl<'a, K, V> Watching<'a, K, V> {
    /// Under the lock of that shard.
    fn begin(shard: &'a Shard<K, V>, state: &mut State<K, V>, hash: Option<u32>) -> Self {
        let id = Some(state.watches.begin(hash));
        Self { shard, id }
    }

    fn end(mut self, watches: &mut crate::state::Watches) -> HashSet<u32> {
        let id = self.id.take();
        id.map_or_else(HashSet::new, |id| watches.end(id))
    }
}

impl<K, V> Drop for Watching<'_, K, V> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.shard.state.write().watches.end(id);
        }
    }
}

/// Copies of a cache's entries; from [`Cache::iter`].
pub struct Iter<'a, K, V, S = RandomState> {
    cache: &'a Cache<K, V, S>,
    shard: usize,
    copies: VecDeque<(K, V)>,
}

impl<K: Hash + Eq + Clone, V: Clone, S: BuildHasher> Iterator for Iter<'_, K, V, S> {
    type Item = (K, V);

    fn next(&mut self) -> Option<(K, V)> {
        while self.copies.is_empty() {
            let shard = self.cache.inner.shards.get(self.shard)?;
            self.shard += 1;
            let now = self.cache.now();
            let state = shard.state.read();
            let live = state.slots.live(now);
            let copy = live.map(|(_, entry)| (entry.key.clone(), entry.value.clone()));
            self.copies.extend(copy);
        }
        self.copies.pop_front()
    }
}

/// Once it has come to the last shard, it gives no more.
impl<K: Hash + Eq + Clone, V: Clone, S: BuildHasher> FusedIterator for Iter<'_, K, V, S> {}

impl<'a, K: Hash + Eq + Clone, V: Clone, S: BuildHasher> IntoIterator for &'a Cache<K, V, S> {
    type Item = (K, V);
    type IntoIter = Iter<'a, K, V, S>;

    /// As [`Cache::iter`].
    fn into_iter(self) -> Iter<'a, K, V, S> {
        self.iter()
    }
}

impl<K, V, S> fmt::Debug for Iter<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Iter").finish_non_exhaustive()
    }
}
