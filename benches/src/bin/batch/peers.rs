//! The peers, each driven as its own documentation shows.

use std::convert::Infallible;
use std::time::Duration;

use batch_aint_one::{BatchingPolicy, Limits, Processor};
use benjamin_batchly::{BatchMutex, BatchResult};
use ultra_batch::{BatchExecutor, Executor};

use crate::jobs::{MAX_SIZE, Submit, handle};

/// The handler of `batch-aint-one`.
#[derive(Clone, Debug)]
pub(crate) struct Handler;

impl Processor for Handler {
    type Key = ();
    type Input = u64;
    type Output = u64;
    type Error = String;
    type Resources = ();

    async fn acquire_resources(&self, (): ()) -> Result<(), String> {
        Ok(())
    }

    async fn process(
        &self,
        (): (),
        inputs: impl Iterator<Item = u64> + Send,
        (): (),
    ) -> Result<Vec<u64>, String> {
        Ok(inputs.map(handle).collect())
    }
}

/// `batch-aint-one` with its policy that does not wait, and as many batches at a time as ours.
pub(crate) struct AintOne(batch_aint_one::Batcher<Handler>);

impl AintOne {
    pub(crate) fn new() -> Self {
        let limits = Limits::builder()
            .max_batch_size(MAX_SIZE)
            .max_key_concurrency(4);
        let batcher = batch_aint_one::Batcher::builder()
            .name("bench")
            .processor(Handler)
            .limits(limits.build())
            .batching_policy(BatchingPolicy::Immediate)
            .build();
        Self(batcher)
    }
}

impl Submit for AintOne {
    async fn submit(&self, n: u64) -> u64 {
        self.0.add((), n).await.expect("the handler never fails")
    }
}

/// `benjamin_batchly`: one of the submitters does the work. It has no bound on a batch.
pub(crate) struct Batchly(BatchMutex<(), u64, u64>);

impl Batchly {
    pub(crate) fn new() -> Self {
        Self(BatchMutex::default())
    }
}

impl Submit for Batchly {
    async fn submit(&self, n: u64) -> u64 {
        match self.0.submit((), n).await {
            BatchResult::Work(mut batch) => {
                for index in 0..batch.items.len() {
                    let result = handle(batch.items[index]);
                    batch.notify_done(index, result);
                }
                batch.recv_local_notify_done().expect("notified above")
            }
            BatchResult::Done(result) => result,
            BatchResult::Failed => panic!("the work never fails"),
        }
    }
}

impl Executor for Handler {
    type Value = u64;
    type Result = u64;
    type Error = Infallible;

    async fn execute(&self, values: Vec<u64>) -> Result<Vec<u64>, Infallible> {
        Ok(values.into_iter().map(handle).collect())
    }
}

/// `ultra-batch`: a window that starts anew with each item, cut short by a full batch.
pub(crate) struct Ultra(BatchExecutor<Handler>);

impl Ultra {
    /// With the shortest window that tokio's timer has.
    pub(crate) fn new() -> Self {
        let executor = BatchExecutor::build(Handler)
            .delay_duration(Duration::from_millis(1))
            .eager_batch_size(Some(MAX_SIZE));
        Self(executor.finish())
    }

    /// With none.
    pub(crate) fn without_delay() -> Self {
        let executor = BatchExecutor::build(Handler)
            .delay_duration(Duration::ZERO)
            .eager_batch_size(Some(1));
        Self(executor.finish())
    }
}

impl Submit for Ultra {
    async fn submit(&self, n: u64) -> u64 {
        let result = self.0.execute(n).await;
        result.expect("the handler never fails").expect("one each")
    }
}
