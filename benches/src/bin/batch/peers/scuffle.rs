//! `scuffle-batching`: a window over which a task of its own keeps watch.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use scuffle_batching::batch::{BatchExecutor, BatchResponse, Batcher, BatcherBuilder};
use scuffle_batching::dataloader::{DataLoader, DataLoaderFetcher};

use super::SHORTEST;
use crate::jobs::{Limits, Noop, Submit, Work, answer};

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

pub(crate) struct Lookup;

impl DataLoaderFetcher for Lookup {
    type Key = u64;
    type Value = u64;

    async fn load(&self, keys: HashSet<u64>) -> Option<HashMap<u64, u64>> {
        Some(keys.into_iter().map(|n| (n, answer(n))).collect())
    }
}

#[derive(Clone)]
pub(crate) struct Keys(Arc<DataLoader<Lookup>>);

pub(super) fn loader(_: Noop, limits: Limits) -> Keys {
    let loader = DataLoader::builder()
        .batch_size(limits.max_size)
        .concurrency(limits.slots)
        .delay(SHORTEST)
        .build(Lookup);
    Keys(Arc::new(loader))
}

impl Submit<Noop> for Keys {
    async fn submit(&mut self, n: u64) -> u64 {
        let found = self.0.load(n).await.expect("the function never fails");
        found.expect("there is a value for every key")
    }
}
