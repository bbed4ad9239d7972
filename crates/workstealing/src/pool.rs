//! The pool.

use std::fmt;
use std::sync::{Arc, OnceLock};

use overdrive_core::{Deadline, DrainReport, Health};

use crate::builder::ThreadPoolBuilder;
use crate::engine::Shared;
use crate::error::SpawnError;
use crate::handle::TaskHandle;
use crate::raw::{context, fork};
use crate::scope::{self, Scope};
use crate::stats::ThreadPoolStats;
use crate::task::TaskBuilder;

/// A pool of worker threads. Clones are handles of the same pool.
///
/// ```
/// use overdrive_workstealing::ThreadPool;
///
/// let pool = ThreadPool::builder().name("thumbnails").workers(2).build()?;
///
/// let task = pool.submit(|| 6 * 7)?;      // with a result
/// pool.spawn(|| println!("without"))?;    // without
/// assert_eq!(task.join()?, 42);
///
/// let mut halves = [1, 2, 3, 4];          // borrowed data
/// let (low, high) = halves.split_at_mut(2);
/// pool.join(|| low[0] = 10, || high[0] = 30);
/// assert_eq!(halves, [10, 2, 30, 4]);
///
/// let report = pool.shutdown(std::time::Duration::from_secs(60));
/// assert!(report.is_complete());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # The end
///
/// [`shutdown`](Self::shutdown) ends it in an orderly manner. When the last handle is dropped
/// instead, the pool closes, what it has accepted still runs, and then its threads end by
/// themselves; the drop waits for nothing. A process that ends before them ends them, as it does
/// with all threads.
///
/// # Inside a pool
///
/// A thread is *inside* a pool while it is a worker of it, and while it is in
/// [`install`](Self::install), [`join`](Self::join) or [`scope`](Self::scope), or runs a task
/// itself because the queue was full. What would have to wait for itself there does not:
/// [`drain`](Self::drain), [`shutdown`](Self::shutdown) and [`wait_idle`](Self::wait_idle) of that
/// pool return at once, a [`join`](TaskHandle::join) of a queued task runs it, and
/// [`Overload::Wait`](crate::Overload::Wait) runs the task instead of waiting for room.
#[derive(Clone)]
pub struct ThreadPool {
    owner: Arc<Owner>,
}

/// Ends the pool when the last handle is gone.
struct Owner {
    shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl ThreadPool {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            owner: Arc::new(Owner { shared }),
        }
    }

    /// Sets a pool up. Every setting has a default.
    pub fn builder() -> ThreadPoolBuilder {
        ThreadPoolBuilder::new()
    }

    /// The pool of the free functions [`join`](crate::join()) and [`scope`](crate::scope()), for
    /// threads that are in no pool. It is built with the defaults and the name `"global"` when it is first
    /// asked for, and lasts as long as the process. The only global state of this crate.
    ///
    /// # Panics
    /// If its threads cannot be started.
    pub fn global() -> &'static Self {
        static GLOBAL: OnceLock<ThreadPool> = OnceLock::new();
        GLOBAL.get_or_init(|| {
            let built = Self::builder().name("global").build();
            built.expect("the threads of the global pool can be started")
        })
    }

    /// Has `f` run by a worker. Cost: no allocation for closures of up to four words, one for others;
    /// from a worker some ten nanoseconds, from outside a few atomic operations more, and the
    /// wake-up of a worker if all sleep.
    ///
    /// If the queue is full, [`Overload`](crate::Overload) decides. A panic in `f` is given to
    /// [`on_panic`](ThreadPoolBuilder::on_panic) and counted.
    ///
    /// # Errors
    /// The pool is closed, or its queue is full and it rejects then. The closure is in the error.
    pub fn spawn<F>(&self, f: F) -> Result<(), SpawnError<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        self.task().spawn(f)
    }

    /// As [`spawn`](Self::spawn), but neither waits nor runs `f` itself, whatever the policy.
    ///
    /// # Errors
    /// The pool is closed, or its queue is full. The closure is in the error.
    pub fn try_spawn<F>(&self, f: F) -> Result<(), SpawnError<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        self.task().try_spawn(f)
    }

    /// Has `f` run by a worker, and its result handed over. Cost: as [`spawn`](Self::spawn), an
    /// allocation, and a lock of the task's own.
    ///
    /// If the queue is full, [`Overload`](crate::Overload) decides.
    ///
    /// # Errors
    /// The pool is closed, or its queue is full and it rejects then. The closure is in the error.
    pub fn submit<F, T>(&self, f: F) -> Result<TaskHandle<T>, SpawnError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.task().submit(f)
    }

    /// As [`submit`](Self::submit), but neither waits nor runs `f` itself, whatever the policy.
    ///
    /// # Errors
    /// The pool is closed, or its queue is full. The closure is in the error.
    pub fn try_submit<F, T>(&self, f: F) -> Result<TaskHandle<T>, SpawnError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.task().try_submit(f)
    }

    /// As [`spawn`](Self::spawn), but runs `f` itself, right here, if the queue is full, whatever
    /// the policy.
    ///
    /// # Errors
    /// The pool is closed. The closure is in the error.
    pub fn spawn_or_run<F>(&self, f: F) -> Result<(), SpawnError<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        self.task().spawn_or_run(f)
    }

    /// As [`submit`](Self::submit), but runs `f` itself, right here, if the queue is full, whatever
    /// the policy.
    ///
    /// # Errors
    /// The pool is closed. The closure is in the error.
    pub fn submit_or_run<F, T>(&self, f: F) -> Result<TaskHandle<T>, SpawnError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.task().submit_or_run(f)
    }

    /// A task with a priority or a deadline, to be spawned or submitted.
    pub fn task(&self) -> TaskBuilder<'_> {
        TaskBuilder::new(self)
    }

    /// Runs both and returns both results: `a` on this thread, `b` on a worker, or on this thread
    /// after `a` if no worker has begun it by then. They may borrow. See [`join`](crate::join()).
    ///
    /// # Panics
    /// If one of them does: when both have ended, with the panic of `a` if both did.
    pub fn join<A, B, RA, RB>(&self, a: A, b: B) -> (RA, RB)
    where
        A: FnOnce() -> RA + Send,
        B: FnOnce() -> RB + Send,
        RA: Send,
        RB: Send,
    {
        let shared = self.shared();
        context::innermost(|frame| match frame {
            Some(frame) if Arc::ptr_eq(frame.shared, shared) => fork::join(frame, a, b),
            _ => shared.inside(|frame| fork::join(frame, a, b)),
        })
    }

    /// Runs `operation` on this thread, which may spawn work on borrowed data, and returns when all
    /// of that has ended. See [`scope`](crate::scope()).
    ///
    /// # Panics
    /// If the operation or a part does: when all have ended, with the operation's panic or else the
    /// first of a part.
    pub fn scope<'scope, F, R>(&self, operation: F) -> R
    where
        F: FnOnce(&Scope<'scope>) -> R,
    {
        scope::run(self.shared(), operation)
    }

    /// Runs `f` so that the free functions [`join`](crate::join()) and [`scope`](crate::scope()) in it
    /// use this pool. It runs on this very thread, next to the workers, whatever the queue holds:
    /// no thread is woken and none waits.
    ///
    /// # Panics
    /// If `f` does.
    pub fn install<F, R>(&self, f: F) -> R
    where
        F: FnOnce() -> R,
    {
        self.shared().inside(|_| f())
    }

    /// Accepts nothing any more, which is what [`SpawnError::Closed`] says. What was accepted runs
    /// nevertheless, and `join` and `scope` go on to work. Idempotent.
    pub fn close(&self) {
        self.shared().close();
    }

    /// Whether it accepts nothing any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared().is_closed()
    }

    /// Waits until every accepted task has ended, or for the deadline, in real time.
    ///
    /// It does not close the pool: with tasks coming in all the time it may never see an end.
    /// [`close`](Self::close) first, or use [`shutdown`](Self::shutdown). What had not ended at
    /// the deadline is *abandoned* by the waiting only: it still runs.
    ///
    /// Inside this pool it returns at once with what there is, as the caller would wait for
    /// itself.
    pub fn drain(&self, deadline: impl Into<Deadline>) -> DrainReport {
        self.shared().drain(deadline.into())
    }

    /// Closes the pool, waits until every accepted task has ended, and joins the threads. Of
    /// several that shut it down at the same time, one joins.
    ///
    /// At the deadline, in real time, what is still queued is dropped on this thread; its handles
    /// give [`TaskError::Abandoned`](crate::TaskError::Abandoned). What runs then is left to end, as no
    /// thread can be stopped, and the threads end after it. The parts of a running join or scope
    /// still run, on the thread that waits for them at the latest. All of these are reported as
    /// abandoned.
    ///
    /// Inside this pool it waits for nothing: it closes the pool and returns; unless the deadline
    /// has passed, what is queued still runs, and then the threads end.
    pub fn shutdown(&self, deadline: impl Into<Deadline>) -> DrainReport {
        self.shared().shutdown(deadline.into())
    }

    /// Waits until no task is queued or running, or for the deadline, in real time; says whether
    /// it came to that. Inside this pool it does not wait, and says how things are.
    pub fn wait_idle(&self, deadline: impl Into<Deadline>) -> bool {
        self.drain(deadline).is_complete()
    }

    /// The figures. Reads the counters of each worker; takes no lock.
    #[must_use]
    pub fn stats(&self) -> ThreadPoolStats {
        self.shared().stats()
    }

    /// How it does: [`Health::Degraded`] when the queue is three quarters full or more,
    /// [`Health::Unhealthy`] when it is closed.
    #[must_use]
    pub fn health(&self) -> Health {
        self.shared().health()
    }

    /// Its label.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared().parts.name
    }

    /// The least number of worker threads, which it was built with.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.shared().parts.workers
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.owner.shared
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPool")
            .field("name", &self.name())
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Runs both, if may be at once, and returns both results. They may borrow.
///
/// `b` is offered to the workers of the pool that this thread is in, or else of
/// [`ThreadPool::global`]; `a` runs on this thread. If no worker has begun `b` by then, it runs here
/// too. While this thread waits it runs nothing but parts of `b`, so nothing unrelated can meet a
/// lock that its callers hold. Do not let `a` wait for `b`: it may come after.
///
/// Cost: some nanoseconds if `b` runs here. The oldest open join of a thread is kept where others
/// find it; to wake one who sleeps for it costs microseconds, and is done less often if such joins
/// were over before anybody came. If `b` runs elsewhere, this thread waits for it with joins that
/// `b` makes (leapfrogging), and nothing else. A thread has 256 joins open for others; further ones
/// run in turn.
///
/// ```
/// fn sum(numbers: &[u64]) -> u64 {
///     if numbers.len() < 1000 {
///         return numbers.iter().sum();
///     }
///     let (left, right) = numbers.split_at(numbers.len() / 2);
///     let (left, right) = overdrive_workstealing::join(|| sum(left), || sum(right));
///     left + right
/// }
/// let numbers: Vec<u64> = (1..=10_000).collect();
/// assert_eq!(sum(&numbers), 50_005_000);
/// ```
///
/// # Panics
/// If one of them does: when both have ended, with the panic of `a` if both did. Or if the global
/// pool is needed and cannot be built.
#[inline]
pub fn join<A, B, RA, RB>(a: A, b: B) -> (RA, RB)
where
    A: FnOnce() -> RA + Send,
    B: FnOnce() -> RB + Send,
    RA: Send,
    RB: Send,
{
    context::innermost(|frame| match frame {
        Some(frame) => fork::join(frame, a, b),
        None => join_globally(a, b),
    })
}

/// Runs `operation` on this thread, which may spawn work on borrowed data, and returns when all of
/// that has ended.
///
/// The work is offered to the workers of the pool that this thread is in, or else of
/// [`ThreadPool::global`]. While this thread waits it runs what the scope has spawned, and nothing
/// else.
///
/// ```
/// let mut squares = [0; 8];
/// overdrive_workstealing::scope(|scope| {
///     for (n, square) in squares.iter_mut().enumerate() {
///         scope.spawn(move |_| *square = n * n);
///     }
/// });
/// assert_eq!(squares[7], 49);
/// ```
///
/// # Panics
/// If the operation or a part does: when all have ended, with the operation's panic or else the
/// first of a part. Or if the global pool is needed and cannot be built.
pub fn scope<'scope, F, R>(operation: F) -> R
where
    F: FnOnce(&Scope<'scope>) -> R,
{
    context::innermost(|frame| match frame {
        Some(frame) => scope::run(frame.shared, operation),
        None => ThreadPool::global().scope(operation),
    })
}

#[cold]
#[inline(never)]
fn join_globally<A, B, RA, RB>(a: A, b: B) -> (RA, RB)
where
    A: FnOnce() -> RA + Send,
    B: FnOnce() -> RB + Send,
    RA: Send,
    RB: Send,
{
    ThreadPool::global().join(a, b)
}
