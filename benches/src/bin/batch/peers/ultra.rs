//! `ultra-batch`: a window that starts anew with each item, cut short by a full batch. One batch at
//! a time.

use std::convert::Infallible;
use std::time::Duration;

use ultra_batch::{BatchExecutor, Executor};

use super::SHORTEST;
use crate::jobs::{Limits, Submit, Work};

pub(crate) struct Handler<W>(W);

impl<W: Work> Executor for Handler<W> {
    type Value = W::Item;
    type Result = W::Out;
    type Error = Infallible;

    async fn execute(&self, items: Vec<W::Item>) -> Result<Vec<W::Out>, Infallible> {
        Ok(self.0.run(items).await)
    }
}

pub(crate) struct Ultra<W: Work>(BatchExecutor<Handler<W>>);

impl<W: Work> Clone for Ultra<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

fn built<W: Work>(work: W, delay: Duration, size: usize) -> Ultra<W> {
    let executor = BatchExecutor::build(Handler(work))
        .delay_duration(delay)
        .eager_batch_size(Some(size));
    Ultra(executor.finish())
}

pub(super) fn new<W: Work>(work: W, limits: Limits) -> Ultra<W> {
    built(work, SHORTEST, limits.max_size)
}

/// Each item by itself, at once.
pub(super) fn without_delay<W: Work>(work: W, _: Limits) -> Ultra<W> {
    built(work, Duration::ZERO, 1)
}

impl<W: Work> Submit<W> for Ultra<W> {
    async fn submit(&mut self, item: W::Item) -> W::Out {
        let result = self.0.execute(item).await;
        let result = result.unwrap_or_else(|error| panic!("the handler never fails, but {error}"));
        result.expect("one each")
    }
}
