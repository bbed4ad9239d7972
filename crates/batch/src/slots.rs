//! The places of those who submitted the items of one batch.

use std::task::Waker;

use overdrive_core::Deadline;

use crate::after::After;
use crate::cell::Placed;
use crate::engine::Outcome;
use crate::observe::Origin;
use crate::sync::{AtomicBool, Ordering, UnsafeCell};

/// The places of those who submitted, in the order in which they came.
pub(crate) struct Slots<T, R, E> {
    list: Vec<Spot<T, R, E>>,
}

/// Each is reached for itself once the batch is over: see [`Cell`](crate::cell::Cell).
pub(crate) struct Spot<T, R, E> {
    pub(crate) slot: UnsafeCell<Slot<T, R, E>>,
    /// Once the batch is over: whether nobody will come for it any more. Not in one count for all,
    /// since each submitter would have to wait for the others' counting.
    pub(crate) gone: AtomicBool,
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
    pub(crate) origin: Origin,
    /// Whether somebody waits for its outcome. If not, there is no waker.
    pub(crate) wanted: bool,
    /// Whether its submitter was woken to go on with the batches, and has not come back.
    pub(crate) called: bool,
    /// By which it came before others, in all lanes.
    pub(crate) seq: u64,
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

impl<T, R, E> Default for Slots<T, R, E> {
    fn default() -> Self {
        Self { list: Vec::new() }
    }
}

impl<T, R, E> Slots<T, R, E> {
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Another place, and its index.
    pub(crate) fn push(&mut self, entry: Entry<T>) -> usize {
        self.list.push(Spot {
            slot: UnsafeCell::new(Slot::Queued(entry)),
            gone: AtomicBool::new(false),
        });
        self.list.len() - 1
    }

    pub(crate) fn get_mut(&mut self, slot: usize) -> &mut Slot<T, R, E> {
        self.list[slot].slot.get_mut()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot<T, R, E>> {
        self.list.iter_mut().map(|spot| spot.slot.get_mut())
    }

    /// A place that others must not reach at the same time.
    pub(crate) fn shared(&self, slot: usize) -> &Spot<T, R, E> {
        &self.list[slot]
    }

    /// The batch is over: marks those that nobody will come for.
    pub(crate) fn mark(&mut self) {
        for spot in &mut self.list {
            if matches!(spot.slot.get_mut(), Slot::Gone) {
                // Nobody else looks at it yet.
                spot.gone.store(true, Ordering::Relaxed);
            }
        }
    }

    /// The first that somebody may come for, if any; not before `from`. What those who came did has
    /// been done.
    pub(crate) fn first_left(&self, from: usize) -> Option<usize> {
        let left = |spot: &Spot<T, R, E>| !spot.gone.load(Ordering::Acquire);
        let behind = self.list[from..].iter().position(left)?;
        Some(from + behind)
    }

    /// None, with the room for as many as there were.
    pub(crate) fn emptied(mut self) -> Self {
        self.list.clear();
        self
    }

    /// What there is for a submitter, which is woken by `cx` if there is nothing yet, and registers
    /// `fresh` if it has one.
    pub(crate) fn poll(
        &mut self,
        placed: &Placed,
        cx: &Waker,
        fresh: &mut Option<Waker>,
    ) -> Found<Outcome<T, R, E>> {
        let slot = self.get_mut(placed.slot());
        let known = match slot {
            Slot::Queued(entry) => {
                entry.called = false;
                &mut entry.waker
            }
            Slot::Running(waker) => waker,
            Slot::Done(_) => {
                let Slot::Done(outcome) = std::mem::replace(slot, Slot::Gone) else {
                    unreachable!("matched above");
                };
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
    pub(crate) fn leave(&mut self, placed: &Placed) -> Slot<T, R, E> {
        let slot = self.get_mut(placed.slot());
        let next = match slot {
            Slot::Running(_) => Slot::Orphan,
            _ => Slot::Gone,
        };
        std::mem::replace(slot, next)
    }

    /// The submitter goes, and leaves its item to be processed. To be dropped by the caller: what it
    /// leaves behind otherwise.
    pub(crate) fn detach(&mut self, placed: &Placed) -> Slot<T, R, E> {
        match self.get_mut(placed.slot()) {
            Slot::Queued(entry) => {
                entry.wanted = false;
                Slot::Running(entry.waker.take())
            }
            _ => self.leave(placed),
        }
    }

    /// Hands outcomes to the items that are with the handler.
    pub(crate) fn finish(
        &mut self,
        mut outcomes: impl Iterator<Item = Outcome<T, R, E>>,
        after: &mut After<T, R, E>,
    ) {
        for slot in self.iter_mut().filter(|slot| slot.is_running()) {
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
        for slot in self.iter_mut() {
            if matches!(slot, Slot::Queued(entry) if meant(entry)) {
                slot.end(&end, after);
                ended += 1;
            }
        }
        ended
    }
}

impl<T, R, E> Slot<T, R, E> {
    /// The outcome that a submitter fetches of a batch that is over.
    pub(crate) fn into_outcome(self) -> Outcome<T, R, E> {
        match self {
            Self::Done(outcome) => outcome,
            _ => unreachable!("the batch is over, and its submitter has not gone"),
        }
    }

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
                after.let_go(entry.origin);
            }
            Self::Queued(entry) => {
                after.discard(end(entry.item));
                after.let_go(entry.origin);
            }
            other => *self = other,
        }
    }

    /// The item of a slot whose batch is taken, and where it comes from.
    pub(crate) fn take(&mut self) -> Option<(T, Origin)> {
        match std::mem::replace(self, Self::Gone) {
            Self::Queued(entry) => {
                *self = if entry.wanted {
                    Self::Running(entry.waker)
                } else {
                    Self::Orphan
                };
                Some((entry.item, entry.origin))
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
