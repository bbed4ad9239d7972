//! The handle of a batcher.

use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use overdrive_core::unwind::survive;
use overdrive_core::{Deadline, DrainReport, Health, Priority};

use crate::announce::Announced;
use crate::builder::BatcherBuilder;
use crate::engine::{Goal, Refused, Shared, Terms};
use crate::error::{SubmitError, TrySubmitError};
use crate::observe::Origin;
use crate::park;
use crate::stats::BatchStats;
use crate::submit::{Submit, SubmitAll, SubmitOwned, Ticket};
use crate::watch::{Flush, Watch};
use crate::workers;

/// Gathers what many callers submit into batches, has a handler run each batch, and gives each
/// caller its own result.
///
/// Clones are handles of the same batcher. When the last one is dropped, the batcher is closed:
/// what it had accepted is still run, then its workers end. Neither waits.
///
/// ```
/// use std::convert::Infallible;
/// use overdrive_batch::Batcher;
///
/// // One statement for many rows, in a real one.
/// let names = Batcher::builder()
///     .name("names by id")
///     .max_size(200)
///     .build_sync(|ids: Vec<u32>| {
///         Ok::<_, Infallible>(ids.into_iter().map(|id| format!("user {id}")).collect())
///     })?;
///
/// assert_eq!(names.submit_blocking(7)?, "user 7");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// With a handler that is an async function, feature `tokio`:
///
#[cfg_attr(feature = "tokio", doc = "```")]
#[cfg_attr(not(feature = "tokio"), doc = "```ignore")]
/// use std::convert::Infallible;
/// use overdrive_batch::Batcher;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let double = Batcher::builder().build(|items: Vec<u64>| async move {
///     Ok::<_, Infallible>(items.into_iter().map(|n| n * 2).collect())
/// })?;
/// assert_eq!(double.submit(21).await?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Batcher<T, R, E = Infallible> {
    handle: Arc<Handle<T, R, E>>,
}

/// What ends with the last of the user's handles, which workers have none of.
struct Handle<T, R, E> {
    shared: Arc<Shared<T, R, E>>,
    workers: Mutex<Workers>,
}

pub(crate) enum Workers {
    Threads(Vec<JoinHandle<()>>),
    /// What they run batches with.
    Submitters(Option<Arc<dyn Any + Send + Sync>>),
    #[cfg(feature = "tokio")]
    Tasks(Vec<tokio::task::AbortHandle>),
}

impl Workers {
    /// Ends the tasks where they await, if it is tasks.
    #[cfg(feature = "tokio")]
    pub(crate) fn abort_tasks(this: &Mutex<Self>) {
        let tasks = match &mut *Self::lock(this) {
            Self::Tasks(tasks) => std::mem::take(tasks),
            Self::Threads(_) | Self::Submitters(_) => return,
        };
        // Without the lock: it may drop a handler's future here.
        for task in tasks {
            task.abort();
        }
    }

    /// Waits for the threads to end, if it is threads.
    pub(crate) fn join_threads(this: &Mutex<Self>) {
        let threads = match &mut *Self::lock(this) {
            Self::Threads(threads) => std::mem::take(threads),
            _ => return,
        };
        workers::join(threads);
    }

    /// Lets go of the handler, if it is the submitters', who have ended: the others' goes with them.
    fn let_go(this: &Mutex<Self>) {
        let core = match &mut *Self::lock(this) {
            Self::Submitters(core) => core.take(),
            _ => return,
        };
        survive(|| drop(core));
    }

    fn lock(this: &Mutex<Self>) -> MutexGuard<'_, Self> {
        this.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static> Batcher<T, (), Infallible> {
    /// Starts the set-up. What the handler returns and fails with comes from `build` or
    /// `build_sync`; where the type of the items has to be named, it is
    /// `Batcher::<T, _>::builder()`.
    pub fn builder() -> BatcherBuilder<T> {
        BatcherBuilder::new()
    }
}

impl<T, R, E> Batcher<T, R, E> {
    pub(crate) fn new(shared: Arc<Shared<T, R, E>>, workers: Workers) -> Self {
        let workers = Mutex::new(workers);
        Self {
            handle: Arc::new(Handle { shared, workers }),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared<T, R, E>> {
        &self.handle.shared
    }

    /// Submits an item and waits for its own result.
    ///
    /// The future is lazy and works under any executor. While as many items wait as the batcher
    /// has [`capacity`](BatcherBuilder::capacity) for, it waits for room, first come, first
    /// served, or is refused, by [`overload`](BatcherBuilder::overload). See [`Submit`] for
    /// deadlines, cancellation, and waiting on a thread.
    ///
    /// Awaited inside the handler it waits for another worker; when all do that, for ever.
    ///
    /// # Errors
    /// The future's: see [`SubmitError`].
    ///
    /// Costs the lock of the batcher once.
    pub fn submit(&self, item: T) -> Submit<'_, T, R, E> {
        Submit::new(self, item)
    }

    /// As [`submit`](Self::submit), with a handle of the batcher in the future, for spawning it.
    /// The handle keeps the batcher open.
    pub fn submit_owned(&self, item: T) -> SubmitOwned<T, R, E> {
        SubmitOwned::new(self.clone(), item)
    }

    /// Announces an item that is about to be submitted. With [`Gather::Announced`] a free worker
    /// waits for it, at most [`max_wait`](BatcherBuilder::max_wait); other ways to gather take no
    /// notice.
    ///
    /// For items that take a moment to make, such as requests that are being read: whoever is known
    /// to come is waited for, and nobody else. An announcement that is leaked holds for ever, and
    /// makes each batch wait for `max_wait`.
    ///
    /// [`Gather::Announced`]: crate::Gather::Announced
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use overdrive_batch::{Batcher, Gather};
    ///
    /// let echo = Batcher::builder()
    ///     .gather(Gather::Announced)
    ///     .build_sync(|items: Vec<u8>| Ok::<_, Infallible>(items))?;
    /// let coming = echo.announce();
    /// let item = 7; // read, parsed, checked
    /// assert_eq!(coming.submit(item).wait_blocking()?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn announce(&self) -> Announced<'_, T, R, E> {
        Announced::new(self)
    }

    /// Submits items and waits for all their results, which come in the order of the items. They
    /// share batches with what others submit, and may be spread over several.
    ///
    /// No items make no results, and no call of the handler. The results of one call may differ: of
    /// items in a batch that failed, or withdrawn by the deadline, each has its own
    /// [`SubmitError`].
    pub fn submit_all(&self, items: impl IntoIterator<Item = T>) -> SubmitAll<'_, T, R, E> {
        SubmitAll::new(self, items.into_iter())
    }

    /// Submits an item at once, if there is room.
    ///
    /// # Errors
    /// Without room, or closed; with the item.
    ///
    /// ```
    /// # use std::convert::Infallible;
    /// # use overdrive_batch::Batcher;
    /// let echo = Batcher::builder().build_sync(|items: Vec<u8>| Ok::<_, Infallible>(items))?;
    /// let ticket = echo.try_submit(1)?;
    /// assert_eq!(ticket.wait_blocking()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_submit(&self, item: T) -> Result<Ticket<T, R, E>, TrySubmitError<T>> {
        let shared = self.shared();
        let terms = Terms {
            deadline: Deadline::NEVER,
            priority: Priority::Normal,
            must_fit: true,
            waker: None,
            origin: Origin::here(),
        };
        match shared.place(item, terms) {
            Ok(placed) => Ok(Ticket::new(Arc::clone(shared), placed)),
            Err(Refused::Closed(item)) => Err(TrySubmitError::Closed(item)),
            Err(Refused::Full(item)) => Err(TrySubmitError::Full(item)),
            Err(Refused::TooHeavy(item)) => Err(TrySubmitError::TooHeavy(item)),
        }
    }

    /// [`submit`](Self::submit) and [`wait_blocking`](Submit::wait_blocking).
    ///
    /// # Errors
    /// As `submit`.
    ///
    /// # Panics
    /// On a thread that must not wait: a worker of this batcher, or an async context of tokio
    /// (with the feature `tokio`).
    #[track_caller]
    pub fn submit_blocking(&self, item: T) -> Result<R, SubmitError<T, E>> {
        self.submit(item).wait_blocking()
    }

    /// Waits until everything submitted before has ended, without any more
    /// [lingering](crate::Gather::Linger) over it. "Before" is before the future is first polled.
    ///
    /// Awaited inside the handler it waits for the very batch that the handler is to end: for ever.
    pub fn flush(&self) -> Flush<'_, T, R, E> {
        Flush::new(self)
    }

    /// [`flush`](Self::flush), waited for on this thread.
    ///
    /// # Panics
    /// As [`submit_blocking`](Self::submit_blocking).
    #[track_caller]
    pub fn flush_blocking(&self) {
        self.flush().wait_blocking();
    }

    /// Takes no more items. Submitters who wait for room get theirs back; what was accepted is
    /// run, without lingering. Idempotent.
    pub fn close(&self) {
        self.shared().close();
    }

    /// Whether it takes no more items.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared().is_closed()
    }

    /// Closes, and waits on this thread until everything accepted has ended, at most until the
    /// deadline (in real time).
    ///
    /// What has not ended by then is abandoned: its submitters get [`SubmitError::Abandoned`] at
    /// once, queued items with it. A handler that is running on a task is dropped where it awaits;
    /// one that is running on a thread runs on to its end, and its results are dropped.
    ///
    /// # Panics
    /// As [`submit_blocking`](Self::submit_blocking).
    #[track_caller]
    pub fn drain_blocking(&self, deadline: impl Into<Deadline>) -> DrainReport {
        let deadline = deadline.into();
        workers::may_block(self.shared());
        let before = self.begin_drain();
        let watch = Watch::new(self.shared(), ALL);
        let ended = park::block_on(watch, || deadline.remaining());
        self.end_drain(before, ended.is_some())
    }

    /// [`drain_blocking`](Self::drain_blocking), and then waits for the workers to end, at most
    /// until the deadline. A worker thread is joined unless something was abandoned, since then a
    /// handler may be running that never ends. Of several that shut it down at the same time, one
    /// joins.
    ///
    /// # Panics
    /// As [`submit_blocking`](Self::submit_blocking).
    #[track_caller]
    pub fn shutdown_blocking(&self, deadline: impl Into<Deadline>) -> DrainReport {
        let deadline = deadline.into();
        let report = self.drain_blocking(deadline);
        if report.is_complete() {
            let watch = Watch::new(self.shared(), Goal::Ended);
            let ended = park::block_on(watch, || deadline.remaining());
            if ended.is_some() {
                Workers::join_threads(&self.handle.workers);
                Workers::let_go(&self.handle.workers);
            }
        }
        report
    }

    /// As [`drain_blocking`](Self::drain_blocking), with a timer of tokio for the deadline: what is
    /// left of it in real time when this is called.
    ///
    /// Awaited inside the handler it waits, until the deadline, for the very batch that the handler
    /// is to end. [`close`](Self::close) is what a handler may call.
    ///
    /// # Panics
    /// Outside a tokio runtime with its time driver, unless the deadline is
    /// [`NEVER`](Deadline::NEVER).
    ///
    /// # Cancel safety
    /// Dropped, it leaves the batcher closed, and nothing is abandoned.
    #[cfg(feature = "tokio")]
    pub async fn drain(&self, deadline: impl Into<Deadline>) -> DrainReport {
        let left = deadline.into().remaining();
        let before = self.begin_drain();
        let ended = within(left, Watch::new(self.shared(), ALL)).await;
        self.end_drain(before, ended)
    }

    /// [`drain`](Self::drain), and then waits for the workers to end, at most until the deadline.
    ///
    /// # Panics
    /// As `drain`.
    ///
    /// # Cancel safety
    /// As `drain`.
    #[cfg(feature = "tokio")]
    pub async fn shutdown(&self, deadline: impl Into<Deadline>) -> DrainReport {
        let deadline = deadline.into();
        let report = self.drain(deadline).await;
        if report.is_complete() {
            let ended = Watch::new(self.shared(), Goal::Ended);
            if within(deadline.remaining(), ended).await {
                Workers::let_go(&self.handle.workers);
            }
        }
        report
    }

    /// The figures, under the lock.
    #[must_use]
    pub fn stats(&self) -> BatchStats {
        self.shared().stats()
    }

    /// Sets counters and gauges of the facade `metrics` to the [`stats`](Self::stats), each with the
    /// label `batcher`, this one's name: `overdrive_batch_items_total` (by `outcome`: completed,
    /// failed, cancelled, expired, shed, abandoned, rejected), `overdrive_batches_total` (by
    /// `reason`: full, idle, linger, flush, at_end), and the gauges `overdrive_batch_items` (by
    /// `state`: waiting, queued, running). To be called before each scrape, or every few seconds.
    ///
    /// The histograms `overdrive_batch_size` and `overdrive_batch_handler_seconds` are recorded with
    /// each call of the handler, without this.
    #[cfg(feature = "metrics")]
    pub fn report_metrics(&self) {
        crate::observe::report(self.name(), &self.stats());
    }

    /// How it does: [`Health::Degraded`] when three quarters of the capacity or more are taken,
    /// [`Health::Unhealthy`] when it is closed. Takes the lock.
    #[must_use]
    pub fn health(&self) -> Health {
        self.shared().health()
    }

    /// The label given to the builder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared().rules.name
    }

    /// The most items in one batch.
    #[must_use]
    pub fn max_size(&self) -> usize {
        self.shared().rules.max_size
    }

    /// How many items may wait for a batch before submitters wait for room.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared().rules.capacity
    }

    fn begin_drain(&self) -> u64 {
        let before = self.shared().finished();
        self.shared().close_to_drain();
        before
    }

    fn end_drain(&self, before: u64, ended: bool) -> DrainReport {
        let abandoned = if ended { 0 } else { self.shared().abandon() };
        #[cfg(feature = "tokio")]
        if abandoned > 0 {
            Workers::abort_tasks(&self.handle.workers);
        }
        DrainReport::new(self.shared().finished() - before, abandoned)
    }
}

const ALL: Goal = Goal::Past(u64::MAX);

/// Whether the goal is met within that time.
#[cfg(feature = "tokio")]
pub(crate) async fn within(left: std::time::Duration, watch: impl Future<Output = ()>) -> bool {
    if left == std::time::Duration::MAX {
        watch.await;
        return true;
    }
    tokio::time::timeout(left, watch).await.is_ok()
}

impl<T, R, E> Clone for Batcher<T, R, E> {
    fn clone(&self) -> Self {
        Self {
            handle: Arc::clone(&self.handle),
        }
    }
}

impl<T, R, E> Drop for Handle<T, R, E> {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl<T, R, E> fmt::Debug for Batcher<T, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher")
            .field("name", &self.name())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
