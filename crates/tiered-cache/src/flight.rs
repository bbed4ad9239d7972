//! Values that are made once, whoever asks for them meanwhile.

use std::convert::Infallible;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use overdrive_core::unwind::survive;

use crate::cache::{Cache, end};
use crate::garbage::Garbage;
use crate::store::New;

/// A value being made by a thread.
pub(crate) struct Flight<V> {
    maker: ThreadId,
    state: Mutex<State<V>>,
    ended: Condvar,
}

enum State<V> {
    Running,
    Made(V),
    /// The maker failed or panicked: the next one tries.
    GivenUp,
}

impl<V> Flight<V> {
    fn lock(&self) -> MutexGuard<'_, State<V>> {
        // Only a value's `Clone` can panic under it, which changes nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of it; `None` if nothing.
    fn wait(&self) -> Option<V>
    where
        V: Clone,
    {
        assert!(
            self.maker != thread::current().id(),
            "the value for this key is being made by this thread, which would wait for itself"
        );
        let running = |state: &mut State<V>| matches!(state, State::Running);
        let state = self.ended.wait_while(self.lock(), running);
        match &*state.unwrap_or_else(PoisonError::into_inner) {
            State::Made(value) => Some(value.clone()),
            State::Running | State::GivenUp => None,
        }
    }

    fn end(&self, state: State<V>) {
        *self.lock() = state;
        self.ended.notify_all();
    }
}

impl<K: Hash + Eq + Clone, V: Clone, S: BuildHasher> Cache<K, V, S> {
    /// The value at the key, which `init` makes if there is none. Of all who ask meanwhile only
    /// one runs its `init`, on its own thread; the others block until it is done, and get the
    /// same value.
    ///
    /// An insertion, a removal or a [`clear`](Self::clear) that comes while `init` runs wins: its
    /// value is returned, but not stored, and whoever asks after that runs its own.
    ///
    /// A value too heavy for the cache is returned, and not stored.
    ///
    /// # Panics
    /// With the panic of `init` or of the weigher: then one of the others runs its own. If `init` asks for the very
    /// key that it makes. Two `init`s that wait for each other's keys wait for ever.
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
    /// That of this caller's own `init`; then one of the others, if there are any, runs its own.
    ///
    /// # Panics
    /// As [`get_or_insert_with`](Self::get_or_insert_with).
    pub fn try_get_or_insert_with<E>(
        &self,
        key: K,
        init: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, E> {
        let hash = self.hash(&key);
        let making = loop {
            let flight = match self.find_or_start(hash, &key) {
                Found::Value(value) => return Ok(value),
                Found::Mine(flight) => break flight,
                Found::Flight(flight) => flight,
            };
            if let Some(value) = flight.wait() {
                return Ok(value);
            }
        };
        let making = Making {
            cache: self,
            hash,
            key,
            flight: making,
        };
        let value = init()?;
        making.store(value.clone());
        if Arc::strong_count(&making.flight) > 1 {
            making.flight.end(State::Made(value.clone()));
        }
        Ok(value)
    }

    fn find_or_start(&self, hash: u64, key: &K) -> Found<V> {
        let now = self.now();
        let for_table = key.clone();
        let mut garbage = Garbage::new();
        let mut shared = self.lock();
        if let Some(value) = shared.store.get(hash, key, now, &mut garbage) {
            let value = value.clone();
            garbage.push_key(for_table);
            return Found::Value(value);
        }
        let flight = shared.flights.get(hash, key).cloned();
        #[cfg(test)]
        let flight = flight.filter(|_| shared.guards.sharing.is_in_place());
        if let Some(flight) = flight {
            garbage.push_key(for_table);
            return Found::Flight(flight);
        }
        let flight = Arc::new(Flight {
            maker: thread::current().id(),
            state: Mutex::new(State::Running),
            ended: Condvar::new(),
        });
        shared.flights.insert(hash, for_table, Arc::clone(&flight));
        Found::Mine(flight)
    }
}

enum Found<V> {
    Value(V),
    Mine(Arc<Flight<V>>),
    Flight(Arc<Flight<V>>),
}

/// Ends its flight, whatever happens.
struct Making<'a, K: Hash + Eq, V, S: BuildHasher> {
    cache: &'a Cache<K, V, S>,
    hash: u64,
    key: K,
    flight: Arc<Flight<V>>,
}

impl<K: Hash + Eq + Clone, V, S: BuildHasher> Making<'_, K, V, S> {
    /// Stores the value, unless the flight was taken out of the table meanwhile.
    fn store(&self, value: V) {
        let (cache, hash, key) = (self.cache, self.hash, self.key.clone());
        let ttl = cache.default_ttl();
        let weight = cache.weigh(&key, &value);
        let now = cache.now_for(ttl);
        let mut garbage = Garbage::new();
        let mut unused = Garbage::new();
        let mut shared = cache.lock();
        let mine = |flight: &Arc<Flight<V>>| Arc::ptr_eq(flight, &self.flight);
        let row = shared.flights.remove_where(hash, mine);
        let superseded = row.is_none();
        #[cfg(test)]
        let superseded = superseded && shared.guards.fence.is_in_place();
        if let Some((old, _)) = row {
            garbage.push_key(old);
        }
        if superseded {
            garbage.push(key, value);
            return;
        }
        let new = New {
            hash,
            key,
            value,
            weight,
            now,
            expires: end(now, ttl),
            tags: Box::default(),
        };
        match cache.put(&mut shared, new, &mut garbage) {
            Ok(Some(old)) => unused.push((), old),
            Ok(None) => {}
            Err(rejected) => {
                let (key, value) = rejected.into_inner();
                garbage.push(key, value);
            }
        }
    }
}

impl<K: Hash + Eq, V, S: BuildHasher> Drop for Making<'_, K, V, S> {
    fn drop(&mut self) {
        // No panic of the user's may come between here and those who wait.
        let mine = |flight: &Arc<Flight<V>>| Arc::ptr_eq(flight, &self.flight);
        let row = {
            let mut shared = self.cache.lock();
            shared.flights.remove_where(self.hash, mine)
        };
        survive(|| drop(row));
        let mut state = self.flight.lock();
        if let State::Running = *state {
            *state = State::GivenUp;
        }
        drop(state);
        self.flight.ended.notify_all();
    }
}
