//! What a tiered cache counts.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::stats::CacheStats;

/// What is counted, as an index.
#[derive(Clone, Copy)]
pub(crate) enum Count {
    Joined,
    LoadErrors,
    LoadPanics,
    Loads,
    LoadTimeouts,
    MemoryHits,
    MemoryMisses,
    SecondHits,
    SecondInvalidated,
    SecondMisses,
    SecondUnavailable,
    SecondUnreadable,
    SecondWriteFailures,
    SecondWrites,
    Stale,
    Superseded,
}

#[derive(Default)]
pub(crate) struct Counts([AtomicU64; Count::Superseded as usize + 1]);

impl Counts {
    pub(crate) fn up(&self, count: Count) {
        self.0[count as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self, loading: usize, memory: CacheStats) -> TieredCacheStats {
        let of = |count: Count| self.0[count as usize].load(Ordering::Relaxed);
        TieredCacheStats {
            memory_hits: of(Count::MemoryHits),
            memory_misses: of(Count::MemoryMisses),
            second_hits: of(Count::SecondHits),
            second_misses: of(Count::SecondMisses),
            second_unavailable: of(Count::SecondUnavailable),
            second_unreadable: of(Count::SecondUnreadable),
            second_invalidated: of(Count::SecondInvalidated),
            second_writes: of(Count::SecondWrites),
            second_write_failures: of(Count::SecondWriteFailures),
            loads: of(Count::Loads),
            load_errors: of(Count::LoadErrors),
            load_panics: of(Count::LoadPanics),
            load_timeouts: of(Count::LoadTimeouts),
            joined: of(Count::Joined),
            stale: of(Count::Stale),
            superseded: of(Count::Superseded),
            loading,
            memory,
        }
    }
}

/// The figures of a [`TieredCache`](crate::TieredCache), from
/// [`stats`](crate::TieredCache::stats). A snapshot taken during traffic may be off by the
/// operations under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TieredCacheStats {
    /// Lookups that found a fresh value in memory.
    pub memory_hits: u64,
    /// Lookups that found none there.
    pub memory_misses: u64,
    /// Reads of the second tier that found a fresh value.
    pub second_hits: u64,
    /// Reads of the second tier that found none; it answered.
    pub second_misses: u64,
    /// Reads of the second tier that it did not answer. Not among the misses.
    pub second_unavailable: u64,
    /// Those of `second_misses` that found what is damaged, of another format or schema, or
    /// cannot be decoded.
    pub second_unreadable: u64,
    /// Those of `second_misses` that found what was invalidated by a tag or a clear.
    pub second_invalidated: u64,
    /// Values written to the second tier.
    pub second_writes: u64,
    /// Values that should have been, and were not.
    pub second_write_failures: u64,
    /// Loaders started.
    pub loads: u64,
    /// Loaders that gave an error.
    pub load_errors: u64,
    /// Loaders that panicked.
    pub load_panics: u64,
    /// Loaders that took too long.
    pub load_timeouts: u64,
    /// Calls of `load` that waited for a load under way instead of starting one.
    pub joined: u64,
    /// Failed loads that a stale value stood in for.
    pub stale: u64,
    /// Values that were not stored in memory because of an invalidation or insertion while they
    /// were on their way.
    pub superseded: u64,
    /// Loads under way now, their writes to the second tier included.
    pub loading: usize,
    /// The figures of the memory tier as a cache of its own.
    pub memory: CacheStats,
}

impl TieredCacheStats {
    /// The part of lookups that memory answered, from 0 to 1; `None` before the first.
    #[must_use]
    pub fn memory_hit_ratio(&self) -> Option<f64> {
        ratio(self.memory_hits, self.memory_misses)
    }

    /// The part of reads answered by the second tier that found a value, from 0 to 1; `None`
    /// before the first.
    #[must_use]
    pub fn second_hit_ratio(&self) -> Option<f64> {
        ratio(self.second_hits, self.second_misses)
    }
}

fn ratio(hits: u64, misses: u64) -> Option<f64> {
    let all = hits + misses;
    (all > 0).then(|| hits as f64 / all as f64)
}
