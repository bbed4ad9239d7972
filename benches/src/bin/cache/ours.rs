//! The crate under test.

use std::time::Duration;

use overdrive_tiered_cache::{Cache, CacheBuilder, TieredCache};

use crate::memory::{Hasher, Key, Memory, Size, Value};
use crate::stampede::Stampede;

pub(crate) const NAME: &str = "overdrive-tiered-cache";
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(crate) type Ours<K, V> = Cache<K, V, Hasher>;

pub(crate) fn builder<K: Key, V: Value>(size: Size) -> CacheBuilder<K, V, Hasher> {
    let builder = Cache::builder().max_entries(size.capacity);
    let builder = builder.hasher(Hasher::default());
    match size.shards {
        Some(shards) => builder.shards(shards),
        None => builder,
    }
}

pub(crate) fn build<K: Key, V: Value>(builder: CacheBuilder<K, V, Hasher>) -> Ours<K, V> {
    match builder.build() {
        Ok(cache) => cache,
        Err(error) => panic!("a valid set-up was refused: {error}"),
    }
}

impl<K: Key, V: Value> Memory<K, V> for Ours<K, V> {
    fn new(size: Size) -> Self {
        build(builder(size))
    }

    fn get(&self, key: &K) -> Option<V> {
        Self::get(self, key)
    }

    fn insert(&self, key: K, value: V) {
        if Self::insert(self, key, value).is_err() {
            panic!("an entry was refused");
        }
    }
}

impl Stampede for TieredCache<u64, u64> {
    fn new() -> Self {
        let cache = Self::builder()
            .max_entries(1_000)
            .ttl(Duration::from_secs(3_600));
        match cache.build() {
            Ok(cache) => cache,
            Err(error) => panic!("a valid set-up was refused: {error}"),
        }
    }

    async fn load<F: Future<Output = Result<u64, ()>> + Send + 'static>(
        self,
        key: u64,
        loader: F,
    ) -> Option<u64> {
        let value = Self::load(&self, &key, || loader).await;
        value.ok().map(|value| *value)
    }
}

/// The memory tier alone, without a task for the loader.
impl Stampede for Cache<u64, u64> {
    fn new() -> Self {
        match Self::builder().max_entries(1_000).build() {
            Ok(cache) => cache,
            Err(error) => panic!("a valid set-up was refused: {error}"),
        }
    }

    async fn load<F: Future<Output = Result<u64, ()>> + Send + 'static>(
        self,
        key: u64,
        loader: F,
    ) -> Option<u64> {
        self.try_get_or_insert_async(key, || loader).await.ok()
    }
}
