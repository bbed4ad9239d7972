//! What a worker thread does: run what is its own, then what is everybody's, then what is others';
//! and sleep.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam_deque::Worker;
use overdrive_core::Deadline;
use overdrive_core::unwind::drop_payload;

use crate::call::{Call, Source};
use crate::counters::{Counters, Other};
use crate::engine::{Shared, Slot};
use crate::queue::{LEVELS, Level, steal};
use crate::raw::context::Frame;
use crate::raw::fork::{Header, run_stolen};
use crate::raw::task::Task;
use crate::seat::Seat;
use crate::sync::{
    Ordering, current_thread, fence, lock, park, park_timeout, spin_loop, yield_now,
};

/// Normal tasks from its own deque before a look at the queue of all.
const OWN_IN_A_ROW: u32 = 61;

/// Tasks taken from another worker at a time.
const BATCH: usize = 16;

/// Looks around before it sleeps: fewer after looks in vain, more after others.
const MIN_LOOKS: u32 = 4;
const MAX_LOOKS: u32 = 64;

/// What a worker thread has for itself.
pub(crate) struct Local {
    pub(crate) deque: Worker<Task>,
    /// Credits of the queue.
    pub(crate) pot: Cell<u64>,
    slot: usize,
    /// Per level: how many higher tasks it took in a row while one waited.
    passed: [Cell<u32>; LEVELS],
    /// Per level: whether one waits.
    waits: [Cell<bool>; LEVELS],
    /// How many it took from its own deque in a row.
    own: Cell<u32>,
    looks: Cell<u32>,
    random: Cell<u32>,
}

impl Local {
    #[inline]
    pub(crate) fn counters<'a>(&self, shared: &'a Shared) -> &'a Counters {
        &shared.slots[self.slot].counters
    }

    /// A task of that level is begun, and passes over the lower ones that wait.
    #[inline]
    pub(crate) fn begins(&self, level: Level) {
        if level < Level::LOW {
            if level < Level::NORMAL {
                self.passes_over(Level::NORMAL);
            } else {
                self.passed[1].set(0);
            }
            self.passes_over(Level::LOW);
        } else {
            self.passed[2].set(0);
        }
    }

    #[inline]
    fn passes_over(&self, level: Level) {
        let passed = &self.passed[level.at()];
        let waits = self.waits[level.at()].get();
        passed.set(if waits { passed.get() + 1 } else { 0 });
    }

    fn random(&self) -> usize {
        // Marsaglia, "Xorshift RNGs", 2003.
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.random.set(x);
        x as usize
    }
}

enum Found<'a> {
    Task(Level, Task),
    Join(*mut Header, &'a Seat),
}

impl Shared {
    /// The life of a worker thread in that slot.
    pub(crate) fn work(self: &Arc<Self>, n: usize) {
        let slot = &self.slots[n];
        *lock(&slot.thread) = Some(current_thread());
        let deque = lock(&slot.deque).take();
        let local = Local {
            deque: deque.expect("a slot has one thread at a time"),
            pot: Cell::new(0),
            slot: n,
            passed: [const { Cell::new(0) }; LEVELS],
            waits: [const { Cell::new(false) }; LEVELS],
            own: Cell::new(0),
            looks: Cell::new(MIN_LOOKS),
            random: Cell::new(0x9e37_79b9_u32.wrapping_mul(n as u32 + 1) | 1),
        };
        Frame::enter(self, &slot.seat, Some(&local), |frame| {
            // What a task panics with is caught in its call, so this is a fault of the pool. The
            // worker dies of it, and another takes its place on the same thread.
            while let Err(payload) = catch_unwind(AssertUnwindSafe(|| self.life(frame, &local))) {
                drop_payload(payload);
                slot.counters.count(Other::Replaced);
            }
        });
        self.empty_pot(&local);
        *lock(&slot.thread) = None;
        *lock(&slot.deque) = Some(local.deque);
        self.crew.vacate(n);
    }

    fn life(self: &Arc<Self>, frame: &Frame<'_>, local: &Local) {
        loop {
            while let Some(found) = self.next(local) {
                self.do_it(frame, local, found);
            }
            match self.rest(local) {
                Rest::Found(found) => {
                    self.keeper.stir_if_asleep();
                    self.do_it(frame, local, found);
                }
                Rest::Over => return,
            }
        }
    }

    #[inline]
    fn do_it(self: &Arc<Self>, frame: &Frame<'_>, local: &Local, found: Found<'_>) {
        match found {
            Found::Task(level, task) => {
                frame.seat.set_priority(level);
                task.call(&Call {
                    shared: self,
                    counters: local.counters(self),
                    local: Some(local),
                    level,
                    from: Source::Queue,
                    discard: None,
                });
            }
            Found::Join(job, owner) => {
                if self.idle.waiting.load(Ordering::Relaxed) > 0 {
                    self.tell_idle();
                }
                local.counters(self).count(Other::StolenJoins);
                run_stolen(frame, job, owner);
            }
        }
    }

    /// The next piece of work: the highest, but for those that have been passed over often enough.
    #[inline]
    fn next(&self, local: &Local) -> Option<Found<'_>> {
        let bound = self.parts.starvation_bound.get();
        let low = self.queues.waits(Level::LOW, 0);
        local.waits[2].set(low);
        if low && local.passed[2].get() >= bound {
            if let Some(task) = self.queues.take(Level::LOW, None) {
                return Some(Found::Task(Level::LOW, task));
            }
        }
        if !self.queues.is_empty(Level::HIGH) {
            let normal = self.queues.waits(Level::NORMAL, local.deque.len());
            local.waits[1].set(normal);
            if normal && local.passed[1].get() >= bound {
                if let Some(task) = self.normal(local) {
                    return Some(Found::Task(Level::NORMAL, task));
                }
            }
            if let Some(task) = self.queues.take(Level::HIGH, None) {
                return Some(Found::Task(Level::HIGH, task));
            }
        }
        if let Some(task) = self.normal(local) {
            return Some(Found::Task(Level::NORMAL, task));
        }
        if let Some(found) = self.steal(local) {
            return Some(found);
        }
        let task = self.queues.take(Level::LOW, None)?;
        Some(Found::Task(Level::LOW, task))
    }

    #[inline]
    fn normal(&self, local: &Local) -> Option<Task> {
        let own = local.own.get();
        if own < OWN_IN_A_ROW {
            if let Some(task) = local.deque.pop() {
                local.own.set(own + 1);
                return Some(task);
            }
        }
        local.own.set(0);
        let task = self.queues.take(Level::NORMAL, Some(&local.deque));
        // The other end of its own deque has its turn too.
        task.or_else(|| steal(|| self.slots[local.slot].stealer.steal()))
    }

    /// One round of all others, from one at random.
    fn steal(&self, local: &Local) -> Option<Found<'_>> {
        let live = self.crew.places();
        let start = local.random() % live.max(1);
        for n in (start..live).chain(0..start) {
            if n == local.slot {
                continue;
            }
            let slot = &self.slots[n];
            if let Some(job) = slot.seat.deque.steal(0) {
                return Some(Found::Join(job, &slot.seat));
            }
            if !slot.stealer.is_empty() {
                let batch = || {
                    slot.stealer
                        .steal_batch_with_limit_and_pop(&local.deque, BATCH)
                };
                if let Some(task) = steal(batch) {
                    return Some(Found::Task(Level::NORMAL, task));
                }
            }
        }
        self.guests().find_map(|seat| {
            let job = seat.deque.steal(0)?;
            Some(Found::Join(job, seat))
        })
    }

    /// Searches, then sleeps, until there is work or the pool is over.
    #[cold]
    #[inline(never)]
    fn rest(self: &Arc<Self>, local: &Local) -> Rest<'_> {
        let me = local.slot;
        let most = (self.crew.live() as u64).div_ceil(2).max(1);
        let mut searching = self.sleep.begin_search(me, most);
        loop {
            if searching {
                if let Some(found) = self.search(local) {
                    self.found(local);
                    return Rest::Found(found);
                }
            }
            self.empty_pot(local);
            self.sleep.fall_asleep(me, searching);
            if let Some(found) = self.next(local) {
                if self.sleep.wake_up(me) {
                    self.found(local);
                } else if self.has_more(local) {
                    // Who pushed it may have counted on this one's search.
                    self.notify();
                }
                return Rest::Found(found);
            }
            self.tell_idle();
            let too_many = self.crew.is_surplus(self.parts.max_workers);
            let timed_out = !too_many && !self.is_over() && self.park(me);
            // Woken, with a token; or by itself, maybe without.
            searching = self.sleep.wake_up(me);
            let least = match timed_out {
                true => self.parts.workers,
                false => self.parts.max_workers,
            };
            if self.leave(least) {
                if searching {
                    self.found(local);
                }
                return Rest::Over;
            }
        }
    }

    /// Gives the token back. The last one wakes the next if there is more: those who pushed
    /// meanwhile counted on its search. Those who push from now on see that nobody searches.
    fn found(&self, local: &Local) {
        if self.sleep.end_search(local.slot) && self.has_more(local) {
            self.notify();
        }
    }

    fn has_more(&self, local: &Local) -> bool {
        fence(Ordering::SeqCst);
        let levels = [Level::HIGH, Level::NORMAL, Level::LOW];
        let in_slot = |slot: &Slot| !slot.stealer.is_empty() || slot.seat.deque.has_public();
        !local.deque.is_empty()
            || levels.iter().any(|level| !self.queues.is_empty(*level))
            || self.slots[..self.crew.places()].iter().any(in_slot)
            || self.guests().any(|seat| seat.deque.has_public())
    }

    fn search(&self, local: &Local) -> Option<Found<'_>> {
        let looks = local.looks.get();
        for look in 0..looks {
            if let Some(found) = self.next(local) {
                if look > 0 {
                    local.looks.set((looks * 2).min(MAX_LOOKS));
                }
                return Some(found);
            }
            if look < looks / 2 {
                for _ in 0..16 {
                    spin_loop();
                }
            } else {
                // Who is about to push may need this processor.
                yield_now();
            }
        }
        local.looks.set((looks / 2).max(MIN_LOOKS));
        None
    }

    /// Sleeps until somebody wakes it. Whether its time was up instead.
    fn park(&self, me: usize) -> bool {
        if !self.crew.is_surplus(self.parts.workers) {
            while self.sleep.is_asleep(me) {
                park();
            }
            return false;
        }
        let until = Deadline::after(self.parts.idle_timeout);
        while self.sleep.is_asleep(me) {
            let left = until.remaining();
            if left.is_zero() {
                return true;
            }
            park_timeout(left);
        }
        false
    }
}

enum Rest<'a> {
    Found(Found<'a>),
    Over,
}
