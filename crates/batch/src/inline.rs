//! Batches that their submitters run themselves: workers without threads.
//!
//! Waking such a worker is running it, there and then: nothing of the batcher is locked where workers
//! are woken. A worker that runs is not parked, so it is not woken again before it is through. One that
//! is woken by what its own thread does meanwhile sits down again: a handler is never called within
//! itself, and the stack does not grow with the workers.

use std::any::Any;
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

use crate::after::After;
use crate::engine::{Next, Ready, Shared};
use crate::sync::{AtomicBool, Ordering};
use crate::workers::{Handler, employed, is_employed, run};

/// After so many batches a submitter leaves the rest to those who wait for it, if it has run a fifth of
/// what was there: to find them takes a look at all of it.
const UNBROKEN: u32 = if cfg!(overdrive_shuttle) { 2 } else { 16 };

/// What runs batches, until the batcher ends.
struct Core<T, R, E, H> {
    shared: Arc<Shared<T, R, E>>,
    handler: H,
    /// Whether a worker was called on a thread that was at it, and may have been about to leave.
    missed: AtomicBool,
}

struct Inline<T, R, E, H> {
    core: Weak<Core<T, R, E, H>>,
    worker: usize,
}

/// Parks workers of that handler in all places of the batcher. They are there as long as what is
/// returned.
pub(crate) fn employ_submitters<T, R, E, L, A, F>(
    shared: &Arc<Shared<T, R, E>>,
    handler: Handler<A, F, L>,
) -> Arc<dyn Any + Send + Sync>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + Sync + 'static,
    L: 'static,
    A: Fn() -> Result<L, E> + Send + Sync + 'static,
    F: Fn(L, Vec<T>) -> Result<Vec<R>, E> + Send + Sync + 'static,
{
    let core = Arc::new(Core {
        shared: Arc::clone(shared),
        handler,
        missed: AtomicBool::new(false),
    });
    for worker in 0..shared.rules.workers {
        let core = Arc::downgrade(&core);
        shared.enlist(worker, &Waker::from(Arc::new(Inline { core, worker })));
        let _parks = shared.next(worker, Ready::Called, &mut After::new());
    }
    core
}

impl<T, R, E, L, A, F> Wake for Inline<T, R, E, Handler<A, F, L>>
where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + Sync + 'static,
    L: 'static,
    A: Fn() -> Result<L, E> + Send + Sync + 'static,
    F: Fn(L, Vec<T>) -> Result<Vec<R>, E> + Send + Sync + 'static,
{
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(core) = self.core.upgrade() {
            core.called(self.worker);
        }
    }
}

impl<T, R, E, L, A, F> Core<T, R, E, Handler<A, F, L>>
where
    A: Fn() -> Result<L, E>,
    F: Fn(L, Vec<T>) -> Result<Vec<R>, E>,
{
    fn called(&self, worker: usize) {
        let shared = &self.shared;
        if is_employed(shared) {
            shared.sit_down(worker);
            self.missed.store(true, Ordering::SeqCst);
            return;
        }
        let mut called = Some(worker);
        while let Some(worker) = called {
            if employed(shared, || self.work(worker)) {
                shared.worker_gone(worker);
            }
            let missed = self.missed.swap(false, Ordering::SeqCst);
            called = missed.then(|| shared.summon()).flatten();
        }
    }

    /// Runs batches; whether it is the end.
    fn work(&self, worker: usize) -> bool {
        let shared = &*self.shared;
        let mut after = After::new();
        let mut next = shared.next(worker, Ready::Called, &mut after);
        let (mut batches, mut items_run) = (0, 0);
        while let Next::Batch(items, origins) = next {
            batches += 1;
            items_run += items.len();
            let verdict = run(shared, worker, &self.handler, None, items, origins);
            next = if batches < UNBROKEN {
                shared.publish(worker, verdict, &mut after)
            } else {
                let asks = shared.deliver(worker, verdict, &mut after);
                if !asks || shared.leave_the_rest(worker, &mut items_run, &mut after) {
                    return false;
                }
                shared.next(worker, Ready::Called, &mut after)
            };
        }
        matches!(next, Next::Ended)
    }
}
