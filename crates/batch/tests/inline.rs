//! Batches that their submitters run.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use overdrive_batch::{
    Batcher, BatcherBuilder, ConfigError, Deadline, Gather, MAX_WORKERS, SubmitError, Ticket,
};

fn builder() -> BatcherBuilder<u64> {
    Batcher::<u64, _>::builder().workers(1)
}

fn doubled(items: Vec<u64>) -> Result<Vec<u64>, Infallible> {
    Ok(items.into_iter().map(|n| n * 2).collect())
}

/// Whether it was woken.
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A batcher whose first batch, of item 0, waits for the sender to be used or dropped; another thread
/// is in it when this returns.
struct Held {
    batcher: Batcher<u64, u64>,
    go_on: mpsc::Sender<()>,
    runner: thread::JoinHandle<u64>,
}

fn held(builder: BatcherBuilder<u64>) -> Held {
    let (go_on, gate) = mpsc::channel();
    let (entered, is_entered) = mpsc::channel();
    let (gate, entered) = (Mutex::new(gate), Mutex::new(entered));
    let batcher = builder
        .build_inline(move |items: Vec<u64>| {
            if items.contains(&0) {
                entered.lock().unwrap().send(()).unwrap();
                let _go = gate.lock().unwrap().recv();
            }
            doubled(items)
        })
        .unwrap();
    let runner = {
        let batcher = batcher.clone();
        thread::spawn(move || batcher.submit_blocking(0).unwrap())
    };
    is_entered.recv().unwrap();
    Held {
        batcher,
        go_on,
        runner,
    }
}

#[test]
fn a_lone_item_is_run_by_its_submitter() {
    let batcher = builder()
        .build_inline(|items| {
            let here = format!("{:?}", thread::current().id());
            Ok::<_, Infallible>(vec![here; items.len()])
        })
        .unwrap();
    let here = format!("{:?}", thread::current().id());
    assert_eq!(batcher.submit_blocking(1).unwrap(), here);
    // Ready when polled for the first time.
    let poll = pin!(batcher.submit(2)).poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(poll, Poll::Ready(Ok(thread)) if thread == here));
    assert_eq!(
        batcher.try_submit(3).unwrap().wait_blocking().unwrap(),
        here
    );
    assert_eq!(batcher.stats().batches, 3);
}

#[test]
fn what_comes_while_a_batch_runs_is_the_next_one() {
    let held = held(builder());
    let tickets: Vec<_> = (1..6)
        .map(|n| held.batcher.try_submit(n).unwrap())
        .collect();
    drop(held.go_on);
    assert_eq!(held.runner.join().unwrap(), 0);
    for (n, ticket) in (1..6).zip(tickets) {
        assert_eq!(ticket.wait_blocking().unwrap(), n * 2);
    }
    let stats = held.batcher.stats();
    assert_eq!((stats.batches, stats.largest_batch), (2, 5));
}

#[test]
fn as_many_submitters_run_batches_at_a_time_as_there_are_workers() {
    let held = held(builder().workers(2));
    assert_eq!(held.batcher.submit_blocking(7).unwrap(), 14);
    drop(held.go_on);
    assert_eq!(held.runner.join().unwrap(), 0);
}

#[test]
fn items_of_one_call_are_one_batch() {
    let batcher = builder().build_inline(doubled).unwrap();
    let results = batcher.submit_all(0..100).wait_blocking();
    for (n, result) in (0..100).zip(results) {
        assert_eq!(result.unwrap(), n * 2);
    }
    assert_eq!(batcher.stats().batches, 1);
}

#[test]
fn a_submitter_leaves_the_rest_to_those_who_wait_and_nobody_has_to_come() {
    let held = held(builder().max_size(1));
    let tickets: Vec<_> = (1..31)
        .map(|n| held.batcher.try_submit(n).unwrap())
        .collect();
    // It is woken to go on with the rest, and never comes.
    let mut idle = pin!(held.batcher.submit(100));
    let flag = Arc::new(Flag(AtomicBool::new(false)));
    let waker = Waker::from(Arc::clone(&flag));
    assert!(
        idle.as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
    );
    drop(held.go_on);
    assert_eq!(held.runner.join().unwrap(), 0);
    assert!(flag.0.load(Ordering::SeqCst));
    assert_eq!(held.batcher.stats().batches, 16, "and then it left");
    // Whoever else waits does it.
    let last = tickets.into_iter().next_back().unwrap();
    assert_eq!(last.wait_blocking().unwrap(), 60);
    let poll = idle.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(matches!(poll, Poll::Ready(Ok(200))));
}

#[test]
fn a_submitter_goes_on_if_nobody_waits() {
    let held = held(builder().max_size(1));
    let tickets: Vec<_> = (1..41)
        .map(|n| held.batcher.try_submit(n).unwrap())
        .collect();
    drop(held.go_on);
    held.runner.join().unwrap();
    assert_eq!(held.batcher.stats().completed, 41);
    drop(tickets);
}

type Tickets = Vec<Ticket<u64, u64, Infallible>>;

/// Leaves some of so many items queued, with nobody at them: the last was waited for, and its submitter
/// was woken to go on, but is not seen again.
fn left_alone_of(items: u64) -> (Batcher<u64, u64>, Tickets) {
    let held = held(builder().max_size(1).capacity(1_000));
    let mut tickets: Vec<_> = (1..=items)
        .map(|n| held.batcher.try_submit(n).unwrap())
        .collect();
    let last = pin!(tickets.last_mut().unwrap());
    assert!(
        last.poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    drop(held.go_on);
    held.runner.join().unwrap();
    (held.batcher, tickets)
}

/// Leaves 15 items so.
fn left_alone() -> (Batcher<u64, u64>, Tickets) {
    let left = left_alone_of(30);
    assert_eq!(left.0.stats().queued, 15);
    left
}

#[test]
fn what_is_left_alone_is_run_by_a_flush() {
    let (batcher, _tickets) = left_alone();
    batcher.flush_blocking();
    assert_eq!(batcher.stats().completed, 31);
}

#[test]
fn what_is_left_alone_is_run_by_a_drain() {
    let (batcher, _tickets) = left_alone();
    let report = batcher.shutdown_blocking(Deadline::NEVER);
    assert_eq!((report.finished, report.abandoned), (15, 0));
}

#[test]
fn what_is_left_alone_is_run_when_the_last_handle_goes() {
    let (batcher, tickets) = left_alone();
    drop(batcher);
    for (n, ticket) in (1..31).zip(tickets) {
        assert_eq!(ticket.wait_blocking().unwrap(), n * 2);
    }
}

#[test]
fn what_is_left_alone_goes_on_with_the_next_item() {
    let (batcher, _tickets) = left_alone();
    assert_eq!(batcher.submit_blocking(500).unwrap(), 1000);
    assert_eq!(batcher.stats().completed, 32);
}

#[test]
fn panics_stay_in_their_batch() {
    let batcher = builder()
        .build_inline(|items| {
            assert!(!items.contains(&13), "thirteen");
            doubled(items)
        })
        .unwrap();
    let error = batcher.submit_blocking(13).unwrap_err();
    assert!(matches!(error, SubmitError::Panicked(message) if &*message == "thirteen"));
    assert_eq!(batcher.submit_blocking(1).unwrap(), 2);
}

#[test]
fn items_that_fail_are_told_apart() {
    let held = {
        let batcher = builder()
            .isolate(20)
            .build_inline(|items| {
                if items.contains(&3) {
                    Err("three")
                } else {
                    Ok(items)
                }
            })
            .unwrap();
        batcher.submit_all(0..8).wait_blocking()
    };
    for (n, result) in held.into_iter().enumerate() {
        assert_eq!(result.is_err(), n == 3, "{n}");
    }
}

#[test]
fn a_handler_that_waits_for_its_own_batcher_is_told() {
    let slot: Arc<Mutex<Option<Batcher<u64, u64>>>> = Arc::default();
    let inner = Arc::clone(&slot);
    let batcher = builder()
        .build_inline(move |items| {
            let own = inner.lock().unwrap().clone();
            if let Some(own) = own {
                let _never = own.submit_blocking(1);
            }
            doubled(items)
        })
        .unwrap();
    *slot.lock().unwrap() = Some(batcher.clone());
    match batcher.submit_blocking(2).unwrap_err() {
        SubmitError::Panicked(message) => assert!(message.contains("its own batcher")),
        other => panic!("{other:?}"),
    }
    *slot.lock().unwrap() = None;
    assert_eq!(batcher.submit_blocking(2).unwrap(), 4);
}

#[test]
fn nobody_lingers_for_more() {
    for gather in [
        Gather::Linger { min_size: 2 },
        Gather::Announced,
        Gather::Adaptive,
    ] {
        let refused = builder().gather(gather).build_inline(doubled).unwrap_err();
        assert!(matches!(
            refused,
            ConfigError::Invalid {
                field: "gather",
                ..
            }
        ));
    }
    builder()
        .gather(Gather::Immediate)
        .build_inline(doubled)
        .unwrap();
}

#[test]
fn many_threads_each_get_their_own_and_all_come_to_an_end() {
    const THREADS: u64 = 8;
    const ITEMS: u64 = 2_000;
    let running = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&running);
    let batcher = builder()
        .max_size(4)
        .capacity(5)
        .build_inline(move |items| {
            assert_eq!(count.fetch_add(1, Ordering::SeqCst), 0, "one at a time");
            let results = doubled(items);
            count.fetch_sub(1, Ordering::SeqCst);
            results
        })
        .unwrap();
    let barrier = Barrier::new(THREADS as usize);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (batcher, barrier) = (&batcher, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for n in thread * ITEMS..(thread + 1) * ITEMS {
                    match n % 5 {
                        0 => drop(batcher.try_submit(n)),
                        1 => {
                            let submit = batcher.submit(n).deadline(Duration::from_micros(50));
                            match submit.wait_blocking() {
                                Ok(result) => assert_eq!(result, n * 2),
                                Err(error) => assert_eq!(error.into_inner(), Some(n)),
                            }
                        }
                        _ => assert_eq!(batcher.submit_blocking(n).unwrap(), n * 2),
                    }
                }
            });
        }
    });
    let stats = batcher.stats();
    assert_eq!(stats.submitted, THREADS * ITEMS);
    assert_eq!((stats.waiting, stats.queued, stats.running), (0, 0, 0));
    let report = batcher.shutdown_blocking(Deadline::NEVER);
    assert!(report.is_complete());
}

#[cfg(feature = "tokio")]
#[test]
fn many_tasks_each_get_their_own() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let batcher = builder().max_size(10).build_inline(doubled).unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..100_u64)
            .map(|task| {
                let batcher = batcher.clone();
                tokio::spawn(async move {
                    for n in task * 100..(task + 1) * 100 {
                        assert_eq!(batcher.submit(n).await.unwrap(), n * 2);
                        if n % 7 == 0 {
                            tokio::task::yield_now().await;
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    assert_eq!(batcher.stats().completed, 10_000);
}

#[test]
fn a_flush_that_waits_goes_on_with_what_is_left() {
    let held = held(builder().max_size(1));
    let tickets: Vec<_> = (1..41)
        .map(|n| held.batcher.try_submit(n).unwrap())
        .collect();
    let mut waits = Box::pin(held.batcher.submit(100));
    assert!(
        waits
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    let (registered, is_registered) = mpsc::channel();
    let (flushed, is_flushed) = mpsc::channel();
    let flusher = held.batcher.clone();
    thread::spawn(move || {
        let mut flush = Box::pin(flusher.flush());
        let (parker, waker) = overdrive_core::park::Parker::new();
        let mut first = true;
        while flush
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
        {
            if std::mem::take(&mut first) {
                registered.send(()).unwrap();
            }
            parker.park(Duration::MAX);
        }
        flushed.send(()).unwrap();
    });
    is_registered.recv().unwrap();
    drop(held.go_on);
    held.runner.join().unwrap();
    // A submitter that has lost patience: a timeout around it, say.
    drop(waits);
    is_flushed.recv().unwrap();
    drop(tickets);
}

#[test]
fn a_submitter_that_was_woken_to_go_on_and_goes_passes_that_on() {
    let held = held(builder().max_size(1));
    for n in 1..41 {
        held.batcher.try_submit(n).unwrap().detach();
    }
    let mut waits = Box::pin(held.batcher.submit(100));
    assert!(
        waits
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    drop(held.go_on);
    held.runner.join().unwrap();
    drop(waits);
    assert_eq!(
        held.batcher.stats().completed,
        41,
        "{:?}",
        held.batcher.stats()
    );
}

#[test]
fn the_stack_does_not_grow_with_the_number_of_workers() {
    let batcher = builder()
        .workers(MAX_WORKERS)
        .max_size(1)
        .capacity(10_000)
        .build_inline(|items: Vec<u64>| Ok::<_, Infallible>(items))
        .unwrap();
    // As a thread on macOS has, by default.
    let thread = thread::Builder::new().stack_size(512 << 10);
    let thread = thread.spawn(move || {
        let results = batcher.submit_all(0..5_000).wait_blocking();
        assert_eq!(results.len(), 5_000);
    });
    thread.unwrap().join().unwrap();
}

#[test]
fn the_first_batch_is_not_the_last_to_run() {
    let seen = Arc::new(Mutex::new(Vec::<u64>::new()));
    let order = Arc::clone(&seen);
    let batcher = builder()
        .workers(4)
        .max_size(1)
        .build_inline(move |items: Vec<u64>| {
            order.lock().unwrap().extend(&items);
            Ok::<_, Infallible>(items)
        })
        .unwrap();
    let _results = batcher.submit_all(0..8).wait_blocking();
    let seen = seen.lock().unwrap();
    assert_eq!(*seen, (0..8).collect::<Vec<_>>(), "all on one thread");
}

#[test]
fn one_submitter_takes_one_worker() {
    let (entered, is_entered) = mpsc::channel();
    let (go_on, gate) = mpsc::channel::<()>();
    let (entered, gate) = (Mutex::new(entered), Mutex::new(gate));
    let running = Arc::new(AtomicUsize::new(0));
    let calls = Arc::clone(&running);
    let batcher = builder()
        .workers(2)
        .max_size(1)
        .build_inline(move |items: Vec<u64>| {
            calls.fetch_add(1, Ordering::SeqCst);
            if items[0] == 0 {
                let _ = entered.lock().unwrap().send(());
                let _ = gate.lock().unwrap().recv();
            }
            calls.fetch_sub(1, Ordering::SeqCst);
            doubled(items)
        })
        .unwrap();
    let first = batcher.clone();
    let first = thread::spawn(move || first.submit_all(0..2).wait_blocking().len());
    is_entered.recv().unwrap();
    assert_eq!(
        running.load(Ordering::SeqCst),
        1,
        "one handler runs, and there are two workers"
    );
    let (done, is_done) = mpsc::channel();
    let other = batcher;
    let other = thread::spawn(move || {
        let _ = done.send(other.submit_blocking(7).unwrap());
    });
    assert_eq!(is_done.recv().unwrap(), 14);
    drop(go_on);
    first.join().unwrap();
    other.join().unwrap();
}

#[test]
fn items_of_one_call_share_batches_beyond_the_capacity() {
    for overload in [
        overdrive_batch::Overload::Wait,
        overdrive_batch::Overload::Reject,
    ] {
        let batcher = builder()
            .max_size(100)
            .capacity(100)
            .overload(overload)
            .build_inline(|items: Vec<u64>| Ok::<_, Infallible>(items))
            .unwrap();
        let results = batcher.submit_all(0..1_000).wait_blocking();
        assert!(results.iter().all(Result::is_ok));
        let batches = batcher.stats().batches;
        assert!(
            batches <= 20,
            "{overload:?}: {batches} batches for 1,000 items, 100 each"
        );
    }
}

#[test]
fn a_handler_is_not_called_within_itself() {
    thread_local!(static DEPTH: std::cell::Cell<u32> = const { std::cell::Cell::new(0) });
    static DEEPEST: AtomicUsize = AtomicUsize::new(0);
    let own: Arc<Mutex<Option<Batcher<u64, u64>>>> = Arc::default();
    let inner = Arc::clone(&own);
    let batcher = Batcher::<u64, _>::builder()
        .build_inline(move |items: Vec<u64>| {
            DEPTH.set(DEPTH.get() + 1);
            DEEPEST.fetch_max(DEPTH.get() as usize, Ordering::SeqCst);
            let own = inner.lock().unwrap().clone();
            if items[0] < 5 {
                own.unwrap().try_submit(items[0] + 1).unwrap().detach();
            }
            DEPTH.set(DEPTH.get() - 1);
            Ok::<_, Infallible>(items)
        })
        .unwrap();
    *own.lock().unwrap() = Some(batcher.clone());
    batcher.submit_blocking(1).unwrap();
    *own.lock().unwrap() = None;
    assert_eq!(DEEPEST.load(Ordering::SeqCst), 1);
}

#[test]
fn a_shut_down_batcher_has_dropped_its_handler() {
    for inline in [false, true] {
        let held = Arc::new(());
        let inner = Arc::clone(&held);
        let handler = move |items: Vec<u64>| {
            let _ = &inner;
            Ok::<_, Infallible>(items)
        };
        let batcher = if inline {
            builder().build_inline(handler)
        } else {
            builder().build_sync(handler)
        }
        .unwrap();
        batcher.submit_blocking(1).unwrap();
        let report = batcher.shutdown_blocking(Deadline::NEVER);
        assert!(report.is_complete());
        assert_eq!(Arc::strong_count(&held), 1, "inline: {inline}");
    }
}

#[test]
fn a_drain_ends_at_its_deadline() {
    let (batcher, _tickets) = left_alone_of(199);
    let queued = batcher.stats().queued as u64;
    assert!(queued > 100);
    let report = batcher.drain_blocking(Duration::ZERO);
    assert_eq!(report.finished + report.abandoned, queued);
    assert!(report.finished < 100, "{report:?}");
}
