//! Who does what when: every change of state is a method here, under one lock.
//!
//! The queue holds all items that are in no running batch. Up to `capacity` of them are accepted,
//! the submitters of the others wait for room; so room is given in order, by itself. Of the free
//! workers at most one, the *gatherer*, looks at the queue; it takes a batch and hands the role on.
//! Outcomes are left in, and fetched from, the [cells](crate::cell), without it.
//!
//! Nothing of the user's runs under a lock: what is to be woken or dropped is collected in
//! [`After`] and seen to when the lock is free.

mod ending;
mod fetch;
#[cfg(all(test, overdrive_loom))]
mod models;
mod pace;
mod place;
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
use crate::after::After;
use crate::cell::{Cell, Placed};
use crate::error::SubmitError;
use crate::observe::{Origin, Origins};
use crate::settings::{Gather, Overload};
use crate::slab::Slab;
use crate::slots::Slots;
use crate::stats::BatchStats;
use crate::sync::{AtomicBool, Mutex, MutexGuard, lock};

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
    /// Those that had outcomes left when they were looked at, and how far they had been fetched: looked
    /// at again one at a time, so that outcomes which nobody fetches for long are not in the way.
    kept: VecDeque<(u32, usize)>,
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
    pub(crate) origin: Origin,
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
    Batch(Vec<T>, Origins),
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

    /// Whether the goal is met; if not, `cx` is woken when it is. `id` names the watcher.
    pub(crate) fn watch(&self, goal: Goal, id: &mut Option<u64>, cx: &Context<'_>) -> Poll<()> {
        let poll = self.look_at(goal, id, cx);
        if poll.is_ready() || !self.rules.inline {
            return poll;
        }
        // As in `poll`.
        self.drive();
        self.look_at(goal, id, cx)
    }

    fn look_at(&self, goal: Goal, id: &mut Option<u64>, cx: &Context<'_>) -> Poll<()> {
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

fn goal_is_met(goal: Goal, unfinished: Option<u64>, alive: usize) -> bool {
    match goal {
        Goal::Past(mark) => unfinished.is_none_or(|number| number >= mark),
        Goal::Ended => alive == 0,
    }
}
