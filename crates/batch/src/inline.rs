//! Batches that their submitters run themselves: workers without threads.
//!
//! Waking such a worker is running it, there and then: nothing of the batcher is locked where workers
//! are woken. A worker that runs is not parked, so it is not woken again before it is through.

use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};

use crate::after::After;
use crate::engine::{Next, Ready, Shared};
use crate::workers::{Handler, employed, run};

/// After so many batches a submitter leaves the rest to those who wait for it.
const UNBROKEN: u32 = if cfg!(overdrive_shuttle) { 2 } else { 16 };

struct Inline<T, R, E, F> {
    shared: Weak<Shared<T, R, E>>,
    worker: usize,
    handler: Arc<F>,
}

/// Parks workers of that handler in all places of the batcher.
pub(crate) fn employ_submitters<T, R, E, L, A, F>(
    shared: &Arc<Shared<T, R, E>>,
    handler: &Arc<Handler<A, F, L>>,
) where
    T: Send + 'static,
    R: Send + 'static,
    E: Send + Sync + 'static,
    L: 'static,
    A: Fn() -> Result<L, E> + Send + Sync + 'static,
    F: Fn(L, Vec<T>) -> Result<Vec<R>, E> + Send + Sync + 'static,
{
    for worker in 0..shared.rules.workers {
        let inline = Inline {
            shared: Arc::downgrade(shared),
            worker,
            handler: Arc::clone(handler),
        };
        shared.enlist(worker, &Waker::from(Arc::new(inline)));
        let _parks = shared.next(worker, Ready::Called, &mut After::new());
    }
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
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        employed(&shared, || self.work(&shared));
    }
}

impl<T, R, E, L, A, F> Inline<T, R, E, Handler<A, F, L>>
where
    A: Fn() -> Result<L, E>,
    F: Fn(L, Vec<T>) -> Result<Vec<R>, E>,
{
    fn work(&self, shared: &Shared<T, R, E>) {
        let mut after = After::new();
        let mut next = shared.next(self.worker, Ready::Called, &mut after);
        let mut unbroken = 0;
        while let Next::Batch(items, origins) = next {
            let verdict = run(shared, self.worker, &*self.handler, None, items, origins);
            unbroken += 1;
            next = if unbroken % UNBROKEN == 0 {
                let asks = shared.deliver(self.worker, verdict, &mut after);
                if !asks || shared.leave_the_rest(self.worker, &mut after) {
                    return;
                }
                shared.next(self.worker, Ready::Called, &mut after)
            } else {
                shared.publish(self.worker, verdict, &mut after)
            };
        }
        if let Next::Ended = next {
            shared.worker_gone(self.worker);
        }
    }
}
