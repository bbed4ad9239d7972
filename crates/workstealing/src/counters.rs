//! What each worker counts, on cache lines of its own.

use crossbeam_utils::CachePadded;

use crate::queue::{LEVELS, Level};
use crate::stats::ThreadPoolStats;
use crate::sync::{AtomicU64, Ordering};

/// The counts of one worker, which alone writes them; or of all other threads together.
pub(crate) struct Counters {
    shared: bool,
    counts: CachePadded<Counts>,
}

#[derive(Default)]
struct Counts {
    spawned: [AtomicU64; LEVELS],
    started: [AtomicU64; LEVELS],
    settled: AtomicU64,
    ended: [AtomicU64; ENDS],
    others: [AtomicU64; OTHERS],
}

const ENDS: usize = 5;
const OTHERS: usize = 5;

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Completed,
    Panicked,
    Cancelled,
    Expired,
    Abandoned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Other {
    Rejected,
    CallerRan,
    Claimed,
    StolenJoins,
    Replaced,
}

impl Counters {
    pub(crate) fn new(shared: bool) -> Self {
        Self {
            shared,
            counts: CachePadded::default(),
        }
    }

    #[inline]
    fn add(&self, counter: &AtomicU64) {
        if self.shared {
            counter.fetch_add(1, Ordering::AcqRel);
        } else {
            counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Release);
        }
    }

    #[inline]
    pub(crate) fn spawned(&self, level: Level) {
        self.add(&self.counts.spawned[level.at()]);
    }

    #[inline]
    pub(crate) fn started(&self, level: Level) {
        self.add(&self.counts.started[level.at()]);
    }

    #[inline]
    pub(crate) fn ended(&self, how: End) {
        self.add(&self.counts.ended[how as usize]);
    }

    /// Nothing of the task is left, and who waits for it knows.
    #[inline]
    pub(crate) fn settled(&self) {
        self.add(&self.counts.settled);
    }

    pub(crate) fn count(&self, other: Other) {
        self.add(&self.counts.others[other as usize]);
    }

    pub(crate) fn all_settled(&self) -> u64 {
        self.counts.settled.load(Ordering::Acquire)
    }

    pub(crate) fn all_spawned(&self) -> u64 {
        let spawned = self.counts.spawned.iter();
        spawned.map(|n| n.load(Ordering::Acquire)).sum()
    }

    /// Tasks that have left the queue, whatever became of them.
    pub(crate) fn all_started(&self) -> u64 {
        let started = self.counts.started.iter();
        started.map(|n| n.load(Ordering::Acquire)).sum()
    }

    pub(crate) fn add_spawned_to(&self, spawned: &mut [u64; LEVELS]) {
        for (sum, n) in spawned.iter_mut().zip(&self.counts.spawned) {
            *sum += n.load(Ordering::Acquire);
        }
    }

    pub(crate) fn add_started_to(&self, started: &mut [u64; LEVELS]) {
        for (sum, n) in started.iter_mut().zip(&self.counts.started) {
            *sum += n.load(Ordering::Acquire);
        }
    }

    pub(crate) fn add_to(&self, stats: &mut ThreadPoolStats) {
        let ended = |how: End| self.counts.ended[how as usize].load(Ordering::Acquire);
        let other = |what: Other| self.counts.others[what as usize].load(Ordering::Acquire);
        stats.completed += ended(End::Completed);
        stats.panicked += ended(End::Panicked);
        stats.cancelled += ended(End::Cancelled);
        stats.expired += ended(End::Expired);
        stats.abandoned += ended(End::Abandoned);
        stats.rejected += other(Other::Rejected);
        stats.caller_ran += other(Other::CallerRan);
        stats.claimed += other(Other::Claimed);
        stats.stolen_joins += other(Other::StolenJoins);
        stats.replaced += other(Other::Replaced);
    }
}
