//! Ordered parallel maps over futures that are ready at once.

use std::future::{Future, poll_fn, ready};
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use futures_buffered::BufferedStreamExt;
use futures_util::{Stream, StreamExt, stream};
use overdrive_bench::results::Role;
use overdrive_bench::{Contender, Scenario};

use crate::ours::VERSION;
use crate::scenarios::version;

/// Items of one operation.
const ITEMS: u64 = 1000;
/// Of a call in which each place is used once.
const FEW: u64 = 10;
const CONCURRENCY: usize = 10;

const TEN: NonZeroUsize = NonZeroUsize::new(CONCURRENCY).unwrap();

fn at_once(n: u64) -> impl Future<Output = u64> {
    ready(black_box(n) + 1)
}

/// Wakes its task, and is ready the next time.
async fn after_a_yield(n: u64) -> u64 {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    black_box(n) + 1
}

/// Polls until ready: nothing here waits for anybody else.
fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
}

/// Order matters: the sum weighs each result with its position.
fn check(results: &[u64]) -> u64 {
    let weighed = results.iter().zip(1_u64..);
    weighed.fold(0, |sum, (n, weight)| {
        sum.wrapping_add(n.wrapping_mul(weight))
    })
}

/// Everybody appends to a list that is kept from call to call.
fn contender(role: Role, name: &str, version: &str, map: fn(&mut Vec<u64>)) -> Contender {
    Contender::time(role, name, version, move |_| {
        move |_| {
            let mut results = Vec::with_capacity(ITEMS as usize);
            move |ops| {
                (0..ops).fold(0_u64, |sum, _| {
                    results.clear();
                    map(&mut results);
                    sum.wrapping_add(check(black_box(&results)))
                })
            }
        }
    })
}

async fn gather(stream: impl Stream<Item = u64>, into: &mut Vec<u64>) {
    let mut stream = pin!(stream);
    while let Some(result) = stream.next().await {
        into.push(result);
    }
}

macro_rules! scenario {
    ($id:literal, $title:literal, $items:path, $work:path) => {{
        let ours = |into: &mut Vec<u64>| {
            run(overdrive_batch::map_ordered_into(
                into,
                0..$items,
                TEN,
                $work,
            ));
        };
        let fresh = |into: &mut Vec<u64>| {
            *into = run(overdrive_batch::map_ordered(0..$items, TEN, $work));
        };
        let buffered = |into: &mut Vec<u64>| {
            run(gather(
                stream::iter(0..$items).map($work).buffered(CONCURRENCY),
                into,
            ));
        };
        let futures_buffered = |into: &mut Vec<u64>| {
            let results = stream::iter(0..$items).map($work);
            run(gather(results.buffered_ordered(CONCURRENCY), into));
        };
        let (futures, other) = (version("futures-util"), version("futures-buffered"));
        Scenario::time($id, $title)
            .input("u64; each result is checked in its place; lists of results are kept")
            .per_op($items)
            .check_ops(3)
            .with(contender(Role::Ours, "overdrive-batch", VERSION, ours))
            .with(contender(Role::Context, "fresh list", VERSION, fresh))
            .with(contender(
                Role::Reference,
                "futures-buffered-10",
                &other,
                futures_buffered,
            ))
            .with(contender(
                Role::Peer,
                "futures buffered",
                &futures,
                buffered,
            ))
    }};
}

pub(crate) fn ready_scenario() -> Scenario {
    scenario!(
        "batch/parallel_map_ready",
        "map 1,000 items through futures that are ready at once, ten at a time, results in order",
        ITEMS,
        at_once
    )
}

pub(crate) fn yield_scenario() -> Scenario {
    scenario!(
        "batch/parallel_map_yield",
        "map 1,000 items through futures that yield once, ten at a time, results in order",
        ITEMS,
        after_a_yield
    )
}

pub(crate) fn short_scenario() -> Scenario {
    scenario!(
        "batch/parallel_map_short",
        "map 10 items through futures that yield once, ten at a time, results in order",
        FEW,
        after_a_yield
    )
}
