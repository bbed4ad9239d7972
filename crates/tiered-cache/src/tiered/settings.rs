//! Numbers for a tiered cache as a plain value.

use std::time::Duration;

/// The numbers of a [`TieredCache`](crate::TieredCache). With the feature `serde` it can be read
/// from a configuration file; missing fields take their defaults, unknown ones are errors.
///
/// Nothing is checked here; [`TieredCacheBuilder::build`](crate::TieredCacheBuilder::build)
/// refuses what cannot be.
///
/// ```
/// use overdrive_tiered_cache::{TieredCache, TieredCacheSettings};
///
/// let mut settings = TieredCacheSettings::api();
/// settings.max_entries = 500;
/// let cache = TieredCache::<u64, String>::builder().settings(settings).build()?;
/// # Ok::<(), overdrive_tiered_cache::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct TieredCacheSettings {
    /// See [`max_entries`](crate::TieredCacheBuilder::max_entries).
    pub max_entries: usize,
    /// See [`ttl`](crate::TieredCacheBuilder::ttl); `None` is for ever.
    pub ttl: Option<Duration>,
    /// See [`local_ttl`](crate::TieredCacheBuilder::local_ttl).
    pub local_ttl: Option<Duration>,
    /// See [`jitter`](crate::TieredCacheBuilder::jitter).
    pub jitter: f64,
    /// See [`stale_for`](crate::TieredCacheBuilder::stale_for).
    pub stale_for: Duration,
    /// See [`loader_timeout`](crate::TieredCacheBuilder::loader_timeout); `None` is no limit.
    pub loader_timeout: Option<Duration>,
    /// See [`second_tier_timeout`](crate::TieredCacheBuilder::second_tier_timeout).
    pub second_tier_timeout: Duration,
}

impl TieredCacheSettings {
    const fn of(max_entries: usize, ttl: u64, local: u64, stale: u64, load: u64, ms: u64) -> Self {
        Self {
            max_entries,
            ttl: Some(Duration::from_secs(ttl)),
            local_ttl: Some(Duration::from_secs(local)),
            jitter: 0.1,
            stale_for: Duration::from_secs(stale),
            loader_timeout: Some(Duration::from_secs(load)),
            second_tier_timeout: Duration::from_millis(ms),
        }
    }

    /// For parts of web pages: 10,000 entries in memory for a minute, 5 minutes in the second
    /// tier, an hour more when the loader fails; 10 s to load, 100 ms for the second tier.
    #[must_use]
    pub const fn web() -> Self {
        Self::of(10_000, 300, 60, 3_600, 10, 100)
    }

    /// For answers of an API: 50,000 entries in memory for 30 s, a minute in the second tier, 5
    /// minutes more when the loader fails; 30 s to load, 250 ms for the second tier.
    #[must_use]
    pub const fn api() -> Self {
        Self::of(50_000, 60, 30, 300, 30, 250)
    }

    /// For background work: 100,000 entries in memory for 5 minutes, an hour in the second tier,
    /// a day more when the loader fails; 5 minutes to load, a second for the second tier.
    #[must_use]
    pub const fn background() -> Self {
        Self::of(100_000, 3_600, 300, 86_400, 300, 1_000)
    }
}

impl Default for TieredCacheSettings {
    /// The builder's own defaults, and 10,000 entries: 5 minutes in all tiers, none after that,
    /// no jitter; 30 s to load, 250 ms for the second tier.
    fn default() -> Self {
        Self {
            local_ttl: None,
            jitter: 0.0,
            stale_for: Duration::ZERO,
            ..Self::of(10_000, 300, 300, 0, 30, 250)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TieredCache;

    #[test]
    fn every_preset_builds() {
        for settings in [
            TieredCacheSettings::web(),
            TieredCacheSettings::api(),
            TieredCacheSettings::background(),
            TieredCacheSettings::default(),
        ] {
            let builder = TieredCache::<u8, u8>::builder().settings(settings);
            assert!(builder.build().is_ok());
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn it_survives_a_file() {
        let text = serde_json::to_string(&TieredCacheSettings::web()).unwrap();
        let back: TieredCacheSettings = serde_json::from_str(&text).unwrap();
        assert_eq!(back, TieredCacheSettings::web());
    }
}
