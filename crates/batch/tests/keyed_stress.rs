//! Batches by key with many at once, few keys kept, and an end in the middle: nobody hangs, no item
//! is lost, no key's order is broken, and the figures add up.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use overdrive_batch::{
    Deadline, Gather, KeyedBatcher, KeyedBatcherBuilder, Overload, SubmitError, TrySubmitError,
};

/// Runs a test that must not hang.
fn ends(test: impl FnOnce() + Send + 'static) {
    let (tell, ended) = channel();
    let thread = thread::spawn(move || {
        test();
        let _heard = tell.send(());
    });
    match ended.recv_timeout(Duration::from_secs(if deep() { 600 } else { 20 })) {
        Err(RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => thread
            .join()
            .unwrap_or_else(|p| std::panic::resume_unwind(p)),
    }
}

fn deep() -> bool {
    std::env::var_os("OVERDRIVE_DEEP").is_some_and(|value| value == "1")
}

fn rounds() -> u64 {
    if deep() { 2_000 } else { 20 }
}

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

type Keyed = KeyedBatcher<u64, u64, u64>;

fn submitter(batcher: &Keyed, seed: u64, told: &AtomicU64) {
    let mut dice = Dice(seed);
    for n in 0..200 {
        let key = dice.roll(12);
        match dice.roll(8) {
            0 => {
                let mut future = Box::pin(batcher.submit(key, n));
                let mut cx = Context::from_waker(Waker::noop());
                let _withdrawn = future.as_mut().poll(&mut cx);
            }
            1 => {
                if let Ok(ticket) = batcher.try_submit(key, n) {
                    ticket.detach();
                }
            }
            2 => batcher.flush_blocking(),
            3 => {
                let late = Deadline::after(Duration::from_micros(dice.roll(50)));
                match batcher.submit(key, n).deadline(late).wait_blocking() {
                    Ok(result) => assert_eq!(result, n + 1),
                    Err(error) => assert_eq!(error.into_inner().unwrap_or(n), n),
                }
            }
            _ => match batcher.submit_blocking(key, n) {
                Ok(result) => assert_eq!(result, n + 1),
                Err(SubmitError::Closed(item) | SubmitError::Full(item)) => assert_eq!(item, n),
                Err(SubmitError::Abandoned(item)) => assert_eq!(item.unwrap_or(n), n),
                Err(error) => panic!("{error}"),
            },
        }
        told.fetch_add(1, Ordering::Relaxed);
    }
}

fn builder(round: u64) -> KeyedBatcherBuilder<u64, u64> {
    let mut dice = Dice(round);
    let max_size = 2 + dice.roll(3) as usize;
    let workers = 1 + dice.roll(3) as usize;
    let max_keys = 4 + dice.roll(12) as usize;
    KeyedBatcher::builder()
        .workers(workers)
        .per_key(1 + dice.roll(workers as u64) as usize)
        .max_size(max_size)
        .capacity(max_size + dice.roll(3) as usize)
        .max_keys(max_keys)
        .max_idle_keys(dice.roll(4) as usize)
        .gather([Gather::Immediate, Gather::Tick][dice.roll(2) as usize])
        .overload([Overload::Wait, Overload::Reject][dice.roll(2) as usize])
}

fn storm(batcher: &Keyed, round: u64) {
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
    assert_eq!(batcher.keys(), 0);
    let stats = batcher.stats();
    assert_eq!((stats.waiting, stats.queued, stats.running), (0, 0, 0));
    let over = stats.completed + stats.failed + stats.cancelled + stats.expired;
    assert_eq!(stats.submitted, over + stats.abandoned + stats.rejected);
    // Each call of a submitter was counted once, but for flushes.
    let flushes = |seed| {
        let mut dice = Dice(seed);
        let calls = (0..200).map(|_| {
            dice.roll(12);
            let call = dice.roll(8);
            if call == 3 {
                dice.roll(50);
            }
            u64::from(call == 2)
        });
        calls.sum::<u64>()
    };
    let flushes: u64 = (0..4).map(|seed| flushes(round * 4 + seed)).sum();
    assert_eq!(stats.submitted + flushes, 800);
    let closed = stats.closed_full + stats.closed_idle + stats.closed_flush + stats.closed_at_end;
    assert_eq!(stats.batches, closed);
}

#[test]
fn submitters_of_all_kinds_and_an_end_on_threads() {
    ends(|| {
        for round in 0..rounds() {
            let built = builder(round).build_sync(|_: &u64, items: Vec<u64>| {
                Ok::<_, Infallible>(items.iter().map(|n| n + 1).collect())
            });
            storm(&built.unwrap(), round);
        }
    });
}

#[cfg(feature = "tokio")]
#[test]
fn submitters_of_all_kinds_and_an_end_on_tasks() {
    ends(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .unwrap();
        for round in 0..rounds() {
            let entered = runtime.enter();
            let built = builder(round).build(|_: u64, items: Vec<u64>| async move {
                if items[0] % 3 == 0 {
                    tokio::task::yield_now().await;
                }
                Ok::<_, Infallible>(items.iter().map(|n| n + 1).collect())
            });
            drop(entered);
            storm(&built.unwrap(), round);
        }
    });
}

#[test]
fn keys_that_are_forgotten_and_come_back_keep_their_order() {
    const EACH: u64 = 300;
    ends(|| {
        for kept in [0, 1, 3] {
            let seen: Arc<Mutex<HashMap<u64, Vec<u64>>>> = Arc::default();
            let inside = Arc::clone(&seen);
            let batcher = KeyedBatcher::builder()
                .workers(3)
                .max_size(2)
                .max_keys(64)
                .max_idle_keys(kept)
                .build_sync(move |key: &u64, items: Vec<u64>| {
                    let mut seen = inside.lock().unwrap();
                    seen.entry(*key).or_default().extend(&items);
                    Ok::<_, Infallible>(items)
                })
                .unwrap();
            thread::scope(|scope| {
                for thread in 0..6 {
                    let batcher = &batcher;
                    scope.spawn(move || {
                        // One thread submits to a key, so its order is known.
                        for n in 0..EACH {
                            let key = thread * 2 + n % 2;
                            if n % 7 == 0 {
                                assert_eq!(batcher.submit_blocking(key, n).unwrap(), n);
                                continue;
                            }
                            match batcher.try_submit(key, n) {
                                Ok(ticket) => ticket.detach(),
                                Err(TrySubmitError::Full(n)) => {
                                    assert_eq!(batcher.submit_blocking(key, n).unwrap(), n);
                                }
                                Err(error) => panic!("{error}"),
                            }
                        }
                    });
                }
            });
            assert!(batcher.shutdown_blocking(Deadline::NEVER).is_complete());
            let seen = seen.lock().unwrap();
            assert_eq!(seen.len(), 12);
            for (key, items) in &*seen {
                let expected = (0..EACH).filter(|n| n % 2 == key % 2);
                assert!(items.iter().copied().eq(expected), "key {key}: {items:?}");
            }
            assert_eq!(batcher.stats().completed, 6 * EACH);
        }
    });
}
