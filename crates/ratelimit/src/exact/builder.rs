//! The set-up.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Mutex};

use hashbrown::HashTable;
use overdrive_core::{Clock, ConfigError};

use super::{Entry, ExactKeyedLimiter, Inner, KEYS_PER_DEBT, Overflow, State};
use crate::gcra::Gcra;
use crate::keyed::{DEFAULT_CAPACITY, MAX_CAPACITY, OnFull};
use crate::quota::Quota;
use crate::stats::KeyedStats;
use crate::tsc::{ClockSource, TscClock};

/// Sets a [`ExactKeyedLimiter`] up, from [`ExactKeyedLimiter::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct ExactKeyedLimiterBuilder<K, S = RandomState, C: Clock = TscClock> {
    name: Cow<'static, str>,
    quota: Option<Quota>,
    capacity: usize,
    on_full: OnFull,
    hasher: S,
    clock: ClockSource<C>,
    key: std::marker::PhantomData<fn() -> K>,
}

impl<K: Hash + Eq> ExactKeyedLimiter<K> {
    /// Starts the set-up of a limiter.
    pub fn builder() -> ExactKeyedLimiterBuilder<K> {
        ExactKeyedLimiterBuilder {
            name: Cow::Borrowed("exact keyed limiter"),
            quota: None,
            capacity: DEFAULT_CAPACITY,
            on_full: OnFull::default(),
            hasher: RandomState::new(),
            clock: ClockSource::tsc(),
            key: std::marker::PhantomData,
        }
    }
}

impl<K: Hash + Eq, S: BuildHasher, C: Clock> ExactKeyedLimiterBuilder<K, S, C> {
    /// A label for figures. Default `"exact keyed limiter"`.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// How much each key is allowed. Required.
    pub fn quota(mut self, quota: Quota) -> Self {
        self.quota = Some(quota);
        self
    }

    /// How many keys are held at most. Default [`DEFAULT_CAPACITY`]. Their table is allocated at
    /// set-up.
    ///
    /// A key is needed for as long as it owes something, at most the time in which a full burst
    /// is earned. So what comes in of different keys in that time should fit.
    pub fn capacity(mut self, keys: usize) -> Self {
        self.capacity = keys;
        self
    }

    /// What a new key gets when there is no room. Default [`OnFull::ShareOverflow`].
    pub fn on_full(mut self, on_full: OnFull) -> Self {
        self.on_full = on_full;
        self
    }

    /// How keys are hashed. Default [`RandomState`], which resists chosen keys.
    pub fn hasher<T: BuildHasher>(self, hasher: T) -> ExactKeyedLimiterBuilder<K, T, C> {
        ExactKeyedLimiterBuilder {
            name: self.name,
            quota: self.quota,
            capacity: self.capacity,
            on_full: self.on_full,
            hasher,
            clock: self.clock,
            key: self.key,
        }
    }

    /// Where the time comes from. Default [`TscClock`].
    pub fn clock<D: Clock>(self, clock: D) -> ExactKeyedLimiterBuilder<K, S, D> {
        ExactKeyedLimiterBuilder {
            name: self.name,
            quota: self.quota,
            capacity: self.capacity,
            on_full: self.on_full,
            hasher: self.hasher,
            clock: ClockSource::Given(clock),
            key: self.key,
        }
    }

    /// Builds the limiter, with a full burst for each key.
    ///
    /// # Errors
    /// As [`RateLimiterBuilder::build`](crate::RateLimiterBuilder::build), a capacity of zero
    /// or above [`MAX_CAPACITY`] or the memory that there is, or [`OnFull::Evict`], which would have to look at all keys.
    pub fn build(self) -> Result<ExactKeyedLimiter<K, S, C>, ConfigError> {
        let quota = Quota::required(self.quota)?;
        let capacity = ConfigError::within("capacity", self.capacity, MAX_CAPACITY)?;
        if self.on_full == OnFull::Evict {
            return Err(ConfigError::Invalid {
                field: "on_full",
                reason: "cannot be eviction where keys are compared",
            });
        }
        let share = self.on_full == OnFull::ShareOverflow;
        let debts = if share {
            (capacity / KEYS_PER_DEBT).max(64)
        } else {
            1
        };
        let mut keys: HashTable<Entry<K>> = HashTable::new();
        // All of it now: to grow means to move every key, under the lock.
        if keys.try_reserve(capacity, |entry| entry.hash).is_err() {
            return Err(ConfigError::Invalid {
                field: "capacity",
                reason: "is more than there is memory for",
            });
        }
        let state = State {
            keys,
            due: BTreeSet::new(),
            next_id: 0,
            overflow: Overflow {
                arrival: 0,
                debts: vec![0; debts].into(),
            },
            stats: KeyedStats::default(),
        };
        let inner = Inner {
            name: self.name,
            quota,
            gcra: Gcra::new(quota),
            capacity,
            on_full: self.on_full,
            hasher: self.hasher,
            clock: self.clock.get(),
            state: Mutex::new(state),
        };
        Ok(ExactKeyedLimiter {
            inner: Arc::new(inner),
        })
    }
}

impl<K, S, C: Clock> fmt::Debug for ExactKeyedLimiterBuilder<K, S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExactKeyedLimiterBuilder")
            .field("name", &self.name)
            .field("quota", &self.quota)
            .field("capacity", &self.capacity)
            .field("on_full", &self.on_full)
            .finish_non_exhaustive()
    }
}
