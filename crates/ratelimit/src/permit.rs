//! Permits, and waiting for them.

use std::fmt;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use overdrive_core::Deadline;
use overdrive_core::park::Parker;

use crate::concurrency::{ConcurrencyLimit, Waiter};
use crate::error::{AcquireError, TryAcquireError};
use crate::stats::ConcurrencyStats;

impl ConcurrencyLimit {
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
        let (parker, waker) = Parker::new();
        let mut waiting = Waiting::new(self);
        loop {
            if let Poll::Ready(result) = waiting.poll(&waker) {
                return result.map(|()| Permit { limit: self });
            }
            let left = deadline.remaining();
            if left.is_zero() {
                if waiting.leave(|stats| stats.refused += 1) {
                    // It came at the last moment.
                    return Ok(Permit { limit: self });
                }
                return Err(AcquireError::TimedOut);
            }
            parker.park(left);
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

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.leave(|stats| stats.abandoned_waits += 1) {
            self.limit.release();
        }
    }
}
