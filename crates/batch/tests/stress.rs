//! Many threads at once, and an end in the middle: nobody hangs, and the figures add up.

use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use overdrive_batch::{Batcher, BatcherBuilder, Deadline, Gather, Overload, SubmitError};

const GATHERS: [Gather; 3] = [
    Gather::Immediate,
    Gather::Tick,
    Gather::Linger { min_size: 2 },
];

/// Small numbers, the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % sides
    }
}

fn submitter(batcher: &Batcher<u64, u64>, seed: u64, told: &AtomicU64) {
    let mut dice = Dice(seed);
    for n in 0..200 {
        match dice.roll(8) {
            0 => {
                let mut future = Box::pin(batcher.submit(n));
                let mut cx = Context::from_waker(Waker::noop());
                let _withdrawn = future.as_mut().poll(&mut cx);
            }
            1 => {
                if let Ok(ticket) = batcher.try_submit(n) {
                    ticket.detach();
                }
            }
            2 => batcher.flush_blocking(),
            3 => {
                let late = Deadline::after(Duration::from_micros(dice.roll(50)));
                match batcher.submit(n).deadline(late).wait_blocking() {
                    Ok(result) => assert_eq!(result, n + 1),
                    Err(error) => assert_eq!(error.into_inner().unwrap_or(n), n),
                }
            }
            4 => {
                let results = batcher.submit_all(n..n + 4).wait_blocking();
                assert_eq!(results.len(), 4);
            }
            _ => match batcher.submit_blocking(n) {
                Ok(result) => assert_eq!(result, n + 1),
                Err(SubmitError::Closed(item) | SubmitError::Full(item)) => assert_eq!(item, n),
                Err(SubmitError::Abandoned(item)) => assert_eq!(item.unwrap_or(n), n),
                Err(error) => panic!("{error}"),
            },
        }
        told.fetch_add(1, Ordering::Relaxed);
    }
}

fn builder(round: u64) -> BatcherBuilder<u64> {
    let mut dice = Dice(round);
    let max_size = 2 + dice.roll(3) as usize;
    Batcher::builder()
        .workers(1 + dice.roll(3) as usize)
        .max_size(max_size)
        .capacity(max_size + dice.roll(3) as usize)
        .max_wait(Duration::from_micros(50))
        .gather(GATHERS[dice.roll(3) as usize])
        .overload([Overload::Wait, Overload::Reject][dice.roll(2) as usize])
}

fn rounds() -> u64 {
    let deep = std::env::var_os("OVERDRIVE_DEEP").is_some_and(|value| value == "1");
    if deep { 2_000 } else { 20 }
}

fn storm(batcher: &Batcher<u64, u64>, round: u64) {
    let told = AtomicU64::new(0);
    thread::scope(|threads| {
        for seed in 0..4 {
            let told = &told;
            threads.spawn(move || submitter(batcher, round * 4 + seed, told));
        }
        // In the middle of things, or when all is over.
        while round % 2 == 0 && told.load(Ordering::Relaxed) < 300 {
            thread::yield_now();
        }
        if round % 4 == 0 {
            let _report = batcher.shutdown_blocking(Duration::ZERO);
        } else if round % 4 == 2 {
            assert!(batcher.shutdown_blocking(Deadline::NEVER).is_complete());
        }
    });
    assert!(batcher.shutdown_blocking(Deadline::NEVER).is_complete());
    let stats = batcher.stats();
    assert_eq!((stats.waiting, stats.queued, stats.running), (0, 0, 0));
    let over = stats.completed + stats.failed + stats.cancelled + stats.expired;
    assert_eq!(stats.submitted, over + stats.abandoned + stats.rejected);
}

fn add_one(items: &[u64]) -> Result<Vec<u64>, Infallible> {
    Ok(items.iter().map(|n| n + 1).collect())
}

#[test]
fn submitters_of_all_kinds_and_an_end_on_threads() {
    for round in 0..rounds() {
        let built = builder(round).build_sync(|items: Vec<u64>| add_one(&items));
        storm(&built.unwrap(), round);
    }
}

#[cfg(feature = "tokio")]
#[test]
fn submitters_of_all_kinds_and_an_end_on_tasks() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    for round in 0..rounds() {
        let entered = runtime.enter();
        let built = builder(round).build(|items: Vec<u64>| async move {
            if items[0] % 3 == 0 {
                tokio::task::yield_now().await;
            }
            add_one(&items)
        });
        drop(entered);
        storm(&built.unwrap(), round);
    }
}
