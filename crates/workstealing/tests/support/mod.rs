//! What several tests need: pools, gates, and closures that tell of their end.
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test file uses its share"
)]

use std::sync::mpsc::{Receiver, Sender, channel};

use overdrive_workstealing::{ThreadPool, ThreadPoolBuilder};

pub(crate) fn builder(workers: usize) -> ThreadPoolBuilder {
    ThreadPool::builder().name("test").workers(workers)
}

pub(crate) fn pool(workers: usize) -> ThreadPool {
    builder(workers).build().unwrap()
}

/// A task that holds a worker until it is told to go on, or its gate is dropped.
pub(crate) struct Gate {
    go: Sender<()>,
}

impl Gate {
    /// Occupies a worker of the pool; returns once it does.
    pub(crate) fn hold(pool: &ThreadPool) -> Self {
        let (go, wait) = channel();
        let (tell, started) = channel();
        pool.spawn(move || {
            tell.send(()).unwrap();
            let _: Result<(), _> = wait.recv();
        })
        .unwrap();
        started.recv().unwrap();
        Self { go }
    }

    pub(crate) fn open(self) {
        let _: Result<(), _> = self.go.send(());
    }
}

/// Runs `f` on a thread of its own; the answer comes through the channel.
pub(crate) fn elsewhere<R: Send + 'static>(f: impl FnOnce() -> R + Send + 'static) -> Receiver<R> {
    let (tell, told) = channel();
    std::thread::spawn(move || tell.send(f()));
    told
}
