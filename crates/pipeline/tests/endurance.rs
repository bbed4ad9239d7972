//! What a pipeline owes to those who end it, wait for it, or share a pool with it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};

use overdrive_pipeline::{Pipeline, PipelineError};
use overdrive_testkit::{CountingWaker, DropCounter, Gate, Token, block_on};
use overdrive_workstealing::ThreadPool;
use tokio::sync::Semaphore;

fn pool(workers: usize) -> ThreadPool {
    ThreadPool::builder().workers(workers).build().unwrap()
}

#[test]
fn a_run_that_delivers_nothing_can_be_cancelled() {
    for parallel in [false, true] {
        let run = Pipeline::from_iter(0_u64..).batch(1 << 30);
        let (looked, looks) = mpsc::sync_channel(1);
        let run = run.map(|batch| batch.len());
        let filtered = Pipeline::from_iter(0_u64..).filter(move |n| {
            if *n == 1000 {
                looked.send(()).unwrap();
            }
            false
        });
        let monitors = (run.monitor(), filtered.monitor());
        std::thread::scope(|scope| {
            let first = scope.spawn(move || {
                let pool = pool(1);
                if parallel {
                    filtered.parallel(2).on(&pool).run(drop)
                } else {
                    filtered.run(drop)
                }
            });
            looks.recv().unwrap();
            monitors.1.cancel();
            let error = first.join().unwrap().unwrap_err();
            assert!(matches!(error, PipelineError::Cancelled { .. }), "{error}");

            let second = scope.spawn(move || run.run(drop));
            while monitors.0.stats().received == 0 {
                std::thread::yield_now();
            }
            monitors.0.cancel();
            let error = second.join().unwrap().unwrap_err();
            assert!(matches!(error, PipelineError::Cancelled { .. }), "{error}");
        });
    }
}

#[test]
fn a_future_that_delivers_nothing_lets_others_run() {
    let waker = CountingWaker::new();
    let run = Pipeline::from_iter(0..100_000).filter(|_| false);
    let monitor = run.monitor();
    let mut run = Box::pin(run.run_async(drop));
    assert!(run.as_mut().poll(&mut waker.context()).is_pending());
    let received = monitor.stats().received;
    assert!(received > 0 && received <= 1000, "{received}");
    assert_eq!(waker.wakes(), 1);
    while run.as_mut().poll(&mut waker.context()).is_pending() {}
    assert_eq!(monitor.stats().received, 100_000);
}

#[test]
fn a_future_cuts_no_batch_short() {
    let mut sizes = Vec::new();
    let run = Pipeline::from_iter(0..1000).batch(400);
    block_on(run.run_async(|batch: Vec<u32>| sizes.push(batch.len()))).unwrap();
    assert_eq!(sizes, [400, 400, 200]);
}

#[test]
fn a_stage_that_parks_its_thread_takes_no_wake_up_away() {
    let (ingress, pipeline) = Pipeline::from_channel(4);
    ingress.try_send(0).unwrap();
    ingress.try_send(1).unwrap();
    let ingress = Arc::new(ingress);
    let last_came = Arc::new(Semaphore::new(0));
    let stats = pipeline
        .map_async(3, move |n| {
            let (ingress, last_came) = (Arc::clone(&ingress), Arc::clone(&last_came));
            async move {
                if n == 2 {
                    return last_came.add_permits(2);
                }
                if n == 1 {
                    // Polled alone from here on.
                    yield_once().await;
                    // It wakes the pipeline, and takes the thread's token, as a channel or a lock
                    // that parks may.
                    ingress.try_send(2).unwrap();
                    std::thread::park_timeout(std::time::Duration::ZERO);
                    ingress.close();
                }
                drop(last_came.acquire().await);
            }
        })
        .run(drop)
        .unwrap();
    assert_eq!(stats.delivered, 3);
}

#[test]
fn what_a_dropped_future_held_is_counted_as_abandoned() {
    let run = Pipeline::from_iter(0..9).map_async(4, |_| std::future::pending::<()>());
    let monitor = run.monitor();
    let mut run = Box::pin(run.run_async(drop));
    let mut context = Context::from_waker(Waker::noop());
    assert!(run.as_mut().poll(&mut context).is_pending());
    drop(run);
    let stats = monitor.stats();
    assert_eq!(
        (stats.received, stats.abandoned, stats.in_flight),
        (4, 4, 0)
    );
}

#[test]
fn what_a_panic_of_the_sink_leaves_is_counted() {
    let run = Pipeline::from_iter(0..).map_async(4, |n| async move { n });
    let monitor = run.monitor();
    let panicked = catch_unwind(AssertUnwindSafe(|| run.run(|n| assert!(n < 3, "sink"))));
    assert!(panicked.is_err());
    let stats = monitor.stats();
    assert_eq!(
        (stats.delivered, stats.panicked, stats.in_flight),
        (3, 1, 0)
    );
    assert_eq!(stats.received, 4 + stats.abandoned);
}

#[test]
fn the_figures_of_an_error_are_those_of_the_end() {
    /// Opens the gate when it is dropped.
    struct Opens<'g>(&'g Gate);
    impl Drop for Opens<'_> {
        fn drop(&mut self) {
            self.0.open();
        }
    }
    let gate = Gate::new();
    // Dropped by the end of the run, when its error is made.
    let opens = Opens(&gate);
    let error = Pipeline::from_iter(0..2)
        .try_map(|n| {
            if n == 0 {
                gate.pass();
                return Ok(n);
            }
            gate.wait_for(1);
            Err("refused")
        })
        .parallel(2)
        .unordered()
        .map(move |n| {
            _ = &opens;
            n
        })
        .on(&pool(1))
        .run(drop)
        .unwrap_err();
    let stats = error.stats().unwrap();
    assert_eq!((stats.failed, stats.abandoned, stats.in_flight), (1, 1, 0));
}

#[test]
fn a_busy_pool_is_not_flooded() {
    let pool = pool(1);
    let gate = Arc::new(Gate::new());
    let held = Arc::clone(&gate);
    pool.spawn(move || held.pass()).unwrap();
    gate.wait_for(1);
    let mut most = 0;
    let run = Pipeline::from_iter(0..1000).map(|n| n + 1).parallel(2);
    run.on(&pool)
        .run(|_| most = most.max(pool.stats().queued()))
        .unwrap();
    gate.open();
    assert!(most <= 8, "{most}");
}

/// Panics instead of waking.
struct Refuses;

impl Wake for Refuses {
    fn wake(self: Arc<Self>) {
        panic!("a waker panics");
    }
}

#[test]
fn a_waker_that_panics_costs_no_item_and_no_wake_up() {
    let (ingress, pipeline) = Pipeline::from_channel(1);
    ingress.try_send(0).unwrap();
    let refuses = Waker::from(Arc::new(Refuses));
    let counting = CountingWaker::new();
    let mut first = Box::pin(ingress.send(1));
    let mut second = Box::pin(ingress.send(2));
    assert!(
        first
            .as_mut()
            .poll(&mut Context::from_waker(&refuses))
            .is_pending()
    );
    assert!(second.as_mut().poll(&mut counting.context()).is_pending());
    let mut seen = Vec::new();
    let mut run = Box::pin(pipeline.run_async(|n| seen.push(n)));
    let mut context = Context::from_waker(Waker::noop());
    assert!(run.as_mut().poll(&mut context).is_pending());
    assert_eq!(counting.wakes(), 1);
    ingress.close();
    assert!(run.as_mut().poll(&mut context).is_ready());
    drop(run);
    assert_eq!(seen, [0]);
}

#[test]
fn a_sender_that_is_polled_often_waits_once() {
    let (ingress, pipeline) = Pipeline::from_channel(1);
    ingress.try_send(0).unwrap();
    let counting = CountingWaker::new();
    let mut send = Box::pin(ingress.send(1));
    for _ in 0..100 {
        assert!(send.as_mut().poll(&mut counting.context()).is_pending());
    }
    let mut given_up = Box::pin(ingress.send(2));
    assert!(given_up.as_mut().poll(&mut counting.context()).is_pending());
    drop(given_up);
    drop(pipeline);
    assert_eq!(counting.wakes(), 1);
    assert!(matches!(
        send.as_mut().poll(&mut counting.context()),
        Poll::Ready(Err(_))
    ));
    let again = catch_unwind(AssertUnwindSafe(|| {
        send.as_mut().poll(&mut counting.context())
    }));
    assert!(again.is_err(), "ready once");
}

#[test]
fn items_whose_drop_panics_are_all_dropped() {
    for parallel in [false, true] {
        let items = DropCounter::new();
        let source = (0..4).map(|_| items.panicking());
        let several = |item: Token| vec![item, items.panicking(), items.panicking()];
        let run = Pipeline::from_iter(source).flat_map(several);
        let pool = pool(1);
        let mut kept = Vec::new();
        let refuse = |item: Token| {
            kept.push(item);
            Err("refused")
        };
        let ended = if parallel {
            run.parallel(2).on(&pool).try_run(refuse)
        } else {
            run.batch(2)
                .map_async(3, async |batch| batch)
                .try_run(|mut batch: Vec<Token>| {
                    kept.append(&mut batch);
                    Err("refused")
                })
        };
        let left = if parallel { 1 } else { 2 };
        assert!(matches!(ended.unwrap_err(), PipelineError::Sink { .. }));
        assert_eq!(items.alive(), left, "{parallel}");
        for item in kept {
            overdrive_core::unwind::survive(|| drop(item));
        }
    }
}

#[test]
fn futures_whose_drop_panics_are_all_dropped() {
    let items = DropCounter::new();
    let run = Pipeline::from_iter(0..4).map_async(4, |_| {
        let held = items.panicking();
        async move {
            let _held = held;
            std::future::pending::<()>().await;
        }
    });
    let monitor = run.monitor();
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| run.run(drop));
        while monitor.stats().received < 4 {
            std::thread::yield_now();
        }
        monitor.cancel();
        assert!(ended.join().unwrap().is_err());
    });
    assert_eq!((items.made(), items.alive()), (4, 0));
}

/// Pending once.
async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
