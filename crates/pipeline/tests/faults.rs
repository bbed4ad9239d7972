//! What pipelines survive, and what becomes of the items.

use std::sync::mpsc;

use overdrive_pipeline::{Pipeline, PipelineError, TrySendError};
use overdrive_testkit::{DropCounter, Gate, PanicOnDrop, Token, block_on};
use overdrive_workstealing::ThreadPool;

fn pool(workers: usize) -> ThreadPool {
    ThreadPool::builder().workers(workers).build().unwrap()
}

#[test]
fn a_panic_in_a_stage_names_it_and_every_item_is_dropped_once() {
    let items = DropCounter::new();
    let made: Vec<Token> = (0..50).map(|_| items.token()).collect();
    for parallel in [false, true] {
        let source = made.clone().into_iter().enumerate();
        let run = Pipeline::from_iter(source)
            .map(|(n, item)| {
                assert!(n != 20, "the twentieth");
                item
            })
            .stage("look");
        let ended = if parallel {
            run.parallel(3).on(&pool(2)).run(drop)
        } else {
            run.run(drop)
        };
        match ended.unwrap_err() {
            PipelineError::Panicked {
                stage,
                sequence,
                message,
                stats,
            } => {
                assert_eq!(
                    (&*stage, sequence, &*message),
                    ("look", 20, "the twentieth")
                );
                assert_eq!(
                    (stats.delivered, stats.panicked, stats.in_flight),
                    (20, 1, 0)
                );
                assert_eq!(stats.received, 21 + stats.abandoned);
            }
            other => panic!("{other}"),
        }
    }
    drop(made);
    assert_eq!(items.alive(), 0);
}

#[test]
fn a_panic_in_a_future_names_its_stage() {
    let run = Pipeline::from_iter(0..10)
        .map_async(4, |n| async move {
            assert!(n != 3, "three");
            n
        })
        .stage("ask");
    let error = run.run(drop).unwrap_err();
    assert_eq!(error.to_string(), "stage `ask` panicked at item 3: three");
}

#[test]
fn a_panic_before_the_future_is_one_too() {
    let run = Pipeline::from_iter(0..10).map_async(4, |n| {
        assert!(n != 3, "three");
        async move { n }
    });
    let error = run.run(drop).unwrap_err();
    assert!(
        matches!(error, PipelineError::Panicked { sequence: 3, .. }),
        "{error}"
    );
}

#[test]
fn a_payload_that_panics_when_dropped_is_survived() {
    let run = Pipeline::from_iter(0..3).map(|n| {
        if n == 1 {
            std::panic::panic_any(PanicOnDrop(2));
        }
        n
    });
    let error = run.parallel(2).on(&pool(1)).run(drop).unwrap_err();
    assert!(matches!(error, PipelineError::Panicked { .. }), "{error}");
}

#[test]
fn a_panic_of_source_or_sink_is_the_callers() {
    let items = DropCounter::new();
    let pool = pool(2);
    let source = (0..).map(|n| {
        assert!(n != 5, "source");
        items.token()
    });
    let run = Pipeline::from_iter(source)
        .map(|item| item)
        .parallel(2)
        .on(&pool);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.run(drop)));
    assert!(panicked.is_err());
    assert_eq!(items.alive(), 0);

    let source = (0..20).map(|_| items.token());
    let run = Pipeline::from_iter(source)
        .map(|item| item)
        .parallel(2)
        .on(&pool);
    let mut left = 3;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        run.run(|_| {
            left -= 1;
            assert!(left > 0, "sink");
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(items.alive(), 0);
}

#[test]
fn a_cancelled_run_ends_and_drops_what_it_held() {
    let items = DropCounter::new();
    let source = std::iter::repeat_with(|| items.token());
    let run = Pipeline::from_iter(source)
        .map(|item| item)
        .parallel(2)
        .on(&pool(2));
    let monitor = run.monitor();
    let mut delivered = 0;
    let error = run
        .run(|_| {
            delivered += 1;
            if delivered == 100 {
                monitor.cancel();
            }
        })
        .unwrap_err();
    let PipelineError::Cancelled { stats } = error else {
        panic!("{error}");
    };
    assert_eq!((stats.delivered, stats.in_flight), (100, 0));
    assert_eq!(stats.received, 100 + stats.abandoned);
    assert_eq!(items.alive(), 0);
}

#[test]
fn a_run_that_waits_for_its_channel_can_be_cancelled() {
    let (ingress, pipeline) = Pipeline::from_channel(8);
    let monitor = pipeline.monitor();
    let (delivered, seen) = mpsc::channel();
    std::thread::scope(|scope| {
        let run = scope.spawn(move || pipeline.run(|n| delivered.send(n).unwrap()));
        ingress.send_blocking(1).unwrap();
        assert_eq!(seen.recv(), Ok(1));
        monitor.cancel();
        let error = run.join().unwrap().unwrap_err();
        assert!(matches!(error, PipelineError::Cancelled { .. }), "{error}");
    });
    assert_eq!(ingress.try_send(2), Err(TrySendError::Closed(2)));
}

#[test]
fn what_a_failed_pipeline_never_took_can_be_had_back() {
    let (ingress, pipeline) = Pipeline::from_channel(10);
    for n in 0..6 {
        ingress.try_send(n).unwrap();
    }
    assert!(ingress.reclaim().is_empty());
    let mut seen = Vec::new();
    let error = pipeline
        .try_run(|n| {
            seen.push(n);
            if n == 2 { Err("broken") } else { Ok(()) }
        })
        .unwrap_err();
    let stats = error.stats().unwrap();
    assert_eq!((stats.delivered, stats.failed, stats.abandoned), (2, 1, 3));
    assert_eq!(seen, [0, 1, 2]);
    assert_eq!(ingress.reclaim(), [3, 4, 5]);
    assert!(ingress.reclaim().is_empty());
}

#[test]
fn a_dropped_pipeline_closes_its_channel() {
    let (ingress, pipeline) = Pipeline::from_channel(1);
    ingress.try_send('a').unwrap();
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| ingress.send_blocking('b'));
        drop(pipeline);
        assert!(blocked.join().unwrap().is_err());
    });
    assert_eq!(ingress.reclaim(), ['a']);
}

#[test]
fn a_dropped_future_ends_the_pipeline() {
    let items = DropCounter::new();
    let (ingress, pipeline) = Pipeline::from_channel(8);
    for _ in 0..4 {
        ingress.try_send(items.token()).unwrap();
    }
    let pool = pool(2);
    let run = pipeline.map(|item| item).parallel(2).on(&pool);
    let mut run = Box::pin(run.run_async(drop));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(run.as_mut().poll(&mut context).is_pending());
    drop(run);
    assert!(ingress.is_closed());
    drop(ingress.reclaim());
    assert!(pool.wait_idle(std::time::Duration::from_secs(60)));
    assert_eq!(items.alive(), 0);
}

#[test]
fn a_pool_that_takes_no_work_is_done_without() {
    let pool = pool(2);
    pool.close();
    let run = Pipeline::from_iter(0..100)
        .map(|n| n + 1)
        .parallel(4)
        .on(&pool);
    assert!(run.collect::<Vec<_>>().unwrap().into_iter().eq(1..=100));
    let mut seen = Vec::new();
    let run = Pipeline::from_iter(0..100)
        .map(|n| n + 1)
        .parallel(4)
        .on(&pool);
    block_on(run.run_async(|n| seen.push(n))).unwrap();
    assert!(seen.into_iter().eq(1..=100));
}

#[test]
fn a_pool_that_is_shut_down_over_queued_work_is_done_without() {
    // The pool's one worker is held, so that what the pipeline gives it waits in its queue, and
    // is thrown out of that by the shutdown.
    let pool = ThreadPool::builder().workers(1).build().unwrap();
    let gate = std::sync::Arc::new(Gate::new());
    let held = std::sync::Arc::clone(&gate);
    pool.spawn(move || held.pass()).unwrap();
    gate.wait_for(1);
    let run = Pipeline::from_iter(0..10)
        .map(|n| n + 1)
        .parallel(2)
        .on(&pool);
    let mut seen = Vec::new();
    let mut run = Box::pin(run.run_async(|n| seen.push(n)));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(run.as_mut().poll(&mut context).is_pending());
    let opener = std::sync::Arc::clone(&gate);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let report = pool.shutdown(std::time::Duration::ZERO);
            assert!(report.abandoned > 0);
        });
        while pool.stats().abandoned == 0 {
            std::thread::yield_now();
        }
        opener.open();
    });
    block_on(run).unwrap();
    assert!(seen.into_iter().eq(1..=10));
}
