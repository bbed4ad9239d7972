//! Who sleeps and who searches, and the one who pushes work wakes only if it must.
//!
//! One word per 48 workers: a bit for each that sleeps, and above them the *tokens*, one for each
//! that searches. Who pushes work fences, then looks: if somebody searches, that one will find the
//! work, or look again after it has said that it sleeps. So nothing is lost, and a burst of work
//! wakes one worker, which wakes the next when it finds something (as Go's scheduler and tokio's
//! do). Waking gives the sleeper a token in the same step that clears its bit, so that the next
//! push need not wake another.
//!
//! A worker that finds work after it has said that it sleeps takes its bit back. If somebody was
//! faster, it has a token to account for.
//!
//! The lowest worker is woken first: the others sleep on, long enough to end where they may.

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicU64, Mutant, Ordering, fence, removed};

/// Workers per word.
const GROUP: usize = 48;
const SLEEPERS: u64 = (1 << GROUP) - 1;
const TOKEN: u64 = 1 << GROUP;

pub(crate) struct Sleep {
    groups: Box<[CachePadded<AtomicU64>]>,
}

impl Sleep {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            groups: (0..workers.div_ceil(GROUP))
                .map(|_| CachePadded::new(AtomicU64::new(0)))
                .collect(),
        }
    }

    /// Worker: takes a token, if fewer than `most` of its group have one.
    pub(crate) fn begin_search(&self, worker: usize, most: u64) -> bool {
        let (group, _) = self.place(worker);
        let mut word = group.load(Ordering::Relaxed);
        while word / TOKEN < most {
            let taken = group.compare_exchange_weak(
                word,
                word + TOKEN,
                Ordering::SeqCst,
                Ordering::Relaxed,
            );
            match taken {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Worker: gives its token back, as it found something. Whether it was the last of its group,
    /// which has to wake the next.
    pub(crate) fn end_search(&self, worker: usize) -> bool {
        let (group, _) = self.place(worker);
        let word = group.fetch_sub(TOKEN, Ordering::SeqCst);
        debug_assert!(word >= TOKEN);
        word / TOKEN == 1
    }

    /// Worker: says that it sleeps, giving back its token if it has one. It must look for work once
    /// more before it does.
    pub(crate) fn fall_asleep(&self, worker: usize, searching: bool) {
        let (group, bit) = self.place(worker);
        let token = if searching { TOKEN } else { 0 };
        // The bit is clear: this sets it, and takes the token off, in one step.
        group.fetch_add(bit.wrapping_sub(token), Ordering::SeqCst);
        if !removed(Mutant::SleepUnseen) {
            fence(Ordering::SeqCst);
        }
    }

    /// Worker: is awake again. Whether somebody woke it, so that it has a token.
    pub(crate) fn wake_up(&self, worker: usize) -> bool {
        let (group, bit) = self.place(worker);
        let word = group.fetch_and(!bit, Ordering::SeqCst);
        word & bit == 0 && !removed(Mutant::DropToken)
    }

    /// Worker: whether nobody has woken it. If not so, it has a token.
    pub(crate) fn is_asleep(&self, worker: usize) -> bool {
        let (group, bit) = self.place(worker);
        group.load(Ordering::Acquire) & bit != 0
    }

    /// After a push: the worker to unpark, if one must be. It has been given a token.
    pub(crate) fn wake_one(&self) -> Option<usize> {
        fence(Ordering::SeqCst);
        if let [group] = &*self.groups {
            return Self::wake_in(group);
        }
        self.wake_one_of_many()
    }

    fn wake_one_of_many(&self) -> Option<usize> {
        let searching = |group: &CachePadded<AtomicU64>| group.load(Ordering::Relaxed) >= TOKEN;
        if self.groups.iter().any(searching) {
            return None;
        }
        let mut groups = self.groups.iter().enumerate();
        groups.find_map(|(n, group)| Some(n * GROUP + Self::wake_in(group)?))
    }

    #[inline]
    fn wake_in(group: &AtomicU64) -> Option<usize> {
        let mut word = group.load(Ordering::Relaxed);
        loop {
            // Somebody searches, or nobody sleeps.
            if word >= TOKEN || word == 0 {
                return None;
            }
            let bit = word & word.wrapping_neg();
            let woken = group.compare_exchange_weak(
                word,
                (word & !bit) + TOKEN,
                Ordering::SeqCst,
                Ordering::Relaxed,
            );
            match woken {
                Ok(_) => return Some(bit.trailing_zeros() as usize),
                Err(now) => word = now,
            }
        }
    }

    /// The lowest sleeper, whoever searches. It has been given a token.
    pub(crate) fn wake_another(&self) -> Option<usize> {
        for (n, group) in self.groups.iter().enumerate() {
            let mut word = group.load(Ordering::SeqCst);
            while word & SLEEPERS != 0 {
                let bit = word & word.wrapping_neg();
                let woken = group.compare_exchange_weak(
                    word,
                    (word & !bit) + TOKEN,
                    Ordering::SeqCst,
                    Ordering::SeqCst,
                );
                match woken {
                    Ok(_) => return Some(n * GROUP + bit.trailing_zeros() as usize),
                    Err(now) => word = now,
                }
            }
        }
        None
    }

    /// Whether a push would have to wake somebody.
    pub(crate) fn has_to_wake(&self) -> bool {
        let mut all = self.groups.iter().map(|g| g.load(Ordering::Relaxed));
        all.clone().all(|word| word < TOKEN) && all.any(|word| word != 0)
    }

    /// How many sleep. A hint.
    pub(crate) fn sleeping(&self) -> usize {
        let sleepers = |group: &CachePadded<AtomicU64>| group.load(Ordering::Relaxed) & SLEEPERS;
        let counts = self
            .groups
            .iter()
            .map(|g| sleepers(g).count_ones() as usize);
        counts.sum()
    }

    /// Whether nobody sleeps and nobody has a token.
    #[cfg(all(test, overdrive_loom))]
    pub(crate) fn is_clear(&self) -> bool {
        self.groups
            .iter()
            .all(|group| group.load(Ordering::SeqCst) == 0)
    }

    fn place(&self, worker: usize) -> (&AtomicU64, u64) {
        (&self.groups[worker / GROUP], 1 << (worker % GROUP))
    }
}

#[cfg(all(test, not(overdrive_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_push_wakes_the_lowest_sleeper_and_only_one() {
        let sleep = Sleep::new(60);
        assert_eq!(sleep.wake_one(), None);
        for worker in [50, 3, 7] {
            sleep.fall_asleep(worker, false);
        }
        assert_eq!(sleep.sleeping(), 3);
        assert_eq!(sleep.wake_one(), Some(3));
        assert_eq!(sleep.wake_one(), None, "3 searches");
        assert!(sleep.end_search(3));
        assert_eq!(sleep.wake_one(), Some(7));
        assert_eq!(sleep.wake_another(), Some(50));
        assert!(!sleep.is_asleep(50) && sleep.end_search(50));
    }

    #[test]
    fn only_so_many_search() {
        let sleep = Sleep::new(4);
        assert!(sleep.begin_search(0, 2) && sleep.begin_search(1, 2));
        assert!(!sleep.begin_search(2, 2));
        assert!(!sleep.end_search(0));
        assert!(sleep.end_search(1));
    }

    #[test]
    fn who_wakes_by_itself_learns_whether_it_was_woken() {
        let sleep = Sleep::new(1);
        assert!(sleep.begin_search(0, 1));
        sleep.fall_asleep(0, true);
        assert!(sleep.is_asleep(0));
        assert!(!sleep.wake_up(0));
        sleep.fall_asleep(0, false);
        assert_eq!(sleep.wake_one(), Some(0));
        assert!(sleep.wake_up(0) && sleep.end_search(0));
    }
}
