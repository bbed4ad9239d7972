//! Slots, by the bucket.

use std::array;

use crate::gcra::Arrival;
use crate::sync::{AtomicU64, Ordering};

/// Slots of a bucket, which is two cache lines.
pub(super) const BUCKET: usize = if cfg!(overdrive_loom) { 1 } else { 8 };

/// Slots of a cache line.
const LINE: usize = if cfg!(overdrive_loom) { 1 } else { 4 };

/// The tag of a slot that nobody has had.
pub(super) const FREE: u64 = 0;
/// The tag of a slot that changes hands.
pub(super) const BUSY: u64 = 1;

#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Bucket(pub(super) [Slot; BUCKET]);

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) tag: AtomicU64,
    pub(super) arrival: AtomicU64,
}

impl Bucket {
    pub(super) fn new() -> Self {
        Self(array::from_fn(|_| Slot {
            tag: AtomicU64::new(FREE),
            arrival: AtomicU64::new(0),
        }))
    }

    #[inline(always)]
    pub(super) fn find(&self, tag: u64) -> Option<&Slot> {
        // By line: the second is only touched if need be. And within a line without a branch for
        // each slot, none of which could be foreseen.
        self.0.chunks_exact(LINE).find_map(|line| {
            let mut found = 0_u32;
            for (i, slot) in line.iter().enumerate() {
                found |= u32::from(slot.tag.load(Ordering::Relaxed) == tag) << i;
            }
            line.get(found.trailing_zeros() as usize)
        })
    }
}

impl Slot {
    #[inline(always)]
    pub(super) fn replace(&self, arrival: Arrival, next: Arrival) -> bool {
        self.arrival
            .compare_exchange(arrival, next, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Takes the slot from the owner of `tag`, unless that one charges it meanwhile.
    pub(super) fn claim(&self, tag: u64, arrival: Arrival, next: Arrival, own: u64) -> bool {
        let taken = self
            .tag
            .compare_exchange(tag, BUSY, Ordering::AcqRel, Ordering::Relaxed);
        if taken.is_err() {
            return false;
        }
        let claimed = self.replace(arrival, next);
        self.tag
            .store(if claimed { own } else { tag }, Ordering::Release);
        claimed
    }
}
