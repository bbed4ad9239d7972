//! Waiting for the batcher as a whole.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::batcher::Batcher;
use crate::engine::{Goal, Shared};
use crate::workers;

/// Ready when a goal is met.
pub(crate) struct Watch<'a, T, R, E> {
    shared: &'a Arc<Shared<T, R, E>>,
    goal: Goal,
    id: Option<u64>,
}

impl<'a, T, R, E> Watch<'a, T, R, E> {
    pub(crate) fn new(shared: &'a Arc<Shared<T, R, E>>, goal: Goal) -> Self {
        Self {
            shared,
            goal,
            id: None,
        }
    }
}

impl<T, R, E> Future for Watch<'_, T, R, E> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.shared.watch(this.goal, &mut this.id, cx)
    }
}

impl<T, R, E> Drop for Watch<'_, T, R, E> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.shared.forget(id);
        }
    }
}

/// The future of [`Batcher::flush`].
///
/// # Cancel safety
/// Once polled, the open batch is closed as soon as a worker is free. Dropping the future only
/// ends the wait.
#[must_use = "futures do nothing unless polled"]
pub struct Flush<'a, T, R, E> {
    batcher: &'a Batcher<T, R, E>,
    watch: Option<Watch<'a, T, R, E>>,
}

impl<'a, T, R, E> Flush<'a, T, R, E> {
    pub(crate) fn new(batcher: &'a Batcher<T, R, E>) -> Self {
        Self {
            batcher,
            watch: None,
        }
    }

    #[track_caller]
    pub(crate) fn wait_blocking(self) {
        workers::may_block(self.batcher.shared());
        crate::park::block_on_forever(self);
    }
}

impl<T, R, E> Future for Flush<'_, T, R, E> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let shared = self.batcher.shared();
        let begin = || Watch::new(shared, shared.flush());
        let watch = self.watch.get_or_insert_with(begin);
        Pin::new(watch).poll(cx)
    }
}

impl<T, R, E> fmt::Debug for Flush<'_, T, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flush").finish_non_exhaustive()
    }
}
