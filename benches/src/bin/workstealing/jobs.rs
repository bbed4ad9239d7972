//! What the pools are given to do.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Thread};

use overdrive_bench::Contender;
use overdrive_bench::results::Role;

/// Which Fibonacci number is computed: long enough for a second thread to come and help.
pub(crate) const FIB: u64 = 27;

/// The joins in one computation.
pub(crate) const JOINS: u64 = 317_810;

/// The levels of the trees: 512 KiB and 8 MiB.
pub(crate) const SMALL: u32 = 14;
pub(crate) const LARGE: u32 = 18;

/// Tasks per batch.
pub(crate) const TASKS: u64 = 1000;

/// A pool that can fork and join.
pub(crate) trait ForkJoin: 'static {
    fn new(workers: usize) -> Self;

    /// The number by two recursive calls, joined down to the leaves.
    fn fib(&mut self, n: u64) -> u64;

    /// The sum of a tree, both subtrees joined down to the leaves.
    fn sum(&mut self, tree: &'static Node) -> u64;
}

/// A node of a binary tree: 32 bytes with the allocator's header.
pub(crate) struct Node {
    pub(crate) value: u64,
    pub(crate) children: Option<Box<(Self, Self)>>,
}

impl Node {
    /// A full tree of so many levels.
    fn full(levels: u32) -> Self {
        Self {
            value: u64::from(levels),
            children: (levels > 1)
                .then(|| Box::new((Self::full(levels - 1), Self::full(levels - 1)))),
        }
    }
}

/// A pool that runs closures.
pub(crate) trait Spawn: Send + Sync + 'static {
    fn new(workers: usize) -> Self;

    fn spawn(&self, f: impl FnOnce() + Send + 'static);

    /// From one of its own threads.
    fn spawn_inside(&self, f: impl FnOnce() + Send + 'static) {
        self.spawn(f);
    }
}

/// A pool that gives the result of a closure to a thread that waits for it.
pub(crate) trait Ask: 'static {
    fn new(workers: usize) -> Self;

    fn ask(&self, f: impl FnOnce() -> u64 + Send + 'static) -> u64;
}

/// One operation: the sum of a tree of so many levels.
pub(crate) fn join_tree<P: ForkJoin>(
    levels: u32,
    role: Role,
    name: &str,
    version: &str,
) -> Contender {
    Contender::time(role, name, version, move |setup| {
        let workers = setup.threads;
        move |_| {
            let mut pool = P::new(workers);
            let tree: &'static Node = Box::leak(Box::new(Node::full(levels)));
            move |ops| (0..ops).fold(0, |sum: u64, _| sum.wrapping_add(pool.sum(black_box(tree))))
        }
    })
}

/// One operation: a question, and its answer.
pub(crate) fn round_trip<P: Ask>(role: Role, name: &str, version: &str) -> Contender {
    Contender::time(role, name, version, |setup| {
        let workers = setup.threads;
        move |_| {
            let pool = P::new(workers);
            move |ops| {
                (0..ops).fold(0, |sum: u64, n| {
                    let n = black_box(n);
                    sum.wrapping_add(pool.ask(move || n * 3))
                })
            }
        }
    })
}

/// One operation: a task that spawns a batch, and the wait until all of them ran.
pub(crate) fn spawn_inside<P: Spawn>(role: Role, name: &str, version: &str) -> Contender {
    Contender::time(role, name, version, |setup| {
        let workers = setup.threads;
        move |_| {
            let pool: &'static P = Box::leak(Box::new(P::new(workers)));
            let batch: &'static Batch = Box::leak(Box::new(Batch::new()));
            move |ops| {
                let before = batch.ran();
                for _ in 0..ops {
                    let all = batch.expect(TASKS);
                    pool.spawn(move || {
                        for n in 0..TASKS {
                            let payload = [n; 3];
                            pool.spawn_inside(move || batch.count(payload));
                        }
                    });
                    batch.wait(all);
                }
                batch.ran() - before
            }
        }
    })
}

/// The levels of a tree of tasks, and how many those are.
const LEVELS: u64 = 10;
pub(crate) const TREE: u64 = (1 << LEVELS) - 1;

/// One operation: a task that spawns two that spawn two each, and so on, and the wait for all.
pub(crate) fn spawn_recursive<P: Spawn>(role: Role, name: &str, version: &str) -> Contender {
    fn grow<P: Spawn>(pool: &'static P, batch: &'static Batch, level: u64, id: u64) {
        if level > 1 {
            for id in [2 * id, 2 * id + 1] {
                let task = move || grow(pool, batch, level - 1, id);
                const { assert!(size_of::<(&P, &Batch, u64, u64)>() == 32) };
                pool.spawn_inside(task);
            }
        }
        batch.count([level, id, 0]);
    }
    Contender::time(role, name, version, |setup| {
        let workers = setup.threads;
        move |_| {
            let pool: &'static P = Box::leak(Box::new(P::new(workers)));
            let batch: &'static Batch = Box::leak(Box::new(Batch::new()));
            move |ops| {
                let before = batch.ran();
                for _ in 0..ops {
                    let all = batch.expect(TREE);
                    pool.spawn(move || grow(pool, batch, LEVELS, 1));
                    batch.wait(all);
                }
                batch.ran() - before
            }
        }
    })
}

pub(crate) const PRODUCERS: u64 = 4;

/// One operation: four threads spawn a batch each, and the wait until all ran.
pub(crate) fn producers<P: Spawn>(role: Role, name: &str, version: &str) -> Contender {
    Contender::time(role, name, version, |setup| {
        let workers = setup.threads;
        move |_| {
            let pool = Arc::new(P::new(workers));
            let batch: &'static Batch = Box::leak(Box::new(Batch::new()));
            let go: Vec<_> = (0..PRODUCERS)
                .map(|_| {
                    let (go, told) = std::sync::mpsc::channel::<()>();
                    let pool = Arc::clone(&pool);
                    thread::spawn(move || {
                        for () in told {
                            for n in 0..TASKS {
                                let payload = [n; 3];
                                pool.spawn(move || batch.count(payload));
                            }
                        }
                    });
                    go
                })
                .collect();
            move |ops| {
                let before = batch.ran();
                for _ in 0..ops {
                    let all = batch.expect(PRODUCERS * TASKS);
                    for go in &go {
                        go.send(()).expect("the producers wait for it");
                    }
                    batch.wait(all);
                }
                batch.ran() - before
            }
        }
    })
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
        let all = self.expect(TASKS);
        for n in 0..TASKS {
            let payload = [n; 3];
            let task = move || self.count(payload);
            const { assert!(size_of::<(&Self, [u64; 3])>() == 32) };
            pool.spawn(task);
        }
        self.wait(all);
    }

    /// What the count will be when so many more have run.
    fn expect(&self, tasks: u64) -> u64 {
        let all = self.ran() + tasks;
        self.awaited.store(all, Ordering::Release);
        all
    }

    fn wait(&self, all: u64) {
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
