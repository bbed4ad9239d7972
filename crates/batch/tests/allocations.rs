//! What the parallel map allocates, and a submit with a key that is known: counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::convert::Infallible;
use std::future::{Future, poll_fn, ready};
use std::num::NonZeroUsize;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use overdrive_batch::{KeyedBatcher, map_ordered, map_ordered_into};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

/// The system's, with a count for each thread.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to `System` as it came; the count neither allocates nor panics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise is `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

fn allocations<R>(f: impl FnOnce() -> R) -> usize {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

fn run<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
}

async fn after_a_yield(item: usize) -> usize {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(item);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

const TEN: NonZeroUsize = NonZeroUsize::new(10).unwrap();

#[test]
fn ready_futures_allocate_for_the_results_and_nothing_else() {
    let mut list = Vec::with_capacity(1000);
    let into = allocations(|| run(map_ordered_into(&mut list, 0..1000, TEN, ready)));
    assert_eq!(into, 0);
    assert_eq!(allocations(|| run(map_ordered(0..1000, TEN, ready))), 1);
}

#[test]
fn places_are_allocated_and_items_are_not() {
    let map = |items| allocations(|| run(map_ordered(0..items, TEN, after_a_yield)));
    let few = map(20);
    assert!(few < 10, "{few}");
    assert_eq!(map(2000), few);
}

#[test]
fn one_place_is_not_allocated() {
    let map = || run(map_ordered(0..1000, NonZeroUsize::MIN, after_a_yield));
    assert_eq!(allocations(map), 1);
}

#[test]
fn a_key_that_comes_back_costs_its_submitter_no_allocation() {
    let batcher = KeyedBatcher::builder()
        .workers(1)
        .build_sync(|_: &u8, items: Vec<usize>| Ok::<_, Infallible>(items))
        .unwrap();
    let round = || {
        for key in 0..10 {
            let ticket = batcher.try_submit(key, 7).unwrap();
            assert_eq!(run(ticket).unwrap(), 7);
        }
    };
    (0..20).for_each(|_| round());
    assert_eq!(allocations(round), 0);
}
