//! A pool for a `static`.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::OnceLock;

use crate::builder::{DEFAULT_MAX_IDLE, MAX_LOCAL_CACHE, MAX_MAX_IDLE};
use crate::pool::{Keep, Pool};

/// A [`Pool`] that can be a `static`: set up in a constant, built at first use.
///
/// ```
/// use overdrive_pool::{Keep, StaticPool};
///
/// static BUFFERS: StaticPool<Vec<u8>> =
///     StaticPool::new("buffers", || Vec::with_capacity(4096), |buffer| {
///         buffer.clear();
///         Keep::Yes
///     });
///
/// let mut buffer = BUFFERS.get();
/// buffer.push(1);
/// # drop(buffer);
/// # assert_eq!(BUFFERS.stats().idle(), 1);
/// ```
///
/// No set-up that compiles is refused: the bound cannot be zero, and a setting that is too large
/// or contradicts the other does not compile.
///
/// ```compile_fail,E0080
/// use std::num::NonZeroUsize;
/// use overdrive_pool::{Keep, StaticPool};
///
/// static TOO_MUCH: StaticPool<u8> = StaticPool::new("n", || 0, |_| Keep::Yes)
///     .with_limits(NonZeroUsize::MIN, 2);
/// ```
///
/// A static is never dropped, so its idle objects are not either. It has no idle timeout; call
/// [`trim_idle`](Pool::trim_idle) from a timer of your own if you need it.
pub struct StaticPool<T: Send + 'static> {
    name: &'static str,
    factory: fn() -> T,
    reset: fn(&mut T) -> Keep,
    max_idle: usize,
    local_cache: Option<usize>,
    pool: OnceLock<Pool<T>>,
}

impl<T: Send + 'static> StaticPool<T> {
    /// A pool with default bounds.
    #[must_use]
    pub const fn new(name: &'static str, factory: fn() -> T, reset: fn(&mut T) -> Keep) -> Self {
        Self {
            name,
            factory,
            reset,
            max_idle: DEFAULT_MAX_IDLE,
            local_cache: None,
            pool: OnceLock::new(),
        }
    }

    /// Sets [`max_idle`](crate::PoolBuilder::max_idle), with the default
    /// [`local_cache`](crate::PoolBuilder::local_cache) for it.
    ///
    /// # Panics
    ///
    /// In a constant this is a compile error: above [`MAX_MAX_IDLE`].
    #[must_use]
    pub const fn with_max_idle(mut self, max_idle: NonZeroUsize) -> Self {
        assert!(max_idle.get() <= MAX_MAX_IDLE, "`max_idle` is too large");
        self.max_idle = max_idle.get();
        self.local_cache = None;
        self
    }

    /// Sets both [`max_idle`](crate::PoolBuilder::max_idle) and
    /// [`local_cache`](crate::PoolBuilder::local_cache), of which zero is shared mode.
    ///
    /// # Panics
    ///
    /// In a constant this is a compile error: `max_idle` above [`MAX_MAX_IDLE`], or `local_cache`
    /// above [`MAX_LOCAL_CACHE`] or above `max_idle`.
    #[must_use]
    pub const fn with_limits(self, max_idle: NonZeroUsize, local_cache: usize) -> Self {
        assert!(local_cache <= MAX_LOCAL_CACHE, "`local_cache` is too large");
        assert!(
            local_cache <= max_idle.get(),
            "`local_cache` must not exceed `max_idle`"
        );
        let mut this = self.with_max_idle(max_idle);
        this.local_cache = Some(local_cache);
        this
    }

    #[cold]
    fn build(&self) -> Pool<T> {
        let builder = Pool::builder()
            .name(self.name)
            .factory(self.factory)
            .reset(self.reset)
            .max_idle(self.max_idle);
        match self.local_cache {
            Some(n) => builder.local_cache(n),
            None => builder,
        }
        .build()
        .expect("the const setters admit nothing that `build` refuses")
    }
}

impl<T: Send + 'static> Deref for StaticPool<T> {
    type Target = Pool<T>;

    #[inline]
    fn deref(&self) -> &Pool<T> {
        self.pool.get_or_init(|| self.build())
    }
}

impl<T: Send + 'static> fmt::Debug for StaticPool<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticPool")
            .field("name", &self.name)
            .field("max_idle", &self.max_idle)
            .field("local_cache", &self.local_cache)
            .finish_non_exhaustive()
    }
}
