//! What a task takes from the heap.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use overdrive_workstealing::{ThreadPool, join};

struct Counting;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

#[expect(unsafe_code, reason = "the allocator's interface")]
// SAFETY: all is passed on.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        TAKEN.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn taken(f: impl FnOnce()) -> usize {
    let before = TAKEN.load(Ordering::SeqCst);
    f();
    TAKEN.load(Ordering::SeqCst) - before
}

/// One test, since others would be counted with it.
#[test]
fn small_tasks_take_no_memory() {
    fn fib(n: u64) -> u64 {
        if n < 2 {
            return n;
        }
        let (a, b) = join(|| fib(n - 1), || fib(n - 2));
        a + b
    }
    let pool = ThreadPool::builder().workers(1).build().unwrap();
    let (tell, told) = channel();
    let inner = pool.clone();
    pool.spawn(move || {
        let words = [std::hint::black_box(1_u64); 4];
        // Fewer than the deque has room for without growing.
        let small = taken(|| {
            for _ in 0..50 {
                let task = move || assert_eq!(std::hint::black_box(words)[0], 1);
                inner.spawn(task).unwrap();
            }
        });
        let large = taken(|| {
            let words = [std::hint::black_box(1_u64); 5];
            let task = move || assert_eq!(std::hint::black_box(words)[0], 1);
            inner.spawn(task).unwrap();
        });
        let joins = taken(|| assert_eq!(fib(12), 144));
        tell.send((small, large, joins)).unwrap();
    })
    .unwrap();
    assert_eq!(told.recv().unwrap(), (0, 1, 0));
}
