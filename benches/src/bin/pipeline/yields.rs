//! Asynchronous stages.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use overdrive_bench::results::Role;
use overdrive_bench::{Contender, Scenario};
use overdrive_pipeline::Pipeline;

use crate::{OURS, VERSION};

const CONCURRENCY: usize = 64;

/// Ready at the second poll.
struct YieldOnce {
    value: u64,
    yielded: bool,
}

impl Future for YieldOnce {
    type Output = u64;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<u64> {
        if self.yielded {
            return Poll::Ready(self.value);
        }
        self.yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

fn work(item: u64) -> YieldOnce {
    YieldOnce {
        value: item ^ 1,
        yielded: false,
    }
}

/// The sum depends on the order.
fn add(sum: u64, n: u64) -> u64 {
    sum.rotate_left(5) ^ n
}

pub(crate) fn scenario() -> Scenario {
    let row = |role, name: &str, version: &str, run: fn(u64) -> u64| {
        Contender::time(role, name, version, move |_| move |_| move |ops| run(ops))
    };
    let scenario = Scenario::time(
        "pipeline/async_yield_64_ordered",
        "an item through one future that yields once, 64 in flight, results in order",
    )
    .check_ops(1000)
    .with(row(Role::Ours, OURS, VERSION, ours));
    #[cfg(feature = "pipeline-peers")]
    let scenario = scenario
        .with(row(
            Role::Peer,
            "futures-buffered",
            &crate::version("futures-buffered"),
            peers::futures_buffered,
        ))
        .with(row(
            Role::Peer,
            "futures buffered",
            &crate::version("futures-util"),
            peers::futures,
        ));
    scenario
}

fn ours(items: u64) -> u64 {
    let mut sum = 0;
    let run = Pipeline::from_iter(0..items).map_async(CONCURRENCY, work);
    assert!(run.run(|n| sum = add(sum, n)).is_ok());
    sum
}

#[cfg(feature = "pipeline-peers")]
mod peers {
    use futures_buffered::BufferedStreamExt;
    use futures_util::{StreamExt, stream};

    use super::{CONCURRENCY, add, work};

    pub(super) fn futures_buffered(items: u64) -> u64 {
        let results = stream::iter((0..items).map(work)).buffered_ordered(CONCURRENCY);
        futures_executor::block_on(results.fold(0, |sum, n| async move { add(sum, n) }))
    }

    pub(super) fn futures(items: u64) -> u64 {
        let results = stream::iter((0..items).map(work)).buffered(CONCURRENCY);
        futures_executor::block_on(results.fold(0, |sum, n| async move { add(sum, n) }))
    }
}
