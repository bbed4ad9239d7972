//! Setting a concurrency limit up.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use overdrive_core::clock::PreciseClock;
use overdrive_core::{Clock, ConfigError, TimeBudget};

use crate::concurrency::{ConcurrencyLimit, Inner, MAX_CONCURRENCY};
use crate::limiter_builder::{DEFAULT_MAX_WAITERS, validate_waiters};
use crate::lines::{Lines, Shedding};
use crate::settings::ConcurrencySettings;

/// The longest interval of a [`Shedding`], and window of an adaptive limit.
pub(crate) const MAX_INTERVAL: Duration = Duration::from_secs(3600);

/// Sets a [`ConcurrencyLimit`] up, from [`ConcurrencyLimit::builder`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct ConcurrencyLimitBuilder {
    name: Cow<'static, str>,
    limit: Option<usize>,
    max_waiters: usize,
    budget: Option<TimeBudget>,
    shedding: Option<Shedding>,
    clock: Arc<dyn Clock>,
}

impl ConcurrencyLimit {
    /// Starts the set-up of a limit.
    pub fn builder() -> ConcurrencyLimitBuilder {
        ConcurrencyLimitBuilder {
            name: Cow::Borrowed("concurrency limit"),
            limit: None,
            max_waiters: DEFAULT_MAX_WAITERS,
            budget: None,
            shedding: None,
            clock: Arc::new(PreciseClock),
        }
    }
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

    /// How many may wait at the same time; further ones get
    /// [`QueueFull`](crate::AcquireError::QueueFull). Zero: nobody waits. Default
    /// [`DEFAULT_MAX_WAITERS`].
    pub fn max_waiters(mut self, n: usize) -> Self {
        self.max_waiters = n;
        self
    }

    /// How long waits may take: those without a deadline get the budget's default, and none gets more
    /// than its maximum. Default: as long as they ask for.
    ///
    /// With the feature `tokio` all waits that are futures have a timer then, and have to be polled
    /// in a tokio runtime; without it they end when their turn comes.
    pub fn time_budget(mut self, budget: TimeBudget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Turns those away who have waited too long, with [`Shed`](crate::AcquireError::Shed), when
    /// their turn comes. Default: nobody is.
    pub fn shed(mut self, shedding: Shedding) -> Self {
        self.shedding = Some(shedding);
        self
    }

    /// Where the time comes from by which deadlines and [`Shedding`] are judged. Default
    /// [`PreciseClock`]. It is not read while nobody has either.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Builds the limit.
    ///
    /// # Errors
    /// A limit of zero or above [`MAX_CONCURRENCY`], more than
    /// [`MAX_WAITERS`](crate::MAX_WAITERS), or a [`Shedding`] with a target of zero or above its
    /// interval, or an interval of more than an hour.
    pub fn build(self) -> Result<ConcurrencyLimit, ConfigError> {
        const FIELD: &str = "limit";
        let limit = self.limit.ok_or(ConfigError::Missing { field: FIELD })?;
        let limit = ConfigError::within(FIELD, limit, MAX_CONCURRENCY)?;
        validate_waiters(self.max_waiters)?;
        if let Some(shedding) = self.shedding {
            if shedding.target.is_zero() {
                return Err(ConfigError::Zero { field: "target" });
            }
            if shedding.target > shedding.interval {
                return Err(ConfigError::Contradiction {
                    field: "target",
                    other: "interval",
                    reason: "must not exceed",
                });
            }
            if shedding.interval > MAX_INTERVAL {
                return Err(ConfigError::TooLarge {
                    field: "interval",
                    value: u64::try_from(shedding.interval.as_nanos()).unwrap_or(u64::MAX),
                    max: MAX_INTERVAL.as_nanos() as u64,
                });
            }
        }
        let lines = Lines::new(self.shedding, self.clock.now());
        let inner = Inner::new(
            self.name,
            limit,
            self.max_waiters,
            self.budget,
            self.clock,
            lines,
        );
        Ok(ConcurrencyLimit {
            inner: Arc::new(inner),
        })
    }
}
