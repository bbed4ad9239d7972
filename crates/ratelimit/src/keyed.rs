//! One quota for each key: an address, a customer, an API key.

mod builder;

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use overdrive_core::{Clock, ConfigError, Timestamp};

use crate::cell::{LAST_BASE, Units};
use crate::counts::Counts;
use crate::error::{CheckError, Denied};
use crate::gcra::{Arrival, Gcra};
use crate::limiter::{Snapshot, snapshot};
use crate::quota::{Carry, Quota};
use crate::stats::KeyedStats;
use crate::sync::{AtomicU64, Ordering, fence};
use crate::table::{Charge, Key, Table, Terms, WhenFull, reduce};
use crate::tsc::TscClock;

pub use self::builder::KeyedLimiterBuilder;
#[cfg(feature = "governor")]
pub(crate) use self::builder::slots_for;

/// How many keys a limiter has room for unless it is told otherwise.
pub const DEFAULT_CAPACITY: usize = 65_536;

/// The most keys that a limiter can be set up for.
pub const MAX_CAPACITY: usize = 1 << 30;

/// What a new key gets when all room for it is taken by keys that owe something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFull {
    /// All such keys share one more bucket of the same quota. A flood of new keys is limited
    /// together, and keys that are held keep what they have. A key that got tokens so and then gets
    /// a place owes them there (and with it a sixty-fourth of the others at most, fewer where there
    /// is more room).
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
/// [`OnFull::Evict`] says so, what a key owes is never forgotten, whatever comes. Clones are handles
/// to the same limiter.
///
/// Keys are known by their hash: two with the same 64 bits share a bucket. With the default hasher,
/// which is seeded, nobody can choose such keys, and among a million it happens once in
/// some 20 million limiters. [`ExactKeyedLimiter`](crate::ExactKeyedLimiter) compares keys, and has
/// quotas of their own for some.
///
/// A check of a key that is held takes no lock and copies nothing: it reads the clock, hashes the
/// key, and looks at one or two places of 128 bytes. A new key, and at capacity two of a thousand that
/// are held, looks at a third and takes one of 64 locks. Memory is 23.4 bytes for each
/// key of the capacity, and the limiter's counters, taken at set-up.
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
    /// The units of the first quota, and of later ones.
    first: Gcra,
    later: Units,
    table: Table,
    when_full: WhenFull,
    overflow: Option<Overflow>,
    hasher: S,
    clock: C,
    counts: Counts<5>,
    name: Cow<'static, str>,
    quota: Mutex<Quota>,
    capacity: usize,
}

/// The bucket of those for whom there is no room.
struct Overflow {
    arrival: AtomicU64,
    /// What they took of it, by parts of their hashes: a key that gets a place owes that from the
    /// start, and so has one burst and not two. Others with the same part owe it too.
    debts: Box<[AtomicU64]>,
}

impl Overflow {
    /// So many slots for each debt.
    const SLOTS: usize = 64;

    fn new(slots: usize) -> Self {
        let debts = (0..(slots / Self::SLOTS).max(64)).map(|_| AtomicU64::new(0));
        Self {
            arrival: AtomicU64::new(0),
            debts: debts.collect(),
        }
    }

    fn debt(&self, key: Key) -> &AtomicU64 {
        let at = reduce(key.tag.rotate_left(48), self.debts.len() as u64);
        &self.debts[at as usize]
    }

    fn all(&self) -> impl Iterator<Item = &AtomicU64> {
        self.debts.iter().chain([&self.arrival])
    }
}

/// How far above all earlier ones the arrival times of a new quota start: in most quotas an hour, by
/// which no thread's reading of the clock is older than its charge.
const APART: u64 = 1 << 42;

/// A charge of one key at one moment.
struct Present<'i> {
    gcra: &'i Gcra,
    units: u64,
    cost: u64,
    key: Key,
    overflow: Option<&'i Overflow>,
}

impl Terms for Present<'_> {
    #[inline(always)]
    fn admit(&self, arrival: Arrival) -> Option<Arrival> {
        self.gcra.admit(arrival, self.units, self.cost)
    }

    #[inline(always)]
    fn is_idle(&self, arrival: Arrival) -> bool {
        arrival <= self.units
    }

    fn owed(&self) -> Arrival {
        let debt = |overflow: &Overflow| overflow.debt(self.key).load(Ordering::Relaxed);
        self.overflow.map_or(0, debt)
    }

    fn full(&self) -> Result<(), Arrival> {
        let Some(overflow) = self.overflow else {
            // Somebody's debt is a burst at most; when the first is free is not known.
            return Err(self.units.saturating_add(self.gcra.tolerance));
        };
        let (order, fail) = (Ordering::AcqRel, Ordering::Relaxed);
        let admit = |arrival| self.admit(arrival);
        overflow.arrival.fetch_update(order, fail, admit)?;
        // Owed at most as long as by the bucket itself.
        let owe = |owed: Arrival| {
            let from = owed.max(self.units + self.gcra.lost);
            Some(from.saturating_add(self.cost))
        };
        let _always = overflow.debt(self.key).fetch_update(order, fail, owe);
        Ok(())
    }
}

const ALLOWED: usize = 0;
const DENIED: usize = 1;
const RECLAIMED: usize = 2;
const OVERFLOWED: usize = 3;
const EVICTED: usize = 4;

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
        let burst = inner.terms().1.burst;
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
        let key = inner.key(key);
        loop {
            let (version, gcra) = inner.terms();
            let arrival = inner.table.look(key).unwrap_or(0);
            fence(Ordering::Acquire);
            if inner.table.is(version) {
                return snapshot(&gcra, arrival, now);
            }
        }
    }

    /// Sets another quota, for all keys. `carry` says what becomes of the tokens that a key has.
    ///
    /// It looks at all places, some ten milliseconds for a million, and for that time checks wait.
    ///
    /// # Errors
    /// As of [`build`](KeyedLimiterBuilder::build): then nothing is changed.
    ///
    /// ```
    /// use overdrive_ratelimit::{Carry, KeyedLimiter, Quota};
    ///
    /// let keys = KeyedLimiter::<u32>::builder().quota(Quota::per_hour(100)).build()?;
    /// keys.check_n(&7, 60)?;
    /// keys.set_quota(Quota::per_hour(10), Carry::Proportional)?;
    /// assert_eq!(keys.snapshot(&7).remaining, 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_quota(&self, quota: Quota, carry: Carry) -> Result<(), ConfigError> {
        let inner = &*self.inner;
        let next = Gcra::new(quota.validate()?);
        let now = inner.clock.now();
        let locked = inner.table.lock();
        let before = inner.terms().1;
        let overflows = || inner.overflow.iter().flat_map(Overflow::all);
        let shown = overflows().map(|cell| cell.load(Ordering::Acquire)).max();
        let shown = inner.table.latest(&locked).max(shown.unwrap_or(0));
        let ahead = before.units(now).saturating_add(before.tolerance);
        let base = shown.max(ahead).saturating_add(APART);
        let next = next.starting(now, if base > LAST_BASE { 0 } else { base });
        let present = before.units(now);
        let convert = |arrival| {
            if arrival <= present {
                return next.units(now);
            }
            carry.apply(&before, arrival, &next, now, false)
        };
        let publish = || {
            inner.later.store(&next);
            for cell in overflows() {
                cell.store(convert(cell.load(Ordering::Acquire)), Ordering::Release);
            }
        };
        inner.table.change(&locked, publish, convert);
        *inner.quota() = quota;
        Ok(())
    }

    /// Forgets what the key owes: whether it owed anything. What was taken of the shared overflow is
    /// forgotten for all keys of the same part of the hash.
    pub fn reset<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + ?Sized,
    {
        let inner = &*self.inner;
        let (key, now) = (inner.key(key), inner.clock.now());
        if let Some(overflow) = &inner.overflow {
            // In what units does not matter: less than the present owes nothing.
            let units = inner.terms().1.units(now);
            overflow.debt(key).fetch_min(units, Ordering::AcqRel);
        }
        inner.table.forget(key, || inner.terms().1.units(now))
    }

    /// The figures so far. Looks at the whole table to count the keys.
    #[must_use]
    pub fn stats(&self) -> KeyedStats {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let units = inner.terms().1.units(now);
        KeyedStats {
            allowed: inner.counts.sum(ALLOWED),
            denied: inner.counts.sum(DENIED),
            keys: inner.table.live(|arrival| arrival <= units),
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

    /// The quota of each key, of now.
    #[must_use]
    pub fn quota(&self) -> Quota {
        *self.inner.quota()
    }

    /// How many places there are: more than the capacity, so that it fits.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.inner.table.slots()
    }
}

impl<S, C> Inner<S, C> {
    fn quota(&self) -> std::sync::MutexGuard<'_, Quota> {
        self.quota.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The units of the present quota, and their version.
    #[inline(always)]
    fn terms(&self) -> (u64, Gcra) {
        match self.table.version() {
            0 => (0, self.first),
            version => self.later_terms(version),
        }
    }

    #[inline(never)]
    fn later_terms(&self, mut version: u64) -> (u64, Gcra) {
        loop {
            if version % 2 == 1 {
                self.table.wait();
            } else if version == 0 {
                return (0, self.first);
            } else {
                let gcra = self.later.load();
                fence(Ordering::Acquire);
                if self.table.is(version) {
                    return (version, gcra);
                }
            }
            version = self.table.version();
        }
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
        if self.table.version() != 0 {
            return self.take_later(key, now, n);
        }
        // By reference: a copy would go through memory at each check.
        self.take_by(key, now, n, 0, &self.first)
    }

    /// Once there was another quota.
    #[inline(never)]
    fn take_later(&self, key: Key, now: Timestamp, n: u64) -> Result<(), Denied> {
        let (version, gcra) = self.terms();
        if n > gcra.burst {
            // It became smaller since that was looked at.
            return self.denied(&gcra, u64::MAX - 1, now, n);
        }
        self.take_by(key, now, n, version, &gcra)
    }

    #[inline(always)]
    fn take_by(
        &self,
        key: Key,
        now: Timestamp,
        n: u64,
        version: u64,
        gcra: &Gcra,
    ) -> Result<(), Denied> {
        let (units, cost) = (gcra.units(now), n.wrapping_mul(gcra.cost));
        let admit = |arrival| gcra.admit(arrival, units, cost);
        match self.table.charge(key, version, admit) {
            Some(Charge::Allowed { .. }) => {
                self.counts.add(ALLOWED, 1);
                Ok(())
            }
            Some(Charge::Denied(arrival)) => self.denied(gcra, arrival, now, n),
            _ => self.enter(key, now, n, version, gcra),
        }
    }

    /// A key that was not found.
    #[inline(never)]
    fn enter(
        &self,
        key: Key,
        now: Timestamp,
        n: u64,
        version: u64,
        gcra: &Gcra,
    ) -> Result<(), Denied> {
        let present = Present {
            gcra,
            units: gcra.units(now),
            cost: n.wrapping_mul(gcra.cost),
            key,
            overflow: self.overflow.as_ref(),
        };
        match self.table.enter(key, &present, version, self.when_full) {
            Charge::Allowed { reclaimed } => {
                if reclaimed {
                    self.counts.add(RECLAIMED, 1);
                }
            }
            Charge::Denied(arrival) => return self.denied(gcra, arrival, now, n),
            Charge::Full(answer) => {
                self.counts.add(OVERFLOWED, 1);
                if let Err(arrival) = answer {
                    // Where nothing is shared, a token of a full bucket.
                    let n = if self.overflow.is_some() { n } else { 1 };
                    return self.denied(gcra, arrival, now, n);
                }
            }
            Charge::Evicted => self.counts.add(EVICTED, 1),
            Charge::Changed => return self.take_later(key, now, n),
        }
        self.counts.add(ALLOWED, 1);
        Ok(())
    }

    #[inline(always)]
    fn denied(&self, gcra: &Gcra, arrival: Arrival, now: Timestamp, n: u64) -> Result<(), Denied> {
        self.counts.add(DENIED, 1);
        Err(Denied::after(gcra.delay(arrival, now, 0, n)))
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
            .field("quota", &*self.inner.quota())
            .field("capacity", &self.inner.capacity)
            .finish_non_exhaustive()
    }
}
