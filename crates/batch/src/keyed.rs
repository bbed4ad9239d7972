//! Batches by key: each of one key alone, in the order of its items.

mod builder;
mod crew;
mod group;
mod hold;
mod hub;
mod state;
mod submit;
mod watch;

use std::convert::Infallible;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use overdrive_core::{Deadline, DrainReport, Health, Priority};

use crate::batcher::Workers;
use crate::engine::{Refused, Terms};
use crate::error::{SubmitError, TrySubmitError};
use crate::observe::Origin;
use crate::park;
use crate::stats::BatchStats;
use crate::workers;

pub use self::builder::{KeyedBatcherBuilder, MAX_MAX_KEYS};
pub use self::submit::{KeyedSubmit, KeyedSubmitOwned, KeyedTicket};
pub use self::watch::KeyedFlush;

use self::hub::Hub;
use self::submit::Spot;
use self::watch::{WatchAll, WatchEnd};

/// Gathers items into batches by key: tenants, partitions, aggregates of an event store. No batch
/// has items of two keys, and unless [set otherwise](KeyedBatcherBuilder::per_key) a key has one
/// batch in work at a time, so that its items are handled in the order in which they were submitted
/// (by [priority](KeyedSubmit::priority), where they have one).
///
/// All keys share the workers: as many batches run at the same time as there are workers. Keys with
/// work take turns, a batch each, so that none keeps the others waiting. A key without items is kept
/// for a while and then forgotten; what it counted stays in the figures.
///
/// Each key is a [`Batcher`](crate::Batcher) to itself: of its rules, all hold that are not named
/// otherwise here. There is no lingering: a free worker takes what there is.
///
/// Clones are handles of the same batcher. When the last one is dropped, the batcher is closed: what
/// it had accepted is still run, then its workers end. Neither waits.
///
/// Costs a hash and a comparison of the key, the lock of the map three or four times for each item
/// that is alone, and fewer where items share batches; beyond that what a batcher costs. The first
/// item of a key that is not kept allocates.
///
/// ```
/// use std::convert::Infallible;
/// use overdrive_batch::KeyedBatcher;
///
/// // One append to each aggregate's stream, however many write to it.
/// let events = KeyedBatcher::builder()
///     .name("events")
///     .workers(2)
///     .build_sync(|account: &u32, amounts: Vec<i64>| {
///         Ok::<_, Infallible>(amounts.iter().map(|n| format!("{account}: {n:+}")).collect())
///     })?;
///
/// assert_eq!(events.submit_blocking(7, 100)?, "7: +100");
/// assert_eq!(events.submit_blocking(8, -1)?, "8: -1");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// With a handler that is an async function, feature `tokio`:
///
#[cfg_attr(feature = "tokio", doc = "```")]
#[cfg_attr(not(feature = "tokio"), doc = "```ignore")]
/// use std::convert::Infallible;
/// use overdrive_batch::KeyedBatcher;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let lengths = KeyedBatcher::builder().build(|tenant: String, items: Vec<u64>| async move {
///     Ok::<_, Infallible>(items.into_iter().map(|n| format!("{tenant} {n}")).collect())
/// })?;
/// assert_eq!(lengths.submit("acme".to_owned(), 3).await?, "acme 3");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct KeyedBatcher<K, T, R, E = Infallible> {
    handle: Arc<Handle<K, T, R, E>>,
}

/// What ends with the last of the user's handles, which workers have none of.
struct Handle<K, T, R, E> {
    hub: Arc<Hub<K, T, R, E>>,
    workers: Mutex<Workers>,
}

impl<K, T: Send + 'static> KeyedBatcher<K, T, (), Infallible> {
    /// Starts the set-up. What the handler returns and fails with comes from `build` or
    /// `build_sync`.
    pub fn builder() -> KeyedBatcherBuilder<K, T> {
        KeyedBatcherBuilder::new()
    }
}

impl<K, T, R, E> KeyedBatcher<K, T, R, E>
where
    K: Eq + Hash + Send + Sync + 'static,
    T: Send + 'static,
    R: Send + 'static,
    E: Send + Sync + 'static,
{
    /// Submits an item of a key and waits for its own result.
    ///
    /// The future is lazy and works under any executor. While as many items of the key wait as there
    /// is [`capacity`](KeyedBatcherBuilder::capacity) for, it waits for room, first come, first
    /// served, or is refused, by [`overload`](KeyedBatcherBuilder::overload). A new key beyond
    /// [`max_keys`](KeyedBatcherBuilder::max_keys) is refused. See [`KeyedSubmit`] for deadlines,
    /// cancellation, and waiting on a thread.
    ///
    /// Awaited inside the handler with a key whose batches are all in work it waits for one of them;
    /// inside that key's own, for ever.
    ///
    /// # Errors
    /// The future's: see [`SubmitError`].
    pub fn submit(&self, key: K, item: T) -> KeyedSubmit<'_, K, T, R, E> {
        KeyedSubmit::new(self, key, item)
    }

    /// As [`submit`](Self::submit), with a handle of the batcher in the future, for spawning it.
    /// The handle keeps the batcher open.
    pub fn submit_owned(&self, key: K, item: T) -> KeyedSubmitOwned<K, T, R, E> {
        KeyedSubmitOwned::new(self.clone(), key, item)
    }

    /// Submits an item at once, if there is room.
    ///
    /// # Errors
    /// Without room for the item or for its key, or closed; with the item.
    ///
    /// # Panics
    /// A panic of the key's `Hash` or `Eq` passes to the caller.
    ///
    /// ```
    /// # use std::convert::Infallible;
    /// # use overdrive_batch::KeyedBatcher;
    /// let echo = KeyedBatcher::builder()
    ///     .build_sync(|_: &u8, items: Vec<u8>| Ok::<_, Infallible>(items))?;
    /// let ticket = echo.try_submit(7, 1)?;
    /// assert_eq!(ticket.wait_blocking()?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn try_submit(
        &self,
        key: K,
        item: T,
    ) -> Result<KeyedTicket<K, T, R, E>, TrySubmitError<T>> {
        let terms = Terms {
            deadline: Deadline::NEVER,
            priority: Priority::Normal,
            must_fit: true,
            waker: None,
            origin: Origin::here(),
        };
        let hub = self.hub();
        match hub.place(key, item, terms) {
            Ok(found) => Ok(KeyedTicket::new(Arc::clone(hub), Spot::new(found))),
            Err(Refused::Closed(item)) => Err(TrySubmitError::Closed(item)),
            Err(Refused::Full(item)) => Err(TrySubmitError::Full(item)),
            Err(Refused::TooHeavy(item)) => Err(TrySubmitError::TooHeavy(item)),
        }
    }

    /// [`submit`](Self::submit) and [`wait_blocking`](KeyedSubmit::wait_blocking).
    ///
    /// # Errors
    /// As `submit`.
    ///
    /// # Panics
    /// On a thread that must not wait: a worker of this batcher, or an async context of tokio
    /// (with the feature `tokio`). A panic of the key's `Hash` or `Eq` passes to the caller.
    #[track_caller]
    pub fn submit_blocking(&self, key: K, item: T) -> Result<R, SubmitError<T, E>> {
        self.submit(key, item).wait_blocking()
    }
}

impl<K, T, R, E> KeyedBatcher<K, T, R, E> {
    fn new(hub: Arc<Hub<K, T, R, E>>, workers: Workers) -> Self {
        let workers = Mutex::new(workers);
        Self {
            handle: Arc::new(Handle { hub, workers }),
        }
    }

    fn hub(&self) -> &Arc<Hub<K, T, R, E>> {
        &self.handle.hub
    }

    /// Waits until everything submitted before has ended, of all keys. "Before" is before the future
    /// is first polled. Costs a place for each key that has items.
    ///
    /// Awaited inside the handler it waits for the very batch that the handler is to end: for ever.
    pub fn flush(&self) -> KeyedFlush<'_, K, T, R, E> {
        KeyedFlush::new(self)
    }

    /// [`flush`](Self::flush), waited for on this thread.
    ///
    /// # Panics
    /// On a thread that must not wait: a worker of this batcher, or an async context of tokio
    /// (with the feature `tokio`).
    #[track_caller]
    pub fn flush_blocking(&self) {
        self.flush().wait_blocking();
    }

    /// Takes no more items. Submitters who wait for room get theirs back; what was accepted is run.
    /// Idempotent. Takes each key's lock, as the drop of the last handle does.
    pub fn close(&self) {
        self.hub().close();
    }

    /// Whether it takes no more items.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.hub().is_closed()
    }

    /// Closes, and waits on this thread until everything accepted has ended, at most until the
    /// deadline (in real time). What has not ended by then is abandoned, as by
    /// [`Batcher::drain_blocking`](crate::Batcher::drain_blocking).
    ///
    /// # Panics
    /// As [`flush_blocking`](Self::flush_blocking).
    #[track_caller]
    pub fn drain_blocking(&self, deadline: impl Into<Deadline>) -> DrainReport {
        let deadline = deadline.into();
        workers::may_block(self.hub());
        let before = self.begin_drain();
        let watch = WatchAll::drained(self.hub());
        let ended = park::block_on(watch, || deadline.remaining());
        self.end_drain(before, ended.is_some())
    }

    /// [`drain_blocking`](Self::drain_blocking), and then waits for the workers to end, at most
    /// until the deadline. A worker thread is joined unless something was abandoned, since then a
    /// handler may be running that never ends. Of several that shut it down at the same time, one
    /// joins.
    ///
    /// # Panics
    /// As [`flush_blocking`](Self::flush_blocking).
    #[track_caller]
    pub fn shutdown_blocking(&self, deadline: impl Into<Deadline>) -> DrainReport {
        let deadline = deadline.into();
        let report = self.drain_blocking(deadline);
        if report.is_complete() {
            let watch = WatchEnd::new(self.hub());
            let ended = park::block_on(watch, || deadline.remaining());
            if ended.is_some() {
                Workers::join_threads(&self.handle.workers);
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
        let watch = WatchAll::drained(self.hub());
        let ended = crate::batcher::within(left, watch).await;
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
            let watch = WatchEnd::new(self.hub());
            let _in_time = crate::batcher::within(deadline.remaining(), watch).await;
        }
        report
    }

    /// The figures of all keys together, also of those that were forgotten. What adds up for a
    /// [`Batcher`](crate::Batcher) adds up here. Takes each live key's lock, one after the other:
    /// items that end meanwhile are counted by some keys' figures and not by others'.
    #[must_use]
    pub fn stats(&self) -> BatchStats {
        self.hub().stats()
    }

    /// As [`Batcher::report_metrics`](crate::Batcher::report_metrics), for all keys together.
    #[cfg(feature = "metrics")]
    pub fn report_metrics(&self) {
        crate::observe::report(self.name(), &self.stats());
    }

    /// How many keys are live: with items, or idle and kept.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.hub().keys()
    }

    /// How it does: [`Health::Degraded`] when three quarters of [`max_keys`](Self::max_keys) or more
    /// are in use, or of some key's capacity; [`Health::Unhealthy`] when it is closed. Takes the
    /// lock of each key in use.
    #[must_use]
    pub fn health(&self) -> Health {
        self.hub().health()
    }

    /// The label given to the builder.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.hub().rules.name
    }

    /// The most items in one batch.
    #[must_use]
    pub fn max_size(&self) -> usize {
        self.hub().rules.max_size
    }

    /// How many items of one key may wait for a batch before submitters wait for room.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.hub().rules.capacity
    }

    /// How many keys may be live.
    #[must_use]
    pub fn max_keys(&self) -> usize {
        self.hub().max_keys
    }

    fn begin_drain(&self) -> u64 {
        let before = self.hub().finished();
        self.close();
        before
    }

    fn end_drain(&self, before: u64, ended: bool) -> DrainReport {
        let abandoned = if ended { 0 } else { self.hub().abandon() };
        #[cfg(feature = "tokio")]
        if abandoned > 0 {
            Workers::abort_tasks(&self.handle.workers);
        }
        DrainReport::new(self.hub().finished() - before, abandoned)
    }
}

impl<K, T, R, E> Clone for KeyedBatcher<K, T, R, E> {
    fn clone(&self) -> Self {
        Self {
            handle: Arc::clone(&self.handle),
        }
    }
}

impl<K, T, R, E> Drop for Handle<K, T, R, E> {
    fn drop(&mut self) {
        self.hub.close();
    }
}

impl<K, T, R, E> fmt::Debug for KeyedBatcher<K, T, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedBatcher")
            .field("name", &self.name())
            .field("keys", &self.keys())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
