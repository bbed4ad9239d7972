//! Work on borrowed data, over before the borrow is. The crate's only unsafe code.
//!
//! # Invariants
//!
//! 1. A body made by [`Scope::spawn`] borrows for `'scope`. It is given to the pool as if it
//!    borrowed nothing, and [`run`] does not return, nor unwind, before it is gone.
//! 2. `unfinished` counts the bodies that are not gone. It goes up in `spawn`, before the pool has
//!    the body, and down in [`Group::finished`], which the engine calls after the call of the body,
//!    which consumes it, has returned. A body that is lost without being called leaves the count
//!    up: then `run` waits for ever, and the borrow stays valid.
//! 3. `run` waits for the count to be zero in a destructor, so on each way out. When it has seen
//!    zero, no body exists that could spawn another one, and the `&Scope` given to the operation
//!    is gone.
//! 4. What outlives a body in the pool (its signal, the group) is `'static` by type. Results go
//!    where the body itself puts them, while the borrow is valid.
//! 5. `Scope<'scope>` is invariant in `'scope` and only lent, so that nobody can shorten the
//!    lifetime or keep the scope.
//! 6. `Shared::settle` does not unwind: a body catches what it runs and drops, so the destructor
//!    of 3 is not left early.

#![expect(
    unsafe_code,
    reason = "bodies that borrow wait in a queue that outlives them"
)]

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::marker::PhantomData;
use std::mem::transmute;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use overdrive_core::unwind::{drop_payload, survive};
use overdrive_core::{Deadline, Priority};

use crate::context;
use crate::engine::Shared;
use crate::job::{Body, Fate, Job, Outcome, Signal};
use crate::queue::Ticket;

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
    priority: Priority,
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
    /// Cost: two allocations, and the locks of the scope and of the pool.
    pub fn spawn<F>(&self, f: F)
    where
        F: FnOnce(&Self) + Send + 'scope,
    {
        let scope = Self {
            shared: Arc::clone(&self.shared),
            group: Arc::clone(&self.group),
            priority: self.priority,
            invariant: PhantomData,
        };
        let body: BorrowingBody<'scope> = Box::new(move |fate| scope.call(f, fate));
        // SAFETY: invariant 2: the body is counted below, by the group that its job signals; while
        // it is, `'scope` lasts.
        let body = unsafe { erase(body) };
        let job = Job {
            body,
            signal: Signal::Scope(Arc::clone(&self.group)),
            priority: self.priority,
            deadline: Deadline::NEVER,
        };
        let mut state = self.group.lock();
        state.unfinished += 1;
        match self.shared.fork(job) {
            Ok(ticket) => {
                state.queued.push_back(ticket);
                if state.waiting {
                    self.group.changed.notify_all();
                }
            }
            Err(job) => {
                drop(state);
                self.shared.settle(job, None, None);
            }
        }
    }

    fn call<F: FnOnce(&Self)>(&self, f: F, fate: Fate) -> Outcome {
        match fate {
            Fate::Run => match catch_unwind(AssertUnwindSafe(|| f(self))) {
                Ok(()) => Outcome::Completed,
                Err(payload) => {
                    self.group.panicked(payload);
                    Outcome::Panicked(None)
                }
            },
            Fate::Discard(reason) => {
                survive(|| drop(f));
                Outcome::Discarded(reason)
            }
        }
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
    let priority = context::priority_in(shared);
    let _inside = context::enter(shared, priority);
    let group = Arc::new(Group::default());
    let result = {
        let _ended = Ended {
            shared,
            group: &group,
        };
        let scope = Scope {
            shared: Arc::clone(shared),
            group: Arc::clone(&group),
            priority,
            invariant: PhantomData,
        };
        catch_unwind(AssertUnwindSafe(|| operation(&scope)))
    };
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

/// Invariant 3: when this is gone, so are the bodies.
struct Ended<'a> {
    shared: &'a Arc<Shared>,
    group: &'a Group,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let mut state = self.group.lock();
        while state.unfinished > 0 {
            // The newest first: others take the oldest.
            if let Some(ticket) = state.queued.pop_back() {
                drop(state);
                self.shared.claim_and_run(ticket);
                state = self.group.lock();
            } else {
                state.waiting = true;
                let waited = self.group.changed.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
                state.waiting = false;
            }
        }
    }
}

/// The bodies of one scope.
#[derive(Default)]
pub(crate) struct Group {
    state: Mutex<GroupState>,
    changed: Condvar,
}

#[derive(Default)]
struct GroupState {
    unfinished: usize,
    /// Those that no worker has begun, ascending: they have one priority, and each is queued and
    /// listed under this lock.
    queued: VecDeque<Ticket>,
    /// Whether the one who waits for the end sleeps.
    waiting: bool,
    /// The first panic.
    panic: Option<Box<dyn Any + Send>>,
}

impl Group {
    /// A worker took that body out of the queue.
    pub(crate) fn started(&self, ticket: Ticket) {
        let mut state = self.lock();
        // Not there if the one who waits was about to claim it.
        if let Ok(place) = state.queued.binary_search(&ticket) {
            state.queued.remove(place);
        }
    }

    /// A body is gone.
    pub(crate) fn finished(&self) {
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type BorrowingBody<'scope> = Box<dyn FnOnce(Fate) -> Outcome + Send + 'scope>;

/// Hides that a body borrows.
///
/// # Safety
/// The body must be gone before the end of `'scope`.
unsafe fn erase(body: BorrowingBody<'_>) -> Body {
    // SAFETY: the types differ in a lifetime only; that it lasts is the caller's promise.
    unsafe { transmute::<BorrowingBody<'_>, Body>(body) }
}
