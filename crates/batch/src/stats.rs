//! The figures of a batcher.

/// The figures of a batcher, from [`stats`](crate::Batcher::stats). One snapshot under the lock,
/// exact at that moment.
///
/// Each item handed in is in exactly one place, so at any time
///
/// - `submitted = waiting + queued + running + completed + failed + cancelled + expired +
///   shed + abandoned + rejected`
/// - `batches = closed_full + closed_idle + closed_linger + closed_flush + closed_at_end`
///
/// What a submitter gets to know has been counted by then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchStats {
    /// Items handed in, also those that were refused.
    pub submitted: u64,
    /// Items whose submitters wait for room now.
    pub waiting: usize,
    /// Items accepted and in no running batch now.
    pub queued: usize,
    /// Items in running batches now, also those whose submitter has gone.
    pub running: usize,
    /// Items that the handler returned a result for, also if the submitter had gone.
    pub completed: u64,
    /// Items of batches that failed: an error, a panic, a wrong number of results.
    pub failed: u64,
    /// Items that their submitter withdrew before their batch was closed.
    pub cancelled: u64,
    /// Items whose deadline passed before their batch was closed.
    pub expired: u64,
    /// Items that gave way to later ones, by [`Overload::ShedOldest`](crate::Overload::ShedOldest).
    pub shed: u64,
    /// Items that the batcher ended before.
    pub abandoned: u64,
    /// Items refused because the batcher was full or closed, or they were too heavy.
    pub rejected: u64,
    /// Batches that were taken: calls of the handler, but for those of isolated parts and for batches
    /// whose lease could not be acquired.
    pub batches: u64,
    /// The most items in one batch so far.
    pub largest_batch: usize,
    /// Batches closed because they had `max_size` items.
    pub closed_full: u64,
    /// Batches closed because a worker was free (and, with
    /// [`Gather::Linger`](crate::Gather::Linger), `min_size` was reached).
    pub closed_idle: u64,
    /// Batches closed because their first item was `max_wait` old.
    pub closed_linger: u64,
    /// Batches closed by a flush.
    pub closed_flush: u64,
    /// Batches closed because the batcher takes no more items.
    pub closed_at_end: u64,
}

/// Why a batch was closed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reason {
    AtEnd,
    Flush,
    Full,
    Idle,
    Linger,
}

impl BatchStats {
    /// How many items there are in all places together.
    pub(crate) fn accounted(&self) -> u64 {
        let over = self.completed + self.failed + self.cancelled + self.expired;
        let unrun = self.shed + self.abandoned + self.rejected;
        (self.waiting + self.queued + self.running) as u64 + over + unrun
    }

    /// Adds the figures of another, but for `submitted`.
    pub(crate) fn add(&mut self, other: &Self) {
        self.waiting += other.waiting;
        self.queued += other.queued;
        self.running += other.running;
        self.completed += other.completed;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.expired += other.expired;
        self.shed += other.shed;
        self.abandoned += other.abandoned;
        self.rejected += other.rejected;
        self.batches += other.batches;
        self.largest_batch = self.largest_batch.max(other.largest_batch);
        self.closed_full += other.closed_full;
        self.closed_idle += other.closed_idle;
        self.closed_linger += other.closed_linger;
        self.closed_flush += other.closed_flush;
        self.closed_at_end += other.closed_at_end;
    }

    pub(crate) fn batch_closed(&mut self, reason: Reason, size: usize) {
        self.batches += 1;
        self.largest_batch = self.largest_batch.max(size);
        *match reason {
            Reason::AtEnd => &mut self.closed_at_end,
            Reason::Flush => &mut self.closed_flush,
            Reason::Full => &mut self.closed_full,
            Reason::Idle => &mut self.closed_idle,
            Reason::Linger => &mut self.closed_linger,
        } += 1;
    }
}
