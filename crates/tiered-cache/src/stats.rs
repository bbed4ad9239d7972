//! What a cache counts.

/// Counted under a shard's lock, but for hits and misses.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) inserted: u64,
    pub(crate) replaced: u64,
    pub(crate) evicted: u64,
    pub(crate) expired: u64,
    pub(crate) removed: u64,
    pub(crate) rejected: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.hits += other.hits;
        self.misses += other.misses;
        self.inserted += other.inserted;
        self.replaced += other.replaced;
        self.evicted += other.evicted;
        self.expired += other.expired;
        self.removed += other.removed;
        self.rejected += other.rejected;
    }
}

/// A cache's figures, from [`Cache::stats`](crate::Cache::stats), each shard's as of one moment.
///
/// Always `inserted = entries + replaced + evicted + expired + removed`.
///
/// ```
/// # use overdrive_tiered_cache::Cache;
/// let cache = Cache::builder().max_entries(10).build()?;
/// cache.insert("a", 1)?;
/// cache.get("a");
/// cache.get("b");
/// let stats = cache.stats();
/// assert_eq!((stats.hits, stats.misses, stats.entries), (1, 1, 1));
/// assert_eq!(stats.hit_ratio(), Some(0.5));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// Lookups that found a value.
    pub hits: u64,
    /// Lookups that found none, or an expired one.
    pub misses: u64,
    /// Values stored.
    pub inserted: u64,
    /// Values that another took the place of.
    pub replaced: u64,
    /// Values dropped to make room.
    pub evicted: u64,
    /// Expired values dropped.
    pub expired: u64,
    /// Values removed by `remove`, `remove_if`, `invalidate_tag`, `retain` or `clear`, by a value of the same
    /// key that was not stored, or taken out with one.
    pub removed: u64,
    /// Values too heavy to be stored.
    pub rejected: u64,
    /// Entries held now, expired ones that nobody has met yet included.
    pub entries: usize,
    /// Their weight.
    pub weight: u64,
}

impl CacheStats {
    /// The part of lookups that found a value, from 0 to 1; `None` before the first.
    #[must_use]
    pub fn hit_ratio(&self) -> Option<f64> {
        let lookups = self.hits + self.misses;
        (lookups > 0).then(|| self.hits as f64 / lookups as f64)
    }

    pub(crate) fn new(counts: Counts, entries: usize, weight: u64) -> Self {
        Self {
            hits: counts.hits,
            misses: counts.misses,
            inserted: counts.inserted,
            replaced: counts.replaced,
            evicted: counts.evicted,
            expired: counts.expired,
            removed: counts.removed,
            rejected: counts.rejected,
            entries,
            weight,
        }
    }
}
