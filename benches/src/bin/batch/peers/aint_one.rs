//! `batch-aint-one` with its policy that does not wait.

use batch_aint_one::{Batcher, BatchingPolicy, Limits as Bounds, Processor};

use crate::jobs::{Limits, Submit, Work};
use crate::reference::CAPACITY;

#[derive(Clone)]
pub(crate) struct Handler<W>(W);

impl<W: Work> Processor for Handler<W> {
    type Key = ();
    type Input = W::Item;
    type Output = W::Out;
    type Error = String;
    type Resources = ();

    async fn acquire_resources(&self, (): ()) -> Result<(), String> {
        Ok(())
    }

    async fn process(
        &self,
        (): (),
        inputs: impl Iterator<Item = W::Item> + Send,
        (): (),
    ) -> Result<Vec<W::Out>, String> {
        Ok(self.0.run(inputs.collect()).await)
    }
}

pub(crate) struct AintOne<W: Work>(Batcher<Handler<W>>);

impl<W: Work> Clone for AintOne<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

pub(super) fn new<W: Work>(work: W, limits: Limits) -> AintOne<W> {
    let bounds = Bounds::builder()
        .max_batch_size(limits.max_size)
        .max_key_concurrency(limits.slots)
        .max_key_queued_items(CAPACITY);
    let batcher = Batcher::builder()
        .name("bench")
        .processor(Handler(work))
        .limits(bounds.build())
        .batching_policy(BatchingPolicy::Immediate)
        .build();
    AintOne(batcher)
}

impl<W: Work> Submit<W> for AintOne<W> {
    async fn submit(&mut self, item: W::Item) -> W::Out {
        let result = self.0.add((), item).await;
        result.unwrap_or_else(|error| panic!("the handler never fails, but {error}"))
    }
}
