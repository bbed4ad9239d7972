//! The tiers together.

mod builder;
mod codec;
mod control;
mod envelope;
mod error;
mod inner;
mod load;
mod reach;
mod scope;
mod second;
mod settings;
mod stats;

use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use overdrive_core::{Deadline, DrainReport, Health};
use tokio::time::timeout;

use crate::options::EntryOptions;
use crate::tiered::inner::{Begun, Inner, StoreIn};
use crate::tiered::reach::Read;

pub use crate::tiered::builder::TieredCacheBuilder;
#[cfg(feature = "serde")]
pub use crate::tiered::codec::JsonCodec;
pub use crate::tiered::codec::{CacheKey, Codec, CodecError, codec_of};
pub use crate::tiered::error::{
    CacheError, InsertError, InvalidateError, LoadError, SecondTierWrite, Written,
};
pub use crate::tiered::scope::RequestScope;
pub use crate::tiered::second::{Found, SecondTier, Stored, TierError};
pub use crate::tiered::settings::TieredCacheSettings;
pub use crate::tiered::stats::TieredCacheStats;

/// Memory, a second tier behind it, and a loader behind both that runs once per key. Clones are
/// handles of the same cache.
///
/// A look-up goes from tier to tier; what the second tier has is kept in memory for as long as it
/// lives there, `local_ttl` at most. Without a second tier it is memory and loader.
///
/// # What holds
/// - Of all who [`load`](Self::load) a key at a time, one loader runs, in a task of its own: a
///   caller that is dropped ends nothing. Its panic or error goes to all of them.
/// - What was begun before an insertion or invalidation of its key, or the invalidation of one of
///   its tags, or a [`clear`](Self::clear), is not stored after it.
/// - A second tier that is away costs its time-out and no more; that it is away is no miss, and an
///   invalidation that it did not confirm is an error.
///
/// # What does not
/// - Other processes see an invalidation in the second tier at once, in their memory when its
///   entry ends there: `local_ttl` is the longest time that they are behind.
/// - Two processes that write a key at a time may leave either value in the second tier; so may a
///   load in one and an invalidation of its key in another. Tags are exact: what was loaded before
///   their invalidation anywhere is not read after it.
/// - A write that was given up at its time limit may still reach the second tier later.
///
/// # User code
/// Loaders, the weigher, the codec and destructors run outside of all locks. `Eq` of keys runs
/// under them.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use std::time::Duration;
/// use overdrive_tiered_cache::TieredCache;
///
/// let users = TieredCache::<u64, String>::builder()
///     .name("users")
///     .max_entries(10_000)
///     .ttl(Duration::from_secs(300))
///     .stale_for(Duration::from_secs(3600)) // when the database is away
///     .build()?;
///
/// let ada = users.load(&17, || async { Ok::<_, std::io::Error>("Ada".to_owned()) }).await?;
/// assert_eq!(*ada, "Ada");
/// assert_eq!(users.get_local(&17), Some(ada));
/// users.invalidate(&17).await?;
/// assert_eq!(users.get_local(&17), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
pub struct TieredCache<K, V> {
    pub(crate) inner: Arc<Inner<K, V>>,
}

/// The tier that a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tier {
    /// The request scope.
    Request,
    /// This process's memory.
    Memory,
    /// The store behind it.
    Second,
}

/// A value that was found.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hit<V> {
    /// The value.
    pub value: Arc<V>,
    /// Where it was.
    pub tier: Tier,
}

impl<V> Clone for Hit<V> {
    fn clone(&self) -> Self {
        Self {
            value: Arc::clone(&self.value),
            tier: self.tier,
        }
    }
}

impl<K, V> TieredCache<K, V>
where
    K: Hash + Eq + Clone + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// Starts the set-up of a cache.
    pub fn builder() -> TieredCacheBuilder<K, V> {
        TieredCacheBuilder::new()
    }

    pub(crate) fn new(inner: Inner<K, V>) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The value in memory, without waiting.
    #[must_use]
    pub fn get_local(&self, key: &K) -> Option<Arc<V>> {
        self.inner.look(key)
    }

    /// The value in memory or in the second tier. It never waits for a load, nor does a load wait
    /// for it. A hit in memory costs its lock; a read of the second tier one round trip, and
    /// another one if the entry has tags.
    ///
    /// # Errors
    /// If the cache is closed, or the second tier had to be asked and did not answer.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn get(&self, key: &K) -> Result<Option<Hit<V>>, CacheError> {
        let inner = &*self.inner;
        if inner.closed.load(Ordering::Acquire) {
            return Err(CacheError::Closed);
        }
        if let Some(value) = inner.look(key) {
            let tier = Tier::Memory;
            return Ok(Some(Hit { value, tier }));
        }
        let Some(reach) = &inner.reach else {
            return Ok(None);
        };
        let hash = inner.memory.hash(key);
        let since = inner.control().epoch();
        let read = reach.read(key, &[], reach.limit(), &inner.counts).await;
        match read.0 {
            Read::Hit(hit) if hit.fresh != Some(Duration::ZERO) => {
                let value = Arc::clone(&hit.value);
                inner.promote(key, hash, hit, since);
                let tier = Tier::Second;
                Ok(Some(Hit { value, tier }))
            }
            Read::Hit(_) | Read::Miss => Ok(None),
            Read::Unavailable(error) => Err(CacheError::Unavailable(error)),
        }
    }

    /// As [`get`](Self::get) for each of the keys, in their order; the second tier is asked for
    /// those that are not in memory at once.
    ///
    /// # Errors
    /// Of each key, as [`get`](Self::get).
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn get_many(&self, keys: &[K]) -> Vec<Result<Option<Hit<V>>, CacheError>> {
        join_all(keys.iter().map(|key| self.get(key))).await
    }

    /// The value in memory, or in the second tier, or what `loader` gives, which is then stored
    /// in both. As [`load_with`](Self::load_with) without options.
    ///
    /// # Errors
    /// See [`LoadError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// A load that has begun goes on, and its value is stored.
    pub async fn load<E, F, Fut>(&self, key: &K, loader: F) -> Result<Arc<V>, LoadError<E>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        self.load_with(key, EntryOptions::new(), loader).await
    }

    /// The value in memory, or in the second tier, or what `loader` gives, which is then stored
    /// in both with these options.
    ///
    /// Whoever asks for the key meanwhile waits for the same load, with its options: the loader
    /// itself too, so one that asks for its own key ends with `loader_timeout`. It runs in a
    /// task of the runtime of the caller who began it. The second tier is asked once per load, and
    /// written after the value has been given to those who wait for it.
    ///
    /// If the loader fails, panics or takes longer than `loader_timeout`, a value that is out of
    /// date by no more than `stale_for` stands in for it. Nothing else is remembered of a failure:
    /// the next call loads again. A caller whose error type differs from that of a load that
    /// failed runs its own loader.
    ///
    /// # Errors
    /// See [`LoadError`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    ///
    /// # Cancel safety
    /// A load that has begun goes on, and its value is stored.
    pub async fn load_with<E, F, Fut>(
        &self,
        key: &K,
        options: EntryOptions,
        loader: F,
    ) -> Result<Arc<V>, LoadError<E>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<V, E>> + Send + 'static,
        E: Send + Sync + 'static,
    {
        self.inner.load(key, options, loader).await
    }

    /// Stores a value in memory and in the second tier. As [`insert_with`](Self::insert_with)
    /// without options.
    ///
    /// # Errors
    /// If the cache is closed: key and value come back.
    ///
    /// # Cancel safety
    /// As [`insert_with`](Self::insert_with).
    pub async fn insert(&self, key: K, value: V) -> Result<Written, InsertError<K, V>> {
        self.insert_with(key, value, EntryOptions::new()).await
    }

    /// Stores a value in memory and in the second tier; with a life of zero it removes what is
    /// there, and so it does if one of its tags or all is invalidated while it waits for the second
    /// tier. A load of the key under way stores nothing after that.
    ///
    /// That the second tier did not take it is in the answer. Writers of a key take turns there;
    /// it costs two round trips.
    ///
    /// # Errors
    /// If the cache is closed: key and value come back.
    ///
    /// # Cancel safety
    /// It may be in memory, or not, and in the second tier, or not.
    pub async fn insert_with(
        &self,
        key: K,
        value: V,
        options: EntryOptions,
    ) -> Result<Written, InsertError<K, V>> {
        let inner = &*self.inner;
        if inner.closed.load(Ordering::Acquire) {
            return Err(InsertError { key, value });
        }
        let value = Arc::new(value);
        let since = inner.control().epoch();
        let hash = inner.memory.hash(&key);
        let ttl = inner.jittered(options.ttl.unwrap_or(inner.ttl));
        let keep = || {
            let place = StoreIn {
                key: &key,
                hash,
                tags: &options.tags,
                begun: Begun::Insertion(since),
            };
            inner.store(place, Arc::clone(&value), ttl)
        };
        let Some(reach) = &inner.reach else {
            return Ok(Written {
                memory: keep() == Some(true),
                second_tier: SecondTierWrite::Absent,
            });
        };
        let limit = reach.limit();
        let turn = reach.turn(hash.whole(), limit).await;
        let versions = match &turn {
            Ok(_) if ttl.is_zero() => Ok(Vec::new()),
            Ok(_) => reach.versions(&options.tags, limit).await,
            Err(error) => Err(error.clone()),
        };
        let memory = keep();
        let gone = ttl.is_zero() || memory.is_none();
        // What is read from the second tier until then is the value before this one.
        let settled = OnDrop(|| inner.settle(&key, hash, &value));
        let written = match (&turn, &versions) {
            (Ok(turn), Ok(_)) if gone => reach.remove(turn, &key, limit).await,
            (Ok(turn), Ok(versions)) => {
                let life = inner.life(ttl);
                let set = reach.set(turn, &key, &value, life, versions, limit);
                set.await
            }
            (Err(error), _) | (_, Err(error)) => Err(error.clone()),
        };
        drop(settled);
        inner.count_write(&written.clone().map(|()| !gone));
        Ok(Written {
            memory: memory == Some(true),
            second_tier: match written {
                Ok(()) => SecondTierWrite::Done,
                Err(error) => SecondTierWrite::Failed(error),
            },
        })
    }

    /// Removes the value from memory and from the second tier, and keeps loads under way from
    /// storing theirs. Whoever loads after this call has begun does not join them. Works on a
    /// closed cache too.
    ///
    /// # Errors
    /// If the second tier did not confirm it; in memory it is done.
    ///
    /// # Cancel safety
    /// Once polled it is done in memory; in the second tier, or not.
    pub async fn invalidate(&self, key: &K) -> Result<(), InvalidateError> {
        let inner = &*self.inner;
        let hash = inner.memory.hash(key);
        inner.forget(key, hash);
        let Some(reach) = &inner.reach else {
            return Ok(());
        };
        let settled = OnDrop(|| inner.forget(key, hash));
        let limit = reach.limit();
        let turn = reach.turn(hash.whole(), limit).await;
        let removed = match &turn {
            Ok(turn) => reach.remove(turn, key, limit).await,
            Err(error) => Err(error.clone()),
        };
        // What was read from the second tier in between.
        drop(settled);
        propagated(removed)
    }

    /// Removes all entries with that tag from memory, and has the second tier give none of them
    /// any more; otherwise as [`invalidate`](Self::invalidate). In memory it is linear in the
    /// entries with the tag; in the second tier one round trip, whatever their number.
    ///
    /// # Errors
    /// As [`invalidate`](Self::invalidate).
    ///
    /// # Cancel safety
    /// As [`invalidate`](Self::invalidate).
    pub async fn invalidate_tag(&self, tag: &str) -> Result<(), InvalidateError> {
        let inner = &*self.inner;
        inner.forget_tag(tag);
        let Some(reach) = &inner.reach else {
            return Ok(());
        };
        let _what_was_read_meanwhile = OnDrop(|| inner.forget_tag(tag));
        propagated(reach.bump(Some(tag)).await)
    }

    /// Removes everything from memory, and has the second tier give nothing any more of what is
    /// in its namespace; otherwise as [`invalidate_tag`](Self::invalidate_tag).
    ///
    /// # Errors
    /// As [`invalidate`](Self::invalidate).
    ///
    /// # Cancel safety
    /// As [`invalidate`](Self::invalidate).
    pub async fn clear(&self) -> Result<(), InvalidateError> {
        let inner = &*self.inner;
        inner.forget_all();
        let Some(reach) = &inner.reach else {
            return Ok(());
        };
        let _what_was_read_meanwhile = OnDrop(|| inner.forget_all());
        propagated(reach.bump(None).await)
    }

    /// A view for one request, which remembers what it has seen.
    #[must_use]
    pub fn request_scope(&self) -> RequestScope<K, V> {
        RequestScope::new(self.clone())
    }

    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its figures.
    #[must_use]
    pub fn stats(&self) -> TieredCacheStats {
        let loading = *self.inner.jobs.borrow();
        self.inner.counts.stats(loading, self.inner.memory.stats())
    }

    /// Healthy; degraded while the last call to the second tier has failed; unhealthy once it is
    /// closed. Asks nobody.
    #[must_use]
    pub fn health(&self) -> Health {
        let inner = &*self.inner;
        let down = |down: bool| {
            if down {
                Health::Degraded
            } else {
                Health::Healthy
            }
        };
        if inner.closed.load(Ordering::Acquire) {
            return Health::Unhealthy;
        }
        let reach = inner.reach.as_ref();
        reach.map_or(Health::Healthy, |reach| {
            down(reach.down.load(Ordering::Relaxed))
        })
    }

    /// Refuses lookups, loads and insertions from now on; loads under way go on, and
    /// [`get_local`](Self::get_local) still looks. Idempotent.
    pub fn close(&self) {
        let _no_load_begins_meanwhile = self.inner.control();
        self.inner.closed.store(true, Ordering::Release);
    }

    /// Waits until no load is under way, their writes to the second tier included. Those that are
    /// at the deadline go on.
    ///
    /// # Cancel safety
    /// It can be called again.
    pub async fn drain(&self, deadline: impl Into<Deadline>) -> DrainReport {
        let mut jobs = self.inner.jobs.subscribe();
        let before = *jobs.borrow_and_update();
        let none = jobs.wait_for(|&jobs| jobs == 0);
        let ended = timeout(deadline.into().remaining(), none).await.is_ok();
        let left = if ended { 0 } else { *self.inner.jobs.borrow() };
        DrainReport::new(before.saturating_sub(left) as u64, left as u64)
    }

    /// [`close`](Self::close) and [`drain`](Self::drain).
    ///
    /// # Cancel safety
    /// It is closed once polled; it can be called again.
    pub async fn shutdown(&self, deadline: impl Into<Deadline>) -> DrainReport {
        self.close();
        self.drain(deadline).await
    }
}

/// Does it at the end of the call, also of one that is dropped before.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

fn propagated(result: Result<(), TierError>) -> Result<(), InvalidateError> {
    result.map_err(|source| InvalidateError::NotPropagated { source })
}

impl<K, V> Clone for TieredCache<K, V> {
    fn clone(&self) -> Self {
        let inner = Arc::clone(&self.inner);
        Self { inner }
    }
}

impl<K, V> fmt::Debug for TieredCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TieredCache")
            .field("name", &self.inner.name)
            .field("second_tier", &self.inner.reach.is_some())
            .finish_non_exhaustive()
    }
}
