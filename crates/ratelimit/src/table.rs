//! A table of cells by hash, of fixed size and without a lock on the way of those who are in it.
//!
//! A key has two buckets of eight slots and lies in one of them, or, when both are full of keys that
//! owe something, in its bucket of a small third part. A slot is a tag (the key's hash) and an arrival
//! time, and belongs to whoever's tag it has. One whose arrival time has passed owes nothing, which
//! is what a key that was never seen owes: so its slot is free, and there is nothing to sweep.
//!
//! A new key takes the bucket with fewer keys that owe something (Azar, Broder, Karlin and Upfal,
//! "Balanced allocations", 1999). At the documented load two in a thousand find both full, and the
//! third part has room for eight times as many.
//!
//! # Protocol
//! 1. **Charge.** Who finds its tag reads the arrival time, *then* the tag once more, and replaces the
//!    arrival time by compare-exchange. If the tag was still there, the arrival time was its own; if
//!    the slot changes hands after that, the exchange fails, by 3.
//! 2. **Claim.** Who does not find its tag takes the lock of its stripe, so that no key is put in
//!    twice, and looks again, until none of the slots that the key may lie in is [`BUSY`]: one of
//!    these may be the key's own, on its way back. Then it takes a free slot from whoever has it: tag
//!    to [`BUSY`], arrival time from the one that has passed to its own first charge, tag to its own.
//!    If the arrival time moved meanwhile the former key is back, and gets its tag back.
//! 3. Arrival times of a slot only grow, across its owners: a first charge starts at the present,
//!    past the one that it replaces. (But for a reset.)
//! 4. **Change.** Who changes the terms holds all stripes, so no slot changes hands. It makes
//!    `version` odd and replaces every arrival time by one of the new terms, above all that there
//!    were; who read the older terms finds, after the arrival time, another version.

mod slot;

use std::array;
use std::sync::PoisonError;

use self::slot::{BUCKET, BUSY, Bucket, FREE, Slot};
use crate::gcra::Arrival;
use crate::sync::{AtomicU64, Mutant, Mutex, MutexGuard, Ordering, fence, removed, yield_now};

/// One bucket of the third part for so many others. In models there are two others, and the rest is
/// of the third part.
const BUCKETS_PER_SPILL: usize = 64;

/// A bucket in which fewer keys owe something is not spared.
const ROOMY: i32 = if cfg!(overdrive_loom) { 1 } else { 5 };

const STRIPES: usize = if cfg!(overdrive_loom) { 2 } else { 64 };

#[derive(Debug)]
pub(crate) struct Table {
    /// The third part at the end.
    buckets: Box<[Bucket]>,
    /// How many buckets are not of the third part.
    main: usize,
    /// Of the terms; odd while they change.
    version: AtomicU64,
    stripes: [Mutex<()>; STRIPES],
}

/// A slot that owes nothing, as it was read.
struct Free<'t> {
    slot: &'t Slot,
    tag: u64,
    arrival: Arrival,
}

/// Whether a key is held.
enum Seek<'t> {
    Found(&'t Slot),
    /// A slot that changes hands may be its own.
    Busy,
    Absent,
}

/// A key by its hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) tag: u64,
    first: usize,
    second: usize,
}

/// What a charge costs at the present moment.
pub(crate) trait Terms {
    /// The arrival time after the charge, if it is allowed.
    fn admit(&self, arrival: Arrival) -> Option<Arrival>;

    /// Whether a key with that arrival time owes nothing.
    fn is_idle(&self, arrival: Arrival) -> bool;

    /// What a key owes that is not held, as the arrival time.
    fn owed(&self) -> Arrival {
        0
    }

    /// There is no room: whether it is allowed all the same.
    ///
    /// # Errors
    /// The arrival time by which it is not.
    fn full(&self) -> Result<(), Arrival>;
}

/// What came of a charge.
#[derive(Debug)]
pub(crate) enum Charge {
    Allowed {
        reclaimed: bool,
    },
    Denied(Arrival),
    /// All slots that the key may lie in are taken by keys that owe something: what the terms say to
    /// that.
    Full(Result<(), Arrival>),
    /// It was allowed in the place of another.
    Evicted,
    /// There are other terms by now: to be tried again with these.
    Changed,
}

/// What to do when all slots are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenFull {
    Refuse,
    /// Take the slot of the key that owes least, and its debt.
    Evict,
}

/// All stripes.
pub(crate) struct Locked<'t>(#[expect(dead_code, reason = "held")] [MutexGuard<'t, ()>; STRIPES]);

impl Table {
    /// Room for so many slots at least.
    pub(crate) fn new(slots: usize) -> Self {
        let (main, spill) = if cfg!(overdrive_loom) {
            (2, slots.saturating_sub(2))
        } else {
            let main = slots.div_ceil(BUCKET).max(2);
            (main, main.div_ceil(BUCKETS_PER_SPILL))
        };
        Self {
            buckets: (0..main + spill).map(|_| Bucket::new()).collect(),
            main,
            version: AtomicU64::new(0),
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
        let buckets = self.main as u64;
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

    /// The key's bucket of the third part.
    #[inline(always)]
    fn spill(&self, key: Key) -> Option<usize> {
        let spills = (self.buckets.len() - self.main) as u64;
        let at = reduce(key.tag.rotate_left(16), spills) as usize;
        (spills > 0).then_some(self.main + at)
    }

    fn buckets_of(&self, key: Key) -> impl Iterator<Item = usize> {
        [key.first, key.second].into_iter().chain(self.spill(key))
    }

    fn candidates(&self, key: Key) -> impl Iterator<Item = &Slot> {
        self.buckets_of(key).flat_map(|bucket| self.bucket(bucket))
    }

    /// The key's slot, but for the third part. A tag that is read may be out of date by the time that
    /// it is used.
    #[inline(always)]
    fn find(&self, key: Key) -> Option<&Slot> {
        self.find_in(key.first, key.tag)
            .or_else(|| self.find_in(key.second, key.tag))
    }

    fn find_anywhere(&self, key: Key) -> Option<&Slot> {
        self.find(key)
            .or_else(|| self.find_in(self.spill(key)?, key.tag))
    }

    #[inline(always)]
    fn find_in(&self, bucket: usize, tag: u64) -> Option<&Slot> {
        self.buckets[bucket].find(tag)
    }

    /// Waits for the end of a change.
    pub(crate) fn wait(&self) {
        drop(self.stripes[0].lock());
    }

    /// Zero until the terms are first changed.
    #[inline(always)]
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Whether what was read since that version was of it.
    #[inline(always)]
    pub(crate) fn is(&self, version: u64) -> bool {
        self.version.load(Ordering::Relaxed) == version
    }

    /// Charges a key that is held: `None` if it is not, as far as is seen. What is in
    /// [`Terms::admit`] for [`enter`](Self::enter), as a closure that stays in registers.
    #[inline(always)]
    pub(crate) fn charge(
        &self,
        key: Key,
        version: u64,
        admit: impl Fn(Arrival) -> Option<Arrival>,
    ) -> Option<Charge> {
        let slot = self.find(key)?;
        self.charge_slot(slot, key, version, admit)
    }

    /// `None` if the slot is no longer the key's, or the terms are no longer these.
    #[inline(always)]
    fn charge_slot(
        &self,
        slot: &Slot,
        key: Key,
        version: u64,
        admit: impl Fn(Arrival) -> Option<Arrival>,
    ) -> Option<Charge> {
        loop {
            // Acquire: with another owner's arrival time comes the tag that it set before, and with
            // one of other terms their version.
            let arrival = slot.arrival.load(Ordering::Acquire);
            let trusted = removed(Mutant::TrustTheTag);
            if !trusted && slot.tag.load(Ordering::Relaxed) != key.tag {
                return None;
            }
            if !self.is(version) && !removed(Mutant::TrustTheQuota) {
                return None;
            }
            let Some(next) = admit(arrival) else {
                return Some(Charge::Denied(arrival));
            };
            if slot.replace(arrival, next) {
                return Some(Charge::Allowed { reclaimed: false });
            }
        }
    }

    fn stripe(&self, key: Key) -> MutexGuard<'_, ()> {
        let stripe = &self.stripes[key.tag as usize % STRIPES];
        stripe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Charges a key that was not found, and puts it in.
    pub(crate) fn enter(
        &self,
        key: Key,
        terms: &impl Terms,
        version: u64,
        when_full: WhenFull,
    ) -> Charge {
        let lock = self.stripe(key);
        let _unlocked_for_a_control = if removed(Mutant::EnterUnlocked) {
            drop(lock);
            None
        } else {
            Some(lock)
        };
        if !self.is(version) {
            return Charge::Changed;
        }
        loop {
            // It can have been put in, or be on its way back after somebody tried to take its slot.
            match self.seek(key) {
                Seek::Found(slot) => {
                    if let Some(charge) =
                        self.charge_slot(slot, key, version, |arrival| terms.admit(arrival))
                    {
                        return charge;
                    }
                    continue;
                }
                Seek::Busy if !removed(Mutant::PassTheBusy) => {
                    yield_now();
                    continue;
                }
                Seek::Busy | Seek::Absent => {}
            }
            if let Some(Free { slot, tag, arrival }) = self.free(key, terms) {
                let from = arrival.max(terms.owed());
                let Some(next) = terms.admit(from) else {
                    return Charge::Denied(from);
                };
                if slot.claim(tag, arrival, next, key.tag) {
                    return Charge::Allowed {
                        reclaimed: tag != FREE,
                    };
                }
            } else if when_full == WhenFull::Refuse {
                return Charge::Full(terms.full());
            } else if let Some(charge) = self.evict(key, terms) {
                return charge;
            }
        }
    }

    /// Looks for the key under the lock of its stripe. Each slot is read once: one that shows another
    /// key is not this one's and will not be.
    fn seek(&self, key: Key) -> Seek<'_> {
        let mut seek = Seek::Absent;
        let buckets = if removed(Mutant::SeekInTwo) { 2 } else { 3 };
        for bucket in self.buckets_of(key).take(buckets) {
            let bucket = self.bucket(bucket);
            let (mut found, mut busy) = (0_u32, false);
            for (i, slot) in bucket.iter().enumerate() {
                let tag = slot.tag.load(Ordering::Acquire);
                found |= u32::from(tag == key.tag) << i;
                busy |= tag == BUSY;
            }
            if let Some(slot) = bucket.get(found.trailing_zeros() as usize) {
                return Seek::Found(slot);
            }
            if busy {
                seek = Seek::Busy;
            }
        }
        seek
    }

    /// A slot of nobody's, or of the one who has owed nothing for longest, where fewest owe
    /// something; of the third part only if need be.
    fn free(&self, key: Key, terms: &impl Terms) -> Option<Free<'_>> {
        let look = |bucket| {
            let (mut live, mut free) = (0, None::<Free<'_>>);
            for slot in self.bucket(bucket) {
                let arrival = slot.arrival.load(Ordering::Acquire);
                let tag = slot.tag.load(Ordering::Acquire);
                if tag == BUSY || !terms.is_idle(arrival) {
                    live += 1;
                } else if free.as_ref().is_none_or(|free| arrival < free.arrival) {
                    free = Some(Free { slot, tag, arrival });
                }
            }
            (live, free)
        };
        let ((live, one), (other_live, other)) = (look(key.first), look(key.second));
        let other_first = match (&one, &other) {
            // Who rested a moment may come back, so while there is room the longest rest counts.
            (Some(one), Some(other)) if live.max(other_live) < ROOMY => other.arrival < one.arrival,
            _ => other_live < live,
        };
        let free = if other_first { other } else { one };
        free.or_else(|| look(self.spill(key)?).1)
    }

    /// Takes the slot of the key that owes least, and owes that too. `None` if it moved.
    fn evict(&self, key: Key, terms: &impl Terms) -> Option<Charge> {
        let seen = self.candidates(key).map(|slot| {
            let arrival = slot.arrival.load(Ordering::Acquire);
            (arrival, slot.tag.load(Ordering::Acquire), slot)
        });
        let (arrival, tag, slot) = seen.min_by_key(|(arrival, ..)| *arrival)?;
        if tag == BUSY {
            return None;
        }
        let Some(next) = terms.admit(arrival) else {
            return Some(Charge::Denied(arrival));
        };
        slot.claim(tag, arrival, next, key.tag)
            .then_some(Charge::Evicted)
    }

    /// What the key owes, if it is held.
    pub(crate) fn look(&self, key: Key) -> Option<Arrival> {
        let slot = self.find_anywhere(key)?;
        let arrival = slot.arrival.load(Ordering::Acquire);
        (slot.tag.load(Ordering::Acquire) == key.tag).then_some(arrival)
    }

    /// Forgets what the key owes, by terms that are read under its lock: whether it owed anything.
    pub(crate) fn forget(&self, key: Key, units: impl FnOnce() -> u64) -> bool {
        let _no_change = self.stripe(key);
        let units = units();
        let Some(slot) = self.find_anywhere(key) else {
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
    pub(crate) fn live(&self, is_idle: impl Fn(Arrival) -> bool) -> usize {
        let slots = self.buckets.iter().flat_map(|bucket| &bucket.0);
        slots
            .filter(|slot| !is_idle(slot.arrival.load(Ordering::Relaxed)))
            .count()
    }

    /// Keeps everybody from entering, and from other changes.
    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked(array::from_fn(|at| {
            self.stripes[at]
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        }))
    }

    /// The latest arrival time of all slots.
    pub(crate) fn latest(&self, _: &Locked<'_>) -> Arrival {
        let slots = self.buckets.iter().flat_map(|bucket| &bucket.0);
        let arrivals = slots.map(|slot| slot.arrival.load(Ordering::Acquire));
        arrivals.max().unwrap_or(0)
    }

    /// Changes the terms: `publish` makes them known, `convert` turns arrival times into theirs.
    pub(crate) fn change(
        &self,
        _: &Locked<'_>,
        publish: impl FnOnce(),
        convert: impl Fn(Arrival) -> Arrival,
    ) {
        let version = self.version.load(Ordering::Relaxed);
        self.version
            .store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        publish();
        for slot in self.buckets.iter().flat_map(|bucket| &bucket.0) {
            if slot.tag.load(Ordering::Relaxed) == FREE {
                continue;
            }
            loop {
                let arrival = slot.arrival.load(Ordering::Acquire);
                if slot.replace(arrival, convert(arrival)) {
                    break;
                }
            }
        }
        self.version
            .store(version.wrapping_add(2), Ordering::Release);
    }
}

/// Spreads 64 bits evenly over `0..n`.
#[inline(always)]
pub(crate) fn reduce(bits: u64, n: u64) -> u64 {
    ((u128::from(bits) * u128::from(n)) >> 64) as u64
}
