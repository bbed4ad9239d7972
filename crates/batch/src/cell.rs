//! Where the submitters of one batch fetch their outcomes, without a lock.
//!
//! Until the batch is over its slots are under the batcher's lock: in the queue, then at a worker's
//! desk. Then they move, with the outcomes in them, into a cell, and stay there until the last
//! submitter has fetched its own; then the cell serves another batch.
//!
//! The only unsafe code of the batcher. With a mutex in its place an item took 12 % more time, alone
//! and among a hundred (`batch/lone_loop`, `batch/noop_100` with one thread).
//!
//! # Invariants
//! 1. `slots` is written by whoever holds the batcher's lock, and only while the cell is not over, or
//!    is over and all spots are `gone` ([`Cell::end`], [`Cell::reopen`]).
//! 2. While the cell is over, the list in `slots` neither moves nor changes, and each slot in it whose
//!    spot is not `gone` is reached by the one [`Placed`] that was made for it, which is not copied
//!    and is used up by that; only after that its spot is `gone`.
//! 3. A cell serves one batch at a time: a `Placed` lives no longer than its spot is not `gone`, so it
//!    finds the slots that it was made for.
#![allow(unsafe_code, reason = "see above")]

use crate::slots::{Entry, Slot, Slots};
use crate::sync::{AtomicBool, Mutant, Ordering, UnsafeCell, removed};

pub(crate) struct Cell<T, R, E> {
    /// Whether the slots are here.
    over: AtomicBool,
    slots: UnsafeCell<Slots<T, R, E>>,
}

// SAFETY: what is in the slots is handed from thread to thread, and reached by one at a time (1, 2).
unsafe impl<T: Send, R: Send, E: Send + Sync> Sync for Cell<T, R, E> {}

/// The right to the outcome of one item, and where that is. Made with its slot, and used up when the
/// outcome is fetched or given up.
///
/// Two words, so that it is handed on in registers.
#[derive(Debug)]
pub(crate) struct Placed {
    /// The cell, and below it the slot.
    place: u64,
    /// The batch's number, and below it the lane.
    batch: u64,
}

/// The bits of a lane.
const LANE: u32 = 2;

impl Placed {
    /// Adds a slot to those of a batch that gathers: number `number` in its lane, for `cell`.
    #[inline]
    pub(crate) fn new<T, R, E>(
        slots: &mut Slots<T, R, E>,
        entry: Entry<T>,
        (cell, number, lane): (u32, u64, usize),
    ) -> Self {
        let slot = slots.push(entry) as u64;
        Self {
            place: u64::from(cell) << 32 | slot,
            batch: number << LANE | lane as u64,
        }
    }

    pub(crate) fn cell(&self) -> u32 {
        (self.place >> 32) as u32
    }

    pub(crate) fn slot(&self) -> usize {
        (self.place & u64::from(u32::MAX)) as usize
    }

    pub(crate) fn number(&self) -> u64 {
        self.batch >> LANE
    }

    pub(crate) fn lane(&self) -> usize {
        (self.batch & ((1 << LANE) - 1)) as usize
    }
}

impl<T, R, E> Default for Cell<T, R, E> {
    fn default() -> Self {
        Self {
            over: AtomicBool::new(false),
            slots: UnsafeCell::new(Slots::default()),
        }
    }
}

impl<T, R, E> Cell<T, R, E> {
    /// The batch is over: its slots. Called under the batcher's lock, with the slots of the cell's
    /// own batch, once.
    pub(crate) fn end(&self, mut slots: Slots<T, R, E>) {
        slots.mark();
        if removed(Mutant::OverTooEarly) {
            self.over.store(true, Ordering::Release);
        }
        // SAFETY: the batcher's lock is held, and the cell is not over (1).
        self.slots.with_mut(|place| unsafe { *place = slots });
        self.over.store(true, Ordering::Release);
    }

    /// What is in the slot, if the batch is over.
    #[inline]
    pub(crate) fn fetch(&self, placed: Placed) -> Result<Slot<T, R, E>, Placed> {
        if !self.over.load(Ordering::Acquire) {
            return Err(placed);
        }
        Ok(self.slots.with(|slots| {
            // SAFETY: the cell is over, which its Release store said after the slots were written,
            // and this spot is not gone, so nobody writes them now (1, 2).
            let spot = unsafe { &*slots }.shared(placed.slot());
            // SAFETY: nobody else has the slot's `Placed` (2, 3).
            let take = |slot: *mut _| unsafe { std::mem::replace(&mut *slot, Slot::Gone) };
            let slot = spot.slot.with_mut(take);
            // After the slot was read: whoever sees all gone may write all of them.
            spot.gone.store(true, Ordering::Release);
            slot
        }))
    }

    /// If all outcomes have been fetched, the cell is for another batch: its slots, none, with the
    /// room they had. If not, how many in a row have been; so many are known to be. Called under the
    /// batcher's lock, of a cell that is over.
    pub(crate) fn reopen(&self, fetched: usize) -> Result<Slots<T, R, E>, usize> {
        // SAFETY: the batcher's lock is held and the cell is over, so nobody writes the list (1, 2).
        let left = self
            .slots
            .with(|slots| unsafe { &*slots }.first_left(fetched));
        if let Some(fetched) = left.filter(|_| !removed(Mutant::ReopenUnfetched)) {
            return Err(fetched);
        }
        self.over.store(false, Ordering::Relaxed);
        // SAFETY: the batcher's lock is held, and all spots are gone, read with Acquire (1).
        let slots = self
            .slots
            .with_mut(|slots| std::mem::take(unsafe { &mut *slots }));
        Ok(slots.emptied())
    }
}
