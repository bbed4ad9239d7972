//! For users of the crate `governor`: its quotas, and a store for its limiters whose memory does not
//! grow.

use std::cell::{Cell, OnceCell};
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use overdrive_core::ConfigError;

use crate::gcra::Arrival;
use crate::keyed::{MAX_CAPACITY, slots_for};
use crate::quota::Quota;
use crate::sync::{AtomicU64, Ordering};
use crate::table::{Charge, Table, Terms, WhenFull};

impl TryFrom<governor::Quota> for Quota {
    type Error = ConfigError;

    /// The same: one token each `replenish_interval`, which `governor` rounds down to nanoseconds and
    /// takes for one at least, and its burst.
    ///
    /// # Errors
    /// An interval of more than [`MAX_PERIOD`](crate::MAX_PERIOD).
    fn try_from(quota: governor::Quota) -> Result<Self, ConfigError> {
        let interval = quota.replenish_interval().max(Duration::from_nanos(1));
        Self::per(1, interval)
            .burst(NonZeroU32::get(quota.burst_size()).into())
            .validate()
    }
}

/// A state store for a keyed [`governor::RateLimiter`], in memory of a fixed size: the table of
/// [`KeyedLimiter`](crate::KeyedLimiter), for those who want its bound without other words for the
/// rest.
///
/// Where `governor`'s own stores grow with each key until `retain_recent` is called, this one takes
/// the place of a key that owes nothing for a new one by itself. Keys without room share one more
/// state; one that was served so and gets a place later begins anew. Keys are known by their hash, as
/// in [`KeyedLimiter`](crate::KeyedLimiter).
///
/// ```
/// use std::num::NonZeroU32;
/// use governor::clock::DefaultClock;
/// use overdrive_ratelimit::BoundedStore;
///
/// let quota = governor::Quota::per_second(NonZeroU32::MIN);
/// let store = BoundedStore::<String>::new(10_000)?;
/// type Limiter = governor::RateLimiter<String, BoundedStore<String>, DefaultClock>;
/// let limiter = Limiter::new(quota, store, DefaultClock::default());
/// assert!(limiter.check_key(&"a".to_owned()).is_ok());
/// assert!(limiter.check_key(&"a".to_owned()).is_err());
/// # Ok::<(), overdrive_ratelimit::ConfigError>(())
/// ```
pub struct BoundedStore<K, S = RandomState> {
    table: Table,
    hasher: S,
    shared: AtomicU64,
    overflowed: AtomicU64,
    /// What its limiter last said that it is older than.
    dropped: AtomicU64,
    key: PhantomData<fn(&K)>,
}

impl<K> BoundedStore<K> {
    /// Room for so many keys that owe something.
    ///
    /// # Errors
    /// None, or more than [`MAX_CAPACITY`].
    pub fn new(capacity: usize) -> Result<Self, ConfigError> {
        Self::with_hasher(capacity, RandomState::new())
    }
}

impl<K, S> BoundedStore<K, S> {
    /// [`new`](BoundedStore::new), with another hash function.
    ///
    /// # Errors
    /// As of [`new`](BoundedStore::new).
    pub fn with_hasher(capacity: usize, hasher: S) -> Result<Self, ConfigError> {
        let capacity = ConfigError::within("capacity", capacity, MAX_CAPACITY)?;
        Ok(Self {
            table: Table::new(slots_for(capacity)),
            hasher,
            shared: AtomicU64::new(0),
            overflowed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            key: PhantomData,
        })
    }

    /// How many checks found no room.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }
}

/// One question of a limiter: what becomes of a state.
struct Question<'s, F, T, E> {
    ask: F,
    shared: &'s AtomicU64,
    /// The state that a new key would get.
    fresh: OnceCell<Option<Arrival>>,
    answer: Cell<Option<Result<T, E>>>,
}

impl<F, T, E> Terms for Question<'_, F, T, E>
where
    F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
{
    fn admit(&self, arrival: Arrival) -> Option<Arrival> {
        let (answer, next) = match (self.ask)(Some(Nanos::from(arrival))) {
            Ok((positive, next)) => (Ok(positive), Some(next.as_u64())),
            Err(negative) => (Err(negative), None),
        };
        self.answer.set(Some(answer));
        next
    }

    /// The limiter does not say what time it is; but a state that lies in the past leads to the same
    /// as none.
    fn is_idle(&self, arrival: Arrival) -> bool {
        let next = |state| (self.ask)(state).ok().map(|(_, next)| next.as_u64());
        let fresh = self.fresh.get_or_init(|| next(None));
        fresh.is_some() && next(Some(Nanos::from(arrival))) == *fresh
    }

    fn full(&self) -> Result<(), Arrival> {
        let mut arrival = self.shared.load(Ordering::Relaxed);
        while let Some(next) = self.admit(arrival) {
            let order = Ordering::Relaxed;
            match self
                .shared
                .compare_exchange_weak(arrival, next, order, order)
            {
                Ok(_) => return Ok(()),
                Err(other) => arrival = other,
            }
        }
        Err(arrival)
    }
}

impl<K: Hash, S: BuildHasher> StateStore for BoundedStore<K, S> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let question = Question {
            ask: f,
            shared: &self.shared,
            fresh: OnceCell::new(),
            answer: Cell::new(None),
        };
        let key = self.table.key(self.hasher.hash_one(key));
        let charge = self
            .table
            .charge(key, 0, |arrival| question.admit(arrival))
            .unwrap_or_else(|| self.table.enter(key, &question, 0, WhenFull::Refuse));
        if matches!(charge, Charge::Full(_)) {
            self.overflowed.fetch_add(1, Ordering::Relaxed);
        }
        match question.answer.take() {
            Some(answer) => answer,
            // Every way through the table asks.
            None => (question.ask)(None).map(|(positive, _)| positive),
        }
    }
}

impl<K: Hash + Eq + Clone, S: BuildHasher> ShrinkableKeyedStateStore<K> for BoundedStore<K, S> {
    /// Nothing has to be done: the places of such keys are free. They do not count in `len` any more.
    fn retain_recent(&self, drop_below: Nanos) {
        self.dropped
            .fetch_max(drop_below.as_u64(), Ordering::Relaxed);
    }

    /// The keys that owed something when `retain_recent` was last called, and those since. Looks at
    /// the whole table.
    fn len(&self) -> usize {
        let dropped = self.dropped.load(Ordering::Relaxed);
        self.table.live(|arrival| arrival <= dropped)
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K, S> fmt::Debug for BoundedStore<K, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedStore")
            .field("slots", &self.table.slots())
            .field("overflowed", &self.overflowed())
            .finish_non_exhaustive()
    }
}
