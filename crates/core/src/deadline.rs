//! Points in time by which something must be over, and the budgets they come from.

use std::time::{Duration, Instant};

use crate::ConfigError;
use crate::clock::{Clock, PreciseClock, Timestamp};

/// The moment by which something must be over, to be passed down from call to call: what is left
/// of it shrinks on the way, where a time-out per call would start anew in each.
///
/// Eight bytes, [`Copy`]. A [`Duration`] converts into the deadline that far from now.
///
/// ```
/// use std::time::Duration;
/// use overdrive_core::Deadline;
///
/// fn query(deadline: Deadline) -> Duration {
///     deadline.remaining()
/// }
/// let request = Deadline::after(Duration::from_secs(30));
/// assert!(query(request.min(Deadline::after(Duration::from_secs(5)))) <= Duration::from_secs(5));
/// assert_eq!(Deadline::NEVER.remaining(), Duration::MAX);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Timestamp);

impl Deadline {
    /// No deadline; later than every other.
    pub const NEVER: Self = Self(Timestamp::MAX);

    /// The deadline at that moment.
    #[must_use]
    pub const fn at(moment: Timestamp) -> Self {
        Self(moment)
    }

    /// The deadline that far from now, in real time.
    #[must_use]
    pub fn after(budget: Duration) -> Self {
        Self::after_on(&PreciseClock, budget)
    }

    /// The deadline that far from what `clock` shows.
    #[must_use]
    pub fn after_on<C: Clock + ?Sized>(clock: &C, budget: Duration) -> Self {
        Self(clock.now().saturating_add(budget))
    }

    /// The moment itself.
    #[must_use]
    pub const fn moment(self) -> Timestamp {
        self.0
    }

    /// What is left in real time: zero once it has passed, [`Duration::MAX`] if there is none.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.remaining_on(&PreciseClock)
    }

    /// What is left on `clock`.
    #[must_use]
    pub fn remaining_on<C: Clock + ?Sized>(self, clock: &C) -> Duration {
        if self == Self::NEVER {
            return Duration::MAX;
        }
        self.0.saturating_since(clock.now())
    }

    /// Whether it has passed in real time. It has at its very moment.
    #[must_use]
    pub fn has_passed(self) -> bool {
        self.has_passed_on(&PreciseClock)
    }

    /// Whether it has passed on `clock`.
    #[must_use]
    pub fn has_passed_on<C: Clock + ?Sized>(self, clock: &C) -> bool {
        self != Self::NEVER && clock.now() >= self.0
    }

    /// For timers that want the standard library's type: `None` if there is no deadline, or none
    /// that the platform can express.
    #[must_use]
    pub fn to_instant(self) -> Option<Instant> {
        if self == Self::NEVER {
            return None;
        }
        self.0.to_instant()
    }
}

impl From<Duration> for Deadline {
    /// [`Deadline::after`].
    fn from(budget: Duration) -> Self {
        Self::after(budget)
    }
}

/// How much time work gets: so much unless it asks, and never more than the maximum.
///
/// ```
/// use std::time::Duration;
/// use overdrive_core::TimeBudget;
///
/// let budget = TimeBudget::default();
/// assert_eq!(budget.of(None), Duration::from_secs(30));
/// assert_eq!(budget.of(Some(Duration::from_secs(3600))), Duration::from_secs(300));
/// let _deadline = budget.start(None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeBudget {
    standard: Duration,
    maximum: Duration,
}

impl TimeBudget {
    /// A budget with that default and that maximum.
    ///
    /// # Errors
    /// A default of zero, or above the maximum.
    pub const fn new(standard: Duration, maximum: Duration) -> Result<Self, ConfigError> {
        if standard.is_zero() {
            return Err(ConfigError::Zero { field: "standard" });
        }
        if standard.as_nanos() > maximum.as_nanos() {
            return Err(ConfigError::Contradiction {
                field: "standard",
                other: "maximum",
                reason: "must not exceed",
            });
        }
        Ok(Self { standard, maximum })
    }

    /// The time for work that asks for that much.
    #[must_use]
    pub fn of(self, asked: Option<Duration>) -> Duration {
        asked.map_or(self.standard, |asked| asked.min(self.maximum))
    }

    /// The deadline of work that starts now and asks for that much.
    #[must_use]
    pub fn start(self, asked: Option<Duration>) -> Deadline {
        Deadline::after(self.of(asked))
    }
}

impl Default for TimeBudget {
    /// 30 seconds, at most 300.
    fn default() -> Self {
        Self {
            standard: Duration::from_secs(30),
            maximum: Duration::from_secs(300),
        }
    }
}
