//! The peers, each as its documentation shows.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use crate::scenarios::{Memory, Stampede};

pub(crate) type QuickCache = quick_cache::sync::Cache<u64, u64>;
pub(crate) type Moka = moka::sync::Cache<u64, u64>;
pub(crate) type MokaFuture = moka::future::Cache<u64, u64>;

impl Memory for QuickCache {
    fn new(capacity: usize) -> Self {
        Self::new(capacity)
    }

    fn get(&self, key: u64) -> Option<u64> {
        Self::get(self, &key)
    }

    fn insert(&self, key: u64, value: u64) {
        Self::insert(self, key, value);
    }
}

impl Memory for Moka {
    fn new(capacity: usize) -> Self {
        Self::new(capacity as u64)
    }

    fn get(&self, key: u64) -> Option<u64> {
        Self::get(self, &key)
    }

    fn insert(&self, key: u64, value: u64) {
        Self::insert(self, key, value);
    }
}

pub(crate) struct MutexLru(Mutex<lru::LruCache<u64, u64>>);

impl Memory for MutexLru {
    fn new(capacity: usize) -> Self {
        let capacity = NonZeroUsize::new(capacity).unwrap_or(NonZeroUsize::MIN);
        Self(Mutex::new(lru::LruCache::new(capacity)))
    }

    fn get(&self, key: u64) -> Option<u64> {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.get(&key).copied()
    }

    fn insert(&self, key: u64, value: u64) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.put(key, value);
    }
}

impl Stampede for MokaFuture {
    fn new() -> Self {
        Self::new(1_000)
    }

    async fn load<F: Future<Output = Result<u64, ()>> + Send + 'static>(
        self,
        key: u64,
        loader: F,
    ) -> Option<u64> {
        self.try_get_with(key, loader).await.ok()
    }
}

impl Stampede for Arc<QuickCache> {
    fn new() -> Self {
        Self::new(QuickCache::new(1_000))
    }

    async fn load<F: Future<Output = Result<u64, ()>> + Send + 'static>(
        self,
        key: u64,
        loader: F,
    ) -> Option<u64> {
        self.get_or_insert_async(&key, loader).await.ok()
    }
}
