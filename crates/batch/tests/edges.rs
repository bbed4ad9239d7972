//! The engine at its edges: closing with urgent items, destructors and wakers that misbehave, weights.

use std::convert::Infallible;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::time::Duration;

use overdrive_batch::{Batcher, Gather, Overload, Priority, SubmitError};

const SOON: Duration = Duration::from_secs(3);

/// Runs it on a thread of its own; `None` if it does not end in time.
fn bounded<O: Send + 'static>(f: impl FnOnce() -> O + Send + 'static) -> Option<O> {
    let (tell, told) = channel();
    std::thread::spawn(move || tell.send(f()));
    told.recv_timeout(SOON).ok()
}

type Gate = (Sender<()>, Receiver<usize>);

/// A batcher with one worker, which tells each batch's size and then waits to be let on.
fn gated(builder: overdrive_batch::BatcherBuilder<u64>) -> (Batcher<u64, u64>, Gate) {
    let (go, gate) = channel::<()>();
    let (begun, sizes) = channel();
    let (gate, begun) = (Mutex::new(gate), Mutex::new(begun));
    let batcher = builder
        .workers(1)
        .build_sync(move |items: Vec<u64>| {
            begun.lock().unwrap().send(items.len()).ok();
            gate.lock().unwrap().recv_timeout(SOON).ok();
            Ok::<_, Infallible>(items)
        })
        .unwrap();
    (batcher, (go, sizes))
}

/// A waker whose last reference looks at the batcher as it goes.
struct Nosy(Batcher<u64, u64>);

impl Wake for Nosy {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Nosy {
    fn drop(&mut self) {
        let _ = self.0.stats();
    }
}

#[test]
fn the_waker_of_a_detached_ticket_is_not_dropped_under_the_lock() {
    let (batcher, (go, sizes)) = gated(Batcher::builder());
    batcher.try_submit(0).unwrap().detach();
    assert_eq!(sizes.recv_timeout(SOON), Ok(1));
    let ticket = batcher.try_submit(1).unwrap();
    {
        let waker = Waker::from(Arc::new(Nosy(batcher.clone())));
        let mut ticket = ticket;
        let polled = pin!(&mut ticket).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        ticket.detach();
    }
    go.send(()).unwrap();
    // The worker takes the second batch.
    let taken = sizes.recv_timeout(SOON);
    go.send(()).ok();
    let stats = bounded(move || batcher.stats());
    assert_eq!(taken, Ok(1), "the worker is stuck");
    assert!(stats.is_some(), "the lock is held for ever");
}

/// A waker that runs `hook` whenever a clone of it is dropped.
fn hooked(hook: fn()) -> Waker {
    fn clone(data: *const ()) -> RawWaker {
        RawWaker::new(data, &TABLE)
    }
    fn drop(data: *const ()) {
        // SAFETY: it was made of such a function.
        let hook: fn() = unsafe { std::mem::transmute(data) };
        hook();
    }
    static TABLE: RawWakerVTable = RawWakerVTable::new(clone, drop, |_| (), drop);
    // SAFETY: the functions own nothing.
    unsafe { Waker::from_raw(RawWaker::new(hook as *const (), &TABLE)) }
}

static CLOSED: Mutex<Option<Batcher<u64, u64>>> = Mutex::new(None);

#[test]
fn the_waker_of_a_refused_submit_is_not_dropped_under_the_lock() {
    let batcher = Batcher::builder()
        .build_sync(|items: Vec<u64>| Ok::<_, Infallible>(items))
        .unwrap();
    batcher.close();
    *CLOSED.lock().unwrap() = Some(batcher.clone());
    let ended = bounded(move || {
        let waker = hooked(|| {
            let batcher = CLOSED.lock().unwrap().clone().unwrap();
            let _ = batcher.stats();
        });
        let mut cx = Context::from_waker(&waker);
        let mut submit = pin!(batcher.submit(1));
        let refused = loop {
            if let Poll::Ready(end) = submit.as_mut().poll(&mut cx) {
                break end;
            }
        };
        assert!(matches!(refused, Err(SubmitError::Closed(1))));
    });
    assert!(ended.is_some(), "stuck: dropped under the lock");
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("a destructor");
        }
    }
}

/// Whether it did; what may hold an item is not dropped.
fn failed_as_a_batch<R>(result: Result<R, SubmitError<Bomb, &'static str>>) -> bool {
    match result {
        Err(SubmitError::Batch(_)) => true,
        other => {
            std::mem::forget(other);
            false
        }
    }
}

#[test]
fn items_whose_lease_failed_and_whose_destructors_panic_end_no_worker() {
    let batcher = Batcher::<Bomb, _>::builder()
        .workers(1)
        .build_sync_with(
            || Err::<(), _>("no connection"),
            |(), items: Vec<Bomb>| Ok(items.iter().map(|_| ()).collect()),
        )
        .unwrap();
    let own = batcher.clone();
    let first = bounded(move || failed_as_a_batch(own.submit_blocking(Bomb)));
    assert!(first.is_some());
    // The worker lives on, so the second ends like the first.
    let own = batcher.clone();
    let second = bounded(move || failed_as_a_batch(own.submit_blocking(Bomb)));
    assert_eq!(second, Some(true), "the only worker has died");
}

#[test]
fn weights_do_not_overflow() {
    let (batcher, (go, sizes)) = gated(Batcher::builder().max_weight(usize::MAX, |&n| n as usize));
    batcher.try_submit(1).unwrap().detach();
    sizes.recv_timeout(SOON).unwrap();
    batcher.try_submit(1).unwrap().detach();
    let heavy = catch_unwind(AssertUnwindSafe(|| {
        batcher.try_submit(u64::MAX).unwrap().detach();
    }));
    go.send(()).unwrap();
    let next = sizes.recv_timeout(SOON);
    go.send(()).ok();
    go.send(()).ok();
    assert!(heavy.is_ok(), "a submit panics, under the lock");
    assert_eq!(next, Ok(1), "beyond max_weight");
}

#[test]
fn a_batch_that_is_full_by_weight_does_not_linger() {
    let batcher = Batcher::builder()
        .workers(1)
        .max_size(10)
        .max_wait(Duration::from_secs(3600))
        .gather(Gather::Linger { min_size: 10 })
        .max_weight(10, |_: &u64| 10)
        .build_sync(|items: Vec<u64>| Ok::<_, Infallible>(items))
        .unwrap();
    let own = batcher.clone();
    let one = std::thread::spawn(move || {
        let all = own.submit_all([1, 2, 3, 4]);
        all.wait_blocking().len()
    });
    let own = batcher.clone();
    let done = bounded(move || {
        while own.stats().completed < 4 {
            std::thread::yield_now();
            if own.is_closed() {
                return;
            }
        }
    });
    batcher.close();
    one.join().unwrap();
    assert!(
        done.is_some(),
        "four batches, none of which can grow, wait for an hour"
    );
}

#[test]
fn a_batch_of_one_is_not_counted_as_full() {
    let (batcher, (go, sizes)) = gated(Batcher::builder().max_size(10));
    batcher.try_submit(0).unwrap().detach();
    sizes.recv_timeout(SOON).unwrap();
    let tickets: Vec<_> = (0..20).map(|n| batcher.try_submit(n).unwrap()).collect();
    let mut tickets = tickets.into_iter();
    let first = tickets.next().unwrap();
    // The others of the first batch go.
    drop(tickets.by_ref().take(9).collect::<Vec<_>>());
    go.send(()).unwrap();
    let size = sizes.recv_timeout(SOON).unwrap();
    let stats = batcher.stats();
    for _ in 0..3 {
        go.send(()).ok();
    }
    drop((first, tickets));
    assert_eq!(
        (size, stats.closed_full),
        (1, 0),
        "size, and batches closed as full"
    );
}

#[test]
fn an_announced_item_whose_weight_panics_is_not_waited_for_ever_after() {
    let batcher = Batcher::builder()
        .workers(1)
        .gather(Gather::Announced)
        .max_wait(Duration::from_secs(3600))
        .max_weight(10, |n: &u64| {
            assert!(*n != 13, "no such number");
            1
        })
        .build_sync(|items: Vec<u64>| Ok::<_, Infallible>(items))
        .unwrap();
    let coming = batcher.announce();
    let panicked = catch_unwind(AssertUnwindSafe(|| coming.submit(13).wait_blocking()));
    assert!(panicked.is_err());
    let own = batcher.clone();
    let lone = bounded(move || own.submit_blocking(1));
    batcher.close();
    assert!(
        matches!(lone, Some(Ok(1))),
        "it waits for what will never come"
    );
}

#[test]
fn shed_items_whose_taker_panics_are_told() {
    // Wakes collected under the lock are lost when something panics there.
    let (batcher, (go, sizes)) = gated(
        Batcher::builder()
            .max_size(2)
            .capacity(3)
            .overload(Overload::ShedOldest)
            .max_weight(usize::MAX, |&n| n as usize),
    );
    batcher.try_submit(0).unwrap().detach();
    sizes.recv_timeout(SOON).unwrap();
    let (tell, told) = channel();
    let own = batcher.clone();
    std::thread::spawn(move || tell.send(own.submit_blocking(1).is_err()));
    while batcher.stats().queued < 1 {
        std::thread::yield_now();
    }
    batcher.try_submit(1).unwrap().detach();
    batcher.try_submit(1).unwrap().detach();
    let submit = catch_unwind(AssertUnwindSafe(|| {
        let mut submit = pin!(batcher.submit(u64::MAX));
        let _ = submit
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
    }));
    let shed = told.recv_timeout(SOON);
    for _ in 0..4 {
        go.send(()).ok();
    }
    assert_eq!(
        shed,
        Ok(true),
        "shed and never woken; submit panicked: {}",
        submit.is_err()
    );
}

/// What the handler of `seen` was given, at the end.
#[test]
fn what_was_accepted_is_run_although_the_batcher_is_closed_and_more_urgent_items_wait() {
    let (go, gate) = channel::<()>();
    let (begun, batches) = channel();
    let (gate, begun) = (Mutex::new(gate), Mutex::new(begun));
    let batcher = Batcher::builder()
        .workers(1)
        .max_size(2)
        .capacity(2)
        .build_sync(move |items: Vec<u64>| {
            begun.lock().unwrap().send(items.clone()).ok();
            gate.lock().unwrap().recv_timeout(SOON).ok();
            Ok::<_, Infallible>(items)
        })
        .unwrap();
    batcher.try_submit(0).unwrap().detach();
    assert_eq!(batches.recv_timeout(SOON).unwrap(), [0]);
    // Both are accepted: there was room. Nobody waits for what becomes of them.
    batcher.try_submit(1).unwrap().detach();
    batcher.try_submit(2).unwrap().detach();
    // Two more wait for room.
    let urgent = [8, 9].map(|n| {
        let mut submit = Box::pin(batcher.submit_owned(n).priority(Priority::High));
        let polled = submit
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        assert!(polled.is_pending());
        submit
    });
    assert_eq!((batcher.stats().queued, batcher.stats().waiting), (2, 2));
    batcher.close();
    for _ in 0..4 {
        go.send(()).ok();
    }
    let own = batcher.clone();
    let _report = bounded(move || own.shutdown_blocking(SOON)).unwrap();
    drop(urgent);
    drop(batcher);
    let mut run: Vec<_> = batches.iter().flatten().collect();
    run.sort_unstable();
    // "Submitters who wait for room get theirs back; what was accepted is run"
    assert_eq!(run, [1, 2], "accepted, and lost without a word");
}

#[test]
fn nothing_more_is_called_once_a_batch_was_abandoned() {
    let (go, gate) = channel::<()>();
    let (begun, calls) = channel();
    let (gate, begun) = (Mutex::new(gate), Mutex::new(begun));
    let batcher = Batcher::builder()
        .workers(1)
        .gather(Gather::Linger { min_size: 4 })
        .max_wait(Duration::from_secs(3600))
        .isolate(100)
        .build_sync(move |items: Vec<u64>| {
            begun.lock().unwrap().send(items).ok();
            gate.lock().unwrap().recv_timeout(SOON).ok();
            Err::<Vec<u64>, _>("no")
        })
        .unwrap();
    let own = batcher.clone();
    let (tell, told) = channel();
    std::thread::spawn(move || tell.send(own.submit_all(0..4).wait_blocking()));
    assert_eq!(calls.recv_timeout(SOON).unwrap().len(), 4);
    let report = batcher.drain_blocking(Duration::from_millis(50));
    assert_eq!(report.abandoned, 4);
    let ends = told.recv_timeout(SOON).unwrap();
    assert!(
        ends.iter()
            .all(|end| matches!(end, Err(SubmitError::Abandoned(None))))
    );
    for _ in 0..10 {
        go.send(()).ok();
    }
    drop(batcher);
    let further: Vec<_> = calls.iter().collect();
    assert!(
        further.is_empty(),
        "called after all were told the end: {further:?}"
    );
}

/// A lease whose destructor panics.
#[test]
fn an_unused_lease_whose_destructor_panics_ends_no_worker() {
    #[derive(Debug)]
    struct Odd(bool);
    impl Clone for Odd {
        fn clone(&self) -> Self {
            assert!(self.0, "no clone");
            Self(true)
        }
    }
    let batcher = Batcher::<Odd, _>::builder()
        .workers(1)
        .isolate(4)
        .build_sync_with(
            || Ok::<_, &str>(Bomb),
            |lease, items: Vec<Odd>| {
                std::mem::forget(lease);
                Ok(items.iter().map(|_| ()).collect())
            },
        )
        .unwrap();
    let own = batcher.clone();
    let first = bounded(move || own.submit_blocking(Odd(false)));
    let own = batcher.clone();
    let second = bounded(move || own.submit_blocking(Odd(true)));
    assert!(
        matches!(second, Some(Ok(()))),
        "first {first:?}, then {second:?}"
    );
}
