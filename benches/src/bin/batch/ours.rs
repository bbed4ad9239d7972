//! The batcher of this project.

use std::convert::Infallible;

use overdrive_batch::{Batcher, BatcherBuilder, Gather};

use crate::jobs::{MAX_SIZE, Submit, handle};

/// The version shown in the table.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

fn built(builder: BatcherBuilder<u64>) -> Batcher<u64, u64> {
    let built = builder.max_size(MAX_SIZE).build(|items: Vec<u64>| async {
        Ok::<_, Infallible>(items.into_iter().map(handle).collect())
    });
    built.expect("the settings are valid")
}

/// As it comes.
pub(crate) fn standard() -> Batcher<u64, u64> {
    built(Batcher::builder())
}

/// Without the tick before a batch is closed.
pub(crate) fn immediate() -> Batcher<u64, u64> {
    built(Batcher::builder().gather(Gather::Immediate))
}

/// One batch at a time.
pub(crate) fn one_worker() -> Batcher<u64, u64> {
    built(Batcher::builder().workers(1))
}

impl Submit for Batcher<u64, u64> {
    async fn submit(&self, n: u64) -> u64 {
        self.submit(n).await.expect("the handler never fails")
    }
}
