//! The futures of items submitted with a key.

use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use overdrive_core::{Deadline, Priority};

use super::KeyedBatcher;
use super::group::{Found, GroupRef};
use super::hub::Hub;
use crate::cell::Placed;
use crate::engine::Terms;
use crate::error::SubmitError;
use crate::observe::Origin;
use crate::workers;

/// The future of [`KeyedBatcher::submit`]: the item's own result.
///
/// Lazy: the item is submitted when the future is first polled. It works under any executor.
///
/// # Cancel safety
/// Dropped before the item's batch is closed, the item is dropped with it and never reaches the
/// handler. Dropped later, the item is processed and its result dropped. The other items of the
/// batch do not notice.
#[must_use = "futures do nothing unless polled"]
pub struct KeyedSubmit<'a, K, T, R, E> {
    batcher: &'a KeyedBatcher<K, T, R, E>,
    submission: Submission<K, T, R, E>,
}

/// The future of [`KeyedBatcher::submit_owned`]: as [`KeyedSubmit`], with a handle of the batcher.
///
/// # Cancel safety
/// As of [`KeyedSubmit`].
#[must_use = "futures do nothing unless polled"]
pub struct KeyedSubmitOwned<K, T, R, E> {
    // First, so that the item is withdrawn before what may be the last handle goes.
    submission: Submission<K, T, R, E>,
    batcher: KeyedBatcher<K, T, R, E>,
}

/// An item that [`KeyedBatcher::try_submit`] has accepted: the future of its result.
///
/// It is no handle of the batcher, and does not keep it open.
///
/// # Cancel safety
/// Dropping it withdraws the item, as dropping a [`KeyedSubmit`] does; [`detach`](Self::detach)
/// leaves the item to be processed without anybody waiting for it.
#[must_use = "dropping a ticket withdraws the item; `detach` does not"]
pub struct KeyedTicket<K, T, R, E> {
    hub: Arc<Hub<K, T, R, E>>,
    place: Option<Spot<K, T, R, E>>,
}

/// Where an item is. Dropped, the item is withdrawn.
pub(super) struct Spot<K, T, R, E> {
    group: GroupRef<K, T, R, E>,
    placed: Option<Placed>,
}

/// An item on its way.
struct Submission<K, T, R, E> {
    deadline: Deadline,
    priority: Priority,
    stage: Stage<K, T, R, E>,
}

enum Stage<K, T, R, E> {
    Unsubmitted(K, T),
    Placed(Spot<K, T, R, E>),
    Refused(SubmitError<T, E>),
    Over,
}

impl<K, T, R, E> Spot<K, T, R, E> {
    pub(super) fn new((group, placed): Found<K, T, R, E>) -> Self {
        let placed = Some(placed);
        Self { group, placed }
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<R, SubmitError<T, E>>> {
        let placed = self.placed.take().expect("polled after completion");
        match self.group.shared.poll(placed, cx) {
            Ok(outcome) => Poll::Ready(outcome),
            Err(placed) => {
                self.placed = Some(placed);
                Poll::Pending
            }
        }
    }

    /// Takes the item out, unless its batch is taken.
    fn expire(&mut self) -> Option<T> {
        match self.group.shared.expire(self.placed.take()?) {
            Ok(item) => Some(item),
            Err(placed) => {
                self.placed = Some(placed);
                None
            }
        }
    }
}

impl<K, T, R, E> Drop for Spot<K, T, R, E> {
    fn drop(&mut self) {
        if let Some(placed) = self.placed.take() {
            self.group.shared.withdraw(placed);
        }
    }
}

impl<K, T, R, E> Submission<K, T, R, E> {
    fn new(key: K, item: T) -> Self {
        Self {
            deadline: Deadline::NEVER,
            priority: Priority::Normal,
            stage: Stage::Unsubmitted(key, item),
        }
    }
}

impl<K, T, R, E> Submission<K, T, R, E>
where
    K: Eq + Hash + Send + Sync + 'static,
    T: Send + 'static,
    R: Send + 'static,
    E: Send + Sync + 'static,
{
    fn place(
        &self,
        hub: &Arc<Hub<K, T, R, E>>,
        key: K,
        item: T,
        waker: &Waker,
    ) -> Stage<K, T, R, E> {
        if self.has_expired(hub) {
            hub.came_late();
            return Stage::Refused(SubmitError::DeadlineExceeded(item));
        }
        let terms = Terms {
            deadline: self.deadline,
            priority: self.priority,
            must_fit: false,
            waker: Some(waker.clone()),
            origin: Origin::here(),
        };
        match hub.place(key, item, terms) {
            Ok(found) => Stage::Placed(Spot::new(found)),
            Err(refused) => Stage::Refused(refused.into()),
        }
    }

    fn poll(
        &mut self,
        hub: &Arc<Hub<K, T, R, E>>,
        cx: &Context<'_>,
    ) -> Poll<Result<R, SubmitError<T, E>>> {
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Unsubmitted(key, item) => match self.place(hub, key, item, cx.waker()) {
                Stage::Refused(error) => Poll::Ready(Err(error)),
                placed => {
                    self.stage = placed;
                    Poll::Pending
                }
            },
            Stage::Placed(mut spot) => {
                let mut poll = spot.poll(cx);
                if poll.is_pending() && self.has_expired(hub) {
                    if let Some(item) = spot.expire() {
                        poll = Poll::Ready(Err(SubmitError::DeadlineExceeded(item)));
                    }
                }
                if poll.is_pending() {
                    self.stage = Stage::Placed(spot);
                }
                poll
            }
            Stage::Refused(error) => Poll::Ready(Err(error)),
            Stage::Over => panic!("polled after completion"),
        }
    }

    fn has_expired(&self, hub: &Hub<K, T, R, E>) -> bool {
        self.deadline.has_passed_on(&*hub.rules.clock)
    }
}

impl<'a, K, T, R, E> KeyedSubmit<'a, K, T, R, E> {
    pub(super) fn new(batcher: &'a KeyedBatcher<K, T, R, E>, key: K, item: T) -> Self {
        let submission = Submission::new(key, item);
        Self {
            batcher,
            submission,
        }
    }

    /// See [`Submit::deadline`](crate::Submit::deadline).
    pub fn deadline(mut self, deadline: impl Into<Deadline>) -> Self {
        self.submission.deadline = deadline.into();
        self
    }

    /// How urgent the item is among those of its key: see
    /// [`Submit::priority`](crate::Submit::priority). Default [`Priority::Normal`]. Items of one key
    /// keep their order among those as urgent as they are.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.submission.priority = priority;
        self
    }
}

impl<K, T, R, E> KeyedSubmit<'_, K, T, R, E>
where
    K: Eq + Hash + Send + Sync + 'static,
    T: Send + 'static,
    R: Send + 'static,
    E: Send + Sync + 'static,
{
    /// Waits for the result on this thread. Without a runtime, with either kind of handler.
    ///
    /// # Errors
    /// As the future's. A passed [`deadline`](Self::deadline) ends the wait at that moment, unless
    /// the item's batch has been closed.
    ///
    /// # Panics
    /// On a thread that must not wait: a worker of this batcher, or an async context of tokio
    /// (with the feature `tokio`).
    #[track_caller]
    pub fn wait_blocking(mut self) -> Result<R, SubmitError<T, E>> {
        let hub = self.batcher.hub();
        workers::may_block(hub);
        let deadline = self.submission.deadline;
        let left = || -> Duration { deadline.remaining_on(&*hub.rules.clock) };
        // After the deadline it is in a batch, or over.
        crate::park::block_on(&mut self, left)
            .unwrap_or_else(|| crate::park::block_on_forever(&mut self))
    }
}

impl<K, T, R, E> KeyedSubmitOwned<K, T, R, E> {
    pub(super) fn new(batcher: KeyedBatcher<K, T, R, E>, key: K, item: T) -> Self {
        Self {
            submission: Submission::new(key, item),
            batcher,
        }
    }

    /// See [`Submit::deadline`](crate::Submit::deadline).
    pub fn deadline(mut self, deadline: impl Into<Deadline>) -> Self {
        self.submission.deadline = deadline.into();
        self
    }

    /// See [`KeyedSubmit::priority`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.submission.priority = priority;
        self
    }
}

impl<K, T, R, E> KeyedTicket<K, T, R, E> {
    pub(super) fn new(hub: Arc<Hub<K, T, R, E>>, spot: Spot<K, T, R, E>) -> Self {
        let place = Some(spot);
        Self { hub, place }
    }

    /// Waits for the result on this thread.
    ///
    /// # Errors
    /// As the future's.
    ///
    /// # Panics
    /// As [`KeyedSubmit::wait_blocking`].
    #[track_caller]
    pub fn wait_blocking(self) -> Result<R, SubmitError<T, E>> {
        workers::may_block(&self.hub);
        crate::park::block_on_forever(self)
    }

    /// Leaves the item to be processed; its result will be dropped.
    pub fn detach(mut self) {
        if let Some(mut spot) = self.place.take() {
            if let Some(placed) = spot.placed.take() {
                spot.group.shared.detach(placed);
            }
        }
    }
}

// Keys and items are never pinned.
impl<K, T, R, E> Unpin for KeyedSubmit<'_, K, T, R, E> {}
impl<K, T, R, E> Unpin for KeyedSubmitOwned<K, T, R, E> {}
impl<K, T, R, E> Unpin for KeyedTicket<K, T, R, E> {}

impl<K, T, R, E> Future for KeyedSubmit<'_, K, T, R, E>
where
    K: Eq + Hash + Send + Sync + 'static,
    T: Send + 'static,
    R: Send + 'static,
    E: Send + Sync + 'static,
{
    type Output = Result<R, SubmitError<T, E>>;

    /// # Panics
    /// When polled after completion. A panic of the key's `Hash` or `Eq` passes to the caller.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.submission.poll(this.batcher.hub(), cx)
    }
}

impl<K, T, R, E> Future for KeyedSubmitOwned<K, T, R, E>
where
    K: Eq + Hash + Send + Sync + 'static,
    T: Send + 'static,
    R: Send + 'static,
    E: Send + Sync + 'static,
{
    type Output = Result<R, SubmitError<T, E>>;

    /// # Panics
    /// As of [`KeyedSubmit`].
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.submission.poll(this.batcher.hub(), cx)
    }
}

impl<K, T, R, E> Future for KeyedTicket<K, T, R, E> {
    type Output = Result<R, SubmitError<T, E>>;

    /// # Panics
    /// When polled after completion.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let spot = self.place.as_mut().expect("polled after completion");
        spot.poll(cx)
    }
}

impl<K, T, R, E> fmt::Debug for KeyedSubmit<'_, K, T, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedSubmit").finish_non_exhaustive()
    }
}

impl<K, T, R, E> fmt::Debug for KeyedSubmitOwned<K, T, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedSubmitOwned").finish_non_exhaustive()
    }
}

impl<K, T, R, E> fmt::Debug for KeyedTicket<K, T, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedTicket").finish_non_exhaustive()
    }
}
