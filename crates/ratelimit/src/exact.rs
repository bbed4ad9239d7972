//! One quota for each key, compared in full, and quotas of their own for some.

use std::borrow::{Borrow, Cow};
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use overdrive_core::{Clock, ConfigError, Timestamp};

use crate::error::{CheckError, Denied};
use crate::gcra::{Arrival, Gcra};
use crate::keyed::{DEFAULT_CAPACITY, MAX_CAPACITY, OnFull};
use crate::limiter::{Snapshot, snapshot};
use crate::quota::Quota;
use crate::stats::KeyedStats;
use crate::tsc::TscClock;

/// A rate limiter for keys that are compared in full, each with the common [`Quota`] or
/// [one of its own](Self::set_quota), in bounded memory: for customers and contracts, where
/// [`KeyedLimiter`](crate::KeyedLimiter) is for addresses and floods.
///
/// A key that owes nothing is worth as much as one that was never seen, so it is forgotten when
/// its room is needed; a key that is limited, or has a quota of its own, is never forgotten,
/// whatever comes. Clones are handles to the same limiter.
///
/// A hash map behind one mutex: a check costs a reading of the clock, a lock and a look-up; one
/// that needs room may sweep all keys, at most once for each time that a sweep can find some.
/// The key's `Hash`, `Eq`, `ToOwned` and `Drop` run under that lock, and must not call the limiter.
///
/// ```
/// use overdrive_ratelimit::{ExactKeyedLimiter, Quota};
///
/// let quota = Quota::per_minute(1);
/// let customers = ExactKeyedLimiter::<String>::builder().quota(quota).build()?;
/// customers.set_quota("a large one".to_owned(), Quota::per_minute(100))?;
/// assert!(customers.check("a small one").is_ok());
/// assert!(customers.check("a small one").is_err());
/// assert!(customers.check_n("a large one", 100).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ExactKeyedLimiter<K, S = RandomState, C: Clock = TscClock> {
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
    keys: HashMap<K, Entry, S>,
    /// The quotas of keys that have their own: each once.
    own: Vec<(Quota, Gcra)>,
    overflow: Arrival,
    /// No sweep before then can find a key that owes nothing.
    sweep_from: Timestamp,
    stats: KeyedStats,
}

/// What is known of a key.
#[derive(Clone, Copy, Debug)]
struct Entry {
    arrival: Arrival,
    /// Its own quota, by its place in the list.
    own: Option<u32>,
}

/// The most different quotas that keys of one limiter can have.
const MAX_QUOTAS: usize = 1 << 16;

impl<K: Hash + Eq> ExactKeyedLimiter<K> {
    /// Starts the set-up of a limiter.
    pub fn builder() -> ExactKeyedLimiterBuilder<K> {
        ExactKeyedLimiterBuilder {
            name: Cow::Borrowed("exact keyed limiter"),
            quota: None,
            capacity: DEFAULT_CAPACITY,
            on_full: OnFull::default(),
            hasher: RandomState::new(),
            clock: TscClock::new(),
            key: std::marker::PhantomData,
        }
    }
}

impl<K: Hash + Eq, S: BuildHasher, C: Clock> ExactKeyedLimiter<K, S, C> {
    /// Takes one of the key's tokens, if it is there now.
    ///
    /// # Errors
    /// [`Denied`], with the time after which it would be there.
    pub fn check<Q>(&self, key: &Q) -> Result<(), Denied>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        self.check_n(key, 1).map_err(|error| {
            // A burst is one at least.
            Denied::after(error.retry_after().unwrap_or_default())
        })
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
        let now = self.inner.clock.now();
        let mut state = self.lock();
        let answer = state.take(&self.inner, key, now, n);
        match answer {
            Ok(()) => state.stats.allowed += 1,
            Err(_) => state.stats.denied += 1,
        }
        answer
    }

    /// Gives the key a quota of its own, with a full burst, from now on; it is held until
    /// [`reset`](Self::reset), after which it has the common one.
    ///
    /// # Errors
    /// As of [`build`](ExactKeyedLimiterBuilder::build); [`ConfigError::TooLarge`] if the capacity is
    /// used up by keys that owe something or have quotas of their own, or if more than 65,536
    /// different quotas were given.
    pub fn set_quota(&self, key: K, quota: Quota) -> Result<(), ConfigError> {
        let gcra = Gcra::new(quota.validate()?);
        let now = self.inner.clock.now();
        let mut state = self.lock();
        let state = &mut *state;
        let full = state.keys.len() >= self.inner.capacity && !state.keys.contains_key(&key);
        if full && !state.sweep(&self.inner.gcra, now) {
            return Err(ConfigError::TooLarge {
                field: "capacity",
                value: self.inner.capacity as u64 + 1,
                max: self.inner.capacity as u64,
            });
        }
        let known = state.own.iter().position(|(other, _)| *other == quota);
        let at = known.unwrap_or(state.own.len());
        if at >= MAX_QUOTAS {
            return Err(ConfigError::TooLarge {
                field: "quota",
                value: at as u64 + 1,
                max: MAX_QUOTAS as u64,
            });
        }
        if known.is_none() {
            state.own.push((quota, gcra));
        }
        let own = u32::try_from(at).ok();
        state.keys.insert(key, Entry { arrival: 0, own });
        Ok(())
    }

    /// The key's quota: its own, or the common one.
    pub fn quota_of<Q>(&self, key: &Q) -> Quota
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let state = self.lock();
        let own = state.keys.get(key).and_then(|entry| entry.own);
        own.map_or(self.inner.quota, |at| state.own[at as usize].0)
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
        let entry = state.keys.get(key).copied();
        let gcra = state.gcra(&self.inner.gcra, entry);
        drop(state);
        snapshot(&gcra, entry.map_or(0, |entry| entry.arrival), now)
    }

    /// Forgets what the key owes, and a quota of its own: whether it was held.
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

    /// The quota of each key that has none of its own.
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
    fn gcra(&self, common: &Gcra, entry: Option<Entry>) -> Gcra {
        let own = entry.and_then(|entry| entry.own);
        own.map_or(*common, |at| self.own[at as usize].1)
    }

    fn take<C, Q>(
        &mut self,
        inner: &Inner<K, S, C>,
        key: &Q,
        now: Timestamp,
        n: u64,
    ) -> Result<(), CheckError>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let held = self.keys.get_mut(key);
        let gcra = match held.as_deref().and_then(|entry| entry.own) {
            Some(at) => self.own[at as usize].1,
            None => inner.gcra,
        };
        if n > gcra.burst {
            let (asked, burst) = (n, gcra.burst);
            return Err(CheckError::ExceedsBurst { asked, burst });
        }
        if n == 0 {
            return Ok(());
        }
        if let Some(entry) = held {
            return charge(&gcra, &mut entry.arrival, now, n);
        }
        if self.keys.len() >= inner.capacity && !self.sweep(&gcra, now) {
            self.stats.overflowed += 1;
            if inner.on_full == OnFull::ShareOverflow {
                return charge(&gcra, &mut self.overflow, now, n);
            }
            let retry_after = self.sweep_from.saturating_since(now);
            return Err(CheckError::Denied(Denied::after(retry_after)));
        }
        let mut arrival = 0;
        let answer = charge(&gcra, &mut arrival, now, n);
        self.keys
            .insert(key.to_owned(), Entry { arrival, own: None });
        // Where a reset made the room, it may be free before all others.
        let free = now.saturating_add(gcra.reset_after(arrival, now));
        self.sweep_from = self.sweep_from.min(free);
        answer
    }

    /// Forgets the keys that owe nothing and have the common quota: whether there is room now.
    fn sweep(&mut self, common: &Gcra, now: Timestamp) -> bool {
        if now < self.sweep_from {
            return false;
        }
        let before = self.keys.len();
        let mut next = Duration::MAX;
        self.keys.retain(|_, entry| {
            if entry.own.is_some() {
                return true;
            }
            let owed = common.reset_after(entry.arrival, now);
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

fn charge(gcra: &Gcra, arrival: &mut Arrival, now: Timestamp, n: u64) -> Result<(), CheckError> {
    let retry_after = gcra.delay(*arrival, now, 0, n);
    if !retry_after.is_zero() {
        return Err(CheckError::Denied(Denied::after(retry_after)));
    }
    *arrival = gcra.charge(*arrival, now, n);
    Ok(())
}

impl<K, S, C: Clock> Clone for ExactKeyedLimiter<K, S, C> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<K, S, C: Clock> fmt::Debug for ExactKeyedLimiter<K, S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExactKeyedLimiter")
            .field("name", &self.inner.name)
            .field("quota", &self.inner.quota)
            .field("capacity", &self.inner.capacity)
            .field("on_full", &self.inner.on_full)
            .finish_non_exhaustive()
    }
}

/// Sets a [`ExactKeyedLimiter`] up, from [`ExactKeyedLimiter::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct ExactKeyedLimiterBuilder<K, S = RandomState, C: Clock = TscClock> {
    name: Cow<'static, str>,
    quota: Option<Quota>,
    capacity: usize,
    on_full: OnFull,
    hasher: S,
    clock: C,
    key: std::marker::PhantomData<fn() -> K>,
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
            clock,
            key: self.key,
        }
    }

    /// Builds the limiter, with a full burst for each key.
    ///
    /// # Errors
    /// As [`RateLimiterBuilder::build`](crate::RateLimiterBuilder::build), a capacity of zero
    /// or above [`MAX_CAPACITY`], or [`OnFull::Evict`], which would have to look at all keys.
    pub fn build(self) -> Result<ExactKeyedLimiter<K, S, C>, ConfigError> {
        let quota = Quota::required(self.quota)?;
        let capacity = ConfigError::within("capacity", self.capacity, MAX_CAPACITY)?;
        if self.on_full == OnFull::Evict {
            return Err(ConfigError::Invalid {
                field: "on_full",
                reason: "cannot be eviction where keys are compared",
            });
        }
        let state = State {
            keys: HashMap::with_hasher(self.hasher),
            own: Vec::new(),
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
