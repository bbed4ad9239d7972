//! From hashes to slots: a table of buckets of one line of memory each, with fifteen cells of 32
//! bits, all of which are looked at together.
//!
//! A cell is, from the top: a bit that says it is used; how far it is from where it wants to be; the
//! low bits of its hash; its slot. What finds no cell in the bucket it wants goes to the next that
//! has one, and is counted in those that it passed. A look-up ends at a bucket that nothing of its
//! kind has passed, nearly always the first. A cell that becomes free is given to one that passed.
//! So neither a look-up that fails nor a removal looks at entries.
//!
//! After the F14 tables (Bronson, Shi: "Open-sourcing F14", Facebook Engineering 2019).

use crate::line::{Line, prefetch};

/// Cells of a bucket.
const CELLS: usize = 15;
/// Behind them: how many slots are in later buckets because this one was full, by three bits of
/// their hashes in four bits each.
const PASSED: usize = 15;
/// So many or more.
const MANY: u32 = 15;
/// Entries for each bucket, as many as are expected in all.
const SIZED: usize = 12;
/// Entries for each bucket from which on there are more buckets.
const FULL: usize = 13;
const USED: u32 = 1 << 31;
/// Three buckets, or more.
const FAR: u32 = 3 * ONE_FURTHER;
const ONE_FURTHER: u32 = 1 << 29;
/// The most slots that cells can name, with three bits of the hash beside.
pub(crate) const MAX_SLOTS: usize = 1 << 26;
const LEAST: usize = 2;

const EMPTY: Line = Line([0; 16]);
const ALL_CELLS: u32 = (1 << CELLS) - 1;

/// What look-ups read comes first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Index {
    buckets: Box<[Line]>,
    /// How many bits of a cell are its slot.
    slot_bits: u32,
    len: u32,
    /// How many buckets there are once as many entries as expected are in it.
    expected: usize,
}

impl Index {
    /// `expected` is how many entries there will be; it may get more.
    pub(crate) fn new(expected: usize) -> Self {
        Self {
            buckets: Box::default(),
            slot_bits: 1,
            len: 0,
            expected: buckets_for(expected),
        }
    }

    pub(crate) fn expect(&mut self, entries: usize) {
        self.expected = buckets_for(entries);
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len as usize
    }

    #[inline(always)]
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * self.buckets.len() as u64) >> 32) as usize
    }

    #[inline(always)]
    fn next(&self, at: usize) -> usize {
        if at + 1 == self.buckets.len() {
            0
        } else {
            at + 1
        }
    }

    /// What a cell of this hash has above its slot: those bits that do not say its bucket.
    #[inline(always)]
    fn mark(&self, hash: u32) -> u32 {
        (hash << self.slot_bits) & !FAR | USED
    }

    #[inline(always)]
    fn slot_mask(&self) -> u32 {
        (1 << self.slot_bits) - 1
    }

    /// The first slot under this hash of which `is_it` holds. It is asked of slots whose hash
    /// probably is this one.
    #[inline(always)]
    pub(crate) fn find(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let home = self.home(hash);
        let bucket = self.buckets.get(home)?;
        let found = self.find_in(bucket, hash, &mut is_it);
        if found.is_none() && bucket.0[PASSED] & passers(hash) != 0 {
            return self.find_further(home, hash, is_it);
        }
        found
    }

    #[cold]
    fn find_further(
        &self,
        home: usize,
        hash: u32,
        mut is_it: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        let mut at = self.next(home);
        // Each bucket once, even if something has passed each.
        while at != home {
            let bucket = &self.buckets[at];
            let found = self.find_in(bucket, hash, &mut is_it);
            if found.is_some() || bucket.0[PASSED] & passers(hash) == 0 {
                return found;
            }
            at = self.next(at);
        }
        None
    }

    #[inline(always)]
    fn find_in(
        &self,
        bucket: &Line,
        hash: u32,
        is_it: &mut impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        let slots = self.slot_mask();
        let mut matches = bucket.matches(!(slots | FAR), self.mark(hash)) & ALL_CELLS;
        while matches != 0 {
            let slot = bucket.0[matches.trailing_zeros() as usize % 16] & slots;
            if is_it(slot) {
                return Some(slot);
            }
            matches &= matches - 1;
        }
        None
    }

    /// Has the processor fetch where a key of that hash is looked for first.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u32) {
        prefetch(self.buckets.as_ptr().wrapping_add(self.home(hash)));
    }

    /// Adds a slot that is not in it. `hash_of` says the hashes of those that are.
    #[inline]
    pub(crate) fn insert(&mut self, hash: u32, slot: u32, hash_of: impl Fn(u32) -> u32) {
        let len = self.len as usize;
        if len >= self.buckets.len() * FULL || slot >> self.slot_bits != 0 {
            self.grow(slot, hash_of);
        }
        self.place(hash, slot);
        self.len += 1;
    }

    #[cold]
    fn grow(&mut self, slot: u32, hash_of: impl Fn(u32) -> u32) {
        let slots: Vec<u32> = self.slots().collect();
        let mut buckets = self.buckets.len();
        if slots.len() >= buckets * FULL {
            buckets = if buckets < self.expected {
                (buckets * 2).clamp(LEAST, self.expected)
            } else {
                buckets + buckets / 16 + 1
            };
        }
        let most = slots.iter().copied().max().unwrap_or(0).max(slot);
        self.slot_bits = (u32::BITS - most.leading_zeros()).max(1);
        self.buckets = Box::default();
        self.buckets = vec![EMPTY; buckets].into_boxed_slice();
        for slot in slots {
            self.place(hash_of(slot), slot);
        }
    }

    /// There is a cell for it: fewer are used than there are.
    #[inline]
    fn place(&mut self, hash: u32, slot: u32) {
        let mut cell = self.mark(hash) | slot;
        let mut at = self.home(hash);
        loop {
            let bucket = &mut self.buckets[at];
            let free = bucket.matches(u32::MAX, 0) & ALL_CELLS;
            if free != 0 {
                bucket.0[free.trailing_zeros() as usize % 16] = cell;
                return;
            }
            if bucket.0[PASSED] & passers(hash) < passers(hash) {
                bucket.0[PASSED] += passers(hash) / MANY;
            }
            if cell & FAR < FAR {
                cell += ONE_FURTHER;
            }
            at = self.next(at);
        }
    }

    /// Takes out a slot that is in it.
    #[inline]
    pub(crate) fn remove(&mut self, hash: u32, slot: u32) {
        let cell = self.mark(hash) | slot;
        let mut at = self.home(hash);
        for _ in 0..self.buckets.len() {
            let bucket = &mut self.buckets[at];
            let matches = bucket.matches(!FAR, cell) & ALL_CELLS;
            if matches != 0 {
                let free = matches.trailing_zeros() as usize % 16;
                bucket.0[free] = 0;
                self.len -= 1;
                if bucket.0[PASSED] != 0 {
                    self.fill(at, free);
                }
                return;
            }
            self.passes_no_more(at, hash);
            at = self.next(at);
        }
    }

    /// One that was counted here is here no more, or further on. Of many nobody knows when the
    /// last one is gone.
    fn passes_no_more(&mut self, at: usize, hash: u32) {
        let bucket = &mut self.buckets[at];
        if bucket.0[PASSED] & passers(hash) < passers(hash) {
            bucket.0[PASSED] -= passers(hash) / MANY;
        }
    }

    /// Gives a free cell to one in the next bucket that passed this one, and so on.
    fn fill(&mut self, mut at: usize, mut free: usize) {
        for _ in 0..self.buckets.len() {
            let next = self.next(at);
            let passed = |distance: u32| {
                let distance = distance * ONE_FURTHER;
                self.buckets[next].matches(USED | FAR, USED | distance) & ALL_CELLS
            };
            let matches = passed(1) | passed(2);
            if matches == 0 {
                return;
            }
            let from = matches.trailing_zeros() as usize % 16;
            let cell = std::mem::take(&mut self.buckets[next].0[from]);
            self.buckets[at].0[free] = cell - ONE_FURTHER;
            self.passes_no_more(at, cell >> self.slot_bits);
            (at, free) = (next, from);
            if self.buckets[at].0[PASSED] == 0 {
                return;
            }
        }
    }

    fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        let cells = self.buckets.iter().flat_map(|bucket| &bucket.0[..CELLS]);
        let used = cells.filter(|&&cell| cell != 0);
        used.map(|&cell| cell & self.slot_mask())
    }

    /// Empties it, and gives its memory back.
    pub(crate) fn clear(&mut self) {
        self.buckets = Box::default();
        self.slot_bits = 1;
        self.len = 0;
    }
}

/// Where slots of this hash are counted: the most that can be.
#[inline(always)]
fn passers(hash: u32) -> u32 {
    MANY << (4 * (hash & 7))
}

fn buckets_for(entries: usize) -> usize {
    entries.min(MAX_SLOTS).div_ceil(SIZED).max(LEAST)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// `hashes[slot]` is the slot's hash.
    fn check(index: &Index, hashes: &[u32], held: &HashSet<u32>) {
        assert_eq!(index.len(), held.len());
        for (slot, &hash) in (0..).zip(hashes) {
            let found = index.find(hash, |other| other == slot);
            assert_eq!(found.is_some(), held.contains(&slot), "{slot}");
        }
        let slots: HashSet<u32> = index.slots().collect();
        assert_eq!(&slots, held);
    }

    fn churn(hashes: &[u32], expected: usize) {
        let mut index = Index::new(expected);
        let mut held = HashSet::new();
        let mut rng = fastrand::Rng::with_seed(7);
        for step in 0..20_000 {
            let slot = rng.u32(..hashes.len() as u32);
            if held.remove(&slot) {
                index.remove(hashes[slot as usize], slot);
            } else {
                index.insert(hashes[slot as usize], slot, |slot| hashes[slot as usize]);
                held.insert(slot);
            }
            if step % 1_000 == 0 {
                check(&index, hashes, &held);
            }
        }
        check(&index, hashes, &held);
        index.clear();
        check(&index, hashes, &HashSet::new());
    }

    #[test]
    fn what_is_in_it_is_found_and_nothing_else() {
        let mut rng = fastrand::Rng::with_seed(1);
        let hashes: Vec<u32> = (0..500).map(|_| rng.u32(..)).collect();
        churn(&hashes, 250);
        churn(&hashes, 10_000);
    }

    #[test]
    fn keys_of_one_hash_are_told_apart() {
        churn(&[u32::MAX; 200], 100);
        churn(&[0; 200], 100);
        let mut rng = fastrand::Rng::with_seed(1);
        let few: Vec<u32> = (0..300).map(|_| rng.u32(..4) << 30).collect();
        churn(&few, 300);
    }

    #[test]
    fn few_are_displaced_however_many_came_and_went() {
        let n = 12_000;
        let mut rng = fastrand::Rng::with_seed(3);
        let mut hashes: Vec<u32> = (0..n).map(|_| rng.u32(..)).collect();
        let mut index = Index::new(n);
        for (slot, &hash) in (0..).zip(&hashes) {
            index.insert(hash, slot, |slot| hashes[slot as usize]);
        }
        for _ in 0..200_000 {
            let slot = rng.usize(..n);
            index.remove(hashes[slot], slot as u32);
            hashes[slot] = rng.u32(..);
            index.insert(hashes[slot], slot as u32, |slot| hashes[slot as usize]);
        }
        let cells = index.buckets.iter().flat_map(|bucket| &bucket.0[..CELLS]);
        let displaced = cells.filter(|&&cell| cell & FAR != 0).count();
        assert!(displaced * 10 < n, "{displaced}");
    }
}
