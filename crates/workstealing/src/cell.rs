//! A task with a handle: its closure, then its result.
//!
//! Whoever takes the closure out of the cell settles the task: a worker, the handle's `join` or
//! `cancel`, the keeper at the deadline, a shutdown. All others find that it is gone. Nothing of a
//! user is run or dropped under the lock.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;

use overdrive_core::Deadline;
use overdrive_core::unwind::survive;

use crate::call::{Call, Reason, Source};
use crate::counters::{End, Other};
use crate::engine::Shared;
use crate::error::{PanicPayload, TaskError};
use crate::queue::Level;
use crate::sync::{
    AtomicBool, Condvar, Mutant, Mutex, Ordering, lock, removed, spin_loop, yield_now,
};
use crate::wait::wait_until;

/// The models need none: they run every order of steps anyway.
const LOOKS: u32 = if cfg!(any(overdrive_loom, overdrive_shuttle)) {
    0
} else {
    20
};

pub(crate) struct TaskCell<F, T> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) deadline: Deadline,
    level: Level,
    place: Place<F, T>,
}

/// The part that is modelled.
pub(crate) struct Place<F, T> {
    state: Mutex<State<F, T>>,
    changed: Condvar,
    over: AtomicBool,
}

struct State<F, T> {
    stage: Stage<F, T>,
    waker: Option<Waker>,
    /// Threads that wait for the end.
    waiting: u32,
    /// The handle is gone.
    detached: bool,
    /// The place in the queue is free when the entry goes.
    owes_place: bool,
}

enum Stage<F, T> {
    Queued(F),
    Running,
    Over(Result<T, TaskError>),
    /// The handle took the result.
    Left,
}

impl<F, T> Place<F, T> {
    pub(crate) fn new(f: F) -> Self {
        Self {
            state: Mutex::new(State {
                stage: Stage::Queued(f),
                waker: None,
                waiting: 0,
                detached: false,
                owes_place: false,
            }),
            changed: Condvar::new(),
            over: AtomicBool::new(false),
        }
    }

    /// Takes the closure, if nobody has. `on_taken` is called under the lock and says whether the
    /// entry in the queue owes its place.
    pub(crate) fn claim(&self, on_taken: impl FnOnce() -> bool) -> Option<F> {
        let mut state = lock(&self.state);
        match std::mem::replace(&mut state.stage, Stage::Running) {
            Stage::Queued(f) => {
                state.owes_place = on_taken();
                Some(f)
            }
            other => {
                state.stage = other;
                None
            }
        }
    }

    /// The entry in the queue has gone; whether it owed its place.
    fn pays(&self) -> bool {
        std::mem::take(&mut lock(&self.state).owes_place)
    }

    /// Puts the result down, counted by `count` before anybody sees it. Gives it back if nobody is
    /// there to take it.
    pub(crate) fn finish(
        &self,
        result: Result<T, TaskError>,
        count: impl FnOnce(),
    ) -> Result<Option<Waker>, Result<T, TaskError>> {
        let mut state = lock(&self.state);
        if state.detached {
            return Err(result);
        }
        count();
        state.stage = Stage::Over(result);
        self.over.store(true, Ordering::Release);
        if state.waiting > 0 && !removed(Mutant::FinishSilently) {
            self.changed.notify_all();
        }
        Ok(state.waker.take())
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Waits for the end, or until that deadline. Whether it is over.
    pub(crate) fn wait(&self, deadline: Deadline) -> bool {
        if self.look_around() {
            return true;
        }
        let mut state = lock(&self.state);
        state.waiting += 1;
        while !self.is_over() {
            let (guard, in_time) = wait_until(&self.changed, state, deadline);
            state = guard;
            if !in_time {
                break;
            }
        }
        state.waiting -= 1;
        self.is_over()
    }

    /// A short task may be over before a thread has gone to sleep and is back.
    fn look_around(&self) -> bool {
        for look in 0..LOOKS {
            if self.is_over() {
                return true;
            }
            if look < LOOKS / 2 {
                spin_loop();
            } else {
                yield_now();
            }
        }
        self.is_over()
    }

    /// Whether it is over; if not, that waker is returned by `finish`.
    pub(crate) fn register(&self, waker: &Waker) -> bool {
        if self.is_over() {
            return true;
        }
        let waker = waker.clone();
        let mut state = lock(&self.state);
        if self.is_over() {
            drop(state);
            return true;
        }
        let old = state.waker.replace(waker);
        drop(state);
        // A waker's destructor is user code: it runs without the lock.
        drop(old);
        false
    }

    pub(crate) fn take(&self) -> Result<T, TaskError> {
        let mut state = lock(&self.state);
        match std::mem::replace(&mut state.stage, Stage::Left) {
            Stage::Over(result) => result,
            other => {
                state.stage = other;
                drop(state);
                panic!("a task's handle was polled after it was ready")
            }
        }
    }

    /// The handle is gone. What it leaves is the caller's to drop.
    fn detach(&self) -> (Option<Result<T, TaskError>>, Option<Waker>) {
        let mut state = lock(&self.state);
        state.detached = true;
        let waker = state.waker.take();
        if self.is_over() {
            if let Stage::Over(result) = std::mem::replace(&mut state.stage, Stage::Left) {
                return (Some(result), waker);
            }
        }
        (None, waker)
    }
}

/// What a queue entry does with a cell.
pub(crate) trait Entry: Send + Sync {
    /// Its turn has come.
    fn call(&self, call: &Call<'_>);

    /// Settles the task if nobody has begun it, as its deadline has passed.
    fn expire(&self);
}

/// What a handle does with a cell.
pub(crate) trait Awaited<T>: Entry {
    fn shared(&self) -> &Arc<Shared>;
    fn deadline(&self) -> Deadline;
    /// Runs the task here, or drops it, if nobody has begun it. Whether it did.
    fn claim(&self, discard: Option<Reason>) -> bool;
    fn is_over(&self) -> bool;
    fn wait(&self, deadline: Deadline) -> bool;
    fn register(&self, waker: &Waker) -> bool;
    fn take(&self) -> Result<T, TaskError>;
    fn detach(&self);
    /// For the keeper.
    fn entry(self: Arc<Self>) -> Arc<dyn Entry>;
}

impl<F, T> TaskCell<F, T>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    pub(crate) fn new(shared: &Arc<Shared>, level: Level, deadline: Deadline, f: F) -> Self {
        Self {
            shared: Arc::clone(shared),
            deadline,
            level,
            place: Place::new(f),
        }
    }

    /// Takes the task out of turn, on this thread. Whether nobody had begun it.
    fn settle_early(&self, discard: Option<Reason>) -> bool {
        let Some(f) = self.place.claim(|| self.shared.leave_behind(self.level)) else {
            return false;
        };
        if discard.is_none() {
            self.shared.count_here(Other::Claimed);
        }
        self.shared
            .with_call(self.level, Source::Handle, discard, |call| {
                self.settle(f, call);
            });
        true
    }

    fn settle(&self, f: F, call: &Call<'_>) {
        call.begin();
        let (result, end) = match call.verdict(self.deadline) {
            None => match catch_unwind(AssertUnwindSafe(f)) {
                Ok(value) => (Ok(value), End::Completed),
                Err(payload) => {
                    let error = TaskError::Panicked(PanicPayload::new(payload));
                    (Err(error), End::Panicked)
                }
            },
            Some(reason) => {
                survive(|| drop(f));
                (Err(reason.into()), reason.end())
            }
        };
        let waker = match self.place.finish(result, || call.counters.ended(end)) {
            Ok(waker) => waker,
            Err(unwanted) => {
                match unwanted {
                    Err(TaskError::Panicked(payload)) => call.report(payload),
                    unwanted => survive(|| drop(unwanted)),
                }
                call.counters.ended(end);
                None
            }
        };
        call.settled();
        if let Some(waker) = waker {
            survive(|| waker.wake());
        }
    }
}

impl<F, T> Entry for TaskCell<F, T>
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    fn call(&self, call: &Call<'_>) {
        if let Some(f) = self.place.claim(|| false) {
            self.settle(f, call);
        } else if call.from == Source::Queue {
            self.shared.queues.gone(self.level);
            if self.place.pays() {
                self.shared.free_place(call.local);
            }
        }
    }

    fn expire(&self) {
        self.settle_early(Some(Reason::Expired));
    }
}

impl<F, T> Awaited<T> for TaskCell<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn deadline(&self) -> Deadline {
        self.deadline
    }

    fn claim(&self, discard: Option<Reason>) -> bool {
        self.settle_early(discard)
    }

    fn is_over(&self) -> bool {
        self.place.is_over()
    }

    fn wait(&self, deadline: Deadline) -> bool {
        self.place.wait(deadline)
    }

    fn register(&self, waker: &Waker) -> bool {
        self.place.register(waker)
    }

    fn take(&self) -> Result<T, TaskError> {
        self.place.take()
    }

    fn detach(&self) {
        // Both are out before either is dropped, which may panic.
        drop(self.place.detach());
    }

    fn entry(self: Arc<Self>) -> Arc<dyn Entry> {
        self
    }
}
