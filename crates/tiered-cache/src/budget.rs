//! The weight that all shards have together, and how much of it is taken.
//!
//! Whoever stores an entry takes its weight first, here or from an entry that goes; whoever takes
//! an entry out gives its weight back after. So what is stored never weighs more than is taken,
//! and that never more than there is, unless there has just become less of it.

use crate::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug)]
pub(crate) struct Budget {
    max: AtomicU64,
    taken: AtomicU64,
}

impl Budget {
    pub(crate) fn new(max: u64) -> Self {
        Self {
            max: AtomicU64::new(max),
            taken: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(crate) fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }

    /// Another bound; more than that may be taken still.
    pub(crate) fn set_max(&self, max: u64) {
        self.max.store(max, Ordering::SeqCst);
    }

    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::SeqCst)
    }

    /// Whether there was so much left, which is taken then.
    ///
    /// Nothing is handed over through these counters but what they count. All the same they are
    /// in one order, so that a taker sees a bound that has just become lower, or whoever lowered
    /// it sees what was taken.
    #[inline]
    pub(crate) fn take(&self, weight: u64) -> bool {
        let max = self.max();
        let more = |taken: u64| taken.checked_add(weight).filter(|&sum| sum <= max);
        let order = Ordering::SeqCst;
        let Ok(before) = self.taken.fetch_update(order, order, more) else {
            return false;
        };
        let fits = before + weight <= self.max.load(Ordering::SeqCst);
        if !fits {
            self.give(weight);
        }
        fits
    }

    /// Takes so much, or else what there is.
    pub(crate) fn take_some(&self, weight: u64) -> u64 {
        let left = self.max().saturating_sub(self.taken());
        let some = weight.min(left);
        if some > 0 && self.take(some) { some } else { 0 }
    }

    #[inline]
    pub(crate) fn give(&self, weight: u64) {
        if weight > 0 {
            self.taken.fetch_sub(weight, Ordering::SeqCst);
        }
    }
}

/// Weight that is taken, and not yet anybody's. Dropped, it is given back.
pub(crate) struct Spare<'a> {
    budget: &'a Budget,
    pub(crate) weight: u64,
}

impl<'a> Spare<'a> {
    pub(crate) fn none(budget: &'a Budget) -> Self {
        Self { budget, weight: 0 }
    }

    /// Gives back what is left.
    pub(crate) fn give(&mut self) {
        self.budget.give(std::mem::take(&mut self.weight));
    }
}

impl Drop for Spare<'_> {
    fn drop(&mut self) {
        self.give();
    }
}

#[cfg(all(test, overdrive_loom))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    fn two_writers(take: fn(&Budget) -> bool) {
        loom::model(move || {
            let budget = Arc::new(Budget::new(1));
            let held = Arc::new(AtomicU64::new(0));
            let writer = || {
                let (budget, held) = (Arc::clone(&budget), Arc::clone(&held));
                move || {
                    if take(&budget) {
                        assert!(
                            held.fetch_add(1, Ordering::Relaxed) < 1,
                            "more than there is"
                        );
                        held.fetch_sub(1, Ordering::Relaxed);
                        budget.give(1);
                    }
                }
            };
            let other = thread::spawn(writer());
            writer()();
            other.join().unwrap();
            assert_eq!(budget.taken(), 0);
        });
    }

    #[test]
    fn loom_two_writers_never_have_more_than_there_is() {
        two_writers(|budget| budget.take(1));
    }

    #[test]
    #[should_panic(expected = "more than there is")]
    fn loom_two_writers_have_too_much_if_they_look_before_they_take() {
        two_writers(|budget| {
            let free = budget.taken() < budget.max();
            if free {
                budget.taken.fetch_add(1, Ordering::Relaxed);
            }
            free
        });
    }
}

#[cfg(all(test, overdrive_shuttle))]
mod schedules {
    use std::sync::Arc;

    use shuttle::thread;

    use super::*;

    /// Whoever lowers the bound has to see what is taken under the higher one. Loom does not know
    /// the one order of all that this takes.
    fn a_lower_bound(take: fn(&Budget) -> bool) {
        let model = move || {
            let budget = Arc::new(Budget::new(2));
            assert!(budget.take(1));
            let taker = {
                let budget = Arc::clone(&budget);
                thread::spawn(move || take(&budget))
            };
            budget.set_max(1);
            let seen = budget.taken();
            let took = taker.join().unwrap();
            assert!(seen > 1 || !took, "taken unseen");
            assert_eq!(budget.taken(), 1 + u64::from(took));
        };
        shuttle::check_dfs(model, None);
    }

    #[test]
    fn shuttle_nothing_is_taken_unseen_under_a_lower_bound() {
        a_lower_bound(|budget| budget.take(1));
    }

    #[test]
    #[should_panic(expected = "taken unseen")]
    fn shuttle_it_is_if_the_taker_does_not_look_again() {
        a_lower_bound(|budget| {
            let max = budget.max();
            let more = |taken| Some(taken + 1).filter(|&sum| sum <= max);
            let order = Ordering::SeqCst;
            budget.taken.fetch_update(order, order, more).is_ok()
        });
    }
}
