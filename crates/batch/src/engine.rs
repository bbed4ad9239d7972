//! Who does what when: every change of state is a method here, under one lock.
//!
//! The queue holds all items that are in no running batch. Up to `capacity` of them are accepted,
//! the submitters of the others wait for room; so room is given in order, by itself. Of the free
//! workers at most one, the *gatherer*, looks at the queue; it takes a batch and hands the role on.
//! Outcomes are left in, and fetched from, the [cells](crate::cell), without it.
//!
//! Nothing of the user's runs under a lock: what is to be woken or dropped is collected in
//! [`After`] and seen to when the lock is free.

#[cfg(all(test, overdrive_loom))]
mod models;
mod pace;
mod queue;
#[cfg(all(test, overdrive_shuttle))]
mod storms;
mod watch;
mod work;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use overdrive_core::{Clock, Deadline, Health, Priority, Timestamp};

use self::pace::Pace;
use self::queue::{Batch, Bounds, Queue};
pub(crate) use self::watch::{Goal, Watchers};
pub(crate) use self::work::Verdict;
use crate::after::{After, rouse};
use crate::cell::{Cell, Placed};
use crate::error::SubmitError;
use crate::settings::{Gather, Overload};
use crate::slab::Slab;
use crate::slots::{Entry, Found, Slot, Slots};
use crate::stats::BatchStats;
use crate::sync::{AtomicBool, Mutex, MutexGuard, Ordering, lock};

/// How many cells are looked at for one that can gather again.
const LOOKS: usize = 4;

/// What a submitter gets.
pub(crate) type Outcome<T, R, E> = Result<R, SubmitError<T, E>>;

/// The checked settings.
pub(crate) struct Rules<T> {
    pub(crate) name: Cow<'static, str>,
    pub(crate) max_size: usize,
    pub(crate) max_wait: Duration,
    pub(crate) gather: Gather,
    pub(crate) workers: usize,
    pub(crate) capacity: usize,
    pub(crate) overload: Overload,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) weight: Option<Weight<T>>,
    pub(crate) isolate: Option<Isolate<T>>,
    /// Whether handlers first acquire what they run with.
    pub(crate) leases: bool,
    /// Whether the workers are the submitters: woken, a worker runs, on that thread.
    pub(crate) inline: bool,
}

/// How heavy a batch may be.
pub(crate) struct Weight<T> {
    pub(crate) max: usize,
    pub(crate) of: Arc<dyn Fn(&T) -> usize + Send + Sync>,
}

/// How the items of a failed batch are told apart.
pub(crate) struct Isolate<T> {
    pub(crate) max_calls: u32,
    pub(crate) clone: fn(&T) -> T,
}

/// What handles, submitters and workers share.
pub(crate) struct Shared<T, R, E> {
    pub(crate) rules: Rules<T>,
    state: Mutex<State<T, R, E>>,
    cells: Slab<Cell<T, R, E>>,
    /// By worker: how to wake it, once it has begun.
    wakers: Box<[OnceLock<Waker>]>,
    /// Whether an item ever had a deadline: only then has a batch to ask for the time.
    deadlines: AtomicBool,
}

struct State<T, R, E> {
    queue: Queue<T, R, E>,
    over: Over,
    /// How many cells there are.
    cells: u32,
    closed: bool,
    /// Batches with a lower number are not to be lingered over.
    flush_mark: u64,
    /// Items announced, and neither submitted nor given up.
    announced: usize,
    gatherer: Option<usize>,
    /// By worker: whether it waits to be woken.
    parked: Vec<bool>,
    /// By worker.
    desks: Vec<Desk<T, R, E>>,
    alive: usize,
    watchers: Watchers,
    pace: Pace,
    counts: BatchStats,
    /// Of those counted as expired, how many were never accepted.
    came_late: u64,
}

/// Cells of batches that are over, the longest ago first. Once all outcomes have been fetched they
/// gather again.
#[derive(Default)]
struct Over {
    fresh: VecDeque<u32>,
    /// Those that had outcomes left when they were looked at: looked at again one at a time, so that
    /// outcomes which nobody fetches for long are not in the way.
    kept: VecDeque<u32>,
}

/// What a worker works at.
struct Desk<T, R, E> {
    /// Those that make up its batch; none while it has none.
    batches: Vec<Batch<T, R, E>>,
    size: usize,
    /// When its batch was taken, if that is kept.
    since: Timestamp,
}

/// How an item is submitted.
pub(crate) struct Terms {
    pub(crate) deadline: Deadline,
    pub(crate) priority: Priority,
    /// Whether it is refused where it would have to wait for room.
    pub(crate) must_fit: bool,
    pub(crate) waker: Option<Waker>,
}

/// An item that was not taken.
pub(crate) enum Refused<T> {
    Closed(T),
    Full(T),
    TooHeavy(T),
}

/// What a free worker has done before it asks what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ready {
    /// Nothing: it has just been called, or has ended a batch.
    Called,
    /// Let others run, which may have submitted more.
    Ticked,
    /// Acquired what the handler runs with.
    Leased,
}

/// What a worker is to do.
pub(crate) enum Next<T> {
    /// Run this, then [`Shared::publish`].
    Batch(Vec<T>),
    /// Acquire what the handler runs with, then ask again.
    Lease,
    /// Let others run, then ask again.
    Tick,
    /// Ask again when woken, or after this time.
    Park(Duration),
    /// End.
    Ended,
}

/// Why an item failed.
pub(crate) enum Cause<E> {
    Batch(Arc<E>),
    Panicked(Arc<str>),
    WrongResultCount { expected: usize, got: usize },
}

impl<E> Cause<E> {
    fn error<T>(self) -> SubmitError<T, E> {
        match self {
            Self::Batch(error) => SubmitError::Batch(error),
            Self::Panicked(message) => SubmitError::Panicked(message),
            Self::WrongResultCount { expected, got } => {
                SubmitError::WrongResultCount { expected, got }
            }
        }
    }
}

impl<E> Clone for Cause<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Batch(error) => Self::Batch(Arc::clone(error)),
            Self::Panicked(message) => Self::Panicked(Arc::clone(message)),
            &Self::WrongResultCount { expected, got } => Self::WrongResultCount { expected, got },
        }
    }
}

impl<T, R, E> Shared<T, R, E> {
    pub(crate) fn new(rules: Rules<T>) -> Self {
        let desk = || Desk {
            batches: Vec::new(),
            size: 0,
            since: Timestamp::ZERO,
        };
        let wakers = (0..rules.workers).map(|_| OnceLock::new()).collect();
        let state = State {
            queue: Queue::new(),
            over: Over::default(),
            cells: 0,
            closed: false,
            flush_mark: 0,
            announced: 0,
            gatherer: None,
            parked: vec![false; rules.workers],
            desks: (0..rules.workers).map(|_| desk()).collect(),
            alive: rules.workers,
            watchers: Watchers::default(),
            pace: Pace::default(),
            counts: BatchStats::default(),
            came_late: 0,
        };
        Self {
            rules,
            state: Mutex::new(state),
            cells: Slab::new(),
            wakers,
            deadlines: AtomicBool::new(false),
        }
    }

    /// Puts an item into the queue. Unless refused, its outcome is to be fetched with [`poll`], or
    /// given up with [`withdraw`].
    ///
    /// [`poll`]: Self::poll
    /// [`withdraw`]: Self::withdraw
    #[inline]
    pub(crate) fn place(&self, item: T, terms: Terms) -> Result<Placed, Refused<T>> {
        let weight = match &self.rules.weight {
            None => 0,
            Some(weight) => (weight.of)(&item),
        };
        let at = self.arrival(terms.deadline);
        let mut state = self.lock();
        if self.may_refuse(&state, weight) {
            drop(state);
            return self.place_in_full(item, terms, weight, at);
        }
        let entry = entry(item, terms.deadline, terms.waker);
        let placed = self.push(&mut state, entry, terms.priority, weight, at);
        let called = self.call_for_more(&mut state);
        drop(state);
        if let Some(worker) = called {
            rouse(&self.wakers, worker);
        }
        Ok(placed)
    }

    /// As [`place`](Self::place), for items of the same deadline and priority, in their order, without
    /// wakers: under the lock once, as far as there is room.
    pub(crate) fn place_all(
        &self,
        items: Vec<T>,
        deadline: Deadline,
        priority: Priority,
    ) -> Vec<Result<Placed, Refused<T>>> {
        let weigh = |weight: &Weight<T>| items.iter().map(|item| (weight.of)(item)).collect();
        let weights: Option<Vec<usize>> = self.rules.weight.as_ref().map(weigh);
        let weight = |index: usize| weights.as_ref().map_or(0, |weights| weights[index]);
        let at = self.arrival(deadline);
        let mut placed = Vec::with_capacity(items.len());
        let mut items = items.into_iter();
        let mut state = self.lock();
        while items.len() > 0 && !self.may_refuse(&state, weight(placed.len())) {
            let weight = weight(placed.len());
            placed.extend(items.next().map(|item| {
                let entry = entry(item, deadline, None);
                Ok(self.push(&mut state, entry, priority, weight, at))
            }));
        }
        let called = self.call_for_more(&mut state);
        drop(state);
        if let Some(worker) = called {
            rouse(&self.wakers, worker);
        }
        for item in items {
            let terms = Terms {
                deadline,
                priority,
                must_fit: false,
                waker: None,
            };
            let weight = weight(placed.len());
            placed.push(self.place_in_full(item, terms, weight, at));
        }
        placed
    }

    /// Whether an item so heavy is not simply queued.
    fn may_refuse(&self, state: &State<T, R, E>, weight: usize) -> bool {
        state.closed || weight > self.bounds().weight || state.queue.live() >= self.rules.capacity
    }

    /// When an item with that deadline comes, if it matters.
    fn arrival(&self, deadline: Deadline) -> Timestamp {
        if deadline != Deadline::NEVER && !self.deadlines.load(Ordering::Relaxed) {
            // A worker that takes the item without having seen this does so only now.
            self.deadlines.store(true, Ordering::Relaxed);
        }
        if self.rules.gather.wants_ages() {
            self.rules.clock.now()
        } else {
            Timestamp::ZERO
        }
    }

    /// As [`place`](Self::place), where there may be no room, or none any more.
    #[cold]
    fn place_in_full(
        &self,
        item: T,
        mut terms: Terms,
        weight: usize,
        at: Timestamp,
    ) -> Result<Placed, Refused<T>> {
        // Not into the closure, which would drop it under the lock.
        let mut waker = terms.waker.take();
        self.with(|state, after| {
            if state.closed {
                state.counts.rejected += 1;
                return Err(Refused::Closed(item));
            }
            if weight > self.bounds().weight {
                state.counts.rejected += 1;
                return Err(Refused::TooHeavy(item));
            }
            if state.queue.live() >= self.rules.capacity && !self.make_room(state, &terms, after) {
                state.counts.rejected += 1;
                return Err(Refused::Full(item));
            }
            let entry = entry(item, terms.deadline, waker.take());
            let placed = self.push(state, entry, terms.priority, weight, at);
            after.rouse(self.call_for_more(state));
            Ok(placed)
        })
    }

    #[inline]
    fn push(
        &self,
        state: &mut State<T, R, E>,
        entry: Entry<T>,
        priority: Priority,
        weight: usize,
        at: Timestamp,
    ) -> Placed {
        let State {
            queue, over, cells, ..
        } = state;
        let begin = || self.begin(over, cells);
        queue.push(entry, priority, weight, at, self.bounds(), begin)
    }

    /// Where the submitters are the workers: has one who waits run what nobody is at.
    pub(crate) fn drive(&self) {
        if !self.rules.inline {
            return;
        }
        let called = {
            let mut state = self.lock();
            let idle = state.gatherer.is_none() && !state.queue.is_empty();
            idle.then(|| state.call_gatherer()).flatten()
        };
        if let Some(worker) = called {
            rouse(&self.wakers, worker);
        }
    }

    /// An item has come: the worker that is to be woken for it, if one is.
    fn call_for_more(&self, state: &mut State<T, R, E>) -> Option<usize> {
        match state.gatherer {
            None => state.call_gatherer(),
            // It is parked only if it lingers.
            Some(worker) if !state.parked[worker] => None,
            Some(worker) => {
                let enough = state.queue.live() >= self.lingers_for();
                let woken = enough || state.queue.has_complete(self.bounds());
                woken.then(|| state.unpark(worker)).flatten()
            }
        }
    }

    /// A cell for a new batch.
    #[inline(never)]
    fn begin(&self, over: &mut Over, cells: &mut u32) -> (u32, Slots<T, R, E>) {
        for _ in 0..LOOKS {
            let Some(cell) = over.fresh.pop_front() else {
                break;
            };
            if let Some(slots) = self.cells.get(cell).reopen() {
                return (cell, slots);
            }
            over.kept.push_back(cell);
        }
        if let Some(cell) = over.kept.pop_front() {
            if let Some(slots) = self.cells.get(cell).reopen() {
                return (cell, slots);
            }
            over.kept.push_back(cell);
        }
        let cell = *cells;
        *cells += 1;
        // Made now, where the lock orders it before every use.
        self.cells.get(cell);
        (cell, Slots::default())
    }

    /// Whether an item may be queued though the batcher is full.
    fn make_room(
        &self,
        state: &mut State<T, R, E>,
        terms: &Terms,
        after: &mut After<T, R, E>,
    ) -> bool {
        match self.rules.overload {
            _ if terms.must_fit => false,
            Overload::Wait => true,
            Overload::Reject => false,
            Overload::ShedOldest => {
                let shed = |item| Err(SubmitError::Shed(item));
                let Some(batch) = state.queue.shed(terms.priority, shed, after) else {
                    return false;
                };
                state.counts.shed += 1;
                self.retire(state, batch);
                true
            }
        }
    }

    /// The item's outcome, if there is one; if not, `cx` is woken when there is.
    pub(crate) fn poll(
        &self,
        placed: Placed,
        cx: &Context<'_>,
    ) -> Result<Outcome<T, R, E>, Placed> {
        let placed = match self.look(placed, cx) {
            Err(placed) if self.rules.inline => placed,
            found => return found,
        };
        // Registered: who leaves the rest from now on wakes us. Who has done so before has not.
        self.drive();
        self.look(placed, cx)
    }

    fn look(&self, mut placed: Placed, cx: &Context<'_>) -> Result<Outcome<T, R, E>, Placed> {
        let mut fresh = None;
        loop {
            match self.fetch(placed) {
                Ok(slot) => return Ok(slot.into_outcome()),
                Err(back) => placed = back,
            }
            let found = {
                let mut state = self.lock();
                let slots = state.slots(&placed);
                slots.map(|slots| slots.poll(&placed, cx.waker(), &mut fresh))
            };
            match found {
                Some(Found::Done(outcome)) => return Ok(outcome),
                Some(Found::Waits) => return Err(placed),
                Some(Found::Registered(old)) => {
                    drop(old);
                    return Err(placed);
                }
                Some(Found::NeedsWaker) => fresh = Some(cx.waker().clone()),
                // It is over by now.
                None => {}
            }
        }
    }

    /// What is in the item's slot, if its batch is over.
    #[inline]
    pub(crate) fn fetch(&self, placed: Placed) -> Result<Slot<T, R, E>, Placed> {
        self.cells.get(placed.cell()).fetch(placed)
    }

    /// Does `f` with the slots of the item's batch; the item again if that is over.
    fn with_slots<O>(
        &self,
        placed: Placed,
        f: impl FnOnce(&mut Slots<T, R, E>, &Placed) -> O,
    ) -> Result<O, Placed> {
        match self.lock().slots(&placed) {
            Some(slots) => Ok(f(slots, &placed)),
            None => Err(placed),
        }
    }

    /// Counts an item whose deadline had passed before it was placed.
    pub(crate) fn came_late(&self) {
        let mut state = self.lock();
        state.counts.expired += 1;
        state.came_late += 1;
    }

    /// Takes an item out whose deadline has passed, unless its batch is taken.
    pub(crate) fn expire(&self, placed: Placed) -> Result<T, Placed> {
        let entry = self.with(|state, after| {
            let slots = state.queue.slots(&placed)?;
            if !matches!(slots.get_mut(placed.slot()), Slot::Queued(_)) {
                return None;
            }
            let (left, batch) = state.queue.leave(&placed)?;
            state.counts.expired += 1;
            self.retire(state, batch);
            state.settle(after);
            Some(left)
        });
        match entry {
            Some(Slot::Queued(entry)) => Ok(entry.item),
            _ => Err(placed),
        }
    }

    /// The submitter goes: its item is taken out, unless its batch is taken.
    pub(crate) fn withdraw(&self, placed: Placed) {
        let placed = match self.fetch(placed) {
            Ok(left) => return drop(left),
            Err(placed) => placed,
        };
        let left = self.with(|state, after| {
            let (left, batch) = state.queue.leave(&placed)?;
            if matches!(left, Slot::Queued(_)) {
                state.counts.cancelled += 1;
            }
            self.retire(state, batch);
            state.settle(after);
            Some(left)
        });
        match left {
            Some(left) => drop(left),
            None => self.leave(placed),
        }
    }

    /// The submitter goes, and leaves its item to be processed.
    pub(crate) fn detach(&self, placed: Placed) {
        match self.with_slots(placed, |slots, placed| slots.detach(placed)) {
            Ok(left) => drop(left),
            Err(placed) => self.leave(placed),
        }
    }

    /// The submitter of an item whose batch is taken goes.
    fn leave(&self, placed: Placed) {
        match self.with_slots(placed, |slots, placed| slots.leave(placed)) {
            Ok(left) => drop(left),
            // It is over.
            Err(placed) => drop(self.fetch(placed)),
        }
    }

    /// A batch in which nothing waits any more: what was left for its submitters goes to its cell.
    fn retire(&self, state: &mut State<T, R, E>, batch: Option<Batch<T, R, E>>) {
        if let Some(batch) = batch {
            state.over.fresh.push_back(batch.cell);
            self.cells.get(batch.cell).end(batch.slots);
        }
    }

    /// Whether the worker's batch has not been abandoned.
    pub(crate) fn has_batch(&self, worker: usize) -> bool {
        self.lock().desks[worker].size > 0
    }

    /// The goal that everything submitted so far has ended, with no more lingering over it.
    pub(crate) fn flush(&self) -> Goal {
        let goal = self.with(|state, after| {
            state.flush_mark = state.queue.seal();
            state.rouse_gatherer(after);
            Goal::Past(state.flush_mark)
        });
        self.drive();
        goal
    }

    /// An item is announced.
    pub(crate) fn announce(&self) {
        self.lock().announced += 1;
    }

    /// An announced item has come, or never will.
    pub(crate) fn came(&self) {
        self.with(|state, after| {
            state.announced -= 1;
            if state.announced == 0 && self.rules.gather == Gather::Announced {
                state.rouse_gatherer(after);
            }
        });
    }

    /// Takes no more items. Those who wait for room get theirs back.
    pub(crate) fn close(&self) {
        self.with(|state, after| self.close_state(state, after));
    }

    fn close_state(&self, state: &mut State<T, R, E>, after: &mut After<T, R, E>) {
        state.closed = true;
        let refused = self.truncate(state, self.rules.capacity, after, SubmitError::Closed);
        state.counts.rejected += refused;
        state.settle(after);
        state.rouse_all(after);
    }

    fn truncate(
        &self,
        state: &mut State<T, R, E>,
        keep: usize,
        after: &mut After<T, R, E>,
        error: impl Fn(T) -> SubmitError<T, E>,
    ) -> u64 {
        let (ended, gone) = state.queue.truncate(keep, |item| Err(error(item)), after);
        for batch in gone {
            self.retire(state, Some(batch));
        }
        ended as u64
    }

    /// Gives up on everything that has not ended; how much that was.
    pub(crate) fn abandon(&self) -> u64 {
        self.with(|state, after| {
            self.close_state(state, after);
            let before = state.counts.abandoned;
            self.abandon_queue(state, after);
            for worker in 0..state.desks.len() {
                self.abandon_running(state, worker, after);
            }
            state.settle(after);
            state.counts.abandoned - before
        })
    }

    fn abandon_queue(&self, state: &mut State<T, R, E>, after: &mut After<T, R, E>) {
        let error = |item| SubmitError::Abandoned(Some(item));
        state.counts.abandoned += self.truncate(state, 0, after, error);
    }

    fn abandon_running(
        &self,
        state: &mut State<T, R, E>,
        worker: usize,
        after: &mut After<T, R, E>,
    ) {
        let desk = &mut state.desks[worker];
        state.counts.abandoned += std::mem::take(&mut desk.size) as u64;
        for mut batch in std::mem::take(&mut desk.batches) {
            let error = || Err(SubmitError::Abandoned(None));
            batch.slots.finish(std::iter::repeat_with(error), after);
            self.retire(state, Some(batch));
        }
    }

    /// Whether the goal is met; if not, `cx` is woken when it is. `id` names the watcher.
    pub(crate) fn watch(&self, goal: Goal, id: &mut Option<u64>, cx: &Context<'_>) -> Poll<()> {
        self.drive();
        let waker = cx.waker().clone();
        let (poll, old) = self.with(|state, _| {
            if state.is_met(goal) {
                (Poll::Ready(()), Some(waker))
            } else {
                (Poll::Pending, state.watchers.add(goal, id, waker))
            }
        });
        drop(old);
        poll
    }

    /// The watcher goes.
    pub(crate) fn forget(&self, id: u64) {
        let gone = self.lock().watchers.remove(id);
        drop(gone);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(crate) fn health(&self) -> Health {
        let state = self.lock();
        if state.closed {
            Health::Unhealthy
        } else if state.queue.live() * 4 >= self.rules.capacity * 3 {
            Health::Degraded
        } else {
            Health::Healthy
        }
    }

    pub(crate) fn stats(&self) -> BatchStats {
        let state = self.lock();
        let live = state.queue.live();
        let queued = live.min(self.rules.capacity);
        let mut stats = BatchStats {
            waiting: live - queued,
            queued,
            running: state.desks.iter().map(|desk| desk.size).sum(),
            ..state.counts
        };
        stats.submitted = stats.accounted();
        stats
    }

    /// Accepted items that ended with a result, or an error that their submitter was given.
    pub(crate) fn finished(&self) -> u64 {
        let state = self.lock();
        let counts = &state.counts;
        counts.completed + counts.failed + counts.shed + counts.expired - state.came_late
    }

    /// How many items end a linger.
    fn lingers_for(&self) -> usize {
        match self.rules.gather {
            Gather::Linger { min_size } => min_size,
            Gather::Adaptive | Gather::Announced => self.rules.max_size,
            Gather::Immediate | Gather::Tick => 1,
        }
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            size: self.rules.max_size,
            weight: self
                .rules
                .weight
                .as_ref()
                .map_or(usize::MAX, |weight| weight.max),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T, R, E>> {
        lock(&self.state)
    }

    fn with<O>(&self, f: impl FnOnce(&mut State<T, R, E>, &mut After<T, R, E>) -> O) -> O {
        let mut after = After::new();
        let output = f(&mut self.lock(), &mut after);
        after.run(&self.wakers);
        output
    }
}

impl<T, R, E> State<T, R, E> {
    /// Makes a free worker the gatherer, if there is one: it is to be woken.
    fn call_gatherer(&mut self) -> Option<usize> {
        let worker = self.parked.iter().position(|&parked| parked)?;
        self.gatherer = Some(worker);
        self.unpark(worker)
    }

    /// The worker, if it waits to be woken: it is to be.
    fn unpark(&mut self, worker: usize) -> Option<usize> {
        std::mem::take(&mut self.parked[worker]).then_some(worker)
    }

    /// Has the next worker look at what is left.
    fn hand_over(&mut self, after: &mut After<T, R, E>) {
        if !self.queue.is_empty() {
            if self.gatherer.is_none() {
                after.rouse(self.call_gatherer());
            }
        } else if self.closed {
            self.rouse_all(after);
        }
    }

    fn rouse_gatherer(&mut self, after: &mut After<T, R, E>) {
        if let Some(worker) = self.gatherer {
            after.rouse(self.unpark(worker));
        }
    }

    fn rouse_all(&mut self, after: &mut After<T, R, E>) {
        for worker in 0..self.parked.len() {
            after.rouse(self.unpark(worker));
        }
    }

    /// The slots of the item's batch, unless that is over.
    fn slots(&mut self, placed: &Placed) -> Option<&mut Slots<T, R, E>> {
        let mut running = self.desks.iter_mut().flat_map(|desk| &mut desk.batches);
        let running = running.find(|batch| batch.number == placed.number());
        running
            .map(|batch| &mut batch.slots)
            .or_else(|| self.queue.slots(placed))
    }

    /// Tells those whose goal is met. After each change of what has not ended.
    fn settle(&mut self, after: &mut After<T, R, E>) {
        if self.watchers.is_empty() {
            return;
        }
        let unfinished = self.unfinished();
        let alive = self.alive;
        let met = |goal| goal_is_met(goal, unfinished, alive);
        self.watchers.tell(met, |waker| after.wake(Some(waker)));
    }

    fn is_met(&self, goal: Goal) -> bool {
        goal_is_met(goal, self.unfinished(), self.alive)
    }

    /// The number of the oldest batch that has not ended.
    fn unfinished(&self) -> Option<u64> {
        let running = self.desks.iter().flat_map(|desk| &desk.batches);
        let running = running.map(|batch| batch.number).min();
        self.queue.oldest().into_iter().chain(running).min()
    }
}

fn entry<T>(item: T, deadline: Deadline, waker: Option<Waker>) -> Entry<T> {
    Entry {
        item,
        deadline,
        waker,
        seq: 0,
        wanted: true,
    }
}

fn goal_is_met(goal: Goal, unfinished: Option<u64>, alive: usize) -> bool {
    match goal {
        Goal::Past(mark) => unfinished.is_none_or(|number| number >= mark),
        Goal::Ended => alive == 0,
    }
}
