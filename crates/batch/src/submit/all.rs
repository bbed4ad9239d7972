//! Many items at once.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use overdrive_core::unwind::survive;
use overdrive_core::{Deadline, Priority};

use super::{Stage, Submission};
use crate::batcher::Batcher;
use crate::engine::Refused;
use crate::error::SubmitError;
use crate::workers;

/// The future of [`Batcher::submit_all`]: the items' own results, in their order.
///
/// # Cancel safety
/// As of [`Submit`](crate::Submit), for each item by itself.
#[must_use = "futures do nothing unless polled"]
pub struct SubmitAll<'a, T, R, E> {
    batcher: &'a Batcher<T, R, E>,
    deadline: Deadline,
    priority: Priority,
    /// Until they are submitted.
    items: Vec<T>,
    /// The last first.
    open: Vec<Submission<T, E>>,
    /// As many as have ended; always the first ones. None once they are given out.
    ended: Option<Vec<Result<R, SubmitError<T, E>>>>,
}

impl<'a, T, R, E> SubmitAll<'a, T, R, E> {
    pub(crate) fn new(batcher: &'a Batcher<T, R, E>, items: impl Iterator<Item = T>) -> Self {
        let items: Vec<_> = items.collect();
        Self {
            batcher,
            deadline: Deadline::NEVER,
            priority: Priority::Normal,
            ended: Some(Vec::with_capacity(items.len())),
            open: Vec::new(),
            items,
        }
    }

    /// See [`Submit::deadline`](crate::Submit::deadline); the same for each item.
    pub fn deadline(mut self, deadline: impl Into<Deadline>) -> Self {
        self.deadline = deadline.into();
        self
    }

    /// See [`Submit::priority`](crate::Submit::priority); the same for each item.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Submits the items, if they have not been.
    fn place(&mut self) {
        let items = std::mem::take(&mut self.items);
        if items.is_empty() {
            return;
        }
        let shared = self.batcher.shared();
        let refused = |error| Stage::Refused(error);
        let stages: Vec<_> = if self.deadline.has_passed_on(&*shared.rules.clock) {
            let late = items.into_iter().inspect(|_| shared.came_late());
            late.map(|item| refused(SubmitError::DeadlineExceeded(item)))
                .collect()
        } else {
            let placed = shared.place_all(items, self.deadline, self.priority);
            let stage = |placed: Result<_, Refused<T>>| match placed {
                Ok(placed) => Stage::Placed(placed),
                Err(refusal) => refused(refusal.into()),
            };
            placed.into_iter().map(stage).collect()
        };
        let submission = |stage| Submission {
            deadline: self.deadline,
            priority: self.priority,
            announced: false,
            item: None,
            stage,
        };
        // Taken from the end, in order.
        self.open = stages.into_iter().rev().map(submission).collect();
    }

    /// Waits for the results on this thread.
    ///
    /// # Panics
    /// As [`Submit::wait_blocking`](crate::Submit::wait_blocking).
    #[track_caller]
    pub fn wait_blocking(mut self) -> Vec<Result<R, SubmitError<T, E>>> {
        let shared = self.batcher.shared();
        workers::may_block(shared);
        let deadline = self.deadline;
        let left = || Submission::<T, E>::left(deadline, shared);
        crate::park::block_on(&mut self, left)
            .unwrap_or_else(|| crate::park::block_on_forever(&mut self))
    }
}

// The items are never pinned.
impl<T, R, E> Unpin for SubmitAll<'_, T, R, E> {}

impl<T, R, E> Future for SubmitAll<'_, T, R, E> {
    type Output = Vec<Result<R, SubmitError<T, E>>>;

    /// # Panics
    /// When polled after completion.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.place();
        let shared = this.batcher.shared();
        let ended = this.ended.as_mut().expect("polled after completion");
        // One at a time: the others need wake nobody.
        while let Some(next) = this.open.last_mut() {
            match next.poll(shared, cx) {
                Poll::Ready(result) => {
                    this.open.pop();
                    ended.push(result);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(this.ended.take().unwrap_or_default())
    }
}

impl<T, R, E> Drop for SubmitAll<'_, T, R, E> {
    fn drop(&mut self) {
        let shared = self.batcher.shared();
        for one in &mut self.open {
            // Of items whose destructors panic, none keeps the others in the queue.
            survive(|| one.withdraw(shared));
        }
    }
}

impl<T, R, E> fmt::Debug for SubmitAll<'_, T, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubmitAll").finish_non_exhaustive()
    }
}
