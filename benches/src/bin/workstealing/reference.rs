//! The limit.

use std::hint::black_box;

use crate::jobs::ForkJoin;

/// The same calls, without a pool.
pub(crate) struct Sequential;

impl ForkJoin for Sequential {
    fn new(_: usize) -> Self {
        Self
    }

    fn fib(&mut self, n: u64) -> u64 {
        sequential(n)
    }
}

fn sequential(n: u64) -> u64 {
    if n < 2 {
        return n;
    }
    sequential(black_box(n - 1)) + sequential(black_box(n - 2))
}
