//! The crate under test.

use std::time::Duration;

use overdrive_tiered_cache::{Cache, TieredCache};

use crate::scenarios::{Memory, Stampede};

pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Memory for Cache<u64, u64> {
    fn new(capacity: usize) -> Self {
        match Self::builder().max_entries(capacity).build() {
            Ok(cache) => cache,
            Err(error) => panic!("a valid capacity was refused: {error}"),
        }
    }

    fn get(&self, key: u64) -> Option<u64> {
        Self::get(self, &key)
    }

    fn insert(&self, key: u64, value: u64) {
        if let Err(error) = Self::insert(self, key, value) {
            panic!("an entry was refused: {error}");
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
