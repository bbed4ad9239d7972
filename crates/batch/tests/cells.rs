//! What a batcher keeps, counted, while a few results are not fetched.

use std::alloc::{GlobalAlloc, Layout, System};
use std::convert::Infallible;
use std::sync::atomic::{AtomicIsize, Ordering};

use overdrive_batch::{Batcher, Gather};

static LIVE: AtomicIsize = AtomicIsize::new(0);

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to `System` as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promise is `System`'s.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[test]
fn results_that_are_not_fetched_do_not_make_it_grow_for_ever() {
    let batcher = Batcher::builder()
        .workers(1)
        .gather(Gather::Immediate)
        .build_sync(|items: Vec<u64>| Ok::<_, Infallible>(items))
        .unwrap();
    // A hundred results that their submitters have not come for yet.
    let mut held = Vec::new();
    for n in 0..100 {
        held.push(batcher.try_submit(n).unwrap());
        while batcher.stats().completed <= n {
            std::thread::yield_now();
        }
    }
    let mut grown = Vec::new();
    for batches in [2_000, 8_000, 32_000, 128_000] {
        for n in 0..batches {
            batcher.submit_blocking(n).unwrap();
        }
        grown.push(LIVE.load(Ordering::Relaxed));
    }
    drop(held);
    println!("bytes alive: {grown:?}");
    assert!(
        grown[3] < 2 * grown[0],
        "one item at a time, and it grows: {grown:?} bytes"
    );
}
