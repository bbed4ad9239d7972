//! Values at places that never move, so that they are reached without a lock.

use std::sync::OnceLock;

/// As many values has the first chunk; each further one has twice as many as the one before.
const FIRST: u32 = 8;

/// As many chunks as it takes to number a value for each item that a batcher can hold.
const CHUNKS: usize = 28;

/// Made as needed, and kept until the end.
pub(crate) struct Slab<C> {
    chunks: [OnceLock<Box<[C]>>; CHUNKS],
}

impl<C: Default> Slab<C> {
    pub(crate) fn new() -> Self {
        Self {
            chunks: [const { OnceLock::new() }; CHUNKS],
        }
    }

    /// The value of that number, which is made if it does not exist.
    pub(crate) fn get(&self, number: u32) -> &C {
        let (chunk, place) = locate(number);
        let make = || (0..FIRST << chunk).map(|_| C::default()).collect();
        &self.chunks[chunk].get_or_init(make)[place]
    }
}

fn locate(number: u32) -> (usize, usize) {
    let shifted = number + FIRST;
    let chunk = shifted.ilog2() - FIRST.ilog2();
    (chunk as usize, (shifted - (FIRST << chunk)) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_place_of_its_own() {
        let mut expected = (0, 0);
        for number in 0..10_000 {
            assert_eq!(locate(number), expected);
            expected.1 += 1;
            if expected.1 == (FIRST as usize) << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
        assert!(locate(crate::builder::MAX_CAPACITY as u32 * 2).0 < CHUNKS);
    }
}
