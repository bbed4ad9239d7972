//! What a scenario does with a batcher, whatever batcher it is.

use std::future::Future;
use std::sync::Arc;

use overdrive_bench::Contender;
use overdrive_bench::results::Role;
use tokio::runtime::{Builder, Runtime};

/// The most items in a batch, of every contender that has such a bound.
pub(crate) const MAX_SIZE: usize = 100;

/// The handler of every contender.
pub(crate) fn handle(n: u64) -> u64 {
    n + 1
}

/// Someone who batches. Made and used on a runtime.
pub(crate) trait Submit: Send + Sync + 'static {
    fn submit(&self, n: u64) -> impl Future<Output = u64> + Send;
}

/// A runtime with so many workers, kept for the life of the process.
fn runtime(workers: usize) -> &'static Runtime {
    let runtime = Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build();
    Box::leak(Box::new(runtime.expect("a runtime can be made")))
}

/// `submitters` tasks, each submitting one item in each operation and awaiting its result.
pub(crate) fn closed_loop<S: Submit>(
    submitters: u64,
    role: Role,
    name: &str,
    version: &str,
    make: fn() -> S,
) -> Contender {
    Contender::time(role, name, version, move |setup| {
        let runtime = runtime(setup.threads);
        let batcher = Arc::new(runtime.block_on(async { make() }));
        move |_| {
            let batcher = Arc::clone(&batcher);
            move |ops| {
                let one = |start: u64| {
                    let batcher = Arc::clone(&batcher);
                    async move {
                        let mut sum = 0_u64;
                        for n in 0..ops {
                            sum = sum.wrapping_add(batcher.submit(start + n).await);
                        }
                        sum
                    }
                };
                runtime.block_on(async {
                    let tasks: Vec<_> = (0..submitters)
                        .map(|task| tokio::spawn(one(task * ops)))
                        .collect();
                    let mut sum = 0_u64;
                    for task in tasks {
                        sum = sum.wrapping_add(task.await.expect("no submitter panics"));
                    }
                    sum
                })
            }
        }
    })
}
