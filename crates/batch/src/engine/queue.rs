//! The batches that gather, and the items in them: a plain data structure, without locks.
//!
//! Each lane holds batches in the order in which they were begun, the last of them open to further
//! items unless it is sealed. A batch whose items have all left is taken out, so that a lane which
//! is not empty has something to run.

use std::collections::VecDeque;

use overdrive_core::{Priority, Timestamp};

use super::Outcome;
use crate::after::After;
use crate::cell::Placed;
use crate::slots::{Entry, Slot, Slots};

/// By [`Priority`], the most urgent first.
const LANES: usize = 3;

/// Every so many batches, the longest waiting one goes first, whatever its lane.
const AGING: u32 = 8;

pub(crate) struct Queue<T, R, E> {
    lanes: [VecDeque<Batch<T, R, E>>; LANES],
    /// Items that wait, in all lanes.
    live: usize,
    next_number: u64,
    next_seq: u64,
    /// Counts up to [`AGING`].
    picks: u32,
}

/// A batch that gathers.
pub(crate) struct Batch<T, R, E> {
    /// By which older is told from younger, in all lanes.
    pub(crate) number: u64,
    /// Where its slots go when it is taken.
    pub(crate) cell: u32,
    /// When its first item came, if that is kept.
    pub(crate) at: Timestamp,
    pub(crate) slots: Slots<T, R, E>,
    /// How many of its items still wait.
    pub(crate) live: usize,
    pub(crate) weight: usize,
    /// Whether it takes no more items.
    sealed: bool,
    /// No item waits in the slots before.
    head: usize,
}

/// The bounds of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) size: usize,
    pub(crate) weight: usize,
}

/// What a submitter leaves behind, and its batch if nothing else waited in that.
type Left<T, R, E> = (Slot<T, R, E>, Option<Batch<T, R, E>>);

impl<T, R, E> Queue<T, R, E> {
    pub(crate) fn new() -> Self {
        Self {
            lanes: Default::default(),
            live: 0,
            next_number: 0,
            next_seq: 0,
            picks: 0,
        }
    }

    pub(crate) fn live(&self) -> usize {
        self.live
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Adds an item at the end of its lane; `begin` gives a cell for a new batch.
    #[inline]
    pub(crate) fn push(
        &mut self,
        mut entry: Entry<T>,
        priority: Priority,
        weight: usize,
        at: Timestamp,
        bounds: Bounds,
        begin: impl FnOnce() -> (u32, Slots<T, R, E>),
    ) -> Placed {
        entry.seq = self.next_seq;
        self.next_seq += 1;
        self.live += 1;
        let which = lane(priority);
        let lane = &mut self.lanes[which];
        if let Some(batch) = lane.back_mut() {
            let sum = batch.weight.checked_add(weight);
            if let Some(sum) = sum.filter(|&sum| batch.is_open(sum, bounds)) {
                batch.weight = sum;
                return batch.add(entry, which);
            }
        }
        let (cell, slots) = begin();
        let mut batch = Batch {
            number: self.next_number,
            cell,
            at,
            slots,
            live: 0,
            weight,
            sealed: false,
            head: 0,
        };
        self.next_number += 1;
        let placed = batch.add(entry, which);
        lane.push_back(batch);
        placed
    }

    /// The slots of the item's batch, if it still gathers.
    pub(crate) fn slots(&mut self, placed: &Placed) -> Option<&mut Slots<T, R, E>> {
        let index = self.find(placed)?;
        Some(&mut self.lanes[placed.lane()][index].slots)
    }

    /// The submitter goes. What it leaves behind, and its batch if that is no more; `None` if the
    /// batch has been taken.
    pub(crate) fn leave(&mut self, placed: &Placed) -> Option<Left<T, R, E>> {
        let index = self.find(placed)?;
        let lane = placed.lane();
        let batch = &mut self.lanes[lane][index];
        let left = batch.slots.leave(placed);
        if matches!(left, Slot::Queued(_)) {
            batch.live -= 1;
            self.live -= 1;
        }
        Some((left, self.vacate(lane, index)))
    }

    fn find(&self, placed: &Placed) -> Option<usize> {
        let lane = &self.lanes[placed.lane()];
        lane.binary_search_by_key(&placed.number(), |batch| batch.number)
            .ok()
    }

    /// Takes the batch out if nothing waits in it any more.
    fn vacate(&mut self, lane: usize, index: usize) -> Option<Batch<T, R, E>> {
        if self.lanes[lane][index].live > 0 {
            return None;
        }
        self.lanes[lane].remove(index)
    }

    /// The number of the batch that is to go first.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let fronts = self.lanes.iter().filter_map(VecDeque::front);
        fronts.map(|batch| batch.number).min()
    }

    /// When the item came that waits longest.
    pub(crate) fn since(&self) -> Timestamp {
        let fronts = self.lanes.iter().filter_map(VecDeque::front);
        fronts.map(|batch| batch.at).min().unwrap_or(Timestamp::MAX)
    }

    /// Whether a batch gathers no more, and only waits to be taken.
    pub(crate) fn has_complete(&self, bounds: Bounds) -> bool {
        let heavy = |batch: &Batch<T, R, E>| batch.weight >= bounds.weight;
        let complete = |lane: &VecDeque<Batch<T, R, E>>| {
            lane.len() > 1
                || lane
                    .front()
                    .is_some_and(|batch| batch.sealed || heavy(batch))
        };
        self.lanes.iter().any(complete)
    }

    /// No further items come into the batches that gather; the number that the next will have.
    pub(crate) fn seal(&mut self) -> u64 {
        for batch in self.lanes.iter_mut().filter_map(VecDeque::back_mut) {
            batch.sealed = true;
        }
        self.next_number
    }

    /// Takes the batch out that is to go first.
    pub(crate) fn pop(&mut self) -> Option<Batch<T, R, E>> {
        let lane = self.first_lane()?;
        self.picks += 1;
        self.take(lane)
    }

    /// Takes the next batch out as well, if it fits to what was taken.
    pub(crate) fn pop_fitting(
        &mut self,
        size: usize,
        weight: usize,
        bounds: Bounds,
    ) -> Option<Batch<T, R, E>> {
        let lane = self.lanes.iter().position(|lane| !lane.is_empty())?;
        let next = self.lanes[lane].front()?;
        let heavier = weight.checked_add(next.weight);
        let fits = size + next.live <= bounds.size
            && heavier.is_some_and(|weight| weight <= bounds.weight);
        if fits { self.take(lane) } else { None }
    }

    fn take(&mut self, lane: usize) -> Option<Batch<T, R, E>> {
        let batch = self.lanes[lane].pop_front()?;
        self.live -= batch.live;
        Some(batch)
    }

    fn first_lane(&mut self) -> Option<usize> {
        if self.picks >= AGING {
            self.picks = 0;
            let fronts = self.lanes.iter().enumerate();
            let fronts = fronts.filter_map(|(lane, batches)| Some((batches.front()?.number, lane)));
            return fronts.min().map(|(_, lane)| lane);
        }
        self.lanes.iter().position(|lane| !lane.is_empty())
    }

    /// Wakes all who wait; they register again. Whether there is one, or one that was woken before.
    pub(crate) fn wake_all(&mut self, after: &mut After<T, R, E>) -> bool {
        let mut any = false;
        let batches = self.lanes.iter_mut().flatten();
        for slot in batches.flat_map(|batch| batch.slots.iter_mut()) {
            if let Slot::Queued(entry) = slot {
                entry.called |= entry.waker.is_some();
                any |= entry.called;
                after.wake(entry.waker.take());
            }
        }
        any
    }

    /// Ends the item that waits longest in the least urgent lane, unless all are more urgent than
    /// `priority`. `None` if it did not; with the item's batch if that is no more.
    pub(crate) fn shed(
        &mut self,
        priority: Priority,
        end: impl FnOnce(T) -> Outcome<T, R, E>,
        after: &mut After<T, R, E>,
    ) -> Option<Option<Batch<T, R, E>>> {
        let mut lanes = lane(priority)..LANES;
        let lane = lanes.rfind(|&lane| !self.lanes[lane].is_empty())?;
        let batch = self.lanes[lane].front_mut()?;
        let waits = |slot: &mut Slot<T, R, E>| matches!(slot, Slot::Queued(_));
        batch.head += batch.slots.iter_mut().skip(batch.head).position(waits)?;
        batch.slots.get_mut(batch.head).end(end, after);
        batch.live -= 1;
        self.live -= 1;
        Some(self.vacate(lane, 0))
    }

    /// Ends all items but so many that came first: how many, and the batches that are no more.
    pub(crate) fn truncate(
        &mut self,
        keep: usize,
        end: impl Fn(T) -> Outcome<T, R, E>,
        after: &mut After<T, R, E>,
    ) -> (usize, Vec<Batch<T, R, E>>) {
        let (mut ended, mut gone) = (0, Vec::new());
        if self.live <= keep {
            return (ended, gone);
        }
        let slots = self.lanes.iter_mut().flatten();
        let slots = slots.flat_map(|batch| batch.slots.iter_mut());
        let mut seqs: Vec<u64> = slots
            .filter_map(|slot| match slot {
                Slot::Queued(entry) => Some(entry.seq),
                _ => None,
            })
            .collect();
        let first_out = *seqs.select_nth_unstable(keep).1;
        for lane in &mut self.lanes {
            let mut index = 0;
            while let Some(batch) = lane.get_mut(index) {
                let past = |entry: &Entry<T>| entry.seq >= first_out;
                let count = batch.slots.end_where(past, &end, after);
                batch.live -= count;
                ended += count;
                if batch.live > 0 {
                    index += 1;
                } else {
                    gone.extend(lane.remove(index));
                }
            }
        }
        self.live -= ended;
        (ended, gone)
    }
}

impl<T, R, E> Batch<T, R, E> {
    /// Whether it takes another item, with which it is so heavy.
    fn is_open(&self, weight: usize, bounds: Bounds) -> bool {
        !self.sealed && self.slots.len() < bounds.size && weight <= bounds.weight
    }

    #[inline]
    fn add(&mut self, entry: Entry<T>, lane: usize) -> Placed {
        self.live += 1;
        let place = (self.cell, self.number, lane);
        Placed::new(&mut self.slots, entry, place)
    }
}

fn lane(priority: Priority) -> usize {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Low => 2,
    }
}
