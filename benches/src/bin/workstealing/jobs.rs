//! What the pools are given to do.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Thread};

use overdrive_bench::Contender;
use overdrive_bench::results::Role;

/// Which Fibonacci number is computed: small enough for a slice.
pub(crate) const FIB: u64 = 14;

/// The joins in one computation.
pub(crate) const JOINS: u64 = 609;

/// Tasks per batch.
pub(crate) const TASKS: u64 = 1000;

/// A pool that can fork and join.
pub(crate) trait ForkJoin: 'static {
    fn new(workers: usize) -> Self;

    /// The number by two recursive calls, joined down to the leaves.
    fn fib(&mut self, n: u64) -> u64;
}

/// A pool that runs closures.
pub(crate) trait Spawn: 'static {
    fn new(workers: usize) -> Self;

    fn spawn(&self, f: impl FnOnce() + Send + 'static);
}

/// One operation: `fib(FIB)`.
pub(crate) fn join_fib<P: ForkJoin>(role: Role, name: &str, version: &str) -> Contender {
    Contender::time(role, name, version, |setup| {
        let workers = setup.threads;
        move |_| {
            let mut pool = P::new(workers);
            move |ops| (0..ops).fold(0, |sum: u64, _| sum.wrapping_add(pool.fib(black_box(FIB))))
        }
    })
}

/// One operation: a batch of tasks, and the wait until all of them ran.
pub(crate) fn spawn_outside<P: Spawn>(role: Role, name: &str, version: &str) -> Contender {
    Contender::time(role, name, version, |setup| {
        let workers = setup.threads;
        move |_| {
            let pool = P::new(workers);
            let batch: &'static Batch = Box::leak(Box::new(Batch::new()));
            move |ops| {
                let before = batch.ran();
                for _ in 0..ops {
                    batch.run(&pool);
                }
                batch.ran() - before
            }
        }
    })
}

/// Counts the tasks of a batch and wakes the one who waits for them.
struct Batch {
    ran: AtomicU64,
    awaited: AtomicU64,
    waiter: Thread,
}

impl Batch {
    fn new() -> Self {
        Self {
            ran: AtomicU64::new(0),
            awaited: AtomicU64::new(0),
            waiter: thread::current(),
        }
    }

    fn ran(&self) -> u64 {
        self.ran.load(Ordering::Acquire)
    }

    fn run(&'static self, pool: &impl Spawn) {
        let all = self.ran() + TASKS;
        self.awaited.store(all, Ordering::Release);
        for n in 0..TASKS {
            let payload = [n; 3];
            let task = move || self.count(payload);
            const { assert!(size_of::<(&Self, [u64; 3])>() == 32) };
            pool.spawn(task);
        }
        while self.ran() < all {
            thread::park();
        }
    }

    /// What a task does: nothing but to be counted.
    fn count(&self, payload: [u64; 3]) {
        black_box(payload);
        if self.ran.fetch_add(1, Ordering::AcqRel) + 1 == self.awaited.load(Ordering::Acquire) {
            self.waiter.unpark();
        }
    }
}
