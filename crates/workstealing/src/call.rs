//! The call of a task: where, on whose account, and to what end.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use overdrive_core::Deadline;
use overdrive_core::unwind::{drop_payload, survive};

use crate::counters::{Counters, End};
use crate::engine::Shared;
use crate::error::{PanicPayload, TaskError};
use crate::queue::Level;
use crate::worker::Local;

/// Why a task does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Cancelled,
    Abandoned,
    Expired,
}

impl Reason {
    pub(crate) const fn end(self) -> End {
        match self {
            Self::Cancelled => End::Cancelled,
            Self::Abandoned => End::Abandoned,
            Self::Expired => End::Expired,
        }
    }
}

impl From<Reason> for TaskError {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Cancelled => Self::Cancelled,
            Reason::Abandoned => Self::Abandoned,
            Reason::Expired => Self::DeadlineExceeded,
        }
    }
}

/// Where a task comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The queue: its place is free again.
    Queue,
    /// A handle: its entry stays in the queue, as a stale one.
    Handle,
    /// Its spawner, who found no room in the queue.
    Spawner,
}

pub(crate) struct Call<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) counters: &'a Counters,
    /// The worker's own, if one calls.
    pub(crate) local: Option<&'a Local>,
    pub(crate) level: Level,
    pub(crate) from: Source,
    /// It is not to run.
    pub(crate) discard: Option<Reason>,
}

impl Call<'_> {
    /// The task is the caller's now.
    #[inline]
    pub(crate) fn begin(&self) {
        self.counters.started(self.level);
        if self.from == Source::Queue {
            self.shared.free_place(self.local);
            if let Some(local) = self.local {
                local.begins(self.level);
            }
        }
    }

    /// Nothing of the task is left.
    #[inline]
    pub(crate) fn settled(&self) {
        self.counters.settled();
        if self.local.is_none() {
            self.shared.settled_outside();
        }
    }

    /// Why the task is not run, if it is not.
    pub(crate) fn verdict(&self, deadline: Deadline) -> Option<Reason> {
        self.discard
            .or_else(|| self.shared.has_passed(deadline).then_some(Reason::Expired))
    }

    #[inline]
    pub(crate) fn detached(&self, f: impl FnOnce()) {
        self.begin();
        match self.discard {
            None => self.run(f),
            Some(reason) => self.drop(f, reason),
        }
        self.settled();
    }

    pub(crate) fn detached_until(&self, deadline: Deadline, f: impl FnOnce()) {
        self.begin();
        match self.verdict(deadline) {
            None => self.run(f),
            Some(reason) => self.drop(f, reason),
        }
        self.settled();
    }

    #[inline]
    fn run(&self, f: impl FnOnce()) {
        match catch_unwind(AssertUnwindSafe(f)) {
            Ok(()) => self.counters.ended(End::Completed),
            Err(payload) => self.panicked(payload),
        }
    }

    #[cold]
    fn drop(&self, f: impl FnOnce(), reason: Reason) {
        survive(|| drop(f));
        self.counters.ended(reason.end());
    }

    #[cold]
    fn panicked(&self, payload: Box<dyn Any + Send>) {
        self.report(PanicPayload::new(payload));
        self.counters.ended(End::Panicked);
    }

    /// Tells of a panic that nobody else is told of.
    pub(crate) fn report(&self, payload: PanicPayload) {
        if let Some(handler) = &self.shared.parts.on_panic {
            survive(|| handler(&payload));
        }
        drop_payload(payload.into_inner());
    }
}
