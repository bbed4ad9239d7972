//! What a pipeline is made of: stages that are asked for their next item, and fused work.

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};

use overdrive_core::unwind::survive;

use crate::item::{Failure, Item, Token};
use crate::monitor::Watch;

/// A job for the thread pool.
pub(crate) type Job<'env> = Box<dyn FnOnce() + Send + 'env>;

/// Where parallel segments find other threads.
pub(crate) trait Threads<'env> {
    /// Offers a job to the pool, which may drop it without having run it.
    ///
    /// # Errors
    /// The job, if there is no thread for it.
    fn give(&self, job: Job<'env>) -> Result<(), Job<'env>>;
}

/// A stage, asked for what it has next.
pub(crate) trait Stage<'env>: Send {
    type Item;

    /// The next item; `None` at the end, and from then on.
    ///
    /// Pending without a waker registered is allowed where the stage waits for items in flight to
    /// leave the pipeline, or once that is cancelled.
    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        threads: &dyn Threads<'env>,
    ) -> Poll<Option<Item<Self::Item>>>;
}

pub(crate) type BoxStage<'env, T> = Box<dyn Stage<'env, Item = T> + 'env>;

/// Where a piece of fused work is, for the case that it panics.
pub(crate) type At = Cell<usize>;

/// Stages fused into one function, which gives its results on one by one.
pub(crate) type Work<'env, I, T> =
    Arc<dyn Fn(I, &At, &mut dyn FnMut(Result<T, Failure>)) + Send + Sync + 'env>;

/// Runs fused work on one item. A panic becomes the last of its results.
pub(crate) fn carry_out<'env, I, T>(
    work: &Work<'env, I, T>,
    item: Item<I>,
    out: &mut VecDeque<Item<T>>,
) {
    let (value, token) = item.into_parts();
    let input = match value {
        Ok(input) => input,
        Err(failure) => {
            let value = Err(failure);
            return out.push_back(Item::new(value, token));
        }
    };
    let at = At::new(0);
    let done = catch_unwind(AssertUnwindSafe(|| {
        work(input, &at, &mut |value| {
            let token = token.clone();
            out.push_back(Item::new(value, token));
        });
    }));
    if let Err(payload) = done {
        let value = Err(Failure::panicked(at.get(), payload));
        out.push_back(Item::new(value, token));
    }
}

/// An iterator as a source.
pub(crate) struct Iter<I> {
    pub(crate) iter: I,
    pub(crate) ended: bool,
    pub(crate) bound: u64,
    pub(crate) watch: Arc<Watch>,
}

impl<'env, I: Iterator + Send> Stage<'env> for Iter<I> {
    type Item = I::Item;

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        _: &dyn Threads<'env>,
    ) -> Poll<Option<Item<I::Item>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if !self.watch.admits(self.bound, context) {
            return Poll::Pending;
        }
        // If it panics it is not asked again.
        self.ended = true;
        let next = self.iter.next();
        self.ended = next.is_none();
        Poll::Ready(next.map(|value| Item::new(Ok(value), Token::new(&self.watch))))
    }
}

/// Fused work on the thread that drives the pipeline.
pub(crate) struct Serial<'env, I, T> {
    pub(crate) upstream: BoxStage<'env, I>,
    pub(crate) work: Work<'env, I, T>,
    pub(crate) ready: VecDeque<Item<T>>,
}

impl<'env, I: Send, T: Send> Stage<'env> for Serial<'env, I, T> {
    type Item = T;

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        threads: &dyn Threads<'env>,
    ) -> Poll<Option<Item<T>>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Poll::Ready(Some(item));
            }
            match self.upstream.poll_next(context, threads) {
                Poll::Ready(Some(item)) => carry_out(&self.work, item, &mut self.ready),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

/// Consecutive items collected into one.
pub(crate) struct Batches<'env, T> {
    pub(crate) upstream: BoxStage<'env, T>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) max: usize,
    pub(crate) open: Vec<T>,
    pub(crate) tokens: Vec<Token>,
    /// A failure that came while a batch was open.
    pub(crate) behind: Option<Item<Vec<T>>>,
}

impl<T> Batches<'_, T> {
    fn close(&mut self) -> Item<Vec<T>> {
        let token = Token::of(std::mem::take(&mut self.tokens));
        Item::new(Ok(std::mem::take(&mut self.open)), token)
    }
}

impl<T> Drop for Batches<'_, T> {
    fn drop(&mut self) {
        for item in self.open.drain(..) {
            survive(|| drop(item));
        }
    }
}

impl<'env, T: Send> Stage<'env> for Batches<'env, T> {
    type Item = Vec<T>;

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        threads: &dyn Threads<'env>,
    ) -> Poll<Option<Item<Vec<T>>>> {
        loop {
            if let Some(failed) = self.behind.take() {
                return Poll::Ready(Some(failed));
            }
            if self.open.len() >= self.max {
                return Poll::Ready(Some(self.close()));
            }
            match self.upstream.poll_next(context, threads) {
                Poll::Ready(Some(item)) => match item.into_parts() {
                    (Ok(value), token) => {
                        self.open.push(value);
                        self.tokens.push(token);
                    }
                    (Err(failure), token) => {
                        self.behind = Some(Item::new(Err(failure), token));
                        if !self.open.is_empty() {
                            return Poll::Ready(Some(self.close()));
                        }
                    }
                },
                Poll::Pending if self.watch.is_paused() => return Poll::Pending,
                // Nothing more now: what is here does not wait for what may come.
                Poll::Ready(None) | Poll::Pending if !self.open.is_empty() => {
                    return Poll::Ready(Some(self.close()));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
