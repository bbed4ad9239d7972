//! Permits, and waiting for them.

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, Hash};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use overdrive_core::park::Parker;
use overdrive_core::{Clock, Deadline, Priority};

use crate::concurrency::{ConcurrencyLimit, Taken, Waits};
use crate::error::{AcquireError, TryAcquireError};
use crate::lines::{Outcome, Place};

impl ConcurrencyLimit {
    /// A permit, if one is free and nobody waits for it.
    ///
    /// # Errors
    /// None is, or the limit is closed.
    #[inline]
    pub fn try_acquire(&self) -> Result<Permit<'_>, TryAcquireError> {
        match self.inner.take() {
            Taken::Yes => Ok(Permit { limit: self }),
            Taken::Listened => self.try_acquire_listened(),
            Taken::Full => {
                self.inner.count_refused();
                Err(TryAcquireError::Full)
            }
            Taken::Closed => {
                self.inner.count_refused();
                Err(TryAcquireError::Closed)
            }
        }
    }

    #[cold]
    fn try_acquire_listened(&self) -> Result<Permit<'_>, TryAcquireError> {
        let mut state = self.inner.lock();
        let refused = if self.inner.is_closed() {
            TryAcquireError::Closed
        } else if state.lines.is_empty() && self.inner.take_locked() {
            state.waits.acquired += 1;
            return Ok(Permit { limit: self });
        } else {
            TryAcquireError::Full
        };
        state.waits.refused += 1;
        Err(refused)
    }

    /// Waits for a permit. Without a deadline or a time budget, until there is one.
    pub fn acquire(&self) -> Acquire<'_> {
        Acquire {
            waiting: Waiting::new(self),
            #[cfg(feature = "tokio")]
            timed: self.inner.budget.is_some(),
            #[cfg(feature = "tokio")]
            timeout: None,
            #[cfg(feature = "tokio")]
            timer: None,
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
        Waiting::new(self).block(deadline)
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
        acquire.timeout = Some(timeout);
        acquire.await
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
    #[inline]
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
    /// Whether it ends by itself when its time is up.
    #[cfg(feature = "tokio")]
    timed: bool,
    /// Ends after that at most, in tokio's time.
    #[cfg(feature = "tokio")]
    timeout: Option<Duration>,
    #[cfg(feature = "tokio")]
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<'l> Acquire<'l> {
    /// Who is served first of those who wait. Default [`Priority::Normal`]. Set it before the first
    /// poll; later it has no effect.
    ///
    /// After [`MAX_PASSED`](crate::MAX_PASSED) permits past a lower priority one goes to it, so that
    /// nobody waits for ever.
    pub fn priority(mut self, priority: Priority) -> Self {
        if self.waiting.id.is_none() {
            self.waiting.place.priority = priority;
        }
        self
    }

    /// For whom the permit is: a tenant, a connection, an address. Of those who wait with the same
    /// priority each such key is served in turn, however many of its own wait, so that one key's
    /// thousand do not keep the others waiting. All who do not say are one key. Set it before the
    /// first poll; later it has no effect.
    ///
    /// Keys are known by their hash, so two may have one turn together. A key costs memory only while
    /// somebody waits for it.
    ///
    /// ```
    /// use overdrive_ratelimit::ConcurrencyLimit;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let requests = ConcurrencyLimit::builder().limit(10).build()?;
    /// let permit = requests.acquire().share("tenant 7").await?;
    /// # drop(permit);
    /// # Ok(())
    /// # }
    /// ```
    pub fn share<Q: Hash + ?Sized>(mut self, key: &Q) -> Self {
        if self.waiting.id.is_none() {
            self.waiting.place.share = self.waiting.limit.inner.shares.hash_one(key);
        }
        self
    }

    /// After that moment of the limit's clock no permit is of use: whoever has passed it is not
    /// given one, and gets [`AcquireError::TimedOut`] at once if it has passed, and when its turn
    /// comes otherwise. There is no timer in this: [`blocking`](Self::blocking) and, with the feature
    /// `tokio`, `within` have one. Set it before the first poll; later it has no effect.
    pub fn deadline(mut self, deadline: impl Into<Deadline>) -> Self {
        if self.waiting.id.is_none() {
            self.waiting.deadline = deadline.into();
        }
        self
    }

    /// [`deadline`](Self::deadline), with a timer: it ends at that moment of the limit's clock, and
    /// has to be polled in a tokio runtime with its timer enabled.
    #[cfg(feature = "tokio")]
    pub fn within(self, deadline: impl Into<Deadline>) -> Self {
        Self {
            timed: true,
            ..self.deadline(deadline)
        }
    }

    /// Blocks the thread until it is over, or until its deadline.
    ///
    /// # Errors
    /// [`AcquireError::TimedOut`], [`AcquireError::Closed`], [`AcquireError::QueueFull`].
    pub fn blocking(self) -> Result<Permit<'l>, AcquireError> {
        let left = self
            .waiting
            .deadline
            .remaining_on(&*self.waiting.limit.inner.clock);
        self.waiting.block(match left {
            Duration::MAX => Deadline::NEVER,
            left => Deadline::after(left),
        })
    }

    /// Whether the time is up; sets the timer.
    #[cfg(feature = "tokio")]
    fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        let (waiting, timeout) = (&self.waiting, self.timeout);
        let timed = self.timed && waiting.deadline != Deadline::NEVER;
        if !timed && timeout.is_none() {
            return false;
        }
        let timer = self.timer.get_or_insert_with(|| {
            let left = waiting.deadline.remaining_on(&*waiting.limit.inner.clock);
            let timeout = timeout.unwrap_or(Duration::MAX);
            Box::pin(tokio::time::sleep(left.min(timeout)))
        });
        timer.as_mut().poll(context).is_ready()
    }
}

impl<'l> Future for Acquire<'l> {
    type Output = Result<Permit<'l>, AcquireError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let limit = self.waiting.limit;
        let poll = self.waiting.poll(context.waker());
        #[cfg(feature = "tokio")]
        if poll.is_pending() && self.is_over(context) {
            return Poll::Ready(self.waiting.expire().map(|()| Permit { limit }));
        }
        poll.map_ok(|()| Permit { limit })
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
    place: Place,
    deadline: Deadline,
    id: Option<u64>,
    over: bool,
}

impl<'l> Waiting<'l> {
    fn new(limit: &'l ConcurrencyLimit) -> Self {
        Self {
            limit,
            place: Place {
                priority: Priority::Normal,
                share: 0,
            },
            deadline: Deadline::NEVER,
            id: None,
            over: false,
        }
    }

    /// Blocks the thread, until that moment of real time at most.
    fn block(mut self, deadline: Deadline) -> Result<Permit<'l>, AcquireError> {
        let limit = self.limit;
        let budget = limit.inner.budget;
        let wanted = (deadline != Deadline::NEVER).then_some(Duration::MAX);
        let most = budget.map_or(Deadline::NEVER, |budget| budget.start(wanted));
        let deadline = deadline.min(most);
        let (parker, waker) = Parker::new();
        loop {
            if let Poll::Ready(result) = self.poll(&waker) {
                return result.map(|()| Permit { limit });
            }
            let left = deadline.remaining();
            if left.is_zero() {
                return self.expire().map(|()| Permit { limit });
            }
            parker.park(left);
        }
    }

    /// The time is up: with a permit all the same, if it came at the last moment.
    fn expire(&mut self) -> Result<(), AcquireError> {
        self.over = true;
        if self.leave(|waits| waits.refused += 1) {
            return Ok(());
        }
        Err(AcquireError::TimedOut)
    }

    /// Ready with a permit that the caller has to make a guard of.
    fn poll(&mut self, waker: &Waker) -> Poll<Result<(), AcquireError>> {
        assert!(
            !self.over,
            "a wait for a permit was polled after it was ready"
        );
        let poll = match self.id {
            None => self.enter(waker),
            Some(id) => self.look(id, waker),
        };
        if poll.is_ready() {
            self.id = None;
            self.over = true;
        }
        poll
    }

    fn enter(&mut self, waker: &Waker) -> Poll<Result<(), AcquireError>> {
        let inner = &*self.limit.inner;
        if let Some(budget) = inner.budget {
            let wanted = (self.deadline != Deadline::NEVER).then_some(Duration::MAX);
            let most = Deadline::after_on(&*inner.clock, budget.of(wanted));
            self.deadline = self.deadline.min(most);
        }
        let late = self.deadline != Deadline::NEVER && self.deadline.has_passed_on(&inner.clock);
        let refused = match (late, if late { Taken::Full } else { inner.take() }) {
            (true, _) => AcquireError::TimedOut,
            (false, Taken::Yes) => return Poll::Ready(Ok(())),
            (false, Taken::Closed) => AcquireError::Closed,
            (false, Taken::Full | Taken::Listened) => return self.join(waker),
        };
        inner.count_refused();
        Poll::Ready(Err(refused))
    }

    /// Joins the queue, unless a permit is free by now.
    fn join(&mut self, waker: &Waker) -> Poll<Result<(), AcquireError>> {
        let inner = &*self.limit.inner;
        // A waker and a clock are code of others: outside the lock.
        let (waker, since) = (waker.clone(), inner.clock.now());
        let mut state = inner.lock();
        // From here on a permit that comes back is handed out under the lock, by us or later.
        inner.listen();
        let free = state.lines.is_empty() && !inner.is_closed() && inner.take_locked();
        let poll = if free {
            state.waits.acquired += 1;
            Poll::Ready(Ok(()))
        } else if inner.is_closed() {
            Poll::Ready(Err(AcquireError::Closed))
        } else if state.lines.len() >= inner.max_waiters {
            let max_waiters = inner.max_waiters;
            Poll::Ready(Err(AcquireError::QueueFull { max_waiters }))
        } else {
            let id = state.next_id();
            let (place, deadline) = (self.place, self.deadline);
            state.lines.push(id, place, since, deadline, waker);
            self.id = Some(id);
            return Poll::Pending;
        };
        state.waits.refused += u64::from(matches!(poll, Poll::Ready(Err(_))));
        inner.settle(state, Some(since));
        poll
    }

    fn look(&self, id: u64, waker: &Waker) -> Poll<Result<(), AcquireError>> {
        let waker = waker.clone();
        let mut state = self.limit.inner.lock();
        let found = state.lines.look(id, self.place, waker);
        drop(state);
        match found {
            Ok(_spare) => Poll::Pending,
            Err((outcome, _spare)) => Poll::Ready(match outcome {
                Outcome::Granted => Ok(()),
                Outcome::Closed => Err(AcquireError::Closed),
                Outcome::TimedOut => Err(AcquireError::TimedOut),
                Outcome::Shed => Err(AcquireError::Shed),
            }),
        }
    }

    /// Leaves the queue: whether with a permit, which the caller has to make a guard of. If not,
    /// and if it was not turned away before, it is counted.
    fn leave(&mut self, count: impl FnOnce(&mut Waits)) -> bool {
        let Some(id) = self.id.take() else {
            return false;
        };
        let inner = &*self.limit.inner;
        let mut state = inner.lock();
        let found = state.lines.leave(id, self.place);
        if found.is_err() {
            count(&mut state.waits);
        }
        // It may have been the last to listen, or have kept back those behind it.
        inner.settle(state, None);
        matches!(found, Ok(Outcome::Granted))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.leave(|waits| waits.abandoned += 1) {
            self.limit.release();
        }
    }
}
