//! The pool of this project.

use overdrive_workstealing::{ThreadPool, join};

use crate::jobs::{Ask, ForkJoin, Node, Spawn};
use crate::programs::Joins;

/// The version shown in the table.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

fn pool(workers: usize) -> ThreadPool {
    let built = ThreadPool::builder().name("bench").workers(workers).build();
    built.expect("the settings are valid")
}

fn fib(n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    let (a, b) = join(|| fib(n - 1), || fib(n - 2));
    a + b
}

fn sum(node: &Node) -> u64 {
    let Some(children) = &node.children else {
        return node.value;
    };
    let (left, right) = join(|| sum(&children.0), || sum(&children.1));
    node.value + left + right
}

/// A task computes, so that the workers are all who do.
pub(crate) struct Joined(ThreadPool);

impl ForkJoin for Joined {
    fn new(workers: usize) -> Self {
        Self(pool(workers))
    }

    fn fib(&mut self, n: u64) -> u64 {
        let task = self.0.submit(move || fib(n)).expect("there is room");
        task.join().expect("it does not panic")
    }

    fn sum(&mut self, tree: &'static Node) -> u64 {
        let task = self.0.submit(move || sum(tree)).expect("there is room");
        task.join().expect("it does not panic")
    }
}

/// The calling thread computes, next to the workers.
pub(crate) struct Installed(ThreadPool);

impl ForkJoin for Installed {
    fn new(workers: usize) -> Self {
        Self(pool(workers))
    }

    fn fib(&mut self, n: u64) -> u64 {
        self.0.install(|| fib(n))
    }

    fn sum(&mut self, tree: &'static Node) -> u64 {
        self.0.install(|| sum(tree))
    }
}

pub(crate) struct Spawned(ThreadPool);

impl Spawn for Spawned {
    fn new(workers: usize) -> Self {
        Self(pool(workers))
    }

    fn spawn(&self, f: impl FnOnce() + Send + 'static) {
        self.0.spawn(f).expect("there is room");
    }
}

/// The thread that asks runs the closure itself, in the pool.
pub(crate) struct Here(ThreadPool);

impl Ask for Here {
    fn new(workers: usize) -> Self {
        Self(pool(workers))
    }

    fn ask(&self, f: impl FnOnce() -> u64 + Send + 'static) -> u64 {
        self.0.install(f)
    }
}

/// A worker runs the closure.
pub(crate) struct There(ThreadPool);

impl Ask for There {
    fn new(workers: usize) -> Self {
        Self(pool(workers))
    }

    fn ask(&self, f: impl FnOnce() -> u64 + Send + 'static) -> u64 {
        let task = self.0.submit(f).expect("there is room");
        task.join().expect("it does not panic")
    }
}

impl Joins for Joined {
    fn new(workers: usize) -> Self {
        Self(pool(workers))
    }

    fn enter(&mut self, f: impl FnOnce() -> u64 + Send + 'static) -> u64 {
        let task = self.0.submit(f).expect("there is room");
        task.join().expect("it does not panic")
    }

    fn join<A, B, RA, RB>(a: A, b: B) -> (RA, RB)
    where
        A: FnOnce() -> RA + Send,
        B: FnOnce() -> RB + Send,
        RA: Send,
        RB: Send,
    {
        join(a, b)
    }
}
