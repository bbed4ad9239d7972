//! From the settings and a handler to a batcher that runs.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use overdrive_core::ConfigError;
use overdrive_core::clock::PreciseClock;

use super::BatcherBuilder;
use crate::batcher::{Batcher, Workers};
use crate::engine::Shared;
use crate::settings::Gather;
use crate::workers::{Handler, Place, join, spawn_thread};

impl<T: Send + 'static> BatcherBuilder<T> {
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
    /// while nobody is at it calls the handler there and then, and goes on to run what came meanwhile.
    /// After 16 batches and a fifth of what was there it leaves the rest to those who are known to
    /// wait, if anybody is (flat combining: Hendler, Incze, Shavit, Tzafrir 2010). Up to [`workers`](Self::workers) submitters do so at a time.
    ///
    /// A lone item costs no more than the call and the lock, and no thread is woken for it. In
    /// exchange a submitter's thread, or task, is kept by the handler, also for others' items; the
    /// handler should be quick, such as one that appends to a buffer or holds a lock that all want.
    /// `try_submit` calls it too, as may whatever else waits for, or ends, the batcher or an item:
    /// `flush`, `drain`, `close`, and the drop of a submit, a ticket, or the last handle. What a handler
    /// submits to its own batcher is run after it, not within it.
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
        let handler = Handler {
            at_hand: || Some(()),
            acquire: || Ok(()),
            call: move |(), items| handler(items),
        };
        let core = crate::inline::employ_submitters(&shared, handler);
        Ok(Batcher::new(shared, Workers::Submitters(Some(core))))
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
            if std::panic::catch_unwind(|| drop(tokio::time::sleep(std::time::Duration::ZERO)))
                .is_err()
            {
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
