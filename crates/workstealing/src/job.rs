//! A piece of work on its way, and how its end is made known.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use overdrive_core::unwind::survive;
use overdrive_core::{Deadline, Priority};

use crate::error::PanicPayload;
use crate::scope::Group;
use crate::wait::wait_until;

/// What a job does when its fate is known. It never unwinds, and when it has returned, nothing of
/// the user's closure is left but the result, which is with whoever waits for it.
pub(crate) type Body = Box<dyn FnOnce(Fate) -> Outcome + Send>;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fate {
    Run,
    Discard(Reason),
}

/// Why a job does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Cancelled,
    Abandoned,
    Expired,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    Completed,
    /// With the payload, if nobody else was given it.
    Panicked(Option<PanicPayload>),
    Discarded(Reason),
}

pub(crate) struct Job {
    pub(crate) body: Body,
    pub(crate) signal: Signal,
    pub(crate) priority: Priority,
    pub(crate) deadline: Deadline,
}

/// Who is told of a job's end.
pub(crate) enum Signal {
    Nobody,
    Handle(Arc<Latch>),
    Scope(Arc<Group>),
}

/// The body of work without a result.
pub(crate) fn detached(f: impl FnOnce() + Send + 'static) -> Body {
    Box::new(move |fate| match fate {
        Fate::Run => match catch_unwind(AssertUnwindSafe(f)) {
            Ok(()) => Outcome::Completed,
            Err(payload) => Outcome::Panicked(Some(PanicPayload::new(payload))),
        },
        Fate::Discard(reason) => {
            survive(|| drop(f));
            Outcome::Discarded(reason)
        }
    })
}

/// Set once, when a job has ended.
#[derive(Debug, Default)]
pub(crate) struct Latch {
    state: Mutex<LatchState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct LatchState {
    set: bool,
    waker: Option<Waker>,
}

impl Latch {
    /// Releases blocked waiters. The waker is the caller's to call, once it holds no lock.
    pub(crate) fn set(&self) -> Option<Waker> {
        let mut state = self.lock();
        state.set = true;
        self.changed.notify_all();
        state.waker.take()
    }

    pub(crate) fn is_set(&self) -> bool {
        self.lock().set
    }

    pub(crate) fn wait(&self) {
        self.wait_until(Deadline::NEVER);
    }

    /// Whether it was set by then.
    pub(crate) fn wait_until(&self, deadline: Deadline) -> bool {
        let mut state = self.lock();
        while !state.set {
            let (guard, in_time) = wait_until(&self.changed, state, deadline);
            state = guard;
            if !in_time {
                break;
            }
        }
        state.set
    }

    /// Whether it is set; if not, that waker will be returned by `set`.
    pub(crate) fn register(&self, waker: &Waker) -> bool {
        let waker = waker.clone();
        let mut state = self.lock();
        if state.set {
            return true;
        }
        let old = state.waker.replace(waker);
        drop(state);
        // A waker's destructor is user code: it runs without the lock.
        drop(old);
        false
    }

    /// Nobody is to be woken any more. The waker is the caller's to drop.
    pub(crate) fn forget(&self) -> Option<Waker> {
        self.lock().waker.take()
    }

    fn lock(&self) -> MutexGuard<'_, LatchState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
