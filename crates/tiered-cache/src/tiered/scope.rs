//! The tier of a single request.

use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::options::EntryOptions;
use crate::table::Table;
use crate::tiered::error::{CacheError, InsertError, InvalidateError, LoadError, Written};
use crate::tiered::{Hit, Tier, TieredCache};

/// A view of a [`TieredCache`] for one request: what it has seen, it sees again, whatever others
/// do meanwhile; its own insertions and invalidations it sees at once, whatever became of them in
/// the tiers below. From [`TieredCache::request_scope`].
///
/// It remembers each key that it has found, without bound, until it is dropped: it is meant to
/// live as long as a request.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use overdrive_tiered_cache::{Tier, TieredCache};
///
/// let cache = TieredCache::<u64, String>::builder().max_entries(100).build()?;
/// let request = cache.request_scope();
/// request.load(&1, || async { Ok::<_, std::io::Error>("one".to_owned()) }).await?;
/// cache.invalidate(&1).await?;
/// assert_eq!(request.get(&1).await?.unwrap().tier, Tier::Request);
/// request.invalidate(&1).await?;
/// assert_eq!(request.get(&1).await?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
pub struct RequestScope<K, V> {
    cache: TieredCache<K, V>,
    seen: Mutex<Table<K, Seen<V>>>,
}

/// What the request knows of a key.
struct Seen<V> {
    value: Value<V>,
    /// How often the request has changed the key: a read begun before the last change is not
    /// remembered.
    changes: u64,
}

enum Value<V> {
    Found(Arc<V>),
    Invalidated,
    /// The tiers are to be asked.
    Unknown,
}

impl<V> Clone for Seen<V> {
    fn clone(&self) -> Self {
        let value = match &self.value {
            Value::Found(value) => Value::Found(Arc::clone(value)),
            Value::Invalidated => Value::Invalidated,
            Value::Unknown => Value::Unknown,
        };
        let changes = self.changes;
        Self { value, changes }
    }
}

impl<K, V> RequestScope<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(crate) fn new(cache: TieredCache<K, V>) -> Self {
        Self {
            cache,
            seen: Mutex::default(),
        }
    }

    /// As [`TieredCache::get`].
    ///
    /// # Errors
    /// As [`TieredCache::get`].
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn get(&self, key: &K) -> Result<Option<Hit<V>>, CacheError> {
        let seen = self.recall(key);
        match seen.value {
            Value::Found(value) => {
                let tier = Tier::Request;
                return Ok(Some(Hit { value, tier }));
            }
            Value::Invalidated => return Ok(None),
            Value::Unknown => {}
        }
        let hit = self.cache.get(key).await?;
        if let Some(hit) = &hit {
            self.note(key, seen.changes, &hit.value);
        }
        Ok(hit)
    }

    /// As [`TieredCache::load`].
    ///
    /// # Errors
    /// As [`TieredCache::load`].
    ///
    /// # Panics
    /// As [`TieredCache::load`].
    ///
    /// # Cancel safety
    /// As [`TieredCache::load`].
    pub async fn load<E, F, Fut>(&self, key: &K, loader: F) -> Result<Arc<V>, LoadError<E>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        self.load_with(key, EntryOptions::new(), loader).await
    }

    /// As [`TieredCache::load_with`].
    ///
    /// # Errors
    /// As [`TieredCache::load`].
    ///
    /// # Panics
    /// As [`TieredCache::load`].
    ///
    /// # Cancel safety
    /// As [`TieredCache::load`].
    pub async fn load_with<E, F, Fut>(
        &self,
        key: &K,
        options: EntryOptions,
        loader: F,
    ) -> Result<Arc<V>, LoadError<E>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let seen = self.recall(key);
        if let Value::Found(value) = seen.value {
            return Ok(value);
        }
        let value = self.cache.load_with(key, options, loader).await?;
        self.note(key, seen.changes, &value);
        Ok(value)
    }

    /// As [`TieredCache::insert`]; this request sees the value from then on, and what is in the
    /// tiers below until then.
    ///
    /// # Errors
    /// As [`TieredCache::insert`].
    ///
    /// # Cancel safety
    /// As [`TieredCache::insert_with`]; this request then sees what is in the tiers below.
    pub async fn insert(&self, key: K, value: V) -> Result<Written, InsertError<K, V>>
    where
        V: Clone,
    {
        let copy = Arc::new(value.clone());
        let seen = key.clone();
        self.change(&seen, Value::Unknown);
        let written = self.cache.insert(key, value).await?;
        self.change(&seen, Value::Found(copy));
        Ok(written)
    }

    /// As [`TieredCache::invalidate`]; this request does not [`get`](Self::get) the value any
    /// more, even if the second tier still has it.
    ///
    /// # Errors
    /// As [`TieredCache::invalidate`].
    ///
    /// # Cancel safety
    /// As [`TieredCache::invalidate`].
    pub async fn invalidate(&self, key: &K) -> Result<(), InvalidateError> {
        self.change(key, Value::Invalidated);
        self.cache.invalidate(key).await
    }

    /// The cache behind it.
    #[must_use]
    pub fn cache(&self) -> &TieredCache<K, V> {
        &self.cache
    }

    fn recall(&self, key: &K) -> Seen<V> {
        let hash = self.hash(key);
        let seen = self.lock().get(hash, key).cloned();
        seen.unwrap_or(Seen {
            value: Value::Unknown,
            changes: 0,
        })
    }

    /// Remembers what was read, unless the request has changed it since, or read it before.
    fn note(&self, key: &K, changes: u64, value: &Arc<V>) {
        self.replace(key, |old| {
            let is_first = !matches!(
                old,
                Some(Seen {
                    value: Value::Found(_),
                    ..
                })
            );
            let same = old.map_or(0, |old| old.changes) == changes;
            (is_first && same).then(|| Seen {
                value: Value::Found(Arc::clone(value)),
                changes,
            })
        });
    }

    fn change(&self, key: &K, value: Value<V>) {
        self.replace(key, |old| {
            let changes = old.map_or(0, |old| old.changes) + 1;
            Some(Seen { value, changes })
        });
    }

    /// Keys are copied, hashed and dropped outside of the lock.
    fn replace(&self, key: &K, new: impl FnOnce(Option<&Seen<V>>) -> Option<Seen<V>>) {
        let (hash, copy) = (self.hash(key), key.clone());
        let mut seen = self.lock();
        let Some(new) = new(seen.get(hash, key)) else {
            drop(seen);
            return;
        };
        let old = seen.remove_if(hash, key, |_| true);
        seen.insert(hash, copy, new);
        drop(seen);
        drop(old);
    }

    fn hash(&self, key: &K) -> u64 {
        self.cache.inner.memory.hash(key).whole()
    }

    fn lock(&self) -> MutexGuard<'_, Table<K, Seen<V>>> {
        // Only `Eq` of keys can panic under it, before anything is changed.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V> fmt::Debug for RequestScope<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestScope")
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}
