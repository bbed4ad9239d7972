//! The figures of a loader.

use crate::stats::BatchStats;

/// The figures of a loader, from [`stats`](crate::Loader::stats).
///
/// At rest `loads = cache_hits + batches.submitted`; each is exact, and read after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoaderStats {
    /// Keys asked for.
    pub loads: u64,
    /// Keys that the cache had.
    pub cache_hits: u64,
    /// Calls of the function.
    pub calls: u64,
    /// Keys given to the function: in each call each key once.
    pub unique_keys: u64,
    /// Keys that found themselves in their batch already.
    pub duplicates: u64,
    /// The batcher's, with keys for items.
    pub batches: BatchStats,
}
