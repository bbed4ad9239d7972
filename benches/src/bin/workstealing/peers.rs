//! The peers, each driven as its own documentation shows.

use std::num::NonZero;
use std::sync::Arc;
use std::thread;

use crate::jobs::{Ask, ForkJoin, Node, Spawn};
use crate::programs::Joins;

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

    fn sum(&mut self, tree: &'static Node) -> u64 {
        fn sum(node: &Node) -> u64 {
            let Some(children) = &node.children else {
                return node.value;
            };
            let (left, right) = rayon::join(|| sum(&children.0), || sum(&children.1));
            node.value + left + right
        }
        self.0.install(|| sum(tree))
    }
}

impl Spawn for Rayon {
    fn new(workers: usize) -> Self {
        Self(rayon(workers))
    }

    fn spawn(&self, f: impl FnOnce() + Send + 'static) {
        self.0.spawn(f);
    }

    fn spawn_inside(&self, f: impl FnOnce() + Send + 'static) {
        rayon::spawn(f);
    }
}

impl Joins for Rayon {
    fn new(workers: usize) -> Self {
        Self(rayon(workers))
    }

    fn enter(&mut self, f: impl FnOnce() -> u64 + Send + 'static) -> u64 {
        self.0.install(f)
    }

    fn join<A, B, RA, RB>(a: A, b: B) -> (RA, RB)
    where
        A: FnOnce() -> RA + Send,
        B: FnOnce() -> RB + Send,
        RA: Send,
        RB: Send,
    {
        rayon::join(a, b)
    }
}

impl Ask for Rayon {
    fn new(workers: usize) -> Self {
        Self(rayon(workers))
    }

    fn ask(&self, f: impl FnOnce() -> u64 + Send + 'static) -> u64 {
        self.0.install(f)
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

    fn sum(&mut self, tree: &'static Node) -> u64 {
        fn sum(scope: &mut chili::Scope<'_>, node: &Node) -> u64 {
            let Some(children) = &node.children else {
                return node.value;
            };
            let (left, right) = scope.join(|s| sum(s, &children.0), |s| sum(s, &children.1));
            node.value + left + right
        }
        sum(&mut self.0.scope(), tree)
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

    fn spawn_inside(&self, f: impl FnOnce() + Send + 'static) {
        tokio::spawn(async move { f() });
    }
}

impl Ask for Tokio {
    fn new(workers: usize) -> Self {
        Spawn::new(workers)
    }

    fn ask(&self, f: impl FnOnce() -> u64 + Send + 'static) -> u64 {
        let task = self.0.spawn(async move { f() });
        self.0.block_on(task).expect("it does not panic")
    }
}

/// `tokio`'s threads for blocking work.
pub(crate) struct TokioBlocking(tokio::runtime::Runtime);

impl Spawn for TokioBlocking {
    fn new(workers: usize) -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let built = builder
            .worker_threads(1)
            .max_blocking_threads(workers)
            .build();
        Self(built.expect("the settings are valid"))
    }

    fn spawn(&self, f: impl FnOnce() + Send + 'static) {
        self.0.spawn_blocking(f);
    }
}

impl Ask for TokioBlocking {
    fn new(workers: usize) -> Self {
        Spawn::new(workers)
    }

    fn ask(&self, f: impl FnOnce() -> u64 + Send + 'static) -> u64 {
        let task = self.0.spawn_blocking(f);
        self.0.block_on(task).expect("it does not panic")
    }
}

/// `async-executor`, on threads of its own that run it until its end.
pub(crate) struct AsyncExecutor {
    executor: Arc<async_executor::Executor<'static>>,
    /// Dropped at the end, which the threads wait for.
    _end: crossbeam_channel::Sender<()>,
}

impl Spawn for AsyncExecutor {
    fn new(workers: usize) -> Self {
        let executor = Arc::new(async_executor::Executor::new());
        let (end, ended) = crossbeam_channel::bounded::<()>(0);
        for _ in 0..workers {
            let (executor, ended) = (Arc::clone(&executor), ended.clone());
            thread::spawn(move || {
                // As its documentation drives it; the end is not awaited, so the thread stays.
                let _ended = ended;
                futures_executor::block_on(executor.run(std::future::pending::<()>()));
            });
        }
        Self {
            executor,
            _end: end,
        }
    }

    fn spawn(&self, f: impl FnOnce() + Send + 'static) {
        self.executor.spawn(async move { f() }).detach();
    }
}

impl Ask for AsyncExecutor {
    fn new(workers: usize) -> Self {
        Spawn::new(workers)
    }

    fn ask(&self, f: impl FnOnce() -> u64 + Send + 'static) -> u64 {
        futures_executor::block_on(self.executor.spawn(async move { f() }))
    }
}

/// `affinitypool`. To drop the future of a task cancels it, so it has no spawn to compare.
pub(crate) struct Affinity(affinitypool::Threadpool);

impl Ask for Affinity {
    fn new(workers: usize) -> Self {
        Self(affinitypool::Builder::new().worker_threads(workers).build())
    }

    fn ask(&self, f: impl FnOnce() -> u64 + Send + 'static) -> u64 {
        futures_executor::block_on(self.0.spawn(f))
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

impl Ask for RustyPool {
    fn new(workers: usize) -> Self {
        Spawn::new(workers)
    }

    fn ask(&self, f: impl FnOnce() -> u64 + Send + 'static) -> u64 {
        self.0.evaluate(f).await_complete()
    }
}

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

impl Ask for MpmcChannel {
    fn new(workers: usize) -> Self {
        Spawn::new(workers)
    }

    fn ask(&self, f: impl FnOnce() -> u64 + Send + 'static) -> u64 {
        let (answer, answered) = crossbeam_channel::bounded(1);
        let task = move || answer.send(f()).expect("it is awaited");
        self.spawn(task);
        answered.recv().expect("it is answered")
    }
}
