//! The set-up of a batcher.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use overdrive_core::clock::PreciseClock;
use overdrive_core::{Clock, ConfigError};

use crate::batcher::{Batcher, Workers};
use crate::engine::{Isolate, Rules, Shared, Weight};
use crate::settings::{BatchSettings, Gather, Overload};
use crate::workers::{Handler, Place, join, spawn_thread};

/// The largest accepted number of items in a batch.
pub const MAX_MAX_SIZE: usize = 1 << 20;

/// The longest accepted wait of a batch's first item.
pub const MAX_MAX_WAIT: Duration = Duration::from_secs(3600);

/// The largest accepted number of workers.
pub const MAX_WORKERS: usize = 1 << 10;

/// The largest accepted number of waiting items.
pub const MAX_CAPACITY: usize = 1 << 26;

/// As many full batches wait in a batcher whose capacity is not set.
const BATCHES_OF_CAPACITY: usize = 64;

/// Sets a [`Batcher`] up. Nothing is required but the handler, which `build_sync`, `build_inline` or
/// `build` takes.
///
/// ```
/// use std::convert::Infallible;
/// use overdrive_batch::{Batcher, ConfigError};
///
/// let builder = Batcher::builder().max_size(100).capacity(50);
/// let refused = builder.build_sync(|items: Vec<u8>| Ok::<_, Infallible>(items));
/// assert_eq!(refused.unwrap_err().field(), "capacity");
/// ```
#[must_use = "a builder does nothing until `build`"]
pub struct BatcherBuilder<T> {
    name: Cow<'static, str>,
    settings: BatchSettings,
    clock: Option<Arc<dyn Clock>>,
    weight: Option<Weight<T>>,
    isolate: Option<Isolate<T>>,
}

impl<T: Send + 'static> BatcherBuilder<T> {
    pub(crate) fn new() -> Self {
        Self {
            name: Cow::Borrowed("batch"),
            settings: BatchSettings::default(),
            clock: None,
            weight: None,
            isolate: None,
        }
    }

    /// A label for figures. Default `"batch"`.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// Takes all numbers from a plain value.
    pub fn settings(mut self, settings: BatchSettings) -> Self {
        self.settings = settings;
        self
    }

    /// The most items in one batch. Default 100, at most [`MAX_MAX_SIZE`].
    pub fn max_size(mut self, n: usize) -> Self {
        self.settings.max_size = n;
        self
    }

    /// With [`Gather::Linger`], `Announced` and `Adaptive`: how old the first item of a batch may get,
    /// counted from when it was submitted, until a free worker closes the batch, however few items it
    /// has. Later items do not put it off. Default 100 ms, at most [`MAX_MAX_WAIT`].
    ///
    /// It is an upper bound and not a delay: with `Tick`, the default, and `Immediate` a free worker
    /// takes what there is, so nothing ever waits for it, and a lone item goes at once.
    /// No worker being free, items wait until one is, whatever their age. Timers of tokio are
    /// exact to a millisecond and round up.
    pub fn max_wait(mut self, time: Duration) -> Self {
        self.settings.max_wait = time;
        self
    }

    /// When a free worker closes the open batch. Default [`Gather::Tick`].
    pub fn gather(mut self, gather: Gather) -> Self {
        self.settings.gather = gather;
        self
    }

    /// How many batches run at the same time. Default 4, at most [`MAX_WORKERS`].
    ///
    /// More workers make smaller batches, since a batch grows while all of them are busy: good
    /// for handlers that wait, seldom for handlers that compute.
    pub fn workers(mut self, n: usize) -> Self {
        self.settings.workers = n;
        self
    }

    /// How many items may be accepted and not yet in a running batch. Default 64 times
    /// `max_size`, at least `max_size`, at most [`MAX_CAPACITY`].
    pub fn capacity(mut self, n: usize) -> Self {
        self.settings.capacity = Some(n);
        self
    }

    /// How heavy the items of one batch may be together, and how heavy an item is: bytes of a
    /// statement, say, or the parts of a request. From 1. Default: only their number counts.
    ///
    /// `of` is called once for each item, when it is submitted, on the submitter's thread. An item
    /// that alone is heavier is refused with [`TooHeavy`](crate::SubmitError::TooHeavy).
    pub fn max_weight(
        mut self,
        max: usize,
        of: impl Fn(&T) -> usize + Send + Sync + 'static,
    ) -> Self {
        let of = Arc::new(of);
        self.weight = Some(Weight { max, of });
        self
    }

    /// Has a batch that fails run again in halves, down to single items, so that one bad item fails
    /// alone: only for handlers that do all of a batch or nothing, such as one statement or one
    /// transaction. `max_calls`, from 2, bounds the calls for one batch; when they are used up, what
    /// is left fails as the part it last ran in. Default: a batch fails as a whole.
    ///
    /// Of `n` items, `k` bad ones take about `2 k log2(n / k) + 2 k` calls (group testing by binary
    /// splitting). It is what fails that is told apart, by error, panic or wrong number of results;
    /// what passes by itself, such as a lost connection, had better not fail a handler that isolates.
    /// The handler is given clones, also of batches that succeed.
    pub fn isolate(mut self, max_calls: u32) -> Self
    where
        T: Clone,
    {
        let clone = T::clone;
        self.isolate = Some(Isolate { max_calls, clone });
        self
    }

    /// What [`submit`](Batcher::submit) does when there is no room. Default [`Overload::Wait`].
    pub fn overload(mut self, overload: Overload) -> Self {
        self.settings.overload = overload;
        self
    }

    /// The clock by which items age and [deadlines](crate::Submit::deadline) pass. Default: the
    /// precise one, or tokio's with `build`, which a paused runtime stops.
    ///
    /// A worker that lingers sleeps for what is left by this clock, in real time or tokio's. A
    /// clock moved by hand wakes nobody: what it shows counts when a worker or submitter next looks.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(clock));
        self
    }

    /// Makes a batcher whose handler is a plain function, which may block. It is run by `workers`
    /// threads, named `overdrive-batch-<n>`, which end when the batcher is closed and has nothing
    /// left.
    ///
    /// The handler returns as many results as it is given items, in their order. It is not called
    /// with none. A panic fails its batch and no other.
    ///
    /// # Errors
    /// The first setting that cannot be: zero for any; above its maximum; `capacity` below
    /// `max_size`; `min_size` of [`Gather::Linger`] above `max_size`; a thread that cannot be started, in which
    /// case those that were have ended.
    pub fn build_sync<F, R, E>(self, handler: F) -> Result<Batcher<T, R, E>, ConfigError>
    where
        F: Fn(Vec<T>) -> Result<Vec<R>, E> + Send + Sync + 'static,
        R: Send + 'static,
        E: Send + Sync + 'static,
    {
        self.threads(|| Some(()), || Ok(()), move |(), items| handler(items))
    }

    /// As [`build_sync`](Self::build_sync), for a handler that runs with something it has to wait
    /// for, such as a connection of a pool: `acquire` gets that, and meanwhile the batch gathers.
    /// Only then is it taken, as it is at that moment; one worker at a time acquires.
    ///
    /// What was acquired for items that were all withdrawn is dropped again. If `acquire` fails,
    /// so does the batch that it was for, with that error.
    ///
    /// # Errors
    /// As `build_sync`.
    pub fn build_sync_with<L, A, F, R, E>(
        self,
        acquire: A,
        handler: F,
    ) -> Result<Batcher<T, R, E>, ConfigError>
    where
        A: Fn() -> Result<L, E> + Send + Sync + 'static,
        F: Fn(L, Vec<T>) -> Result<Vec<R>, E> + Send + Sync + 'static,
        R: Send + 'static,
        E: Send + Sync + 'static,
        L: 'static,
    {
        self.threads(|| None, acquire, handler)
    }

    /// Makes a batcher without threads or a runtime, whose batches their submitters run: who submits
    /// while nobody is at it calls the handler there and then, and goes on to run what came meanwhile,
    /// up to 16 batches, before it leaves the rest to those who wait (flat combining: Hendler, Incze,
    /// Shavit, Tzafrir 2010). Up to [`workers`](Self::workers) submitters do so at a time.
    ///
    /// A lone item costs no more than the call and the lock, and no thread is woken for it. In
    /// exchange a submitter's thread, or task, is kept by the handler, also for others' items; the
    /// handler should be quick, such as one that appends to a buffer or holds a lock that all want.
    /// `try_submit` calls it too, as may everything else that waits for, or ends, the batcher: `flush`,
    /// `drain`, `close`, and the drop of the last handle, for items whose submitters do not wait.
    ///
    /// There is nobody to wait for more items with: [`Gather::Tick`] is as [`Gather::Immediate`], and
    /// the others are refused.
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use std::sync::Mutex;
    /// use overdrive_batch::Batcher;
    ///
    /// let log = Mutex::new(Vec::new());
    /// let append = Batcher::builder().build_inline(move |lines: Vec<String>| {
    ///     let mut log = log.lock().unwrap(); // once for all of them
    ///     let first = log.len();
    ///     log.extend(lines);
    ///     Ok::<_, Infallible>((first..log.len()).collect())
    /// })?;
    /// assert_eq!(append.submit_blocking("started".to_owned())?, 0);
    /// assert_eq!(append.submit_blocking("ready".to_owned())?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`build_sync`](Self::build_sync), but for threads; and with a way to
    /// [gather](Self::gather) that lingers.
    pub fn build_inline<F, R, E>(mut self, handler: F) -> Result<Batcher<T, R, E>, ConfigError>
    where
        F: Fn(Vec<T>) -> Result<Vec<R>, E> + Send + Sync + 'static,
        R: Send + 'static,
        E: Send + Sync + 'static,
    {
        if self.settings.gather == Gather::Tick {
            self.settings.gather = Gather::Immediate;
        }
        let mut rules = self.rules(|| Arc::new(PreciseClock))?;
        if rules.gather != Gather::Immediate {
            return Err(ConfigError::Invalid {
                field: "gather",
                reason: "must be `Tick` or `Immediate` where submitters run the batches",
            });
        }
        rules.inline = true;
        let shared = Arc::new(Shared::new(rules));
        let handler = Arc::new(Handler {
            at_hand: || Some(()),
            acquire: || Ok(()),
            call: move |(), items| handler(items),
        });
        crate::inline::employ_submitters(&shared, &handler);
        Ok(Batcher::new(shared, Workers::Threads(Vec::new())))
    }

    fn threads<L, A, F, R, E>(
        self,
        at_hand: fn() -> Option<L>,
        acquire: A,
        call: F,
    ) -> Result<Batcher<T, R, E>, ConfigError>
    where
        A: Fn() -> Result<L, E> + Send + Sync + 'static,
        F: Fn(L, Vec<T>) -> Result<Vec<R>, E> + Send + Sync + 'static,
        R: Send + 'static,
        E: Send + Sync + 'static,
        L: 'static,
    {
        let mut rules = self.rules(|| Arc::new(PreciseClock))?;
        rules.leases = at_hand().is_none();
        let shared = Arc::new(Shared::new(rules));
        let handler = Arc::new(Handler {
            at_hand,
            acquire,
            call,
        });
        let threads = start(&shared, |place| spawn_thread(place, Arc::clone(&handler)))?;
        Ok(Batcher::new(shared, Workers::Threads(threads)))
    }

    /// Makes a batcher whose handler is an async function. It is run by `workers` tasks of the
    /// current tokio runtime, which end when the batcher is closed and has nothing left.
    ///
    /// The handler returns as many results as it is given items, in their order. It is not called
    /// with none. A panic fails its batch and no other. When the runtime is shut down, what has
    /// not ended fails with [`SubmitError::Abandoned`](crate::SubmitError::Abandoned). A
    /// current-thread runtime runs them only while it is in `block_on`: a thread that waits for the
    /// batcher needs another one that is.
    ///
    /// # Errors
    /// As [`build_sync`](Self::build_sync), but for threads; and without a current runtime, or
    /// with a way to [gather](Self::gather) that waits on a runtime without its time driver.
    #[cfg(feature = "tokio")]
    pub fn build<F, Fut, R, E>(self, handler: F) -> Result<Batcher<T, R, E>, ConfigError>
    where
        F: Fn(Vec<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<R>, E>> + Send + 'static,
        R: Send + 'static,
        E: Send + Sync + 'static,
    {
        let acquire = || std::future::ready(Ok(()));
        self.tasks(|| Some(()), acquire, move |(), items| handler(items))
    }

    /// As [`build`](Self::build), for a handler that runs with something it has to wait for: see
    /// [`build_sync_with`](Self::build_sync_with).
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use std::sync::Arc;
    /// use overdrive_batch::Batcher;
    /// use tokio::sync::Semaphore;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// let connections = Arc::new(Semaphore::new(2));
    /// let acquire = move || {
    ///     let connections = Arc::clone(&connections);
    ///     async move { Ok::<_, Infallible>(connections.acquire_owned().await.expect("open")) }
    /// };
    /// let double = Batcher::builder().build_with(acquire, |connection, items: Vec<u64>| async move {
    ///     let results = items.into_iter().map(|n| n * 2).collect();
    ///     drop(connection);
    ///     Ok(results)
    /// })?;
    /// assert_eq!(double.submit(21).await?, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As `build`.
    #[cfg(feature = "tokio")]
    pub fn build_with<L, A, AFut, F, Fut, R, E>(
        self,
        acquire: A,
        handler: F,
    ) -> Result<Batcher<T, R, E>, ConfigError>
    where
        A: Fn() -> AFut + Send + Sync + 'static,
        AFut: Future<Output = Result<L, E>> + Send + 'static,
        F: Fn(L, Vec<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<R>, E>> + Send + 'static,
        R: Send + 'static,
        E: Send + Sync + 'static,
        L: Send + 'static,
    {
        self.tasks(|| None, acquire, handler)
    }

    #[cfg(feature = "tokio")]
    fn tasks<L, A, AFut, F, Fut, R, E>(
        self,
        at_hand: fn() -> Option<L>,
        acquire: A,
        call: F,
    ) -> Result<Batcher<T, R, E>, ConfigError>
    where
        A: Fn() -> AFut + Send + Sync + 'static,
        AFut: Future<Output = Result<L, E>> + Send + 'static,
        F: Fn(L, Vec<T>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<R>, E>> + Send + 'static,
        R: Send + 'static,
        E: Send + Sync + 'static,
        L: Send + 'static,
    {
        let mut rules = self.rules(|| Arc::new(crate::tasks::TokioClock))?;
        rules.leases = at_hand().is_none();
        let runtime = tokio::runtime::Handle::try_current();
        let runtime = runtime.map_err(|_| ConfigError::Missing { field: "runtime" })?;
        if rules.gather.wants_ages() {
            // Making a timer is the only way to ask.
            if std::panic::catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO))).is_err() {
                return Err(ConfigError::Invalid {
                    field: "gather",
                    reason: "needs a runtime with its time driver enabled in order to linger",
                });
            }
        }
        let shared = Arc::new(Shared::new(rules));
        let handler = Arc::new(Handler {
            at_hand,
            acquire,
            call,
        });
        let tasks = places(&shared)
            .map(|place| runtime.spawn(crate::tasks::work(place, Arc::clone(&handler))))
            .map(|task| task.abort_handle())
            .collect();
        Ok(Batcher::new(shared, Workers::Tasks(tasks)))
    }

    pub(crate) fn rules(
        self,
        clock: impl FnOnce() -> Arc<dyn Clock>,
    ) -> Result<Rules<T>, ConfigError> {
        let BatchSettings {
            max_size,
            max_wait,
            gather,
            workers,
            capacity,
            overload,
        } = self.settings;
        ConfigError::within("max_size", max_size, MAX_MAX_SIZE)?;
        ConfigError::within("workers", workers, MAX_WORKERS)?;
        let capacity = capacity.unwrap_or(max_size * BATCHES_OF_CAPACITY);
        ConfigError::within("capacity", capacity, MAX_CAPACITY)?;
        if capacity < max_size {
            return Err(ConfigError::Contradiction {
                field: "capacity",
                other: "max_size",
                reason: "must not be below",
            });
        }
        if max_wait.is_zero() {
            return Err(ConfigError::Zero { field: "max_wait" });
        }
        if max_wait > MAX_MAX_WAIT {
            return Err(ConfigError::TooLarge {
                field: "max_wait",
                value: u64::try_from(max_wait.as_nanos()).unwrap_or(u64::MAX),
                max: MAX_MAX_WAIT.as_nanos() as u64,
            });
        }
        match gather {
            Gather::Linger { min_size: 0 } => return Err(ConfigError::Zero { field: "min_size" }),
            Gather::Linger { min_size } if min_size > max_size => {
                return Err(ConfigError::Contradiction {
                    field: "min_size",
                    other: "max_size",
                    reason: "must not exceed",
                });
            }
            _ => {}
        }
        if matches!(self.weight, Some(Weight { max: 0, .. })) {
            return Err(ConfigError::Zero {
                field: "max_weight",
            });
        }
        if matches!(self.isolate, Some(Isolate { max_calls: ..2, .. })) {
            return Err(ConfigError::Invalid {
                field: "isolate",
                reason: "needs two calls or more to tell items apart",
            });
        }
        Ok(Rules {
            name: self.name,
            max_size,
            max_wait,
            gather,
            workers,
            capacity,
            overload,
            clock: self.clock.unwrap_or_else(clock),
            weight: self.weight,
            isolate: self.isolate,
            leases: false,
            inline: false,
        })
    }
}

fn places<T, R, E>(shared: &Arc<Shared<T, R, E>>) -> impl Iterator<Item = Place<T, R, E>> + '_ {
    (0..shared.rules.workers).map(|worker| Place {
        shared: Arc::clone(shared),
        worker,
    })
}

/// Starts the threads; if one cannot be, those that were have ended when this returns.
fn start<T, R, E>(
    shared: &Arc<Shared<T, R, E>>,
    start_one: impl Fn(Place<T, R, E>) -> io::Result<JoinHandle<()>>,
) -> Result<Vec<JoinHandle<()>>, ConfigError> {
    // Each place is left when it is dropped, also those of threads that never start.
    let places: Vec<_> = places(shared).collect();
    let mut threads = Vec::with_capacity(places.len());
    for place in places {
        match start_one(place) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                shared.close();
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

impl<T> fmt::Debug for BatcherBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatcherBuilder")
            .field("name", &self.name)
            .field("settings", &self.settings)
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
        let builder = Batcher::<u8, _>::builder().workers(4);
        let rules = builder.rules(|| Arc::new(PreciseClock)).unwrap();
        let shared = Arc::new(Shared::<u8, u8, Infallible>::new(rules));
        let handler = Arc::new(Handler {
            at_hand: || Some(()),
            acquire: || Ok(()),
            call: |(), items| Ok::<Vec<u8>, Infallible>(items),
        });
        let started = AtomicUsize::new(0);
        let result = start(&shared, |place| {
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
        assert_eq!(Arc::strong_count(&shared), 1);
    }
}
