//! What pipelines promise.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use overdrive_pipeline::{ErrorPolicy, Pipeline, PipelineError, SendError, TrySendError};
use overdrive_testkit::{Gate, block_on};
use overdrive_workstealing::ThreadPool;

fn pool(workers: usize) -> ThreadPool {
    ThreadPool::builder().workers(workers).build().unwrap()
}

#[test]
fn stages_are_applied_in_the_order_they_were_given() {
    let out: Vec<i32> = Pipeline::from_iter(1..=10)
        .map(|n| n * 3)
        .filter(|n| n % 2 == 0)
        .flat_map(|n| [n, n + 1])
        .map(|n| n - 1)
        .collect()
        .unwrap();
    assert_eq!(out, [5, 6, 11, 12, 17, 18, 23, 24, 29, 30]);
}

#[test]
fn an_empty_source_is_an_empty_result() {
    let out: Vec<u8> = Pipeline::from_iter([])
        .map(|n: u8| n)
        .parallel(3)
        .collect()
        .unwrap();
    assert!(out.is_empty());
}

#[test]
fn a_source_and_its_stages_may_borrow() {
    let text = String::from("one two three");
    let longest = AtomicUsize::new(0);
    let stats = Pipeline::from_iter(text.split(' '))
        .map(|word| {
            longest.fetch_max(word.len(), Ordering::Relaxed);
            word
        })
        .parallel(2)
        .on(&pool(2))
        .run(|word| assert!(text.contains(word)))
        .unwrap();
    assert_eq!((stats.delivered, longest.into_inner()), (3, 5));
}

#[test]
fn parallel_segments_keep_the_order() {
    let pool = pool(3);
    for workers in [1, 2, 3, 8] {
        let out: Vec<u64> = Pipeline::from_iter(0..500_u64)
            .map(|n| (0..n % 97 * 10).fold(n, |sum, k| std::hint::black_box(sum ^ k ^ k)))
            .parallel(workers)
            .map(|n| n + 1)
            .parallel(workers)
            .on(&pool)
            .collect()
            .unwrap();
        assert!(out.into_iter().eq(1..=500), "{workers}");
    }
}

#[test]
fn a_slow_item_does_not_hold_others_up_where_order_does_not_matter() {
    let gate = Gate::new();
    let mut seen = Vec::new();
    Pipeline::from_iter(0..6)
        .map(|n| {
            if n == 0 {
                gate.pass();
            }
            n
        })
        .parallel(2)
        .unordered()
        .on(&pool(2))
        .run(|n| {
            seen.push(n);
            // Only what came past the first can open the way for it.
            if seen.len() == 3 {
                gate.open();
            }
        })
        .unwrap();
    assert_eq!(seen.len(), 6);
    assert!(seen.iter().position(|n| *n == 0) >= Some(3), "{seen:?}");
}

#[test]
fn what_is_in_flight_is_bounded() {
    for bound in [1, 2, 5] {
        let stats = Pipeline::from_iter(0..200)
            .map(|n| n)
            .parallel(4)
            .map_async(8, |n| async move { n })
            .in_flight(bound)
            .on(&pool(2))
            .run(drop)
            .unwrap();
        assert_eq!((stats.delivered, stats.in_flight), (200, 0));
        assert!(stats.peak_in_flight <= bound as u64, "{stats:?}");
    }
}

#[test]
fn without_a_bound_the_concurrent_parts_are_one() {
    let stats = Pipeline::from_iter(0..1000)
        .map(|n| n)
        .parallel(2)
        .on(&pool(2))
        .run(drop)
        .unwrap();
    assert!(stats.peak_in_flight <= 2 * 4 + 1, "{stats:?}");
}

#[test]
fn futures_are_in_flight_together_and_stay_in_order() {
    let out: Vec<u32> = block_on(async {
        let mut out = Vec::new();
        let run = Pipeline::from_iter(0..100).map_async(10, |n| async move {
            // The later ones of each ten are ready first.
            for _ in 0..(10 - n % 10) {
                yield_once().await;
            }
            n
        });
        run.run_async(|n| out.push(n)).await.unwrap();
        out
    });
    assert!(out.into_iter().eq(0..100));
}

#[test]
fn futures_that_are_ready_go_on_where_order_does_not_matter() {
    let mut out = Vec::new();
    Pipeline::from_iter([3, 0])
        .map_async(2, |n| async move {
            for _ in 0..n {
                yield_once().await;
            }
            n
        })
        .unordered()
        .run(|n| out.push(n))
        .unwrap();
    assert_eq!(out, [0, 3]);
}

#[tokio::test(start_paused = true)]
async fn waits_overlap() {
    let start = tokio::time::Instant::now();
    let run = Pipeline::from_iter(0..20).map_async(10, |n| async move {
        tokio::time::sleep(Duration::from_millis(100)).await;
        n
    });
    let stats = run.run_async(drop).await.unwrap();
    assert_eq!(stats.delivered, 20);
    // Two rounds of ten; a timer's tick more each.
    assert!(
        start.elapsed() <= Duration::from_millis(210),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn batches_are_full_or_all_there_is() {
    let out: Vec<Vec<u8>> = Pipeline::from_iter(0..7).batch(3).collect().unwrap();
    assert_eq!(out, [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
}

#[test]
fn a_batch_does_not_wait_for_what_may_come() {
    let (ingress, pipeline) = Pipeline::from_channel(10);
    ingress.try_send(1).unwrap();
    ingress.try_send(2).unwrap();
    let mut batches = Vec::new();
    pipeline
        .batch(100)
        .run(|batch: Vec<u8>| {
            batches.push(batch);
            // Nobody sends more until these came through.
            if batches.len() == 1 {
                ingress.try_send(3).unwrap();
                ingress.close();
            }
        })
        .unwrap();
    assert_eq!(batches, [vec![1, 2], vec![3]]);
}

#[test]
fn the_first_refused_item_ends_it() {
    let mut seen = Vec::new();
    let error = Pipeline::from_iter(["1", "2", "x", "4"])
        .try_map(str::parse::<u8>)
        .stage("parse")
        .run(|n| seen.push(n))
        .unwrap_err();
    assert_eq!(seen, [1, 2]);
    assert_eq!(error.to_string(), "stage `parse` refused item 2");
    let stats = error.stats().unwrap();
    assert_eq!((stats.received, stats.delivered, stats.failed), (3, 2, 1));
    let source = std::error::Error::source(&error).unwrap();
    assert!(source.is::<std::num::ParseIntError>());
}

#[test]
fn refused_items_can_be_skipped_and_are_counted() {
    let lines = ["1", "x", "3", "y"];
    let run = Pipeline::from_iter(lines)
        .try_map(str::parse::<u8>)
        .parallel(2);
    let mut seen = Vec::new();
    let run = run.on(&pool(1)).on_error(ErrorPolicy::Skip);
    let stats = run.run(|n| seen.push(n)).unwrap();
    assert_eq!(seen, [1, 3]);
    assert_eq!((stats.received, stats.delivered, stats.failed), (4, 2, 2));
}

#[test]
fn refused_items_can_be_collected() {
    let mut letters = Vec::new();
    let numbers: Vec<u8> = Pipeline::from_iter(["7", "x"])
        .try_map_async(4, |text| async move { text.parse::<u8>() })
        .stage("parse")
        .dead_letter(|letter| letters.push((letter.stage, letter.sequence, letter.error)))
        .collect()
        .unwrap();
    assert_eq!(numbers, [7]);
    let (stage, sequence, error) = letters.pop().unwrap();
    assert_eq!((&*stage, sequence), ("parse", 1));
    assert!(error.to_string().contains("invalid digit"));
}

#[test]
fn a_sink_may_refuse() {
    let error = Pipeline::from_iter(0..)
        .try_run(|n| if n == 3 { Err("full") } else { Ok(()) })
        .unwrap_err();
    assert!(
        matches!(error, PipelineError::Sink { sequence: 3, .. }),
        "{error:?}"
    );
    assert_eq!(error.stats().unwrap().delivered, 3);
}

#[test]
fn a_channel_feeds_a_pipeline_from_other_threads() {
    let (ingress, pipeline) = Pipeline::from_channel(4);
    let pool = pool(2);
    let stats = std::thread::scope(|scope| {
        for part in 0..4 {
            let ingress = ingress.clone();
            scope.spawn(move || {
                (0..100).for_each(|n| ingress.send_blocking(part * 100 + n).unwrap());
            });
        }
        drop(ingress);
        let mut seen = vec![false; 400];
        let stats = pipeline
            .map(|n: usize| n)
            .parallel(2)
            .on(&pool)
            .run(|n| seen[n] = true);
        assert!(seen.into_iter().all(|seen| seen));
        stats.unwrap()
    });
    assert_eq!((stats.received, stats.delivered), (400, 400));
}

#[test]
fn a_full_channel_gives_the_item_back() {
    let (ingress, pipeline) = Pipeline::from_channel(1);
    assert_eq!(ingress.try_send('a'), Ok(()));
    assert_eq!(ingress.try_send('b'), Err(TrySendError::Full('b')));
    let late = ingress.send_timeout_blocking('c', Duration::from_millis(1));
    assert_eq!(late.unwrap_err().into_inner(), 'c');
    ingress.close();
    assert_eq!(ingress.try_send('d'), Err(TrySendError::Closed('d')));
    assert_eq!(ingress.send_blocking('e'), Err(SendError::Closed('e')));
    assert_eq!(block_on(ingress.send('f')), Err(SendError::Closed('f')));
    assert_eq!(pipeline.collect::<String>().unwrap(), "a");
}

#[tokio::test]
async fn senders_wait_for_room() {
    let (ingress, pipeline) = Pipeline::from_channel(2);
    let sender = tokio::spawn(async move {
        for n in 0..50 {
            ingress.send(n).await.unwrap();
        }
    });
    let mut seen = Vec::new();
    pipeline.run_async(|n| seen.push(n)).await.unwrap();
    sender.await.unwrap();
    assert!(seen.into_iter().eq(0..50));
}

#[test]
fn settings_that_make_no_sense_end_it_before_it_starts() {
    let touched = AtomicUsize::new(0);
    let source = || {
        Pipeline::from_iter((0..3).inspect(|_| {
            touched.fetch_add(1, Ordering::Relaxed);
        }))
    };
    let field = |error: PipelineError| match error {
        PipelineError::Config(error) => error.field(),
        other => panic!("{other}"),
    };
    let of = |field_of| field(field_of);
    assert_eq!(of(source().parallel(0).run(drop).unwrap_err()), "parallel");
    assert_eq!(of(source().batch(0).run(drop).unwrap_err()), "batch");
    assert_eq!(
        of(source().in_flight(0).run(drop).unwrap_err()),
        "in_flight"
    );
    assert_eq!(
        of(source().in_flight(usize::MAX).run(drop).unwrap_err()),
        "in_flight"
    );
    let unread = source().dead_letter(drop).on_error(ErrorPolicy::FailFast);
    assert_eq!(of(unread.run(drop).unwrap_err()), "dead_letter");
    assert_eq!(of(source().unordered().run(drop).unwrap_err()), "unordered");
    let none = source().map_async(0, |n| async move { n });
    assert_eq!(of(none.run(drop).unwrap_err()), "concurrency");
    let (_ingress, none) = Pipeline::from_channel::<u8>(0);
    assert_eq!(of(none.run(drop).unwrap_err()), "capacity");
    assert_eq!(touched.into_inner(), 0);
}

#[test]
fn a_pipeline_inside_a_stage_of_a_pipeline_finishes() {
    let pool = pool(1);
    let sums: Vec<u32> = Pipeline::from_iter(0..20_u32)
        .map(|n| {
            let inner = Pipeline::from_iter(0..n).map(|k| k).parallel(3).on(&pool);
            inner.collect::<Vec<_>>().unwrap().into_iter().sum()
        })
        .parallel(3)
        .on(&pool)
        .collect()
        .unwrap();
    assert!(sums.into_iter().eq((0..20_u32).map(|n| (0..n).sum())));
}

#[test]
fn the_parts_can_be_sent() {
    fn send<T: Send>(_: &T) {}
    let pipeline = Pipeline::from_iter(0..3).map(|n| n).parallel(2);
    send(&pipeline);
    send(&pipeline.monitor());
    send(&pipeline.run_async(drop));
    let (ingress, _pipeline) = Pipeline::from_channel::<u8>(1);
    send(&ingress);
    send(&ingress.send(1));
}

/// Pending once.
async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}
