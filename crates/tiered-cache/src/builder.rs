//! The set-up of a cache, and its checks.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use overdrive_core::clock::PreciseClock;
use overdrive_core::{Clock, ConfigError};

use crate::budget::Budget;
use crate::cache::{Cache, Inner, Weigher};
use crate::entry::Tick;
use crate::garbage::{Cause, Listener};
use crate::index::MAX_SLOTS;
use crate::options::Ttl;
use crate::settings::CacheSettings;
use crate::state::Shard;
use crate::sync::Mutex;
use crate::tally::Tally;

/// The largest `max_entries`.
pub const MAX_MAX_ENTRIES: usize = 1 << 31;
/// The most shards.
pub const MAX_SHARDS: usize = 1 << 16;
/// A shard has room for so many entries at least, if the number of shards is left to the cache.
const LEAST_ENTRIES: usize = 512;
/// The longest time that a cache can be set up with: 100 years.
pub const MAX_TIME: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Sets up a [`Cache`]; from [`Cache::builder`].
#[must_use = "it builds nothing until `build`"]
pub struct CacheBuilder<K, V, S = RandomState> {
    name: Cow<'static, str>,
    max_entries: Option<usize>,
    max_weight: Option<u64>,
    weigher: Option<Weigher<K, V>>,
    ttl: Option<Duration>,
    idle_timeout: Option<Duration>,
    refresh_after: Option<Duration>,
    listener: Option<Listener<K, V>>,
    shards: Option<usize>,
    clock: Arc<dyn Clock>,
    hasher: S,
}

impl<K: Hash + Eq, V> CacheBuilder<K, V> {
    pub(crate) fn new() -> Self {
        Self {
            name: "cache".into(),
            max_entries: None,
            max_weight: None,
            weigher: None,
            ttl: None,
            idle_timeout: None,
            refresh_after: None,
            listener: None,
            shards: None,
            clock: Arc::new(PreciseClock),
            hasher: RandomState::new(),
        }
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> CacheBuilder<K, V, S> {
    /// A label for figures. Default `"cache"`.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Takes `max_entries`, `ttl` and `idle_timeout` from a plain value.
    pub fn settings(mut self, settings: CacheSettings) -> Self {
        self.max_entries = Some(settings.max_entries);
        self.ttl = settings.ttl;
        self.idle_timeout = settings.idle_timeout;
        self
    }

    /// The most entries it ever holds. This or [`max_weight`](Self::max_weight) is required.
    pub fn max_entries(mut self, n: usize) -> Self {
        self.max_entries = Some(n);
        self
    }

    /// The most that its entries ever weigh together, by the [`weigher`](Self::weigher), which is
    /// required with it.
    pub fn max_weight(mut self, n: u64) -> Self {
        self.max_weight = Some(n);
        self
    }

    /// What an entry weighs, in any unit; zero counts as one. Called once for each insertion.
    pub fn weigher(mut self, weigher: impl Fn(&K, &V) -> u64 + Send + Sync + 'static) -> Self {
        self.weigher = Some(Box::new(weigher));
        self
    }

    /// How long an entry lives after it was stored. Default: until it is removed or evicted.
    pub fn ttl(mut self, time: Duration) -> Self {
        self.ttl = Some(time);
        self
    }

    /// How long an entry lives after it was last got or stored. It ends with `ttl` at
    /// the latest. Default: this ends none.
    pub fn idle_timeout(mut self, time: Duration) -> Self {
        self.idle_timeout = Some(time);
        self
    }

    /// When a new value is wanted, after the old one was stored: from then on it is stale, and the
    /// next [`get_or_insert_with`](Cache::get_or_insert_with) or its like makes a new one, while
    /// all others still get the old one, until its life ends. Default: never.
    pub fn refresh_after(mut self, time: Duration) -> Self {
        self.refresh_after = Some(time);
        self
    }

    /// What is told of each entry that leaves the cache, by the thread that made it leave, after
    /// it released all locks, and before the entry is dropped or returned. A panic in it is
    /// caught. It may use the cache; of what it makes leave it is told within its own call, so a
    /// listener that puts back whatever was evicted never ends. Of the entries of a cache that is
    /// dropped itself it is not told.
    pub fn listener(mut self, listener: impl Fn(&K, &V, Cause) + Send + Sync + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// How many parts with a lock of their own the cache has. Entries are spread over them by
    /// hash, and all share its bound. Default: by the processors and `max_entries`; one for few
    /// entries. With `max_weight`, which does not say how many there will be, by the processors
    /// alone: where that is a few hundred entries, one shard chooses better what goes.
    pub fn shards(mut self, n: usize) -> Self {
        self.shards = Some(n);
        self
    }

    /// Where the time comes from. Default [`PreciseClock`]. It is read only if some entry has an
    /// end.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// How keys are hashed. Default the standard library's, which withstands keys chosen to
    /// collide.
    pub fn hasher<S2: BuildHasher>(self, hasher: S2) -> CacheBuilder<K, V, S2> {
        CacheBuilder {
            name: self.name,
            max_entries: self.max_entries,
            max_weight: self.max_weight,
            weigher: self.weigher,
            ttl: self.ttl,
            idle_timeout: self.idle_timeout,
            refresh_after: self.refresh_after,
            listener: self.listener,
            shards: self.shards,
            clock: self.clock,
            hasher,
        }
    }

    /// The cache. It starts nothing, and allocates as it fills, but for some kilobytes a shard.
    ///
    /// # Errors
    /// No bound or two bounds, a bound of zero, one above [`MAX_MAX_ENTRIES`], a weight without
    /// weigher or the reverse, a time of zero or above [`MAX_TIME`], no shards or more than
    /// [`MAX_SHARDS`], fewer than one for 2^26 entries, a `refresh_after` that is not shorter than
    /// `ttl`.
    pub fn build(self) -> Result<Cache<K, V, S>, ConfigError> {
        let max_weight = self.bound()?;
        time("ttl", self.ttl)?;
        time("idle_timeout", self.idle_timeout)?;
        time("refresh_after", self.refresh_after)?;
        if self.refresh_after >= self.ttl && self.refresh_after.is_some() && self.ttl.is_some() {
            return Err(ConfigError::Contradiction {
                field: "refresh_after",
                other: "ttl",
                reason: "must be shorter than",
            });
        }
        let weighted = self.weigher.is_some();
        let shards = self.shard_count(max_weight)?;
        let ends = [self.ttl, self.idle_timeout, self.refresh_after];
        let ticks = |time: Duration| Tick::count(time);
        let has_extras = weighted || self.idle_timeout.is_some() || self.refresh_after.is_some();
        let share = Inner::<K, V, S>::share(max_weight, shards, weighted);
        let idle = self.idle_timeout.map(ticks);
        Ok(Cache::new(Inner {
            name: self.name,
            hasher: self.hasher,
            clock: self.clock,
            weigher: self.weigher,
            listener: self.listener,
            ttl: self.ttl.map_or(Ttl::Forever, Ttl::After),
            refresh: self.refresh_after.map(ticks),
            timed: AtomicBool::new(ends.iter().any(Option::is_some)),
            budget: Budget::new(max_weight),
            tally: Tally::new(),
            spread: Mutex::new(()),
            shards: (0..shards)
                .map(|_| Shard::new(share, has_extras, idle))
                .collect(),
        }))
    }

    fn shard_count(&self, max_weight: u64) -> Result<usize, ConfigError> {
        let entries = self.max_entries.unwrap_or(usize::MAX);
        let least = match self.max_entries {
            Some(entries) => entries.div_ceil(MAX_SLOTS),
            None => 1,
        };
        match self.shards {
            Some(0) => Err(ConfigError::Zero { field: "shards" }),
            Some(n) if n > MAX_SHARDS => Err(ConfigError::TooLarge {
                field: "shards",
                value: n as u64,
                max: MAX_SHARDS as u64,
            }),
            Some(n) if n < least => Err(ConfigError::TooLarge {
                field: "max_entries",
                value: max_weight,
                max: (n * MAX_SLOTS) as u64,
            }),
            Some(n) => Ok(n),
            None => {
                let threads = thread::available_parallelism().map_or(1, usize::from);
                let wanted = (4 * threads).next_power_of_two().min(MAX_SHARDS);
                let room = usize::try_from(max_weight).unwrap_or(usize::MAX);
                // Of a weight that is not counted in entries nothing follows for their number.
                let most = if entries == usize::MAX {
                    wanted
                } else {
                    (room / LEAST_ENTRIES).max(1)
                };
                Ok(wanted.min(most).max(least))
            }
        }
    }

    fn bound(&self) -> Result<u64, ConfigError> {
        let field = if self.max_weight.is_some() {
            "max_weight"
        } else {
            "max_entries"
        };
        let bound = match (self.max_entries, self.max_weight) {
            (None, None) => return Err(ConfigError::Missing { field }),
            (Some(_), Some(_)) => {
                return Err(ConfigError::Contradiction {
                    field: "max_entries",
                    other: "max_weight",
                    reason: "must not be given together with",
                });
            }
            (Some(n), None) => ConfigError::at_most(field, n, MAX_MAX_ENTRIES)? as u64,
            (None, Some(n)) => n,
        };
        if bound == 0 {
            return Err(ConfigError::Zero { field });
        }
        match (self.max_weight.is_some(), self.weigher.is_some()) {
            (true, false) => Err(ConfigError::Missing { field: "weigher" }),
            (false, true) => Err(ConfigError::Contradiction {
                field: "weigher",
                other: "max_entries",
                reason: "needs `max_weight` instead of",
            }),
            _ => Ok(bound),
        }
    }
}

/// Refuses what is zero or absurd.
pub(crate) fn time(field: &'static str, time: Option<Duration>) -> Result<(), ConfigError> {
    match time {
        Some(Duration::ZERO) => Err(ConfigError::Zero { field }),
        Some(time) if time > MAX_TIME => Err(ConfigError::TooLarge {
            field,
            value: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
            max: u64::try_from(MAX_TIME.as_nanos()).unwrap_or(u64::MAX),
        }),
        _ => Ok(()),
    }
}

impl<K, V, S> fmt::Debug for CacheBuilder<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("name", &self.name)
            .field("max_entries", &self.max_entries)
            .field("max_weight", &self.max_weight)
            .field("ttl", &self.ttl)
            .field("idle_timeout", &self.idle_timeout)
            .field("refresh_after", &self.refresh_after)
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}
