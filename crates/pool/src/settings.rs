//! Numbers for a pool as a plain value, to be kept in a service's configuration.

use std::time::Duration;

/// The numbers of a pool, apart from what it holds. With the feature `serde` it can be read from
/// a configuration file; missing fields take their defaults, unknown ones are errors.
///
/// Nothing is checked here; [`PoolBuilder::build`](crate::PoolBuilder::build) refuses what cannot
/// be.
///
/// ```
/// use overdrive_pool::{Pool, PoolSettings};
///
/// let mut settings = PoolSettings::api();
/// settings.max_idle = 500;
/// settings.idle_timeout = None;
/// let pool = Pool::builder().settings(settings).factory(String::new).build()?;
/// assert_eq!(pool.max_idle(), 500);
/// # Ok::<(), overdrive_pool::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct PoolSettings {
    /// See [`PoolBuilder::max_idle`](crate::PoolBuilder::max_idle).
    pub max_idle: usize,
    /// See [`PoolBuilder::local_cache`](crate::PoolBuilder::local_cache); `None` is its default.
    pub local_cache: Option<usize>,
    /// See [`PoolBuilder::idle_timeout`](crate::PoolBuilder::idle_timeout); `None` is no clean-up.
    pub idle_timeout: Option<Duration>,
}

impl PoolSettings {
    const CLEAN_UP: Duration = Duration::from_secs(300);

    const fn of(max_idle: usize) -> Self {
        Self {
            max_idle,
            local_cache: None,
            idle_timeout: Some(Self::CLEAN_UP),
        }
    }

    /// For handlers of web pages: few objects, held briefly. 100 idle, cleaned up every 300 s.
    #[must_use]
    pub const fn web() -> Self {
        Self::of(100)
    }

    /// For request and response objects of an API: 200 idle, cleaned up every 300 s.
    #[must_use]
    pub const fn api() -> Self {
        Self::of(200)
    }

    /// For background work in bulk, which reuses aggressively: the default bound, cleaned up
    /// every 300 s.
    #[must_use]
    pub const fn background() -> Self {
        Self::of(crate::DEFAULT_MAX_IDLE)
    }
}

impl Default for PoolSettings {
    /// The builder's own defaults: [`DEFAULT_MAX_IDLE`](crate::DEFAULT_MAX_IDLE), no clean-up.
    fn default() -> Self {
        Self {
            idle_timeout: None,
            ..Self::background()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pool;

    #[test]
    fn every_preset_builds() {
        for settings in [
            PoolSettings::web(),
            PoolSettings::api(),
            PoolSettings::background(),
            PoolSettings::default(),
        ] {
            let builder = Pool::builder().factory(String::new);
            let pool = builder.settings(settings.clone()).build().unwrap();
            assert_eq!(pool.max_idle(), settings.max_idle);
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_file_may_leave_out_what_it_does_not_change() {
        let settings: PoolSettings = serde_json::from_str(r#"{"max_idle": 7}"#).unwrap();
        let expected = PoolSettings {
            max_idle: 7,
            ..PoolSettings::default()
        };
        assert_eq!(settings, expected);
        let text = serde_json::to_string(&PoolSettings::web()).unwrap();
        assert_eq!(
            serde_json::from_str::<PoolSettings>(&text).unwrap(),
            PoolSettings::web()
        );
        assert!(serde_json::from_str::<PoolSettings>(r#"{"max_idel": 7}"#).is_err());
    }
}
