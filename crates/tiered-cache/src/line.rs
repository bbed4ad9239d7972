//! A line of memory, and what the processor can do with it at once.
//!
//! # Why unsafe code
//! The instructions are those of every x86-64 processor, but the functions that stand for them are
//! unsafe to call. In place of them the compiler takes cell after cell: a look-up of 183
//! instructions takes 217 then, an insertion of 1150 takes 1370. Without fetching ahead an insertion
//! into a full cache takes a quarter longer.
#![allow(unsafe_code, reason = "instructions of the processor")]

/// Sixteen cells.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u32; 16]);

impl Line {
    /// Bit by bit, which cells are that one under the mask.
    #[inline(always)]
    pub(crate) fn matches(&self, mask: u32, cell: u32) -> u32 {
        #[cfg(all(target_arch = "x86_64", not(miri)))]
        {
            self.matches_at_once(mask, cell)
        }
        #[cfg(not(all(target_arch = "x86_64", not(miri))))]
        {
            self.matches_one_by_one(mask, cell)
        }
    }

    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline(always)]
    fn matches_at_once(&self, mask: u32, cell: u32) -> u32 {
        use std::arch::x86_64::{
            __m128i, _mm_and_si128, _mm_cmpeq_epi32, _mm_load_si128, _mm_movemask_epi8,
            _mm_packs_epi16, _mm_packs_epi32, _mm_set1_epi32,
        };
        let cells = self.0.as_ptr().cast::<__m128i>();
        // SAFETY: SSE2 belongs to x86-64. The four loads are of the sixteen cells, which are
        // aligned to 64 bytes.
        unsafe {
            let (mask, cell) = (_mm_set1_epi32(mask as i32), _mm_set1_epi32(cell as i32));
            let four = |at: usize| {
                let cells = _mm_load_si128(cells.add(at));
                _mm_cmpeq_epi32(_mm_and_si128(cells, mask), cell)
            };
            let low = _mm_packs_epi32(four(0), four(1));
            let high = _mm_packs_epi32(four(2), four(3));
            _mm_movemask_epi8(_mm_packs_epi16(low, high)) as u32
        }
    }

    #[cfg(any(test, miri, not(target_arch = "x86_64")))]
    fn matches_one_by_one(&self, mask: u32, cell: u32) -> u32 {
        let each = self.0.iter().enumerate();
        each.fold(0, |matches, (at, &other)| {
            matches | u32::from(other & mask == cell) << at
        })
    }
}

/// Asks the processor to fetch what is there, if anything is.
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a hint, which may be about any address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_at_once_is_one_by_one() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..10_000 {
            let mask = rng.u32(..) & rng.u32(..) & rng.u32(..);
            let line = Line(std::array::from_fn(|_| rng.u32(..4) << rng.u32(..32)));
            let cell = line.0[rng.usize(..16)] & mask;
            assert_eq!(
                line.matches(mask, cell),
                line.matches_one_by_one(mask, cell)
            );
        }
    }
}
