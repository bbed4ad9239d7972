//! The re-export of the batch crate works from outside.

use std::convert::Infallible;

use overdrive::batch::{
    BatchStats, Batcher, ConfigError, KeyedBatcher, ParallelBatch, chunks_by_params,
};

#[test]
fn a_batcher_through_the_facade() -> Result<(), ConfigError> {
    let double = |items: Vec<u64>| Ok::<_, Infallible>(items.iter().map(|n| n * 2).collect());
    let batcher: Batcher<u64, u64> = Batcher::builder().build_sync(double)?;
    assert_eq!(batcher.submit_blocking(21).unwrap(), 42);
    let stats: BatchStats = batcher.stats();
    assert_eq!(stats.completed, 1);
    let echo = |_: &u8, items: Vec<u64>| Ok::<_, Infallible>(items);
    let keyed: KeyedBatcher<u8, u64, u64> = KeyedBatcher::builder().build_sync(echo)?;
    assert_eq!(keyed.submit_blocking(1, 7).unwrap(), 7);
    let parallel = ParallelBatch::builder().concurrency(2).build()?;
    assert_eq!(parallel.concurrency().get(), 2);
    assert_eq!(chunks_by_params(&[1, 2, 3], 2, 4)?.count(), 2);
    Ok(())
}
