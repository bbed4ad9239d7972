//! What waits for a worker, besides its own deque: a queue per priority, for all.

use crossbeam_deque::{Injector, Steal, Worker};
use crossbeam_utils::CachePadded;
use overdrive_core::{Priority, thread_slot};

use crate::raw::task::Task;
use crate::sync::{AtomicU64, Ordering};

pub(crate) const LEVELS: usize = 3;

/// A priority as an index: 0 is the highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Level(u8);

impl Level {
    pub(crate) const HIGH: Self = Self(0);
    pub(crate) const NORMAL: Self = Self(1);
    pub(crate) const LOW: Self = Self(2);

    pub(crate) const fn index(self) -> u8 {
        self.0
    }

    pub(crate) const fn from_index(index: u8) -> Self {
        Self(index)
    }

    pub(crate) const fn at(self) -> usize {
        self.0 as usize
    }
}

pub(crate) const fn level_of(priority: Priority) -> Level {
    match priority {
        Priority::High => Level::HIGH,
        Priority::Normal => Level::NORMAL,
        Priority::Low => Level::LOW,
    }
}

/// How many normal tasks a worker takes from the queue at a time. Of the other levels it takes
/// one, so that no worker sits on what another could begin.
const BATCH: usize = 16;

/// Workers per queue of normal tasks.
const WORKERS_PER_SHARD: usize = 8;

pub(crate) struct Queues {
    high: Injector<Task>,
    /// One for every so many workers, by producer, so that many producers do not meet.
    normal: Box<[Injector<Task>]>,
    low: Injector<Task>,
    /// Per level: entries whose task somebody took out of turn.
    stale: CachePadded<[AtomicU64; LEVELS]>,
}

impl Queues {
    pub(crate) fn new(workers: usize) -> Self {
        let shards = workers.div_ceil(WORKERS_PER_SHARD).next_power_of_two();
        Self {
            high: Injector::new(),
            normal: (0..shards.min(8)).map(|_| Injector::new()).collect(),
            low: Injector::new(),
            stale: CachePadded::default(),
        }
    }

    #[inline]
    pub(crate) fn push(&self, level: Level, task: Task) {
        let queue = match level {
            Level::HIGH => &self.high,
            Level::LOW => &self.low,
            _ => match &*self.normal {
                [queue] => queue,
                shards => &shards[thread_slot::register() as usize & (shards.len() - 1)],
            },
        };
        queue.push(task);
    }

    /// Whether there is no entry of that level, stale ones included.
    #[inline]
    pub(crate) fn is_empty(&self, level: Level) -> bool {
        match level {
            Level::HIGH => self.high.is_empty(),
            Level::LOW => self.low.is_empty(),
            _ => self.normal.iter().all(Injector::is_empty),
        }
    }

    /// Whether a task of that level waits, here or among the `own` entries of a worker.
    #[inline]
    pub(crate) fn waits(&self, level: Level, own: usize) -> bool {
        let some = !self.is_empty(level);
        let stale = self.stale(level);
        (some || own > 0) && (stale == 0 || self.len(level) + own as u64 > stale)
    }

    /// The oldest of that level. More normal ones may go to `deque` with it.
    #[inline]
    pub(crate) fn take(&self, level: Level, deque: Option<&Worker<Task>>) -> Option<Task> {
        match (level, deque) {
            (Level::HIGH, _) => steal(|| self.high.steal()),
            (Level::LOW, _) => steal(|| self.low.steal()),
            (_, Some(deque)) => self
                .normal
                .iter()
                .find_map(|queue| steal(|| queue.steal_batch_with_limit_and_pop(deque, BATCH))),
            (_, None) => self.normal.iter().find_map(|queue| steal(|| queue.steal())),
        }
    }

    fn len(&self, level: Level) -> u64 {
        let len = match level {
            Level::HIGH => self.high.len(),
            Level::LOW => self.low.len(),
            _ => self.normal.iter().map(Injector::len).sum(),
        };
        len as u64
    }

    fn stale(&self, level: Level) -> u64 {
        self.stale[level.at()].load(Ordering::Relaxed)
    }

    /// A task was taken out of turn; its entry stays. How many did before.
    pub(crate) fn leave_behind(&self, level: Level) -> u64 {
        self.stale[level.at()].fetch_add(1, Ordering::Relaxed)
    }

    /// Such an entry has gone.
    pub(crate) fn gone(&self, level: Level) {
        self.stale[level.at()].fetch_sub(1, Ordering::Relaxed);
    }
}

#[inline]
pub(crate) fn steal<T>(mut attempt: impl FnMut() -> Steal<T>) -> Option<T> {
    loop {
        match attempt() {
            Steal::Success(task) => return Some(task),
            Steal::Empty => return None,
            Steal::Retry => {}
        }
    }
}
