//! The shared part of a pool, under its lock: the depot of idle objects, the budget, the counts.
//! No unsafe code, and no user code is ever called from here.

use crate::stats::{COUNTS, Count};
use crate::sync::{Mutant, removed};

/// A stack of idle objects, newest on top, and the budget that it shares with thread caches.
///
/// `stack.len() + out + reserved <= max_idle` at all times, where `out` is how many objects are
/// out for weighing and `reserved` the summed capacity of the thread caches: that is the strict
/// bound on idle objects.
#[derive(Debug)]
pub(crate) struct Depot<T> {
    stack: Vec<Box<T>>,
    /// The fewest objects in the depot since the last idle pass. The objects below this mark
    /// have not moved in that time.
    low: usize,
    /// How many objects the running shrink has taken out to weigh them. They count as idle.
    out: usize,
    shrink: Option<Shrink>,
    max_idle: usize,
    reserved: usize,
    reserve_max: usize,
    pub(crate) calls: Calls,
    counts: [u64; COUNTS],
}

/// A `trim_to` that is under way. There is one at a time; what others ask for meanwhile it does
/// after its own.
#[derive(Debug)]
struct Shrink {
    /// The thread that runs it.
    by: u32,
    target: usize,
    pending: Option<usize>,
}

/// What thread caches have been asked for. Calls are numbered; a cache remembers the last one
/// that it has answered.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) last: u64,
    /// The last call to drop everything.
    empty: u64,
    /// The last call to give half to the depot.
    halve: u64,
}

/// What a cache that missed some calls has to do. One answer covers all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Nothing,
    Halve,
    Empty,
}

impl Calls {
    pub(crate) fn empty(&mut self) -> u64 {
        self.last += 1;
        self.empty = self.last;
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
            out: 0,
            shrink: None,
            max_idle,
            reserved: 0,
            reserve_max: (max_idle / 2).max(local),
            calls: Calls::default(),
            counts: [0; COUNTS],
        }
    }

    /// How many objects it has, those out for weighing included.
    pub(crate) fn len(&self) -> usize {
        self.stack.len() + self.out
    }

    /// How many more objects fit.
    pub(crate) fn room(&self) -> usize {
        let out = match removed(Mutant::RestoreBlindly) {
            false => self.out,
            true => 0,
        };
        self.max_idle - self.reserved - self.stack.len() - out
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
        debug_assert!(self.len() + self.reserved <= self.max_idle);
    }

    /// Takes all objects, oldest first.
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

    /// Starts a shrink, unless one is under way: that one then does this one's work too.
    pub(crate) fn start_shrink(&mut self, by: u32, target: usize) -> bool {
        if self.join_shrink(by, target) {
            return false;
        }
        self.shrink = Some(Shrink {
            by,
            target,
            pending: None,
        });
        true
    }

    /// Has the running shrink, if there is one, go on to `target` afterwards.
    ///
    /// From the thread that runs it, which is then in user code, only a lower target counts: a
    /// weigher that trims would otherwise never come to an end. (All ending threads are one
    /// thread here, which costs at most a repetition that the second of them asked for.)
    pub(crate) fn join_shrink(&mut self, by: u32, target: usize) -> bool {
        let Some(running) = &mut self.shrink else {
            return false;
        };
        if running.by != by || target < running.target {
            running.pending = Some(running.pending.map_or(target, |other| other.min(target)));
        }
        true
    }

    /// The target that the running shrink has to go on to; `None` ends it.
    pub(crate) fn next_target(&mut self) -> Option<usize> {
        let running = self.shrink.as_mut()?;
        let next = running.pending.take();
        match next {
            Some(target) => running.target = target,
            None => self.shrink = None,
        }
        next
    }

    /// Takes all objects out for weighing, oldest first. They keep their room.
    pub(crate) fn take_out(&mut self) -> Vec<Box<T>> {
        debug_assert_eq!(self.out, 0, "one shrink at a time");
        let objects = self.take_all();
        self.out = objects.len();
        objects
    }

    /// Ends what [`take_out`](Self::take_out) began, and puts `kept` under whatever came in
    /// meanwhile.
    pub(crate) fn put_back(&mut self, kept: Vec<Box<T>>) {
        self.out = 0;
        self.stack.splice(..0, kept);
        debug_assert!(self.len() + self.reserved <= self.max_idle);
    }

    /// Sets capacity for a thread cache aside. The depot may hold more than [`room`](Self::room)
    /// admits afterwards; [`surplus`](Self::surplus) says how much, and the caller takes it out.
    /// Refused while too many objects are out, because these cannot make room.
    pub(crate) fn reserve(&mut self, capacity: usize) -> bool {
        let reserved = self.reserved + capacity;
        let fits = reserved <= self.reserve_max && reserved + self.out <= self.max_idle;
        if fits {
            self.reserved += capacity;
        }
        fits
    }

    pub(crate) fn unreserve(&mut self, capacity: usize) {
        self.reserved -= capacity;
    }

    pub(crate) fn surplus(&self) -> usize {
        (self.len() + self.reserved).saturating_sub(self.max_idle)
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
