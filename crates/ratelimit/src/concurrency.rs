//! So many at once.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use overdrive_core::ConfigError;

use crate::limiter_builder::{DEFAULT_MAX_WAITERS, validate_waiters};
use crate::settings::ConcurrencySettings;
use crate::stats::ConcurrencyStats;
use crate::wait::wake;

/// The highest limit.
pub const MAX_CONCURRENCY: usize = 1 << 40;

/// A limit on how much goes on at the same time: requests in work, open downloads, calls of a
/// service that takes no more.
///
/// Whoever holds a [`Permit`](crate::Permit) may go on; dropping it lets the next one in. Those who wait are
/// served in the order in which they came, and a permit that comes back is handed to the first
/// of them, past everybody who comes later. Clones are handles to the same limit.
///
/// A counter and a queue behind one mutex. It needs no runtime: waiting works under any
/// executor, and with [`acquire_blocking`](Self::acquire_blocking) without one.
///
/// ```
/// use overdrive_ratelimit::{ConcurrencyLimit, TryAcquireError};
///
/// let limit = ConcurrencyLimit::builder().limit(2).build()?;
/// let first = limit.try_acquire()?;
/// let second = limit.try_acquire()?;
/// assert_eq!(limit.try_acquire().unwrap_err(), TryAcquireError::Full);
/// drop(first);
/// assert!(limit.try_acquire().is_ok());
/// # drop(second);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ConcurrencyLimit {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    name: Cow<'static, str>,
    pub(crate) limit: usize,
    pub(crate) max_waiters: usize,
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) closed: bool,
    pub(crate) queue: VecDeque<Waiter>,
    next_id: u64,
    /// Ids of those who left the queue with a permit and have not taken it yet.
    granted: Vec<u64>,
    /// Of those who wait for all permits to be back.
    pub(crate) drains: BTreeMap<u64, Waker>,
    pub(crate) stats: ConcurrencyStats,
}

pub(crate) struct Waiter {
    pub(crate) id: u64,
    pub(crate) waker: Waker,
}

impl ConcurrencyLimit {
    /// Starts the set-up of a limit.
    pub fn builder() -> ConcurrencyLimitBuilder {
        ConcurrencyLimitBuilder {
            name: Cow::Borrowed("concurrency limit"),
            limit: None,
            max_waiters: DEFAULT_MAX_WAITERS,
        }
    }

    /// Gives out no more permits: those who wait get [`AcquireError::Closed`](crate::AcquireError::Closed). Permits that are
    /// out stay good.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let queue = mem::take(&mut state.queue);
        drop(state);
        for waiter in queue {
            wake(waiter.waker);
        }
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// The number of permits there are.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.inner.limit
    }

    /// The number of permits that are out.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.lock().stats.in_flight
    }

    /// The figures so far.
    #[must_use]
    pub fn stats(&self) -> ConcurrencyStats {
        let state = self.lock();
        ConcurrencyStats {
            waiting: state.queue.len(),
            ..state.stats
        }
    }

    /// The name given at set-up.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // No code of a user runs under it, so it is consistent even if poisoned.
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A permit comes back: to the first of those who wait, or to the free ones.
    pub(crate) fn release(&self) {
        let mut state = self.lock();
        state.stats.released += 1;
        state.stats.in_flight -= 1;
        let next = state.queue.pop_front();
        if let Some(next) = &next {
            state.stats.take();
            state.stats.waited += 1;
            state.granted.push(next.id);
        }
        let drains = state.drained();
        drop(state);
        if let Some(next) = next {
            wake(next.waker);
        }
        drains.into_values().for_each(wake);
    }
}

impl ConcurrencyStats {
    pub(crate) fn take(&mut self) {
        self.acquired += 1;
        self.in_flight += 1;
    }
}

impl fmt::Debug for ConcurrencyLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrencyLimit")
            .field("name", &self.inner.name)
            .field("limit", &self.inner.limit)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
impl State {
    pub(crate) fn next_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// Nobody has a permit or waits for one.
    pub(crate) fn is_idle(&self) -> bool {
        self.stats.in_flight == 0 && self.queue.is_empty()
    }

    /// Those to be told that it is idle, if it is.
    fn drained(&mut self) -> BTreeMap<u64, Waker> {
        if self.is_idle() {
            mem::take(&mut self.drains)
        } else {
            BTreeMap::new()
        }
    }

    pub(crate) fn take_grant(&mut self, id: u64) -> bool {
        let at = self.granted.iter().position(|granted| *granted == id);
        at.map(|at| self.granted.swap_remove(at)).is_some()
    }
}

/// Sets a [`ConcurrencyLimit`] up, from [`ConcurrencyLimit::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct ConcurrencyLimitBuilder {
    name: Cow<'static, str>,
    limit: Option<usize>,
    max_waiters: usize,
}

impl ConcurrencyLimitBuilder {
    /// A label for figures. Default `"concurrency limit"`.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// How many permits there are. Required.
    pub fn limit(mut self, permits: usize) -> Self {
        self.limit = Some(permits);
        self
    }

    /// The numbers of a [`ConcurrencySettings`].
    pub fn settings(mut self, settings: ConcurrencySettings) -> Self {
        self.limit = Some(settings.limit);
        self.max_waiters = settings.max_waiters;
        self
    }

    /// How many may wait at the same time; further ones get [`QueueFull`](crate::AcquireError::QueueFull). Zero:
    /// nobody waits. Default [`DEFAULT_MAX_WAITERS`].
    pub fn max_waiters(mut self, n: usize) -> Self {
        self.max_waiters = n;
        self
    }

    /// Builds the limit.
    ///
    /// # Errors
    /// A limit of zero or above [`MAX_CONCURRENCY`], or more than
    /// [`MAX_WAITERS`](crate::MAX_WAITERS).
    pub fn build(self) -> Result<ConcurrencyLimit, ConfigError> {
        const FIELD: &str = "limit";
        let limit = self.limit.ok_or(ConfigError::Missing { field: FIELD })?;
        let limit = ConfigError::within(FIELD, limit, MAX_CONCURRENCY)?;
        validate_waiters(self.max_waiters)?;
        Ok(ConcurrencyLimit {
            inner: Arc::new(Inner {
                name: self.name,
                limit,
                max_waiters: self.max_waiters,
                state: Mutex::default(),
            }),
        })
    }
}
