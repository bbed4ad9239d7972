//! What a scenario does with a batcher, whatever batcher it is.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use overdrive_bench::results::Role;
use overdrive_bench::{Contender, Scenario};
use tokio::runtime::{Builder, Runtime};

/// What becomes of a batch. Made and used on a runtime.
pub(crate) trait Work: Clone + Send + Sync + 'static {
    type Item: Send + Sync + 'static;
    type Out: Send + Sync + 'static;

    fn start() -> impl Future<Output = Self>;

    /// Item `n` of a slice.
    fn item(n: u64) -> Self::Item;

    /// A result for each item, in their order.
    fn run(&self, items: Vec<Self::Item>) -> impl Future<Output = Vec<Self::Out>> + Send;

    /// What item `n` was answered, as it goes into the checksum.
    fn digest(&self, n: u64, out: Self::Out) -> u64;

    /// Looks, after the first slice, at what cannot be seen in the answers; for the checksum.
    fn verify(&self) -> impl Future<Output = u64> {
        std::future::ready(0)
    }
}

/// What a batch of numbers costs, beside one for each number.
pub(crate) trait Cost: Clone + Default + Send + Sync + 'static {
    fn pay(&self) -> impl Future<Output = ()> + Send;
}

/// Nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Noop;

/// 20 us of a processor.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spin;

/// A wait of a millisecond, which tokio's timer makes at least that.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sleep;

impl Cost for Noop {
    async fn pay(&self) {}
}

impl Cost for Spin {
    async fn pay(&self) {
        let until = Instant::now() + Duration::from_micros(20);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
    }
}

impl Cost for Sleep {
    async fn pay(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What every handler of numbers answers.
pub(crate) fn answer(n: u64) -> u64 {
    n + 1
}

impl<C: Cost> Work for C {
    type Item = u64;
    type Out = u64;

    async fn start() -> Self {
        Self::default()
    }

    fn item(n: u64) -> u64 {
        n
    }

    async fn run(&self, items: Vec<u64>) -> Vec<u64> {
        self.pay().await;
        // In place: the results have the memory of the items.
        items.into_iter().map(answer).collect()
    }

    fn digest(&self, _: u64, out: u64) -> u64 {
        out
    }
}

/// Someone who batches. Every submitter has a clone.
pub(crate) trait Submit<W: Work>: Clone + Send + Sync + 'static {
    fn submit(&mut self, item: W::Item) -> impl Future<Output = W::Out> + Send;
}

/// What is asked of every contender that can be told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The most items in a batch.
    pub(crate) max_size: usize,
    /// The most batches at a time.
    pub(crate) slots: usize,
    /// Whether the handler waits for somebody, so that several batches at a time pay. Who divides
    /// the items among the slots beforehand does so only then.
    #[cfg_attr(
        not(feature = "batch-peers"),
        expect(dead_code, reason = "only peers do")
    )]
    pub(crate) waits: bool,
}

impl Limits {
    /// The slots of who divides the items beforehand.
    #[cfg(feature = "batch-peers")]
    pub(crate) fn lanes(&self) -> usize {
        if self.waits { self.slots } else { 1 }
    }
}

/// A runtime with so many workers. What its tasks hold goes with it.
fn runtime(workers: usize) -> Arc<Runtime> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build();
    Arc::new(runtime.expect("a runtime can be made"))
}

/// A closed loop: `tasks` submitters, each submitting `rounds` items in each operation, one after
/// the other, and awaiting its result.
pub(crate) struct ClosedLoop<W> {
    scenario: Scenario,
    tasks: u64,
    rounds: u64,
    /// So many tasks submit the same items.
    sharing: u64,
    limits: Limits,
    work: PhantomData<fn() -> W>,
}

impl<W: Work> ClosedLoop<W> {
    pub(crate) fn new(scenario: Scenario, tasks: u64, rounds: u64, limits: Limits) -> Self {
        Self {
            scenario: scenario.own_threads().per_op(tasks * rounds),
            tasks,
            rounds,
            sharing: 1,
            limits,
            work: PhantomData,
        }
    }

    /// That many tasks at a time submit the same items.
    pub(crate) fn sharing(self, sharing: u64) -> Self {
        Self { sharing, ..self }
    }

    pub(crate) fn scenario(self) -> Scenario {
        self.scenario
    }

    pub(crate) fn row<S: Submit<W>>(
        self,
        role: Role,
        name: &str,
        version: &str,
        make: fn(W, Limits) -> S,
    ) -> Self {
        let Self {
            scenario,
            tasks,
            rounds,
            sharing,
            limits,
            work,
        } = self;
        let contender = Contender::time(role, name, version, move |setup| {
            let runtime = runtime(setup.threads);
            let made = runtime.block_on(async {
                let work = W::start().await;
                (work.clone(), make(work, limits))
            });
            move |_| {
                let (work, batcher) = made.clone();
                let runtime = Arc::clone(&runtime);
                move |ops| {
                    let each = ops * rounds;
                    runtime.block_on(async {
                        let tasks: Vec<_> = (0..tasks)
                            .map(|task| {
                                let (work, batcher) = (work.clone(), batcher.clone());
                                let start = task / sharing * each;
                                tokio::spawn(submitter(work, batcher, start, each))
                            })
                            .collect();
                        let mut sum = 0_u64;
                        for task in tasks {
                            sum = sum.wrapping_add(task.await.expect("no submitter panics"));
                        }
                        sum.wrapping_add(work.verify().await)
                    })
                }
            }
        });
        Self {
            scenario: scenario.with(contender),
            tasks,
            rounds,
            sharing,
            limits,
            work,
        }
    }
}

async fn submitter<W: Work, S: Submit<W>>(work: W, mut batcher: S, start: u64, items: u64) -> u64 {
    let mut sum = 0_u64;
    for n in start..start + items {
        let out = batcher.submit(W::item(n)).await;
        sum = sum.wrapping_add(work.digest(n, out));
    }
    sum
}
