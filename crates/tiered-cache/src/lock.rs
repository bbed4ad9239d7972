//! A lock for readers and writers in which a reader's way in is one atomic exchange, and its way
//! out a plain store.
//!
//! Each thread has a flag in each lock, by its dense id, which nobody else writes. A reader raises
//! its flag and then looks whether somebody writes; a writer takes the lock and then looks at the
//! flags. Both steps of both are in the one order of sequentially consistent operations, so one of
//! the two sees the other (Dekker's algorithm). After the locks for many readers of Brandenburg and
//! Anderson ("Spin-based reader-writer synchronization for multiprocessor real-time systems",
//! Real-Time Systems 2010) and Dice and Kogan ("BRAVO", USENIX ATC 2019), which tell readers apart
//! in the same way.
//!
//! Threads with higher ids than there are flags share a counter, as in other locks.
//!
//! # Who waits
//! Readers and writers that wait for a writer spin a little and then sleep until they are woken. A
//! writer that waits for readers spins, yields, and then naps: a reader that leaves does not look
//! whether anybody waits for it, which is what makes leaving cheap. Readers do not stay for long,
//! but for a `Clone` or an `Eq` of the user's.
//!
//! # Why unsafe code
//! With the standard library's lock, whose readers need two atomic exchanges, a look-up of what
//! is in the nearest caches takes a seventh longer (13.3 and 15.5 ns, EPYC of family 26).
//!
//! # Invariants
//! 1. `state` is not `FREE` exactly while a thread is between `enter` and `leave`.
//! 2. Who holds a `WriteGuard` is between `enter` and `leave`, and has seen all flags down and no
//!    others since it entered.
//! 3. Who holds a `ReadGuard` has its flag up, or is one of the others; after it raised it, it has
//!    seen `state` at `FREE`, or it raised it between its own `enter` and `leave`.
//! 4. So while there is a `WriteGuard`, there is no other guard.
#![allow(unsafe_code, reason = "a lock")]

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use overdrive_core::thread_slot;

use crate::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use crate::sync::{Condvar, Mutex, UnsafeCell, lock, nap, spin, thread, wait};

#[cfg(not(overdrive_loom))]
const FLAGS: usize = 56;
#[cfg(overdrive_loom)]
const FLAGS: usize = 2;

const FREE: u32 = 0;
const TAKEN: u32 = 1;
/// Taken, and somebody sleeps.
const WANTED: u32 = 2;

const MODELLED: bool = cfg!(any(overdrive_loom, overdrive_shuttle));
const SPINS: u32 = if MODELLED { 0 } else { 100 };
const YIELDS: u32 = if MODELLED { u32::MAX } else { 100 };

/// What it guards begins on a line of its own, behind that of the flags.
#[repr(C)]
pub(crate) struct Lock<T> {
    gate: Gate,
    value: UnsafeCell<T>,
    sleepers: Mutex<()>,
    woken: Condvar,
}

#[repr(C, align(64))]
struct Gate {
    state: AtomicU32,
    /// Readers without a flag.
    others: AtomicU32,
    /// How many guards each thread has.
    flags: [AtomicU8; FLAGS],
}

// SAFETY: it gives out `&T` to several threads at a time, and `&mut T`, from which a `T` can be
// moved, to one at a time.
unsafe impl<T: Send + Sync> Sync for Lock<T> {}

/// Loom takes sequentially consistent accesses for weaker ones, and needs a fence. So its models do
/// not tell whether the accesses around this are strong enough: all four of them must be
/// sequentially consistent.
#[inline(always)]
fn in_one_order() {
    #[cfg(overdrive_loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
}

#[must_use]
pub(crate) struct ReadGuard<'a, T> {
    lock: &'a Lock<T>,
    /// Raised; it is the thread's own.
    flag: Option<&'a AtomicU8>,
    /// The flag is that of this thread.
    _not_send: PhantomData<*const ()>,
}

#[must_use]
pub(crate) struct WriteGuard<'a, T> {
    lock: &'a Lock<T>,
    _not_send: PhantomData<*const ()>,
}

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            gate: Gate {
                state: AtomicU32::new(FREE),
                others: AtomicU32::new(0),
                flags: std::array::from_fn(|_| AtomicU8::new(0)),
            },
            value: UnsafeCell::new(value),
            sleepers: Mutex::new(()),
            woken: Condvar::new(),
        }
    }

    pub(crate) fn read(&self) -> ReadGuard<'_, T> {
        self.read_as(thread_slot::register())
    }

    /// `id` is the thread's own, from one.
    #[inline]
    pub(crate) fn read_as(&self, id: u32) -> ReadGuard<'_, T> {
        // All threads of shuttle's are one of the system's.
        let id = if cfg!(overdrive_shuttle) { 0 } else { id };
        let flag = self.gate.flags.get((id as usize).wrapping_sub(1));
        let flag = self.raise(flag);
        in_one_order();
        if self.gate.state.load(Ordering::SeqCst) != FREE {
            self.raise_in_turn(flag);
        }
        ReadGuard {
            lock: self,
            flag,
            _not_send: PhantomData,
        }
    }

    /// The flag, if it was raised.
    #[inline]
    fn raise<'a>(&self, flag: Option<&'a AtomicU8>) -> Option<&'a AtomicU8> {
        if let Some(flag) = flag {
            let guards = flag.load(Ordering::Relaxed);
            if guards < u8::MAX {
                // An exchange and not a store: those stay in order with the loads after them.
                flag.swap(guards + 1, Ordering::SeqCst);
                return Some(flag);
            }
        }
        self.count_as_other();
        None
    }

    #[cold]
    fn count_as_other(&self) {
        self.gate.others.fetch_add(1, Ordering::SeqCst);
    }

    #[inline]
    fn lower(&self, flag: Option<&AtomicU8>) {
        match flag {
            Some(flag) => flag.store(flag.load(Ordering::Relaxed) - 1, Ordering::Release),
            None => {
                self.gate.others.fetch_sub(1, Ordering::Release);
            }
        }
    }

    #[cold]
    fn raise_in_turn(&self, flag: Option<&AtomicU8>) {
        self.lower(flag);
        self.enter();
        match flag {
            Some(flag) => flag.store(flag.load(Ordering::Relaxed) + 1, Ordering::SeqCst),
            None => self.count_as_other(),
        }
        self.leave();
    }

    #[inline]
    pub(crate) fn write(&self) -> WriteGuard<'_, T> {
        self.enter();
        in_one_order();
        self.wait_for_readers();
        WriteGuard {
            lock: self,
            _not_send: PhantomData,
        }
    }

    #[inline]
    fn enter(&self) {
        if !self.try_enter() {
            self.enter_in_turn();
        }
    }

    #[inline]
    fn try_enter(&self) -> bool {
        let taken =
            self.gate
                .state
                .compare_exchange(FREE, TAKEN, Ordering::SeqCst, Ordering::Relaxed);
        taken.is_ok()
    }

    #[cold]
    fn enter_in_turn(&self) {
        for _ in 0..SPINS {
            if self.gate.state.load(Ordering::Relaxed) == FREE && self.try_enter() {
                return;
            }
            spin();
        }
        let mut sleepers = lock(&self.sleepers);
        // Whoever enters here says that somebody may sleep still.
        while self.gate.state.swap(WANTED, Ordering::SeqCst) != FREE {
            sleepers = wait(&self.woken, sleepers);
        }
    }

    #[inline]
    fn leave(&self) {
        if self.gate.state.swap(FREE, Ordering::SeqCst) == WANTED {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        // Who is about to sleep does so before the lock of the sleepers can be had.
        drop(lock(&self.sleepers));
        self.woken.notify_one();
    }

    #[inline]
    fn wait_for_readers(&self) {
        if self.has_readers() {
            self.wait_till_they_left();
        }
    }

    #[inline]
    fn has_readers(&self) -> bool {
        let flags = &self.gate.flags;
        #[cfg(not(overdrive_loom))]
        let flags = &flags[..flags.len().min(thread_slot::highest() as usize)];
        let raised = |flag: &AtomicU8| flag.load(Ordering::SeqCst) != 0;
        flags.iter().any(raised) || self.gate.others.load(Ordering::SeqCst) != 0
    }

    #[cold]
    fn wait_till_they_left(&self) {
        let mut rounds = 0_u32;
        while self.has_readers() {
            rounds = rounds.saturating_add(1);
            if rounds < SPINS {
                spin();
            } else if rounds < SPINS.saturating_add(YIELDS) {
                thread::yield_now();
            } else {
                nap();
            }
        }
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: invariant 4; the reference does not outlive the guard.
        self.lock.value.with(|value| unsafe { &*value })
    }
}

impl<T> Drop for ReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.lower(self.flag);
    }
}

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: invariant 4; the reference does not outlive the guard.
        self.lock.value.with(|value| unsafe { &*value })
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: invariant 4; the reference is as exclusive as that to the guard, and does not
        // outlive it.
        self.lock.value.with_mut(|value| unsafe { &mut *value })
    }
}

impl<T> Drop for WriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.leave();
    }
}

#[cfg(all(test, overdrive_loom))]
mod models {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    /// The cell tells of a write beside any other access.
    fn readers_and_a_writer(ids: [u32; 2]) {
        let mut builder = loom::model::Builder::new();
        // With more it takes minutes.
        let bound = builder.preemption_bound.map_or(3, |bound| bound.min(3));
        builder.preemption_bound = Some(bound);
        builder.check(move || {
            let lock: Arc<Lock<u32>> = Arc::new(Lock::new(0));
            let readers = ids.map(|id| {
                let lock = Arc::clone(&lock);
                thread::spawn(move || {
                    let first = *lock.read_as(id);
                    assert!(first <= 1);
                })
            });
            *lock.write() += 1;
            for reader in readers {
                reader.join().unwrap();
            }
            assert_eq!(*lock.read_as(1), 1);
        });
    }

    #[test]
    fn loom_who_writes_is_alone() {
        readers_and_a_writer([1, 2]);
    }

    #[test]
    fn loom_who_writes_is_alone_with_readers_that_have_no_flag() {
        readers_and_a_writer([1, 9]);
    }

    #[test]
    fn loom_writers_wait_for_each_other_and_all_get_their_turn() {
        loom::model(|| {
            let lock: Arc<Lock<u32>> = Arc::new(Lock::new(0));
            let writers = [1, 2].map(|_| {
                let lock = Arc::clone(&lock);
                thread::spawn(move || *lock.write() += 1)
            });
            *lock.write() += 1;
            for writer in writers {
                writer.join().unwrap();
            }
            assert_eq!(*lock.read_as(1), 3);
        });
    }

    #[test]
    #[should_panic]
    fn loom_without_the_exchange_a_reader_and_a_writer_meet() {
        loom::model(|| {
            let lock: Arc<Lock<u32>> = Arc::new(Lock::new(0));
            let other = Arc::clone(&lock);
            let reader = thread::spawn(move || {
                let flag = &other.gate.flags[0];
                flag.store(1, Ordering::Release);
                if other.gate.state.load(Ordering::Acquire) == FREE {
                    other.value.with(|value| {
                        // SAFETY: none; the model finds the write beside it.
                        let _ = unsafe { *value };
                    });
                }
                flag.store(0, Ordering::Release);
            });
            *lock.write() += 1;
            reader.join().unwrap();
        });
    }
}
