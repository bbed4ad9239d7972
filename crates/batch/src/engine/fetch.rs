//! How submitters get their outcomes, or go without.

use std::task::Context;

use super::{Outcome, Shared};
use crate::cell::Placed;
use crate::slots::{Found, Slot, Slots};

impl<T, R, E> Shared<T, R, E> {
    /// The item's outcome, if there is one; if not, `cx` is woken when there is.
    pub(crate) fn poll(
        &self,
        placed: Placed,
        cx: &Context<'_>,
    ) -> Result<Outcome<T, R, E>, Placed> {
        let placed = match self.look(placed, cx) {
            Err(placed) if self.rules.inline => placed,
            found => return found,
        };
        // Registered: who leaves the rest from now on wakes us. Who has done so before has not.
        self.drive();
        self.look(placed, cx)
    }

    fn look(&self, mut placed: Placed, cx: &Context<'_>) -> Result<Outcome<T, R, E>, Placed> {
        let mut fresh = None;
        loop {
            match self.fetch(placed) {
                Ok(slot) => return Ok(slot.into_outcome()),
                Err(back) => placed = back,
            }
            let found = {
                let mut state = self.lock();
                let slots = state.slots(&placed);
                slots.map(|slots| slots.poll(&placed, cx.waker(), &mut fresh))
            };
            match found {
                Some(Found::Done(outcome)) => return Ok(outcome),
                Some(Found::Waits) => return Err(placed),
                Some(Found::Registered(old)) => {
                    drop(old);
                    return Err(placed);
                }
                Some(Found::NeedsWaker) => fresh = Some(cx.waker().clone()),
                // It is over by now.
                None => {}
            }
        }
    }

    /// What is in the item's slot, if its batch is over.
    #[inline]
    pub(crate) fn fetch(&self, placed: Placed) -> Result<Slot<T, R, E>, Placed> {
        self.cells.get(placed.cell()).fetch(placed)
    }

    /// Does `f` with the slots of the item's batch; the item again if that is over.
    fn with_slots<O>(
        &self,
        placed: Placed,
        f: impl FnOnce(&mut Slots<T, R, E>, &Placed) -> O,
    ) -> Result<O, Placed> {
        match self.lock().slots(&placed) {
            Some(slots) => Ok(f(slots, &placed)),
            None => Err(placed),
        }
    }

    /// Counts an item whose deadline had passed before it was placed.
    pub(crate) fn came_late(&self) {
        let mut state = self.lock();
        state.counts.expired += 1;
        state.came_late += 1;
    }

    /// Takes an item out whose deadline has passed, unless its batch is taken.
    pub(crate) fn expire(&self, placed: Placed) -> Result<T, Placed> {
        let entry = self.with(|state, after| {
            let slots = state.queue.slots(&placed)?;
            if !matches!(slots.get_mut(placed.slot()), Slot::Queued(_)) {
                return None;
            }
            let (left, batch) = state.queue.leave(&placed)?;
            state.counts.expired += 1;
            self.retire(state, batch);
            state.settle(after);
            Some(left)
        });
        // It may have been woken to go on with the rest.
        self.drive();
        match entry {
            Some(Slot::Queued(entry)) => Ok(entry.item),
            _ => Err(placed),
        }
    }

    /// The submitter goes: its item is taken out, unless its batch is taken.
    pub(crate) fn withdraw(&self, placed: Placed) {
        let placed = match self.fetch(placed) {
            Ok(left) => return drop(left),
            Err(placed) => placed,
        };
        let left = self.with(|state, after| {
            let (left, batch) = state.queue.leave(&placed)?;
            if matches!(left, Slot::Queued(_)) {
                state.counts.cancelled += 1;
            }
            self.retire(state, batch);
            state.settle(after);
            Some(left)
        });
        match left {
            Some(left) => drop(left),
            None => self.leave(placed),
        }
        // It may have been woken to go on with the rest.
        self.drive();
    }

    /// The submitter goes, and leaves its item to be processed.
    pub(crate) fn detach(&self, placed: Placed) {
        match self.with_slots(placed, |slots, placed| slots.detach(placed)) {
            Ok(left) => drop(left),
            Err(placed) => self.leave(placed),
        }
    }

    /// The submitter of an item whose batch is taken goes.
    fn leave(&self, placed: Placed) {
        match self.with_slots(placed, |slots, placed| slots.leave(placed)) {
            Ok(left) => drop(left),
            // It is over.
            Err(placed) => drop(self.fetch(placed)),
        }
    }
}
