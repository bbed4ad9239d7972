//! One quota for each key, compared in full, and quotas of their own for some.

mod builder;

use std::borrow::{Borrow, Cow};
use std::collections::BTreeSet;
use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashTable;
use overdrive_core::{Clock, ConfigError, Timestamp};

use crate::error::{CheckError, Denied};
use crate::gcra::{Arrival, Gcra};
use crate::keyed::OnFull;
use crate::limiter::{Snapshot, snapshot};
use crate::quota::Quota;
use crate::stats::KeyedStats;
use crate::table::reduce;
use crate::tsc::TscClock;

pub use self::builder::ExactKeyedLimiterBuilder;

/// A rate limiter for keys that are compared in full, each with the common [`Quota`] or
/// [one of its own](Self::set_quota), in bounded memory: for customers and contracts, where
/// [`KeyedLimiter`](crate::KeyedLimiter) is for addresses and floods.
///
/// A key that owes nothing is worth as much as one that was never seen, so it is forgotten when
/// its room is needed; a key that is limited, or has a quota of its own, is never forgotten,
/// whatever comes. Clones are handles to the same limiter.
///
/// A hash table behind one mutex: a check costs a reading of the clock, a hash, a lock and a look-up.
/// Keys are filed by when they owe nothing, so that one that needs room finds it, or that there is
/// none, in the time of a look into a tree; a charge files its key anew once that moment has passed.
/// The table is allocated at set-up, for the whole capacity, so that it does not grow under the
/// lock: for each key 8/7 to 16/7 places of the key's own size and about 50 bytes. The tree comes on top, with
/// some 40 bytes for each key that is held. Where keys come and go without end, the table is put in
/// order now and then, in one call that takes a time proportional to its size. The key's `Eq` runs under the lock, and must not call the
/// limiter; its `Hash`, `ToOwned` and `Drop` do not.
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
    hasher: S,
    clock: C,
    state: Mutex<State<K>>,
}

struct State<K> {
    keys: HashTable<Entry<K>>,
    /// The keys that have no quota of their own, by the earliest moment at which they may owe
    /// nothing (a charge makes it later, which is looked at when the moment comes), and by hash.
    due: BTreeSet<(Timestamp, u64, u64)>,
    next_id: u64,
    overflow: Overflow,
    stats: KeyedStats,
}

/// What is known of a key.
struct Entry<K> {
    key: K,
    hash: u64,
    /// Tells keys of the same hash apart.
    id: u64,
    arrival: Arrival,
    /// When it is due, if it is filed.
    due: Option<Timestamp>,
    own: Option<Box<(Quota, Gcra)>>,
}

/// The bucket of those for whom there is no room, and what they took of it, by parts of their hashes:
/// a key that gets a place owes that from the start.
struct Overflow {
    arrival: Arrival,
    debts: Box<[Arrival]>,
}

impl Overflow {
    fn debt(&mut self, hash: u64) -> &mut Arrival {
        let at = reduce(hash.rotate_left(32), self.debts.len() as u64);
        &mut self.debts[at as usize]
    }
}

/// So many keys for each debt.
const KEYS_PER_DEBT: usize = 64;

/// How many keys that became due and owe something after all are filed anew for one that needs room.
/// Those that are in use are filed anew by their own charges: left are keys that were charged more
/// than once before they were due, and not since.
const FILED_ANEW: usize = 64;

/// A check without the room that it needs: the key is needed as its own.
enum Take {
    Answer(Result<(), CheckError>),
    Absent,
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
        let hash = self.inner.hasher.hash_one(key);
        let mut state = self.lock();
        let taken = state.take(&self.inner.gcra, hash, key, now, n);
        let answer = match taken {
            Take::Answer(answer) => answer,
            Take::Absent => {
                drop(state);
                return self.check_new(hash, key, now, n);
            }
        };
        state.count(&answer);
        answer
    }

    /// Of a key that was not held a moment ago.
    fn check_new<Q>(&self, hash: u64, key: &Q, now: Timestamp, n: u64) -> Result<(), CheckError>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        // Where there is no room it is not needed, but that is known under the lock only.
        let own = key.to_owned();
        let mut state = self.lock();
        let (answer, spare) = match state.take(&self.inner.gcra, hash, key, now, n) {
            Take::Answer(answer) => (answer, [Some(own), None]),
            Take::Absent => state.take_new(&self.inner, hash, own, now, n),
        };
        state.count(&answer);
        drop(state);
        drop(spare);
        answer
    }

    /// Gives the key a quota of its own, with a full burst, from now on; it is held until
    /// [`reset`](Self::reset), after which it has the common one.
    ///
    /// # Errors
    /// As of [`build`](ExactKeyedLimiterBuilder::build); [`ConfigError::TooLarge`] if the capacity is
    /// used up by keys that owe something or have quotas of their own.
    pub fn set_quota(&self, key: K, quota: Quota) -> Result<(), ConfigError> {
        let own = Some(Box::new((quota, Gcra::new(quota.validate()?))));
        let now = self.inner.clock.now();
        let hash = self.inner.hasher.hash_one(&key);
        let mut state = self.lock();
        if let Some(due) = state.find(hash, &key).map(|entry| {
            (entry.arrival, entry.own) = (0, own.clone());
            entry.due.take().map(|due| (due, hash, entry.id))
        }) {
            if let Some(due) = due {
                state.due.remove(&due);
            }
            drop(state);
            drop(key);
            return Ok(());
        }
        let capacity = self.inner.capacity;
        let mut spare = None;
        if state.keys.len() >= capacity {
            spare = state.reclaim(&self.inner.gcra, now);
            if spare.is_none() {
                return Err(ConfigError::TooLarge {
                    field: "capacity",
                    value: capacity as u64 + 1,
                    max: capacity as u64,
                });
            }
        }
        state.insert(hash, key, 0, None, own);
        drop(state);
        drop(spare);
        Ok(())
    }

    /// The key's quota: its own, or the common one.
    pub fn quota_of<Q>(&self, key: &Q) -> Quota
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.inner.hasher.hash_one(key);
        let mut state = self.lock();
        let own = state
            .find(hash, key)
            .and_then(|entry| entry.own.as_deref().copied());
        own.map_or(self.inner.quota, |(quota, _)| quota)
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
        let hash = self.inner.hasher.hash_one(key);
        let mut state = self.lock();
        let (gcra, arrival) = state.find(hash, key).map_or((self.inner.gcra, 0), |entry| {
            (entry.gcra(&self.inner.gcra), entry.arrival)
        });
        drop(state);
        snapshot(&gcra, arrival, now)
    }

    /// Forgets what the key owes, and a quota of its own: whether it was held. What was taken of the
    /// shared overflow is forgotten for all keys of the same part of the hash.
    pub fn reset<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.inner.hasher.hash_one(key);
        let mut state = self.lock();
        let removed = state.remove(hash, |entry| entry.key.borrow() == key);
        *state.overflow.debt(hash) = 0;
        drop(state);
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

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        // A panic of a key's `Eq` leaves the table whole, and nothing else is open then.
        self.inner
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> Entry<K> {
    fn gcra(&self, common: &Gcra) -> Gcra {
        self.own.as_deref().map_or(*common, |(_, own)| *own)
    }
}

impl<K: Hash + Eq> State<K> {
    fn find<Q>(&mut self, hash: u64, key: &Q) -> Option<&mut Entry<K>>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.keys.find_mut(hash, |entry| {
            entry.hash == hash && entry.key.borrow() == key
        })
    }

    fn count(&mut self, answer: &Result<(), CheckError>) {
        match answer {
            Ok(()) => self.stats.allowed += 1,
            Err(_) => self.stats.denied += 1,
        }
    }

    fn take<Q>(&mut self, common: &Gcra, hash: u64, key: &Q, now: Timestamp, n: u64) -> Take
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let held = self.keys.find_mut(hash, |entry| {
            entry.hash == hash && entry.key.borrow() == key
        });
        let gcra = held.as_deref().map_or(*common, |entry| entry.gcra(common));
        Take::Answer(if n > gcra.burst {
            let (asked, burst) = (n, gcra.burst);
            Err(CheckError::ExceedsBurst { asked, burst })
        } else if n == 0 {
            Ok(())
        } else if let Some(entry) = held {
            let answer = charge(&gcra, &mut entry.arrival, now, n);
            if let Some(due) = entry.due.filter(|&due| due <= now) {
                let later = now.saturating_add(gcra.reset_after(entry.arrival, now));
                self.due.remove(&(due, hash, entry.id));
                self.due.insert((later, hash, entry.id));
                entry.due = Some(later);
            }
            answer
        } else {
            return Take::Absent;
        })
    }

    /// Of a key that is not held: the answer, and keys to drop once the lock is released.
    fn take_new<S, C>(
        &mut self,
        inner: &Inner<K, S, C>,
        hash: u64,
        key: K,
        now: Timestamp,
        n: u64,
    ) -> (Result<(), CheckError>, [Option<K>; 2]) {
        let gcra = &inner.gcra;
        let mut spare = None;
        if self.keys.len() >= inner.capacity {
            spare = self.reclaim(gcra, now);
            if spare.is_none() {
                self.stats.overflowed += 1;
                if inner.on_full != OnFull::ShareOverflow {
                    let due = self.due.first().map_or(Timestamp::MAX, |due| due.0);
                    let retry_after = due.saturating_since(now);
                    let denied = CheckError::Denied(Denied::after(retry_after));
                    return (Err(denied), [Some(key), None]);
                }
                let answer = charge(gcra, &mut self.overflow.arrival, now, n);
                if answer.is_ok() {
                    let owed = self.overflow.debt(hash);
                    *owed = gcra.charge(*owed, now, n);
                }
                return (answer, [Some(key), None]);
            }
        }
        let mut arrival = *self.overflow.debt(hash);
        let answer = charge(gcra, &mut arrival, now, n);
        if answer.is_err() {
            // What it owes is remembered there.
            return (answer, [Some(key), spare]);
        }
        let due = now.saturating_add(gcra.reset_after(arrival, now));
        self.insert(hash, key, arrival, Some(due), None);
        (answer, [None, spare])
    }

    fn insert(
        &mut self,
        hash: u64,
        key: K,
        arrival: Arrival,
        due: Option<Timestamp>,
        own: Option<Box<(Quota, Gcra)>>,
    ) {
        let id = self.next_id;
        self.next_id += 1;
        if let Some(due) = due {
            self.due.insert((due, hash, id));
        }
        let entry = Entry {
            key,
            hash,
            id,
            arrival,
            due,
            own,
        };
        self.keys.insert_unique(hash, entry, |entry| entry.hash);
    }

    fn remove(&mut self, hash: u64, is: impl Fn(&Entry<K>) -> bool) -> Option<K> {
        let entry = self.keys.find_entry(hash, is).ok()?;
        let (entry, _) = entry.remove();
        if let Some(due) = entry.due {
            self.due.remove(&(due, hash, entry.id));
        }
        Some(entry.key)
    }

    /// Forgets a key that owes nothing and has the common quota, if there is one: that key.
    fn reclaim(&mut self, common: &Gcra, now: Timestamp) -> Option<K> {
        for _ in 0..FILED_ANEW {
            let (due, hash, id) = *self.due.first()?;
            if due > now {
                return None;
            }
            let entry = self.keys.find_mut(hash, |entry| entry.id == id)?;
            let owed = common.reset_after(entry.arrival, now);
            if owed.is_zero() {
                self.stats.reclaimed += 1;
                return self.remove(hash, |entry| entry.id == id);
            }
            let later = now.saturating_add(owed);
            entry.due = Some(later);
            self.due.pop_first();
            self.due.insert((later, hash, id));
        }
        None
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
