//! One quota for each key: an address, a customer, an API key.

use std::borrow::{Borrow, Cow};
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use overdrive_core::clock::PreciseClock;
use overdrive_core::{Clock, ConfigError, Timestamp};

use crate::error::{CheckError, Denied};
use crate::gcra::{Arrival, Gcra};
use crate::limiter::{Snapshot, snapshot};
use crate::quota::Quota;
use crate::stats::KeyedStats;

/// How many keys a limiter holds unless it is told otherwise.
pub const DEFAULT_CAPACITY: usize = 65_536;

/// The most keys that a limiter can be set up for.
pub const MAX_CAPACITY: usize = 1 << 30;

/// What a new key gets when all room is taken by keys that owe something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFull {
    /// All such keys share one more bucket of the same quota. A flood of new keys is limited
    /// together, and keys that are held keep what they have.
    #[default]
    ShareOverflow,
    /// It is denied.
    Deny,
}

/// A rate limiter with a [`Quota`] of its own for each key, in bounded memory.
///
/// A key that owes nothing is worth as much as one that was never seen, so it is forgotten when
/// its room is needed; a key that is limited is never forgotten, whatever comes. Clones are
/// handles to the same limiter.
///
/// A hash map behind one mutex: a check costs a reading of the clock, a lock and a look-up; one
/// that needs room may sweep all keys, at most once for each time that a sweep can find some.
/// The key's `Hash`, `Eq`, `ToOwned` and `Drop` run under that lock, and must not call the limiter.
///
/// ```
/// use overdrive_ratelimit::{KeyedLimiter, Quota};
///
/// let limiter = KeyedLimiter::<String>::builder().quota(Quota::per_minute(1)).build()?;
/// assert!(limiter.check("203.0.113.7").is_ok());
/// assert!(limiter.check("203.0.113.7").is_err());
/// assert!(limiter.check("198.51.100.2").is_ok());
/// # Ok::<(), overdrive_ratelimit::ConfigError>(())
/// ```
pub struct KeyedLimiter<K, S = RandomState, C: Clock = PreciseClock> {
    inner: Arc<Inner<K, S, C>>,
}

struct Inner<K, S, C> {
    name: Cow<'static, str>,
    quota: Quota,
    gcra: Gcra,
    capacity: usize,
    on_full: OnFull,
    clock: C,
    state: Mutex<State<K, S>>,
}

struct State<K, S> {
    keys: HashMap<K, Arrival, S>,
    overflow: Arrival,
    /// No sweep before then can find a key that owes nothing.
    sweep_from: Timestamp,
    stats: KeyedStats,
}

impl<K: Hash + Eq> KeyedLimiter<K> {
    /// Starts the set-up of a limiter.
    pub fn builder() -> KeyedLimiterBuilder<K> {
        KeyedLimiterBuilder {
            name: Cow::Borrowed("keyed limiter"),
            quota: None,
            capacity: DEFAULT_CAPACITY,
            on_full: OnFull::default(),
            hasher: RandomState::new(),
            clock: PreciseClock,
            key: std::marker::PhantomData,
        }
    }
}

impl<K: Hash + Eq, S: BuildHasher, C: Clock> KeyedLimiter<K, S, C> {
    /// Takes one of the key's tokens, if it is there now.
    ///
    /// # Errors
    /// [`Denied`], with the time after which it would be there.
    pub fn check<Q>(&self, key: &Q) -> Result<(), Denied>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.take(key, 1)
    }

    /// Takes `n` of the key's tokens, if all of them are there now. None is always allowed.
    ///
    /// # Errors
    /// [`CheckError::Denied`] with nothing taken, or [`CheckError::ExceedsBurst`] if so many can
    /// never be had at once.
    pub fn check_n<Q>(&self, key: &Q, n: u64) -> Result<(), CheckError>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let burst = self.inner.gcra.burst;
        if n > burst {
            self.lock().stats.denied += 1;
            return Err(CheckError::ExceedsBurst { asked: n, burst });
        }
        self.take(key, n).map_err(CheckError::Denied)
    }

    fn take<Q>(&self, key: &Q, n: u64) -> Result<(), Denied>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let now = self.inner.clock.now();
        let mut state = self.lock();
        let answer = state.take(&self.inner, key, now, n);
        match answer {
            Ok(()) => state.stats.allowed += 1,
            Err(_) => state.stats.denied += 1,
        }
        answer
    }

    /// What a check of that key would find now, without taking anything. A key that is not held
    /// is shown with a full burst, whether or not there would be room for it.
    #[must_use]
    pub fn snapshot<Q>(&self, key: &Q) -> Snapshot
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let now = self.inner.clock.now();
        let state = self.lock();
        let cell = state.keys.get(key).copied().unwrap_or_default();
        drop(state);
        snapshot(&self.inner.gcra, cell, now)
    }

    /// Forgets what the key owes: whether it was held.
    pub fn reset<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let removed = self.lock().keys.remove_entry(key);
        removed.is_some()
    }

    /// The figures so far.
    #[must_use]
    pub fn stats(&self) -> KeyedStats {
        let state = self.lock();
        KeyedStats {
            keys: state.keys.len(),
            ..state.stats
        }
    }

    /// The name given at set-up.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The quota of each key.
    #[must_use]
    pub fn quota(&self) -> Quota {
        self.inner.quota
    }

    fn lock(&self) -> MutexGuard<'_, State<K, S>> {
        // A panic of a key's `Eq` or `Hash` leaves the map whole, and nothing else is open then.
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq, S: BuildHasher> State<K, S> {
    fn take<C, Q>(
        &mut self,
        inner: &Inner<K, S, C>,
        key: &Q,
        now: Timestamp,
        n: u64,
    ) -> Result<(), Denied>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let gcra = &inner.gcra;
        if n == 0 {
            return Ok(());
        }
        if let Some(cell) = self.keys.get_mut(key) {
            return charge(gcra, cell, now, n);
        }
        if self.keys.len() >= inner.capacity && !self.sweep(gcra, now) {
            self.stats.overflowed += 1;
            return match inner.on_full {
                OnFull::ShareOverflow => charge(gcra, &mut self.overflow, now, n),
                OnFull::Deny => {
                    let retry_after = self.sweep_from.saturating_since(now);
                    Err(Denied::after(retry_after))
                }
            };
        }
        let mut cell = 0;
        let answer = charge(gcra, &mut cell, now, n);
        self.keys.insert(key.to_owned(), cell);
        // Where a reset made the room, it may be free before all others.
        let free = now.saturating_add(gcra.reset_after(cell, now));
        self.sweep_from = self.sweep_from.min(free);
        answer
    }

    /// Forgets the keys that owe nothing: whether there is room now.
    fn sweep(&mut self, gcra: &Gcra, now: Timestamp) -> bool {
        if now < self.sweep_from {
            return false;
        }
        let before = self.keys.len();
        let mut next = std::time::Duration::MAX;
        self.keys.retain(|_, cell| {
            let owed = gcra.reset_after(*cell, now);
            if !owed.is_zero() {
                next = next.min(owed);
            }
            !owed.is_zero()
        });
        let reclaimed = before - self.keys.len();
        self.stats.reclaimed += reclaimed as u64;
        if reclaimed == 0 {
            // What is charged in the meantime owes more, and what is put in says when it is free.
            self.sweep_from = now.saturating_add(next);
        }
        reclaimed > 0
    }
}

fn charge(gcra: &Gcra, cell: &mut Arrival, now: Timestamp, n: u64) -> Result<(), Denied> {
    let retry_after = gcra.delay(*cell, now, 0, n);
    if !retry_after.is_zero() {
        return Err(Denied::after(retry_after));
    }
    *cell = gcra.charge(*cell, now, n);
    Ok(())
}

impl<K, S, C: Clock> Clone for KeyedLimiter<K, S, C> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<K, S, C: Clock> fmt::Debug for KeyedLimiter<K, S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedLimiter")
            .field("name", &self.inner.name)
            .field("quota", &self.inner.quota)
            .field("capacity", &self.inner.capacity)
            .field("on_full", &self.inner.on_full)
            .finish_non_exhaustive()
    }
}

/// Sets a [`KeyedLimiter`] up, from [`KeyedLimiter::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct KeyedLimiterBuilder<K, S = RandomState, C: Clock = PreciseClock> {
    name: Cow<'static, str>,
    quota: Option<Quota>,
    capacity: usize,
    on_full: OnFull,
    hasher: S,
    clock: C,
    key: std::marker::PhantomData<fn() -> K>,
}

impl<K: Hash + Eq, S: BuildHasher, C: Clock> KeyedLimiterBuilder<K, S, C> {
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

    /// How many keys are held at most. Default [`DEFAULT_CAPACITY`].
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

    /// Where the time comes from. Default [`PreciseClock`].
    pub fn clock<D: Clock>(self, clock: D) -> KeyedLimiterBuilder<K, S, D> {
        KeyedLimiterBuilder {
            name: self.name,
            quota: self.quota,
            capacity: self.capacity,
            on_full: self.on_full,
            hasher: self.hasher,
            clock,
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
        let state = State {
            keys: HashMap::with_hasher(self.hasher),
            overflow: 0,
            sweep_from: Timestamp::ZERO,
            stats: KeyedStats::default(),
        };
        let inner = Inner {
            name: self.name,
            quota,
            gcra: Gcra::new(quota),
            capacity,
            on_full: self.on_full,
            clock: self.clock,
            state: Mutex::new(state),
        };
        Ok(KeyedLimiter {
            inner: Arc::new(inner),
        })
    }
}

impl<K, S, C: Clock> fmt::Debug for KeyedLimiterBuilder<K, S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedLimiterBuilder")
            .field("name", &self.name)
            .field("quota", &self.quota)
            .field("capacity", &self.capacity)
            .field("on_full", &self.on_full)
            .finish_non_exhaustive()
    }
}
