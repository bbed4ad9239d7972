//! What a batcher does, driven from plain threads: no runtime, no async code.

use std::convert::Infallible;
use std::future::Future;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use overdrive_batch::{
    BatchSettings, BatchStats, Batcher, BatcherBuilder, Deadline, Gather, Health, Overload,
    ParallelBatch, Submit, SubmitAll, SubmitError, SubmitOwned, Ticket, TrySubmitError,
};
use overdrive_core::clock::ManualClock;

fn shared<T: Send + Sync>() {}
fn sent<T: Send>() {}

#[test]
fn handles_are_shared_and_futures_travel() {
    shared::<Batcher<Vec<u8>, String, std::fmt::Error>>();
    shared::<BatcherBuilder<u8>>();
    shared::<ParallelBatch>();
    shared::<BatchStats>();
    sent::<Submit<'_, Vec<u8>, String, String>>();
    sent::<SubmitOwned<Vec<u8>, String, String>>();
    sent::<SubmitAll<'_, Vec<u8>, String, String>>();
    sent::<Ticket<Vec<u8>, String, String>>();
}

/// A handler that tells of each batch and waits to be let go.
struct Gate {
    started: Receiver<Vec<u64>>,
    go: Sender<()>,
}

impl Gate {
    fn new() -> (
        Self,
        impl Fn(Vec<u64>) -> Result<Vec<u64>, Infallible> + Send + Sync,
    ) {
        let (tell, started) = channel();
        let (go, wait) = channel();
        let inner = Mutex::new((tell, wait));
        let handler = move |items: Vec<u64>| {
            let inner = inner.lock().unwrap();
            let _told = inner.0.send(items.clone());
            let _released = inner.1.recv();
            Ok(items.iter().map(|n| n * 2).collect())
        };
        (Self { started, go }, handler)
    }
}

fn one_worker() -> BatcherBuilder<u64> {
    Batcher::builder().workers(1).gather(Gather::Immediate)
}

fn double(items: Vec<u64>) -> Result<Vec<u64>, Infallible> {
    Ok(items.iter().map(|n| n * 2).collect())
}

#[test]
fn each_submitter_gets_its_own_result() {
    const THREADS: u64 = 8;
    const EACH: u64 = 200;
    for gather in [Gather::Immediate, Gather::Tick] {
        let batcher = Batcher::builder().gather(gather).max_size(3);
        let batcher = batcher.build_sync(double).unwrap();
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let batcher = &batcher;
                scope.spawn(move || {
                    for n in 0..EACH {
                        let item = thread * EACH + n;
                        assert_eq!(batcher.submit_blocking(item).unwrap(), item * 2);
                    }
                });
            }
        });
        let stats = batcher.stats();
        assert_eq!(stats.completed, THREADS * EACH);
        assert!(stats.largest_batch <= 3);
    }
}

#[test]
fn items_gather_while_the_worker_is_busy() {
    let (gate, handler) = Gate::new();
    let batcher = one_worker().max_size(3).build_sync(handler).unwrap();
    let first = batcher.try_submit(0).unwrap();
    assert_eq!(gate.started.recv().unwrap(), [0]);
    let rest: Vec<_> = (1..6).map(|n| batcher.try_submit(n).unwrap()).collect();
    assert_eq!(batcher.stats().queued, 5);
    gate.go.send(()).unwrap();
    assert_eq!(gate.started.recv().unwrap(), [1, 2, 3]);
    gate.go.send(()).unwrap();
    assert_eq!(gate.started.recv().unwrap(), [4, 5]);
    gate.go.send(()).unwrap();
    assert_eq!(first.wait_blocking().unwrap(), 0);
    for (ticket, n) in rest.into_iter().zip(1..) {
        assert_eq!(ticket.wait_blocking().unwrap(), n * 2);
    }
    let stats = batcher.stats();
    assert_eq!((stats.closed_idle, stats.closed_full), (2, 1));
    assert_eq!(stats.largest_batch, 3);
}

#[test]
fn a_lone_item_goes_at_once_whatever_max_wait_is() {
    for gather in [Gather::Immediate, Gather::Tick] {
        let builder = Batcher::builder().max_wait(Duration::from_secs(3600));
        let batcher = builder.gather(gather).build_sync(double).unwrap();
        assert_eq!(batcher.submit_blocking(4).unwrap(), 8);
        assert_eq!(batcher.stats().closed_idle, 1);
    }
}

#[test]
fn lingering_ends_with_min_size_or_age() {
    let builder = one_worker().gather(Gather::Linger { min_size: 3 });
    let long = builder.max_wait(Duration::from_secs(3600));
    let batcher = long.build_sync(double).unwrap();
    let results = batcher.submit_all([1, 2, 3]).wait_blocking();
    assert_eq!(results.len(), 3);
    assert_eq!(batcher.stats().closed_idle, 1);

    let builder = one_worker().gather(Gather::Linger { min_size: 3 });
    let short = builder.max_wait(Duration::from_millis(1));
    let batcher = short.build_sync(double).unwrap();
    assert_eq!(batcher.submit_blocking(4).unwrap(), 8);
    assert_eq!(batcher.stats().closed_linger, 1);
}

#[test]
fn results_of_submit_all_come_in_order() {
    let batcher = Batcher::builder().max_size(7).build_sync(double).unwrap();
    let results = batcher.submit_all(0..1000).wait_blocking();
    let results: Vec<_> = results.into_iter().map(Result::unwrap).collect();
    assert_eq!(results, (0..1000).map(|n| n * 2).collect::<Vec<_>>());
}

#[test]
#[should_panic(expected = "polled after completion")]
fn submit_all_gives_its_results_once() {
    let batcher = one_worker().build_sync(double).unwrap();
    let mut all = Box::pin(batcher.submit_all([]));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(all.as_mut().poll(&mut cx).is_ready());
    let _again = all.as_mut().poll(&mut cx);
}

#[test]
fn health_follows_the_queue_and_the_end() {
    let (gate, handler) = Gate::new();
    let builder = one_worker().max_size(1).capacity(4);
    let batcher = builder.build_sync(handler).unwrap();
    let running = batcher.try_submit(0).unwrap();
    gate.started.recv().unwrap();
    let mut tickets = vec![running];
    for (n, health) in [
        (1, Health::Healthy),
        (2, Health::Healthy),
        (3, Health::Degraded),
        (4, Health::Degraded),
    ] {
        tickets.push(batcher.try_submit(n).unwrap());
        assert_eq!(batcher.health(), health);
    }
    batcher.close();
    assert_eq!(batcher.health(), Health::Unhealthy);
    drop(gate.go);
    assert!(tickets.into_iter().all(|t| t.wait_blocking().is_ok()));
}

#[test]
fn nothing_submitted_calls_nobody() {
    let batcher = Batcher::builder().build_sync(double).unwrap();
    assert!(batcher.submit_all([]).wait_blocking().is_empty());
    batcher.flush_blocking();
    let stats = batcher.stats();
    assert_eq!((stats.submitted, stats.batches), (0, 0));
}

#[test]
fn a_full_batcher_refuses_or_makes_wait() {
    let (gate, handler) = Gate::new();
    let builder = one_worker().max_size(1).capacity(1);
    let batcher = builder.build_sync(handler).unwrap();
    let running = batcher.try_submit(1).unwrap();
    gate.started.recv().unwrap();
    let queued = batcher.try_submit(2).unwrap();
    assert_eq!(batcher.try_submit(3).unwrap_err(), TrySubmitError::Full(3));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| batcher.submit_blocking(4));
        while batcher.stats().waiting == 0 {
            thread::yield_now();
        }
        assert!(batcher.try_submit(5).is_err());
        for _ in 0..3 {
            gate.go.send(()).unwrap();
        }
        assert_eq!(waiting.join().unwrap().unwrap(), 8);
    });
    drop((running, queued));

    let (gate, handler) = Gate::new();
    let builder = one_worker().max_size(1).capacity(1);
    let batcher = builder
        .overload(Overload::Reject)
        .build_sync(handler)
        .unwrap();
    let _running = batcher.try_submit(1).unwrap();
    gate.started.recv().unwrap();
    let _queued = batcher.try_submit(2).unwrap();
    let refused = batcher.submit_blocking(3).unwrap_err();
    assert!(matches!(refused, SubmitError::Full(3)), "{refused:?}");
    drop(gate);
}

#[test]
fn closing_gives_those_who_wait_for_room_their_items_back() {
    let (gate, handler) = Gate::new();
    let builder = one_worker().max_size(1).capacity(1);
    let batcher = builder.build_sync(handler).unwrap();
    let running = batcher.try_submit(1).unwrap();
    gate.started.recv().unwrap();
    let queued = batcher.try_submit(2).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| batcher.submit_blocking(3));
        while batcher.stats().waiting == 0 {
            thread::yield_now();
        }
        batcher.close();
        batcher.close();
        let refused = waiting.join().unwrap().unwrap_err();
        assert!(matches!(refused, SubmitError::Closed(3)), "{refused:?}");
    });
    assert_eq!(
        batcher.try_submit(4).unwrap_err(),
        TrySubmitError::Closed(4)
    );
    drop(gate);
    assert_eq!(running.wait_blocking().unwrap(), 2);
    assert_eq!(queued.wait_blocking().unwrap(), 4);
    assert!(batcher.is_closed());
}

#[test]
fn dropping_a_submit_takes_its_item_out() {
    let (gate, handler) = Gate::new();
    let batcher = one_worker().build_sync(handler).unwrap();
    let running = batcher.try_submit(1).unwrap();
    gate.started.recv().unwrap();
    let gone = batcher.try_submit(2).unwrap();
    let kept = batcher.try_submit(3).unwrap();
    batcher.try_submit(4).unwrap().detach();
    drop((running, gone));
    gate.go.send(()).unwrap();
    assert_eq!(gate.started.recv().unwrap(), [3, 4]);
    gate.go.send(()).unwrap();
    assert_eq!(kept.wait_blocking().unwrap(), 6);
    let stats = batcher.stats();
    assert_eq!((stats.cancelled, stats.completed), (1, 3));
}

#[test]
fn an_item_past_its_deadline_never_reaches_the_handler() {
    let clock = ManualClock::new();
    let (gate, handler) = Gate::new();
    let batcher = one_worker().clock(clock.clone());
    let batcher = batcher.build_sync(handler).unwrap();
    let second = Duration::from_secs(1);
    let running = batcher.try_submit(1).unwrap();
    gate.started.recv().unwrap();
    thread::scope(|scope| {
        let (batcher, clock) = (&batcher, &clock);
        let late = scope.spawn(move || {
            let deadline = Deadline::after_on(clock, second);
            batcher.submit(2).deadline(deadline).wait_blocking()
        });
        while batcher.stats().queued == 0 {
            thread::yield_now();
        }
        clock.advance(second);
        let in_time = batcher.try_submit(3).unwrap();
        gate.go.send(()).unwrap();
        assert_eq!(gate.started.recv().unwrap(), [3]);
        gate.go.send(()).unwrap();
        let error = late.join().unwrap().unwrap_err();
        assert!(
            matches!(error, SubmitError::DeadlineExceeded(2)),
            "{error:?}"
        );
        assert_eq!(in_time.wait_blocking().unwrap(), 6);
    });
    assert_eq!(running.wait_blocking().unwrap(), 2);
    assert_eq!(batcher.stats().expired, 1);
}

#[test]
fn a_blocked_submitter_goes_at_its_deadline() {
    let (gate, handler) = Gate::new();
    let batcher = one_worker().build_sync(handler).unwrap();
    let _running = batcher.try_submit(1).unwrap();
    gate.started.recv().unwrap();
    // The worker is busy until the end of this test.
    let short = Duration::from_millis(1);
    let error = batcher
        .submit(2)
        .deadline(short)
        .wait_blocking()
        .unwrap_err();
    assert_eq!(error.into_inner(), Some(2));
    let errors = batcher.submit_all([3, 4]).deadline(short).wait_blocking();
    assert!(errors.iter().all(Result::is_err));
    assert_eq!(batcher.stats().expired, 3);
    drop(gate);
}

#[test]
fn a_flush_waits_for_what_came_before_and_ends_lingering() {
    let builder = one_worker().gather(Gather::Linger { min_size: 50 });
    let builder = builder.max_wait(Duration::from_secs(3600));
    let batcher = builder.build_sync(double).unwrap();
    let tickets: Vec<_> = (0..3).map(|n| batcher.try_submit(n).unwrap()).collect();
    batcher.flush_blocking();
    let stats = batcher.stats();
    assert_eq!((stats.completed, stats.closed_flush), (3, 1));
    for (ticket, n) in tickets.into_iter().zip(0..) {
        assert_eq!(ticket.wait_blocking().unwrap(), n * 2);
    }
}

#[test]
fn a_drain_finishes_what_was_accepted() {
    let builder = one_worker().gather(Gather::Linger { min_size: 50 });
    let builder = builder.max_wait(Duration::from_secs(3600));
    let batcher = builder.build_sync(double).unwrap();
    let ticket = batcher.try_submit(4).unwrap();
    let report = batcher.shutdown_blocking(Deadline::NEVER);
    assert_eq!((report.finished, report.abandoned), (1, 0));
    assert_eq!(batcher.stats().closed_at_end, 1);
    assert_eq!(ticket.wait_blocking().unwrap(), 8);
    assert!(batcher.shutdown_blocking(Duration::ZERO).is_complete());
}

#[test]
fn a_drain_gives_up_at_its_deadline() {
    let (gate, handler) = Gate::new();
    let batcher = one_worker().build_sync(handler).unwrap();
    let running = batcher.try_submit(1).unwrap();
    gate.started.recv().unwrap();
    let queued = batcher.try_submit(2).unwrap();
    let report = batcher.drain_blocking(Duration::from_millis(1));
    assert_eq!((report.finished, report.abandoned), (0, 2));
    assert_eq!(running.wait_blocking().unwrap_err().into_inner(), None);
    assert_eq!(queued.wait_blocking().unwrap_err().into_inner(), Some(2));
    drop(gate);
    // The late results have no takers, and hurt nobody.
    assert!(batcher.shutdown_blocking(Deadline::NEVER).is_complete());
    assert_eq!(batcher.stats().abandoned, 2);
}

#[test]
fn the_last_handle_closes_and_loses_nothing() {
    let (gate, handler) = Gate::new();
    let batcher = one_worker().build_sync(handler).unwrap();
    let tickets: Vec<_> = (0..5).map(|n| batcher.try_submit(n).unwrap()).collect();
    gate.started.recv().unwrap();
    drop(batcher.clone());
    drop(batcher);
    drop(gate.go);
    for (ticket, n) in tickets.into_iter().zip(0..) {
        assert_eq!(ticket.wait_blocking().unwrap(), n * 2);
    }
    // Ends when the handler goes, with its worker.
    while gate.started.recv().is_ok() {}
}

#[test]
fn worker_threads_have_names() {
    let names = Batcher::builder().workers(2).build_sync(|items: Vec<()>| {
        let name = thread::current().name().map(String::from);
        Ok::<_, Infallible>(vec![name; items.len()])
    });
    let name = names.unwrap().submit_blocking(()).unwrap().unwrap();
    assert!(name.starts_with("overdrive-batch-"), "{name}");
}

#[test]
fn batches_run_at_the_same_time() {
    let barrier = Arc::new(Barrier::new(2));
    let builder = Batcher::builder().workers(2).max_size(1);
    let batcher = builder.build_sync(move |items: Vec<u64>| {
        barrier.wait();
        Ok::<_, Infallible>(items)
    });
    let results = batcher.unwrap().submit_all([1, 2]).wait_blocking();
    assert!(results.iter().all(Result::is_ok));
}

#[test]
fn bad_settings_are_refused() {
    type Change = fn(&mut BatchSettings);
    let bad: [(&str, Change); 12] = [
        ("max_size", |s| s.max_size = 0),
        ("max_size", |s| s.max_size = usize::MAX),
        ("workers", |s| s.workers = 0),
        ("workers", |s| s.workers = usize::MAX),
        ("capacity", |s| s.capacity = Some(0)),
        ("capacity", |s| s.capacity = Some(99)),
        ("capacity", |s| s.capacity = Some(usize::MAX)),
        ("max_wait", |s| s.max_wait = Duration::ZERO),
        ("max_wait", |s| s.max_wait = Duration::MAX),
        ("min_size", |s| s.gather = Gather::Linger { min_size: 0 }),
        ("min_size", |s| s.gather = Gather::Linger { min_size: 101 }),
        ("capacity", |s| (s.max_size, s.capacity) = (2, Some(1))),
    ];
    for (field, change) in bad {
        let mut settings = BatchSettings::default();
        change(&mut settings);
        let builder = Batcher::builder().settings(settings.clone());
        let refused = builder.build_sync(double).unwrap_err();
        assert_eq!(refused.field(), field, "{settings:?}");
    }
}

#[test]
fn everything_can_be_shown() {
    let builder = Batcher::builder().name("rows");
    assert!(format!("{builder:?}").contains("rows"));
    let batcher = builder.build_sync(double).unwrap();
    assert!(format!("{batcher:?}").contains("rows"));
    let texts = [
        format!("{:?}", batcher.submit(1)),
        format!("{:?}", batcher.submit_owned(1)),
        format!("{:?}", batcher.submit_all([1])),
        format!("{:?}", batcher.flush()),
        format!("{:?}", batcher.try_submit(1).unwrap()),
    ];
    assert!(texts.iter().all(|text| !text.is_empty()));
    assert_eq!(
        (batcher.name(), batcher.max_size(), batcher.capacity()),
        ("rows", 100, 6400)
    );
}
