//! Setting a rate limiter up.

use std::borrow::Cow;
use std::sync::Arc;

use overdrive_core::{Clock, ConfigError, TimeBudget};

use crate::leased::LeasedLimiterBuilder;
use crate::limiter::{Inner, RateLimiter};
use crate::quota::Quota;
use crate::tsc::{ClockSource, TscClock};

/// How many may wait for one limiter unless it is told otherwise.
pub const DEFAULT_MAX_WAITERS: usize = 65_536;

/// The most that can be let wait for one limiter.
pub const MAX_WAITERS: usize = 1 << 23;

/// # Errors
/// More than [`MAX_WAITERS`].
pub(crate) fn validate_waiters(n: usize) -> Result<usize, ConfigError> {
    ConfigError::at_most("max_waiters", n, MAX_WAITERS)
}

/// Sets a [`RateLimiter`] up, from [`RateLimiter::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct RateLimiterBuilder<C: Clock = TscClock> {
    pub(crate) name: Cow<'static, str>,
    pub(crate) quota: Option<Quota>,
    pub(crate) max_waiters: usize,
    budget: Option<TimeBudget>,
    pub(crate) clock: ClockSource<C>,
}

impl RateLimiter {
    /// Starts the set-up of a limiter.
    pub fn builder() -> RateLimiterBuilder {
        RateLimiterBuilder {
            name: Cow::Borrowed("limiter"),
            quota: None,
            max_waiters: DEFAULT_MAX_WAITERS,
            budget: None,
            clock: ClockSource::tsc(),
        }
    }

    /// The token bucket as it is often written: `max` tokens at once, and `refill` more a second.
    ///
    /// # Errors
    /// As of [`RateLimiterBuilder::build`].
    ///
    /// ```
    /// use overdrive_ratelimit::RateLimiter;
    ///
    /// let calls = RateLimiter::new(100, 10)?;
    /// assert_eq!(calls.snapshot().remaining, 100);
    /// # Ok::<(), overdrive_ratelimit::ConfigError>(())
    /// ```
    pub fn new(max: u64, refill: u64) -> Result<Self, ConfigError> {
        Self::builder()
            .quota(Quota::per_second(refill).burst(max))
            .build()
    }
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

    /// How long waits and reservations may take: those without a deadline get the budget's default,
    /// and none gets more than its maximum. Default: as long as they ask for.
    pub fn time_budget(mut self, budget: TimeBudget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Where the time comes from. Default [`TscClock`], which is made in [`build`](Self::build).
    /// [`CoarseClock`](crate::clock::CoarseClock) is cheaper to read and up to its resolution late.
    ///
    /// What waits sleeps in real time (or tokio's, which tests can pause) for as long as this
    /// clock says, and then looks again. A clock that goes back makes the limiter slower, never
    /// faster.
    pub fn clock<D: Clock>(self, clock: D) -> RateLimiterBuilder<D> {
        RateLimiterBuilder {
            name: self.name,
            quota: self.quota,
            max_waiters: self.max_waiters,
            budget: self.budget,
            clock: ClockSource::Given(clock),
        }
    }

    /// A limiter of which each thread keeps up to `batch` tokens to itself: see
    /// [`LeasedLimiter`](crate::LeasedLimiter).
    pub fn leased(self, batch: u64) -> LeasedLimiterBuilder<C> {
        LeasedLimiterBuilder::new(self, batch)
    }

    /// Builds the limiter, with a full burst to spend.
    ///
    /// # Errors
    /// A quota with a zero in it, beyond [`MAX_TOKENS`](crate::MAX_TOKENS) or
    /// [`MAX_PERIOD`](crate::MAX_PERIOD), or of more than sixteen tokens a nanosecond; more than
    /// [`MAX_WAITERS`].
    pub fn build(self) -> Result<RateLimiter<C>, ConfigError> {
        self.build_leased(0)
    }

    /// With so many tokens of the burst kept back.
    pub(crate) fn build_leased(self, leased: u64) -> Result<RateLimiter<C>, ConfigError> {
        let quota = Quota::required(self.quota)?;
        validate_waiters(self.max_waiters)?;
        let clock = self.clock.get();
        let inner = Inner::new(
            self.name,
            quota,
            leased,
            self.max_waiters,
            self.budget,
            clock,
        );
        Ok(RateLimiter {
            inner: Arc::new(inner),
        })
    }
}
