//! The places of one batch's submitters.
//!
//! Until the batch is over they are under the batcher's lock: in the queue, then at a worker's desk.
//! Then they move, with the outcomes in them, into a cell with a lock of its own, and stay there
//! until the last submitter has fetched its outcome; then the cell serves another batch. So those
//! who fetch do not meet those who submit.

use std::task::{Poll, Waker};

use overdrive_core::Deadline;

use crate::after::After;
use crate::engine::Outcome;
use crate::sync::{AtomicBool, Mutant, Mutex, MutexGuard, Ordering, lock, removed};

pub(crate) struct Cell<T, R, E> {
    /// Whether the slots are here. A hint: under the batcher's lock, the queue and desks say.
    over: AtomicBool,
    slots: Mutex<Slots<T, R, E>>,
}

/// The places of those who submitted, in the order in which they came.
pub(crate) struct Slots<T, R, E> {
    pub(crate) list: Vec<Slot<T, R, E>>,
    /// How many of them somebody may still ask for.
    pub(crate) held: usize,
}

pub(crate) enum Slot<T, R, E> {
    /// Waits for its batch.
    Queued(Entry<T>),
    /// With the handler.
    Running(Option<Waker>),
    /// With the handler, for nobody.
    Orphan,
    Done(Outcome<T, R, E>),
    /// Its submitter has gone.
    Gone,
}

pub(crate) struct Entry<T> {
    pub(crate) item: T,
    pub(crate) deadline: Deadline,
    pub(crate) waker: Option<Waker>,
    /// Whether somebody waits for its outcome.
    pub(crate) wanted: bool,
}

/// What a submitter that polls finds in its slot.
pub(crate) enum Found<O> {
    Done(O),
    /// Woken by the waker that it has.
    Waits,
    /// The waker that it had is to be dropped.
    Registered(Option<Waker>),
    /// It has to come with a waker of its own.
    NeedsWaker,
}

impl<T, R, E> Default for Cell<T, R, E> {
    fn default() -> Self {
        Self {
            over: AtomicBool::new(false),
            slots: Mutex::new(Slots::default()),
        }
    }
}

impl<T, R, E> Default for Slots<T, R, E> {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            held: 0,
        }
    }
}

impl<T, R, E> Cell<T, R, E> {
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Slots<T, R, E>> {
        lock(&self.slots)
    }

    /// If all outcomes have been fetched, the cell is for another batch: its slots, none, with the
    /// room they had.
    pub(crate) fn reopen(&self) -> Option<Slots<T, R, E>> {
        let mut slots = self.lock();
        if slots.held > 0 && !removed(Mutant::ReopenUnfetched) {
            return None;
        }
        self.over.store(false, Ordering::Relaxed);
        let mut slots = std::mem::take(&mut *slots);
        slots.list.clear();
        Some(slots)
    }

    /// The batch is over: the slots of those that have not fetched their outcomes.
    pub(crate) fn end(&self, slots: Slots<T, R, E>) {
        if removed(Mutant::OverTooEarly) {
            self.over.store(true, Ordering::Release);
        }
        *self.lock() = slots;
        self.over.store(true, Ordering::Release);
    }
}

impl<T, R, E> Slots<T, R, E> {
    /// What there is for a submitter, which is woken by `cx` if there is nothing yet, and registers
    /// `fresh` if it has one.
    pub(crate) fn poll(
        &mut self,
        slot: u32,
        cx: &Waker,
        fresh: &mut Option<Waker>,
    ) -> Found<Outcome<T, R, E>> {
        let slot = &mut self.list[slot as usize];
        let known = match slot {
            Slot::Queued(Entry { waker, .. }) | Slot::Running(waker) => waker,
            Slot::Done(_) => {
                let Slot::Done(outcome) = std::mem::replace(slot, Slot::Gone) else {
                    unreachable!("matched above");
                };
                self.held -= 1;
                return Found::Done(outcome);
            }
            Slot::Orphan | Slot::Gone => unreachable!("its submitter has gone"),
        };
        if known.as_ref().is_some_and(|known| known.will_wake(cx)) {
            return Found::Waits;
        }
        match fresh.take() {
            Some(waker) => Found::Registered(known.replace(waker)),
            None => Found::NeedsWaker,
        }
    }

    /// The submitter goes. To be dropped by the caller: what it leaves behind.
    pub(crate) fn leave(&mut self, slot: u32) -> Slot<T, R, E> {
        let slot = &mut self.list[slot as usize];
        self.held -= 1;
        let next = match slot {
            Slot::Running(_) => Slot::Orphan,
            _ => Slot::Gone,
        };
        std::mem::replace(slot, next)
    }

    /// The submitter goes, and leaves its item to be processed. To be dropped by the caller: what
    /// it leaves behind otherwise.
    pub(crate) fn detach(&mut self, slot: u32) -> Option<Slot<T, R, E>> {
        match &mut self.list[slot as usize] {
            Slot::Queued(entry) => {
                self.held -= 1;
                entry.wanted = false;
                None
            }
            _ => Some(self.leave(slot)),
        }
    }

    /// Hands outcomes to the items that are with the handler.
    pub(crate) fn finish(
        &mut self,
        mut outcomes: impl Iterator<Item = Outcome<T, R, E>>,
        after: &mut After<T, R, E>,
    ) {
        for slot in self.list.iter_mut().filter(|slot| slot.is_running()) {
            if let Some(outcome) = outcomes.next() {
                slot.finish(outcome, after);
            }
        }
    }

    /// Ends the waiting items that are meant; how many those were.
    pub(crate) fn end_where(
        &mut self,
        mut meant: impl FnMut(&Entry<T>) -> bool,
        end: impl Fn(T) -> Outcome<T, R, E>,
        after: &mut After<T, R, E>,
    ) -> usize {
        let mut ended = 0;
        for slot in &mut self.list {
            if matches!(slot, Slot::Queued(entry) if meant(entry)) {
                slot.end(&end, after);
                ended += 1;
            }
        }
        ended
    }
}

impl<T, R, E> Slot<T, R, E> {
    /// Ends an item that waits.
    pub(crate) fn end(
        &mut self,
        end: impl FnOnce(T) -> Outcome<T, R, E>,
        after: &mut After<T, R, E>,
    ) {
        match std::mem::replace(self, Self::Gone) {
            Self::Queued(entry) if entry.wanted => {
                *self = Self::Done(end(entry.item));
                after.wake(entry.waker);
            }
            Self::Queued(entry) => after.discard(end(entry.item)),
            other => *self = other,
        }
    }

    /// The item of a slot whose batch is taken.
    pub(crate) fn take(&mut self) -> Option<T> {
        match std::mem::replace(self, Self::Gone) {
            Self::Queued(entry) => {
                *self = if entry.wanted {
                    Self::Running(entry.waker)
                } else {
                    Self::Orphan
                };
                Some(entry.item)
            }
            other => {
                *self = other;
                None
            }
        }
    }

    /// Whether its item is with the handler.
    fn is_running(&self) -> bool {
        matches!(self, Self::Running(_) | Self::Orphan)
    }

    /// Ends an item that is with the handler.
    fn finish(&mut self, outcome: Outcome<T, R, E>, after: &mut After<T, R, E>) {
        if let Self::Running(waker) = self {
            after.wake(waker.take());
            *self = Self::Done(outcome);
        } else {
            *self = Self::Gone;
            after.discard(outcome);
        }
    }
}

impl<O> Found<O> {
    /// What the submitter makes of it; `None` if it has to come again with a waker.
    pub(crate) fn into_poll(self) -> Option<Poll<O>> {
        match self {
            Self::Done(outcome) => Some(Poll::Ready(outcome)),
            Self::Waits => Some(Poll::Pending),
            Self::Registered(old) => {
                drop(old);
                Some(Poll::Pending)
            }
            Self::NeedsWaker => None,
        }
    }
}
