//! One quota for all callers.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use overdrive_core::clock::PreciseClock;
use overdrive_core::{Clock, ConfigError, Timestamp};

use crate::error::{CheckError, Denied};
use crate::gcra::{Cell, Gcra};
use crate::quota::Quota;
use crate::stats::LimiterStats;
use crate::wait::Queue;

/// How many may wait for one limiter unless it is told otherwise.
pub const DEFAULT_MAX_WAITERS: usize = 65_536;

/// The most that can be let wait for one limiter.
pub const MAX_WAITERS: usize = 1 << 23;

/// # Errors
/// More than [`MAX_WAITERS`].
pub(crate) fn validate_waiters(n: usize) -> Result<usize, ConfigError> {
    ConfigError::at_most("max_waiters", n, MAX_WAITERS)
}

/// A rate limiter: a [`Quota`] shared by all who ask.
///
/// [`check`](Self::check) answers at once, [`wait`](Self::wait) when the answer is yes. Those
/// who wait are served in the order in which they came, and a check does not take what they wait
/// for. Clones are handles to the same limiter.
///
/// An exact GCRA behind one mutex: each call costs a reading of the clock and an uncontended
/// lock, and allocates nothing but a place in the queue for those who wait.
///
/// ```
/// use overdrive_ratelimit::{Quota, RateLimiter};
///
/// let limiter = RateLimiter::builder().quota(Quota::per_hour(2)).build()?;
/// assert!(limiter.check().is_ok());
/// assert!(limiter.check().is_ok());
/// let denied = limiter.check().unwrap_err();
/// assert!(denied.retry_after.as_secs() > 1700);
/// # Ok::<(), overdrive_ratelimit::ConfigError>(())
/// ```
pub struct RateLimiter<C: Clock = PreciseClock> {
    pub(crate) inner: Arc<Inner<C>>,
}

pub(crate) struct Inner<C> {
    name: Cow<'static, str>,
    quota: Quota,
    pub(crate) gcra: Gcra,
    pub(crate) clock: C,
    pub(crate) max_waiters: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) cell: Cell,
    pub(crate) queue: Queue,
    pub(crate) stats: LimiterStats,
}

impl<C> Inner<C> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // No code of a user runs under it, so it is consistent even if poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RateLimiter {
    /// Starts the set-up of a limiter.
    pub fn builder() -> RateLimiterBuilder {
        RateLimiterBuilder {
            name: Cow::Borrowed("limiter"),
            quota: None,
            max_waiters: DEFAULT_MAX_WAITERS,
            clock: PreciseClock,
        }
    }
}

impl<C: Clock> RateLimiter<C> {
    /// Takes one token, if it is there now.
    ///
    /// # Errors
    /// [`Denied`], with the time after which it would be there.
    pub fn check(&self) -> Result<(), Denied> {
        self.take(1).map_err(|retry_after| Denied { retry_after })
    }

    /// Takes `n` tokens, if all of them are there now. None is always allowed.
    ///
    /// # Errors
    /// [`CheckError::Denied`] with nothing taken, or [`CheckError::ExceedsBurst`] if so many can
    /// never be had at once.
    pub fn check_n(&self, n: u64) -> Result<(), CheckError> {
        let burst = self.inner.gcra.burst();
        if n > burst {
            self.inner.lock().stats.denied += 1;
            return Err(CheckError::ExceedsBurst { asked: n, burst });
        }
        self.take(n)
            .map_err(|retry_after| CheckError::Denied(Denied { retry_after }))
    }

    /// Takes as many tokens as are there now, `n` at most: how many. For shaping a flow of bytes.
    pub fn check_up_to(&self, n: u64) -> u64 {
        let now = self.inner.clock.now();
        let mut state = self.inner.lock();
        let reserved = state.queue.tokens();
        let free = self.inner.gcra.remaining(state.cell, now);
        let taken = free.saturating_sub(reserved).min(n);
        state.cell = self.inner.gcra.charge(state.cell, now, taken);
        state.stats.allowed += u64::from(taken > 0 || n == 0);
        state.stats.denied += u64::from(taken == 0 && n > 0);
        state.stats.took(taken);
        taken
    }

    fn take(&self, n: u64) -> Result<(), Duration> {
        let now = self.inner.clock.now();
        let mut state = self.inner.lock();
        let reserved = state.queue.tokens();
        let delay = self.inner.gcra.delay(state.cell, now, reserved, n);
        if n > 0 && !delay.is_zero() {
            state.stats.denied += 1;
            return Err(delay);
        }
        state.cell = self.inner.gcra.charge(state.cell, now, n);
        state.stats.allowed += 1;
        state.stats.took(n);
        Ok(())
    }

    /// What a check would find now, without taking anything. What is kept for those who wait
    /// counts as taken.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let now = self.inner.clock.now();
        let state = self.inner.lock();
        let reserved = state.queue.tokens();
        let ahead = self.inner.gcra.charge(state.cell, now, reserved);
        snapshot(&self.inner.gcra, ahead, now)
    }

    /// The figures so far.
    #[must_use]
    pub fn stats(&self) -> LimiterStats {
        let state = self.inner.lock();
        LimiterStats {
            waiting: state.queue.len(),
            ..state.stats
        }
    }

    /// The name given at set-up.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The quota given at set-up.
    #[must_use]
    pub fn quota(&self) -> Quota {
        self.inner.quota
    }
}

pub(crate) fn snapshot(gcra: &Gcra, cell: Cell, now: Timestamp) -> Snapshot {
    Snapshot {
        limit: gcra.burst(),
        remaining: gcra.remaining(cell, now),
        retry_after: gcra.delay(cell, now, 0, 1),
        reset_after: gcra.reset_after(cell, now),
    }
}

impl<C: Clock> Clone for RateLimiter<C> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<C: Clock> fmt::Debug for RateLimiter<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter")
            .field("name", &self.name())
            .field("quota", &self.inner.quota)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// What a limiter would answer at one moment: the figures of HTTP's `RateLimit` header fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The most tokens that can be had at once.
    pub limit: u64,
    /// The tokens that are there now.
    pub remaining: u64,
    /// How long until there is one; zero if there is.
    pub retry_after: Duration,
    /// How long until all are there, if nobody takes any.
    pub reset_after: Duration,
}

/// Sets a [`RateLimiter`] up, from [`RateLimiter::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct RateLimiterBuilder<C: Clock = PreciseClock> {
    name: Cow<'static, str>,
    quota: Option<Quota>,
    max_waiters: usize,
    clock: C,
}

impl<C: Clock> RateLimiterBuilder<C> {
    /// A label for figures. Default `"limiter"`.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// How much is allowed. Required.
    pub fn quota(mut self, quota: Quota) -> Self {
        self.quota = Some(quota);
        self
    }

    /// How many may wait at the same time; further ones get
    /// [`WaitError::QueueFull`](crate::WaitError::QueueFull). Zero: nobody waits. Default
    /// [`DEFAULT_MAX_WAITERS`].
    pub fn max_waiters(mut self, n: usize) -> Self {
        self.max_waiters = n;
        self
    }

    /// Where the time comes from. Default [`PreciseClock`].
    ///
    /// What waits sleeps in real time (or tokio's, which tests can pause) for as long as this
    /// clock says, and then looks again.
    pub fn clock<D: Clock>(self, clock: D) -> RateLimiterBuilder<D> {
        RateLimiterBuilder {
            name: self.name,
            quota: self.quota,
            max_waiters: self.max_waiters,
            clock,
        }
    }

    /// Builds the limiter, with a full burst to spend.
    ///
    /// # Errors
    /// A quota with a zero in it, or beyond [`MAX_TOKENS`](crate::MAX_TOKENS) or
    /// [`MAX_PERIOD`](crate::MAX_PERIOD); more than [`MAX_WAITERS`].
    pub fn build(self) -> Result<RateLimiter<C>, ConfigError> {
        let quota = Quota::required(self.quota)?;
        validate_waiters(self.max_waiters)?;
        let inner = Inner {
            name: self.name,
            quota,
            gcra: Gcra::new(quota),
            clock: self.clock,
            max_waiters: self.max_waiters,
            state: Mutex::default(),
        };
        Ok(RateLimiter {
            inner: Arc::new(inner),
        })
    }
}
