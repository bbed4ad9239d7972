//! The floor: a map that never evicts, behind a lock for many readers.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use crate::scenarios::Memory;

pub(crate) struct RwLockMap(RwLock<HashMap<u64, u64>>);

impl Memory for RwLockMap {
    fn new(capacity: usize) -> Self {
        Self(RwLock::new(HashMap::with_capacity(capacity)))
    }

    fn get(&self, key: u64) -> Option<u64> {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        map.get(&key).copied()
    }

    fn insert(&self, key: u64, value: u64) {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        map.insert(key, value);
    }
}
