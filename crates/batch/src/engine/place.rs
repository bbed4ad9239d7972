//! How items come into the queue.

use std::task::Waker;

use overdrive_core::{Deadline, Priority, Timestamp};

use super::{Over, Refused, Shared, State, Terms, Weight};
use crate::after::{After, rouse};
use crate::cell::Placed;
use crate::error::SubmitError;
use crate::observe::Origin;
use crate::settings::Overload;
use crate::slots::{Entry, Slots};
use crate::sync::Ordering;

/// How many cells are looked at for one that can gather again.
const LOOKS: usize = 4;

impl<T, R, E> Shared<T, R, E> {
    /// Puts an item into the queue. Unless refused, its outcome is to be fetched with [`poll`], or
    /// given up with [`withdraw`].
    ///
    /// [`poll`]: Self::poll
    /// [`withdraw`]: Self::withdraw
    #[inline]
    pub(crate) fn place(&self, item: T, terms: Terms) -> Result<Placed, Refused<T>> {
        let weight = match &self.rules.weight {
            None => 0,
            Some(weight) => (weight.of)(&item),
        };
        let at = self.arrival(terms.deadline);
        let mut state = self.lock();
        if self.may_refuse(&state, weight) {
            drop(state);
            return self.place_in_full(item, terms, weight, at);
        }
        let entry = entry(item, terms.deadline, terms.waker, terms.origin);
        let placed = self.push(&mut state, entry, terms.priority, weight, at);
        let called = self.call_for_more(&mut state);
        drop(state);
        if let Some(worker) = called {
            rouse(&self.wakers, worker);
        }
        Ok(placed)
    }

    /// As [`place`](Self::place), for items of the same deadline and priority, in their order, without
    /// wakers: under the lock once, as far as there is room.
    pub(crate) fn place_all(
        &self,
        items: Vec<T>,
        deadline: Deadline,
        priority: Priority,
    ) -> Vec<Result<Placed, Refused<T>>> {
        let weigh = |weight: &Weight<T>| items.iter().map(|item| (weight.of)(item)).collect();
        let weights: Option<Vec<usize>> = self.rules.weight.as_ref().map(weigh);
        let weight = |index: usize| weights.as_ref().map_or(0, |weights| weights[index]);
        let at = self.arrival(deadline);
        let mut placed = Vec::with_capacity(items.len());
        let mut items: Vec<_> = items
            .into_iter()
            .map(|item| (item, Origin::here()))
            .collect();
        let mut items = items.drain(..);
        // More than once only if some do not simply fit, and those who do are run meanwhile.
        while items.len() > 0 {
            let before = placed.len();
            let mut state = self.lock();
            while items.len() > 0 && self.fits(&state, weight(placed.len())) {
                let weight = weight(placed.len());
                placed.extend(items.next().map(|(item, origin)| {
                    let entry = entry(item, deadline, None, origin);
                    Ok(self.push(&mut state, entry, priority, weight, at))
                }));
            }
            let called = self.call_for_more(&mut state);
            drop(state);
            if let Some(worker) = called {
                rouse(&self.wakers, worker);
            }
            if placed.len() > before {
                continue;
            }
            if let Some((item, origin)) = items.next() {
                let terms = Terms {
                    deadline,
                    priority,
                    must_fit: false,
                    waker: None,
                    origin,
                };
                let weight = weight(placed.len());
                placed.push(self.place_in_full(item, terms, weight, at));
            }
        }
        placed
    }

    /// Whether an item so heavy is not simply queued.
    fn may_refuse(&self, state: &State<T, R, E>, weight: usize) -> bool {
        state.closed || weight > self.bounds().weight || state.queue.live() >= self.rules.capacity
    }

    /// Whether an item so heavy is simply queued, to wait for room if need be.
    fn fits(&self, state: &State<T, R, E>, weight: usize) -> bool {
        let waits = self.rules.overload == Overload::Wait && !state.closed;
        !self.may_refuse(state, weight) || waits && weight <= self.bounds().weight
    }

    /// When an item with that deadline comes, if it matters.
    fn arrival(&self, deadline: Deadline) -> Timestamp {
        if deadline != Deadline::NEVER && !self.deadlines.load(Ordering::Relaxed) {
            // A worker that takes the item without having seen this does so only now.
            self.deadlines.store(true, Ordering::Relaxed);
        }
        if self.rules.gather.wants_ages() {
            self.rules.clock.now()
        } else {
            Timestamp::ZERO
        }
    }

    /// As [`place`](Self::place), where there may be no room, or none any more.
    #[cold]
    fn place_in_full(
        &self,
        item: T,
        mut terms: Terms,
        weight: usize,
        at: Timestamp,
    ) -> Result<Placed, Refused<T>> {
        // Not into the closure, which would drop them under the lock.
        let mut waker = terms.waker.take();
        let mut origin = std::mem::replace(&mut terms.origin, Origin::nowhere());
        self.with(|state, after| {
            if state.closed {
                state.counts.rejected += 1;
                return Err(Refused::Closed(item));
            }
            if weight > self.bounds().weight {
                state.counts.rejected += 1;
                return Err(Refused::TooHeavy(item));
            }
            if state.queue.live() >= self.rules.capacity && !self.make_room(state, &terms, after) {
                state.counts.rejected += 1;
                return Err(Refused::Full(item));
            }
            let origin = std::mem::replace(&mut origin, Origin::nowhere());
            let entry = entry(item, terms.deadline, waker.take(), origin);
            let placed = self.push(state, entry, terms.priority, weight, at);
            after.rouse(self.call_for_more(state));
            Ok(placed)
        })
    }

    #[inline]
    fn push(
        &self,
        state: &mut State<T, R, E>,
        entry: Entry<T>,
        priority: Priority,
        weight: usize,
        at: Timestamp,
    ) -> Placed {
        let State {
            queue, over, cells, ..
        } = state;
        let begin = || self.begin(over, cells);
        queue.push(entry, priority, weight, at, self.bounds(), begin)
    }

    /// Where the submitters are the workers: has one who waits, or goes, run what nobody is at.
    pub(crate) fn drive(&self) {
        if !self.rules.inline {
            return;
        }
        if let Some(worker) = self.summon() {
            rouse(&self.wakers, worker);
        }
    }

    /// Makes a free worker the gatherer, if there is something to do that nobody is at: it is to be
    /// woken.
    pub(crate) fn summon(&self) -> Option<usize> {
        let mut state = self.lock();
        let idle = state.gatherer.is_none() && !state.queue.is_empty();
        idle.then(|| state.call_gatherer()).flatten()
    }

    /// An item has come: the worker that is to be woken for it, if one is.
    fn call_for_more(&self, state: &mut State<T, R, E>) -> Option<usize> {
        match state.gatherer {
            None => state.call_gatherer(),
            // It is parked only if it lingers.
            Some(worker) if !state.parked[worker] => None,
            Some(worker) => {
                let enough = state.queue.live() >= self.lingers_for();
                let woken = enough || state.queue.has_complete(self.bounds());
                woken.then(|| state.unpark(worker)).flatten()
            }
        }
    }

    /// A cell for a new batch.
    #[inline(never)]
    fn begin(&self, over: &mut Over, cells: &mut u32) -> (u32, Slots<T, R, E>) {
        for _ in 0..LOOKS {
            let Some(cell) = over.fresh.pop_front() else {
                break;
            };
            match self.cells.get(cell).reopen(0) {
                Ok(slots) => return (cell, slots),
                Err(fetched) => over.kept.push_back((cell, fetched)),
            }
        }
        if let Some((cell, fetched)) = over.kept.pop_front() {
            match self.cells.get(cell).reopen(fetched) {
                Ok(slots) => return (cell, slots),
                Err(fetched) => over.kept.push_back((cell, fetched)),
            }
        }
        let cell = *cells;
        *cells += 1;
        // Made now, where the lock orders it before every use.
        self.cells.get(cell);
        (cell, Slots::default())
    }

    /// Whether an item may be queued though the batcher is full.
    fn make_room(
        &self,
        state: &mut State<T, R, E>,
        terms: &Terms,
        after: &mut After<T, R, E>,
    ) -> bool {
        match self.rules.overload {
            _ if terms.must_fit => false,
            Overload::Wait => true,
            Overload::Reject => false,
            Overload::ShedOldest => {
                let shed = |item| Err(SubmitError::Shed(item));
                let Some(batch) = state.queue.shed(terms.priority, shed, after) else {
                    return false;
                };
                state.counts.shed += 1;
                self.retire(state, batch);
                true
            }
        }
    }
}

fn entry<T>(item: T, deadline: Deadline, waker: Option<Waker>, origin: Origin) -> Entry<T> {
    Entry {
        item,
        deadline,
        waker,
        origin,
        seq: 0,
        wanted: true,
        called: false,
    }
}
