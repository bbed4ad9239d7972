//! A counting allocator for benchmark binaries.
//!
//! # Invariants
//! 1. Every call is passed unchanged to [`System`], so its contract is kept if
//!    the caller keeps it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

static ON: AtomicBool = AtomicBool::new(false);
static ALLOCS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicI64 = AtomicI64::new(0);
static PEAK: AtomicI64 = AtomicI64::new(0);

/// The system allocator with counters that are off, at the cost of one relaxed
/// load, except inside [`measure`].
///
/// A benchmark binary installs it: `#[global_allocator] static A: Counting = Counting;`
#[derive(Clone, Copy, Debug, Default)]
pub struct Counting;

/// What was allocated inside [`measure`], by all threads of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllocStats {
    /// Calls that allocated or grew.
    pub allocs: u64,
    /// Bytes asked for, sum of all calls.
    pub bytes: u64,
    /// Bytes still allocated at the end, net of what was freed meanwhile.
    pub live: i64,
    /// The largest value that `live` had.
    pub peak: i64,
}

/// Counts what `f` allocates. Not to be nested or run from two threads at once.
/// Returns zeros where [`Counting`] is not the global allocator.
pub fn measure<R>(f: impl FnOnce() -> R) -> (R, AllocStats) {
    for counter in [&ALLOCS, &BYTES] {
        counter.store(0, Relaxed);
    }
    LIVE.store(0, Relaxed);
    PEAK.store(0, Relaxed);
    ON.store(true, Relaxed);
    let result = f();
    ON.store(false, Relaxed);
    let stats = AllocStats {
        allocs: ALLOCS.load(Relaxed),
        bytes: BYTES.load(Relaxed),
        live: LIVE.load(Relaxed),
        peak: PEAK.load(Relaxed),
    };
    (result, stats)
}

#[cold]
fn count(size: usize, freed: usize) {
    if size > freed || freed == 0 {
        ALLOCS.fetch_add(1, Relaxed);
        BYTES.fetch_add(size.saturating_sub(freed) as u64, Relaxed);
    }
    let change = size as i64 - freed as i64;
    let live = LIVE.fetch_add(change, Relaxed) + change;
    PEAK.fetch_max(live, Relaxed);
}

// SAFETY: invariant 1.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if ON.load(Relaxed) {
            count(layout.size(), 0);
        }
        // SAFETY: invariant 1.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        if ON.load(Relaxed) {
            count(0, layout.size());
        }
        // SAFETY: invariant 1.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if ON.load(Relaxed) {
            count(layout.size(), 0);
        }
        // SAFETY: invariant 1.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if ON.load(Relaxed) {
            count(new_size, layout.size());
        }
        // SAFETY: invariant 1.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}
