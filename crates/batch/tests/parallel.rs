//! The bounded parallel map. No runtime: each future is released by hand.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn, ready};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use overdrive_batch::{ParallelBatch, map_ordered, try_map_ordered};
use proptest::prelude::*;

fn n(concurrency: usize) -> NonZeroUsize {
    NonZeroUsize::new(concurrency).unwrap()
}

/// Futures that are ready when they are released.
#[derive(Default)]
struct Gates {
    open: RefCell<HashMap<usize, Option<Waker>>>,
    released: RefCell<Vec<usize>>,
    most: Cell<usize>,
}

impl Gates {
    async fn pass(&self, item: usize) -> usize {
        self.open.borrow_mut().insert(item, None);
        self.most.set(self.most.get().max(self.open.borrow().len()));
        poll_fn(|cx| {
            if self.released.borrow().contains(&item) {
                return Poll::Ready(());
            }
            self.open
                .borrow_mut()
                .insert(item, Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
        item * 10
    }

    fn release(&self, which: usize) {
        let open: Vec<_> = self.open.borrow().keys().copied().collect();
        let Some(&item) = open.get(which % open.len().max(1)) else {
            return;
        };
        self.released.borrow_mut().push(item);
        if let Some(Some(waker)) = self.open.borrow_mut().remove(&item) {
            waker.wake();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn results_come_in_order_and_no_more_are_in_work_than_allowed(
        items in 0..40_usize,
        concurrency in 1..12_usize,
        order in prop::collection::vec(any::<usize>(), 40),
    ) {
        let gates = Gates::default();
        let mut map = pin!(map_ordered(0..items, n(concurrency), |item| gates.pass(item)));
        let mut cx = Context::from_waker(Waker::noop());
        let mut releases = order.into_iter();
        let results = loop {
            if let Poll::Ready(results) = map.as_mut().poll(&mut cx) {
                break results;
            }
            gates.release(releases.next().expect("one for each item"));
        };
        prop_assert_eq!(results, (0..items).map(|item| item * 10).collect::<Vec<_>>());
        prop_assert_eq!(gates.most.get(), items.min(concurrency));
    }
}

fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}

#[test]
fn the_first_error_drops_the_rest_and_begins_no_more() {
    let begun = Cell::new(0);
    let f = |item: usize| {
        begun.set(begun.get() + 1);
        async move {
            match item {
                0 | 1 => std::future::pending().await,
                3 => Err("three"),
                _ => Ok(item),
            }
        }
    };
    assert_eq!(now(try_map_ordered(0..100, n(4), f)), Err((3, "three")));
    assert!(begun.get() <= 6, "{}", begun.get());
    let all = now(try_map_ordered([1, 2, 3], n(2), |item| {
        ready(Ok::<_, ()>(item))
    }));
    assert_eq!(all, Ok(vec![1, 2, 3]));
}

#[test]
fn nothing_makes_nothing() {
    assert!(now(map_ordered([0_u8; 0], n(1), ready)).is_empty());
}

#[test]
fn a_panic_passes_and_is_counted() {
    let batch = ParallelBatch::builder().concurrency(3).build().unwrap();
    let f = |&item: &u8| async move {
        if item == 2 {
            std::panic::resume_unwind(Box::new("quiet"));
        }
        item
    };
    let call = || now(batch.process(&[1, 2, 3, 4, 5], f));
    assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
    let stats = batch.stats();
    assert_eq!(stats.begun, stats.completed + stats.dropped);
    assert!(stats.dropped > 0);
    assert_eq!(now(batch.process(&[1, 3], f)), [1, 3]);
}

#[test]
fn figures_add_up() {
    let batch = ParallelBatch::builder()
        .name("rows")
        .concurrency(2)
        .build()
        .unwrap();
    assert_eq!(now(batch.process(0..10, ready)).len(), 10);
    let failed = batch.try_process([1, 0], |n| ready(1_u8.checked_div(n).ok_or(())));
    assert_eq!(now(failed), Err((1, ())));
    let stats = batch.stats();
    assert_eq!(
        (stats.begun, stats.completed, stats.failed, stats.dropped),
        (12, 11, 1, 0)
    );
    assert_eq!((batch.name(), batch.concurrency()), ("rows", n(2)));
}

#[test]
fn bad_numbers_are_refused() {
    for bad in [0, usize::MAX] {
        let refused = ParallelBatch::builder()
            .concurrency(bad)
            .build()
            .unwrap_err();
        assert_eq!(refused.field(), "concurrency");
    }
}

#[test]
fn items_without_end_may_be_tried_until_one_fails() {
    let tried = pin!(try_map_ordered(0_u64.., n(3), |item| ready(if item < 10 {
        Ok(item)
    } else {
        Err("enough")
    })));
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(ended) = tried.poll(&mut cx) else {
        panic!("all futures are ready");
    };
    assert_eq!(ended, Err((10, "enough")));
}
