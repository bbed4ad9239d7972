//! Which items come into which batch: weights, urgency, announcements, shedding.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use overdrive_batch::{
    Batcher, BatcherBuilder, Gather, Overload, Priority, SubmitError, TrySubmitError,
};

type Echo = Batcher<u64, u64>;

/// A batcher whose one worker is held up by a batch of its own, and lets go one batch at a time:
/// what it then runs, and how it is let go.
fn held_up(builder: BatcherBuilder<u64>) -> (Echo, Receiver<Vec<u64>>, Sender<()>) {
    let (tell, started) = channel();
    let (go, wait) = channel();
    let inner = Mutex::new((tell, wait));
    let handler = move |items: Vec<u64>| {
        let inner = inner.lock().unwrap();
        let _told = inner.0.send(items.clone());
        let _released = inner.1.recv();
        Ok::<_, Infallible>(items)
    };
    let batcher = builder.workers(1).build_sync(handler).unwrap();
    batcher.try_submit(0).unwrap().detach();
    assert_eq!(started.recv().unwrap(), [0]);
    (batcher, started, go)
}

/// Submits what the future is for: it has no result yet.
fn begin<F: Future + Unpin>(future: &mut F) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(future).poll(&mut cx).is_pending());
}

#[test]
fn a_batch_is_no_heavier_than_it_may_be() {
    let builder = Batcher::builder().max_weight(10, |&item: &u64| item as usize);
    let (batcher, started, go) = held_up(builder);
    for item in [4, 6, 1, 9, 10, 3, 3] {
        batcher.try_submit(item).unwrap().detach();
    }
    for expected in [&[4, 6][..], &[1, 9], &[10], &[3, 3]] {
        go.send(()).unwrap();
        assert_eq!(started.recv().unwrap(), expected);
    }
    assert_eq!(
        batcher.try_submit(11).unwrap_err(),
        TrySubmitError::TooHeavy(11)
    );
    let refused = batcher.submit_blocking(11).unwrap_err();
    assert!(matches!(refused, SubmitError::TooHeavy(11)), "{refused:?}");
    drop(go);
}

#[test]
fn the_most_urgent_go_first_and_the_batch_is_filled_up_with_others() {
    let (batcher, started, go) = held_up(Batcher::builder().max_size(3));
    let submits = [
        (1, Priority::Low),
        (2, Priority::Normal),
        (3, Priority::High),
        (4, Priority::High),
        (5, Priority::Normal),
    ];
    let mut waiting: Vec<_> = submits
        .into_iter()
        .map(|(item, priority)| batcher.submit_owned(item).priority(priority))
        .collect();
    for submit in &mut waiting {
        begin(submit);
    }
    // Two urgent ones; the normal two would not fit as a whole, and stay together.
    for expected in [&[3, 4][..], &[2, 5, 1]] {
        go.send(()).unwrap();
        assert_eq!(started.recv().unwrap(), expected);
    }
    drop(go);
}

#[test]
fn what_is_not_urgent_is_run_in_the_end() {
    let (batcher, started, go) = held_up(Batcher::builder().max_size(1));
    let mut low = batcher.submit(1_000).priority(Priority::Low);
    begin(&mut low);
    let mut urgent = Vec::new();
    let mut order = Vec::new();
    // There is always something more urgent.
    for item in 1..20 {
        let mut next = batcher.submit(item).priority(Priority::High);
        begin(&mut next);
        urgent.push(next);
        go.send(()).unwrap();
        order.push(started.recv().unwrap()[0]);
        if order.contains(&1_000) {
            break;
        }
    }
    assert!(order.contains(&1_000), "{order:?}");
    assert!(order.len() > 1, "urgent ones went before");
    drop(go);
}

#[test]
fn when_full_the_oldest_gives_way_to_what_is_as_urgent() {
    let builder = Batcher::builder().max_size(1).capacity(2);
    let (batcher, started, go) = held_up(builder.overload(Overload::ShedOldest));
    let mut first = batcher.submit(1);
    let mut second = batcher.submit(2);
    let mut third = batcher.submit(3);
    begin(&mut first);
    begin(&mut second);
    begin(&mut third);
    let shed = first.wait_blocking();
    assert!(matches!(shed, Err(SubmitError::Shed(1))), "{shed:?}");
    let low = batcher.submit(4).priority(Priority::Low).wait_blocking();
    assert!(matches!(low, Err(SubmitError::Full(4))), "{low:?}");
    let full = batcher.try_submit(5).unwrap_err();
    assert_eq!(full, TrySubmitError::Full(5), "asked, it sheds nobody");
    assert_eq!(batcher.stats().shed, 1);
    for expected in [2, 3] {
        go.send(()).unwrap();
        assert_eq!(started.recv().unwrap(), [expected]);
    }
    drop(go);
}

#[test]
fn what_is_announced_is_waited_for() {
    let (tell, started) = channel();
    let tell = Mutex::new(tell);
    let handler = move |items: Vec<u64>| {
        tell.lock().unwrap().send(items.len()).unwrap();
        Ok::<_, Infallible>(items)
    };
    let batcher = Batcher::builder()
        .gather(Gather::Announced)
        .max_wait(Duration::from_secs(3600))
        .build_sync(handler)
        .unwrap();
    // Nothing is announced: at once.
    assert_eq!(batcher.submit_blocking(1).unwrap(), 1);
    assert_eq!(started.recv().unwrap(), 1);

    let (coming, dropped) = (batcher.announce(), batcher.announce());
    thread::scope(|scope| {
        let early = scope.spawn(|| batcher.submit_blocking(2));
        while batcher.stats().queued == 0 {
            thread::yield_now();
        }
        drop(dropped);
        assert_eq!(coming.submit(3).wait_blocking().unwrap(), 3);
        assert_eq!(early.join().unwrap().unwrap(), 2);
    });
    assert_eq!(started.recv().unwrap(), 2);

    // Given up before it was ever polled, it is not waited for.
    drop(batcher.announce().submit(4));
    assert_eq!(batcher.submit_blocking(5).unwrap(), 5);
    assert_eq!(started.recv().unwrap(), 1);
}

#[test]
fn a_flush_does_not_wait_for_what_is_announced() {
    let builder = Batcher::builder().gather(Gather::Announced);
    let builder = builder.max_wait(Duration::from_secs(3600));
    let batcher = builder.build_sync(Ok::<Vec<u64>, Infallible>).unwrap();
    let _never = batcher.announce();
    let ticket = batcher.try_submit(1).unwrap();
    batcher.flush_blocking();
    assert_eq!(ticket.wait_blocking().unwrap(), 1);
}

#[test]
fn a_lone_submitter_is_not_kept_by_an_adaptive_batcher() {
    let builder = Batcher::builder().gather(Gather::Adaptive);
    let builder = builder.max_wait(Duration::from_secs(3600));
    let batcher = builder.build_sync(Ok::<Vec<u64>, Infallible>).unwrap();
    for item in 0..100 {
        assert_eq!(batcher.submit_blocking(item).unwrap(), item);
    }
    assert_eq!(batcher.stats().closed_linger, 0);
}
