//! How much is allowed: so many tokens per period, and so many at once.

use std::time::Duration;

use overdrive_core::ConfigError;

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
    /// A zero, or more than [`MAX_TOKENS`] or [`MAX_PERIOD`].
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
        let extreme = Quota::per(MAX_TOKENS, MAX_PERIOD);
        assert_eq!(field(extreme), Ok(extreme));
    }
}
