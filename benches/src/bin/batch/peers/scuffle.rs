//! `scuffle-batching`: a window over which a task of its own keeps watch.

use std::sync::Arc;

use scuffle_batching::batch::{BatchExecutor, BatchResponse, Batcher, BatcherBuilder};

use super::SHORTEST;
use crate::jobs::{Limits, Submit, Work};

pub(crate) struct Handler<W>(W);

impl<W: Work> BatchExecutor for Handler<W> {
    type Request = W::Item;
    type Response = W::Out;

    async fn execute(&self, requests: Vec<(W::Item, BatchResponse<W::Out>)>) {
        let (items, replies): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
        for (out, reply) in self.0.run(items).await.into_iter().zip(replies) {
            reply.send(out);
        }
    }
}

pub(crate) struct Scuffle<W: Work>(Arc<Batcher<Handler<W>>>);

impl<W: Work> Clone for Scuffle<W> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

pub(super) fn new<W: Work>(work: W, limits: Limits) -> Scuffle<W> {
    let batcher = BatcherBuilder::new()
        .batch_size(limits.max_size)
        .concurrency(limits.slots)
        .delay(SHORTEST)
        .build(Handler(work));
    Scuffle(Arc::new(batcher))
}

impl<W: Work> Submit<W> for Scuffle<W> {
    async fn submit(&mut self, item: W::Item) -> W::Out {
        self.0.execute(item).await.expect("the handler never fails")
    }
}
