//! Ordered parallel maps over futures that are ready at once.

use std::future::{Future, ready};
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use futures_buffered::BufferedStreamExt;
use futures_util::{StreamExt, stream};
use overdrive_bench::results::Role;
use overdrive_bench::{Contender, Scenario};

use crate::ours::VERSION;
use crate::scenarios::version;

/// Items of one operation.
const ITEMS: u64 = 1000;
const CONCURRENCY: usize = 10;

fn work(n: u64) -> impl Future<Output = u64> {
    ready(black_box(n) + 1)
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

fn contender(role: Role, name: &str, version: &str, map: fn() -> Vec<u64>) -> Contender {
    Contender::time(role, name, version, move |_| {
        move |_| {
            move |ops| (0..ops).fold(0_u64, |sum, _| sum.wrapping_add(check(black_box(&map()))))
        }
    })
}

pub(crate) fn ready_scenario() -> Scenario {
    let ours = || {
        let concurrency = const { NonZeroUsize::new(CONCURRENCY).unwrap() };
        run(overdrive_batch::map_ordered(0..ITEMS, concurrency, work))
    };
    let buffered = || {
        let results = stream::iter(0..ITEMS).map(work).buffered(CONCURRENCY);
        run(results.collect())
    };
    let futures_buffered = || {
        let results = stream::iter(0..ITEMS)
            .map(work)
            .buffered_ordered(CONCURRENCY);
        run(results.collect())
    };
    let (futures, other) = (version("futures-util"), version("futures-buffered"));
    Scenario::time(
        "batch/parallel_map_ready",
        "map 1,000 items through futures that are ready at once, ten at a time, results in order",
    )
    .input("u64; each result is checked in its place")
    .per_op(ITEMS)
    .check_ops(3)
    .with(contender(Role::Ours, "overdrive-batch", VERSION, ours))
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
}
