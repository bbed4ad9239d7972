//! Hits and misses, counted without a shared write.

use std::sync::atomic::{AtomicU64, Ordering};

/// Threads with counters of their own; there are seldom more that live at once.
const OWN: usize = 32;

#[derive(Debug, Default)]
#[repr(align(128))]
struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
}

/// The counters of each thread, by its id of `thread_slot`, written by nobody else; and those of all others.
/// An id is given on only after its last holder has ended, so no count is lost.
#[derive(Debug)]
pub(crate) struct Tally {
    own: Box<[Counters]>,
    others: Counters,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            own: (0..OWN).map(|_| Counters::default()).collect(),
            others: Counters::default(),
        }
    }

    #[inline]
    pub(crate) fn hit(&self, id: u32) {
        self.add(id, |counters| &counters.hits);
    }

    #[inline]
    pub(crate) fn miss(&self, id: u32) {
        self.add(id, |counters| &counters.misses);
    }

    #[inline]
    fn add(&self, id: u32, counter: impl Fn(&Counters) -> &AtomicU64) {
        // Ids begin with one; that of a thread that ends is too large.
        if let Some(own) = self.own.get((id as usize).wrapping_sub(1)) {
            let own = counter(own);
            own.store(own.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        } else {
            counter(&self.others).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Hits and misses so far.
    pub(crate) fn sums(&self) -> (u64, u64) {
        let all = || self.own.iter().chain([&self.others]);
        let sum = |counter: fn(&Counters) -> &AtomicU64| {
            all().map(|c| counter(c).load(Ordering::Relaxed)).sum()
        };
        (sum(|c| &c.hits), sum(|c| &c.misses))
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use overdrive_core::thread_slot;

    use super::*;

    #[test]
    fn no_thread_loses_a_count() {
        let tally = Tally::new();
        for _ in 0..3 {
            thread::scope(|scope| {
                for _ in 0..OWN + 8 {
                    scope.spawn(|| (0..1_000).for_each(|_| tally.hit(thread_slot::register())));
                }
            });
        }
        tally.miss(thread_slot::register());
        assert_eq!(tally.sums(), (3_000 * (OWN as u64 + 8), 1));
    }
}
