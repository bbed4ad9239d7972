//! The shared part of a pool, under its lock: the depot of idle objects, the budget, the counts.
//! No unsafe code, and no user code is ever called from here.

use crate::stats::{COUNTS, Count};

/// A stack of idle objects, newest on top, and the budget that it shares with thread caches.
///
/// `stack.len() + reserved <= max_idle` at all times, where `reserved` is the summed capacity of
/// the thread caches: that is the strict bound on idle objects.
#[derive(Debug)]
pub(crate) struct Depot<T> {
    stack: Vec<Box<T>>,
    /// The fewest objects in the depot since the last idle pass. The objects below this mark
    /// have not moved in that time.
    low: usize,
    max_idle: usize,
    reserved: usize,
    reserve_max: usize,
    pub(crate) calls: Calls,
    counts: [u64; COUNTS],
}

/// What thread caches have been asked for. Calls are numbered; a cache remembers the last one
/// that it has answered.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) last: u64,
    /// The last call to drop everything.
    empty: u64,
    /// The last call to hand everything to the depot, and the bytes it may then keep.
    hand_in: u64,
    target: usize,
    /// The last call to give half to the depot.
    halve: u64,
}

/// What a cache that missed some calls has to do. One answer covers all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Nothing,
    Halve,
    HandIn { target: usize },
    Empty,
}

impl Calls {
    pub(crate) fn empty(&mut self) -> u64 {
        self.last += 1;
        self.empty = self.last;
        self.last
    }

    pub(crate) fn hand_in(&mut self, target: usize) -> u64 {
        self.last += 1;
        (self.hand_in, self.target) = (self.last, target);
        self.last
    }

    pub(crate) fn halve(&mut self) -> u64 {
        self.last += 1;
        self.halve = self.last;
        self.last
    }

    pub(crate) fn missed_since(&self, seen: u64) -> Answer {
        if self.empty > seen {
            Answer::Empty
        } else if self.hand_in > seen {
            Answer::HandIn {
                target: self.target,
            }
        } else if self.halve > seen {
            Answer::Halve
        } else {
            Answer::Nothing
        }
    }
}

impl<T> Depot<T> {
    pub(crate) fn new(max_idle: usize, local: usize) -> Self {
        Self {
            stack: Vec::new(),
            low: 0,
            max_idle,
            reserved: 0,
            reserve_max: (max_idle / 2).max(local),
            calls: Calls::default(),
            counts: [0; COUNTS],
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.stack.len()
    }

    /// How many more objects fit.
    pub(crate) fn room(&self) -> usize {
        self.max_idle - self.reserved - self.stack.len()
    }

    pub(crate) fn push(&mut self, object: Box<T>) -> Result<(), Box<T>> {
        if self.room() == 0 {
            return Err(object);
        }
        self.stack.push(object);
        Ok(())
    }

    pub(crate) fn pop(&mut self) -> Option<Box<T>> {
        let object = self.stack.pop();
        self.sink();
        object
    }

    /// Lends the stack to `f`, which may only take from its top.
    pub(crate) fn take_top<R>(&mut self, f: impl FnOnce(&mut Vec<Box<T>>) -> R) -> R {
        let result = f(&mut self.stack);
        self.sink();
        result
    }

    /// Lends the stack to `f`, which may push at most `room()` objects.
    pub(crate) fn add_top(&mut self, f: impl FnOnce(&mut Vec<Box<T>>)) {
        f(&mut self.stack);
        debug_assert!(self.stack.len() + self.reserved <= self.max_idle);
    }

    /// Takes all objects out, oldest first.
    pub(crate) fn take_all(&mut self) -> Vec<Box<T>> {
        self.low = 0;
        std::mem::take(&mut self.stack)
    }

    /// Takes the objects out that nobody needed since the last pass, and starts the next one.
    pub(crate) fn take_unneeded(&mut self) -> Vec<Box<T>> {
        let unneeded = self.stack.drain(..self.low).collect();
        self.low = self.stack.len();
        unneeded
    }

    /// Puts objects back under whatever came in meanwhile, `room` at most and of these the
    /// newest. Returns the others.
    pub(crate) fn put_under(&mut self, mut objects: Vec<Box<T>>, room: usize) -> Vec<Box<T>> {
        let kept = objects.split_off(objects.len().saturating_sub(room));
        self.stack.splice(..0, kept);
        objects
    }

    /// Sets capacity for a thread cache aside. The depot may hold more than [`room`](Self::room)
    /// admits afterwards; [`surplus`](Self::surplus) says how much, and the caller takes it out.
    pub(crate) fn reserve(&mut self, capacity: usize) -> bool {
        let fits = self.reserved + capacity <= self.reserve_max;
        if fits {
            self.reserved += capacity;
        }
        fits
    }

    pub(crate) fn unreserve(&mut self, capacity: usize) {
        self.reserved -= capacity;
    }

    pub(crate) fn surplus(&self) -> usize {
        (self.stack.len() + self.reserved).saturating_sub(self.max_idle)
    }

    pub(crate) fn count(&mut self, which: Count, n: u64) {
        self.counts[which as usize] += n;
    }

    pub(crate) fn counted(&self, which: Count) -> u64 {
        self.counts[which as usize]
    }

    /// Adds the counts of a cache that goes.
    pub(crate) fn fold(&mut self, counted: impl Fn(usize) -> u64) {
        for (index, count) in self.counts.iter_mut().enumerate() {
            *count += counted(index);
        }
    }

    fn sink(&mut self) {
        self.low = self.low.min(self.stack.len());
    }
}
