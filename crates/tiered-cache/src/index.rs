//! From hashes to slots: a table of 32-bit cells, Robin Hood hashing with linear probing
//! (Celis, Larson, Munro: "Robin Hood hashing", FOCS 1985).
//!
//! A cell is, from the top: the distance from where it wants to be plus one, in five bits; the
//! low bits of its hash; its slot. Zero is an empty cell. So neither a look-up that fails nor a
//! removal looks at entries, and four fifths of the cells may be in use.
//!
//! Keys that would have to go further than the distance can say, which takes many equal hashes,
//! are in a list beside.

/// How many distances there are.
const TAIL: usize = 31;
/// Cells from the last home on, so that no probe wraps around; whole groups.
const REACH: usize = 32;
/// Cells that are looked at together.
const GROUP: usize = 4;
const DISTANCE_SHIFT: u32 = 27;
const ONE_FURTHER: u32 = 1 << DISTANCE_SHIFT;
/// The most slots that cells can name.
pub(crate) const MAX_SLOTS: usize = 1 << DISTANCE_SHIFT;
const LEAST_HOMES: usize = 16;

/// What look-ups read comes first.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Index {
    cells: Vec<u32>,
    homes: u32,
    slot_bits: u32,
    len: usize,
    beside: Vec<u32>,
    /// How many homes there are once as many entries as expected are in it.
    expected_homes: usize,
}

impl Index {
    /// `expected` is how many entries there will be; it may get more.
    pub(crate) fn new(expected: usize) -> Self {
        Self {
            cells: Vec::new(),
            homes: 0,
            expected_homes: homes_for(expected),
            slot_bits: 1,
            len: 0,
            beside: Vec::new(),
        }
    }

    pub(crate) fn expect(&mut self, entries: usize) {
        self.expected_homes = homes_for(entries);
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn home(&self, hash: u32) -> usize {
        ((u64::from(hash) * u64::from(self.homes)) >> 32) as usize
    }

    /// What a cell of this hash has above its slot, at a distance of zero.
    #[inline]
    fn mark(&self, hash: u32) -> u32 {
        let tag_bits = DISTANCE_SHIFT - self.slot_bits;
        (1 << tag_bits) | (hash & ((1 << tag_bits) - 1))
    }

    #[inline]
    fn slot(&self, cell: u32) -> u32 {
        cell & ((1 << self.slot_bits) - 1)
    }

    /// The first slot under this hash of which `is_it` holds. It is asked of slots whose hash
    /// probably is this one.
    #[inline(always)]
    pub(crate) fn find(&self, hash: u32, mut is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let home = self.home(hash);
        let mut cells = self.cells.get(home..home + REACH)?;
        let slots = (1_u32 << self.slot_bits) - 1;
        let mut mark = self.mark(hash) << self.slot_bits;
        let mut reached = 0;
        // All of a group at once, as where in it the key is cannot be foreseen.
        while let Some((group, rest)) = cells.split_first_chunk::<GROUP>() {
            let [a, b, c, d] = *group;
            let is = |cell: u32, at: u32| {
                u32::from(cell & !slots == mark.wrapping_add(at << DISTANCE_SHIFT)) << at
            };
            let mut matches = is(a, 0) | is(b, 1) | is(c, 2) | is(d, 3);
            if reached == (REACH - GROUP) as u32 {
                // No distance says the last one.
                matches &= (1 << (GROUP - 1)) - 1;
            }
            while matches != 0 {
                let slot = group[matches.trailing_zeros() as usize % GROUP] & slots;
                if is_it(slot) {
                    return Some(slot);
                }
                matches &= matches - 1;
            }
            // One that wanted to be further back than this key is where it would be.
            reached += GROUP as u32;
            if d >> DISTANCE_SHIFT < reached || reached == REACH as u32 {
                break;
            }
            mark = mark.wrapping_add((GROUP as u32) << DISTANCE_SHIFT);
            cells = rest;
        }
        if self.beside.is_empty() {
            return None;
        }
        self.beside.iter().copied().find(|&slot| is_it(slot))
    }

    /// Adds a slot that is not in it. `hash_of` says the hashes of those that are.
    pub(crate) fn insert(&mut self, hash: u32, slot: u32, hash_of: impl Fn(u32) -> u32) {
        let full = (self.len + 1) * 5 > self.homes as usize * 4;
        if full || slot >> self.slot_bits != 0 {
            self.grow(full, slot, hash_of);
        }
        self.place(hash, slot);
        self.len += 1;
    }

    fn grow(&mut self, full: bool, slot: u32, hash_of: impl Fn(u32) -> u32) {
        let slots: Vec<u32> = self.slots().collect();
        if full {
            let homes = self.homes as usize;
            let homes = if homes < self.expected_homes {
                (homes * 2).clamp(LEAST_HOMES, self.expected_homes)
            } else {
                homes + homes / 16 + 1
            };
            self.homes = homes as u32;
        }
        let most = slots.iter().copied().max().unwrap_or(0).max(slot);
        self.slot_bits = (u32::BITS - most.leading_zeros()).max(1);
        self.cells = Vec::new();
        self.cells = vec![0; self.homes as usize + REACH];
        self.beside.clear();
        for slot in slots {
            self.place(hash_of(slot), slot);
        }
    }

    fn place(&mut self, hash: u32, slot: u32) {
        let home = self.home(hash);
        let cell = (self.mark(hash) << self.slot_bits) | slot;
        for distance in 0..TAIL as u32 {
            let at = home + distance as usize;
            if self.cells[at] >> DISTANCE_SHIFT > distance {
                continue;
            }
            // Those from here on move one further, up to the first gap.
            let run = self.cells[at..].iter().position(|&cell| cell == 0);
            let Some(run) = run else { break };
            let moved = at..at + run;
            let last = TAIL as u32;
            if (self.cells[moved.clone()].iter()).any(|&cell| cell >> DISTANCE_SHIFT == last) {
                break;
            }
            self.cells.copy_within(moved, at + 1);
            for cell in &mut self.cells[at + 1..=at + run] {
                *cell += ONE_FURTHER;
            }
            self.cells[at] = cell + distance * ONE_FURTHER;
            return;
        }
        self.beside.push(slot);
    }

    /// Takes out a slot that is in it.
    pub(crate) fn remove(&mut self, hash: u32, slot: u32) {
        let home = self.home(hash);
        let found = self.cells.get(home..home + REACH).and_then(|cells| {
            let mask = (1 << self.slot_bits) - 1;
            let (mut cells, mut at) = (cells, 0);
            while let Some((group, rest)) = cells.split_first_chunk::<GROUP>() {
                let mut matches = 0_u32;
                for (at, &cell) in group.iter().enumerate() {
                    // An empty cell is zero, which says no slot only together with its distance.
                    let is_match = (cell & mask == slot) & (cell != 0);
                    matches |= u32::from(is_match) << at;
                }
                if matches != 0 {
                    return Some(at + matches.trailing_zeros() as usize);
                }
                at += GROUP;
                cells = rest;
            }
            None
        });
        if let Some(distance) = found {
            let mut at = home + distance;
            while let Some(&next) = self.cells.get(at + 1) {
                if next < 2 * ONE_FURTHER {
                    break;
                }
                self.cells[at] = next - ONE_FURTHER;
                at += 1;
            }
            self.cells[at] = 0;
            self.len -= 1;
        } else if let Some(at) = self.beside.iter().position(|&other| other == slot) {
            self.beside.swap_remove(at);
            self.len -= 1;
        }
    }

    fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        let cells = self.cells.iter().filter(|&&cell| cell != 0);
        let beside = self.beside.iter().copied();
        cells.map(|&cell| self.slot(cell)).chain(beside)
    }

    /// Empties it, and gives its memory back.
    pub(crate) fn clear(&mut self) {
        self.cells = Vec::new();
        self.beside = Vec::new();
        self.homes = 0;
        self.len = 0;
        self.slot_bits = 1;
    }
}

fn homes_for(entries: usize) -> usize {
    (entries.min(MAX_SLOTS) * 5 / 4 + 1).max(LEAST_HOMES)
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
}
