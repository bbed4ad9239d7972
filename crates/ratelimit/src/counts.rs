//! Counting without a shared write.
//!
//! Each thread with a small id has a line of its own, which nobody else writes: a load and a store
//! count. An id is only given to another thread once its holder has ended, so no count is lost. The
//! threads beyond share one line, with an atomic addition.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use overdrive_core::thread_slot;

/// The least and the most lines there are.
const LINES: (usize, usize) = (4, 64);

/// `N` counts that any thread adds to.
#[derive(Debug)]
pub(crate) struct Counts<const N: usize> {
    own: Box<[Line<N>]>,
    shared: Line<N>,
}

#[derive(Debug)]
#[repr(align(64))]
struct Line<const N: usize>([AtomicU64; N]);

impl<const N: usize> Line<N> {
    fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl<const N: usize> Counts<N> {
    pub(crate) fn new() -> Self {
        let own = (0..lines()).map(|_| Line::new()).collect();
        Self {
            own,
            shared: Line::new(),
        }
    }

    #[inline(always)]
    pub(crate) fn add(&self, which: usize, n: u64) {
        // Neither of the two marks of `current` is the number of a line, counted from one.
        let at = (thread_slot::current() as usize).wrapping_sub(1);
        match self.own.get(at) {
            Some(line) => {
                let count = line.0[which].load(Ordering::Relaxed);
                line.0[which].store(count.wrapping_add(n), Ordering::Relaxed);
            }
            None => self.add_shared(which, n),
        }
    }

    #[cold]
    fn add_shared(&self, which: usize, n: u64) {
        if thread_slot::current() == thread_slot::UNREGISTERED {
            thread_slot::register();
        }
        self.shared.0[which].fetch_add(n, Ordering::Relaxed);
    }

    /// The sum. Exact for what happened before.
    pub(crate) fn sum(&self, which: usize) -> u64 {
        self.own.iter().chain([&self.shared]).fold(0, |sum, line| {
            sum.wrapping_add(line.0[which].load(Ordering::Relaxed))
        })
    }
}

/// Twice as many as the machine has cores: there are threads that do not work.
fn lines() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    let cores = CORES.get_or_init(|| std::thread::available_parallelism().map_or(4, Into::into));
    (2 * cores).clamp(LINES.0, LINES.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_count_is_lost_however_many_threads_there_are() {
        let counts = Counts::<2>::new();
        std::thread::scope(|scope| {
            for _ in 0..3 * lines() {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        counts.add(0, 1);
                        counts.add(1, 2);
                    }
                });
            }
        });
        let all = 3 * lines() as u64 * 1000;
        assert_eq!((counts.sum(0), counts.sum(1)), (all, 2 * all));
    }
}
