//! What all threads of a pool share, and how work gets in.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_deque::{Stealer, Worker};
use crossbeam_utils::CachePadded;
use overdrive_core::unwind::survive;
use overdrive_core::{Clock, Deadline, Health};

use crate::builder::Overload;
use crate::call::{Call, Reason, Source};
use crate::counters::{Counters, Other};
use crate::crew::Crew;
use crate::error::{PanicPayload, SpawnError};
use crate::keeper::Keeper;
use crate::queue::{LEVELS, Level, Queues};
use crate::raw::context::{self, Frame};
use crate::raw::task::Task;
use crate::room::Room;
use crate::seat::{GUESTS, Guests, Seat};
use crate::sleep::Sleep;
use crate::stats::ThreadPoolStats;
use crate::sync::{
    AtomicBool, AtomicU32, AtomicU64, Condvar, Mutex, Ordering, Thread, fence, lock,
};
use crate::worker::Local;

pub(crate) type PanicHandler = Box<dyn Fn(&PanicPayload) + Send + Sync>;

/// What the builder has checked.
pub(crate) struct Parts {
    pub(crate) name: Cow<'static, str>,
    pub(crate) workers: usize,
    pub(crate) max_workers: usize,
    /// Threads beside those, for workers that block.
    pub(crate) spare_workers: usize,
    pub(crate) idle_timeout: Duration,
    pub(crate) scaling_interval: Duration,
    pub(crate) capacity: usize,
    pub(crate) overload: Overload,
    pub(crate) stack_size: Option<usize>,
    pub(crate) starvation_bound: NonZeroU32,
    pub(crate) on_panic: Option<PanicHandler>,
    pub(crate) clock: Box<dyn Clock>,
    /// The clock shows real time.
    pub(crate) real_time: bool,
}

impl Parts {
    /// The most threads that there may be at a time.
    pub(crate) const fn threads(&self) -> usize {
        self.max_workers + self.spare_workers
    }
}

pub(crate) struct Shared {
    pub(crate) parts: Parts,
    pub(crate) queues: Queues,
    pub(crate) sleep: Sleep,
    pub(crate) crew: Crew,
    pub(crate) keeper: Keeper,
    pub(crate) ending: AtomicBool,
    /// Those who drain wait here: for nothing to be outstanding.
    pub(crate) idle: Idle,
    pub(crate) slots: Box<[Slot]>,
    guests: Guests,
    guests_seats: Box<[Seat]>,
    /// For guests without a seat.
    nowhere: Seat,
    room: Room,
    /// Tasks accepted from outside, per level, doubled; the lowest bit says that the pool is
    /// closed.
    accepted: CachePadded<[AtomicU64; LEVELS]>,
    /// Of all threads but workers.
    outside: Counters,
}

/// A worker's place, taken by a thread or free.
pub(crate) struct Slot {
    pub(crate) seat: Seat,
    pub(crate) counters: Counters,
    pub(crate) stealer: Stealer<Task>,
    /// The worker's end of its deque, while no thread has it.
    pub(crate) deque: Mutex<Option<Worker<Task>>>,
    pub(crate) thread: Mutex<Option<Thread>>,
}

#[derive(Default)]
pub(crate) struct Idle {
    pub(crate) waiting: AtomicU32,
    pub(crate) lock: Mutex<()>,
    pub(crate) changed: Condvar,
}

const CLOSED: u64 = 1;

impl Shared {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let threads = parts.threads();
        let slot = |n: usize| {
            let deque = Worker::new_lifo();
            Slot {
                seat: Seat::new(u32::try_from(n).expect("the builder bounds it")),
                counters: Counters::new(false),
                stealer: deque.stealer(),
                deque: Mutex::new(Some(deque)),
                thread: Mutex::new(None),
            }
        };
        let guest = |n: usize| {
            let index = u32::try_from(threads + n).expect("the builder bounds it");
            Seat::new(index)
        };
        Arc::new(Self {
            queues: Queues::new(parts.max_workers),
            sleep: Sleep::new(threads),
            crew: Crew::new(threads),
            keeper: Keeper::default(),
            ending: AtomicBool::new(false),
            idle: Idle::default(),
            slots: (0..threads).map(slot).collect(),
            guests: Guests::new(),
            guests_seats: (0..GUESTS).map(guest).collect(),
            nowhere: Seat::nowhere(),
            room: Room::new(parts.capacity, threads),
            accepted: CachePadded::default(),
            outside: Counters::new(true),
            parts,
        })
    }

    /// Accepts the task that `make` makes of `f`, or says why not. `None` if it was queued; the
    /// task if the caller has to run it at once, by [`run_here`](Self::run_here).
    pub(crate) fn admit<F, M>(
        self: &Arc<Self>,
        level: Level,
        f: F,
        wait: Wait,
        make: impl FnOnce(F) -> (Task, M),
    ) -> Result<M, SpawnError<F>> {
        context::of(self, |frame| match frame.and_then(|frame| frame.local) {
            Some(local) => self.admit_inside(local, level, f, wait, make),
            None => self.admit_outside(level, f, wait, make),
        })
    }

    #[inline]
    fn admit_inside<F, M>(
        self: &Arc<Self>,
        local: &Local,
        level: Level,
        f: F,
        wait: Wait,
        make: impl FnOnce(F) -> (Task, M),
    ) -> Result<M, SpawnError<F>> {
        let counters = local.counters(self);
        if self.is_closed() {
            counters.count(Other::Rejected);
            return Err(SpawnError::Closed(f));
        }
        // The task that spawns is outstanding, so no worker has ended for want of work.
        if let Some(pot) = self.room.take_by(local.pot.get()) {
            local.pot.set(pot);
            counters.spawned(level);
            let (task, made) = make(f);
            if level == Level::NORMAL {
                local.deque.push(task);
            } else {
                self.queues.push(level, task);
            }
            self.notify();
            return Ok(made);
        }
        // A worker never waits for room in what it is there to empty.
        if wait == Wait::Never || (wait == Wait::AsSaid && self.parts.overload == Overload::Reject)
        {
            counters.count(Other::Rejected);
            return Err(SpawnError::Full(f));
        }
        counters.spawned(level);
        counters.count(Other::CallerRan);
        let (task, made) = make(f);
        self.with_call(level, Source::Spawner, None, |call| task.call(call));
        Ok(made)
    }

    fn admit_outside<F, M>(
        self: &Arc<Self>,
        level: Level,
        f: F,
        wait: Wait,
        make: impl FnOnce(F) -> (Task, M),
    ) -> Result<M, SpawnError<F>> {
        let has_room = self.room.take();
        let run_here = !has_room
            && match (wait, self.parts.overload) {
                (Wait::Never, _) | (Wait::AsSaid, Overload::Reject) => {
                    return Err(self.refuse(f));
                }
                (Wait::RunHere, _) | (_, Overload::CallerRuns) => true,
                // Who is in a pool may be what the queue waits for.
                (_, Overload::Wait | Overload::WaitFor(_)) if context::is_in_any() => true,
                (_, Overload::Wait) => return self.admit_late(None, level, f, make),
                (_, Overload::WaitFor(limit)) => {
                    return self.admit_late(Some(limit), level, f, make);
                }
            };
        if !self.accept(level) {
            if has_room {
                self.room.give(1);
            }
            self.outside.count(Other::Rejected);
            return Err(SpawnError::Closed(f));
        }
        let (task, made) = make(f);
        if run_here {
            self.outside.count(Other::CallerRan);
            self.with_call(level, Source::Spawner, None, |call| task.call(call));
        } else {
            self.queues.push(level, task);
            self.notify();
        }
        Ok(made)
    }

    #[cold]
    fn admit_late<F, M>(
        self: &Arc<Self>,
        limit: Option<Duration>,
        level: Level,
        f: F,
        make: impl FnOnce(F) -> (Task, M),
    ) -> Result<M, SpawnError<F>> {
        if !self.is_closed() && !self.room.wait(limit) {
            return Err(self.refuse(f));
        }
        if !self.accept(level) {
            self.outside.count(Other::Rejected);
            return Err(SpawnError::Closed(f));
        }
        let (task, made) = make(f);
        self.queues.push(level, task);
        self.notify();
        Ok(made)
    }

    fn refuse<F>(&self, f: F) -> SpawnError<F> {
        self.outside.count(Other::Rejected);
        if self.is_closed() {
            SpawnError::Closed(f)
        } else {
            SpawnError::Full(f)
        }
    }

    /// Counts a task from outside, unless the pool is closed: in one step, so that after the close
    /// nothing comes that the workers have not waited for.
    fn accept(&self, level: Level) -> bool {
        let accepted = &self.accepted[level.at()];
        if accepted.fetch_add(2, Ordering::SeqCst) & CLOSED == 0 {
            return true;
        }
        accepted.fetch_sub(2, Ordering::SeqCst);
        self.settled_outside();
        false
    }

    /// Counts the part of a scope. Whether there is room to queue it. It is never refused: who
    /// waits for the scope runs it.
    pub(crate) fn accept_part(&self, frame: Option<&Frame<'_>>, level: Level) -> bool {
        if let Some(local) = frame.and_then(|frame| frame.local) {
            let counters = local.counters(self);
            counters.spawned(level);
            if let Some(pot) = self.room.take_by(local.pot.get()) {
                local.pot.set(pot);
                return true;
            }
            counters.count(Other::CallerRan);
            return false;
        }
        self.accepted[level.at()].fetch_add(2, Ordering::SeqCst);
        let has_room = self.room.take();
        if !has_room {
            self.outside.count(Other::CallerRan);
        }
        has_room
    }

    /// Queues what is no task of its own: a hint where there is one.
    pub(crate) fn hint(&self, frame: Option<&Frame<'_>>, level: Level, task: Task) {
        match frame.and_then(|frame| frame.local) {
            Some(local) if level == Level::NORMAL => local.deque.push(task),
            _ => self.queues.push(level, task),
        }
        self.notify();
    }

    /// A task has left the queue.
    #[inline]
    pub(crate) fn free_place(&self, local: Option<&Local>) {
        match local {
            Some(local) => local.pot.set(self.room.give_by(local.pot.get())),
            None => self.room.give(1),
        }
    }

    /// A worker gives back what it holds.
    pub(crate) fn empty_pot(&self, local: &Local) {
        let pot = local.pot.take();
        if pot > 0 {
            self.room.give(pot);
        }
    }

    /// Somebody took a task out of turn; its entry stays. Whether its place is free only when the
    /// entry goes, as too many such entries are there.
    pub(crate) fn leave_behind(&self, level: Level) -> bool {
        if self.queues.leave_behind(level) < self.parts.capacity as u64 {
            self.room.give(1);
            return false;
        }
        true
    }

    /// Calls something on this thread's account.
    pub(crate) fn with_call<R>(
        self: &Arc<Self>,
        level: Level,
        from: Source,
        discard: Option<Reason>,
        f: impl FnOnce(&Call<'_>) -> R,
    ) -> R {
        let go = |frame: &Frame<'_>| {
            let before = frame.seat.set_priority(level);
            let result = f(&Call {
                shared: self,
                counters: frame
                    .local
                    .map_or(&self.outside, |local| local.counters(self)),
                local: frame.local,
                level,
                from,
                discard,
            });
            frame.seat.set_priority(before);
            result
        };
        self.inside(go)
    }

    /// Enters the pool, on a seat if there is one.
    pub(crate) fn inside<R>(self: &Arc<Self>, f: impl FnOnce(&Frame<'_>) -> R) -> R {
        context::of(self, |frame| match frame {
            Some(frame) => Frame::enter(self, frame.seat, frame.local, f),
            None => match self.guests.sit_down() {
                Some(chair) => {
                    let seat = &self.guests_seats[chair.n];
                    seat.set_priority(Level::NORMAL);
                    Frame::enter(self, seat, None, f)
                }
                None => Frame::enter(self, &self.nowhere, None, f),
            },
        })
    }

    pub(crate) fn seat(&self, index: usize) -> Option<&Seat> {
        match index.checked_sub(self.slots.len()) {
            None => Some(&self.slots[index].seat),
            Some(guest) => self.guests_seats.get(guest),
        }
    }

    /// The seats of those who are in the pool without being its workers.
    pub(crate) fn guests(&self) -> impl Iterator<Item = &Seat> {
        self.guests.taken().map(|n| &self.guests_seats[n])
    }

    /// Keeps a join of the caller public, and wakes somebody for it.
    #[cold]
    #[inline(never)]
    pub(crate) fn share(&self, seat: &Seat) {
        let deque = &seat.deque;
        // First, as a thief that takes the job says that there is none.
        deque.satisfied();
        deque.publish();
        fence(Ordering::SeqCst);
        if self.sleep.has_to_wake() && deque.is_patient() {
            deque.want();
            return;
        }
        self.notify();
    }

    /// After a push: wakes a worker, if one must be woken.
    #[inline]
    pub(crate) fn notify(&self) {
        if let Some(worker) = self.sleep.wake_one() {
            self.unpark(worker);
        }
    }

    #[cold]
    pub(crate) fn unpark(&self, worker: usize) {
        if let Some(thread) = &*lock(&self.slots[worker].thread) {
            thread.unpark();
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.accepted[0].load(Ordering::SeqCst) & CLOSED != 0
    }

    pub(crate) fn close(&self) {
        for accepted in &*self.accepted {
            accepted.fetch_or(CLOSED, Ordering::SeqCst);
        }
        self.room.close();
    }

    /// Accepted tasks, and those of them that have left the queue for good.
    pub(crate) fn ends(&self) -> u64 {
        let slots = self.slots.iter().map(|slot| slot.counters.all_settled());
        slots.sum::<u64>() + self.outside.all_settled()
    }

    pub(crate) fn spawns(&self) -> u64 {
        let slots = self.slots.iter().map(|slot| slot.counters.all_spawned());
        let accepted = self.accepted.iter();
        let accepted = accepted.map(|n| n.load(Ordering::SeqCst) >> 1);
        slots.sum::<u64>() + accepted.sum::<u64>()
    }

    /// Tasks that have left the queue.
    pub(crate) fn starts(&self) -> u64 {
        let slots = self.slots.iter().map(|slot| slot.counters.all_started());
        slots.sum::<u64>() + self.outside.all_started()
    }

    pub(crate) fn stats(&self) -> ThreadPoolStats {
        let mut stats = ThreadPoolStats {
            workers: self.crew.live(),
            capacity: self.parts.capacity,
            ..ThreadPoolStats::default()
        };
        // In the order of a task's way, backwards: so no difference is negative.
        let mut started = [0; LEVELS];
        let mut spawned = [0; LEVELS];
        let all = || {
            let slots = self.slots.iter().map(|slot| &slot.counters);
            slots.chain([&self.outside])
        };
        for counters in all() {
            counters.add_to(&mut stats);
        }
        for counters in all() {
            counters.add_started_to(&mut started);
        }
        for counters in all() {
            counters.add_spawned_to(&mut spawned);
        }
        for (sum, accepted) in spawned.iter_mut().zip(&*self.accepted) {
            *sum += accepted.load(Ordering::SeqCst) >> 1;
        }
        let queued = |level: Level| spawned[level.at()].saturating_sub(started[level.at()]);
        let narrow = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        stats.queued_high = narrow(queued(Level::HIGH));
        stats.queued_normal = narrow(queued(Level::NORMAL));
        stats.queued_low = narrow(queued(Level::LOW));
        let started: u64 = started.iter().sum();
        stats.running = narrow(started.saturating_sub(stats.ended()));
        stats.spawned = spawned.iter().sum();
        stats.sleeping = self.sleep.sleeping();
        stats.blocked = self.crew.blocked();
        stats
    }

    pub(crate) fn health(&self) -> Health {
        let queued = self.spawns().saturating_sub(self.starts());
        if self.is_closed() {
            Health::Unhealthy
        } else if queued.saturating_mul(4) >= self.parts.capacity as u64 * 3 {
            Health::Degraded
        } else {
            Health::Healthy
        }
    }

    /// A clock that panics has not shown that it is too late.
    pub(crate) fn has_passed(&self, deadline: Deadline) -> bool {
        let mut passed = false;
        if deadline != Deadline::NEVER {
            survive(|| passed = deadline.has_passed_on(&*self.parts.clock));
        }
        passed
    }

    /// Counts something on this thread's account.
    pub(crate) fn count_here(self: &Arc<Self>, what: Other) {
        context::of(self, |frame| {
            let local = frame.and_then(|frame| frame.local);
            let counters = local.map_or(&self.outside, |local| local.counters(self));
            counters.count(what);
        });
    }

    /// Whether deadlines are judged by real time, so that threads can wait for them.
    pub(crate) fn is_real_time(&self) -> bool {
        self.parts.real_time
    }

    pub(crate) fn outside(&self) -> &Counters {
        &self.outside
    }
}

/// What a spawner does when there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    AsSaid,
    Never,
    RunHere,
}
