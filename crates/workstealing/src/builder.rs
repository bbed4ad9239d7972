//! The set-up of a pool.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use overdrive_core::clock::PreciseClock;
use overdrive_core::{Clock, ConfigError};

use crate::engine::{PanicHandler, Parts, Shared};
use crate::error::PanicPayload;
use crate::keeper;
use crate::pool::ThreadPool;
use crate::scaler::{QueueDelay, Scaler};
use crate::settings::ThreadPoolSettings;

/// The bound of the queue when none is given.
pub const DEFAULT_CAPACITY: usize = 1 << 16;

/// The largest accepted bound of the queue.
pub const MAX_CAPACITY: usize = 1 << 26;

/// The largest accepted number of workers.
pub const MAX_WORKERS: usize = 4096;

/// The threads there may be in the place of workers that block, when nothing is said.
pub const DEFAULT_SPARE_WORKERS: usize = 16;

/// After how long without work a worker beyond the least number ends, when nothing is said.
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How often the scaler is asked when nothing is said.
pub const DEFAULT_SCALING_INTERVAL: Duration = Duration::from_millis(10);

/// The smallest accepted stack of a worker, in bytes.
pub const MIN_STACK_SIZE: usize = 1 << 16;

/// The largest accepted stack of a worker, in bytes.
pub const MAX_STACK_SIZE: usize = 1 << 30;

/// How many higher tasks may pass over a waiting lower one when nothing is said.
pub const DEFAULT_STARVATION_BOUND: NonZeroU32 = NonZeroU32::new(61).unwrap();

/// What `spawn` and `submit` do when the queue is full. The `try_` forms refuse whatever the
/// policy; the parts of a join or a scope run at once, on the thread that spawns them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Overload {
    /// The task is given back, with [`SpawnError::Full`](crate::SpawnError::Full).
    #[default]
    Reject,
    /// The caller waits for room, or for the pool to close. A thread that is inside a pool, which
    /// might be what the queue waits for, runs the task itself instead.
    Wait,
    /// As [`Wait`](Self::Wait), but no longer than that, in real time; then the task is given back,
    /// with [`SpawnError::Full`](crate::SpawnError::Full).
    WaitFor(Duration),
    /// The caller runs the task itself. So do not hold a lock over `spawn` that the task takes
    /// too.
    CallerRuns,
}

/// Sets a [`ThreadPool`] up.
///
/// ```
/// use overdrive_workstealing::{ConfigError, ThreadPool};
///
/// let refused = ThreadPool::builder().workers(0).build();
/// assert_eq!(refused.unwrap_err(), ConfigError::Zero { field: "workers" });
/// ```
#[must_use = "a builder does nothing until `build`"]
pub struct ThreadPoolBuilder {
    name: Cow<'static, str>,
    workers: Option<usize>,
    max_workers: Option<usize>,
    spare_workers: usize,
    idle_timeout: Duration,
    scaler: Option<Box<dyn Scaler>>,
    scaling_interval: Duration,
    capacity: usize,
    overload: Overload,
    stack_size: Option<usize>,
    starvation_bound: NonZeroU32,
    on_panic: Option<PanicHandler>,
    clock: Option<Box<dyn Clock>>,
}

impl ThreadPoolBuilder {
    pub(crate) fn new() -> Self {
        Self {
            name: Cow::Borrowed("thread pool"),
            workers: None,
            max_workers: None,
            spare_workers: DEFAULT_SPARE_WORKERS,
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            scaler: None,
            scaling_interval: DEFAULT_SCALING_INTERVAL,
            capacity: DEFAULT_CAPACITY,
            overload: Overload::default(),
            stack_size: None,
            starvation_bound: DEFAULT_STARVATION_BOUND,
            on_panic: None,
            clock: None,
        }
    }

    /// A label for figures. Default `"thread pool"`.
    pub fn name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.name = name.into();
        self
    }

    /// The number of worker threads, `overdrive-workstealing-<n>`. Default:
    /// [`available_parallelism`], which heeds the quota of a container.
    pub fn workers(mut self, n: usize) -> Self {
        self.workers = Some(n);
        self
    }

    /// The most workers there may be, at least [`workers`](Self::workers). Default: as many as
    /// those, so that the number is fixed.
    ///
    /// If it is more, one thread more, `overdrive-workstealing-keeper`, looks at the pool every
    /// [`scaling_interval`](Self::scaling_interval) while there is work, and starts workers when
    /// the [`Scaler`] says so. Those that have nothing to do for the
    /// [`idle_timeout`](Self::idle_timeout) end.
    pub fn max_workers(mut self, n: usize) -> Self {
        self.max_workers = Some(n);
        self
    }

    /// How many threads there may be beside those, in the place of workers that are in
    /// [`blocking`](crate::blocking()). They are started when they are needed. Default
    /// [`DEFAULT_SPARE_WORKERS`].
    pub fn spare_workers(mut self, n: usize) -> Self {
        self.spare_workers = n;
        self
    }

    /// After how long without work a worker ends, if there are more than
    /// [`workers`](Self::workers). Default [`DEFAULT_IDLE_TIMEOUT`].
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// What decides how many workers there are, if there may be different numbers. Default
    /// [`QueueDelay`].
    pub fn scaler(mut self, scaler: impl Scaler) -> Self {
        self.scaler = Some(Box::new(scaler));
        self
    }

    /// How often the scaler is asked while there is work. Default [`DEFAULT_SCALING_INTERVAL`].
    pub fn scaling_interval(mut self, interval: Duration) -> Self {
        self.scaling_interval = interval;
        self
    }

    /// The most tasks that wait for a worker, of all priorities together; parts of a scope count,
    /// those of a join do not. Default [`DEFAULT_CAPACITY`]. The memory is taken as it is needed.
    ///
    /// Workers take and give places in blocks if there are many: a block is the sixteenth part of
    /// a worker's share, 64 places at most, and a worker holds less than two. So the queue may count
    /// as full when it holds an eighth less. With fewer than 32 places for each thread it is
    /// exact.
    pub fn capacity(mut self, n: usize) -> Self {
        self.capacity = n;
        self
    }

    /// What happens when the queue is full. Default [`Overload::Reject`].
    pub fn overload(mut self, policy: Overload) -> Self {
        self.overload = policy;
        self
    }

    /// The stack of each worker, in bytes. Default: that of the standard library, 2 MiB.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes);
        self
    }

    /// How many higher tasks in a row may be taken while a lower one waits; then the lower one is
    /// taken. Default [`DEFAULT_STARVATION_BOUND`]. It counts for each worker: with `n` workers a task
    /// at the head of its level begins after at most `n` times as many higher ones.
    pub fn starvation_bound(mut self, tasks: NonZeroU32) -> Self {
        self.starvation_bound = tasks;
        self
    }

    /// What is done about a panic that nobody else is told of: of a spawned task, or of a submitted
    /// one whose handle was dropped before. It runs on the thread that ran the task, which counts
    /// as running until it returns. A panic of its own is caught.
    ///
    /// Default: nothing more than the process's panic hook, which has reported it by then, and the
    /// count.
    pub fn on_panic(mut self, handler: impl Fn(&PanicPayload) + Send + Sync + 'static) -> Self {
        self.on_panic = Some(Box::new(handler));
        self
    }

    /// The clock by which the deadlines of tasks are judged. Default: real time.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Box::new(clock));
        self
    }

    /// Takes `workers`, `max_workers` and `capacity` from a plain value.
    pub fn settings(mut self, settings: ThreadPoolSettings) -> Self {
        self.workers = settings.workers;
        self.max_workers = settings.max_workers;
        self.capacity = settings.capacity;
        self
    }

    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// The first setting that cannot be: zero, but for `spare_workers`; more `workers` than
    /// `max_workers`; more than [`MAX_WORKERS`], [`MAX_CAPACITY`] or [`MAX_STACK_SIZE`]; a stack below
    /// [`MIN_STACK_SIZE`]; a thread that cannot be started, in which case those that were have
    /// ended.
    pub fn build(self) -> Result<ThreadPool, ConfigError> {
        let workers = match self.workers {
            None => available_parallelism()
                .map_or(1, usize::from)
                .min(MAX_WORKERS),
            Some(n) => n,
        };
        within("workers", workers, 1, MAX_WORKERS)?;
        let max_workers = self.max_workers.unwrap_or(workers);
        within("max_workers", max_workers, 1, MAX_WORKERS)?;
        if workers > max_workers {
            return Err(ConfigError::Contradiction {
                field: "workers",
                other: "max_workers",
                reason: "must not exceed",
            });
        }
        ConfigError::at_most("spare_workers", self.spare_workers, MAX_WORKERS)?;
        not_zero("idle_timeout", self.idle_timeout)?;
        not_zero("scaling_interval", self.scaling_interval)?;
        within("capacity", self.capacity, 1, MAX_CAPACITY)?;
        if let Some(bytes) = self.stack_size {
            within("stack_size", bytes, MIN_STACK_SIZE, MAX_STACK_SIZE)?;
        }
        let shared = Shared::new(Parts {
            name: self.name,
            workers,
            max_workers,
            spare_workers: self.spare_workers,
            idle_timeout: self.idle_timeout,
            scaling_interval: self.scaling_interval,
            capacity: self.capacity,
            overload: self.overload,
            stack_size: self.stack_size,
            starvation_bound: self.starvation_bound,
            on_panic: self.on_panic,
            real_time: self.clock.is_none(),
            clock: self.clock.unwrap_or_else(|| Box::new(PreciseClock)),
        });
        start(&shared, |shared| shared.start_thread())?;
        if max_workers > workers {
            let scaler = self.scaler;
            let scaler = scaler.unwrap_or_else(|| Box::new(QueueDelay::default()));
            keeper::start(&shared, Some(scaler))?;
        }
        Ok(ThreadPool::new(shared))
    }
}

impl fmt::Debug for ThreadPoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPoolBuilder")
            .field("name", &self.name)
            .field("workers", &self.workers)
            .field("capacity", &self.capacity)
            .field("overload", &self.overload)
            .field("stack_size", &self.stack_size)
            .field("starvation_bound", &self.starvation_bound)
            .finish_non_exhaustive()
    }
}

fn not_zero(field: &'static str, duration: Duration) -> Result<(), ConfigError> {
    if duration.is_zero() {
        return Err(ConfigError::Zero { field });
    }
    Ok(())
}

fn within(field: &'static str, value: usize, min: usize, max: usize) -> Result<(), ConfigError> {
    let wide = |n| u64::try_from(n).unwrap_or(u64::MAX);
    if value == 0 {
        return Err(ConfigError::Zero { field });
    }
    if value < min {
        return Err(ConfigError::TooSmall {
            field,
            value: wide(value),
            min: wide(min),
        });
    }
    if value > max {
        return Err(ConfigError::TooLarge {
            field,
            value: wide(value),
            max: wide(max),
        });
    }
    Ok(())
}

/// Starts the workers; if one cannot be, those that were have ended when this returns.
fn start(
    shared: &Arc<Shared>,
    start_one: impl Fn(&Arc<Shared>) -> io::Result<bool>,
) -> Result<(), ConfigError> {
    for _ in 0..shared.parts.workers {
        if let Err(error) = start_one(shared) {
            shared.end();
            for thread in shared.take_threads() {
                // A worker without work does not panic.
                let _ = thread.join();
            }
            return Err(ConfigError::Thread {
                field: "workers",
                kind: error.kind(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::sync::spawn_thread;

    #[test]
    fn bad_settings_are_refused() {
        let field = |builder: ThreadPoolBuilder| builder.build().unwrap_err().field();
        let builder = ThreadPool::builder;
        assert_eq!(field(builder().workers(0)), "workers");
        assert_eq!(field(builder().workers(MAX_WORKERS + 1)), "workers");
        assert_eq!(field(builder().capacity(0)), "capacity");
        assert_eq!(field(builder().capacity(usize::MAX)), "capacity");
        assert_eq!(field(builder().stack_size(0)), "stack_size");
        assert_eq!(field(builder().stack_size(1)), "stack_size");
        assert_eq!(field(builder().stack_size(usize::MAX)), "stack_size");
    }

    #[test]
    fn extremes_that_are_allowed_build() {
        let built = ThreadPool::builder()
            .workers(1)
            .capacity(MAX_CAPACITY)
            .stack_size(MIN_STACK_SIZE)
            .starvation_bound(NonZeroU32::MAX)
            .build();
        assert_eq!(built.unwrap().submit(|| 1).unwrap().join().unwrap(), 1);
    }

    #[test]
    fn when_a_thread_cannot_be_started_the_others_have_ended() {
        let shared = Shared::new(Parts {
            name: "test".into(),
            workers: 3,
            max_workers: 3,
            spare_workers: 0,
            idle_timeout: Duration::from_secs(60),
            scaling_interval: Duration::from_millis(10),
            capacity: 1,
            overload: Overload::Reject,
            stack_size: None,
            starvation_bound: DEFAULT_STARVATION_BOUND,
            on_panic: None,
            clock: Box::new(PreciseClock),
            real_time: true,
        });
        let ended = Arc::new(AtomicUsize::new(0));
        let result = start(&shared, |shared| {
            shared.start_worker(|shared, n| {
                if n == 2 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                let ended = Arc::clone(&ended);
                spawn_thread("test".into(), None, move || {
                    shared.work(n);
                    ended.fetch_add(1, Ordering::Relaxed);
                })
            })
        });
        let expected = ConfigError::Thread {
            field: "workers",
            kind: io::ErrorKind::WouldBlock,
        };
        assert_eq!(result.unwrap_err(), expected);
        assert_eq!(ended.load(Ordering::Relaxed), 2);
        assert_eq!(Arc::strong_count(&shared), 1);
    }
}
