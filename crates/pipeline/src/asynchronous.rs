//! Asynchronous stages: several futures of one stage in flight, on the thread that drives the
//! pipeline.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::stream::{FuturesOrdered, FuturesUnordered, StreamExt};

use overdrive_core::unwind::survive;

use crate::item::{Failure, Item, Token};
use crate::stage::{BoxStage, Stage, Threads};

type BoxRunning<'env, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'env>>;

/// Makes the future of an item.
pub(crate) type Start<'env, I, T> = Arc<dyn Fn(I) -> BoxRunning<'env, T> + Send + Sync + 'env>;

/// A future that carries its item's token, and survives its own panic.
struct Flight<'env, T> {
    future: Option<BoxRunning<'env, T>>,
    token: Token,
    stage: usize,
}

impl<T> Future for Flight<'_, T> {
    type Output = Item<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Item<T>> {
        let this = &mut *self;
        let Some(future) = &mut this.future else {
            return Poll::Pending;
        };
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        let value = match polled {
            Ok(poll) => ready!(poll),
            Err(payload) => Err(Failure::panicked(this.stage, payload)),
        };
        // The future is user code; so is its destructor.
        let future = this.future.take();
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(future)));
        let value = match dropped {
            Ok(()) => value,
            Err(payload) => value.and(Err(Failure::panicked(this.stage, payload))),
        };
        let token = this.token.clone();
        Poll::Ready(Item::new(value, token))
    }
}

impl<T> Drop for Flight<'_, T> {
    fn drop(&mut self) {
        // As above; and what holds the flights would lose the others if this one panicked.
        if let Some(future) = self.future.take() {
            survive(|| drop(future));
        }
    }
}

enum Flights<'env, T> {
    Ordered(FuturesOrdered<Flight<'env, T>>),
    Unordered(FuturesUnordered<Flight<'env, T>>),
}

impl<'env, T> Flights<'env, T> {
    fn len(&self) -> usize {
        match self {
            Self::Ordered(flights) => flights.len(),
            Self::Unordered(flights) => flights.len(),
        }
    }

    fn push(&mut self, flight: Flight<'env, T>) {
        match self {
            Self::Ordered(flights) => flights.push_back(flight),
            Self::Unordered(flights) => flights.push(flight),
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Item<T>>> {
        match self {
            Self::Ordered(flights) => flights.poll_next_unpin(context),
            Self::Unordered(flights) => flights.poll_next_unpin(context),
        }
    }
}

/// An asynchronous stage.
pub(crate) struct Asynchronous<'env, I, T> {
    upstream: BoxStage<'env, I>,
    start: Start<'env, I, T>,
    stage: usize,
    concurrency: usize,
    flights: Flights<'env, T>,
}

impl<'env, I, T> Asynchronous<'env, I, T> {
    pub(crate) fn new(
        upstream: BoxStage<'env, I>,
        start: Start<'env, I, T>,
        stage: usize,
        concurrency: usize,
        ordered: bool,
    ) -> Self {
        Self {
            upstream,
            start,
            stage,
            concurrency,
            flights: if ordered {
                Flights::Ordered(FuturesOrdered::new())
            } else {
                Flights::Unordered(FuturesUnordered::new())
            },
        }
    }

    fn flight(&self, item: Item<I>) -> Flight<'env, T>
    where
        T: Send + 'env,
    {
        let (value, token) = item.into_parts();
        let stage = self.stage;
        let start = |input| catch_unwind(AssertUnwindSafe(|| (self.start)(input)));
        let future = match value.map(start) {
            Ok(Ok(future)) => future,
            Ok(Err(payload)) => failed(Failure::panicked(stage, payload)),
            Err(failure) => failed(failure),
        };
        Flight {
            future: Some(future),
            token,
            stage,
        }
    }
}

fn failed<'env, T: Send + 'env>(failure: Failure) -> BoxRunning<'env, T> {
    Box::pin(std::future::ready(Err(failure)))
}

impl<'env, I: Send, T: Send + 'env> Stage<'env> for Asynchronous<'env, I, T> {
    type Item = T;

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        threads: &dyn Threads<'env>,
    ) -> Poll<Option<Item<T>>> {
        let mut ended = false;
        while self.flights.len() < self.concurrency {
            match self.upstream.poll_next(context, threads) {
                Poll::Ready(Some(item)) => {
                    let flight = self.flight(item);
                    self.flights.push(flight);
                }
                Poll::Ready(None) => {
                    ended = true;
                    break;
                }
                Poll::Pending => break,
            }
        }
        match self.flights.poll_next(context) {
            Poll::Ready(Some(item)) => Poll::Ready(Some(item)),
            // None in flight.
            Poll::Ready(None) if ended => Poll::Ready(None),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}
