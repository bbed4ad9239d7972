//! What a pool counts, and the reports of its clean-up calls.

/// What is counted, as an index. The two of the fast path come first, to share the line of the
/// slot's other hot fields.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Count {
    Hits,
    Returned,
    Added,
    ByPanic,
    ByReset,
    Detached,
    Explicit,
    Failed,
    Misses,
    Surplus,
    Trimmed,
    Warmed,
}

pub(crate) const COUNTS: usize = Count::Warmed as usize + 1;

/// A pool's figures, from [`Pool::stats`](crate::Pool::stats).
///
/// Threads count on their own lines without read-modify-write operations, and the call adds the
/// figures up while they go on. So a snapshot taken during traffic may be off by the operations
/// in flight; taken at rest it is exact, and then these hold:
///
/// - objects made = `misses + warmed + added` = `in_use + idle() + discarded() + detached`
/// - `idle() <= max_idle`, at any time
///
/// ```
/// # use overdrive_pool::Pool;
/// let pool = Pool::builder().name("rows").factory(Vec::<u8>::new).build()?;
/// assert_eq!(pool.stats().hit_ratio(), None);
///
/// drop(pool.get());
/// drop(pool.get());
/// let stats = pool.stats();
/// assert_eq!((stats.hits, stats.misses, stats.returned), (1, 1, 2));
/// assert_eq!(stats.hit_ratio(), Some(0.5));
/// # Ok::<(), overdrive_pool::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Gets that found an idle object.
    pub hits: u64,
    /// Gets that had one made.
    pub misses: u64,
    /// Objects that came back and passed the reset.
    pub returned: u64,
    /// Objects made ahead by [`warm`](crate::Pool::warm).
    pub warmed: u64,
    /// Objects taken in by [`add`](crate::Pool::add).
    pub added: u64,
    /// Calls of the factory, or of a closure given to `try_get_with`, that panicked or failed.
    pub failed: u64,
    /// Objects dropped because the reset answered [`Keep::Discard`](crate::Keep::Discard).
    pub discarded_by_reset: u64,
    /// Objects dropped because the reset panicked.
    pub discarded_by_panic: u64,
    /// Objects dropped by [`discard`](crate::Pooled::discard).
    pub discarded_explicitly: u64,
    /// Idle objects dropped because the pool was full.
    pub surplus: u64,
    /// Idle objects dropped by a trim.
    pub trimmed: u64,
    /// Objects taken out of the pool for good by [`detach`](crate::Pooled::detach).
    pub detached: u64,
    /// Objects held by guards now, leaked guards included.
    pub in_use: usize,
    /// Idle objects in the shared depot now.
    pub idle_shared: usize,
    /// Idle objects in thread caches now.
    pub idle_local: usize,
    /// Threads that have a cache of this pool now.
    pub thread_caches: usize,
}

impl PoolStats {
    /// The part of gets that found an idle object, from 0 to 1; `None` before the first get.
    #[must_use]
    pub fn hit_ratio(&self) -> Option<f64> {
        let gets = self.hits + self.misses;
        (gets > 0).then(|| self.hits as f64 / gets as f64)
    }

    /// All idle objects.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle_shared + self.idle_local
    }

    /// All objects that the pool dropped, for whatever reason.
    #[must_use]
    pub fn discarded(&self) -> u64 {
        self.discarded_by_reset
            + self.discarded_by_panic
            + self.discarded_explicitly
            + self.surplus
            + self.trimmed
    }

    pub(crate) fn from_counts(count: impl Fn(Count) -> u64) -> Self {
        let out = count(Count::Hits) + count(Count::Misses);
        let back = count(Count::Returned)
            + count(Count::ByReset)
            + count(Count::ByPanic)
            + count(Count::Explicit)
            + count(Count::Detached);
        Self {
            hits: count(Count::Hits),
            misses: count(Count::Misses),
            returned: count(Count::Returned),
            warmed: count(Count::Warmed),
            added: count(Count::Added),
            failed: count(Count::Failed),
            discarded_by_reset: count(Count::ByReset),
            discarded_by_panic: count(Count::ByPanic),
            discarded_explicitly: count(Count::Explicit),
            surplus: count(Count::Surplus),
            trimmed: count(Count::Trimmed),
            detached: count(Count::Detached),
            in_use: out.saturating_sub(back) as usize,
            ..Self::default()
        }
    }
}

/// What a trim did, and what it asked other threads to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrimReport {
    /// Objects dropped by this call.
    pub dropped: usize,
    /// Their bytes, by the pool's weigher.
    pub bytes: usize,
    /// Thread caches that hold objects and will answer at their thread's next operation.
    pub caches_asked: usize,
}
