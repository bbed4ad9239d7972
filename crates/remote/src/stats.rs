//! What is counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// A remote's figures, from [`Remote::stats`](crate::Remote::stats). Counted one by one, so that
/// a snapshot during traffic may be off by the calls under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteStats {
    /// Calls begun.
    pub calls: u64,
    /// Calls that ended with an error, for whatever reason.
    pub failures: u64,
    /// Attempts beyond the first of their call.
    pub retries: u64,
    /// Attempts that the server did not answer in time.
    pub timeouts: u64,
    /// Attempts that the open breaker turned away.
    pub rejected_by_breaker: u64,
    /// Calls that waited for a turn in vain.
    pub pool_timeouts: u64,
    /// Connections opened.
    pub dials: u64,
    /// Connections that could not be opened.
    pub failed_dials: u64,
    /// Connections given up because they broke, fell silent, or their call was cancelled.
    pub lost: u64,
    /// Connections open now.
    pub open: usize,
    /// Of them, those without a call.
    pub idle: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) calls: Count,
    pub(crate) failures: Count,
    pub(crate) retries: Count,
    pub(crate) timeouts: Count,
    pub(crate) rejected_by_breaker: Count,
    pub(crate) pool_timeouts: Count,
    pub(crate) dials: Count,
    pub(crate) failed_dials: Count,
    pub(crate) lost: Count,
}

impl Counts {
    pub(crate) fn stats(&self, open: usize, idle: usize) -> RemoteStats {
        RemoteStats {
            calls: self.calls.get(),
            failures: self.failures.get(),
            retries: self.retries.get(),
            timeouts: self.timeouts.get(),
            rejected_by_breaker: self.rejected_by_breaker.get(),
            pool_timeouts: self.pool_timeouts.get(),
            dials: self.dials.get(),
            failed_dials: self.failed_dials.get(),
            lost: self.lost.get(),
            open,
            idle,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
