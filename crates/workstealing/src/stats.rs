//! What a pool counts.

/// Figures of a pool, from [`ThreadPool::stats`](crate::ThreadPool::stats).
///
/// Each worker counts for itself, so figures are read one after the other: those of a task whose
/// end was seen (by its handle, by [`wait_idle`](crate::ThreadPool::wait_idle)) are in, others may
/// be half in. The parts of a [`scope`](crate::scope()) count as tasks, whoever runs them; those of
/// a [`join`](crate::join()) do not. While nothing moves
///
/// ```text
/// spawned = completed + panicked + cancelled + expired + abandoned + queued + running
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ThreadPoolStats {
    /// The worker threads there are.
    pub workers: usize,
    /// The most tasks that may be queued.
    pub capacity: usize,
    /// Waiting tasks of high priority.
    pub queued_high: usize,
    /// Waiting tasks of normal priority.
    pub queued_normal: usize,
    /// Waiting tasks of low priority.
    pub queued_low: usize,
    /// Tasks that are being run, or whose closure is being dropped instead, on whatever thread.
    pub running: usize,
    /// Accepted tasks.
    pub spawned: u64,
    /// Tasks that ran and returned.
    pub completed: u64,
    /// Tasks that ran and panicked.
    pub panicked: u64,
    /// Tasks that were cancelled and did not run.
    pub cancelled: u64,
    /// Tasks whose deadline passed before they started, and that did not run.
    pub expired: u64,
    /// Tasks that were still queued when the time of a shutdown was up, and did not run.
    pub abandoned: u64,
    /// Tasks that were given back because the queue was full or the pool closed. Not accepted.
    pub rejected: u64,
    /// Accepted tasks that the spawning thread had to run at once, because the queue was full.
    pub caller_ran: u64,
    /// Accepted tasks that a thread took back out of the queue to run them itself, because it
    /// waited for them.
    pub claimed: u64,
    /// Second halves of joins that a worker ran for another thread.
    pub stolen_joins: u64,
    /// Workers that died of a fault of the pool's own, and were replaced.
    pub replaced: u64,
    /// Workers that sleep.
    pub sleeping: usize,
    /// Workers that are in [`blocking`](crate::blocking()).
    pub blocked: usize,
}

impl ThreadPoolStats {
    /// Waiting tasks. Never above the queue's capacity.
    #[must_use]
    pub const fn queued(&self) -> usize {
        self.queued_high + self.queued_normal + self.queued_low
    }

    /// Accepted tasks that have not ended.
    #[must_use]
    pub const fn outstanding(&self) -> usize {
        self.queued() + self.running
    }

    /// Accepted tasks that have ended, in whatever way.
    #[must_use]
    pub const fn ended(&self) -> u64 {
        self.completed + self.panicked + self.cancelled + self.expired + self.abandoned
    }
}
