//! The tier of a single request.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::options::EntryOptions;
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
    /// `None` is a key that this request has invalidated.
    seen: Mutex<HashMap<K, Option<Arc<V>>>>,
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
        if let Some(seen) = self.recall(key) {
            let tier = Tier::Request;
            return Ok(seen.map(|value| Hit { value, tier }));
        }
        let hit = self.cache.get(key).await?;
        if let Some(hit) = &hit {
            self.note(key, Some(Arc::clone(&hit.value)));
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
        if let Some(Some(value)) = self.recall(key) {
            return Ok(value);
        }
        let value = self.cache.load_with(key, options, loader).await?;
        self.note(key, Some(Arc::clone(&value)));
        Ok(value)
    }

    /// As [`TieredCache::insert`]; this request sees what the cache holds then.
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
        let written = self.cache.insert(key, value).await?;
        self.note(&seen, Some(copy));
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
        self.note(key, None);
        self.cache.invalidate(key).await
    }

    /// The cache behind it.
    #[must_use]
    pub fn cache(&self) -> &TieredCache<K, V> {
        &self.cache
    }

    fn recall(&self, key: &K) -> Option<Option<Arc<V>>> {
        self.lock().get(key).cloned()
    }

    fn note(&self, key: &K, value: Option<Arc<V>>) {
        let key = key.clone();
        let old = self.lock().insert(key, value);
        drop(old);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Option<Arc<V>>>> {
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
