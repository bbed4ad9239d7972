//! The set-up of a tiered cache, and its checks.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use overdrive_core::clock::PreciseClock;
use overdrive_core::{Clock, ConfigError};
use tokio::sync::watch;

use crate::builder::{MAX_TIME, time};
use crate::cache::Cache;
use crate::options::Ttl;
use crate::tiered::TieredCache;
use crate::tiered::codec::{CacheKey, Codec};
use crate::tiered::control::Control;
use crate::tiered::inner::{Held, Inner};
use crate::tiered::reach::Reach;
use crate::tiered::second::{AnyTier, SecondTier};
use crate::tiered::settings::TieredCacheSettings;
use crate::tiered::stats::Counts;

type KeyBytes<K> = fn(&K) -> Vec<u8>;
type Weigher<K, V> = Box<dyn Fn(&K, &V) -> u64 + Send + Sync>;

/// Sets up a [`TieredCache`]; from [`TieredCache::builder`].
#[must_use = "it builds nothing until `build`"]
pub struct TieredCacheBuilder<K, V> {
    name: Cow<'static, str>,
    max_entries: Option<usize>,
    max_weight: Option<u64>,
    weigher: Option<Weigher<K, V>>,
    ttl: Ttl,
    local_ttl: Option<Duration>,
    jitter: f64,
    seed: Option<u64>,
    stale_for: Duration,
    loader_timeout: Option<Duration>,
    second_tier: Option<(Box<dyn AnyTier>, KeyBytes<K>)>,
    codec: Option<Box<dyn Codec<V>>>,
    second_tier_timeout: Duration,
    max_value_bytes: usize,
    clock: Arc<dyn Clock>,
}

impl<K, V> TieredCacheBuilder<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(crate) fn new() -> Self {
        let settings = TieredCacheSettings::default();
        Self {
            name: "cache".into(),
            max_entries: None,
            max_weight: None,
            weigher: None,
            ttl: settings.ttl.map_or(Ttl::Forever, Ttl::After),
            local_ttl: None,
            jitter: 0.0,
            seed: None,
            stale_for: Duration::ZERO,
            loader_timeout: settings.loader_timeout,
            second_tier: None,
            codec: None,
            second_tier_timeout: settings.second_tier_timeout,
            max_value_bytes: 1 << 20,
            clock: Arc::new(PreciseClock),
        }
    }

    /// A label for figures. Default `"cache"`.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Takes all numbers from a plain value.
    pub fn settings(mut self, settings: TieredCacheSettings) -> Self {
        self.max_entries = Some(settings.max_entries);
        self.ttl = settings.ttl.map_or(Ttl::Forever, Ttl::After);
        self.local_ttl = settings.local_ttl;
        self.jitter = settings.jitter;
        self.stale_for = settings.stale_for;
        self.loader_timeout = settings.loader_timeout;
        self.second_tier_timeout = settings.second_tier_timeout;
        self
    }

    /// The most entries in memory. This or [`max_weight`](Self::max_weight) is required.
    pub fn max_entries(mut self, n: usize) -> Self {
        self.max_entries = Some(n);
        self
    }

    /// The most that the entries in memory weigh together, by the [`weigher`](Self::weigher),
    /// which is required with it.
    pub fn max_weight(mut self, n: u64) -> Self {
        self.max_weight = Some(n);
        self
    }

    /// What an entry weighs in memory, in any unit; zero counts as one.
    pub fn weigher(mut self, weigher: impl Fn(&K, &V) -> u64 + Send + Sync + 'static) -> Self {
        self.weigher = Some(Box::new(weigher));
        self
    }

    /// How long an entry is fresh, in all tiers. Default 5 minutes.
    pub fn ttl(mut self, ttl: impl Into<Ttl>) -> Self {
        self.ttl = ttl.into();
        self
    }

    /// How long an entry is fresh in memory, at most: how far this process may be behind others
    /// that change the second tier. Default: as long as it is.
    pub fn local_ttl(mut self, time: Duration) -> Self {
        self.local_ttl = Some(time);
        self
    }

    /// Shortens each life by a random part of up to this, so that what was stored together does
    /// not expire together. From 0 to 1; default 0.
    pub fn jitter(mut self, part: f64) -> Self {
        self.jitter = part;
        self
    }

    /// Makes the jitter repeatable.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// How long after its end an entry is kept to stand in for a load that failed. Invalidated
    /// entries are not kept. Default zero: not at all.
    pub fn stale_for(mut self, time: Duration) -> Self {
        self.stale_for = time;
        self
    }

    /// How long a loader may take; then it is dropped. Default 30 s.
    pub fn loader_timeout(mut self, time: Duration) -> Self {
        self.loader_timeout = Some(time);
        self
    }

    /// The store behind the memory. A [`codec`](Self::codec) is required with it.
    pub fn second_tier(mut self, tier: impl SecondTier) -> Self
    where
        K: CacheKey,
    {
        self.second_tier = Some((Box::new(tier), K::to_bytes));
        self
    }

    /// How values are written for the second tier.
    pub fn codec(mut self, codec: impl Codec<V>) -> Self {
        self.codec = Some(Box::new(codec));
        self
    }

    /// How long an operation on the second tier may take, all its steps together; one that does
    /// not keep to it is cut off after a tenth more. Default 250 ms.
    pub fn second_tier_timeout(mut self, time: Duration) -> Self {
        self.second_tier_timeout = time;
        self
    }

    /// The most bytes of an encoded value in the second tier. What is larger is kept out of it,
    /// and what is there under its key removed. Default 1 MiB.
    pub fn max_value_bytes(mut self, bytes: usize) -> Self {
        self.max_value_bytes = bytes;
        self
    }

    /// Where the time of entries comes from. Default [`PreciseClock`]. Time-outs are tokio's.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The cache. It starts nothing, and needs no runtime yet.
    ///
    /// # Errors
    /// As [`CacheBuilder::build`](crate::CacheBuilder::build); a jitter that is not from 0 to 1; a
    /// `local_ttl` above `ttl`; a second tier without codec or the reverse; a limit of zero.
    pub fn build(self) -> Result<TieredCache<K, V>, ConfigError> {
        self.check()?;
        let clock = Arc::clone(&self.clock);
        let mut memory = Cache::<K, Held<V>>::builder().clock(clock);
        if let Some(n) = self.max_entries {
            memory = memory.max_entries(n);
        }
        if let Some(n) = self.max_weight {
            memory = memory.max_weight(n);
        }
        if let Some(weigher) = self.weigher {
            memory = memory.weigher(move |key, held| weigher(key, &held.value));
        }
        let reach = match (self.second_tier, self.codec) {
            (Some((tier, key)), Some(codec)) => Some(Reach {
                tier,
                codec,
                key,
                timeout: self.second_tier_timeout,
                max_value_bytes: self.max_value_bytes,
                clock: Arc::clone(&self.clock),
                turns: Reach::<K, V>::turns(),
                down: AtomicBool::new(false),
            }),
            _ => None,
        };
        let seed = self
            .seed
            .unwrap_or_else(|| RandomState::new().build_hasher().finish());
        Ok(TieredCache::new(Inner {
            name: self.name,
            memory: memory.build()?,
            control: Mutex::new(Control::default()),
            reach,
            clock: self.clock,
            ttl: self.ttl,
            local_ttl: self.local_ttl,
            jitter: self.jitter,
            random: AtomicU64::new(seed),
            stale_for: self.stale_for,
            loader_timeout: self.loader_timeout,
            counts: Counts::default(),
            closed: AtomicBool::new(false),
            jobs: watch::Sender::new(0),
        }))
    }

    fn check(&self) -> Result<(), ConfigError> {
        let ttl = self.ttl.duration();
        time("ttl", ttl)?;
        time("local_ttl", self.local_ttl)?;
        time("loader_timeout", self.loader_timeout)?;
        time("second_tier_timeout", Some(self.second_tier_timeout))?;
        if !self.stale_for.is_zero() {
            time("stale_for", Some(self.stale_for))?;
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            return Err(ConfigError::Invalid {
                field: "jitter",
                reason: "is not between 0 and 1",
            });
        }
        if self.local_ttl.unwrap_or_default() > ttl.unwrap_or(MAX_TIME) {
            return Err(ConfigError::Contradiction {
                field: "local_ttl",
                other: "ttl",
                reason: "must not exceed",
            });
        }
        if self.max_value_bytes == 0 {
            return Err(ConfigError::Zero {
                field: "max_value_bytes",
            });
        }
        match (&self.second_tier, &self.codec) {
            (Some(_), None) => Err(ConfigError::Missing { field: "codec" }),
            (None, Some(_)) => Err(ConfigError::Missing {
                field: "second_tier",
            }),
            _ => Ok(()),
        }
    }
}

impl<K, V> fmt::Debug for TieredCacheBuilder<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TieredCacheBuilder")
            .field("name", &self.name)
            .field("max_entries", &self.max_entries)
            .field("ttl", &self.ttl)
            .field("second_tier", &self.second_tier.is_some())
            .finish_non_exhaustive()
    }
}
