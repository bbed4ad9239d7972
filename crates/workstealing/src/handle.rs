//! The result of a task, to come.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use overdrive_core::Deadline;

use crate::call::Reason;
use crate::cell::Awaited;
use crate::error::TaskError;
use crate::keeper::{self, Key};
use crate::raw::context;

/// A submitted task: to be waited for by a thread ([`join`](Self::join)) or by an async task (it is
/// a future), cancelled, or forgotten. Dropping it detaches the task, which runs nevertheless.
///
/// ```
/// use overdrive_workstealing::ThreadPool;
///
/// let pool = ThreadPool::builder().workers(2).build()?;
/// let task = pool.submit(|| (1..=10).product::<u64>())?;
/// assert_eq!(task.join()?, 3_628_800);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Cancel safety
/// As a future it may be dropped at any time; the task runs on, and its result is dropped. To
/// cancel it then, see [`cancel_on_drop`](Self::cancel_on_drop).
///
/// # Panics
/// When polled after it was ready.
#[must_use = "dropping the handle detaches the task; its result and its panic are lost"]
pub struct TaskHandle<T> {
    cell: Arc<dyn Awaited<T> + Send + Sync>,
    /// At the keeper, once it is awaited and has a deadline.
    timer: Option<Key>,
}

impl<T> TaskHandle<T> {
    pub(crate) fn new(cell: Arc<dyn Awaited<T> + Send + Sync>) -> Self {
        Self { cell, timer: None }
    }

    /// Waits for the task to end.
    ///
    /// Inside a pool (on a worker of any [`ThreadPool`](crate::ThreadPool), in
    /// [`install`](crate::ThreadPool::install), [`join`](crate::join) or
    /// [`scope`](crate::scope)) a task that is still queued runs right here, in the place of
    /// waiting; no other task does. So a worker may wait for what it has submitted, even the only
    /// one. Tasks that wait for each other in a circle wait for ever, as they would as threads.
    ///
    /// # Errors
    /// The task panicked, or did not run.
    pub fn join(self) -> Result<T, TaskError> {
        if context::is_in_any() {
            self.cell.claim(None);
        }
        self.wait_until(Deadline::NEVER);
        self.cell.take()
    }

    /// Waits for the task to end, but no longer than that, in real time. It never runs the task
    /// here, which might take longer: on the only worker of its pool a queued task does not start
    /// before the time is up.
    ///
    /// # Errors
    /// The outer one is the handle, if the time was up. The inner one is as of [`join`](Self::join).
    pub fn join_timeout(self, timeout: Duration) -> Result<Result<T, TaskError>, Self> {
        if self.wait_until(Deadline::from(timeout)) {
            Ok(self.cell.take())
        } else {
            Err(self)
        }
    }

    /// The result, if the task has ended. Never blocks.
    ///
    /// # Errors
    /// The outer one is the handle, if it has not. The inner one is as of [`join`](Self::join).
    pub fn try_join(self) -> Result<Result<T, TaskError>, Self> {
        if self.is_finished() {
            Ok(self.cell.take())
        } else {
            Err(self)
        }
    }

    /// Cancels the task if it has not started, drops its closure here, and says whether it did: the
    /// task will not run, and has ended with [`TaskError::Cancelled`]. A task that runs is left
    /// alone. Its place in the queue is free at once.
    pub fn cancel(&self) -> bool {
        self.cell.claim(Some(Reason::Cancelled))
    }

    /// Whether the task has ended, in whatever way.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.cell.is_over()
    }

    /// Whether it is over by then. The task's own deadline is kept while waiting.
    fn wait_until(&self, limit: Deadline) -> bool {
        let own = self.cell.deadline();
        if own < limit && self.cell.shared().is_real_time() {
            if self.cell.wait(own) {
                return true;
            }
            self.cell.expire();
        }
        self.cell.wait(limit)
    }

    /// A handle whose drop cancels the task, if it has not started.
    pub fn cancel_on_drop(self) -> CancelOnDrop<T> {
        CancelOnDrop { handle: Some(self) }
    }
}

impl<T> Future for TaskHandle<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.cell.register(cx.waker()) {
            return Poll::Ready(self.cell.take());
        }
        let deadline = self.cell.deadline();
        let shared = self.cell.shared();
        if self.timer.is_none() && deadline != Deadline::NEVER && shared.is_real_time() {
            let entry = Arc::downgrade(&Arc::clone(&self.cell).entry());
            self.timer = Some(keeper::remind(shared, deadline, entry));
        }
        Poll::Pending
    }
}

impl<T> Drop for TaskHandle<T> {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.cell.shared().keeper.forget(timer);
        }
        self.cell.detach();
    }
}

impl<T> fmt::Debug for TaskHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskHandle")
            .field("pool", &self.cell.shared().parts.name)
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

/// A [`TaskHandle`] whose drop cancels the task, if it has not started. A future like it.
///
/// # Cancel safety
/// Dropping it is what cancels.
///
/// # Panics
/// When polled after it was ready.
#[must_use = "dropping it cancels the task"]
pub struct CancelOnDrop<T> {
    /// Taken by `into_handle` only, which consumes it.
    handle: Option<TaskHandle<T>>,
}

impl<T> CancelOnDrop<T> {
    /// The plain handle, whose drop detaches the task.
    pub fn into_handle(mut self) -> TaskHandle<T> {
        self.handle.take().expect("it is taken here only")
    }
}

impl<T> Deref for CancelOnDrop<T> {
    type Target = TaskHandle<T>;

    fn deref(&self) -> &TaskHandle<T> {
        self.handle.as_ref().expect("it is taken at the end only")
    }
}

impl<T> Future for CancelOnDrop<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let handle = self.handle.as_mut().expect("it is taken at the end only");
        Pin::new(handle).poll(cx)
    }
}

impl<T> Drop for CancelOnDrop<T> {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.cancel();
        }
    }
}

impl<T> fmt::Debug for CancelOnDrop<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelOnDrop").field(&self.handle).finish()
    }
}
