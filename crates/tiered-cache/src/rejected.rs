//! The error of an insertion.

use std::error::Error;
use std::fmt;

/// Why a value was not stored. It gives key and value back; what was there under the key is gone.
#[non_exhaustive]
pub enum Rejected<K, V> {
    /// It weighs more than the whole cache may.
    TooHeavy {
        /// The key.
        key: K,
        /// The value.
        value: V,
        /// What the weigher said.
        weight: u64,
        /// What the cache may weigh.
        max: u64,
    },
}

impl<K, V> Rejected<K, V> {
    /// The key and the value.
    pub fn into_inner(self) -> (K, V) {
        let Self::TooHeavy { key, value, .. } = self;
        (key, value)
    }
}

impl<K, V> fmt::Debug for Rejected<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::TooHeavy { weight, max, .. } = self;
        f.debug_struct("TooHeavy")
            .field("weight", weight)
            .field("max", max)
            .finish_non_exhaustive()
    }
}

impl<K, V> fmt::Display for Rejected<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::TooHeavy { weight, max, .. } = self;
        write!(
            f,
            "the value weighs {weight}, more than the cache may ({max})"
        )
    }
}

impl<K, V> Error for Rejected<K, V> {}
