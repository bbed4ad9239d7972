//! The peers, each as its documentation shows, with the hasher that all have where they take one.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use foyer_memory::EvictionConfig;

use crate::memory::{Hasher, Key, Memory, Size, Value};
use crate::stampede::Stampede;

/// The version that the benchmark was built with.
pub(crate) fn version(package: &str) -> String {
    overdrive_bench::locked_version(include_str!("../../../../Cargo.lock"), package)
}

pub(crate) type QuickCache<K, V> =
    quick_cache::sync::Cache<K, V, quick_cache::UnitWeighter, Hasher>;

impl<K: Key, V: Value> Memory<K, V> for QuickCache<K, V> {
    fn new(size: Size) -> Self {
        let mut options = quick_cache::OptionsBuilder::new();
        options.estimated_items_capacity(size.capacity);
        options.weight_capacity(size.capacity as u64);
        if let Some(shards) = size.shards {
            options.shards(shards);
        }
        match options.build() {
            Ok(options) => Self::with_options(
                options,
                quick_cache::UnitWeighter,
                Hasher::default(),
                quick_cache::sync::DefaultLifecycle::default(),
            ),
            Err(error) => panic!("a valid set-up was refused: {error}"),
        }
    }

    fn get(&self, key: &K) -> Option<V> {
        Self::get(self, key)
    }

    fn insert(&self, key: K, value: V) {
        Self::insert(self, key, value);
    }
}

pub(crate) type Moka<K, V> = moka::sync::Cache<K, V, Hasher>;

impl<K: Key, V: Value> Memory<K, V> for Moka<K, V> {
    fn new(size: Size) -> Self {
        let cache = moka::sync::Cache::builder().max_capacity(size.capacity as u64);
        cache.build_with_hasher(Hasher::default())
    }

    fn get(&self, key: &K) -> Option<V> {
        Self::get(self, key)
    }

    fn insert(&self, key: K, value: V) {
        Self::insert(self, key, value);
    }

    fn settle(&self) {
        self.run_pending_tasks();
    }
}

pub(crate) type MiniMoka<K, V> = mini_moka::sync::Cache<K, V, Hasher>;

impl<K: Key, V: Value> Memory<K, V> for MiniMoka<K, V> {
    fn new(size: Size) -> Self {
        let cache = mini_moka::sync::Cache::builder().max_capacity(size.capacity as u64);
        cache.build_with_hasher(Hasher::default())
    }

    fn get(&self, key: &K) -> Option<V> {
        Self::get(self, key)
    }

    fn insert(&self, key: K, value: V) {
        Self::insert(self, key, value);
    }

    fn settle(&self) {
        mini_moka::sync::ConcurrentCacheExt::sync(self);
    }
}

/// An algorithm of foyer, whose default eight shards are fewer where the cache is small.
pub(crate) trait Algorithm: Send + Sync + 'static {
    fn config() -> EvictionConfig;
}

pub(crate) struct FoyerFifo;
pub(crate) struct FoyerLru;
pub(crate) struct FoyerLfu;
pub(crate) struct FoyerS3;
pub(crate) struct FoyerSieve;

macro_rules! algorithms {
    ($($name:ident $config:ident,)*) => {$(
        impl Algorithm for $name {
            fn config() -> EvictionConfig {
                foyer_memory::$config::default().into()
            }
        }
    )*};
}

algorithms! {
    FoyerFifo FifoConfig,
    FoyerLru LruConfig,
    FoyerLfu LfuConfig,
    FoyerS3 S3FifoConfig,
    FoyerSieve SieveConfig,
}

pub(crate) struct Foyer<K: Key, V: Value, A>(
    foyer_memory::Cache<K, V, Hasher>,
    std::marker::PhantomData<A>,
);

impl<K: Key, V: Value, A: Algorithm> Memory<K, V> for Foyer<K, V, A> {
    fn new(size: Size) -> Self {
        let shards = size
            .shards
            .unwrap_or(if size.capacity < 4_096 { 1 } else { 8 });
        let cache = foyer_memory::CacheBuilder::new(size.capacity)
            .with_shards(shards)
            .with_eviction_config(A::config())
            .with_hash_builder(Hasher::default())
            .build();
        Self(cache, std::marker::PhantomData)
    }

    fn get(&self, key: &K) -> Option<V> {
        self.0.get(key).map(|entry| entry.value().clone())
    }

    fn insert(&self, key: K, value: V) {
        self.0.insert(key, value);
    }
}

impl<K: Key, V: Value> Memory<K, V> for tinyufo::TinyUfo<K, V> {
    fn new(size: Size) -> Self {
        Self::new(size.capacity, size.capacity)
    }

    fn get(&self, key: &K) -> Option<V> {
        Self::get(self, key)
    }

    fn insert(&self, key: K, value: V) {
        self.put(key, value, 1);
    }
}

pub(crate) type Scc<K, V> = scc::HashCache<K, V, Hasher>;

impl<K: Key, V: Value> Memory<K, V> for Scc<K, V> {
    fn new(size: Size) -> Self {
        Self::with_capacity_and_hasher(0, size.capacity, Hasher::default())
    }

    fn get(&self, key: &K) -> Option<V> {
        self.get_sync(key).map(|entry| entry.get().clone())
    }

    fn insert(&self, key: K, value: V) {
        drop(self.put_sync(key, value));
    }
}

pub(crate) type Papaya<K, V> = papaya::HashMap<K, V, Hasher>;

impl<K: Key, V: Value> Memory<K, V> for Papaya<K, V> {
    fn new(size: Size) -> Self {
        Self::with_capacity_and_hasher(size.capacity, Hasher::default())
    }

    fn get(&self, key: &K) -> Option<V> {
        self.pin().get(key).cloned()
    }

    fn insert(&self, key: K, value: V) {
        self.pin().insert(key, value);
    }
}

pub(crate) type DashMap<K, V> = dashmap::DashMap<K, V, Hasher>;

impl<K: Key, V: Value> Memory<K, V> for DashMap<K, V> {
    fn new(size: Size) -> Self {
        let (capacity, hasher) = (size.capacity, Hasher::default());
        match size.shards {
            Some(n) => Self::with_capacity_and_hasher_and_shard_amount(capacity, hasher, n),
            None => Self::with_capacity_and_hasher(capacity, hasher),
        }
    }

    fn get(&self, key: &K) -> Option<V> {
        Self::get(self, key).map(|entry| entry.value().clone())
    }

    fn insert(&self, key: K, value: V) {
        Self::insert(self, key, value);
    }
}

pub(crate) struct MutexLru<K: Key, V>(Mutex<lru::LruCache<K, V, Hasher>>);

impl<K: Key, V: Value> Memory<K, V> for MutexLru<K, V> {
    fn new(size: Size) -> Self {
        let capacity = NonZeroUsize::new(size.capacity).unwrap_or(NonZeroUsize::MIN);
        let cache = lru::LruCache::with_hasher(capacity, Hasher::default());
        Self(Mutex::new(cache))
    }

    fn get(&self, key: &K) -> Option<V> {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.get(key).cloned()
    }

    fn insert(&self, key: K, value: V) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.put(key, value);
    }
}

impl Stampede for moka::future::Cache<u64, u64> {
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

impl Stampede for Arc<QuickCache<u64, u64>> {
    fn new() -> Self {
        Self::new(Memory::new(Size::of(1_000)))
    }

    async fn load<F: Future<Output = Result<u64, ()>> + Send + 'static>(
        self,
        key: u64,
        loader: F,
    ) -> Option<u64> {
        self.get_or_insert_async(&key, loader).await.ok()
    }
}
