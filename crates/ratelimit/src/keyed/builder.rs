//! The set-up.

use std::borrow::Cow;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex};

use overdrive_core::{Clock, ConfigError};

use super::{DEFAULT_CAPACITY, Inner, KeyedLimiter, MAX_CAPACITY, OnFull, Overflow};
use crate::cell::Units;
use crate::counts::Counts;
use crate::gcra::Gcra;
use crate::quota::Quota;
use crate::table::{Table, WhenFull};
use crate::tsc::{ClockSource, TscClock};

/// Sets a [`KeyedLimiter`] up, from [`KeyedLimiter::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct KeyedLimiterBuilder<K: ?Sized, S = RandomState, C: Clock = TscClock> {
    name: Cow<'static, str>,
    quota: Option<Quota>,
    capacity: usize,
    on_full: OnFull,
    hasher: S,
    clock: ClockSource<C>,
    key: PhantomData<fn(&K)>,
}

impl<K: ?Sized> KeyedLimiter<K> {
    /// Starts the set-up of a limiter.
    pub fn builder() -> KeyedLimiterBuilder<K> {
        KeyedLimiterBuilder {
            name: Cow::Borrowed("keyed limiter"),
            quota: None,
            capacity: DEFAULT_CAPACITY,
            on_full: OnFull::default(),
            hasher: RandomState::new(),
            clock: ClockSource::tsc(),
            key: PhantomData,
        }
    }
}

impl<K: ?Sized, S: BuildHasher, C: Clock> KeyedLimiterBuilder<K, S, C> {
    /// A label for figures. Default `"keyed limiter"`.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// How much each key is allowed. Required.
    pub fn quota(mut self, quota: Quota) -> Self {
        self.quota = Some(quota);
        self
    }

    /// How many keys there is room for. Default [`DEFAULT_CAPACITY`].
    ///
    /// A key is needed for as long as it owes something, at most the time in which a full burst
    /// is earned. So what comes in of different keys in that time should fit. Up to this number,
    /// fewer than one new key in ten thousand finds no room, however long keys come and go (where
    /// there are thousands: of a handful of keys, chance may put too many in one place).
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
    pub fn hasher<T: BuildHasher>(self, hasher: T) -> KeyedLimiterBuilder<K, T, C> {
        KeyedLimiterBuilder {
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
    pub fn clock<D: Clock>(self, clock: D) -> KeyedLimiterBuilder<K, S, D> {
        KeyedLimiterBuilder {
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
    /// As [`RateLimiterBuilder::build`](crate::RateLimiterBuilder::build), or a capacity of zero
    /// or above [`MAX_CAPACITY`].
    pub fn build(self) -> Result<KeyedLimiter<K, S, C>, ConfigError> {
        let quota = Quota::required(self.quota)?;
        let capacity = ConfigError::within("capacity", self.capacity, MAX_CAPACITY)?;
        let when_full = match self.on_full {
            OnFull::Evict => WhenFull::Evict,
            OnFull::ShareOverflow | OnFull::Deny => WhenFull::Refuse,
        };
        let gcra = Gcra::new(quota);
        let table = Table::new(slots_for(capacity));
        let share = self.on_full == OnFull::ShareOverflow;
        let inner = Inner {
            first: gcra,
            later: Units::new(&gcra),
            overflow: share.then(|| Overflow::new(table.slots())),
            table,
            when_full,
            hasher: self.hasher,
            clock: self.clock.get(),
            counts: Counts::new(),
            name: self.name,
            quota: Mutex::new(quota),
            capacity,
        };
        Ok(KeyedLimiter {
            inner: Arc::new(inner),
            key: PhantomData,
        })
    }
}

/// Seven tenths of the slots are used at capacity.
pub(crate) fn slots_for(capacity: usize) -> usize {
    if cfg!(overdrive_loom) {
        return capacity;
    }
    capacity.div_ceil(7) * 10
}

impl<K: ?Sized, S, C: Clock> fmt::Debug for KeyedLimiterBuilder<K, S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedLimiterBuilder")
            .field("name", &self.name)
            .field("quota", &self.quota)
            .field("capacity", &self.capacity)
            .field("on_full", &self.on_full)
            .finish_non_exhaustive()
    }
}
