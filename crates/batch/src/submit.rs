//! The futures of submitted items.

mod all;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use overdrive_core::{Deadline, Priority};

use crate::batcher::Batcher;
use crate::cell::Placed;
use crate::engine::{Shared, Terms};
use crate::error::SubmitError;
use crate::observe::Origin;
use crate::workers;

pub use self::all::SubmitAll;

/// The future of [`Batcher::submit`]: the item's own result.
///
/// Lazy: the item is submitted when the future is first polled. It works under any executor.
///
/// # Cancel safety
/// Dropped before the item's batch is closed, the item is dropped with it and never reaches the
/// handler. Dropped later, the item is processed and its result dropped. The other items of the
/// batch do not notice; the batch keeps its place for the item, so it may run smaller.
#[must_use = "futures do nothing unless polled"]
pub struct Submit<'a, T, R, E> {
    batcher: &'a Batcher<T, R, E>,
    submission: Submission<T, E>,
}

/// The future of [`Batcher::submit_owned`]: as [`Submit`], with a handle of the batcher.
///
/// # Cancel safety
/// As of [`Submit`].
#[must_use = "futures do nothing unless polled"]
pub struct SubmitOwned<T, R, E> {
    // First, so that the item is withdrawn before what may be the last handle goes.
    submission: Submission<T, E>,
    batcher: Batcher<T, R, E>,
}

/// An item that [`Batcher::try_submit`] has accepted: the future of its result.
///
/// It is no handle of the batcher, and does not keep it open.
///
/// # Cancel safety
/// Dropping it withdraws the item, as dropping a [`Submit`] does; [`detach`](Self::detach) leaves
/// the item to be processed without anybody waiting for it.
#[must_use = "dropping a ticket withdraws the item; `detach` does not"]
pub struct Ticket<T, R, E> {
    shared: Arc<Shared<T, R, E>>,
    placed: Option<Placed>,
}

/// An item on its way. Whoever owns it has to call `withdraw` at its end.
struct Submission<T, E> {
    deadline: Deadline,
    priority: Priority,
    /// Whether it has been announced and not yet come.
    announced: bool,
    /// Until it is submitted.
    item: Option<T>,
    stage: Stage<T, E>,
}

enum Stage<T, E> {
    Placed(Placed),
    Refused(SubmitError<T, E>),
    Over,
}

impl<T, E> Submission<T, E> {
    fn new(item: T) -> Self {
        Self {
            deadline: Deadline::NEVER,
            priority: Priority::Normal,
            announced: false,
            item: Some(item),
            stage: Stage::Over,
        }
    }

    /// Submits the item, if it has not been; whether it has just been.
    #[inline]
    fn place<R>(&mut self, shared: &Shared<T, R, E>, waker: &Waker) -> bool {
        match self.item.take() {
            None => false,
            Some(item) => self.place_item(item, shared, waker),
        }
    }

    fn place_item<R>(&mut self, item: T, shared: &Shared<T, R, E>, waker: &Waker) -> bool {
        if self.has_expired(shared) {
            shared.came_late();
            self.stage = Stage::Refused(SubmitError::DeadlineExceeded(item));
            self.come(shared);
            return false;
        }
        let terms = Terms {
            deadline: self.deadline,
            priority: self.priority,
            must_fit: false,
            // Who may be the worker does not wake itself; it looks for its outcome and registers then.
            waker: (!shared.rules.inline).then(|| waker.clone()),
            origin: Origin::here(),
        };
        self.stage = match shared.place(item, terms) {
            Ok(placed) => Stage::Placed(placed),
            Err(refused) => Stage::Refused(refused.into()),
        };
        self.come(shared);
        matches!(self.stage, Stage::Placed(_))
    }

    /// Is not waited for any more, if it was announced.
    fn come<R>(&mut self, shared: &Shared<T, R, E>) {
        if std::mem::take(&mut self.announced) {
            shared.came();
        }
    }

    fn poll<R>(
        &mut self,
        shared: &Shared<T, R, E>,
        cx: &Context<'_>,
    ) -> Poll<Result<R, SubmitError<T, E>>> {
        if self.place(shared, cx.waker()) && !shared.rules.inline {
            return Poll::Pending;
        }
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Placed(placed) => match shared.fetch(placed) {
                Ok(slot) => Poll::Ready(slot.into_outcome()),
                Err(placed) => self.wait(shared, placed, cx),
            },
            Stage::Refused(error) => Poll::Ready(Err(error)),
            _ => panic!("polled after completion"),
        }
    }

    /// Goes on to wait for the outcome, unless the deadline has passed.
    #[cold]
    fn wait<R>(
        &mut self,
        shared: &Shared<T, R, E>,
        placed: Placed,
        cx: &Context<'_>,
    ) -> Poll<Result<R, SubmitError<T, E>>> {
        let placed = match shared.poll(placed, cx) {
            Ok(outcome) => return Poll::Ready(outcome),
            Err(placed) => placed,
        };
        self.stage = if self.has_expired(shared) {
            match shared.expire(placed) {
                Ok(item) => return Poll::Ready(Err(SubmitError::DeadlineExceeded(item))),
                Err(placed) => Stage::Placed(placed),
            }
        } else {
            Stage::Placed(placed)
        };
        Poll::Pending
    }

    fn has_expired<R>(&self, shared: &Shared<T, R, E>) -> bool {
        self.deadline.has_passed_on(&*shared.rules.clock)
    }

    fn left<R>(deadline: Deadline, shared: &Shared<T, R, E>) -> Duration {
        deadline.remaining_on(&*shared.rules.clock)
    }

    #[inline]
    fn withdraw<R>(&mut self, shared: &Shared<T, R, E>) {
        if self.announced || !matches!(self.stage, Stage::Over) {
            self.withdraw_item(shared);
        }
    }

    #[cold]
    fn withdraw_item<R>(&mut self, shared: &Shared<T, R, E>) {
        self.come(shared);
        if let Stage::Placed(placed) = std::mem::replace(&mut self.stage, Stage::Over) {
            shared.withdraw(placed);
        }
    }
}

impl<'a, T, R, E> Submit<'a, T, R, E> {
    pub(crate) fn new(batcher: &'a Batcher<T, R, E>, item: T) -> Self {
        Self {
            batcher,
            submission: Submission::new(item),
        }
    }

    pub(crate) fn announced(batcher: &'a Batcher<T, R, E>, item: T) -> Self {
        let mut submit = Self::new(batcher, item);
        submit.submission.announced = true;
        submit
    }

    /// Gives the item that long to get into a batch, by the batcher's clock. A
    /// [`Duration`] counts from now, in real time.
    ///
    /// An item whose deadline has passed when its batch is closed is left out of it, and its
    /// submitter gets [`SubmitError::DeadlineExceeded`] with the item. The deadline is also looked
    /// at whenever this future is polled, and closes no batch: a deadline shorter than a
    /// [linger](crate::Gather::Linger) passes while a worker is free. It sets no timer, so while all workers are busy nobody
    /// wakes the submitter at that very moment. [`wait_blocking`](Self::wait_blocking) does; a
    /// task that must go on then puts a timer of its runtime around this future, since dropping
    /// it withdraws the item. Once the batch is closed, the deadline means nothing.
    pub fn deadline(mut self, deadline: impl Into<Deadline>) -> Self {
        self.submission.deadline = deadline.into();
        self
    }

    /// How urgent the item is. Items of one priority gather in batches of their own. A free worker
    /// takes the most urgent batch first, and others with it as long as they fit in as a whole; so a
    /// few urgent items in front of a full batch are run without it. One batch in eight begins with
    /// what has waited longest, so that nothing waits for ever. Default [`Priority::Normal`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.submission.priority = priority;
        self
    }

    /// Waits for the result on this thread. Without a runtime, with either kind of handler.
    ///
    /// # Errors
    /// As the future's. A passed [`deadline`](Self::deadline) ends the wait at that moment, unless
    /// the item's batch has been closed.
    ///
    /// # Panics
    /// On a thread that must not wait: a worker of this batcher, or an async context of tokio
    /// (with the feature `tokio`).
    ///
    /// ```
    /// use std::convert::Infallible;
    /// use std::time::Duration;
    /// use overdrive_batch::Batcher;
    ///
    /// let double = Batcher::builder()
    ///     .build_sync(|items: Vec<u64>| Ok::<_, Infallible>(items.iter().map(|n| n * 2).collect()))?;
    /// let result = double.submit(21).deadline(Duration::from_secs(5)).wait_blocking();
    /// assert_eq!(result.unwrap(), 42);
    /// # Ok::<(), overdrive_batch::ConfigError>(())
    /// ```
    #[track_caller]
    pub fn wait_blocking(mut self) -> Result<R, SubmitError<T, E>> {
        let shared = self.batcher.shared();
        workers::may_block(shared);
        let deadline = self.submission.deadline;
        let left = || Submission::<T, E>::left(deadline, shared);
        // After the deadline it is in a batch, or over.
        crate::park::block_on(&mut self, left)
            .unwrap_or_else(|| crate::park::block_on_forever(&mut self))
    }
}

impl<T, R, E> SubmitOwned<T, R, E> {
    pub(crate) fn new(batcher: Batcher<T, R, E>, item: T) -> Self {
        Self {
            submission: Submission::new(item),
            batcher,
        }
    }

    /// See [`Submit::deadline`].
    pub fn deadline(mut self, deadline: impl Into<Deadline>) -> Self {
        self.submission.deadline = deadline.into();
        self
    }

    /// See [`Submit::priority`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.submission.priority = priority;
        self
    }
}

impl<T, R, E> Ticket<T, R, E> {
    pub(crate) fn new(shared: Arc<Shared<T, R, E>>, placed: Placed) -> Self {
        Self {
            shared,
            placed: Some(placed),
        }
    }

    /// Waits for the result on this thread.
    ///
    /// # Errors
    /// As the future's.
    ///
    /// # Panics
    /// As [`Submit::wait_blocking`].
    #[track_caller]
    pub fn wait_blocking(self) -> Result<R, SubmitError<T, E>> {
        workers::may_block(&self.shared);
        crate::park::block_on_forever(self)
    }

    /// Leaves the item to be processed; its result will be dropped. So will be the item, without a
    /// word, if it is shed or abandoned.
    pub fn detach(mut self) {
        if let Some(placed) = self.placed.take() {
            self.shared.detach(placed);
        }
    }
}

// The items are never pinned.
impl<T, R, E> Unpin for Submit<'_, T, R, E> {}
impl<T, R, E> Unpin for SubmitOwned<T, R, E> {}

impl<T, R, E> Future for Submit<'_, T, R, E> {
    type Output = Result<R, SubmitError<T, E>>;

    /// # Panics
    /// When polled after completion.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let shared = self.batcher.shared();
        self.submission.poll(shared, cx)
    }
}

impl<T, R, E> Future for SubmitOwned<T, R, E> {
    type Output = Result<R, SubmitError<T, E>>;

    /// # Panics
    /// When polled after completion.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.submission.poll(this.batcher.shared(), cx)
    }
}

impl<T, R, E> Future for Ticket<T, R, E> {
    type Output = Result<R, SubmitError<T, E>>;

    /// # Panics
    /// When polled after completion.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let placed = self.placed.take().expect("polled after completion");
        match self.shared.poll(placed, cx) {
            Ok(outcome) => Poll::Ready(outcome),
            Err(placed) => {
                self.placed = Some(placed);
                Poll::Pending
            }
        }
    }
}

impl<T, R, E> Drop for Submit<'_, T, R, E> {
    fn drop(&mut self) {
        let shared = self.batcher.shared();
        self.submission.withdraw(shared);
    }
}

impl<T, R, E> Drop for SubmitOwned<T, R, E> {
    fn drop(&mut self) {
        self.submission.withdraw(self.batcher.shared());
    }
}

impl<T, R, E> Drop for Ticket<T, R, E> {
    fn drop(&mut self) {
        if let Some(placed) = self.placed.take() {
            self.shared.withdraw(placed);
        }
    }
}

macro_rules! debug_by_name {
    ($($name:literal: $type:ty),+ $(,)?) => {
        $(impl<T, R, E> fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct($name).finish_non_exhaustive()
            }
        })+
    };
}

debug_by_name! {
    "Submit": Submit<'_, T, R, E>,
    "SubmitOwned": SubmitOwned<T, R, E>,
    "Ticket": Ticket<T, R, E>,
}
