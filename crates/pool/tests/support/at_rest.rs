//! What holds for the figures of a pool that nobody is using.

use overdrive_pool::PoolStats;

/// The relations that `PoolStats` documents for a pool at rest.
pub(crate) fn check(stats: &PoolStats, max_idle: usize) {
    let made = stats.misses + stats.warmed + stats.added;
    let elsewhere = stats.discarded() + stats.detached;
    assert_eq!(
        made,
        (stats.in_use + stats.idle()) as u64 + elsewhere,
        "{stats:?}"
    );
    assert!(stats.idle() <= max_idle, "{stats:?}");
}
