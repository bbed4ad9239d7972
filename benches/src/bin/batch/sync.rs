//! Threads that submit and wait.

use std::convert::Infallible;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use overdrive_batch::Batcher;
use overdrive_bench::results::Role;
use overdrive_bench::{Contender, Scenario};

use crate::jobs::answer;
use crate::ours::VERSION;
#[cfg(feature = "batch-peers")]
use crate::peers::threads::Amate;

/// The most items in a batch.
pub(crate) const MAX_SIZE: usize = 100;

const SUBMITTERS: u64 = 32;
/// Items of a submitter in one operation.
const ROUNDS: u64 = 8;

/// The handler: as a file that is written and forced to the disk.
pub(crate) fn write(items: Vec<u64>) -> Vec<u64> {
    pay();
    items.into_iter().map(answer).collect()
}

#[expect(clippy::disallowed_methods, reason = "it stands for a disk")]
fn pay() {
    std::thread::sleep(Duration::from_millis(1));
}

/// Someone who batches for threads. Every submitter has a client of its own.
pub(crate) trait Blocking: Send + 'static {
    fn client(&self) -> impl FnMut(u64) -> u64 + Send + 'static;
}

/// The threads that submit: told how many items, they tell the sum of the results.
struct Submitters {
    told: Vec<Sender<(u64, u64)>>,
    sums: Receiver<u64>,
    threads: Vec<JoinHandle<()>>,
}

impl Submitters {
    fn of(batcher: &impl Blocking) -> Self {
        let (sum, sums) = channel();
        let mut told = Vec::new();
        let threads = (0..SUBMITTERS).map(|_| {
            let (tell, asked) = channel::<(u64, u64)>();
            told.push(tell);
            let (sum, mut submit) = (sum.clone(), batcher.client());
            std::thread::spawn(move || {
                for (start, items) in asked {
                    let results = (start..start + items).map(&mut submit);
                    let total = results.fold(0, u64::wrapping_add);
                    sum.send(total).expect("it is waited for");
                }
            })
        });
        let threads = threads.collect();
        Self {
            told,
            sums,
            threads,
        }
    }

    fn run(&self, ops: u64) -> u64 {
        let each = ops * ROUNDS;
        for (n, tell) in (0..).zip(&self.told) {
            tell.send((n * each, each)).expect("no submitter panics");
        }
        let sums = self.sums.iter().take(self.told.len());
        sums.fold(0, u64::wrapping_add)
    }
}

impl Drop for Submitters {
    fn drop(&mut self) {
        self.told.clear();
        for thread in self.threads.drain(..) {
            // One that panicked has been missed already.
            drop(thread.join());
        }
    }
}

fn row<B: Blocking>(role: Role, name: &str, version: &str, make: fn() -> B) -> Contender {
    Contender::time(role, name, version, move |_| {
        // Only one thread drives it, but whoever makes the loop need not know.
        let batcher = Mutex::new(make());
        move |_| {
            let batcher = batcher.lock().expect("nothing panics here");
            let submitters = Submitters::of(&*batcher);
            move |ops| submitters.run(ops)
        }
    })
}

pub(crate) fn sync_32() -> Scenario {
    let scenario = Scenario::time(
        "batch/sync_32",
        "32 threads, each submits an item and waits for its own result; the handler blocks for 1 ms",
    )
    .input("u64; batches of up to 100, one at a time, as to one file")
    .threads(&[2])
    .own_threads()
    .per_op(SUBMITTERS * ROUNDS)
    .check_ops(1)
    .slow()
    .with(row(Role::Ours, "overdrive-batch", VERSION, Ours::new))
    .with(row(Role::Reference, "worker thread", "-", Worker::new))
    .with(row(Role::Reference, "mutex", "-", One::default));
    #[cfg(feature = "batch-peers")]
    let scenario = scenario.with(row(
        Role::Peer,
        "amate",
        &crate::scenarios::version("amate"),
        Amate::new,
    ));
    scenario
}

/// A worker thread of this project's.
struct Ours(Batcher<u64, u64>);

impl Ours {
    fn new() -> Self {
        let builder = Batcher::builder().max_size(MAX_SIZE).workers(1);
        let built = builder.build_sync(|items| Ok::<_, Infallible>(write(items)));
        Self(built.expect("the settings are valid"))
    }
}

impl Blocking for Ours {
    fn client(&self) -> impl FnMut(u64) -> u64 + Send + 'static {
        let batcher = self.0.clone();
        move |n| batcher.submit_blocking(n).expect("the handler never fails")
    }
}

/// One channel to a worker thread, and one back to each submitter.
struct Worker(Sender<(u64, Sender<u64>)>);

impl Worker {
    fn new() -> Self {
        let (send, items) = channel::<(u64, Sender<u64>)>();
        std::thread::spawn(move || {
            while let Ok(first) = items.recv() {
                let rest = items.try_iter().take(MAX_SIZE - 1);
                let (items, replies): (Vec<_>, Vec<_>) = std::iter::once(first).chain(rest).unzip();
                for (result, reply) in write(items).into_iter().zip(replies) {
                    // A submitter that has gone wants no reply.
                    let _gone = reply.send(result);
                }
            }
        });
        Self(send)
    }
}

impl Blocking for Worker {
    fn client(&self) -> impl FnMut(u64) -> u64 + Send + 'static {
        let (worker, (reply, replies)) = (self.0.clone(), channel());
        move |n| {
            let sent = worker.send((n, reply.clone()));
            sent.expect("the worker lives");
            replies.recv().expect("the worker replies")
        }
    }
}

/// Nobody batches: a lock around what there is one of.
#[derive(Default)]
struct One(Arc<Mutex<()>>);

impl Blocking for One {
    fn client(&self) -> impl FnMut(u64) -> u64 + Send + 'static {
        let lock = Arc::clone(&self.0);
        move |n| {
            let _held = lock.lock().expect("the handler never panics");
            write(vec![n])[0]
        }
    }
}
