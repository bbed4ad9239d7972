//! `dataloader`: answers by key, so that no two items may be equal. Whoever comes last does the work.

use std::collections::HashMap;

use dataloader::BatchFn;
use dataloader::non_cached::Loader;

use crate::jobs::{Cost, Limits, Submit, answer};

#[derive(Clone)]
pub(crate) struct Handler<C>(C);

impl<C: Cost> BatchFn<u64, u64> for Handler<C> {
    async fn load(&mut self, keys: &[u64]) -> HashMap<u64, u64> {
        self.0.pay().await;
        keys.iter().map(|&n| (n, answer(n))).collect()
    }
}

#[derive(Clone)]
pub(crate) struct Dataloader<C: Cost>(Loader<u64, u64, Handler<C>>);

pub(super) fn new<C: Cost>(cost: C, limits: Limits) -> Dataloader<C> {
    let loader = Loader::new(Handler(cost));
    Dataloader(loader.with_max_batch_size(limits.max_size))
}

/// Without letting others run first, ten times by default.
pub(super) fn without_yields<C: Cost>(cost: C, limits: Limits) -> Dataloader<C> {
    let Dataloader(loader) = new(cost, limits);
    Dataloader(loader.with_yield_count(0))
}

impl<C: Cost> Submit<C> for Dataloader<C> {
    async fn submit(&mut self, n: u64) -> u64 {
        self.0.load(n).await
    }
}
