//! A task with a priority and a deadline.

use std::fmt;
use std::sync::Arc;

use overdrive_core::{Deadline, Priority};

use crate::cell::{Entry, TaskCell};
use crate::engine::Wait;
use crate::error::SpawnError;
use crate::handle::TaskHandle;
use crate::pool::ThreadPool;
use crate::queue::level_of;
use crate::raw::task::Task;

/// Says how a task is to be run, from [`ThreadPool::task`].
///
/// ```
/// use std::time::Duration;
/// use overdrive_workstealing::{Priority, ThreadPool};
///
/// let pool = ThreadPool::builder().workers(1).build()?;
/// let task = pool
///     .task()
///     .priority(Priority::High)
///     .deadline(Duration::from_secs(60))
///     .submit(|| "in time")?;
/// assert_eq!(task.join()?, "in time");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
#[must_use = "a task is nothing until it is spawned or submitted"]
pub struct TaskBuilder<'pool> {
    pool: &'pool ThreadPool,
    priority: Priority,
    deadline: Deadline,
}

impl<'pool> TaskBuilder<'pool> {
    pub(crate) fn new(pool: &'pool ThreadPool) -> Self {
        Self {
            pool,
            priority: Priority::Normal,
            deadline: Deadline::NEVER,
        }
    }

    /// Which of the waiting tasks come first. Default [`Priority::Normal`]. A lower task is not
    /// passed over for ever, see
    /// [`starvation_bound`](crate::ThreadPoolBuilder::starvation_bound).
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// When it is too late to start. Default: never.
    ///
    /// A task whose turn comes after that does not run: its closure is dropped and its handle
    /// gives [`TaskError::DeadlineExceeded`](crate::TaskError::DeadlineExceeded). If somebody waits
    /// for it, by [`join`](TaskHandle::join) or as a future, that comes at the deadline; for others
    /// it is found out when the turn comes. The first such future starts a thread,
    /// `overdrive-workstealing-keeper`. Once started, a task is not interrupted.
    ///
    /// The pool's clock decides. A duration counts from now in real time; for a pool with another
    /// clock use [`Deadline::after_on`]. Nobody can wait for such a clock, so there it is found out
    /// when the task's turn comes.
    pub fn deadline(mut self, deadline: impl Into<Deadline>) -> Self {
        self.deadline = deadline.into();
        self
    }

    /// See [`ThreadPool::spawn`].
    ///
    /// # Errors
    /// As there.
    pub fn spawn<F>(self, f: F) -> Result<(), SpawnError<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        self.detached(f, Wait::AsSaid)
    }

    /// See [`ThreadPool::try_spawn`].
    ///
    /// # Errors
    /// As there.
    pub fn try_spawn<F>(self, f: F) -> Result<(), SpawnError<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        self.detached(f, Wait::Never)
    }

    /// See [`ThreadPool::submit`].
    ///
    /// # Errors
    /// As there.
    pub fn submit<F, T>(self, f: F) -> Result<TaskHandle<T>, SpawnError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.with_handle(f, Wait::AsSaid)
    }

    /// See [`ThreadPool::try_submit`].
    ///
    /// # Errors
    /// As there.
    pub fn try_submit<F, T>(self, f: F) -> Result<TaskHandle<T>, SpawnError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.with_handle(f, Wait::Never)
    }

    /// See [`ThreadPool::spawn_or_run`].
    ///
    /// # Errors
    /// As there.
    pub fn spawn_or_run<F>(self, f: F) -> Result<(), SpawnError<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        self.detached(f, Wait::RunHere)
    }

    /// See [`ThreadPool::submit_or_run`].
    ///
    /// # Errors
    /// As there.
    pub fn submit_or_run<F, T>(self, f: F) -> Result<TaskHandle<T>, SpawnError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.with_handle(f, Wait::RunHere)
    }

    #[inline]
    fn detached<F>(self, f: F, wait: Wait) -> Result<(), SpawnError<F>>
    where
        F: FnOnce() + Send + 'static,
    {
        let shared = self.pool.shared();
        let level = level_of(self.priority);
        let deadline = self.deadline;
        if deadline == Deadline::NEVER {
            shared.admit(level, f, wait, |f| {
                (Task::new(move |call| call.detached(f)), ())
            })
        } else {
            shared.admit(level, f, wait, |f| {
                let task = Task::new(move |call| call.detached_until(deadline, f));
                (task, ())
            })
        }
    }

    fn with_handle<F, T>(self, f: F, wait: Wait) -> Result<TaskHandle<T>, SpawnError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let shared = self.pool.shared();
        let level = level_of(self.priority);
        shared.admit(level, f, wait, |f| {
            let cell = Arc::new(TaskCell::new(shared, level, self.deadline, f));
            let entry = Arc::clone(&cell);
            let task = Task::new(move |call| entry.call(call));
            (task, TaskHandle::new(cell))
        })
    }
}

impl fmt::Debug for TaskBuilder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskBuilder")
            .field("priority", &self.priority)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}
