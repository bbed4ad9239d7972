//! The queue, and who does what when: every change of state is a method here, under one lock.
//!
//! One deque holds all items that are in no running batch, in the order in which they came. The
//! first `capacity` of them are accepted, the submitters of the others wait for room; so room is
//! given in order, by itself. Of the free workers at most one, the *gatherer*, looks at the deque;
//! it closes the batch, that is, takes items from the front, and hands the role on.
//!
//! Nothing of the user's runs under the lock: what is to be woken or dropped is collected in
//! [`After`] and seen to when the lock is free.

mod work;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use overdrive_core::unwind::survive;
use overdrive_core::{Clock, Deadline, Health, Timestamp};

use crate::cell::Cell;
use crate::error::SubmitError;
use crate::settings::{Gather, Overload};
use crate::stats::BatchStats;

/// What a submitter gets.
pub(crate) type Outcome<T, R, E> = Result<R, SubmitError<T, E>>;

/// The checked settings.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) name: Cow<'static, str>,
    pub(crate) max_size: usize,
    pub(crate) max_wait: Duration,
    pub(crate) gather: Gather,
    pub(crate) workers: usize,
    pub(crate) capacity: usize,
    pub(crate) overload: Overload,
    pub(crate) clock: Arc<dyn Clock>,
}

/// What handles, submitters and workers share.
pub(crate) struct Shared<T, R, E> {
    pub(crate) rules: Rules,
    state: Mutex<State<T, R, E>>,
}

struct State<T, R, E> {
    queue: VecDeque<Entry<T, R, E>>,
    next_seq: u64,
    closed: bool,
    /// Items below are not to be lingered over.
    flush_mark: u64,
    gatherer: Option<usize>,
    /// Whether the gatherer has let the others run.
    ticked: bool,
    /// By worker: how to wake it, while it waits.
    parked: Vec<Option<Waker>>,
    /// By worker.
    running: Vec<Option<Running<T, R, E>>>,
    alive: usize,
    watchers: Vec<Watcher>,
    next_watcher: u64,
    counts: BatchStats,
    /// Of those counted as expired, how many were never accepted.
    came_late: u64,
}

struct Entry<T, R, E> {
    seq: u64,
    item: T,
    cell: Arc<Cell<Outcome<T, R, E>>>,
    deadline: Deadline,
    /// When it was submitted; only kept for [`Gather::Linger`].
    at: Timestamp,
}

struct Running<T, R, E> {
    first: u64,
    cells: Vec<Arc<Cell<Outcome<T, R, E>>>>,
}

/// What is awaited of the batcher as a whole.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// All items before this number have ended.
    Past(u64),
    /// All workers have ended.
    Ended,
}

struct Watcher {
    id: u64,
    goal: Goal,
    waker: Waker,
}

/// A submitted item, as its submitter knows it.
pub(crate) struct Placed<T, R, E> {
    seq: u64,
    pub(crate) cell: Arc<Cell<Outcome<T, R, E>>>,
}

/// An item that was not taken.
pub(crate) enum Refused<T> {
    Closed(T),
    Full(T),
}

/// What a worker is to do.
pub(crate) enum Next<T> {
    /// Run this, then [`Shared::publish`].
    Batch(Vec<T>),
    /// Let others run, then ask again.
    Tick,
    /// Ask again when woken, or after this time.
    Park(Duration),
    /// End.
    Ended,
}

/// Why a batch failed.
pub(crate) enum Cause<E> {
    Batch(Arc<E>),
    Panicked(Arc<str>),
    WrongResultCount { expected: usize, got: usize },
}

impl<E> Cause<E> {
    fn error<T>(&self) -> SubmitError<T, E> {
        match *self {
            Self::Batch(ref error) => SubmitError::Batch(Arc::clone(error)),
            Self::Panicked(ref message) => SubmitError::Panicked(Arc::clone(message)),
            Self::WrongResultCount { expected, got } => {
                SubmitError::WrongResultCount { expected, got }
            }
        }
    }
}

/// What is seen to when the lock is free.
struct After<T, R, E> {
    /// Kept apart since seldom there are more, and so nothing is allocated.
    first: Option<Waker>,
    more: Vec<Waker>,
    unwanted: Vec<Outcome<T, R, E>>,
}

impl<T, R, E> After<T, R, E> {
    fn wake(&mut self, waker: Option<Waker>) {
        match self.first {
            None => self.first = waker,
            Some(_) => self.more.extend(waker),
        }
    }

    fn finish(&mut self, cell: &Cell<Outcome<T, R, E>>, outcome: Outcome<T, R, E>) {
        match cell.finish(outcome) {
            Ok(waker) => self.wake(waker),
            Err(outcome) => self.unwanted.push(outcome),
        }
    }

    fn run(self) {
        for waker in self.first.into_iter().chain(self.more) {
            survive(|| waker.wake());
        }
        for outcome in self.unwanted {
            survive(|| drop(outcome));
        }
    }
}

impl<T, R, E> Shared<T, R, E> {
    pub(crate) fn new(rules: Rules) -> Self {
        let workers = rules.workers;
        let none = || (0..workers).map(|_| None);
        let state = State {
            queue: VecDeque::new(),
            next_seq: 0,
            closed: false,
            flush_mark: 0,
            gatherer: None,
            ticked: false,
            parked: none().collect(),
            running: (0..workers).map(|_| None).collect(),
            alive: workers,
            watchers: Vec::new(),
            next_watcher: 0,
            counts: BatchStats::default(),
            came_late: 0,
        };
        Self {
            rules,
            state: Mutex::new(state),
        }
    }

    /// Puts an item at the end of the queue. If it `must_fit`, there has to be room at once.
    pub(crate) fn place(
        &self,
        item: T,
        deadline: Deadline,
        must_fit: bool,
    ) -> Result<Placed<T, R, E>, Refused<T>> {
        let cell = Arc::new(Cell::new());
        let at = match self.rules.gather {
            Gather::Linger { .. } => self.rules.clock.now(),
            Gather::Immediate | Gather::Tick => Timestamp::ZERO,
        };
        self.with(|state, after| {
            state.counts.submitted += 1;
            if state.closed {
                state.counts.rejected += 1;
                return Err(Refused::Closed(item));
            }
            if must_fit && state.queue.len() >= self.rules.capacity {
                state.counts.rejected += 1;
                return Err(Refused::Full(item));
            }
            let seq = state.next_seq;
            state.next_seq += 1;
            state.queue.push_back(Entry {
                seq,
                item,
                cell: Arc::clone(&cell),
                deadline,
                at,
            });
            match state.gatherer {
                None => state.call_gatherer(after),
                // It is parked only if it lingers.
                Some(worker) if state.queue.len() >= self.lingers_for() => {
                    after.wake(state.parked[worker].take());
                }
                Some(_) => {}
            }
            Ok(Placed { seq, cell })
        })
    }

    /// Counts an item whose deadline had passed before it was placed.
    pub(crate) fn came_late(&self) {
        let mut state = self.lock();
        state.counts.submitted += 1;
        state.counts.expired += 1;
        state.came_late += 1;
    }

    /// Takes an item out whose deadline has passed, unless its batch is closed.
    pub(crate) fn expire(&self, placed: &Placed<T, R, E>) -> Option<T> {
        self.with(|state, after| {
            let entry = state.remove(placed.seq)?;
            state.counts.expired += 1;
            state.settle(after);
            Some(entry.item)
        })
    }

    /// The submitter goes: its item is taken out, unless its batch is closed.
    pub(crate) fn cancel(&self, placed: &Placed<T, R, E>) {
        let entry = self.with(|state, after| {
            let entry = state.remove(placed.seq)?;
            state.counts.cancelled += 1;
            state.settle(after);
            Some(entry)
        });
        if entry.is_none() {
            drop(placed.cell.leave());
        }
        drop(entry);
    }

    /// The goal that everything submitted so far has ended, with no more lingering over it.
    pub(crate) fn flush(&self) -> Goal {
        self.with(|state, after| {
            state.flush_mark = state.next_seq;
            state.rouse_gatherer(after);
            Goal::Past(state.next_seq)
        })
    }

    /// Takes no more items. Those who wait for room get theirs back.
    pub(crate) fn close(&self) {
        self.with(|state, after| state.close(self.rules.capacity, after));
    }

    /// Gives up on everything that has not ended; how much that was.
    pub(crate) fn abandon(&self) -> u64 {
        self.with(|state, after| {
            state.close(self.rules.capacity, after);
            let before = state.counts.abandoned;
            state.abandon_queue(after);
            for worker in 0..state.running.len() {
                state.abandon_running(worker, after);
            }
            state.settle(after);
            state.counts.abandoned - before
        })
    }

    /// Whether the goal is met; if not, `cx` is woken when it is. `id` names the watcher.
    pub(crate) fn watch(&self, goal: Goal, id: &mut Option<u64>, cx: &Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let (poll, old) = self.with(|state, _| {
            if state.is_met(goal) {
                return (Poll::Ready(()), Some(waker));
            }
            let known = state.watchers.iter_mut().find(|w| Some(w.id) == *id);
            if let Some(watcher) = known {
                let old = std::mem::replace(&mut watcher.waker, waker);
                return (Poll::Pending, Some(old));
            }
            let new = state.next_watcher;
            state.next_watcher += 1;
            *id = Some(new);
            state.watchers.push(Watcher {
                id: new,
                goal,
                waker,
            });
            (Poll::Pending, None)
        });
        drop(old);
        poll
    }

    /// The watcher goes.
    pub(crate) fn forget(&self, id: u64) {
        let gone = {
            let mut state = self.lock();
            let place = state.watchers.iter().position(|w| w.id == id);
            place.map(|place| state.watchers.swap_remove(place))
        };
        drop(gone);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    pub(crate) fn health(&self) -> Health {
        let state = self.lock();
        if state.closed {
            Health::Unhealthy
        } else if state.queue.len() * 4 >= self.rules.capacity * 3 {
            Health::Degraded
        } else {
            Health::Healthy
        }
    }

    pub(crate) fn stats(&self) -> BatchStats {
        let state = self.lock();
        let queued = state.queue.len().min(self.rules.capacity);
        BatchStats {
            waiting: state.queue.len() - queued,
            queued,
            running: state.running.iter().flatten().map(|r| r.cells.len()).sum(),
            ..state.counts
        }
    }

    /// Accepted items that ended with a result, or an error that their submitter was given.
    pub(crate) fn finished(&self) -> u64 {
        let state = self.lock();
        let counts = &state.counts;
        counts.completed + counts.failed + counts.expired - state.came_late
    }

    /// How many items end a linger.
    fn lingers_for(&self) -> usize {
        match self.rules.gather {
            Gather::Linger { min_size } => min_size,
            Gather::Immediate | Gather::Tick => 1,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T, R, E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<O>(&self, f: impl FnOnce(&mut State<T, R, E>, &mut After<T, R, E>) -> O) -> O {
        let mut after = After {
            first: None,
            more: Vec::new(),
            unwanted: Vec::new(),
        };
        let output = f(&mut self.lock(), &mut after);
        after.run();
        output
    }
}

impl<T, R, E> State<T, R, E> {
    /// Makes a free worker the gatherer, if there is one.
    fn call_gatherer(&mut self, after: &mut After<T, R, E>) {
        let free = self.parked.iter().position(Option::is_some);
        if let Some(worker) = free {
            self.gatherer = Some(worker);
            after.wake(self.parked[worker].take());
        }
    }

    /// Has the next worker look at what is left.
    fn hand_over(&mut self, after: &mut After<T, R, E>) {
        if !self.queue.is_empty() {
            if self.gatherer.is_none() {
                self.call_gatherer(after);
            }
        } else if self.closed {
            self.rouse_all(after);
        }
    }

    fn rouse_gatherer(&mut self, after: &mut After<T, R, E>) {
        if let Some(worker) = self.gatherer {
            after.wake(self.parked[worker].take());
        }
    }

    fn rouse_all(&mut self, after: &mut After<T, R, E>) {
        for waker in &mut self.parked {
            after.wake(waker.take());
        }
    }

    fn remove(&mut self, seq: u64) -> Option<Entry<T, R, E>> {
        let place = self.queue.binary_search_by_key(&seq, |entry| entry.seq);
        place.ok().and_then(|place| self.queue.remove(place))
    }

    fn close(&mut self, capacity: usize, after: &mut After<T, R, E>) {
        self.closed = true;
        let accepted = self.queue.len().min(capacity);
        for entry in self.queue.drain(accepted..) {
            self.counts.rejected += 1;
            after.finish(&entry.cell, Err(SubmitError::Closed(entry.item)));
        }
        self.settle(after);
        self.rouse_all(after);
    }

    fn abandon_queue(&mut self, after: &mut After<T, R, E>) {
        for entry in self.queue.drain(..) {
            self.counts.abandoned += 1;
            after.finish(&entry.cell, Err(SubmitError::Abandoned(Some(entry.item))));
        }
    }

    fn abandon_running(&mut self, worker: usize, after: &mut After<T, R, E>) {
        let running = self.running[worker].take();
        for cell in running.iter().flat_map(|running| &running.cells) {
            self.counts.abandoned += 1;
            after.finish(cell, Err(SubmitError::Abandoned(None)));
        }
    }

    /// Tells those whose goal is met. After each change of what has not ended.
    fn settle(&mut self, after: &mut After<T, R, E>) {
        let mut place = 0;
        while place < self.watchers.len() {
            if self.is_met(self.watchers[place].goal) {
                after.wake(Some(self.watchers.swap_remove(place).waker));
            } else {
                place += 1;
            }
        }
    }

    fn is_met(&self, goal: Goal) -> bool {
        match goal {
            Goal::Past(mark) => {
                let queued = self.queue.front().map(|entry| entry.seq);
                let running = self.running.iter().flatten().map(|r| r.first).min();
                queued.is_none_or(|seq| seq >= mark) && running.is_none_or(|seq| seq >= mark)
            }
            Goal::Ended => self.alive == 0,
        }
    }
}
