//! Fused work on several threads at once.
//!
//! Each item is a *cell* in a window. A cell is offered to the thread pool; whoever takes its
//! input first runs it, a worker or the thread that drives the pipeline. A blocked driver only
//! ever waits for cells that are running, and these wait for nobody, so no number of workers is
//! too small and nested pipelines cannot block each other. A driver that is a future runs only
//! what the pool refuses or throws away, and so waits for cells that are queued, too.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use overdrive_core::unwind::survive;

use crate::item::Item;
use crate::stage::{BoxStage, Stage, Threads, Work, carry_out};

/// One item of a parallel segment.
struct Cell<I, T> {
    state: Mutex<State<I, T>>,
    signal: Arc<Signal>,
}

enum State<I, T> {
    /// Nobody has taken it.
    Waiting(Item<I>),
    Running,
    Done(VecDeque<Item<T>>),
}

/// What the workers tell the driver.
#[derive(Default)]
struct Signal {
    driver: Mutex<Option<Waker>>,
    /// Cells that are not done. Counted up by the driver alone.
    busy: AtomicUsize,
    /// Offers that the pool has not dealt with, some perhaps of cells that are done. Counted up by
    /// the driver alone.
    offers: AtomicUsize,
}

impl Signal {
    /// Says who is to be woken by the next cell that is done. What was done before is seen by
    /// whoever looks after this.
    fn watch(&self, waker: &Waker) {
        let waker = waker.clone();
        let old = self.lock().replace(waker);
        drop(old);
    }

    fn raise(&self) {
        let waker = self.lock().take();
        if let Some(waker) = waker {
            // Code of others, on a worker of a pool that may not be its own.
            survive(|| waker.wake());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Waker>> {
        self.driver.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I, T> Cell<I, T> {
    fn lock(&self) -> MutexGuard<'_, State<I, T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs it, unless somebody has: whether it did.
    fn run(&self, work: &Work<'_, I, T>) -> bool {
        let mut state = self.lock();
        if !matches!(*state, State::Waiting(_)) {
            return false;
        }
        let taken = mem::replace(&mut *state, State::Running);
        drop(state);
        let mut out = VecDeque::new();
        if let State::Waiting(item) = taken {
            carry_out(work, item, &mut out);
        }
        *self.lock() = State::Done(out);
        self.signal.busy.fetch_sub(1, Ordering::Relaxed);
        self.signal.raise();
        true
    }

    fn is_done(&self) -> bool {
        matches!(*self.lock(), State::Done(_))
    }

    /// Its results, once it is done.
    fn results(&self) -> Option<VecDeque<Item<T>>> {
        match &mut *self.lock() {
            State::Done(results) => Some(mem::take(results)),
            State::Waiting(_) | State::Running => None,
        }
    }

    /// Takes the input away, so that nobody runs it.
    fn cancel(&self) {
        let mut state = self.lock();
        if !matches!(*state, State::Waiting(_)) {
            return;
        }
        let taken = mem::replace(&mut *state, State::Done(VecDeque::new()));
        drop(state);
        drop(taken);
    }
}

/// A cell that was offered to the pool. Should the pool drop it, the driver learns of it.
struct Offer<I, T>(Option<Arc<Cell<I, T>>>);

impl<I, T> Offer<I, T> {
    fn run(mut self, work: &Work<'_, I, T>) {
        if let Some(cell) = self.0.take() {
            cell.signal.offers.fetch_sub(1, Ordering::Relaxed);
            cell.run(work);
        }
    }
}

impl<I, T> Drop for Offer<I, T> {
    fn drop(&mut self) {
        if let Some(cell) = self.0.take() {
            let signal = Arc::clone(&cell.signal);
            signal.offers.fetch_sub(1, Ordering::Relaxed);
            drop(cell);
            signal.raise();
        }
    }
}

/// A parallel segment.
pub(crate) struct Parallel<'env, I, T> {
    upstream: BoxStage<'env, I>,
    work: Work<'env, I, T>,
    workers: usize,
    /// The most cells in the window.
    room: usize,
    ordered: bool,
    /// Whether the driving thread may run cells itself.
    drive: bool,
    window: VecDeque<Arc<Cell<I, T>>>,
    ready: VecDeque<Item<T>>,
    signal: Arc<Signal>,
}

impl<'env, I, T> Parallel<'env, I, T> {
    pub(crate) fn new(
        upstream: BoxStage<'env, I>,
        work: Work<'env, I, T>,
        workers: usize,
        room: usize,
        ordered: bool,
        drive: bool,
    ) -> Self {
        Self {
            upstream,
            work,
            workers,
            room,
            ordered,
            drive,
            window: VecDeque::new(),
            ready: VecDeque::new(),
            signal: Arc::default(),
        }
    }

    /// Moves the results of a cell that may go on to `ready`: whether there was one.
    fn emit(&mut self) -> bool {
        let mut cells = self
            .window
            .iter()
            .take(if self.ordered { 1 } else { usize::MAX });
        let Some(at) = cells.position(|cell| cell.is_done()) else {
            return false;
        };
        let results = self.window.remove(at).and_then(|cell| cell.results());
        self.ready.extend(results.unwrap_or_default());
        true
    }
}

impl<'env, I: Send + 'env, T: Send + 'env> Parallel<'env, I, T> {
    /// Takes one more item in. It is offered to the pool, unless its threads are all at work, or
    /// have so much else to do that they never came for earlier ones.
    fn take_in(&mut self, item: Item<I>, threads: &dyn Threads<'env>) {
        let cell = Arc::new(Cell {
            state: Mutex::new(State::Waiting(item)),
            signal: Arc::clone(&self.signal),
        });
        let others = self.workers - usize::from(self.drive);
        let busy = self.signal.busy.fetch_add(1, Ordering::Relaxed);
        self.window.push_back(Arc::clone(&cell));
        let unheard = self.signal.offers.load(Ordering::Relaxed) >= self.room;
        if busy >= others || (self.drive && unheard) {
            // The driver is the last worker.
            cell.run(&self.work);
            return;
        }
        self.signal.offers.fetch_add(1, Ordering::Relaxed);
        let offer = Offer(Some(cell));
        let work = Arc::clone(&self.work);
        let given = threads.give(Box::new(move || offer.run(&work)));
        if let Err(job) = given {
            job();
        }
    }
}

impl<'env, I: Send + 'env, T: Send + 'env> Stage<'env> for Parallel<'env, I, T> {
    type Item = T;

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
        threads: &dyn Threads<'env>,
    ) -> Poll<Option<Item<T>>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Poll::Ready(Some(item));
            }
            self.signal.watch(context.waker());
            let busy = self.signal.busy.load(Ordering::Relaxed);
            let may_start = busy < self.workers && self.window.len() < self.room;
            let mut ended = false;
            if may_start {
                match self.upstream.poll_next(context, threads) {
                    Poll::Ready(Some(item)) => {
                        self.take_in(item, threads);
                        continue;
                    }
                    Poll::Ready(None) => ended = true,
                    Poll::Pending => {}
                }
            }
            if self.emit() {
                continue;
            }
            if ended && self.window.is_empty() {
                return Poll::Ready(None);
            }
            // Nothing to take in and nothing done: run what no worker has taken, or will take.
            let mine = |cell: &Arc<_>| self.drive || Arc::strong_count(cell) == 1;
            let mut cells = self.window.iter();
            if cells.any(|cell| mine(cell) && cell.run(&self.work)) {
                continue;
            }
            return Poll::Pending;
        }
    }
}

impl<I, T> Drop for Parallel<'_, I, T> {
    fn drop(&mut self) {
        for cell in &self.window {
            cell.cancel();
        }
    }
}
