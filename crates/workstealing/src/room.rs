//! The bound of the queue: as many credits as there are places.

use std::time::Duration;

use crossbeam_utils::CachePadded;
use overdrive_core::Deadline;

use crate::sync::{AtomicU32, AtomicU64, Condvar, Mutant, Mutex, Ordering, fence, lock, removed};
use crate::wait::wait_until;

/// The most credits that a worker holds at a time is twice this.
const LARGEST_BLOCK: u64 = 64;

pub(crate) struct Room {
    free: CachePadded<AtomicU64>,
    /// How many credits workers take and give at a time. One, if the queue is small: then the
    /// bound is exact.
    block: u64,
    blocked: AtomicU32,
    closed: Mutex<bool>,
    changed: Condvar,
}

impl Room {
    pub(crate) fn new(capacity: usize, workers: usize) -> Self {
        let capacity = capacity as u64;
        Self {
            free: CachePadded::new(AtomicU64::new(capacity)),
            block: (capacity / (16 * workers as u64)).clamp(1, LARGEST_BLOCK),
            blocked: AtomicU32::new(0),
            closed: Mutex::new(false),
            changed: Condvar::new(),
        }
    }

    #[inline]
    pub(crate) fn take(&self) -> bool {
        self.take_up_to(1) == 1
    }

    pub(crate) fn give(&self, n: u64) {
        self.free.fetch_add(n, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        if self.blocked.load(Ordering::SeqCst) > 0 {
            let _closed = (!removed(Mutant::FreeUnlocked)).then(|| lock(&self.closed));
            self.changed.notify_all();
        }
    }

    /// A worker takes a credit, out of its own `pot` if there is one.
    #[inline]
    pub(crate) fn take_by(&self, pot: u64) -> Option<u64> {
        if pot > 0 {
            return Some(pot - 1);
        }
        self.take_up_to(self.block).checked_sub(1)
    }

    /// A worker gives a credit back, into its own `pot` if it may. What is left there.
    #[inline]
    pub(crate) fn give_by(&self, pot: u64) -> u64 {
        let pot = pot + 1;
        if self.block == 1 || self.blocked.load(Ordering::Relaxed) > 0 {
            self.give(pot);
            return 0;
        }
        if pot < 2 * self.block {
            return pot;
        }
        self.give(self.block);
        pot - self.block
    }

    #[inline]
    fn take_up_to(&self, n: u64) -> u64 {
        let mut free = self.free.load(Ordering::Relaxed);
        loop {
            let taken = free.min(n);
            if taken == 0 {
                return 0;
            }
            let left = free - taken;
            let done =
                self.free
                    .compare_exchange_weak(free, left, Ordering::SeqCst, Ordering::Relaxed);
            match done {
                Ok(_) => return taken,
                Err(now) => free = now,
            }
        }
    }

    /// Waits for a credit, for the end, or for so long at most. Whether it has one.
    pub(crate) fn wait(&self, limit: Option<Duration>) -> bool {
        let deadline = limit.map_or(Deadline::NEVER, Deadline::after);
        self.blocked.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let mut closed = lock(&self.closed);
        let taken = loop {
            if *closed {
                break false;
            }
            if self.free.load(Ordering::SeqCst) > 0 && self.take() {
                break true;
            }
            let (guard, in_time) = wait_until(&self.changed, closed, deadline);
            closed = guard;
            if !in_time {
                break false;
            }
        };
        drop(closed);
        self.blocked.fetch_sub(1, Ordering::SeqCst);
        taken
    }

    /// Nobody waits any more.
    pub(crate) fn close(&self) {
        *lock(&self.closed) = true;
        self.changed.notify_all();
    }
}
