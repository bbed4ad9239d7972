//! Numbers for a concurrency limit as a plain value, to be kept in a service's configuration. The
//! numbers of a rate limiter are its [`Quota`](crate::Quota).

use crate::limiter_builder::DEFAULT_MAX_WAITERS;

/// The numbers of a concurrency limit. With the feature `serde` it can be read from a
/// configuration file; missing fields take their defaults, unknown ones are errors.
///
/// Nothing is checked here;
/// [`ConcurrencyLimitBuilder::build`](crate::ConcurrencyLimitBuilder::build) refuses what cannot
/// be.
///
/// ```
/// use overdrive_ratelimit::{ConcurrencyLimit, ConcurrencySettings};
///
/// let mut settings = ConcurrencySettings::web();
/// settings.max_waiters = 50;
/// let limit = ConcurrencyLimit::builder().settings(settings).build()?;
/// assert_eq!(limit.limit(), 100);
/// # Ok::<(), overdrive_ratelimit::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct ConcurrencySettings {
    /// See [`ConcurrencyLimitBuilder::limit`](crate::ConcurrencyLimitBuilder::limit).
    pub limit: usize,
    /// See [`ConcurrencyLimitBuilder::max_waiters`](crate::ConcurrencyLimitBuilder::max_waiters).
    pub max_waiters: usize,
}

impl ConcurrencySettings {
    const fn of(limit: usize, max_waiters: usize) -> Self {
        Self { limit, max_waiters }
    }

    /// For web pages: 100 requests in work, 1,000 waiting.
    #[must_use]
    pub const fn web() -> Self {
        Self::of(100, 1_000)
    }

    /// For an API: 50 requests in work, 5,000 waiting.
    #[must_use]
    pub const fn api() -> Self {
        Self::of(50, 5_000)
    }

    /// For background work: 50 at once, the default bound on those who wait.
    #[must_use]
    pub const fn background() -> Self {
        Self::of(50, DEFAULT_MAX_WAITERS)
    }
}

impl Default for ConcurrencySettings {
    /// [`background`](Self::background).
    fn default() -> Self {
        Self::background()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConcurrencyLimit;

    #[test]
    fn every_preset_builds() {
        for settings in [
            ConcurrencySettings::web(),
            ConcurrencySettings::api(),
            ConcurrencySettings::background(),
        ] {
            let built = ConcurrencyLimit::builder().settings(settings.clone());
            assert_eq!(built.build().unwrap().limit(), settings.limit);
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_file_may_leave_out_what_it_does_not_change() {
        let settings: ConcurrencySettings = serde_json::from_str(r#"{"limit": 7}"#).unwrap();
        assert_eq!(settings, ConcurrencySettings::of(7, DEFAULT_MAX_WAITERS));
        assert!(serde_json::from_str::<ConcurrencySettings>(r#"{"limti": 7}"#).is_err());
    }
}
