//! Workers as tasks of tokio.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use overdrive_core::unwind::survive;
use overdrive_core::{Clock, Timestamp};
use tokio::time::{Instant, sleep};

use crate::after::{After, drop_each};
use crate::engine::{Cause, Next, Ready, Verdict};
use crate::isolate::Bisection;
use crate::observe::{Origins, observed};
use crate::workers::{Handler, Place, employed, panicked};

/// After so many batches without a wait, a worker lets others run.
pub(crate) const UNBROKEN: u32 = 16;

/// The time of tokio, which a test can stop.
#[derive(Debug)]
pub(crate) struct TokioClock;

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_instant(Instant::now().into_std())
    }
}

/// What a worker task does until the batcher is closed and has nothing left.
pub(crate) async fn work<T, R, E, L, A, AFut, F, Fut>(
    place: Place<T, R, E>,
    handler: Arc<Handler<A, F, L>>,
) where
    A: Fn() -> AFut,
    AFut: Future<Output = Result<L, E>>,
    F: Fn(L, Vec<T>) -> Fut,
    Fut: Future<Output = Result<Vec<R>, E>>,
{
    let Place { shared, worker } = &place;
    let mut after = After::new();
    poll_fn(|cx| {
        shared.enlist(*worker, cx.waker());
        Poll::Ready(())
    })
    .await;
    let mut lease = Ok(None);
    let mut ready = Ready::Called;
    let mut unbroken = 0_u32;
    loop {
        let mut next = shared.next(*worker, ready, &mut after);
        while let Next::Batch(items, origins) = next {
            // A worker that never waits would keep its thread for itself.
            unbroken += 1;
            if unbroken % UNBROKEN == 0 {
                tick().await;
            }
            let verdict = match std::mem::replace(&mut lease, Ok(None)) {
                Ok(lease) if shared.rules.isolate.is_some() => {
                    Box::pin(run(&place, &*handler, lease, items, origins)).await
                }
                Ok(lease) => {
                    let lease = lease.or_else(handler.at_hand);
                    let lease = lease.expect("acquired before the batch was taken");
                    let (name, size) = (&*shared.rules.name, items.len());
                    let call = || (handler.call)(lease, items);
                    caught(&place, || observed(name, size, origins, call))
                        .await
                        .into()
                }
                Err(cause) => {
                    drop_each(items);
                    Verdict::Failed(cause)
                }
            };
            next = shared.publish(*worker, verdict, &mut after);
        }
        ready = match next {
            Next::Lease => {
                lease = caught(&place, || (handler.acquire)()).await.map(Some);
                Ready::Leased
            }
            Next::Tick => {
                unbroken = 0;
                tick().await;
                Ready::Ticked
            }
            // All items were withdrawn while the lease was acquired.
            Next::Park(_) if !matches!(lease, Ok(None)) => {
                let unused = std::mem::replace(&mut lease, Ok(None));
                survive(|| drop(unused));
                Ready::Called
            }
            Next::Park(limit) => {
                unbroken = 0;
                park(limit).await;
                if shared.ticks() {
                    tick().await;
                    Ready::Ticked
                } else {
                    Ready::Called
                }
            }
            Next::Ended => return,
            Next::Batch(..) => unreachable!("run above"),
        };
    }
}

/// Goes behind every task that is ready on this thread. tokio's own `yield_now` would wait for the
/// drivers as well.
pub(crate) async fn tick() {
    let mut ticked = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut ticked, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Waits until the task is woken, or for so long.
async fn park(limit: Duration) {
    let mut waits = true;
    let woken = poll_fn(|_| match std::mem::replace(&mut waits, false) {
        true => Poll::Pending,
        false => Poll::Ready(()),
    });
    if limit == Duration::MAX {
        woken.await;
    } else {
        // Also by something else than the time: then what remains is asked for again.
        let mut timer = Box::pin(sleep(limit));
        let mut woken = pin!(woken);
        poll_fn(|cx| match timer.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => woken.as_mut().poll(cx),
        })
        .await;
    }
}

/// Runs a batch whose items are to be told apart: in parts, if it fails.
async fn run<T, R, E, L, A, AFut, F, Fut>(
    place: &Place<T, R, E>,
    handler: &Handler<A, F, L>,
    mut lease: Option<L>,
    items: Vec<T>,
    mut origins: Origins,
) -> Verdict<R, E>
where
    A: Fn() -> AFut,
    AFut: Future<Output = Result<L, E>>,
    F: Fn(L, Vec<T>) -> Fut,
    Fut: Future<Output = Result<Vec<R>, E>>,
{
    let rule = place.shared.rules.isolate.as_ref();
    let rule = rule.expect("items are to be told apart");
    let mut bisection = Bisection::new(rule, items);
    while let Some(part) = bisection.next() {
        if !place.shared.has_batch(place.worker) {
            return bisection.given_up();
        }
        let returned = match bisection.copies(part) {
            // Only the first call, of all items, has their links.
            Ok(items) => {
                let origins = std::mem::take(&mut origins);
                attempt(place, handler, lease.take(), items, origins).await
            }
            Err(cause) => Err(cause),
        };
        bisection.record(returned);
    }
    survive(|| drop(lease));
    bisection.verdict()
}

/// One call of the handler, with a lease of its own unless there is one.
async fn attempt<T, R, E, L, A, AFut, F, Fut>(
    place: &Place<T, R, E>,
    handler: &Handler<A, F, L>,
    lease: Option<L>,
    items: Vec<T>,
    origins: Origins,
) -> Result<Vec<R>, Cause<E>>
where
    A: Fn() -> AFut,
    AFut: Future<Output = Result<L, E>>,
    F: Fn(L, Vec<T>) -> Fut,
    Fut: Future<Output = Result<Vec<R>, E>>,
{
    let lease = match lease.or_else(handler.at_hand) {
        Some(lease) => lease,
        None => match caught(place, || (handler.acquire)()).await {
            Ok(lease) => lease,
            Err(cause) => {
                drop_each(items);
                return Err(cause);
            }
        },
    };
    let (name, size) = (&*place.shared.rules.name, items.len());
    let call = || (handler.call)(lease, items);
    caught(place, || observed(name, size, origins, call)).await
}

/// Awaits what the user's code makes; a panic in it, or in dropping its future, stays here.
async fn caught<T, R, E, O, Fut>(
    place: &Place<T, R, E>,
    make: impl FnOnce() -> Fut,
) -> Result<O, Cause<E>>
where
    Fut: Future<Output = Result<O, E>>,
{
    caught_for(&place.shared, make).await
}

/// As [`caught`], in the employ of a batcher of any kind.
pub(crate) async fn caught_for<S, O, E, Fut>(
    employer: &Arc<S>,
    make: impl FnOnce() -> Fut,
) -> Result<O, Cause<E>>
where
    Fut: Future<Output = Result<O, E>>,
{
    // None once it has ended: so it is dropped here, where a panic is caught.
    let mut place = pin!(None);
    let mut make = Some(make);
    let ended = poll_fn(|cx| {
        let poll = || {
            employed(employer, || {
                if let Some(make) = make.take() {
                    place.set(Some(make()));
                }
                let future = place.as_mut().as_pin_mut().expect("it has not ended");
                future.poll(cx)
            })
        };
        match catch_unwind(AssertUnwindSafe(poll)) {
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
