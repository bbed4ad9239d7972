//! A table of cells by hash, of fixed size and without a lock on the way of those who are in it.
//!
//! A key has two buckets of eight slots, and lies in one of them. A slot is a tag (the key's hash)
//! and an arrival time, and belongs to whoever's tag it has. One whose arrival time has passed owes
//! nothing, which is what a key that was never seen owes: so its slot is free, and there is nothing
//! to sweep.
//!
//! # Protocol
//! 1. **Charge.** Who finds its tag reads the arrival time, *then* the tag once more, and replaces the
//!    arrival time by compare-exchange. If the tag was still there, the arrival time was its own; if
//!    the slot changes hands after that, the exchange fails, by 3.
//! 2. **Claim.** Who does not find its tag takes the lock of its stripe, so that no key is put in
//!    twice, and looks again. Then it takes a free slot from whoever has it: tag to [`BUSY`], arrival
//!    time from the one that has passed to its own first charge, tag to its own. If the arrival time
//!    moved meanwhile the former key is back, and gets its tag back.
//! 3. Arrival times of a slot only grow, across its owners: a first charge starts at the present,
//!    past the one that it replaces. (But for a reset.)

use std::array;

use overdrive_core::Timestamp;

use crate::gcra::{Arrival, Gcra};
use crate::sync::{AtomicU64, Mutant, Mutex, Ordering, removed};

/// Slots of a bucket, which is two cache lines.
const BUCKET: usize = if cfg!(overdrive_loom) { 1 } else { 8 };

/// Slots of a cache line.
const LINE: usize = if cfg!(overdrive_loom) { 1 } else { 4 };

/// A bucket with fewer keys that owe something takes a new one without a look at the other.
const ROOMY: i32 = 5;

const STRIPES: usize = if cfg!(overdrive_loom) { 1 } else { 64 };

/// The tag of a slot that nobody has had.
const FREE: u64 = 0;
/// The tag of a slot that changes hands.
const BUSY: u64 = 1;

#[derive(Debug)]
pub(crate) struct Table {
    buckets: Box<[Bucket]>,
    stripes: [Mutex<()>; STRIPES],
}

#[derive(Debug)]
#[repr(align(128))]
struct Bucket([Slot; BUCKET]);

#[derive(Debug)]
struct Slot {
    tag: AtomicU64,
    arrival: AtomicU64,
}

/// A slot that owes nothing, as it was read.
struct Free<'t> {
    slot: &'t Slot,
    tag: u64,
    arrival: Arrival,
}

/// A key by its hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    tag: u64,
    first: usize,
    second: usize,
}

/// What came of a charge.
#[derive(Debug)]
pub(crate) enum Charge {
    Allowed {
        reclaimed: bool,
    },
    Denied(Arrival),
    /// All slots that the key may lie in are taken by keys that owe something.
    Full,
}

/// What to do when all slots are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenFull {
    Refuse,
    /// Take the slot of the key that owes least, and its debt.
    Evict,
}

impl Table {
    /// Room for so many slots at least.
    pub(crate) fn new(slots: usize) -> Self {
        let buckets = slots.div_ceil(BUCKET).max(2);
        Self {
            buckets: (0..buckets).map(|_| Bucket::new()).collect(),
            stripes: array::from_fn(|_| Mutex::new(())),
        }
    }

    pub(crate) fn slots(&self) -> usize {
        self.buckets.len() * BUCKET
    }

    /// Where the key of that hash lies.
    #[inline(always)]
    pub(crate) fn key(&self, hash: u64) -> Key {
        // Once more, for hash functions that leave parts of their 64 bits alike.
        let wide = u128::from(hash ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
        let mixed = (wide >> 64) as u64 ^ wide as u64;
        let buckets = self.buckets.len() as u64;
        let first = reduce(mixed, buckets);
        // One of the others.
        let by = 1 + reduce(mixed.rotate_left(32), buckets - 1);
        let second = first + by;
        let second = if second < buckets {
            second
        } else {
            second - buckets
        };
        Key {
            tag: if mixed > BUSY { mixed } else { mixed + 2 },
            first: first as usize,
            second: second as usize,
        }
    }

    #[inline(always)]
    fn bucket(&self, bucket: usize) -> &[Slot; BUCKET] {
        &self.buckets[bucket].0
    }

    fn candidates(&self, key: Key) -> impl Iterator<Item = &Slot> {
        self.bucket(key.first).iter().chain(self.bucket(key.second))
    }

    /// The key's slot. A tag that is read may be out of date by the time that it is used.
    #[inline(always)]
    fn find(&self, key: Key) -> Option<&Slot> {
        self.find_in(key.first, key.tag)
            .or_else(|| self.find_in(key.second, key.tag))
    }

    #[inline(always)]
    fn find_in(&self, bucket: usize, tag: u64) -> Option<&Slot> {
        // By line: the second is only touched if need be. And within a line without a branch for
        // each slot, none of which could be foreseen.
        self.bucket(bucket).chunks_exact(LINE).find_map(|line| {
            let mut found = 0_u32;
            for (i, slot) in line.iter().enumerate() {
                found |= u32::from(slot.tag.load(Ordering::Relaxed) == tag) << i;
            }
            line.get(found.trailing_zeros() as usize)
        })
    }

    /// Takes tokens worth `cost` of the key's, if they are there.
    #[inline(always)]
    pub(crate) fn charge(
        &self,
        key: Key,
        gcra: &Gcra,
        now: Timestamp,
        cost: u64,
        when_full: WhenFull,
    ) -> Charge {
        let units = gcra.units(now);
        if let Some(slot) = self.find(key) {
            if let Some(charge) = slot.charge(key, gcra, units, cost) {
                return charge;
            }
        }
        self.enter(key, gcra, units, cost, when_full)
    }

    #[inline(never)]
    fn enter(&self, key: Key, gcra: &Gcra, units: u64, cost: u64, when_full: WhenFull) -> Charge {
        let stripe = &self.stripes[key.tag as usize % STRIPES];
        let lock = stripe.lock();
        let _unlocked_for_a_control = if removed(Mutant::EnterUnlocked) {
            drop(lock);
            None
        } else {
            Some(lock)
        };
        loop {
            // It can have been put in, or be on its way back after somebody tried to take its slot.
            if let Some(slot) = self.find(key) {
                if let Some(charge) = slot.charge(key, gcra, units, cost) {
                    return charge;
                }
                continue;
            }
            let (free, busy) = self.free(key, units);
            if let Some(Free { slot, tag, arrival }) = free {
                let Some(next) = gcra.admit(arrival, units, cost) else {
                    return Charge::Denied(arrival);
                };
                if slot.claim(tag, arrival, next, key.tag) {
                    return Charge::Allowed {
                        reclaimed: tag != FREE,
                    };
                }
            } else if busy {
                // One of them may be ours.
                std::hint::spin_loop();
                std::thread::yield_now();
            } else if when_full == WhenFull::Refuse {
                return Charge::Full;
            } else if let Some(charge) = self.evict(key, gcra, units, cost) {
                return charge;
            }
        }
    }

    /// A slot of nobody's, or of the one who has owed nothing for longest. And whether any changes
    /// hands just now.
    fn free(&self, key: Key, units: u64) -> (Option<Free<'_>>, bool) {
        let mut busy = false;
        let mut look = |bucket| {
            let (mut live, mut free) = (0, None::<Free<'_>>);
            for slot in self.bucket(bucket) {
                let arrival = slot.arrival.load(Ordering::Acquire);
                let tag = slot.tag.load(Ordering::Acquire);
                if tag == BUSY || arrival > units {
                    busy |= tag == BUSY;
                    live += 1;
                } else if free.as_ref().is_none_or(|free| arrival < free.arrival) {
                    free = Some(Free { slot, tag, arrival });
                }
            }
            (live, free)
        };
        let (live, free) = look(key.first);
        if live < ROOMY && free.as_ref().is_some_and(|free| free.tag == FREE) {
            return (free, busy);
        }
        let (other_live, other_free) = look(key.second);
        let better = match (free, other_free) {
            (Some(one), Some(other)) => {
                // Evenly filled buckets overflow last; and who rested a moment may come back.
                let other_first = match (one.tag == FREE, other.tag == FREE) {
                    (true, true) => other_live < live,
                    _ if live.abs_diff(other_live) > 1 => other_live < live,
                    _ => other.arrival < one.arrival,
                };
                Some(if other_first { other } else { one })
            }
            (one, other) => one.or(other),
        };
        (better, busy)
    }

    /// Takes the slot of the key that owes least, and owes that too. `None` if it moved.
    fn evict(&self, key: Key, gcra: &Gcra, units: u64, cost: u64) -> Option<Charge> {
        let seen = self.candidates(key).map(|slot| {
            let arrival = slot.arrival.load(Ordering::Acquire);
            (arrival, slot.tag.load(Ordering::Acquire), slot)
        });
        let (arrival, tag, slot) = seen.min_by_key(|(arrival, ..)| *arrival)?;
        if tag == BUSY {
            return None;
        }
        let Some(next) = gcra.admit(arrival, units, cost) else {
            return Some(Charge::Denied(arrival));
        };
        slot.claim(tag, arrival, next, key.tag)
            .then_some(Charge::Full)
    }

    /// What the key owes, if it is held.
    pub(crate) fn look(&self, key: Key) -> Option<Arrival> {
        let slot = self.find(key)?;
        let arrival = slot.arrival.load(Ordering::Acquire);
        (slot.tag.load(Ordering::Acquire) == key.tag).then_some(arrival)
    }

    /// Forgets what the key owes: whether it owed anything.
    pub(crate) fn forget(&self, key: Key, units: u64) -> bool {
        let Some(slot) = self.find(key) else {
            return false;
        };
        loop {
            let arrival = slot.arrival.load(Ordering::Acquire);
            if slot.tag.load(Ordering::Acquire) != key.tag || arrival <= units {
                return false;
            }
            if slot.replace(arrival, units) {
                return true;
            }
        }
    }

    /// How many keys owe something. Looks at all slots.
    pub(crate) fn live(&self, units: u64) -> usize {
        let slots = self.buckets.iter().flat_map(|bucket| &bucket.0);
        slots
            .filter(|slot| slot.arrival.load(Ordering::Relaxed) > units)
            .count()
    }
}

impl Bucket {
    fn new() -> Self {
        Self(array::from_fn(|_| Slot {
            tag: AtomicU64::new(FREE),
            arrival: AtomicU64::new(0),
        }))
    }
}

impl Slot {
    /// `None` if it is no longer the key's.
    #[inline(always)]
    fn charge(&self, key: Key, gcra: &Gcra, units: u64, cost: u64) -> Option<Charge> {
        loop {
            // Acquire: with another owner's arrival time comes the tag that it set before.
            let arrival = self.arrival.load(Ordering::Acquire);
            let trusted = removed(Mutant::TrustTheTag);
            if !trusted && self.tag.load(Ordering::Relaxed) != key.tag {
                return None;
            }
            let Some(next) = gcra.admit(arrival, units, cost) else {
                return Some(Charge::Denied(arrival));
            };
            if self.replace(arrival, next) {
                return Some(Charge::Allowed { reclaimed: false });
            }
        }
    }

    #[inline(always)]
    fn replace(&self, arrival: Arrival, next: Arrival) -> bool {
        self.arrival
            .compare_exchange(arrival, next, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Takes the slot from the owner of `tag`, unless that one charges it meanwhile.
    fn claim(&self, tag: u64, arrival: Arrival, next: Arrival, own: u64) -> bool {
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

/// Spreads 64 bits evenly over `0..n`.
#[inline(always)]
fn reduce(bits: u64, n: u64) -> u64 {
    ((u128::from(bits) * u128::from(n)) >> 64) as u64
}
