//! Closing, draining, shutting down; and who is told.

use std::sync::Arc;

use overdrive_core::{Deadline, DrainReport};

use crate::call::{Call, Reason, Source};
use crate::engine::Shared;
use crate::queue::{Level, steal};
use crate::raw::context;
use crate::sync::{Ordering, fence, lock};
use crate::wait::wait_until;

impl Shared {
    /// Whether every accepted task has ended. Counts only go up, and a task is accepted before it
    /// ends: if the ends, counted first, equal the beginnings, there was a moment in between when
    /// nothing was outstanding.
    pub(crate) fn is_idle(&self) -> bool {
        let ends = self.ends();
        fence(Ordering::SeqCst);
        ends == self.spawns()
    }

    /// Whether the workers have nothing to wait for.
    pub(crate) fn is_over(&self) -> bool {
        self.ending.load(Ordering::SeqCst) && self.is_idle()
    }

    /// Tells those who wait for it if nothing is outstanding.
    pub(crate) fn tell_idle(&self) {
        fence(Ordering::SeqCst);
        if self.idle.waiting.load(Ordering::SeqCst) > 0 && self.is_idle() {
            let _waiting = lock(&self.idle.lock);
            self.idle.changed.notify_all();
        }
    }

    /// A task has ended on a thread that is no worker, and so will not look by itself.
    pub(crate) fn settled_outside(&self) {
        self.tell_idle();
        if self.is_over() {
            self.wake_for_the_end();
        }
    }

    fn wake_for_the_end(&self) {
        while let Some(worker) = self.sleep.wake_another() {
            self.unpark(worker);
        }
        self.keeper.stir();
    }

    /// A worker leaves, as the pool is over or there are too many. Whether it may.
    pub(crate) fn leave(&self, least: usize) -> bool {
        if self.is_over() {
            self.crew.end();
            self.wake_for_the_end();
            return true;
        }
        self.crew.leave(least)
    }

    /// Lets the workers end once nothing is outstanding.
    pub(crate) fn end(&self) {
        self.close();
        self.ending.store(true, Ordering::SeqCst);
        self.wake_for_the_end();
    }

    pub(crate) fn drain(&self, deadline: Deadline) -> DrainReport {
        let before = self.ends();
        let mut is_idle = self.is_idle();
        if !is_idle && !context::is_in(self) {
            self.idle.waiting.fetch_add(1, Ordering::SeqCst);
            fence(Ordering::SeqCst);
            let mut waiting = lock(&self.idle.lock);
            loop {
                is_idle = self.is_idle();
                if is_idle {
                    break;
                }
                let (guard, in_time) = wait_until(&self.idle.changed, waiting, deadline);
                waiting = guard;
                if !in_time {
                    break;
                }
            }
            drop(waiting);
            self.idle.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        let after = self.ends();
        fence(Ordering::SeqCst);
        // A task that is refused is in the count for a moment: what was seen idle, was.
        let abandoned = match is_idle {
            true => 0,
            false => self.spawns().saturating_sub(after),
        };
        DrainReport::new(after - before, abandoned)
    }

    pub(crate) fn shutdown(self: &Arc<Self>, deadline: Deadline) -> DrainReport {
        self.end();
        let report = self.drain(deadline);
        if report.is_complete() {
            self.join_threads();
        } else if deadline.has_passed() {
            self.discard_queued();
        }
        report
    }

    /// The parts of joins and scopes stay: somebody waits for them and will run them.
    fn discard_queued(self: &Arc<Self>) {
        let discard = |level, task: crate::raw::task::Task| {
            self.inside(|frame| {
                task.call(&Call {
                    shared: self,
                    counters: frame
                        .local
                        .map_or_else(|| self.outside(), |local| local.counters(self)),
                    local: frame.local,
                    level,
                    from: Source::Queue,
                    discard: Some(Reason::Abandoned),
                });
            });
        };
        for level in [Level::HIGH, Level::NORMAL, Level::LOW] {
            while let Some(task) = self.queues.take(level, None) {
                discard(level, task);
            }
        }
        for slot in &self.slots {
            while let Some(task) = steal(|| slot.stealer.steal()) {
                discard(Level::NORMAL, task);
            }
        }
    }

    fn join_threads(&self) {
        if context::is_in(self) {
            return;
        }
        for thread in self
            .take_threads()
            .into_iter()
            .chain(self.keeper.take_thread())
        {
            // A destructor of a worker's thread-local may get here.
            if thread.thread().id() != crate::sync::current_thread().id() {
                // Workers catch what tasks panic with.
                let _ = thread.join();
            }
        }
    }
}
