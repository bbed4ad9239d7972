//! The batcher of this project.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use overdrive_batch::{Batcher, BatcherBuilder, Gather, Loader};

use crate::jobs::{Limits, Noop, Submit, Work, answer};

/// The version shown in the table.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(crate) struct Ours<W: Work>(Batcher<W::Item, W::Out>);

impl<W: Work> Clone for Ours<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<W: Work> From<Batcher<W::Item, W::Out>> for Ours<W> {
    fn from(batcher: Batcher<W::Item, W::Out>) -> Self {
        Self(batcher)
    }
}

fn limited<T: Send + 'static>(limits: Limits) -> BatcherBuilder<T> {
    Batcher::builder()
        .max_size(limits.max_size)
        .workers(limits.slots)
}

fn built<W: Work>(work: W, builder: BatcherBuilder<W::Item>) -> Ours<W> {
    let built = builder.build(move |items: Vec<W::Item>| {
        let work = work.clone();
        async move { Ok::<_, Infallible>(work.run(items).await) }
    });
    Ours(built.expect("the settings are valid"))
}

/// As it comes.
pub(crate) fn standard<W: Work>(work: W, limits: Limits) -> Ours<W> {
    built(work, limited(limits))
}

/// Without the tick before a batch is closed.
pub(crate) fn immediate<W: Work>(work: W, limits: Limits) -> Ours<W> {
    built(work, limited(limits).gather(Gather::Immediate))
}

/// One batch at a time.
pub(crate) fn one_worker<W: Work>(work: W, limits: Limits) -> Ours<W> {
    built(work, limited(limits).workers(1))
}

/// The submitters run the batches themselves.
pub(crate) fn inline(_: Noop, limits: Limits) -> Ours<Noop> {
    let add = |items: Vec<u64>| Ok::<_, Infallible>(items.into_iter().map(answer).collect());
    let built = limited(limits).build_inline(add);
    Ours(built.expect("the settings are valid"))
}

/// With room for all who wait.
pub(crate) fn roomy<W: Work>(work: W, limits: Limits) -> Ours<W> {
    built(work, limited(limits).capacity(16_384))
}

/// As batchers are commonly set: a batch waits until it is full or its time has come.
fn linger<W: Work>(work: W, limits: Limits, wait: Duration) -> Ours<W> {
    let min_size = limits.max_size.min(100);
    let builder = limited(limits).max_size(min_size).max_wait(wait);
    built(work, builder.gather(Gather::Linger { min_size }))
}

pub(crate) fn linger_1ms<W: Work>(work: W, limits: Limits) -> Ours<W> {
    linger(work, limits, Duration::from_millis(1))
}

pub(crate) fn linger_5ms<W: Work>(work: W, limits: Limits) -> Ours<W> {
    linger(work, limits, Duration::from_millis(5))
}

pub(crate) fn linger_100ms<W: Work>(work: W, limits: Limits) -> Ours<W> {
    linger(work, limits, Duration::from_millis(100))
}

impl<W: Work> Submit<W> for Ours<W> {
    async fn submit(&mut self, item: W::Item) -> W::Out {
        let result = self.0.submit(item).await;
        result.unwrap_or_else(|error| panic!("the handler never fails, but {error}"))
    }
}

/// The loader, as it comes.
#[derive(Clone)]
pub(crate) struct Keys(Loader<u64, u64, Infallible>);

pub(crate) fn loader(_: Noop, limits: Limits) -> Keys {
    let built = Loader::builder()
        .max_keys(limits.max_size)
        .workers(limits.slots)
        .build(|keys: Vec<u64>| async move {
            let found: HashMap<u64, u64> = keys.iter().map(|&n| (n, answer(n))).collect();
            Ok(found)
        });
    Keys(built.expect("the settings are valid"))
}

/// With values by the place of their keys, not by key.
pub(crate) fn loader_by_place(_: Noop, limits: Limits) -> Keys {
    let built = Loader::builder()
        .max_keys(limits.max_size)
        .workers(limits.slots)
        .build(|keys: Vec<u64>| async move {
            let found: Vec<Option<u64>> = keys.into_iter().map(|n| Some(answer(n))).collect();
            Ok(found)
        });
    Keys(built.expect("the settings are valid"))
}

impl Submit<Noop> for Keys {
    async fn submit(&mut self, n: u64) -> u64 {
        let found = self.0.load(n).await;
        let found = found.unwrap_or_else(|error| panic!("the function never fails, but {error}"));
        found.expect("there is a value for every key")
    }
}
