//! Loom models of what threads do at the same time without a lock, or with a lock and a condition.
//!
//! ```text
//! RUSTFLAGS="--cfg overdrive_loom" cargo test -p overdrive-workstealing --lib --release loom
//! ```
//!
//! Two preemptions per execution unless `LOOM_MAX_PREEMPTIONS` says otherwise. Each protocol also
//! runs with its guard removed (see [`Mutant`]), and must fail then.
//!
//! Outside the models: `crossbeam-deque`, for which an atomic flag stands in; the drain's count,
//! which the random schedules of the whole pool cover.

#![expect(unsafe_code, reason = "loom watches what is shared")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::thread;
use overdrive_core::Deadline;

use crate::cell::Place;
use crate::deque::{Popped, SplitDeque};
use crate::error::TaskError;
use crate::room::Room;
use crate::sleep::Sleep;
use crate::sync::{Mutant, REMOVED};

pub(crate) fn check(mutant: Option<Mutant>, model: fn()) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(builder.preemption_bound.unwrap_or(2));
    REMOVED.set(mutant);
    let result = catch_unwind(AssertUnwindSafe(|| builder.check(model)));
    REMOVED.set(None);
    if let Err(payload) = result {
        std::panic::resume_unwind(payload);
    }
}

pub(crate) fn assert_fails(mutant: Mutant, model: fn()) {
    let result = catch_unwind(|| check(Some(mutant), model));
    assert!(result.is_err(), "the model does not notice {mutant:?}");
}

/// Something to be run once.
struct Job {
    runs: UnsafeCell<u32>,
    over: AtomicBool,
}

impl Job {
    fn new() -> Box<Self> {
        Box::new(Self {
            runs: UnsafeCell::new(u32::MAX),
            over: AtomicBool::new(false),
        })
    }

    /// What the owner does before it shares it.
    fn prepare(&self) {
        // SAFETY: loom fails the model if anybody else is in here.
        self.runs.with_mut(|runs| unsafe { *runs = 0 });
    }

    fn run(&self) {
        // SAFETY: as above.
        self.runs.with_mut(|runs| unsafe { *runs += 1 });
        self.over.store(true, Ordering::Release);
    }

    fn assert_ran_once(&self) {
        // SAFETY: as above.
        assert_eq!(self.runs.with(|runs| unsafe { *runs }), 1);
    }
}

type Deque = Arc<(SplitDeque<Job>, [Box<Job>; 2])>;

fn deque() -> Deque {
    Arc::new((SplitDeque::new(2), [Job::new(), Job::new()]))
}

fn fork(deque: &Deque, n: usize) -> u32 {
    deque.1[n].prepare();
    let job = ptr::from_ref(&*deque.1[n]).cast_mut();
    let place = deque.0.push(job).unwrap();
    if deque.0.is_wanted() {
        deque.0.satisfied();
        deque.0.publish();
    }
    place
}

fn join(deque: &Deque, place: u32, n: usize) {
    match deque.0.pop(place) {
        Popped::Back => deque.1[n].run(),
        Popped::Stolen => {
            while !deque.1[n].over.load(Ordering::Acquire) {
                thread::yield_now();
            }
            deque.0.release(place);
        }
    }
}

fn thief(deque: &Deque) -> thread::JoinHandle<()> {
    let deque = Arc::clone(deque);
    thread::spawn(move || {
        if let Some(job) = deque.0.steal(0) {
            assert!(!job.is_null(), "it was published before it was there");
            // SAFETY: the boxes are in the `Arc`.
            unsafe { &*job }.run();
        }
    })
}

/// Nested joins, two thieves.
fn nested() {
    let deque = deque();
    let thieves = [thief(&deque), thief(&deque)];
    let outer = fork(&deque, 0);
    let inner = fork(&deque, 1);
    join(&deque, inner, 1);
    join(&deque, outer, 0);
    for thief in thieves {
        thief.join().unwrap();
    }
    deque.1.iter().for_each(|job| job.assert_ran_once());
    assert!(deque.0.is_wanted(), "the next join is shared again");
}

/// One join after the other, at the same place: a thief may have looked before.
fn in_turn() {
    let deque = deque();
    let thieves = [thief(&deque), thief(&deque)];
    for n in 0..2 {
        let place = fork(&deque, n);
        join(&deque, place, n);
    }
    for thief in thieves {
        thief.join().unwrap();
    }
    deque.1.iter().for_each(|job| job.assert_ran_once());
}

#[test]
fn loom_a_job_is_run_once_by_its_owner_or_a_thief() {
    check(None, nested);
}

#[test]
fn loom_a_place_is_used_again_after_its_job_has_ended() {
    check(None, in_turn);
}

#[test]
fn loom_control_published_without_release() {
    assert_fails(Mutant::RelaxedPublish, nested);
}

#[test]
fn loom_control_taken_back_blindly() {
    assert_fails(Mutant::TakeBackBlindly, nested);
}

struct Bed {
    sleep: Sleep,
    queues: [AtomicBool; 2],
}

impl Bed {
    fn look(&self) -> u32 {
        let mut found = 0;
        for queue in &self.queues {
            if queue.load(Ordering::Acquire) {
                queue.store(false, Ordering::Relaxed);
                found += 1;
            }
        }
        found
    }

    /// As a worker does, until it has found so many.
    fn work(&self, mut wanted: u32) {
        let mut searching = self.sleep.begin_search(0, 1);
        while wanted > 0 {
            wanted -= self.look();
            if wanted == 0 {
                break;
            }
            self.sleep.fall_asleep(0, searching);
            let found = self.look();
            if found > 0 {
                wanted -= found;
            } else {
                // Spinning stands in for parking, of which std keeps the promise: loom drops the
                // token of an `unpark` that comes early.
                while self.sleep.is_asleep(0) {
                    thread::yield_now();
                }
            }
            searching = self.sleep.wake_up(0);
        }
        if searching {
            self.sleep.end_search(0);
        }
    }

    fn push(&self, queue: usize) {
        self.queues[queue].store(true, Ordering::Release);
        self.sleep.wake_one();
    }
}

/// Two producers, one worker, which must find both pushes.
fn pushes_and_sleep() {
    let bed = Arc::new(Bed {
        sleep: Sleep::new(1),
        queues: [AtomicBool::new(false), AtomicBool::new(false)],
    });
    let worker = {
        let bed = Arc::clone(&bed);
        thread::spawn(move || bed.work(2))
    };
    let producer = {
        let bed = Arc::clone(&bed);
        thread::spawn(move || bed.push(1))
    };
    bed.push(0);
    producer.join().unwrap();
    worker.join().unwrap();
    assert!(bed.sleep.is_clear());
}

#[test]
fn loom_no_push_is_slept_through_and_no_token_is_lost() {
    check(None, pushes_and_sleep);
}

#[test]
fn loom_control_asleep_without_a_last_look() {
    assert_fails(Mutant::SleepUnseen, pushes_and_sleep);
}

#[test]
fn loom_control_a_token_is_dropped() {
    assert_fails(Mutant::DropToken, pushes_and_sleep);
}

/// A worker and a canceller want the task; the handle's thread waits for its end.
fn one_task() {
    let place: Arc<Place<u32, u32>> = Arc::new(Place::new(7));
    let counted = Arc::new(AtomicU32::new(0));
    let count = |counted: &AtomicU32| {
        counted.fetch_add(1, Ordering::Relaxed);
    };
    let worker = {
        let (place, counted) = (Arc::clone(&place), Arc::clone(&counted));
        thread::spawn(move || {
            if let Some(n) = place.claim(|| false) {
                assert!(place.finish(Ok(n), || count(&counted)).is_ok());
            }
        })
    };
    let canceller = {
        let (place, counted) = (Arc::clone(&place), Arc::clone(&counted));
        thread::spawn(move || {
            if place.claim(|| false).is_some() {
                let result = Err(TaskError::Cancelled);
                assert!(place.finish(result, || count(&counted)).is_ok());
                return true;
            }
            false
        })
    };
    assert!(place.wait(Deadline::NEVER));
    assert_eq!(
        counted.load(Ordering::Relaxed),
        1,
        "counted before it is seen"
    );
    let result = place.take();
    worker.join().unwrap();
    let cancelled = canceller.join().unwrap();
    assert_eq!(cancelled, matches!(result, Err(TaskError::Cancelled)));
    assert_eq!(cancelled, result.is_err());
}

#[test]
fn loom_a_task_ends_once_and_its_waiter_sees_it() {
    check(None, one_task);
}

#[test]
fn loom_control_an_end_without_a_word() {
    assert_fails(Mutant::FinishSilently, one_task);
}

/// Somebody waits for room, which comes; then the pool closes.
fn room_and_close() {
    let room = Arc::new(Room::new(1, 1));
    assert!(room.take());
    let waiter = {
        let room = Arc::clone(&room);
        thread::spawn(move || room.wait(None))
    };
    room.give(1);
    assert!(waiter.join().unwrap());
    let waiter = {
        let room = Arc::clone(&room);
        thread::spawn(move || room.wait(None))
    };
    room.close();
    assert!(!waiter.join().unwrap());
}

#[test]
fn loom_who_waits_for_room_gets_it_or_the_end() {
    check(None, room_and_close);
}

#[test]
fn loom_control_room_without_the_lock() {
    assert_fails(Mutant::FreeUnlocked, room_and_close);
}
