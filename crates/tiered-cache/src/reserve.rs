//! Values that are made once, whoever asks for them meanwhile.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;

use overdrive_core::unwind::survive;

use crate::cache::{Cache, Hashed};
use crate::flight::{Flight, Pending};
use crate::options::EntryOptions;
use crate::put::{Begun, Put};
use crate::sync::thread::{self, ThreadId};

/// What [`Cache::reserve`] found.
#[must_use = "a reservation that is dropped is given up"]
pub enum Reserve<K: Hash + Eq, V, S: BuildHasher = RandomState> {
    /// There is a value.
    Found(V),
    /// There is none, or a new one is wanted: whoever holds this makes it.
    Vacant(Reservation<K, V, S>),
    /// Another one makes it.
    Busy(Pending<V>),
}

/// The right to make the value of a key, while others wait for it. Dropped without a value, it
/// is given up, and one of those who wait takes over.
#[must_use = "dropped, it is given up"]
pub struct Reservation<K: Hash + Eq, V, S: BuildHasher = RandomState> {
    cache: Cache<K, V, S>,
    hashed: Hashed,
    key: Option<K>,
    flight: Arc<Flight<V>>,
}

enum Begin<V> {
    Found(V),
    Mine(Arc<Flight<V>>),
    Others(Arc<Flight<V>>),
}

impl<K: Hash + Eq + Clone, V: Clone, S: BuildHasher> Cache<K, V, S> {
    /// The value at the key, which `init` makes if there is none. Of all who ask meanwhile only
    /// one runs its `init`, on its own thread; the others block until it is done, and get the
    /// same value. With a value older than [`refresh_after`](crate::CacheBuilder::refresh_after)
    /// one runs its `init`, and the others get that value.
    ///
    /// An insertion, a removal or a [`clear`](Self::clear) that comes while `init` runs wins: its
    /// value is returned, but not stored, and whoever asks after that runs its own.
    ///
    /// A value too heavy for the cache is returned, and not stored.
    ///
    /// It blocks its thread: on a runtime's thread use
    /// [`get_or_insert_async`](Self::get_or_insert_async), as the value may be with a task that
    /// needs this very thread.
    ///
    /// # Panics
    /// With the panic of `init` or of the weigher: then one of the others runs its own. If `init`
    /// asks for the very key that it makes. Two `init`s that wait for each other's keys wait for
    /// ever.
    pub fn get_or_insert_with(&self, key: K, init: impl FnOnce() -> V) -> V {
        let made: Result<V, Infallible> = self.try_get_or_insert_with(key, || Ok(init()));
        match made {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// As [`get_or_insert_with`](Self::get_or_insert_with), with an `init` that can fail.
    ///
    /// # Errors
    /// That of this caller's own `init`; then one of the others, if there are any, runs its own, so
    /// that an `init` that fails for all of them is run by all, one after the other.
    ///
    /// # Panics
    /// As [`get_or_insert_with`](Self::get_or_insert_with).
    pub fn try_get_or_insert_with<E>(
        &self,
        key: K,
        init: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, E> {
        let hashed = self.hash(&key);
        let flight = loop {
            match self.begin(hashed, &key, Some(thread::current().id())) {
                Begin::Found(value) => return Ok(value),
                Begin::Mine(flight) => break flight,
                Begin::Others(flight) => {
                    if let Some(value) = Pending::new(flight).wait_blocking() {
                        return Ok(value);
                    }
                }
            }
        };
        let reservation = self.reservation(hashed, key, flight);
        let value = init()?;
        Ok(reservation.insert(value))
    }

    /// As [`get_or_insert_with`](Self::get_or_insert_with), with a future that makes the value,
    /// polled by this caller on whatever runtime it has; the others wait without blocking.
    ///
    /// ```
    /// # use overdrive_tiered_cache::Cache;
    /// # use std::{future::Future, pin::pin, task::{Context, Poll, Waker}};
    /// # fn block_on<T>(future: impl Future<Output = T>) -> T {
    /// #     match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
    /// #         Poll::Ready(value) => value,
    /// #         Poll::Pending => panic!("it waits for nothing"),
    /// #     }
    /// # }
    /// # block_on(async {
    /// let cache = Cache::builder().max_entries(10).build()?;
    /// let age = cache.get_or_insert_async("ada", async || 36).await;
    /// assert_eq!((age, cache.get("ada")), (36, Some(36)));
    /// # Ok::<(), overdrive_tiered_cache::ConfigError>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Panics
    /// As [`get_or_insert_with`](Self::get_or_insert_with), but for asking for the key that is
    /// made, which waits for ever.
    ///
    /// # Cancel safety
    /// Dropped, it makes no value, and one of the others runs its own future. Neither polled nor
    /// dropped, it keeps the others waiting.
    pub async fn get_or_insert_async<F: Future<Output = V>>(
        &self,
        key: K,
        init: impl FnOnce() -> F,
    ) -> V {
        let init = || async { Ok::<V, Infallible>(init().await) };
        match self.try_get_or_insert_async(key, init).await {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// As [`get_or_insert_async`](Self::get_or_insert_async), with a future that can fail.
    ///
    /// # Errors
    /// That of this caller's own future; then one of the others, if there are any, runs its own.
    ///
    /// # Panics
    /// As [`get_or_insert_async`](Self::get_or_insert_async).
    ///
    /// # Cancel safety
    /// As [`get_or_insert_async`](Self::get_or_insert_async).
    pub async fn try_get_or_insert_async<E, F: Future<Output = Result<V, E>>>(
        &self,
        key: K,
        init: impl FnOnce() -> F,
    ) -> Result<V, E> {
        let hashed = self.hash(&key);
        let flight = loop {
            match self.begin(hashed, &key, None) {
                Begin::Found(value) => return Ok(value),
                Begin::Mine(flight) => break flight,
                Begin::Others(flight) => {
                    if let Some(value) = Pending::new(flight).await {
                        return Ok(value);
                    }
                }
            }
        };
        let reservation = self.reservation(hashed, key, flight);
        let value = init().await?;
        Ok(reservation.insert(value))
    }

    /// The value at the key, or the right to make it, or the one to wait for it: what a loader of
    /// one's own is made of.
    ///
    /// ```
    /// use overdrive_tiered_cache::{Cache, Reserve};
    ///
    /// let cache = Cache::builder().max_entries(10).build()?;
    /// let Reserve::Vacant(mine) = cache.reserve("a") else { panic!() };
    /// assert!(matches!(cache.reserve("a"), Reserve::Busy(_)));
    /// assert_eq!(mine.insert(1), 1);
    /// assert!(matches!(cache.reserve("a"), Reserve::Found(1)));
    /// # Ok::<(), overdrive_tiered_cache::ConfigError>(())
    /// ```
    pub fn reserve(&self, key: K) -> Reserve<K, V, S> {
        let hashed = self.hash(&key);
        match self.begin(hashed, &key, None) {
            Begin::Found(value) => Reserve::Found(value),
            Begin::Mine(flight) => Reserve::Vacant(self.reservation(hashed, key, flight)),
            Begin::Others(flight) => Reserve::Busy(Pending::new(flight)),
        }
    }

    fn begin(&self, hashed: Hashed, key: &K, maker: Option<ThreadId>) -> Begin<V> {
        let now = self.now();
        let found = self.get_hashed(hashed, key, now, |value, is_stale| (value, is_stale));
        let old = match found {
            Some((value, false)) => return Begin::Found(value),
            Some((value, true)) => Some(value),
            None => None,
        };
        let for_table = key.clone();
        let mut garbage = self.garbage();
        let mut state = self.shard(hashed).state.write();
        let flight = state.flights.get(hashed.whole(), key).cloned();
        #[cfg(test)]
        let flight = flight.filter(|_| state.guards.sharing.is_in_place());
        if let Some(flight) = flight {
            drop(state);
            garbage.push_key(for_table);
            return old.map_or(Begin::Others(flight), Begin::Found);
        }
        // It may have been stored since.
        let (live, _) = state.find(hashed.key, key, now);
        let fresh = live.filter(|&slot| {
            let extra = state.slots.extra(slot);
            extra.is_none_or(|extra| extra.stale > now)
        });
        if let Some(entry) = fresh.and_then(|slot| state.slots.entry(slot)) {
            let value = entry.value.clone();
            drop(state);
            garbage.push_key(for_table);
            return Begin::Found(value);
        }
        let flight = Arc::new(Flight::new(maker));
        let for_state = Arc::clone(&flight);
        state.flights.insert(hashed.whole(), for_table, for_state);
        Begin::Mine(flight)
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Cache<K, V, S> {
    /// Of a flight that is in the table.
    pub(crate) fn reservation(
        &self,
        hashed: Hashed,
        key: K,
        flight: Arc<Flight<V>>,
    ) -> Reservation<K, V, S> {
        Reservation {
            cache: self.clone(),
            hashed,
            key: Some(key),
            flight,
        }
    }
}

impl<K: Hash + Eq, V: Clone, S: BuildHasher> Reservation<K, V, S> {
    /// Stores the value, unless an insertion or a removal came meanwhile, and gives it to all who
    /// wait for it and back.
    pub fn insert(self, value: V) -> V {
        self.insert_with(value, EntryOptions::new())
    }

    /// As [`insert`](Self::insert), with a life and tags of its own. If one of these tags was
    /// invalidated since the reservation, the value is returned, and not stored.
    ///
    /// # Panics
    /// If the weigher does; it is given up then.
    pub fn insert_with(mut self, value: V, options: EntryOptions) -> V {
        // What has to go is told and dropped after those who wait have heard.
        let mut garbage = self.cache.garbage();
        let mut old = None;
        if let Some(key) = &self.key {
            let stored = self.cache.value(key, value.clone(), options);
            if let Some(key) = self.key.take() {
                let begun = Begun::Flight(&self.flight);
                let put = self
                    .cache
                    .put(self.hashed, key, stored, begun, &mut garbage);
                match put {
                    Put::Stored(replaced) | Put::NoLife(replaced) => old = replaced,
                    Put::TooHeavy(rejected) => {
                        let (key, value) = rejected.into_inner();
                        garbage.push_both(key, value);
                    }
                    Put::Superseded => {}
                }
            }
        }
        if Arc::strong_count(&self.flight) > 1 {
            self.flight.made(value.clone());
        }
        survive(|| drop(old));
        value
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> Option<&K> {
        self.key.as_ref()
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Drop for Reservation<K, V, S> {
    fn drop(&mut self) {
        // No panic of the user's may come between here and those who wait.
        let is_mine = |flight: &Arc<Flight<V>>| Arc::ptr_eq(flight, &self.flight);
        let row = {
            let mut state = self.cache.shard(self.hashed).state.write();
            state.flights.remove_where(self.hashed.whole(), is_mine)
        };
        survive(|| drop(row));
        self.flight.give_up();
        survive(|| drop(self.key.take()));
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> fmt::Debug for Reservation<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").finish_non_exhaustive()
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> fmt::Debug for Reserve<K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Found(_) => "Found",
            Self::Vacant(_) => "Vacant",
            Self::Busy(_) => "Busy",
        })
    }
}

/// The compiler's word that a future of it can go to another thread.
#[cfg(test)]
fn _is_send(cache: &Cache<String, Vec<u8>>) -> impl Future<Output = Vec<u8>> + Send + '_ {
    cache.get_or_insert_async(String::new(), || std::future::ready(Vec::new()))
}
