//! One quota for each key: an address, a customer, an API key.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::marker::PhantomData;
use std::sync::Arc;

use overdrive_core::{Clock, ConfigError, Timestamp};

use crate::counts::Counts;
use crate::error::{CheckError, Denied};
use crate::gcra::{Arrival, Gcra};
use crate::limiter::{Snapshot, snapshot};
use crate::quota::Quota;
use crate::stats::KeyedStats;
use crate::sync::{AtomicU64, Ordering};
use crate::table::{Charge, Key, Table, WhenFull};
use crate::tsc::TscClock;

/// How many keys a limiter has room for unless it is told otherwise.
pub const DEFAULT_CAPACITY: usize = 65_536;

/// The most keys that a limiter can be set up for.
pub const MAX_CAPACITY: usize = 1 << 30;

/// What a new key gets when all room for it is taken by keys that owe something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFull {
    /// All such keys share one more bucket of the same quota. A flood of new keys is limited
    /// together, and keys that are held keep what they have.
    #[default]
    ShareOverflow,
    /// It is denied.
    Deny,
    /// The place of a key that owes little, with its debt: that key starts anew when it comes back.
    Evict,
}

/// A rate limiter with a [`Quota`] of its own for each key, in memory of a fixed size.
///
/// A key that owes nothing is worth as much as one that was never seen, so its place is free when
/// another needs it: there is nothing to sweep, and a flood of keys costs no memory. Unless
/// [`OnFull::Evict`] says so, a key that owes something is never forgotten, whatever comes. Clones
/// are handles to the same limiter.
///
/// Keys are known by their hash: two with the same 64 bits share a bucket. With the default hasher,
/// which is seeded, nobody can choose such keys, and among a million it happens once in
/// 37 million limiters. [`ExactKeyedLimiter`](crate::ExactKeyedLimiter) compares keys, and has
/// quotas of their own for some.
///
/// A check of a key that is held takes no lock and copies nothing: it reads the clock, hashes the
/// key, and looks at one or two places of 128 bytes. A new key takes one of 64 locks. Memory is 23
/// bytes for each key of the capacity, taken at set-up.
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
pub struct KeyedLimiter<K: ?Sized, S = RandomState, C: Clock = TscClock> {
    inner: Arc<Inner<S, C>>,
    key: PhantomData<fn(&K)>,
}

struct Inner<S, C> {
    gcra: Gcra,
    table: Table,
    when_full: WhenFull,
    share: bool,
    overflow: AtomicU64,
    hasher: S,
    clock: C,
    counts: Counts<5>,
    name: Cow<'static, str>,
    quota: Quota,
    capacity: usize,
}

const ALLOWED: usize = 0;
const DENIED: usize = 1;
const RECLAIMED: usize = 2;
const OVERFLOWED: usize = 3;
const EVICTED: usize = 4;

impl<K: ?Sized> KeyedLimiter<K> {
    /// Starts the set-up of a limiter.
    pub fn builder() -> KeyedLimiterBuilder<K> {
        KeyedLimiterBuilder {
            name: Cow::Borrowed("keyed limiter"),
            quota: None,
            capacity: DEFAULT_CAPACITY,
            on_full: OnFull::default(),
            hasher: RandomState::new(),
            clock: TscClock::new(),
            key: PhantomData,
        }
    }
}

impl<K: ?Sized, S: BuildHasher, C: Clock> KeyedLimiter<K, S, C> {
    /// Takes one of the key's tokens, if it is there now.
    ///
    /// # Errors
    /// [`Denied`], with the time after which it would be there.
    #[inline]
    pub fn check<Q>(&self, key: &Q) -> Result<(), Denied>
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        let now = self.inner.clock.now();
        self.inner.take(self.inner.key(key), now, 1)
    }

    /// Takes `n` of the key's tokens, if all of them are there now. None is always allowed.
    ///
    /// # Errors
    /// [`CheckError::Denied`] with nothing taken, or [`CheckError::ExceedsBurst`] if so many can
    /// never be had at once.
    #[inline]
    pub fn check_n<Q>(&self, key: &Q, n: u64) -> Result<(), CheckError>
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        let inner = &*self.inner;
        let burst = inner.gcra.burst;
        if n > burst {
            inner.counts.add(DENIED, 1);
            return Err(CheckError::ExceedsBurst { asked: n, burst });
        }
        if n == 0 {
            inner.counts.add(ALLOWED, 1);
            return Ok(());
        }
        let now = inner.clock.now();
        inner
            .take(inner.key(key), now, n)
            .map_err(CheckError::Denied)
    }

    /// What a check of that key would find now, without taking anything. A key that is not held
    /// is shown with a full burst, whether or not there would be room for it.
    #[must_use]
    pub fn snapshot<Q>(&self, key: &Q) -> Snapshot
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let arrival = inner.table.look(inner.key(key)).unwrap_or(0);
        snapshot(&inner.gcra, arrival, now)
    }

    /// Forgets what the key owes: whether it owed anything.
    pub fn reset<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        let inner = &*self.inner;
        let units = inner.gcra.units(inner.clock.now());
        inner.table.forget(inner.key(key), units)
    }

    /// The figures so far. Looks at the whole table to count the keys.
    #[must_use]
    pub fn stats(&self) -> KeyedStats {
        let inner = &*self.inner;
        let units = inner.gcra.units(inner.clock.now());
        KeyedStats {
            allowed: inner.counts.sum(ALLOWED),
            denied: inner.counts.sum(DENIED),
            keys: inner.table.live(units),
            reclaimed: inner.counts.sum(RECLAIMED),
            overflowed: inner.counts.sum(OVERFLOWED),
            evicted: inner.counts.sum(EVICTED),
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

    /// How many places there are: more than the capacity, so that it fits.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.inner.table.slots()
    }
}

impl<S: BuildHasher, C: Clock> Inner<S, C> {
    #[inline(always)]
    fn key<Q: Hash + ?Sized>(&self, key: &Q) -> Key {
        self.table.key(self.hasher.hash_one(key))
    }

    /// For `n` from one to the burst.
    #[inline(always)]
    fn take(&self, key: Key, now: Timestamp, n: u64) -> Result<(), Denied> {
        let cost = n.wrapping_mul(self.gcra.cost);
        match self
            .table
            .charge(key, &self.gcra, now, cost, self.when_full)
        {
            Charge::Allowed { reclaimed } => {
                self.counts.add(ALLOWED, 1);
                if reclaimed {
                    self.counts.add(RECLAIMED, 1);
                }
                Ok(())
            }
            Charge::Denied(arrival) => self.denied(arrival, now, n),
            Charge::Full => self.full(now, n),
        }
    }

    #[inline(always)]
    fn denied(&self, arrival: Arrival, now: Timestamp, n: u64) -> Result<(), Denied> {
        self.counts.add(DENIED, 1);
        Err(Denied::after(self.gcra.delay(arrival, now, 0, n)))
    }

    #[cold]
    fn full(&self, now: Timestamp, n: u64) -> Result<(), Denied> {
        if self.when_full == WhenFull::Evict {
            self.counts.add(EVICTED, 1);
            self.counts.add(ALLOWED, 1);
            return Ok(());
        }
        self.counts.add(OVERFLOWED, 1);
        if !self.share {
            // Somebody's debt is a burst at most; when the first is free is not known.
            self.counts.add(DENIED, 1);
            let token = self
                .gcra
                .delay(self.gcra.charge(0, now, self.gcra.burst), now, 0, 1);
            return Err(Denied::after(token));
        }
        let units = self.gcra.units(now);
        let cost = n.wrapping_mul(self.gcra.cost);
        let mut arrival = self.overflow.load(Ordering::Relaxed);
        loop {
            let Some(next) = self.gcra.admit(arrival, units, cost) else {
                return self.denied(arrival, now, n);
            };
            let order = Ordering::Relaxed;
            match self
                .overflow
                .compare_exchange_weak(arrival, next, order, order)
            {
                Ok(_) => break,
                Err(other) => arrival = other,
            }
        }
        self.counts.add(ALLOWED, 1);
        Ok(())
    }
}

impl<K: ?Sized, S, C: Clock> Clone for KeyedLimiter<K, S, C> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            key: PhantomData,
        }
    }
}

impl<K: ?Sized, S, C: Clock> fmt::Debug for KeyedLimiter<K, S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedLimiter")
            .field("name", &self.inner.name)
            .field("quota", &self.inner.quota)
            .field("capacity", &self.inner.capacity)
            .finish_non_exhaustive()
    }
}

/// Sets a [`KeyedLimiter`] up, from [`KeyedLimiter::builder`].
#[must_use = "a builder does nothing until `build`"]
pub struct KeyedLimiterBuilder<K: ?Sized, S = RandomState, C: Clock = TscClock> {
    name: Cow<'static, str>,
    quota: Option<Quota>,
    capacity: usize,
    on_full: OnFull,
    hasher: S,
    clock: C,
    key: PhantomData<fn(&K)>,
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
    /// fewer than one key in ten thousand finds no room (where there are thousands: of a handful of
    /// keys, chance may put too many in one place).
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
        let when_full = match self.on_full {
            OnFull::Evict => WhenFull::Evict,
            OnFull::ShareOverflow | OnFull::Deny => WhenFull::Refuse,
        };
        let inner = Inner {
            gcra: Gcra::new(quota),
            table: Table::new(slots_for(capacity)),
            when_full,
            share: self.on_full == OnFull::ShareOverflow,
            overflow: AtomicU64::new(0),
            hasher: self.hasher,
            clock: self.clock,
            counts: Counts::new(),
            name: self.name,
            quota,
            capacity,
        };
        Ok(KeyedLimiter {
            inner: Arc::new(inner),
            key: PhantomData,
        })
    }
}

/// Seven tenths of the slots are used at capacity.
fn slots_for(capacity: usize) -> usize {
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
