//! Numbers for a cache as plain values, to be kept in a service's configuration.

use std::time::Duration;

/// The numbers of a [`Cache`](crate::Cache). With the feature `serde` it can be read from a
/// configuration file; missing fields take their defaults, unknown ones are errors.
///
/// Nothing is checked here; [`CacheBuilder::build`](crate::CacheBuilder::build) refuses what
/// cannot be.
///
/// ```
/// use overdrive_tiered_cache::{Cache, CacheSettings};
///
/// let mut settings = CacheSettings::api();
/// settings.max_entries = 500;
/// let cache: Cache<String, u32> = Cache::builder().settings(settings).build()?;
/// assert_eq!(cache.max_weight(), 500);
/// # Ok::<(), overdrive_tiered_cache::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct CacheSettings {
    /// See [`CacheBuilder::max_entries`](crate::CacheBuilder::max_entries).
    pub max_entries: usize,
    /// See [`CacheBuilder::ttl`](crate::CacheBuilder::ttl); `None` is for ever.
    pub ttl: Option<Duration>,
    /// See [`CacheBuilder::idle_timeout`](crate::CacheBuilder::idle_timeout).
    pub idle_timeout: Option<Duration>,
}

impl CacheSettings {
    const fn of(max_entries: usize, seconds: u64) -> Self {
        Self {
            max_entries,
            ttl: Some(Duration::from_secs(seconds)),
            idle_timeout: None,
        }
    }

    /// For parts of web pages: 10,000 entries of 5 minutes.
    #[must_use]
    pub const fn web() -> Self {
        Self::of(10_000, 300)
    }

    /// For answers of an API: 50,000 entries of a minute.
    #[must_use]
    pub const fn api() -> Self {
        Self::of(50_000, 60)
    }

    /// For background work: 100,000 entries of an hour.
    #[must_use]
    pub const fn background() -> Self {
        Self::of(100_000, 3_600)
    }
}

impl Default for CacheSettings {
    /// [`CacheSettings::web`].
    fn default() -> Self {
        Self::web()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cache;

    #[test]
    fn every_preset_builds() {
        for settings in [
            CacheSettings::web(),
            CacheSettings::api(),
            CacheSettings::background(),
        ] {
            let builder = Cache::<u8, u8>::builder().settings(settings.clone());
            let cache = builder.build().unwrap();
            assert_eq!(cache.max_weight(), settings.max_entries as u64);
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_file_may_leave_out_what_it_does_not_change() {
        let settings: CacheSettings = serde_json::from_str(r#"{"max_entries": 7}"#).unwrap();
        let expected = CacheSettings {
            max_entries: 7,
            ..CacheSettings::default()
        };
        assert_eq!(settings, expected);
        assert!(serde_json::from_str::<CacheSettings>(r#"{"max_entires": 7}"#).is_err());
    }
}
