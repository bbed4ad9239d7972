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
//!    is over and `left` is zero ([`Cell::end`], [`Cell::reopen`]).
//! 2. While the cell is over, the list in `slots` neither moves nor changes, and each slot in it that
//!    counts in `left` is reached by the one [`Placed`] that was made for it, which is not copied and
//!    is used up by that; only after that it ceases to count.
//! 3. A cell serves one batch at a time: a `Placed` lives no longer than its slot counts, so it finds
//!    the slots that it was made for.
#![allow(unsafe_code, reason = "see above")]

use crate::slots::{Entry, Slot, Slots};
use crate::sync::{AtomicBool, AtomicUsize, Mutant, Ordering, UnsafeCell, removed};

pub(crate) struct Cell<T, R, E> {
    /// Whether the slots are here.
    over: AtomicBool,
    /// How many of them have not been fetched.
    left: AtomicUsize,
    slots: UnsafeCell<Slots<T, R, E>>,
}

// SAFETY: what is in the slots is handed from thread to thread, and reached by one at a time (1, 2).
unsafe impl<T: Send, R: Send, E: Send + Sync> Sync for Cell<T, R, E> {}

/// The right to the outcome of one item, and where that is. Made with its slot, and used up when the
/// outcome is fetched or given up.
#[derive(Debug)]
pub(crate) struct Placed {
    cell: u32,
    slot: u32,
    number: u64,
    lane: u8,
}

impl Placed {
    /// Adds a slot to those of a batch that gathers: number `number` in its lane, for `cell`.
    pub(crate) fn new<T, R, E>(
        slots: &mut Slots<T, R, E>,
        entry: Entry<T>,
        (cell, number, lane): (u32, u64, u8),
    ) -> Self {
        let slot = slots.push(entry) as u32;
        Self {
            cell,
            slot,
            number,
            lane,
        }
    }

    pub(crate) fn cell(&self) -> u32 {
        self.cell
    }

    pub(crate) fn slot(&self) -> usize {
        self.slot as usize
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn lane(&self) -> usize {
        usize::from(self.lane)
    }
}

impl<T, R, E> Default for Cell<T, R, E> {
    fn default() -> Self {
        Self {
            over: AtomicBool::new(false),
            left: AtomicUsize::new(0),
            slots: UnsafeCell::new(Slots::default()),
        }
    }
}

impl<T, R, E> Cell<T, R, E> {
    /// The batch is over: its slots. Called under the batcher's lock, with the slots of the cell's
    /// own batch, once.
    pub(crate) fn end(&self, slots: Slots<T, R, E>) {
        let held = slots.held();
        if removed(Mutant::OverTooEarly) {
            self.over.store(true, Ordering::Release);
        }
        self.left.store(held, Ordering::Relaxed);
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
        let slot = self.slots.with(|slots| {
            // SAFETY: the cell is over, which its Release store said after the slots were written,
            // and `left` counts this slot, so nobody writes them now (1, 2).
            let slot = unsafe { &*slots }.shared(placed.slot());
            // SAFETY: nobody else has the slot's `Placed` (2, 3).
            slot.with_mut(|slot| unsafe { std::mem::replace(&mut *slot, Slot::Gone) })
        });
        // After the slot was read: whoever sees zero may write all of them.
        if self.left.load(Ordering::Acquire) == 1 {
            // Ours is the last, so nobody else writes this. What the others did was acquired, and
            // goes on from here.
            self.left.store(0, Ordering::Release);
        } else {
            self.left.fetch_sub(1, Ordering::Release);
        }
        Ok(slot)
    }

    /// If all outcomes have been fetched, the cell is for another batch: its slots, none, with the
    /// room they had. Called under the batcher's lock, of a cell that is over.
    pub(crate) fn reopen(&self) -> Option<Slots<T, R, E>> {
        if self.left.load(Ordering::Acquire) > 0 && !removed(Mutant::ReopenUnfetched) {
            return None;
        }
        self.over.store(false, Ordering::Relaxed);
        // SAFETY: the batcher's lock is held, and `left`, read with Acquire, is zero (1).
        let slots = self
            .slots
            .with_mut(|slots| std::mem::take(unsafe { &mut *slots }));
        Some(slots.emptied())
    }
}
