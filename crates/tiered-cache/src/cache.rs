//! The memory tier.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use overdrive_core::{Clock, thread_slot};

use crate::budget::Budget;
use crate::builder::CacheBuilder;
use crate::entry::Tick;
use crate::garbage::{Cause, Garbage, Listener};
use crate::index::MAX_SLOTS;
use crate::options::{EntryOptions, Ttl};
use crate::put::{Begun, Put, Value};
use crate::rejected::Rejected;
use crate::slots::{Left, Share};
use crate::state::{Shard, State};
use crate::sync::Mutex;
use crate::tally::Tally;

/// Values by key in bounded memory: those that are used often and lately stay, the expired never
/// show. Clones are handles of the same cache.
///
/// # Order
/// New entries pass a small window, first in, first out. At its end those stay that were used in
/// it, or came back shortly after they had been turned away, or came more often lately than what
/// would have to go for them. The others stay as long as they are used, and as nothing better
/// comes. After S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi, SOSP 2023) and TinyLFU (Einziger,
/// Friedman, Manes, ACM ToS 2017). A value that was just stored is always there.
///
/// # Bound
/// The entries never weigh more than they may, not for an instant, expired ones included. All
/// shards share one bound: an entry may take the room that other shards do not use.
///
/// # Cost
/// A look-up hashes once, takes its shard's lock for reading, and counts where no other thread
/// does; the entry is written by its first three uses only, until it is judged anew (with
/// `idle_timeout` by each use, once in 16 us). Insertions and removals take the lock of one shard
/// for writing, an insertion that needs much room those of others one after the other. All take
/// constant time, amortised, but for those that say otherwise. An entry costs some 28 bytes apart
/// from its key and value; 24 more with a weigher, `idle_timeout` or `refresh_after`.
///
/// # Time
/// Expired entries are dropped when they are met, evicted before others, and looked for, two slots
/// with each insertion; or all at once by [`purge_expired`](Self::purge_expired). Times are kept
/// in steps of 16.4 us and rounded down: a value may expire that much too early, never too late.
/// A clock that goes back lengthens lives by as much.
///
/// # The user's code
/// Under a lock only `Eq` of keys and `Clone` of values run (in `retain` and `iter` of keys too):
/// they must not use this cache. A panic in them reaches the caller and changes nothing. Hashing,
/// weighing, making, listening and dropping happen outside; a panic in the listener, or in the
/// `Drop` of a value that leaves the cache, is caught.
///
/// ```
/// use std::time::Duration;
/// use overdrive_tiered_cache::Cache;
///
/// let cache = Cache::builder()
///     .name("users")
///     .max_entries(10_000)
///     .ttl(Duration::from_secs(300))
///     .build()?;
///
/// cache.insert("ada".to_owned(), 36)?;
/// assert_eq!(cache.get("ada"), Some(36));
/// let age = cache.get_or_insert_with("bob".to_owned(), || 40); // made once, whoever asks
/// assert_eq!((age, cache.len()), (40, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Cache<K, V, S = RandomState> {
    pub(crate) inner: Arc<Inner<K, V, S>>,
}

/// What a value weighs.
pub(crate) type Weigher<K, V> = Box<dyn Fn(&K, &V) -> u64 + Send + Sync>;

pub(crate) struct Inner<K, V, S> {
    pub(crate) name: Cow<'static, str>,
    pub(crate) hasher: S,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) weigher: Option<Weigher<K, V>>,
    pub(crate) listener: Option<Listener<K, V>>,
    pub(crate) ttl: Ttl,
    /// When a new value is wanted, in ticks after the old was stored.
    pub(crate) refresh: Option<u64>,
    /// Whether any entry has, or had, an end: until then nobody needs to read the clock.
    pub(crate) timed: AtomicBool,
    pub(crate) budget: Budget,
    pub(crate) tally: Tally,
    /// Held by whoever makes room in other shards, and by whoever changes the bound.
    pub(crate) spread: Mutex<()>,
    pub(crate) shards: Box<[Shard<K, V>]>,
}

/// What [`Cache::lookup`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lookup<V> {
    /// A value.
    Fresh(V),
    /// A value that is older than `refresh_after`: good still, but a new one is wanted.
    Stale(V),
    /// None.
    Missing,
}

/// A key's hash, in the parts that are used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hashed {
    pub(crate) shard: u32,
    pub(crate) key: u32,
}

impl Hashed {
    /// Spreads what a weak hasher has left in a few bits.
    #[inline]
    pub(crate) fn new(hash: u64) -> Self {
        let wide = u128::from(hash ^ 0x2545_f491_4f6c_dd1d) * 0x9e37_79b9_7f4a_7c15;
        let mixed = (wide as u64) ^ ((wide >> 64) as u64);
        Self {
            shard: (mixed >> 32) as u32,
            key: mixed as u32,
        }
    }

    /// As one number.
    pub(crate) fn whole(self) -> u64 {
        (u64::from(self.shard) << 32) | u64::from(self.key)
    }
}

impl<K: Hash + Eq, V> Cache<K, V> {
    /// Starts the set-up of a cache.
    pub fn builder() -> CacheBuilder<K, V> {
        CacheBuilder::new()
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    pub(crate) fn new(inner: Inner<K, V, S>) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The value at the key, which counts as use.
    #[must_use]
    pub fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
        V: Clone,
    {
        let hashed = self.hash(key);
        self.get_hashed(hashed, key, self.now(), |value, _| value)
    }

    /// The value at the key, which counts as use, and whether a new one is wanted.
    #[must_use]
    pub fn lookup<Q>(&self, key: &Q) -> Lookup<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
        V: Clone,
    {
        let found = self.get_hashed(self.hash(key), key, self.now(), |value, stale| {
            if stale {
                Lookup::Stale(value)
            } else {
                Lookup::Fresh(value)
            }
        });
        found.unwrap_or(Lookup::Missing)
    }

    /// `with` gets the value and whether it is stale.
    #[inline]
    pub(crate) fn get_hashed<Q, R>(
        &self,
        hashed: Hashed,
        key: &Q,
        now: Tick,
        with: impl FnOnce(V, bool) -> R,
    ) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
        V: Clone,
    {
        let id = thread_id();
        let shard = self.shard(hashed);
        let state = shard.state.read_as(id);
        let mut met_expired = false;
        if let Some((slot, entry)) = state.slots.find(hashed.key, key) {
            if state.slots.is_live(slot, entry, now) {
                let value = entry.value.clone();
                entry.touch();
                let is_stale = state.slots.has_extras() && state.slots.touch_extra(slot, now);
                drop(state);
                self.inner.tally.hit(id);
                return Some(with(value, is_stale));
            }
            met_expired = true;
        }
        // Who misses often stores soon.
        state.slots.look_ahead(hashed.key);
        drop(state);
        self.inner.tally.miss(id);
        if met_expired {
            self.discard_expired(hashed, key, now);
        }
        None
    }

    #[cold]
    fn discard_expired<Q>(&self, hashed: Hashed, key: &Q, now: Tick)
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let mut garbage = self.garbage();
        let mut state = self.shard(hashed).state.write();
        if let (_, Some(slot)) = state.find(hashed.key, key, now) {
            let weight = state.discard(slot, Cause::Expired, &mut garbage);
            self.inner.budget.give(weight);
        }
    }

    /// Whether there is a value at the key. Neither counts as use nor in the figures.
    #[must_use]
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let (hashed, now) = (self.hash(key), self.now());
        self.peek(hashed, key, now, |_| ()).is_some()
    }

    /// What `with` makes of the value, under the lock; this does not count as use.
    pub(crate) fn peek<Q, R>(
        &self,
        hashed: Hashed,
        key: &Q,
        now: Tick,
        with: impl FnOnce(&V) -> R,
    ) -> Option<R>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let state = self.shard(hashed).state.read();
        let (slot, entry) = state.slots.find(hashed.key, key)?;
        (state.slots.is_live(slot, entry, now)).then(|| with(&entry.value))
    }

    /// Stores the value, and gives the one that it replaces. Evicts others until there is room,
    /// usually one.
    ///
    /// A value being made for the key by [`get_or_insert_with`](Self::get_or_insert_with)
    /// meanwhile will not replace it.
    ///
    /// # Errors
    /// A value that weighs more than the whole cache may is given back, and the old one dropped.
    pub fn insert(&self, key: K, value: V) -> Result<Option<V>, Rejected<K, V>> {
        let value = Value {
            weight: self.weigh(&key, &value),
            value,
            ttl: self.inner.ttl,
            tags: None,
        };
        self.store(key, value)
    }

    /// As [`insert`](Self::insert), with a life and tags of its own.
    ///
    /// With a life of zero the value is dropped, and the old one removed and returned.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn insert_with(
        &self,
        key: K,
        value: V,
        options: EntryOptions,
    ) -> Result<Option<V>, Rejected<K, V>> {
        let value = self.value(&key, value, options);
        self.store(key, value)
    }

    #[inline]
    fn store(&self, key: K, value: Value<V>) -> Result<Option<V>, Rejected<K, V>> {
        let hashed = self.hash(&key);
        let mut garbage = self.garbage();
        match self.put(hashed, key, value, Begun::Now, &mut garbage) {
            Put::Stored(old) | Put::NoLife(old) => Ok(old),
            Put::TooHeavy(rejected) => Err(rejected),
            // Nothing supersedes what begins now.
            Put::Superseded => Ok(None),
        }
    }

    /// What is to be stored, with all that is known of it before a lock is taken.
    pub(crate) fn value(&self, key: &K, value: V, options: EntryOptions) -> Value<V> {
        let ttl = options.ttl.unwrap_or(self.inner.ttl);
        Value {
            weight: self.weigh(key, &value),
            value,
            ttl,
            tags: (!options.tags.is_empty()).then(|| options.tags.into_boxed_slice()),
        }
    }

    /// Removes the entry, and gives it. A value being made for the key meanwhile is not stored.
    pub fn remove<Q>(&self, key: &Q) -> Option<(K, V)>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let (hashed, now) = (self.hash(key), self.now());
        let mut garbage = self.garbage();
        self.take(hashed, key, now, &mut garbage, |_| true)
    }

    /// Removes the entry if `condition`, which must not be the user's, holds of it.
    pub(crate) fn take<Q>(
        &self,
        hashed: Hashed,
        key: &Q,
        now: Tick,
        garbage: &mut Garbage<'_, K, V>,
        condition: impl FnOnce(&V) -> bool,
    ) -> Option<(K, V)>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let mut state = self.shard(hashed).state.write();
        let left = self.take_in(&mut state, hashed, key, now, garbage, condition)?;
        drop(state);
        garbage.tell(&left.key, &left.value, Cause::Removed);
        Some((left.key, left.value))
    }

    /// As [`take`](Self::take), under the lock.
    pub(crate) fn take_in<Q>(
        &self,
        state: &mut State<K, V>,
        hashed: Hashed,
        key: &Q,
        now: Tick,
        garbage: &mut Garbage<'_, K, V>,
        condition: impl FnOnce(&V) -> bool,
    ) -> Option<Left<K, V>>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        if let Some((key, _)) = (state.flights).remove_if(hashed.whole(), key, |_| true) {
            garbage.push_key(key);
        }
        let (live, dead) = state.find(hashed.key, key, now);
        if let Some(slot) = dead {
            let weight = state.discard(slot, Cause::Expired, garbage);
            self.inner.budget.give(weight);
        }
        let slot = live.filter(|&slot| {
            let entry = state.slots.entry(slot);
            entry.is_some_and(|entry| condition(&entry.value))
        })?;
        let left = state.detach(slot, Cause::Removed)?;
        self.inner.budget.give(left.weight);
        Some(left)
    }

    /// Removes all entries with that tag, and says how many. Linear in them.
    pub fn invalidate_tag(&self, tag: &str) -> usize {
        let mut garbage = self.garbage();
        self.take_tagged(tag, &mut garbage)
    }

    pub(crate) fn take_tagged(&self, tag: &str, garbage: &mut Garbage<'_, K, V>) -> usize {
        let discard = |shard: &Shard<K, V>| {
            let (n, weight) = shard.state.write().discard_tagged(tag, garbage);
            self.inner.budget.give(weight);
            n
        };
        self.inner.shards.iter().map(discard).sum()
    }

    /// Removes everything. Linear in the entries. Values being made meanwhile are not stored.
    pub fn clear(&self) {
        let mut garbage = self.garbage();
        self.take_all(&mut garbage);
    }

    pub(crate) fn take_all(&self, garbage: &mut Garbage<'_, K, V>) {
        for shard in &self.inner.shards {
            let mut state = shard.state.write();
            for (key, _) in state.flights.take_all(|_| true) {
                garbage.push_key(key);
            }
            let weight = state.clear(garbage);
            self.inner.budget.give(weight);
        }
    }

    #[inline]
    pub(crate) fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> Hashed {
        Hashed::new(self.inner.hasher.hash_one(key))
    }

    #[inline]
    pub(crate) fn shard(&self, hashed: Hashed) -> &Shard<K, V> {
        &self.inner.shards[self.shard_at(hashed)]
    }

    #[inline]
    pub(crate) fn shard_at(&self, hashed: Hashed) -> usize {
        ((u64::from(hashed.shard) * self.inner.shards.len() as u64) >> 32) as usize
    }

    /// At least one, so that the bound on the weight bounds the entries too.
    pub(crate) fn weigh(&self, key: &K, value: &V) -> u64 {
        let weigher = self.inner.weigher.as_ref();
        weigher.map_or(1, |weigher| weigher(key, value).max(1))
    }

    /// The time, if any entry has an end; the origin otherwise, when none looks at it.
    ///
    /// An entry stored after this call, on the very first of the ends, counts as live: it was
    /// stored later than "now".
    #[inline]
    pub(crate) fn now(&self) -> Tick {
        if self.inner.timed.load(Ordering::Relaxed) {
            Tick::now(self.inner.clock.now())
        } else {
            Tick::ZERO
        }
    }

    pub(crate) fn garbage(&self) -> Garbage<'_, K, V> {
        Garbage::new(self.inner.listener.as_ref())
    }
}

/// The calling thread's, for its own counters and flags.
#[inline]
fn thread_id() -> u32 {
    let id = thread_slot::current();
    if id == thread_slot::UNREGISTERED {
        return register();
    }
    id
}

#[cold]
fn register() -> u32 {
    thread_slot::register()
}

impl<K, V, S> Inner<K, V, S> {
    /// What part of the bound a shard has.
    pub(crate) fn share(max: u64, shards: usize, weighted: bool) -> Share {
        let weight = max.div_ceil(shards as u64);
        Share {
            weight,
            entries: if weighted {
                MAX_SLOTS
            } else {
                usize::try_from(weight).unwrap_or(MAX_SLOTS)
            },
        }
    }
}

impl<K, V, S> Drop for Inner<K, V, S> {
    fn drop(&mut self) {
        // One by one, so that a panic in the destructor of one entry does not cost the others
        // theirs. The listener hears of what leaves a cache, not of the end of a cache.
        let mut garbage = Garbage::new(None);
        for shard in &mut self.shards {
            for (key, value) in shard.state.get_mut().slots.clear() {
                garbage.push(key, value, Cause::Removed);
            }
        }
    }
}

impl<K, V, S> Clone for Cache<K, V, S> {
    fn clone(&self) -> Self {
        let inner = Arc::clone(&self.inner);
        Self { inner }
    }
}

impl<K, V, S> fmt::Debug for Cache<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("name", &self.inner.name)
            .field("max_weight", &self.inner.budget.max())
            .finish_non_exhaustive()
    }
}
