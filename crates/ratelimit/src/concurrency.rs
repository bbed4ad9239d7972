//! So many at once.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use overdrive_core::{ConfigError, Deadline};

use crate::error::{AcquireError, TryAcquireError};
use crate::limiter::{DEFAULT_MAX_WAITERS, validate_waiters};
use crate::settings::ConcurrencySettings;
use crate::stats::ConcurrencyStats;
use crate::wait::{Unpark, wake};

/// The highest limit.
pub const MAX_CONCURRENCY: usize = 1 << 40;

/// A limit on how much goes on at the same time: requests in work, open downloads, calls of a
/// service that takes no more.
///
/// Whoever holds a [`Permit`] may go on; dropping it lets the next one in. Those who wait are
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
    inner: Arc<Inner>,
}

struct Inner {
    name: Cow<'static, str>,
    limit: usize,
    max_waiters: usize,
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    closed: bool,
    queue: VecDeque<Waiter>,
    next_id: u64,
    /// Ids of those who left the queue with a permit and have not taken it yet.
    granted: Vec<u64>,
    /// Of those who wait for all permits to be back.
    pub(crate) drains: BTreeMap<u64, Waker>,
    stats: ConcurrencyStats,
}

struct Waiter {
    id: u64,
    waker: Waker,
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

    /// A permit, if one is free and nobody waits for it.
    ///
    /// # Errors
    /// None is, or the limit is closed.
    pub fn try_acquire(&self) -> Result<Permit<'_>, TryAcquireError> {
        let mut state = self.lock();
        if state.closed {
            state.stats.refused += 1;
            return Err(TryAcquireError::Closed);
        }
        // Nobody waits while a permit is free.
        if state.stats.in_flight >= self.inner.limit {
            state.stats.refused += 1;
            return Err(TryAcquireError::Full);
        }
        state.stats.take();
        Ok(Permit { limit: self })
    }

    /// Waits for a permit.
    pub fn acquire(&self) -> Acquire<'_> {
        Acquire {
            waiting: Waiting::new(self),
        }
    }

    /// Blocks the thread until there is a permit.
    ///
    /// # Errors
    /// [`AcquireError::Closed`], [`AcquireError::QueueFull`].
    pub fn acquire_blocking(&self) -> Result<Permit<'_>, AcquireError> {
        self.acquire_until(Deadline::NEVER)
    }

    /// Blocks the thread until there is a permit, for so long at most.
    ///
    /// # Errors
    /// [`AcquireError::TimedOut`], [`AcquireError::Closed`], [`AcquireError::QueueFull`].
    pub fn acquire_timeout_blocking(&self, timeout: Duration) -> Result<Permit<'_>, AcquireError> {
        self.acquire_until(Deadline::after(timeout))
    }

    fn acquire_until(&self, deadline: Deadline) -> Result<Permit<'_>, AcquireError> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut waiting = Waiting::new(self);
        loop {
            if let Poll::Ready(result) = waiting.poll(&waker) {
                return result.map(|()| Permit { limit: self });
            }
            match deadline.remaining() {
                left if left.is_zero() => {
                    if waiting.leave(|stats| stats.refused += 1) {
                        // It came at the last moment.
                        return Ok(Permit { limit: self });
                    }
                    return Err(AcquireError::TimedOut);
                }
                Duration::MAX => thread::park(),
                left => thread::park_timeout(left),
            }
        }
    }

    /// Waits for a permit, for so long at most.
    ///
    /// # Errors
    /// [`AcquireError::TimedOut`], [`AcquireError::Closed`], [`AcquireError::QueueFull`].
    ///
    /// # Panics
    /// Outside a tokio runtime with its timer enabled.
    ///
    /// # Cancel safety
    /// As of [`Acquire`].
    #[cfg(feature = "tokio")]
    pub async fn acquire_timeout(&self, timeout: Duration) -> Result<Permit<'_>, AcquireError> {
        let mut acquire = self.acquire();
        match tokio::time::timeout(timeout, &mut acquire).await {
            Ok(acquired) => acquired,
            Err(_) => acquire.expire(),
        }
    }

    /// [`acquire`](Self::acquire), with a permit that borrows nothing.
    ///
    /// # Errors
    /// [`AcquireError::Closed`], [`AcquireError::QueueFull`].
    ///
    /// # Cancel safety
    /// As of [`Acquire`].
    pub async fn acquire_owned(&self) -> Result<OwnedPermit, AcquireError> {
        let permit = self.acquire().await?;
        Ok(permit.into_owned())
    }

    /// Gives out no more permits: those who wait get [`AcquireError::Closed`]. Permits that are
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
    fn release(&self) {
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
    fn take(&mut self) {
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

/// The right to go on, given back when it is dropped.
#[must_use = "a permit that is dropped at once limits nothing"]
pub struct Permit<'l> {
    limit: &'l ConcurrencyLimit,
}

impl Permit<'_> {
    /// The same permit, without the borrow.
    pub fn into_owned(self) -> OwnedPermit {
        let limit = self.limit.clone();
        mem::forget(self);
        OwnedPermit { limit }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.limit.release();
    }
}

impl fmt::Debug for Permit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("limit", &self.limit.name())
            .finish_non_exhaustive()
    }
}

/// A [`Permit`] that borrows nothing, to be moved into a task.
#[must_use = "a permit that is dropped at once limits nothing"]
pub struct OwnedPermit {
    limit: ConcurrencyLimit,
}

impl Drop for OwnedPermit {
    fn drop(&mut self) {
        self.limit.release();
    }
}

impl fmt::Debug for OwnedPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedPermit")
            .field("limit", &self.limit.name())
            .finish_non_exhaustive()
    }
}

/// Waits for a permit, from [`ConcurrencyLimit::acquire`].
///
/// # Errors
/// [`AcquireError::Closed`], [`AcquireError::QueueFull`].
///
/// # Cancel safety
/// Dropped before it is ready it gives up its place in the queue; a permit that was handed to it
/// in that moment goes to the next. One that is kept and not polled keeps the permit that is handed
/// to it.
///
/// # Panics
/// When polled after it was ready.
#[must_use = "a future does nothing until it is awaited"]
pub struct Acquire<'l> {
    waiting: Waiting<'l>,
}

#[cfg(feature = "tokio")]
impl<'l> Acquire<'l> {
    /// The time is up. The permit, if it came in this moment.
    fn expire(mut self) -> Result<Permit<'l>, AcquireError> {
        let limit = self.waiting.limit;
        if self.waiting.leave(|stats| stats.refused += 1) {
            return Ok(Permit { limit });
        }
        Err(AcquireError::TimedOut)
    }
}

impl<'l> Future for Acquire<'l> {
    type Output = Result<Permit<'l>, AcquireError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let limit = self.waiting.limit;
        self.waiting
            .poll(context.waker())
            .map_ok(|()| Permit { limit })
    }
}

impl fmt::Debug for Acquire<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquire")
            .field("limit", &self.waiting.limit.name())
            .finish_non_exhaustive()
    }
}

/// A place in the queue, perhaps.
struct Waiting<'l> {
    limit: &'l ConcurrencyLimit,
    id: Option<u64>,
    over: bool,
}

impl<'l> Waiting<'l> {
    fn new(limit: &'l ConcurrencyLimit) -> Self {
        Self {
            limit,
            id: None,
            over: false,
        }
    }

    /// Ready with a permit that the caller has to make a guard of.
    fn poll(&mut self, waker: &Waker) -> Poll<Result<(), AcquireError>> {
        assert!(
            !self.over,
            "a wait for a permit was polled after it was ready"
        );
        // A waker is code of others: cloned before the lock, dropped after it.
        let waker = waker.clone();
        let mut state = self.limit.lock();
        let inner = &self.limit.inner;
        let (poll, spare) = if let Some(id) = self.id {
            if state.take_grant(id) {
                self.id = None;
                (Poll::Ready(Ok(())), waker)
            } else if state.closed {
                self.id = None;
                state.stats.refused += 1;
                (Poll::Ready(Err(AcquireError::Closed)), waker)
            } else {
                let at = state.queue.binary_search_by_key(&id, |w| w.id);
                let Ok(at) = at else {
                    unreachable!("who waits is queued, granted, or turned away");
                };
                let old = mem::replace(&mut state.queue[at].waker, waker);
                (Poll::Pending, old)
            }
        } else if state.closed {
            state.stats.refused += 1;
            (Poll::Ready(Err(AcquireError::Closed)), waker)
        } else if state.stats.in_flight < inner.limit {
            state.stats.take();
            (Poll::Ready(Ok(())), waker)
        } else if state.queue.len() >= inner.max_waiters {
            state.stats.refused += 1;
            let max_waiters = inner.max_waiters;
            (
                Poll::Ready(Err(AcquireError::QueueFull { max_waiters })),
                waker,
            )
        } else {
            let id = state.next_id();
            state.queue.push_back(Waiter { id, waker });
            self.id = Some(id);
            return Poll::Pending;
        };
        self.over = poll.is_ready();
        drop(state);
        drop(spare);
        poll
    }

    /// Leaves the queue: whether with a permit, which the caller has to make a guard of. If not,
    /// it is counted.
    fn leave(&mut self, count: impl FnOnce(&mut ConcurrencyStats)) -> bool {
        let Some(id) = self.id.take() else {
            return false;
        };
        let mut state = self.limit.lock();
        if state.take_grant(id) {
            return true;
        }
        let at = state.queue.binary_search_by_key(&id, |w| w.id);
        let waiter = at.ok().and_then(|at| state.queue.remove(at));
        count(&mut state.stats);
        drop(state);
        drop(waiter);
        false
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

    fn take_grant(&mut self, id: u64) -> bool {
        let at = self.granted.iter().position(|granted| *granted == id);
        at.map(|at| self.granted.swap_remove(at)).is_some()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.leave(|stats| stats.abandoned_waits += 1) {
            self.limit.release();
        }
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

    /// How many may wait at the same time; further ones get [`AcquireError::QueueFull`]. Zero:
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
        match limit {
            0 => return Err(ConfigError::Zero { field: FIELD }),
            1..=MAX_CONCURRENCY => {}
            limit => {
                return Err(ConfigError::TooLarge {
                    field: FIELD,
                    value: limit as u64,
                    max: MAX_CONCURRENCY as u64,
                });
            }
        }
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
