//! Fork-join: the second closure waits on the stack of the one who joins.
//!
//! # Invariants
//!
//! 1. A job lies in the stack frame of its `join`, which does not return, nor unwind, before the
//!    job is *back* (popped from its deque, so that no thief has it or will) or *over* (`state` is
//!    `DONE` or `RETURNED`).
//! 2. The closure is taken out once: by the owner when the job is back or returned, or by the thief
//!    that took it from the deque, which is one at most.
//! 3. `result` is written by the thief before `DONE` is stored with Release, and read by the owner
//!    after it was loaded with Acquire.
//! 4. A thief touches the job no more once it has stored `DONE` or `RETURNED`: who is to be unparked
//!    it has found out before.
//! 5. The closure and the result are `Send`, by the bounds of the public functions.

use std::any::Any;
use std::cell::UnsafeCell;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use overdrive_core::unwind::{drop_payload, survive};

use crate::deque::Popped;
use crate::raw::context::Frame;
use crate::seat::Seat;
use crate::sync::{
    AtomicU32, AtomicU64, Mutant, Ordering, current_thread, lock, park, removed, spin_loop,
    yield_now,
};

type Caught<R> = Result<R, Box<dyn Any + Send>>;

/// What a thief knows of a job.
pub(crate) struct Header {
    execute: unsafe fn(*mut Self),
    state: AtomicU32,
    /// Who has it: its seat plus one in the upper half, how many joins it had open in the lower.
    thief: AtomicU64,
}

const PENDING: u32 = 0;
/// The owner is parked, or about to be; its seat says who that is.
const SLEEPING: u32 = 1;
/// The thief did not run it.
const RETURNED: u32 = 2;
const DONE: u32 = 3;

#[repr(C)]
struct ForkJob<F, R> {
    header: Header,
    f: UnsafeCell<ManuallyDrop<F>>,
    result: UnsafeCell<MaybeUninit<Caught<R>>>,
}

/// Runs both, `b` maybe on another thread, and returns when both have ended.
#[inline]
pub(crate) fn join<A, B, RA, RB>(frame: &Frame<'_>, a: A, b: B) -> (RA, RB)
where
    A: FnOnce() -> RA,
    B: FnOnce() -> RB + Send,
    RB: Send,
{
    let job = ForkJob {
        header: Header {
            execute: execute::<B, RB>,
            state: AtomicU32::new(PENDING),
            thief: AtomicU64::new(0),
        },
        f: UnsafeCell::new(ManuallyDrop::new(b)),
        result: UnsafeCell::new(MaybeUninit::uninit()),
    };
    let deque = &frame.seat.deque;
    let place = deque.push((&raw const job).cast_mut().cast());
    if deque.is_wanted() {
        frame.shared.share(frame.seat);
    }
    let first = catch_unwind(AssertUnwindSafe(a));
    let over = place.is_some_and(|place| {
        deque.pop(place) == Popped::Stolen && wait_for_thief(frame, &job.header, place) == DONE
    });
    let second = if over {
        // SAFETY: invariant 3.
        unsafe { (*job.result.get()).assume_init_read() }
    } else {
        // SAFETY: invariant 2: it was never pushed, is back, or was returned.
        let b = unsafe { ManuallyDrop::take(&mut *job.f.get()) };
        catch_unwind(AssertUnwindSafe(b))
    };
    match (first, second) {
        (Ok(first), Ok(second)) => (first, second),
        (first, second) => fail(first, second),
    }
}

#[cold]
fn fail<RA, RB>(first: Caught<RA>, second: Caught<RB>) -> ! {
    // What is dropped here may panic, which must not meet the panic that goes on.
    let payload = match (first, second) {
        (Err(payload), Ok(second)) => {
            survive(|| drop(second));
            payload
        }
        (Err(payload), Err(other)) => {
            drop_payload(other);
            payload
        }
        (Ok(first), Err(payload)) => {
            survive(|| drop(first));
            payload
        }
        (Ok(_), Ok(_)) => unreachable!("one of them has panicked"),
    };
    resume_unwind(payload)
}

/// # Safety
/// `job` is the header of a `ForkJob<F, R>` that the caller has taken from a deque.
unsafe fn execute<F: FnOnce() -> R, R>(job: *mut Header) {
    // SAFETY: invariants 1 and 2.
    let job = unsafe { &*job.cast::<ForkJob<F, R>>() };
    // SAFETY: invariant 2.
    let f = unsafe { ManuallyDrop::take(&mut *job.f.get()) };
    let result = catch_unwind(AssertUnwindSafe(f));
    // SAFETY: invariant 3: the owner does not look yet.
    unsafe { (*job.result.get()).write(result) };
}

/// Waits for the job that a thief took from this place, with what the thief makes of it: jobs that
/// it forked since belong to this one, so they are run here. Returns how it is over.
#[cold]
#[inline(never)]
fn wait_for_thief(frame: &Frame<'_>, header: &Header, place: u32) -> u32 {
    const SPINS: u32 = 128;
    const YIELDS: u32 = 8;
    let mut idle = 0;
    let state = loop {
        let state = header.state.load(Ordering::Acquire);
        if state >= RETURNED {
            break state;
        }
        if leap(frame, header) {
            idle = 0;
            continue;
        }
        idle += 1;
        if idle <= SPINS {
            spin_loop();
        } else if idle <= SPINS + YIELDS {
            yield_now();
        } else {
            sleep(frame.seat, header);
        }
    };
    frame.seat.deque.release(place);
    state
}

/// Runs a job that the thief of this one forked for it. This is leapfrogging (Wagner, Calder,
/// "Leapfrogging: a portable technique for implementing efficient futures", 1993).
fn leap(frame: &Frame<'_>, header: &Header) -> bool {
    let thief = header.thief.load(Ordering::Acquire);
    let Some(other) = (thief >> 32).checked_sub(1) else {
        return false;
    };
    let Some(other) = frame.shared.seat(other as usize) else {
        return false;
    };
    let Some(job) = other.deque.steal(thief as u32) else {
        return false;
    };
    if header.state.load(Ordering::Acquire) < RETURNED {
        run_stolen(frame, job, other);
    } else {
        // The thief had gone on to something else, which is none of ours.
        finish(job, other, RETURNED);
    }
    true
}

/// Runs a job that was taken from the deque of `owner`.
pub(crate) fn run_stolen(frame: &Frame<'_>, job: *mut Header, owner: &Seat) {
    {
        // SAFETY: invariant 1: it is neither back nor over.
        let header = unsafe { &*job };
        let thief = u64::from(frame.seat.index + 1) << 32 | u64::from(frame.seat.deque.len());
        header.thief.store(thief, Ordering::Release);
        let before = frame.seat.take_priority_of(owner);
        // SAFETY: it was taken from a deque, by this thread.
        unsafe { (header.execute)(job) };
        frame.seat.set_priority(before);
    }
    finish(job, owner, DONE);
}

fn finish(job: *mut Header, owner: &Seat, state: u32) {
    // SAFETY: invariant 1: it is neither back nor over.
    let header = unsafe { &*job };
    let at_once =
        header
            .state
            .compare_exchange(PENDING, state, Ordering::AcqRel, Ordering::Acquire);
    if at_once.is_err() && !removed(Mutant::EndBlindly) {
        // Invariant 4.
        let thread = lock(&owner.thread).clone();
        header.state.store(state, Ordering::Release);
        if let Some(thread) = thread {
            thread.unpark();
        }
    }
}

fn sleep(seat: &Seat, header: &Header) {
    *lock(&seat.thread) = Some(current_thread());
    let asleep =
        header
            .state
            .compare_exchange(PENDING, SLEEPING, Ordering::AcqRel, Ordering::Acquire);
    if asleep.is_ok() {
        while header.state.load(Ordering::Acquire) == SLEEPING {
            park();
        }
    }
}

#[cfg(all(test, overdrive_loom))]
mod models {
    use std::sync::Arc;

    use loom::cell::UnsafeCell;
    use loom::thread;

    use super::*;
    use crate::models::{assert_fails, check};

    struct Shared {
        header: Header,
        seat: Seat,
        result: UnsafeCell<u32>,
    }

    unsafe fn never(_: *mut Header) {}

    /// The owner of a stolen join sleeps until the thief has ended it, and sees the result.
    fn owner_and_thief() {
        let shared = Arc::new(Shared {
            header: Header {
                execute: never,
                state: AtomicU32::new(PENDING),
                thief: AtomicU64::new(0),
            },
            seat: Seat::new(0),
            result: UnsafeCell::new(0),
        });
        let thief = Arc::clone(&shared);
        let thief = thread::spawn(move || {
            // SAFETY: the owner does not look before the end.
            thief.result.with_mut(|result| unsafe { *result = 7 });
            let job = (&raw const thief.header).cast_mut();
            finish(job, &thief.seat, DONE);
        });
        while shared.header.state.load(Ordering::Acquire) < RETURNED {
            sleep(&shared.seat, &shared.header);
        }
        // SAFETY: the thief has ended.
        assert_eq!(shared.result.with(|result| unsafe { *result }), 7);
        thief.join().unwrap();
    }

    #[test]
    fn loom_a_sleeping_owner_is_woken_by_the_end() {
        check(None, owner_and_thief);
    }

    #[test]
    fn loom_control_an_end_that_does_not_look() {
        assert_fails(Mutant::EndBlindly, owner_and_thief);
    }
}
