//! A place in the pool, of a worker or of a thread that is in it for a while.

use crate::deque::SplitDeque;
use crate::queue::Level;
use crate::raw::fork::Header;
use crate::sync::{AtomicU8, AtomicU64, Mutex, Ordering, Thread};

/// How many joins a thread has open for others; further ones run in turn.
const OPEN_JOINS: u32 = if MODELLED { 4 } else { 256 };

/// How many threads may be in a pool with a deque of their own, besides the workers.
pub(crate) const GUESTS: usize = if MODELLED { 2 } else { 32 };

/// Models have few steps, and small pools.
const MODELLED: bool = cfg!(any(overdrive_loom, overdrive_shuttle));

pub(crate) struct Seat {
    pub(crate) index: u32,
    pub(crate) deque: SplitDeque<Header>,
    /// Of what the thread does.
    priority: AtomicU8,
    /// Who sits here, for those who end a job that it sleeps for.
    pub(crate) thread: Mutex<Option<Thread>>,
}

impl Seat {
    pub(crate) fn new(index: u32) -> Self {
        Self::with_places(index, OPEN_JOINS)
    }

    /// Where nothing is offered to others: joins run in turn.
    pub(crate) fn nowhere() -> Self {
        Self::with_places(u32::MAX - 1, 0)
    }

    fn with_places(index: u32, places: u32) -> Self {
        Self {
            index,
            deque: SplitDeque::new(places),
            priority: AtomicU8::new(Level::NORMAL.index()),
            thread: Mutex::new(None),
        }
    }

    pub(crate) fn level(&self) -> Level {
        Level::from_index(self.priority.load(Ordering::Relaxed))
    }

    /// Sets what the thread does, and returns what it did.
    pub(crate) fn set_priority(&self, level: Level) -> Level {
        let before = self.level();
        if before != level {
            self.priority.store(level.index(), Ordering::Relaxed);
        }
        before
    }

    pub(crate) fn take_priority_of(&self, other: &Self) -> Level {
        self.set_priority(other.level())
    }
}

/// Which guests' seats are taken.
pub(crate) struct Guests(AtomicU64);

impl Guests {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn sit_down(&self) -> Option<Chair<'_>> {
        let mut taken = self.0.load(Ordering::Relaxed);
        loop {
            let n = taken.trailing_ones() as usize;
            if n >= GUESTS {
                return None;
            }
            let sat = self.0.compare_exchange_weak(
                taken,
                taken | 1 << n,
                Ordering::Acquire,
                Ordering::Relaxed,
            );
            match sat {
                Ok(_) => return Some(Chair { guests: self, n }),
                Err(now) => taken = now,
            }
        }
    }

    pub(crate) fn taken(&self) -> Taken {
        Taken(self.0.load(Ordering::Relaxed))
    }
}

/// A guest's seat, free again when this is dropped.
pub(crate) struct Chair<'a> {
    guests: &'a Guests,
    pub(crate) n: usize,
}

impl Drop for Chair<'_> {
    fn drop(&mut self) {
        self.guests.0.fetch_and(!(1 << self.n), Ordering::Release);
    }
}

/// The numbers of taken seats.
pub(crate) struct Taken(u64);

impl Iterator for Taken {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let n = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(n)
    }
}
