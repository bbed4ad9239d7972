//! Work on borrowed data, over before the borrow is.
//!
//! # Invariants
//!
//! 1. A part made by [`Scope::spawn`] borrows for `'scope`. It is given to its group as if it
//!    borrowed nothing, and [`run`] does not return, nor unwind, before it is gone.
//! 2. `unfinished` counts the parts that are not gone. It goes up in `spawn`, before anybody else
//!    has the part, and down in [`Group::finished`], after the call of the part, which consumes it,
//!    has returned. A part that is lost without being called leaves the count up: then `run` waits
//!    for ever, and the borrow stays valid.
//! 3. `run` waits for the count to be zero in a destructor, so on each way out. When it has seen
//!    zero, no part exists that could spawn another one, and the `&Scope` given to the operation
//!    is gone.
//! 4. What outlives a part (the group, hints in the pool's queues) is `'static` by type. Results go
//!    where the part itself puts them, while the borrow is valid.
//! 5. `Scope<'scope>` is invariant in `'scope` and only lent, so that nobody can shorten the
//!    lifetime or keep the scope.
//! 6. The call of a part does not unwind: it catches what it runs and drops, so the destructor of 3
//!    is not left early.

#![expect(
    unsafe_code,
    reason = "parts that borrow wait in a queue that outlives them"
)]

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use overdrive_core::unwind::{drop_payload, survive};

use crate::call::{Call, Source};
use crate::counters::{End, Other};
use crate::engine::Shared;
use crate::queue::Level;
use crate::raw::context;
use crate::raw::task::Task;
use crate::sync::{Condvar, Mutex, MutexGuard, lock, wait};

/// Where work on borrowed data is spawned, given by [`scope`](crate::scope()) and
/// [`ThreadPool::scope`](crate::ThreadPool::scope).
///
/// What a part borrows must live longer than the scope:
///
/// ```compile_fail
/// overdrive_workstealing::scope(|scope| {
///     let inside = String::from("gone before the part may run");
///     scope.spawn(|_| println!("{inside}"));
/// });
/// ```
///
/// And the scope cannot be kept:
///
/// ```compile_fail
/// let mut kept = None;
/// overdrive_workstealing::scope(|scope| kept = Some(scope));
/// ```
///
/// Nor be taken for one with less to borrow from:
///
/// ```compile_fail
/// use overdrive_workstealing::Scope;
/// fn shorten<'s, 'long: 'short, 'short>(scope: &'s Scope<'long>) -> &'s Scope<'short> {
///     scope
/// }
/// ```
pub struct Scope<'scope> {
    shared: Arc<Shared>,
    group: Arc<Group>,
    level: Level,
    invariant: PhantomData<fn(&'scope ()) -> &'scope ()>,
}

impl<'scope> Scope<'scope> {
    /// Spawns a part of the scope: it runs on a worker, or on the thread that waits for the scope
    /// to end. It may borrow what lives longer than the scope, and spawn further parts.
    ///
    /// It is never refused. If the queue is full it runs right here, before `spawn` returns: so do
    /// not hold a lock over the call that the part takes too. Its priority is that of the task
    /// that opened the scope. A panic in it is resumed by the scope.
    ///
    /// Cost: the scope's lock; an allocation, unless the closure has no more than three words.
    pub fn spawn<F>(&self, f: F)
    where
        F: FnOnce(&Self) + Send + 'scope,
    {
        let group = Arc::clone(&self.group);
        let part = move |call: &Call<'_>| {
            let scope = Self {
                shared: Arc::clone(call.shared),
                group,
                level: call.level,
                invariant: PhantomData,
            };
            scope.call(f, call);
        };
        // SAFETY: invariants 1 and 2: the part is counted below; while it is, `'scope` lasts.
        let part = unsafe { Task::borrowing(part) };
        context::of(&self.shared, |frame| {
            let has_room = self.shared.accept_part(frame, self.level);
            let mut state = self.group.lock();
            state.unfinished += 1;
            if !has_room {
                drop(state);
                self.group
                    .do_part(&self.shared, part, self.level, Source::Spawner);
                return;
            }
            state.queued.push_back(part);
            if state.waiting {
                self.group.changed.notify_all();
            }
            // No more hints than there are workers to take them.
            let hint = state.hints < self.shared.crew.live();
            state.hints += usize::from(hint);
            drop(state);
            if hint {
                let group = Arc::clone(&self.group);
                let level = self.level;
                self.shared.hint(frame, level, group.hint(level));
            }
        });
    }

    fn call<F: FnOnce(&Self)>(&self, f: F, call: &Call<'_>) {
        call.begin();
        match catch_unwind(AssertUnwindSafe(|| f(self))) {
            Ok(()) => call.counters.ended(End::Completed),
            Err(payload) => {
                self.group.panicked(payload);
                call.counters.ended(End::Panicked);
            }
        }
        call.settled();
    }
}

impl fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("pool", &self.shared.parts.name)
            .finish_non_exhaustive()
    }
}

/// Runs the operation in the pool, on this thread, and then whatever it spawned and nobody has
/// taken; returns when all has ended.
pub(crate) fn run<'scope, R>(
    shared: &Arc<Shared>,
    operation: impl FnOnce(&Scope<'scope>) -> R,
) -> R {
    let group = Arc::new(Group::default());
    let result = shared.inside(|frame| {
        let level = frame.seat.level();
        let _ended = Ended {
            shared,
            group: &group,
            level,
        };
        let scope = Scope {
            shared: Arc::clone(shared),
            group: Arc::clone(&group),
            level,
            invariant: PhantomData,
        };
        catch_unwind(AssertUnwindSafe(|| operation(&scope)))
    });
    let panic = group.lock().panic.take();
    match (result, panic) {
        (Ok(result), None) => result,
        (Ok(result), Some(payload)) => {
            survive(|| drop(result));
            resume_unwind(payload)
        }
        (Err(payload), other) => {
            if let Some(other) = other {
                drop_payload(other);
            }
            resume_unwind(payload)
        }
    }
}

/// Invariant 3: when this is gone, so are the parts.
struct Ended<'a> {
    shared: &'a Arc<Shared>,
    group: &'a Group,
    level: Level,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut state = self.group.lock();
        while state.unfinished > 0 {
            // The newest first: others take the oldest.
            if let Some(part) = state.queued.pop_back() {
                drop(state);
                self.shared.count_here(Other::Claimed);
                self.group
                    .do_part(self.shared, part, self.level, Source::Queue);
                state = self.group.lock();
            } else {
                state.waiting = true;
                state = wait(&self.group.changed, state);
                state.waiting = false;
            }
        }
    }
}

/// The parts of one scope.
#[derive(Default)]
pub(crate) struct Group {
    state: Mutex<GroupState>,
    changed: Condvar,
}

#[derive(Default)]
struct GroupState {
    unfinished: usize,
    /// Those that nobody has begun.
    queued: VecDeque<Task>,
    /// How many entries in the pool's queues point here.
    hints: usize,
    /// Whether the one who waits for the end sleeps.
    waiting: bool,
    /// The first panic.
    panic: Option<Box<dyn Any + Send>>,
}

impl Group {
    /// A worker came by a hint. It runs some parts, then looks whether there is something higher to
    /// do.
    fn help(self: &Arc<Self>, shared: &Arc<Shared>, level: Level) {
        const IN_A_ROW: usize = 16;
        for _ in 0..IN_A_ROW {
            let mut state = self.lock();
            let Some(part) = state.queued.pop_front() else {
                state.hints -= 1;
                return;
            };
            drop(state);
            self.do_part(shared, part, level, Source::Queue);
        }
        let hint = Arc::clone(self).hint(level);
        context::of(shared, |frame| shared.hint(frame, level, hint));
    }

    fn hint(self: Arc<Self>, level: Level) -> Task {
        Task::new(move |call| match call.discard {
            None => self.help(call.shared, level),
            // The parts stay: somebody waits for them.
            Some(_) => self.lock().hints -= 1,
        })
    }

    fn do_part(&self, shared: &Arc<Shared>, part: Task, level: Level, from: Source) {
        shared.with_call(level, from, None, |call| part.call(call));
        self.finished();
    }

    /// A part is gone.
    fn finished(&self) {
        let mut state = self.lock();
        state.unfinished -= 1;
        if state.waiting && state.unfinished == 0 {
            self.changed.notify_all();
        }
    }

    fn panicked(&self, payload: Box<dyn Any + Send>) {
        let mut state = self.lock();
        if state.panic.is_none() {
            state.panic = Some(payload);
            return;
        }
        drop(state);
        drop_payload(payload);
    }

    fn lock(&self) -> MutexGuard<'_, GroupState> {
        lock(&self.state)
    }
}
