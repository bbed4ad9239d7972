//! Loads: once per key, in a task of their own.

use std::any::Any;
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use futures_util::FutureExt;
use overdrive_core::unwind::{drop_payload, survive};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::cache::Hashed;
use crate::options::{EntryOptions, Ttl};
use crate::tiered::control::Flight;
use crate::tiered::error::LoadError;
use crate::tiered::inner::{Begun, Held, Inner, Spare, StoreIn};
use crate::tiered::reach::{Limit, Read, Versions};
use crate::tiered::second::TierError;
use crate::tiered::stats::Count;

/// What became of a load.
pub(crate) enum Outcome<V> {
    Value(Arc<V>),
    /// The loader's error, of its own type.
    Failed(Arc<dyn Any + Send + Sync>),
    TimedOut,
    Panicked,
}

impl<V> Clone for Outcome<V> {
    fn clone(&self) -> Self {
        match self {
            Self::Value(value) => Self::Value(Arc::clone(value)),
            Self::Failed(error) => Self::Failed(Arc::clone(error)),
            Self::TimedOut => Self::TimedOut,
            Self::Panicked => Self::Panicked,
        }
    }
}

enum Joined<K: Eq, V> {
    Closed,
    Value(Arc<V>),
    Waiting(watch::Receiver<Option<Outcome<V>>>),
    Started(Job<K, V>, watch::Receiver<Option<Outcome<V>>>),
}

impl<K, V> Inner<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    pub(crate) async fn load<E, F, Fut>(
        self: &Arc<Self>,
        key: &K,
        options: EntryOptions,
        loader: F,
    ) -> Result<Arc<V>, LoadError<E>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        if self.closed.load(Ordering::Acquire) {
            return Err(LoadError::Closed);
        }
        if let Some(value) = self.look(key) {
            return Ok(value);
        }
        let mut loader = Some(loader);
        loop {
            let mut outcome = match self.join(key, &options) {
                Joined::Closed => return Err(LoadError::Closed),
                Joined::Value(value) => return Ok(value),
                Joined::Waiting(outcome) => {
                    self.counts.up(Count::Joined);
                    outcome
                }
                Joined::Started(job, outcome) => {
                    // It is the last turn: the error of a load that this call started is its own.
                    let Some(loader) = loader.take() else {
                        return Err(LoadError::Abandoned);
                    };
                    tokio::spawn(job.run(options.clone(), loader));
                    outcome
                }
            };
            let ended = match outcome.wait_for(Option::is_some).await {
                Ok(outcome) => outcome.clone(),
                Err(_) => None,
            };
            let error = match ended {
                Some(Outcome::Value(value)) => return Ok(value),
                Some(Outcome::Failed(error)) => error,
                Some(Outcome::TimedOut) => {
                    let after = self.loader_timeout.unwrap_or_default();
                    return Err(LoadError::TimedOut { after });
                }
                Some(Outcome::Panicked) => return Err(LoadError::Panicked),
                None => return Err(LoadError::Abandoned),
            };
            // An error of another type is another loader's: this call tries with its own.
            if let Ok(error) = error.downcast() {
                return Err(LoadError::Load(error));
            }
        }
    }

    fn join(self: &Arc<Self>, key: &K, options: &EntryOptions) -> Joined<K, V> {
        // Panics outside of a runtime, before anything has begun.
        drop(Handle::current());
        let hash = self.memory.hash(key);
        let (now, clock) = (self.memory.now(), self.clock.now());
        let (for_table, for_job) = (key.clone(), key.clone());
        let mut control = self.control();
        // Under the lock that `close` takes: who drains after it sees all loads that there are.
        if self.closed.load(Ordering::Acquire) {
            return Joined::Closed;
        }
        let flight = control.flights.get(hash.whole(), key);
        #[cfg(test)]
        let flight = flight.filter(|_| control.guards.sharing.is_in_place());
        if let Some(flight) = flight {
            return Joined::Waiting(flight.outcome.clone());
        }
        // A load that has just ended has stored its value before it left the table.
        let fresh = |held: &Held<V>| held.is_fresh(clock).then(|| Arc::clone(&held.value));
        if let Some(Some(value)) = self.memory.peek(hash, key, now, fresh) {
            return Joined::Value(value);
        }
        let (sender, outcome) = watch::channel(None);
        let id = control.next_id();
        let flight = Flight {
            id,
            tags: options.tags.clone(),
            outcome: outcome.clone(),
        };
        control.flights.insert(hash.whole(), for_table, flight);
        let since = control.epoch();
        // Wakes nobody: all who look wait for fewer.
        self.jobs.send_if_modified(|jobs| {
            *jobs += 1;
            false
        });
        drop(control);
        let job = Job {
            inner: Arc::clone(self),
            key: for_job,
            hash,
            id,
            since,
            sender,
        };
        Joined::Started(job, outcome)
    }
}

/// A load under way. Dropped early, by a panic or with its runtime, it lets go of those who wait.
struct Job<K, V>
where
    K: Eq,
{
    inner: Arc<Inner<K, V>>,
    key: K,
    hash: Hashed,
    id: u64,
    since: u64,
    sender: watch::Sender<Option<Outcome<V>>>,
}

impl<K, V> Job<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    async fn run<E, F, Fut>(self, options: EntryOptions, loader: F)
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        let inner = &*self.inner;
        let mut spare = None;
        let mut versions = Ok(Versions::new());
        if let Some(reach) = &inner.reach {
            let limit = reach.limit();
            let read = reach.read(&self.key, &options.tags, limit, &inner.counts);
            let (read, known) = read.await;
            versions = match read {
                Read::Hit(hit) if inner.allows(self.since, self.hash, &hit.tags) => {
                    if hit.fresh != Some(std::time::Duration::ZERO) {
                        let value = Arc::clone(&hit.value);
                        inner.promote(&self.key, self.hash, hit, self.since);
                        return self.end(Outcome::Value(value));
                    }
                    spare = inner.spare(hit);
                    self.versions(known, &options, limit).await
                }
                Read::Hit(_) | Read::Miss => self.versions(known, &options, limit).await,
                Read::Unavailable(error) => Err(error),
            };
        }
        let value = match self.call(loader).await {
            Ok(value) => Arc::new(value),
            Err(outcome) => {
                let kept = inner.retained(self.hash, &self.key);
                let outcome = match kept.or_else(|| self.stand_in(spare)) {
                    Some(value) => {
                        inner.counts.up(Count::Stale);
                        Outcome::Value(value)
                    }
                    None => outcome,
                };
                return self.end(outcome);
            }
        };
        let ttl = inner.jittered(options.ttl.unwrap_or(inner.ttl));
        let place = StoreIn {
            key: &self.key,
            hash: self.hash,
            tags: &options.tags,
            begun: Begun::Load(self.since),
        };
        let stored = inner.store(place, Arc::clone(&value), ttl);
        self.end(Outcome::Value(Arc::clone(&value)));
        if stored.is_none() {
            return;
        }
        self.write(&value, ttl, versions, &options).await;
    }

    /// What the second tier had, if it is still to be used.
    fn stand_in(&self, spare: Option<Spare<V>>) -> Option<Arc<V>> {
        let spare = spare.filter(|spare| {
            let inner = &self.inner;
            let in_time = inner.clock.now() < spare.until;
            in_time && inner.allows(self.since, self.hash, &spare.tags)
        });
        spare.map(|spare| spare.value)
    }

    /// Those of the tags before the value is loaded, if the entry can be written afterwards.
    async fn versions(
        &self,
        known: Option<Versions>,
        options: &EntryOptions,
        limit: Limit,
    ) -> Result<Versions, TierError> {
        match (known, &self.inner.reach) {
            (Some(known), _) => Ok(known),
            (None, Some(reach)) => reach.versions(&options.tags, limit).await,
            (None, None) => Ok(Versions::new()),
        }
    }

    async fn call<E, F, Fut>(&self, loader: F) -> Result<V, Outcome<V>>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<V, E>>,
        E: Send + Sync + 'static,
    {
        let counts = &self.inner.counts;
        counts.up(Count::Loads);
        let loading = AssertUnwindSafe(async move { loader().await }).catch_unwind();
        let loaded = match self.inner.loader_timeout {
            Some(limit) => timeout(limit, loading).await.ok(),
            None => Some(loading.await),
        };
        match loaded {
            Some(Ok(Ok(value))) => Ok(value),
            Some(Ok(Err(error))) => {
                counts.up(Count::LoadErrors);
                Err(Outcome::Failed(Arc::new(error)))
            }
            Some(Err(payload)) => {
                drop_payload(payload);
                counts.up(Count::LoadPanics);
                Err(Outcome::Panicked)
            }
            None => {
                counts.up(Count::LoadTimeouts);
                Err(Outcome::TimedOut)
            }
        }
    }

    /// To the second tier, after those who wait have their value.
    async fn write(
        &self,
        value: &V,
        ttl: Ttl,
        versions: Result<Versions, TierError>,
        options: &EntryOptions,
    ) {
        let Some(reach) = &self.inner.reach else {
            return;
        };
        let written = async {
            let versions = versions?;
            let limit = reach.limit();
            let turn = reach.turn(self.hash.whole(), limit).await?;
            // An invalidation that comes after this waits for its turn.
            if !self.inner.allows(self.since, self.hash, &options.tags) {
                return Ok(false);
            }
            if ttl.is_zero() {
                reach.remove(&turn, &self.key, limit).await?;
                return Ok(false);
            }
            let life = self.inner.life(ttl);
            let set = reach.set(&turn, &self.key, value, life, &versions, limit);
            set.await.map(|()| true)
        };
        let written = written.await;
        self.inner.count_write(&written);
    }

    /// Lets nobody join any more, and tells those who have.
    fn end(&self, outcome: Outcome<V>) {
        self.leave();
        self.sender.send_replace(Some(outcome));
    }
}

impl<K: Eq, V> Job<K, V> {
    fn leave(&self) {
        let mine = |flight: &Flight<V>| flight.id == self.id;
        let row = {
            let mut control = self.inner.control();
            control.flights.remove_where(self.hash.whole(), mine)
        };
        survive(|| drop(row));
    }
}

impl<K: Eq, V> Drop for Job<K, V> {
    fn drop(&mut self) {
        self.leave();
        if thread::panicking() {
            self.sender.send_if_modified(|outcome| {
                let open = outcome.is_none();
                if open {
                    *outcome = Some(Outcome::Panicked);
                }
                open
            });
        }
        self.inner.jobs.send_modify(|jobs| *jobs -= 1);
    }
}
