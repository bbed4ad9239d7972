//! The split deque: a thread's open joins, the oldest of which others may take.
//!
//! After Lace (van Dijk, van de Pol, "Lace: Non-blocking Split Deque for Work-Stealing", 2014).
//! Jobs `0..split` are public, `split..head` private to the owner; thieves have taken `0..tail`.
//! `head` and the owner's copy of `split` are its own, so a private job comes and goes by plain
//! loads and stores. `tail` and `split` share a word, which thieves change to take the oldest
//! public job, and the owner to publish one or to take one back. One job is kept public, the oldest,
//! which is the largest piece of a recursion: whoever leaves none (a thief that takes the last, the
//! owner that takes it back) sets `want`, and the owner publishes at its next push. So of the joins
//! of a recursion only the outermost, and those after a theft, pay for sharing.
//!
//! A place is used again only when its job has ended, and a thief reads it after it has taken the
//! job. So a word that was seen, changed and restored by others in between (ABA) does no harm: the
//! thief takes what is there by then.

use std::ptr;

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Mutant, Ordering, removed};

/// What the places hold. The deque never looks behind it.
pub(crate) type Job<H> = *mut H;

pub(crate) struct SplitDeque<H> {
    mine: CachePadded<Mine>,
    want: CachePadded<AtomicBool>,
    /// `split` in the upper half, `tail` in the lower.
    word: CachePadded<AtomicU64>,
    places: Box<[AtomicPtr<H>]>,
}

/// Written by the owner only.
struct Mine {
    head: AtomicU32,
    split: AtomicU32,
    /// For how many pushes to wake nobody, and after the next job that came back.
    leave: AtomicU32,
    patience: AtomicU32,
}

/// The most pushes that wake nobody after somebody was woken in vain.
const MOST_PATIENCE: u32 = 1023;

/// What became of a job that its owner wants back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Popped {
    /// It is the owner's again.
    Back,
    /// A thief has it. Its place stays taken until [`SplitDeque::release`].
    Stolen,
}

const SPLIT: u64 = 1 << 32;

const fn halves(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

const fn word_at(index: u32) -> u64 {
    (index as u64) << 32 | index as u64
}

impl<H> SplitDeque<H> {
    pub(crate) fn new(places: u32) -> Self {
        Self {
            mine: CachePadded::new(Mine {
                head: AtomicU32::new(0),
                split: AtomicU32::new(0),
                leave: AtomicU32::new(0),
                patience: AtomicU32::new(0),
            }),
            want: CachePadded::new(AtomicBool::new(true)),
            word: CachePadded::new(AtomicU64::new(0)),
            places: (0..places)
                .map(|_| AtomicPtr::new(ptr::null_mut()))
                .collect(),
        }
    }

    /// Owner: adds a private job and returns its place; none if there is none left.
    #[inline]
    pub(crate) fn push(&self, job: Job<H>) -> Option<u32> {
        let head = self.mine.head.load(Ordering::Relaxed);
        let place = self.places.get(head as usize)?;
        place.store(job, Ordering::Relaxed);
        self.mine.head.store(head + 1, Ordering::Relaxed);
        Some(head)
    }

    /// Owner: whether there is no public job, or somebody is still to be woken for the one there is.
    #[inline]
    pub(crate) fn is_wanted(&self) -> bool {
        self.want.load(Ordering::Relaxed)
    }

    /// Owner: whether to wake nobody yet: what it published before came back, as its jobs were over
    /// before anybody came for them.
    pub(crate) fn is_patient(&self) -> bool {
        let leave = self.mine.leave.load(Ordering::Relaxed);
        self.mine
            .leave
            .store(leave.saturating_sub(1), Ordering::Relaxed);
        leave > 0
    }

    /// Owner: makes its oldest private job public, if there is no public one.
    pub(crate) fn publish(&self) {
        let split = self.mine.split.load(Ordering::Relaxed);
        let (_, tail) = halves(self.word.load(Ordering::Relaxed));
        if tail < split || split == self.mine.head.load(Ordering::Relaxed) {
            return;
        }
        self.mine.split.store(split + 1, Ordering::Relaxed);
        let order = if removed(Mutant::RelaxedPublish) {
            Ordering::Relaxed
        } else {
            Ordering::Release
        };
        self.word.fetch_add(SPLIT, order);
    }

    /// Owner: is about to publish a job and to wake somebody for it. Before that, as a thief that
    /// takes the job says again that there is none.
    pub(crate) fn satisfied(&self) {
        self.want.store(false, Ordering::Relaxed);
    }

    /// There is no public job, or nobody has been woken for it.
    pub(crate) fn want(&self) {
        self.want.store(true, Ordering::Relaxed);
    }

    /// Owner: takes back its newest job, which is at `index`.
    #[inline]
    pub(crate) fn pop(&self, index: u32) -> Popped {
        if index < self.mine.split.load(Ordering::Relaxed) {
            return self.take_back(index);
        }
        self.mine.head.store(index, Ordering::Relaxed);
        Popped::Back
    }

    #[cold]
    #[inline(never)]
    fn take_back(&self, index: u32) -> Popped {
        // Newer jobs are gone, and took `split` with them.
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let (split, tail) = halves(word);
            debug_assert_eq!(split, index + 1);
            if tail == split && !removed(Mutant::TakeBackBlindly) {
                self.mine.patience.store(0, Ordering::Relaxed);
                self.mine.leave.store(0, Ordering::Relaxed);
                return Popped::Stolen;
            }
            let taken = self.word.compare_exchange_weak(
                word,
                word - SPLIT,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            match taken {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        self.mine.split.store(index, Ordering::Relaxed);
        self.mine.head.store(index, Ordering::Relaxed);
        self.want();
        let patience = self.mine.patience.load(Ordering::Relaxed);
        self.mine.leave.store(patience, Ordering::Relaxed);
        let more = (2 * patience + 1).min(MOST_PATIENCE);
        self.mine.patience.store(more, Ordering::Relaxed);
        Popped::Back
    }

    /// Owner: the stolen job at `index`, its newest, has ended; the place is free.
    pub(crate) fn release(&self, index: u32) {
        self.mine.split.store(index, Ordering::Relaxed);
        self.mine.head.store(index, Ordering::Relaxed);
        // All older ones are stolen too. No thief finds anything public until the next publish.
        self.word.store(word_at(index), Ordering::Release);
        self.want();
    }

    /// How many jobs there are, taken ones included. For others than the owner a hint.
    pub(crate) fn len(&self) -> u32 {
        self.mine.head.load(Ordering::Relaxed)
    }

    /// Whether there is a public job. A hint.
    pub(crate) fn has_public(&self) -> bool {
        let (split, tail) = halves(self.word.load(Ordering::Relaxed));
        tail < split
    }

    /// Thief: takes the oldest public job, if its place is `from` or later.
    pub(crate) fn steal(&self, from: u32) -> Option<Job<H>> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let (split, tail) = halves(word);
            if tail >= split || tail < from {
                return None;
            }
            let taken = self.word.compare_exchange_weak(
                word,
                word + 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            match taken {
                Ok(_) => {
                    if tail + 1 == split {
                        self.want();
                    }
                    return Some(self.places[tail as usize].load(Ordering::Relaxed));
                }
                Err(now) => word = now,
            }
        }
    }
}

#[cfg(all(test, not(overdrive_loom)))]
mod tests {
    use super::*;

    fn job(n: usize) -> Job<u8> {
        ptr::without_provenance_mut(n)
    }

    /// As the owner does when it is wanted.
    fn share(deque: &SplitDeque<u8>) {
        assert!(deque.is_wanted());
        deque.satisfied();
        deque.publish();
    }

    #[test]
    fn one_job_is_public_the_others_are_private() {
        let deque = SplitDeque::new(4);
        assert_eq!(deque.push(job(1)), Some(0));
        assert_eq!(deque.steal(0), None);
        share(&deque);
        assert_eq!(deque.push(job(2)), Some(1));
        assert!(!deque.is_wanted());
        assert_eq!(deque.steal(0), Some(job(1)));
        assert_eq!(deque.steal(0), None);
        share(&deque);
        deque.publish();
        assert_eq!(deque.pop(1), Popped::Back);
        assert_eq!(deque.pop(0), Popped::Stolen);
        assert_eq!(deque.len(), 1);
        deque.release(0);
        assert_eq!(deque.len(), 0);
        assert!(deque.is_wanted());
    }

    #[test]
    fn a_public_job_that_nobody_took_comes_back() {
        let deque = SplitDeque::new(4);
        deque.push(job(1));
        share(&deque);
        deque.push(job(2));
        assert_eq!(deque.pop(1), Popped::Back);
        assert!(!deque.is_wanted());
        assert_eq!(deque.pop(0), Popped::Back);
        assert!(deque.is_wanted());
        assert_eq!(deque.steal(0), None);
    }

    #[test]
    fn after_jobs_that_came_back_nobody_is_woken_for_a_while() {
        let deque = SplitDeque::new(4);
        let mut patient = Vec::new();
        for _ in 0..6 {
            deque.push(job(1));
            patient.push(deque.is_patient());
            share(&deque);
            deque.pop(0);
        }
        assert_eq!(
            patient,
            [false, false, true, true, true, true],
            "0, 1, 3, .. pushes"
        );
        deque.push(job(1));
        share(&deque);
        deque.steal(0);
        assert_eq!(deque.pop(0), Popped::Stolen);
        deque.release(0);
        assert!(!deque.is_patient());
    }

    #[test]
    fn a_thief_may_be_told_where_to_begin() {
        let deque = SplitDeque::new(4);
        deque.push(job(1));
        share(&deque);
        assert_eq!(deque.steal(1), None);
        assert_eq!(deque.steal(0), Some(job(1)));
        deque.push(job(2));
        share(&deque);
        assert_eq!(deque.steal(1), Some(job(2)));
    }

    #[test]
    fn a_full_deque_takes_no_more() {
        let deque = SplitDeque::new(1);
        assert_eq!(deque.push(job(1)), Some(0));
        assert_eq!(deque.push(job(2)), None);
        assert_eq!(deque.pop(0), Popped::Back);
        assert_eq!(deque.push(job(3)), Some(0));
    }
}
