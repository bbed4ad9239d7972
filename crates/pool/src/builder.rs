//! The set-up of a pool.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use overdrive_core::ConfigError;

use crate::engine::{Factory, Inner, Parts, Reset, Weigher};
use crate::idle::Housekeeper;
use crate::pool::{Keep, Pool};
use crate::settings::PoolSettings;
use crate::take_back::Resetting;

/// The bound on idle objects when none is given.
pub const DEFAULT_MAX_IDLE: usize = 4096;

/// The largest accepted bound on idle objects.
pub const MAX_MAX_IDLE: usize = 1 << 26;

/// The largest accepted capacity of a thread cache.
pub const MAX_LOCAL_CACHE: usize = 1 << 16;

/// Shorter ones would keep the clean-up thread busy.
const MIN_IDLE_TIMEOUT: Duration = Duration::from_millis(1);

/// Sets a [`Pool`] up. Only the factory is required.
///
/// ```
/// use overdrive_pool::{ConfigError, Pool};
///
/// let refused = Pool::<String>::builder().build();
/// assert_eq!(refused.unwrap_err(), ConfigError::Missing { field: "factory" });
/// ```
#[must_use = "a builder does nothing until `build`"]
pub struct PoolBuilder<T> {
    name: Cow<'static, str>,
    factory: Option<Factory<T>>,
    reset: Option<Reset<T>>,
    weigh: Option<Weigher<T>>,
    max_idle: usize,
    local_cache: Option<usize>,
    idle_timeout: Option<Duration>,
}

impl<T: Send + 'static> PoolBuilder<T> {
    pub(crate) fn new() -> Self {
        Self {
            name: Cow::Borrowed("pool"),
            factory: None,
            reset: None,
            weigh: None,
            max_idle: DEFAULT_MAX_IDLE,
            local_cache: None,
            idle_timeout: None,
        }
    }

    /// A label for figures and for the name of the clean-up thread, where each control character
    /// is replaced by `?`. Default `"pool"`.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// How an object is made when no idle one is within reach. Required.
    ///
    /// It returns the object by value, so a large one passes over the stack before it is boxed.
    /// Rather than `[u8; N]` with `N` of many kilobytes, pool a `Vec<u8>` or a `Box<[u8]>`.
    pub fn factory(mut self, factory: impl Fn() -> T + Send + Sync + 'static) -> Self {
        self.factory = Some(Box::new(factory));
        self
    }

    /// What is done to each object that comes back, on the thread that drops the guard. Its
    /// answer decides whether the object is kept. Default: kept as it is.
    ///
    /// Resetting at the return means that nothing of one user lies in the pool for the next. An
    /// object whose user panics comes back through the reset like any other; without a reset it
    /// comes back as the panic left it. If that may be half-changed, have the reset put it right,
    /// or take it out with [`discard`](crate::Pooled::discard).
    pub fn reset(mut self, reset: impl Fn(&mut T) -> Keep + Send + Sync + 'static) -> Self {
        self.reset = Some(Box::new(Resetting(reset)));
        self
    }

    /// The bytes that an idle object keeps, for [`trim_to`](Pool::trim_to) and the reports.
    /// Default `size_of::<T>()`, which does not count what the object points to: for a `Vec<u8>`
    /// it is 24 bytes whatever its capacity, so a pool of buffers needs one
    /// (`.weigher(Vec::capacity)`).
    pub fn weigher(mut self, weigher: impl Fn(&T) -> usize + Send + Sync + 'static) -> Self {
        self.weigh = Some(Box::new(weigher));
        self
    }

    /// Takes `max_idle`, `local_cache` and `idle_timeout` from a plain value.
    pub fn settings(mut self, settings: PoolSettings) -> Self {
        self.max_idle = settings.max_idle;
        self.local_cache = settings.local_cache;
        self.idle_timeout = settings.idle_timeout;
        self
    }

    /// The most idle objects the pool ever holds, thread caches included. Default
    /// [`DEFAULT_MAX_IDLE`]. An object that comes back to a full pool is dropped.
    ///
    /// Objects in use are not bounded: the pool never makes a caller wait.
    ///
    /// At least half of it stays with the shared depot, unless `local_cache` is more than half.
    /// Thread caches set their capacity aside from the rest; when that is used up, further
    /// threads do without a cache of their own and pay for the lock instead, until a thread with
    /// a cache ends. So `max_idle / 2 / local_cache` threads have one: for `n` threads choose at
    /// least `2 * n * local_cache`. The default has room for 16 threads with caches of 128.
    pub fn max_idle(mut self, n: usize) -> Self {
        self.max_idle = n;
        self
    }

    /// The capacity of each thread's cache. Zero is *shared mode*: no thread caches, one stack
    /// behind one lock, strictly last in first out, and all idle objects within reach of every
    /// thread and of a trim at once. It is slower, and the plain fallback of the fast path.
    ///
    /// Default: as many as make 64 KiB of `T`, at least 4 and at most 128, and not more than
    /// `max_idle / (2 * available_parallelism)`. Only `size_of::<T>()` counts, so set it for
    /// objects that own memory elsewhere: of `Vec<u8>` with 4 KiB each, 128 are 512 KiB per
    /// thread.
    pub fn local_cache(mut self, n: usize) -> Self {
        self.local_cache = Some(n);
        self
    }

    /// Starts a thread, `overdrive-pool-<name>`, that calls [`trim_idle`](Pool::trim_idle) each
    /// `timeout`. So an object that nobody needs is dropped after one to two of these times, and
    /// a cache of a busy thread sinks to what it uses. Default: no such thread.
    ///
    /// The thread ends promptly after the last handle of the pool is gone. Dropping that one
    /// waits for it, unless the dropping thread is ending itself. A handle that is dropped while
    /// a clean-up or the end of a thread is under way may not be the last: then the pool's
    /// objects are dropped over there, shortly after.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// Makes the pool, without any object in it.
    ///
    /// # Errors
    ///
    /// The first setting that cannot be: a missing factory; zero for `max_idle` or
    /// `idle_timeout`; `idle_timeout` below a millisecond; `max_idle` above [`MAX_MAX_IDLE`] or `local_cache` above
    /// [`MAX_LOCAL_CACHE`]; `local_cache` above `max_idle`; no thread to be had.
    pub fn build(self) -> Result<Pool<T>, ConfigError> {
        let factory = self
            .factory
            .ok_or(ConfigError::Missing { field: "factory" })?;
        if self.max_idle == 0 {
            return Err(ConfigError::Zero { field: "max_idle" });
        }
        ConfigError::at_most("max_idle", self.max_idle, MAX_MAX_IDLE)?;
        let local = match self.local_cache {
            None => default_local_cache::<T>(self.max_idle),
            Some(n) => n,
        };
        ConfigError::at_most("local_cache", local, MAX_LOCAL_CACHE)?;
        if local > self.max_idle {
            return Err(ConfigError::Contradiction {
                field: "local_cache",
                other: "max_idle",
                reason: "must not exceed",
            });
        }
        if self.idle_timeout == Some(Duration::ZERO) {
            return Err(ConfigError::Zero {
                field: "idle_timeout",
            });
        }
        if let Some(short) = self.idle_timeout.filter(|time| *time < MIN_IDLE_TIMEOUT) {
            return Err(ConfigError::TooSmall {
                field: "idle_timeout",
                value: short.as_nanos() as u64,
                min: MIN_IDLE_TIMEOUT.as_nanos() as u64,
            });
        }
        let parts = Parts {
            name: self.name,
            factory,
            reset: self.reset,
            weigh: self.weigh,
            max_idle: self.max_idle,
            local,
        };
        let inner = Arc::new_cyclic(|this| Inner::new(parts, this.clone()));
        if let Some(every) = self.idle_timeout {
            let thread = Housekeeper::start(Arc::downgrade(&inner), inner.name(), every);
            let thread = thread.map_err(|error| ConfigError::Thread {
                field: "idle_timeout",
                kind: error.kind(),
            })?;
            let _ = inner.housekeeper().set(thread);
        }
        Ok(Pool::from_inner(inner))
    }
}

fn default_local_cache<T>(max_idle: usize) -> usize {
    const BYTES: usize = 64 * 1024;
    let by_size = (BYTES / size_of::<T>().max(1)).clamp(4, 128);
    let threads = available_parallelism().map_or(1, usize::from);
    by_size.min(max_idle / (2 * threads))
}

impl<T> fmt::Debug for PoolBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolBuilder")
            .field("name", &self.name)
            .field("max_idle", &self.max_idle)
            .field("local_cache", &self.local_cache)
            .field("idle_timeout", &self.idle_timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_cache_follows_size_and_budget() {
        let threads = available_parallelism().map_or(1, usize::from);
        assert_eq!(default_local_cache::<u8>(1 << 20), 128);
        assert_eq!(default_local_cache::<()>(1 << 20), 128);
        assert_eq!(default_local_cache::<[u8; 4096]>(1 << 20), 16);
        assert_eq!(default_local_cache::<[u8; 1 << 20]>(1 << 20), 4);
        assert_eq!(default_local_cache::<u8>(6 * threads), 3);
        assert_eq!(default_local_cache::<u8>(1), 0);
    }
}
