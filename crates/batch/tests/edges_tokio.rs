//! Async handlers at their edges: ones that block, compute, wait for themselves, or never wait.
#![cfg(feature = "tokio")]

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use overdrive_batch::{Batcher, Gather};
use tokio::runtime::{Builder, Runtime};

const SOON: Duration = Duration::from_secs(3);

fn threads(n: usize) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(n).enable_all().build().unwrap()
}

/// Handlers that are ready at once, and submitters that keep a full batch waiting.
#[test]
fn a_saturated_batcher_lets_other_tasks_run() {
    const MANY: usize = 200_000;
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (calls, stop) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let seen = runtime.block_on(async {
        let own: Arc<OnceLock<Batcher<u64, u64>>> = Arc::default();
        let (again, count, end) = (Arc::clone(&own), Arc::clone(&calls), Arc::clone(&stop));
        // All settings are the defaults.
        let batcher = Batcher::builder()
            .build(move |items: Vec<u64>| {
                let batcher = again.get().unwrap();
                let calls = count.fetch_add(1, Ordering::SeqCst);
                if !end.load(Ordering::SeqCst) && calls < MANY {
                    for &n in &items {
                        batcher.try_submit(n).unwrap().detach();
                    }
                }
                async move { Ok::<_, Infallible>(items) }
            })
            .unwrap();
        own.set(batcher.clone()).unwrap();
        for n in 0..100 {
            batcher.try_submit(n).unwrap().detach();
        }
        let count = Arc::clone(&calls);
        // Behind the workers in the runtime's queue.
        tokio::spawn(async move {
            stop.store(true, Ordering::SeqCst);
            count.load(Ordering::SeqCst)
        })
        .await
        .unwrap()
    });
    assert!(
        seen < 10_000,
        "another task ran after {seen} batches, in one poll of the worker"
    );
}

/// A handler that blocks its thread before it first awaits, with workers and threads to spare.
#[test]
fn a_handler_that_blocks_keeps_no_other_worker_from_working() {
    let runtime = threads(4);
    let (go, gate) = channel::<()>();
    let (tell, begun) = channel();
    let (gate, tell) = (Arc::new(Mutex::new(gate)), Arc::new(Mutex::new(tell)));
    let batcher = runtime.block_on(async move {
        let builder = Batcher::builder().workers(4).gather(Gather::Immediate);
        builder.build(move |items: Vec<u64>| {
            let (gate, tell) = (Arc::clone(&gate), Arc::clone(&tell));
            async move {
                if items == [0] {
                    tell.lock().unwrap().send(()).unwrap();
                    tokio::task::block_in_place(|| {
                        gate.lock().unwrap().recv_timeout(2 * SOON).ok()
                    });
                }
                Ok::<_, Infallible>(items)
            }
        })
    });
    let batcher = batcher.unwrap();
    batcher.try_submit(0).unwrap().detach();
    begun.recv_timeout(SOON).unwrap();
    let (tell, told) = channel();
    let own = batcher.clone();
    std::thread::spawn(move || tell.send(own.submit_blocking(1)));
    let second = told.recv_timeout(SOON);
    let stats = batcher.stats();
    go.send(()).ok();
    assert!(
        matches!(second, Ok(Ok(1))),
        "three workers are idle, {} queued",
        stats.queued
    );
}

/// As the one before, with a limit on how old an item may get.
#[test]
fn max_wait_holds_beside_a_handler_that_computes() {
    let runtime = threads(4);
    let (go, gate) = channel::<()>();
    let (tell, begun) = channel();
    let (gate, tell) = (Arc::new(Mutex::new(gate)), Arc::new(Mutex::new(tell)));
    let batcher = runtime.block_on(async move {
        let builder = Batcher::builder()
            .workers(4)
            .max_wait(Duration::from_millis(20));
        let builder = builder.gather(Gather::Linger { min_size: 2 });
        builder.build(move |items: Vec<u64>| {
            let (gate, tell) = (Arc::clone(&gate), Arc::clone(&tell));
            async move {
                if items == [0] {
                    tell.lock().unwrap().send(()).unwrap();
                    gate.lock().unwrap().recv_timeout(2 * SOON).ok();
                }
                Ok::<_, Infallible>(items)
            }
        })
    });
    let batcher = batcher.unwrap();
    batcher.try_submit(0).unwrap().detach();
    begun.recv_timeout(SOON).unwrap();
    let (tell, told) = channel();
    // As many as `min_size`, too.
    std::thread::spawn(move || tell.send(batcher.submit_all(1..6).wait_blocking().len()));
    let second = told.recv_timeout(SOON);
    go.send(()).ok();
    assert_eq!(
        second,
        Ok(5),
        "older than max_wait by far, with three workers free"
    );
}

/// "Awaited inside the handler it waits for another worker", and a thread that must not wait panics.
#[test]
fn a_handler_that_waits_for_its_own_batcher_on_its_thread_is_served_or_panics() {
    let runtime = threads(4);
    let own: Arc<OnceLock<Batcher<u64, u64>>> = Arc::default();
    let again = Arc::clone(&own);
    let batcher = runtime.block_on(async move {
        let builder = Batcher::builder().workers(4);
        builder.build(move |items: Vec<u64>| {
            let batcher = again.get().unwrap().clone();
            async move {
                if items == [0] {
                    let inner = tokio::task::block_in_place(|| {
                        batcher.submit(7).deadline(SOON).wait_blocking()
                    });
                    return Ok::<_, Infallible>(vec![inner.unwrap_or(1000)]);
                }
                Ok(items)
            }
        })
    });
    let batcher = batcher.unwrap();
    own.set(batcher.clone()).unwrap();
    let (tell, told) = channel();
    std::thread::spawn(move || tell.send(batcher.submit_blocking(0).map_err(|e| e.to_string())));
    let end = told.recv_timeout(3 * SOON).expect("the deadline ends it");
    assert_ne!(
        end,
        Ok(1000),
        "it waited until the deadline; without one, for ever"
    );
}

/// `Gather::Tick`: "all who are about to submit are in the batch".
#[test]
fn a_burst_after_lone_items_is_one_batch() {
    let runtime = threads(1);
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let own = Arc::clone(&sizes);
    runtime.block_on(async move {
        tokio::spawn(async move {
            let batcher = Batcher::builder().build(move |items: Vec<u64>| {
                own.lock().unwrap().push(items.len());
                async move { Ok::<_, Infallible>(items) }
            });
            let batcher = batcher.unwrap();
            for n in 0..20 {
                batcher.submit(n).await.unwrap();
            }
            let burst: Vec<_> = (0..50)
                .map(|n| tokio::spawn(batcher.submit_owned(n)))
                .collect();
            for one in burst {
                one.await.unwrap().unwrap();
            }
        })
        .await
        .unwrap();
    });
    let sizes = sizes.lock().unwrap();
    assert!(
        sizes[20..].len() <= 2,
        "of fifty that were about to submit: {sizes:?}"
    );
}

/// Handlers that compute, four workers, four threads: how many run at the same time at the most.
#[test]
fn workers_that_compute_run_at_the_same_time() {
    let runtime = threads(4);
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = Arc::clone(&most);
    runtime.block_on(async move {
        let batcher = Batcher::builder().workers(4).build(move |items: Vec<u64>| {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                // Until another computes beside it, or it has done enough.
                for _ in 0..20_000 {
                    std::thread::yield_now();
                    most.fetch_max(now.load(Ordering::SeqCst), Ordering::SeqCst);
                }
                now.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, Infallible>(items)
            }
        });
        let batcher = batcher.unwrap();
        let tasks: Vec<_> = (0..60)
            .map(|n| {
                let batcher = batcher.clone();
                tokio::spawn(async move {
                    for _ in 0..5 {
                        batcher.submit(n).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    // "How many batches run at the same time. Default 4"
    assert!(
        seen.load(Ordering::SeqCst) > 1,
        "one at a time, of four workers on four threads"
    );
}
