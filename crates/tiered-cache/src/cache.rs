//! The memory tier.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use overdrive_core::{Clock, Timestamp};

use crate::builder::CacheBuilder;
use crate::flight::Flight;
use crate::garbage::Garbage;
use crate::options::{EntryOptions, Tag, Ttl};
use crate::rejected::Rejected;
use crate::stats::CacheStats;
use crate::store::{New, Store};
use crate::table::Table;

/// Values by key in bounded memory: the least recently used goes first, the expired never shows.
/// Clones are handles of the same cache.
///
/// One lock guards it all, so threads that use it at once wait for each other. Each operation
/// takes constant time under it, but for those that say otherwise. An entry costs some hundred
/// bytes apart from its key and value.
///
/// Expired entries are dropped when they are met, evicted in their turn, or by
/// [`purge_expired`](Self::purge_expired). The bound holds at any time, them included.
///
/// Under the lock only `Eq` of keys and `Clone` of values (in `retain` of keys too) run: they must
/// not use this cache. A panic in them reaches the caller and changes nothing. Hashing, weighing,
/// making and dropping happen outside of it; a panic in the `Drop` of a value that leaves the
/// cache is caught.
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
    inner: Arc<Inner<K, V, S>>,
}

/// What a value weighs.
pub(crate) type Weigher<K, V> = Box<dyn Fn(&K, &V) -> u64 + Send + Sync>;

pub(crate) struct Inner<K, V, S> {
    pub(crate) name: Cow<'static, str>,
    pub(crate) hasher: S,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) weigher: Option<Weigher<K, V>>,
    pub(crate) max_weight: u64,
    pub(crate) ttl: Ttl,
    /// Whether any entry has, or had, an end: until then nobody needs to read the clock.
    pub(crate) timed: AtomicBool,
    pub(crate) shared: Mutex<Shared<K, V>>,
}

/// What the lock guards.
pub(crate) struct Shared<K, V> {
    pub(crate) store: Store<K, V>,
    /// The values being made, by key. Taking one out of here does not end it, but what it makes
    /// is not stored then.
    pub(crate) flights: Table<K, Arc<Flight<V>>>,
    #[cfg(test)]
    pub(crate) guards: crate::controls::Guards,
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
        let (hash, now) = (self.hash(key), self.now());
        let mut garbage = Garbage::new();
        let mut shared = self.lock();
        shared.store.get(hash, key, now, &mut garbage).cloned()
    }

    /// Whether there is a value at the key. Neither counts as use nor in the figures.
    #[must_use]
    pub fn contains_key<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let (hash, now) = (self.hash(key), self.now());
        self.lock().store.peek(hash, key, now).is_some()
    }

    /// Stores the value, and gives the one that it replaces. Evicts the least recently used
    /// entries until there is room, usually one.
    ///
    /// A value being made for the key by [`get_or_insert_with`](Self::get_or_insert_with)
    /// meanwhile will not replace it.
    ///
    /// # Errors
    /// A value that weighs more than the whole cache may is given back, and the old one dropped.
    pub fn insert(&self, key: K, value: V) -> Result<Option<V>, Rejected<K, V>> {
        self.insert_with(key, value, EntryOptions::new())
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
        let ttl = options.ttl.unwrap_or(self.inner.ttl);
        let hash = self.hash(&key);
        let weight = self.weigh(&key, &value);
        let now = self.now_for(ttl);
        let mut garbage = Garbage::new();
        let mut shared = self.lock();
        if let Some((key, _)) = shared.flights.remove_if(hash, &key, |_| true) {
            garbage.push_key(key);
        }
        if ttl.is_zero() {
            let old = shared.store.remove(hash, &key, now, &mut garbage);
            garbage.push(key, value);
            return Ok(old.map(|(key, value)| {
                garbage.push_key(key);
                value
            }));
        }
        let new = New {
            hash,
            key,
            value,
            weight,
            now,
            expires: end(now, ttl),
            tags: tags(options.tags),
        };
        self.put(&mut shared, new, &mut garbage)
    }

    /// Removes the entry, and gives it. A value being made for the key meanwhile is not stored.
    pub fn remove<Q>(&self, key: &Q) -> Option<(K, V)>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let (hash, now) = (self.hash(key), self.now());
        let mut garbage = Garbage::new();
        let mut shared = self.lock();
        if let Some((key, _)) = shared.flights.remove_if(hash, key, |_| true) {
            garbage.push_key(key);
        }
        shared.store.remove(hash, key, now, &mut garbage)
    }

    /// Removes all entries with that tag, and says how many. Linear in them.
    pub fn invalidate_tag(&self, tag: &str) -> usize {
        let mut garbage = Garbage::new();
        self.lock().store.remove_tagged(tag, &mut garbage)
    }

    /// Removes the entries of which `keep` says false, and says how many.
    ///
    /// `keep` sees copies, outside of the lock; an entry that is replaced meanwhile stays. Linear
    /// in the entries. Values being made meanwhile are not asked about.
    ///
    /// # Panics
    /// If `keep` does; nothing is removed then.
    pub fn retain(&self, mut keep: impl FnMut(&K, &V) -> bool) -> usize
    where
        K: Clone,
        V: Clone,
    {
        let now = self.now();
        let entries = self.lock().store.snapshot(now);
        let gone: Vec<_> = entries
            .iter()
            .filter(|(_, key, value)| !keep(key, value))
            .map(|(at, ..)| *at)
            .collect();
        let mut garbage = Garbage::new();
        let mut shared = self.lock();
        let removed = gone
            .into_iter()
            .filter(|&at| shared.store.remove_exact(at, &mut garbage));
        removed.count()
    }

    /// Removes everything. Linear in the entries. Values being made meanwhile are not stored.
    pub fn clear(&self) {
        let mut garbage = Garbage::new();
        let mut shared = self.lock();
        for (key, _) in shared.flights.take_all(|_| true) {
            garbage.push_key(key);
        }
        shared.store.clear(&mut garbage);
    }

    /// Drops the expired entries, and says how many. Linear in all entries.
    pub fn purge_expired(&self) -> usize {
        let now = self.now();
        let mut garbage = Garbage::new();
        self.lock().store.purge(now, &mut garbage)
    }

    /// How many entries it holds, expired ones that nobody has met yet included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().store.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the entries weigh; without a weigher, one each.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.lock().store.weight()
    }

    /// What they may weigh at most.
    #[must_use]
    pub fn max_weight(&self) -> u64 {
        self.inner.max_weight
    }

    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its figures. Takes the lock.
    #[must_use]
    pub fn stats(&self) -> CacheStats {
        let shared = self.lock();
        let store = &shared.store;
        CacheStats::new(store.counts, store.len(), store.weight())
    }

    pub(crate) fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        self.inner.hasher.hash_one(key)
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
    pub(crate) fn now(&self) -> Timestamp {
        if self.inner.timed.load(Ordering::Relaxed) {
            self.inner.clock.now()
        } else {
            Timestamp::ZERO
        }
    }

    /// The time for an entry that is to live so long.
    pub(crate) fn now_for(&self, ttl: Ttl) -> Timestamp {
        if matches!(ttl, Ttl::After(_)) {
            self.inner.timed.store(true, Ordering::Relaxed);
        }
        self.now()
    }

    pub(crate) fn default_ttl(&self) -> Ttl {
        self.inner.ttl
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Shared<K, V>> {
        // Only `Eq` and `Clone` can panic under it, before anything is changed.
        let shared = self.inner.shared.lock();
        shared.unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores it if it is not too heavy.
    pub(crate) fn put(
        &self,
        shared: &mut Shared<K, V>,
        new: New<K, V>,
        garbage: &mut Garbage<K, V>,
    ) -> Result<Option<V>, Rejected<K, V>> {
        if new.weight <= self.inner.max_weight {
            return Ok(shared.store.insert(new, garbage));
        }
        let store = &mut shared.store;
        store.counts.rejected += 1;
        let old = store.remove(new.hash, &new.key, new.now, garbage);
        if let Some((key, value)) = old {
            garbage.push(key, value);
        }
        Err(Rejected::TooHeavy {
            key: new.key,
            value: new.value,
            weight: new.weight,
            max: self.inner.max_weight,
        })
    }
}

pub(crate) fn end(now: Timestamp, ttl: Ttl) -> Timestamp {
    match ttl {
        Ttl::After(duration) => now.saturating_add(duration),
        Ttl::Forever => Timestamp::MAX,
    }
}

pub(crate) fn tags(tags: Vec<Tag>) -> Box<[Tag]> {
    tags.into_boxed_slice()
}

impl<K, V> Shared<K, V>
where
    K: Eq,
{
    pub(crate) fn new(max_weight: u64, idle: Option<Duration>) -> Mutex<Self> {
        Mutex::new(Self {
            store: Store::new(max_weight, idle),
            flights: Table::default(),
            #[cfg(test)]
            guards: crate::controls::Guards::default(),
        })
    }
}

impl<K, V> Drop for Shared<K, V> {
    fn drop(&mut self) {
        // So that a panic in the destructor of one entry does not cost the others theirs.
        self.store.abandon();
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
            .field("max_weight", &self.inner.max_weight)
            .finish_non_exhaustive()
    }
}
