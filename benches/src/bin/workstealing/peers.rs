//! The peers, each driven as its own documentation shows.

use std::num::NonZero;
use std::thread;

use crate::jobs::{ForkJoin, Spawn};

/// `rayon`: a pool of its own, entered by `install`, which has a worker do it.
pub(crate) struct Rayon(rayon::ThreadPool);

fn rayon(workers: usize) -> rayon::ThreadPool {
    let built = rayon::ThreadPoolBuilder::new().num_threads(workers).build();
    built.expect("the settings are valid")
}

impl ForkJoin for Rayon {
    fn new(workers: usize) -> Self {
        Self(rayon(workers))
    }

    fn fib(&mut self, n: u64) -> u64 {
        fn fib(n: u64) -> u64 {
            if n < 2 {
                return n;
            }
            let (a, b) = rayon::join(|| fib(n - 1), || fib(n - 2));
            a + b
        }
        self.0.install(|| fib(n))
    }
}

impl Spawn for Rayon {
    fn new(workers: usize) -> Self {
        Self(rayon(workers))
    }

    fn spawn(&self, f: impl FnOnce() + Send + 'static) {
        self.0.spawn(f);
    }
}

/// `chili`: the calling thread is one of its threads.
pub(crate) struct Chili(chili::ThreadPool);

impl ForkJoin for Chili {
    fn new(workers: usize) -> Self {
        let config = chili::Config {
            thread_count: NonZero::new(workers),
            ..chili::Config::default()
        };
        Self(chili::ThreadPool::with_config(config))
    }

    fn fib(&mut self, n: u64) -> u64 {
        fn fib(scope: &mut chili::Scope<'_>, n: u64) -> u64 {
            if n < 2 {
                return n;
            }
            let (a, b) = scope.join(|s| fib(s, n - 1), |s| fib(s, n - 2));
            a + b
        }
        fib(&mut self.0.scope(), n)
    }
}

/// `tokio`: tasks on the multi-threaded runtime.
pub(crate) struct Tokio(tokio::runtime::Runtime);

impl Spawn for Tokio {
    fn new(workers: usize) -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let built = builder.worker_threads(workers).build();
        Self(built.expect("the settings are valid"))
    }

    fn spawn(&self, f: impl FnOnce() + Send + 'static) {
        self.0.spawn(async move { f() });
    }
}

/// `threadpool`.
pub(crate) struct Threadpool(threadpool::ThreadPool);

impl Spawn for Threadpool {
    fn new(workers: usize) -> Self {
        Self(threadpool::ThreadPool::new(workers))
    }

    fn spawn(&self, f: impl FnOnce() + Send + 'static) {
        self.0.execute(f);
    }
}

/// `rusty_pool`, with a fixed number of threads.
pub(crate) struct RustyPool(rusty_pool::ThreadPool);

impl Spawn for RustyPool {
    fn new(workers: usize) -> Self {
        let builder = rusty_pool::Builder::new();
        Self(builder.core_size(workers).max_size(workers).build())
    }

    fn spawn(&self, f: impl FnOnce() + Send + 'static) {
        self.0.execute(f);
    }
}

type Task = Box<dyn FnOnce() + Send>;

/// Threads that take closures from a `crossbeam-channel`; they end when it is dropped.
pub(crate) struct MpmcChannel(crossbeam_channel::Sender<Task>);

impl Spawn for MpmcChannel {
    fn new(workers: usize) -> Self {
        let (send, receive) = crossbeam_channel::unbounded::<Task>();
        for _ in 0..workers {
            let receive = receive.clone();
            thread::spawn(move || {
                for task in receive {
                    task();
                }
            });
        }
        Self(send)
    }

    fn spawn(&self, f: impl FnOnce() + Send + 'static) {
        self.0.send(Box::new(f)).expect("the threads receive");
    }
}
