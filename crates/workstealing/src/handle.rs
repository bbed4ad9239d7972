//! The result of a task, to come.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use overdrive_core::Deadline;
use overdrive_core::unwind::survive;

use crate::context;
use crate::engine::Shared;
use crate::error::{PanicPayload, TaskError};
use crate::job::{Body, Fate, Latch, Outcome, Reason};
use crate::queue::Ticket;

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
    shared: Arc<Shared>,
    /// None if it did not go through the queue.
    ticket: Option<Ticket>,
    latch: Arc<Latch>,
    slot: Arc<Slot<T>>,
}

impl<T> TaskHandle<T> {
    pub(crate) fn new(
        shared: Arc<Shared>,
        ticket: Option<Ticket>,
        latch: Arc<Latch>,
        slot: Arc<Slot<T>>,
    ) -> Self {
        Self {
            shared,
            ticket,
            latch,
            slot,
        }
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
        if let (true, Some(ticket)) = (context::is_in_any(), self.ticket) {
            self.shared.claim_and_run(ticket);
        }
        self.latch.wait();
        self.slot.take()
    }

    /// Waits for the task to end, but no longer than that, in real time. It never runs the task
    /// here, which might take longer: on the only worker of its pool a queued task does not start
    /// before the time is up.
    ///
    /// # Errors
    /// The outer one is the handle, if the time was up. The inner one is as of [`join`](Self::join).
    pub fn join_timeout(self, timeout: Duration) -> Result<Result<T, TaskError>, Self> {
        if self.latch.wait_until(Deadline::from(timeout)) {
            Ok(self.slot.take())
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
            Ok(self.slot.take())
        } else {
            Err(self)
        }
    }

    /// Cancels the task if it has not started, drops its closure here, and says whether it did: the
    /// task will not run, and has ended with [`TaskError::Cancelled`]. A task that runs is left
    /// alone. Its place in the queue is free at once.
    pub fn cancel(&self) -> bool {
        let Some(ticket) = self.ticket else {
            return false;
        };
        let Some(job) = self.shared.claim(ticket) else {
            return false;
        };
        self.shared.settle(job, None, Some(Reason::Cancelled));
        true
    }

    /// Whether the task has ended, in whatever way.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.latch.is_set()
    }

    /// A handle whose drop cancels the task, if it has not started.
    pub fn cancel_on_drop(self) -> CancelOnDrop<T> {
        CancelOnDrop { handle: Some(self) }
    }
}

impl<T> Future for TaskHandle<T> {
    type Output = Result<T, TaskError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.latch.register(cx.waker()) {
            Poll::Ready(self.slot.take())
        } else {
            Poll::Pending
        }
    }
}

impl<T> Drop for TaskHandle<T> {
    fn drop(&mut self) {
        // Both are taken before either is dropped, which may panic.
        let left = self.slot.replace(Place::Left);
        let waker = self.latch.forget();
        drop((left, waker));
    }
}

impl<T> fmt::Debug for TaskHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskHandle")
            .field("pool", &self.shared.parts.name)
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

/// Where a result is put down for the handle. It is looked at only once the latch is set.
#[derive(Debug)]
pub(crate) struct Slot<T>(Mutex<Place<T>>);

#[derive(Debug)]
enum Place<T> {
    Empty,
    Result(Result<T, TaskError>),
    /// The handle took the result, or is gone.
    Left,
}

impl<T> Slot<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Place::Empty))
    }

    /// Gives the result back if nobody is there to take it.
    fn put(&self, result: Result<T, TaskError>) -> Option<Result<T, TaskError>> {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*place, Place::Left) {
            return Some(result);
        }
        *place = Place::Result(result);
        None
    }

    fn take(&self) -> Result<T, TaskError> {
        match self.replace(Place::Left) {
            Place::Result(result) => result,
            Place::Empty | Place::Left => panic!("a task's handle was polled after it was ready"),
        }
    }

    fn replace(&self, by: Place<T>) -> Place<T> {
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *place, by)
    }
}

/// The body of work with a result.
pub(crate) fn body<F, T>(f: F, slot: Arc<Slot<T>>) -> Body
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    Box::new(move |fate| {
        let (result, outcome) = match fate {
            Fate::Run => match catch_unwind(AssertUnwindSafe(f)) {
                Ok(value) => (Ok(value), Outcome::Completed),
                Err(payload) => {
                    let error = TaskError::Panicked(PanicPayload::new(payload));
                    (Err(error), Outcome::Panicked(None))
                }
            },
            Fate::Discard(reason) => {
                survive(|| drop(f));
                (Err(reason.into()), Outcome::Discarded(reason))
            }
        };
        match slot.put(result) {
            Some(Err(TaskError::Panicked(payload))) => Outcome::Panicked(Some(payload)),
            Some(unwanted) => {
                survive(|| drop(unwanted));
                outcome
            }
            None => outcome,
        }
    })
}

impl From<Reason> for TaskError {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Cancelled => Self::Cancelled,
            Reason::Abandoned => Self::Abandoned,
            Reason::Expired => Self::DeadlineExceeded,
        }
    }
}
