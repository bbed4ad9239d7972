//! Workers as tasks of tokio.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use overdrive_core::unwind::survive;
use overdrive_core::{Clock, Timestamp};
use tokio::time::{Instant, Sleep, sleep};

use crate::engine::{Cause, Next};
use crate::workers::{Place, panicked};

/// The time of tokio, which a test can stop.
#[derive(Debug)]
pub(crate) struct TokioClock;

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_instant(Instant::now().into_std())
    }
}

/// What a worker task does until the batcher is closed and has nothing left.
pub(crate) async fn work<T, R, E, F, Fut>(place: Place<T, R, E>, handler: Arc<F>)
where
    F: Fn(Vec<T>) -> Fut,
    Fut: Future<Output = Result<Vec<R>, E>>,
{
    while let Some(items) = next_batch(&place).await {
        let size = items.len();
        let verdict = run(&*handler, items).await;
        place.shared.publish(place.worker, size, verdict);
    }
}

async fn next_batch<T, R, E>(place: &Place<T, R, E>) -> Option<Vec<T>> {
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        loop {
            match place.shared.next(place.worker, cx.waker()) {
                Next::Batch(items) => return Poll::Ready(Some(items)),
                Next::Ended => return Poll::Ready(None),
                Next::Tick => {
                    // Behind every task that is ready on this thread. tokio's own `yield_now`
                    // would wait for the drivers as well.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Next::Park(Duration::MAX) => return Poll::Pending,
                Next::Park(limit) => {
                    let timer = timer.insert(Box::pin(sleep(limit)));
                    if timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
            }
        }
    })
    .await
}

/// Runs the handler; a panic in it, or in dropping its future, stays here.
async fn run<T, R, E, Fut>(
    handler: &impl Fn(Vec<T>) -> Fut,
    items: Vec<T>,
) -> Result<Vec<R>, Cause<E>>
where
    Fut: Future<Output = Result<Vec<R>, E>>,
{
    let future = match catch_unwind(AssertUnwindSafe(|| handler(items))) {
        Ok(future) => future,
        Err(payload) => return Err(panicked(payload)),
    };
    // None once it has ended: so it is dropped here, where a panic is caught.
    let mut place = pin!(Some(future));
    let ended = poll_fn(|cx| {
        let future = place.as_mut().as_pin_mut().expect("it has not ended");
        match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(payload) => Poll::Ready(Err(payload)),
        }
    })
    .await;
    survive(|| place.set(None));
    match ended {
        Ok(returned) => returned.map_err(|error| Cause::Batch(Arc::new(error))),
        Err(payload) => Err(panicked(payload)),
    }
}
