//! Which places of a map were woken, and how its task is.

use std::ops::ControlFlow;
use std::sync::PoisonError;
use std::task::Waker;

use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

/// In the root: the task sleeps, so that whoever wakes a place must wake it.
const ASLEEP: u64 = 1 << 63;
/// Words or places under the root.
const ROOT: usize = 63;
/// Words or places under any other word.
const WORD: usize = 64;

/// A tree of bits: one for each place that was woken, and above them one for each word that may
/// have any, up to one root. Up to 63 places there is only the root.
///
/// # Protocol
/// 1. Any thread wakes a place: it sets its bit, and those above until it finds one set, whose
///    setter goes on from there.
/// 2. Who sets a bit of the root and finds `ASLEEP` there takes it away. Who gets it wakes the task.
/// 3. The task begins by exchanging the root for zero, and takes the words below, top-down: it sees
///    every bit that was set before the bit above it, and what was written before that.
/// 4. It ends by leaving its waker, setting `ASLEEP` and looking at the root as it was: bits that
///    came meanwhile found it awake, so it wakes itself.
pub(super) struct Ready {
    root: AtomicU64,
    /// From the places up to the words right under the root.
    levels: Vec<Box<[AtomicU64]>>,
    task: Mutex<Option<Waker>>,
}

impl Ready {
    /// For so many places. The task is awake.
    pub(super) fn new(places: usize) -> Self {
        let mut levels = Vec::new();
        let mut below = places;
        while below > ROOT {
            below = below.div_ceil(WORD);
            levels.push((0..below).map(|_| AtomicU64::new(0)).collect());
        }
        Self {
            root: AtomicU64::new(0),
            levels,
            task: Mutex::new(None),
        }
    }

    /// Marks a place, and wakes the task if it sleeps.
    pub(super) fn wake(&self, place: usize) {
        if self.mark(place) && self.root.fetch_and(!ASLEEP, Ordering::AcqRel) & ASLEEP != 0 {
            let task = self.task().take();
            if let Some(task) = task {
                task.wake();
            }
        }
    }

    /// Marks a place. Says whether the task was asleep; always false to the task itself.
    pub(super) fn mark(&self, place: usize) -> bool {
        let mut index = place;
        for level in &self.levels {
            let bit = 1 << (index % WORD);
            index /= WORD;
            if level[index].fetch_or(bit, Ordering::AcqRel) & bit != 0 {
                return false;
            }
        }
        let bit = 1 << index;
        let before = self.root.fetch_or(bit, Ordering::AcqRel);
        before & bit == 0 && before & ASLEEP != 0
    }

    /// Calls `each` with the places that are marked, which so no longer are. Places that are marked
    /// meanwhile may be among them or not. The task is awake from here on.
    pub(super) fn take<B>(&self, mut each: impl FnMut(usize) -> ControlFlow<B>) -> ControlFlow<B> {
        let bits = self.root.swap(0, Ordering::AcqRel) & !ASLEEP;
        self.visit(self.levels.len(), 0, bits, &mut each)
    }

    fn visit<B>(
        &self,
        level: usize,
        base: usize,
        mut bits: u64,
        each: &mut impl FnMut(usize) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        while bits != 0 {
            let index = base + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            match level.checked_sub(1) {
                None => each(index)?,
                Some(below) => {
                    let bits = self.levels[below][index].swap(0, Ordering::AcqRel);
                    self.visit(below, index * WORD, bits, each)?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Puts the task to sleep; wakes it at once if a place is marked.
    pub(super) fn sleep(&self, waker: &Waker) {
        if self.root.load(Ordering::Relaxed) == 0 {
            self.leave(waker);
            let before = self.root.fetch_or(ASLEEP, Ordering::AcqRel);
            if before == 0 {
                return;
            }
            if self.root.fetch_and(!ASLEEP, Ordering::AcqRel) & ASLEEP == 0 {
                // Another has it, and wakes.
                return;
            }
        }
        waker.wake_by_ref();
    }

    /// Nobody wakes the task any more; its waker is dropped.
    pub(super) fn end(&self) {
        let task = self.task().take();
        drop(task);
    }

    fn leave(&self, waker: &Waker) {
        let known = self.task().as_ref().is_some_and(|w| w.will_wake(waker));
        if !known {
            let own = waker.clone();
            let old = self.task().replace(own);
            drop(old);
        }
    }

    fn task(&self) -> MutexGuard<'_, Option<Waker>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
