//! The set-up of a batcher by key.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::thread::JoinHandle;

use overdrive_core::clock::PreciseClock;
use overdrive_core::{Clock, ConfigError};

use super::KeyedBatcher;
use super::crew::{Place, spawn_thread};
use super::hub::Hub;
use crate::batcher::Workers;
use crate::builder::{BatcherBuilder, MAX_WORKERS};
use crate::settings::{Gather, Overload};
use crate::workers::join;

/// The largest accepted number of live keys of a [`KeyedBatcher`].
pub const MAX_MAX_KEYS: usize = 1 << 24;

const MAX_KEYS: usize = 1 << 16;
const MAX_IDLE_KEYS: usize = 1 << 10;

/// Sets a [`KeyedBatcher`] up. Nothing is required but the handler, which `build_sync` or `build`
/// takes.
///
/// ```
/// use std::convert::Infallible;
/// use overdrive_batch::KeyedBatcher;
///
/// let builder = KeyedBatcher::builder().workers(2).per_key(3);
/// let refused = builder.build_sync(|_: &u8, items: Vec<u8>| Ok::<_, Infallible>(items));
/// assert_eq!(refused.unwrap_err().field(), "per_key");
/// ```
#[must_use = "a builder does nothing until `build`"]
pub struct KeyedBatcherBuilder<K, T> {
    batches: BatcherBuilder<T>,
    gather: Gather,
    workers: usize,
    per_key: usize,
    max_keys: usize,
    max_idle_keys: Option<usize>,
    keys: PhantomData<fn(K)>,
}

impl<K, T: Send + 'static> KeyedBatcherBuilder<K, T> {
    pub(super) fn new() -> Self {
        Self {
            batches: BatcherBuilder::new().name("keyed batch"),
            gather: Gather::Tick,
            workers: 4,
            per_key: 1,
            max_keys: MAX_KEYS,
            max_idle_keys: None,
            keys: PhantomData,
        }
    }

    /// A label for figures. Default `"keyed batch"`.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.batches = self.batches.name(name);
        self
    }

    /// The most items in one batch. Default 100, at most [`MAX_MAX_SIZE`](crate::MAX_MAX_SIZE).
    pub fn max_size(mut self, n: usize) -> Self {
        self.batches = self.batches.max_size(n);
        self
    }

    /// How heavy the items of one batch may be together, and how heavy an item is: see
    /// [`BatcherBuilder::max_weight`].
    pub fn max_weight(
        mut self,
        max: usize,
        of: impl Fn(&T) -> usize + Send + Sync + 'static,
    ) -> Self {
        self.batches = self.batches.max_weight(max, of);
        self
    }

    /// When a free worker closes a key's open batch: [`Gather::Tick`], the default, or
    /// [`Gather::Immediate`]. The others are refused: a worker that waited for one key would be
    /// missing to the others.
    pub fn gather(mut self, gather: Gather) -> Self {
        self.gather = gather;
        self
    }

    /// How many batches run at the same time, of all keys together. Default 4, at most
    /// [`MAX_WORKERS`].
    pub fn workers(mut self, n: usize) -> Self {
        self.workers = n;
        self
    }

    /// How many batches of one key run at the same time. Default 1, which keeps the order of each
    /// key's items; at most as many as there are workers.
    pub fn per_key(mut self, n: usize) -> Self {
        self.per_key = n;
        self
    }

    /// How many items of one key may be accepted and not yet in a running batch. Default 64 times
    /// `max_size`, at least `max_size`, at most [`MAX_CAPACITY`](crate::MAX_CAPACITY). All keys
    /// together may have [`max_keys`](Self::max_keys) times as many.
    pub fn capacity(mut self, n: usize) -> Self {
        self.batches = self.batches.capacity(n);
        self
    }

    /// How many keys may be live: with items, or idle and kept. Default 65,536, at most
    /// [`MAX_MAX_KEYS`]. The first item of a further key takes the place of the key that has been
    /// idle for longest; if none is idle, it is refused as
    /// [`Full`](crate::SubmitError::Full), whatever [`overload`](Self::overload) says.
    ///
    /// A live key takes some 2 KiB, and room for its items.
    pub fn max_keys(mut self, n: usize) -> Self {
        self.max_keys = n;
        self
    }

    /// How many keys without items are kept, so that a key that comes back costs no allocations.
    /// Default 1,024, or `max_keys` if that is less; at most `max_keys`; 0 keeps none. Beyond it,
    /// the key goes that has been idle for longest.
    pub fn max_idle_keys(mut self, n: usize) -> Self {
        self.max_idle_keys = Some(n);
        self
    }

    /// What [`submit`](KeyedBatcher::submit) does when there is no room for a further item of the
    /// key. Default [`Overload::Wait`]. Other keys do not notice.
    pub fn overload(mut self, overload: Overload) -> Self {
        self.batches = self.batches.overload(overload);
        self
    }

    /// The clock by which [deadlines](crate::KeyedSubmit::deadline) pass: see
    /// [`BatcherBuilder::clock`].
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.batches = self.batches.clock(clock);
        self
    }

    /// Makes a batcher whose handler is a plain function, which may block. It is run by `workers`
    /// threads, named `overdrive-batch-<n>`, which end when the batcher is closed and has nothing
    /// left.
    ///
    /// The handler gets a key and items of that key alone, never none, and returns as many results,
    /// in their order. A panic fails its batch and no other.
    ///
    /// # Errors
    /// The first setting that cannot be: zero for any but `max_idle_keys`; above its maximum;
    /// `capacity` below `max_size`; `per_key` above `workers`; `max_idle_keys` above `max_keys`; a
    /// `gather` that waits; a thread that cannot be started, in which case those that were have
    /// ended.
    pub fn build_sync<F, R, E>(self, handler: F) -> Result<KeyedBatcher<K, T, R, E>, ConfigError>
    where
        F: Fn(&K, Vec<T>) -> Result<Vec<R>, E> + Send + Sync + 'static,
        K: Send + Sync + 'static,
        R: Send + 'static,
        E: Send + Sync + 'static,
    {
        let hub = Arc::new(self.hub(|| Arc::new(PreciseClock))?);
        let handler = Arc::new(handler);
        let threads = start(&hub, |place| spawn_thread(place, Arc::clone(&handler)))?;
        Ok(KeyedBatcher::new(hub, Workers::Threads(threads)))
    }

    /// Makes a batcher whose handler is an async function. It is run by `workers` tasks of the
    /// current tokio runtime, which end when the batcher is closed and has nothing left.
    ///
    /// The handler gets a clone of the key, and items of that key alone, never none, and returns as
    /// many results, in their order. A panic fails its batch and no other. When the runtime is shut
    /// down, what has not ended fails with [`SubmitError::Abandoned`](crate::SubmitError::Abandoned).
    ///
    /// # Errors
    /// As [`build_sync`](Self::build_sync), but for threads; and without a current runtime.
    #[cfg(feature = "tokio")]
    pub fn build<F, Fut, R, E>(self, handler: F) -> Result<KeyedBatcher<K, T, R, E>, ConfigError>
    where
        F: Fn(K, Vec<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<R>, E>> + Send + 'static,
        K: Clone + Send + Sync + 'static,
        R: Send + 'static,
        E: Send + Sync + 'static,
    {
        let hub = self.hub(|| Arc::new(crate::tasks::TokioClock))?;
        let runtime = tokio::runtime::Handle::try_current();
        let runtime = runtime.map_err(|_| ConfigError::Missing { field: "runtime" })?;
        let hub = Arc::new(hub);
        let handler = Arc::new(handler);
        let tasks = places(&hub)
            .map(|place| runtime.spawn(super::crew::work_async(place, Arc::clone(&handler))))
            .map(|task| task.abort_handle())
            .collect();
        Ok(KeyedBatcher::new(hub, Workers::Tasks(tasks)))
    }

    fn hub<R, E>(
        self,
        clock: impl FnOnce() -> Arc<dyn Clock>,
    ) -> Result<Hub<K, T, R, E>, ConfigError> {
        if self.gather.wants_ages() {
            return Err(ConfigError::Invalid {
                field: "gather",
                reason: "must be tick or immediate for batches by key",
            });
        }
        let batches = self.batches.gather(self.gather).workers(self.workers);
        let rules = batches.rules(clock)?;
        ConfigError::within("per_key", self.per_key, MAX_WORKERS)?;
        if self.per_key > self.workers {
            return Err(ConfigError::Contradiction {
                field: "per_key",
                other: "workers",
                reason: "must not exceed",
            });
        }
        ConfigError::within("max_keys", self.max_keys, MAX_MAX_KEYS)?;
        let usual = MAX_IDLE_KEYS.min(self.max_keys);
        let max_idle_keys = self.max_idle_keys.unwrap_or(usual);
        if max_idle_keys > self.max_keys {
            return Err(ConfigError::Contradiction {
                field: "max_idle_keys",
                other: "max_keys",
                reason: "must not exceed",
            });
        }
        Ok(Hub::new(rules, self.per_key, self.max_keys, max_idle_keys))
    }
}

fn places<K, T, R, E>(hub: &Arc<Hub<K, T, R, E>>) -> impl Iterator<Item = Place<K, T, R, E>> + '_ {
    (0..hub.rules.workers).map(|worker| Place {
        hub: Arc::clone(hub),
        worker,
    })
}

/// Starts the threads; if one cannot be, those that were have ended when this returns.
fn start<K, T, R, E>(
    hub: &Arc<Hub<K, T, R, E>>,
    start_one: impl Fn(Place<K, T, R, E>) -> io::Result<JoinHandle<()>>,
) -> Result<Vec<JoinHandle<()>>, ConfigError> {
    let mut threads = Vec::with_capacity(hub.rules.workers);
    // Each place is left when it is dropped, also those of threads that never start.
    for place in places(hub).collect::<Vec<_>>() {
        match start_one(place) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                hub.close();
                join(threads);
                return Err(ConfigError::Thread {
                    field: "workers",
                    kind: error.kind(),
                });
            }
        }
    }
    Ok(threads)
}

impl<K, T> fmt::Debug for KeyedBatcherBuilder<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedBatcherBuilder")
            .field("batches", &self.batches)
            .field("workers", &self.workers)
            .field("per_key", &self.per_key)
            .field("max_keys", &self.max_keys)
            .field("max_idle_keys", &self.max_idle_keys)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn when_a_thread_cannot_be_started_the_others_have_ended() {
        let builder = KeyedBatcher::<u8, u8, _>::builder().workers(4);
        let hub = builder.hub::<u8, Infallible>(|| Arc::new(PreciseClock));
        let hub = Arc::new(hub.unwrap());
        let handler = Arc::new(|_: &u8, items| Ok(items));
        let started = AtomicUsize::new(0);
        let result = start(&hub, |place| {
            if started.fetch_add(1, Ordering::SeqCst) == 2 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            spawn_thread(place, Arc::clone(&handler))
        });
        let expected = ConfigError::Thread {
            field: "workers",
            kind: io::ErrorKind::WouldBlock,
        };
        assert_eq!(result.unwrap_err(), expected);
        assert_eq!(Arc::strong_count(&handler), 1);
        assert_eq!(Arc::strong_count(&hub), 1);
    }
}
