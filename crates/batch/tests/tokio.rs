//! Handlers that are async functions, on tokio; its time is paused where time matters.
#![cfg(feature = "tokio")]

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use overdrive_batch::{Batcher, BatcherBuilder, Deadline, Gather, SubmitError};
use overdrive_core::Timestamp;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::time::{Instant, advance, sleep};

async fn double(items: Vec<u64>) -> Result<Vec<u64>, Infallible> {
    Ok(items.iter().map(|n| n * 2).collect())
}

fn lingering(min_size: usize, millis: u64) -> BatcherBuilder<u64> {
    let wait = Duration::from_millis(millis);
    let builder = Batcher::builder().workers(1).max_wait(wait);
    builder.gather(Gather::Linger { min_size })
}

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn without_a_runtime_it_is_not_built() {
    let refused = Batcher::builder().build(double).unwrap_err();
    assert_eq!(refused.field(), "runtime");
}

#[test]
fn without_a_timer_nothing_lingers() {
    let runtime = Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let refused = lingering(2, 5).build(double).unwrap_err();
        assert_eq!(refused.field(), "gather");
        let batcher = Batcher::builder().build(double).unwrap();
        assert_eq!(batcher.submit(1).await.unwrap(), 2);
    });
}

#[test]
fn five_thousand_submits_in_a_row() {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let batcher = Batcher::builder().build(double).unwrap();
        for n in 0..5_000 {
            assert_eq!(batcher.submit(n).await.unwrap(), n * 2);
        }
        assert_eq!(batcher.stats().batches, 5_000);
    });
}

#[test]
fn a_tick_lets_all_ready_submitters_into_the_batch() {
    current_thread().block_on(async {
        let batcher = Batcher::builder().workers(1).build(double).unwrap();
        let tasks: Vec<_> = (0..50)
            .map(|n| tokio::spawn(batcher.submit_owned(n)))
            .collect();
        for (task, n) in tasks.into_iter().zip(0..) {
            assert_eq!(task.await.unwrap().unwrap(), n * 2);
        }
        let stats = batcher.stats();
        assert_eq!((stats.batches, stats.largest_batch), (1, 50), "{stats:?}");
    });
}

/// Lets each task that is ready run once.
async fn step() {
    let mut first = true;
    std::future::poll_fn(|cx| {
        if std::mem::take(&mut first) {
            cx.waker().wake_by_ref();
            return std::task::Poll::Pending;
        }
        std::task::Poll::Ready(())
    })
    .await;
}

async fn ticks_after_a_withdrawal() {
    let batcher = Batcher::builder().workers(1).build(double).unwrap();
    step().await;
    for _ in 0..2 {
        let mut withdrawn = Box::pin(batcher.submit(1));
        std::future::poll_fn(|cx| {
            assert!(withdrawn.as_mut().poll(cx).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        step().await;
        assert_eq!(batcher.stats().queued, 1, "the worker lets the others run");
        drop(withdrawn);
        step().await;
    }
    assert_eq!(batcher.stats().batches, 0);
}

#[test]
fn a_tick_whose_items_were_withdrawn_counts_for_no_later_batch() {
    let runtime = current_thread();
    let task = runtime.spawn(ticks_after_a_withdrawal());
    runtime.block_on(task).unwrap();
}

#[test]
fn a_plain_handler_serves_tasks_and_an_async_one_serves_threads() {
    let plain = Batcher::builder().build_sync(|items: Vec<u64>| Ok::<_, Infallible>(items));
    let plain = plain.unwrap();
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let served = runtime.block_on(async {
        assert_eq!(plain.submit(3).await.unwrap(), 3);
        Batcher::builder().build(double).unwrap()
    });
    assert_eq!(served.submit_blocking(4).unwrap(), 8);
    assert!(served.shutdown_blocking(Deadline::NEVER).is_complete());
}

#[tokio::test]
#[should_panic(expected = "runtime")]
async fn waiting_on_a_thread_of_the_runtime_panics() {
    let batcher = Batcher::builder().build(double).unwrap();
    drop(batcher.submit_blocking(1));
}

#[tokio::test(start_paused = true)]
async fn an_open_batch_is_closed_at_max_wait_from_its_first_item() {
    let batcher = lingering(10, 50).build(double).unwrap();
    let begun = Instant::now();
    let first = tokio::spawn(batcher.submit_owned(1));
    sleep(Duration::from_millis(40)).await;
    // Does not put it off.
    assert_eq!(batcher.submit(2).await.unwrap(), 4);
    assert_eq!(first.await.unwrap().unwrap(), 2);
    let age = begun.elapsed();
    assert!((50..=51).contains(&age.as_millis()), "{age:?}");
    assert_eq!(batcher.stats().closed_linger, 1);
    // Enough items need not wait at all.
    let begun = Instant::now();
    assert_eq!(batcher.submit_all(0..10).await.len(), 10);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_trickle_does_not_put_a_batch_off() {
    let batcher = lingering(100, 5).build(double).unwrap();
    let mut tasks = Vec::new();
    for n in 0..200 {
        let batcher = batcher.clone();
        tasks.push(tokio::spawn(async move {
            let begun = Instant::now();
            batcher.submit(n).await.unwrap();
            begun.elapsed()
        }));
        sleep(Duration::from_millis(3)).await;
    }
    for task in tasks {
        let age = task.await.unwrap();
        // Timers are exact to a millisecond.
        assert!(age <= Duration::from_millis(6), "{age:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn deadlines_pass_while_lingering() {
    let batcher = lingering(10, 50).build(double).unwrap();
    let now = Timestamp::from_instant(Instant::now().into_std());
    let soon = Deadline::at(now.saturating_add(Duration::from_millis(20)));
    let late = tokio::spawn(batcher.submit_owned(1).deadline(soon));
    let kept = tokio::spawn(batcher.submit_owned(2));
    let error = late.await.unwrap().unwrap_err();
    assert!(
        matches!(error, SubmitError::DeadlineExceeded(1)),
        "{error:?}"
    );
    assert_eq!(kept.await.unwrap().unwrap(), 4);
    assert_eq!(batcher.stats().batches, 1);
}

#[tokio::test(start_paused = true)]
async fn a_drain_gives_up_at_its_deadline_and_drops_the_handlers() {
    let alive = Arc::new(());
    let held = Arc::clone(&alive);
    let batcher = Batcher::builder().workers(1).build(move |_: Vec<u64>| {
        let held = Arc::clone(&held);
        async move {
            pending::<()>().await;
            drop(held);
            Ok::<Vec<u64>, Infallible>(Vec::new())
        }
    });
    let batcher = batcher.unwrap();
    let running = tokio::spawn(batcher.submit_owned(1));
    while batcher.stats().running == 0 {
        tokio::task::yield_now().await;
    }
    let queued = batcher.try_submit(2).unwrap();
    let begun = Instant::now();
    let report = batcher.drain(Duration::from_secs(5)).await;
    assert!(begun.elapsed() <= Duration::from_millis(5_002));
    assert_eq!((report.finished, report.abandoned), (0, 2));
    assert!(matches!(
        running.await.unwrap(),
        Err(SubmitError::Abandoned(None))
    ));
    assert!(matches!(queued.await, Err(SubmitError::Abandoned(Some(2)))));
    // The handler and its future are gone once the tasks have been told.
    while Arc::strong_count(&alive) > 1 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_drain_counts_only_what_was_accepted() {
    let permits = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&permits);
    let batcher = Batcher::builder().build(move |items: Vec<u64>| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.unwrap().forget();
            double(items).await
        }
    });
    let batcher = batcher.unwrap();
    let ticket = batcher.try_submit(1).unwrap();
    let mut drained = Box::pin(batcher.drain(Deadline::NEVER));
    std::future::poll_fn(|cx| {
        assert!(drained.as_mut().poll(cx).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    let late = batcher.submit(2).deadline(Duration::ZERO).await;
    assert!(matches!(late, Err(SubmitError::DeadlineExceeded(2))));
    permits.add_permits(1);
    assert_eq!(drained.await.finished, 1);
    assert_eq!(ticket.await.unwrap(), 2);
    assert_eq!(batcher.stats().expired, 1);
}

#[tokio::test]
async fn a_shutdown_ends_the_workers() {
    let alive = Arc::new(());
    let held = Arc::clone(&alive);
    let batcher = Batcher::builder().build(move |items: Vec<u64>| {
        let _held = &held;
        double(items)
    });
    let batcher = batcher.unwrap();
    let ticket = batcher.try_submit(2).unwrap();
    let report = batcher.shutdown(Deadline::NEVER).await;
    assert_eq!((report.finished, report.abandoned), (1, 0));
    assert_eq!(ticket.await.unwrap(), 4);
    while Arc::strong_count(&alive) > 1 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_runtime_that_is_dropped_abandons_what_it_has() {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let stuck = |_: Vec<u64>| pending::<Result<Vec<u64>, Infallible>>();
    let builder = Batcher::builder().workers(1).max_size(1).capacity(2);
    let batcher = runtime.block_on(async { builder.build(stuck).unwrap() });
    let running = batcher.try_submit(1).unwrap();
    while batcher.stats().running == 0 {
        std::thread::yield_now();
    }
    let queued = [2, 3].map(|n| batcher.try_submit(n).unwrap());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| batcher.submit_blocking(4));
        while batcher.stats().waiting == 0 {
            std::thread::yield_now();
        }
        drop(runtime);
        let refused = waiting.join().unwrap();
        assert!(
            matches!(refused, Err(SubmitError::Closed(4))),
            "{refused:?}"
        );
    });
    assert!(matches!(
        running.wait_blocking(),
        Err(SubmitError::Abandoned(None))
    ));
    for (ticket, n) in queued.into_iter().zip(2..) {
        assert_eq!(ticket.wait_blocking().unwrap_err().into_inner(), Some(n));
    }
    assert!(batcher.is_closed());
    assert!(batcher.drain_blocking(Deadline::NEVER).is_complete());
}

#[test]
fn a_runtime_dropped_before_its_tasks_ran_abandons_too() {
    let runtime = current_thread();
    let batcher = runtime.block_on(async { Batcher::builder().build(double).unwrap() });
    let ticket = batcher.try_submit(1).unwrap();
    drop(runtime);
    assert_eq!(ticket.wait_blocking().unwrap_err().into_inner(), Some(1));
}

#[tokio::test]
async fn a_submitter_may_be_aborted_at_every_await() {
    // The handler awaits three permits; the submitter goes after each number of steps.
    for steps in 0..8 {
        let seen = Arc::new(AtomicUsize::new(0));
        let permits = Arc::new(Semaphore::new(0));
        let (count, gate) = (Arc::clone(&seen), Arc::clone(&permits));
        let batcher = Batcher::builder().workers(1).build(move |items: Vec<u64>| {
            let (count, gate) = (Arc::clone(&count), Arc::clone(&gate));
            async move {
                count.fetch_add(items.len(), Ordering::SeqCst);
                for _ in 0..3 {
                    gate.acquire().await.unwrap().forget();
                }
                Ok::<_, Infallible>(items)
            }
        });
        let batcher = batcher.unwrap();
        let neighbour = tokio::spawn(batcher.submit_owned(1));
        let aborted = tokio::spawn(batcher.submit_owned(2));
        for step in 0..steps {
            if step > 3 {
                permits.add_permits(1);
            }
            tokio::task::yield_now().await;
        }
        aborted.abort();
        let _gone = aborted.await;
        permits.add_permits(100);
        assert_eq!(neighbour.await.unwrap().unwrap(), 1, "after {steps} steps");
        assert_eq!(batcher.submit(3).await.unwrap(), 3);
        let stats = batcher.stats();
        let out = stats.cancelled + stats.completed;
        assert_eq!(seen.load(Ordering::SeqCst) as u64, stats.completed);
        assert_eq!(out, stats.submitted, "{stats:?}");
    }
}

#[tokio::test]
async fn panics_of_async_handlers_stay_in_their_batch() {
    let batcher = Batcher::builder().workers(1).build(|items: Vec<u64>| {
        if items[0] == 0 {
            std::panic::resume_unwind(Box::new("before the future"));
        }
        async move {
            if items[0] == 1 {
                std::panic::resume_unwind(Box::new("in the future"));
            }
            Ok::<_, Infallible>(items)
        }
    });
    let batcher = batcher.unwrap();
    for (item, expected) in [(0, "before the future"), (1, "in the future")] {
        match batcher.submit(item).await {
            Err(SubmitError::Panicked(message)) => assert_eq!(&*message, expected),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(batcher.submit(2).await.unwrap(), 2);
}

#[tokio::test]
async fn a_flush_is_a_future_too() {
    let batcher = lingering(100, 3_600_000).build(double).unwrap();
    let ticket = batcher.try_submit(1).unwrap();
    batcher.flush().await;
    assert_eq!(ticket.await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_drain_leaves_it_closed_and_abandons_nothing() {
    let batcher = Batcher::builder().build(|items: Vec<u64>| async move {
        sleep(Duration::from_secs(10)).await;
        Ok::<_, Infallible>(items)
    });
    let batcher = batcher.unwrap();
    let ticket = batcher.try_submit(1).unwrap();
    let second = Duration::from_secs(1);
    let drain = batcher.drain(Duration::from_secs(60));
    assert!(tokio::time::timeout(second, drain).await.is_err());
    assert!(batcher.is_closed());
    advance(second).await;
    assert_eq!(ticket.await.unwrap(), 1);
}

/// How many batches are run before another task of the thread gets its turn.
async fn batches_before_others(builder: BatcherBuilder<u64>, leases: bool) -> usize {
    let ran = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ran);
    let run = move |items: Vec<u64>| {
        count.fetch_add(1, Ordering::SeqCst);
        std::future::ready(Ok::<_, Infallible>(items))
    };
    let builder = builder.workers(1).max_size(1).capacity(10_000);
    let batcher = if leases {
        builder.build_with(
            || std::future::ready(Ok(())),
            move |(), items: Vec<u64>| run(items),
        )
    } else {
        builder.build(run)
    }
    .unwrap();
    tokio::task::yield_now().await;
    for n in 0..5_000 {
        batcher.try_submit(n).unwrap().detach();
    }
    let seen = Arc::clone(&ran);
    tokio::spawn(async move {
        // The worker goes first.
        while seen.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        seen.load(Ordering::SeqCst)
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_worker_without_leases_lets_others_run() {
    let ran = batches_before_others(Batcher::builder(), false).await;
    assert!(ran <= 32, "{ran}");
}

#[tokio::test]
async fn a_worker_with_leases_lets_others_run() {
    let ran = batches_before_others(Batcher::builder(), true).await;
    assert!(ran <= 32, "{ran} batches before others got a turn");
}

#[tokio::test]
async fn a_worker_with_leases_lets_others_run_immediate() {
    let ran = batches_before_others(Batcher::builder().gather(Gather::Immediate), true).await;
    assert!(ran <= 32, "{ran} batches before others got a turn");
}
