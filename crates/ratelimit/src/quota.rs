//! How much is allowed: so many tokens per period, and so many at once.

use std::time::Duration;

use overdrive_core::{ConfigError, Timestamp};

use crate::gcra::{Arrival, Gcra};

/// How much a limiter allows: `tokens` per `period` in the long run, `burst` at once after a rest.
///
/// A plain value; what makes no sense is refused where a limiter is built from it. The rate is
/// the exact fraction `tokens / period`, however large: nothing is rounded to nanoseconds per
/// token.
///
/// ```
/// use std::time::Duration;
/// use overdrive_ratelimit::Quota;
///
/// // Ten a second, and up to a hundred at once.
/// let api = Quota::per_second(10).burst(100);
/// // Three each quarter of an hour; the burst is three, unless it is set.
/// let mails = Quota::per(3, Duration::from_secs(900));
/// assert_eq!(mails.burst, 3);
/// # let _ = api;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields))]
pub struct Quota {
    /// Tokens per period.
    pub tokens: u64,
    /// The period.
    pub period: Duration,
    /// The most tokens that can be had at once.
    pub burst: u64,
}

/// The most tokens of a quota, per period and at once.
pub const MAX_TOKENS: u64 = 1 << 40;

/// The longest period of a quota.
pub const MAX_PERIOD: Duration = Duration::from_secs(366 * 24 * 3600);

/// The highest rate: then 63 bits of its units last for 18 years.
const MAX_PER_NANO: u128 = 16;

/// What becomes of the tokens that are there when a quota is replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Carry {
    /// As many are there as before, a full new burst at most.
    #[default]
    Keep,
    /// The same share of a burst is there as before.
    Proportional,
    /// A full burst is there, less what was reserved ahead of its time.
    Reset,
}

impl Carry {
    /// The new arrival time, of which the fractions of units are rounded against the caller. `ahead`:
    /// whether tokens are reserved ahead of their time.
    pub(crate) fn apply(
        self,
        before: &Gcra,
        arrival: Arrival,
        next: &Gcra,
        now: Timestamp,
        ahead: bool,
    ) -> Arrival {
        let units = before.units(now);
        let owed = i128::from(arrival.saturating_sub(units));
        let tolerance = |gcra: &Gcra| i128::from(gcra.tolerance);
        let level = match tolerance(before) - owed {
            // An idle cell is charged as much more when it is emptied.
            level if !ahead && level >= -i128::from(before.lost) => level.max(0),
            level => level,
        };
        // Reservations may have taken more than there was: that stays owed, token by token.
        let (times, parts) = match self {
            Self::Proportional if level >= 0 => (tolerance(next), tolerance(before)),
            _ => (i128::from(next.cost), i128::from(before.cost)),
        };
        let level = if self == Self::Reset {
            level.min(0)
        } else {
            level
        };
        let level = (level * times).div_euclid(parts);
        let level = match self {
            Self::Reset => tolerance(next) + level,
            _ => level.min(tolerance(next)),
        };
        let from = next.units(now);
        let owed = u64::try_from(tolerance(next) - level).unwrap_or(u64::MAX);
        if owed == 0 {
            return from;
        }
        from.saturating_add(next.lost)
            .saturating_add(owed)
            .min(u64::MAX - 1)
    }
}

impl Quota {
    /// `tokens` per `period`, all of them at once if they were not used.
    #[must_use]
    pub const fn per(tokens: u64, period: Duration) -> Self {
        Self {
            tokens,
            period,
            burst: tokens,
        }
    }

    /// `tokens` a second, all of them at once if they were not used.
    #[must_use]
    pub const fn per_second(tokens: u64) -> Self {
        Self::per(tokens, Duration::from_secs(1))
    }

    /// `tokens` a minute, all of them at once if they were not used.
    #[must_use]
    pub const fn per_minute(tokens: u64) -> Self {
        Self::per(tokens, Duration::from_secs(60))
    }

    /// `tokens` an hour, all of them at once if they were not used.
    #[must_use]
    pub const fn per_hour(tokens: u64) -> Self {
        Self::per(tokens, Duration::from_secs(3600))
    }

    /// The same rate with another burst.
    #[must_use]
    pub const fn burst(mut self, tokens: u64) -> Self {
        self.burst = tokens;
        self
    }

    /// The quota given to a builder, if it makes sense.
    pub(crate) fn required(given: Option<Self>) -> Result<Self, ConfigError> {
        given
            .ok_or(ConfigError::Missing { field: "quota" })?
            .validate()
    }

    /// # Errors
    /// A zero, more than [`MAX_TOKENS`] or [`MAX_PERIOD`], or too high a rate.
    pub(crate) fn validate(self) -> Result<Self, ConfigError> {
        for (field, value) in [("tokens", self.tokens), ("burst", self.burst)] {
            match value {
                0 => return Err(ConfigError::Zero { field }),
                1..=MAX_TOKENS => {}
                value => {
                    let max = MAX_TOKENS;
                    return Err(ConfigError::TooLarge { field, value, max });
                }
            }
        }
        let nanos = |period: Duration| u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        if self.period.is_zero() {
            return Err(ConfigError::Zero { field: "period" });
        }
        if self.period > MAX_PERIOD {
            return Err(ConfigError::TooLarge {
                field: "period",
                value: nanos(self.period),
                max: nanos(MAX_PERIOD),
            });
        }
        if u128::from(self.tokens) > MAX_PER_NANO * self.period.as_nanos() {
            return Err(ConfigError::Invalid {
                field: "tokens",
                reason: "is more than sixteen per nanosecond of the period",
            });
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let field = |quota: Quota| quota.validate().map_err(|error| error.field());
        assert_eq!(field(Quota::per_second(0)), Err("tokens"));
        assert_eq!(field(Quota::per_second(u64::MAX)), Err("tokens"));
        assert_eq!(field(Quota::per_second(1).burst(0)), Err("burst"));
        assert_eq!(field(Quota::per_second(1).burst(u64::MAX)), Err("burst"));
        assert_eq!(field(Quota::per(1, Duration::ZERO)), Err("period"));
        assert_eq!(field(Quota::per(1, Duration::MAX)), Err("period"));
        let nano = Duration::from_nanos(1);
        assert_eq!(field(Quota::per(17, nano)), Err("tokens"));
        assert!(Quota::per(16, nano).validate().is_ok());
        let extreme = Quota::per(MAX_TOKENS, MAX_PERIOD);
        assert_eq!(field(extreme), Ok(extreme));
    }
}
