//! Loads by key: gathered into batches, each key once.

mod blocking;
mod builder;
mod cache;
mod error;
mod gather;
mod stats;

use std::convert::Infallible;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use overdrive_core::Health;
#[cfg(feature = "tokio")]
use overdrive_core::{Deadline, DrainReport};

use crate::batcher::Batcher;
use crate::error::SubmitError;

pub use self::builder::{Loaded, LoaderBuilder};
pub use self::cache::LoadCache;
pub use self::error::LoadError;
pub use self::stats::LoaderStats;

use self::error::Failure;
use self::gather::Desk;

/// Loads values by key, many with one call of a function: what many callers ask for at the same
/// time becomes one query with `IN (..)` instead of one for each.
///
/// Built on a [`Batcher`], with its rules of when a batch is closed: a lone load goes at once, and
/// while the function runs the next batch grows. Each key of a batch is given to the function once;
/// callers of the same key share the value, by clone. A key that is being loaded by a batch that
/// already runs is loaded again by the next one.
///
/// Values are not kept, unless it is given a [cache](LoaderBuilder::cache).
///
/// Clones are handles of the same loader. When the last one is dropped, the loader is closed: what
/// it had accepted is still loaded, then its workers end.
///
/// ```
/// use std::collections::HashMap;
/// use std::convert::Infallible;
/// use overdrive_batch::Loader;
///
/// let names = Loader::builder()
///     .name("names")
///     .max_keys(200)
///     .build_sync(|ids: Vec<u32>| {
///         // select id, name from users where id = any($1)
///         let rows = ids.into_iter().filter(|id| *id < 100);
///         Ok::<HashMap<_, _>, Infallible>(rows.map(|id| (id, format!("user {id}"))).collect())
///     })?;
///
/// assert_eq!(names.load_blocking(7)?.as_deref(), Some("user 7"));
/// assert_eq!(names.load_blocking(700)?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// With an async function, feature `tokio`:
///
#[cfg_attr(feature = "tokio", doc = "```")]
#[cfg_attr(not(feature = "tokio"), doc = "```ignore")]
/// use std::convert::Infallible;
/// use overdrive_batch::Loader;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// // A list in the order of the keys does as well as a map.
/// let squares = Loader::builder().build(|keys: Vec<u64>| async move {
///     Ok::<_, Infallible>(keys.into_iter().map(|n| n.checked_mul(n)).collect::<Vec<_>>())
/// })?;
/// assert_eq!(squares.load(3).await?, Some(9));
/// assert_eq!(squares.load(u64::MAX).await?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Loader<K, V, E = Infallible> {
    batcher: Batcher<K, Option<V>, Failure<E>>,
    desk: Arc<Desk<K, V>>,
}

/// What a submit ends with.
type Submitted<K, V, E> = Result<Option<V>, SubmitError<K, Failure<E>>>;

/// What a load ends with.
type Outcome<K, V, E> = Result<Option<V>, LoadError<K, E>>;

impl<K, V> Loader<K, V, Infallible> {
    /// Starts the set-up. Keys, values and error come from the function.
    pub fn builder() -> LoaderBuilder<K, V> {
        LoaderBuilder::new()
    }
}

impl<K, V, E> Loader<K, V, E>
where
    K: Clone + Eq + Hash,
    V: Clone,
{
    /// The value of a key, or `None` if there is none.
    ///
    /// The future is lazy and works under any executor. Without room it waits or is refused, as set
    /// by [`overload`](LoaderBuilder::overload).
    ///
    /// Awaited inside the loader's own function it waits for another worker; when all do that, for
    /// ever.
    ///
    /// Costs a submit of the batcher, and a hash of the key in the batch.
    ///
    /// # Errors
    /// See [`LoadError`]: what befalls a batch befalls all its keys. Errors are never kept in the
    /// cache; the next load tries again.
    ///
    /// # Panics
    /// A panic of the cache's `get` passes to the caller.
    ///
    /// # Cancel safety
    /// Dropped before its batch is closed, the key is withdrawn, and not loaded if no other asks for
    /// it. Dropped later, the load goes on for the others and for the cache.
    pub async fn load(&self, key: K) -> Result<Option<V>, LoadError<K, E>> {
        if let Some(value) = self.desk.look_up(&key) {
            return Ok(Some(value));
        }
        self.batcher.submit(key).await.map_err(LoadError::of)
    }

    /// The values of many keys, in the order of the keys, which may repeat. They may be more than
    /// one batch takes, and share batches with what others load. No keys make no call.
    ///
    /// # Errors
    /// For each key its own: of batches that fail, others may not. For all or nothing, collect into
    /// a `Result`.
    ///
    /// # Panics
    /// As [`load`](Self::load).
    ///
    /// # Cancel safety
    /// As of `load`, for each key by itself.
    pub async fn load_many(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Vec<Result<Option<V>, LoadError<K, E>>> {
        let (known, missing) = self.desk.look_all_up(keys);
        if missing.is_empty() {
            return fill(known, Vec::new());
        }
        let loaded = self.batcher.submit_all(missing).await;
        fill(known, loaded)
    }

    /// Puts a value in the cache, in place of any other. Nothing without a cache.
    ///
    /// Loads that run meanwhile do not overwrite it with what they may have read before.
    ///
    /// # Panics
    /// A panic of the cache passes to the caller.
    pub fn prime(&self, key: K, value: V) {
        self.desk.change(|cache| cache.insert(key, value));
    }

    /// Takes a key out of the cache: after a write, so that the next load reads it anew. Nothing
    /// without a cache.
    ///
    /// Loads that run meanwhile do not put it back. Taking it out of the cache by other ways than
    /// this one does not keep them from that.
    ///
    /// # Panics
    /// A panic of the cache passes to the caller.
    pub fn clear(&self, key: &K) {
        self.desk.change(|cache| cache.remove(key));
    }
}

impl<K, V, E> Loader<K, V, E> {
    /// Takes no more loads, but from the cache. What was accepted is loaded. Idempotent.
    pub fn close(&self) {
        self.batcher.close();
    }

    /// Whether it takes no more loads.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.batcher.is_closed()
    }

    /// As [`Batcher::drain`], counting keys asked for.
    ///
    /// # Panics
    /// As [`Batcher::drain`].
    ///
    /// # Cancel safety
    /// As of [`Batcher::drain`].
    #[cfg(feature = "tokio")]
    pub async fn drain(&self, deadline: impl Into<Deadline>) -> DrainReport {
        self.batcher.drain(deadline).await
    }

    /// As [`Batcher::shutdown`], counting keys asked for.
    ///
    /// # Panics
    /// As [`Batcher::shutdown`].
    ///
    /// # Cancel safety
    /// As of [`Batcher::shutdown`].
    #[cfg(feature = "tokio")]
    pub async fn shutdown(&self, deadline: impl Into<Deadline>) -> DrainReport {
        self.batcher.shutdown(deadline).await
    }

    /// The figures. Takes the batcher's lock.
    #[must_use]
    pub fn stats(&self) -> LoaderStats {
        // First, since every one of its items was counted as a load before.
        let batches = self.batcher.stats();
        self.desk.stats(batches)
    }

    /// As [`Batcher::report_metrics`](crate::Batcher::report_metrics), with keys for items; and the
    /// counters `overdrive_loads_total`, `overdrive_load_cache_hits_total` and
    /// `overdrive_load_duplicates_total`, with the label `loader`.
    #[cfg(feature = "metrics")]
    pub fn report_metrics(&self) {
        let stats = self.stats();
        let count = |what: &'static str, n: u64| {
            metrics::counter!(what, "loader" => self.name().to_owned()).absolute(n);
        };
        count("overdrive_loads_total", stats.loads);
        count("overdrive_load_cache_hits_total", stats.cache_hits);
        count("overdrive_load_duplicates_total", stats.duplicates);
        crate::observe::report(self.name(), &stats.batches);
    }

    /// As [`Batcher::health`].
    #[must_use]
    pub fn health(&self) -> Health {
        self.batcher.health()
    }

    /// The label given to the builder.
    #[must_use]
    pub fn name(&self) -> &str {
        self.batcher.name()
    }

    /// The most keys in one batch.
    #[must_use]
    pub fn max_keys(&self) -> usize {
        self.batcher.max_size()
    }
}

/// Puts what was loaded where nothing was known, in order.
fn fill<K, V, E>(known: Vec<Option<V>>, loaded: Vec<Submitted<K, V, E>>) -> Vec<Outcome<K, V, E>> {
    let mut loaded = loaded.into_iter();
    let outcome = |value: Option<V>| match value {
        Some(value) => Ok(Some(value)),
        None => {
            let next = loaded.next().expect("one for each that was not known");
            next.map_err(LoadError::of)
        }
    };
    known.into_iter().map(outcome).collect()
}

impl<K, V, E> Clone for Loader<K, V, E> {
    fn clone(&self) -> Self {
        Self {
            batcher: self.batcher.clone(),
            desk: Arc::clone(&self.desk),
        }
    }
}

impl<K, V, E> fmt::Debug for Loader<K, V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader")
            .field("name", &self.name())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
