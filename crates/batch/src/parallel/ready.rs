//! Which places of a map were woken, and how its task is.

use std::ops::ControlFlow;
use std::sync::PoisonError;
use std::task::Waker;

use crate::sync::{AtomicU64, Mutant, Mutex, MutexGuard, Ordering, removed};

/// In the root: the task sleeps, so that whoever wakes a place must wake it.
const ASLEEP: u64 = 1 << 63;
/// Words or places under the root.
const ROOT: usize = 63;
/// Words or places under any other word.
const WORD: usize = 64;

/// A tree of bits: one for each place that was woken, and above them one for each word that may
/// have any, up to one root. Up to 63 places there is only the root.
///
/// # Protocol
/// 1. Any thread wakes a place: it sets its bit, and those above until it finds one set, whose
///    setter goes on from there.
/// 2. Who sets a bit of the root and finds `ASLEEP` there takes it away. Who gets it wakes the task.
/// 3. The task begins by exchanging the root for zero, and takes the words below, top-down: it sees
///    every bit that was set before the bit above it, and what was written before that.
/// 4. It ends by leaving its waker, setting `ASLEEP` and looking at the root as it was: bits that
///    came meanwhile found it awake, so it wakes itself.
pub(super) struct Ready {
    root: AtomicU64,
    /// From the places up to the words right under the root.
    levels: Vec<Box<[AtomicU64]>>,
    task: Mutex<Option<Waker>>,
}

impl Ready {
    /// For so many places. The task is awake.
    pub(super) fn new(places: usize) -> Self {
        let mut levels = Vec::new();
        let mut below = places;
        while below > ROOT {
            below = below.div_ceil(WORD);
            levels.push((0..below).map(|_| AtomicU64::new(0)).collect());
        }
        Self {
            root: AtomicU64::new(0),
            levels,
            task: Mutex::new(None),
        }
    }

    /// Marks a place, and wakes the task if it sleeps.
    pub(super) fn wake(&self, place: usize) {
        if self.mark(place) && self.root.fetch_and(!ASLEEP, Ordering::AcqRel) & ASLEEP != 0 {
            let task = self.task().take();
            if let Some(task) = task {
                task.wake();
            }
        }
    }

    /// Marks a place. Says whether the task was asleep; always false to the task itself.
    pub(super) fn mark(&self, place: usize) -> bool {
        let mut index = place;
        for level in &self.levels {
            let bit = 1 << (index % WORD);
            index /= WORD;
            if level[index].fetch_or(bit, Ordering::AcqRel) & bit != 0 {
                return false;
            }
        }
        let bit = 1 << index;
        let before = self.root.fetch_or(bit, Ordering::AcqRel);
        before & bit == 0 && before & ASLEEP != 0
    }

    /// Calls `each` with the places that are marked, which so no longer are. Places that are marked
    /// meanwhile may be among them or not. The task is awake from here on.
    pub(super) fn take<B>(&self, mut each: impl FnMut(usize) -> ControlFlow<B>) -> ControlFlow<B> {
        let bits = self.root.swap(0, Ordering::AcqRel) & !ASLEEP;
        self.visit(self.levels.len(), 0, bits, &mut each)
    }

    fn visit<B>(
        &self,
        level: usize,
        base: usize,
        mut bits: u64,
        each: &mut impl FnMut(usize) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        while bits != 0 {
            let index = base + bits.trailing_zeros() as usize;
            bits &= bits - 1;
            match level.checked_sub(1) {
                None => each(index)?,
                Some(below) => {
                    let bits = self.levels[below][index].swap(0, Ordering::AcqRel);
                    self.visit(below, index * WORD, bits, each)?;
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Puts the task to sleep; wakes it at once if a place is marked.
    pub(super) fn sleep(&self, waker: &Waker) {
        if self.root.load(Ordering::Relaxed) == 0 {
            self.leave(waker);
            let before = self.root.fetch_or(ASLEEP, Ordering::AcqRel);
            if before == 0 || removed(Mutant::SleepBlindly) {
                return;
            }
            if self.root.fetch_and(!ASLEEP, Ordering::AcqRel) & ASLEEP == 0 {
                // Another has it, and wakes.
                return;
            }
        }
        waker.wake_by_ref();
    }

    /// Nobody wakes the task any more; its waker is dropped.
    pub(super) fn end(&self) {
        let task = self.task().take();
        drop(task);
    }

    fn leave(&self, waker: &Waker) {
        let known = self.task().as_ref().is_some_and(|w| w.will_wake(waker));
        if !known {
            let own = waker.clone();
            let old = self.task().replace(own);
            drop(old);
        }
    }

    fn task(&self) -> MutexGuard<'_, Option<Waker>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the model's control has taken the look away that follows going to sleep.
#[cfg(test)]
#[cfg(not(overdrive_loom))]
mod tests {
    use super::*;

    fn taken(ready: &Ready) -> Vec<usize> {
        let mut places = Vec::new();
        let all = ready.take(|place| {
            places.push(place);
            ControlFlow::<()>::Continue(())
        });
        assert!(all.is_continue());
        places
    }

    #[test]
    fn marked_places_are_taken_once_whatever_their_number() {
        for places in [1, 63, 64, 65, 4032, 4033, 300_000] {
            let ready = Ready::new(places);
            let mut marked = vec![0, places / 2, places - 1];
            marked.dedup();
            for &place in marked.iter().chain(&marked) {
                ready.mark(place);
            }
            assert_eq!(taken(&ready), marked, "of {places}");
            assert!(taken(&ready).is_empty());
        }
    }
}

#[cfg(all(test, overdrive_loom))]
mod loom_models {
    use std::sync::Arc;
    use std::task::Wake;

    use loom::sync::atomic::AtomicUsize;
    use loom::thread;

    use super::*;
    use crate::sync::without;

    struct Unpark(thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    /// Each thread writes something and wakes its place; the task looks at what was written only
    /// when a place was marked, and sleeps until it has seen all. A lost wake is a deadlock.
    fn everything_is_seen(places: usize, woken: [usize; 2]) {
        loom::model(move || {
            let ready = Arc::new(Ready::new(places));
            let written = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
            let threads = [0, 1].map(|n| {
                let (ready, written) = (Arc::clone(&ready), Arc::clone(&written));
                thread::spawn(move || {
                    written[n].store(1, Ordering::Relaxed);
                    ready.wake(woken[n]);
                })
            });
            let waker = Waker::from(Arc::new(Unpark(thread::current())));
            let mut seen = [false; 2];
            loop {
                let all = ready.take(|place| {
                    for n in [0, 1] {
                        if woken[n] == place {
                            seen[n] |= written[n].load(Ordering::Relaxed) == 1;
                        }
                    }
                    ControlFlow::<()>::Continue(())
                });
                assert!(all.is_continue());
                if seen == [true; 2] {
                    break;
                }
                ready.sleep(&waker);
                thread::park();
            }
            for thread in threads {
                thread.join().unwrap();
            }
            ready.end();
        });
    }

    #[test]
    fn loom_no_wake_is_lost() {
        everything_is_seen(2, [0, 1]);
    }

    #[test]
    fn loom_no_wake_of_one_place_by_two_is_lost() {
        everything_is_seen(2, [1, 1]);
    }

    #[test]
    fn loom_no_wake_under_two_words_is_lost() {
        everything_is_seen(128, [0, 64]);
    }

    #[test]
    fn loom_no_wake_in_one_word_below_the_root_is_lost() {
        everything_is_seen(128, [0, 1]);
    }

    #[test]
    #[should_panic]
    fn loom_a_task_that_does_not_look_again_misses_one() {
        without(Mutant::SleepBlindly, || everything_is_seen(2, [0, 1]));
    }
}
